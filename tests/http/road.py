"""The whole layer 7 road in memory: clients and backends on wires, a clock instead of time, dials that do as they are told.

A test says what the two sides send, in which order and cut how; `run` lets everything that is under way arrive. `Road.close`
(a cleanup of RoadCase) checks what must hold after any test: every lease is back, nothing is in flight, each request has one
access record and one count, no timer is left but the sweep, and nothing refers to a connection that is gone.
"""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import ListenerTimeouts, Match, PoolSettings, Respond, RouteSettings
from lbsvc.core.backend import UNLIMITED, Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.guarding import Guard
from lbsvc.core.policies import KeptConnections
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue
from lbsvc.core.record import Record
from lbsvc.core.retry import RetryBudget
from lbsvc.http.placing import placement_of
from lbsvc.http.pooling import Upstreams
from lbsvc.http.server import ServerConnection
from lbsvc.http.site import HttpSite, RequestIds
from lbsvc.net.deadlines import Deadlines
from lbsvc.routing import TableBuilder
from tests.http.ends import Answer, End, Upstream, answers
from tests.kit import builders

#: How a port answers a dial: at once, a turn later, by a refusal (at once, or a turn later), not at all; or sockets are out.
OPEN, LATER, REFUSED, REFUSED_LATER, HOLE, EXHAUSTED = "open", "later", "refused", "refused later", "hole", "exhausted"
WALL = 1_700_000_000.0
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"


class Client(End):
    """A client; its end is the left one."""

    def __init__(self, road: Road, peer: str = "192.0.2.1") -> None:
        super().__init__(road)
        self.server = ServerConnection(road.site, peer)
        road.watch(self.server)
        self.wire.connect(self.wire.right, self.server)
        self.wire.connect(self.wire.left, self)

    def answers(self, *methods: bytes) -> list[Answer]:
        """All answers since the last time, which must be whole."""
        found, rest = answers(self.take(), methods, self.was_finished or self.lost is not None)
        assert not rest, rest
        return found

    def answer(self, *methods: bytes) -> Answer:
        (found,) = self.answers(*methods)
        return found


class FakeDial:
    """What dialling gives back."""

    def __init__(self, reactor: FakeReactor, port: int, protocol: Any, failed: Callable[[OSError], None]) -> None:
        self.reactor = reactor
        self.port = port
        self.protocol = protocol
        self.failed = failed
        self.is_over = False

    def cancel(self) -> None:
        self.is_over = True

    def connect(self) -> None:
        if not self.is_over:
            self.is_over = True
            end = Upstream(self.reactor.road)
            end.port = self.port
            self.reactor.road.upstream_ends.append(end)
            self.reactor.road.watch(self.protocol._protocol)
            end.wire.connect(end.wire.right, end)
            end.wire.left.protocol = self.protocol
            self.protocol.makeConnection(end.wire.left)

    def refuse(self, number: int) -> None:
        if not self.is_over:
            self.is_over = True
            self.failed(OSError(number, "as told"))


class FakeReactor(Clock):
    """A clock that dials as net/reactor.py does: the result may come before `dial` returns."""

    road: Road

    def __init__(self) -> None:
        super().__init__()
        self.behaviour: dict[int, str] = {}
        self.dials: list[FakeDial] = []
        self.late: list[Callable[[], None]] = []

    def dial(self, host: str, port: int, protocol: Any, failed: Callable[[OSError], None]) -> FakeDial:
        made = FakeDial(self, port, protocol, failed)
        self.dials.append(made)
        how = self.behaviour.get(port, OPEN)
        if how == OPEN:
            made.connect()
        elif how == LATER:
            self.late.append(made.connect)
        elif how == REFUSED:
            made.refuse(111)
        elif how == REFUSED_LATER:
            self.late.append(lambda: made.refuse(111))
        elif how == EXHAUSTED:
            made.refuse(24)
        return made


class Road:
    """One listener before one pool."""

    def __init__(
        self,
        backends: int = 1,
        *,
        pool: dict[str, Any] | None = None,
        listener: dict[str, Any] | None = None,
        own: str | None = None,
        routes: tuple[RouteSettings, ...] = (),
        unrouted: bool = False,
        kernel: int = 64 * 1024,
        log: Callable[[tuple[Any, ...]], None] | None = None,
    ) -> None:
        self.kernel = kernel
        self.reactor = reactor = FakeReactor()
        reactor.road = self
        reactor.advance(1000)
        self.deadlines = Deadlines(reactor)
        self.deadlines.start()
        self.rng = random.Random(7)
        self.pool_settings = PoolSettings(**{"name": "web", "backends": (), **(pool or {})})
        self.pool = Pool(
            "web", self.pool_settings.algorithm, self.rng, seconds=reactor.seconds, later=reactor.callLater
        )
        self.pool.budget = RetryBudget(self.pool_settings.retry.budget)
        self.pool.queue = Queue(self.pool_settings.queue.size)
        if self.pool_settings.circuit_breaker is not None or self.pool_settings.passive_health is not None:
            self.pool.guard = Guard(
                self.pool_settings.circuit_breaker,
                self.pool_settings.passive_health,
                reactor.seconds,
                reactor.callLater,
                lambda backend: self.pool.refresh(),
                lambda event, backend, fields: None,
            )
        placement = placement_of(self.pool_settings, self.pool, lambda: WALL)
        ports = [9001 + number for number in range(backends)]
        most = {each.port: each.max_connections or UNLIMITED for each in self.pool_settings.backends}
        self.backends = [
            Backend("web", f"b{p}", f"10.0.0.1:{p}", "10.0.0.1", p, most=most.get(p, UNLIMITED)) for p in ports
        ]
        for backend in self.backends:
            backend.health = "up"
        self.pool.set_members(self.backends)
        self.upstreams = Upstreams(self.pool_settings, self.pool, reactor, self.deadlines, self.rng, placement)
        settings = builders.listener(**{"pool": "web", **(listener or {})})
        self.books = ListenerBooks("main", "http")
        if own is not None:  # what /own/* answers without a backend
            routes = (*routes, RouteSettings("own", Match(path="/own/*"), respond=Respond(200, own)))
        settings = replace(settings, routes=routes, pool=None if unrouted else settings.pool)
        self.records: list[Record] = []
        write = log if log is not None else (lambda record: self.records.append(Record(*record)))
        #: a second pool, of one backend, for splits and mirrors
        self.other = Pool("other", "round_robin", self.rng)
        self.other.budget = RetryBudget(0.2)
        self.other_backend = Backend("other", "o1", "10.0.0.2:9501", "10.0.0.2", 9501)
        self.other_backend.health = "up"
        self.other.set_members([self.other_backend])
        self.other_upstreams = Upstreams(PoolSettings("other", ()), self.other, reactor, self.deadlines, self.rng)
        pools = {"web": self.upstreams, "other": self.other_upstreams}
        self.builder = TableBuilder(settings, self.books, pools, self.rng)
        self.site = HttpSite(
            settings,
            self.builder.build(),
            self.books,
            reactor,
            self.deadlines,
            lambda: WALL,
            RequestIds(self.rng),
            write,
            self.rng,
        )
        self.upstream_ends: list[Upstream] = []
        self.clients: list[Client] = []
        self.watched: list[weakref.ref[Any]] = []
        self.largest = 64 * 1024

    @staticmethod
    def kept(**keys: Any) -> KeptConnections:
        return KeptConnections(**keys)

    def watch(self, thing: Any) -> None:
        """It shall be gone when `assert_no_garbage` looks; compiled (test_compiled.py) it cannot be referred to weakly."""
        with suppress(TypeError):
            self.watched.append(weakref.ref(thing))

    def client(self, peer: str = "192.0.2.1") -> Client:
        made = Client(self, peer)
        self.clients.append(made)
        return made

    def upstream(self, number: int = -1) -> Upstream:
        """A connection to a backend, in the order in which they were made."""
        return self.upstream_ends[number]

    def turn(self) -> int:
        """One turn of the reactor; 0: nothing moves."""
        late, self.reactor.late = self.reactor.late, []
        for call in late:
            call()
        due = [call for call in self.reactor.calls if call.getTime() <= self.reactor.seconds()]
        for each in due:  # not Clock.advance: what they schedule is for the next turn
            if each.active():
                self.reactor.calls.remove(each)
                each.called = 1
                each.func(*each.args, **each.kw)
        ends: list[End] = [*self.clients, *self.upstream_ends]
        return len(late) + len(due) + sum(end.wire.pump(self.largest) for end in ends)

    def run(self, seconds: float = 0.0, step: float = 0.1) -> None:
        """Let everything arrive, and time pass."""
        end = self.reactor.seconds() + seconds
        while True:
            for _ in range(100_000):
                if not self.turn():
                    break
            else:
                raise AssertionError("no rest")
            left = end - self.reactor.seconds()
            if left <= 1e-9:
                return
            self.reactor.advance(min(step, left))

    @property
    def requests(self) -> dict[tuple[bytes, int], int]:
        """Counted requests by method and code, over all routes."""
        total: dict[tuple[bytes, int], int] = {}
        for route in self.books.routes.values():
            for key, number in route.requests.items():
                total[key] = total.get(key, 0) + number
        return total

    def close(self) -> None:
        """Everybody goes; then nothing may be left."""
        for end in [*self.clients, *self.upstream_ends]:
            end.transport.abortConnection()
        self.run()
        self.run(1)
        for mirroring in self.builder.mirrors:
            mirroring.close()
        if self.pool.guard is not None:
            self.pool.guard.close()
        self.upstreams.close_idle()
        self.other_upstreams.close_idle()
        assert sum(backend.active for backend in self.backends) == 0, "a lease was not released"
        assert sum(backend.connections for backend in self.backends) == 0, "connections are miscounted"
        assert not any(backend.idle for backend in self.backends), "a lost connection is kept"
        assert self.books.in_flight == 0, "in_flight is not 0"
        assert not self.site.connections, "a lost connection is listed"
        assert len(self.reactor.getDelayedCalls()) == 1, self.reactor.getDelayedCalls()
        assert sum(self.requests.values()) == len(self.records), "counts and records differ"
        self.site.count()
        reasons = [record.reason for record in self.records]
        counted = {word: number for word, number in self.books.terminations.items() if number}
        assert counted == {word: reasons.count(word) for word in set(reasons)}, (counted, reasons)
        assert len({record.id for record in self.records}) == len(self.records), "an id was used twice"
        held = sum(len(bucket) for bucket in self.deadlines._buckets.values())
        assert held == 0, f"{held} deadlines are left"


class RoadCase(TestCase):
    """A test on a road that is checked when it ends."""

    def road(self, *given: Any, **keys: Any) -> Road:
        made = Road(*given, **keys)
        self.addCleanup(made.close)
        return made

    def assert_no_garbage(self, road: Road) -> None:
        """Lost connections are gone without the garbage collector, once the test itself has let go of them."""
        for client in road.clients:
            del client.server
        road.clients.clear()
        road.upstream_ends.clear()
        road.reactor.dials.clear()
        self.assertEqual([ref() for ref in road.watched if ref() is not None], [])


def without_collector(test: TestCase) -> None:
    """No garbage is collected until the test ends."""
    gc.collect()
    gc.disable()
    test.addCleanup(gc.enable)


def timeouts(**keys: float) -> dict[str, Any]:
    """Listener settings with these timeouts."""
    return {"timeouts": ListenerTimeouts(**keys)}
