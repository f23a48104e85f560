"""Small writes of one turn, sent at its end: whole, in order, once, whatever happens to the connection meanwhile."""

from __future__ import annotations

import hashlib
import random
import socket
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from lbsvc.net.together import LIGHT, MOST, Outbox, write_now, writer_for
from tests.net.reactors import ReactorCase
from tests.net.secured import SecureCase, narrow
from tests.net.test_reactor_writes import small_buffers


@implementer(IPushProducer)
class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def waiting(far: socket.socket) -> bytes:
    """What has arrived by now."""
    patience = far.gettimeout()
    far.setblocking(False)
    try:
        return far.recv(1 << 20)
    except BlockingIOError:
        return b""
    finally:
        far.settimeout(patience)


def received(far: socket.socket, size: int) -> bytes:
    """So many bytes, as soon as they have arrived."""
    return far.recv(size, socket.MSG_WAITALL)


class TogetherTests(ReactorCase):
    def setUp(self) -> None:
        super().setUp()
        self.outbox = Outbox(self.reactor)

    def test_end_of_turn(self) -> None:
        """Nothing goes before the turn's end; then everything does, and the next write may again go together."""
        server, far = self.accepted()
        for word in (b"one", b"two"):
            self.outbox.write(server.transport, word)
            self.assertEqual(waiting(far), b"")
            self.reactor.doPoll(3600)  # does not wait
            self.assertEqual(received(far, 3), word)
        self.assertEqual(server.transport.queued, 0)

    def test_enough(self) -> None:
        """Where MOST wait they are sent in the middle of the turn."""
        pairs = [self.accepted() for _ in range(MOST + 1)]
        for server, _ in pairs[:-2]:
            self.outbox.write(server.transport, b"x")
        self.assertEqual(waiting(pairs[0][1]), b"")
        self.outbox.write(pairs[-2][0].transport, b"y")
        self.assertEqual([received(far, 1) for _, far in pairs[:-1]], [b"x"] * (MOST - 1) + [b"y"])
        self.outbox.write(pairs[-1][0].transport, b"z")
        self.assertEqual(waiting(pairs[-1][1]), b"")
        self.reactor.doPoll(0)
        self.assertEqual(received(pairs[-1][1], 1), b"z")

    def test_what_comes_behind(self) -> None:
        """Later writes in the same turn, of any kind, keep their place behind it."""
        server, far = self.accepted()
        transport = server.transport
        self.outbox.write(transport, b"a")
        transport.write(b"b")
        self.outbox.write(transport, b"c")
        transport.writeSequence([b"d", b"e"])
        self.spin(lambda: transport.queued == 0)
        self.assertEqual(received(far, 5), b"abcde")
        self.outbox.write(transport, b"f")
        self.reactor.doPoll(0)
        self.assertEqual(received(far, 1), b"f")

    def test_random(self) -> None:
        """Hundreds of writes of random sizes, together, at once and in sequences, against small buffers, by checksum."""
        rng = random.Random(11)
        server, client = self.pair()
        small_buffers(server.transport)
        sent = hashlib.sha256()
        for number in range(400):
            piece = rng.randbytes(rng.choice((0, 1, 50, 700, 9000, LIGHT, LIGHT + 1)))
            sent.update(piece)
            kind = rng.randrange(4)
            if kind == 0:
                server.transport.write(piece)
            elif kind == 1:
                server.transport.writeSequence([piece[:10], piece[10:]])
            else:
                self.outbox.write(server.transport, piece)
            if number % 7 == 0:
                self.turn(1)
        server.transport.loseConnection()
        self.spin(lambda: client.lost)
        self.assertEqual(hashlib.sha256(client.received).digest(), sent.digest())

    def test_closed_behind_it(self) -> None:
        """loseConnection and loseWriteConnection close once it has been sent."""
        server, far = self.accepted()
        self.outbox.write(server.transport, b"bye")
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"bye")
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionDone])
        server, far = self.accepted()
        self.outbox.write(server.transport, b"bye")
        server.transport.loseWriteConnection()
        self.assertEqual(self.read_all(far), b"bye")
        self.assertEqual(server.lost, [])

    def test_lost(self) -> None:
        """A connection that is cut, or lost, before the turn's end takes nobody with it."""
        cut, cut_far = self.accepted()
        lost, _ = self.accepted()
        sound, far = self.accepted()
        for server in (cut, lost, sound):
            self.outbox.write(server.transport, b"x")
        cut.transport.abortConnection()
        self.reactor._end(lost.transport, ConnectionDone(), False)
        self.reactor.doPoll(0)
        self.assertEqual(waiting(cut_far), b"")
        self.spin(lambda: cut.lost)
        self.assertEqual(received(far, 1), b"x")
        self.assertEqual((cut.lost, len(lost.lost)), ([ConnectionAborted], 1))
        self.assertRaises(ConnectionResetError, cut_far.recv, 10)

    def test_reset(self) -> None:
        """A client that has gone in the meantime is found out as ever: its connection is lost, once."""
        server, far = self.accepted()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        self.outbox.write(server.transport, b"x")
        self.outbox.flush()  # before it is seen by reading
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionLost])

    def test_full(self) -> None:
        """What the kernel does not take stays queued, in order; the producer hears of it as of any other write."""
        server, far = self.accepted()
        producer = Producer()
        transport = server.transport
        transport.registerProducer(producer, True)
        small_buffers(transport)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = 0
        while "pause" not in producer.told:
            self.outbox.write(transport, b"%07d\n" % sent * (LIGHT // 8))
            sent += 1
            self.turn(1)
        taken = bytearray()

        def read() -> bool:
            taken.extend(waiting(far))
            return len(taken) == sent * LIGHT

        self.spin(read)
        expected = b"".join(b"%07d\n" % number * (LIGHT // 8) for number in range(sent))
        self.assertEqual(hashlib.sha256(taken).digest(), hashlib.sha256(expected).digest())
        self.assertEqual(producer.told[-1], "resume")

    def test_taken_in_part(self) -> None:
        """Of a piece that the kernel takes in part the rest follows."""
        server, far = self.accepted()
        send = server.transport._send
        server.transport._send = lambda data: send(data[:3])
        self.outbox.write(server.transport, b"0123456789")
        self.outbox.flush()
        self.assertEqual((received(far, 3), server.transport.queued), (b"012", 7))
        self.spin(lambda: server.transport.queued == 0)
        self.assertEqual(received(far, 7), b"3456789")

    def test_failing_producer(self) -> None:
        """A producer that raises when it is paused costs its own connection only, and is logged."""
        server, _ = self.accepted()
        sound, far = self.accepted()
        small_buffers(server.transport)
        raised: list[int] = []

        class Failing(Producer):
            def pauseProducing(self) -> None:
                raised.append(1)
                raise ZeroDivisionError

        server.transport.registerProducer(Failing(), True)
        server.transport.bufferSize = 10
        while not raised:
            self.outbox.write(server.transport, b"x" * LIGHT)
            self.outbox.write(sound.transport, b"y")
            self.turn(1)
            self.assertEqual(received(far, 1), b"y")
        self.spin(lambda: server.lost)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_large_and_strange(self) -> None:
        """Large pieces go at once, as does what is given to transports and reactors that are not ours."""
        server, far = self.accepted()
        self.outbox.write(server.transport, b"x" * (LIGHT + 1))
        self.assertEqual(len(received(far, LIGHT + 1)), LIGHT + 1)
        strange = StringTransport()
        self.outbox.write(strange, b"a")
        self.assertIs(writer_for(object()), write_now)
        write: Any = writer_for(object())
        write(strange, b"b")
        self.assertEqual(strange.value(), b"ab")


class SealedTests(SecureCase):
    """The same on our own TLS."""

    def test_records(self) -> None:
        """Nothing goes before the turn's end, then all does, mixed with other writes and in order; reading goes on."""
        near, far = self.connect()
        outbox = Outbox(self.reactor)
        for number in range(20):
            word = b"%03d" % number
            outbox.write(near.transport, word)
            if number % 3 == 0:
                near.transport.write(b"-" * number)
                word += b"-" * number
            self.assertEqual(far.read_some(), b"")
            self.assertEqual(far.read(len(word)), word)
            far.write(word)
            self.spin(lambda word=word: near.received.endswith(word))
        self.assertEqual(near.transport.queued, 0)

    def test_full(self) -> None:
        """What the kernel does not take follows when it does; a read that was put off meanwhile comes back."""
        near, far = self.connect()
        narrow(near, far)
        outbox = Outbox(self.reactor)
        sent = hashlib.sha256()
        size = 0
        while not near.transport.queued:
            content = b"%07d\n" % size * (LIGHT // 8)
            outbox.write(near.transport, content)
            sent.update(content)
            size += len(content)
            self.reactor.doPoll(0)
        self.assertEqual(hashlib.sha256(far.read(size)).digest(), sent.digest())
        self.spin(lambda: not near.transport.queued)
        outbox.write(near.transport, b"x")
        near.transport._read_when_written()  # as for a second key update
        self.assertFalse(self.reactor.watches(near.transport))
        far.write(b"y")
        self.assertEqual(far.read(1), b"x")
        self.spin(lambda: near.received)

    def test_end(self) -> None:
        """A close behind it says close_notify behind it."""
        near, far = self.connect()
        outbox = Outbox(self.reactor)
        outbox.write(near.transport, b"bye")
        near.transport.loseConnection()
        self.assertEqual(far.read_to_end(), (b"bye", "close_notify"))
        far.close()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])
