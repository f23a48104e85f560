"""Who is next: the seam that every balancing algorithm fills, and the register of them.

Promises: `PICKERS` maps each canonical name (core/algorithms.py) to a class; a class registered here passes
tests/contracts/test_pickers.py. A picker is told its members by `update` (rare: membership, weight or health changed) and
asked by `pick` (each request): it chooses only among them, never one of `exclude`, in O(1) or O(log n) as long as nothing
is excluded. Its members all have weight > 0: pool.py, the only caller, sees to that. An update does not begin anew: what
was owed before is owed after.

Pickers that count what is in flight set `wants_hooks`; the pool then tells them of every lease taken and released, after
`backend.active` has changed, also for backends that are not members. `pick` and the hooks may be attributes that `update`
sets: whoever keeps them asks again after an update.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeVar

from lbsvc.core.backend import Backend

if TYPE_CHECKING:
    from random import Random


class Picker(Protocol):
    """The algorithm of one tier of one pool."""

    wants_hooks: ClassVar[bool]

    def __init__(self, rng: Random) -> None: ...

    def update(self, backends: Sequence[Backend]) -> None:
        """These are the members now, with the weights that they have now."""

    def pick(self, exclude: Collection[Backend], /) -> Backend | None:
        """The next one; None where all members are excluded, or there are none."""

    def acquired(self, backend: Backend, /) -> None:
        """`backend.active` has grown by one."""

    def released(self, backend: Backend, /) -> None:
        """`backend.active` has shrunk by one."""


class Unhooked:
    """For pickers to which it is all the same what is in flight."""

    wants_hooks: ClassVar[bool] = False

    def acquired(self, backend: Backend, /) -> None:
        """Nothing to note."""

    def released(self, backend: Backend, /) -> None:
        """Nothing to note."""


#: Canonical name -> class.
PICKERS: Final[dict[str, type[Picker]]] = {}

P = TypeVar("P", bound=type[Picker])


def register(name: str) -> Callable[[P], P]:
    """Class decorator: make a picker known under its canonical name."""

    def add(picker: P) -> P:
        PICKERS[name] = picker
        return picker

    return add
