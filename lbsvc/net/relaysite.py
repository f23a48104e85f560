"""What the connections of one tcp listener share: settings, the pool, limits, books, clocks, the access log.

Made by app.py, held by every relay; http/site.py is its sister. `limiter` is the listener's own; `addresses` (who sticks to
which backend) and `ahead` (connections that are ready) are the pool's, and shared by all listeners that use it. Invariant:
`relays` are those with a connection left, so that a drain can wait for them and cut them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lbsvc.config.schema import ListenerSettings, PoolSettings
from lbsvc.core.affinity import AddressTable
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.core.ratelimit import RateLimiter, client_key
from lbsvc.net.ahead import Ahead
from lbsvc.net.deadlines import Deadlines

if TYPE_CHECKING:
    from lbsvc.net.relay import Relay


class RelaySite:
    """What the connections of one tcp listener share."""

    def __init__(
        self,
        settings: ListenerSettings,
        pool_settings: PoolSettings,
        pool: Pool,
        books: ListenerBooks,
        reactor: Any,
        deadlines: Deadlines,
        wall: Callable[[], float],
        rng: Any,
        make_id: Callable[[], bytes],
        log: Callable[[tuple[Any, ...]], None] | None,
        *,
        limiter: RateLimiter | None = None,
        addresses: AddressTable | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.settings = settings
        self.pool_settings = pool_settings
        self.pool = pool
        self.books = books
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.deadlines = deadlines
        self.wall = wall
        self.rng = rng
        self.make_id = make_id
        self.log = log
        self.limiter = limiter
        self.addresses = addresses
        self.ahead = ahead
        #: whose turn it is is all that matters: the pool is asked without further ado
        self.is_plain = addresses is None and not pool.wants_key
        self.route = "default"
        #: Twisted's own transports close when the socket is writable, ours when nothing is left to send
        self.closes_late = not hasattr(reactor, "dial")
        self.on_open: Callable[[int], None] = lambda number: None
        self.on_close: Callable[[str], None] = lambda peer: None
        #: those with a connection left, settled or not
        self.relays: set[Relay] = set()

    def limit_key(self, peer: str) -> str:
        """The key of a client's bucket."""
        limiter = self.limiter
        return "listener" if limiter is not None and limiter.policy.key == "listener" else client_key(peer)

    def count_limited(self) -> None:
        """A connection was one too many. As for http, what a listener limits is of no route."""
        self.books.rejected["rate_limited"] += 1

    def drain(self) -> None:
        """Connections may go on until the deadline; none is made ready any more."""
        if self.ahead is not None:
            self.ahead.close()

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
