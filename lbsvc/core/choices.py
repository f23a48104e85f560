"""`two_choices`: draw two different backends by weight, take the one with less to do for its weight.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001: a second draw makes
the longest queue exponentially shorter than one draw does, and balancers that do not know of each other do not all run to
the same idle backend, as they would by least_connections.

Promises: the first draw has each backend's weight over the sum of all as its chance, the second likewise among the
others; load is active / weight, and of equal loads the first draw stands. (Not (active + 1) / weight: the draws weigh
already, and where little is in flight light backends would get next to nothing.) The fullest backend is therefore never
taken where there are two of different loads. O(1) with equal weights, O(log n) otherwise (a search in the running sums, in
C). Exclusion draws again, which leaves the chances of the others in proportion; where few are left they are drawn from by
themselves, which is O(n).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.chance import DRAWS_OF_MANY, MANY
from lbsvc.core.pickers import Picker, register

if TYPE_CHECKING:
    from random import Random

#: Draws for two that are not excluded, before the excluded are left out of the draw itself.
DRAWS: Final = 12
#: With so many members or fewer they are left out at once: that is cheaper.
FEW: Final = 8


class Urn:
    """Backends to draw from, by weight. `random` gives numbers from 0 up to, but not, 1."""

    __slots__ = ("_is_even", "_random", "_sums", "members")

    def __init__(self, members: Sequence[Backend], random: Callable[[], float]) -> None:
        self.members = list(members)
        self._random = random
        self._sums = list(accumulate(backend.effective for backend in members))
        self._is_even = len({backend.effective for backend in members}) == 1

    def draw(self) -> Backend:
        """One of them; there is one at least."""
        return self.members[bisect_right(self._sums, self._random() * self._sums[-1])]

    def pick(self) -> Backend | None:
        """The better one of two."""
        members = self.members
        count = len(members)
        if count < 2:
            return members[0] if members else None
        if self._is_even:
            # Never out of range: random() is below 1 by at least 2**-53, and so is the product below the count.
            first = int(self._random() * count)
            second = int(self._random() * (count - 1))
            if second >= first:
                second += 1
            one, other = members[first], members[second]
            return other if other.active < one.active else one
        sums = self._sums
        first = bisect_right(sums, self._random() * sums[-1])
        start = sums[first - 1] if first else 0
        width = sums[first] - start
        # The second draw is over what is left when the first one's part of the line is cut out.
        point = self._random() * (sums[-1] - width)
        if point >= start:
            point += width
        second = bisect_right(sums, point, 0, count - 1)  # a sum that was rounded up to the end is the last one
        return lighter(members[first], members[second])


def lighter(first: Backend, second: Backend) -> Backend:
    """The one with less to do for its weight, the first if that is equal."""
    if second.active * first.effective < first.active * second.effective:
        return second
    return first


@register("two_choices")
class TwoChoices(Picker):
    """The less loaded of two draws."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self._urn = Urn((), self._random)

    def update(self, backends: Sequence[Backend]) -> None:
        self._urn = Urn(backends, self._random)

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        return self._pick_among_others(exclude) if exclude else self._urn.pick()

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        return Urn(few, self._random).pick()

    def _pick_among_others(self, exclude: Collection[Backend]) -> Backend | None:
        urn = self._urn
        if len(urn.members) > FEW:
            first = None
            for _ in range(DRAWS if len(urn.members) <= MANY else DRAWS_OF_MANY):
                backend = urn.draw()
                if backend is first or backend in exclude:
                    continue
                if first is not None:
                    return lighter(first, backend)
                first = backend
        return Urn([backend for backend in urn.members if backend not in exclude], self._random).pick()
