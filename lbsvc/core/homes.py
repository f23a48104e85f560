"""Where a client that sticks to a backend begins, so that several processes begin with the same one without asking.

Promises: of the members that serve first (core/tiers.py: whoever is up, backups only where there is no other, nobody who
drains), each client has one, which depends on the client and on the members' names and weights alone: rendezvous hashing
(Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998). Members get new clients as they weigh;
where one is passed over, or goes, its clients have others, each by itself, and all else stays. Processes that see the same
members, health and weights choose alike.

It is for clients of whom nothing is known: who has been given a backend keeps that (core/affinity.py), and those choices are
told between processes. Asked by core/choosing.py where a pool has one, which it has where it sticks by address and the
process is one of several. O(n), 1 µs a member, for a new client. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf, log

from lbsvc.core.backend import Backend
from lbsvc.core.hashing import identity, key_hash
from lbsvc.core.places import Places


class Homes:
    """The first choices of one pool's clients."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = places

    def find(self, client: str, exclude: Collection[Backend]) -> Backend | None:
        """The member where a client begins, beside these, with room or without; None where nobody serves."""
        raw = b"\0" + client.encode("utf-8", "surrogatepass")
        least = inf, b""
        found = None
        for backend in self._places.best:
            if backend in exclude:
                continue
            name = identity(backend)
            # 1 to 2**64, so that it has a logarithm, and an exponentially distributed distance.
            distance = -log((key_hash(name + raw) + 1) / _NUMBERS) / backend.effective, name
            if distance < least or found is None:
                least, found = distance, backend
        return found

    def __repr__(self) -> str:
        return f"<Homes in {self._places!r}>"


_NUMBERS = float(1 << 64)
