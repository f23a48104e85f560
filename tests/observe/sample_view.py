"""A view with something in every metric, for the tests of the collector and of the page."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lbsvc.core.backend import Backend
from lbsvc.core.books import BUCKETS, ListenerBooks
from lbsvc.core.pool import Pool


@dataclass
class SampleView:
    """observe.metrics.View, with plain attributes."""

    listeners: list[ListenerBooks] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    roads: Mapping[str, Collection[str]] = field(default_factory=dict)
    log_dropped: dict[str, int] = field(default_factory=lambda: {"access": 0, "event": 0})
    reloads: dict[str, int] = field(default_factory=lambda: {"success": 0, "failure": 0})
    last_reload_ok: bool = True
    generation: int = 1


def pool(name: str, *backends: str) -> Pool:
    found = Pool(name, "round_robin", random.Random(1))
    found.set_members(
        [
            Backend(name, backend, f"10.0.0.{number}:80", f"10.0.0.{number}", 80)
            for number, backend in enumerate(backends, 1)
        ]
    )
    return found


def realistic() -> SampleView:
    """Two listeners, two pools, some traffic, some trouble, names that need escaping."""
    web, db = ListenerBooks("web", "http"), ListenerBooks("db", "tcp")
    web.open, web.accepted, web.in_flight = 3, 40, 2
    web.bytes_in, web.bytes_out = 1000, 20000
    web.rejected["connections"] = 1
    web.terminations = {"ok": 30, "no_route": 1, "client_closed": 2}
    api = web.route('host="api" path=\\v1', "web")
    api.requests = {(b"GET", 200): 25, (b"POST", 503): 2, (b"PROPFIND", 200): 1, (b"BREW", 200): 2, (b"GET", 0): 2}
    api.grpc = {0: 3, 14: 2}
    api.duration.counts[BUCKETS.index(0.01)], api.duration.counts[-1], api.duration.total = 31, 1, 40.5
    web.route("none", "none").requests = {(b"GET", 404): 1}
    db.accepted, db.terminations = 7, {"ok": 7}
    web.handshakes = {("success", "TLSv1.3"): 38, ("failure", "none"): 2}
    web.certificates = lambda: {"www.example.com": 1_800_000_000.0, "*.example.org": 1_799_999_999.5}
    web.certificate_reloads = {"success": 2, "failure": 1}
    http, tcp = pool("web", "a", "b", "10.0.0.3:80"), pool("db", "one")
    a, b, c = http.backends
    a.health, a.requests[2], a.latency, a.connections = "up", 20, 0.004, 2
    a.checks["success"], a.check_duration.counts[BUCKETS.index(0.001)], a.check_duration.total = 9, 9, 0.004
    b.health, b.failures["connect_failed"], b.checks["failure"], b.circuit = "down", 3, 4, "half_open"
    c.health, c.state, c.weight = "up", "drain", 0
    http.refresh()
    tcp.backends[0].tcp_ok = 6
    tcp.backends[0].tcp_error = 1
    http.retries, http.budget_exhausted = 4, 1
    return SampleView([web, db], [http, tcp], {"web": {"http"}, "db": {"tcp"}})


def crowded(backends: int) -> SampleView:
    """One pool with so many backends that a page takes many turns."""
    return SampleView([ListenerBooks("web", "http")], [pool("web", *(f"b{number}" for number in range(backends)))])
