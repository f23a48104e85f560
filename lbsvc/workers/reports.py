"""What a worker has counted, as numbers that another process can read: the whole, and each time only what has changed.

Promises: a report holds absolute numbers (never differences), so that one that is told twice, or lost, does no harm to
those that follow; of each listener, route, pool and backend it holds only those that have changed since the last one, and
`gone` names those that are no more, or have begun anew. What is counted of backends is told by name, as it is shown
(observe/standing.py): all that stand under one name together, of whom one may leave and be inherited meanwhile. What is so
at this moment (`Stand`) is told of each by its address. Durations are seconds.

Asked by worker.py, about once a second; read by ledger.py. Costs, of 1000 backends (Python 3.11 on two shared cores): 1.5 ms
a report, whether nothing or all of it is new; that is 50 bytes, or 90 KB and 1 ms to write and to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias, TypeVar

import msgspec

from lbsvc.core.backend import Backend
from lbsvc.core.books import Histogram, ListenerBooks, RouteBooks
from lbsvc.core.overload import Overload
from lbsvc.core.pool import Pool
from lbsvc.observe.standing import namesakes

#: What only grows, in an agreed order.
Counts: TypeAlias = list[int | float]

#: Which thing a number is about: a word for its kind, and its names.
Key: TypeAlias = tuple[str, ...]

#: So many of a backend's counts are of answers with a status.
ANSWERS: Final = 6


class ListenerReport(msgspec.Struct, array_like=True, frozen=True):
    """One listener. `counts`: accepted, bytes in and out, and all its requests, those of routes that are gone included."""

    name: str
    protocol: str
    open: int
    in_flight: int
    counts: Counts
    rejected: dict[str, int]
    handshakes: dict[tuple[str, str], int]
    terminations: dict[str, int]

    @property
    def key(self) -> Key:
        """It goes by its protocol too: books are of one."""
        return "listener", self.name, self.protocol


class RouteReport(msgspec.Struct, array_like=True, frozen=True):
    """One route of a listener towards one pool. `counts`: limited, the durations by bucket, and their sum."""

    listener: str
    protocol: str
    route: str
    pool: str
    counts: Counts
    requests: dict[tuple[bytes, int], int]
    grpc: dict[int, int]

    @property
    def key(self) -> Key:
        """Its listener's, and its own names."""
        return "route", self.listener, self.protocol, self.route, self.pool


class PoolReport(msgspec.Struct, array_like=True, frozen=True):
    """One pool. `counts`: retries, and tries that the budget did not allow."""

    name: str
    waiting: int
    counts: Counts

    @property
    def key(self) -> Key:
        """Its name."""
        return "pool", self.name


class Stand(msgspec.Struct, array_like=True, frozen=True):
    """How a backend is just now."""

    address: str
    active: int
    connections: int
    latency: float | None
    circuit: str
    is_ejected: bool


class BackendReport(msgspec.Struct, array_like=True, frozen=True):
    """All that stand under one name in a pool. `counts`: answers by class (ANSWERS of them), ok and error of tcp, failures
    by reason in the order of core.backend.FAILURES, the durations by bucket, and their sum."""

    pool: str
    name: str
    stands: list[Stand]
    counts: Counts

    @property
    def key(self) -> Key:
        """By name."""
        return "backend", self.pool, self.name


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What has changed since the last one."""

    gone: list[Key]
    listeners: list[ListenerReport]
    routes: list[RouteReport]
    pools: list[PoolReport]
    backends: list[BackendReport]
    lag: Counts  # how late the reactor was, by bucket, and the sum
    is_overloaded: bool
    dropped: dict[str, int]  # lines by log


Piece: TypeAlias = ListenerReport | RouteReport | PoolReport | BackendReport
P = TypeVar("P", ListenerReport, RouteReport, PoolReport, BackendReport)


class Reporter:
    """Looks at what a worker has counted. What is looked at is asked for each time."""

    def __init__(
        self,
        listeners: Callable[[], Iterable[ListenerBooks]],
        pools: Callable[[], Iterable[Pool]],
        lag: Histogram,
        overload: Overload,
        dropped: Callable[[], Mapping[str, int]],
    ) -> None:
        self._listeners = listeners
        self._pools = pools
        self._lag = lag
        self._overload = overload
        self._dropped = dropped
        #: what was told last of what is there, and whose numbers they were where another of that name begins with none
        self._told: dict[Key, tuple[object, Piece]] = {}

    def report(self) -> Report:
        """Everything at first, afterwards what has changed."""
        before, self._told = self._told, {}
        report = Report(
            [], [], [], [], [],
            [*self._lag.counts, self._lag.total], self._overload.is_on, dict(self._dropped()),
        )  # fmt: skip
        for books in self._listeners():
            for route in books.routes.values():
                self._tell(before, report.gone, report.routes, route, _route(books, route))
            self._tell(before, report.gone, report.listeners, books, _listener(books))
        for pool in self._pools():
            self._tell(before, report.gone, report.pools, pool, _pool(pool))
            for name, found in namesakes(pool):
                # No object: whoever has the name goes on with the counts of who had it (Backend.inherit).
                self._tell(before, report.gone, report.backends, None, _backend(pool.name, name, found))
        report.gone.extend(before)
        return report

    def _tell(
        self, before: dict[Key, tuple[object, Piece]], gone: list[Key], changed: list[P], whose: object, piece: P
    ) -> None:
        """Have it told, if it is news."""
        key = piece.key
        told = before.pop(key, None)
        self._told[key] = whose, piece
        if told is not None and told[0] is not whose:
            gone.append(key)
        elif told is not None and told[1] == piece:
            return
        changed.append(piece)


def _listener(books: ListenerBooks) -> ListenerReport:
    requests = books.forgotten + sum([sum(route.requests.values()) for route in books.routes.values()])
    return ListenerReport(
        books.name,
        books.protocol,
        books.open,
        books.in_flight,
        [books.accepted, books.bytes_in, books.bytes_out, requests],
        dict(books.rejected),
        dict(books.handshakes),
        dict(books.terminations),
    )


def _route(listener: ListenerBooks, books: RouteBooks) -> RouteReport:
    return RouteReport(
        listener.name,
        listener.protocol,
        books.route,
        books.pool,
        [books.limited, *books.duration.counts, books.duration.total],
        dict(books.requests),
        dict(books.grpc),
    )


def _pool(pool: Pool) -> PoolReport:
    return PoolReport(pool.name, len(pool.queue), [pool.retries, pool.budget_exhausted])


def _backend(pool: str, name: str, found: list[Backend]) -> BackendReport:
    counts = _counts(found[0])
    for other in found[1:]:
        counts = [one + more for one, more in zip(counts, _counts(other), strict=True)]
    stands = [
        Stand(each.address, each.active, each.connections, each.latency, each.circuit, each.is_ejected)
        for each in found
    ]
    return BackendReport(pool, name, stands, counts)


def _counts(backend: Backend) -> Counts:
    return [
        *backend.requests,
        backend.tcp_ok,
        backend.tcp_error,
        *backend.failures.values(),
        *backend.duration.counts,
        backend.duration.total,
    ]
