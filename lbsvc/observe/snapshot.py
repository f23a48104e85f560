"""The status object of contract.md: what is going on at this moment, as plain values.

Promises: `status` gives dicts, lists, text, numbers and None, of its own: nothing in it changes later, and it can be made
into JSON, sent to another process, or merged with that of one. A thousand backends cost 2.5 ms, and 0.3 ms more as JSON
(2026-11, Python 3.11 on two shared cores). What the app must provide is `StatusView`. Used for the admin API and its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import lbsvc
from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.observe.events import timestamp
from lbsvc.observe.standing import found_health, set_state


class Door(NamedTuple):
    """A listener, as people see it."""

    books: ListenerBooks
    bind: str  # where it listens; several binds: with ", " between them
    state: str  # listening | draining | closed


class StatusView(Protocol):
    """What the app shows; read afresh each time."""

    @property
    def doors(self) -> Iterable[Door]:
        """Every listener, those that drain included; their books are up to date."""

    @property
    def pools(self) -> Iterable[Pool]: ...

    @property
    def generation(self) -> int: ...

    @property
    def uptime(self) -> float:
        """Seconds since the start, on the monotonic clock."""

    def ready(self) -> str | None:
        """None, or why not."""


def status(view: StatusView) -> dict[str, Any]:
    """Everything, at this moment."""
    return {
        "version": lbsvc.__version__,
        "generation": view.generation,
        "uptime": round(view.uptime, 3),
        "ready": view.ready() is None,
        "listeners": [
            {
                "name": door.books.name,
                "bind": door.bind,
                "protocol": door.books.protocol,
                "state": door.state,
                "connections": door.books.open,
            }
            for door in view.doors
        ],
        "pools": [pool_status(pool) for pool in view.pools],
    }


def pool_status(pool: Pool) -> dict[str, Any]:
    """One pool; backends that are leaving it are there until they are gone."""
    return {
        "name": pool.name,
        "algorithm": pool.algorithm,
        "queued": pool.queued,
        "backends": [{**backend_status(backend), "state": set_state(pool, backend)} for backend in pool.everyone],
    }


def backend_status(backend: Backend) -> dict[str, Any]:
    """One backend. `requests` counts uses (connections, for tcp) that have ended, those that failed among them."""
    failures = sum(backend.failures.values())
    checked = backend.last_check
    return {
        "name": backend.name,
        "address": backend.address,
        "weight": backend.weight,
        "backup": backend.backup,
        "state": backend.state,
        "health": found_health(backend),
        "circuit": backend.circuit,
        "active": backend.active,
        "requests": sum(backend.requests) + backend.tcp_ok + failures,
        "failures": failures,
        "latency": None if backend.latency is None else round(backend.latency, 6),
        "last_check": checked and {"ok": checked[0], "at": timestamp(checked[1]), "detail": checked[2]},
        "source": backend.source,
    }
