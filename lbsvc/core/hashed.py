"""`ip_hash` and `consistent_hash`: like goes to like, whoever asks and on whatever instance.

Both choose by a key (pickers.Picker.pick_by, hashing.key_hash) and by the names and weights of the members, never by
order, history or process: two instances with the same backends choose alike. A key whose backend is excluded gets its
next choice, another for each key, so that no neighbour takes all. Requests without a key are drawn by weight.

`ip_hash` is multi-probe consistent hashing (Appleton and O'Reilly, "Multi-probe consistent hashing", arXiv:1505.00062,
2015): a key has PROBES places on a circle, and belongs to the member whose point is the nearest after one of them. What
leaves takes only its own keys with it, and what joins gets keys only for itself; exactly, as with rendezvous hashing, but
in O(log n). To be excluded is as good as to be gone. A distance to a member counts divided by its weight: the nearest of
many random points is as good as exponentially distributed, so members win as often as they weigh, and one whose weight
grows only gains. Shares have a standard deviation of about a twentieth (by POINTS and PROBES); weights above 127
are therefore rounded to seven binary digits, so that there are not too many different ones.

`consistent_hash` is Maglev hashing (core/maglev.py) with bounded loads (Mirrokni, Thorup and Zadimoghaddam, "Consistent
Hashing with Bounded Loads", arXiv:1608.01350, SODA 2018): shares are within one place of 65537 and a pick is one look,
while some three keys in a thousand more than must move when a member of ten leaves. A member that has its bound in
flight, ceil(1.25 * (all in flight + 1) * its share) or more, is passed over to the next place of the table; so two
instances agree on every key as long as nobody is at the bound.

Costs: ip_hash remembers each of 65536 rows of keys once it was asked for: a look, and 6 µs for the first of a row (and
as much again for each further weight among the members). A change forgets the rows; the circles are made anew
by the first pick after it: 0.2 ms for 10 members, 20 ms for 1000. consistent_hash makes its table (25 ms) likewise, but
at most once in PAUSE: until then who has gone is passed over, and who is new waits. Where most members are full a key looks
for its next choice along the circles or the table: more the fewer have room, a tenth of a millisecond with 1000 members.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.chance import RandomChoice
from lbsvc.core.hashing import identity, numbers
from lbsvc.core.maglev import SIZE, fill, permutation, turns
from lbsvc.core.pickers import Picker, register

if TYPE_CHECKING:
    from random import Random

#: Points of a member on its circle, and places of a key on each circle.
POINTS: Final = 32
PROBES: Final = 16
#: Rows of keys whose member is remembered; all keys of a row belong together.
ROWS: Final = 65536
#: The length of the circles.
AROUND: Final = 1 << 64

#: So many with room are looked at one by one, by their own points; past that a walk along the circles finds one sooner.
FEW: Final = 8

#: The least time between two tables, in seconds.
PAUSE: Final = 0.1
#: Places that are looked at for somebody below the bound. A fifth of the weight at least is below it.
PLACES: Final = 512

#: The rows after a change. Never written to.
_UNKNOWN: Final[list[Backend | None]] = [None] * ROWS


class Circle:
    """The points of all members of one weight, in their order."""

    __slots__ = ("owners", "points", "weight")

    def __init__(self, weight: int, members: Sequence[Backend]) -> None:
        self.weight = weight
        owner_of: dict[int, Backend] = {}
        for backend in members:
            owner_of.update(zip(numbers(b"circle\0" + identity(backend), POINTS), repeat(backend)))
        self.points = sorted(owner_of)
        self.owners = [owner_of[point] for point in self.points]
        # The circle closes: behind the last point is the first one.
        self.points.append(self.points[0] + AROUND)
        self.owners.append(self.owners[0])

    def nearest(self, probes: Sequence[int]) -> tuple[float, Backend]:
        """The member nearest to a key, and how far it is for its weight."""
        points = self.points
        distances = [points[bisect_left(points, probe)] - probe for probe in probes]
        nearest = min(distances)
        return nearest / self.weight, self.owners[bisect_left(points, probes[distances.index(nearest)])]

    def nearest_other(
        self, probes: Sequence[int], exclude: Collection[Backend], limit: float
    ) -> tuple[float, Backend] | None:
        """The same without those who are excluded, if that is nearer than `limit`."""
        found = None
        last = len(self.owners) - 1
        for probe in probes:
            place = bisect_left(self.points, probe)
            # Walk on to a point of somebody else, once around at most.
            for step in range(place, place + last):
                at, turn = (step, 0) if step < last else (step - last, AROUND)
                distance = (self.points[at] + turn - probe) / self.weight
                if distance >= limit:
                    break
                if self.owners[at] not in exclude:
                    limit = distance
                    found = distance, self.owners[at]
                    break
        return found


class Circles:
    """Members by name and weight, to find the nearest of."""

    __slots__ = ("_circles", "members")

    def __init__(self, members: Sequence[Backend]) -> None:
        self.members = members
        by_weight: dict[int, list[Backend]] = {}
        for backend in sorted(members, key=identity):
            by_weight.setdefault(rounded(backend.effective), []).append(backend)
        # Of equal distances, which there hardly are, the heaviest comes first.
        self._circles = [Circle(weight, found) for weight, found in sorted(by_weight.items(), reverse=True)]

    def nearest(self, row: int) -> Backend | None:
        """Whose keys these are; None where there are no members."""
        probes = probes_of(row)
        least = inf
        found = None
        for circle in self._circles:
            distance, backend = circle.nearest(probes)
            if distance < least:
                least, found = distance, backend
        return found

    def nearest_of(self, row: int, few: Sequence[Backend]) -> Backend:
        """The same, where all but these few members are excluded: their own points are looked at."""
        probes = probes_of(row)
        least = inf
        found = few[0]
        for backend in sorted(few, key=lambda each: -rounded(each.effective)):  # of equal distances, as above
            distance, _ = Circle(rounded(backend.effective), (backend,)).nearest(probes)
            if distance < least:
                least, found = distance, backend
        return found

    def nearest_other(self, row: int, exclude: Collection[Backend]) -> Backend | None:
        """Whose keys they would be if those who are excluded were gone."""
        if len(exclude) >= len(self.members) - 1:  # else there are two others
            others = [backend for backend in self.members if backend not in exclude]
            if len(others) < 2:
                return others[0] if others else None
        probes = probes_of(row)
        least = inf
        found = None
        for circle in self._circles:
            nearer = circle.nearest_other(probes, exclude, least)
            if nearer is not None:
                least, found = nearer
        return found


def probes_of(row: int) -> Sequence[int]:
    """The places of a row of keys."""
    return numbers(b"row %d" % row, PROBES)


def rounded(weight: int) -> int:
    """The weight by its first seven binary digits."""
    shift = max(weight.bit_length() - 7, 0)
    return weight + (1 << shift >> 1) >> shift << shift


@register("ip_hash")
class IpHash(Picker):
    """The client's address chooses."""

    wants_key: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._chance = RandomChoice(rng)
        self._members: Sequence[Backend] = ()
        self._circles: Circles | None = None
        self._rows = _UNKNOWN

    def update(self, backends: Sequence[Backend]) -> None:
        self._chance.update(backends)
        self._members = list(backends)
        self._circles = None
        self._rows = _UNKNOWN

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        return self._chance.pick(exclude)

    def pick_by(self, key: int, exclude: Collection[Backend]) -> Backend | None:
        row = key % ROWS
        backend = self._rows[row] or self._look_up(row)
        if exclude and backend in exclude and self._circles is not None:
            return self._circles.nearest_other(row, exclude)
        return backend

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        if key is None:
            return self._chance.pick_among(few, key)
        row = key % ROWS
        backend = self._rows[row] or self._look_up(row)
        if backend in few:
            return backend
        if len(few) > FEW or self._circles is None:
            return None
        return self._circles.nearest_of(row, few)

    def _look_up(self, row: int) -> Backend | None:
        if self._circles is None:
            self._circles = Circles(self._members)
        backend = self._circles.nearest(row)
        if self._rows is _UNKNOWN:
            self._rows = _UNKNOWN.copy()
        self._rows[row] = backend
        return backend


def _load_with_one(backend: Backend) -> float:
    return (backend.active + 1) / backend.effective


@register("consistent_hash")
class ConsistentHash(Picker):
    """A table of keys, and nobody far above their share."""

    wants_hooks: ClassVar[bool] = True
    wants_key: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._chance = RandomChoice(rng)
        self._members: dict[Backend, int] = {}  # with the weights that the next table is made by
        self._active = 0  # of all members together
        self._scale = 0  # four times the sum of the weights: see `pick_by`
        self._table: list[Backend] = []
        self._made_of: dict[Backend, int] = {}
        self._gone: frozenset[Backend] = frozenset()  # who is in the table and no member
        self._is_stale = True
        self._due = -inf  # when the next table may be made

    def update(self, backends: Sequence[Backend]) -> None:
        self._chance.update(backends)
        self._members = {backend: backend.effective for backend in backends}
        self._active = sum(backend.active for backend in backends)
        self._scale = 4 * sum(self._members.values())
        self._gone = frozenset(self._made_of).difference(self._members)
        self._is_stale = self._members != self._made_of

    def acquired(self, backend: Backend) -> None:
        if backend in self._members:
            self._active += 1

    def released(self, backend: Backend) -> None:
        if backend in self._members:
            self._active -= 1

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        return self._chance.pick(exclude)

    def pick_by(self, key: int, exclude: Collection[Backend]) -> Backend | None:
        if self._is_stale:
            self._renew()
        if not self._table:
            return None
        place = key % SIZE
        backend = self._table[place]
        # active >= ceil(5/4 * (all + 1) * weight / weights), in whole numbers.
        if exclude or self._gone or backend.active * self._scale >= 5 * (self._active + 1) * backend.effective:
            return self._walk(place, exclude)
        return backend

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        if key is None:
            return self._chance.pick_among(few, key)
        if self._is_stale:
            self._renew()
        allowed = set(few)
        room, scale, place = 5 * (self._active + 1), self._scale, key % SIZE
        table = self._table
        for at in range(place - SIZE, place - SIZE + PLACES if table else place - SIZE):
            backend = table[at]
            if backend in allowed and backend.active * scale < room * backend.effective:
                return backend
        return min(few, key=_load_with_one)

    def _walk(self, place: int, exclude: Collection[Backend]) -> Backend | None:
        """The first from this place on who may take one more."""
        table = self._table
        gone = self._gone
        scale = self._scale
        room = 5 * (self._active + 1)
        for at in range(place - SIZE, place - SIZE + PLACES):
            backend = table[at]
            if backend.active * scale < room * backend.effective and backend not in gone and backend not in exclude:
                return backend
        # Nearly all are excluded, or all others are at their bound: the least loaded, without one.
        others = [backend for backend in self._members if backend not in exclude]
        return min(others, key=_load_with_one) if others else None

    def _renew(self) -> None:
        """Make the table, if it is time, or if the old one is of little use."""
        now = self.seconds()
        if now < self._due and 2 * len(self._gone) <= len(self._made_of):
            return
        self._due = now + PAUSE
        members = sorted(self._members, key=identity)
        self._table = []
        if members:
            order = turns([self._members[backend] for backend in members])
            places = fill([permutation(identity(backend)) for backend in members], order)
            self._table = [members[index] for index in places]
        self._made_of = self._members
        self._gone = frozenset()
        self._is_stale = False
