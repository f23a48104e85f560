"""Who is in a pool: the backends of the configuration, host names among them resolved to a member for each address.

Promises: a member keeps its live object as long as its address stays; a name that never resolved stands in the pool as
one member that is down, and holds the start up no longer than a check may take; the last good answer is kept
(net/resolver.py). Called by app.py; tells the health checker who comes and goes, and the log of names' members.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.core.backend import UNLIMITED, Backend
from lbsvc.core.pool import Pool
from lbsvc.net.client_tls import UpstreamTls
from lbsvc.net.prober import HealthChecker
from lbsvc.net.proxyproto import local_header
from lbsvc.net.resolver import NameWatch

#: How long a start waits for a name's first answer where no health check says how long, in seconds.
PATIENCE: Final = 2.0


def is_literal(host: str) -> bool:
    """Whether a host is an IP address, or the path of a unix socket, rather than a name."""
    if host.startswith("/"):
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Membership:
    """One pool's members, kept up to date."""

    def __init__(
        self,
        settings: PoolSettings,
        pool: Pool,
        reactor: Any,
        checker: HealthChecker,
        lookup: Callable[[str], Any],
        emit: Callable[..., None],
        tls: UpstreamTls | None = None,
        multiplex: Callable[[Backend, BackendSettings], None] = lambda member, entry: None,
    ) -> None:
        self._multiplex = multiplex
        self._tls = tls
        self.settings = settings
        self.pool = pool
        self._reactor = reactor
        self._checker = checker
        self._lookup = lookup
        self._emit = emit
        self._watches: list[NameWatch] = []
        self._timers: list[IDelayedCall] = []
        #: what stands in the pool for each entry of the configuration, in its order
        self._members: list[list[Backend]] = [[self._member(entry)] for entry in settings.backends]

    def _member(self, entry: BackendSettings, address: str | None = None) -> Backend:
        """A live backend; `address` is one that the entry's name resolved to."""
        if is_literal(entry.host):
            host, name = entry.host, entry.name
        else:
            host, name = address or "", entry.name if address is None else f"{entry.name}@{address}"
        most = UNLIMITED if entry.max_connections is None else entry.max_connections
        member = Backend(self.pool.name, name, entry.address, host, entry.port, entry.weight, entry.backup, most=most)
        if entry.is_secure and self._tls is not None:
            member.tls = self._tls.for_host(entry.host)
        self._multiplex(member, entry)
        if self.settings.proxy_protocol is not None:
            member.greeting = local_header(self.settings.proxy_protocol)
        return member

    def start(self) -> list[Deferred[None]]:
        """Fill the pool and begin to resolve; gives what fires when each name has its first answer, or has had its time."""
        for members in self._members:
            self._check([member for member in members if member.host])
        self.pool.set_members([member for members in self._members for member in members])
        for place, entry in enumerate(self.settings.backends):
            if not is_literal(entry.host):
                watch = NameWatch(
                    self._reactor,
                    entry.host,
                    self.settings.resolve,
                    self._lookup,
                    partial(self._resolved, place),
                )
                self._watches.append(watch)
                watch.first_answer.addCallback(self._first_answer, place)
                watch.start()
        return [self._in_time(watch.first_answer) for watch in self._watches]

    def _first_answer(self, result: None, place: int) -> None:
        """Until now the name was nobody's fault. One that did not resolve is down from here on, and said to be."""
        self._check([member for member in self._members[place] if not member.host])

    def _in_time(self, answer: Deferred[None]) -> Deferred[None]:
        """Fires with the answer, or when patience ends: a resolver may take a minute to say that it does not know."""
        policy = self.settings.health_check
        over: Deferred[None] = Deferred()
        if not answer.called:
            timer = self._reactor.callLater(policy.timeout if policy else PATIENCE, over.callback, None)
            self._timers.append(timer)

            def answered(result: object) -> None:
                if timer.active():
                    timer.cancel()
                    over.callback(None)

            answer.addCallback(answered)
        else:
            over.callback(None)
        return over

    def stop(self) -> None:
        """No lookup and no change from here on."""
        for watch in self._watches:
            watch.stop()
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def _check(self, members: list[Backend]) -> None:
        policy = self.settings.health_check
        for member in members:
            if policy is not None:
                self._checker.add(self.pool, member, policy, self.settings.flapping)
            else:
                member.health = "up" if member.host else "down"

    def _resolved(self, place: int, addresses: list[str]) -> None:
        """A name has got other addresses."""
        entry = self.settings.backends[place]
        former = {member.host: member for member in self._members[place]}
        members = [former.pop(address) if address in former else self._member(entry, address) for address in addresses]
        added = [member for member in members if member not in self._members[place]]
        self._members[place] = members
        for gone in former.values():
            self._checker.remove(gone)
        self._check(added)
        self.pool.set_members([member for entry_members in self._members for member in entry_members])
        for gone in former.values():
            if gone.host:
                self._tell("backend.removed", gone, f"{entry.host} is no longer {gone.host}")
        for member in added:
            self._tell("backend.added", member, f"{entry.host} is {member.host}")

    def _tell(self, event: str, member: Backend, why: str) -> None:
        name = f"{self.pool.name}/{member.name}"
        self._emit("info", event, f"{name}: {why}", pool=self.pool.name, backend=member.name)
