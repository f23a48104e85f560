"""Metrics: the plain counters of the roads, pools and backends as Prometheus families, when somebody asks.

Promises: names, types and labels are those of contract.md; known label sets are there from the start, at zero; series
of what was removed go with it; no label value comes from a client (methods that are not known are `other`).
Collecting changes nothing and costs nothing between scrapes.

`LbsvcCollector` is an ordinary prometheus_client collector; `parts` gives the same in pieces of some `PART` samples,
so that admin/metricspage.py can let the reactor go on in between: a thousand backends are 60,000 lines. What the app
must provide is `View`. Durations are seconds. Each histogram is copied at one moment; different series of one page
may be some turns apart.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Final, Protocol

import twisted
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override

import lbsvc
from lbsvc.core.backend import Backend
from lbsvc.core.books import BUCKETS, FINE, HANDSHAKES, METHODS, Histogram, ListenerBooks, RouteBooks
from lbsvc.core.pool import Pool
from lbsvc.errors import REASONS
from lbsvc.observe.standing import CIRCUITS, STATES, namesakes, shown_state, together

_CODES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
_METHOD_LABELS: Final = {method: method.decode() for method in METHODS}
#: The `le` labels.
BOUNDS: Final = tuple(floatToGoString(bound) for bound in (*BUCKETS[len(FINE) :], float("inf")))


class View(Protocol):
    """What the app shows to the collector; read afresh at each scrape."""

    @property
    def listeners(self) -> Iterable[ListenerBooks]: ...

    @property
    def pools(self) -> Iterable[Pool]:
        """Those that were removed too, while anybody is leaving them."""

    @property
    def roads(self) -> Mapping[str, Collection[str]]:
        """Pool name -> protocols ("http", "tcp") of the listeners that send to it; a pool left out may be either."""

    @property
    def log_dropped(self) -> Mapping[str, int]: ...

    @property
    def reloads(self) -> Mapping[str, int]:
        """{"success": n, "failure": n}"""

    @property
    def last_reload_ok(self) -> bool: ...

    @property
    def generation(self) -> int: ...


class Refusing(Protocol):
    """Whether new requests and connections are refused, here or in any process of ours."""

    @property
    def is_on(self) -> bool: ...


Value = float | Histogram
Row = tuple[tuple[str, ...], Value]


@dataclass(frozen=True)
class Series:
    """One metric: how it is called, and where its numbers are."""

    kind: str  # counter | gauge | histogram
    name: str  # as samples are called; of a histogram, without _bucket
    help: str
    labels: tuple[str, ...]
    rows: Callable[[View], Iterable[Row]]

    def family(self) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
        if self.kind == "histogram":
            return HistogramMetricFamily(self.name, self.help, labels=self.labels)
        if self.kind == "gauge":
            return GaugeMetricFamily(self.name, self.help, labels=self.labels)
        return CounterMetricFamily(self.name, self.help, labels=self.labels)


class LbsvcCollector(Collector):
    """Everything there is to measure, read from `view`."""

    def __init__(
        self, view: View, lag: Histogram, overload: Refusing | None = None, more: Iterable[Series] = ()
    ) -> None:
        self.view = view
        self.series = (
            *SERIES,
            Series("histogram", *_LAG, (), lambda _: [((), lag)]),
            Series("gauge", *_OVERLOAD, (), lambda _: [((), float(overload is not None and overload.is_on))]),
            *more,
        )
        self.process = ProcessCollector(registry=None)

    @override
    def collect(self) -> Iterator[Metric]:
        for series in self.series:
            family = series.family()
            for labels, value in series.rows(self.view):
                if isinstance(value, Histogram):
                    assert isinstance(family, HistogramMetricFamily)
                    family.add_metric(labels, cumulative(value), value.total)
                else:
                    assert not isinstance(family, HistogramMetricFamily)
                    family.add_metric(labels, value)
            yield family
        yield from self.process.collect()


def cumulative(histogram: Histogram) -> list[tuple[str, int]]:
    """Upper bound and count of what is not above it, as they stand now, at the bounds that are exposed."""
    return list(zip(BOUNDS, islice(accumulate(histogram.counts), len(FINE), None), strict=True))


# Where the numbers are. One function for each set of labels, one line for each metric.


def _build(view: View) -> Iterator[Row]:
    yield (lbsvc.__version__, platform.python_version(), twisted.__version__), 1


def _by_listener(number: Callable[[ListenerBooks], float], protocol: str = "") -> Callable[[View], Iterator[Row]]:
    def rows(view: View) -> Iterator[Row]:
        for books in tuple(view.listeners):
            if protocol in ("", books.protocol):
                yield (books.name,), number(books)

    return rows


def _rejected(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        # Requests past a limit are on the books of their routes, connections on those of the listener.
        limited = sum(route.limited for route in tuple(books.routes.values()))
        for reason, count in tuple(books.rejected.items()):
            yield (books.name, reason), count + limited if reason == "rate_limited" else count


def _rate_limited(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        # Nothing has a route before the listener's own limit has let it pass.
        counts = {"none": books.rejected["rate_limited"]}
        for route in tuple(books.routes.values()):  # one that is split over pools is here several times
            counts[route.route] = counts.get(route.route, 0) + route.limited
        for name, count in counts.items():
            yield (books.name, name), count


def _handshakes(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        counts = dict.fromkeys(HANDSHAKES, 0) if books.certificates is not None else {}
        for (result, version), count in (counts | books.handshakes).items():
            yield (books.name, result, version), count


def _certificates(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        if books.certificates is not None:
            for name, end in tuple(books.certificates().items()):
                yield (books.name, name), end


def _certificate_reloads(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        for result, count in tuple(books.certificate_reloads.items()):
            yield (books.name, result), count


def _bytes(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        yield (books.name, "in"), books.bytes_in
        yield (books.name, "out"), books.bytes_out


def _terminations(view: View) -> Iterator[Row]:
    for books in tuple(view.listeners):
        for reason in REASONS:
            yield (books.name, reason), books.terminations.get(reason, 0)


def _routes(view: View) -> Iterator[tuple[ListenerBooks, RouteBooks]]:
    for listener in tuple(view.listeners):
        if listener.protocol == "http":
            for books in tuple(listener.routes.values()):
                yield listener, books


def _requests(view: View) -> Iterator[Row]:
    for listener, books in _routes(view):
        counts: dict[tuple[str, int], int] = {}
        for (method, status), count in tuple(books.requests.items()):
            # Two unknown methods are one series; a request that got no answer counts as 499.
            key = _METHOD_LABELS.get(method, "other"), status or 499
            counts[key] = counts.get(key, 0) + count
        for (label, code), count in counts.items():
            yield (listener.name, books.route, books.pool, label, str(code)), count


def _calls(view: View) -> Iterator[Row]:
    for listener, books in _routes(view):
        for code, count in tuple(books.grpc.items()):
            yield (listener.name, books.route, books.pool, str(code)), count


def _request_durations(view: View) -> Iterator[Row]:
    for listener, books in _routes(view):
        yield (listener.name, books.route, books.pool), books.duration


def _by_pool(number: Callable[[Pool], float]) -> Callable[[View], Iterator[Row]]:
    return lambda view: (((pool.name,), number(pool)) for pool in tuple(view.pools))


def _by_backend_sum(number: Callable[[Backend], float]) -> Callable[[View], Iterator[Row]]:
    """What all have under one name together."""

    def rows(view: View) -> Iterator[Row]:
        for pool in tuple(view.pools):
            for name, found in namesakes(pool):
                yield (pool.name, name), sum(number(backend) for backend in found)

    return rows


def _by_backend(value: Callable[[Backend], float | None]) -> Callable[[View], Iterator[Row]]:
    """What the first has under each name."""

    def rows(view: View) -> Iterator[Row]:
        for pool in tuple(view.pools):
            for name, found in namesakes(pool):
                number = value(found[0])
                if number is not None:
                    yield (pool.name, name), number

    return rows


def _by_backend_histogram(histogram: Callable[[Backend], Histogram]) -> Callable[[View], Iterator[Row]]:
    def rows(view: View) -> Iterator[Row]:
        for pool in tuple(view.pools):
            for name, found in namesakes(pool):
                yield (pool.name, name), together([histogram(backend) for backend in found])

    return rows


def _backend_requests(view: View) -> Iterator[Row]:
    roads = view.roads
    for pool in tuple(view.pools):
        protocols = roads.get(pool.name, ("http", "tcp"))
        for name, found in namesakes(pool):
            if "http" in protocols:
                for number, code in enumerate(_CODES, 1):
                    yield (pool.name, name, code), sum(backend.requests[number] for backend in found)
            if "tcp" in protocols:
                yield (pool.name, name, "ok"), sum(backend.tcp_ok for backend in found)
                yield (pool.name, name, "error"), sum(backend.tcp_error for backend in found)


def _by_backend_and(counts: Callable[[Backend], Mapping[str, int]]) -> Callable[[View], Iterator[Row]]:
    """What all have under one name together, by a word."""

    def rows(view: View) -> Iterator[Row]:
        for pool in tuple(view.pools):
            for name, found in namesakes(pool):
                for word in counts(found[0]):
                    yield (pool.name, name, word), sum(counts(backend)[word] for backend in found)

    return rows


def _one_of(words: tuple[str, ...], state: Callable[[Pool, Backend], str]) -> Callable[[View], Iterator[Row]]:
    """Which of some words the first under each name is."""

    def rows(view: View) -> Iterator[Row]:
        for pool in tuple(view.pools):
            for name, found in namesakes(pool):
                now = state(pool, found[0])
                for word in words:
                    yield (pool.name, name, word), float(word == now)

    return rows


_BACKEND: Final = ("pool", "backend")
_ROUTE: Final = ("listener", "route", "pool")
_LAG: Final = ("lbsvc_reactor_lag_seconds", "How late the reactor called what was due, sampled twice a second.")
_OVERLOAD: Final = ("lbsvc_overloaded", "1 while new requests and connections are refused since the reactor lags.")

#: Every metric that the features so far feed, in the order of the page.
SERIES: Final = (
    Series("gauge", "lbsvc_build_info", "What is running.", ("version", "python", "twisted"), _build),
    Series("gauge", "lbsvc_config_info", "The configuration in force.", ("generation",),
           lambda view: [((str(view.generation),), 1)]),
    Series("counter", "lbsvc_config_reloads_total", "Reloads of the configuration.", ("result",),
           lambda view: [((result,), view.reloads.get(result, 0)) for result in ("success", "failure")]),
    Series("gauge", "lbsvc_config_last_reload_successful", "Whether the last reload was applied; 1 before any.", (),
           lambda view: [((), float(view.last_reload_ok))]),
    Series("gauge", "lbsvc_listener_connections", "Client connections that are open.", ("listener",),
           _by_listener(lambda books: books.open)),
    Series("counter", "lbsvc_listener_connections_total", "Client connections that were accepted.", ("listener",),
           _by_listener(lambda books: books.accepted)),
    Series("counter", "lbsvc_listener_rejected_total", "Connections and requests that were turned away.",
           ("listener", "reason"), _rejected),
    Series("counter", "lbsvc_tls_handshakes_total", "TLS handshakes with clients, by how they ended.",
           ("listener", "result", "version"), _handshakes),
    Series("gauge", "lbsvc_tls_certificate_not_after_timestamp_seconds",
           "When a certificate ends to be valid; its name is the first of those that it is for.", ("listener", "name"),
           _certificates),
    Series("counter", "lbsvc_tls_certificate_reloads_total", "Reloads of certificate files that had changed.",
           ("listener", "result"), _certificate_reloads),
    Series("counter", "lbsvc_http_requests_total", "Requests, by what the client was answered (499: nothing).",
           (*_ROUTE, "method", "code"), _requests),
    Series("counter", "lbsvc_grpc_requests_total", "Calls of gRPC, by the status that they ended with.",
           (*_ROUTE, "grpc_status"), _calls),
    Series("histogram", "lbsvc_http_request_duration_seconds", "From a request's first byte to the end of its answer.",
           _ROUTE, _request_durations),
    Series("gauge", "lbsvc_http_requests_in_flight", "Requests that are being answered.", ("listener",),
           _by_listener(lambda books: books.in_flight, "http")),
    Series("counter", "lbsvc_bytes_total", "Bytes from (in) and to (out) clients, heads included.",
           ("listener", "direction"), _bytes),
    Series("counter", "lbsvc_backend_requests_total", "Requests (connections, for tcp) to a backend, by its answer.",
           (*_BACKEND, "code"), _backend_requests),
    Series("histogram", "lbsvc_backend_request_duration_seconds", "How long a backend took to answer.", _BACKEND,
           _by_backend_histogram(lambda backend: backend.duration)),
    Series("gauge", "lbsvc_backend_active", "Requests (connections, for tcp) at a backend now.", _BACKEND,
           _by_backend_sum(lambda backend: backend.active)),
    Series("gauge", "lbsvc_backend_connections", "Open connections to a backend, idle ones included.", _BACKEND,
           _by_backend_sum(lambda backend: backend.connections)),
    Series("gauge", "lbsvc_backend_weight", "A backend's weight in its pool.", _BACKEND,
           _by_backend(lambda backend: backend.weight)),
    Series("gauge", "lbsvc_backend_latency_ewma_seconds", "Moving average of a backend's latency, once it has one.",
           _BACKEND, _by_backend(lambda backend: backend.latency)),
    Series("counter", "lbsvc_backend_failures_total", "Failed uses of a backend.", (*_BACKEND, "reason"),
           _by_backend_and(lambda backend: backend.failures)),
    Series("gauge", "lbsvc_backend_state", "1 for the state that a backend is in.", (*_BACKEND, "state"),
           _one_of(STATES, shown_state)),
    Series("gauge", "lbsvc_circuit_state", "1 for the state that a backend's circuit is in.", (*_BACKEND, "state"),
           _one_of(CIRCUITS, lambda pool, backend: backend.circuit)),
    Series("counter", "lbsvc_health_checks_total", "Health checks.", (*_BACKEND, "result"),
           _by_backend_and(lambda backend: backend.checks)),
    Series("histogram", "lbsvc_health_check_duration_seconds", "How long health checks took.", _BACKEND,
           _by_backend_histogram(lambda backend: backend.check_duration)),
    Series("counter", "lbsvc_retries_total", "Requests that were tried again.", ("pool",),
           _by_pool(lambda pool: pool.retries)),
    Series("counter", "lbsvc_retry_budget_exhausted_total", "Tries that the retry budget did not allow.", ("pool",),
           _by_pool(lambda pool: pool.budget_exhausted)),
    Series("gauge", "lbsvc_queue_length", "Requests (connections, for tcp) that wait for a backend to have room.",
           ("pool",), _by_pool(lambda pool: pool.queued)),
    Series("counter", "lbsvc_rate_limited_total",
           "Requests past the limit of a route; of the route none: past the listener's (connections, for tcp).",
           ("listener", "route"), _rate_limited),
    Series("counter", "lbsvc_terminations_total", "How requests (connections, for tcp) ended.", ("listener", "reason"),
           _terminations),
    Series("counter", "lbsvc_log_dropped_total", "Log lines that could not be written.", ("log",),
           lambda view: [((log,), count) for log, count in view.log_dropped.items()]),
)  # fmt: skip
