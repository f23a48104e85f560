"""Who is on their way through the listeners, and the end of it for some: the time that they had for leaving is over.

Promises: all exchanges, tunnels, relays and copies with a lease of a backend (`cut`), or that a route took (`cut_routes`),
end as `killed`, and give their leases back, before the call returns; nobody else is touched: of an HTTP/2 connection
only the streams concerned. Costs a look at each connection, so it is for the rare end of a patience. Called by the app, as
`Pools.on_cut`, by leaving.py, and by listening.py, which asks who may still come to a pool.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import Any

from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool
from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_server import H2ServerConnection
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.site import HttpSite


def users(sites: Iterable[Any]) -> Iterator[tuple[Any, Callable[[], object]]]:
    """Each exchange and relay of these sites, of whichever protocol, that is not over, and what ends it as killed."""
    for site in sites:
        for relay in list(getattr(site, "relays", ())):
            # One whose protocol was switched has left all that it knew with its exchange.
            user = getattr(relay, "exchange", None) or relay
            if not user.is_over:
                yield user, relay.kill
        if isinstance(site, HttpSite):
            for connection in list(site.connections):
                yield from _of_connection(connection)


def _of_connection(connection: Any) -> Iterator[tuple[Any, Callable[[], object]]]:
    if isinstance(connection, H2ServerConnection):
        for request in list(connection.requests):
            if request.exchange is not None and not request.exchange.is_over:
                yield request.exchange, partial(connection.reset_stream, request, wire.INTERNAL_ERROR, "killed")
    elif connection.exchange is not None and not connection.exchange.is_over:
        yield connection.exchange, partial(connection.cut, "killed")


def cut(backend: Backend, sites: Iterable[Any], mirrors: Iterable[Mirroring]) -> None:
    """End all that goes on there."""
    for user, end in users(sites):
        lease = getattr(user, "lease", None)
        if lease is not None and lease.backend is backend:
            end()
    for mirroring in mirrors:
        for copy in list(mirroring.copies):
            if copy._lease is not None and copy._lease.backend is backend:
                copy.cut()


def cut_routes(names: Container[str], sites: Iterable[Any]) -> int:
    """End all that these routes have taken; how many it were."""
    count = 0
    for user, end in users(sites):
        if _route_of(user) in names:
            end()
            count += 1
    return count


def _route_of(user: Any) -> str | None:
    destination = getattr(user, "destination", None)
    if destination is not None:
        return str(destination.name)
    route = getattr(user, "route", None)
    return str(route.names[0]) if route is not None else None


def may_come(user: Any, pool: Pool) -> bool:
    """Whether this exchange or relay has chosen a pool, and may ask it for a backend."""
    for leads in (getattr(user, "upstreams", None), getattr(user, "route", None)):
        if leads is not None and leads.pool is pool:
            return True
    copies = getattr(user, "copies", None)
    return copies is not None and copies.upstreams.pool is pool
