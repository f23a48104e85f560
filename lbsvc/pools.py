"""From the pools of a configuration to live ones: members, checks, guards, queues, connections, and what is told of them.

Promises: everything a pool's settings ask for is wired here and nowhere else. Called by app.py at the start. Clocks, timers
and randomness are given; `emit` is the event log.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from lbsvc.config.certificates import CertificateFault
from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.core.backend import Backend
from lbsvc.core.guarding import Guard
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue
from lbsvc.core.ramping import Ramp
from lbsvc.core.retry import RetryBudget
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.http.placing import placement_of
from lbsvc.http.pooling import Upstreams
from lbsvc.membership import Membership
from lbsvc.net.ahead import Ahead
from lbsvc.net.client_tls import UpstreamTls
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.prober import HealthChecker
from lbsvc.net.resolver import system_lookup

#: How long a backend that could not be reached comes after all others, in seconds; then it is tried again.
SUSPICION: Final = 1.0

#: Events of the guard that are bad news.
_BAD: Final = frozenset({"circuit.open", "backend.ejected"})


class Pools:
    """All pools of the service."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        checker: HealthChecker,
        rng: random.Random,
        wall: Callable[[], float],
        emit: Callable[..., None],
        is_starting: Callable[[], bool],
        http: Container[str] = (),
    ) -> None:
        self._http = http  # the pools whose users speak HTTP, all of them
        self._reactor = reactor
        self._deadlines = deadlines
        self._checker = checker
        self._rng = rng
        self._wall = wall
        self._emit = emit
        self._is_starting = is_starting
        self.pools: list[Pool] = []
        self.upstreams: dict[str, Upstreams] = {}
        self.memberships: list[Membership] = []
        self._ahead: dict[str, Ahead] = {}

    def make(self, settings: PoolSettings) -> None:
        """Make one pool, and all that belongs to it."""
        reactor = self._reactor
        pool = Pool(
            settings.name,
            settings.algorithm,
            self._rng,
            self.tell_empty,
            self._tell_available,
            seconds=reactor.seconds,
            later=reactor.callLater,
        )
        pool.budget = RetryBudget(settings.retry.budget)
        pool.queue = Queue(settings.queue.size)
        pool.panic = settings.panic_threshold
        if settings.slow_start:
            pool.ramp = Ramp(settings.slow_start)
        if settings.circuit_breaker is not None or settings.passive_health is not None:
            pool.guard = Guard(
                settings.circuit_breaker,
                settings.passive_health,
                reactor.seconds,
                reactor.callLater,
                lambda backend: pool.refresh(),
                self._tell_guard,
            )
        pool.on_suspect = lambda backend: reactor.callLater(SUSPICION, pool.trust, backend)
        self.pools.append(pool)
        placement = placement_of(settings, pool, self._wall)
        self.upstreams[settings.name] = Upstreams(settings, pool, reactor, self._deadlines, self._rng, placement)
        lookup = system_lookup(reactor)
        tls = self._make_tls(settings) if any(backend.is_secure for backend in settings.backends) else None
        multiplex = self._multiplexer(settings, tls)
        self.memberships.append(Membership(settings, pool, reactor, self._checker, lookup, self._emit, tls, multiplex))

    def _multiplexer(
        self, settings: PoolSettings, tls: UpstreamTls | None
    ) -> Callable[[Backend, BackendSettings], None]:
        """What makes HTTP/2 be spoken to those of a pool's backends that it is to be spoken to."""
        upstreams, protocol = self.upstreams[settings.name], settings.protocol
        # Where HTTP/1.1 may be spoken too, `Backend.tls` offers that alone: upgrades and checks cannot do with HTTP/2.
        chosen = self._make_tls(settings, ("h2", "http/1.1")) if tls is not None and protocol == "auto" else tls

        def multiplex(backend: Backend, entry: BackendSettings) -> None:
            if entry.is_h2c:
                upstreams.multiplex(backend, None, True)
            elif chosen is not None and entry.is_secure and protocol != "http/1.1" and settings.name in self._http:
                words = backend.tls if chosen is tls else chosen.for_host(entry.host)
                upstreams.multiplex(backend, words, protocol == "h2")

        return multiplex

    def _make_tls(self, settings: PoolSettings, offered: tuple[str, ...] = ()) -> UpstreamTls:
        """How TLS is spoken to the pool's backends; raises SystemRefusal."""
        key = f"pools.{settings.name}.{'tls' if settings.tls is not None else 'backends'}"
        if not hasattr(self._reactor, "replace"):
            raise SystemRefusal([Mistake("", 0, 0, key, "TLS needs lbsvc's own reactor: leave --reactor out")])
        try:
            ordinary = "h2" if settings.protocol == "h2" else "http/1.1"
            alpn = (offered or (ordinary,)) if settings.name in self._http else ()
            return UpstreamTls(settings.tls, self._wall, alpn, partial(self._tell_unverified, settings.name))
        except CertificateFault as fault:
            raise SystemRefusal([Mistake("", 0, 0, key, str(fault))]) from None

    def ahead(self, name: str) -> Ahead | None:
        """The connections that are dialled ahead for the tcp listeners of a pool; None where none are asked for."""
        settings, pool = self.upstreams[name].settings, self.upstreams[name].pool
        if settings.ahead > 0 and name not in self._ahead:
            self._ahead[name] = Ahead(settings, pool, self._reactor, self._deadlines, self._rng)
        return self._ahead.get(name)

    def start(self) -> list[Deferred[None]]:
        """Fill the pools; gives what fires when each name that is looked up has its first answer, or has had its time."""
        answers = [answer for membership in self.memberships for answer in membership.start()]
        for ahead in self._ahead.values():
            ahead.start()
        return answers

    def stop(self) -> None:
        """No lookup, no timer and no kept connection from here on."""
        for ahead in self._ahead.values():
            ahead.close()
        for membership in self.memberships:
            membership.stop()
        for pool in self.pools:
            if pool.guard is not None:
                pool.guard.close()
        for upstreams in self.upstreams.values():
            upstreams.close_idle()

    # -- what is told

    def tell_flip(self, backend: Backend, detail: str) -> None:
        """A backend's health has changed."""
        level, word = ("info", "up") if backend.health == "up" else ("warn", "down")
        self._tell(level, f"backend.{word}", backend, f"{backend.health} ({detail})", detail=detail)

    def _tell_unverified(self, pool: str, name: str, detail: str) -> None:
        """A backend was not believed to be who it should be."""
        self._emit("warn", "backend.unverified", f"{pool}: {name}: {detail}", pool=pool, name=name, detail=detail)

    def _tell_guard(self, event: str, backend: Backend, fields: dict[str, Any]) -> None:
        words = event.replace("circuit.", "circuit ").replace("backend.", "").replace("_", " ")
        self._tell("warn" if event in _BAD else "info", event, backend, words, **fields)

    def _tell(self, level: str, event: str, backend: Backend, words: str, **fields: Any) -> None:
        message = f"{backend.pool}/{backend.name}: {words}"
        self._emit(level, event, message, pool=backend.pool, backend=backend.name, **fields)

    def tell_empty(self, pool: Pool) -> None:
        """Nobody is left, and why."""
        if self._is_starting():
            return  # nobody has been looked up or asked yet; what is still so after the first round is said then
        why = "; ".join(f"{b.name}: {b.last_check[2] if b.last_check else b.health}" for b in pool.backends)
        self._emit("error", "pool.empty", f"{pool.name}: no backend is available ({why})", pool=pool.name)

    def _tell_available(self, pool: Pool) -> None:
        if self._is_starting():
            return  # nothing was said of its being empty
        self._emit("info", "pool.available", f"{pool.name}: a backend is available again", pool=pool.name)
