"""Sockets made and closed by C alone are sockets in every other respect."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.net.bare import BareSocket


class BareTests(SynchronousTestCase):
    def pair(self) -> tuple[socket.socket, socket.socket]:
        """One end bare, made of a descriptor as an accepted one is."""
        near, far = socket.socketpair()
        bare = BareSocket(near.family, near.type, 0, near.detach())
        self.addCleanup(far.close)
        self.addCleanup(bare.close)
        return bare, far

    def test_of_a_descriptor(self) -> None:
        """One that is made of a descriptor sends, receives, and knows what it is."""
        bare, far = self.pair()
        bare.sendall(b"there")
        far.sendall(b"and back")
        self.assertEqual((far.recv(10), bare.recv(10)), (b"there", b"and back"))
        self.assertEqual((bare.family, bare.type), (socket.AF_UNIX, socket.SOCK_STREAM))
        self.assertFalse(bare.get_inheritable())
        self.assertIn("BareSocket", repr(bare))

    def test_close(self) -> None:
        """Closing it tells the other end; closing it again does nothing, and its repr still says what it was."""
        bare, far = self.pair()
        bare.close()
        self.assertEqual((far.recv(1), bare.fileno()), (b"", -1))
        bare.close()
        self.assertIn("BareSocket", repr(bare))
        with BareSocket(socket.AF_INET, socket.SOCK_STREAM, 0) as another:
            number = another.fileno()
        self.assertEqual(another.fileno(), -1)
        self.assertRaises(OSError, os.fstat, number)

    def test_detach(self) -> None:
        """Its descriptor can be taken away from it."""
        bare, far = self.pair()
        number = bare.detach()
        self.assertEqual(bare.fileno(), -1)
        os.write(number, b"x")
        os.close(number)
        self.assertEqual(far.recv(2), b"x")

    def test_file(self) -> None:
        """A file can be made of it."""
        bare, far = self.pair()
        far.sendall(b"line\n")
        with bare.makefile("rb") as file:
            self.assertEqual(file.readline(), b"line\n")
