"""The layer 4 road when a connection is lost: resets from either side, before and after the end, and faults of our own."""

from __future__ import annotations

import gc
import weakref
from typing import Any
from unittest.mock import patch

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from lbsvc.core.backend import Outcome
from lbsvc.net.relay import Relay
from tests.kit.roads import Road
from tests.kit.wire import Peer
from tests.net.test_relay import BIG, RoadTestCase


class ResetTests(RoadTestCase):
    def test_client(self) -> None:
        """A client's reset reaches the backend as a reset, so that nobody takes half of an upload for the whole."""
        road = Road()
        client, backend = road.pair()
        client.transport.write(b"half of it")
        road.network.settle()
        client.transport.abortConnection()
        self.whole(road, client_closed=1)
        self.assertEqual(backend.lost.__class__, ConnectionLost)
        self.assertEqual(backend.events, ["made", "lost"])
        self.assertEqual((road.backends[0].tcp_ok, road.backends[0].tcp_error), (0, 0))
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_backend(self) -> None:
        """A backend's reset reaches the client as one, and counts against the backend."""
        road = Road()
        client, backend = road.pair()
        backend.transport.write(b"half of it")
        road.network.settle()
        backend.transport.abortConnection()
        self.whole(road, upstream_reset=1)
        self.assertEqual(bytes(client.received), b"half of it")
        self.assertEqual(client.events, ["made", "lost"])
        self.assertEqual(road.backends[0].failures["upstream_reset"], 1)
        self.assertEqual((road.backends[0].tcp_ok, road.backends[0].tcp_error), (0, 1))

    def test_both(self) -> None:
        """Resets of both sides in one turn: settled once, by the first that was heard of."""
        road = Road()
        client, backend = road.pair()
        client.transport.abortConnection()
        backend.transport.abortConnection()
        self.assertEqual(road.broken(), [])
        self.assertEqual(sum(road.reasons.values()), 1)

    def test_while_paused(self) -> None:
        """A reset of a side that we do not read is found out when we write to it or read on; all is settled then."""
        road = Road()
        client, backend = road.pair()
        self.stop(client)
        backend.transport.write(BIG)
        road.network.settle()
        backend.transport.abortConnection()
        road.network.settle()
        self.assertEqual(road.reasons, {})
        self.go_on(client)
        self.whole(road, upstream_reset=1)

    def test_backend_that_had_finished(self) -> None:
        """What a backend sent before its end arrives whole, though it resets because the client still sends."""
        road = Road()
        client, backend = road.pair()
        self.stop(client)
        backend.transport.write(bytes(120_000))
        backend.transport.loseConnection()  # both ways: whatever comes now is answered with a reset
        road.network.settle()
        client.transport.write(b"more")
        road.network.settle()
        self.assertEqual(road.reasons, {"ok": 1})
        self.go_on(client)
        client.transport.write(BIG)
        road.network.settle()
        self.assertEqual((len(client.received), client.events), (120_000, ["made", "read-end"]))
        client.transport.loseConnection()
        self.whole(road, ok=1)
        self.assertEqual((road.backends[0].tcp_ok, road.backends[0].tcp_error), (1, 0))

    def test_client_that_had_finished(self) -> None:
        """What a client sent before its end arrives whole, though it resets because it wants no answer."""
        road = Road()
        client, backend = road.pair()
        self.stop(backend)
        client.transport.write(bytes(120_000))
        client.transport.loseConnection()
        road.network.settle()
        backend.transport.write(b"unwanted")
        road.network.settle()
        self.assertEqual(road.reasons, {"client_closed": 1})
        self.assertEqual((road.site.flushing, road.closed), (1, 1))
        self.go_on(backend)
        road.network.settle()
        self.assertEqual((len(backend.received), backend.events), (120_000, ["made", "read-end"]))
        backend.transport.loseConnection()
        self.whole(road, client_closed=1)
        self.assertEqual((road.backends[0].tcp_ok, road.backends[0].tcp_error), (0, 0))

    def test_nobody_listens_to_a_backend(self) -> None:
        """When a client has closed for good, its backend is not read to the end of all that it has to say."""
        road = Road()
        client, backend = road.pair()
        client.transport.write(b"all of it, please")
        client.transport.loseConnection()
        road.network.settle()
        backend.transport.write(BIG * 8)
        self.whole(road, client_closed=1)
        self.assertEqual(
            (bytes(backend.received), backend.events), (b"all of it, please", ["made", "read-end", "lost"])
        )
        self.assertLess(road.records[0].bytes_out, 1 << 20)

    def test_flush_for_a_backend_has_an_end(self) -> None:
        """A backend that does not take the rest of what a client has left is cut after `half_close`."""
        road = Road(half_close=5)
        client, backend = road.pair()
        self.stop(backend)
        client.transport.write(bytes(120_000))
        client.transport.loseConnection()
        road.network.settle()
        backend.transport.write(b"unwanted")
        road.network.sleep(4)
        self.assertEqual(road.site.flushing, 1)
        road.network.sleep(2)
        self.assertEqual((road.site.flushing, road.site.relays), (0, set()))
        self.go_on(backend)
        self.whole(road, client_closed=1)

    def test_lingering_has_an_end(self) -> None:
        """A client that never stops sending to a backend that is gone is cut after `half_close`."""
        road = Road(half_close=5)
        client, backend = road.pair()
        backend.transport.loseConnection()
        road.network.settle()
        for _ in range(4):
            client.transport.write(b"more")
            road.network.sleep(1)
        self.assertEqual((road.reasons, road.closed), ({"ok": 1}, 0))
        client.transport.write(b"more")
        road.network.sleep(2)
        client.transport.write(b"and more")
        self.whole(road, ok=1)
        self.assertEqual(client.lost.__class__, ConnectionLost)
        self.assertEqual(road.records[0].bytes_in, 4)  # what was dropped does not count

    def test_lingering_is_resumed(self) -> None:
        """A client that had been stopped, because the backend did not read, is read on when that is lost."""
        road = Road()
        client, backend = road.pair()
        self.stop(backend)
        client.transport.write(BIG)
        backend.transport.loseWriteConnection()
        road.network.settle()
        self.assertFalse(road.network.wires[0].right.reading)
        backend.transport.abortConnection()
        road.network.settle()
        client.transport.loseWriteConnection()
        road.network.settle()
        self.assertEqual(client.transport.queued, 0)
        client.transport.loseConnection()
        self.whole(road, ok=1)


class CleanLossTests(RoadTestCase):
    """Transports that know no half-close (TLS) are lost in order, without a word before."""

    def lose(self, transport: Any) -> None:
        transport._lost(ConnectionDone())

    def test_client(self) -> None:
        """The connection was all right; what the client had sent still reaches the backend."""
        road = Road()
        client, backend = road.pair()
        self.stop(backend)
        client.transport.write(bytes(120_000))
        road.network.settle()
        self.lose(road.network.wires[0].right)
        self.go_on(backend)
        road.network.settle()
        self.assertEqual((len(backend.received), backend.events[-1]), (120_000, "read-end"))
        for peer in (backend, client):
            peer.transport.loseConnection()
        self.whole(road, ok=1)

    def test_backend(self) -> None:
        """The same the other way round."""
        road = Road()
        client, backend = road.pair()
        backend.transport.write(b"all")
        road.network.settle()
        self.lose(road.network.wires[1].left)
        road.network.settle()
        self.assertEqual((bytes(client.received), client.events[-1]), (b"all", "read-end"))
        for peer in (client, backend):
            peer.transport.loseConnection()
        self.whole(road, ok=1)


class FaultTests(RoadTestCase):
    def test_in_start(self) -> None:
        """A connection whose start fails is settled like any other, once its transport is lost."""
        road = Road()
        relay = Relay(road.site, "192.0.2.1")
        wire = road.network.wire()
        wire.connect(wire.left, client := Peer())
        with patch.object(type(road.pool), "pick", side_effect=ZeroDivisionError):
            self.assertRaises(ZeroDivisionError, wire.connect, wire.right, relay.downstream)
        wire.right._lost(ConnectionAborted())  # as the port does
        client.transport.loseConnection()
        self.whole(road, client_closed=1)

    def test_when_connected(self) -> None:
        """The same of one that fails when its backend is there: the lease is given back."""
        road = Road()
        with patch("lbsvc.net.relay.Upstream.close_writing", side_effect=ZeroDivisionError):
            road.network.answers[9001] = "pending"
            client = road.connect()
            client.transport.loseWriteConnection()
            road.network.settle()
            self.assertRaises(ZeroDivisionError, road.network.pending.connect)
        road.network.wires[1].left._lost(ConnectionAborted())  # as the dialling reactor does
        road.network.backends[0].transport.loseConnection()
        self.whole(road, upstream_reset=1)

    def test_in_the_log(self) -> None:
        """A log that fails costs nothing but the line."""
        road = Road()
        road.site.log = lambda record: [][1]
        client, backend = road.pair()
        client.transport.abortConnection()
        with self.assertRaises(IndexError):
            road.network.settle()
        road.network.settle()
        self.assertEqual((road.reasons, road.closed, road.network.left), ({"client_closed": 1}, 1, []))
        self.assertEqual((road.backends[0].active, road.site.relays), (0, set()))
        self.assertEqual(backend.events, ["made", "lost"])

    def test_nothing_is_left_for_the_collector(self) -> None:
        """What a connection was made of is freed when it ends, not when the collector comes."""
        road = Road()
        client, backend = road.pair()
        relay = next(iter(road.site.relays))
        seen = [weakref.ref(each) for each in (relay, relay.downstream, relay.upstream)]
        gc.disable()
        self.addCleanup(gc.enable)
        del relay
        client.transport.write(b"x")
        client.transport.loseConnection()
        road.network.settle()
        backend.transport.loseConnection()
        self.whole(road, ok=1)
        self.assertEqual([each() for each in seen], [None, None, None])

    def test_calls_after_the_end(self) -> None:
        """Once both are lost, whatever is still called finds nothing to do."""
        road = Road()
        client, _ = road.pair()
        relay = next(iter(road.site.relays))
        client.transport.abortConnection()
        self.whole(road, client_closed=1)
        relay.finish("ok", Outcome.OK, abort=True)
        relay.expired(1e9)
        relay.cut()
        for write in (relay.write_down, relay.write_up):
            assert write is not None
            write(b"x")
        self.whole(road, client_closed=1)
