"""Pools that are removed while somebody is on the way to them: they work on, for as long as they may, and then are gone."""

from __future__ import annotations

from dataclasses import replace

from lbsvc.core.backend import Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.pool import Pool
from lbsvc.observe.snapshot import pool_status
from lbsvc.observe.standing import shown_state
from lbsvc.retiring import LOOK, QUIET
from tests.kit.builders import pool as settings_of
from tests.kit.pooled import Pooled
from tests.net.wired import BLACK_HOLE
from tests.test_pools import NAMED, A, B, C, PoolsCase

#: Long enough for every look that may be needed.
LOOKS = LOOK * (QUIET + 1)


class RetiringTests(PoolsCase):
    def start(self) -> tuple[Pooled, Pool]:
        """A service of which the pool api is removed in the test."""
        made = self.pooled(settings_of(A), settings_of(replace(C, max_connections=1), name="api"))
        return made, made.pool("api")

    def wait(self, pool: Pool) -> list[Lease | None]:
        """Somebody waits in the queue; what he gets."""
        served: list[Lease | None] = []

        def waiter() -> bool:
            served.append(pool.pick())
            return True

        pool.queue.size = 10
        self.assertIsNotNone(pool.queue.enter(waiter))
        return served

    def test_works_on(self) -> None:
        """Who has chosen it gets a backend, as before; health stays as it was."""
        made, pool = self.start()
        lease = made.take("c", "api")
        served = self.wait(pool)
        made.apply(settings_of(A))
        lease.release(Outcome.OK, 200)
        self.assertEqual([found.backend.name for found in served if found is not None], ["c"])
        self.assertEqual(pool.backends[0].health, "up")
        (second,) = served
        assert second is not None
        second.release(Outcome.OK, 200)
        made.net.advance(LOOKS, LOOK)
        self.assertEqual((made.pools.everyone, pool.backends), (made.pools.pools, ()))

    def test_queue(self) -> None:
        """Somebody in its queue is somebody who needs it."""
        made, pool = self.start()
        pool.backends[0].limit = 0
        pool.refresh()
        served = self.wait(pool)
        made.apply(settings_of(A))
        made.net.advance(60.0, LOOK)
        self.assertEqual((served, len(pool.queue), len(pool.backends)), ([], 1, 1))

    def test_unasked(self) -> None:
        """Nobody is checked or looked up any more, and nothing that happens to it is told."""
        made = self.pooled(settings_of(A), settings_of(NAMED, C, name="api"), app=["10.1.0.1"])
        pool, _ = made.pool("api"), made.take("c", "api")
        made.apply(settings_of(A))
        made.events.clear()
        dials = len(made.net.dials)
        made.names["app.example"] = ["10.1.0.2"]
        for each in pool.backends:
            each.health = "down"
        pool.refresh()
        for each in pool.backends:
            each.health = "up"
        pool.refresh()
        made.net.advance(30.0, LOOK)
        self.assertEqual({each.port for each in made.net.dials[dials:]}, {8001})
        self.assertEqual(([each.host for each in pool.backends], made.events), (["10.1.0.1", "10.0.0.3"], []))

    def test_shown(self) -> None:
        """People see its backends drain; those that they had set to maint stay so."""
        made, pool = self.start()
        made.apply(settings_of(A))
        (c,) = pool.backends
        self.assertEqual(
            (c.state, shown_state(pool, c), pool_status(pool)["backends"][0]["state"]), ("ready",) + ("drain",) * 2
        )
        c.state = "maint"
        self.assertEqual(shown_state(pool, c), "maint")

    def test_used(self) -> None:
        """As long as somebody may come to it, it is there; kept connections too."""
        made, pool = self.start()
        made.pools.is_used = lambda each: each is pool
        kept = made.keep_in("c", "api")
        made.apply(settings_of(A))
        made.net.advance(60.0, LOOK)
        self.assertEqual((made.picked(pool="api"), kept.is_closed), ({"c"}, False))
        made.pools.is_used = lambda each: False
        made.net.advance(LOOK)
        self.assertEqual(made.picked(pool="api"), {"c"})
        made.net.advance(LOOKS, LOOK)
        self.assertEqual((pool.everyone, kept.is_closed, made.pools.everyone), ((), True, made.pools.pools))

    def test_time(self) -> None:
        """`shutdown.removed` bounds it: who waits is told so, what is in flight is cut, and listed until it has ended."""
        made, pool = self.start()
        lease = made.take("c", "api")
        served = self.wait(pool)
        made.apply(settings_of(A), removed=5.0)
        made.net.advance(4.0, LOOK)
        self.assertEqual((served, made.cuts), ([], []))
        made.net.advance(2.0, LOOK)
        self.assertEqual((served, made.cuts, len(pool.leaving)), ([None], ["c"], 1))
        self.assertIn(pool, made.pools.everyone)
        lease.release(Outcome.ABANDONED)
        self.assertEqual(made.pools.everyone, made.pools.pools)

    def test_no_time(self) -> None:
        """With no time at all it is cut at once."""
        made, pool = self.start()
        lease = made.take("c", "api")
        made.apply(settings_of(A), removed=0.0)
        made.net.advance(0.0)
        self.assertEqual((made.cuts, pool.pick()), (["c"], None))
        lease.release(Outcome.ABANDONED)

    def test_back(self) -> None:
        """One that comes back is the same, asked and looked up again, and no longer bounded."""
        made = self.pooled(settings_of(A), settings_of(C, NAMED, name="api"), app=["10.1.0.1"])
        pool, c, lease = made.pool("api"), made.named("c", "api"), made.take("c", "api")
        made.apply(settings_of(A), removed=5.0)
        made.net.advance(2.0, LOOK)
        made.names["app.example"] = ["10.1.0.2"]
        made.apply(settings_of(A), settings_of(C, NAMED, name="api"), removed=5.0)
        self.assertEqual((made.pool("api"), pool.is_retired, c.health), (pool, False, "up"))
        made.net.answers[8003] = BLACK_HOLE
        made.net.advance(30.0, LOOK)
        self.assertEqual([(each.name, each.health) for each in pool.backends], [("c", "down"), ("app@10.1.0.2", "up")])
        self.assertEqual((pool.backends[0], made.cuts), (c, []))
        lease.release(Outcome.OK, 200)

    def test_back_with_others(self) -> None:
        """One that comes back with other members has those; who is not among them leaves, as told before."""
        made, pool = self.start()
        lease = made.take("c", "api")
        made.apply(settings_of(A))
        made.events.clear()
        made.apply(settings_of(A), settings_of(B, name="api"))
        self.assertEqual((made.picked(pool="api"), [each.name for each in pool.leaving]), ({"b"}, ["c"]))
        self.assertEqual([event for event, _ in made.events], ["backend.up", "backend.added"])
        lease.release(Outcome.OK, 200)
        self.assertEqual(made.events[2:], [("backend.drained", "api/c: nothing is in flight any more")])

    def test_pile(self) -> None:
        """A hundred reloads, each of which renames a pool, leave one pool, and the timers of one."""
        made = self.pooled(settings_of(C, name="api0"))
        timers = len(made.clock.getDelayedCalls())
        for number in range(1, 101):
            made.apply(settings_of(C, name=f"api{number}"))
            made.net.advance(LOOK)
            self.assertLessEqual(len(made.pools.everyone), QUIET + 2)
        made.net.advance(LOOKS, LOOK)
        self.assertEqual([each.name for each in made.pools.everyone], ["api100"])
        self.assertEqual(len(made.clock.getDelayedCalls()), timers)

    def test_stop(self) -> None:
        """A service that stops does not wait for them: no timer is left (see `look_for_timers`)."""
        made, pool = self.start()
        made.take("c", "api")
        made.apply(settings_of(A), removed=60.0)
        made.pools.stop()
        self.assertTrue(pool.is_retired)
