"""The layer 4 road over in-memory wires: carrying both ways, back-pressure, orderly ends, what is written down."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import TestCase

from lbsvc.core.record import Record
from tests.kit.roads import Road
from tests.kit.wire import HalfClosingPeer

BIG = bytes(range(256)) * 4096  # 1 MiB


class RoadTestCase(TestCase):
    def whole(self, road: Road, **reasons: int) -> None:
        """Everything is settled, for these reasons."""
        self.assertEqual(road.broken(), [])
        self.assertEqual(road.reasons, reasons)

    def stop(self, peer: HalfClosingPeer) -> None:
        """It reads no more."""
        peer.transport.pauseProducing()

    def go_on(self, peer: HalfClosingPeer) -> None:
        peer.transport.resumeProducing()


class CarryTests(RoadTestCase):
    def test_both_ways(self) -> None:
        """What either side sends arrives at the other, in order, at any time."""
        road = Road()
        client, backend = road.pair()
        backend.transport.write(b"220 hello\r\n")
        road.network.settle()
        client.transport.write(b"EHLO")
        road.network.settle(1)
        backend.transport.write(BIG)
        client.transport.write(BIG[::-1])
        road.network.settle()
        self.assertEqual(bytes(client.received), b"220 hello\r\n" + BIG)
        self.assertEqual(bytes(backend.received), b"EHLO" + BIG[::-1])

    def test_a_backend_for_each_connection(self) -> None:
        """Connections are spread over the backends as the pool says, and counted there while they last."""
        road = Road(3)
        clients = [road.connect() for _ in range(6)]
        self.assertEqual([dial.port for dial in road.network.dials], [9001, 9002, 9003] * 2)
        self.assertEqual([(each.active, each.connections) for each in road.backends], [(2, 2)] * 3)
        for client in clients:
            client.transport.abortConnection()
        self.whole(road, client_closed=6)

    def test_stopped_client_stops_the_backend(self) -> None:
        """A client that does not read stops its backend: what is in memory stays below the mark and a read."""
        road = Road()
        client, backend = road.pair()
        self.stop(client)
        backend.transport.write(BIG * 8)
        road.network.settle()
        relay = road.network.wires[0].right
        self.assertLessEqual(relay.queued, 2 * 65536)
        self.assertGreater(backend.transport.queued, 7 * len(BIG))
        road.network.sleep(1)
        self.assertLessEqual(relay.queued, 2 * 65536)
        client.transport.write(b"still heard")
        road.network.settle()
        self.assertEqual(bytes(backend.received), b"still heard")
        self.go_on(client)
        road.network.settle()
        self.assertEqual(bytes(client.received), BIG * 8)

    def test_stopped_backend_stops_the_client(self) -> None:
        """The same the other way round."""
        road = Road()
        client, backend = road.pair()
        self.stop(backend)
        client.transport.write(BIG * 8)
        road.network.settle()
        self.assertLessEqual(road.network.wires[1].left.queued, 2 * 65536)
        self.assertGreater(client.transport.queued, 7 * len(BIG))
        backend.transport.write(b"still heard")
        road.network.settle()
        self.assertEqual(bytes(client.received), b"still heard")
        self.go_on(backend)
        road.network.settle()
        self.assertEqual(bytes(backend.received), BIG * 8)

    def test_both_stopped(self) -> None:
        """With both sides not reading, either may go on first."""
        road = Road()
        client, backend = road.pair()
        self.stop(client)
        self.stop(backend)
        client.transport.write(BIG)
        backend.transport.write(BIG)
        road.network.settle()
        self.go_on(backend)
        road.network.settle()
        self.assertEqual(bytes(backend.received), BIG)
        self.assertEqual(bytes(client.received), b"")
        self.go_on(client)
        road.network.settle()
        self.assertEqual(bytes(client.received), BIG)


class HalfCloseTests(RoadTestCase):
    def test_client_first(self) -> None:
        """A client that has finished sending still gets all that the backend has to say."""
        road = Road()
        client, backend = road.pair()
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        road.network.settle()
        self.assertEqual((bytes(backend.received), backend.events), (b"question", ["made", "read-end"]))
        backend.transport.write(BIG)
        backend.transport.loseConnection()
        road.network.settle()
        self.assertEqual((bytes(client.received), client.events[-1]), (BIG, "read-end"))
        client.transport.loseConnection()
        self.whole(road, ok=1)
        self.assertEqual((road.backends[0].tcp_ok, road.backends[0].tcp_error), (1, 0))

    def test_backend_first(self) -> None:
        """A backend that has finished sending still gets the rest from the client."""
        road = Road()
        client, backend = road.pair()
        backend.transport.write(b"enough")
        backend.transport.loseWriteConnection()
        road.network.settle()
        self.assertEqual((bytes(client.received), client.events[-1]), (b"enough", "read-end"))
        client.transport.write(BIG)
        client.transport.loseWriteConnection()
        road.network.settle()
        self.assertEqual((bytes(backend.received), backend.events[-1]), (BIG, "read-end"))
        for peer in (client, backend):
            peer.transport.loseConnection()
        self.whole(road, ok=1)

    def test_behind_a_full_queue(self) -> None:
        """An end that comes while the other side does not read is passed on behind the bytes, whichever side it is."""
        for number in (0, 1):
            road = Road()
            sender, reader = road.pair() if number == 0 else road.pair()[::-1]
            self.stop(reader)
            sender.transport.write(BIG)
            sender.transport.loseWriteConnection()
            road.network.settle()
            self.assertNotIn("read-end", reader.events)
            self.go_on(reader)
            road.network.settle()
            self.assertEqual((bytes(reader.received), reader.events[-1]), (BIG, "read-end"))
            reader.transport.write(b"thanks")
            reader.transport.loseConnection()
            road.network.settle()
            self.assertEqual((bytes(sender.received), sender.events[-1]), (b"thanks", "read-end"))
            sender.transport.loseConnection()
            self.whole(road, ok=1)

    def test_last_bytes_are_flushed(self) -> None:
        """When both have finished, what one has not read yet still reaches it."""
        road = Road()
        client, backend = road.pair()
        self.stop(client)
        client.transport.loseWriteConnection()
        backend.transport.write(BIG)
        backend.transport.loseConnection()
        road.network.sleep(2)
        self.go_on(client)
        road.network.settle()
        self.assertEqual((bytes(client.received), client.events[-1]), (BIG, "read-end"))
        client.transport.loseConnection()
        self.whole(road, ok=1)

    def test_how_long_the_other_may_go_on(self) -> None:
        """After one side has finished the other has `half_close`, then both are closed."""
        road = Road(half_close=5)
        client, backend = road.pair()
        client.transport.loseWriteConnection()
        for _ in range(4):
            road.network.sleep(1)
            backend.transport.write(b".")
        self.assertEqual(road.reasons, {})
        road.network.sleep(2)
        self.assertEqual(bytes(client.received), b"....")
        for peer in (client, backend):
            peer.transport.loseConnection()
        self.whole(road, idle_timeout=1)
        self.assertEqual({peer.lost.__class__ for peer in (client, backend)}, {ConnectionDone})


class TimeTests(RoadTestCase):
    def test_idle(self) -> None:
        """Silence in both directions for `idle` ends it, in order; bytes in either direction keep it."""
        road = Road(idle=10)
        client, backend = road.pair()
        for sender in (client, backend, client, backend):
            road.network.sleep(6)
            sender.transport.write(b"x")
        road.network.sleep(9)
        self.assertEqual(road.reasons, {})
        road.network.sleep(2)
        for peer in (client, backend):
            self.assertEqual(peer.events, ["made", "read-end"])
            peer.transport.loseConnection()
        self.whole(road, idle_timeout=1)
        self.assertEqual(road.backends[0].tcp_ok, 1)

    def test_idle_is_shorter_than_half_close(self) -> None:
        """A half-closed connection that is silent ends after `idle`, where that is sooner."""
        road = Road(idle=3, half_close=30)
        road.connect().transport.loseWriteConnection()
        road.network.sleep(4)
        self.assertEqual(road.reasons, {"idle_timeout": 1})

    def test_stalled(self) -> None:
        """Where bytes wait for somebody who does not read them, patience ends with a cut: there is nobody to flush for."""
        road = Road(idle=10)
        client, backend = road.pair()
        self.stop(client)
        backend.transport.write(BIG)
        road.network.sleep(11)
        self.assertEqual(road.reasons, {"idle_timeout": 1})
        self.go_on(client)
        self.whole(road, idle_timeout=1)
        self.assertEqual(client.lost.__class__, ConnectionLost)

    def test_flush_is_not_waited_for_longer(self) -> None:
        """When both have finished, a client that does not take the rest is cut after `half_close`."""
        road = Road(half_close=5)
        client, backend = road.pair()
        self.stop(client)
        client.transport.loseWriteConnection()
        backend.transport.write(bytes(120_000))  # fits into the kernel's buffer and our queue
        backend.transport.loseConnection()
        road.network.sleep(4)
        self.assertEqual(road.reasons, {"ok": 1})
        self.assertEqual(len(road.site.relays), 1)
        self.assertTrue(road.network.wires[0].right.connected)
        road.network.sleep(2)
        self.assertFalse(road.network.wires[0].right.connected)
        self.go_on(client)
        self.whole(road, ok=1)


class SettleTests(RoadTestCase):
    def test_record(self) -> None:
        """The access record says who, where, how much and how long; `count` has put the bytes on the books before."""
        road = Road()
        client, backend = road.pair()
        client.transport.write(b"12345")
        backend.transport.write(b"123")
        road.network.sleep(2)
        self.assertEqual((road.books.bytes_in, road.books.bytes_out), (0, 0))
        road.site.count()
        road.site.count()
        self.assertEqual((road.books.bytes_in, road.books.bytes_out), (5, 3))
        client.transport.loseConnection()
        backend.transport.loseConnection()
        self.whole(road, ok=1)
        (record,) = road.records
        self.assertAlmostEqual(record.t_total or 0, 2.0)
        self.assertEqual(
            record._replace(t_total=None),
            Record(
                1_700_000_000.0,
                b"00000000",
                "main",
                "tcp",
                "192.0.2.1",
                "192.0.2.1",
                bytes_in=5,
                bytes_out=3,
                route="default",
                pool="web",
                backend="b9001",
                attempts=1,
                t_connect=0.0,
            ),
        )

    def test_cut(self) -> None:
        """What a drain cuts was killed: both sides are reset, and no backend is blamed."""
        road = Road()
        pairs = [road.pair() for _ in range(3)]
        road.site.drain()
        road.network.settle()
        self.assertEqual(road.reasons, {})
        road.site.abort()
        self.whole(road, killed=3)
        self.assertEqual({peer.lost.__class__ for pair in pairs for peer in pair}, {ConnectionLost})
        self.assertEqual((road.backends[0].tcp_ok, road.backends[0].tcp_error), (0, 0))

    def test_cut_while_dialling_and_while_flushing(self) -> None:
        """A drain also cuts what has no backend yet, and what is settled but not flushed."""
        road = Road()
        road.network.answers[9001] = "pending"
        road.connect()
        del road.network.answers[9001]
        client, backend = road.pair()
        self.stop(client)
        client.transport.loseWriteConnection()
        backend.transport.write(bytes(120_000))
        backend.transport.loseConnection()
        road.network.settle()
        self.assertEqual(len(road.site.relays), 2)
        road.site.abort()
        self.go_on(client)
        self.whole(road, killed=1, ok=1)
        self.assertTrue(road.network.dials[0].was_cancelled)

    def test_without_a_log(self) -> None:
        """With `access_log` off everything else is the same."""
        road = Road()
        road.site.log = None
        client, _ = road.pair()
        client.transport.abortConnection()
        road.network.settle()
        self.assertEqual((road.reasons, road.closed, road.records), ({"client_closed": 1}, 1, []))
