"""When does patience end: one coarse sweep over stored deadlines instead of a timer for each request.

Promises: `expired(now)` of a watched object is called at or after its deadline, at most three TICKs and one turn of the
reactor late; moving a deadline later costs an attribute store, whatever the number of objects; idle objects cost nothing
between their buckets; nothing here refers to what `forget` was called for; an `expired` that raises is logged and costs
the others nothing. Called by the roads. Invariant: an object is in one bucket or in none; `slot` is where its bucket
begins (NEVER: in none), so that a deadline at or after it needs no other. Seconds of the injected (monotonic) clock.

Law: buckets are TICK wide. An object that is met in a due bucket before its deadline has come is put into the bucket of
that deadline ("moved lazily"), so that a connection that is busy all the time is touched once in each timeout, not
once in each request. The owner of an object that is over calls `forget`: a bucket a minute away would else keep all
connections of that minute. `now` is as old as the last sweep: deadlines that are set while the whole process has stood
still for longer than a TICK come early by as much.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python import log

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
    """The buckets and the sweep.

    The hot path inlines `watch`: it stores `now + patience + TICK`, and calls `insert` only if that is before the slot.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: the time of the last sweep: good enough to say when patience ends, and free
        self.now = clock.seconds()
        #: dictionaries rather than sets: they keep the order
        self._buckets: dict[int, dict[Watched, None]] = {}
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
        """Put `item` into the bucket of its deadline, out of a later one that it may be in."""
        if item.slot != NEVER:
            self._take_out(item)
        number = max(ceil(item.deadline / TICK), self._swept + 1)
        item.slot = (number - 1) * TICK
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = {item: None}
        else:
            bucket[item] = None

    def forget(self, item: Watched) -> None:
        """`item` is over: nothing is called for it any more, and nothing here refers to it."""
        item.deadline = NEVER
        if item.slot != NEVER:
            self._take_out(item)
            item.slot = NEVER

    def _take_out(self, item: Watched) -> None:
        bucket = self._buckets.get(round(item.slot / TICK) + 1)
        if bucket is not None:
            bucket.pop(item, None)

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
                    continue  # it was moved or forgotten by one that this sweep met before
                item.slot = NEVER
                if item.deadline > now:
                    if item.deadline != NEVER:
                        self.insert(item)
                else:
                    item.deadline = NEVER
                    try:
                        item.expired(now)
                    except Exception:
                        log.err(None, f"{item!r} failed when its deadline came")
