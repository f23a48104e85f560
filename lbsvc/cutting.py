"""Ends what is under way at one backend: the time that it had for leaving is over.

Promises: every exchange, tunnel, relay and copy that has a lease of this backend ends as `killed`, and gives its lease back,
before `cut` returns; nobody else's is touched: of a client's HTTP/2 connection only the streams that lead there. Costs a
look at each connection, so it is for the rare end of a patience. Called by the app, as `Pools.on_cut`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lbsvc.core.backend import Backend
from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_server import H2ServerConnection
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.site import HttpSite


def cut(backend: Backend, sites: Iterable[Any], mirrors: Iterable[Mirroring]) -> None:
    """End all that goes on there. `sites` are those of the listeners, of whichever protocol."""
    for site in sites:
        for relay in list(getattr(site, "relays", ())):
            # One whose protocol was switched has left its lease with its exchange.
            if _is_at(backend, relay) or _is_at(backend, getattr(relay, "exchange", None)):
                relay.kill()
        if isinstance(site, HttpSite):
            for connection in list(site.connections):
                _cut_connection(backend, connection)
    for mirroring in mirrors:
        for copy in list(mirroring.copies):
            if copy._lease is not None and copy._lease.backend is backend:
                copy.cut()


def _cut_connection(backend: Backend, connection: Any) -> None:
    if isinstance(connection, H2ServerConnection):
        for request in list(connection.requests):
            if _is_at(backend, request.exchange):
                connection.reset_stream(request, wire.INTERNAL_ERROR, "killed")
    elif _is_at(backend, connection.exchange):
        connection.cut("killed")


def _is_at(backend: Backend, user: Any) -> bool:
    """Whether an exchange or a relay has a lease of it."""
    lease = getattr(user, "lease", None)
    return lease is not None and lease.backend is backend
