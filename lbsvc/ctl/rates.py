"""How fast counters grow: requests and failures a second of each backend and pool, from one status to the next.

Promises: memory is bounded by the backends of the last few statuses. Time is the service's own (`uptime`, seconds), so
that a status that came late tells no wrong rate; after a restart of the service, and for a backend that is new, there
is no rate (None) until the next status. Pure. Used by top.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Over so many statuses, a second apart, rates are taken: one alone jumps too much to be read.
SPAN: Final = 4

#: Pool, name, address: a name may be there twice, while one of them leaves.
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Row:
    """A backend at this moment."""

    key: Key
    weight: int
    marks: tuple[str, ...]  # backup, runtime
    state: str
    health: str
    circuit: str
    active: int
    requests: int
    failures: int
    latency: float | None
    rate: float | None  # requests a second
    failing: float | None  # failures a second

    @property
    def pool(self) -> str:
        return self.key[0]

    @property
    def name(self) -> str:
        return self.key[1]

    @property
    def address(self) -> str:
        return self.key[2]


@dataclass(frozen=True)
class PoolRow:
    """A pool at this moment, with its backends in the order of the status."""

    name: str
    algorithm: str
    queued: int
    rows: tuple[Row, ...]

    @property
    def up(self) -> int:
        """How many are found to be up, and may work."""
        return sum(row.health == "up" and row.state == "ready" for row in self.rows)

    @property
    def active(self) -> int:
        return sum(row.active for row in self.rows)

    @property
    def rate(self) -> float | None:
        return _total([row.rate for row in self.rows])

    @property
    def failing(self) -> float | None:
        return _total([row.failing for row in self.rows])


class Rates:
    """Statuses go in, pools with rates come out."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, dict[Key, tuple[int, int]]]] = deque(maxlen=SPAN)
        self.pools: tuple[PoolRow, ...] = ()

    def add(self, status: Mapping[str, Any]) -> None:
        """The next status."""
        uptime = float(status.get("uptime", 0))
        if self._past and uptime < self._past[-1][0]:
            self._past.clear()  # another process
        counts: dict[Key, tuple[int, int]] = {}
        self.pools = tuple(self._pool(pool, uptime, counts) for pool in status.get("pools", ()))
        if not self._past or uptime > self._past[-1][0]:
            self._past.append((uptime, counts))

    def _pool(self, pool: Mapping[str, Any], uptime: float, counts: dict[Key, tuple[int, int]]) -> PoolRow:
        name = str(pool.get("name"))
        rows = tuple(self._row(name, each, uptime, counts) for each in pool.get("backends", ()))
        return PoolRow(name, str(pool.get("algorithm")), int(pool.get("queued", 0)), rows)

    def _row(self, pool: str, backend: Mapping[str, Any], uptime: float, counts: dict[Key, tuple[int, int]]) -> Row:
        key = (pool, str(backend.get("name")), str(backend.get("address")))
        now = int(backend.get("requests", 0)), int(backend.get("failures", 0))
        counts[key] = now
        rate = failing = None
        for then, past in self._past:  # the oldest that has this backend
            before = past.get(key)
            if before is not None and uptime > then and now[0] >= before[0] and now[1] >= before[1]:
                rate, failing = ((a - b) / (uptime - then) for a, b in zip(now, before, strict=True))
                break
        latency = backend.get("latency")
        marks = ("backup",) * bool(backend.get("backup")) + ("runtime",) * (backend.get("source") == "runtime")
        return Row(
            key,
            int(backend.get("weight", 0)),
            marks,
            str(backend.get("state")),
            str(backend.get("health")),
            str(backend.get("circuit")),
            int(backend.get("active", 0)),
            now[0],
            now[1],
            float(latency) if isinstance(latency, int | float) else None,
            rate,
            failing,
        )


def _total(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def as_json(status: Mapping[str, Any], pools: tuple[PoolRow, ...]) -> dict[str, Any]:
    """The same for --json: rates are null until they are known."""
    return {
        "uptime": status.get("uptime"),
        "generation": status.get("generation"),
        "ready": status.get("ready"),
        **({"workers": status["workers"]} if "workers" in status else {}),
        "pools": [
            {
                "name": pool.name,
                "queued": pool.queued,
                "active": pool.active,
                "requests_per_second": _rounded(pool.rate),
                "failures_per_second": _rounded(pool.failing),
                "backends": [
                    {
                        "name": row.name,
                        "address": row.address,
                        "weight": row.weight,
                        "state": row.state,
                        "health": row.health,
                        "circuit": row.circuit,
                        "active": row.active,
                        "latency": row.latency,
                        "requests_per_second": _rounded(row.rate),
                        "failures_per_second": _rounded(row.failing),
                    }
                    for row in pool.rows
                ],
            }
            for pool in pools
        ],
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)
