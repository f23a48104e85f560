"""Bytes over TLS transports: all of them arrive, in order, whatever the sizes, the pauses and the slowness of readers."""

from __future__ import annotations

import array
import fcntl
import random
import termios
from typing import Any

from OpenSSL._util import lib

from lbsvc.net import secure
from tests.net.reactors import Side
from tests.net.secured import SecureCase, narrow

RECORD = 16384
SIZES = (1, 100, RECORD - 1, RECORD, RECORD + 1, 4 * RECORD - 1, 4 * RECORD, 4 * RECORD + 1, 1 << 20)


class Pauses:
    """A push producer that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def unread(near: Any) -> int:
    """Bytes that wait in the kernel for our end."""
    found = array.array("i", [0])
    fcntl.ioctl(near.transport.fileno(), termios.FIONREAD, found)
    return found[0]


class Carrying(SecureCase):
    """The tests for either side and version."""

    def test_sizes_out(self) -> None:
        """What we write arrives unchanged, whatever its size, and however it is cut."""
        near, far = self.connect()
        for size in SIZES:
            content = random.Random(size).randbytes(size)
            near.transport.write(content)
            self.assertEqual(far.read(size), content)
            near.transport.writeSequence([content[: size // 3], b"", content[size // 3 :]])
            self.assertEqual(far.read(size), content)
        self.assertEqual(near.transport.queued, 0)

    def test_sizes_in(self) -> None:
        """What the other side writes arrives unchanged, in pieces of four records at most, and nothing is held back."""
        near, far = self.connect()
        pieces: list[int] = []
        near.on_data = lambda data: pieces.append(len(data))
        for size in SIZES:
            content = random.Random(size).randbytes(size)
            near.received.clear()
            far.write(content)
            self.spin(lambda size=size: len(near.received) == size)
            self.assertEqual(near.received, content)
        self.assertLessEqual(max(pieces), 4 * RECORD)

    def test_nothing(self) -> None:
        """Writing nothing sends nothing, and harms nothing."""
        near, far = self.connect()
        self.spin(lambda: not unread(near))
        near.transport.write(b"")
        near.transport.writeSequence([])
        near.transport.writeSequence([b"", b""])
        self.turn()
        self.assertEqual(far.read_some(), b"")
        near.transport.write(b"something")
        self.assertEqual(far.read(9), b"something")

    def test_nothing_is_wrong_type(self) -> None:
        """Text is refused, as by any transport, and the connection is as before."""
        near, far = self.connect()
        self.assertRaises(TypeError, near.transport.write, "text")
        near.transport.write(b"bytes")
        self.assertEqual(far.read(5), b"bytes")

    def test_both_ways_at_once(self) -> None:
        """A writer that is stuck reads on, and what it reads does not disturb what it writes."""
        near, far = self.connect()
        out, back = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(300_000)
        narrow(near, far)
        near.transport.write(out)
        self.assertGreater(near.transport.queued, 0)
        far.write(back)
        self.spin(lambda: len(near.received) == len(back))
        self.assertEqual(near.received, back)
        self.assertEqual(far.read(len(out)), out)

    def test_slow_reader(self) -> None:
        """A producer is paused while nobody reads, resumed when somebody does; nothing is lost, doubled or reordered."""
        near, far = self.connect()
        narrow(near, far)
        dice = random.Random(3)
        producer = Pauses()
        near.transport.registerProducer(producer, True)
        sent, received = bytearray(), bytearray()
        while len(sent) < 2_000_000 or received != sent:
            if producer.calls[-1:] != ["pause"] and len(sent) < 2_000_000:
                piece = dice.randbytes(dice.choice((1, 50, 5000, RECORD, RECORD + 1, 70_000)))
                sent += piece
                near.transport.write(piece)
                self.assertLess(near.transport.queued, near.transport.bufferSize + 70_001)
            received += far.read_some(dice.choice((1, 999, RECORD)))
            self.turn(dice.randrange(2))
            self.assertTrue(sent.startswith(received[-100:], len(received[:-100])), len(received))
        self.assertGreater(producer.calls.count("pause"), 5)
        self.assertEqual(producer.calls, ["pause", "resume"] * (len(producer.calls) // 2))
        self.assertEqual(near.lost, [])

    def test_stopped_reader(self) -> None:
        """While the other side reads nothing we hold what was written, once, and go on from there when it reads."""
        near, far = self.connect()
        narrow(near, far)
        blob = random.Random(4).randbytes(5_000_000)
        near.transport.write(blob)
        self.turn(50)
        held = near.transport.queued
        self.assertGreater(held, 3_000_000)
        self.assertIs(near.transport.dataBuffer, blob)
        near.transport.write(b"more")
        self.turn(50)
        self.assertEqual(near.transport.queued, held + 4)
        self.assertEqual(far.read(len(blob) + 4), blob + b"more")

    def test_paused_reader(self) -> None:
        """Paused, we take nothing; it is the other side that has to wait. After a resume all of it comes, in order."""
        near, far = self.connect()
        near.transport.pauseProducing()
        blob = random.Random(5).randbytes(20_000_000)
        done = far.write_some(blob)
        self.turn(10)
        self.assertEqual((near.received, far.write_some(blob[done:]) < 10_000_000), (b"", True))
        self.assertLess(done, len(blob))
        near.transport.resumeProducing()
        self.spin(lambda: len(near.received) >= done)
        self.assertEqual(near.received[:done], blob[:done])

    def test_pause_between_records(self) -> None:
        """Whoever pauses at each piece gets no other before the resume, and in the end every byte: none stays in OpenSSL."""
        near, far = self.connect()
        pieces: list[int] = []

        def pause(data: bytes) -> None:
            pieces.append(len(data))
            near.transport.pauseProducing()

        near.on_data = pause
        for blob in (bytes(RECORD), bytes(4 * RECORD), bytes(9 * RECORD), bytes(4 * RECORD + 1), bytes(100_001)):
            near.received.clear()
            far.write(blob)
            while len(near.received) < len(blob):
                pieces.clear()
                near.transport.resumeProducing()
                self.spin(lambda: pieces)
                self.turn()
                self.assertEqual(len(pieces), 1)
                self.assertEqual(lib.SSL_pending(near.transport._ssl), 0)

    def test_pause_from_the_beginning(self) -> None:
        """Paused in connectionMade, a connection hears nothing before it resumes."""
        near = Side()
        near.on_made = lambda: near.transport.pauseProducing()
        near, far = self.connect(near)
        far.write(b"early")
        self.turn(10)
        self.assertEqual(near.received, b"")
        near.transport.resumeProducing()
        self.spin(lambda: near.received == b"early")

    def test_first_words(self) -> None:
        """What is written in connectionMade is the first that the other side reads, a megabyte of it too."""
        near, blob = Side(), random.Random(6).randbytes(1_000_000)
        near.on_made = lambda: (near.transport.write(b"greeting;"), near.transport.write(blob))
        _, far = self.connect(near)
        self.assertEqual(far.read(len(blob) + 9), b"greeting;" + blob)

    def test_echo_within_reading(self) -> None:
        """Writing and reading go through one buffer for all: an answer from within dataReceived is not spoilt."""
        near, far = self.connect()
        near.on_data = lambda data: near.transport.write(data)
        blob = random.Random(7).randbytes(500_000)
        received = bytearray()
        left = memoryview(blob)
        while len(received) < len(blob):
            left = left[far.write_some(left[:40_000]) :]  # type: ignore[arg-type]
            received += far.read_some()
            self.turn(1)
        self.assertEqual(received, blob)

    def test_fairness(self) -> None:
        """One event takes four records, whatever waits behind them."""
        near, far = self.connect()
        near.transport.pauseProducing()
        far.write_some(bytes(1_000_000))
        near.transport.resumeProducing()
        self.reactor.iterate(0)
        self.assertLessEqual(len(near.received), 4 * RECORD)

    def test_pull_producer(self) -> None:
        """A pull producer is asked until it has given all."""
        near, far = self.connect()
        left = [b"%07d" % number for number in range(500)]

        class Pulled:
            def resumeProducing(self) -> None:
                if left:
                    near.transport.write(left.pop(0))
                else:
                    near.transport.unregisterProducer()

            def stopProducing(self) -> None:
                left.clear()

        near.transport.registerProducer(Pulled(), False)
        self.assertEqual(far.read(3500), b"".join(b"%07d" % number for number in range(500)))

    def test_read_that_must_write(self) -> None:
        """Where OpenSSL cannot read before it has written, the connection waits for that, and does not spin."""
        near, far = self.connect()
        self.spin(lambda: not unread(near))
        calls: list[int] = []

        def stuck(*args: Any) -> int:
            calls.append(0)
            return -1

        narrow(near, far)
        near.transport.write(bytes(1_000_000))
        with_read, with_error = secure._read, secure._get_error
        self.patch(secure, "_read", stuck)
        self.patch(secure, "_get_error", lambda *args: lib.SSL_ERROR_WANT_WRITE)
        far.write_some(b"waits")
        self.spin(lambda: calls)
        self.turn(50)
        self.assertLess(len(calls), 10)  # one for each time that the kernel had room
        self.assertFalse(self.reactor.watches(near.transport))
        secure._read, secure._get_error = with_read, with_error  # type: ignore[misc]
        self.assertEqual(far.read(1_000_000), bytes(1_000_000))
        self.spin(lambda: near.received == b"waits")

    def test_pause_while_read_must_write(self) -> None:
        """The same, but paused meanwhile: it is not read when the socket takes bytes again."""
        near, far = self.connect()
        self.spin(lambda: not unread(near))
        with_read, with_error = secure._read, secure._get_error
        self.patch(secure, "_read", lambda *args: -1)
        self.patch(secure, "_get_error", lambda *args: lib.SSL_ERROR_WANT_WRITE)
        far.write_some(b"waits")
        self.spin(lambda: not self.reactor.watches(near.transport))
        near.transport.pauseProducing()
        secure._read, secure._get_error = with_read, with_error  # type: ignore[misc]
        self.turn(10)
        self.assertEqual(near.received, b"")
        near.transport.resumeProducing()
        self.spin(lambda: near.received == b"waits")


class ServerCarryingTests(Carrying):
    """Accepted, TLS 1.3."""


class OldServerCarryingTests(Carrying):
    """Accepted, TLS 1.2."""

    version = "TLSv1.2"


class ClientCarryingTests(Carrying):
    """Dialled, TLS 1.3."""

    role = "client"


class OldClientCarryingTests(Carrying):
    """Dialled, TLS 1.2."""

    role = "client"
    version = "TLSv1.2"


del Carrying
