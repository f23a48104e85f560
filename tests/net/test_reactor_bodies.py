"""Bodies of 64 KiB and their heads: one read, one write, and nobody is paused for what the kernel takes at once."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
from typing import Any

from lbsvc.net.transports import READ_SIZE
from tests.net.reactors import ReactorCase, Side

HEAD = b"H" * 300
BODY = b"b" * 65536


class Marks:
    """A producer that remembers when it was paused."""

    def __init__(self) -> None:
        self.marks: list[str] = []

    def pauseProducing(self) -> None:
        self.marks.append("pause")

    def resumeProducing(self) -> None:
        self.marks.append("resume")

    def stopProducing(self) -> None:
        self.marks.append("stop")


def waiting(transport: Any) -> int:
    """Bytes in its socket, unread."""
    found = array.array("i", [0])
    fcntl.ioctl(transport.getHandle().fileno(), termios.FIONREAD, found)
    return found[0]


class BodyTests(ReactorCase):
    def test_read(self) -> None:
        """What is in the socket is read at once, up to READ_SIZE."""
        pieces: list[int] = []
        near, far = self.accepted()
        near.on_data = lambda data: pieces.append(len(data))
        near.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        near.transport.pauseProducing()
        far.sendall(HEAD)
        far.sendall(BODY)
        total = len(HEAD) + len(BODY)
        self.spin(lambda: waiting(near.transport) == total)
        near.transport.resumeProducing()
        self.spin(lambda: sum(pieces) == total)
        self.assertEqual(pieces, [total] if total < READ_SIZE else [READ_SIZE, total - READ_SIZE])

    def test_written_at_once(self) -> None:
        """More than the high water mark that the kernel takes pauses nobody, and is gone when `write` returns."""
        for in_pieces in (False, True):
            near, far = self.accepted(Side())
            transport = near.transport
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            flow = Marks()
            transport.registerProducer(flow, True)
            if in_pieces:
                transport.writeSequence((HEAD, BODY))
            else:
                transport.write(HEAD + BODY)
            self.assertEqual((flow.marks, transport.queued), ([], 0))
            transport.unregisterProducer()
            transport.loseConnection()
            self.assertEqual(self.read_all(far), HEAD + BODY)

    def test_not_taken(self) -> None:
        """What the kernel does not take of it pauses the producer, is queued, and goes on from where it stopped."""
        for in_pieces in (False, True):
            near, far = self.accepted(Side())
            transport = near.transport
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            flow = Marks()
            transport.registerProducer(flow, True)
            sent = b""
            while not flow.marks:
                sent += HEAD + BODY
                if in_pieces:
                    transport.writeSequence((HEAD, BODY))
                else:
                    transport.write(HEAD + BODY)
            self.assertGreater(transport.queued, transport.bufferSize)
            transport.unregisterProducer()
            transport.loseConnection()
            self.assertEqual(self.read_all(far), sent)
