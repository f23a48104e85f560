"""The policies of pools that take other settings while they live: what acts at once, and what lives on."""

from __future__ import annotations

from dataclasses import replace

from lbsvc.core.backend import Outcome
from lbsvc.core.policies import (
    BreakerPolicy,
    EjectionPolicy,
    FlappingPolicy,
    HealthCheckPolicy,
    KeptConnections,
    QueuePolicy,
    RetryPolicy,
    StickyPolicy,
)
from tests.kit.builders import pool as settings_of
from tests.net.wired import REFUSED
from tests.test_pools import A, B, C, PoolsCase


class PolicyTests(PoolsCase):
    def test_algorithm(self) -> None:
        """Another algorithm decides from the next pick on, with what is in flight counted."""
        made = self.pooled()
        leases = [made.take("a") for _ in range(3)]
        words = made.apply(settings_of(A, B, algorithm="least_connections"))
        self.assertEqual(words, ["pools.web.algorithm: round_robin -> least_connections"])
        picked = [lease for _ in range(3) if (lease := made.pool().pick()) is not None]
        self.assertEqual([lease.backend.name for lease in picked], ["b", "b", "b"])
        for lease in (*leases, *picked):
            lease.release(Outcome.OK, 200)
        made.apply(settings_of(A, B, algorithm="ip_hash"))
        self.assertTrue(made.pool().wants_key)
        self.assertIsNotNone(made.pools.upstreams["web"].placement)
        made.apply(settings_of(A, B))
        self.assertIsNone(made.pools.upstreams["web"].placement)

    def test_limits_make_a_queue(self) -> None:
        """A limit at run time has requests wait, as one from the start does; who waits goes on waiting when it goes."""
        made = self.pooled()
        upstreams = made.pools.upstreams["web"]
        self.assertIsNone(upstreams.placement)
        made.apply(settings_of(replace(A, max_connections=1), B))
        self.assertIsNotNone(upstreams.placement)
        made.pool().queue.enter(lambda: False)
        made.apply(settings_of(A, B))
        self.assertIsNotNone(upstreams.placement)

    def test_sticky(self) -> None:
        """The table of clients lives on while `sticky` is the same, and is another one where it is not."""
        sticky = StickyPolicy(type="ip")
        made = self.pooled(settings_of(A, B, sticky=sticky))
        upstreams = made.pools.upstreams["web"]
        assert upstreams.placement is not None
        table = upstreams.placement.addresses
        assert table is not None
        table.put("client", made.named("b"), 0.0)
        made.apply(settings_of(A, B, sticky=sticky, algorithm="least_connections", hash_key="path"))
        assert upstreams.placement is not None
        self.assertIs(upstreams.placement.addresses, table)
        made.apply(settings_of(A, sticky=sticky))
        self.assertIsNone(table.find("client", 1.0))
        made.apply(settings_of(A, B, sticky=replace(sticky, ttl=60.0)))
        assert upstreams.placement is not None and upstreams.placement.addresses is not None
        self.assertIsNot(upstreams.placement.addresses, table)
        upstreams.placement.addresses.put("client", made.named("b"), 0.0)
        self.assertEqual(len(upstreams.placement.addresses), 1)
        made.apply(settings_of(A, B, sticky=StickyPolicy()))
        assert upstreams.placement is not None and upstreams.placement.cookies is not None
        value = upstreams.placement.cookies.value_of(made.named("a"), 1.0)
        self.assertIs(upstreams.placement.cookies.find(value, 2.0)[0], made.named("a"))
        made.apply(settings_of(A, B))
        self.assertEqual((upstreams.placement, made.pool().on_members), (None, []))

    def test_guards(self) -> None:
        """Breakers and ejections live on while their policy is equal, begin anew where it is not, and go with it."""
        breaker, ejection = BreakerPolicy(failure_threshold=1), EjectionPolicy(failures=1)
        made = self.pooled(settings_of(A, B, circuit_breaker=breaker, passive_health=ejection))
        made.take("a").release(Outcome.RESET, -1)
        a = made.named("a")
        self.assertEqual((a.circuit, a.is_ejected), ("open", True))
        made.apply(settings_of(replace(A, weight=2), B, C, circuit_breaker=breaker, passive_health=ejection))
        self.assertEqual((a.circuit, a.is_ejected), ("open", True))
        made.apply(settings_of(A, B, circuit_breaker=breaker, passive_health=replace(ejection, failures=2)))
        self.assertEqual((a.circuit, a.is_ejected), ("open", False))
        made.apply(settings_of(A, B))
        self.assertEqual((a.circuit, a.is_ejected, made.pool().guard), ("closed", False, None))
        made.apply(settings_of(A, B, circuit_breaker=breaker))
        made.take("a").release(Outcome.RESET, -1)
        self.assertEqual((a.circuit, made.picked()), ("open", {"b"}))

    def test_checks_off_and_on(self) -> None:
        """Without checks everybody is up; with them again health stays until the first check says otherwise."""
        made = self.pooled()
        made.net.answers[8001] = REFUSED
        made.net.advance(20.0)
        self.assertEqual((made.named("a").health, made.picked()), ("down", {"b"}))
        made.apply(settings_of(A, B, health_check=None))
        self.assertEqual((made.named("a").health, made.named("a").last_check), ("up", None))
        self.assertEqual(made.picked(), {"a", "b"})
        made.events.clear()
        made.apply(settings_of(A, B))
        self.assertEqual([event for event, _ in made.events], ["backend.down"])
        self.assertEqual(made.picked(), {"b"})

    def test_check_policy(self) -> None:
        """Another health check is taken up by those who are checked already, and their flapping too."""
        made = self.pooled()
        made.apply(settings_of(A, B, health_check=HealthCheckPolicy(interval=1.0), flapping=FlappingPolicy(changes=3)))
        before = made.named("a").checks["success"]
        made.net.advance(3.5)
        self.assertGreaterEqual(made.named("a").checks["success"], before + 3)

    def test_queue_and_budget(self) -> None:
        """The queue's size acts on who comes, and puts nobody out; the budget's share acts, and its history stays."""
        made = self.pooled(settings_of(A, queue=QueuePolicy(size=2)))
        pool = made.pool()
        for _ in range(2):
            pool.queue.enter(lambda: False)
        pool.budget.request(0.0)
        made.apply(settings_of(A, queue=QueuePolicy(size=1), retry=RetryPolicy(budget=0.5)))
        self.assertEqual((len(pool.queue), pool.queue.enter(lambda: True)), (2, None))
        self.assertEqual((pool.budget.share, pool.budget._current), (0.5, 1))

    def test_panic(self) -> None:
        """A panic threshold acts at once."""
        made = self.pooled()
        made.net.answers[8001] = REFUSED
        made.net.advance(20.0)
        self.assertEqual(made.picked(), {"b"})
        made.apply(settings_of(A, B, panic_threshold=0.9))
        self.assertEqual(made.picked(), {"a", "b"})

    def test_kept_connections(self) -> None:
        """Idle ones over the new limit are closed, the oldest first; those that stay have the new patience."""
        made = self.pooled()
        kept = [made.keep("a") for _ in range(3)]
        made.apply(settings_of(A, B, connections=KeptConnections(keep_alive=1, idle_timeout=5.0, max_lifetime=9.0)))
        self.assertEqual([each.is_closed for each in kept], [True, True, False])
        self.assertLess(kept[2].deadline, 7.0)
        self.assertEqual(kept[2].dies, made.deadlines.now + 9.0)
        made.named("a").idle.clear()

    def test_speech(self) -> None:
        """Where connections begin otherwise, kept ones are closed, and those in use are not kept; others are left alone."""
        made = self.pooled()
        kept, era = made.keep("a"), made.named("a").era
        made.apply(settings_of(A, B, proxy_protocol="v2"))
        a = made.named("a")
        self.assertEqual((kept.is_closed, a.era > era, a.greeting[:4]), (True, True, b"\r\n\r\n"))
        era = a.era
        made.apply(settings_of(A, B, proxy_protocol="v2", algorithm="random"))
        self.assertEqual(a.era, era)

    def test_settings_for_exchanges(self) -> None:
        """What exchanges look up is the new settings', on the same object."""
        made = self.pooled()
        upstreams = made.pools.upstreams["web"]
        retry = RetryPolicy(attempts=3, when=frozenset({"503"}), per_try_timeout=2.0)
        made.apply(settings_of(A, B, retry=retry))
        self.assertIs(made.pools.upstreams["web"], upstreams)
        self.assertEqual((upstreams.repeated, upstreams.patience), (frozenset({503}), 2.0))
        self.assertEqual(upstreams.settings.retry, retry)
