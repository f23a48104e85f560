"""From the routes of a configuration to the routing table that a listener holds.

Promises: everything that can be made once is made here, so that a request finds ready answers, live pools and its route's
books. Called by app.py; a reload will build another table and swap it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from lbsvc.config.schema import ListenerSettings, Match, Redirect, Respond, RouteSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
from lbsvc.core.router import Pattern, Route, RoutingTable
from lbsvc.core.split import Split
from lbsvc.http.destination import Answer, Destination
from lbsvc.http.edits import Edits
from lbsvc.http.limiting import RequestLimit
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.pooling import Upstreams
from lbsvc.http.responses import fixed, redirect


class TableBuilder:
    """Builds the table of one http listener."""

    def __init__(
        self, settings: ListenerSettings, books: ListenerBooks, pools: Mapping[str, Upstreams], rng: random.Random
    ) -> None:
        self._settings = settings
        self._books = books
        self._pools = pools
        self._rng = rng
        #: the mirrors that were made: whoever stops the service cuts what they have in flight
        self.mirrors: list[Mirroring] = []

    def build(self) -> RoutingTable:
        """The whole table."""
        settings = self._settings
        routes = [Route(route.name, pattern(route.match), self._destination(route)) for route in settings.routes]
        default = None
        if settings.pool is not None:
            default = Route("default", Pattern(), self._destination(RouteSettings("default", pool=settings.pool)))
        return RoutingTable(routes, default)

    def _destination(self, route: RouteSettings) -> Destination:
        edits = Edits(route)
        mirroring = None
        if route.mirror is not None:
            mirroring = Mirroring(self._pools[route.mirror.pool], route.mirror.share, self._rng)
            self.mirrors.append(mirroring)
        body_size = self._settings.limits.body_size if route.body_size is None else route.body_size
        limit = RequestLimit(route.rate_limit) if route.rate_limit is not None else None

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
        return lead(None, Split([(lead(pool, is_drawn=True), weight) for pool, weight in route.split]))


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
