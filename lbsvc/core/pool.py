"""A pool: its members, who of them may be picked now, and the picker that says who is next.

Promises: `pick` gives a lease on an available backend that has room, or None where there is none, at once where nobody has
(core/places.py); who serves before whom is said in core/tiers.py. Nobody holds more leases than its `limit`.
Called by the roads (`pick`, `take`), by whoever changes a member's health, weight or state (`refresh`, afterwards) and by
the app (`set_members`). `on_empty` and `on_available` are told of transitions only; a new pool counts as available until
its first members say otherwise. invariant: the sum of `active` over backends is the number of open leases.

Whoever leaves is in `departures` while it has leases; `everyone` are members and those. A reload changes what there is: the
algorithm by `use`, slow start by `set_ramp`, the rest by assignment and a `refresh`.

What a pool may have beside, each None or empty by default: a `guard` (breakers, ejections), a `queue` for who finds every
backend at its limit, a `ramp` (slow start), a `panic` threshold. Clock and timers are the app's: `seconds`, `later`.

Costs (Python 3.11 on two shared cores; tests/bench/pick_cost.py): round_robin with ten equal
backends 0.6 µs a pick and release, the same with 1000; with limits, of which most are reached, 2 to 4 µs by most algorithms;
an arrival that finds all of them full 0.4 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from lbsvc.core import adaptive, chance, choices, hashed, loads, rotation  # noqa: F401 - they register their pickers
from lbsvc.core.backend import Backend
from lbsvc.core.homes import Homes
from lbsvc.core.lease import Lease
from lbsvc.core.leaving import Departures
from lbsvc.core.pickers import PICKERS, Picker, no_clock
from lbsvc.core.places import Places
from lbsvc.core.policies import RetryPolicy
from lbsvc.core.queueing import Queue
from lbsvc.core.ramping import Ramp, effective_weights
from lbsvc.core.retry import RetryBudget
from lbsvc.core.tiers import LAST_RESORT, TIERS, Tier, panics, tier_of

if TYPE_CHECKING:
    from random import Random

    from lbsvc.core.guarding import Guard

__all__ = ["TIERS", "Lease", "Pool", "tier_of"]


class Pool:
    """Backends under one name, balanced by one algorithm."""

    # More attributes than instances share the keys of (30 in Python 3.11): without slots each pick would be dearer.
    __slots__ = (
        "_absent",
        "_first",
        "_has_step",
        "_is_serving",
        "_places",
        "_rng",
        "_serves_again",
        "_serving",
        "_tiers",
        "_was_available",
        "algorithm",
        "backends",
        "budget",
        "budget_exhausted",
        "departures",
        "full",
        "guard",
        "homes",
        "is_retired",
        "later",
        "name",
        "on_acquired",
        "on_available",
        "on_empty",
        "on_finished",
        "on_members",
        "on_released",
        "on_suspect",
        "panic",
        "queue",
        "ramp",
        "retries",
        "seconds",
        "waiting_elsewhere",
        "wants_key",
    )

    def __init__(
        self,
        name: str,
        algorithm: str,
        rng: Random,
        on_empty: Callable[[Pool], object] | None = None,
        on_available: Callable[[Pool], object] | None = None,
        *,
        seconds: Callable[[], float] = no_clock,
        later: Callable[[float, Callable[[], object]], object] | None = None,
    ) -> None:
        self.name = name
        self.algorithm = algorithm
        self._rng = rng
        self.backends: tuple[Backend, ...] = ()
        self.on_empty = on_empty
        self.on_available = on_available
        self.seconds = seconds
        self.later = later
        #: told of a member that could not be reached; shall call `trust` after a while
        self.on_suspect: Callable[[Backend], object] | None = None
        self.retries = 0
        self.budget_exhausted = 0
        self.budget = RetryBudget(RetryPolicy.budget)
        self.guard: Guard[Any] | None = None
        self.queue = Queue(0)
        self.waiting_elsewhere = 0  # in the queues that other processes have for it
        self.ramp: Ramp | None = None
        self.panic = 0.0
        #: it is removed: it works on for who has chosen it, and is shown as draining (retiring.py)
        self.is_retired = False
        #: The hooks of pickers that want to know of leases taken and released, and of how they ended.
        self.on_acquired: tuple[Callable[[Backend], None], ...] = ()
        self.on_released: tuple[Callable[[Backend], None], ...] = ()
        self.on_finished: tuple[Callable[[Backend, float, bool, float], None], ...] = ()
        #: told of all members whenever they change
        self.on_members: list[Callable[[Sequence[Backend]], None]] = []
        self._places = Places()
        #: those at their limit
        self.full = self._places.full
        #: where new clients begin who will stick to a backend; None: where the algorithm says
        self.homes: Homes | None = None
        self.departures = Departures(later, self._bind_hooks)
        self._tiers = self.tiers_by(algorithm)
        self.wants_key = self._tiers[0].picker.wants_key
        self._serving: list[Picker] = []  # the pickers of the tiers that are not empty, best first
        self._first: Callable[[Collection[Backend]], Backend | None] = nobody
        self._was_available = True
        self._is_serving = False  # the queue, just now
        self._serves_again = False
        self._absent: set[Backend] = set()  # those that have been away: who comes back starts slowly
        self._has_step = False  # the next step of a slow start is due

    def tiers_by(self, algorithm: str) -> list[Tier]:
        """Empty tiers that go by an algorithm, for `use`."""
        tiers = [Tier(PICKERS[algorithm](self._rng)) for _ in range(TIERS)]
        for tier in tiers:
            tier.picker.seconds = self.seconds
        return tiers

    def use(self, algorithm: str, tiers: list[Tier]) -> None:
        """From now on this one says who is next; leases that are open are counted by it too."""
        self.algorithm = algorithm
        self._tiers = tiers
        self.wants_key = tiers[0].picker.wants_key
        self.refresh()

    def set_ramp(self, seconds: float | None) -> None:
        """How long a slow start lasts; None: there is none. Whoever is here when it is turned on has its whole weight."""
        if (self.ramp.duration if self.ramp is not None else None) == seconds:
            return
        if self.ramp is None:
            self._absent.clear()
        self.ramp = Ramp(seconds) if seconds else None
        if self.ramp is None:
            for backend in self.backends:
                backend.ramped_from = None

    @property
    def leaving(self) -> list[Backend]:
        """Those that are members no more, and have leases left."""
        return self.departures.backends

    @property
    def everyone(self) -> tuple[Backend, ...]:
        """The members, and behind them those that are leaving."""
        return (*self.backends, *self.departures.backends)

    @property
    def queued(self) -> int:
        """How many wait for a place, in this process and in others."""
        return len(self.queue) + self.waiting_elsewhere

    @property
    def picker(self) -> Picker:
        """The picker that serves now (of an empty pool: of the first tier)."""
        return self._serving[0] if self._serving else self._tiers[0].picker

    @property
    def is_available(self) -> bool:
        """Is there anybody who serves, with room or without?"""
        return bool(self._serving)

    def settle_by_hash(self, is_on: bool) -> None:
        """Whether new clients that will stick to a backend begin where their address says, alike in several processes."""
        self.homes = Homes(self._places) if is_on else None

    @property
    def has_room(self) -> bool:
        """Is there anybody for who comes now?"""
        return self._places.has_room

    @property
    def is_busy(self) -> bool:
        """Is somebody who serves, and is not on trial, at its limit just now? Then it is worth waiting."""
        return self._places.is_busy

    @property
    def has_spare_room(self) -> bool:
        """Is there room that nobody who waits can use? All of them have been asked (`serve_queue`)."""
        return not self._is_serving and self.has_room

    def set_members(self, backends: Sequence[Backend]) -> None:
        """These are the members now. Whoever was one before goes on as the same live object, leases and all."""
        gone = set(self.backends).difference(backends)
        if any(backend.host for backend in self.backends):  # else it is the start
            self._absent.update(backend for backend in backends if backend not in self.backends)
        self._absent -= gone
        self.backends = tuple(backends)
        if self.guard is not None:
            self.guard.members(self.backends)
        for tell in self.on_members:
            tell(self.backends)
        self.refresh()
        for tier in self._tiers:  # after the refresh, which has dealt with the tiers that still have somebody
            tier.forget(gone)
        self._bind_hooks()

    def refresh(self) -> None:
        """Health, weight, state, circuit or limit of a member has changed: sort the members anew, report a transition."""
        members: list[list[Backend]] = [[] for _ in range(TIERS)]
        is_panic = panics(self.backends, self.panic)
        for backend in self.backends:
            tier = tier_of(backend, is_panic)
            if tier is not None:
                members[tier].append(backend)
            if self.ramp is not None:
                self._note_absence(backend, tier)
        for each, found in zip(self._tiers, members, strict=True):
            each.update(list(zip(found, self._weights(found), strict=True)))
        # The last resort is for when there is nobody else, and not for when the others are busy or have been tried.
        serving = [number for number, found in enumerate(members) if found]
        serving = [number for number in serving if number < LAST_RESORT] or serving
        self._serving = [self._tiers[number].picker for number in serving]
        self._first = self._serving[0].pick if self._serving else nobody
        self._places.sort(self.backends, [members[number] for number in serving], self._serving)
        self._bind_hooks()
        self._report()
        if len(self.queue):
            self.serve_queue()  # where nobody is left those who wait are told so

    def _note_absence(self, backend: Backend, tier: int | None) -> None:
        """Slow start: who was away and is back begins with little."""
        if tier is None or tier >= LAST_RESORT:
            if backend.health != "unknown" or backend.state == "maint" or backend.is_ejected:
                self._absent.add(backend)
                backend.ramped_from = None
        elif backend in self._absent and tier < 2:
            self._absent.discard(backend)
            backend.ramped_from = self.seconds()

    def _weights(self, members: Sequence[Backend]) -> list[int]:
        """The weights that pickers see."""
        ramp = self.ramp
        if ramp is None or all(backend.ramped_from is None for backend in members):
            return [backend.weight for backend in members]
        now = self.seconds()
        for backend in members:
            if backend.ramped_from is not None and ramp.is_over(backend.ramped_from, now):
                backend.ramped_from = None
        if (
            any(backend.ramped_from is not None for backend in members)
            and not self._has_step
            and self.later is not None
        ):
            self._has_step = True
            self.later(ramp.interval, self._step)
        return effective_weights((backend.weight, ramp.share(backend.ramped_from, now)) for backend in members)

    def _step(self) -> None:
        self._has_step = False
        self.refresh()

    def suspect(self, backend: Backend) -> None:
        """It could not be reached: others first, for a while."""
        if not backend.is_suspect and not backend.is_leaving and self.on_suspect is not None:
            backend.is_suspect = True
            self.refresh()
            self.on_suspect(backend)

    def trust(self, backend: Backend) -> None:
        """The while is over."""
        backend.is_suspect = False
        self.refresh()

    def _bind_hooks(self) -> None:
        """Every tier that has members is told; an empty one (all were unchecked once) would cost as much again."""
        told = [each.picker for each in self._tiers if each.has_members]
        self.on_acquired = tuple(picker.acquired for picker in told if picker.wants_hooks)
        self.on_released = tuple(picker.released for picker in told if picker.wants_hooks)
        if self.departures.backends:
            self.on_released = (*self.on_released, self.departures.released)
        self.on_finished = tuple(picker.finished for picker in told if picker.wants_results)

    def _report(self) -> None:
        available = bool(self._serving)
        if available != self._was_available:
            self._was_available = available
            tell = self.on_available if available else self.on_empty
            if tell is not None:
                tell(self)

    def pick(self, exclude: Collection[Backend] = (), key: int | None = None) -> Lease | None:
        """A lease on the next backend that is not excluded and has room; None where nobody is left.

        `key` is for pickers that want one (`wants_key`): like goes to like.
        """
        # Hot path (tests/bench/pick_cost.py): two calls deep.
        if self.full:
            backend = self._places.pick(exclude, key)
        else:
            backend = self._first(exclude) if key is None else self._pick_by(key, exclude)
            if backend is None:
                backend = self._places.pick(exclude, key, 1)
        if backend is None:
            return None
        backend.active += 1
        if backend.active >= backend.limit:
            self._places.fill(backend)
        if self.on_acquired:
            for tell in self.on_acquired:
                tell(backend)
        return Lease(backend, self)

    def _pick_by(self, key: int, exclude: Collection[Backend]) -> Backend | None:
        return self._serving[0].pick_by(key, exclude) if self._serving else None

    def can_serve(self, backend: Backend) -> bool:
        """Whether a client that sticks to this one may go to it. Draining and a weight of nothing are for new clients."""
        return (
            backend.state != "maint"
            and not backend.is_leaving
            and backend.host != ""
            and backend.health not in ("down", "flapping")
            # Who is not known to be up takes nothing where others are; who drains has been, and keeps its clients.
            and (
                backend.health != "unknown"
                or backend.state == "drain"
                or not self._serving
                or self._places.is_best(backend)
            )
            and not backend.is_ejected
            and not backend.is_suspect
            and backend.circuit != "open"
        )

    def take(self, backend: Backend) -> Lease | None:
        """A lease on this very one, for a client that sticks to it; None where it may not serve, or is at its limit."""
        if backend.active >= backend.limit or not self.can_serve(backend):
            return None
        backend.active += 1
        if backend.active >= backend.limit:
            self._places.fill(backend)
        for tell in self.on_acquired:
            tell(backend)
        return Lease(backend, self)

    def made_room(self, backend: Backend) -> None:
        """A lease was given back while somebody was at its limit."""
        if backend.active < backend.limit:
            self._places.free(backend)
            if len(self.queue):
                # also where it is no member of the tier that serves: somebody may belong there
                self._serves_again = True
                self.serve_queue()

    def serve_queue(self) -> None:
        """Places may have become free, or everybody may have gone: whoever waits may try, while there is room.

        A waiter's try may lead here again, by what it makes free: the one loop goes on then, so that nobody is forgotten.
        """
        if self._is_serving:
            self._serves_again = True
            return
        self._is_serving = True
        try:
            while len(self.queue) and (self._serves_again or self.has_room or not self.is_busy):
                self._serves_again = False
                if not self.queue.next() and not self._serves_again:
                    break
        finally:
            self._is_serving = False

    def __repr__(self) -> str:
        up = sum(backend.health == "up" for backend in self.backends)
        active = sum(backend.active for backend in self.backends)
        return f"<Pool {self.name} {up}/{len(self.backends)} up, {active} in flight>"


def nobody(exclude: Collection[Backend]) -> Backend | None:
    """The pick of an empty pool."""
    return None
