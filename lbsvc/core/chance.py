"""`random`: each pick is a draw of its own, by weight, from the random source that was given.

Promises: independent draws, without memory and without a period; a backend's chance is its weight over the sum of all.
O(1) with equal weights, O(log n) otherwise (a search in the running sums, in C). Exclusion draws again, which leaves the
chances of the others in proportion; where the excluded hold nearly all the weight the others are drawn from by themselves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.pickers import Picker, register

if TYPE_CHECKING:
    from random import Random

#: Draws before the excluded are left out of the draw itself, which is O(n).
DRAWS: Final = 8
#: The same for more than MANY members: one is hardly ever not found, for where fewer than about the root of their number are
#: not excluded the pool asks `pick_among`.
DRAWS_OF_MANY: Final = 200
MANY: Final = 64


def few_by_weight(few: Sequence[Backend], part: float) -> Backend:
    """Who lies at this part (below 1) of the line of their weights."""
    sums = list(accumulate([backend.effective for backend in few]))
    return few[bisect_right(sums, part * sums[-1])]


@register("random")
class RandomChoice(Picker):
    """A draw by weight."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self._members: list[Backend] = []
        self._count = 0  # how many members, where all weigh the same; else 0
        self._sums: list[int] = []

    def update(self, backends: Sequence[Backend]) -> None:
        self._members = list(backends)
        self._sums = list(accumulate(backend.effective for backend in backends))
        self._count = len(backends) if len({backend.effective for backend in backends}) == 1 else 0

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        if exclude:
            return self._pick_among_others(exclude)
        if self._count:
            # Never out of range: random() is below 1 by at least 2**-53, and so is the product below the count.
            return self._members[int(self._random() * self._count)]
        return self._draw() if self._members else None

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        return few_by_weight(few, self._random())

    def _draw(self) -> Backend:
        return self._members[bisect_right(self._sums, self._random() * self._sums[-1])]

    def _pick_among_others(self, exclude: Collection[Backend]) -> Backend | None:
        if not self._members:
            return None
        for _ in range(DRAWS if len(self._members) <= MANY else DRAWS_OF_MANY):
            backend = self._draw()
            if backend not in exclude:
                return backend
        others = [backend for backend in self._members if backend not in exclude]
        return few_by_weight(others, self._random()) if others else None
