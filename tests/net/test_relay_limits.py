"""The layer 4 road where a connection may not have just any backend at once: rates, affinity, hashing, queues, breakers."""

from __future__ import annotations

import errno

from lbsvc.core.policies import BreakerPolicy, QueuePolicy, RatePolicy, StickyPolicy
from tests.kit.network import PENDING
from tests.kit.roads import Road
from tests.kit.wire import HalfClosingPeer
from tests.net.test_relay import BIG, RoadTestCase

REFUSED = errno.ECONNREFUSED
STICKY = StickyPolicy(type="ip", ttl=60.0)


def ports(road: Road) -> list[int]:
    """Where the dials went."""
    return [dial.port for dial in road.network.dials]


def end(road: Road, *clients: HalfClosingPeer) -> None:
    """They reset."""
    for client in clients:
        client.transport.abortConnection()
    road.network.settle()


class RateTests(RoadTestCase):
    def test_rl_1_closed_at_once(self) -> None:
        """RL-1: a client past the listener's rate is closed in order, before any backend is asked, and counted so."""
        road = Road(limit=RatePolicy(1.0, 2))
        clients = [road.connect() for _ in range(3)]
        road.network.settle()
        self.assertEqual((len(road.network.dials), clients[2].events), (2, ["made", "read-end"]))
        self.assertEqual(road.books.rejected["rate_limited"], 1)
        self.assertEqual((road.records[0].reason, road.records[0].backend), ("rate_limited", None))
        clients[2].transport.loseConnection()
        end(road, *clients[:2])
        self.whole(road, rate_limited=1, client_closed=2)
        self.assertEqual(sum(sum(each.failures.values()) for each in road.backends), 0)

    def test_rl_1_tokens_come_back(self) -> None:
        """RL-1: after as long as a token takes one more is let in."""
        road = Road(limit=RatePolicy(1.0, 1))
        first, refused = road.connect(), road.connect()
        road.network.sleep(1.1)
        again = road.connect()
        self.assertEqual(len(road.network.dials), 2)
        refused.transport.loseConnection()
        end(road, first, again)
        self.whole(road, rate_limited=1, client_closed=2)

    def test_rl_1_by_client(self) -> None:
        """RL-1: each client has tokens of its own; the addresses of one /64 are one client."""
        road = Road(limit=RatePolicy(1.0, 1))
        addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "unix", "unix"]
        end(road, *(road.connect(address=address) for address in addresses))
        self.assertEqual(
            [record.peer for record in road.records if record.reason == "rate_limited"], ["2001:db8::2", "unix"]
        )
        self.assertEqual(road.broken(), [])

    def test_rl_1_of_the_listener(self) -> None:
        """RL-1: with the key `listener` all clients share the tokens."""
        road = Road(limit=RatePolicy(1.0, 1, "listener"))
        end(road, road.connect(address="192.0.2.1"), road.connect(address="192.0.2.2"))
        self.whole(road, rate_limited=1, client_closed=1)

    def test_refused_are_no_requests(self) -> None:
        """Connections that are refused do not add to what may be retried."""
        road = Road(limit=RatePolicy(1.0, 1), budget=1.0, attempts=2)
        road.network.answers[9001] = REFUSED
        clients = [road.connect() for _ in range(30)]
        road.network.settle()
        for client in clients:
            client.transport.loseConnection()
        self.whole(road, rate_limited=29, connect_failed=1)


class AffinityTests(RoadTestCase):
    def test_st_5_comes_back(self) -> None:
        """ST-5: with `sticky: ip` a client's connections all go to the backend of its first one, others elsewhere."""
        road = Road(3, sticky=STICKY)
        addresses = ["192.0.2.1", "192.0.2.2"] * 3
        end(road, *(road.connect(address=address) for address in addresses))
        self.assertEqual(ports(road), [9001, 9002] * 3)
        self.assertEqual(road.broken(), [])

    def test_st_2_one_of_several(self) -> None:
        """Where the process is one of several a new client's connections begin where its address says, whoever came
        before."""
        found = set()
        for before in range(3):
            road = Road(5, sticky=STICKY)
            road.pool.settle_by_hash(True)
            end(road, *(road.connect(address=f"198.51.100.{number}") for number in range(before)))
            end(road, *(road.connect() for _ in range(3)))
            found.update(ports(road)[before:])
        self.assertEqual(len(found), 1)

    def test_st_5_forgotten(self) -> None:
        """ST-5: after `ttl` without a connection it is a new client."""
        road = Road(3, sticky=STICKY)
        end(road, road.connect())
        road.network.sleep(59, step=1.0)
        end(road, road.connect())
        road.network.sleep(59, step=1.0)
        end(road, road.connect())
        road.network.sleep(61, step=1.0)
        end(road, road.connect())
        self.assertEqual(ports(road), [9001, 9001, 9001, 9002])

    def test_keeps_to_one_that_drains(self) -> None:
        """A backend in `drain` keeps its clients and gets no new ones; in `maint` or down it loses them for good."""
        for state, health, expected in (("drain", "up", 9001), ("maint", "up", 9002), ("ready", "down", 9002)):
            road = Road(2, sticky=STICKY)
            end(road, road.connect())
            road.backends[0].state, road.backends[0].health = state, health
            road.pool.refresh()
            end(road, road.connect())
            self.assertEqual(ports(road)[1:], [expected], state)
            road.backends[0].state, road.backends[0].health = "ready", "up"
            road.pool.refresh()
            end(road, road.connect())
            self.assertEqual(ports(road)[2:], [expected])
            self.assertEqual(road.broken(), [])

    def test_waits_for_its_own(self) -> None:
        """A client whose backend drains, is full, and is the only one waits for it; a new client is told at once."""
        road = Road(1, sticky=STICKY, most=1)
        first = road.connect()
        road.backends[0].state = "drain"
        road.pool.refresh()
        waits, stranger = road.connect(), road.connect(address="192.0.2.99")
        road.network.settle()
        self.assertEqual((road.reasons, len(road.pool.queue)), ({"no_backend": 1}, 1))
        stranger.transport.loseConnection()
        end(road, first)
        self.assertEqual(ports(road), [9001, 9001])
        end(road, waits)
        self.whole(road, no_backend=1, client_closed=2)

    def test_another_one_where_it_cannot_be_reached(self) -> None:
        """A client whose backend refuses goes to another, and stays there."""
        road = Road(2, sticky=STICKY)
        end(road, road.connect())
        road.network.answers[9001] = REFUSED
        end(road, road.connect(), road.connect())
        self.assertEqual(ports(road), [9001, 9001, 9002, 9002])

    def test_does_not_insist_on_a_suspect(self) -> None:
        """One that could not be reached a moment ago, with no retry left, is not insisted on."""
        road = Road(2, sticky=STICKY, attempts=1)
        road.pool.on_suspect = lambda backend: None
        end(road, road.connect())
        road.network.answers[9001] = REFUSED
        end(road, road.connect(), road.connect())
        self.assertEqual(ports(road), [9001, 9001, 9002])

    def test_one_moment(self) -> None:
        """Connections that a client opens before the first has its backend go to the same one."""
        road = Road(3, sticky=STICKY)
        road.network.answers = dict.fromkeys(range(9001, 9004), PENDING)
        clients = [road.connect() for _ in range(3)]
        self.assertEqual(ports(road), [9001] * 3)
        end(road, *clients)
        self.whole(road, client_closed=3)

    def test_clients_of_unix_sockets(self) -> None:
        """Who has no address takes turns."""
        road = Road(2, sticky=STICKY)
        end(road, *(road.connect(address="unix") for _ in range(4)))
        self.assertEqual(ports(road), [9001, 9002] * 2)

    def test_hashed(self) -> None:
        """With ip_hash and consistent_hash a client keeps its backend without any memory; clients spread."""
        for algorithm in ("ip_hash", "consistent_hash"):
            road = Road(3, algorithm=algorithm)
            addresses = [f"192.0.2.{number}" for number in range(30)]
            for _ in range(3):
                for address in addresses:
                    end(road, road.connect(address=address))
            went = ports(road)
            self.assertEqual(went[:30], went[30:60], algorithm)
            self.assertEqual(went[:30], went[60:], algorithm)
            self.assertEqual(set(went), {9001, 9002, 9003})
            self.assertEqual(road.broken(), [])


class QueueTests(RoadTestCase):
    def test_cb_4_waits_for_a_place(self) -> None:
        """CB-4: past every backend's limit connections wait, first come, first served, and lose nothing that they sent."""
        road = Road(2, most=1)
        first, second, third, fourth = clients = [road.connect() for _ in range(4)]
        third.transport.write(b"third")
        fourth.transport.write(b"fourth")
        road.network.sleep(1)
        self.assertEqual((ports(road), len(road.pool.queue)), ([9001, 9002], 2))
        end(road, second)
        self.assertEqual((ports(road), bytes(road.network.backends[2].received)), ([9001, 9002, 9002], b"third"))
        end(road, first)
        self.assertEqual((ports(road)[3:], bytes(road.network.backends[3].received)), ([9001], b"fourth"))
        end(road, *clients[2:])
        self.whole(road, client_closed=4)
        self.assertEqual([record.t_queue is None for record in road.records], [True, True, False, False])
        self.assertAlmostEqual(road.records[2].t_queue or 0.0, 1.0)

    def test_cb_4_never_more(self) -> None:
        """CB-4: no backend ever has more connections than its limit, however they come and go, and all have their turn."""
        road = Road(3, most=2)
        clients = []
        for number in range(200):
            clients.append(road.connect())
            if number % 3 == 2:
                gone = clients.pop(road.rng.randrange(len(clients)))
                gone.transport.abortConnection()
            road.network.turn()
            self.assertLessEqual(max(each.active for each in road.backends), 2)
        while clients:
            end(road, clients.pop(0))
            self.assertLessEqual(max(each.active for each in road.backends), 2)
        self.whole(road, client_closed=200)

    def test_timeout(self) -> None:
        """Who has waited for `queue.timeout` is closed in order; nobody is dialled, nobody is blamed."""
        road = Road(most=1, queue=QueuePolicy(10, 5.0))
        first, waits = road.connect(), road.connect()
        waits.transport.write(b"hello?")
        road.network.sleep(4.9)
        self.assertEqual(road.reasons, {})
        road.network.sleep(0.5)
        self.assertEqual((road.reasons, len(road.pool.queue)), ({"queue_timeout": 1}, 0))
        self.assertEqual(
            (waits.events, road.records[0].attempts, road.records[0].backend), (["made", "read-end"], 0, None)
        )
        waits.transport.loseConnection()
        end(road, first)
        self.whole(road, queue_timeout=1, client_closed=1)
        self.assertEqual((len(road.network.dials), sum(road.backends[0].failures.values())), (1, 0))

    def test_served_in_time(self) -> None:
        """Who got a place is not closed when the wait would have been over."""
        road = Road(most=1, queue=QueuePolicy(10, 5.0))
        first, waits = road.connect(), road.connect()
        road.network.sleep(4)
        end(road, first)
        road.network.sleep(20)
        self.assertEqual(road.reasons, {"client_closed": 1})
        end(road, waits)
        self.whole(road, client_closed=2)

    def test_dialling_is_not_waiting(self) -> None:
        """Once somebody has a place only `connect` counts until the backend is there."""
        road = Road(most=1, queue=QueuePolicy(10, 2.0), idle=1, connect=5.0)
        first, waits = road.connect(), road.connect()
        road.network.answers[9001] = PENDING
        end(road, first)
        road.network.sleep(4)
        self.assertEqual(road.reasons, {"client_closed": 1})
        road.network.pending.connect()
        end(road, waits)
        self.whole(road, client_closed=2)

    def test_full(self) -> None:
        """Where the queue is full, and where there is none, the next one is closed at once."""
        for size in (2, 0):
            road = Road(most=1, queue=QueuePolicy(size, 5.0))
            clients = [road.connect() for _ in range(size + 2)]
            road.network.settle()
            self.assertEqual((road.reasons, clients[-1].events), ({"queue_full": 1}, ["made", "read-end"]))
            clients[-1].transport.loseConnection()
            for client in clients[:-1]:
                end(road, client)
            self.whole(road, queue_full=1, client_closed=size + 1)

    def test_client_leaves(self) -> None:
        """A client that resets gives up its place at once, and is never connected to anybody."""
        road = Road(most=1)
        first, leaves, stays = [road.connect() for _ in range(3)]
        leaves.transport.write(b"a short question")
        road.network.settle()
        end(road, leaves)
        self.assertEqual((road.reasons, len(road.pool.queue)), ({"client_closed": 1}, 1))
        end(road, first)
        self.assertEqual(len(road.network.dials), 2)
        end(road, stays)
        self.whole(road, client_closed=3)

    def test_client_has_finished(self) -> None:
        """A client that has said all it has to say keeps its place, and gets its answer."""
        road = Road(most=1)
        first, waits = road.connect(), road.connect()
        waits.transport.write(b"question")
        waits.transport.loseWriteConnection()
        road.network.sleep(1)
        end(road, first)
        backend = road.network.backends[1]
        self.assertEqual((bytes(backend.received), backend.events), (b"question", ["made", "read-end"]))
        backend.transport.write(b"answer")
        backend.transport.loseConnection()
        road.network.settle()
        self.assertEqual(bytes(waits.received), b"answer")
        waits.transport.loseConnection()
        self.whole(road, client_closed=1, ok=1)

    def test_what_waits_is_bounded(self) -> None:
        """Of what a client sends while it waits a little is kept, in whatever pieces it comes; the rest stays with it."""
        for cut in (1, 65536):
            road = Road(most=1)
            first, waits = road.connect(), road.connect()
            waits.transport.write(BIG)
            road.network.settle(cut)
            (relay,) = [each for each in road.site.relays if each.ticket is not None]
            self.assertLess(sum(map(len, relay.early)), 2 * 65536)
            self.assertLessEqual(len(relay.early), 64)
            end(road, first)
            self.assertEqual(bytes(road.network.backends[1].received), BIG)
            end(road, waits)
            self.whole(road, client_closed=2)

    def test_place_of_one_that_fails(self) -> None:
        """A place is handed on when the dial of whoever got it fails, to one after the other, and none is lost."""
        road = Road(most=1, attempts=1)
        clients = [road.connect() for _ in range(50)]
        road.network.answers[9001] = REFUSED
        end(road, clients[0])
        self.assertEqual(road.reasons, {"client_closed": 1, "connect_failed": 49})
        for client in clients[1:]:
            client.transport.loseConnection()
        self.whole(road, client_closed=1, connect_failed=49)

    def test_new_room(self) -> None:
        """A backend that comes up takes those who wait, as many as it may have."""
        road = Road(2, most=1)
        road.backends[1].health = "down"
        road.pool.refresh()
        clients = [road.connect() for _ in range(3)]
        road.backends[1].health = "up"
        road.pool.refresh()
        self.assertEqual((ports(road), len(road.pool.queue)), ([9001, 9002], 1))
        for client in clients:
            end(road, client)
        self.whole(road, client_closed=3)

    def test_cut_while_waiting(self) -> None:
        """What a drain cuts of the queue was killed."""
        road = Road(most=1)
        for _ in range(3):
            road.connect()
        road.site.abort()
        self.whole(road, killed=3)


class CircuitTests(RoadTestCase):
    def test_cb_1_open(self) -> None:
        """CB-1: with its circuit open a pool's only backend gets nothing, and clients are closed for that reason."""
        road = Road(breaker=BreakerPolicy(2, 30.0, 1), attempts=1)
        road.network.answers[9001] = REFUSED
        clients = [road.connect() for _ in range(4)]
        road.network.settle()
        self.assertEqual((len(road.network.dials), road.reasons), (2, {"connect_failed": 2, "circuit_open": 2}))
        for client in clients:
            client.transport.loseConnection()
        road.network.sleep(31, step=1.0)
        self.whole(road, connect_failed=2, circuit_open=2)
        self.assertEqual(road.events, [("circuit.open", "b9001"), ("circuit.half_open", "b9001")])

    def test_cb_3_connected_is_enough(self) -> None:
        """CB-3: a half-open circuit closes with the trials that connect, though they last; others are told at once."""
        road = Road(breaker=BreakerPolicy(2, 30.0, 2), attempts=1)
        road.network.answers[9001] = REFUSED
        for client in [road.connect(), road.connect()]:
            road.network.settle()
            client.transport.loseConnection()
        road.network.sleep(31, step=1.0)
        road.network.answers[9001] = PENDING
        clients = [road.connect() for _ in range(3)]
        self.assertEqual((len(road.network.dials), road.reasons["circuit_open"]), (4, 1))
        road.network.dials[2].connect()
        self.assertEqual(road.backends[0].circuit, "half_open")
        road.network.dials[3].connect()
        self.assertEqual(road.backends[0].circuit, "closed")
        clients.append(road.connect())
        road.network.dials[4].connect()
        end(road, *clients)
        self.whole(road, connect_failed=2, circuit_open=1, client_closed=3)
        self.assertEqual(road.events[2:], [("circuit.closed", "b9001")])
