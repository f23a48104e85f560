"""Live pools in memory that take other settings: a clock, scripted backends for the checks, names that resolve as told."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from lbsvc.config.schema import PoolSettings, Settings, ShutdownSettings
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.net.deadlines import NEVER, Deadlines
from lbsvc.net.prober import HealthChecker
from lbsvc.pools import Pools, PoolsPlan
from tests.kit import builders
from tests.net.wired import Net

CHECKS = HealthCheckPolicy()


class Kept:
    """Stands for a kept connection."""

    def __init__(self) -> None:
        self.is_closed = False
        self.dies = self.deadline = self.slot = NEVER

    def close(self) -> None:
        self.is_closed = True


class Pooled:
    """Pools that were started with some settings."""

    def __init__(self, *pools: PoolSettings, names: dict[str, Any] | None = None) -> None:
        self.names: dict[str, Any] = names or {}
        self.net = Net()
        self.clock: Clock = self.net.clock
        self.clock.replace = None  # type: ignore[attr-defined]  # as our own reactor, which alone speaks TLS
        self.deadlines = Deadlines(self.clock)
        self.deadlines.start()
        self.events: list[tuple[str, str]] = []
        self.fields: list[dict[str, Any]] = []
        self.cuts: list[str] = []
        self.checker = HealthChecker(self.clock, random.Random(1), self._flipped, self.net.dial, lambda: 0.0)
        self.pools = Pools(
            self.clock,
            self.deadlines,
            self.checker,
            random.Random(1),
            lambda: 1.7e9,
            self._emit,
            lambda: False,
            {pool.name for pool in pools},
            lookup=self._look_up,
        )
        self.pools.on_cut = lambda backend: self.cuts.append(backend.name)
        self.settings = self._settings(pools)
        for settings in pools:
            self.pools.make(settings)
        self.pools.start()
        self.checker.startService()
        self.net.settle()
        self.events.clear()
        self.fields.clear()

    @staticmethod
    def _settings(pools: tuple[PoolSettings, ...], removed: float | None = None) -> Settings:
        listeners = {name: builders.listener(name=name, pool=name) for name in (pool.name for pool in pools)}
        return Settings(listeners, {pool.name: pool for pool in pools}, shutdown=ShutdownSettings(removed=removed))

    def _look_up(self, host: str) -> Deferred[list[str]]:
        answer = self.names[host]
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def _emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((event, message))
        self.fields.append(fields)

    def _flipped(self, backend: Backend, detail: str) -> None:
        self.pools.tell_flip(backend, detail)

    def prepare(self, *pools: PoolSettings, removed: float | None = None) -> tuple[PoolsPlan, Settings]:
        settings = self._settings(pools, removed)
        return self.pools.prepare(self.settings, settings), settings

    def apply(self, *pools: PoolSettings, removed: float | None = None) -> list[str]:
        """Bring these into force; the changes in words."""
        plan, self.settings = self.prepare(*pools, removed=removed)
        words = plan.commit()
        self.net.settle()
        return words

    def pool(self, name: str = "web") -> Pool:
        (found,) = [each for each in self.pools.everyone if each.name == name]
        return found

    def named(self, name: str, pool: str = "web") -> Backend:
        """A member, or one that is leaving."""
        (found,) = [each for each in self.pool(pool).everyone if each.name == name]
        return found

    def take(self, name: str, pool: str = "web") -> Lease:
        """A lease on this very one."""
        lease = self.pool(pool).take(self.named(name, pool))
        assert lease is not None
        return lease

    def keep(self, name: str) -> Kept:
        """A connection that is kept for it."""
        return self.keep_in(name, "web")

    def keep_in(self, name: str, pool: str) -> Kept:
        """The same, in a pool."""
        kept = Kept()
        self.named(name, pool).idle.append(kept)
        return kept

    def picked(self, count: int = 12, pool: str = "web") -> set[str]:
        """Who gets the next so many requests, one at a time."""
        names = set()
        for _ in range(count):
            lease = self.pool(pool).pick()
            if lease is not None:
                names.add(lease.backend.name)
                lease.release(Outcome.OK, 200)
        return names

    def stop(self) -> None:
        """Nothing is left that the clock would call."""
        self.checker.stopService()
        self.pools.stop()
        self.deadlines.stop()
