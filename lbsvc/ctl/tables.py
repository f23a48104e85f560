"""Tables for people: the status, the health, and how numbers are written for them.

Promises: off a terminal nothing is coloured, cut, wrapped or padded at its end, so that grep and awk find what they
look for; on one a row is a line, whatever its width: columns that say least are left out where there is no room for all,
names are cut at their end, and no word is broken; what failed checks have said then stands below the table. Under NO_COLOR
nothing is coloured. Names and words from outside are shown so that they cannot steer a terminal. `status` is what the API
gave: keys that are missing are shown as missing. Used by commands.py and topview.py. Times are seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lbsvc.ctl.session import clean, is_terminal

#: How a word of a state, of health or of a circuit is coloured; others are as they are.
STYLES: Final = {
    **dict.fromkeys(("up", "yes", "listening", "serving"), "green"),
    **dict.fromkeys(("down", "no", "open", "hung"), "bold red"),
    **dict.fromkeys(
        ("drain", "maint", "ejected", "flapping", "half_open", "draining", "starting", "leaving"), "yellow"
    ),
    **dict.fromkeys(("unknown", "-"), "dim"),
}

#: Columns that may be narrower than what they hold.
_GIVING: Final = frozenset({"POOL", "BACKEND", "ADDRESS", "LISTENER", "BIND", "LAST CHECK"})

#: No table is as wide: off a terminal nothing is cut.
_WIDE: Final = 10_000


def console() -> Console:
    """Standard output."""
    is_seen = is_terminal()
    return Console(
        file=sys.stdout,
        force_terminal=is_seen,
        no_color=bool(os.environ.get("NO_COLOR")) or None,
        width=None if is_seen else _WIDE,
        highlight=False,
        markup=False,
        emoji=False,
    )


def drawn(*parts: RenderableType) -> str:
    """What is to be written."""
    out = console()
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    return captured.get() if out.is_terminal else "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def word(text: Any) -> Text:
    """A word, coloured by what it means."""
    shown = clean(str(text))
    return Text(shown, STYLES.get(shown, ""))


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty one; columns of numbers are set to the right."""
    is_seen = is_terminal()
    found = Table(
        box=box.SIMPLE_HEAD if is_seen else None,
        header_style="bold",
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0) if is_seen else (0, 1),
    )
    for column in columns:
        # What gives way where there is no room are names; see `cut`.
        found.add_column(
            column, justify="right" if column in numbers else "left", overflow="ellipsis", no_wrap=column not in _GIVING
        )
    return found


def cut(text: Text) -> Text:
    """So that it stays a line, which ends in an ellipsis where there is no room."""
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def for_status(status: Mapping[str, Any]) -> str:
    """The whole status."""
    ready = Text("ready", "green") if status.get("ready") else Text("not ready", "bold red")
    head = Text.assemble(
        f"lbsvc {clean(str(status.get('version')))}, generation {status.get('generation')}, "
        f"up {age(float(status.get('uptime', 0)))}, ",
        ready,
    )
    workers: list[RenderableType] = ["", _workers(status["workers"])] if status.get("workers") else []
    return drawn(head, "", _listeners(status), *workers, *_pools(status))


def for_workers(rows: Sequence[Mapping[str, Any]]) -> str:
    """The worker processes."""
    return drawn(_workers(rows))


_OF_WORKERS: Final = ("WORKER", "PID", "STATE", "UPTIME", "CONNECTIONS", "REQUESTS", "RESTARTS", "CPU", "MEMORY")


def _workers(rows: Sequence[Mapping[str, Any]]) -> Table:
    made = [
        {
            **{key: Text(clean(str(each.get(key.lower())))) for key in _OF_WORKERS},
            "STATE": word(each.get("state")),
            "UPTIME": Text(age(float(each.get("uptime") or 0))),
            "CPU": Text(f"{float(each.get('cpu_seconds') or 0):.1f} s"),
            "MEMORY": Text(f"{float(each.get('resident_bytes') or 0) / 1e6:.1f} MB"),
        }
        for each in rows
    ]
    columns: tuple[str, ...] = _OF_WORKERS
    if is_terminal():
        columns = _kept(columns, _widths(columns, made), ("CPU", "MEMORY", "RESTARTS", "UPTIME"), console().width)
    found = table(*columns, numbers=("WORKER", "PID", *_OF_WORKERS[3:]))
    for row in made:
        found.add_row(*(row[column] for column in columns))
    return found


def _listeners(status: Mapping[str, Any]) -> Table:
    found = table("LISTENER", "BIND", "PROTOCOL", "STATE", "CONNECTIONS", numbers=("CONNECTIONS",))
    for each in status.get("listeners", ()):
        names = [cut(Text(clean(str(each.get(key))))) for key in ("name", "bind", "protocol")]
        found.add_row(*names, word(each.get("state")), str(each.get("connections")))
    return found


_NOTHING: Final = Text("")
_NUMBERS: Final = ("WEIGHT", "ACTIVE", "REQUESTS", "FAILURES", "LATENCY")
_COLUMNS: Final[tuple[str, ...]] = (
    "POOL",
    "BACKEND",
    "ADDRESS",
    "WEIGHT",
    "STATE",
    "HEALTH",
    "CIRCUIT",
    *_NUMBERS[1:],
    "LAST CHECK",
)
#: What is left out first where there is no room.
_LEAST: Final = ("LAST CHECK", "CIRCUIT", "ADDRESS", "WEIGHT", "LATENCY", "FAILURES", "REQUESTS", "POOL")
#: Between two columns on a terminal.
_GAP: Final = 2
#: A name is not cut for a column that can be left out, unless it is longer than this.
_LONG_NAME: Final = 32


def _pools(status: Mapping[str, Any]) -> list[RenderableType]:
    if not status["pools"]:
        return []
    rows, columns = _rows(status), _COLUMNS
    if is_terminal():
        columns = fitting(rows, console().width)
        if "WEIGHT" not in columns:  # who came at run time is less than that
            rows = _rows(status, is_brief=True)
            columns = fitting(rows, console().width)
    found = table(*columns, numbers=_NUMBERS)
    for row in rows:
        found.add_row(*(cut(row.get(column, _NOTHING)) for column in columns))
    notes = []
    for pool in status["pools"]:
        name = clean(str(pool.get("name")))
        if pool.get("queued"):
            notes.append(f"{name}: {pool['queued']} wait in its queue")
        for backend in pool.get("backends", ()) if "LAST CHECK" not in columns else ():
            checked = backend.get("last_check")
            if isinstance(checked, dict) and not checked.get("ok"):
                notes.append(f"{name}/{clean(str(backend.get('name')))}: last check {last_check(checked)}")
    return ["", found, *(Text(each, "yellow") for each in notes)]


def _rows(status: Mapping[str, Any], *, is_brief: bool = False) -> list[dict[str, Text]]:
    rows: list[dict[str, Text]] = []
    for pool in status["pools"]:
        name = clean(str(pool.get("name")))
        rows += ({"POOL": Text(name), **_backend(backend, is_brief)} for backend in pool.get("backends", ()))
        if not pool.get("backends"):
            rows.append({"POOL": Text(name), "BACKEND": word("-")})
    return rows


def fitting(rows: Sequence[Mapping[str, Text]], room: int) -> tuple[str, ...]:
    """The columns for which there is room, in so many cells.

    An address that is the name as well, and circuits that are all closed, are the first that nobody misses.
    """
    widths = _widths(_COLUMNS, rows)
    for name in ("POOL", "BACKEND", "ADDRESS"):
        widths[name] = min(widths[name], _LONG_NAME)
    vain = []
    if all(row.get("ADDRESS", _NOTHING).plain in row.get("BACKEND", _NOTHING).plain for row in rows):
        vain.append("ADDRESS")
    if all(row.get("CIRCUIT", _NOTHING).plain in ("closed", "-", "") for row in rows):
        vain.append("CIRCUIT")
    return _kept(_COLUMNS, widths, (*vain, *_LEAST), room)


def _widths(columns: Sequence[str], rows: Sequence[Mapping[str, Text]]) -> dict[str, int]:
    return {column: max([len(column), *(row.get(column, _NOTHING).cell_len for row in rows)]) for column in columns}


def _kept(columns: Sequence[str], widths: Mapping[str, int], least: Sequence[str], room: int) -> tuple[str, ...]:
    """Those for which there is room; `least` go first."""
    kept = list(columns)
    for column in least:
        if sum(widths[each] + _GAP for each in kept) - _GAP <= room:
            break
        if column in kept:
            kept.remove(column)
    return tuple(kept)


def _backend(backend: Mapping[str, Any], is_brief: bool) -> dict[str, Text]:
    is_marked = is_added(backend) and not is_brief
    marks = [mark for mark, is_so in (("backup", backend.get("backup")), ("runtime", is_marked)) if is_so]
    name = clean(str(backend.get("name"))) + (f" ({', '.join(marks)})" if marks else "")
    return {
        "BACKEND": Text(name),
        "ADDRESS": Text(clean(str(backend.get("address")))),
        "STATE": word(backend.get("state")),
        "HEALTH": word(backend.get("health")),
        "CIRCUIT": word(backend.get("circuit")),
        **{key: Text(str(backend.get(key.lower()))) for key in ("WEIGHT", "ACTIVE", "REQUESTS", "FAILURES")},
        "LATENCY": Text(latency(backend.get("latency"))),
        "LAST CHECK": Text(last_check(backend.get("last_check"))),
    }


def is_added(backend: Mapping[str, Any]) -> bool:
    """Whether it came at run time."""
    return backend.get("source") == "runtime"


def for_health(health: Mapping[str, Mapping[str, bool]]) -> str:
    """By pool and address."""
    found = table("POOL", "ADDRESS", "UP")
    for pool, addresses in health.items():
        for address, is_up in addresses.items():
            found.add_row(cut(Text(clean(pool))), cut(Text(clean(address))), word("yes" if is_up else "no"))
    return drawn(found)


def age(seconds: float) -> str:
    """3d 4h, 2h 5m, 1m 3s, 12s: the two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def latency(seconds: Any) -> str:
    """1.25 s, 12.5 ms, 80 µs, or - where there is none."""
    if not isinstance(seconds, int | float):
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"


def last_check(checked: Any) -> str:
    """What the last check found."""
    if not isinstance(checked, dict):
        return "-"
    return ("ok: " if checked.get("ok") else "failed: ") + clean(str(checked.get("detail")))
