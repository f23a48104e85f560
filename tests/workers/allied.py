"""Several workers in one process, without sockets: listeners and pools of their own, on one clock, and what they tell."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import msgspec
from twisted.internet.task import Clock

from lbsvc.config.schema import ListenerSettings, PoolSettings, Settings
from lbsvc.core.affinity import AddressTable
from lbsvc.core.backend import Backend
from lbsvc.core.clients import ClientCounts
from lbsvc.core.policies import FlappingPolicy, HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.core.shares import Seat
from lbsvc.http.site import RequestIds
from lbsvc.listening import Listeners
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.listener import Descriptors
from lbsvc.pools import Pools
from lbsvc.workers.tallies import Tallies
from tests.kit import builders


class NoChecks:
    """Every backend is up."""

    def add(
        self, pool: Pool, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None
    ) -> None:
        backend.health = "up"

    def revise(self, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None) -> bool:
        return True

    def remove(self, backend: Backend) -> None:
        """Nobody asks."""


def unbound(settings: Settings) -> Settings:
    """Listeners that have no sockets."""
    return replace(settings, listeners={name: replace(each, binds=()) for name, each in settings.listeners.items()})


class Ally:
    """One worker."""

    def __init__(self, clock: Clock, seat: Seat, settings: Settings) -> None:
        rng = random.Random(seat.worker)
        self.worker = seat.worker
        self.settings = settings = unbound(settings)
        self.events: list[tuple[str, dict[str, Any]]] = []
        deadlines = Deadlines(clock)
        checker: Any = NoChecks()
        self.pools = Pools(clock, deadlines, checker, rng, clock.seconds, self.emit, lambda: False)
        self.pools.sit(seat)
        self.listeners = Listeners(
            clock, deadlines, Descriptors(1 << 20), self.pools, rng, RequestIds(rng), clock.seconds, self.emit
        )
        for pool in settings.pools.values():
            self.pools.make(pool)
        for listener in settings.listeners.values():
            self.listeners.make(listener)
        self.pools.start()
        self.tallies = Tallies(self.listeners, self.pools, seat.workers)
        self.tallies.enlist()

    def emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def change(self, settings: Settings) -> None:
        """Live by other settings."""
        settings = unbound(settings)
        pools = self.pools.prepare(self.settings, settings)
        plan = self.listeners.prepare(self.settings, settings)
        pools.commit()
        plan.commit()
        self.settings = settings
        self.tallies.enlist()

    def limiter(self, listener: str = "main", route: str = "") -> RateLimiter:
        return dict(self.listeners.served[listener].limiters)[route]

    @property
    def clients(self) -> ClientCounts:
        found = self.listeners.served["main"].listener.clients
        assert found is not None
        return found

    @property
    def table(self) -> AddressTable:
        placement = self.pools.upstreams["web"].placement
        assert placement is not None and placement.addresses is not None
        return placement.addresses

    @property
    def backends(self) -> dict[str, Backend]:
        return {backend.name: backend for backend in self.pools.upstreams["web"].pool.backends}


class Alliance:
    """All of them. What one tells goes to all others as bytes, as through the parent."""

    def __init__(self, workers: int, *parts: ListenerSettings | PoolSettings) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        settings = builders.settings(*parts)
        self.members = [Ally(self.clock, Seat(number, workers), settings) for number in range(workers)]

    def exchange(self) -> int:
        """Everybody tells everybody; how many entries were told."""
        now = self.clock.seconds()
        told = [(ally, msgspec.msgpack.encode(ally.tallies.collect(now))) for ally in self.members]
        for ally, written in told:
            for other in self.members:
                if other is not ally:
                    other.tallies.apply(ally.worker, msgspec.msgpack.decode(written), now)
        return sum(len(value[3]) for _, written in told for value in msgspec.msgpack.decode(written))
