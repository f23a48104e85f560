"""What remains of an exchange: counts on the books of its listener and route, and a line for the access log.

Promises: called once for each exchange, when it is over; adds and appends, nothing else. Called by exchange.py, which
releases the lease itself.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from lbsvc.core.books import BUCKETS, METHODS

if TYPE_CHECKING:
    from lbsvc.http.exchange import Exchange


def settle(exchange: Exchange, now: float) -> None:
    """Count it and log it."""
    site = exchange.site
    books = site.books
    books.in_flight -= 1
    reason = exchange.reason
    if reason != "ok":  # those are counted by HttpSite.count, from the requests of all routes
        books.terminations[reason] = books.terminations.get(reason, 0) + 1
    destination = exchange.destination
    route = destination.books if destination is not None else site.unrouted
    method = exchange.head.method
    key = (method if method in METHODS else b"other", exchange.status)
    requests = route.requests
    requests[key] = requests.get(key, 0) + 1
    seconds = now - exchange.began
    route.duration.counts[bisect_left(BUCKETS, seconds)] += 1
    route.duration.total += seconds
    if site.log is not None:
        site.log(access_record(exchange, seconds))


def access_record(exchange: Exchange, seconds: float) -> tuple[Any, ...]:
    """The record, in the order of lbsvc.core.record."""
    head, site, connection = exchange.head, exchange.site, exchange.connection
    destination, backend, began = exchange.destination, exchange.released, exchange.began
    is_read = head.method != b"-"  # else nothing is known of it
    return (
        site.wall(),
        exchange.id,
        site.books.name,
        "HTTP/1.1" if head.minor else "HTTP/1.0",
        connection.peer,
        connection.peer,
        head.method if is_read else None,
        head.host,
        head.target if is_read else None,
        exchange.status,
        connection.take_bytes_in(),
        exchange.bytes_out,
        destination.name if destination is not None else "none",
        destination.pool if destination is not None else None,
        backend.name if backend is not None else None,
        exchange.attempts,
        exchange.reason,
        None,
        exchange.connected_at - began if exchange.connected_at else None,
        exchange.first_at - began if exchange.first_at else None,
        seconds,
        *(head.section.logged or head.section.look_up_logged()),
    )
