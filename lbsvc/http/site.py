"""What the connections of one http listener share: settings, the routing table, books, clocks, the access log.

Promises: `apply` swaps table, settings and what is made of them, here and nowhere else; work in flight keeps what it started
with, connections go by what is new from their next request on, and remember nothing that the former table made of a head.
Made by serving.py, held by every server connection. Invariant: `connections` are those that are open, so that a drain can
tell the idle ones to go.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from lbsvc.config.schema import ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.overload import Overload
from lbsvc.core.paths import normal_path, other_readings
from lbsvc.core.router import Route, RoutingTable
from lbsvc.errors import ProtocolViolation
from lbsvc.http.fields import Rules
from lbsvc.http.identity import Trust
from lbsvc.http.limiting import RequestLimit, limit_for
from lbsvc.http.messages import RequestHead
from lbsvc.http.refusals import Refusals, Tell, tell_nobody
from lbsvc.net.carrying import Carrier
from lbsvc.net.deadlines import TICK, Deadlines
from lbsvc.net.together import writer_for

if TYPE_CHECKING:
    from lbsvc.http.either import DownstreamSide
    from lbsvc.http.h2_server import H2ServerConnection
    from lbsvc.http.server import ServerConnection

#: An access record: see lbsvc.core.record for the order of its parts.
AccessLog = Callable[[tuple[Any, ...]], None]
#: What counts as no request that ended otherwise than well: those that did, and connections that ended before they had one.
_NO_REQUESTS: Final = frozenset({"ok", "handshake_failed", "bad_proxy_header"})
#: After so many seconds an idle connection forgets what only makes requests cheaper; `keep_alive` goes on.
REST: Final = 5.0


class RequestIds:
    """Makes X-Request-Id: 64 random bits, so that nobody learns from his own how many others there were."""

    def __init__(self, rng: random.Random) -> None:
        self.bits = rng.getrandbits

    def make(self) -> bytes:
        """The next one; the hot path inlines it."""
        return b"%016x" % self.bits(64)


class HttpSite:
    """One http listener, as its connections see it."""

    def __init__(
        self,
        settings: ListenerSettings,
        table: RoutingTable,
        books: ListenerBooks,
        reactor: Any,
        deadlines: Deadlines,
        wall: Callable[[], float],
        ids: RequestIds,
        log: AccessLog | None,
        rng: random.Random,
        tell: Tell = tell_nobody,
        overload: Overload | None = None,
    ) -> None:
        self.books = books
        #: whether requests are admitted at all now: the process's own, unless there is none
        self.overload = overload if overload is not None else Overload()
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        #: for whole answers of backends
        self.write = writer_for(reactor)
        self.deadlines = deadlines
        self.wall = wall
        self.ids = ids
        self.log = log
        #: for faults on purpose
        self.rng = rng
        #: what the event log hears of clients that are at fault
        self.refusals = Refusals(books.name, self.seconds, tell)
        self.is_draining = False
        self.is_leaving = False  # drains, since its listener is gone
        self.limit: RequestLimit | None = None
        self._take(settings, table)
        self.unrouted = books.route("none", "none")
        self.connections: set[ServerConnection | H2ServerConnection] = set()
        #: those whose protocol was switched, with a connection left
        self.relays: set[Carrier] = set()
        #: Twisted's own transports close when the socket is writable, ours when nothing is left to send
        self.closes_late = not hasattr(reactor, "dial")
        self.on_open: Callable[[int], None] = lambda number: None
        self.on_close: Callable[[str], None] = lambda peer: None
        self._date = (0, b"")

    def _take(self, settings: ListenerSettings, table: RoutingTable) -> None:
        self.settings = settings
        self.table = table
        self.limit = limit_for(settings.rate_limit, self.limit)
        self.trust = Trust(settings.trusted_proxies, settings.forwarded)
        #: for connections of which a trusted proxy itself does not know whose they are
        self.distrust = Trust((), settings.forwarded)
        self.rules = Rules(
            header_size=settings.limits.header_size,
            header_count=settings.limits.header_count,
            underscores=settings.limits.underscore_headers,
        )
        #: clients are asked for certificates, and backends told what they have shown
        self.asks_certificates = settings.tls is not None and settings.tls.client_ca is not None
        #: answers need more than the request's id: they end their connections, or name their backends
        self.is_special = settings.expose_backend or self.is_draining
        #: the first part of `keep_alive` as the hot path adds it to the sweep's time
        self.keep_alive = min(settings.timeouts.keep_alive, REST) + TICK

    def apply(self, settings: ListenerSettings, table: RoutingTable) -> None:
        """Other settings, another table, or both, from now on."""
        is_patience_new = settings.timeouts.keep_alive != self.settings.timeouts.keep_alive
        is_idle_new = settings.timeouts.idle != self.settings.timeouts.idle
        self._take(settings, table)
        self.renew(is_patience_new)
        if is_idle_new:
            for relay in self.relays:
                relay.look_again()

    def renew(self, is_patience_new: bool = False) -> None:
        """What connections remember of heads is of no use any more: something has changed that it was made of."""
        for connection in list(self.connections):
            connection.renew(is_patience_new)

    def soon(self, flush: Callable[[], None]) -> None:
        """Call it at the end of this turn of the reactor, or a turn later where the reactor knows no such thing."""
        at_end = getattr(self.reactor, "at_end_of_turn", None)
        if at_end is not None:
            at_end(flush)
        else:
            self.reactor.callLater(0, flush)

    def match(self, head: RequestHead, connection: DownstreamSide) -> Route | None:
        """The route of a request; raises ProtocolViolation where its path could be read in two ways."""
        table = self.table
        path = head.target.partition(b"?")[0]
        host = (head.host or b"").decode("latin-1")
        normal = normal_path(path) if path != b"*" else path
        client = head.section.client or connection.peer
        route = table.match(host, normal, head.method, head.header, client, head.names)
        if b"%" in normal or b";" in normal:
            for other in other_readings(normal):
                if table.match(host, other, head.method, head.header, client, head.names) is not route:
                    raise ProtocolViolation(
                        400, "the path leads elsewhere for readers who decode %2F or drop parameters"
                    )
        head.route, head.table = route, table
        head.forward = b""  # what another table made of it
        return route

    def date_line(self) -> bytes:
        """A Date field for an answer that lacks one (RFC 9110, 6.6.1), remembered for a second."""
        now = int(self.wall())
        if self._date[0] != now:
            self._date = (now, b"Date: %b\r\n" % http_date(now))
        return self._date[1]

    def count(self) -> None:
        """Bring the books up to date before a scrape: what ended well is all that ended, less what did not."""
        books = self.books
        total = books.forgotten + sum(sum(route.requests.values()) for route in books.routes.values())
        others = sum(number for reason, number in books.terminations.items() if reason not in _NO_REQUESTS)
        # A request whose route's books went while it was under way is on no books: counts never go backwards.
        books.terminations["ok"] = max(total - others, books.terminations.get("ok", 0))

    def drain(self) -> None:
        """From now on answers end their connections; connections that wait for a request are closed."""
        self.is_draining = self.is_special = True
        for connection in list(self.connections):
            connection.drain()

    def leave(self) -> None:
        """The listener is gone, the service goes on: idle connections have a moment more, in which a request may arrive."""
        self.is_leaving = True
        self.drain()

    @property
    def peers(self) -> Iterator[str]:
        """Of each connection that `on_close` will tell of, what it will say."""
        yield from [connection.entered for connection in self.connections]
        yield from [relay.peer for relay in self.relays if relay.downstream.transport is not None]

    @property
    def left(self) -> int:
        """Connections that are there, also those that have lost their client and have something left for the backend."""
        return len(self.connections) + len(self.relays)

    def abort(self) -> None:
        """Cut what is left."""
        for connection in list(self.connections):
            connection.cut("killed")
        for relay in list(self.relays):
            relay.kill()

    @property
    def flushing(self) -> int:
        """How many have lost their client, and have bytes left for the backend: a drain waits for them too."""
        return sum(relay.downstream.transport is None for relay in self.relays)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(timestamp: int) -> bytes:
    """IMF-fixdate (RFC 9110, 5.6.7), whatever the locale."""
    from time import gmtime

    t = gmtime(timestamp)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    ).encode()
