"""Promises of pools that take other settings, for any sequence of them with leases in flight: the books are right, everybody
who has work is listed, nobody who has left is picked, and who stays is the same live object."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.core.algorithms import ALGORITHMS
from lbsvc.core.backend import UNLIMITED, Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, HealthCheckPolicy, QueuePolicy, StickyPolicy
from lbsvc.retiring import LOOK, QUIET
from tests.kit.builders import backend
from tests.kit.pooled import Pooled
from tests.net.wired import OPEN, REFUSED

NAMES = ("a", "b", "c", "d")
POOLS = ("web", "api")
OUTCOMES = (Outcome.OK, Outcome.OK, Outcome.RESET, Outcome.CONNECT_FAILED, Outcome.CLIENT_GONE, Outcome.ABANDONED)


@st.composite
def entries(draw: Any) -> tuple[BackendSettings, ...]:
    found = []
    for name in draw(
        st.lists(st.sampled_from(NAMES), unique=True, min_size=draw(st.sampled_from([0, 2, 3])), max_size=4)
    ):
        port = 8001 + NAMES.index(name) + draw(st.sampled_from([0, 0, 0, 10]))
        found.append(
            backend(
                f"10.0.0.1:{port}",
                name=name,
                weight=draw(st.sampled_from([0, 1, 1, 1, 5])),
                backup=draw(st.sampled_from([False, False, True])),
                max_connections=draw(st.sampled_from([None, None, 1, 3])),
                state=draw(st.sampled_from(["ready", "ready", "ready", "drain", "maint"])),
            )
        )
    return tuple(found)


POOL_SETTINGS = st.builds(
    PoolSettings,
    name=st.just("web"),
    backends=entries(),
    algorithm=st.sampled_from(ALGORITHMS),
    health_check=st.sampled_from([None, HealthCheckPolicy(), HealthCheckPolicy(interval=1.0, fall=1)]),
    passive_health=st.sampled_from([None, EjectionPolicy(failures=1, eject=3.0)]),
    circuit_breaker=st.sampled_from([None, BreakerPolicy(failure_threshold=1, reset_timeout=2.0)]),
    sticky=st.sampled_from([None, StickyPolicy(), StickyPolicy(type="ip")]),
    queue=st.builds(QueuePolicy, size=st.sampled_from([0, 1, 5])),
    slow_start=st.sampled_from([None, 4.0]),
    panic_threshold=st.sampled_from([0.0, 0.6]),
    proxy_protocol=st.sampled_from([None, "v1"]),
)


class Repooling(RuleBasedStateMachine):
    """Two pools, one of which comes and goes, and those who use them."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, PoolSettings] = {
            name: PoolSettings(name, (backend("10.0.0.1:8001", name="a"),)) for name in POOLS
        }
        self.made = Pooled(*self.wanted.values())
        self.made.pools.on_cut = self.cut
        self.leases: list[Lease] = []
        self.removed: list[tuple[str, BackendSettings]] = []

    def cut(self, found: Backend) -> None:
        """What the app does: whoever is there ends."""
        for lease in [lease for lease in self.leases if lease.backend is found]:
            self.leases.remove(lease)
            lease.release(Outcome.ABANDONED, -1)

    def apply(self, removed: float | None) -> None:
        before = {
            (pool.name, each.name, each.address): each for pool in self.made.pools.everyone for each in pool.everyone
        }
        self.made.apply(*self.wanted.values(), removed=removed)
        for pool in self.made.pools.pools:
            self.assert_obeyed(pool.name)
            for each in pool.backends:
                assert before.get((pool.name, each.name, each.address), each) is each, "it was the same before"

    def assert_obeyed(self, name: str) -> None:
        wanted, pool = self.wanted[name], self.made.pool(name)
        assert [
            (each.name, each.address, each.weight, each.backup, each.state, each.most) for each in pool.backends
        ] == [
            (
                entry.name,
                entry.address,
                entry.weight,
                entry.backup,
                entry.state,
                UNLIMITED if entry.max_connections is None else entry.max_connections,
            )
            for entry in wanted.backends
        ]
        assert (pool.algorithm, pool.queue.size) == (wanted.algorithm, wanted.queue.size)
        assert (pool.guard is None) == (wanted.circuit_breaker is None and wanted.passive_health is None)

    @rule(
        name=st.sampled_from(POOLS),
        wanted=POOL_SETTINGS,
        removed=st.sampled_from([None, None, 0.0, 3.0]),
        only=st.sampled_from(["backends", "all", "policies"]),
    )
    def change(self, name: str, wanted: PoolSettings, removed: float | None, only: str) -> None:
        """Other settings for a pool, which may not have been there: of its backends, of the rest, or of both."""
        former = self.wanted.get(name)
        if former is not None and only == "backends":
            wanted = replace(former, backends=wanted.backends)
        elif former is not None and only == "policies":
            wanted = replace(wanted, backends=former.backends)
        self.wanted[name] = replace(wanted, name=name)
        self.apply(removed)

    @rule(number=st.integers(0, 100), removed=st.sampled_from([None, None, 0.0, 3.0]))
    def remove_busy(self, number: int, removed: float | None) -> None:
        """A backend that has work is removed."""
        if not self.leases:
            return
        busy = self.leases[number % len(self.leases)].backend
        for name, wanted in self.wanted.items():
            for entry in wanted.backends:
                if (name, entry.name, entry.address) == (busy.pool, busy.name, busy.address):
                    self.removed.append((name, entry))
                    self.wanted[name] = replace(
                        wanted, backends=tuple(each for each in wanted.backends if each is not entry)
                    )
                    self.apply(removed)
                    return

    @rule()
    def bring_back(self) -> None:
        """The last one that was removed comes back, unless another of its name is there."""
        if self.removed:
            name, entry = self.removed.pop()
            wanted = self.wanted.get(name)
            if wanted is not None and entry.name not in {each.name for each in wanted.backends}:
                self.wanted[name] = replace(wanted, backends=(*wanted.backends, entry))
                self.apply(None)

    @rule(removed=st.sampled_from([None, 2.0]))
    def remove_pool(self, removed: float | None) -> None:
        """A whole pool goes."""
        self.wanted.pop("api", None)
        self.apply(removed)

    @rule(name=st.sampled_from(POOLS), key=st.integers(0, 1 << 63), waits=st.booleans(), count=st.integers(1, 4))
    def use(self, name: str, key: int, waits: bool, count: int) -> None:
        """Some take a backend each, or wait for one."""
        for number in range(count if name in self.wanted else 0):
            self.take_one(name, key + number, waits)

    def take_one(self, name: str, key: int, waits: bool) -> None:
        pool = self.made.pool(name)
        lease = pool.pick((), key if pool.wants_key else None)
        if lease is not None:
            assert lease.backend in pool.backends, "picked, and no member"
            assert lease.backend.state == "ready" and not lease.backend.is_leaving
            self.leases.append(lease)
        elif waits:
            pool.queue.enter(lambda: self.take_turn(name))

    def take_turn(self, name: str) -> bool:
        pool = self.made.pool(name)
        lease = pool.pick()
        if lease is None:
            return not pool.is_available  # told so, and out
        self.leases.append(lease)
        return True

    @rule(number=st.integers(0, 100), outcome=st.sampled_from(OUTCOMES))
    def end(self, number: int, outcome: Outcome) -> None:
        """Somebody has finished."""
        if self.leases:
            lease = self.leases.pop(number % len(self.leases))
            lease.release(outcome, 200 if outcome is Outcome.OK else -1)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        """Time goes on: checks, slow starts, breakers, ends of patience."""
        self.made.net.advance(seconds, 0.5)

    @rule(port=st.sampled_from([8001, 8002, 8003, 8004]), answer=st.sampled_from([OPEN, REFUSED]))
    def flip(self, port: int, answer: str) -> None:
        """A backend goes down, or comes up."""
        self.made.net.answers[port] = answer

    @invariant()
    def books(self) -> None:
        """The sum of `active` is the number of open leases, and each that has one stands in its pool."""
        everyone = [each for pool in self.made.pools.everyone for each in pool.everyone]
        assert len(set(everyone)) == len(everyone)
        assert sum(each.active for each in everyone) == len(self.leases)
        for lease in self.leases:
            assert lease.is_open and lease.backend in everyone
        for pool in self.made.pools.everyone:
            members = set(pool.backends)
            assert not members.intersection(pool.leaving)
            assert all(each.is_leaving and each.active and each.state == "drain" for each in pool.leaving)
            assert not any(each.is_leaving for each in pool.backends)
            assert pool.full == {each for each in members if each.active >= each.limit}

    def teardown(self) -> None:
        """All finish: nobody is leaving any more, and nothing is left that the clock would call."""
        for pool in self.made.pools.everyone:  # nobody takes their places
            for ticket in pool.queue.waiting():
                pool.queue.leave(ticket)
        while self.leases:
            self.leases.pop().release(Outcome.OK, 200)
        assert not any(pool.leaving for pool in self.made.pools.everyone)
        for _ in range(QUIET):
            self.made.clock.advance(LOOK)  # pools that are no more are given up once nobody has used them for a while
        assert self.made.pools.everyone == self.made.pools.pools
        self.made.stop()
        self.made.clock.advance(5.0)
        assert not self.made.clock.getDelayedCalls(), self.made.clock.getDelayedCalls()


class RepoolingProperties(TestCase):
    def test_any_differences(self) -> None:
        """Whatever settings follow each other, with whatever in flight."""
        run_state_machine_as_test(
            Repooling, settings=settings(max_examples=200, stateful_step_count=30, deadline=None, database=None)
        )
