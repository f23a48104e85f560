"""The event log: what changed, once per change, for people and for machines.

Promises: one event is one line (JSON), or one line and, under it, an indented traceback (text); whatever a message
contains, it cannot make a second line look like an event. Where lines go to systemd's journal, each begins with its level as
the journal knows it (`<3>`, which the journal takes away), so that `journalctl -p warning` finds them. `emit` never blocks
and never raises. Lines leave through the same writer thread as the access log's. Names that stay are in `STABLE`; every
event has `ts` (RFC 3339, UTC), `level`, `event`, `message`, then its own fields.

Built by app.py; called by whoever is given `Events.emit` as a callable, from any thread. What Twisted itself logs
comes in through observe/twistedlog.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

#: Level word -> rank.
LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}

#: Level word -> how the journal is told (sd-daemon(3)).
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warn": "<4>", "error": "<3>"}

_SPELLINGS: Final = {**{word: word for word in LEVELS}, "warning": "warn", "err": "error", "critical": "error"}

#: Names that dashboards and scripts rely on (contract.md).
STABLE: Final = frozenset(
    (
        "service.ready",
        "service.draining",
        "service.stopped",
        "listener.bound",
        "listener.closed",
        "backend.up",
        "backend.down",
        "backend.ejected",
        "backend.returned",
        "backend.added",
        "backend.removed",
        "backend.state",
        "circuit.open",
        "circuit.half_open",
        "circuit.closed",
        "pool.empty",
        "pool.available",
        "config.reloaded",
        "config.refused",
        "certificate.loaded",
        "certificate.expiring",
        "certificate.refused",
        "admin.change",
        "overload.begun",
        "overload.over",
    )
)


class Writer(Protocol):
    """What an event log writes to: observe.logwriter.LogWriter."""

    def write(self, data: bytes) -> bool: ...

    def isatty(self) -> bool: ...


class Emit(Protocol):
    """The callable that lower floors are given."""

    def __call__(self, level: str, event: str, message: str, **fields: object) -> None: ...


def level_in_force(configured: str, env: Mapping[str, str]) -> tuple[str, str | None]:
    """The level after LOG_LEVEL has had its say, and a complaint if that was no level."""
    wanted = env.get("LOG_LEVEL", "").strip()
    if not wanted:
        return configured, None
    level = _SPELLINGS.get(wanted.lower())
    if level is None:
        return configured, "LOG_LEVEL: must be debug, info, warn or error; the configured level stays"
    return level, None


class Events:
    """The event log of the process."""

    def __init__(
        self,
        writer: Writer,
        level: str,
        log_format: str,
        clock_wall: Callable[[], float],
        is_journal: bool = False,
    ) -> None:
        self._wall = clock_wall
        self.redirect(writer, level, log_format, is_journal)
        self._listeners: tuple[Callable[[dict[str, Any]], object], ...] = ()

    def redirect(self, writer: Writer, level: str, log_format: str, is_journal: bool = False) -> None:
        """From the next event on, write to another place, or from another level on, or in another form."""
        self._writer = writer
        self._is_journal = is_journal
        self._threshold = LEVELS[level]
        if log_format == "auto":
            log_format = "text" if writer.isatty() else "json"
        self.format = log_format
        self._line = _text_line if log_format == "text" else _json_line

    def wants(self, level: str) -> bool:
        """Whether events of this level are written at all."""
        return LEVELS[level] >= self._threshold

    def emit(self, level: str, event: str, message: str, **fields: object) -> None:
        """Log one event. `level` is one of LEVELS; fields follow in the order given."""
        if LEVELS[level] >= self._threshold:
            line = self._line(timestamp(self._wall()), level, event, message, fields)
            if self._is_journal:
                line = "".join([f"{_PRIORITIES[level]}{row}\n" for row in line[:-1].split("\n")])
            self._writer.write(line.encode("utf-8", "backslashreplace"))
        if self._listeners and event in STABLE:
            self._tell(level, event, message, fields)

    def subscribe(self, listener: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Have each event with a name of `STABLE` told, whatever the level in force; gives what ends it.

        A listener is called in the thread that emits, in the midst of whatever is going on there: it should note the event
        and act later (reactor.callFromThread). It gets plain values, a dict of its own, as the JSON line would have them.
        One that raises is not called again.
        """
        self._listeners += (listener,)
        return partial(self._unsubscribe, listener)

    def _unsubscribe(self, listener: Callable[[dict[str, Any]], object]) -> None:
        self._listeners = tuple(each for each in self._listeners if each is not listener)

    def _tell(self, level: str, event: str, message: str, fields: dict[str, object]) -> None:
        line = _json_line(timestamp(self._wall()), level, event, message, fields)
        for listener in self._listeners:
            try:
                listener(json.loads(line))
            except Exception:
                self._unsubscribe(listener)


def timestamp(wall: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond."""
    second = wall // 1.0
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{int((wall - second) * 1000):03d}Z"


def _json_line(ts: str, level: str, event: str, message: str, fields: dict[str, object]) -> str:
    line = {"ts": ts, "level": level, "event": event, "message": message}
    # The standard library's encoder, not the fast one: it takes lone surrogates and whatever else an error may hold.
    try:
        return json.dumps({**line, **_plain(fields)}, default=_shown) + "\n"
    except (TypeError, ValueError, RecursionError):
        return json.dumps({**line, "fields": _shown(fields)}) + "\n"


def _plain(fields: dict[str, object]) -> dict[str, object]:
    """Fields without what would hide the four that every event has, and without numbers that JSON does not know."""
    return {
        (f"{name}_" if name in ("ts", "level", "event", "message") else name): _number(value)
        for name, value in fields.items()
        if value is not None
    }


def _number(value: object) -> object:
    return str(value) if isinstance(value, float) and value - value != 0.0 else value


def _text_line(ts: str, level: str, event: str, message: str, fields: dict[str, object]) -> str:
    """`2026-11-21T01:02:03.123Z info  backend.up  web/a: up (status 200)`, a traceback indented below."""
    line = f"{ts} {level:<5} {event}  {_printable(message)}\n"
    traceback = fields.get("traceback")
    if isinstance(traceback, str):
        line += "".join([f"    {_printable(row)}\n" for row in traceback.splitlines()])
    return line


def _printable(text: str) -> str:
    """Text without what moves a terminal's cursor: control characters as escapes."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])


def _shown(value: object) -> str:
    try:
        return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
    except Exception:
        return f"<{type(value).__name__}>"
