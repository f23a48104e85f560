"""Slow start: the weight of a backend that comes back grows from nothing, in a straight line, to what it is.

Source: HAProxy's `slowstart` and nginx's `slow_start` (linear in time, by weight); contract.md: linear, after down, ejected,
maint or being added, not at start.

Law. t seconds after it came back a backend counts with min(1, t / duration) of its weight, but with `LEAST` of it at once,
so that nobody waits for ever whose whole pool has just come back. Pickers want whole numbers: while anybody ramps all
weights of its tier are multiplied by `SCALE`, which changes no share; while nobody does they are as configured, so that
exact shares stay exact in cycles as short as they were. `LEAST` x `SCALE` is 1: no weight above 0 becomes 0.

Promises: never falls while time goes on; ends at exactly the full weight. Callers keep, for each backend, when it came back
(None: at start, or long ago), ask anew every `Ramp.interval`, and stop once `is_over`. Pure; times are seconds of any clock
that does not step back (one that does means the least share, never less). Called by core/pool.py where members are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: What a weight is multiplied by while somebody ramps.
SCALE: Final = 100
#: The share of its weight that a backend has at once.
LEAST: Final = 1 / SCALE
#: In how many steps a weight grows.
STEPS: Final = 20

#: A timer that was set for the end may fire as much too soon as its sum is rounded, as a part of the duration.
_EPSILON: Final = 1e-6


class Ramp:
    """How a weight grows over `duration` seconds; 0 or less: at once."""

    __slots__ = ("duration",)

    def __init__(self, duration: float) -> None:
        self.duration = duration

    @property
    def interval(self) -> float:
        """Seconds from one step to the next."""
        return max(self.duration, 0.0) / STEPS

    def share(self, since: float | None, now: float) -> float:
        """The part of its weight, LEAST to 1, of a backend that came back at `since` (None: it was always here)."""
        if since is None or self.duration <= 0:
            return 1.0
        grown = (now - since) / self.duration
        return 1.0 if grown >= 1.0 - _EPSILON else max(grown, LEAST)

    def is_over(self, since: float | None, now: float) -> bool:
        """Has it its full weight?"""
        return self.share(since, now) >= 1.0

    def __repr__(self) -> str:
        return f"<Ramp over {self.duration:g} s>"


def effective(weight: int, share: float) -> int:
    """`weight` x `share` in units of 1/SCALE: a whole number, at least 1 where the weight is above 0."""
    return max(1, round(weight * SCALE * share)) if weight > 0 else 0


def effective_weights(members: Iterable[tuple[int, float]]) -> list[int]:
    """What pickers shall see of the (weight, share) of all members of a tier: the weights, if all shares are 1."""
    members = list(members)
    if all(share >= 1.0 or not weight for weight, share in members):
        return [weight for weight, _ in members]
    return [effective(weight, share) for weight, share in members]
