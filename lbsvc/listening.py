"""The listeners of the service: those in force, and those that are no more and still have connections.

Promises: what is to be drained, counted or closed stands in one list of each kind, also what is of listeners that leave. The
start makes them one by one (`make`, then their sockets, then `start`); afterwards `prepare` gives a plan for other settings,
which is committed or abandoned in the same turn (relistening.py). Called by app.py and reloading.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from lbsvc.config.schema import ListenerSettings, Settings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.overload import Overload
from lbsvc.core.pool import Pool
from lbsvc.cutting import may_come, users
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.site import AccessLog, HttpSite, RequestIds
from lbsvc.leaving import Leaving
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.entrance import Entrance
from lbsvc.net.listener import Descriptors, Listener
from lbsvc.net.relaysite import StreamSite
from lbsvc.net.sockets import Opener, opener
from lbsvc.net.systemd import Passed
from lbsvc.pools import Pools
from lbsvc.relistening import ListenersPlan
from lbsvc.serving import Served, Surroundings, prepare_entrance

_NOTHING: Passed = MappingProxyType({})


class Listeners:
    """All of them. `passed` are sockets that systemd has passed, by name: they stay open as long as the process lives;
    `open_bind` opens binds in another way."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        descriptors: Descriptors,
        pools: Pools,
        dice: random.Random,
        ids: RequestIds,
        wall: Callable[[], float],
        emit: Callable[..., None],
        passed: Passed = _NOTHING,
        overload: Overload | None = None,
        open_bind: Opener | None = None,
    ) -> None:
        opens = open_bind if open_bind is not None else opener(passed)
        self._around = Surroundings(reactor, deadlines, descriptors, pools, dice, ids, wall, emit, opens)
        if overload is not None:
            self._around.overload = overload
        #: by name, in the order of the configuration
        self.served: dict[str, Served] = {}
        self._leaving = Leaving(reactor, emit)
        pools.is_used = self.uses

    # -- the start

    def make(self, settings: ListenerSettings, log: AccessLog | None = None) -> None:
        """One listener; raises SystemRefusal where it cannot be had."""
        if log is not None:
            self.log = log
        certificates = prepare_entrance(self._around, settings, None)
        books = ListenerBooks(settings.name, settings.protocol)
        self.served[settings.name] = Served(self._around, settings, books, certificates)

    def start(self) -> None:
        """Certificates are looked at from now on."""
        for served in self.served.values():
            served.start()

    def stop(self) -> None:
        """No timer is left."""
        self._leaving.stop()
        for served in self.served.values():
            served.stop()

    # -- at run time

    @property
    def is_leading(self) -> bool:
        """Others have the connections, and count them in the books."""
        return self._leaving.is_elsewhere

    @is_leading.setter
    def is_leading(self, is_leading: bool) -> None:
        self._leaving.is_elsewhere = is_leading

    @property
    def log(self) -> AccessLog | None:
        """The access log, for those that want one. To be set before `make`, or before the `commit` that it holds from."""
        return self._around.log

    @log.setter
    def log(self, log: AccessLog | None) -> None:
        self._around.log = log

    def prepare(self, old: Settings, new: Settings) -> ListenersPlan:
        """A way from the settings in force to others; raises SystemRefusal with every mistake, and nothing has changed."""
        return ListenersPlan(self._around, self.served, self._leaving, old, new)

    def uses(self, pool: Pool) -> bool:
        """Whether anybody may still come to a pool that no listener in force leads to."""
        if any(served.may_choose(pool.name) for served in self._leaving.everyone):
            return True
        return any(may_come(user, pool) for user, _ in users(self.sites))

    # -- as others see them

    @property
    def everyone(self) -> list[Served]:
        """Those in force, and then those that leave."""
        return [*self.served.values(), *self._leaving.everyone]

    @property
    def listeners(self) -> list[Listener]:
        """Those that accept."""
        return [served.listener for served in self.served.values()]

    @property
    def sites(self) -> list[HttpSite | StreamSite | Entrance]:
        """All that have connections."""
        return [site for served in self.everyone for site in served.sites]

    @property
    def mirrors(self) -> list[Mirroring]:
        """All that may have copies under way."""
        return list(self._around.mirrors)

    @property
    def books(self) -> list[ListenerBooks]:
        """The books of each, of those that leave too, brought up to date: of two of one name those of the one in force."""
        known = {pool.name for pool in self._around.pools.everyone}
        found: dict[str, ListenerBooks] = {}
        for served in self.everyone:
            found.setdefault(served.name, served.books)
            served.forget_routes(known)
        for site in self.sites:
            site.count()
        return list(found.values())

    @property
    def all_books(self) -> list[ListenerBooks]:
        """Those of all that are not gone, also where two of them have one name."""
        return list({id(served.books): served.books for served in self.everyone}.values())

    @property
    def open(self) -> int:
        """Connections that a stop waits for: open ones, and those that have lost their client but not all their bytes."""
        return sum(books.open for books in self.all_books) + sum(site.flushing for site in self.sites)
