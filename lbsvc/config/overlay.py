"""The configuration in force: the file's settings, with what people changed at run time laid over them.

    effective, overrides = overlay.apply(file, overrides)

Promises: pure, deterministic and idempotent. A change outlives a file unless the file says something else of the very
same thing than the file that was last applied (contract.md, Settled details); what has no change on it is the file's own
object. What that means for each kind of change:

- A weight that was set goes when the file's weight of this backend (by its name) changes.
- A state that was set goes with its backend only: the file has no word for it. One that the file has moved to another
  address, under the same name, keeps its weight and its state.
- A backend that was added goes when the file has one of its name or address; from then on the file's values hold, and
  the state that was set. It goes too when the file's pool can have no such backend (joining.py).
- A removal (of a name with an address) goes when the file no longer has that entry. If another was added under the name
  of one that was removed, and the file changes a value of that one, this value of the added one changes too; once it is
  the same as in the file, it is the file's again.
- What was set for one member of a host name ("entry@address") goes by its entry: see changing.py.
- A key of a health check: see health_changes.py.

The changes of a pool that is no longer there go. A pool whose last backend was removed has none: 503 no_backend. `source`
is "runtime" where an entry was added, or its weight or state (or those of a member) are not the file's.

Called by reloading.py. What changes overrides is in changing.py, how they are written in overrides_json.py; both are to be
had from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from lbsvc.config.changing import add, remove, set_health, set_state, set_weight
from lbsvc.config.health_changes import lay_health
from lbsvc.config.joining import joined
from lbsvc.config.overrides import Exists, Overrides, PoolOverrides, Taken, Unknown, Wrong, overrides, owner
from lbsvc.config.overrides_json import from_json, to_json
from lbsvc.config.schema import BackendSettings, MemberSettings, PoolSettings, Settings

__all__ = [
    "Exists",
    "Overrides",
    "PoolOverrides",
    "Unknown",
    "Wrong",
    "add",
    "apply",
    "from_json",
    "remove",
    "set_health",
    "set_state",
    "set_weight",
    "to_json",
]

#: What an entry says beside its name and address.
_VALUES: Final = ("weight", "backup", "max_connections")


def apply(file: Settings, changes: Overrides) -> tuple[Settings, Overrides]:
    """The settings in force, and the changes that still hold; each is the very object that was given where it is equal."""
    if changes.is_empty:
        return file, changes
    pools = dict(file.pools)
    kept: dict[str, PoolOverrides] = {}
    for name, wanted in changes.pools:
        if name in pools:
            pools[name], kept[name] = _lay(file, pools[name], wanted)
    held = overrides(kept)
    if all(pool is file.pools[name] for name, pool in pools.items()):
        return file, held
    return replace(file, pools=MappingProxyType(pools)), changes if held == changes else held


def _lay(file: Settings, pool: PoolSettings, wanted: PoolOverrides) -> tuple[PoolSettings, PoolOverrides]:
    policy, health = lay_health(pool.health_check, wanted.health)
    written = {entry.name: entry for entry in pool.backends}
    removed, added, taken_over = _present(file, pool, wanted, written)
    gone = {entry.name for entry in removed}
    entries = {entry.name: entry for entry in pool.backends if entry.name not in gone}
    entries.update((entry.name, entry) for entry in added)
    weights: list[tuple[str, int | None, int]] = []
    for name, was, weight in wanted.weights:
        entry = owner(name, entries)
        if entry is not None and entry.name not in taken_over:
            now = written[entry.name].weight if entry.name in written else None
            if was == now:
                weights.append((name, was, weight))
    states = [(name, state) for name, state in wanted.states if owner(name, entries) is not None]
    marked, weights, states = _marked(entries, weights, states)
    still = PoolOverrides(added, removed, tuple(weights), tuple(states), health)
    if still.is_empty:
        return pool, still
    return replace(pool, backends=tuple(marked.values()), health_check=policy), still


def _present(
    file: Settings, pool: PoolSettings, wanted: PoolOverrides, written: Mapping[str, BackendSettings]
) -> tuple[tuple[BackendSettings, ...], tuple[BackendSettings, ...], set[str]]:
    """The removals and the additions that hold, and the names of additions that do not, for the file has taken over."""
    removed = {
        each.name: each
        for each in wanted.removed
        if each.name in written and written[each.name].address == each.address
    }
    added: list[BackendSettings] = []
    dropped: set[str] = set()
    for each in wanted.added:
        entry = each
        if entry.name in removed:
            entry = _renewed(entry, removed[entry.name], written[entry.name])
        try:
            entry = joined(file, pool, entry)
        except Wrong:
            dropped.add(entry.name)
            continue
        if entry.name in removed and replace(entry, source="config") == written[entry.name]:
            del removed[entry.name]
        else:
            added.append(entry)
    held: list[BackendSettings] = []
    if added:
        taken = Taken(entry for entry in pool.backends if entry.name not in removed)
        for entry in added:
            if taken.clash(entry):
                dropped.add(entry.name)
            else:
                taken.take(entry)
                held.append(entry)
    return tuple(written[name] for name in removed), tuple(held), dropped


def _renewed(entry: BackendSettings, was: BackendSettings, now: BackendSettings) -> BackendSettings:
    """An entry that stands for a removed one of its name, with what the file has changed about that one."""
    for key in _VALUES:
        if getattr(was, key) != getattr(now, key):
            entry = replace(entry, **{key: getattr(now, key)})
    return entry


def _marked(
    entries: Mapping[str, BackendSettings],
    weights: Sequence[tuple[str, int | None, int]],
    states: Iterable[tuple[str, str]],
) -> tuple[dict[str, BackendSettings], list[tuple[str, int | None, int]], list[tuple[str, str]]]:
    """The entries with the weights and states that were set; and those, less what says what holds without them."""
    marked = dict(entries)
    members: dict[str, MemberSettings] = {}
    held_weights = []
    # An entry's own come first: a member's are compared with them.
    for change in sorted(weights, key=lambda change: change[0] not in entries):
        name, _, weight = change
        entry = marked[name] if name in entries else owner(name, marked)
        if entry is None or entry.weight == weight:
            continue
        held_weights.append(change)
        if name in entries:
            marked[name] = replace(entry, weight=weight, source="runtime")
        else:
            members[name] = MemberSettings(name, weight)
    held_states = []
    for name, state in sorted(states, key=lambda change: change[0] not in entries):
        entry = marked[name] if name in entries else owner(name, marked)
        if entry is None or entry.state == state:
            continue
        held_states.append((name, state))
        if name in entries:
            marked[name] = replace(entry, state=state, source="runtime")
        else:
            members[name] = replace(members.get(name, MemberSettings(name)), state=state)
    for name, member in sorted(members.items()):
        entry = owner(name, marked)
        if entry is not None:
            marked[entry.name] = replace(entry, source="runtime", members=(*entry.members, member))
    return marked, sorted(held_weights, key=lambda change: change[0]), sorted(held_states)
