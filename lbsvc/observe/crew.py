"""Metrics of the worker processes, where there are any.

Promises: every state is there from the start, at zero; series of a place go with it. process_* are the parent's own. Given
to the collector (observe/metrics.py) by app.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from lbsvc.observe.metrics import Row, Series, View

#: What a worker is at; `hung`: it does not answer, and is going to be replaced.
WORKER_STATES: Final = ("serving", "starting", "leaving", "hung")


class Workers(Protocol):
    """The workers, seen from outside."""

    def rows(self) -> list[dict[str, Any]]:
        """Each (`Worker` in admin/schemas.py), as it is now."""


def worker_series(crew: Workers) -> tuple[Series, ...]:
    """What there is to measure of them."""

    def states(view: View) -> Iterator[Row]:
        found = [row["state"] for row in crew.rows()]
        for state in WORKER_STATES:
            yield (state,), found.count(state)

    def each(key: str) -> Callable[[View], Iterator[Row]]:
        return lambda view: (((str(row["worker"]),), row[key]) for row in crew.rows())

    return (
        Series("gauge", "lbsvc_workers", "Worker processes, by what they are at.", ("state",), states),
        Series("counter", "lbsvc_worker_restarts_total", "Workers of a place that died or hung, and were replaced.",
               ("worker",), each("restarts")),
        Series("counter", "lbsvc_worker_cpu_seconds_total", "CPU time of the worker that is in a place now.",
               ("worker",), each("cpu_seconds")),
        Series("gauge", "lbsvc_worker_resident_memory_bytes", "Resident memory of a worker.", ("worker",),
               each("resident_bytes")),
    )  # fmt: skip
