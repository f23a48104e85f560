"""How the backends of a pool are shown: who stands under each name, and in which state.

Promises: a member stands before one that leaves under the same name; what counts is the sum of all, so that no counter falls
while an entry's address changes; the members of a pool that is removed are shown as draining, which to people they are.
Asked by metrics.py and snapshot.py. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from lbsvc.core.backend import Backend
from lbsvc.core.books import Histogram
from lbsvc.core.pool import Pool

#: What a backend may be, each a 0/1 series; exactly one of them is 1. What people set hides what was found.
STATES: Final = ("up", "down", "drain", "maint", "ejected", "unknown", "flapping")

#: What the circuit of a backend may be, likewise.
CIRCUITS: Final = ("closed", "open", "half_open")


def namesakes(pool: Pool) -> Collection[tuple[str, list[Backend]]]:
    """All that stand in a pool, those that are leaving too, by their names."""
    found: dict[str, list[Backend]] = {}
    for backend in pool.everyone:
        found.setdefault(backend.name, []).append(backend)
    return found.items()


def together(histograms: Sequence[Histogram]) -> Histogram:
    """What all of these have counted."""
    if len(histograms) == 1:
        return histograms[0]
    total = Histogram()
    for each in histograms:
        total.add(each)
    return total


def set_state(pool: Pool, backend: Backend) -> str:
    """What people have set: ready, drain or maint."""
    return "drain" if pool.is_retired and backend.state == "ready" else backend.state


def shown_state(pool: Pool, backend: Backend) -> str:
    """The one of STATES: what people have set hides what was found."""
    state = set_state(pool, backend)
    return state if state != "ready" else found_health(backend)


def found_health(backend: Backend) -> str:
    """What was found out about a backend, whatever people have set.

    To be down is more than to be ejected: whoever cannot be reached at all will not be better when it returns.
    """
    return "ejected" if backend.is_ejected and backend.health in ("up", "unknown") else backend.health
