"""Who is next: the seam that every balancing algorithm fills, and the register of them.

Promises: `PICKERS` maps each canonical name (core/algorithms.py) to a class; a class registered here passes
tests/contracts/test_pickers.py. A picker is told its members by `update` (rare: membership, weight or health changed) and
asked by `pick` (each request): it chooses only among them, never one of `exclude`, in O(1) or O(log n) as long as nothing
is excluded. Weights are `backend.effective`, whole and above 0: pool.py, the only caller, sees to that. An update does not
begin anew: what was owed before is owed after.

A new algorithm is one class that inherits from `Picker`, writes `__init__`, `update` and `pick`, and is registered. What
else it wants of the pool it says by three flags, all off by default:

- `wants_hooks`: it counts what is in flight; `acquired` and `released` are told of every lease taken and released, after
  `backend.active` has changed, also for backends that are not members. While it has no members itself it is told nothing
  (nor of results); an `update` comes before it is asked again, and says who there is, not what has changed.
- `wants_key`: like goes to like; `pick_by` is asked instead of `pick` for each request that has a key, a whole number of
  64 bits made by hashing.key_hash of a client's address, say. `pick` is for requests without one.
- `wants_results`: it learns; `finished` is told how long each use took and whether it failed.

`pick`, `pick_by` and the hooks may be attributes that `update` sets: whoever keeps them asks again after an update.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeVar

from lbsvc.core.backend import Backend

if TYPE_CHECKING:
    from random import Random


def no_clock() -> float:
    """The time of a picker whose pool has not given it a clock: any wait is over."""
    return inf


class Picker(Protocol):
    """The algorithm of one tier of one pool."""

    wants_hooks: ClassVar[bool] = False
    wants_key: ClassVar[bool] = False
    wants_results: ClassVar[bool] = False

    #: The monotonic clock, in seconds; the pool sets it before the first update.
    seconds: Callable[[], float] = staticmethod(no_clock)

    def __init__(self, rng: Random) -> None: ...

    def update(self, backends: Sequence[Backend]) -> None:
        """These are the members now, with the weights (`effective`) that they have now."""

    def pick(self, exclude: Collection[Backend], /) -> Backend | None:
        """The next one; None where all members are excluded, or there are none."""

    def pick_by(self, key: int, exclude: Collection[Backend], /) -> Backend | None:
        """The one for this key, and where that is excluded the key's next choice."""
        return self.pick(exclude)

    def pick_among(self, few: Sequence[Backend], key: int | None, /) -> Backend | None:
        """One of these members, where nearly all others have no room: two at least, the longest idle place first.

        `key` as for `pick_by`, or None. None: it knows no shorter way than to be told whom to pass over.
        """
        return None

    def acquired(self, backend: Backend, /) -> None:
        """`backend.active` has grown by one."""
        return

    def released(self, backend: Backend, /) -> None:
        """`backend.active` has shrunk by one."""
        return

    def finished(self, backend: Backend, seconds: float, failed: bool, now: float, /) -> None:
        """A use of it has ended at `now`, after so many seconds."""
        return


#: Canonical name -> class.
PICKERS: Final[dict[str, type[Picker]]] = {}

P = TypeVar("P", bound=type[Picker])


def register(name: str) -> Callable[[P], P]:
    """Class decorator: make a picker known under its canonical name."""

    def add(picker: P) -> P:
        PICKERS[name] = picker
        return picker

    return add
