"""From the routes of a configuration to the routing table that a listener holds.

Promises: everything that can be made once is made here, so that a request finds ready answers, live pools and its route's
books. Called by serving.py, at the start and whenever the settings are others: a site swaps its table (http/site.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lbsvc.config.schema import ListenerSettings, Match, Redirect, Respond, RouteSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.core.router import Pattern, Route, RoutingTable
from lbsvc.core.split import Split
from lbsvc.http.destination import Answer, Destination
from lbsvc.http.edits import Edits
from lbsvc.http.limiting import limit_for
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.pooling import Upstreams
from lbsvc.http.responses import fixed, redirect


class _Made(NamedTuple):
    """What was made of a route, and of what: as long as that is the same, it is what it was."""

    settings: RouteSettings
    body_size: int | None
    destination: Destination

    @property
    def ways(self) -> list[Destination]:
        """The destinations that lead to a pool, or answer."""
        split = self.destination.split
        return [self.destination] if split is None else split.choices


class TableBuilder:
    """Builds the tables of one http listener, one after the other.

    `build` gives the same table as long as nothing in it is different. In another one, what is the same is the same object,
    with all that it remembers: destinations, the buckets of limits (by the route's name), mirrors; a split goes on where it
    was.
    """

    def __init__(
        self, settings: ListenerSettings, books: ListenerBooks, pools: Mapping[str, Upstreams], rng: random.Random
    ) -> None:
        self._settings = settings
        self._books = books
        self._pools = pools
        self._rng = rng
        self._made: dict[str, _Made] = {}
        self._table: RoutingTable | None = None
        #: those of the table: whoever stops the service cuts what they have in flight
        self.mirrors: list[Mirroring] = []

    def build(self, settings: ListenerSettings | None = None) -> RoutingTable:
        """The whole table, of other settings where there are any."""
        before = self._settings
        if settings is not None:
            self._settings = settings
        settings = self._settings
        former, self._made = self._made, {}
        routes = [
            Route(route.name, pattern(route.match), self._destination(route, former)) for route in settings.routes
        ]
        default = None
        if settings.pool is not None:
            whole = RouteSettings("default", pool=settings.pool)
            default = Route("default", Pattern(), self._destination(whole, former))
        found = (made.destination.mirroring for made in self._made.values())
        self.mirrors = [mirroring for mirroring in found if mirroring is not None]
        is_same = (before.routes, before.pool) == (settings.routes, settings.pool) and all(
            former.get(name) is made for name, made in self._made.items()
        )
        if self._table is None or not is_same:
            self._table = RoutingTable(routes, default)
        return self._table

    @property
    def pools(self) -> set[str]:
        """The pools that requests may be sent to."""
        return {pool for made in self._made.values() for pool in pools_of(made.settings)}

    @property
    def limiters(self) -> Iterator[tuple[str, RateLimiter]]:
        """The rate limits of routes, by their names."""
        for name, made in self._made.items():
            limit = made.ways[0].limit
            if limit is not None:
                yield name, limit.limiter

    def _destination(self, route: RouteSettings, former: Mapping[str, _Made]) -> Destination:
        body_size = self._settings.limits.body_size if route.body_size is None else route.body_size
        before = former.get(route.name)
        if before is None or before[:2] != (route, body_size) or not self._are_in_force(before):
            before = _Made(route, body_size, self._make(route, body_size, before))
        self._made[route.name] = before
        return before.destination

    def _are_in_force(self, made: _Made) -> bool:
        """Whether the pools that it leads to are still those of their names."""
        led = [way.upstreams for way in made.ways]
        if made.destination.mirroring is not None:
            led.append(made.destination.mirroring.upstreams)
        return all(each is self._pools.get(each.pool.name) for each in led if each is not None)

    def _make(self, route: RouteSettings, body_size: int | None, before: _Made | None) -> Destination:
        former = before.destination if before is not None else None
        edits = Edits(route)
        mirroring = None
        if route.mirror is not None:
            upstreams, mirroring = self._pools[route.mirror.pool], former.mirroring if former is not None else None
            if mirroring is None or mirroring.upstreams is not upstreams or mirroring.share != route.mirror.share:
                mirroring = Mirroring(upstreams, route.mirror.share, self._rng)
        limit = limit_for(route.rate_limit, before.ways[0].limit if before is not None else None)

        def lead(pool: str | None, split: Split[Destination] | None = None, is_drawn: bool = False) -> Destination:
            return Destination(
                route.name,
                self._books.route(route.name, pool or "none"),
                self._pools[pool] if pool is not None else None,
                own_answer(route),
                body_size=body_size,
                deny=route.deny,
                edits=edits,
                fault=route.fault,
                limit=limit,
                mirroring=mirroring,
                split=split,
                timeout=route.timeout,
                is_drawn=is_drawn,
            )

        if not route.split:
            return lead(route.pool)
        split = Split([(lead(pool, is_drawn=True), weight) for pool, weight in route.split])
        if before is not None and before.destination.split is not None and before.settings.split == route.split:
            split.go_on(before.destination.split)
        return lead(None, split)


def pattern(match: Match) -> Pattern:
    """A match in the bytes that requests are made of."""
    return Pattern(
        match.host,
        match.path.encode() if match.path is not None else None,
        frozenset(method.encode() for method in match.methods),
        tuple((name.encode(), value.encode("latin-1", "replace")) for name, value in match.headers),
        Networks(match.client) if match.client else None,
    )


def own_answer(route: RouteSettings) -> Answer | None:
    """What a route answers without a pool, if it does."""
    if route.respond is not None:
        return answering(route.respond)
    if route.redirect is not None:
        return redirecting(route.redirect, route.match.path)
    return None


def answering(respond: Respond) -> Answer:
    """The answer of a `respond` route: made once."""
    made = fixed(respond)
    return lambda head, scheme: made


def redirecting(rule: Redirect, path: str | None) -> Answer:
    """The answer of a `redirect` route; `*` in it stands for what the pattern's `*` matched."""
    prefix = path[:-1] if path is not None and path.endswith("*") else None
    return lambda head, scheme: redirect(rule, prefix, head, scheme)


def pools_of(route: RouteSettings) -> list[str]:
    """Every pool that a route may send requests to."""
    named = [route.pool, *(pool for pool, _ in route.split), route.mirror.pool if route.mirror is not None else None]
    return [pool for pool in named if pool is not None]
