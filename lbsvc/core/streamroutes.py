"""Which route a connection of a tcp listener takes: the first that fits its client and the name that it asks for.

Promises: `find` answers as a walk over the routes in their order would (tests/properties compare it with one), at a cost
that hardly depends on their number: it is core/router.py's table, whose hosts are the names here. `needs_name` tells whether
the answer depends on the name at all for this client; where it does not nobody needs to wait for one. Called by the relay
once for each connection, and made by streamrouting.py; never changed. Pure.

Names are exact or `*.example.com`: any depth below, not the name itself. A connection without a name (no TLS, no SNI, or
something that is no host name) fits only routes that ask for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from lbsvc.core.networks import Networks
from lbsvc.core.router import Pattern, Route, RoutingTable

T = TypeVar("T")


class StreamPattern(NamedTuple):
    """What a connection must have; empty: every one fits."""

    names: tuple[str, ...] = ()  # lower-case; any of them
    networks: Networks | None = None  # where the client is


class StreamTable(Generic[T]):
    """Routes in their order, compiled; `default` takes what fits none of them."""

    __slots__ = ("_asks", "_by_name", "_by_need")

    def __init__(self, routes: Sequence[tuple[StreamPattern, T]], default: T | None = None) -> None:
        #: whether any route asks for a name
        self._asks = any(pattern.names for pattern, _ in routes)
        self._by_name = RoutingTable(
            [_route(action, name, pattern) for pattern, action in routes for name in pattern.names or (None,)],
            None if default is None else _route(default),
        )
        #: the same routes without their names: the first that may fit a client, and whether it asks for one
        self._by_need = RoutingTable([_route(bool(pattern.names), None, pattern) for pattern, _ in routes], None)

    def needs_name(self, client: str) -> bool:
        """Does it depend on the name where this client goes? `client` is an address, or "unix"."""
        if not self._asks:
            return False
        first = _match(self._by_need, "", client)
        return first is not None and first.action

    def find(self, client: str, name: str) -> T | None:
        """Where a connection goes; `name` is lower-case, "" for none. None: nowhere."""
        found = _match(self._by_name, name, client)
        return None if found is None else found.action

    def __repr__(self) -> str:
        return f"<StreamTable {len(self._by_need.routes)} routes>"


def _route(action: Any, name: str | None = None, pattern: StreamPattern = StreamPattern()) -> Route:  # noqa: B008
    return Route(name or "*", Pattern(name, networks=pattern.networks), action)


def _match(table: RoutingTable, name: str, client: str) -> Any:
    return table.match(name, b"/", b"", _no_header, client)


def _no_header(name: bytes) -> None:
    """A connection has none."""
