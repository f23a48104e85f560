"""A layer 4 road with everything that it stands on, over a `Network`; each of its promises to others can be looked up.

Used by the tests of net/relay.py and by its properties. `backend(n)` and `client` are the far ends, seen from the relay.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from lbsvc.config.schema import ListenerTimeouts, UpstreamTimeouts
from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.policies import Backoff, RetryPolicy
from lbsvc.core.pool import Pool
from lbsvc.core.record import Record
from lbsvc.core.retry import RetryBudget
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.relay import Relay, RelaySite
from tests.kit.builders import listener, pool
from tests.kit.network import Network
from tests.kit.wire import HalfClosingPeer

FIRST_PORT = 9001


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
    ) -> None:
        self.network = network = Network(kernel=kernel)
        self.rng = random.Random(7)
        self.backends = [
            Backend("web", f"b{port}", f"127.0.0.1:{port}", "127.0.0.1", port)
            for port in range(FIRST_PORT, FIRST_PORT + backends)
        ]
        for each in self.backends:
            each.health = "up"
        self.pool = Pool("web", "round_robin", self.rng)
        self.pool.budget = RetryBudget(budget)
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
        self.site = RelaySite(
            self.settings,
            pool("127.0.0.1:9001", retry=retry, timeouts=UpstreamTimeouts(connect=connect)),
            self.pool,
            self.books,
            network,
            self.deadlines,
            lambda: 1_700_000_000.0,
            self.rng,
            lambda: b"%08x" % len(self.records),
            lambda record: self.records.append(Record(*record)),
        )
        self.site.on_open = self.opened.append
        self.site.on_close = self._count_closed

    def _count_closed(self, peer: str) -> None:
        self.closed += 1

    def connect(self, peer: HalfClosingPeer | None = None) -> HalfClosingPeer:
        """A new client."""
        return self.network.client(Relay(self.site, "192.0.2.1").downstream, peer)

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
