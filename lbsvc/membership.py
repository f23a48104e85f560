"""Who is in a pool: the backends of the configuration, host names among them resolved to a member for each address.

Promises: a member keeps its live object as long as its name and address stay, whatever else about it changes, and so does
one that comes back while it is leaving; a name that never resolved stands in the pool as one member that is down, and holds
the start up no longer than a check may take; the last good answer is kept (net/resolver.py). Whoever leaves takes nothing
new, is not checked, and stands in `Pool.leaving` while it has work. Made by livepool.py; tells the health checker who comes
and goes, and the log of what changes after the start.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.core.backend import UNLIMITED, Backend
from lbsvc.core.pool import Pool
from lbsvc.http.pooling import close_kept
from lbsvc.net.client_tls import UpstreamTls
from lbsvc.net.prober import Checker
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


class Place:
    """What stands in the pool for one entry of the configuration."""

    __slots__ = ("entry", "members", "speech", "watch")

    def __init__(self, entry: BackendSettings) -> None:
        self.entry = entry
        self.members: list[Backend] = []
        #: of a host name
        self.watch: NameWatch | None = None
        #: what decides how its members are spoken to
        self.speech: tuple[object, ...] = ()


class Membership:
    """One pool's members, kept up to date."""

    def __init__(
        self,
        settings: PoolSettings,
        pool: Pool,
        reactor: Any,
        checker: Checker,
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
        self._timers: list[IDelayedCall] = []
        #: the pool is removed: nobody is asked or looked up
        self._is_retired = False
        #: in the order of the configuration
        self._places: list[Place] = []
        for entry in settings.backends:
            place = Place(entry)
            place.speech = self._speech(entry)
            place.members = [self._member(entry)]
            self._places.append(place)

    @property
    def members(self) -> list[Backend]:
        """All of them."""
        return [member for place in self._places for member in place.members]

    # -- one member

    def _member(self, entry: BackendSettings, address: str | None = None) -> Backend:
        """A live backend; `address` is one that the entry's name resolved to. One that is leaving is taken back."""
        if is_literal(entry.host):
            host, name = entry.host, entry.name
        else:
            host, name = address or "", entry.name if address is None else f"{entry.name}@{address}"
        member = self.pool.departures.find(name, entry.address, host)
        if member is not None:
            self.pool.departures.take_back(member)
            member.health, member.last_check = "unknown", None  # nobody has looked meanwhile
        else:
            member = Backend(self.pool.name, name, entry.address, host, entry.port)
        self._speak(member, entry)
        self._set(member, entry)
        member.effective = member.weight
        return member

    def _set(self, member: Backend, entry: BackendSettings) -> None:
        """What people say about it."""
        weight, state = entry.weight, entry.state
        for own in entry.members:
            if own.name == member.name:
                weight = weight if own.weight is None else own.weight
                state = own.state or state
        member.weight, member.backup, member.source, member.state = weight, entry.backup, entry.source, state
        member.most = UNLIMITED if entry.max_connections is None else entry.max_connections
        if self.pool.guard is None:
            member.limit = member.most
        else:
            self.pool.guard.set_most(member)

    def _speech(self, entry: BackendSettings) -> tuple[object, ...]:
        """What decides how the members of an entry are spoken to: where it changes, they are spoken to anew."""
        return (entry.is_secure, entry.is_h2c, self.settings.proxy_protocol, self._tls if entry.is_secure else None)

    def _speak(self, member: Backend, entry: BackendSettings) -> None:
        proxy_protocol = self.settings.proxy_protocol
        member.tls = self._tls.for_host(entry.host) if entry.is_secure and self._tls is not None else None
        member.greeting = local_header(proxy_protocol) if proxy_protocol is not None else b""
        member.multiplexed = None
        self._multiplex(member, entry)

    # -- start and stop

    def start(self) -> list[Deferred[None]]:
        """Fill the pool and begin to resolve; gives what fires when each name has its first answer, or has had its time."""
        self.pool.set_members(self.members)  # first: a check may be over before it has been begun
        self._check(member for member in self.members if member.host)
        self.pool.refresh()
        watches = [self._watch(place) for place in self._places if not is_literal(place.entry.host)]
        return [self._in_time(watch.first_answer) for watch in watches]

    def _watch(self, place: Place) -> NameWatch:
        """Resolve a name from now on."""
        watch = NameWatch(
            self._reactor, place.entry.host, self.settings.resolve, self._lookup, partial(self._resolved, place)
        )
        if place.watch is not None:
            place.watch.stop()
            watch.addresses = place.watch.addresses
        place.watch = watch
        watch.first_answer.addCallback(self._first_answer, place)
        watch.start()
        return watch

    def hear(self, host: str, addresses: list[str]) -> None:
        """Somebody else has looked a name up."""
        for place in self._places:
            if place.watch is not None and place.entry.host == host:
                place.watch.hear(addresses)

    def _first_answer(self, result: None, place: Place) -> None:
        """Until now the name was nobody's fault. One that did not resolve is down from here on, and said to be."""
        self._check(member for member in place.members if not member.host)

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

    def retire(self) -> None:
        """The pool is removed: the members stay as they are, unasked, until other settings are applied."""
        self._is_retired = True
        self.stop()
        for member in self.members:
            self._checker.remove(member)
            self._tell_removed(member)

    def bequeath(self, member: Backend) -> None:
        """It is gone: what has been counted under its name stays with who has the name now."""
        for heir in self.pool.everyone:
            if heir.name == member.name and heir is not member:
                heir.inherit(member)
                return

    def stop(self) -> None:
        """No lookup and no change from here on."""
        for place in self._places:
            if place.watch is not None:
                place.watch.stop()
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def _check(self, members: Iterable[Backend]) -> None:
        """Have them checked, as the settings are now: not at all in maint, of which nothing is known then."""
        settings = self.settings
        policy = settings.health_check
        for member in members:
            if member.state == "maint":
                self._checker.remove(member)
                member.health = "unknown"
            elif policy is None:
                self._checker.remove(member)
                member.health, member.last_check = "up" if member.host else "down", None
            elif not self._checker.revise(member, policy, settings.flapping):
                self._checker.add(self.pool, member, policy, settings.flapping)

    # -- changes

    def apply(self, settings: PoolSettings, tls: UpstreamTls | None, patience: Callable[[str], float | None]) -> None:
        """From now on these are the settings. `patience`: how long those that leave by an entry's name may go on.

        The pool is sorted anew in any case: other things about it may have changed before.
        """
        before, self.settings, self._tls = self.settings, settings, tls
        was_retired, self._is_retired = self._is_retired, False
        former = {(place.entry.name, place.entry.address): place for place in self._places}
        places = []
        added: list[Backend] = []
        told: list[tuple[Backend, str]] = []
        for entry in settings.backends:
            place = former.pop((entry.name, entry.address), None)
            if place is None:
                place = Place(entry)
                place.speech = self._speech(entry)
                place.members = [self._member(entry)]
                added += place.members
            else:
                told += self._revise(place, entry)
                if was_retired:
                    added += place.members
            places.append(place)
        self._places = places
        self._check(
            member
            for place in places
            for member in place.members
            if member.host or (place.watch is not None and place.watch.first_answer.called)
        )
        for member, state in told:
            if (
                state == "drain" and member.state == "ready"
            ):  # it may have been restarted; after maint it is unknown anyway
                self._checker.recheck(member)
        gone = []
        for place in former.values():
            if place.watch is not None:
                place.watch.stop()
            gone += [(member, patience(place.entry.name)) for member in place.members]
        self._change_members(gone)
        for member, state in told:
            self._tell("backend.state", member, f"{member.state} (was {state})", state=member.state)
        for member, _ in gone if not was_retired else ():
            self._tell_removed(member)
        for member in added:
            self._tell("backend.added", member, f"added ({member.address})", source=member.source)
        for place in places:
            is_old = place.watch is None or was_retired or before.resolve != settings.resolve
            if is_old and not is_literal(place.entry.host):
                self._watch(place)

    def _revise(self, place: Place, entry: BackendSettings) -> list[tuple[Backend, str]]:
        """Bring the members of an entry up to date; who has another state now, and which it had."""
        place.entry = entry
        speech = self._speech(entry)
        is_anew, place.speech = speech != place.speech, speech
        changed = []
        for member in place.members:
            state = member.state
            self._set(member, entry)
            if member.state != state:
                changed.append((member, state))
            if is_anew or (member.state == "maint" and state != "maint"):
                close_kept(member)
            if is_anew:
                self._speak(member, entry)
        return changed

    def _change_members(self, gone: Iterable[tuple[Backend, float | None]]) -> None:
        """The pool hears who its members are now; those that are gone may finish what they have."""
        gone = list(gone)
        for member, _ in gone:
            self._checker.remove(member)
            member.is_leaving = True
            close_kept(member)
        members = self.members
        if tuple(members) == self.pool.backends:
            self.pool.refresh()
        else:
            self.pool.set_members(members)
        for member, seconds in gone:
            self.pool.departures.begin(member, seconds)
            if member not in self.pool.leaving:
                self.bequeath(member)

    def _resolved(self, place: Place, addresses: list[str]) -> None:
        """A name has got other addresses."""
        entry = place.entry
        former = {member.host: member for member in place.members}
        members = [former.pop(address) if address in former else self._member(entry, address) for address in addresses]
        added = [member for member in members if member not in place.members]
        place.members = members
        self._check(added)
        self._change_members((member, None) for member in former.values())
        for member in former.values():
            if member.host:
                self._tell("backend.removed", member, f"{entry.host} is no longer {member.host}")
        for member in added:
            self._tell("backend.added", member, f"{entry.host} is {member.host}")

    def _tell_removed(self, member: Backend) -> None:
        going_on = f", {member.active} in flight" if member.active else ""
        self._tell("backend.removed", member, f"removed{going_on}", active=member.active)

    def _tell(self, event: str, member: Backend, why: str, **fields: Any) -> None:
        name = f"{self.pool.name}/{member.name}"
        self._emit("info", event, f"{name}: {why}", pool=self.pool.name, backend=member.name, **fields)
