"""What people have changed at run time, as frozen values: they are laid over the file's settings by overlay.py.

Promises: each change knows what the file said of the same thing when it was made (its `base`), for that alone decides
whether a later file takes it back. Everything is in a normal form, so that what was set twice or in another order compares
as equal: `removed`, `weights`, `states` and `health` are sorted by name, pools too, and one without a change is not there;
`added` keeps the order in which it came. Used by overlay.py, changing.py, health_changes.py and overrides_json.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lbsvc.config.schema import BackendSettings
from lbsvc.errors import LbsvcError

STATES: Final = ("ready", "drain", "maint")
HEAVIEST: Final = 65535


class Unknown(LbsvcError):
    """There is no such pool or backend (404)."""


class Exists(LbsvcError):
    """A backend of this name or address is there already (409)."""


class Wrong(LbsvcError):
    """A value that cannot be had; the message says which, and what would do (422)."""


@dataclass(frozen=True)
class PoolOverrides:
    """What was changed about one pool."""

    added: tuple[BackendSettings, ...] = ()  # all of source "runtime"; weights that were set later are in them
    removed: tuple[BackendSettings, ...] = ()  # entries of the file, as the file last applied has them
    #: backend (or member "entry@address"), the entry's weight in the file (None: it is in none), and what was set
    weights: tuple[tuple[str, int | None, int], ...] = ()
    states: tuple[tuple[str, str], ...] = ()  # backend or member, and what was set; the file says nothing of it
    #: field of HealthCheckPolicy, its value in the file, and what was set; or "off", True, False: see health_changes.py
    health: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.weights or self.states or self.health)


@dataclass(frozen=True)
class Overrides:
    """What was changed, by pool."""

    pools: tuple[tuple[str, PoolOverrides], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.pools

    def of(self, pool: str) -> PoolOverrides:
        return dict(self.pools).get(pool, PoolOverrides())

    def having(self, pool: str, changes: PoolOverrides) -> Overrides:
        """The same with these changes in place of the pool's."""
        return overrides({**dict(self.pools), pool: changes})


def overrides(pools: Mapping[str, PoolOverrides]) -> Overrides:
    """The changes of pools in their normal form."""
    return Overrides(tuple((name, changes) for name, changes in sorted(pools.items()) if not changes.is_empty))


def is_address(text: str) -> bool:
    """Whether this is an IP address as members are named by it: in its shortest form."""
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


def has_members(entry: BackendSettings) -> bool:
    """Whether the entry has a host name, which stands for a member for each of its addresses."""
    if entry.host.startswith("/"):
        return False
    try:
        ipaddress.ip_address(entry.host)
    except ValueError:
        return True
    return False


def owner(name: str, entries: Mapping[str, BackendSettings]) -> BackendSettings | None:
    """The entry that a name is about: its own, or that of the host name that "entry@address" is a member of."""
    found = entries.get(name)
    if found is not None:
        return found
    entry, at, address = name.rpartition("@")
    found = entries.get(entry) if at else None
    return found if found is not None and has_members(found) and is_address(address) else None


class Taken:
    """The names and addresses of some entries, to which others come. What is compared is what must be unique in a pool."""

    def __init__(self, entries: Iterable[BackendSettings]) -> None:
        self._names: dict[str, BackendSettings] = {}
        self._places: dict[tuple[str, int], BackendSettings] = {}
        self._before_at: dict[str, list[BackendSettings]] = {}
        for entry in entries:
            self.take(entry)

    def take(self, entry: BackendSettings) -> None:
        self._names[entry.name] = entry
        self._places[entry.host, entry.port] = entry
        before, at, _ = entry.name.rpartition("@")
        if at:
            self._before_at.setdefault(before, []).append(entry)

    def clash(self, entry: BackendSettings) -> str:
        """Why an entry cannot come to these ("the name …", "the address …"), or ""."""
        if owner(entry.name, self._names) is not None:
            return f"the name {entry.name}"
        there = self._places.get((entry.host, entry.port))
        if there is not None:
            return f"the address {entry.address}" + (f" (as {there.name})" if there.name != there.address else "")
        for there in self._before_at.get(entry.name, ()):
            if owner(there.name, {entry.name: entry}) is not None:
                return f"the name {there.name}, which a member of {entry.name} might have,"
        return ""
