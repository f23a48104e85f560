"""A pool: its members, who of them may be picked now, and the picker that says who is next.

Promises: `pick` gives a lease on an available backend, or None where there is none, at a cost that does not depend on
the number of members; only backends that people left `ready`, with weight > 0 and a known address, take part. The first
of these tiers with somebody in it serves: up, up backups, not yet checked, not yet checked backups, and last those that are
down but have passed their last check, so that a pool that was empty comes back with the first check that passes and not
with the `rise`th. Others that are down never serve. Each tier has a picker of its own, which keeps its turn over changes.

A member that could not be reached a moment ago counts as not yet checked until it is trusted again (`on_suspect`). Else
each of its turns would cost a retry until its checks have failed `fall` times, and the budget of retries, which knows no
reasons, would soon be spent (features.md, FO-1).

Called by the roads (`pick`), by whoever changes a member's health, weight or state (`refresh`, afterwards) and by the app
(`set_members`). `on_empty` and `on_available` are told of transitions only; a new pool counts as available until its
first members say otherwise. invariant: the sum of `active` over backends is the number of open leases.

Costs (Python 3.11 on two shared cores, medians of 40 interleaved repeats; tests/bench/pick_cost.py): round_robin with ten
equal backends 0.5 µs a pick, 0.5 µs a release of OK with code 200, both the same with 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from lbsvc.core import chance, loads, rotation  # noqa: F401 - they register their pickers
from lbsvc.core.backend import Backend
from lbsvc.core.lease import Lease
from lbsvc.core.pickers import PICKERS, Picker
from lbsvc.core.policies import RetryPolicy
from lbsvc.core.retry import RetryBudget

if TYPE_CHECKING:
    from random import Random

__all__ = ["Lease", "Pool"]

TIERS = 6


def tier_of(backend: Backend) -> int | None:
    """Which tier a backend serves in, 0 first; None: in none."""
    if not backend.is_eligible:
        return None
    if backend.health == "down":
        return 4 + backend.backup if backend.last_check is not None and backend.last_check[0] else None
    return (0 if backend.health == "up" and not backend.is_suspect else 2) + backend.backup


class Tier:
    """The members of one tier as its picker last heard of them."""

    __slots__ = ("known", "picker")

    def __init__(self, picker: Picker) -> None:
        self.picker = picker
        self.known: list[tuple[Backend, int]] = []

    def update(self, members: list[tuple[Backend, int]]) -> None:
        """Tell the picker, if anything has changed for it. A picker of an empty tier keeps its turn for later."""
        if members and members != self.known:
            self.picker.update([backend for backend, _ in members])
            self.known = members

    def forget(self, gone: set[Backend]) -> None:
        """Members that have left the pool for good are held by nobody here."""
        if any(backend in gone for backend, _ in self.known):
            self.known = [entry for entry in self.known if entry[0] not in gone]
            self.picker.update([backend for backend, _ in self.known if backend.weight > 0])


class Pool:
    """Backends under one name, balanced by one algorithm."""

    def __init__(
        self,
        name: str,
        algorithm: str,
        rng: Random,
        on_empty: Callable[[Pool], object] | None = None,
        on_available: Callable[[Pool], object] | None = None,
    ) -> None:
        self.name = name
        self.algorithm = algorithm
        self.backends: tuple[Backend, ...] = ()
        self.on_empty = on_empty
        self.on_available = on_available
        #: told of a member that could not be reached; shall call `trust` after a while
        self.on_suspect: Callable[[Backend], object] | None = None
        self.retries = 0
        self.budget_exhausted = 0
        self.budget = RetryBudget(RetryPolicy.budget)
        #: The hooks of pickers that want to know of leases taken and released.
        self.on_acquired: tuple[Callable[[Backend], None], ...] = ()
        self.on_released: tuple[Callable[[Backend], None], ...] = ()
        self._tiers = [Tier(PICKERS[algorithm](rng)) for _ in range(TIERS)]
        self._serving: list[Picker] = []  # the pickers of the tiers that are not empty, best first
        self._first: Callable[[Collection[Backend]], Backend | None] = nobody
        self._was_available = True

    @property
    def picker(self) -> Picker:
        """The picker that serves now (of an empty pool: of the first tier)."""
        return self._serving[0] if self._serving else self._tiers[0].picker

    @property
    def is_available(self) -> bool:
        """Would `pick` find somebody?"""
        return bool(self._serving)

    def set_members(self, backends: Sequence[Backend]) -> None:
        """These are the members now. Whoever was one before goes on as the same live object, leases and all."""
        gone = set(self.backends).difference(backends)
        self.backends = tuple(backends)
        self.refresh()
        for tier in self._tiers:  # after the refresh, which has dealt with the tiers that still have somebody
            tier.forget(gone)
        self._bind_hooks()

    def refresh(self) -> None:
        """Health, weight or state of a member has changed: sort the members anew, and report a transition."""
        members: list[list[tuple[Backend, int]]] = [[] for _ in range(TIERS)]
        for backend in self.backends:
            tier = tier_of(backend)
            if tier is not None:
                members[tier].append((backend, backend.weight))
        for each, found in zip(self._tiers, members, strict=True):
            each.update(found)
        self._serving = [each.picker for each, found in zip(self._tiers, members, strict=True) if found]
        self._first = self._serving[0].pick if self._serving else nobody
        self._bind_hooks()
        self._report()

    def suspect(self, backend: Backend) -> None:
        """It could not be reached: others first, for a while."""
        if not backend.is_suspect and self.on_suspect is not None:
            backend.is_suspect = True
            self.refresh()
            self.on_suspect(backend)

    def trust(self, backend: Backend) -> None:
        """The while is over."""
        backend.is_suspect = False
        self.refresh()

    def _bind_hooks(self) -> None:
        """Every tier that has had members is told, also one that is empty now: it may serve again as it was."""
        hooked = [each.picker for each in self._tiers if each.picker.wants_hooks and each.known]
        self.on_acquired = tuple(picker.acquired for picker in hooked)
        self.on_released = tuple(picker.released for picker in hooked)

    def _report(self) -> None:
        available = bool(self._serving)
        if available != self._was_available:
            self._was_available = available
            tell = self.on_available if available else self.on_empty
            if tell is not None:
                tell(self)

    def pick(self, exclude: Collection[Backend] = ()) -> Lease | None:
        """A lease on the next backend that is not excluded; None where nobody is left."""
        # Hot path (tests/bench/pick_cost.py): two calls deep.
        backend = self._first(exclude)
        if backend is None:
            backend = self._pick_below(exclude)
            if backend is None:
                return None
        backend.active += 1
        if self.on_acquired:
            for tell in self.on_acquired:
                tell(backend)
        return Lease(backend, self)

    def _pick_below(self, exclude: Collection[Backend]) -> Backend | None:
        """The serving tier is used up by exclusion: the others, in their order."""
        for picker in self._serving[1:]:
            backend = picker.pick(exclude)
            if backend is not None:
                return backend
        return None

    def __repr__(self) -> str:
        up = sum(backend.health == "up" for backend in self.backends)
        active = sum(backend.active for backend in self.backends)
        return f"<Pool {self.name} {up}/{len(self.backends)} up, {active} in flight>"


def nobody(exclude: Collection[Backend]) -> Backend | None:
    """The pick of an empty pool."""
    return None
