"""One listener in force, with all that belongs to it: sockets, site, books, what comes before the first byte, certificates.

Promises: everything that one listener needs is made here and wired to each other, and brought to other settings here
(`apply`): what is equal stays the same object, with all that it remembers. Connections that are there go on: by the new
limits and routes from their next request on, by the TLS and the PROXY header that they began with. `left` says how many
there are, when the listener is gone. Certificates are looked at every `reload_interval`. Called by listening.py and
relistening.py. TLS and PROXY headers need our own reactor (net/reactor.py), since OpenSSL speaks on the socket itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakSet

from twisted.internet.task import LoopingCall
from twisted.python import log as twisted_log

from lbsvc.config.certificates import CertificateFault
from lbsvc.config.schema import ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
from lbsvc.core.overload import Overload
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.core.record import AccessRecord
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.http.h2_server import H2ServerConnection
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.server import ServerConnection
from lbsvc.http.site import AccessLog, HttpSite, RequestIds
from lbsvc.http.surplus import SurplusConnection
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.entrance import Entrance
from lbsvc.net.listener import Connect, Descriptors, Listener
from lbsvc.net.relay import Relay
from lbsvc.net.relaysite import StreamSite
from lbsvc.net.server_tls import ServerTls
from lbsvc.net.sockets import Opener
from lbsvc.pools import Pools
from lbsvc.routing import TableBuilder
from lbsvc.streamrouting import RuleBuilder, stream_site


@dataclass(frozen=True)
class Shown:
    """An access log whose records somebody else sees, too; equal where both are."""

    log: AccessLog | None
    witness: AccessLog

    def __call__(self, record: AccessRecord) -> None:
        if self.log is not None:
            self.log(record)
        self.witness(record)


#: Where files are not looked at, dates are, and ticket keys changed when they are old: each so many seconds.
HOURLY: Final = 3600.0


@dataclass
class Surroundings:
    """What all listeners share."""

    reactor: Any
    deadlines: Deadlines
    descriptors: Descriptors
    pools: Pools
    dice: random.Random
    ids: RequestIds
    wall: Callable[[], float]
    emit: Callable[..., None]
    open_bind: Opener
    #: the access log, for those listeners that want one; None: there is none
    log: AccessLog | None = None
    #: every mirror that may have copies under way, also of tables that are no more
    mirrors: WeakSet[Mirroring] = field(default_factory=WeakSet)
    #: whether anything new is taken
    overload: Overload = field(default_factory=Overload)

    def log_for(self, settings: ListenerSettings) -> AccessLog | None:
        """The access log as a listener has it."""
        return self.log if settings.access_log else None


class Certificates:
    """The certificates of one listener, which are looked at now and then. Raises SystemRefusal for what is of no use."""

    def __init__(self, around: Surroundings, settings: ListenerSettings) -> None:
        assert settings.tls is not None
        name = settings.name

        def tell(level: str, event: str, message: str, **fields: Any) -> None:
            around.emit(level, event, f"{name}: {message}", listener=name, **fields)

        try:
            self.tls = ServerTls(settings.tls, around.wall, tell)
        except CertificateFault as fault:
            # They were there when the configuration was read.
            raise SystemRefusal([Mistake("", 0, 0, f"listeners.{name}.tls", str(fault))]) from None
        self._looking = LoopingCall(self._look)
        self._looking.clock = around.reactor
        self._interval = settings.tls.reload_interval or HOURLY

    def _look(self) -> None:
        try:
            self.tls.look()
        except Exception:
            twisted_log.err(None, "certificates could not be looked at")

    def start(self) -> None:
        """They are looked at from now on."""
        if not self._looking.running:
            self._looking.start(self._interval, now=True)

    def stop(self) -> None:
        """No timer is left."""
        if self._looking.running:
            self._looking.stop()


def prepare_entrance(around: Surroundings, settings: ListenerSettings, before: Served | None) -> Certificates | None:
    """The certificates of a listener: those that it has, or others. Raises SystemRefusal where they cannot be had."""
    if settings.tls is None and not settings.proxy_protocol:
        return None
    if not hasattr(around.reactor, "replace"):
        key = f"listeners.{settings.name}.{'tls' if settings.tls is not None else 'proxy_protocol'}"
        raise SystemRefusal([Mistake("", 0, 0, key, "needs lbsvc's own reactor: leave --reactor out")])
    if settings.tls is None:
        return None
    if before is not None and before.certificates is not None and before.settings.tls == settings.tls:
        return before.certificates
    return Certificates(around, settings)


class Served:
    """One listener. `settings` are those in force; `certificates` those that it has, if it has any."""

    def __init__(
        self,
        around: Surroundings,
        settings: ListenerSettings,
        books: ListenerBooks,
        certificates: Certificates | None,
    ) -> None:
        self._around = around
        self.settings = settings
        self.books = books
        self.certificates: Certificates | None = None
        self._witness: AccessLog | None = None
        log = around.log_for(settings)
        self.site: HttpSite | StreamSite
        if settings.protocol == "http":
            connect, surplus = self._make_http(log)
        else:
            connect, surplus = self._make_tcp(log)
        self.listener = Listener(
            settings, books, around.reactor, around.descriptors, connect, surplus, around.open_bind
        )
        self.site.on_open, self.site.on_close = self.listener.connected, self.listener.lost
        self._entrance: Entrance | None = None
        #: those by whose rules something is still opening
        self._former: list[Entrance] = []
        self._make_entrance(certificates)

    @property
    def name(self) -> str:
        """The listener's name."""
        return self.settings.name

    def _make_http(self, log: AccessLog | None) -> tuple[Connect, Connect | None]:
        around, settings = self._around, self.settings
        self._tables = TableBuilder(settings, self.books, around.pools.upstreams, around.dice)
        site = HttpSite(
            settings,
            self._tables.build(),
            self.books,
            around.reactor,
            around.deadlines,
            around.wall,
            around.ids,
            log,
            around.dice,
            around.emit,
            around.overload,
        )
        self.site = site
        around.mirrors.update(self._tables.mirrors)
        return (
            lambda peer, arrival: (
                H2ServerConnection(site, peer, arrival)
                if arrival is not None and arrival.alpn == b"h2"
                else ServerConnection(site, peer, arrival)
            ),
            lambda peer, arrival: (
                H2ServerConnection(site, peer, arrival)
                if arrival is not None and arrival.alpn == b"h2"
                else SurplusConnection(site, peer, arrival)
            ),
        )

    def _make_tcp(self, log: AccessLog | None) -> tuple[Connect, Connect | None]:
        around = self._around
        self._rules = RuleBuilder(self.books, around.pools.upstreams, around.pools.ahead)
        site = stream_site(
            self.settings,
            self._rules,
            self.books,
            around.reactor,
            around.deadlines,
            around.wall,
            around.dice,
            around.ids.make,
            log,
            around.overload,
        )
        self.site = site
        return lambda peer, arrival: Relay(site, peer, arrival).downstream, None

    def _make_entrance(self, certificates: Certificates | None) -> None:
        """What comes before the first byte of the road: PROXY header, TLS, or nothing."""
        around, settings, books = self._around, self.settings, self.books
        if certificates is not self.certificates:
            if self.certificates is not None:
                self.certificates.stop()
            books.certificates, reloads = None, books.certificate_reloads
            if certificates is not None:
                tls = certificates.tls
                books.certificates = lambda: tls.expiries
                for result, count in reloads.items():  # counts never go backwards
                    tls.reloads[result] += count
                books.certificate_reloads = tls.reloads
            self.certificates = certificates
        if certificates is None and not settings.proxy_protocol:
            self._entrance = self.listener.openLean = None
            return
        self._entrance = Entrance(
            self.listener,
            Networks(settings.trusted_proxies) if settings.proxy_protocol else None,
            certificates.tls if certificates is not None else None,
            around.reactor,
            around.deadlines,
            around.wall,
            around.ids.make,
            around.log_for(settings),
            around.emit,
            around.overload,
            settings.protocol != "tcp",
        )
        self.listener.openLean = self._entrance.open

    # -- at run time

    def apply(self, settings: ListenerSettings, certificates: Certificates | None, old: PoolsOf, new: PoolsOf) -> None:
        """Other settings, or other pools, from now on; `certificates` are those of `prepare_entrance`."""
        before, self.settings = self.settings, settings
        log = self._log()
        is_log_new = log != self.site.log
        if is_log_new:
            self.site.log = log
        if isinstance(self.site, HttpSite):
            self._apply_http(self.site, before, old, new)
        else:
            self._apply_tcp(self.site, before)
        if is_log_new or certificates is not self.certificates or _opens(before) != _opens(settings):
            former = self._entrance
            self._former = [each for each in (*self._former, former) if each is not None and each.openings]
            self._make_entrance(certificates)
            self.listener.take(self.listener.bound)  # its ports ask anew what comes before the first byte
        if before != settings:
            self.listener.apply(settings, self.peers)

    def _apply_http(self, site: HttpSite, before: ListenerSettings, old: PoolsOf, new: PoolsOf) -> None:
        table = self._tables.build(self.settings)
        self._around.mirrors.update(self._tables.mirrors)
        if before != self.settings or table is not site.table:
            site.apply(self.settings, table)
        elif any(old(name) != new(name) for name in self._tables.pools):
            site.renew()  # cookies of ours are taken out of what connections remember (http/forwarding.py)

    def _apply_tcp(self, site: StreamSite, before: ListenerSettings) -> None:
        if before != self.settings or not self._rules.are_in_force(site.routes):
            site.apply(self.settings, *self._rules.build(self.settings))

    def show(self, witness: AccessLog | None) -> None:
        """From now on one more sees the records of this listener's requests; None: nobody more."""
        self._witness = witness
        self.site.log = self._log()

    def _log(self) -> AccessLog | None:
        log = self._around.log_for(self.settings)
        return log if self._witness is None else Shown(log, self._witness)

    def forget_routes(self, pools: Container[str]) -> None:
        """Books that nobody asks for any more go."""
        self.books.forget_routes(pools, {"none", "default", *(route.name for route in self.settings.routes)})

    # -- the end

    def start(self) -> None:
        """Certificates are looked at from now on."""
        if self.certificates is not None:
            self.certificates.start()

    def stop(self) -> None:
        """No timer is left."""
        if self.certificates is not None:
            self.certificates.stop()

    @property
    def sites(self) -> Iterator[HttpSite | StreamSite | Entrance]:
        """All that have connections of this listener."""
        yield self.site
        if self._entrance is not None:
            yield self._entrance
        yield from self._former

    @property
    def peers(self) -> Iterator[str]:
        """Of each connection that was counted for a client, whose it was counted as."""
        for site in self.sites:
            yield from site.peers

    @property
    def limiters(self) -> Iterator[tuple[str, RateLimiter]]:
        """Its rate limits, by the names of their routes; "" is its own."""
        if isinstance(self.site, HttpSite):
            own = self.site.limit.limiter if self.site.limit is not None else None
            limiters = self._tables.limiters
        else:
            own, limiters = self.site.limiter, self._rules.limiters
        if own is not None:
            yield "", own
        yield from limiters

    @property
    def left(self) -> int:
        """Connections that are there."""
        return sum(site.left for site in self.sites)

    @property
    def routes(self) -> set[str]:
        """The names of its routes."""
        names = {route.name for route in self.settings.routes}
        return names if self.settings.pool is None else {*names, "default"}

    def may_choose(self, pool: str) -> bool:
        """Whether a connection that is there may still be led to a pool: some route leads there, and it may ask for one."""
        if isinstance(self.site, HttpSite):
            is_led, is_asking = pool in self._tables.pools, bool(self.site.connections)
        else:
            is_led = any(route.pool.name == pool for route in self.site.routes)
            is_asking = any(relay.hello is not None for relay in self.site.relays)
        return is_led and (is_asking or any(site.left for site in self.sites if isinstance(site, Entrance)))

    def __repr__(self) -> str:
        return f"<served {self.name}>"


#: What a pool's name says, of what connections remember of its pool.
PoolsOf = Callable[[str], object]


def _opens(settings: ListenerSettings) -> tuple[object, ...]:
    """What an entrance is made of, beside certificates and log."""
    proxies = settings.trusted_proxies if settings.proxy_protocol else ()
    return settings.proxy_protocol, proxies, settings.timeouts.handshake
