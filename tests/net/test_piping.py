"""Much at a time from one transport to another: it arrives as it was sent, whoever is slow, ends or is lost."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from lbsvc.net.transports import READ_SIZE
from tests.net.reactors import HalfSide, ReactorCase, Side

BLOB = random.Random(16).randbytes(3_000_000)


@implementer(IPushProducer)
class Flow:
    """Stops one transport while another has too much."""

    def __init__(self, transport: Any) -> None:
        self.pauseProducing = transport.pauseProducing
        self.resumeProducing = transport.resumeProducing

    def stopProducing(self) -> None:
        pass


class BulkTests(ReactorCase):
    def joined(self, near: Side | None = None) -> tuple[Any, socket.socket, Any, socket.socket]:
        """Two accepted connections, piped to each other, and their far ends."""
        one, left = self.accepted(near)
        other, right = self.accepted()
        for from_, to in ((one.transport, other.transport), (other.transport, one.transport)):
            from_.pipe_to(to)
            to.registerProducer(Flow(from_), True)
        for far in (left, right):
            far.setblocking(False)
        return one, left, other, right

    def carry(
        self, left: socket.socket, right: socket.socket, blob: bytes, looked: Callable[[], object] = bool
    ) -> bytes:
        """Send all of it to one end and read as much at the other."""
        rest, received = memoryview(blob), bytearray()

        def is_through() -> bool:
            nonlocal rest
            try:
                rest = rest[left.send(rest) :]
            except BlockingIOError:
                pass
            self.reactor.iterate(0)
            looked()
            try:
                received.extend(right.recv(1 << 20))
            except BlockingIOError:
                pass
            return len(received) >= len(blob)

        self.spin(is_through)
        return bytes(received)

    def test_both_ways(self) -> None:
        """Much of it arrives as it was sent, and is counted; so does little, behind it; the protocols see none of it."""
        one, left, other, right = self.joined()
        self.assertEqual(self.carry(left, right, BLOB), BLOB)
        self.assertEqual(self.carry(right, left, BLOB[::-1]), BLOB[::-1])
        self.assertEqual((one.transport.piped, other.transport.piped), (len(BLOB), len(BLOB)))
        for number in range(5):
            self.assertEqual(self.carry(left, right, b"word %d" % number), b"word %d" % number)
        self.assertEqual((one.received, other.received), (b"", b""))

    def test_slow_reader(self) -> None:
        """What a slow reader's socket does not take is queued: never more than a read and the water mark, and in order."""
        one, left, other, right = self.joined()
        other.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        most = [0]

        def look() -> None:
            most[0] = max(most[0], other.transport.queued)

        self.assertEqual(self.carry(left, right, BLOB, look), BLOB)
        self.assertGreater(most[0], 0)
        self.assertLessEqual(most[0], READ_SIZE + other.transport.bufferSize)
        self.assertEqual(one.transport.piped, len(BLOB))

    def test_end(self) -> None:
        """The end behind much is told to the protocol, once all that came before it is through."""
        near = HalfSide()
        one, left, _, right = self.joined(near)
        self.assertEqual(self.carry(left, right, BLOB), BLOB)
        left.shutdown(socket.SHUT_WR)
        self.spin(lambda: near.ends == ["read"])
        self.assertEqual(self.carry(right, left, BLOB), BLOB)
        self.assertEqual(one.transport.piped, len(BLOB))

    def test_lost(self) -> None:
        """A reader that resets in the midst is lost, and nothing of what was meant for it is left for another."""
        _, left, other, right = self.joined()
        self.carry(left, right, BLOB[:1_000_000])
        right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        right.close()

        def is_lost() -> bool:
            try:
                left.send(BLOB[:500_000])
            except BlockingIOError:
                pass
            return bool(other.lost)

        self.spin(is_lost)
        self.assertEqual(other.lost, [ConnectionLost])
        _, third, _, fourth = self.joined()
        self.assertEqual(self.carry(third, fourth, BLOB), BLOB)

    def test_nobody_to_go_to(self) -> None:
        """A pipe that is taken away while much flows leaves the rest to the protocol, in order."""
        one, left, _, right = self.joined()
        self.carry(left, right, BLOB)
        one.transport.pipe_to(None)
        left.setblocking(True)
        left.sendall(BLOB[:50_000])
        self.spin(lambda: len(one.received) == 50_000)
        self.assertEqual(one.received, BLOB[:50_000])
