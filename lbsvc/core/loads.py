"""`least_connections`: whoever has the least to do for its weight, active / weight; ties take turns.

Promises: always a backend of the least load, exact after any number of picks, releases and updates, for the counts are
`Backend.active` itself and the books here only sort them. Equal weights: O(1) a pick, by levels of load. Different ones:
O(log n), by a heap whose outdated entries are dropped as they surface and swept before they outnumber the members by four.

A backend that comes back is not flooded: it joins with the leases that it has, and takes new ones only while it is the
least loaded, so at no time does it hold more (for its weight) than any other would after one more. What it gets in a row
at first is what it lacks to the others' level; pacing that is the business of slow_start.

Excluded ones who have less to do than all others are passed over one by one: so are those that are full where limits differ
much, and many have a low one.

Ties are queues: a backend goes to the end when its load changes, so those of equal load are taken in the order in which
they came to it, and idle backends with one client at a time are a rotation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.pickers import Picker, register

if TYPE_CHECKING:
    from random import Random

#: Heap entries allowed for each member, and beside that, before outdated ones are swept.
SLACK: Final = 4
SPARE: Final = 64


class Levels:
    """Members of equal weight, by how much they have to do: level -> queue. Moves and picks are O(1)."""

    __slots__ = ("_least", "_level", "_levels")

    def __init__(self, members: Sequence[Backend]) -> None:
        # OrderedDict: a queue from whose middle a member can be taken in O(1). A dict would have to step over
        # the gaps at its front again and again.
        self._levels: dict[int, OrderedDict[Backend, None]] = {}
        self._level: dict[Backend, int] = {}
        for backend in members:
            self._level[backend] = backend.active
            self._queue(backend.active)[backend] = None
        self._least = min(self._level.values())  # invariant: the least level with members

    def move(self, backend: Backend) -> None:
        """The backend's `active` has changed."""
        before = self._level.get(backend)
        if before is None:
            return
        after = backend.active
        levels = self._levels
        queue = levels[before]
        del queue[backend]
        try:
            levels[after][backend] = None
        except KeyError:
            self._queue(after)[backend] = None
        self._level[backend] = after
        if after < self._least:
            self._least = after
        elif before == self._least and not queue:
            # One lease more or less is one level: whoever left the least level stands on the next. A jump (nobody
            # makes one) would cost a search.
            self._least = after if after == before + 1 else min(self._level.values())

    def first(self, exclude: Collection[Backend]) -> Backend | None:
        if not exclude:
            return next(iter(self._levels[self._least]))
        for level in sorted(self._levels):
            for backend in self._levels[level]:
                if backend not in exclude:
                    return backend
        return None

    def order(self) -> list[Backend]:
        """All members, those of one level as they stand in its queue."""
        return [backend for queue in self._levels.values() for backend in queue]

    def _queue(self, level: int) -> OrderedDict[Backend, None]:
        queue = self._levels.get(level)
        if queue is None:
            if len(self._levels) > 2 * len(self._level) + SPARE:
                self._levels = {key: each for key, each in self._levels.items() if each}
            queue = self._levels[level] = OrderedDict()
        return queue


class Loads:
    """Members of different weight: a heap of (load, turn); an entry counts while its turn is the member's latest."""

    __slots__ = ("_heap", "_latest", "_turn")

    def __init__(self, members: Sequence[Backend]) -> None:
        self._turn = 0  # grows with every change, so that ties are taken in order of their coming
        self._latest: dict[Backend, int] = {}
        self._heap: list[tuple[float, int, Backend]] = []
        for backend in members:
            self.enter(backend)

    def move(self, backend: Backend) -> None:
        if backend in self._latest:
            self.enter(backend)

    def enter(self, backend: Backend) -> None:
        self._turn = turn = self._turn + 1
        self._latest[backend] = turn
        # Equal fractions of small whole numbers are equal floats, so ties are ties. The turn is unique: backends
        # are never compared.
        heappush(self._heap, (backend.active / backend.effective, turn, backend))
        if len(self._heap) > SLACK * len(self._latest) + SPARE:
            self._heap = [entry for entry in self._heap if self._latest[entry[2]] == entry[1]]
            heapify(self._heap)

    def first(self, exclude: Collection[Backend]) -> Backend | None:
        heap = self._heap
        latest = self._latest
        passed = []
        found = None
        while heap:
            entry = heap[0]
            backend = entry[2]
            if latest[backend] != entry[1]:
                heappop(heap)
            elif backend in exclude:
                passed.append(heappop(heap))
            else:
                found = backend
                break
        for entry in passed:
            heappush(heap, entry)
        return found

    def order(self) -> list[Backend]:
        """All members, the longest unchanged first."""
        return sorted(self._latest, key=self._latest.__getitem__)


def _load(backend: Backend) -> float:
    return backend.active / backend.effective


@register("least_connections")
class LeastConnections(Picker):
    """The least loaded by weight."""

    wants_hooks: ClassVar[bool] = True

    #: Bound to the books by every update, so that a request pays for one call and not for two.
    pick: Callable[[Collection[Backend]], Backend | None]
    acquired: Callable[[Backend], None]
    released: Callable[[Backend], None]

    def __init__(self, rng: Random) -> None:
        self._use(Loads(()))

    def update(self, backends: Sequence[Backend]) -> None:
        """New members join at the end of the ties, and old ones keep the order that they had among themselves."""
        known = {backend: place for place, backend in enumerate(self._books.order())}
        members = sorted(backends, key=lambda backend: known.get(backend, len(known)))
        equal = len({backend.effective for backend in members}) == 1
        self._use(Levels(members) if equal else Loads(members))

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        """Of equal loads the first: it has had room for longest."""
        return min(few, key=_load)

    def _use(self, books: Levels | Loads) -> None:
        self._books = books
        self.pick = books.first
        self.acquired = self.released = books.move
