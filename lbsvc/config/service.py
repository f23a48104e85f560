"""How the top of a configuration is read: admin, logs, shutdown, and the sections of the other two tables.

Promises: `TOP` holds every top-level key of lb-reference.yaml, and `overload`, which is ours. Called by loader.py.
"""

from __future__ import annotations

import os
import re
from types import MappingProxyType
from typing import Any, Final

from lbsvc.config.addresses import bind, is_loopback, parse_host
from lbsvc.config.listeners import listener
from lbsvc.config.pools import pool
from lbsvc.config.schema import (
    AccessLogSettings,
    AdminSettings,
    Bind,
    ListenerSettings,
    LogSettings,
    OverloadSettings,
    Settings,
    ShutdownSettings,
)
from lbsvc.config.shapes import NULL, SOME_TEXT, either, like, list_of, shaped, whole
from lbsvc.config.values import duration, nullable, nullable_text, number, secret, share, text, word, yes_no
from lbsvc.config.walk import Section, Spot, listing, named, plain

LEVELS: Final = ("debug", "info", "warn", "error")
#: Nobody finds a token of so many random characters by trying, however fast he is answered (admin/tries.py).
LONG_TOKEN: Final = 16
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@shaped(lambda of: of(named(listener)) | {"type": "object", "minProperties": 1})
def _listeners(spot: Spot) -> dict[str, ListenerSettings]:
    if not spot.entries():
        spot.refuse("needs at least one listener")
    return named(listener)(spot)


@shaped(SOME_TEXT)
def _host_name(spot: Spot) -> str:
    found = text(spot).lower()
    try:
        return parse_host(found).removesuffix(".")
    except ValueError:
        spot.expect("a host name without a port")


@shaped(like(bind))
def _admin_bind(spot: Spot) -> Bind:
    found = bind(spot)
    if found.passed_as is not None:
        spot.expect("host:port or unix:PATH: sockets that systemd passes are for listeners")
    spot.walk.binds.append((spot, found))
    return found


@shaped(lambda of: either(list_of(_host_name, single=True)(of), NULL))
def _hosts(spot: Spot) -> tuple[str, ...]:
    return () if spot.is_null else listing(_host_name, single=True)(spot)


def _admin(spot: Spot, found: dict[str, Any]) -> AdminSettings:
    admin = AdminSettings(**found)
    entries = spot.entries()
    if not is_loopback(admin.bind.host) and not admin.token and ("token" in found or "token" not in entries):
        if "token" in entries:
            spot.at("token").wrong("is required where bind is not loopback, and must not be empty")
        else:
            spot.missing("token", "is required where bind is not loopback")
    if 0 < len(admin.token) < LONG_TOKEN and "${" not in admin.token:  # else it is a text that is not expanded
        spot.walk.note(
            "admin.token",
            f"has fewer than {LONG_TOKEN} characters: tries are limited, so that strangers with your address hold you up",
        )
    return admin


ADMIN: Final[Section[AdminSettings | None]] = Section(
    {
        "bind": _admin_bind,
        "hosts": _hosts,
        "token": secret,
        "read_only": yes_no,
        "dashboard": yes_no,
    },
    _admin,
    off=(None,),
)


@shaped(SOME_TEXT)
def _path(spot: Spot) -> str:
    """A file name, relative to the folder of the configuration; "-" is standard output."""
    found = text(spot)
    if not found or _CONTROL.search(found):
        spot.expect("the name of a file, or -")
    return found if found == "-" else os.path.join(os.path.dirname(spot.walk.filename), found)


@shaped(SOME_TEXT)
def _state_file(spot: Spot) -> str:
    """Where run-time changes are kept, relative to the folder of the configuration."""
    found = text(spot)
    if found == "-" or found.endswith("/") or not found or _CONTROL.search(found):
        spot.expect("the name of a file")
    path = os.path.join(os.path.dirname(spot.walk.filename), found)
    if os.path.abspath(path) == os.path.abspath(spot.walk.filename):
        spot.refuse("cannot be the configuration itself: run-time changes are kept in a file of their own")
    if spot.walk.reads_files and not os.path.isdir(os.path.dirname(path) or "."):
        spot.walk.note(
            "state_file", "its folder does not exist; it is made at the start if only the last part is missing"
        )
    return path


#: More processes than this no machine has cores for.
MOST_WORKERS: Final = 256


@shaped(either(whole(1, MOST_WORKERS), {"const": "auto"}))
def _workers(spot: Spot) -> int:
    """How many processes; auto: one for each core that this one may run on."""
    if spot.value == "auto":
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if hasattr(os, "sched_getaffinity") else 1
    if not isinstance(spot.value, int) or isinstance(spot.value, bool):
        spot.expect("a whole number, or auto")
    return number(1, MOST_WORKERS)(spot)


ACCESS_LOG: Final[Section[AccessLogSettings | None]] = Section(
    {"path": _path, "format": word("json", "combined"), "sample": share}, plain(AccessLogSettings), off=(None,)
)

LOG: Final = Section(
    {"path": _path, "level": word(*LEVELS), "format": word("json", "text", "auto")}, plain(LogSettings)
)

SHUTDOWN: Final = Section(
    {"delay": duration(low=0), "drain_timeout": duration(low=0), "removed": nullable(duration(low=0))},
    plain(ShutdownSettings),
)


#: Less than a few turns of a busy reactor would be no overload; so long that nobody would wait for an answer is `off`.
OVERLOAD: Final[Section[OverloadSettings | None]] = Section(
    {"lag": duration(low=0.05, high=60.0)}, plain(OverloadSettings), off=(None,)
)


def _settings(spot: Spot, found: dict[str, Any]) -> Settings:
    return Settings(MappingProxyType(found.pop("listeners")), MappingProxyType(found.pop("pools", None) or {}), **found)


TOP: Final = Section(
    {
        "listeners": _listeners,
        "pools": named(pool),
        "admin": ADMIN,
        "access_log": ACCESS_LOG,
        "log": LOG,
        "shutdown": SHUTDOWN,
        "overload": OVERLOAD,
        "watch": yes_no,
        "state_file": nullable_text(_state_file),
        "workers": _workers,
    },
    _settings,
    required=("listeners",),
)
