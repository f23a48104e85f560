"""One backend as it lives: what was configured, what was found out, and what has been counted.

Promises: a `Backend` is only state; whoever decides something about it (pool, pickers, prober) writes here, and the
metrics collector reads. It outlives reloads by identity. Numbers only grow, but for the gauges `active` and
`connections`. Durations are seconds. Written by core/lease.py, net/prober.py, http/pooling.py, the relay and the app.
"""

from __future__ import annotations

from typing import Any, Final

from lbsvc.core.books import Histogram
from lbsvc.core.outcomes import FAILURES as FAILURES
from lbsvc.core.outcomes import Outcome as Outcome

#: `most` of a backend without a limit.
UNLIMITED: Final = 1 << 62


class Backend:
    """A member of a pool. `host` is an IP literal, or "" while its name is unresolved (it takes nothing then)."""

    __slots__ = (
        "active",
        "address",
        "backup",
        "check_duration",
        "checks",
        "circuit",
        "connections",
        "duration",
        "effective",
        "epoch",
        "era",
        "failures",
        "greeting",
        "health",
        "host",
        "idle",
        "is_ejected",
        "is_leaving",
        "is_suspect",
        "last_check",
        "latency",
        "limit",
        "most",
        "multiplexed",
        "name",
        "pool",
        "port",
        "ramped_from",
        "requests",
        "source",
        "state",
        "tcp_error",
        "tcp_ok",
        "tls",
        "weight",
    )

    def __init__(
        self,
        pool: str,
        name: str,
        address: str,
        host: str,
        port: int,
        weight: int = 1,
        backup: bool = False,
        source: str = "config",
        most: int = UNLIMITED,
    ) -> None:
        self.pool = pool
        self.name = name
        self.address = address  # as it is written in the configuration
        self.host = host
        self.port = port
        self.weight = weight
        self.backup = backup
        self.source = source  # config | runtime
        self.greeting = b""  # the PROXY header of connections that are made for no client (checks, copies)
        #: how TLS is spoken to it (net/client_tls.py), None for plain connections; core never looks inside.
        self.tls: Any = None
        self.state = "ready"  # what people set: ready | drain | maint
        self.health = "unknown"  # what was found: unknown | up | down | flapping
        self.circuit = "closed"  # closed | open | half_open (core/breaker.py)
        self.is_ejected = False  # by real traffic's failures (core/ejection.py)
        self.is_leaving = False  # it has left its pool, and finishes what it has (core/leaving.py)
        #: grows when what is kept for it must not be used again (http/pooling.py): connections of another era are not kept
        self.era = 0
        self.epoch = 0  # of the circuit: what was begun in another says nothing about this one (core/guarding.py)
        self.effective = weight  # the weight that pickers see; slow start makes it less for a while (core/ramping.py)
        self.ramped_from: float | None = None  # when slow start began for it; None: it has its whole weight
        self.most = most  # leases at one time, as configured (`max_connections`)
        self.limit = most  # and as in force now
        self.is_suspect = False  # could not be reached a moment ago (Pool.suspect)
        self.active = 0  # leases now
        self.connections = 0  # open upstream connections now
        self.requests = [0] * 6  # by code class: [2] counts the 2xx
        self.tcp_ok = 0
        self.tcp_error = 0
        self.failures = {outcome.reason: 0 for outcome in FAILURES}
        self.latency: float | None = None  # EWMA, see core/lease.py
        self.duration = Histogram()
        self.checks = {"success": 0, "failure": 0}
        self.check_duration = Histogram()
        #: (did it pass, wall clock time, in words)
        self.last_check: tuple[bool, float, str] | None = None
        #: Idle upstream connections; owned by http/pooling.py, core never looks inside.
        self.idle: list[Any] = []
        #: Its connections of HTTP/2 (http/h2_pooling.py); None where only HTTP/1.1 is spoken to it. Core never looks inside.
        self.multiplexed: Any = None

    @property
    def is_eligible(self) -> bool:
        """May it take new work as far as people and names are concerned? Health is the pool's question."""
        return self.state == "ready" and self.weight > 0 and self.host != ""

    def inherit(self, former: Backend) -> None:
        """Go on with the counts of one that had the same name, and is gone: what is shown under a name never falls."""
        self.requests = [one + other for one, other in zip(self.requests, former.requests, strict=True)]
        self.tcp_ok += former.tcp_ok
        self.tcp_error += former.tcp_error
        for mine, others in ((self.failures, former.failures), (self.checks, former.checks)):
            for word, count in others.items():
                mine[word] += count
        self.duration.add(former.duration)
        self.check_duration.add(former.check_duration)

    def __repr__(self) -> str:
        state = self.health if self.state == "ready" else self.state
        return f"<Backend {self.pool}/{self.name} {state}, {self.active} active>"
