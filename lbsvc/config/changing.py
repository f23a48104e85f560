"""What people change at run time, a call for each kind: from what is in force and what was changed to what is then.

Promises: pure; raises Unknown, Exists or Wrong, whose message is for whoever asked, and else gives overrides that
overlay.apply brings into force. Setting what is so already changes nothing; setting a value to what the file says takes the
change back. Called by way of overlay.py.

What is set for an entry with a host name is set for all of its members ("entry@address"), and takes back what was set for
one of them: the last word counts. A member can be named before its address is known, and keeps what was set for it while the
address is away; MOST_MEMBERS bounds that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from lbsvc.config.health_changes import change_health
from lbsvc.config.joining import joined
from lbsvc.config.overrides import (
    HEAVIEST,
    STATES,
    Exists,
    Overrides,
    PoolOverrides,
    Taken,
    Unknown,
    Wrong,
    owner,
)
from lbsvc.config.schema import BackendSettings, PoolSettings, Settings
from lbsvc.config.values import words

#: So many members of one entry can have a weight or a state of their own.
MOST_MEMBERS: Final = 1000


def add(effective: Settings, overrides: Overrides, pool: str, entry: BackendSettings) -> Overrides:
    """A backend comes. `state` may say how it begins; what else no file says is not looked at."""
    there, found = _pool(effective, pool), overrides.of(pool)
    if entry.state not in STATES:
        raise Wrong(f"state: must be {words(STATES)}")
    state, entry = entry.state, replace(entry, source="runtime", state="ready", members=())
    entry = joined(effective, there, entry)
    clash = Taken(there.backends).clash(entry)
    if clash:
        raise Exists(f"pool {pool} has {clash} already")
    written = replace(entry, source="config")
    if written in found.removed:
        found = replace(found, removed=tuple(each for each in found.removed if each != written))
    else:
        found = replace(found, added=(*found.added, entry))
    if state != "ready":
        found = replace(found, states=_put(found.states, (entry.name, state)))
    return overrides.having(pool, found)


def remove(effective: Settings, overrides: Overrides, pool: str, name: str) -> Overrides:
    """A backend goes, and what was set for it."""
    there, found = _pool(effective, pool), overrides.of(pool)
    entry = _owner(there, name)
    if entry.name != name:
        what = f"{name} is an address of {entry.name}, and comes again"
        raise Wrong(f"{what}: remove {entry.name}, or set {name} to maint")
    added = tuple(each for each in found.added if each.name != name)
    removed = found.removed
    if added == found.added:
        was = _written_weight(found, entry)
        written = replace(entry, source="config", state="ready", members=())
        written = written if was is None else replace(written, weight=was)
        removed = tuple(sorted((*removed, written), key=lambda each: each.name))
    found = _without(there, replace(found, added=added, removed=removed), entry, "weights", "states")
    return overrides.having(pool, found)


def set_weight(effective: Settings, overrides: Overrides, pool: str, name: str, weight: int) -> Overrides:
    """A backend, or one member of a host name, gets another weight."""
    there, found = _pool(effective, pool), overrides.of(pool)
    if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= HEAVIEST:
        raise Wrong(f"weight: must be a whole number from 0 to {HEAVIEST}")
    entry = _owner(there, name)
    was = _written_weight(found, entry)
    if entry.name == name:
        found = _without(there, found, entry, "weights")
        if any(each.name == name for each in found.added):
            added = tuple(replace(each, weight=weight) if each.name == name else each for each in found.added)
            return overrides.having(pool, replace(found, added=added))
        if weight == was:
            return overrides.having(pool, found)
    else:
        _check_room(there, found, entry, name)
    others = tuple(each for each in found.weights if each[0] != name)
    if entry.name == name or weight != entry.weight:
        others = tuple(sorted((*others, (name, was, weight)), key=lambda change: change[0]))
    return overrides.having(pool, replace(found, weights=others))


def set_state(effective: Settings, overrides: Overrides, pool: str, name: str, state: str) -> Overrides:
    """A backend, or one member of a host name, is made ready, drain or maint."""
    there, found = _pool(effective, pool), overrides.of(pool)
    if state not in STATES:
        raise Wrong(f"state: must be {words(STATES)}")
    entry = _owner(there, name)
    if entry.name == name:
        found = _without(there, found, entry, "states")
        is_so = state == "ready"
    else:
        _check_room(there, found, entry, name)
        found = replace(found, states=tuple(each for each in found.states if each[0] != name))
        is_so = state == entry.state
    return overrides.having(pool, found if is_so else replace(found, states=_put(found.states, (name, state))))


def set_health(effective: Settings, overrides: Overrides, pool: str, fields: Mapping[str, Any]) -> Overrides:
    """Some fields of the pool's HealthCheckPolicy get other values; of checks that are off see health_changes.py."""
    there, found = _pool(effective, pool), overrides.of(pool)
    health = change_health(there.health_check, found.health, fields)
    return overrides.having(pool, replace(found, health=health))


def _pool(effective: Settings, pool: str) -> PoolSettings:
    found = effective.pools.get(pool)
    if found is None:
        raise Unknown(f"there is no pool {pool}")
    return found


def _owner(pool: PoolSettings, name: str) -> BackendSettings:
    found = owner(name, {entry.name: entry for entry in pool.backends})
    if found is None:
        raise Unknown(f"pool {pool.name} has no backend {name}")
    return found


def _written_weight(found: PoolOverrides, entry: BackendSettings) -> int | None:
    """The entry's weight in the file; None where it is in none."""
    for name, was, _ in found.weights:
        if name == entry.name:
            return was
    if any(each.name == entry.name for each in found.added):
        return next((each.weight for each in found.removed if each.name == entry.name), None)
    return entry.weight


def _put(changes: tuple[tuple[str, str], ...], change: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({**dict(changes), change[0]: change[1]}.items()))


def _without(pool: PoolSettings, found: PoolOverrides, entry: BackendSettings, *kinds: str) -> PoolOverrides:
    """Without what was set for an entry and for its members, of these kinds."""
    entries = {each.name: each for each in pool.backends}
    for kind in kinds:
        changes = getattr(found, kind)
        found = replace(found, **{kind: tuple(each for each in changes if owner(each[0], entries) is not entry)})
    return found


def _check_room(pool: PoolSettings, found: PoolOverrides, entry: BackendSettings, name: str) -> None:
    names = {each.name for each in entry.members}
    if name not in names and len(names) >= MOST_MEMBERS:
        raise Wrong(f"{entry.name} has {MOST_MEMBERS} members with a weight or state of their own: set {entry.name}")
