"""Pools that take other settings while they live: each kind of difference, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import MemberSettings, PoolSettings
from lbsvc.core.backend import UNLIMITED, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.policies import (
    BreakerPolicy,
)
from lbsvc.errors import SystemRefusal
from lbsvc.retiring import LOOK
from tests.kit.builders import backend
from tests.kit.builders import pool as settings_of
from tests.kit.pooled import Pooled
from tests.net.wired import BLACK_HOLE

A, B, C = backend("10.0.0.1:8001", name="a"), backend("10.0.0.2:8002", name="b"), backend("10.0.0.3:8003", name="c")
NAMED = backend("app.example:80", name="app")


class PoolsCase(TestCase):
    def pooled(self, *pools: PoolSettings, **names: Any) -> Pooled:
        made = Pooled(*(pools or (settings_of(A, B),)), names={"app.example": names.get("app", [])})
        self.addCleanup(self.look_for_timers, made)
        self.addCleanup(made.stop)
        return made

    def look_for_timers(self, made: Pooled) -> None:
        made.clock.advance(2.0)  # suspicion has no cancel, and is over by then
        self.assertEqual(made.clock.getDelayedCalls(), [])


class BackendTests(PoolsCase):
    def test_weight(self) -> None:
        """A weight acts at once, on the same live object; nothing else is touched."""
        made = self.pooled()
        a, dials = made.named("a"), len(made.net.dials)
        lease = made.take("a")
        words = made.apply(settings_of(replace(A, weight=3), B))
        self.assertEqual(words, ["pools.web.backends.a.weight: 1 -> 3"])
        self.assertIs(made.named("a"), a)
        picked = [found.backend.name for _ in range(4) if (found := made.pool().pick()) is not None]
        self.assertEqual((sorted(picked), a.health, a.active), (["a", "a", "a", "b"], "up", 4))
        self.assertEqual((len(made.net.dials), made.events), (dials, []))
        lease.release(Outcome.OK, 200)

    def test_nothing(self) -> None:
        """Equal settings are no change."""
        made = self.pooled()
        plan, _ = made.prepare(settings_of(A, B))
        self.assertEqual((plan.changes, plan.commit(), made.events), ([], [], []))

    def test_limit(self) -> None:
        """max_connections acts at once: over it nothing new, more room for whoever waits."""
        made = self.pooled(settings_of(A))
        leases = [made.take("a") for _ in range(3)]
        made.apply(settings_of(replace(A, max_connections=2)))
        self.assertIsNone(made.pool().pick())
        served: list[Lease] = []

        def waiter() -> bool:
            lease = made.pool().pick()
            if lease is not None:
                served.append(lease)
            return lease is not None

        made.pool().queue.enter(waiter)
        leases.pop().release(Outcome.OK, 200)
        self.assertEqual(served, [])
        made.apply(settings_of(replace(A, max_connections=3)))
        self.assertEqual((len(served), made.pool().full), (1, {made.named("a")}))
        made.apply(settings_of(A))
        self.assertEqual((made.named("a").limit, made.pool().full), (UNLIMITED, set()))

    def test_limit_under_a_guard(self) -> None:
        """The same where a breaker has its own idea of the limit."""
        made = self.pooled(settings_of(A, circuit_breaker=BreakerPolicy()))
        made.apply(settings_of(replace(A, max_connections=2), circuit_breaker=BreakerPolicy()))
        self.assertEqual((made.named("a").most, made.named("a").limit), (2, 2))

    def test_backup(self) -> None:
        """A backup serves while there is nobody else."""
        made = self.pooled()
        made.apply(settings_of(replace(A, backup=True), B))
        self.assertEqual(made.picked(), {"b"})

    def test_added(self) -> None:
        """A new one is unknown until its first check has passed, and takes no traffic until then if there are others."""
        made = self.pooled()
        made.net.answers[8003] = BLACK_HOLE
        words = made.apply(settings_of(A, B, replace(C, source="runtime")))
        self.assertEqual(words, ["pools.web.backends.c: added"])
        c = made.named("c")
        self.assertEqual((c.health, c.source, made.picked()), ("unknown", "runtime", {"a", "b"}))
        self.assertEqual(made.events, [("backend.added", "web/c: added (10.0.0.3:8003)")])
        made.apply(settings_of(replace(A, state="drain"), replace(B, state="drain"), replace(C, source="runtime")))
        self.assertEqual(made.picked(), {"c"})

    def test_added_takes_traffic(self) -> None:
        """With its first passed check it takes its share; slowly where there is a slow start."""
        made = self.pooled(settings_of(A, B, slow_start=30.0))
        made.apply(settings_of(A, B, C, slow_start=30.0))
        self.assertEqual([each.effective for each in made.pool().backends], [100, 100, 1])
        made.net.advance(31.0, 1.0)
        self.assertEqual(made.picked(), {"a", "b", "c"})

    def test_removed(self) -> None:
        """One that is removed takes nothing new, is unchecked, keeps no connection, and is listed until it has finished."""
        made = self.pooled()
        a, kept = made.named("a"), made.keep("a")
        lease = made.take("a")
        self.assertEqual(made.apply(settings_of(B)), ["pools.web.backends.a: removed"])
        self.assertEqual((made.pool().leaving, kept.is_closed, made.picked()), ([a], True, {"b"}))
        dials = len(made.net.dials)
        made.net.advance(6.0)
        self.assertEqual({each.port for each in made.net.dials[dials:]}, {8002})
        self.assertEqual(made.events, [("backend.removed", "web/a: removed, 1 in flight")])
        lease.release(Outcome.OK, 200)
        self.assertEqual((made.pool().leaving, a.active), ([], 0))
        self.assertEqual(made.events[1:], [("backend.drained", "web/a: nothing is in flight any more")])

    def test_removed_without_work(self) -> None:
        """One that has nothing to finish is gone at once."""
        made = self.pooled()
        made.apply(settings_of(B))
        self.assertEqual((made.pool().everyone, len(made.events)), (made.pool().backends, 1))

    def test_time(self) -> None:
        """`shutdown.removed` is how long it may go on; what an admin call says goes before; what is left then is cut."""
        made = self.pooled(settings_of(A, B, C))
        leases = [made.take("a"), made.take("b")]
        made.pools.drains = {("web", "b"): 30.0}
        made.apply(settings_of(C), removed=5.0)
        made.net.advance(6.0)
        self.assertEqual(made.cuts, ["a"])
        made.net.advance(30.0)
        self.assertEqual(made.cuts, ["a", "b"])
        for lease in leases:
            lease.release(Outcome.ABANDONED)
        self.assertEqual((made.pool().leaving, made.pools.drains), ([], {}))

    def test_no_limit_said(self) -> None:
        """A removal by a call without a time has no limit, whatever the file says for reloads."""
        made = self.pooled()
        lease = made.take("a")
        made.pools.drains = {("web", "a"): None}
        made.apply(settings_of(B), removed=1.0)
        made.net.advance(60.0, 1.0)
        self.assertEqual((made.cuts, len(made.pool().leaving)), ([], 1))
        lease.release(Outcome.OK, 200)

    def test_back(self) -> None:
        """One that is added again while it is leaving is the same live object; it is asked anew before it gets traffic."""
        made = self.pooled()
        a, lease = made.named("a"), made.take("a")
        made.apply(settings_of(B), removed=5.0)
        made.net.answers[8001] = BLACK_HOLE
        made.apply(settings_of(A, B))
        self.assertIs(made.named("a"), a)
        self.assertEqual((a.state, a.health, a.active, a.is_leaving), ("ready", "unknown", 1, False))
        self.assertEqual(made.picked(), {"b"})
        made.net.answers.clear()
        made.net.advance(14.0)
        self.assertEqual((made.cuts, made.picked()), ([], {"a", "b"}))
        lease.release(Outcome.OK, 200)
        self.assertEqual((a.active, made.pool().leaving), (0, []))

    def test_another_address(self) -> None:
        """Another address under the same name is another backend; the former finishes beside it."""
        made = self.pooled()
        former, lease = made.named("a"), made.take("a")
        moved = replace(A, address="10.0.0.9:8009", host="10.0.0.9", port=8009)
        made.apply(settings_of(moved, B))
        self.assertEqual([each.host for each in made.pool().everyone if each.name == "a"], ["10.0.0.9", "10.0.0.1"])
        lease.release(Outcome.OK, 200)
        self.assertIsNot(made.named("a"), former)

    def test_counts_stay(self) -> None:
        """What has been counted under a name stays with it: of one that finishes later, and of one that had finished."""
        made = self.pooled()
        former, lease = made.named("a"), made.take("a")
        former.requests[2], former.failures["upstream_reset"], former.duration.total = 5, 2, 1.5
        made.apply(settings_of(replace(A, address="10.0.0.9:8009", host="10.0.0.9", port=8009), B))
        newer = made.pool().backends[0]
        newer.requests[2] += 1
        lease.release(Outcome.OK, 200, 0.5)
        self.assertEqual((newer.requests[2], newer.failures["upstream_reset"], newer.duration.total), (7, 2, 2.0))
        made.apply(settings_of(A, B))
        latest = made.named("a")
        self.assertEqual(
            (latest.requests[2], latest.failures["upstream_reset"], sum(latest.duration.counts)), (7, 2, 1)
        )

    def test_order(self) -> None:
        """The members stand in the order of the configuration."""
        made = self.pooled()
        self.assertEqual(made.apply(settings_of(B, A)), ["pools.web.backends: in another order"])
        self.assertEqual([each.name for each in made.pool().backends], ["b", "a"])


class StateTests(PoolsCase):
    def test_drain(self) -> None:
        """In drain it takes nothing new, but keeps the clients that stick to it, and is checked; then it is as before."""
        made = self.pooled()
        kept = made.keep("a")
        made.apply(settings_of(replace(A, state="drain"), B))
        self.assertEqual((made.picked(), made.named("a").health, kept.is_closed), ({"b"}, "up", False))
        made.take("a").release(Outcome.OK, 200)
        self.assertEqual(made.events, [("backend.state", "web/a: drain (was ready)")])
        self.assertEqual(made.fields[0], {"pool": "web", "backend": "a", "state": "drain"})
        checks = made.named("a").checks["success"]
        made.net.advance(6.0)
        self.assertEqual(made.named("a").checks["success"], checks + 1)
        made.apply(settings_of(A, B))
        self.assertEqual(made.picked(), {"a", "b"})

    def test_maint(self) -> None:
        """In maint it takes nothing, is not asked, keeps no connection; after it it is unknown until it has been asked."""
        made = self.pooled()
        kept, a = made.keep("a"), made.named("a")
        made.apply(settings_of(replace(A, state="maint"), B))
        self.assertEqual((made.picked(), a.health, kept.is_closed), ({"b"}, "unknown", True))
        self.assertIsNone(made.pool().take(a))
        checks = dict(a.checks)
        made.net.advance(12.0)
        self.assertEqual(a.checks, checks)
        made.net.answers[8001] = BLACK_HOLE
        made.apply(settings_of(A, B))
        self.assertEqual((a.health, made.picked()), ("unknown", {"b"}))
        made.net.answers.clear()
        made.net.advance(14.0)
        self.assertEqual((a.health, made.picked()), ("up", {"a", "b"}))

    def test_maint_without_checks(self) -> None:
        """The same with `health_check: off`: it is up as soon as it is back."""
        made = self.pooled(settings_of(A, B, health_check=None))
        made.apply(settings_of(replace(A, state="maint"), B, health_check=None))
        self.assertEqual(made.picked(), {"b"})
        made.apply(settings_of(A, B, health_check=None))
        self.assertEqual((made.named("a").health, made.picked()), ("up", {"a", "b"}))

    def test_at_the_start(self) -> None:
        """A state that was kept over a restart holds from the start, for members of names too."""
        made = self.pooled(
            settings_of(
                replace(A, state="maint"),
                B,
                replace(NAMED, members=(MemberSettings("app@10.1.0.1", 7, "drain"),)),
            ),
            app=["10.1.0.1", "10.1.0.2"],
        )
        self.assertEqual(made.picked(), {"b", "app@10.1.0.2"})
        first = made.named("app@10.1.0.1")
        self.assertEqual((first.weight, first.state, made.named("a").checks["success"]), (7, "drain", 0))

    def test_one_address_of_a_name(self) -> None:
        """What is set for one address of a name is that member's alone, and goes with it."""
        made = self.pooled(settings_of(NAMED), app=["10.1.0.1", "10.1.0.2"])
        made.apply(settings_of(replace(NAMED, members=(MemberSettings("app@10.1.0.1", 5, "maint"),))))
        self.assertEqual([(each.weight, each.state) for each in made.pool().backends], [(5, "maint"), (1, "ready")])
        made.apply(settings_of(replace(NAMED, weight=2)))
        self.assertEqual([(each.weight, each.state) for each in made.pool().backends], [(2, "ready"), (2, "ready")])


class NameTests(PoolsCase):
    def test_added(self) -> None:
        """A host name that is added is looked up, and its members are checked; one that does not resolve is down."""
        made = self.pooled(app=["10.1.0.1"])
        made.apply(settings_of(A, B, NAMED))
        self.assertEqual(made.picked(), {"a", "b", "app@10.1.0.1"})
        made.names["lost.example"] = OSError("unknown")
        made.apply(settings_of(A, B, NAMED, backend("lost.example:80", name="lost")))
        self.assertEqual((made.named("lost").health, made.named("app@10.1.0.1").health), ("down", "up"))
        made.apply(settings_of(A, B))
        self.assertEqual([each.name for each in made.pool().everyone], ["a", "b"])

    def test_address_that_leaves(self) -> None:
        """An address that its name has no more finishes what it has, in the list of those that are leaving."""
        made = self.pooled(settings_of(A, NAMED), app=["10.1.0.1", "10.1.0.2"])
        goes, lease, kept = made.named("app@10.1.0.1"), made.take("app@10.1.0.1"), made.keep("app@10.1.0.1")
        made.names["app.example"] = ["10.1.0.2"]
        made.net.advance(11.0)
        self.assertEqual((made.pool().leaving, kept.is_closed), ([goes], True))
        made.names["app.example"] = ["10.1.0.1", "10.1.0.2"]
        made.net.advance(11.0)
        self.assertIs(made.named("app@10.1.0.1"), goes)
        lease.release(Outcome.OK, 200)
        self.assertEqual((made.pool().leaving, goes.active, goes.health), ([], 0, "up"))

    def test_interval(self) -> None:
        """Another interval of lookups acts, and leaves the members alone."""
        made = self.pooled(settings_of(NAMED, resolve=None), app=["10.1.0.1"])
        member = made.named("app@10.1.0.1")
        made.names["app.example"] = ["10.1.0.1", "10.1.0.2"]
        made.net.advance(30.0)
        self.assertEqual(made.pool().backends, (member,))
        made.apply(settings_of(NAMED, resolve=2.0))
        self.assertEqual((made.pool().backends[0], len(made.pool().backends)), (member, 2))
        made.names["app.example"] = ["10.1.0.1"]
        made.net.advance(2.5)
        self.assertEqual(made.pool().backends, (member,))


class WholePoolTests(PoolsCase):
    def test_added(self) -> None:
        """A pool that is added is started, checks and all; nothing of it is there before the commit."""
        made = self.pooled()
        plan, _ = made.prepare(settings_of(A, B), settings_of(C, name="api"))
        self.assertNotIn("api", made.pools.upstreams)
        self.assertEqual(plan.commit(), ["pools.api: added"])
        made.net.settle()
        self.assertEqual((made.picked(pool="api"), made.named("c", "api").health), ({"c"}, "up"))

    def test_added_empty(self) -> None:
        """A pool that is added is not said to be empty before its members are looked up and asked; then it is, once."""
        made = self.pooled()
        made.names["slow.example"] = answer = Deferred()
        slow = settings_of(backend("slow.example:80", name="slow"), name="api")
        made.apply(settings_of(A, B), slow)
        self.assertNotIn("pool.empty", [event for event, _ in made.events])
        answer.errback(OSError("unknown"))
        made.net.settle()
        self.assertEqual([event for event, _ in made.events].count("pool.empty"), 1)

    def test_abandoned(self) -> None:
        """A plan that is given up leaves nothing behind, not even the times of its removals."""
        made = self.pooled()
        before = len(made.clock.getDelayedCalls())
        made.pools.drains = {("web", "a"): 1.0}
        plan, _ = made.prepare(settings_of(B, algorithm="random"), settings_of(C, name="api"))
        plan.abandon()
        self.assertEqual((len(made.clock.getDelayedCalls()), made.picked()), (before, {"a", "b"}))
        self.assertEqual((list(made.pools.upstreams), made.pools.drains), (["web"], {}))

    def test_refused(self) -> None:
        """What cannot be had is refused, all of it at once, and nothing has changed."""
        made = self.pooled()
        del made.clock.replace  # type: ignore[attr-defined]
        secure = backend("10.0.0.9:443", is_secure=True)
        with self.assertRaises(SystemRefusal) as refused:
            made.prepare(settings_of(A, secure), settings_of(secure, name="api"))
        keys = [mistake.key for mistake in refused.exception.mistakes]
        self.assertEqual((keys, made.picked()), (["pools.web.backends", "pools.api.backends"], {"a", "b"}))

    def test_removed(self) -> None:
        """A pool that is removed is listed until its last backend has finished, and not said to be empty; its checks end."""
        made = self.pooled(settings_of(A), settings_of(C, name="api"))
        lease = made.take("c", "api")
        pool = made.pool("api")
        self.assertEqual(made.apply(settings_of(A)), ["pools.api: removed"])
        self.assertEqual((list(made.pools.upstreams), pool.is_retired), (["web"], True))
        self.assertEqual(
            ([each.name for each in made.pools.pools], made.pools.retired_roads), (["web"], {"api": {"http"}})
        )
        self.assertIn(pool, made.pools.everyone)
        made.net.advance(30.0, LOOK)
        self.assertIn(pool, made.pools.everyone)
        lease.release(Outcome.OK, 200)
        made.net.advance(2.0, LOOK)
        self.assertNotIn(pool, made.pools.everyone)
        self.assertIsNone(pool.pick())
        self.assertEqual(made.pools.retired_roads, {})
        self.assertEqual([event for event, _ in made.events], ["backend.removed", "backend.drained"])

    def test_back(self) -> None:
        """A pool that comes back while somebody is leaving it is the same live pool, with the same live backend."""
        made = self.pooled(settings_of(A), settings_of(C, name="api"))
        lease, pool, c = made.take("c", "api"), made.pool("api"), made.named("c", "api")
        upstreams = made.pools.upstreams["api"]
        made.apply(settings_of(A))
        self.assertEqual(made.apply(settings_of(A), settings_of(C, name="api")), ["pools.api: added"])
        self.assertIs(made.pool("api"), pool)
        self.assertIs(made.pools.upstreams["api"], upstreams)
        self.assertEqual((pool.backends, made.picked(pool="api")), ((c,), {"c"}))
        lease.release(Outcome.OK, 200)
        self.assertEqual((c.active, made.pools.everyone), (0, made.pools.pools))

    def test_removed_and_gone(self) -> None:
        """A pool without work is gone soon; one of the same name later is another."""
        made = self.pooled(settings_of(A), settings_of(C, name="api"))
        pool = made.pool("api")
        made.apply(settings_of(A))
        made.net.advance(2.0, LOOK)
        self.assertNotIn(pool, made.pools.everyone)
        made.apply(settings_of(A), settings_of(C, name="api"))
        self.assertIsNot(made.pool("api"), pool)
