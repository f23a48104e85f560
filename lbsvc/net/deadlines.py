"""When does patience end: one coarse sweep over stored deadlines instead of a timer for each request.

Promises: `expired(now)` of a watched object is called at or after its deadline, at most three TICKs and one turn of the
reactor late, never before; moving a deadline later costs an attribute store, whatever the number of objects; idle objects
cost nothing between their buckets. Called by the roads; invariant: `slot` is where the
bucket begins that an object is in, so that a deadline at or after it needs no other bucket. Times are seconds of the injected (monotonic) clock.

Law: buckets are TICK wide. An object that is met in a due bucket before its deadline has come is put into the bucket of
that deadline ("moved lazily"), so that a connection that is busy all the time is touched once in each timeout, not
once in each request. An object met in a bucket that is not its `slot` was moved earlier meanwhile: dropped.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

#: Width of a bucket and period of the sweep, in seconds.
TICK: Final = 0.1

NEVER: Final = inf


class Watched(Protocol):
    """What can be watched. Both attributes start as NEVER; only the owner sets `deadline`, only Deadlines `slot`."""

    deadline: float
    slot: float

    def expired(self, now: float) -> None:
        """The deadline has come; to be watched again, set a new one by `Deadlines.watch`."""


class Deadlines:
    """The buckets and the sweep. The hot path inlines `watch`: store `now + patience + TICK`, `insert` only if it is earlier."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: the time of the last sweep: good enough to say when patience ends, and free
        self.now = clock.seconds()
        self._buckets: dict[int, list[Watched]] = {}
        self._swept = int(clock.seconds() / TICK)
        self._loop = LoopingCall(self.sweep)
        self._loop.clock = clock

    def start(self) -> None:
        self.now = self._clock.seconds()
        self._loop.start(TICK, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def after(self, patience: float) -> float:
        """A deadline so many seconds from now; never earlier, since `now` may be a TICK old."""
        return self.now + patience + TICK

    def watch(self, item: Watched, patience: float) -> None:
        """Call `item.expired` after so many seconds, whatever was set before; NEVER takes it off."""
        item.deadline = deadline = self.now + patience + TICK
        if deadline < item.slot:
            self.insert(item)

    def insert(self, item: Watched) -> None:
        """Put `item` into the bucket of its deadline; its former entry, if any, is dropped when it is met."""
        number = max(ceil(item.deadline / TICK), self._swept + 1)
        item.slot = (number - 1) * TICK
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [item]
        else:
            bucket.append(item)

    def sweep(self) -> None:
        """Look at every bucket that has become due since the last sweep."""
        now = self.now = self._clock.seconds()
        due = int(now / TICK)
        first, self._swept = self._swept + 1, max(due, self._swept)
        if due - first > len(self._buckets):  # after a long pause: do not count through empty ticks
            numbers = sorted(n for n in self._buckets if n <= due)
        else:
            numbers = [n for n in range(first, due + 1) if n in self._buckets]
        for number in numbers:
            slot = (number - 1) * TICK
            for item in self._buckets.pop(number):
                if item.slot != slot:
                    continue  # it was moved to an earlier bucket, and is or was met there
                item.slot = NEVER
                if item.deadline > now:
                    if item.deadline != NEVER:
                        self.insert(item)
                else:
                    item.deadline = NEVER
                    item.expired(now)
