"""What a parent of workers does in place of carrying traffic: holding sockets, telling health and names, draining them.

Promises: in the parent listeners hold their sockets and accept nobody; what checks find and names stand for is told to the
workers; the parent's own books show what they have counted. Made by app.py where `workers` is above 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lbsvc.admin.control import Failed
from lbsvc.config.schema import Settings
from lbsvc.core.overload import Overload
from lbsvc.net.drain import Drain
from lbsvc.net.prober import HealthChecker
from lbsvc.net.resolver import Lookup, system_lookup
from lbsvc.net.sockets import holder
from lbsvc.reloading import Reloading
from lbsvc.traffic import Sources, Traffic
from lbsvc.workers.crew import Crew
from lbsvc.workers.following import Following
from lbsvc.workers.ledger import Ledger, Overloads
from lbsvc.workers.member import SERVING, Member
from lbsvc.workers.messages import Verdict
from lbsvc.workers.rolling import NotReplaced, Rolling
from lbsvc.workers.rows import row

#: So many workers may be lost before all of them serve, where another process serves meanwhile.
TRIES: Final = 3
#: How long after a worker was told to stop the whole service may turn out to have been, in seconds.
HESITATION: Final = 1.0


class Hopeless(Exception):
    """Workers end as soon as they have begun."""


class Leading:
    """The parent's side."""

    crew: Crew
    ledger: Ledger

    def __init__(self, workers: int, reactor: Any, env: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._env = env
        self._lookup: Lookup = system_lookup(reactor)
        #: host -> what it stood for when it was last looked up
        self._names: dict[str, list[str]] = {}
        self._complete: Deferred[None] | None = Deferred()
        self._first: Callable[[], object] | None = None
        self._tries = inf
        self._is_stopping = False
        #: those that were sent TERM -> when they are replaced
        self._resigned: dict[Member, Any] = {}
        self._traffic: Traffic

    def led(self, sources: Sources) -> Sources:
        """Where the parent's own listeners and pools have things from."""
        return replace(sources, open_bind=holder(sources.open_bind), lookup=self._look_up)

    def prepare(
        self,
        settings: Settings,
        traffic: Traffic,
        checker: HealthChecker,
        reloading: Reloading,
        emit: Callable[..., None],
    ) -> None:
        """Everything is made, nothing is bound."""
        self._traffic = traffic
        traffic.pools.is_leading = traffic.listening.is_leading = traffic.shedding.is_leading = True
        self.ledger = Ledger(
            lambda: traffic.listening.all_books, lambda: traffic.pools.everyone, traffic.shedding.lag.histogram
        )
        self.crew = crew = Crew(
            self._reactor, settings, traffic, self.ledger, emit, self._env, self._verdicts, lambda: dict(self._names)
        )
        crew.on_change = self._look_whether_complete
        crew.on_resign = self._replace
        checker.on_learned = crew.tell_health
        traffic.pools.on_hurry = crew.hurry
        reloading.followers = Following(crew)

    def start(self, first: Callable[[], object] = lambda: None) -> Deferred[None]:
        """Start the workers; fires when all of them serve. `first` is called when one of them does:
        backends may be listeners of our own, so that nobody is asked before."""
        return self._begin(first, inf, True)

    def get_ready(self, tries: int = TRIES) -> Deferred[None]:
        """The same where another process serves: they accept nobody before `accept`. Fires when all of them could, or fails
        with Hopeless when so many have been lost before."""
        return self._begin(lambda: None, tries, False)

    def accept(self) -> None:
        """The other process has left it to us."""
        self.crew.accept()

    def _begin(self, first: Callable[[], object], tries: float, may_accept: bool) -> Deferred[None]:
        assert self._complete is not None
        complete = self._complete
        self._first = first
        self._tries = tries
        self.crew.start(may_accept)
        return complete

    def _look_whether_complete(self) -> None:
        first = self._first
        if first is not None and self.crew.those(SERVING):
            self._first = None
            first()
        if self._complete is not None and self.crew.is_complete:
            complete, self._complete = self._complete, None
            complete.callback(None)
        elif self._complete is not None and sum(self.crew.restarts.values()) >= self._tries:
            complete, self._complete = self._complete, None
            complete.errback(Hopeless(self.crew.last_loss))

    def _verdicts(self) -> list[Verdict]:
        """How every backend is, as far as it was checked."""
        return [
            Verdict(backend.pool, backend.name, backend.address, backend.health, backend.last_check)
            for pool in self._traffic.pools.everyone
            for backend in pool.everyone
            if backend.health != "unknown" or backend.last_check is not None
        ]

    def _look_up(self, host: str) -> Deferred[list[str]]:
        """Ask the system, and tell."""
        asked = self._lookup(host)

        def answered(addresses: list[str]) -> list[str]:
            if addresses and self._names.get(host) != addresses:
                self._names[host] = list(addresses)
                self.crew.tell_name(host, list(addresses))
            return addresses

        def failed(reason: Any) -> Any:
            if host not in self._names:
                self.crew.tell_name(host, [])
            return reason

        return asked.addCallbacks(answered, failed)

    def drain(
        self,
        delay: float,
        timeout: float,
        tell: Callable[[str], None],
        closing: Callable[[], None],
        is_gentle: bool = False,
    ) -> Drain:
        """A way to the end of all of them (net/drain.py), not begun. `is_gentle`: others go on with the sockets."""
        self._is_stopping = True
        for due in self._resigned.values():
            due.cancel()
        self._resigned.clear()
        listeners = self._traffic.listening.listeners
        leavers = [_Leavers(self.crew, timeout)]
        return Drain(
            self._reactor, delay, timeout, listeners, leavers, self._left, tell, closing, is_gentle, self._open
        )

    # -- for whoever operates it (controlling.py)

    def fresh(self) -> Deferred[None]:
        """Fires when the books are up to date."""
        return self.crew.fresh()

    def watch(self, listener: str, agent: bytes, witness: Callable[[tuple[Any, ...]], None] | None) -> None:
        """Have the access records of one client's requests shown to `witness`; None: no longer."""
        self.crew.watch(listener, agent, witness)

    def is_well(self) -> bool:
        """Has every worker answered of late?"""
        return self.crew.is_well

    def overload(self, own: Overload) -> Overloads:
        """Whether anybody refuses what is new; `own` is the parent's."""
        return Overloads(own, self.ledger)

    def rows(self) -> list[dict[str, Any]]:
        """Each worker, by its place."""
        crew, now = self.crew, self._reactor.seconds()
        members = sorted(crew.members.values(), key=lambda member: (member.place, member.number))
        return [
            row(each, crew.restarts.get(each.place, 0), now, self.ledger.listeners(each.number)) for each in members
        ]

    def restart(self) -> Deferred[int]:
        """Replace all of them, one by one; fires with how many, or fails with Failed."""
        restarted: Deferred[int] = Deferred()

        def failed(reason: Failure) -> None:
            why = reason.value
            restarted.errback(Failed(str(why)) if isinstance(why, NotReplaced) else reason)

        Rolling(self.crew).begin().addCallbacks(restarted.callback, failed)
        return restarted

    def _replace(self, member: Member) -> None:
        """Somebody has sent it TERM: it leaves, when another one serves in its place. But a service manager tells all
        processes of a service that is to stop, in any order: then leaving is the parent's to lead."""

        def replace() -> None:
            del self._resigned[member]
            if member.state == SERVING:
                Rolling(self.crew, [member]).begin().addErrback(lambda failure: failure.trap(NotReplaced) and None)

        if not self._is_stopping and member not in self._resigned:
            self._resigned[member] = self._reactor.callLater(HESITATION, replace)

    def _open(self) -> int:
        """Connections, by the last reports."""
        return sum(books.open for books in self._traffic.listening.all_books)

    def _left(self) -> int:
        """What a drain waits for: that everybody has finished, and ended."""
        return self.crew.left

    def stop(self) -> None:
        """The end: nobody is left, and no timer."""
        self.crew.kill()
        self.crew.stop()


class _Leavers:
    """The workers, as a drain sees them: somebody who has connections."""

    def __init__(self, crew: Crew, timeout: float) -> None:
        self._crew = crew
        self._timeout = timeout

    def drain(self) -> None:
        """They accept no more, and finish."""
        self._crew.leave(self._timeout, False)

    def leave(self) -> None:
        """The same, where others go on with the sockets."""
        self._crew.leave(self._timeout, True)

    def abort(self) -> None:
        """They have had their time."""
        self._crew.end()
