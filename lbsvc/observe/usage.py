"""What a process costs and does: one row of `lbctl workers`, where this one carries the traffic by itself.

Promises: plain values of this moment, and no more cost than a small file that is read. Of other processes, which may have
ended, what is not known is 0. Used by controlling.py, and by workers/rows.py for rows of others. Times are seconds, sizes
bytes.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from typing import Any, Final, Protocol

from lbsvc.core.books import ListenerBooks
from lbsvc.observe.snapshot import Door

_PAGE: Final = resource.getpagesize()
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class UsageView(Protocol):
    """The part of the app that is looked at."""

    @property
    def doors(self) -> Iterable[Door]: ...

    @property
    def uptime(self) -> float: ...

    def ready(self) -> str | None:
        """None, or why not."""


def usage(view: UsageView) -> dict[str, Any]:
    """This process as the only worker."""
    books = [door.books for door in view.doors]
    why_not = view.ready()
    return {
        "worker": 1,
        "pid": os.getpid(),
        "state": "serving" if why_not is None else "leaving" if why_not == "draining" else "starting",
        "uptime": round(view.uptime, 3),
        "restarts": 0,
        "connections": connections(books),
        "requests": requests(books),
        "cpu_seconds": cpu_seconds(),
        "resident_bytes": resident_bytes(),
    }


def connections(listeners: Iterable[ListenerBooks]) -> int:
    """Of clients, now."""
    return sum(books.open for books in listeners)


def requests(listeners: Iterable[ListenerBooks]) -> int:
    """That have ended; of tcp listeners, connections."""
    count = 0
    for books in listeners:
        if books.protocol == "tcp":
            count += sum(books.terminations.values())
        else:
            count += books.forgotten + sum(sum(route.requests.values()) for route in tuple(books.routes.values()))
    return count


def cpu_seconds(pid: int | None = None) -> float:
    """Of all threads, since the start; of this process, where none is named."""
    if pid is None:
        return round(time.process_time(), 3)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # its name, in brackets, may hold anything
        return round((int(fields[11]) + int(fields[12])) / _TICKS, 3)
    except (OSError, IndexError, ValueError):
        return 0.0


def resident_bytes(pid: int | None = None) -> int:
    """Memory that is there now; of this process, where the system does not say, the most that there was."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0 if pid is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
