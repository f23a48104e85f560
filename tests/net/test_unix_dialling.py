"""Dialling unix sockets: one answer, whatever happens; a full queue is waited for; on our reactor and on Twisted's."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.address import UNIXAddress
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableDescriptor, ISystemHandle, ITCPTransport
from twisted.internet.selectreactor import SelectReactor
from zope.interface.verify import verifyObject

from lbsvc.core.backend import Outcome
from lbsvc.net.connector import dial
from lbsvc.net.dialing import OVER, DialedUnixClient
from tests.net.reactors import PATIENCE, HalfSide, ReactorCase, Side
from tests.net.test_connector import descriptors
from tests.net.test_listener import Ordinary


class UnixBackendCase(ReactorCase):
    """A path, and a plain socket that listens there."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="lbsvc-test-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.path = str(self.folder / "backend.sock")
        self.near: Any = HalfSide()

    def serve(self, backlog: int = 10) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        self.ends.append(server)
        server.bind(self.path)
        server.listen(backlog)
        server.settimeout(PATIENCE)
        return server

    def fill(self) -> socket.socket:
        """A backend whose queue is full."""
        server = self.serve(0)
        far = socket.socket(socket.AF_UNIX)
        self.ends.append(far)
        far.connect(self.path)
        return server

    def accept(self, server: socket.socket) -> socket.socket:
        far, _ = server.accept()
        self.ends.append(far)
        far.settimeout(PATIENCE)
        return far


class DialTests(UnixBackendCase):
    """By net/connector.py."""

    def setUp(self) -> None:
        super().setUp()
        self.failures: list[tuple[Outcome, str]] = []

    def dial(self, timeout: float = 20.0) -> Any:
        return dial(self.reactor, self.path, 0, self.near, timeout, self.failed)

    def failed(self, outcome: Outcome, detail: str) -> None:
        self.failures.append((outcome, detail))

    @property
    def timers(self) -> int:
        return len(self.reactor.getDelayedCalls())

    def test_connected(self) -> None:
        """The protocol is connected, and bytes and ends go both ways; a cancel after that does nothing."""
        server = self.serve()
        dialling = self.dial()
        self.spin(lambda: self.near.made)
        far = self.accept(server)
        dialling.cancel()
        far.sendall(b"there")
        self.spin(lambda: self.near.received == b"there")
        blob = os.urandom(1_000_000)
        self.near.transport.write(blob)
        self.near.transport.loseWriteConnection()
        self.assertEqual(self.read_all(far), blob)
        far.sendall(b"late")
        far.close()
        self.spin(lambda: self.near.received == b"therelate" and "read" in self.near.ends)
        self.assertEqual((self.failures, self.timers), ([], 0))

    def test_transport(self) -> None:
        """What comes is a transport like those of TCP, as far as the roads ask it anything."""
        server = self.serve()
        self.dial()
        self.spin(lambda: self.near.made)
        transport = self.near.transport
        self.assertEqual(transport.getPeer(), UNIXAddress(self.path.encode()))
        self.assertEqual(transport.getHandle().gettimeout(), 0)
        self.assertFalse(transport.getTcpNoDelay())
        transport.setTcpNoDelay(True)
        far = self.accept(server)
        transport.abortConnection()
        self.spin(lambda: self.near.lost)
        self.assertEqual(self.near.lost, [ConnectionAborted])
        self.assertEqual(far.recv(10), b"")

    def test_failures(self) -> None:
        """Each failure is a failed connect, in words; no socket and no timer is left."""
        left = self.folder / "left"
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(left))
        datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ends.append(datagrams)
        datagrams.bind(str(self.folder / "datagrams"))
        (self.folder / "file").touch()
        opened = descriptors()
        for name, words in (
            ("none", "no such socket"),
            ("none/lb.sock", "no such socket"),
            ("left", "connection refused"),
            ("file", "connection refused"),
            ("file/lb.sock", "Not a directory"),
            ("datagrams", "Protocol wrong type for socket"),
        ):
            self.failures.clear()
            self.path = str(self.folder / name)
            self.dial().cancel()
            self.turn()
            self.assertEqual(self.failures, [(Outcome.CONNECT_FAILED, words)], name)
        self.assertEqual((self.near.made, self.timers, descriptors()), (False, 0, opened))

    def test_not_allowed(self) -> None:
        """A socket that we may not write to is a failed connect."""
        with patch("socket.socket.connect", side_effect=PermissionError(errno.EACCES, "Permission denied")):
            self.dial()
        self.assertEqual(self.failures, [(Outcome.CONNECT_FAILED, "Permission denied")])

    def test_path_too_long(self) -> None:
        """A path that the kernel cannot take is one, too; the configuration has none such."""
        self.path = "/" + "a" * 120
        self.dial()
        self.assertEqual(self.failures, [(Outcome.CONNECT_FAILED, "AF_UNIX path too long")])

    def test_no_descriptor(self) -> None:
        """Having no descriptor for it is nobody's failure."""
        self.serve()
        with patch("lbsvc.net.dialing.BareSocket", side_effect=OSError(errno.EMFILE, "Too many open files")):
            self.dial()
        self.assertEqual(self.failures, [(Outcome.ABANDONED, "Too many open files")])

    def test_waits_for_a_full_queue(self) -> None:
        """Where the backend's queue is full the dial comes through as soon as there is room."""
        server = self.fill()
        dialling = self.dial()
        self.turn(10)
        self.assertEqual((self.near.made, self.failures, self.timers), (False, [], 1))
        self.accept(server)
        self.spin(lambda: self.near.made)
        dialling.cancel()
        far = self.accept(server)
        far.sendall(b"there")
        self.spin(lambda: self.near.received == b"there")
        self.assertEqual((self.failures, self.timers), ([], 0))

    def test_timeout(self) -> None:
        """One whose queue stays full is a timeout, as it is before a port; no socket and no timer is left."""
        self.fill()
        opened = descriptors()
        self.dial(0.05)
        self.assertEqual(descriptors(), opened)
        self.spin(lambda: self.failures)
        self.assertEqual(self.failures, [(Outcome.CONNECT_TIMEOUT, "timed out")])
        self.assertEqual((self.timers, descriptors()), (0, opened))

    def test_gone_while_waited_for(self) -> None:
        """A backend that goes while it is waited for is a failed connect."""
        server = self.fill()
        self.dial()
        os.unlink(self.path)
        server.close()
        self.spin(lambda: self.failures)
        self.assertEqual((self.failures, self.timers), ([(Outcome.CONNECT_FAILED, "no such socket")], 0))

    def test_cancelled_while_waiting(self) -> None:
        """A cancelled dial calls nothing and leaves nothing."""
        server = self.fill()
        dialling = self.dial()
        dialling.cancel()
        dialling.cancel()
        self.accept(server)
        self.turn(10)
        self.assertEqual((self.near.made, self.failures, self.timers), (False, [], 0))

    def test_seldom(self) -> None:
        """While it waits it tries a few times, at ever longer distances, and not in each turn of the reactor."""
        self.fill()
        tries: list[str] = []
        connect = socket.socket.connect

        def counted(skt: socket.socket, path: str) -> None:
            tries.append(path)
            connect(skt, path)

        pauses: list[float] = []
        later = self.reactor.callLater

        def soon(seconds: float, act: Any, *arguments: Any) -> Any:
            pauses.append(seconds)
            return later(0, act, *arguments)

        self.patch(self.reactor, "callLater", soon)
        with patch("socket.socket.connect", counted):
            self.dial(1.0)
            self.spin(lambda: self.failures)
        self.assertEqual(len(tries), len(pauses) + 1)
        self.assertLess(len(tries), 20)
        self.assertAlmostEqual(sum(pauses), 1.0)
        self.assertEqual(pauses[:4], [0.005, 0.01, 0.02, 0.04])
        self.assertLessEqual(max(pauses), 0.1)

    def test_fault_in_the_protocol(self) -> None:
        """A protocol whose connectionMade raises is connected as far as the dial is concerned: no failure is told."""
        self.serve()
        self.near.on_made = lambda: 1 / 0
        self.dial()
        self.spin(lambda: self.near.lost)
        self.assertEqual((self.failures, self.timers), ([], 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class EPollDialTests(DialTests):
    kind = EPollReactor


class SelectDialTests(Ordinary, DialTests):
    kind = SelectReactor


class LeanDialTests(UnixBackendCase):
    """By our own reactor's `dial`."""

    def setUp(self) -> None:
        super().setUp()
        self.failures: list[OSError] = []

    def dial(self) -> Any:
        return self.reactor.dial(self.path, 0, self.near, self.failures.append)

    def test_at_once(self) -> None:
        """It is over when it returns: connected with one of our own transports, or failed."""
        server = self.serve()
        self.assertIs(self.dial(), OVER)
        self.assertTrue(self.near.made)
        transport = self.near.transport
        self.assertIsInstance(transport, DialedUnixClient)
        for interface in (ITCPTransport, ISystemHandle, IHalfCloseableDescriptor):
            self.assertTrue(verifyObject(interface, transport))
        self.assertEqual(transport.getHost(), UNIXAddress(None))
        self.assertEqual(
            (repr(transport), transport.logPrefix()), (f"<connection to unix:{self.path}>", "HalfSide,client")
        )
        self.accept(server)
        os.unlink(self.path)
        self.assertIs(self.dial(), OVER)
        self.assertEqual([type(problem) for problem in self.failures], [FileNotFoundError])

    def test_full_queue(self) -> None:
        """A full queue is EAGAIN at once."""
        self.fill()
        self.assertIs(self.dial(), OVER)
        self.assertEqual([problem.errno for problem in self.failures], [errno.EAGAIN])

    def test_fault(self) -> None:
        """An exception in connectionMade is logged and ends that connection."""
        server = self.serve()
        self.near = Side()
        self.near.on_made = lambda: 1 / 0
        self.dial()
        self.turn()
        self.assertEqual((self.failures, len(self.near.lost)), ([], 1))
        self.assertEqual(self.accept(server).recv(10), b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_all_that_was_sent(self) -> None:
        """A backend that sends much and closes at once is read to its end, however often reading was paused meanwhile."""
        server = self.serve()
        self.dial()
        far = self.accept(server)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        blob = os.urandom(150_000)
        self.near.transport.pauseProducing()
        far.sendall(blob)
        far.close()
        self.turn(5)
        self.assertEqual((bytes(self.near.received), self.near.lost), (b"", []))
        self.near.on_data = lambda piece: self.near.transport.pauseProducing()
        while "read" not in self.near.ends:
            had = len(self.near.received)
            self.near.transport.resumeProducing()
            self.spin(lambda had=had: len(self.near.received) > had or self.near.ends)  # type: ignore[misc]
        self.assertEqual((bytes(self.near.received), self.near.lost), (blob, []))
