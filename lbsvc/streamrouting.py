"""From the routes of a configuration to what the connections of a tcp listener share.

Promises: everything that can be made once is made here: live pools, limits, books, and a table only where there is more than
one way to go. Called by listening.py; routing.py does the same for http listeners. Clocks, randomness and logs are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lbsvc.config.schema import ListenerSettings, RouteSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.core.split import Split
from lbsvc.core.streamroutes import StreamPattern, StreamTable
from lbsvc.http.pooling import Upstreams
from lbsvc.net.ahead import Ahead
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.relaysite import RelayRoute, RelayRule, StreamSite


def stream_site(
    settings: ListenerSettings,
    pools: Mapping[str, Upstreams],
    find_ahead: Callable[[str], Ahead | None],
    books: ListenerBooks,
    reactor: Any,
    deadlines: Deadlines,
    wall: Callable[[], float],
    rng: Any,
    make_id: Callable[[], bytes],
    log: Callable[[tuple[Any, ...]], None] | None,
) -> StreamSite:
    """The site of one tcp listener. `find_ahead` gives the connections that a pool keeps ready, if it does."""
    builder = RuleBuilder(books, pools, find_ahead)
    table: StreamTable[RelayRule] | None = None
    if settings.routes:
        table = StreamTable(
            [(stream_pattern(route), builder.build(route)) for route in settings.routes],
            builder.build(RouteSettings("default", pool=settings.pool)) if settings.pool is not None else None,
        )
    else:
        assert settings.pool is not None
        builder.lead("default", settings.pool)
    limiter = RateLimiter(settings.rate_limit) if settings.rate_limit is not None else None
    return StreamSite(
        settings, builder.routes, table, books, reactor, deadlines, wall, rng, make_id, log, limiter=limiter
    )


class RuleBuilder:
    """Builds the rules of one tcp listener."""

    def __init__(
        self, books: ListenerBooks, pools: Mapping[str, Upstreams], find_ahead: Callable[[str], Ahead | None]
    ) -> None:
        self._books = books
        self._pools = pools
        self._find_ahead = find_ahead
        #: all ways to pools that were made
        self.routes: list[RelayRoute] = []

    def build(self, settings: RouteSettings) -> RelayRule:
        """The rule of one route, which leads to a pool or to several."""
        name, pool = settings.name, settings.pool
        weights = settings.split if pool is None else ((pool, 1),)
        split = Split([(self.lead(name, each), weight) for each, weight in weights])
        limiter = RateLimiter(settings.rate_limit) if settings.rate_limit is not None else None
        return RelayRule(split, self._books.route(name, pool or "none"), limiter)

    def lead(self, name: str, pool: str) -> RelayRoute:
        """The way of a route to a pool."""
        upstreams = self._pools[pool]
        addresses = upstreams.placement.addresses if upstreams.placement is not None else None
        route = RelayRoute(name, upstreams.pool, upstreams.settings, addresses, self._find_ahead(pool))
        self.routes.append(route)
        return route


def stream_pattern(route: RouteSettings) -> StreamPattern:
    """What a connection must have for a route."""
    match = route.match
    return StreamPattern(match.sni, Networks(match.client) if match.client else None)
