"""The wire itself: other tests lean on it, so each of its promises is shown here."""

from __future__ import annotations

import random

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.kit.wire import HalfClosingPeer, Peer, Wire

PAYLOAD = bytes(range(256)) * 1000


class Tap:
    """A push producer that only counts what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class DeliveryTests(TestCase):
    def test_interfaces(self) -> None:
        """Both ends offer what Twisted's TCP transports promise."""
        wire = Wire(Peer(), Peer())
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, wire.left)
        self.assertEqual(wire.left.getHost(), wire.right.getPeer())
        self.assertIsNone(wire.left.getHandle())

    def test_nothing_without_pump(self) -> None:
        """Bytes stay on the wire until the test pumps."""
        wire = Wire(Peer(), server := Peer())
        wire.left.write(b"abc")
        self.assertEqual(server.received, b"")
        wire.pump()
        self.assertEqual(server.received, b"abc")

    def test_limit_cuts(self) -> None:
        """A pump delivers at most as many bytes as it is told, in order."""
        wire = Wire(Peer(), server := Peer())
        wire.left.writeSequence([b"abc", b"defg"])
        wire.pump(3)
        wire.pump(2)
        self.assertEqual(server.pieces, [3, 2])
        wire.pump_all(1)
        self.assertEqual((server.pieces, bytes(server.received)), ([3, 2, 1, 1], b"abcdefg"))

    def test_random_cuts_both_ways(self) -> None:
        """Random cuts lose, double or reorder nothing in either direction, at any size of kernel buffer."""
        for seed in range(5):
            rng = random.Random(seed)
            wire = Wire(client := Peer(), server := Peer(), kernel=rng.randint(10, 5000), immediate=seed % 2 == 0)
            wire.left.write(PAYLOAD[:20000])
            wire.right.write(PAYLOAD[:30000])
            wire.pump_random(rng, 700)
            self.assertEqual(server.received, PAYLOAD[:20000])
            self.assertEqual(client.received, PAYLOAD[:30000])

    def test_only_bytes_are_written(self) -> None:
        """Text is refused where it is written, as Twisted refuses it."""
        self.assertRaises(TypeError, Wire(Peer(), Peer()).left.write, "text")

    def test_due_calls_run(self) -> None:
        """With a clock, a pump runs what was put off to the next turn."""
        clock = Clock()
        wire = Wire(Peer(), server := Peer(), clock=clock)
        clock.callLater(0, wire.left.write, b"later")
        wire.pump_all()
        self.assertEqual(server.received, b"later")

    def test_endless_exchange_is_reported(self) -> None:
        """Two ends that answer each other for ever fail the test instead of hanging it."""
        echo = lambda peer, piece: peer.transport.write(piece)  # noqa: E731
        wire = Wire(Peer(echo), Peer(echo))
        wire.left.write(b"ping")
        self.assertRaises(AssertionError, wire.pump_all, 10, 100)


class BackPressureTests(TestCase):
    def test_stalled_reader_stops_the_writer(self) -> None:
        """A reader that pauses fills the kernel's buffer, the queue, then pauses the producer; and back."""
        wire = Wire(Peer(), server := Peer(), kernel=1000)
        tap = Tap()
        wire.left.registerProducer(tap, True)
        wire.right.pauseProducing()
        wire.left.write(b"x" * 2000)
        wire.pump_all()
        self.assertEqual((wire.left.queued, tap.calls), (1000, []))
        wire.left.write(b"x" * 80_000)
        self.assertEqual(tap.calls, ["pause"])
        wire.pump_all()
        self.assertEqual(len(server.received), 0)
        wire.right.resumeProducing()
        while wire.left.queued > wire.left.low_water:
            self.assertEqual(tap.calls, ["pause"])
            wire.pump()
        wire.pump_all()
        self.assertEqual((len(server.received), tap.calls), (82_000, ["pause", "resume"]))

    def test_pause_inside_delivery(self) -> None:
        """A protocol that pauses in dataReceived gets nothing more until it resumes."""
        wire = Wire(Peer(), server := Peer(lambda peer, _: peer.transport.pauseProducing()))
        wire.left.write(b"0123456789")
        wire.pump_all(4)
        self.assertEqual(server.received, b"0123")
        server.on_bytes = None
        wire.right.resumeProducing()
        wire.pump_all(4)
        self.assertEqual(server.received, b"0123456789")

    def test_pull_producer(self) -> None:
        """A pull producer is asked each time the queue is empty, and a second producer is refused."""
        wire = Wire(Peer(), server := Peer(), kernel=10)
        pieces = [b"a" * 25, b"b" * 5]

        class Pull(Tap):
            def resumeProducing(self) -> None:
                if pieces:
                    wire.left.write(pieces.pop(0))
                else:
                    wire.left.unregisterProducer()

        wire.left.registerProducer(Pull(), False)
        self.assertRaises(RuntimeError, wire.left.registerProducer, Tap(), True)
        wire.pump_all()
        self.assertEqual(server.received, b"a" * 25 + b"b" * 5)

    def test_producer_is_stopped_at_the_end(self) -> None:
        """A producer registered when its connection is lost is stopped; one that comes later at once."""
        wire = Wire(Peer(), Peer())
        tap, late = Tap(), Tap()
        wire.left.registerProducer(tap, True)
        wire.left.abortConnection()
        wire.pump_all()
        wire.left.registerProducer(late, True)
        self.assertEqual((tap.calls, late.calls), (["stop"], ["stop"]))


class EndingTests(TestCase):
    def test_close_flushes_first(self) -> None:
        """loseConnection delivers what was written, then both sides are done."""
        wire = Wire(client := Peer(), server := Peer(), kernel=100)
        wire.left.write(b"x" * 1000)
        wire.left.loseConnection()
        wire.pump_all()
        self.assertEqual(len(server.received), 1000)
        self.assertIsInstance(server.lost, ConnectionDone)
        self.assertIsInstance(client.lost, ConnectionDone)

    def test_close_waits_for_the_producer(self) -> None:
        """A registered producer holds loseConnection up until it is unregistered."""
        wire = Wire(client := Peer(), server := Peer())
        wire.left.registerProducer(Tap(), True)
        wire.left.loseConnection()
        wire.pump_all()
        self.assertIsNone(client.lost)
        wire.left.write(b"last")
        wire.left.unregisterProducer()
        wire.pump_all()
        self.assertEqual(server.received, b"last")
        self.assertIsInstance(client.lost, ConnectionDone)

    def test_half_close(self) -> None:
        """A client that has finished writing still gets its answer; both sides hear of each half once."""
        wire = Wire(client := HalfClosingPeer(), server := HalfClosingPeer())
        wire.left.write(b"question")
        wire.left.loseWriteConnection()
        wire.pump_all()
        self.assertEqual((client.events, server.events), (["made", "write-end"], ["made", "read-end"]))
        wire.right.write(b"answer")
        wire.right.loseConnection()
        wire.pump_all()
        self.assertEqual(client.received, b"answer")
        self.assertEqual(client.events, ["made", "write-end", "read-end"])
        wire.left.loseConnection()
        wire.pump_all()
        self.assertIsInstance(client.lost, ConnectionDone)

    def test_end_without_half_close(self) -> None:
        """A protocol that knows no halves is lost at the first end, with what it had still to write."""
        wire = Wire(Peer(), server := Peer(), kernel=10)
        wire.right.write(b"x" * 100)
        wire.left.pauseProducing()
        wire.left.loseWriteConnection()
        wire.pump_all()
        self.assertIsInstance(server.lost, ConnectionDone)
        self.assertEqual(wire.right.queued, 0)

    def test_write_after_half_close_is_dropped(self) -> None:
        """What is written after loseWriteConnection has happened goes nowhere."""
        wire = Wire(HalfClosingPeer(), server := HalfClosingPeer())
        wire.left.loseWriteConnection()
        wire.pump_all()
        wire.left.write(b"late")
        wire.pump_all()
        self.assertEqual(server.received, b"")

    def test_abort_resets(self) -> None:
        """An abort drops what was queued; the peer gets a reset and neither the bytes under way."""
        wire = Wire(client := Peer(), server := Peer(), kernel=10)
        wire.left.write(b"x" * 100)
        wire.left.abortConnection()
        self.assertIsNone(client.lost)  # told in the next turn, never inside the call
        wire.left.write(b"after")
        wire.pump_all()
        self.assertIsInstance(client.lost, ConnectionAborted)
        self.assertIsInstance(server.lost, ConnectionLost)
        self.assertEqual(server.received, b"")

    def test_close_with_unread_bytes_resets(self) -> None:
        """Closing while the peer's bytes lie unread resets it: the answer before it may be lost."""
        wire = Wire(client := Peer(), Peer())
        wire.right.pauseProducing()
        wire.left.write(b"unread")
        wire.pump()
        wire.right.write(b"answer")
        wire.right.loseConnection()
        wire.left.pauseProducing()
        wire.pump_all()
        wire.left.resumeProducing()
        wire.pump_all()
        self.assertEqual(client.received, b"")
        self.assertIsInstance(client.lost, ConnectionLost)

    def test_writing_to_a_closed_peer_resets(self) -> None:
        """Bytes that reach a closed socket come back as a reset."""
        wire = Wire(client := HalfClosingPeer(), Peer())
        wire.right.loseConnection()
        wire.pump_all()
        self.assertEqual(client.events, ["made", "read-end"])
        wire.left.write(b"into the void")
        wire.pump_all()
        self.assertIsInstance(client.lost, ConnectionLost)

    def test_paused_reader_notices_nothing(self) -> None:
        """The end of the peer is noticed only by one who reads."""
        wire = Wire(Peer(), server := Peer())
        wire.right.pauseProducing()
        wire.left.loseConnection()
        wire.pump_all()
        self.assertIsNone(server.lost)
        wire.right.resumeProducing()
        wire.pump_all()
        self.assertIsInstance(server.lost, ConnectionDone)

    def test_lost_only_once(self) -> None:
        """However many ways a connection is ended, its protocol is told once."""
        wire = Wire(client := Peer(), server := Peer())
        wire.left.loseConnection()
        wire.left.abortConnection()
        wire.right.abortConnection()
        wire.pump_all()
        wire.left.abortConnection()
        wire.pump_all()
        self.assertEqual((client.events, server.events), (["made", "lost"], ["made", "lost"]))
