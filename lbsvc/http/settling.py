"""What remains of an exchange: counts on the books of its listener and route, and a line for the access log.

Promises: called once for each exchange, when it is over; adds and appends, nothing else. Called by exchange.py, which
releases the lease itself.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from lbsvc.core.books import BUCKETS, METHODS
from lbsvc.core.record import AccessRecord

if TYPE_CHECKING:
    from lbsvc.http.either import DownstreamSide
    from lbsvc.http.exchange import Exchange
    from lbsvc.net.arrival import Arrival


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
    head, status = exchange.head, exchange.status
    method: bytes | None = head.method
    key = (method if method in METHODS else b"other", status)
    requests = route.requests
    requests[key] = requests.get(key, 0) + 1
    code = exchange.grpc_status
    if code is not None:
        route.grpc[code] = route.grpc.get(code, 0) + 1
    began = exchange.asked_at or exchange.began
    seconds = now - began
    duration = route.duration
    duration.counts[bisect_left(BUCKETS, seconds)] += 1
    duration.total += seconds
    log = site.log
    if log is None:
        return
    # Each part is looked up once, and the tuple is made in one go: this is run for every request.
    connection, section = exchange.connection, head.section
    target: bytes | None = head.target
    peer = connection.peer
    client = section.client or peer
    if method == b"-":  # it could not be read: nothing is known of it
        method = target = None
        client = peer
    backend, attempts, arrival = exchange.released, exchange.attempts, connection.arrival
    placed, connected, first = exchange.placed_at, exchange.connected_at, exchange.first_at
    failures = exchange.failures
    agent, referer = section.logged or section.look_up_logged()
    record: AccessRecord = (  # in the order of lbsvc.core.record
        site.wall(),
        exchange.id,
        books.name,
        head.protocol,
        client,
        peer,
        method,
        head.host,
        target,
        status,
        connection.take_bytes_in(),
        exchange.bytes_out,
        destination.name if destination is not None else "none",
        destination.pool if destination is not None else None,
        backend.name if backend is not None else None,
        attempts,
        reason,
        placed - began if placed else None,
        # A connection of an earlier try says nothing about the one that was used.
        connected - began if connected and connected >= exchange.tried_at else None,
        (first - began if first != now else seconds) if first else None,
        seconds,
        agent,
        referer,
        # Where every try has failed, what ended the request was none.
        (*failures, (backend.name if backend is not None else "", reason))[:attempts] if failures else None,
        arrival.tls if arrival is not None else None,
        _take_handshake(connection, arrival) if arrival is not None else None,
        code,
    )
    log(record)


def _take_handshake(connection: DownstreamSide, arrival: Arrival) -> float | None:
    """The seconds of the connection's handshake, for its first record; None from then on."""
    if not arrival.handshake:
        return None
    connection.arrival = arrival._replace(handshake=0.0)
    return arrival.handshake
