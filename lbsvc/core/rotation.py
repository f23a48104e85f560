"""`round_robin`: every backend in its turn, as often as its weight says, as evenly spaced as may be.

Promises: with equal weights a fixed cyclic order, each pick one step of it; with others, each full cycle (the sum of the
weights) gives every backend exactly its weight, from wherever the cycle is looked at: 5:1:1 gives 500:100:100 in 700, at
most three in a row. A pick is O(1) with equal weights, O(log of the number of distinct weights) otherwise.

How: backends of one weight form a ring that rotates; the rings share the turns by deadlines. In one unit of virtual time
a ring of total weight W has W turns, evenly spaced: turn k is due at (k + phase) / W, and the earliest is next. Every
unit of virtual time is the same sequence, which makes the shares exact, not only close. Deadlines are computed from the
whole number k, never added up, so that equal ones stay equal and nothing drifts.

Decision (2026-07): deadlines rather than nginx's smooth counters (add weights, take the greatest, subtract the sum).
Both are exact and smooth from a fresh start; but counters carried over an update may take many cycles to be exact again,
and zeroed ones starve light backends where updates come faster than cycles. A phase carries over as it is: the part of
its interval that a ring still has to wait. design.md asks for the classes by distinct weight; those are the rings.

Exclusion takes further turns of the same schedule until one is not excluded, so that the turns of the excluded go to the
others in proportion, and not to a neighbour. Where nearly all of many members are full (`pick_among`) the few others have
turns of their own, in proportion and well spread, but without exact cycles: who has room is another each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heapreplace
from itertools import cycle
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.chance import few_by_weight
from lbsvc.core.pickers import Picker, register

if TYPE_CHECKING:
    from random import Random

#: A new ring begins in the middle of its interval, so that heavy and light ones do not all fall due at once.
FRESH: Final = 0.5

#: Phases stay below 1, so that every ring's W turns lie inside the unit.
LATEST: Final = 0.999

#: A part of the way around, such that steps of it fall evenly wherever they have come to: the golden ratio's.
GOLDEN: Final = 0.6180339887498949

#: So many turns of excluded backends are passed over before we look for another way (a heavy one could have thousands).
PASSES: Final = 32


class Ring:
    """The backends of one weight, in rotation, with the schedule of their common turns."""

    __slots__ = ("members", "order", "phase", "step", "taken", "total")

    def __init__(self, members: list[Backend], weight: int, phase: float) -> None:
        self.members = members
        self.order: Callable[[], Backend] = cycle(members).__next__
        self.phase = phase
        self.step = weight
        self.total = weight * len(members)  # turns in one unit of virtual time
        self.taken = 0  # turns taken in this unit (more, if some were taken ahead)

    @property
    def due(self) -> float:
        return (self.taken + self.phase) / self.total


def continued(ring: Ring | None, members: list[Backend]) -> list[Backend]:
    """`members` turned so that the first is whoever of them would have been next in `ring`."""
    if ring is None:
        return members
    places = {backend: place for place, backend in enumerate(members)}
    for _ in ring.members:
        place = places.get(ring.order())
        if place is not None:
            return members[place:] + members[:place]
    return members


@register("round_robin")
class RoundRobin(Picker):
    """Rotation by weight."""

    def __init__(self, rng: Random) -> None:
        self._rings: dict[int, Ring] = {}
        self._schedule: list[tuple[float, int]] = []  # a heap of (due, weight)
        self._now = 0.0  # virtual time: the deadline of the turn taken last
        self._step = 0.0  # where the last turn among few fell, as a part of all of them
        #: The next member where all weights are equal; None where they are not, or nobody is there.
        self._turn: Callable[[], Backend] | None = None

    def update(self, backends: Sequence[Backend]) -> None:
        by_weight: dict[int, list[Backend]] = {}
        for backend in backends:
            by_weight.setdefault(backend.effective, []).append(backend)
        old = self._rings
        self._rings = {}
        for weight, members in by_weight.items():
            before = old.get(weight)
            phase = FRESH
            if before is not None and len(old) > 1:
                # What is left of its wait, as a part of its interval. A single ring keeps no time: see `pick`.
                phase = min(max((before.due - self._now) * before.total, 0.0), LATEST)
            self._rings[weight] = Ring(continued(before, members), weight, phase)
        self._now = 0.0
        self._plan()
        self._turn = next(iter(self._rings.values())).order if len(self._rings) == 1 else None

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        # Hot path (tests/bench/pick_cost.py): with equal weights, one call into C.
        turn = self._turn
        if turn is None or exclude:
            return self._pick_slowly(exclude)
        return turn()

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        self._step = step = (self._step + GOLDEN) % 1.0
        return few_by_weight(few, step)

    def _pick_slowly(self, exclude: Collection[Backend]) -> Backend | None:
        if not self._rings:
            return None
        # One ring has no two turns of one backend in a row; several may, of a heavy one.
        turn, passes = (self._turn, len(exclude) + 1) if self._turn else (self._scheduled, PASSES)
        for _ in range(passes):
            backend = turn()
            if backend not in exclude:
                return backend
        return self._search(exclude)

    def _plan(self) -> None:
        self._schedule = [(ring.due, weight) for weight, ring in self._rings.items()]
        heapify(self._schedule)

    def _scheduled(self) -> Backend:
        """Take the turn that is due."""
        due, weight = self._schedule[0]
        if due >= 1.0:  # the unit is over: the next one is the same again
            for ring in self._rings.values():
                ring.taken -= ring.total
            self._plan()
            due, weight = self._schedule[0]
        self._now = due
        ring = self._rings[weight]
        ring.taken += 1
        heapreplace(self._schedule, ((ring.taken + ring.phase) / ring.total, weight))
        return ring.order()

    def _search(self, exclude: Collection[Backend]) -> Backend | None:
        """The excluded hold nearly all turns: let the earliest ring with someone else take its turn ahead of time."""
        for _, weight in sorted(self._schedule):
            ring = self._rings[weight]
            for _ in ring.members:
                backend = ring.order()
                if backend not in exclude:
                    ring.taken += 1
                    self._plan()
                    return backend
        return None
