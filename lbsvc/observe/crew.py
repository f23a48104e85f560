"""Metrics of the worker processes, where there are any.

Promises: every state is there from the start, at zero; series of a place go with it. process_* are the parent's own. Given
to the collector (observe/metrics.py) by app.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from lbsvc.observe.metrics import Row, Series, View

#: What a worker is at; `hung`: it does not answer, and is going to be replaced.
WORKER_STATES: Final = ("serving", "starting", "leaving", "hung")


class Workers(Protocol):
    """The workers, seen from outside."""

    def rows(self) -> list[dict[str, Any]]:
        """Each (`Worker` in admin/schemas.py), as it is now."""


class Spent:
    """CPU seconds of all workers of each place, those that are gone too: as of when they were last looked at."""

    def __init__(self) -> None:
        #: pid -> place and seconds of those that live
        self._living: dict[int, tuple[int, float]] = {}
        self._gone: dict[int, float] = {}

    def by_place(self, rows: Iterable[Mapping[str, Any]]) -> dict[int, float]:
        """What it is now: it never falls."""
        former, self._living = self._living, {}
        for row in rows:
            before = former.pop(row["pid"], (0, 0.0))[1]
            self._living[row["pid"]] = row["worker"], max(before, row["cpu_seconds"])
        for place, seconds in former.values():
            self._gone[place] = self._gone.get(place, 0.0) + seconds
        found = dict(self._gone)
        for place, seconds in self._living.values():
            found[place] = found.get(place, 0.0) + seconds
        return found


def worker_series(crew: Workers) -> tuple[Series, ...]:
    """What there is to measure of them. Where one replaces another both are in a place, for a while."""
    spent = Spent()

    def states(view: View) -> Iterator[Row]:
        found = [row["state"] for row in crew.rows()]
        for state in WORKER_STATES:
            yield (state,), found.count(state)

    def by_place(add: Callable[[list[float]], float], key: str) -> Callable[[View], Iterator[Row]]:
        def rows(view: View) -> Iterator[Row]:
            found: dict[int, list[float]] = {}
            for row in crew.rows():
                found.setdefault(row["worker"], []).append(row[key])
            for place, numbers in found.items():
                yield (str(place),), add(numbers)

        return rows

    def seconds(view: View) -> Iterator[Row]:
        for place, number in sorted(spent.by_place(crew.rows()).items()):
            yield (str(place),), number

    return (
        Series("gauge", "lbsvc_workers", "Worker processes, by what they are at.", ("state",), states),
        Series("counter", "lbsvc_worker_restarts_total", "Workers of a place that died or hung, and were replaced.",
               ("worker",), by_place(max, "restarts")),
        Series("counter", "lbsvc_worker_cpu_seconds_total", "CPU time of all workers that were in a place.",
               ("worker",), seconds),
        Series("gauge", "lbsvc_worker_resident_memory_bytes", "Resident memory of the workers in a place.", ("worker",),
               by_place(sum, "resident_bytes")),
    )  # fmt: skip
