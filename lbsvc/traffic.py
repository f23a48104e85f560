"""What carries traffic: listeners, pools, what they share, and how all of it is made, started and stopped.

Promises: `make` builds everything that needs no socket, or tells every refusal; `bind` opens every socket or none; nothing
is accepted before `accept`. Everything that a process needs to carry traffic is here, and nothing about checks,
administration or the configuration's file: so that the one process of `workers: 1` (app.py) and each of several
(workers/worker.py) are built alike. `parts` are what a reload changes.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred

from lbsvc.config.roads import roads_of
from lbsvc.config.schema import Settings
from lbsvc.cutting import cut
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.http.site import RequestIds
from lbsvc.listening import Listeners
from lbsvc.logs import Logs
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.drain import Drain
from lbsvc.net.listener import Descriptors, raise_descriptor_limit
from lbsvc.net.prober import Checker
from lbsvc.net.resolver import Lookup
from lbsvc.net.sockets import Opener
from lbsvc.pools import Pools
from lbsvc.shedding import Shedding

#: How many young objects may gather before a collection looks at them. Requests leave no cycles behind, so that the
#: default of 700 only costs (tests/bench, `http`: 6 %); what does form cycles is still found.
GC_THRESHOLDS: Final = (20_000, 20, 50)


@dataclass(frozen=True)
class Sources:
    """Where a process has from what is not its own: randomness, sockets, names, health."""

    wall: Callable[[], float]
    #: for ids, picks and other draws, which are no secrets: a system call for each would be dear (a tenth of a request)
    dice: Random
    open_bind: Opener
    lookup: Lookup | None = None


class Traffic:
    """All of it."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        logs: Logs,
        checker: Checker,
        sources: Sources,
        is_starting: Callable[[], bool],
    ) -> None:
        self._reactor = reactor
        self._logs = logs
        self._emit = emit = logs.emit
        self._limit = raise_descriptor_limit()
        self.shedding = Shedding(reactor, settings.overload, emit)
        self.deadlines = Deadlines(reactor)
        http: Container[str] = {name for name, protocols in roads_of(settings).items() if protocols == {"http"}}
        self.pools = pools = Pools(
            reactor,
            self.deadlines,
            checker,
            sources.dice,
            sources.wall,
            emit,
            is_starting,
            http,
            sources.lookup,
        )
        self.listening = listening = Listeners(
            reactor,
            self.deadlines,
            Descriptors(self._limit, self._descriptors_scarce),
            pools,
            sources.dice,
            RequestIds(sources.dice),
            sources.wall,
            emit,
            overload=self.shedding.overload,
            open_bind=sources.open_bind,
        )
        pools.on_cut = lambda backend: cut(backend, listening.sites, listening.mirrors)
        listening.log = logs.log
        logs.on_change = self._log_changed

    @property
    def parts(self) -> tuple[Logs, Shedding, Pools]:
        """What obeys the settings, but the listeners, which come last."""
        return self._logs, self.shedding, self.pools

    def _descriptors_scarce(self, limit: int) -> None:
        words = f"accepting pauses while descriptors are scarce (limit {limit})"
        self._emit("warn", "listener.paused", words, limit=limit)

    def _log_changed(self) -> None:
        """Before the listeners go over to other settings."""
        self.listening.log = self._logs.log

    # -- the start

    def make(self, settings: Settings) -> None:
        """Everything that needs no socket; raises SystemRefusal with every mistake."""
        mistakes: list[Mistake] = []
        for pool in settings.pools.values():
            try:
                self.pools.make(pool)
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        for listener in settings.listeners.values() if not mistakes else ():
            try:
                self.listening.make(listener)
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        if mistakes:
            raise SystemRefusal(mistakes)

    def bind(self) -> list[Mistake]:
        """Open every socket; what was refused."""
        mistakes: list[Mistake] = []
        for listener in self.listening.listeners:
            try:
                listener.bind()
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        return mistakes

    def unbind(self) -> None:
        """Close sockets that were never served."""
        for listener in self.listening.listeners:
            listener.unbind()

    def start(self) -> list[Deferred[None]]:
        """Fill the pools; gives what fires when each name that is looked up has its first answer, or has had its time."""
        self.deadlines.start()
        self.shedding.start()
        return self.pools.start()

    def accept(self) -> None:
        """Serve."""
        self.listening.start()
        for listener in self.listening.listeners:
            listener.accept()

    # -- the stop

    def drain(
        self,
        delay: float,
        timeout: float,
        tell: Callable[[str], None],
        closing: Callable[[], None],
        is_gentle: bool = False,
    ) -> Drain:
        """A way to the end (net/drain.py), not begun. `is_gentle`: others go on serving, so idle connections are answered
        once more."""
        listening = self.listening
        return Drain(
            self._reactor,
            delay,
            timeout,
            listening.listeners,
            listening.sites,
            lambda: listening.open,
            tell,
            closing,
            is_gentle,
        )

    def stop_accepting(self) -> None:
        """The listeners close: no timer of theirs is left."""
        self.listening.stop()

    def stop(self) -> None:
        """Everything is answered or cut: stop the rest."""
        for mirroring in self.listening.mirrors:
            mirroring.close()
        self.pools.stop()
        self.deadlines.stop()
        self.shedding.stop()
