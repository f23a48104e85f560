"""Who has left a pool: listed until the work is done, never picked, gone exactly once."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.pool import Pool
from tests.core.members import members, pool_of


class LeavingTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gone: list[str] = []
        self.cut: list[str] = []

    def pool(self, names: str = "ab", algorithm: str = "round_robin") -> Pool:
        pool = pool_of(members(names), algorithm, seconds=self.clock.seconds, later=self.clock.callLater)
        pool.departures.on_gone = lambda backend: self.gone.append(backend.name)
        pool.departures.on_cut = lambda backend: self.cut.append(backend.name)
        return pool

    @staticmethod
    def leave(pool: Pool, backend: Backend, seconds: float | None = None) -> None:
        pool.set_members([each for each in pool.backends if each is not backend])
        pool.departures.begin(backend, seconds)

    @staticmethod
    def lease(pool: Pool, backend: Backend) -> Lease:
        lease = pool.take(backend)
        assert lease is not None
        return lease

    def test_until_the_last_lease(self) -> None:
        """It stands in the list, as `drain`, until its last lease is back, whatever others do; that is told once."""
        pool = self.pool()
        a, b = pool.backends
        first, second, other = self.lease(pool, a), self.lease(pool, a), self.lease(pool, b)
        self.leave(pool, a)
        self.assertEqual((pool.leaving, pool.everyone, pool.backends), ([a], (b, a), (b,)))
        self.assertEqual((a.state, a.is_leaving), ("drain", True))
        first.release(Outcome.OK, 200)
        other.release(Outcome.OK, 200)
        self.assertEqual((pool.leaving, self.gone), ([a], []))
        second.release(Outcome.RESET)
        self.assertEqual((pool.leaving, self.gone, a.active), ([], ["a"], 0))
        self.assertEqual(pool.on_released, ())

    def test_hurried(self) -> None:
        """One that may take as long as it likes can be given a time, and one that has a time another, or none."""
        pool = self.pool()
        a, b = pool.backends
        for backend in (a, b):
            self.lease(pool, backend)
        self.leave(pool, a)
        self.leave(pool, b, 5.0)
        pool.departures.hurry(a, 2.0)
        pool.departures.hurry(b, None)
        self.clock.advance(10.0)
        self.assertEqual((self.cut, self.clock.getDelayedCalls()), (["a"], []))

    def test_without_work(self) -> None:
        """One that has nothing to finish is gone at once, and nobody is told."""
        pool = self.pool()
        self.leave(pool, pool.backends[0], 5.0)
        self.assertEqual((pool.leaving, self.gone, self.clock.getDelayedCalls()), ([], [], []))

    def test_never_taken(self) -> None:
        """It is not picked, nor taken by a client that sticks to it."""
        pool = self.pool()
        a, b = pool.backends
        lease = self.lease(pool, a)
        self.leave(pool, a)
        self.assertIsNone(pool.take(a))
        self.assertEqual({found.backend for found in [pool.pick() for _ in range(5)] if found is not None}, {b})
        lease.release(Outcome.CONNECT_FAILED)
        self.assertFalse(a.is_suspect)

    def test_time(self) -> None:
        """When its time is over that is told once; it is listed until its leases are back all the same."""
        pool = self.pool()
        a = pool.backends[0]
        lease = self.lease(pool, a)
        self.leave(pool, a, 5.0)
        self.clock.advance(4.9)
        self.assertEqual(self.cut, [])
        self.clock.advance(0.2)
        self.assertEqual((self.cut, pool.leaving, self.gone), (["a"], [a], []))
        lease.release(Outcome.ABANDONED)
        self.assertEqual((self.cut, pool.leaving, self.gone), (["a"], [], ["a"]))

    def test_done_in_time(self) -> None:
        """One that is done before its time is over is not cut, and has no timer left."""
        pool = self.pool()
        lease = self.lease(pool, pool.backends[0])
        self.leave(pool, pool.backends[0], 5.0)
        lease.release(Outcome.OK, 200)
        self.assertEqual((self.gone, self.clock.getDelayedCalls()), (["a"], []))

    def test_back(self) -> None:
        """One that is taken back goes on with the leases that it has, and nobody is told that it was gone."""
        pool = self.pool()
        a, b = pool.backends
        lease = self.lease(pool, a)
        self.leave(pool, a, 5.0)
        self.assertIs(pool.departures.find(a.name, a.address, a.host), a)
        self.assertIsNone(pool.departures.find(a.name, "other", a.host))
        pool.departures.take_back(a)
        a.state = "ready"
        pool.set_members([a, b])
        lease.release(Outcome.OK, 200)
        self.clock.advance(10)
        self.assertEqual((a.is_leaving, a.active, self.gone, self.cut, pool.leaving), (False, 0, [], [], []))

    def test_books_of_pickers(self) -> None:
        """Pickers that count what is in flight hear of the leases of whoever is leaving, too, and forget nobody else's."""
        for algorithm in ("least_connections", "consistent_hash"):
            pool = self.pool("abc", algorithm)
            leases = [self.lease(pool, backend) for backend in pool.backends for _ in range(2)]
            self.leave(pool, pool.backends[0])
            for lease in leases:
                lease.release(Outcome.OK, 200)
            self.assertEqual((pool.leaving, [each.active for each in pool.backends]), ([], [0, 0]))

    def test_another_algorithm(self) -> None:
        """A pool that goes by another algorithm counts the leases that are open already."""
        pool = self.pool("ab")
        a, b = pool.backends
        leases = [self.lease(pool, a) for _ in range(3)]
        pool.use("least_connections", pool.tiers_by("least_connections"))
        picked = [lease for _ in range(3) if (lease := pool.pick()) is not None]
        self.assertEqual([lease.backend for lease in picked], [b, b, b])
        for lease in (*leases, *picked):
            lease.release(Outcome.OK, 200)
        self.assertEqual((a.active, b.active, pool.algorithm), (0, 0, "least_connections"))

    def test_slow_start_turned_on(self) -> None:
        """Whoever is here when slow start is turned on, also if it came just before, has its whole weight."""
        pool = self.pool("ab")
        extra = members("c")[0]
        pool.set_members([*pool.backends, extra])
        pool.set_ramp(30.0)
        pool.refresh()
        self.assertEqual([backend.effective for backend in pool.backends], [1, 1, 1])
        late = members("d")[0]
        pool.set_members([*pool.backends, late])
        self.assertEqual([backend.effective for backend in pool.backends], [100, 100, 100, 1])
        pool.set_ramp(None)
        pool.refresh()
        self.assertEqual([backend.effective for backend in pool.backends], [1, 1, 1, 1])
