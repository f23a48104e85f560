"""What happens on a simulated day: how many come at which hour, what people change, what goes wrong.

Promises: a day is made by its seed alone. Each hour has another algorithm and other policies, most of them on; the load
follows the hour, with rushes that are more than the backends can take; nights have little. Made for the soak
(tests/simulation/__main__.py, test_days.py).
"""

from __future__ import annotations

import math
from random import Random
from typing import Any, Final

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
from tests.simulation.world import Step, World, entry

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
#: How many machines there are; at the beginning all of them are members.
MACHINES: Final = 9
#: Visits a second, the mean of a day.
LOAD: Final = 0.6

CHECKS: Final = HealthCheckPolicy(interval=20.0, timeout=2.0, rise=2, fall=2)
RETRY: Final = RetryPolicy(
    attempts=3, when=frozenset({"connect_failure", "reset", "timeout", "503"}), backoff=Backoff(0.05, 1.0)
)


def load_at(now: float, load: float = LOAD) -> float:
    """Little at night, much in the afternoon, and a rush of three minutes each half hour that is too much."""
    hour = now / HOUR % 24
    usual = load * (1.0 - 0.8 * math.cos((hour - 3.0) / 24.0 * 2.0 * math.pi))
    return usual * 6.0 if now % (HOUR / 2) < 180.0 else usual * 0.7


def machines(seed: int) -> list[Machine]:
    """Fast ones and slow ones."""
    rng = Random(seed)
    return [Machine(rng.choice((0.5, 2.0, 2.0, 2.0, 5.0))) for _ in range(MACHINES)]


def policies(rng: Random, hour: int) -> dict[str, Any]:
    """What a pool is like for an hour."""

    def perhaps(value: Any, share: float = 0.7) -> Any:
        return value if rng.random() < share else None

    algorithm = ALGORITHMS[hour % len(ALGORITHMS)]
    return {
        "algorithm": algorithm,
        "passive_health": perhaps(
            EjectionPolicy(rng.choice((2, 5)), 10.0, rng.choice((10.0, 30.0)), rng.choice((0.1, 0.5, 1.0)))
        ),
        "circuit_breaker": perhaps(
            BreakerPolicy(rng.choice((2, 5)), rng.choice((5.0, 30.0)), rng.choice((1, 3))),
        ),
        "sticky": perhaps(StickyPolicy(type=rng.choice(("ip", "cookie")), ttl=rng.choice((60.0, 3600.0))), 0.6),
        # Each step of a slow start is another table for consistent_hash, which would be most of the simulation's work.
        "slow_start": perhaps(rng.choice((5.0, 60.0)), 0.05 if algorithm == "consistent_hash" else 0.7),
        "panic_threshold": perhaps(rng.choice((0.3, 0.5)), 0.4) or 0.0,
        "flapping": perhaps(FlappingPolicy(rng.choice((3, 5)), 300.0, rng.choice((30.0, 120.0)))),
        "queue": QueuePolicy(rng.choice((0, 3, 20, 100)), rng.choice((1.0, 5.0, 20.0))),
        "retry": RETRY if rng.random() < 0.8 else RetryPolicy(attempts=1),
        "health_check": perhaps(CHECKS, 0.9),
    }


def entry_keys(rng: Random) -> dict[str, Any]:
    """What people say about a backend."""
    return {
        "weight": rng.choice((1, 1, 1, 2, 5)),
        "backup": rng.random() < 0.2,
        "max_connections": rng.choice((None, 1, 2, 4, 8)),
    }


def plan(seed: int, days: float) -> list[Step]:
    """All that is done in so many days."""
    rng = Random(seed * 7919 + 1)
    steps = []
    end = days * DAY
    for hour in range(math.ceil(end / HOUR)):
        start = hour * HOUR
        steps.append(Step(start, "settings", what=policies(rng, hour)))
        rate = rng.choice((None, RatePolicy(0.5, 5), RatePolicy(10 / 60, 20)))
        steps.append(Step(start, "rate", what=rate))
        for _ in range(rng.randrange(4, 24)):
            lasts = rng.choice((3.0, 20.0, 90.0, 900.0))
            who = rng.randrange(MACHINES)
            steps.append(Step(start + rng.uniform(0.0, HOUR), "trouble", who, rng.choice(TROUBLES), lasts))
        if rng.random() < 0.7:  # all at once
            at, kind = start + rng.uniform(0.0, HOUR), rng.choice(TROUBLES)
            steps += [Step(at, "trouble", who, kind, rng.choice((20.0, 200.0))) for who in range(MACHINES)]
        for _ in range(rng.randrange(4, 16)):
            steps += _change(rng, start + rng.uniform(0.0, HOUR))
    return [step for step in steps if step.at < end]


def _change(rng: Random, at: float) -> list[Step]:
    """Something that people do, and mostly undo after a while."""
    who, later = rng.randrange(MACHINES), at + rng.choice((1.0, 30.0, 400.0, 900.0))
    kind = rng.choice(("drain", "maint", "weight", "limit", "remove", "remove", "backup"))
    if kind == "remove":
        return [
            Step(at, "remove", who, lasts=rng.choice((0.0, 0.0, 5.0))),
            Step(later, "add", who, entry_keys(rng)),
        ]
    if kind in ("drain", "maint"):
        return [Step(at, "backend", who, {"state": kind}), Step(later, "backend", who, {"state": "ready"})]
    if kind == "weight":
        return [
            Step(at, "backend", who, {"weight": rng.choice((0, 1, 3, 10))}),
            Step(later, "backend", who, {"weight": 1}),
        ]
    if kind == "limit":
        return [Step(at, "backend", who, {"max_connections": rng.choice((None, 1, 2, 4))})]
    return [Step(at, "backend", who, {"backup": rng.random() < 0.3})]


def world(seed: int, load: float = LOAD) -> World:
    """The world on the morning of the first day."""
    rng = Random(seed * 31 + 7)
    entries = tuple(entry(number, **entry_keys(rng)) for number in range(MACHINES))
    made = World(seed, PoolSettings(f"day{seed}", entries, health_check=CHECKS), machines(seed), clients=300)
    made.perform(Step(0.0, "load", what=lambda now: load_at(now, load)))
    return made
