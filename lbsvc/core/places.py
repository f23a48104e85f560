"""Where there is room among those who serve, and who of them is at its limit: the pool's books for picks in crowded times.

Promises: whether there is room, and whether it is worth waiting for, costs the same whatever the number of members, and so
does a pick where nobody has room or one alone; others cost what `pick` says, as far as the picker keeps to it (hashed.py
and loads.py say where they do not). `sort` alone walks through all of them, which the pool does when it sorts them anew.
While nobody is at its limit nothing is written here. Told of whoever comes to its limit (`fill`) and leaves it (`free`); a
limit, a tier or a circuit that changes otherwise means `sort`, before the next question. Owned by core/pool.py. Pure.

invariants: `full` are the members at their limit; `rooms` has, for each tier that serves, the others of it, those who came
to have room last at the end; a backend of `_awaited` is full, and its circuit is closed (who is on trial is worth no wait).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from lbsvc.core.backend import Backend
from lbsvc.core.pickers import Picker

#: Up to so many members a picker is told whom to pass over, however many those are: its own order is exact.
MANY: Final = 64


class Places:
    """Full ones, and rooms by tier."""

    __slots__ = ("_awaited", "_awaited_below", "_pickers", "_size", "_tiers", "full", "rooms")

    def __init__(self) -> None:
        #: always the same set: leases look at it
        self.full: Final[set[Backend]] = set()
        #: dicts, for the order: a set's is not the same in each process
        self.rooms: list[dict[Backend, None]] = []
        self._size = 0
        self._pickers: Sequence[Picker] = ()
        self._tiers: dict[Backend, int] = {}  # of those who serve: which room is theirs
        self._awaited: set[Backend] = set()  # of the first tier
        self._awaited_below: set[Backend] = set()

    def sort(self, members: Sequence[Backend], tiers: Sequence[Sequence[Backend]], pickers: Sequence[Picker]) -> None:
        """These are the members, and of them those who serve, the best first, each tier with its picker."""
        self._size = len(members)
        self._pickers = pickers
        self.full.clear()
        self.full.update([backend for backend in members if backend.active >= backend.limit])
        self._tiers = {backend: number for number, found in enumerate(tiers) for backend in found}
        self.rooms = [dict.fromkeys(found) for found in tiers]
        self._awaited.clear()
        self._awaited_below.clear()
        for backend in self.full:
            self._take_room(backend)

    def fill(self, backend: Backend) -> None:
        """It is at its limit."""
        self.full.add(backend)
        self._take_room(backend)

    def _take_room(self, backend: Backend) -> None:
        tier = self._tiers.get(backend)
        if tier is not None:
            self.rooms[tier].pop(backend, None)
            if backend.circuit == "closed":
                (self._awaited_below if tier else self._awaited).add(backend)

    def free(self, backend: Backend) -> None:
        """It is below its limit, perhaps it has been all the time."""
        if backend in self.full:
            self.full.discard(backend)
            self._awaited.discard(backend)
            self._awaited_below.discard(backend)
            tier = self._tiers.get(backend)
            if tier is not None:
                self.rooms[tier][backend] = None

    def is_best(self, backend: Backend) -> bool:
        """Is it of the tier that serves first?"""
        return self._tiers.get(backend) == 0

    @property
    def best(self) -> list[Backend]:
        """Those of the tier that serves first, with room or without. Walks through all who serve."""
        return [backend for backend, tier in self._tiers.items() if tier == 0]

    @property
    def has_room(self) -> bool:
        """Is there anybody for who comes now? The others serve only where nobody of the first tier is merely busy."""
        rooms = self.rooms
        return bool(rooms) and (bool(rooms[0]) or (not self._awaited and any(rooms[1:])))

    @property
    def is_busy(self) -> bool:
        """Is somebody who serves, and is not on trial, at its limit?"""
        return bool(self._awaited or self._awaited_below)

    def pick(self, tried: Collection[Backend], key: int | None, first: int = 0) -> Backend | None:
        """The next one of a tier after the other, from `first` on, beside these.

        Not of the second, where somebody of the first is only busy: backups are for when nobody else is available, and who
        has no room is (there is the queue), but for who is on trial (half-open).
        """
        for number in range(first, len(self.rooms)):
            if number == 1 and self._is_awaited(tried):
                return None
            room = self.rooms[number]
            if room:
                backend = self._pick_in(room, self._pickers[number], tried, key)
                if backend is not None:
                    return backend
        return None

    def _is_awaited(self, tried: Collection[Backend]) -> bool:
        """Is there somebody of the first tier, beside these, who is only busy?"""
        awaited = self._awaited
        return len(awaited) > len(tried) or any(backend not in tried for backend in awaited)

    def _pick_in(
        self, room: dict[Backend, None], picker: Picker, tried: Collection[Backend], key: int | None
    ) -> Backend | None:
        """One alone is taken, few are chosen from, and among many the picker finds one soon.

        So a pick takes no more than about as many looks as the square root of the number of members.
        """
        few = len(room)
        if few == 1 or (few * few <= self._size and self._size > MANY):
            found = [backend for backend in room if backend not in tried] if tried else list(room)
            if len(found) < 2:
                return found[0] if found else None
            backend = picker.pick_among(found, key)
            if backend is not None:
                return backend
        unwanted = _Either(self.full, tried) if tried else self.full
        return picker.pick(unwanted) if key is None else picker.pick_by(key, unwanted)

    def __repr__(self) -> str:
        return f"<Places: {len(self.full)} full, room at {[len(room) for room in self.rooms]}>"


class _Either(Collection[Backend]):
    """Both of two, without a copy of the greater."""

    __slots__ = ("_full", "_tried")

    def __init__(self, full: set[Backend], tried: Collection[Backend]) -> None:
        self._full = full
        self._tried = [backend for backend in tried if backend not in full]

    def __contains__(self, backend: object) -> bool:
        return backend in self._full or backend in self._tried

    def __iter__(self) -> Iterator[Backend]:
        yield from self._full
        yield from self._tried

    def __len__(self) -> int:
        return len(self._full) + len(self._tried)
