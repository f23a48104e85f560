"""Listeners and routes that are no more, and still have work: they finish what they have, for as long as they may.

Promises: nothing new comes to them (net/listener.py has emptied their queues), http connections end as in a drain of the
service, tcp goes on; what is left when `shutdown.removed` is over is cut (`killed`), and who can be told so (HTTP/2) has a
second to close. They are listed, so that their books stay in metrics and a stop of the service waits for them, until the
last connection is gone; that is looked for every LOOK seconds, while there are any. What removed routes of listeners that
live on have taken goes on likewise, until that time is over. Where other processes have the connections (`is_elsewhere`)
those cut them; here they are listed while the books have any. Called by relistening.py. Seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final
from weakref import WeakSet

from twisted.internet.task import LoopingCall
from twisted.python import log

from lbsvc.core.books import ListenerBooks
from lbsvc.cutting import cut_routes
from lbsvc.net.drain import FAREWELL
from lbsvc.serving import Served

#: How often we look whether somebody has gone, in seconds.
LOOK: Final = 0.5


class Leaving:
    """All of them."""

    def __init__(self, reactor: Any, emit: Any) -> None:
        self._reactor = reactor
        self._emit = emit
        self.is_elsewhere = False
        #: when each is cut; None: never
        self._due: dict[Served, float | None] = {}
        #: when what a route has taken is cut, by its name: of those that are no more
        self._routes: dict[Served, dict[str, float]] = {}
        self._cut_once: WeakSet[Served] = WeakSet()
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    @property
    def everyone(self) -> list[Served]:
        """Those that are not gone, the longest there first."""
        return list(self._due)

    def see_off(self, served: Served, patience: float | None) -> None:
        """One that is closed: let it finish, within so many seconds."""
        served.stop()
        for site in served.sites:
            site.leave()
        if not self._left(served):
            return
        if self.is_elsewhere:
            patience = None
        self._due[served] = None if patience is None else self._reactor.seconds() + patience
        if patience is not None and patience <= 0:
            self._cut(served)
        self._look_on()

    def _left(self, served: Served) -> int:
        return served.books.open if self.is_elsewhere else served.left

    def go_on(self, books: ListenerBooks) -> None:
        """Another listener counts in these books from now on: they say no more what is left of the one that leaves."""
        if self.is_elsewhere:
            self._due = {served: due for served, due in self._due.items() if served.books is not books}

    def see_routes(
        self, served: Served, gone: Collection[str], present: Collection[str], patience: float | None
    ) -> None:
        """Of a listener that lives on some routes are gone: let them finish, within so many seconds; None: ever."""
        dues = self._routes.pop(served, {})
        if patience is not None:
            dues.update(dict.fromkeys(gone, self._reactor.seconds() + patience))
        dues = {name: due for name, due in dues.items() if name not in present}
        if dues:
            self._routes[served] = dues
            self._cut_routes(self._reactor.seconds())
            self._look_on()

    def _look_on(self) -> None:
        if (self._due or self._routes) and not self._looking.running:
            self._looking.start(LOOK, now=False)

    def _cut_routes(self, now: float) -> None:
        for served, dues in list(self._routes.items()):
            over = [name for name, due in dues.items() if now >= due]
            for name in over:
                del dues[name]
            if not dues:
                del self._routes[served]
            try:
                count = cut_routes(over, served.sites) if over else 0
            except Exception:
                log.err(None, "what is left of a route that is gone could not be cut")
                continue
            if count:
                words = f"{served.name}: {', '.join(over)} is no more: cutting {count} in flight"
                self._emit("warn", "route.cut", words, listener=served.name, routes=over, active=count)

    def _look(self) -> None:
        now = self._reactor.seconds()
        for served, due in list(self._due.items()):
            if not self._left(served):
                del self._due[served]
            elif due is not None and now >= due:
                self._cut(served)
        self._cut_routes(now)
        if not self._due and not self._routes:
            self._looking.stop()

    def _cut(self, served: Served) -> None:
        """Its time is over; what is still there a second later is cut again."""
        self._due[served] = self._reactor.seconds() + FAREWELL
        if served not in self._cut_once:
            self._cut_once.add(served)
            words = f"{served.name} is no more: cutting {served.left} connections that are left"
            self._emit("warn", "listener.cut", words, listener=served.name, connections=served.left)
        for site in served.sites:
            try:
                site.abort()
            except Exception:
                log.err(None, "connections of a listener that is gone could not be cut")

    def stop(self) -> None:
        """The service stops: it waits for them, and cuts them, itself."""
        if self._looking.running:
            self._looking.stop()
