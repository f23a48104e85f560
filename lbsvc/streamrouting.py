"""From the routes of a configuration to what the connections of a tcp listener share.

Promises: everything that can be made once is made here: live pools, limits, books, and a table only where there is more than
one way to go. Called by serving.py; routing.py does the same for http listeners. Clocks, randomness and logs are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lbsvc.config.schema import ListenerSettings, PoolSettings, RouteSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
from lbsvc.core.overload import Overload
from lbsvc.core.ratelimit import RateLimiter, limiter_for
from lbsvc.core.split import Split
from lbsvc.core.streamroutes import StreamPattern, StreamTable
from lbsvc.http.pooling import Upstreams
from lbsvc.net.ahead import Ahead
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.relaysite import RelayRoute, RelayRule, StreamSite


def stream_site(
    settings: ListenerSettings,
    builder: RuleBuilder,
    books: ListenerBooks,
    reactor: Any,
    deadlines: Deadlines,
    wall: Callable[[], float],
    rng: Any,
    make_id: Callable[[], bytes],
    log: Callable[[tuple[Any, ...]], None] | None,
    overload: Overload | None = None,
) -> StreamSite:
    """The site of one tcp listener, whose ways are made by `builder`."""
    routes, table = builder.build(settings)
    limiter = limiter_for(settings.rate_limit, None)
    clocks = reactor, deadlines, wall
    return StreamSite(settings, routes, table, books, *clocks, rng, make_id, log, limiter=limiter, overload=overload)


class RuleBuilder:
    """Builds what the connections of one tcp listener go by, once and whenever something about it is different.

    `find_ahead` gives the connections that a pool keeps ready, if it does. The buckets of limits live on, by the route's
    name, where the limit is the same, and a split goes on where it was.
    """

    def __init__(
        self, books: ListenerBooks, pools: Mapping[str, Upstreams], find_ahead: Callable[[str], Ahead | None]
    ) -> None:
        self._books = books
        self._pools = pools
        self._find_ahead = find_ahead
        self._rules: dict[str, tuple[RouteSettings, RelayRule]] = {}
        self._routes: list[RelayRoute] = []

    def build(self, settings: ListenerSettings) -> tuple[list[RelayRoute], StreamTable[RelayRule] | None]:
        """All ways to pools, and a table where there is more than one thing to do."""
        former, self._rules = self._rules, {}
        self._routes = []
        if not settings.routes:
            assert settings.pool is not None
            self._lead("default", settings.pool)
            return self._routes, None
        default = RouteSettings("default", pool=settings.pool) if settings.pool is not None else None
        table = StreamTable(
            [(stream_pattern(route), self._rule(route, former)) for route in settings.routes],
            self._rule(default, former) if default is not None else None,
        )
        return self._routes, table

    @property
    def limiters(self) -> Iterator[tuple[str, RateLimiter]]:
        """The rate limits of routes, by their names."""
        for name, (_, rule) in self._rules.items():
            if rule.limiter is not None:
                yield name, rule.limiter

    def are_in_force(self, routes: Sequence[RelayRoute]) -> bool:
        """Whether these ways still lead where their pools' names say, as their pools want it."""
        for route in routes:
            upstreams = self._pools.get(route.pool.name)
            if (
                upstreams is None
                or upstreams.pool is not route.pool
                or not _is_alike(upstreams.settings, route.pool_settings)
            ):
                return False
            if self._find_ahead(route.pool.name) is not route.ahead:
                return False
        return True

    def _rule(self, settings: RouteSettings, former: Mapping[str, tuple[RouteSettings, RelayRule]]) -> RelayRule:
        """The rule of one route, which leads to a pool or to several."""
        name, pool = settings.name, settings.pool
        before, rule = former.get(name, (None, None))
        weights = settings.split if pool is None else ((pool, 1),)
        split = Split([(self._lead(name, each), weight) for each, weight in weights])
        if before is not None and rule is not None and before.split == settings.split:
            split.go_on(rule.split)
        limiter = limiter_for(settings.rate_limit, rule.limiter if rule is not None else None)
        made = RelayRule(split, self._books.route(name, pool or "none"), limiter)
        self._rules[name] = settings, made
        return made

    def _lead(self, name: str, pool: str) -> RelayRoute:
        """The way of a route to a pool."""
        upstreams = self._pools[pool]
        addresses = upstreams.placement.addresses if upstreams.placement is not None else None
        route = RelayRoute(name, upstreams.pool, upstreams.settings, addresses, self._find_ahead(pool))
        self._routes.append(route)
        return route


def _is_alike(one: PoolSettings, other: PoolSettings) -> bool:
    """Whether they are the same to a connection on its way: who is in the pool is not."""
    return one is other or one == other or replace(one, backends=()) == replace(other, backends=())


def stream_pattern(route: RouteSettings) -> StreamPattern:
    """What a connection must have for a route."""
    match = route.match
    return StreamPattern(match.sni, Networks(match.client) if match.client else None)
