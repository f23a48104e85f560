"""What should be in force after files and run-time changes: a model that shares nothing with the program but contract.md.

Promises: plain values and loops, no look at lbsvc. It keeps what each backend is now, and what the file last applied said of
it, and goes from there (the program keeps a list of changes and lays it over the file: two ways to the same). Used by
test_replay.py. Where the contract is silent, it says what the docstring of config/overlay.py promises.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A backend as it is written down."""

    name: str
    address: str
    weight: int = 1
    backup: bool = False

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def keys(self) -> dict[str, Any]:
        return {"name": self.name, "address": self.address, "weight": self.weight, "backup": self.backup}


@dataclass(frozen=True)
class FilePool:
    """A pool as a file has it; no check: off."""

    entries: tuple[Entry, ...]
    check: tuple[tuple[str, Any], ...] | None = None
    algorithm: str = "round_robin"


@dataclass(frozen=True)
class File:
    """What the files of the replay differ in."""

    pools: tuple[tuple[str, FilePool], ...] = ()
    word: str = "first"  # what a route answers
    has_side: bool = False  # a second listener

    def pool(self, name: str) -> FilePool | None:
        return dict(self.pools).get(name)

    def having(self, name: str, pool: FilePool | None) -> File:
        """Another file, with another pool of this name, or without."""
        pools = {**dict(self.pools), name: pool}
        return replace(self, pools=tuple((each, found) for each, found in sorted(pools.items()) if found is not None))


@dataclass(frozen=True)
class Shown:
    """A backend in force."""

    name: str
    address: str
    weight: int
    backup: bool
    state: str
    source: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


class Missing(Exception):
    """404."""


class Clash(Exception):
    """409."""


@dataclass
class PoolInForce:
    """One pool: what the file says, and what people made of it."""

    written: FilePool
    weights: dict[str, int] = field(default_factory=dict)  # of entries of the file, where they are other ones
    states: dict[str, str] = field(default_factory=dict)
    added: list[Entry] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)  # names of the file
    check: dict[str, Any] = field(default_factory=dict)

    @property
    def checked(self) -> dict[str, Any] | None:
        """The health check in force."""
        return None if self.written.check is None else {**dict(self.written.check), **self.check}

    @property
    def backends(self) -> list[Shown]:
        found = []
        for entry in self.written.entries:
            if entry.name not in self.removed:
                weight = self.weights.get(entry.name, entry.weight)
                found.append(self._shown(replace(entry, weight=weight), weight != entry.weight))
        return [*found, *(self._shown(entry, True) for entry in self.added)]

    def _shown(self, entry: Entry, is_changed: bool) -> Shown:
        state = self.states.get(entry.name, "ready")
        source = "runtime" if is_changed or state != "ready" else "config"
        return Shown(entry.name, entry.address, entry.weight, entry.backup, state, source)

    def named(self, name: str) -> Shown:
        for each in self.backends:
            if each.name == name:
                return each
        raise Missing(name)

    # -- what people do

    def add(self, entry: Entry) -> None:
        if any(each.name == entry.name or each.port == entry.port for each in self.backends):
            raise Clash(entry.name)
        if entry in self.written.entries:
            self.removed.remove(entry.name)
        else:
            self.added.append(entry)

    def remove(self, name: str) -> None:
        self.named(name)
        if any(each.name == name for each in self.added):
            self.added = [each for each in self.added if each.name != name]
        else:
            self.removed.add(name)
        self.weights.pop(name, None)
        self.states.pop(name, None)

    def change(self, name: str, weight: int | None, state: str | None) -> None:
        self.named(name)
        if weight is not None:
            if any(each.name == name for each in self.added):
                self.added = [replace(each, weight=weight) if each.name == name else each for each in self.added]
                self._settle()
            else:
                self.weights[name] = weight
        if state is not None:
            self.states[name] = state

    def change_check(self, fields: dict[str, Any]) -> None:
        self.check.update(fields)

    def _settle(self) -> None:
        """What was added in place of a removed one, and has become the same as in the file, is the file's again."""
        for entry in tuple(self.added):
            if entry.name in self.removed and entry in self.written.entries:
                self.added.remove(entry)
                self.removed.discard(entry.name)

    # -- what files do

    def read(self, new: FilePool) -> None:
        """Another file has come, with this pool."""
        old = {entry.name: entry for entry in self.written.entries}
        known = {each.name for each in self.backends}
        self._read_check(new)
        self.written = new
        entries = {entry.name: entry for entry in new.entries}
        self.removed = {name for name in self.removed if name in entries and entries[name].address == old[name].address}
        for name in self.removed:
            for key in ("weight", "backup"):
                value = getattr(entries[name], key)
                if getattr(old[name], key) != value:
                    self.added = [replace(each, **{key: value}) if each.name == name else each for each in self.added]
        self._settle()
        standing = [entry for entry in new.entries if entry.name not in self.removed]
        taken = {entry.name for entry in standing} | {entry.port for entry in standing}
        self.added = [each for each in self.added if each.name not in taken and each.port not in taken]
        self.weights = {
            name: weight
            for name, weight in self.weights.items()
            if name in entries and name in old and entries[name].weight == old[name].weight
        }
        there = {each.name for each in self.backends}
        self.states = {name: state for name, state in self.states.items() if name in there and name in known}

    def _read_check(self, new: FilePool) -> None:
        if new.check is None or self.written.check is None:
            self.check = {}
            return
        before, after = dict(self.written.check), dict(new.check)
        self.check = {key: value for key, value in self.check.items() if before[key] == after[key]}


class InForce:
    """Everything."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.pools = {name: PoolInForce(pool) for name, pool in file.pools}
        self.generation = 1

    def read(self, file: File) -> None:
        """A file has been applied."""
        pools = {}
        for name, pool in file.pools:
            if name in self.pools:
                self.pools[name].read(pool)
                pools[name] = self.pools[name]
            else:
                pools[name] = PoolInForce(pool)
        self.file, self.pools = file, pools
        self.generation += 1

    def pool(self, name: str) -> PoolInForce:
        found = self.pools.get(name)
        if found is None:
            raise Missing(name)
        return found
