"""How a pool's sections are read that are about backends in trouble, and about too much at one time.

Promises: defaults are those of core/policies.py and schema.py; passive_health, circuit_breaker and slow_start are off where
they are null, as where they are left out, and queue and flapping are then on. Called by pools.py; core/ejection.py,
core/breaker.py, core/queueing.py, core/flapping.py, core/ramping.py and core/tiers.py obey.
"""

from __future__ import annotations

from typing import Final

from lbsvc.config.shapes import like, shaped
from lbsvc.config.values import duration, nullable, nullable_text, number, share
from lbsvc.config.walk import Section, Spot, plain
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, FlappingPolicy, QueuePolicy

_PASSIVE_HEALTH: Final[Section[EjectionPolicy | None]] = Section(
    {
        "failures": number(1, 1000),  # so many times are remembered for each backend
        "window": duration(),
        "eject": duration(),
        "max_ejected": share,
    },
    plain(EjectionPolicy),
    off=(None,),
)
PASSIVE_HEALTH: Final = nullable_text(_PASSIVE_HEALTH)

_CIRCUIT_BREAKER: Final[Section[BreakerPolicy | None]] = Section(
    {
        "failure_threshold": number(1, 1_000_000),
        "reset_timeout": duration(),
        "half_open_requests": number(1, 1_000_000),
    },
    plain(BreakerPolicy),
    off=(None,),
)
CIRCUIT_BREAKER: Final = nullable_text(_CIRCUIT_BREAKER)

QUEUE: Final = Section(
    {"size": number(0, 1_000_000), "timeout": duration()}, plain(QueuePolicy), off=(QueuePolicy(size=0),)
)

FLAPPING: Final[Section[FlappingPolicy | None]] = Section(
    {
        "changes": number(1, 1000),  # so many times are remembered for each backend
        "window": duration(),
        "hold": duration(),
    },
    plain(FlappingPolicy),
    off=(None,),
)


@shaped(like(nullable(duration(low=0))))
def slow_start(spot: Spot) -> float | None:
    """Seconds; 0 is none, like null and off."""
    return nullable(duration(low=0))(spot) or None


@shaped(like(nullable(share)))
def panic_threshold(spot: Spot) -> float:
    """A share; 0% is never, like null and off."""
    return nullable(share)(spot) or 0.0
