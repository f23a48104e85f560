"""The listeners of a configuration, each with its site, its books and, where it has them, its certificates.

Promises: everything that one listener needs is made here and wired to each other, in the order of the configuration; what
is to be drained, counted or closed stands in one list of each kind. Certificates are looked at every `reload_interval`.
Called by app.py. TLS and PROXY headers need our own reactor (net/reactor.py), since OpenSSL speaks on the socket itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.python import log

from lbsvc.config.certificates import CertificateFault
from lbsvc.config.schema import ListenerSettings, ListenerTls
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
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
from lbsvc.pools import Pools
from lbsvc.routing import TableBuilder
from lbsvc.streamrouting import stream_site

#: Where files are not looked at, dates are, and ticket keys changed when they are old: each so many seconds.
HOURLY: Final = 3600.0


class Listeners:
    """All of them."""

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
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._descriptors = descriptors
        self._pools = pools
        self._dice = dice
        self._ids = ids
        self._wall = wall
        self._emit = emit
        self.books: list[ListenerBooks] = []
        self.listeners: list[Listener] = []
        self.sites: list[HttpSite | StreamSite | Entrance] = []
        self.mirrors: list[Mirroring] = []
        #: one for each listener that has certificates
        self._looks: list[LoopingCall] = []

    def make(self, settings: ListenerSettings, log: AccessLog | None) -> None:
        """One listener; raises SystemRefusal where it cannot be had."""
        books = ListenerBooks(settings.name, settings.protocol)
        site: HttpSite | StreamSite
        if settings.protocol == "http":
            site, connect, surplus = self._http(settings, books, log)
        else:
            site, connect, surplus = self._tcp(settings, books, log)
        listener = Listener(settings, books, self._reactor, self._descriptors, connect, surplus)
        site.on_open, site.on_close = listener.connected, listener.lost
        self.books.append(books)
        self.sites.append(site)
        self.listeners.append(listener)
        if settings.tls is not None or settings.proxy_protocol:
            self._make_entrance(settings, listener, log)

    def _http(
        self, settings: ListenerSettings, books: ListenerBooks, log: AccessLog | None
    ) -> tuple[HttpSite, Connect, Connect | None]:
        builder = TableBuilder(settings, books, self._pools.upstreams, self._dice)
        site = HttpSite(
            settings,
            builder.build(),
            books,
            self._reactor,
            self._deadlines,
            self._wall,
            self._ids,
            log,
            self._dice,
        )
        self.mirrors += builder.mirrors
        return (
            site,
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

    def _tcp(
        self, settings: ListenerSettings, books: ListenerBooks, log: AccessLog | None
    ) -> tuple[StreamSite, Connect, Connect | None]:
        site = stream_site(
            settings,
            self._pools.upstreams,
            self._pools.ahead,
            books,
            self._reactor,
            self._deadlines,
            self._wall,
            self._dice,
            self._ids.make,
            log,
        )
        return site, lambda peer, arrival: Relay(site, peer, arrival).downstream, None

    def _make_entrance(self, settings: ListenerSettings, listener: Listener, log: AccessLog | None) -> None:
        """What comes before the first byte of the road: PROXY header, TLS."""
        key = f"listeners.{settings.name}.{'tls' if settings.tls is not None else 'proxy_protocol'}"
        if not hasattr(self._reactor, "replace"):
            raise SystemRefusal([Mistake("", 0, 0, key, "needs lbsvc's own reactor: leave --reactor out")])
        proxies = Networks(settings.trusted_proxies) if settings.proxy_protocol else None
        tls = self._make_tls(settings.tls, settings.name, listener.books, key) if settings.tls is not None else None
        entrance = Entrance(
            listener, proxies, tls, self._reactor, self._deadlines, self._wall, self._ids.make, log, self._emit
        )
        listener.openLean = entrance.open
        self.sites.append(entrance)

    def _make_tls(self, settings: ListenerTls, name: str, books: ListenerBooks, key: str) -> ServerTls:
        def tell(level: str, event: str, message: str, **fields: Any) -> None:
            self._emit(level, event, f"{name}: {message}", listener=name, **fields)

        try:
            tls = ServerTls(settings, self._wall, tell)
        except CertificateFault as fault:
            # They were there when the configuration was read.
            raise SystemRefusal([Mistake("", 0, 0, key, str(fault))]) from None
        books.certificates = lambda: tls.expiries
        books.certificate_reloads = tls.reloads
        look = LoopingCall(self._look, tls)
        look.clock = self._reactor
        look.interval = settings.reload_interval or HOURLY
        self._looks.append(look)
        return tls

    @staticmethod
    def _look(tls: ServerTls) -> None:
        try:
            tls.look()
        except Exception:
            log.err(None, "certificates could not be looked at")

    def start(self) -> None:
        """Certificates are looked at from now on."""
        for look in self._looks:
            assert look.interval is not None
            look.start(look.interval, now=True)

    def stop(self) -> None:
        """No timer is left."""
        for look in self._looks:
            if look.running:
                look.stop()
