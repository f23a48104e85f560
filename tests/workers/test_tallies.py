"""What workers tell each other: limits that hold for all of them, clients that are counted once, one backend for each."""

from __future__ import annotations

from functools import partial

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import ListenerSettings, PoolSettings
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.clients import Surplus
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, RatePolicy, StickyPolicy
from lbsvc.workers.tallies import EXCHANGE, MOST, most_debt
from tests.kit import builders
from tests.workers.allied import Alliance, Ally

RATE = RatePolicy(10.0, 20)
PEER = "192.0.2.1"


def limited(**keys: object) -> ListenerSettings:
    """A listener and one of its routes with a rate limit each."""
    routes = (builders.route("api", path="/api", pool="web", rate_limit=RATE),)
    return builders.listener(**{"pool": "web", "routes": routes, "rate_limit": RATE, **keys})


def pool(**keys: object) -> PoolSettings:
    return builders.pool(*(f"127.0.0.1:{port}" for port in range(9001, 9006)), **keys)


class RateTests(TestCase):
    def test_each_limit_by_its_name(self) -> None:
        """What one worker lets in is missing in the same bucket of the others: the listener's, a route's, a tcp one's."""
        tcp = builders.listener(name="tcp", protocol="tcp", pool="web", rate_limit=RATE)
        alliance = Alliance(3, limited(), tcp, pool())
        now = alliance.clock.seconds()
        for listener, route, taken in (("main", "", 15), ("main", "api", 5), ("tcp", "", 19)):
            limiter = alliance.members[0].limiter(listener, route)
            self.assertEqual([limiter.take("k", now) for _ in range(taken)], [0.0] * taken)
        alliance.exchange()
        for ally in alliance.members:
            left = {}
            for listener, route in (("main", ""), ("main", "api"), ("tcp", "")):
                limiter = ally.limiter(listener, route)
                left[listener, route] = sum(limiter.take("k", now) == 0.0 for _ in range(30))
            # Charges count from the moment of the exchange before, at most one token of this rate ago.
            others = 0 if ally.worker == 0 else 1
            self.assertEqual(left, {("main", ""): 5 + others, ("main", "api"): 15 + others, ("tcp", ""): 1 + others})

    def test_told_once(self) -> None:
        """What was told is not told again, and what was heard is not told back."""
        alliance = Alliance(2, limited(), pool())
        alliance.members[0].limiter().take("k", alliance.clock.seconds())
        self.assertEqual([alliance.exchange() for _ in range(3)], [1, 0, 0])

    def test_words_and_bytes(self) -> None:
        """A header's value is another key than the same word of a client also where it comes from another worker."""
        alliance = Alliance(2, limited(rate_limit=RatePolicy(1.0, 1)), pool())
        one, other = (ally.limiter() for ally in alliance.members)
        now = alliance.clock.seconds()
        one.take(b"k", now)
        one.take("k" * 1000, now)
        alliance.exchange()
        self.assertEqual(other.take("k", now), 0.0)
        self.assertGreater(other.take(b"k", now), 0.0)
        self.assertGreater(other.take("k" * 1000, now), 0.0)

    def test_many_keys(self) -> None:
        """At most MOST keys of a limit are told at a time, the others next time, none twice."""
        alliance = Alliance(2, limited(), pool())
        limiter = alliance.members[0].limiter()
        for number in range(MOST + 10):
            limiter.take(f"k{number}", alliance.clock.seconds())
        self.assertEqual([alliance.exchange() for _ in range(3)], [MOST, 10, 0])

    def test_debts_end(self) -> None:
        """However much others say that they have let in, a key waits no longer than the stated debt takes."""
        alliance = Alliance(2, limited(), pool())
        ally, now = alliance.members[0], alliance.clock.seconds()
        for _ in range(10):
            ally.tallies.apply(1, [["listener", "main", "", [["k", 1000]]]], now)
        limiter = ally.limiter()
        self.assertEqual(most_debt(limiter, 2), 2 * (20 + 2))
        self.assertEqual(limiter.take("k", now), (44 + 1) / 10.0)

    def test_after_a_reload(self) -> None:
        """A limit that is new is told from its first token on; one that has gone elsewhere is passed over."""
        alliance = Alliance(2, builders.listener(pool="web"), pool())
        first, second = alliance.members
        first.change(builders.settings(limited(), pool()))
        now = alliance.clock.seconds()
        for _ in range(20):
            first.limiter().take("k", now)
        alliance.exchange()  # the second has not got it yet
        second.change(builders.settings(limited(), pool()))
        first.limiter("main", "api").take("k", now)
        alliance.exchange()
        self.assertEqual(sum(second.limiter("main", "api").take("k", now) == 0.0 for _ in range(30)), 20)
        self.assertEqual(sum(second.limiter().take("k", now) == 0.0 for _ in range(30)), 20)


class ClientTests(TestCase):
    def setUp(self) -> None:
        self.alliance = Alliance(3, limited(connections_per_client=4, rate_limit=None), pool())
        self.first, self.second, self.third = self.alliance.members
        self.alliance.exchange()

    def taken(self, worker: int, count: int) -> int:
        """How many of so many connections are let in."""
        clients = self.alliance.members[worker].clients
        return sum(type(clients.enter(PEER)) is str for _ in range(count))

    def test_counted_together(self) -> None:
        """What a client has in one worker it cannot have in the others too, once they know; another client can."""
        self.assertEqual(self.taken(0, 3), 3)
        self.alliance.exchange()
        self.alliance.exchange()
        self.assertEqual((self.taken(1, 3), type(self.second.clients.enter(PEER))), (1, Surplus))
        self.assertEqual(type(self.second.clients.enter("192.0.2.2")), str)

    def test_all_in_one(self) -> None:
        """All that it may have may be in one worker, and what it has closed there it may have in another."""
        self.assertEqual(self.taken(2, 6), 4)
        for _ in range(2):
            self.alliance.exchange()
        self.assertEqual(self.taken(0, 1), 0)
        for _ in range(4):
            self.third.clients.leave(PEER)
        self.alliance.exchange()
        self.assertEqual(self.taken(0, 6), 4)

    def test_short_ones(self) -> None:
        """Connections that come and go between two exchanges are not held against a client by the other workers."""
        for _ in range(20):
            for _ in range(5):
                self.assertEqual(self.taken(0, 4), 4)
                for _ in range(4):
                    self.first.clients.leave(PEER)
            self.alliance.exchange()
            self.assertEqual(self.taken(1, 4), 4)
            for _ in range(4):
                self.second.clients.leave(PEER)

    def test_nothing_new(self) -> None:
        """What stays as it is is told once."""
        self.taken(0, 2)
        self.assertEqual([self.alliance.exchange() for _ in range(5)], [0, 1, 0, 0, 0])

    def test_somebody_new(self) -> None:
        """A worker that comes later is told of everybody, and the others believe what they believed."""
        self.taken(0, 3)
        for _ in range(2):
            self.alliance.exchange()
        late = Alliance(4, limited(connections_per_client=4, rate_limit=None), pool()).members[3]
        self.alliance.members.append(late)
        self.alliance.exchange()
        self.assertEqual(late.clients.elsewhere, {})
        for ally in self.alliance.members:
            ally.tallies.retell()
        self.alliance.exchange()
        self.assertEqual([ally.clients.elsewhere for ally in self.alliance.members], [{}] + [{PEER: 3}] * 3)
        for _ in range(3):
            self.first.clients.leave(PEER)
        self.alliance.exchange()
        self.assertEqual([ally.clients.elsewhere for ally in self.alliance.members], [{}] * 4)

    def test_retold_while_it_leaves(self) -> None:
        """Who has left by the time that all is told again is not believed to be there by anybody."""
        self.taken(0, 3)
        for _ in range(2):
            self.alliance.exchange()
        for _ in range(3):
            self.first.clients.leave(PEER)
        self.first.tallies.retell()
        self.alliance.exchange()
        self.assertEqual([ally.clients.elsewhere for ally in self.alliance.members], [{}] * 3)

    def test_gone(self) -> None:
        """What a worker had said is forgotten with it, and what others had said is not."""
        self.taken(0, 1)
        self.taken(1, 2)
        for _ in range(2):
            self.alliance.exchange()
        self.assertEqual(self.third.clients.elsewhere, {PEER: 3})
        self.third.tallies.forget(1)
        self.third.tallies.forget(7)
        self.assertEqual(self.third.clients.elsewhere, {PEER: 1})
        self.assertEqual(repr(self.third.tallies), "<Tallies: 1 listeners count clients, 1 workers have told>")

    def test_switched_off_and_on(self) -> None:
        """A listener that counts no more leaves nothing behind in the others; one that counts again begins with all."""
        without = builders.settings(limited(rate_limit=None), pool())
        counting = builders.settings(limited(connections_per_client=4, rate_limit=None), pool())
        self.taken(0, 3)
        for _ in range(2):
            self.alliance.exchange()
        self.first.change(without)
        self.alliance.exchange()
        self.assertEqual(self.second.clients.elsewhere, {})
        self.taken(1, 2)
        for _ in range(2):
            self.alliance.exchange()
        self.first.change(counting)
        self.assertEqual(self.first.clients.elsewhere, {PEER: 2})

    def test_switched_between_exchanges(self) -> None:
        """Counts that were given up and begun anew within one exchange leave nothing of the old ones behind."""
        self.taken(0, 3)
        for _ in range(2):
            self.alliance.exchange()
        self.first.change(builders.settings(limited(rate_limit=None), pool()))
        self.first.change(builders.settings(limited(connections_per_client=4, rate_limit=None), pool()))
        self.alliance.exchange()
        self.assertEqual(self.second.clients.elsewhere, {})


class StickyTests(TestCase):
    def setUp(self) -> None:
        self.alliance = Alliance(2, limited(), pool(sticky=StickyPolicy(type="ip", ttl=60.0)))
        self.first, self.second = self.alliance.members

    def exchange(self) -> None:
        self.alliance.clock.advance(EXCHANGE)
        self.alliance.exchange()

    def found(self, client: str = PEER) -> list[str | None]:
        """Whom each worker believes it belongs to."""
        now = self.alliance.clock.seconds()
        found = [ally.table.find(client, now) for ally in self.alliance.members]
        return [backend.name if backend is not None else None for backend in found]

    def put(self, worker: int, port: int) -> None:
        ally = self.alliance.members[worker]
        ally.table.put(PEER, ally.backends[f"127.0.0.1:{port}"], self.alliance.clock.seconds())

    def test_told(self) -> None:
        """A client that one worker has given a backend has it in all of them."""
        self.put(0, 9003)
        self.exchange()
        self.assertEqual(self.found(), ["127.0.0.1:9003"] * 2)

    def test_the_later_choice(self) -> None:
        """Of two choices the later one holds everywhere, whoever hears of it first; and one of two at the same moment."""
        self.put(0, 9003)
        self.alliance.clock.advance(0.01)
        self.put(1, 9002)
        self.exchange()
        self.assertEqual(self.found(), ["127.0.0.1:9002"] * 2)
        for ports in ((9001, 9004), (9004, 9001)):
            for worker, port in enumerate(ports):
                self.put(worker, port)
            self.exchange()
            self.assertEqual(self.found(), ["127.0.0.1:9004"] * 2)

    def test_used_in_one(self) -> None:
        """A client that comes to one worker alone is forgotten by none of them, long after its time there."""
        self.put(0, 9003)
        for _ in range(300):
            self.alliance.clock.advance(1.0)
            self.first.table.find(PEER, self.alliance.clock.seconds())
            self.exchange()
        self.assertEqual(self.found(), ["127.0.0.1:9003"] * 2)

    def test_told_seldom(self) -> None:
        """Its use is told four times in its time, not each time."""
        self.put(0, 9003)
        self.exchange()
        told = 0
        for _ in range(60):
            self.alliance.clock.advance(1.0)
            self.first.table.find(PEER, self.alliance.clock.seconds())
            told += self.alliance.exchange()
        self.assertIn(told, (3, 4))  # as the seconds fall

    def test_no_member(self) -> None:
        """A backend that is no member here is passed over, and a pool that is not here too."""
        now = self.alliance.clock.seconds()
        news = [
            ["sticky", "web", "", [[PEER, "127.0.0.1:1", now]]],
            ["sticky", "api", "", [[PEER, "127.0.0.1:1", now]]],
        ]
        self.first.tallies.apply(1, news, now)
        self.assertEqual(self.found(), [None, None])

    def test_somebody_new(self) -> None:
        """A worker that comes later is told whose clients all are."""
        self.put(0, 9003)
        self.exchange()
        late = Alliance(3, limited(), pool(sticky=StickyPolicy(type="ip", ttl=60.0))).members[2]
        self.alliance.members.append(late)
        self.first.tallies.retell()
        self.exchange()
        self.assertEqual(self.found(), ["127.0.0.1:9003"] * 3)
        self.assertEqual(self.alliance.exchange(), 0)


class FoundOutTests(TestCase):
    def setUp(self) -> None:
        policies = {"circuit_breaker": BreakerPolicy(), "passive_health": EjectionPolicy()}
        self.alliance = Alliance(2, limited(), pool(**policies))
        self.told: list[tuple[int, str, str]] = []
        for ally in self.alliance.members:
            ally.pools.on_found_out = partial(self.found_out, ally)

    def found_out(self, ally: Ally, backend: Backend, what: str) -> None:
        self.told.append((ally.worker, backend.name, what))
        for other in self.alliance.members:
            if other is not ally:
                other.pools.trip(backend.pool, backend.name, backend.address, what)

    def end(self, ally: Ally, name: str, outcome: Outcome, code: int) -> None:
        live = ally.pools.upstreams["web"].pool
        lease = live.take(ally.backends[name])
        assert lease is not None
        lease.release(outcome, code)

    def test_told_once(self) -> None:
        """What one worker finds out is so in the other too, and is told by the one that has found it out, once."""
        first, second = self.alliance.members
        for _ in range(5):
            self.end(first, "127.0.0.1:9002", Outcome.RESET, -1)
        self.assertEqual(self.told, [(0, "127.0.0.1:9002", "circuit"), (0, "127.0.0.1:9002", "ejected")])
        for ally, is_found in ((first, False), (second, True)):
            backend = ally.backends["127.0.0.1:9002"]
            self.assertEqual((backend.circuit, backend.is_ejected), ("open", True))
            self.assertEqual([event for event, _ in ally.events], ["circuit.open", "backend.ejected"])
            self.assertEqual(["by" in fields for _, fields in ally.events], [is_found] * 2)

    def test_what_is_not_here(self) -> None:
        """A pool, a backend or an address that this worker does not know is passed over."""
        (first, _), address = self.alliance.members, "127.0.0.1:9002"
        for named in (("api", address, address), ("web", "x", address), ("web", address, "127.0.0.1:1")):
            first.pools.trip(*named, "circuit")
        self.assertEqual({backend.circuit for backend in first.backends.values()}, {"closed"})

    def test_without_a_policy(self) -> None:
        """A pool that has no such policy here, since it was changed a moment ago, is left alone."""
        first, second = self.alliance.members
        second.change(builders.settings(limited(), pool()))
        for _ in range(5):
            self.end(first, "127.0.0.1:9002", Outcome.OK, 500)
        self.assertEqual(second.backends["127.0.0.1:9002"].circuit, "closed")


class SeatTests(TestCase):
    def test_retries(self) -> None:
        """The retries that a pool has at any rate are shared out, now and after a change of their number."""
        alliance = Alliance(4, limited(), pool())
        budgets = [ally.pools.upstreams["web"].pool.budget for ally in alliance.members]
        self.assertEqual([budget.floor for budget in budgets], [3, 3, 2, 2])
        for ally in alliance.members:
            ally.change(builders.settings(limited(), pool(slow_start=5.0)))
        self.assertEqual([budget.floor for budget in budgets], [3, 3, 2, 2])

    def test_begins_alike(self) -> None:
        """Pools that stick by address have new clients begin alike in several workers, and as ever where there is one."""
        for workers, is_alike in ((1, False), (2, True)):
            settings = limited(), pool(sticky=StickyPolicy(type="ip"))
            ally = Alliance(workers, *settings).members[0]
            live = ally.pools.upstreams["web"].pool
            self.assertEqual(live.homes is not None, is_alike)
            ally.change(builders.settings(limited(), pool()))
            self.assertIsNone(live.homes)
