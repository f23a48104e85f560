"""Processes as far as counting goes: listeners and pools of one configuration, used at random, told and taken as in life."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import cast

import msgspec

from lbsvc.core.backend import FAILURES, Backend, Outcome
from lbsvc.core.books import BUCKETS, Histogram, ListenerBooks
from lbsvc.core.lease import Lease
from lbsvc.core.overload import Overload
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue, Ticket
from lbsvc.http.site import HttpSite
from lbsvc.observe.metrics import LbsvcCollector
from lbsvc.workers.ledger import Ledger, Overloads
from lbsvc.workers.reports import Report, Reporter
from tests.observe.sample_view import SampleView, pool

ROUTES = ("api", "static", "none")

#: Gauges that are sums over processes.
NOW = {
    "lbsvc_listener_connections", "lbsvc_http_requests_in_flight", "lbsvc_backend_active",
    "lbsvc_backend_connections", "lbsvc_queue_length",
}  # fmt: skip
#: Counts of what workers do not do.
NOBODYS = {
    "lbsvc_config_reloads",
    "lbsvc_tls_certificate_reloads",
    "lbsvc_health_checks",
    "lbsvc_health_check_duration_seconds",
}

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Process:
    """One process: what it serves, and what it has counted."""

    def __init__(self) -> None:
        self.web = ListenerBooks("web", "http")
        self.db = ListenerBooks("db", "tcp")
        for route in ROUTES:
            self.web.route(route, "none" if route == "none" else "app")
        self.pools = [pool("app", "a", "b"), pool("db", "one")]
        for each in self.pools:
            each.queue = Queue(100)
            each.departures.on_gone = lambda gone, each=each: bequeath(each, gone)  # type: ignore[misc]
            for backend in each.backends:
                backend.health = "up"
            each.refresh()
        self.lag = Histogram()
        self.overload = Overload(1.0)
        self.view = SampleView([self.web, self.db], self.pools, {"app": {"http"}, "db": {"tcp"}})

    def books(self) -> list[ListenerBooks]:
        """As listening.py gives them: brought up to date."""
        HttpSite.count(cast(HttpSite, SimpleNamespace(books=self.web)))
        return self.view.listeners

    def backend(self, name: str = "a", at: int = 0) -> Backend:
        return next(backend for backend in self.pools[at].backends if backend.name == name)

    def collector(self) -> LbsvcCollector:
        return LbsvcCollector(self.view, self.lag, self.overload)

    def numbers(self) -> tuple[Numbers, Numbers]:
        """What is shown: what only grows, and what is so now."""
        self.books()
        counts: Numbers = {}
        now: Numbers = {}
        for family in self.collector().collect():
            if not family.name.startswith("lbsvc_") or family.name in NOBODYS:
                continue
            if family.type != "gauge" or family.name in NOW:
                found = now if family.type == "gauge" else counts
                for sample in family.samples:
                    found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        return counts, now


class Worker(Process):
    """One that carries traffic, and tells of it."""

    def __init__(self) -> None:
        super().__init__()
        self.leases: list[Lease] = []
        self.tickets: list[tuple[Pool, Ticket]] = []
        self.reporter = Reporter(self.books, lambda: self.pools, self.lag, self.overload, lambda: self.view.log_dropped)

    def report(self) -> Report:
        """As it comes out at the other end."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self.reporter.report()), type=Report)

    def count(self, dice: random.Random) -> None:
        """Something of everything happens. Durations are binary fractions, of which sums are exact."""
        for books in (self.web, self.db):
            came = dice.randrange(4)
            books.accepted += came
            books.open += came - dice.randint(0, books.open + came)
            books.bytes_in += dice.randrange(1000)
            books.bytes_out += dice.randrange(1000)
            books.rejected[dice.choice(list(books.rejected))] += 1
            key = dice.choice([("success", "TLSv1.3"), ("failure", "none")])
            books.handshakes[key] = books.handshakes.get(key, 0) + 1
        self.web.in_flight = dice.randrange(5)
        for _ in range(dice.randrange(4)):
            self.request(
                dice.choice(ROUTES), dice.choice([200, 404, 503]), dice.choice([b"GET", b"POST", b"PURGE"]), dice
            )
        reason = dice.choice(["ok", "client_closed"])
        self.db.terminations[reason] = self.db.terminations.get(reason, 0) + 1
        for each in self.pools:
            each.retries += dice.randrange(2)
            each.budget_exhausted += dice.randrange(2)
            self._lease(each, dice)
            self._wait(each, dice)
        histogram(self.lag, dice)
        self.view.log_dropped["access"] += dice.randrange(3)

    def request(self, route: str, status: int, method: bytes = b"GET", dice: random.Random | None = None) -> None:
        """One that is over."""
        books = self.web.route(route, "none" if route == "none" else "app")
        books.requests[method, status] = books.requests.get((method, status), 0) + 1
        if status == 404:
            self.web.terminations["no_route"] = self.web.terminations.get("no_route", 0) + 1
            books.limited += 1
        if status == 503:
            books.grpc[14] = books.grpc.get(14, 0) + 1
        if dice is not None:
            histogram(books.duration, dice)

    def _lease(self, each: Pool, dice: random.Random) -> None:
        for _ in range(dice.randrange(4)):
            lease = each.pick()
            if lease is not None:
                lease.backend.connections += 1
                self.leases.append(lease)
        for _ in range(dice.randrange(4)):
            if self.leases:
                lease = self.leases.pop(dice.randrange(len(self.leases)))
                lease.backend.connections -= 1
                outcome = dice.choice([Outcome.OK, Outcome.OK, Outcome.CLIENT_GONE, *FAILURES])
                lease.release(outcome, dice.choice([0, 200, 503]), dice.randrange(2048) / 1024)

    def _wait(self, each: Pool, dice: random.Random) -> None:
        if dice.randrange(2):
            ticket = each.queue.enter(lambda: False)
            assert ticket is not None
            self.tickets.append((each, ticket))
        elif self.tickets:
            waited, ticket = self.tickets.pop()
            waited.queue.leave(ticket)


class Parent(Process):
    """One that has a ledger, and shows its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(self.books, lambda: self.pools, self.lag)
        self.view.log_dropped = self.ledger.dropped

    def collector(self) -> LbsvcCollector:
        return LbsvcCollector(self.view, self.lag, Overloads(self.overload, self.ledger))


def histogram(found: Histogram, dice: random.Random) -> None:
    found.counts[dice.randrange(len(BUCKETS) + 1)] += 1
    found.total += dice.randrange(1024) / 1024


def bequeath(pool: Pool, gone: Backend) -> None:
    """As membership.py does."""
    for heir in pool.everyone:
        if heir.name == gone.name and heir is not gone:
            heir.inherit(gone)
            return


def move(pool: Pool, name: str, host: str) -> None:
    """Another address for an entry, as membership.py changes it."""
    former = next(backend for backend in pool.backends if backend.name == name)
    address = f"{host}:80"
    if former.address == address:
        return
    comer = pool.departures.find(name, address, host)
    if comer is not None:
        pool.departures.take_back(comer)
        comer.state = "ready"
    else:
        comer = Backend(pool.name, name, address, host, 80)
    comer.health = "up"
    former.is_leaving = True
    pool.set_members([comer if backend is former else backend for backend in pool.backends])
    pool.departures.begin(former)
    if former not in pool.leaving:
        bequeath(pool, former)


def total(each: list[Numbers]) -> Numbers:
    found: Numbers = {}
    for numbers in each:
        for key, value in numbers.items():
            found[key] = found.get(key, 0) + value
    return found
