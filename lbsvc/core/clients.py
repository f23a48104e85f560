"""How many connections each client has, and whether it may have another (lb-reference.yaml: connections_per_client).

Promises: a client is what has an address: an IPv4 address, the /64 of an IPv6 one (whoever has one address of it has all),
an IPv4-mapped address as what it stands for. Clients of unix sockets have no address and are not counted. Past its limit a
client may have some `Surplus` connections, which are there to be refused politely, and after those none. What is remembered
is bounded by the connections that are open: a client that has none is forgotten. Called by net/listener.py.

Several processes that serve one listener tell each other how many each client has, every T seconds (workers/tallies.py):
`news` is what the others are to know, `elsewhere` what they have told, which is added to our own when a client comes. So all
together a client may have the limit wherever its connections are; within 2 T it may get the limit from each of them.
What is told is the fewest that it has had since the last news, lest connections that are no more be counted here while
it has them anew there. So it is refused for what it has no more only where a connection that was there for T ended less than
T ago. Surplus is not told.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address
from typing import Final

from lbsvc.core.networks import UNIX

#: What somebody new believes, of whatever was told to others.
_UNHEARD: Final = -1


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
        #: what a client has in other processes
        self.elsewhere: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._surplus: dict[str, int] = {}
        #: the fewest that clients have had since the last news, of those of whom there may be any; None: nobody asks
        self._fewest: dict[str, int] | None = None
        #: what others believe, where that is not 0
        self._told: dict[str, int] = {}

    def enter(self, peer: str) -> str | None:
        """One more connection from `peer`: `peer` if it may have it, Surplus if it is to be refused, None past all limits.

        But for None, `leave` must follow with what was given here, once.
        """
        client = client_of(peer)
        if client is None:
            return peer
        count = self._open.get(client, 0)
        if count + self.elsewhere.get(client, 0) < self.limit:
            self._open[client] = count + 1
            if self._fewest is not None:
                self._fewest.setdefault(client, count)
            return peer
        return Surplus(peer) if _take(self._surplus, client, self.surplus) else None

    def count(self, peer: str) -> None:
        """A connection that was there before anybody counted: `leave` must follow, as after `enter`, which gave `peer`."""
        client = client_of(peer)
        if client is not None:
            counts = self._surplus if isinstance(peer, Surplus) else self._open
            count = counts.get(client, 0)
            counts[client] = count + 1
            if self._fewest is not None and counts is self._open:
                self._fewest.setdefault(client, count)

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
        if self._fewest is not None and counts is self._open:
            if left or client in self._told:
                self._fewest[client] = min(self._fewest.get(client, left), left)
            else:
                self._fewest.pop(client, None)  # nobody has heard of it

    # -- among several processes

    def news(self, most: int) -> list[tuple[str, int]]:
        """Of up to `most` clients how many connections the others are to count, where that is not what they believe."""
        if self._fewest is None:
            self._fewest = dict(self._open)
        found: list[tuple[str, int]] = []
        looked: list[str] = []
        for client, fewest in self._fewest.items():
            if len(found) >= most:
                break
            looked.append(client)
            if fewest != self._told.get(client, 0):
                found.append((client, fewest))
        for client in looked:
            count = self._open.get(client, 0)
            if self._fewest[client] == count:
                del self._fewest[client]
            else:
                self._fewest[client] = count  # it has had less: the next news
        for client, fewest in found:
            if fewest:
                self._told[client] = fewest
            else:
                del self._told[client]
        return found

    def retell(self) -> None:
        """There is somebody who has heard nothing yet: the next news are of everybody."""
        self._told = dict.fromkeys(self._told, _UNHEARD)
        if self._fewest is not None:
            for client in self._told.keys() | self._open.keys():
                self._fewest.setdefault(client, self._open.get(client, 0))

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._open.keys() | self._surplus.keys())


def _take(counts: dict[str, int], client: str, most: int) -> bool:
    count = counts.get(client, 0)
    if count >= most:
        return False
    counts[client] = count + 1
    return True
