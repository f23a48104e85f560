"""From the routes of a configuration to the routing table that a listener holds.

Promises: everything that can be made once is made here, so that a request finds ready answers, live pools and its route's
books. Called by app.py; a reload will build another table and swap it.
"""

from __future__ import annotations

from collections.abc import Mapping

from lbsvc.config.schema import ListenerSettings, Match, Redirect, RouteSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.router import Pattern, Route, RoutingTable
from lbsvc.http.pooling import Upstreams
from lbsvc.http.responses import redirect
from lbsvc.http.site import Answer, Destination, answering


def routing_table(settings: ListenerSettings, books: ListenerBooks, pools: Mapping[str, Upstreams]) -> RoutingTable:
    """The table of one http listener."""

    def destination(name: str, pool: str | None, answer: Answer | None = None) -> Destination:
        return Destination(name, books.route(name, pool or "none"), pools[pool] if pool is not None else None, answer)

    routes = [
        Route(route.name, pattern(route.match), destination(route.name, route.pool, own_answer(route)))
        for route in settings.routes
    ]
    default = None
    if settings.pool is not None:
        default = Route("default", Pattern(), destination("default", settings.pool))
    return RoutingTable(routes, default)


def pattern(match: Match) -> Pattern:
    """A match in the bytes that requests are made of."""
    return Pattern(
        match.host,
        match.path.encode() if match.path is not None else None,
        frozenset(method.encode() for method in match.methods),
        tuple((name.encode(), value.encode("latin-1", "replace")) for name, value in match.headers),
    )


def own_answer(route: RouteSettings) -> Answer | None:
    """What a route answers without a pool, if it does."""
    if route.respond is not None:
        return answering(route.respond)
    if route.redirect is not None:
        return redirecting(route.redirect, route.match.path)
    return None


def redirecting(rule: Redirect, path: str | None) -> Answer:
    """The answer of a `redirect` route; `*` in it stands for what the pattern's `*` matched."""
    prefix = path[:-1] if path is not None and path.endswith("*") else None
    return lambda head: redirect(rule, prefix, head.target)
