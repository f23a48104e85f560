"""Pools that are in the settings no more, and still have users: they work on for those, and for nobody else.

Promises: who chose such a pool before it was removed (in its queue, between two tries, in a fault's delay, on a leaving
listener) is served as if it were there: its members take what comes, without lookups and checks. When nobody uses it in
QUIET looks in a row, or the time of `shutdown.removed` is over, its members leave as those that are removed singly; it is
`forgotten` when the last of them is gone. One that comes back before is the same live pool (`take_back`). While there are
any, they are looked at every LOOK seconds. Called by pools.py. Seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.python import log

from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool
from lbsvc.livepool import LivePool

#: How often we look whether anybody uses one, in seconds.
LOOK: Final = 0.5
#: So many looks in a row find nobody: then there is nobody.
QUIET: Final = 2


class Retired:
    """One of them, as far as it has come."""

    def __init__(self, live: LivePool, roads: frozenset[str], patience: float | None, due: float | None) -> None:
        self.live = live
        #: the protocols that led to it
        self.roads = roads
        #: how long what it has may go on, and until when; None: without limit
        self.patience = patience
        self.due = due
        #: those that had work when it was removed
        self.busy: list[Backend] = [backend for backend in live.pool.backends if backend.active]
        self.quiet = 0
        #: nobody is a member any more
        self.is_dismissed = False


class Retiring:
    """All of them. `is_used` says whether anybody may still come to a pool; `tell_gone` is told of who has finished."""

    def __init__(self, reactor: Any, is_used: Callable[[Pool], bool], tell_gone: Callable[[Backend], object]) -> None:
        self._reactor = reactor
        self._is_used = is_used
        self._tell_gone = tell_gone
        self._retired: dict[str, Retired] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    @property
    def everyone(self) -> list[LivePool]:
        """Those that are not forgotten."""
        return [each.live for each in self._retired.values()]

    @property
    def roads(self) -> dict[str, frozenset[str]]:
        """The protocols that led to each."""
        return {name: each.roads for name, each in self._retired.items()}

    def find(self, name: str) -> LivePool | None:
        """The one of this name."""
        each = self._retired.get(name)
        return each.live if each is not None else None

    def begin(self, live: LivePool, roads: frozenset[str], patience: float | None) -> None:
        """A pool is removed; `patience`: how long whoever uses it may go on, None: ever."""
        due = None if patience is None else self._reactor.seconds() + patience
        each = self._retired[live.pool.name] = Retired(live, roads, patience, due)
        live.retire()
        if patience is not None and patience <= 0:
            self._dismiss(each, 0.0)
        if self._retired and not self._looking.running:
            self._looking.start(LOOK, now=False)

    def take_back(self, name: str) -> None:
        """It is in the settings again."""
        del self._retired[name]
        self._rest()

    def left(self, name: str) -> None:
        """Somebody has left a pool of this name: whether it has been left by all."""
        each = self._retired.get(name)
        if each is not None and each.is_dismissed and not each.live.pool.leaving:
            del self._retired[name]
            each.live.stop()
            self._rest()

    def stop(self) -> None:
        """No timer is left, nobody is waited for."""
        if self._looking.running:
            self._looking.stop()
        for each in self._retired.values():
            each.live.stop()

    def _rest(self) -> None:
        """Nobody looks where there is nothing to be found."""
        if self._looking.running and all(each.is_dismissed for each in self._retired.values()):
            self._looking.stop()

    def _look(self) -> None:
        now = self._reactor.seconds()
        for each in list(self._retired.values()):
            try:
                self._look_at(each, now)
            except Exception:
                log.err(None, f"the pool {each.live.pool.name}, which is no more, could not be looked at")
        self._rest()

    def _look_at(self, each: Retired, now: float) -> None:
        if each.is_dismissed:
            return
        pool = each.live.pool
        is_busy = any(backend.active for backend in pool.everyone) or pool.queued > 0 or self._is_used(pool)
        each.quiet = 0 if is_busy else each.quiet + 1
        if each.quiet >= QUIET:
            for backend in each.busy:
                self._tell_gone(backend)
            self._dismiss(each, each.patience)
        elif each.due is not None and now >= each.due:
            self._dismiss(each, 0.0)

    def _dismiss(self, each: Retired, patience: float | None) -> None:
        """Nobody is a member any more: who waits is told so, what is left may go on for so long."""
        each.is_dismissed = True
        each.live.dismiss(patience)
        self.left(each.live.pool.name)
