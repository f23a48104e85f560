"""How many connections each client has, and whether it may have another (lb-reference.yaml: connections_per_client).

Promises: a client is what has an address: an IPv4 address, the /64 of an IPv6 one (whoever has one address of it has all),
an IPv4-mapped address as what it stands for. Clients of unix sockets have no address and are not counted. Past its limit a
client may have some `Surplus` connections, which are there to be refused politely, and after those none. What is remembered
is bounded by the connections that are open: a client that has none is forgotten. Called by net/listener.py.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address

from lbsvc.core.networks import UNIX


class Surplus(str):
    """The address of a client, as a connection past its limit carries it: so that its end is taken off the right count.

    `str` of it is plain text, which is what logs take.
    """

    __slots__ = ()


def client_of(peer: str) -> str | None:
    """What the connections of the one at address `peer` are counted under; None where they are not counted."""
    if peer == UNIX:
        return None
    if ":" not in peer:
        return str(peer)
    try:
        address = IPv6Address(peer.partition("%")[0])
    except AddressValueError:
        return str(peer)
    mapped = address.ipv4_mapped
    if mapped is not None:
        return str(mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class ClientCounts:
    """The connections of each client of one listener: `limit` at a time, and `surplus` more to be refused."""

    def __init__(self, limit: int, surplus: int) -> None:
        self.limit = limit
        self.surplus = surplus
        self._open: dict[str, int] = {}
        self._surplus: dict[str, int] = {}

    def enter(self, peer: str) -> str | None:
        """One more connection from `peer`: `peer` if it may have it, Surplus if it is to be refused, None past all limits.

        But for None, `leave` must follow with what was given here, once.
        """
        client = client_of(peer)
        if client is None or _take(self._open, client, self.limit):
            return peer
        return Surplus(peer) if _take(self._surplus, client, self.surplus) else None

    def count(self, peer: str) -> None:
        """A connection that was there before anybody counted: `leave` must follow, as after `enter`, which gave `peer`."""
        client = client_of(peer)
        if client is not None:
            counts = self._surplus if isinstance(peer, Surplus) else self._open
            counts[client] = counts.get(client, 0) + 1

    def leave(self, peer: str) -> None:
        """A connection that `enter` has let in is gone."""
        client = client_of(peer)
        if client is None:
            return
        counts = self._surplus if isinstance(peer, Surplus) else self._open
        left = counts[client] - 1
        if left:
            counts[client] = left
        else:
            del counts[client]

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._open.keys() | self._surplus.keys())


def _take(counts: dict[str, int], client: str, most: int) -> bool:
    count = counts.get(client, 0)
    if count >= most:
        return False
    counts[client] = count + 1
    return True
