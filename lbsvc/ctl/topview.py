"""What `lbctl top` shows, and what its keys mean: a value that statuses and keys change, and a drawing of it.

Promises: pure but for `drawing`, which fits the height and draws no row that is not seen, however many backends there
are. The chosen backend stays chosen when others come, go, or are sorted. Used by top.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lbsvc.ctl.rates import Key, PoolRow, Rates, Row
from lbsvc.ctl.session import clean
from lbsvc.ctl.tables import age, cut, latency, table, word

#: By what backends are sorted within their pool, each with its largest first where it is a number.
ORDERS: Final[dict[str, Callable[[Row], Any]]] = {
    "configured": lambda row: 0,
    "name": lambda row: row.name,
    "requests": lambda row: -(row.rate or 0.0),
    "failures": lambda row: -(row.failing or 0.0),
    "latency": lambda row: -(row.latency or 0.0),
    "active": lambda row: -row.active,
    "health": lambda row: (row.health == "up", row.state == "ready"),
}

HELP: Final = "↑↓ choose   s sort   S reverse   d drain   r ready   q quit"

#: Lines that are no rows: the head, the heads of the columns and the line under them, the message, the help, and one spare.
_FRAME: Final = 6


@dataclass(frozen=True)
class Wish:
    """What a key asks the service for."""

    key: Key
    state: str


class Top:
    """Everything that is on the screen."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.order = "configured"
        self.is_reversed = False
        self.message = ""
        self.has_ended = False
        self._chosen: Key | None = None
        self._index = 0  # where the chosen one was, for when it is gone
        self._status: Mapping[str, Any] = {}
        self._rates = Rates()

    # -- what changes it

    def add(self, status: Mapping[str, Any]) -> None:
        """The next status."""
        self._status = status
        self._rates.add(status)

    def press(self, key: str) -> Wish | None:
        """A key: what it asks for, if it asks for anything."""
        if key in ("q", "Q"):
            self.has_ended = True
        elif key in ("s", "S"):
            names = list(ORDERS)
            if key == "s":
                self.order = names[(names.index(self.order) + 1) % len(names)]
            else:
                self.is_reversed = not self.is_reversed
            self.message = f"sorted by {self.order}" + (", reversed" if self.is_reversed else "")
        elif key in _STEPS:
            self._step(_STEPS[key])
        elif key in ("d", "r"):
            chosen = self.chosen
            if chosen is not None:
                return Wish(chosen.key, "drain" if key == "d" else "ready")
            self.message = "there is no backend"
        return None

    def _step(self, by: int) -> None:
        rows = self._rows()
        if rows:
            at = self._at(rows)
            self._index = max(0, min(at + by, len(rows) - 1))
            self._chosen = rows[self._index].key

    # -- what it is

    @property
    def chosen(self) -> Row | None:
        """The backend that keys are about."""
        rows = self._rows()
        return rows[self._at(rows)] if rows else None

    def _at(self, rows: list[Row]) -> int:
        for at, row in enumerate(rows):
            if row.key == self._chosen:
                self._index = at
                return at
        return min(self._index, len(rows) - 1)

    def _rows(self) -> list[Row]:
        return [row for _, rows in self._pools() for row in rows]

    def _pools(self) -> list[tuple[PoolRow, list[Row]]]:
        by = ORDERS[self.order]
        found = []
        for pool in self._rates.pools:
            rows = sorted(pool.rows, key=by)
            found.append((pool, rows[::-1] if self.is_reversed else rows))
        return found

    # -- how it is shown

    def drawing(self, height: int | None = None, width: int | None = None) -> RenderableType:
        """At most so many lines, of columns that have room; None: all of it, without keys."""
        lines: list[tuple[PoolRow, Row | None]] = []
        for pool, rows in self._pools():
            lines.append((pool, None))
            lines += [(pool, row) for row in rows]
        chosen = self.chosen
        first, last = 0, len(lines)
        if height is not None:
            room = max(height - _FRAME, 1)
            at = next((i for i, (_, row) in enumerate(lines) if row is not None and row is chosen), 0)
            first = max(0, min(at - room // 2, len(lines) - room))
            last = first + room
        names = tuple(name for name, least in COLUMNS.items() if width is None or width >= least)
        drawn = _columns(names, is_cut=width is not None)
        for pool, row in lines[first:last]:
            if row is None:
                cells = _pool_cells(pool)
                drawn.add_row(*(cells.get(name, Text("")) for name in names), style="bold")
            else:
                cells = _cells(row)
                style = "reverse" if height is not None and row is chosen else ""
                drawn.add_row(*(cells[name] for name in names), style=style)
        parts: list[RenderableType] = [self._head(), drawn]
        if height is not None:
            more = len(lines) - (min(last, len(lines)) - first)
            said = self.message or (f"{more} more lines" if more > 0 else "")
            parts += [cut(Text(clean(said), "yellow")), cut(Text(HELP, "dim"))]
        return Group(*parts)

    def _head(self) -> Text:
        status = self._status
        if not status:
            return cut(Text(clean(f"lbsvc at {self.place}: waiting for its first status")))
        ready = Text("ready", "green") if status.get("ready") else Text("not ready", "bold red")
        uptime = age(float(status.get("uptime", 0)))
        said = f"lbsvc {status.get('version')} at {self.place}, generation {status.get('generation')}, up {uptime}, "
        return cut(Text.assemble(clean(said), ready, *self._crew()))

    def _crew(self) -> list[Text]:
        """How many workers there are, where there are any."""
        states = [each.get("state") for each in self._status.get("workers", ())]
        serving = states.count("serving")
        words = f"{len(states)} workers" if serving == len(states) else f"{serving} of {len(states)} workers serving"
        return [Text(", "), Text(words, "yellow" if serving < len(states) else "")] if states else []


_STEPS: Final = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -10, "page-down": 10, "home": -(10**9), "end": 10**9}

#: Each column, and how wide the terminal must be for it to be shown.
COLUMNS: Final = {
    "BACKEND": 0,
    "ADDRESS": 110,
    "STATE": 0,
    "HEALTH": 0,
    "CIRCUIT": 95,
    "WEIGHT": 80,
    "ACTIVE": 0,
    "REQ/S": 0,
    "FAIL/S": 0,
    "LATENCY": 60,
}
_NUMBERS: Final = ("WEIGHT", "ACTIVE", "REQ/S", "FAIL/S", "LATENCY")


def _columns(names: tuple[str, ...], *, is_cut: bool) -> Table:
    found = table(*names, numbers=_NUMBERS)
    for name, column in zip(names, found.columns, strict=True):
        column.overflow = "ellipsis"
        column.no_wrap = not (is_cut and name in ("BACKEND", "ADDRESS"))  # these give way where there is no room
    return found


def _pool_cells(pool: PoolRow) -> dict[str, Text]:
    queued = f", {pool.queued} queued" if pool.queued else ""
    return {
        "BACKEND": cut(Text(clean(pool.name) + queued)),
        "ADDRESS": cut(Text(clean(pool.algorithm))),
        "HEALTH": Text(f"{pool.up}/{len(pool.rows)} up", "" if pool.up == len(pool.rows) else "yellow"),
        "ACTIVE": Text(str(pool.active)),
        "REQ/S": Text(_rate(pool.rate)),
        "FAIL/S": _failing(pool.failing),
    }


def _cells(row: Row) -> dict[str, Text]:
    name = clean(row.name) + (f" ({', '.join(row.marks)})" if row.marks else "")
    return {
        "BACKEND": cut(Text(f"  {name}")),
        "ADDRESS": cut(Text(clean(row.address))),
        "STATE": word(row.state),
        "HEALTH": word(row.health),
        "CIRCUIT": word(row.circuit),
        "WEIGHT": Text(str(row.weight)),
        "ACTIVE": Text(str(row.active)),
        "REQ/S": Text(_rate(row.rate)),
        "FAIL/S": _failing(row.failing),
        "LATENCY": Text(latency(row.latency)),
    }


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _failing(rate: float | None) -> Text:
    return Text(_rate(rate), "red" if rate else "")
