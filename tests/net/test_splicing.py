"""Relays of much at a time: what they promise is the same with splice, with a reader that is slow, and without it."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from lbsvc.net.splicing import splicer
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
    def setUp(self) -> None:
        super().setUp()
        splicer.close()
        self.addCleanup(splicer.close)
        self.spliced: list[int] = []  # what each call of splice has moved
        real = getattr(os, "splice", None)

        def counted(*args: Any, **keys: Any) -> int:
            assert real is not None
            size = int(real(*args, **keys))
            self.spliced.append(size)
            return size

        self.patch(os, "splice", counted)

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
        """Much of it goes through the kernel, arrives as it was sent and is counted; little, behind it, goes as always."""
        one, left, other, right = self.joined()
        self.assertEqual(self.carry(left, right, BLOB), BLOB)
        self.assertEqual(self.carry(right, left, BLOB[::-1]), BLOB[::-1])
        self.assertGreater(sum(self.spliced), 2 * len(BLOB))  # each byte twice, but for the first reads
        self.assertEqual((one.transport.piped, other.transport.piped), (len(BLOB), len(BLOB)))
        del self.spliced[:]
        for number in range(5):
            self.assertEqual(self.carry(left, right, b"word %d" % number), b"word %d" % number)
        self.assertLessEqual(len(self.spliced), 2)  # the first may find that there is little
        self.assertEqual((one.received, other.received), (b"", b""))

    def test_slow_reader(self) -> None:
        """What a slow reader's socket does not take is queued: never more than a read and the water mark, and in order."""
        one, left, other, right = self.joined()
        other.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        most = [0]

        def look() -> None:
            most[0] = max(most[0], other.transport.queued)

        self.assertEqual(self.carry(left, right, BLOB, look), BLOB)
        self.assertTrue(self.spliced)
        self.assertGreater(most[0], 0)
        self.assertLessEqual(most[0], 256 * 1024 + other.transport.bufferSize)
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

    def test_refused(self) -> None:
        """Where splice fails, into the pipe or out of it, all goes on without, and it is not tried again."""
        real = os.splice
        for refused_call in (1, 2):
            calls: list[int] = []

            def refuse(*args: Any, refused_call: int = refused_call, calls: list[int] = calls, **keys: Any) -> int:
                calls.append(1)
                if len(calls) >= refused_call:
                    raise PermissionError(1, "not here")
                return real(*args, **keys)

            splicer.close()
            self.patch(os, "splice", refuse)
            one, left, _, right = self.joined()
            self.assertEqual(self.carry(left, right, BLOB), BLOB)
            self.assertEqual((len(calls), one.transport.piped), (refused_call, len(BLOB)))

    def test_not_there(self) -> None:
        """Where there is no pipe to be had, all goes on without."""

        def no_pipe(flags: int) -> tuple[int, int]:
            raise OSError(24, "too many open files")

        self.patch(os, "pipe2", no_pipe)
        _, left, _, right = self.joined()
        self.assertEqual(self.carry(left, right, BLOB), BLOB)
        self.assertEqual(self.spliced, [])
