"""What the connections of one tcp listener share: settings, routes, limits, books, clocks, the access log.

Made by streamrouting.py, held by every relay; http/site.py is its sister. `apply` swaps what was configured, here and
nowhere else: relays that have their route keep it, those that still wait for a name take one of the new ones. `limiter` is
the listener's own, a rule's is the route's; `addresses` (who sticks to which backend) and `ahead` (connections that are
ready) are the pool's, and shared by all listeners that use it. Invariant: `relays` are those with a connection left, so that
a drain can wait for them and cut them.

On our own reactor those who have come in one turn are dialled for at its end, one after the other.

A listener that has nothing but a pool has one `RelayRoute`, `alone`, and its connections look no further. Any other has a
table of rules, each of which leads to a pool, or to several by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from twisted.python import log

from lbsvc.config.schema import ListenerSettings, PoolSettings
from lbsvc.core.affinity import AddressTable
from lbsvc.core.books import ListenerBooks, RouteBooks
from lbsvc.core.overload import Overload
from lbsvc.core.pool import Pool
from lbsvc.core.ratelimit import RateLimiter, client_key, limiter_for
from lbsvc.core.split import Split
from lbsvc.core.streamroutes import StreamTable
from lbsvc.net.ahead import Ahead
from lbsvc.net.deadlines import Deadlines

if TYPE_CHECKING:
    from lbsvc.net.relay import Relay


class RelayRoute:
    """The way of a route's connections to one pool, and what that pool wants to be minded."""

    __slots__ = ("addresses", "ahead", "is_heralding", "is_plain", "names", "pool", "pool_settings")

    def __init__(
        self,
        name: str,
        pool: Pool,
        pool_settings: PoolSettings,
        addresses: AddressTable | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        #: of the route and of the pool, as the access log has them
        self.names: tuple[str, str | None] = (name, pool.name)
        self.pool = pool
        self.pool_settings = pool_settings
        self.addresses = addresses
        self.ahead = ahead
        #: its connections begin with a PROXY header
        self.is_heralding = pool_settings.proxy_protocol is not None
        #: whose turn it is is all that matters: the pool is asked without further ado
        self.is_plain = addresses is None and not pool.wants_key

    def __repr__(self) -> str:
        return f"<RelayRoute {self.names[0]} -> {self.names[1]}>"


class RelayRule:
    """What is done with the connections that a route takes: a limit, and where they go."""

    __slots__ = ("books", "limiter", "names", "split")

    def __init__(self, split: Split[RelayRoute], books: RouteBooks, limiter: RateLimiter | None = None) -> None:
        #: of the route, and of its pool where it has only one
        self.names = (books.route, None if books.pool == "none" else books.pool)
        self.split = split
        self.books = books
        self.limiter = limiter

    def __repr__(self) -> str:
        return f"<RelayRule {self.names[0]}>"


def is_within(limiter: RateLimiter, peer: str, now: float) -> bool:
    """Take a token for the client at `peer`: was there one?"""
    key = "listener" if limiter.policy.key == "listener" else client_key(peer)
    return limiter.take(key, now) <= 0


class StreamSite:
    """What the connections of one tcp listener share.

    `routes` are all ways to pools; without a `table` there is only one.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        routes: Sequence[RelayRoute],
        table: StreamTable[RelayRule] | None,
        books: ListenerBooks,
        reactor: Any,
        deadlines: Deadlines,
        wall: Callable[[], float],
        rng: Any,
        make_id: Callable[[], bytes],
        log: Callable[[tuple[Any, ...]], None] | None,
        *,
        limiter: RateLimiter | None = None,
        overload: Overload | None = None,
    ) -> None:
        self.books = books
        #: whether connections are admitted at all now: the process's own, unless there is none
        self.overload = overload if overload is not None else Overload()
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.deadlines = deadlines
        self.wall = wall
        self.rng = rng
        self.make_id = make_id
        self.log = log
        self.limiter = limiter
        self._take(settings, routes, table)
        #: Twisted's own transports close when the socket is writable, ours when nothing is left to send
        self.closes_late = not hasattr(reactor, "dial")
        self._at_end_of_turn: Callable[[Callable[[], None]], None] | None = getattr(reactor, "at_end_of_turn", None)
        self._choosing: list[Relay] = []
        self.on_open: Callable[[int], None] = lambda number: None
        self.on_close: Callable[[str], None] = lambda peer: None
        #: those with a connection left, settled or not
        self.relays: set[Relay] = set()

    def _take(
        self, settings: ListenerSettings, routes: Sequence[RelayRoute], table: StreamTable[RelayRule] | None
    ) -> None:
        self.settings = settings
        self.routes = tuple(routes)
        self.table = table
        #: where every connection goes; None where that is to be looked up
        self.alone: RelayRoute | None = None
        if table is None:
            (self.alone,) = self.routes

    def apply(
        self, settings: ListenerSettings, routes: Sequence[RelayRoute], table: StreamTable[RelayRule] | None
    ) -> None:
        """Other settings, other ways, or both, from now on."""
        is_idle_new = settings.timeouts.idle != self.settings.timeouts.idle
        had_table = self.table is not None
        self._take(settings, routes, table)
        self.limiter = limiter_for(settings.rate_limit, self.limiter)
        if self.alone is not None and had_table:
            # For those that wait for a name, which does not matter any more; nobody else looks at it.
            name, pool = self.alone.names
            self.table = StreamTable([], RelayRule(Split([(self.alone, 1)]), RouteBooks(name, pool or "none")))
        if is_idle_new:
            for relay in self.relays:
                relay.look_again()

    def choose_soon(self, relay: Relay) -> None:
        """Have a backend chosen and dialled for it: at the end of this turn, with all who have come in it.

        Dials that follow on each other find the backends awake by the first: waking them for each one, from far between, is
        what cost most (tests/bench, `l4close`: 15 of 87 us).
        """
        if self._at_end_of_turn is None:
            relay.choose()
            return
        if not self._choosing:
            self._at_end_of_turn(self._choose_all)
        self._choosing.append(relay)

    def _choose_all(self) -> None:
        relays, self._choosing = self._choosing, []
        for relay in relays:
            if not relay.is_over:
                try:
                    relay.choose()
                except Exception:
                    log.err(None, "Error in the opening of a connection")
                    relay.downstream.abort()

    def leave(self) -> None:
        """The listener is gone, the service goes on: so may the connections. What pools keep ready is others' as well."""

    @property
    def peers(self) -> Iterator[str]:
        """Of each connection that `on_close` will tell of, what it will say."""
        yield from [relay.peer for relay in self.relays if relay.downstream.transport is not None]

    @property
    def left(self) -> int:
        """Connections that are there, also those that have lost their client and have something left for the backend."""
        return len(self.relays)

    def drain(self) -> None:
        """Connections may go on until the deadline; none is made ready any more."""
        for route in self.routes:
            if route.ahead is not None:
                route.ahead.close()

    def count(self) -> None:
        """Bring the books up to date."""
        for relay in self.relays:
            relay.count()

    @property
    def flushing(self) -> int:
        """How many have lost their client, and have bytes left for the backend: a drain waits for them too."""
        return sum(relay.downstream.transport is None for relay in self.relays)

    def abort(self) -> None:
        """Cut what is left."""
        for relay in list(self.relays):
            relay.kill()
