"""How what a worker has counted is added to the books, routes, pools and backends of the parent: by difference.

Promises: `before` is what had been added when it was added last, None where nothing had; counts that have fallen since have
begun anew, and all of them are new then. Floating sums come last, and may be rounded another way without having begun anew.
Pure. Called by ledger.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import sub
from typing import Final, TypeVar

from lbsvc.core.backend import Backend
from lbsvc.core.books import Histogram, ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.workers.reports import ANSWERS, BackendReport, Counts, ListenerReport, Piece, PoolReport, RouteReport

H = TypeVar("H", bound=Hashable)

#: A sum of durations that seems to have fallen by less has only been added up in another order, in seconds.
_ROUNDING: Final = 1e-6


def growth(now: Counts, before: Sequence[int | float]) -> Counts:
    """By how much counts have grown; where any has begun anew, all are what they say. Nothing `before`: they are new."""
    if not before:
        return now
    grown = list(map(sub, now, before))
    if min(grown) < -_ROUNDING:
        return now
    if grown[-1] < 0:
        grown[-1] = 0
    return grown


def add_words(counts: dict[H, int], now: Mapping[H, int], before: Mapping[H, int]) -> int:
    """The same of what is counted by words, added to where it belongs; how much it was in all."""
    if any(now.get(word, 0) < count for word, count in before.items()):
        before = {}
    added = 0
    for word, count in now.items():
        more = count - before.get(word, 0)
        if more or word not in counts:
            counts[word] = counts.get(word, 0) + more
            added += more
    return added


def add_durations(histogram: Histogram, grown: Counts) -> None:
    """Counts by bucket, and behind them the sum."""
    histogram.counts = [one + int(more) for one, more in zip(histogram.counts, grown[:-1], strict=True)]
    histogram.total += grown[-1]


def add_listener(piece: ListenerReport, before: Piece | None, books: ListenerBooks) -> int:
    """How many requests it was."""
    former = before if isinstance(before, ListenerReport) else None
    accepted, bytes_in, bytes_out, requests = growth(piece.counts, former.counts if former is not None else ())
    books.accepted += int(accepted)
    books.bytes_in += int(bytes_in)
    books.bytes_out += int(bytes_out)
    add_words(books.rejected, piece.rejected, former.rejected if former is not None else {})
    add_words(books.handshakes, piece.handshakes, former.handshakes if former is not None else {})
    add_words(books.terminations, piece.terminations, former.terminations if former is not None else {})
    return int(requests)


def add_route(piece: RouteReport, before: Piece | None, books: ListenerBooks) -> int:
    """How many requests it was."""
    former = before if isinstance(before, RouteReport) else None
    route = books.route(piece.route, piece.pool)
    limited, *durations = growth(piece.counts, former.counts if former is not None else ())
    route.limited += int(limited)
    add_durations(route.duration, durations)
    add_words(route.grpc, piece.grpc, former.grpc if former is not None else {})
    return add_words(route.requests, piece.requests, former.requests if former is not None else {})


def add_pool(piece: PoolReport, before: Piece | None, pool: Pool) -> None:
    """Retries."""
    retries, exhausted = growth(piece.counts, before.counts if before is not None else ())
    pool.retries += int(retries)
    pool.budget_exhausted += int(exhausted)


def add_backend(piece: BackendReport, before: Piece | None, backend: Backend) -> int:
    """How many answers it was."""
    grown = growth(piece.counts, before.counts if before is not None else ())
    if not any(grown):
        return 0
    answers = [int(more) for more in grown[:ANSWERS]]
    backend.requests = [one + more for one, more in zip(backend.requests, answers, strict=True)]
    backend.tcp_ok += int(grown[ANSWERS])
    backend.tcp_error += int(grown[ANSWERS + 1])
    at = ANSWERS + 2
    for reason in backend.failures:
        backend.failures[reason] += int(grown[at])
        at += 1
    add_durations(backend.duration, grown[at:])
    return sum(answers)
