"""Random sequences of admin calls and reloads of changed files, against a plain model of what should be in force.

The model knows no overrides: it holds what is in force, backend by backend, and on a reload copies over what differs between
the file that was applied last and the new one ("the file wins, and only for that"). What it holds is compared with the
settings that lbsvc/config/overlay.py makes, after each step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import TestCase

from lbsvc.config import overlay
from lbsvc.config.overlay import Overrides
from lbsvc.config.schema import BackendSettings, PoolSettings, Settings
from lbsvc.core.policies import HealthCheckPolicy
from tests.kit.builders import listener

POOLS = ("web", "other")
#: Names that file and people choose from; "app…" have a host name, and so members. No name is tied to an address.
NAMES = ("a", "b", "app")
ADDRESSES = ("10.0.0.1:80", "10.0.0.2:80", "app.example:80", "two.example:80")
MEMBERS = ("10.9.0.1", "10.9.0.2")
#: Which name is called; from 100 on it need not be there.
TARGET = st.integers(0, 119)
EDIT = st.sampled_from(["weight", "weight", "backup", "address", "name", "check", "gone", "new", "new", "adopt"])
WEIGHTS = st.sampled_from([1, 1, 2, 5])
STATES = st.sampled_from(["ready", "drain", "maint"])
POOL = st.sampled_from(("web", "web", "web", *POOLS))

ENTRIES = st.builds(
    lambda name, address, weight, backup: BackendSettings(
        address, address.partition(":")[0], 80, name, weight=weight, backup=backup
    ),
    st.sampled_from(NAMES),
    st.sampled_from(ADDRESSES),
    WEIGHTS,
    st.sampled_from([False, False, True]),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "interval": st.sampled_from([1.0, 5.0, 7.5]),
    "rise": st.sampled_from([1, 2]),
    "expect_status": st.sampled_from([((200, 399),), ((200, 200), (204, 299))]),
    "host": st.sampled_from([None, "x.example"]),
    "type": st.sampled_from(["tcp", "http"]),
}
SOME_FIELDS = st.fixed_dictionaries({}, optional=FIELDS)
POLICIES = st.none() | SOME_FIELDS.map(lambda fields: HealthCheckPolicy(**fields))
BACKENDS = st.lists(ENTRIES, min_size=1, max_size=4, unique_by=(lambda entry: entry.name, lambda entry: entry.address))
FILES = st.fixed_dictionaries(
    {"web": st.tuples(BACKENDS, POLICIES)}, optional={"other": st.tuples(BACKENDS, POLICIES)}
) | st.just({})


def file_of(pools: dict[str, tuple[list[BackendSettings], HealthCheckPolicy | None]]) -> Settings:
    made = {name: PoolSettings(name, tuple(backends), health_check=check) for name, (backends, check) in pools.items()}
    return Settings({"main": listener()}, MappingProxyType(made))


@dataclass
class Live:
    """One backend in force."""

    entry: BackendSettings  # what it is, with its weight
    is_added: bool = False
    state: str = "ready"
    weights: dict[str, int] = field(default_factory=dict)  # of members
    states: dict[str, str] = field(default_factory=dict)

    @property
    def has_members(self) -> bool:
        return self.entry.host.endswith("example")

    def change(self, key: str, value: Any) -> None:
        self.entry = replace(self.entry, **{key: value})
        if key == "weight":
            self.weights.clear()

    def view(self, written: dict[str, BackendSettings]) -> tuple[Any, ...]:
        """What is compared; `written` are the file's entries by name."""
        entry = self.entry
        members = {
            f"{entry.name}@{ip}": (self.weights.get(ip, entry.weight), self.states.get(ip, self.state))
            for ip in MEMBERS
        }
        is_own = any(each != (entry.weight, self.state) for each in members.values())
        is_changed = self.is_added or self.state != "ready" or is_own or entry.weight != written[entry.name].weight
        source = "runtime" if is_changed else "config"
        return entry.name, entry.address, entry.weight, entry.backup, self.state, source, members


@dataclass
class ModelPool:
    """One pool in force, and what the file that was applied last says of it."""

    written: dict[str, BackendSettings]
    check: HealthCheckPolicy | None
    written_check: HealthCheckPolicy | None
    live: dict[str, Live]

    def reload(self, new: dict[str, BackendSettings], check: HealthCheckPolicy | None) -> None:
        old, former, self.written = self.written, self.live, new
        self.live = {}
        for name, entry in new.items():
            was = old.get(name)
            if was is not None and was.address == entry.address and name not in former:
                continue  # people have removed it, and the file has not changed that
            self.live[name] = self._from_file(was, entry, former.get(name))
        taken = {each.entry.address for each in self.live.values() if not each.is_added}
        added = {name: each for name, each in former.items() if each.is_added}
        for name, each in added.items():
            was, now = old.get(name), new.get(name)
            if (now is None or (was is not None and was.address == now.address)) and each.entry.address not in taken:
                self.live.pop(name, None)  # added ones stand behind the file's
                self.live[name] = each
            elif self.live.get(name) is each:
                del self.live[name]
        if self.written_check is None or check is None:
            if (self.written_check is None) != (check is None):
                self.check = check
        elif self.check is not None:
            for key in FIELDS:
                if getattr(self.written_check, key) != getattr(check, key):
                    self.check = replace(self.check, **{key: getattr(check, key)})
        self.written_check = check
        self.settle()

    @staticmethod
    def _from_file(was: BackendSettings | None, now: BackendSettings, live: Live | None) -> Live:
        """The backend that an entry of the file is from here on."""
        if live is None:
            return Live(now)
        if live.is_added and (was is None or was.address != now.address):
            return Live(now, state=live.state, states=live.states)  # the file takes it over
        if was is None:
            raise AssertionError("in force, not added, and not in the file")
        if was.address != now.address:
            live.change("address", now.address)
            live.change("host", now.host)
        for key in ("weight", "backup"):
            if getattr(was, key) != getattr(now, key):
                live.change(key, getattr(now, key))
        return live

    def settle(self) -> None:
        """What is as the file says is the file's; what no longer has members has nothing set for them."""
        for name, each in self.live.items():
            if not each.has_members:
                each.weights.clear()
                each.states.clear()
            if each.is_added and replace(each.entry, source="config") == self.written.get(name):
                each.is_added = False
        order = [name for name in self.written if name in self.live and not self.live[name].is_added]
        self.live = {name: self.live[name] for name in (*order, *(name for name in self.live if name not in order))}


class OverlayMachine(RuleBasedStateMachine):
    """The overlay beside the model."""

    @initialize(pools=FILES)
    def start(self, pools: dict[str, Any]) -> None:
        self.file = self.effective = file_of(pools)
        self.overrides = Overrides()
        self.model: dict[str, ModelPool] = {}
        self.take(pools)

    def take(self, pools: dict[str, Any]) -> None:
        for name in [name for name in self.model if name not in pools]:
            del self.model[name]
        for name, (backends, check) in pools.items():
            entries = {entry.name: entry for entry in backends}
            if name not in self.model:
                self.model[name] = ModelPool({}, check, check, {})
            self.model[name].reload(entries, check)

    def reload(self, pools: dict[str, Any]) -> None:
        self.take(pools)
        self.file = file_of(pools)
        self.effective, self.overrides = overlay.apply(self.file, self.overrides)

    @rule(pools=FILES, is_due=st.sampled_from([False, False, False, True]))
    def replace_file(self, pools: dict[str, Any], is_due: bool) -> None:
        """Another file altogether."""
        if is_due:
            self.reload(pools)

    @rule(data=st.data(), pool=POOL, edits=st.lists(EDIT, min_size=1, max_size=3))
    def edit_file(self, data: st.DataObject, pool: str, edits: list[str]) -> None:
        """The same file with some things changed, as people edit it."""
        pools = {name: (list(each.backends), each.health_check) for name, each in self.file.pools.items()}
        for what in edits:
            backends, check = pools.get(pool, ([], None))
            at = data.draw(st.integers(0, len(backends) - 1)) if backends else None
            other = data.draw(ENTRIES)
            if what == "check":
                check = data.draw(POLICIES)
            elif what == "new":
                backends.append(other)
            elif what == "adopt" and pool in self.model:  # what is in force is written into the file
                backends.extend(each.entry for each in self.model[pool].live.values() if each.is_added)
            elif at is not None and what == "gone":
                del backends[at]
            elif at is not None and what != "adopt":
                changes = {"host": other.host} if what == "address" else {}
                backends[at] = replace(backends[at], **{what: getattr(other, what)}, **changes)
            pools[pool] = (backends, check)
            if any(len({getattr(each, key) for each in backends}) < len(backends) for key in ("name", "address")):
                return  # the configuration refuses such a file
        self.reload(pools)

    @rule()
    def restart(self) -> None:
        """Through JSON, as the state file keeps it."""
        again = overlay.from_json(json.loads(json.dumps(overlay.to_json(self.overrides), allow_nan=False)))
        assert again == self.overrides
        assert overlay.apply(self.file, again) == (self.effective, self.overrides)

    def change(self, call: Any, pool: str, *given: Any) -> type[Exception] | None:
        """Ask the overlay; the kind of refusal, or None where it is in force now."""
        try:
            wanted = call(self.effective, self.overrides, pool, *given)
        except (overlay.Unknown, overlay.Exists, overlay.Wrong) as error:
            return type(error)
        self.effective, self.overrides = overlay.apply(self.file, wanted)
        return None

    @rule(pool=POOL, entry=ENTRIES)
    def add(self, pool: str, entry: BackendSettings) -> None:
        told = self.change(overlay.add, pool, entry)
        there = self.model.get(pool)
        if there is None:
            assert told is overlay.Unknown
        elif entry.name in there.live or entry.address in {each.entry.address for each in there.live.values()}:
            assert told is overlay.Exists
        else:
            assert told is None
            there.live[entry.name] = Live(entry, is_added=True)
            there.settle()

    @rule(pool=POOL, which=TARGET)
    def remove(self, pool: str, which: int) -> None:
        name, live = self.target(pool, which)
        told = self.change(overlay.remove, pool, name)
        if live is None:
            assert told is overlay.Unknown
        elif "@" in name:
            assert told is overlay.Wrong
        else:
            assert told is None
            del self.model[pool].live[name]

    @rule(pool=POOL, which=TARGET, weight=WEIGHTS, backup=st.booleans())
    def replace_backend(self, pool: str, which: int, weight: int, backup: bool) -> None:
        """Taken out, and added again as another."""
        name, live = self.target(pool, which)
        if live is not None and "@" not in name:
            self.remove(pool, which)
            self.add(pool, replace(live.entry, weight=weight, backup=backup))

    def target(self, pool: str, number: int) -> tuple[str, Live | None]:
        """A name to call, mostly one that is there; and what it is about, if anything."""
        there = self.model[pool].live if pool in self.model else {}
        names = [*there, *(f"{name}@{ip}" for name, each in there.items() if each.has_members for ip in MEMBERS)]
        if number < 100 and names:
            name = names[number % len(names)]
        else:
            name = (*NAMES, "a@10.9.0.1", "app@10.9.0.1", "app@10.9.0.01", "app@", "@")[number % (len(NAMES) + 5)]
        entry, at, address = name.partition("@")
        live = there.get(entry)
        is_known = live is not None and (not at or (live.has_members and address in MEMBERS))
        return name, live if is_known else None

    @rule(pool=POOL, which=TARGET, weight=WEIGHTS)
    def set_weight(self, pool: str, which: int, weight: int) -> None:
        name, live = self.target(pool, which)
        told = self.change(overlay.set_weight, pool, name, weight)
        assert told is (overlay.Unknown if live is None else None)
        if live is not None and "@" in name:
            live.weights[name.partition("@")[2]] = weight
        elif live is not None:
            live.change("weight", weight)
            self.model[pool].settle()

    @rule(pool=POOL, which=TARGET, state=STATES)
    def set_state(self, pool: str, which: int, state: str) -> None:
        name, live = self.target(pool, which)
        told = self.change(overlay.set_state, pool, name, state)
        assert told is (overlay.Unknown if live is None else None)
        if live is not None and "@" in name:
            live.states[name.partition("@")[2]] = state
        elif live is not None:
            live.state = state
            live.states.clear()

    @rule(pool=POOL, fields=SOME_FIELDS)
    def set_health(self, pool: str, fields: dict[str, Any]) -> None:
        told = self.change(overlay.set_health, pool, fields)
        there = self.model.get(pool)
        if there is None:
            assert told is overlay.Unknown
        elif there.check is None and "type" not in fields:
            assert told is overlay.Wrong
        else:
            assert told is None
            there.check = replace(there.check or HealthCheckPolicy(), **fields)

    @rule(pool=POOL)
    def health_off(self, pool: str) -> None:
        told = self.change(overlay.set_health, pool, {"off": True})
        there = self.model.get(pool)
        if there is None:
            assert told is overlay.Unknown
        elif there.written_check is not None:
            assert told is overlay.Wrong
        else:
            assert told is None
            there.check = None

    @invariant()
    def what_is_in_force(self) -> None:
        if not hasattr(self, "model"):
            return
        assert list(self.effective.pools) == list(self.file.pools)
        for name, pool in self.effective.pools.items():
            there = self.model[name]
            found = [self.view(entry) for entry in pool.backends]
            assert found == [each.view(there.written) for each in there.live.values()]
            assert pool.health_check == there.check
            assert replace(pool, backends=(), health_check=None) == PoolSettings(name, (), health_check=None)

    @staticmethod
    def view(entry: BackendSettings) -> tuple[Any, ...]:
        own = {member.name: member for member in entry.members}
        members = {}
        for name in (f"{entry.name}@{ip}" for ip in MEMBERS):
            member = own.pop(name, None)
            weight = entry.weight if member is None or member.weight is None else member.weight
            state = entry.state if member is None or member.state is None else member.state
            members[name] = (weight, state)
        assert not own
        return entry.name, entry.address, entry.weight, entry.backup, entry.state, entry.source, members

    @invariant()
    def settled(self) -> None:
        """Applied again, nothing changes; where nothing is changed, it is the file's own."""
        if not hasattr(self, "model"):
            return
        again, overrides = overlay.apply(self.file, self.overrides)
        assert (again, overrides) == (self.effective, self.overrides)
        assert overrides is self.overrides
        is_plain = self.effective == self.file
        assert is_plain == (self.effective is self.file)
        for name, pool in self.file.pools.items():
            assert (self.effective.pools[name] is pool) == (self.effective.pools[name] == pool)


class OverlayProperties(TestCase):
    def test_against_the_model(self) -> None:
        """RT-2: whatever people change and whatever the file becomes, in force is what the model says."""
        how = settings(max_examples=200, stateful_step_count=30, deadline=None, database=None)
        run_state_machine_as_test(OverlayMachine, settings=how)  # type: ignore[no-untyped-call]
