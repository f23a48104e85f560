"""What is written arrives: whole, in order, once, and with every way of ending as Twisted has it."""

from __future__ import annotations

import hashlib
import io
import random
import socket
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.protocols.basic import FileSender

from lbsvc.net.ports import FastServer
from lbsvc.net.transports import FastConnection
from tests.net.reactors import HalfSide, ReactorCase, Side, TwistedsOwn


def small_buffers(transport: Any) -> None:
    transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


class WriteTests(ReactorCase):
    def test_random_writes(self) -> None:
        """Thousands of writes of random sizes, by write and writeSequence, both ways at once, arrive by checksum."""
        rng = random.Random(7)
        sides = self.pair()
        sent = [hashlib.sha256(), hashlib.sha256()]
        total = [0, 0]
        small_buffers(sides[0].transport)
        for number in range(4000):
            which = rng.randrange(2)
            pieces = [rng.randbytes(rng.choice((0, 1, 7, 100, 1000, 9000))) for _ in range(rng.randrange(4))]
            transport = sides[which].transport
            if len(pieces) == 1:
                transport.write(pieces[0])
            else:
                transport.writeSequence(pieces)
            for piece in pieces:
                sent[which].update(piece)
                total[which] += len(piece)
            if number % 50 == 0:
                self.turn(1)
        self.spin(lambda: [len(side.received) for side in sides] == [total[1], total[0]])
        for which in range(2):
            self.assertEqual(hashlib.sha256(sides[1 - which].received).digest(), sent[which].digest())

    def test_large_writes_and_small_buffers(self) -> None:
        """Writes far above what the socket takes arrive whole, mixed with small ones that come after."""
        server, far = self.accepted()
        small_buffers(server.transport)
        blob = random.Random(1).randbytes(3_000_000)
        server.transport.write(blob[:2_000_000])
        server.transport.write(blob[2_000_000:2_000_010])
        server.transport.writeSequence([blob[2_000_010:2_500_000], blob[2_500_000:]])
        server.transport.loseConnection()
        self.assertEqual(hashlib.sha256(self.read_all(far)).digest(), hashlib.sha256(blob).digest())
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionDone])

    def test_sequences(self) -> None:
        """writeSequence takes no piece, empty pieces, more pieces than one syscall, and pieces too many to join."""
        for pieces in ([], [b""], [b"a", b"", b"b"], [b"xy"] * 3000, [b"x" * 20000, b"y" * 20000], [b"z" * 70000] * 9):
            server, far = self.accepted()
            server.transport.writeSequence(pieces)
            server.transport.loseConnection()
            self.assertEqual(self.read_all(far), b"".join(pieces))

    def test_sequence_in_parts(self) -> None:
        """A sequence that the socket takes in part, by whole and by cut pieces, arrives whole and before later writes."""
        server, far = self.accepted()
        small_buffers(server.transport)
        pieces = [bytes([number]) * 9000 for number in range(6)]
        for _ in range(20):
            server.transport.writeSequence(pieces)
        server.transport.write(b"end")
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"".join(pieces) * 20 + b"end")

    def test_only_bytes(self) -> None:
        """Text, bytearray and None are refused by both ways of writing, and nothing of the call is sent."""
        server, far = self.accepted()
        for wrong in ("text", bytearray(b"x"), None, memoryview(b"x")):
            with self.assertRaises(TypeError):
                server.transport.write(wrong)
            with self.assertRaises(TypeError):
                server.transport.writeSequence([b"good", wrong])
        server.transport.write(b"")
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"")

    def test_file_sender(self) -> None:
        """A pull producer (FileSender) sends its whole file, also with writes before and after it."""
        server, far = self.accepted()
        blob = random.Random(2).randbytes(700_000)
        server.transport.write(b"before")
        done = FileSender().beginFileTransfer(io.BytesIO(blob), server.transport)
        done.addCallback(lambda _: (server.transport.write(b"after"), server.transport.loseConnection()))
        self.assertEqual(self.read_all(far), b"before" + blob + b"after")

    def test_file_sender_to_a_reader_that_goes(self) -> None:
        """A pull producer whose consumer is lost is told to stop, and no error is logged."""
        server, far = self.accepted()
        failures: list[Any] = []
        FileSender().beginFileTransfer(io.BytesIO(bytes(9_000_000)), server.transport).addErrback(failures.append)
        self.turn()
        far.close()
        self.spin(lambda: server.lost)
        self.assertEqual(len(failures), 1)

    def test_after_abort(self) -> None:
        """Nothing that is written after abortConnection is sent, and connectionLost is not called within it."""
        server, far = self.accepted()
        server.transport.abortConnection()
        server.transport.write(b"too late")
        server.transport.writeSequence([b"too", b"late"])
        self.assertEqual(server.lost, [])
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionAborted])
        self.assertRaises(ConnectionResetError, far.recv, 10)

    def test_abort_drops_the_queue(self) -> None:
        """abortConnection with much queued resets at once."""
        server, far = self.accepted()
        server.transport.write(bytes(8_000_000))
        server.transport.abortConnection()
        self.spin(lambda: server.lost)
        with self.assertRaises(ConnectionResetError):
            while far.recv(1 << 20):
                pass

    def test_after_lose_connection(self) -> None:
        """What is written between loseConnection and the close is still sent; after the close nothing is."""
        server, far = self.accepted()
        server.transport.write(b"one ")
        server.transport.loseConnection()
        self.assertEqual(server.lost, [])
        server.transport.write(b"two")
        self.assertEqual(self.read_all(far), b"one two")
        self.spin(lambda: server.lost)
        server.transport.write(b"three")
        server.transport.writeSequence([b"four"])
        server.transport.loseConnection()
        server.transport.abortConnection()
        server.transport.pauseProducing()
        server.transport.resumeProducing()
        self.turn()
        self.assertEqual(server.lost, [ConnectionDone])

    def test_reset_by_the_peer(self) -> None:
        """A write that meets a reset does not raise; the loss is told as ConnectionLost, not as an orderly end, once."""
        server, far = self.accepted()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        for _ in range(3):
            server.transport.write(b"x" * 1000)
            server.transport.writeSequence([b"y" * 20000, b"z" * 20000])
        self.assertEqual(server.lost, [])
        self.spin(lambda: server.lost)
        self.turn()
        self.assertEqual(server.lost, [ConnectionLost])

    def test_peer_closes_in_order(self) -> None:
        """A peer that closes is told as ConnectionDone, after everything that it sent."""
        server, far = self.accepted()
        far.sendall(b"last words")
        far.close()
        self.spin(lambda: server.lost)
        self.assertEqual((bytes(server.received), server.lost), (b"last words", [ConnectionDone]))

    def test_half_close_of_ours(self) -> None:
        """loseWriteConnection sends what is queued, then an end; reading goes on until the peer ends too."""
        for size in (5, 2_000_000):
            server, far = self.accepted(HalfSide())
            server.transport.write(b"q" * size)
            server.transport.loseWriteConnection()
            self.assertEqual(server.ends, [])
            self.assertEqual(len(self.read_all(far)), size)
            self.assertEqual(server.ends, ["write"])
            server.transport.write(b"never")
            far.sendall(b"answer")
            self.spin(lambda side=server: side.received == b"answer")
            far.close()
            self.spin(lambda side=server: side.ends == ["write", "read"])
            self.assertEqual(server.lost, [])
            server.transport.loseConnection()
            self.spin(lambda side=server: side.lost)
            self.assertEqual(server.lost, [ConnectionDone])

    def test_half_close_of_theirs(self) -> None:
        """A peer that has finished sending still gets what is written; without IHalfCloseableProtocol it is lost."""
        server, far = self.accepted(HalfSide())
        far.sendall(b"question")
        far.shutdown(socket.SHUT_WR)
        self.spin(lambda: server.ends)
        self.assertEqual((bytes(server.received), server.ends, server.lost), (b"question", ["read"], []))
        server.transport.write(b"answer")
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"answer")
        plain, far = self.accepted()
        far.shutdown(socket.SHUT_WR)
        self.spin(lambda: plain.lost)
        self.assertEqual(plain.lost, [ConnectionDone])

    def test_lose_connection_twice_over(self) -> None:
        """loseWriteConnection and loseConnection in one turn close once."""
        server, far = self.accepted(HalfSide())
        server.transport.loseWriteConnection()
        server.transport.loseConnection()
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"")
        self.spin(lambda: server.lost)
        self.assertEqual(server.lost, [ConnectionDone])

    def test_lose_connection_from_within(self) -> None:
        """loseConnection in dataReceived stops reading at once and does not call connectionLost within it."""
        server, far = self.accepted()
        order: list[str] = []

        def close(data: bytes) -> None:
            server.transport.write(b"bye")
            server.transport.loseConnection()
            order.append("lost" if server.lost else "not yet")

        server.on_data = close
        far.sendall(b"hello")
        self.assertEqual(self.read_all(far), b"bye")
        self.spin(lambda: server.lost)
        self.assertEqual((order, server.lost), (["not yet"], [ConnectionDone]))


class SameOnTwistedsTests(TwistedsOwn, WriteTests):
    """None of these tests asks for more than Twisted gives."""


class DirectTests(ReactorCase):
    """What only our transports do."""

    def test_at_once(self) -> None:
        """A write reaches the socket before write returns; accepted and connecting transports both do it."""
        server, far = self.accepted()
        self.assertIsInstance(server.transport, FastServer)
        server.transport.write(b"now")
        self.assertEqual(far.recv(10), b"now")
        server.transport.writeSequence([b"this", b"too"])
        self.assertEqual(far.recv(10), b"thistoo")
        one, other = self.pair()
        self.assertIsInstance(other.transport, FastConnection)
        other.transport.write(b"x")
        self.assertEqual(one.transport.getHandle().recv(10, socket.MSG_PEEK), b"x")

    def test_queued(self) -> None:
        """`queued` counts what the kernel has not taken, also in part of a chunk, and is 0 again when all has gone."""
        server, far = self.accepted()
        self.assertEqual(server.transport.queued, 0)
        server.transport.write(b"x" * 100)
        self.assertEqual(server.transport.queued, 0)
        written = 100
        while not server.transport.queued:
            server.transport.write(b"y" * 60000)
            written += 60000
        self.assertLessEqual(server.transport.queued, 60000)
        server.transport.write(b"z" * 7)
        written += 7
        taken = written - server.transport.queued
        left = taken
        while left:
            left -= len(far.recv(left))
        server.transport.loseConnection()
        self.assertEqual(taken + len(self.read_all(far)), written)
        self.assertEqual(server.transport.queued, 0)

    def test_direct_again(self) -> None:
        """Once the queue is empty, writes reach the socket at once again."""
        server, far = self.accepted()
        written = 0
        while not server.transport.queued:
            server.transport.write(b"y" * 60000)
            written += 60000
        while written:
            written -= len(far.recv(written))
            self.turn(1)
        server.transport.write(b"now")
        self.assertEqual(far.recv(10), b"now")

    def test_producer_leaves_after_abort(self) -> None:
        """A producer that leaves after abortConnection does not open the way to the socket again."""
        server, far = self.accepted()
        server.transport.registerProducer(FileSender(), True)
        server.transport.abortConnection()
        server.transport.unregisterProducer()
        server.transport.write(b"too late")
        far.setblocking(False)
        self.assertRaises(BlockingIOError, far.recv, 10)
        self.spin(lambda: server.lost)

    def test_producer_leaves_its_queue(self) -> None:
        """What a pull producer has queued goes before what is written once it has left."""
        server, far = self.accepted()

        class Pulled:
            def resumeProducing(self) -> None:
                server.transport.write(b"first")

        server.transport.registerProducer(Pulled(), False)
        server.transport.unregisterProducer()
        server.transport.write(b"second")
        server.transport.loseConnection()
        self.assertEqual(self.read_all(far), b"firstsecond")

    def test_chunk_is_not_copied(self) -> None:
        """What is left of a chunk is the chunk itself, not a copy of its rest."""
        server, far = self.accepted()
        chunk = b"c" * 60000
        while not server.transport.queued:
            server.transport.write(chunk)
        self.assertIs(server.transport.dataBuffer, chunk)
        far.recv(1000)
        self.turn()
        self.assertIs(server.transport.dataBuffer, chunk)

    def test_water_marks(self) -> None:
        """A push producer is paused above 64 KiB queued and resumed when 16 KiB or less, yet something, is queued."""
        server, far = self.accepted()
        transport = server.transport
        marks: list[tuple[str, int]] = []

        class Producer:
            def pauseProducing(self) -> None:
                marks.append(("pause", transport.queued))

            def resumeProducing(self) -> None:
                marks.append(("resume", transport.queued))

            def stopProducing(self) -> None:
                marks.append(("stop", transport.queued))

        send, room = transport._send, [0]

        def narrow(data: bytes) -> int:
            """A kernel that takes no more than there is room for at a time."""
            if not room[0]:
                raise BlockingIOError
            return int(send(data[: room[0]]))

        transport._send = narrow
        transport.registerProducer(Producer(), True)
        for number in range(67):
            self.assertEqual(marks, [] if number < 66 else [("pause", 66000)])
            transport.write(b"x" * 1000)
        room[0] = 5000
        self.spin(lambda: marks[-1][0] == "resume")
        self.assertEqual(marks, [("pause", 66000), ("pause", 67000), ("resume", 12000)])
        self.spin(lambda: not transport.queued)
        transport.unregisterProducer()
        transport.loseConnection()
        self.read_all(far)
        self.assertEqual(len(marks), 3)

    def test_pull_producer_goes_by_the_queue(self) -> None:
        """While a pull producer is registered nothing is sent from within write; once it is gone, writes are direct."""
        server, far = self.accepted()

        class Pulled:
            resumed = 0

            def resumeProducing(self) -> None:
                self.resumed += 1

            def stopProducing(self) -> None:
                """Nothing to stop."""

        pulled = Pulled()
        server.transport.registerProducer(pulled, False)
        self.assertRaises(RuntimeError, server.transport.registerProducer, Pulled(), False)
        server.transport.write(b"queued")
        self.assertEqual((server.transport.queued, pulled.resumed), (6, 1))
        self.spin(lambda: not server.transport.queued)
        self.assertEqual(pulled.resumed, 2)
        server.transport.unregisterProducer()
        far.recv(6)
        server.transport.write(b"direct")
        self.assertEqual(far.recv(6), b"direct")

    def test_side_by_side(self) -> None:
        """Writes from within dataReceived of the other end of the same connection keep their order."""
        server, client = self.pair(Side(), Side())
        server.on_data = lambda data: server.transport.write(bytes(data))
        for number in range(200):
            client.transport.write(b"%04d" % number)
        self.spin(lambda: len(client.received) == 800)
        self.assertEqual(client.received, b"".join(b"%04d" % number for number in range(200)))
