"""What does the layer 7 road cost in Python alone, without sockets, reactor and kernel?

`python -m tests.bench.road_cost [ROUNDS]` prints the least microseconds of a request over many repetitions, from the
client's bytes to the answer's last write, on a kept connection: `same`, the request before once more; `path`, where only
the target changes; `routes`, as `same` but on a listener with routes; `log`, as `same` with an access record; `surviving`,
as `same` with a breaker, ejections, a limit and a queue, affinity by address and a rate limit. Not a test: for comparing two
states of the code on one machine, in turns.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from time import process_time
from typing import Any

from twisted.internet.task import Clock

from lbsvc.config.schema import Match, PoolSettings, Respond, RouteSettings
from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.guarding import Guard
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, RatePolicy, StickyPolicy
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue
from lbsvc.core.retry import RetryBudget
from lbsvc.http.placing import placement_of
from lbsvc.http.pooling import Upstreams
from lbsvc.http.server import ServerConnection
from lbsvc.http.site import HttpSite, RequestIds
from lbsvc.net.deadlines import Deadlines
from lbsvc.routing import TableBuilder
from tests.kit import builders

REQUEST = b"GET /%d HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: wrk\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 2\r\n\r\nok"
)
NUMBER = 2_000


class Wire:
    """A transport that takes everything."""

    queued = 0

    def __init__(self) -> None:
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        """Gone."""

    def fileno(self) -> int:
        """Any."""
        return 7

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Never asked to pause."""

    def unregisterProducer(self) -> None:
        """Nobody pauses here."""

    def loseConnection(self) -> None:
        """The process ends anyway."""

    def getHandle(self) -> None:
        """No socket."""


class BenchReactor(Clock):
    """Connects at once."""

    turn = 0

    def dial(self, host: str, port: int, protocol: Any, failed: Callable[[OSError], None]) -> None:
        """A connection."""
        wire = Wire()
        self.newest = wire
        wire.protocol = protocol
        protocol.makeConnection(wire)


def road(
    routes: tuple[RouteSettings, ...] = (),
    log: Callable[[tuple[Any, ...]], None] | None = None,
    surviving: bool = False,
) -> Any:
    """A client's connection and a function that gives the backend's answer; `surviving`: with all that a pool may have."""
    reactor = BenchReactor()
    rng = random.Random(1)
    deadlines = Deadlines(reactor)
    pool = Pool("web", "round_robin", rng)
    pool.budget = RetryBudget(0.2)
    backend = Backend("web", "b", "10.0.0.1:1", "10.0.0.1", 1)
    backend.health = "up"
    pool.set_members([backend])
    settings = builders.listener(pool="web", routes=routes)
    pool_settings = PoolSettings("web", ())
    if surviving:
        settings = replace(settings, rate_limit=RatePolicy(1e9, 1_000_000))
        pool_settings = PoolSettings("web", (), circuit_breaker=BreakerPolicy(), sticky=StickyPolicy(type="ip"))
        backend.limit = backend.most = 1000
        pool.queue = Queue(1000)
        pool.guard = Guard(
            BreakerPolicy(),
            EjectionPolicy(),
            reactor.seconds,
            reactor.callLater,
            lambda each: pool.refresh(),
            lambda event, each, fields: None,
        )
        pool.set_members([backend])
    placement = placement_of(pool_settings, pool, lambda: 1.7e9)
    upstreams = Upstreams(pool_settings, pool, reactor, deadlines, rng, placement)
    books = ListenerBooks("main", "http")
    table = TableBuilder(settings, books, {"web": upstreams}, rng).build()
    site = HttpSite(settings, table, books, reactor, deadlines, lambda: 1.7e9, RequestIds(rng), log, rng)
    connection = ServerConnection(site, "192.0.2.1")
    connection.makeConnection(Wire())  # type: ignore[arg-type]
    connection.dataReceived(REQUEST % 0)
    upstream = reactor.newest.protocol

    def answer() -> None:
        reactor.turn += 1  # what was kept is of an earlier turn
        upstream.dataReceived(ANSWER)

    answer()
    return connection, answer


def cost(requests: list[bytes], made: Any) -> float:
    """Microseconds for each request."""
    connection, answer = made
    receive = connection.dataReceived
    began = process_time()
    for request in requests:
        receive(request)
        answer()
    return (process_time() - began) / len(requests) * 1e6


def main(rounds: int) -> None:
    """Measure in turns, and print."""
    many = tuple(RouteSettings(f"r{i}", Match(path=f"/r{i}/*"), respond=Respond()) for i in range(100))
    default = RouteSettings("all", Match(path="/*"), pool="web")
    same = [REQUEST % 0] * NUMBER
    cases = {
        "same": (same, road()),
        "path": ([REQUEST % number for number in range(NUMBER)], road()),
        "routes": (same, road((*many, default))),
        "log": (same, road(log=lambda record: None)),
        "surviving": (same, road(surviving=True)),
    }
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, (requests, made) in cases.items():
            best[name] = min(best[name], cost(requests, made))
    print("  ".join(f"{name} {microseconds:.2f}" for name, microseconds in best.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    main(parser.parse_args().rounds)
