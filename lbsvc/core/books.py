"""Where counts are kept: plain ints and lists that the hot path adds to and the metrics collector reads.

Promises: an increment costs an attribute and an add; no lock, no label lookup, no string formatting. Numbers only grow,
but for gauges (`open`, `active`, `in_flight`). Durations are seconds, sizes bytes. Written by the roads (net, http),
read by observe; imports nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Final

#: Finer bounds than are exposed, for our own pages: most of what a backend near by answers takes less than a millisecond.
FINE: Final[tuple[float, ...]] = (0.0001, 0.00025, 0.0005)

#: Upper bounds of the duration histograms, in seconds: what follows FINE is exposed (contract.md); +Inf is implied.
BUCKETS: Final = (*FINE, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: Methods that get a label of their own in metrics; every other is `other`.
METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"})

#: How a TLS handshake may end, as (result, version); one that fails may not have come as far as a version.
HANDSHAKES: Final = (("success", "TLSv1.2"), ("success", "TLSv1.3"), ("failure", "none"))


#: Of so many routes of a listener that were removed the counts are still shown.
FORMER_ROUTES: Final = 100


class Histogram:
    """Counts by bucket. The hot path inlines `observe`: `h.counts[bisect_left(BUCKETS, s)] += 1; h.total += s`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, other: Histogram) -> None:
        """Take in what another has counted."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class RouteBooks:
    """What was answered on one route towards one pool."""

    __slots__ = ("duration", "grpc", "limited", "pool", "requests", "route")

    def __init__(self, route: str, pool: str) -> None:
        self.route = route
        self.pool = pool
        #: (method as a metric label, status code) -> how many
        self.requests: dict[tuple[bytes, int], int] = {}
        #: the code that a call of gRPC ended with -> how many
        self.grpc: dict[int, int] = {}
        self.duration = Histogram()
        self.limited = 0  # requests past a rate limit of the route, or (of the route "none") of the listener


class ListenerBooks:
    """What happened on one listener."""

    def __init__(self, name: str, protocol: str) -> None:
        self.name = name
        self.protocol = protocol
        self.open = 0  # connections now
        self.accepted = 0  # connections ever
        self.rejected = {"connections": 0, "rate_limited": 0, "overload": 0, "bad_proxy_header": 0}
        self.in_flight = 0  # http requests now
        self.bytes_in = 0
        self.bytes_out = 0
        #: (result, version) -> how many handshakes ended so
        self.handshakes: dict[tuple[str, str], int] = {}
        #: where TLS ends here, the certificates in force: first name -> when it ends to be valid, in Unix seconds
        self.certificates: Callable[[], Mapping[str, float]] | None = None
        #: what became of changed certificate files, "success" or "failure" -> how often, where TLS ends here
        self.certificate_reloads: Mapping[str, int] = {}
        #: reason word -> how many requests (http) or connections (tcp) ended so; on http also connections of which the
        #: PROXY header or the handshake failed
        self.terminations: dict[str, int] = {}
        #: (route, pool) -> books; `pool` is "none" where the route has none
        self.routes: dict[tuple[str, str], RouteBooks] = {}
        #: requests of routes whose books are gone
        self.forgotten = 0

    def route(self, route: str, pool: str) -> RouteBooks:
        """The books of one route, made when first asked for (at configuration time, never per request)."""
        books = self.routes.get((route, pool))
        if books is None:
            books = self.routes[route, pool] = RouteBooks(route, pool)
        return books

    def forget_routes(self, pools: Container[str], routes: Container[str]) -> None:
        """Books of routes to pools that are no more (`pools` are those that are) go; their requests stay counted.

        Of routes that are no more (`routes` are those that are) the last FORMER_ROUTES stay: a configuration that is made
        by a program may name its routes anew each time.
        """
        gone = [key for key in self.routes if key[1] != "none" and key[1] not in pools]
        former = [key for key in self.routes if key[0] not in routes and key not in gone]
        for key in (*gone, *former[: max(0, len(former) - FORMER_ROUTES)]):
            self.forgotten += sum(self.routes.pop(key).requests.values())
