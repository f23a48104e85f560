"""The last words of a connection: they leave with its end, whatever their size, and are lost by nothing that goes wrong."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost

from lbsvc.net.together import write_last
from tests.net.reactors import ReactorCase


class LastWriteTests(ReactorCase):
    def test_with_either_end(self) -> None:
        """Small, large or none, behind what is queued or not, all arrives, and then the end: of one side, or of both."""
        for before in (b"", b"b" * 3_000_000):
            for size in (0, 1, 1000, 16384, 100_000):
                for end in ("loseConnection", "loseWriteConnection"):
                    server, far = self.accepted()
                    if before:
                        server.transport.write(before)
                    write_last(server.transport, b"x" * size)
                    getattr(server.transport, end)()
                    self.assertEqual(self.read_all(far), before + b"x" * size)

    def test_one_segment(self) -> None:
        """A small answer waits for the end: nothing of it has left before."""
        server, far = self.accepted()
        far.setblocking(False)
        write_last(server.transport, b"bye")
        self.assertRaises(BlockingIOError, far.recv, 10)
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"bye")
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionDone])

    def test_taken_in_part(self) -> None:
        """What the socket does not take is queued, and goes before the end."""
        server, far = self.accepted()
        server.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        real, flags = server.transport._send, []

        def half(data: bytes, *more: Any) -> int:
            flags.append(more)
            return int(real(data[: max(len(data) // 2, 1)], *more))

        server.transport._send = half
        write_last(server.transport, b"0123456789" * 1000)
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"0123456789" * 1000)
        self.assertEqual(flags[0], (socket.MSG_MORE,))

    def test_unread_bytes(self) -> None:
        """Though something lies unread, so that the end is a reset, what was said last has left before."""
        server, far = self.accepted()
        server.transport.pauseProducing()
        far.sendall(b"more")
        self.turn(3)
        write_last(server.transport, b"bye")
        server.transport.loseConnection()
        self.spin(lambda: server.lost)
        self.assertEqual(far.recv(10), b"bye")

    def test_nobody_there(self) -> None:
        """To a client that has reset nothing is raised, and the loss is told once."""
        server, far = self.accepted()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        far.close()
        write_last(server.transport, b"x")
        write_last(server.transport, b"x")
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionLost])

    def test_transports_of_others(self) -> None:
        """A transport that knows no last write gets an ordinary one."""

        class Plain:
            written: list[bytes] = []

            def write(self, data: bytes) -> None:
                self.written.append(data)

        write_last(Plain(), b"x")
        self.assertEqual(Plain.written, [b"x"])
