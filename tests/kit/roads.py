"""A layer 4 road with everything that it stands on, over a `Network`; each of its promises to others can be looked up.

Used by the tests of net/relay.py and by its properties. `backend(n)` and `client` are the far ends, seen from the relay.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lbsvc.config.schema import ListenerTimeouts, UpstreamTimeouts
from lbsvc.core.affinity import AddressTable
from lbsvc.core.backend import UNLIMITED, Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.guarding import Guard
from lbsvc.core.policies import (
    Backoff,
    BreakerPolicy,
    KeptConnections,
    QueuePolicy,
    RatePolicy,
    RetryPolicy,
    StickyPolicy,
)
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.core.record import Record
from lbsvc.core.retry import RetryBudget
from lbsvc.net.ahead import Ahead, Ready
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.relay import Relay
from lbsvc.net.relaysite import RelayRoute, StreamSite
from tests.kit.builders import listener, pool
from tests.kit.network import Network
from tests.kit.wire import HalfClosingPeer

FIRST_PORT = 9001


def hung_up_wires(waiting: Sequence[Ready]) -> list[Ready]:
    """What net/ahead.py asks the kernel, of wires: which of these the other side has ended, though nobody reads."""
    transports: list[tuple[Ready, Any]] = [(ready, ready.transport) for ready in waiting]
    return [ready for ready, transport in transports if transport.into.finished or transport._reset]


class Road:
    """One tcp listener's connections; backends at ports 9001, 9002, ..."""

    def __init__(
        self,
        backends: int = 1,
        *,
        idle: float = 600.0,
        half_close: float = 30.0,
        connect: float = 3.0,
        attempts: int = 3,
        backoff: float = 0.0,
        when: frozenset[str] = frozenset({"connect_failure", "reset"}),
        budget: float = 0.2,
        kernel: int = 65536,
        algorithm: str = "round_robin",
        most: int = UNLIMITED,
        queue: QueuePolicy | None = None,
        limit: RatePolicy | None = None,
        sticky: StickyPolicy | None = None,
        breaker: BreakerPolicy | None = None,
        ahead: int = 0,
        kept: KeptConnections | None = None,
    ) -> None:
        self.network = network = Network(kernel=kernel)
        self.rng = random.Random(7)
        self.backends = [
            Backend("web", f"b{port}", f"127.0.0.1:{port}", "127.0.0.1", port, most=most)
            for port in range(FIRST_PORT, FIRST_PORT + backends)
        ]
        for each in self.backends:
            each.health = "up"
        self.pool = Pool("web", algorithm, self.rng, seconds=network.seconds, later=network.callLater)
        self.pool.budget = RetryBudget(budget)
        #: the events of the guard, as (event, backend's name)
        self.events: list[tuple[str, str]] = []
        if breaker is not None:
            self.pool.guard = Guard(
                breaker,
                None,
                network.seconds,
                network.callLater,
                lambda backend: self.pool.refresh(),
                lambda event, backend, fields: self.events.append((event, backend.name)),
            )
        self.pool.set_members(self.backends)
        retry = RetryPolicy(attempts=attempts, when=when, backoff=Backoff(backoff, backoff * 4))
        self.settings = listener(
            protocol="tcp", pool="web", timeouts=ListenerTimeouts(idle=idle, half_close=half_close)
        )
        self.books = ListenerBooks("main", "tcp")
        self.deadlines = Deadlines(network)
        self.deadlines.start()
        self.records: list[Record] = []
        self.opened: list[int] = []
        self.closed = 0
        self.addresses = AddressTable(sticky) if sticky is not None else None
        if self.addresses is not None:
            self.addresses.members(self.backends)
        pool_settings = pool(
            "127.0.0.1:9001",
            retry=retry,
            timeouts=UpstreamTimeouts(connect=connect),
            queue=queue or QueuePolicy(),
            ahead=ahead,
            connections=kept or KeptConnections(),
        )
        self.pool.queue = Queue(pool_settings.queue.size)
        self.ahead: Ahead | None = None
        if ahead:
            self.ahead = Ahead(pool_settings, self.pool, network, self.deadlines, self.rng, hung_up_wires)
        self.site = StreamSite(
            self.settings,
            [RelayRoute("default", self.pool, pool_settings, self.addresses, self.ahead)],
            None,
            self.books,
            network,
            self.deadlines,
            lambda: 1_700_000_000.0,
            self.rng,
            lambda: b"%08x" % len(self.records),
            lambda record: self.records.append(Record(*record)),
            limiter=RateLimiter(limit) if limit is not None else None,
        )
        self.site.on_open = self.opened.append
        self.site.on_close = self._count_closed

    def _count_closed(self, peer: str) -> None:
        self.closed += 1

    def connect(self, peer: HalfClosingPeer | None = None, address: str = "192.0.2.1") -> HalfClosingPeer:
        """A new client."""
        return self.network.client(Relay(self.site, address).downstream, peer)

    def pair(self) -> tuple[HalfClosingPeer, HalfClosingPeer]:
        """A new client, and the backend that it has got."""
        client = self.connect()
        return client, self.network.backends[-1]

    @property
    def reasons(self) -> dict[str, int]:
        """The terminations counted so far."""
        return dict(self.books.terminations)

    def broken(self) -> list[str]:
        """What is not as it has to be once every connection is gone; empty when all is well."""
        self.network.settle()
        made = len(self.opened)
        facts: dict[str, tuple[Any, Any]] = {
            "open transports": (self.network.left, []),
            "open dials": ([each for each in self.network.dials if not each.is_over], []),
            "relays": (self.site.relays, set()),
            "queue": (self.pool.queue.waiting(), []),
            "full": (self.pool.full, set()),
            "on_close": (self.closed, made),
            "records": (len(self.records), made),
            "terminations": (self.reasons, dict(Counter(record.reason for record in self.records))),
            "bytes in": (self.books.bytes_in, sum(record.bytes_in for record in self.records)),
            "bytes out": (self.books.bytes_out, sum(record.bytes_out for record in self.records)),
            "active": ([each.active for each in self.backends], [0] * len(self.backends)),
            "connections": ([each.connections for each in self.backends], [0] * len(self.backends)),
            "watched": ([item for bucket in self.deadlines._buckets.values() for item in bucket], []),
            "timers": (len(self.network.getDelayedCalls()), 1),  # the sweep's own
        }
        return [f"{name}: {found}, not {wanted}" for name, (found, wanted) in facts.items() if found != wanted]
