"""Health checks that are changed at run time: key by key over what the file says, or where the file has turned them off.

Promises: what comes out can be asked; a value of the file that changes takes the one that was set for it back, and that
alone. Called by changing.py, overlay.py and overrides_json.py.

Decision (2026-11-21): where the file says `health_check: off`, a change that names the `type` turns checks on, with the
defaults for what it leaves open; one without is Wrong, for half of a check is nobody's wish. That stands as the change
("off", True, False) with the fields beside it (their base is None), and falls as a whole once the file turns checks on.
{"off": True} takes such a change back. What the file has on is not turned off at run time: `maint` is for one backend, the
file for a pool.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from lbsvc.config.overrides import Wrong
from lbsvc.config.values import LONGEST, TOKEN, show_duration
from lbsvc.core.policies import HealthCheckPolicy

#: Changes as they stand in PoolOverrides.health.
Changes = tuple[tuple[str, Any, Any], ...]

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_PATH: Final = re.compile(r"/[\x21\x22\x24-\x7e]{0,4095}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,255}")
_OFF: Final = "off"


def _matching(pattern: re.Pattern[str], rule: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(rule)
        return value

    return read


def _whole(low: int, high: int) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _seconds(low: float) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Compared before it is made a float, for which a whole number may be too large.
        if not is_number or (isinstance(value, float) and not math.isfinite(value)) or not low <= value <= LONGEST:
            raise ValueError(f"must be a duration from {show_duration(low)} to {show_duration(LONGEST)}")
        return float(value)

    return read


def _nullable(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else reader(value)


def _ranges(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("must be one range of statuses or more")
    bound = _whole(100, 599)
    found = []
    for pair in value:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or bound(pair[0]) > bound(pair[1]):
            raise ValueError("must be ranges of statuses, the lower end first")
        found.append((pair[0], pair[1]))
    return tuple(found)


def _method(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > 64 or not TOKEN.fullmatch(value) or value != value.upper():
        raise ValueError("must be a method such as GET, in capitals")
    return value


def _some_text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text, or null for none")
    return value


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "type": _matching(re.compile("tcp|http|grpc"), "must be http, tcp or grpc"),
        "path": _matching(_PATH, "must be a path that begins with /, without spaces and #"),
        "method": _method,
        "host": _nullable(_matching(_VISIBLE, "must be visible ASCII text without spaces")),
        "port": _nullable(_whole(1, 65535)),
        "expect_status": _ranges,
        "expect_body": _nullable(_some_text),
        "interval": _seconds(0.01),
        "timeout": _seconds(0.001),
        "rise": _whole(1, 1000),
        "fall": _whole(1, 1000),
        "service": _matching(_SERVICE, "must be the name of a gRPC service, such as shop.v1.Orders"),
    }
)


def read_field(key: str, value: Any) -> Any:
    """The value of a field of HealthCheckPolicy in its own form; raises ValueError that says what it must be."""
    reader = _READERS.get(key)
    if reader is None:
        raise ValueError("is no key of health_check")
    return reader(value)


def check_changes(changes: Changes) -> Changes:
    """Changes that come from a file, in their normal form; raises ValueError."""
    found: dict[str, tuple[Any, Any]] = {}
    is_on = any(key == _OFF for key, _, _ in changes)
    for key, before, value in changes:
        if key in found:
            raise ValueError(f"{key} is there twice")
        if key == _OFF:
            if before is not True or value is not False:
                raise ValueError("off can only have been turned to false")
            found[key] = (True, False)
        elif is_on and before is not None:
            raise ValueError(f"{key}: there is nothing that it was in the file")
        else:
            found[key] = (None if is_on else read_field(key, before), read_field(key, value))
    return _changes(found)


def _changes(found: Mapping[str, tuple[Any, Any]]) -> Changes:
    return tuple((key, before, value) for key, (before, value) in sorted(found.items()))


def _is_vain(policy: HealthCheckPolicy) -> bool:
    """Whether no answer could ever do: that to HEAD has no body."""
    return policy.method == "HEAD" and policy.expect_body is not None


def lay_health(policy: HealthCheckPolicy | None, changes: Changes) -> tuple[HealthCheckPolicy | None, Changes]:
    """The check that is in force where the file says `policy`, and the changes that still hold."""
    if not changes:
        return policy, changes
    is_on = any(key == _OFF for key, _, _ in changes)
    if is_on != (policy is None):  # the file has turned checks on or off
        return policy, ()
    written = policy or HealthCheckPolicy()
    kept = changes
    if not is_on:
        kept = tuple((key, was, value) for key, was, value in changes if getattr(written, key) == was != value)
    laid = _laid(written, kept)
    if _is_vain(laid):  # what the file has changed does not go together with what was set
        kept = tuple(change for change in kept if change[0] not in ("method", "expect_body"))
        laid = _laid(written, kept)
    return (laid if kept else policy), kept


def _laid(policy: HealthCheckPolicy, changes: Changes) -> HealthCheckPolicy:
    return replace(policy, **{key: value for key, _, value in changes if key != _OFF})


def change_health(policy: HealthCheckPolicy | None, changes: Changes, fields: Mapping[str, Any]) -> Changes:
    """The changes once `fields` are set, where `policy` is in force; raises Wrong."""
    found = {key: (before, value) for key, before, value in changes}
    fields = dict(fields)
    is_off = fields.pop(_OFF, False)
    if not isinstance(is_off, bool):
        raise Wrong("off: must be true or false")
    if is_off:
        return _turned_off(policy, found, fields)
    values = {}
    for key, value in fields.items():
        try:
            values[key] = read_field(key, value)
        except ValueError as error:
            raise Wrong(f"{key}: {error}") from None
    if policy is None:
        if "type" not in values:
            raise Wrong("type: is required, for health_check is off")
        found = {_OFF: (True, False)}
    is_on = _OFF in found
    written = policy or HealthCheckPolicy()
    for key, value in values.items():
        before = found[key][0] if key in found else None if is_on else getattr(written, key)
        if value == before and not is_on:
            found.pop(key, None)
        else:
            found[key] = (before, value)
    if _is_vain(replace(written, **values)):
        raise Wrong("expect_body: cannot be found: the answer to HEAD has no body")
    return _changes(found)


def _turned_off(
    policy: HealthCheckPolicy | None, found: Mapping[str, tuple[Any, Any]], others: Mapping[str, Any]
) -> Changes:
    if others:
        raise Wrong("off: cannot be true beside other keys")
    if policy is not None and _OFF not in found:
        raise Wrong("off: cannot be set at run time where the file has a health_check; state maint ends checks of one")
    return ()
