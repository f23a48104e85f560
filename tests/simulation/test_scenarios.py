"""Short scenarios of any kind: whatever is set, changed and broken, in whatever order, no rule is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolSettings
from lbsvc.core.algorithms import ALGORITHMS
from lbsvc.core.policies import (
    Backoff,
    BreakerPolicy,
    EjectionPolicy,
    FlappingPolicy,
    HealthCheckPolicy,
    QueuePolicy,
    RatePolicy,
    RetryPolicy,
    StickyPolicy,
)
from tests.simulation.machines import TROUBLES, Machine
from tests.simulation.tables import remember
from tests.simulation.world import Step, World, entry

MACHINES = 4
#: Seconds of a scenario, and visits a second.
LASTS = 90.0
LOADS = (1.0, 4.0, 12.0)

NUMBERS = st.integers(0, MACHINES - 1)
TIMES = st.sampled_from([each * 0.5 for each in range(int(LASTS * 2))])

ENTRIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "weight": st.sampled_from([1, 1, 1, 0, 5]),
        "backup": st.sampled_from([False, True]),
        "max_connections": st.sampled_from([3, 1, None]),
        "state": st.sampled_from(["ready", "ready", "ready", "ready", "drain", "maint"]),
    }
)
POLICIES: dict[str, st.SearchStrategy[Any]] = {
    "algorithm": st.sampled_from(ALGORITHMS),
    "health_check": st.sampled_from(
        [None, HealthCheckPolicy(interval=2.0, rise=1, fall=1), HealthCheckPolicy(interval=5.0, timeout=1.0)]
    ),
    "passive_health": st.sampled_from(
        [
            None,
            EjectionPolicy(1, 10.0, 4.0, 1.0),
            EjectionPolicy(2, 10.0, 20.0, 0.5),
            EjectionPolicy(3, max_ejected=0.1),
        ]
    ),
    "circuit_breaker": st.sampled_from([None, BreakerPolicy(1, 3.0, 1), BreakerPolicy(2, 10.0, 3)]),
    "sticky": st.sampled_from(
        [None, *(StickyPolicy(type=kind, ttl=ttl) for kind in ("cookie", "ip") for ttl in (20.0, 3600.0))]
    ),
    "queue": st.builds(QueuePolicy, st.sampled_from([50, 5, 1, 0]), st.sampled_from([20.0, 3.0, 0.5])),
    "slow_start": st.sampled_from([None, None, 4.0, 30.0]),
    "panic_threshold": st.sampled_from([0.0, 0.0, 0.4, 0.9]),
    "flapping": st.sampled_from([None, FlappingPolicy(2, 30.0, 10.0), FlappingPolicy(3, 60.0, 20.0)]),
    "retry": st.sampled_from(
        [
            RetryPolicy(attempts=1),
            RetryPolicy(),
            RetryPolicy(4, frozenset({"connect_failure", "reset", "timeout", "503"}), budget=0.5),
            RetryPolicy(3, backoff=Backoff(0.2, 2.0), budget=0.0),
        ]
    ),
}


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """One thing that happens."""
    at, who = draw(TIMES), draw(NUMBERS)
    do = draw(st.sampled_from(["trouble", "trouble", "backend", "remove", "add", "settings", "load", "rate"]))
    lasts = 0.0
    what: Any = None
    if do == "trouble":
        what, lasts = draw(st.sampled_from(TROUBLES)), draw(st.sampled_from([1.0, 10.0, 60.0]))
    elif do in ("backend", "add"):
        what = draw(ENTRIES)
    elif do == "remove":
        lasts = draw(st.sampled_from([0.0, 0.0, 2.0]))
    elif do == "settings":
        name = draw(st.sampled_from(sorted(POLICIES)))
        what = {name: draw(POLICIES[name])}
    elif do == "load":
        what = draw(st.sampled_from(LOADS))
    else:
        what = draw(st.sampled_from([None, RatePolicy(0.1, 1), RatePolicy(2.0, 3)]))
    return Step(at, do, who, what, lasts)


@st.composite
def pools(draw: st.DrawFn) -> PoolSettings:
    """What a pool may be like."""
    entries = tuple(entry(number, **draw(ENTRIES)) for number in range(draw(st.integers(2, MACHINES))))
    made = PoolSettings("any", entries)
    return replace(made, **{name: draw(values) for name, values in POLICIES.items()})


class ScenarioTests(TestCase):
    def setUp(self) -> None:
        remember(self)

    def test_any_scenario(self) -> None:
        """A minute and a half of anything: the referee finds nothing, and at the end nothing is left."""

        @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(
            pool=pools(),
            done=st.lists(steps(), min_size=4, max_size=16),
            seed=st.integers(0, 1000),
            clients=st.sampled_from([20, 5, 100]),
        )
        def play(pool: PoolSettings, done: list[Step], seed: int, clients: int) -> None:
            world = World(seed, pool, [Machine(1.0) for _ in range(MACHINES)], clients, LOADS[1])
            world.tunnels = 0.03
            world.play(done, LASTS)
            world.end()

        play()
