"""How many connections each of several processes has, in memory that they share: whoever is ahead lets others come first.

Promises: each process writes its own number and reads those of the others, without a lock: a number that is a moment old
costs no more than a connection in the wrong place. A place where nobody serves is `ABSENT`, and nobody waits for it.
`is_ahead` says whether the own number is above the least of the others by more than `slack` and an eighth. Asked by
net/sharing.py for each connection that is accepted (1 µs); `weigh` is called now and then, for connections that end. The
memory is made by the process that starts the others (workers/crew.py), with `memory`, and passed on as a descriptor.

Decision: 2026-11-22. Taking turns alone (net/sharing.py) is fair as long as every process runs at once when it is woken.
Where there are fewer cores than work, one that is running takes a whole burst before another has been given a core: of 64
clients that came at once, with both cores busy, up to 64 went to one of two workers, and stayed there for as long as they
kept their connections.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Final

#: So many places there are at most.
PLACES: Final = 256
#: What stands in a place where nobody serves.
ABSENT: Final = (1 << 32) - 1

_BYTES: Final = PLACES * 4


def memory() -> int:
    """Memory to be shared, everybody absent: a descriptor."""
    number = os.memfd_create("lbsvc-connections", os.MFD_CLOEXEC)
    os.write(number, b"\xff" * _BYTES)
    return number


def vacate(number: int, place: int) -> None:
    """Nobody serves at this place of the memory any more."""
    os.pwrite(number, b"\xff" * 4, place * 4)


class Scales:
    """One process's view. `place` is from 0, of so many `places`; `count` gives its own number of connections. The
    descriptor is not kept."""

    def __init__(self, number: int, place: int, places: int, count: Callable[[], int]) -> None:
        #: may be set anew, when there are others
        self.places = places
        self._map = mmap.mmap(number, _BYTES)
        self._numbers = memoryview(self._map).cast("I")
        self._place = place
        self._count = count
        self._has_left = False

    def weigh(self) -> int:
        """Write down the own number, unless it has left: others may have the place."""
        own = min(self._count(), ABSENT - 1)
        if not self._has_left:
            self._numbers[self._place] = own
        return own

    def leave(self) -> None:
        """It serves no more."""
        self._has_left = True
        self._numbers[self._place] = ABSENT

    def is_ahead(self, slack: int) -> bool:
        """Has somebody else clearly less?"""
        if self._has_left or self._place >= self.places:  # it is to go: what it still accepts nobody else will
            return False
        own = self.weigh()
        others = self._numbers[: self.places].tolist()
        others[self._place] = ABSENT
        least = min(others)
        return least != ABSENT and own > least + (least >> 3) + slack

    def close(self) -> None:
        """It is not looked at any more."""
        self._numbers.release()
        self._map.close()
