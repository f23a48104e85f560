"""Connections that are made ahead (features.md, L4-2), over wires: how many, whose, for how long, never twice."""

from __future__ import annotations

import errno
from dataclasses import replace

from twisted.internet.error import ConnectionDone

from lbsvc.core.policies import BreakerPolicy, KeptConnections
from tests.kit.network import PENDING
from tests.kit.roads import Road
from tests.kit.wire import HalfClosingPeer
from tests.net.test_relay import BIG, RoadTestCase

REFUSED = errno.ECONNREFUSED


class AheadTestCase(RoadTestCase):
    def road(self, backends: int = 1, ahead: int = 3, **keys: object) -> Road:
        """A road whose connections are ready."""
        road = Road(backends, ahead=ahead, **keys)  # type: ignore[arg-type]
        assert road.ahead is not None
        road.ahead.start()
        road.network.settle()
        return road

    def ready(self, road: Road) -> int:
        assert road.ahead is not None
        return road.ahead.ready

    def close(self, road: Road, **reasons: int) -> None:
        """Nothing is left when no more are wanted: what waited has been closed in order."""
        road.site.drain()
        road.network.settle()
        for peer in road.network.backends:
            if peer.events == ["made", "read-end"]:
                peer.transport.loseConnection()
        self.whole(road, **reasons)


class HandOutTests(AheadTestCase):
    def test_each_backend_has_some(self) -> None:
        """So many are dialled for each backend before anybody comes; they count as its connections, not as leases."""
        road = self.road(2, 3)
        self.assertEqual(sorted(dial.port for dial in road.network.dials), [9001] * 3 + [9002] * 3)
        self.assertEqual([(each.connections, each.active) for each in road.backends], [(3, 0)] * 2)
        self.close(road)

    def test_client_gets_one(self) -> None:
        """A client gets one without a dial, and it is replaced."""
        road = self.road()
        road.network.answers[9001] = PENDING
        client = road.connect()
        client.transport.write(b"hello")
        road.network.settle()
        self.assertEqual(bytes(road.network.backends[2].received), b"hello")
        self.assertEqual((self.ready(road), len(road.network.dials)), (2, 4))
        road.network.pending.connect()
        road.network.settle()
        self.assertEqual((self.ready(road), road.backends[0].connections, road.backends[0].active), (3, 4, 1))
        road.network.backends[2].transport.write(BIG)
        client.transport.write(BIG[::-1])
        road.network.settle()
        self.assertEqual(bytes(client.received), BIG)
        self.assertEqual(bytes(road.network.backends[2].received), b"hello" + BIG[::-1])
        client.transport.abortConnection()
        self.close(road, client_closed=1)
        self.assertEqual((road.records[0].t_connect, road.records[0].attempts), (0.0, 1))

    def test_never_two_clients(self) -> None:
        """Each connection carries one client's bytes and ends with it; more clients than are ready are dialled for."""
        road = self.road(2, 2)
        clients = [road.connect() for _ in range(20)]
        for number, client in enumerate(clients):
            client.transport.write(b"%d" % number)
        road.network.settle()
        heard = [bytes(peer.received) for peer in road.network.backends if peer.received]
        self.assertEqual(sorted(heard, key=int), [b"%d" % number for number in range(20)])
        for client in clients:
            client.transport.loseWriteConnection()
        road.network.settle()
        for peer in road.network.backends:
            if peer.received:
                peer.transport.loseConnection()
        road.network.settle()
        for client in clients:
            client.transport.loseConnection()
        self.close(road, ok=20)

    def test_half_close_and_reset(self) -> None:
        """Ends are passed on as on any other connection, both kinds, both ways."""
        road = self.road()
        client = road.connect()
        backend = road.network.backends[2]
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        road.network.settle()
        self.assertEqual((bytes(backend.received), backend.events), (b"question", ["made", "read-end"]))
        backend.transport.write(b"answer")
        road.network.settle()
        backend.transport.abortConnection()
        road.network.settle()
        self.close(road, upstream_reset=1)
        self.assertEqual((bytes(client.received), client.events[-1]), (b"answer", "lost"))

    def test_greeting(self) -> None:
        """A server that speaks first is not read before there is a client, who then gets all that it has said."""
        road = self.road(ahead=1)
        backend = road.network.backends[0]
        backend.transport.write(b"220 hello\r\n" + BIG)
        road.network.settle()
        wire = road.network.wires[0]
        self.assertEqual((wire.left.queued, len(wire.left.into.bytes)), (0, 65536))
        client = road.connect()
        road.network.settle()
        self.assertEqual(bytes(client.received), b"220 hello\r\n" + BIG)
        client.transport.abortConnection()
        self.close(road, client_closed=1)

    def test_greeting_and_end(self) -> None:
        """One that has greeted and then ended its connection is not handed out: its words were for nobody."""
        road = self.road(ahead=1)
        road.network.backends[0].transport.write(b"421 too slow\r\n")
        road.network.backends[0].transport.loseConnection()
        road.network.settle()
        client = road.connect()
        road.network.settle()
        self.assertEqual((bytes(client.received), len(road.network.dials)), (b"", 2))
        client.transport.abortConnection()
        self.close(road, client_closed=1)

    def test_ended_in_this_turn(self) -> None:
        """What has ended, in order or by a reset, is noticed before it is handed out, though nobody has looked yet."""
        for how in ("loseConnection", "abortConnection"):
            road = self.road(ahead=2)
            newest = road.network.backends[1]
            getattr(newest.transport, how)()
            road.network.settle()
            client = road.connect()
            client.transport.write(b"hello")
            road.network.settle()
            self.assertEqual(bytes(road.network.backends[0].received), b"hello")
            client.transport.abortConnection()
            self.close(road, client_closed=1)

    def test_of_a_backend_without_any(self) -> None:
        """Where none is ready a client is dialled for, as ever."""
        road = Road(ahead=3)
        assert road.ahead is not None
        client, backend = road.pair()
        client.transport.write(b"hello")
        road.network.settle()
        self.assertEqual(bytes(backend.received), b"hello")
        client.transport.abortConnection()
        self.close(road, client_closed=1)


class RefillTests(AheadTestCase):
    def test_one_at_a_time(self) -> None:
        """A backend is dialled once at a time, however many are missing; another backend does not wait for it."""
        road = Road(2, ahead=3)
        assert road.ahead is not None
        road.network.answers[9001] = PENDING
        road.ahead.start()
        for number in range(1, 4):
            road.network.settle()
            self.assertEqual([dial.port for dial in road.network.dials].count(9001), number)
            road.network.pending.connect()
        road.network.settle()
        self.assertEqual((len(road.network.dials), self.ready(road)), (6, 6))
        self.close(road)

    def test_many(self) -> None:
        """All of many come, though not all of them in one turn."""
        road = Road(ahead=80)
        assert road.ahead is not None
        road.ahead.start()
        self.assertLess(self.ready(road), 40)
        road.network.settle()
        self.assertEqual(self.ready(road), 80)
        self.close(road)

    def test_backoff(self) -> None:
        """While dials fail the pauses double, up to half a minute; nobody is blamed, and clients are served meanwhile."""
        road = Road(ahead=3, connect=1.0)
        assert road.ahead is not None
        road.network.answers[9001] = REFUSED
        road.ahead.start()
        tries = []
        for _ in range(6):
            before = len(road.network.dials)
            road.network.sleep(15, step=0.5)
            tries.append(len(road.network.dials) - before)
        self.assertLess(sum(tries), 12)
        self.assertLessEqual(max(tries[2:]), 2)
        self.assertEqual((sum(road.backends[0].failures.values()), road.backends[0].tcp_error), (0, 0))
        del road.network.answers[9001]
        road.network.sleep(46, step=0.5)
        self.assertEqual(self.ready(road), 3)
        self.close(road)

    def test_dial_without_an_answer(self) -> None:
        """A dial that takes longer than `connect` is given up, and rested from."""
        road = Road(ahead=3, connect=2.0)
        assert road.ahead is not None
        road.network.answers[9001] = PENDING
        road.ahead.start()
        road.network.sleep(2.2)
        self.assertTrue(road.network.dials[0].was_cancelled)
        self.assertEqual(len(road.network.dials), 1)
        road.network.sleep(2)
        self.assertEqual(len(road.network.dials), 2)
        self.close(road)

    def test_backend_that_ends_them(self) -> None:
        """A backend that closes whatever waits is not dialled in a storm."""
        road = self.road(ahead=10)
        for _ in range(600):
            for peer in road.network.backends:
                if peer.transport.connected:
                    peer.transport.loseConnection()
            road.network.settle()
            road.network.sleep(0.1)
        self.assertLess(len(road.network.dials), 80)
        self.close(road)

    def test_end_is_noticed(self) -> None:
        """What a backend ends while it waits goes with the next look, and is replaced after a pause."""
        road = self.road()
        road.network.sleep(5)
        road.network.backends[0].transport.loseConnection()
        road.network.settle()
        assert road.ahead is not None
        road.ahead.look()
        self.assertEqual((self.ready(road), road.backends[0].connections, len(road.network.dials)), (2, 2, 3))
        road.network.sleep(3)
        self.assertEqual((self.ready(road), len(road.network.dials)), (3, 4))
        self.close(road)

    def test_refreshed(self) -> None:
        """None waits longer than idle_timeout, or max_lifetime where that is less; they do not all go at once."""
        for kept in (KeptConnections(idle_timeout=20.0), KeptConnections(max_lifetime=20.0)):
            road = self.road(ahead=4, kept=kept)
            road.network.sleep(14)
            self.assertEqual((self.ready(road), len(road.network.dials)), (4, 4))
            counts = set()
            for _ in range(65):
                road.network.sleep(0.1)
                self.assertEqual(self.ready(road), 4)
                counts.add(len(road.network.dials))
            self.assertEqual([peer.events for peer in road.network.backends[:4]], [["made", "read-end"]] * 4)
            self.assertGreater(len(counts), 3)
            for peer in road.network.backends[:4]:
                peer.transport.loseConnection()
            self.close(road)


class MemberTests(AheadTestCase):
    def test_who_has_none(self) -> None:
        """A backend that may not have new work has none ready: they are closed within a second, and come back with it."""
        for change in ("health=down", "health=flapping", "health=unknown", "state=drain", "state=maint", "weight=0",
                       "circuit=open", "circuit=half_open", "is_ejected=True"):  # fmt: skip
            road = self.road(2)
            name, _, value = change.partition("=")
            before = getattr(road.backends[0], name)
            setattr(road.backends[0], name, type(before)(value))
            road.pool.refresh()
            road.network.sleep(1.1)
            self.assertEqual([each.connections for each in road.backends], [0, 3], change)
            setattr(road.backends[0], name, before)
            road.pool.refresh()
            road.network.sleep(1.1)
            self.assertEqual([each.connections for each in road.backends], [3, 3], change)
            self.close(road)

    def test_not_handed_out_meanwhile(self) -> None:
        """Before that second is over none of them is handed out: a trial of a half-open circuit is a dial."""
        road = self.road(breaker=BreakerPolicy())
        road.backends[0].circuit = "half_open"
        client = road.connect()
        road.network.settle()
        self.assertEqual(len(road.network.dials), 4)
        client.transport.abortConnection()
        self.close(road, client_closed=1)

    def test_gone(self) -> None:
        """The connections of a member that leaves the pool are closed, and its dial is given up; a new one gets some."""
        road = self.road(2)
        road.network.answers[9001] = PENDING
        client = road.connect()
        road.network.settle()
        client.transport.abortConnection()
        road.pool.set_members(road.backends[1:])
        road.network.sleep(1.1)
        self.assertEqual([each.connections for each in road.backends], [0, 3])
        self.assertTrue(road.network.dials[-1].was_cancelled)
        del road.network.answers[9001]
        road.pool.set_members(road.backends)
        road.network.sleep(1.1)
        self.assertEqual([each.connections for each in road.backends], [3, 3])
        self.close(road, client_closed=1)

    def test_other_settings(self) -> None:
        """Other settings act at once: how many, for how long; where backends are spoken to otherwise all are made anew."""
        road = self.road(ahead=3)
        assert road.ahead is not None
        settings = road.ahead.settings
        road.ahead.apply(replace(settings, ahead=1), False)
        road.network.settle()
        self.assertEqual((self.ready(road), len(road.network.dials)), (1, 3))
        road.ahead.apply(replace(settings, ahead=2), True)
        road.network.settle()
        self.assertEqual((self.ready(road), len(road.network.dials)), (2, 5))
        road.ahead.apply(replace(settings, ahead=2, connections=KeptConnections(idle_timeout=5.0)), False)
        road.network.settle()
        self.assertEqual((self.ready(road), len(road.network.dials), road.ahead.patience), (2, 7, 5.0))
        self.close(road)

    def test_another_address(self) -> None:
        """Connections to where a backend was are not handed out, and are replaced by some to where it is."""
        road = self.road(ahead=2)
        road.backends[0].port = 9009
        client = road.connect()
        client.transport.write(b"hello")
        road.network.settle()
        self.assertEqual((road.network.dials[2].port, bytes(road.network.backends[2].received)), (9009, b"hello"))
        road.network.sleep(1.1)
        self.assertEqual([dial.port for dial in road.network.dials[2:]], [9009] * 3)
        client.transport.abortConnection()
        self.close(road, client_closed=1)

    def test_max_connections(self) -> None:
        """With those that are ready a backend never has more than its max_connections."""
        road = self.road(ahead=3, most=4)
        clients: list[HalfClosingPeer] = []
        for _ in range(4):
            clients.append(road.connect())
            road.network.sleep(2)
            self.assertLessEqual(road.backends[0].connections, 4)
            self.assertEqual(self.ready(road), min(3, 4 - len(clients)))
        for client in clients:
            client.transport.abortConnection()
        road.network.sleep(2)
        self.assertEqual(self.ready(road), 3)
        self.close(road, client_closed=4)

    def test_superfluous_when_it_arrives(self) -> None:
        """A dial whose place a client has taken meanwhile is closed as it comes through."""
        road = Road(ahead=1, most=1)
        assert road.ahead is not None
        road.network.answers[9001] = PENDING
        road.ahead.start()
        client = road.connect()
        ahead, for_client = road.network.dials
        ahead.connect()
        self.assertEqual((self.ready(road), road.backends[0].connections), (0, 0))
        for_client.connect()
        self.assertEqual(road.backends[0].connections, 1)
        client.transport.abortConnection()
        self.close(road, client_closed=1)

    def test_drain(self) -> None:
        """A drain closes them in order, and gives up dials and pauses; what clients have goes on; others are dialled for."""
        road = self.road(2)
        client = road.connect()
        road.network.answers[9001] = REFUSED
        road.network.sleep(0.2)
        road.site.drain()
        road.network.settle()
        self.assertEqual([each.connections for each in road.backends], [1, 0])
        late = road.connect()
        client.transport.write(b"still heard")
        road.network.settle()
        self.assertIn(b"still heard", [bytes(peer.received) for peer in road.network.backends])
        unused = [peer for peer in road.network.backends if "read-end" in peer.events]
        self.assertEqual(len(unused), 5)
        for peer in unused:
            peer.transport.loseConnection()
            self.assertIsNone(peer.lost)
        for each in (client, late):
            each.transport.abortConnection()
        road.network.settle()
        self.assertEqual({peer.lost.__class__ for peer in unused}, {ConnectionDone})
        self.close(road, client_closed=2)
