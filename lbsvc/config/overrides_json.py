"""Run-time changes as JSON, for the state file.

Promises: what is written is read as the same; what is read is strict: only what could have been written, by the rules of
the configuration, else ValueError that says where. Called by statefile.py, by way of overlay.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from lbsvc.config.addresses import LONGEST_PATH, parse_address
from lbsvc.config.health_changes import check_changes
from lbsvc.config.overrides import HEAVIEST, STATES, Overrides, PoolOverrides, overrides
from lbsvc.config.schema import BackendSettings
from lbsvc.config.walk import name_fault

T = TypeVar("T")

_BACKEND: Final = frozenset(("address", "name", "weight", "backup", "max_connections", "socket", "secure"))
_POOL: Final = frozenset(("added", "removed", "weights", "states", "health"))


def to_json(changes: Overrides) -> dict[str, Any]:
    """Plain values, of which json makes text."""
    return {"pools": {name: _pool(found) for name, found in changes.pools}}


def _pool(found: PoolOverrides) -> dict[str, Any]:
    written: dict[str, Any] = {
        "added": [_backend(entry) for entry in found.added],
        "removed": [_backend(entry) for entry in found.removed],
        "weights": [{"name": name, "file": was, "weight": weight} for name, was, weight in found.weights],
        "states": [{"name": name, "state": state} for name, state in found.states],
        "health": [{"key": key, "file": was, "value": value} for key, was, value in found.health],
    }
    return {key: value for key, value in written.items() if value}


def _backend(entry: BackendSettings) -> dict[str, Any]:
    written: dict[str, Any] = {
        "address": entry.address,
        "name": entry.name,
        "weight": entry.weight,
        "backup": entry.backup,
        "max_connections": entry.max_connections,
        "secure": entry.is_secure,
    }
    if entry.host.startswith("/"):
        written["socket"] = entry.host  # the address may be relative to the folder of a file that is elsewhere then
    return written


def from_json(written: Any) -> Overrides:
    """What `to_json` has made; raises ValueError."""
    top = _mapping(written, "", frozenset(("pools",)))
    pools = _mapping(top.get("pools", {}), "pools")
    return overrides({_name(name, "pools"): _read_pool(found, f"pools.{name}") for name, found in pools.items()})


def _read_pool(written: Any, path: str) -> PoolOverrides:
    found = _mapping(written, path, _POOL)

    def items(kind: str, keys: tuple[str, ...], read: Callable[[Mapping[str, Any], str], T]) -> tuple[T, ...]:
        values = found.get(kind, [])
        _require(isinstance(values, list), f"{path}.{kind}", "must be a list")
        read_items = []
        for i, value in enumerate(values):
            place = f"{path}.{kind}[{i}]"
            read_items.append(read(_mapping(value, place, frozenset(keys)), place))
        return tuple(read_items)

    added = items("added", tuple(_BACKEND), lambda value, place: _read_backend(value, place, "runtime"))
    removed = items("removed", tuple(_BACKEND), lambda value, place: _read_backend(value, place, "config"))
    weights = items("weights", ("name", "file", "weight"), _read_weight)
    states = items("states", ("name", "state"), _read_state)
    health = items("health", ("key", "file", "value"), lambda value, place: _read_change(value))
    for kind, names in (
        ("added", [entry.name for entry in added]),
        ("removed", [entry.name for entry in removed]),
        ("weights", [name for name, _, _ in weights]),
        ("states", [name for name, _ in states]),
    ):
        _require(len(names) == len(set(names)), f"{path}.{kind}", "has a name twice")
    try:
        checked = check_changes(health)
    except ValueError as error:
        raise ValueError(f"{path}.health: {error}") from None
    return PoolOverrides(
        added,
        tuple(sorted(removed, key=lambda entry: entry.name)),
        tuple(sorted(weights, key=lambda change: change[0])),
        tuple(sorted(states)),
        checked,
    )


def _read_backend(found: Mapping[str, Any], path: str, source: str) -> BackendSettings:
    address = _text(found.get("address"), f"{path}.address")
    is_secure = _flag(found.get("secure"), f"{path}.secure")
    if address.startswith("unix:"):
        host, port, scheme = _socket(found.get("socket"), f"{path}.socket"), 0, ""
    else:
        _require("socket" not in found and "@" not in address, f"{path}.address", "is none")
        try:
            host, port, scheme = parse_address(address)
        except ValueError as error:
            raise ValueError(f"{path}.address: {error}") from None
    _require(is_secure or scheme != "https", f"{path}.secure", "must be true for https://")
    _require(not is_secure or scheme not in ("http", "h2c"), f"{path}.secure", f"cannot be true for {scheme}://")
    most = found.get("max_connections")
    return BackendSettings(
        address,
        host,
        port,
        address if found.get("name") == address else _name(found.get("name"), f"{path}.name"),
        _whole(found.get("weight"), f"{path}.weight", 0, HEAVIEST),
        _flag(found.get("backup"), f"{path}.backup"),
        None if most is None else _whole(most, f"{path}.max_connections", 1, 10_000_000),
        is_h2c=scheme == "h2c",
        is_secure=is_secure,
        source=source,
    )


def _socket(value: Any, path: str) -> str:
    host = _text(value, path)
    _require(host.startswith("/") and os.path.abspath(host) == host, path, "must be an absolute path")
    try:
        size = len(os.fsencode(host))
    except UnicodeEncodeError:
        size = LONGEST_PATH + 1
    _require(size <= LONGEST_PATH and "\0" not in host, path, "is no path of a socket")
    return host


def _read_weight(found: Mapping[str, Any], path: str) -> tuple[str, int | None, int]:
    was = found.get("file")
    return (
        _text(found.get("name"), f"{path}.name"),
        None if was is None else _whole(was, f"{path}.file", 0, HEAVIEST),
        _whole(found.get("weight"), f"{path}.weight", 0, HEAVIEST),
    )


def _read_state(found: Mapping[str, Any], path: str) -> tuple[str, str]:
    state = found.get("state")
    _require(isinstance(state, str) and state in STATES, f"{path}.state", "must be ready, drain or maint")
    return _text(found.get("name"), f"{path}.name"), str(state)


def _read_change(found: Mapping[str, Any]) -> tuple[str, Any, Any]:
    key = found.get("key")
    return (key if isinstance(key, str) else ""), found.get("file"), found.get("value")


def _require(is_so: bool, path: str, rule: str) -> None:
    if not is_so:
        raise ValueError(f"{path}: {rule}" if path else rule)


def _mapping(value: Any, path: str, keys: frozenset[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must be an object" if path else "must be an object")
    for key in value:
        _require(isinstance(key, str), path, "has a key that is no text")
        _require(keys is None or key in keys, path, "has an unknown key")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str) or not value or len(value) > 4096:
        raise ValueError(f"{path}: must be text")
    return value


def _name(value: Any, path: str) -> str:
    name = _text(value, path)
    fault = name_fault(name)
    _require(not fault, path, f"must be {fault}")
    return name


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{path}: must be true or false")
    return value


def _whole(value: Any, path: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{path}: must be a whole number from {low} to {high}")
    return value
