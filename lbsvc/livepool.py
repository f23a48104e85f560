"""One pool as it lives: its members, checks, guard, queue, connections, and how all of it takes other settings.

Promises: everything that a pool's settings ask for is wired here and nowhere else. Other settings come in two steps:
`prepare` makes whatever can be refused, of which nothing can be seen; `apply` changes what differs, in place, and does not
fail: what is equal lives on (members, leases, health, breakers, sticky clients, history). One that is removed (`retire`)
works on for who has chosen it, without lookups and checks, until it is dismissed: then it is a pool without members, whose
last ones are leaving. It may come back at any time (`revive`). Made by pools.py.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from lbsvc.config.certificates import CertificateFault
from lbsvc.config.schema import BackendSettings, PoolSettings, PoolTls
from lbsvc.core.backend import Backend
from lbsvc.core.guarding import Guard
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue
from lbsvc.core.retry import FLOOR, RetryBudget
from lbsvc.core.shares import ALONE, Seat
from lbsvc.core.tiers import Tier
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.http.placing import placement_of
from lbsvc.http.pooling import Upstreams
from lbsvc.membership import Membership
from lbsvc.net.ahead import Ahead
from lbsvc.net.client_tls import UpstreamTls
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.prober import Checker

#: How long a backend that could not be reached comes after all others, in seconds; then it is tried again.
SUSPICION: Final = 1.0


@dataclass(frozen=True)
class Surroundings:
    """What all pools share, and whom they tell."""

    reactor: Any
    deadlines: Deadlines
    checker: Checker
    rng: random.Random
    wall: Callable[[], float]
    lookup: Callable[[str], Any]
    emit: Callable[..., None]
    tell_empty: Callable[[Pool], object]
    tell_available: Callable[[Pool], object]
    tell_guard: Callable[[str, Backend, dict[str, Any]], None]
    tell_gone: Callable[[Backend], object]
    cut: Callable[[Backend], object]
    #: which of several processes this is
    seat: Callable[[], Seat] = lambda: ALONE


@dataclass(frozen=True)
class Speech:
    """How TLS is spoken to a pool's backends. `ordinary` is what `Backend.tls` is made of, `chosen` where HTTP/2 may be."""

    key: tuple[object, ...] = ()
    ordinary: UpstreamTls | None = None
    chosen: UpstreamTls | None = None


@dataclass(frozen=True)
class Prepared:
    """What `apply` needs, and could be refused."""

    settings: PoolSettings
    is_http: bool
    speech: Speech
    tiers: list[Tier] | None


class LivePool:
    """One pool. `is_http`: its users speak HTTP, all of them."""

    def __init__(self, settings: PoolSettings, is_http: bool, around: Surroundings) -> None:
        self.settings = settings
        self.is_http = is_http
        self._around = around
        self._is_running = False
        self._refused: tuple[object, ...] = ()  # files that could not be used, and were told of
        reactor = around.reactor
        self._speech = self._make_speech(settings, is_http)
        pool = self.pool = Pool(
            settings.name,
            settings.algorithm,
            around.rng,
            around.tell_empty,
            around.tell_available,
            seconds=reactor.seconds,
            later=reactor.callLater,
        )
        pool.budget = RetryBudget(settings.retry.budget, around.seat().share(FLOOR))
        pool.queue = Queue(settings.queue.size)
        pool.departures.on_gone = self._gone
        pool.departures.on_cut = around.cut
        pool.on_suspect = lambda backend: reactor.callLater(SUSPICION, pool.trust, backend)
        self._set_policies(settings)
        placement = placement_of(settings, pool, around.wall, None, around.seat().is_alone)
        self.upstreams = Upstreams(settings, pool, reactor, around.deadlines, around.rng, placement)
        self.membership = Membership(
            settings, pool, reactor, around.checker, around.lookup, around.emit, self._speech.ordinary, self._multiplex
        )
        self._ahead: Ahead | None = None

    # -- how backends are spoken to

    def _make_speech(self, settings: PoolSettings, is_http: bool, former: Speech | None = None) -> Speech:
        """What it was, if nothing of it has changed; raises SystemRefusal where it cannot be had at all.

        Files are read again when they have changed. Those that cannot be used then change nothing, and are told of.
        """
        if not any(backend.is_secure for backend in settings.backends):
            return former if former is not None and not former.key else Speech()
        asked = (settings.tls, settings.protocol, is_http)
        key = (*asked, _stamps(settings.tls))
        if former is not None and former.key == key:
            return former
        try:
            ordinary = self._make_tls(settings, ("h2" if settings.protocol == "h2" else "http/1.1",), is_http)
            # Where HTTP/1.1 may be spoken too, `Backend.tls` offers that alone: upgrades and checks cannot do with HTTP/2.
            is_open = settings.protocol == "auto"
            return Speech(key, ordinary, self._make_tls(settings, ("h2", "http/1.1"), is_http) if is_open else ordinary)
        except SystemRefusal as refusal:
            if former is None or former.key[: len(asked)] != asked:
                raise
            if self._refused != key:
                self._refused = key
                message = f"{settings.name}: what is in use stays: {refusal.mistakes[0].message}"
                self._around.emit("error", "certificate.refused", message, pool=settings.name)
            return former

    def _make_tls(self, settings: PoolSettings, offered: tuple[str, ...], is_http: bool) -> UpstreamTls:
        key = f"pools.{settings.name}.{'tls' if settings.tls is not None else 'backends'}"
        if not hasattr(self._around.reactor, "replace"):
            raise SystemRefusal([Mistake("", 0, 0, key, "TLS needs lbsvc's own reactor: leave --reactor out")])
        tell = partial(self._tell_unverified, settings.name)
        try:
            return UpstreamTls(settings.tls, self._around.wall, offered if is_http else (), tell)
        except CertificateFault as fault:
            raise SystemRefusal([Mistake("", 0, 0, key, str(fault))]) from None

    def _multiplex(self, backend: Backend, entry: BackendSettings) -> None:
        """Have HTTP/2 be spoken to it, if that is to be."""
        chosen, protocol = self._speech.chosen, self.settings.protocol
        if entry.is_h2c:
            self.upstreams.multiplex(backend, None, True)
        elif chosen is not None and entry.is_secure and protocol != "http/1.1" and self.is_http:
            words = backend.tls if chosen is self._speech.ordinary else chosen.for_host(entry.host)
            self.upstreams.multiplex(backend, words, protocol == "h2")

    def _tell_unverified(self, pool: str, name: str, detail: str) -> None:
        """A backend was not believed to be who it should be."""
        self._around.emit(
            "warn", "backend.unverified", f"{pool}: {name}: {detail}", pool=pool, name=name, detail=detail
        )

    # -- start and stop

    def start(self) -> list[Deferred[None]]:
        """Fill it; gives what fires when each name that is looked up has its first answer, or has had its time."""
        self._is_running = True
        answers = self.membership.start()
        if self._ahead is not None:
            self._ahead.start()
        return answers

    def stop(self) -> None:
        """No lookup, no timer and no kept connection from here on."""
        if self._ahead is not None:
            self._ahead.close()
        self.membership.stop()
        if self.pool.guard is not None:
            self.pool.guard.close()
        self.pool.departures.close()
        self.upstreams.close_idle()

    def ahead(self) -> Ahead | None:
        """The connections that are dialled ahead for its tcp listeners; None where none are asked for."""
        if self.settings.ahead > 0 and (self._ahead is None or self._ahead.is_closed):
            around = self._around
            self._ahead = Ahead(self.settings, self.pool, around.reactor, around.deadlines, around.rng)
            if self._is_running:
                self._ahead.start()
        return self._ahead

    # -- other settings

    def prepare(self, settings: PoolSettings, is_http: bool) -> Prepared | None:
        """What other settings need, or None where there is nothing to do; raises SystemRefusal. Changes nothing."""
        speech = self._make_speech(settings, is_http, self._speech)
        if settings == self.settings and is_http == self.is_http and speech is self._speech:
            return None
        tiers = self.pool.tiers_by(settings.algorithm) if settings.algorithm != self.pool.algorithm else None
        return Prepared(settings, is_http, speech, tiers)

    def apply(self, prepared: Prepared, patience: Callable[[str], float | None]) -> None:
        """Live by other settings. `patience`: how long those that leave, by their entry's name, may go on; None: ever."""
        settings, pool, around = prepared.settings, self.pool, self._around
        before, self.settings = self.settings, settings
        is_anew = prepared.speech is not self._speech or before.proxy_protocol != settings.proxy_protocol
        self._speech, self.is_http = prepared.speech, prepared.is_http
        pool.budget.share, pool.budget.floor = settings.retry.budget, around.seat().share(FLOOR)
        pool.queue.size = settings.queue.size
        if prepared.tiers is not None:
            pool.use(settings.algorithm, prepared.tiers)
        self._set_policies(settings)
        placement = placement_of(settings, pool, around.wall, self.upstreams.placement, around.seat().is_alone)
        self.upstreams.apply(settings, placement)
        self.membership.apply(settings, prepared.speech.ordinary, patience)  # sorts the pool anew, last
        if self._ahead is not None and not settings.ahead:
            self._ahead.close()
            self._ahead = None
        elif self._ahead is not None:
            self._ahead.apply(settings, is_anew)

    def retire(self) -> None:
        """It is removed: nobody asks or looks up its members, who still serve those that have chosen it."""
        self.pool.is_retired = True
        self.membership.retire()
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def dismiss(self, patience: float | None) -> None:
        """It is removed, and nobody needs it, or its time is over: nobody is a member any more."""
        nobody = replace(self.settings, backends=())
        self.apply(Prepared(nobody, self.is_http, self._speech, None), lambda name: patience)

    def revive(self, prepared: Prepared | None, patience: Callable[[str], float | None]) -> None:
        """It was removed, and is there again."""
        self.pool.is_retired = False
        self.apply(prepared or Prepared(self.settings, self.is_http, self._speech, None), patience)

    def _gone(self, backend: Backend) -> None:
        """It had left, and has finished."""
        self.membership.bequeath(backend)
        self._around.tell_gone(backend)

    def _set_policies(self, settings: PoolSettings) -> None:
        """Guard, slow start, panic: what is equal lives on. The pool is sorted anew afterwards."""
        pool, reactor = self.pool, self._around.reactor
        pool.panic = settings.panic_threshold
        pool.set_ramp(settings.slow_start)
        policies = settings.circuit_breaker, settings.passive_health
        if policies == (None, None):
            guard, pool.guard = pool.guard, None
            if guard is not None:
                guard.revise(None, None)
                guard.close()
        elif pool.guard is not None:
            pool.guard.revise(*policies)
        else:
            pool.guard = Guard(
                *policies, reactor.seconds, reactor.callLater, lambda backend: pool.refresh(), self._around.tell_guard
            )
            pool.guard.members(pool.backends)

    def __repr__(self) -> str:
        return f"<LivePool {self.pool!r}>"


def _stamps(tls: PoolTls | None) -> tuple[object, ...]:
    """What changes with the files of a `tls` section."""
    if tls is None:
        return ()
    paths = [tls.ca, *((tls.client.cert, tls.client.key) if tls.client is not None else ())]
    return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
