"""Pools: who may be picked, transitions, and what a lease writes down."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import FAILURES, Backend, Outcome
from lbsvc.core.books import BUCKETS
from lbsvc.core.lease import ALPHA, Lease
from lbsvc.core.pool import TIERS, Pool
from lbsvc.errors import REASONS
from tests.core.members import member, members, pool_of


def lease_of(pool: Pool, *exclude: Backend) -> Lease:
    lease = pool.pick(exclude)
    assert lease is not None
    return lease


def seen(pool: Pool, count: int = 12) -> str:
    """The names that picks give, sorted, each once."""
    found = set()
    for _ in range(count):
        lease = lease_of(pool)
        lease.release(Outcome.OK)
        found.add(lease.backend.name)
    return "".join(sorted(found))


class Tiers(TestCase):
    def test_whom_a_client_sticks_to(self) -> None:
        """A backend that is not known to be up takes its own clients only where nobody else is up, or while it drains."""
        a, b = members("ab")
        pool = pool_of([a, b])
        a.health = "unknown"
        pool.refresh()
        self.assertFalse(pool.can_serve(a))
        b.health = "down"
        pool.refresh()
        self.assertTrue(pool.can_serve(a))
        b.health, a.state = "up", "drain"
        pool.refresh()
        self.assertTrue(pool.can_serve(a))

    def test_order(self) -> None:
        """HC-10: up ones first, then up backups, then unchecked ones, then unchecked backups; never those down."""
        up, spare = member("a"), member("b", backup=True)
        new, new_spare = member("c", health="unknown"), member("d", health="unknown", backup=True)
        pool = pool_of([up, spare, new, new_spare, member("e", health="down")])
        for each in (up, spare, new, new_spare):
            self.assertEqual(seen(pool), each.name)
            each.health = "down"
            pool.refresh()
        self.assertIsNone(pool.pick())

    def test_who_takes_part(self) -> None:
        """Drained ones, those in maintenance, weight 0 and unresolved names take nothing."""
        pool = pool_of(
            [member("a"), member("b", weight=0), member("c", host=""), member("d"), member("e"), member("f")]
        )
        pool.backends[3].state = "drain"
        pool.backends[4].state = "maint"
        pool.refresh()
        self.assertEqual(seen(pool), "af")

    def test_exclusion_goes_down_the_tiers(self) -> None:
        """FO-1: when all of a tier have failed this request the next tiers are tried, each backend once."""
        pool = pool_of([member("a"), member("b"), member("c", backup=True), member("d", health="unknown")])
        tried: list[Backend] = []
        while (lease := pool.pick(tried)) is not None:
            tried.append(lease.backend)
            lease.release(Outcome.CONNECT_FAILED)
        self.assertEqual("".join(each.name for each in tried), "abcd")

    def test_last_resort(self) -> None:
        """One that is down but has passed its last check serves only where nobody else can; a failed check ends that."""
        pool = pool_of(members("abc"))
        for backend in pool.backends:
            backend.health = "down"
        pool.refresh()
        self.assertIsNone(pool.pick())
        first, second, third = pool.backends
        first.last_check = (True, 0.0, "connected")
        second.last_check = (False, 0.0, "refused")
        pool.refresh()
        self.assertEqual(seen(pool), "a")
        third.health = "up"
        pool.refresh()
        self.assertEqual(seen(pool), "c")
        third.health = "down"
        first.last_check = (False, 0.0, "refused")
        pool.refresh()
        self.assertIsNone(pool.pick())

    def test_gone_members(self) -> None:
        """A removed backend is not picked again, nor held on to; its open lease still counts down."""
        for algorithm in ("round_robin", "least_connections", "random"):
            pool = pool_of(members("abc"), algorithm)
            leases = [lease_of(pool) for _ in range(9)]
            kept = [each for each in pool.backends if each.name != "b"]
            pool.set_members(kept)
            self.assertEqual(seen(pool), "ac")
            for lease in leases:
                lease.release(Outcome.OK)
                self.assertEqual(
                    lease.backend.active, sum(other.is_open for other in leases if other.backend is lease.backend)
                )
            pool.set_members([])
            self.assertIsNone(pool.pick())
            self.assertEqual([tier.known for tier in pool._tiers], [[]] * TIERS)

    def test_empty_tiers_are_told_nothing(self) -> None:
        """Members that were unchecked once do not make every lease be told to two pickers for ever after."""
        for algorithm, told in (("least_connections", (1, 1, 0)), ("adaptive", (0, 0, 1))):
            pool = pool_of(members("abc", health="unknown"), algorithm)
            for health in ("unknown", "up", "unknown"):
                for backend in pool.backends:
                    backend.health = health
                pool.refresh()
                hooks = (pool.on_acquired, pool.on_released, pool.on_finished)
                self.assertEqual(tuple(map(len, hooks)), told)

    def test_what_an_empty_tier_missed(self) -> None:
        """A tier that was empty and has the same members again picks by what they have in flight by now."""
        for algorithm in ("least_connections", "two_choices", "adaptive"):
            pool = pool_of(members("ab", health="unknown"), algorithm)
            for health in ("up", "unknown"):
                for backend in pool.backends:
                    backend.health = health
                pool.refresh()
                if health == "up":
                    leases = [lease_of(pool) for _ in range(40)]
                    held = [lease for lease in leases if lease.backend.name == "a"]
                    for lease in leases:
                        if lease.backend.name == "b":
                            lease.release(Outcome.OK, 200, 0.001)
            found = [lease_of(pool).backend.name for _ in range(len(held) // 2)]
            self.assertGreater(found.count("b"), 0.9 * len(found), algorithm)

    def test_repr(self) -> None:
        """The pool in one line."""
        pool = pool_of([*members("abc"), member("d", health="down")])
        for _ in range(12):
            pool.pick()
        self.assertEqual(repr(pool), "<Pool web 3/4 up, 12 in flight>")
        self.assertEqual(repr(pool.backends[0]), "<Backend web/a up, 4 active>")
        self.assertEqual(repr(lease_of(pool)), "<Lease of <Backend web/a up, 5 active>>")


class Transitions(TestCase):
    def setUp(self) -> None:
        self.told: list[str] = []
        self.pool = Pool(
            "web",
            "round_robin",
            None,  # type: ignore[arg-type]  # round robin leaves nothing to chance
            lambda pool: self.told.append(f"empty {pool.name}"),
            lambda pool: self.told.append(f"available {pool.name}"),
        )

    def test_told_once(self) -> None:
        """FO-4: empty and available are told at transitions only, not at each refresh."""
        backends = members("ab")
        self.pool.set_members(backends)
        self.assertEqual(self.told, [])
        for health, expected in (("down", ["empty web"]), ("up", ["empty web", "available web"])):
            for backend in backends:
                backend.health = health
                self.pool.refresh()
                self.pool.refresh()
            self.assertEqual(self.told, expected)
        self.assertTrue(self.pool.is_available)

    def test_unknown_is_available(self) -> None:
        """HC-10: members that are not checked yet make a pool available: it may serve from them."""
        self.pool.set_members(members("ab", health="unknown"))
        self.assertEqual(self.told, [])
        self.assertIsNotNone(self.pool.pick())

    def test_none_from_the_start(self) -> None:
        """A pool whose first members cannot serve says so."""
        self.pool.set_members([member("a", weight=0)])
        self.assertEqual(self.told, ["empty web"])
        self.assertFalse(self.pool.is_available)


class Leases(TestCase):
    def test_once(self) -> None:
        """CT-1: a lease counts one in flight until it is released, which works once."""
        pool = pool_of(members("a"))
        lease = lease_of(pool)
        self.assertEqual((lease.backend.active, lease.is_open), (1, True))
        lease.release(Outcome.OK)
        self.assertEqual((lease.backend.active, lease.is_open), (0, False))
        self.assertRaises(RuntimeError, lease.release, Outcome.OK)
        self.assertEqual((lease.backend.active, lease.backend.tcp_ok), (0, 1))
        self.assertEqual(repr(lease), "<Lease of <Backend web/a up, 0 active>, released>")

    def test_answered(self) -> None:
        """An answered request counts by its code class, with its duration in the right bucket."""
        pool = pool_of(members("a"))
        backend = pool.backends[0]
        for code, seconds in ((200, 0.001), (204, 0.0011), (302, 31.0), (503, 0.0)):
            lease_of(pool).release(Outcome.OK, code, seconds)
        self.assertEqual(backend.requests, [0, 0, 2, 1, 0, 1])
        counts = {bound: count for bound, count in zip((*BUCKETS, None), backend.duration.counts, strict=True) if count}
        self.assertEqual(counts, {0.0001: 1, 0.001: 1, 0.0025: 1, None: 1})
        self.assertAlmostEqual(backend.duration.total, 31.0021)
        self.assertEqual((backend.tcp_ok, backend.tcp_error, sum(backend.failures.values())), (0, 0, 0))

    def test_latency(self) -> None:
        """Latency begins with the first answer and moves a tenth of the way with each further one."""
        pool = pool_of(members("a"))
        backend = pool.backends[0]
        self.assertIsNone(backend.latency)
        lease_of(pool).release(Outcome.OK, 200, 1.0)
        self.assertEqual(backend.latency, 1.0)
        lease_of(pool).release(Outcome.OK, 200, 2.0)
        self.assertAlmostEqual(backend.latency or 0.0, 1.0 + ALPHA)

    def test_failures(self) -> None:
        """The six failures count by their reason; without a code as tcp errors too; none moves the latency."""
        for code in (0, 502):
            pool = pool_of(members("a"))
            backend = pool.backends[0]
            for outcome in FAILURES:
                lease_of(pool).release(outcome, code, 5.0)
            self.assertEqual(set(backend.failures.values()), {1})
            self.assertEqual(len(backend.failures), 6)
            self.assertEqual(backend.tcp_error, 0 if code else 6)
            self.assertEqual((sum(backend.requests), backend.latency, backend.tcp_ok), (0, None, 0))

    def test_the_client_went(self) -> None:
        """A client that goes away, or a lease that we gave up, is never counted against the backend."""
        for outcome in (Outcome.CLIENT_GONE, Outcome.ABANDONED):
            for code in (0, 200):
                pool = pool_of(members("a"))
                backend = pool.backends[0]
                lease_of(pool).release(outcome, code, 9.0)
                self.assertEqual((backend.active, backend.tcp_ok, backend.tcp_error), (0, 0, 0))
                self.assertEqual((sum(backend.requests), sum(backend.failures.values())), (0, 0))
                self.assertEqual((backend.latency, sum(backend.duration.counts)), (None, 0))

    def test_reasons(self) -> None:
        """Every outcome has a reason word of the contract."""
        self.assertEqual({outcome.reason for outcome in Outcome} - set(REASONS), set())
        self.assertEqual(Outcome.RESET.reason, "upstream_reset")
        self.assertEqual([int(outcome) for outcome in Outcome], list(range(9)))
