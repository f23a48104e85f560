"""Pieces of a configuration that come alone: a backend, some keys of a health check, from JSON, while we run.

Promises: they are read by the very sections that read the file, so that nothing can be set at run time that the file could
not say; mistakes name the key and have no place, and come at once, as `ConfigErrors`: the first ones, and how many more
there are. No variable is expanded: what comes from outside must not see the environment. What is the same as another
backend's is for overlay.py to say. Called by app's side of the admin interface; `fields` is what JSON gave: text, numbers,
booleans, None, lists, mappings.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from lbsvc.config import document
from lbsvc.config.document import Entry, Items, Node, Scalar, spell
from lbsvc.config.joining import joined
from lbsvc.config.overrides import Wrong
from lbsvc.config.pools import BACKEND, HEALTH_CHECK, check_asked
from lbsvc.config.schema import BackendSettings, Settings
from lbsvc.config.values import number, word, yes_no
from lbsvc.config.walk import Reader, Refused, Section, Spot, Walk
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.errors import ConfigErrors, Mistake

#: Nobody reads more than these of one piece.
MOST_MISTAKES: Final = 20
#: Deeper than anything that a piece can hold.
_DEEP: Final = 4
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, order=True)
class PieceMistake(Mistake):
    """A mistake in a piece: there is a key, and no file."""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


def backend_from(given: Mapping[str, Any], settings: Settings, pool: str, folder: str = "") -> BackendSettings:
    """The backend that `given` describes, for a pool that is there, with source "runtime". Raises ConfigErrors.

    A path that is relative (unix:run/a.sock) is relative to `folder`, that of the configuration file.
    """
    walk, spot = _begin(given, folder)
    found: BackendSettings = _read(walk, BACKEND, spot)
    try:
        found = joined(settings, settings.pools[pool], found)
    except Wrong as wrong:
        spot.at("address").wrong(str(wrong).removeprefix("address: "))
        _finish(walk)
    return replace(found, source="runtime")


def health_from(given: Mapping[str, Any], settings: Settings, pool: str) -> dict[str, Any]:
    """The fields of HealthCheckPolicy that `given` changes, by their names there; the rest stays. Raises ConfigErrors.

    null is the key's default. What means nothing for the check's type is refused, as in the file. Where checks are off, a
    type turns them on, and the rest is over the defaults (health_changes.py).
    """
    walk, spot = _begin(given, "")
    in_force = settings.pools[pool].health_check
    policy = in_force or HealthCheckPolicy()
    is_socket = all(backend.host.startswith("/") for backend in settings.pools[pool].backends)

    def change(place: Spot, found: dict[str, Any]) -> dict[str, Any]:
        if "off" in found:
            return found  # that stands alone, or not at all: see health_changes.py
        if in_force is None and given.get("type") is None:
            place.wrong('is off in this pool: a type turns it on, as in {"type": "http"}')
            return {}
        kind: str = found.get("type", policy.type) or _DEFAULTS["type"]
        check_asked(place, found, kind)
        if found.get("port") is not None and is_socket:
            place.at("port").wrong("means nothing where all backends are unix sockets")
        changed = {key: _DEFAULTS[key] if value is None else value for key, value in found.items()}
        after = replace(policy, **changed)
        if after.type == "http" and after.method == "HEAD" and after.expect_body is not None:
            place.wrong("expect_body cannot be found where method is HEAD: the answer has no body")
        return changed

    section: Section[dict[str, Any]] = Section(_NULLABLE, change)
    changed: dict[str, Any] = _read(walk, section, spot)
    return changed


def change_from(given: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """Weight and state that `given` sets for a backend, None for what it leaves; one of them at least. ConfigErrors."""
    walk, spot = _begin(given, "")
    found = _read(walk, _CHANGE, spot)
    if not found:
        spot.wrong("needs weight or state")
        _finish(walk)
    return found.get("weight"), found.get("state")


_DEFAULTS: Final[dict[str, Any]] = {each.name: each.default for each in fields(HealthCheckPolicy)}


def _or_null(reader: Reader) -> Reader:
    return lambda spot: None if spot.is_null else reader(spot)


_NULLABLE: Final = {"off": yes_no, **{key: _or_null(reader) for key, reader in HEALTH_CHECK.keys.items()}}
_CHANGE: Final[Section[dict[str, Any]]] = Section(
    {"weight": number(0, 65535), "state": word("ready", "drain", "maint")}, lambda spot, found: found
)


def _begin(given: Mapping[str, Any], folder: str) -> tuple[Walk, Spot]:
    walk = Walk(os.path.join(folder, "-"), None, lambda: 0.0)
    walk.pool_names.append("")
    spot = Spot(walk, _node(given, 0), "", 1, 1)
    for key, value in given.items():
        # JSON can say half a character, which no file, header or log could hold.
        if _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
            Spot(walk, Scalar("", None), spell("", key), 1, 1).wrong("holds half of a character (U+D800 to U+DFFF)")
    _finish(walk)
    return walk, spot


def _read(walk: Walk, section: Section[Any], spot: Spot) -> Any:
    found = None
    try:
        found = section(spot)
    except Refused:
        pass
    _finish(walk)
    return found


def _finish(walk: Walk) -> None:
    if walk.mistakes:
        found = [PieceMistake("", 0, 0, each.key, each.message) for each in dict.fromkeys(walk.mistakes)]
        more = len(found) - MOST_MISTAKES
        raise ConfigErrors(
            [*found[:MOST_MISTAKES], *([PieceMistake("", 0, 0, "", f"and {more} more")] if more > 0 else [])]
        )


def _node(value: Any, depth: int) -> Node:
    """What JSON gave as nodes, which have no places. What is nested deeper than any value can be is left out."""
    if isinstance(value, Mapping):
        below = value.items() if depth < _DEEP else ()
        return document.Mapping({str(key): Entry(str(key), _node(each, depth + 1), 1, 1) for key, each in below}, 1, 1)
    if isinstance(value, (list, tuple)):
        return Items([Entry("", _node(each, depth + 1), 1, 1) for each in value if depth < _DEEP], 1, 1)
    if isinstance(value, str):
        return Scalar(value, value, 1, 1)
    return Scalar("null" if value is None else json.dumps(value), value, 1, 1)
