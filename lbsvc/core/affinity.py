"""Which backend a client had before: by a cookie that names it (`sticky: cookie`), or by its address (`sticky: ip`).

Promises: a table answers which member a client had, never whether that one may serve now: who asks must see whether it is
there to be used (a backend in `drain` or at weight 0 keeps its clients; one that is down, ejected or in `maint` does not),
and let the algorithm choose where it is not. Nothing that a client writes can make an error or a choice that the
configuration does not allow. Called by the road once for each request of a pool with `sticky`; told of the members by the
pool. Pure: the time is given, wall clock for cookies, monotonic for addresses, in seconds.

What is in a cookie (52 characters of base64url for 39 bytes, one spelling for each):

    16 bytes  the backend: HMAC-SHA256 of its name and address, cut off; so no address leaks, and no number to count up
     6 bytes  when it was made: milliseconds of wall clock, rounded down to a 64th of `ttl`
    17 bytes  the seal: HMAC-SHA256 of all that is before it, cut off

Both under a key that is made of `sticky.key` and the pool's name. There is no state: a cookie is good after a restart, and
on every instance with the same configuration. The key is never in it; without `sticky.key` a fixed one is used, which
anybody can read here: cookies then are opaque, no more. Whoever knows a backend's name and address can make one, and
whoever guesses them can see in one that the guess was right.

Why there is a time in it, and a seal around it: a cookie shall be set again in the last half of `ttl`, and be worth nothing
after it, whatever the client keeps; and of a cookie that comes back nothing is known but its value. Rounded times make the
value the same for all clients of a backend for a while: it follows nobody around, and a seal that has been found right is
remembered instead of computed again (forged ones are not, so strangers cannot fill that memory).

Clocks of instances differ: a cookie that seems to be made up to `ttl` from now is as good as new. As times are rounded, a
cookie is honoured for all of `ttl` and up to a 64th of it longer, and may be set again a 64th of it before its last half.

How the two tables stay cheap: O(1) a request. AddressTable is a queue by last use, and since every entry lives as long as
any other, by expiry too; the least recently used one makes room. Whoever has many addresses can push others out, who then
are balanced like new clients: a bound is worth more than their affinity.

Several processes that send clients to the same backends tell each other what is in their AddressTables (workers/tallies.py):
`news` is who was given which backend and when, `hear` takes what others tell. The later choice holds, and of two at one
moment that of the greater name: so all come to the same, whatever they hear first. Who is in use somewhere is told again
four times in `ttl`, and so is forgotten nowhere before its time. Their monotonic clock must be one, as it is on one machine.
Where a new client begins meanwhile: core/homes.py.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Final, TypeAlias

from lbsvc.core.backend import Backend
from lbsvc.core.policies import StickyPolicy

__all__ = ["AddressTable", "CookieTable"]

#: Clients that an AddressTable remembers (features.md, ST-5).
MOST_CLIENTS: Final = 10_000
#: How often in `ttl` a client that is in use is told of again.
TOLD: Final = 4
#: Cookies whose seal was right that are remembered; when there are as many, all are forgotten.
MEMORY: Final = 4096
#: Parts of `ttl` that the time in a cookie is rounded to.
PARTS: Final = 64

_ID: Final = 16
_TIME: Final = 6
_SEAL: Final = 17
_VALUE: Final = re.compile(rb"[A-Za-z0-9_-]{52}")
#: What the key of a pool is made with: cookies of another form, if there ever is one, shall not be taken for these.
_DOMAIN: Final = b"lbsvc sticky cookie, form 1\0"
#: The greatest time that has room.
_LAST: Final = (1 << 8 * _TIME) - 1


#: A client's backend, when it will be forgotten, when it was given that, and when the others were told.
_Entry: TypeAlias = tuple[Backend, float, float, float]


class CookieTable:
    """The cookies of one pool: which backend a value names, and the value for a backend."""

    __slots__ = ("_by_id", "_ids", "_key", "_known", "_made", "_part", "_ttl")

    def __init__(self, policy: StickyPolicy, pool_name: str) -> None:
        self._key = _digest(_bytes(policy.key) or b"no key", _DOMAIN + _bytes(pool_name))
        self._ttl = max(round(policy.ttl * 1000), 1)  # this and all times below are milliseconds
        self._part = max(self._ttl // PARTS, 1)
        self._ids: dict[Backend, bytes] = {}
        self._by_id: dict[bytes, Backend] = {}
        #: values whose seal is right -> whom they name, and when they were made
        self._known: dict[bytes, tuple[Backend, int]] = {}
        #: the last value that was made for each member, and its time: clients that keep no cookies ask for it each time
        self._made: dict[Backend, tuple[int, bytes]] = {}

    def members(self, backends: Iterable[Backend]) -> None:
        """These are the members now, of whatever state; who is no member is named by no cookie."""
        self._ids = {backend: self._ids.get(backend) or self._id(backend) for backend in backends}
        self._by_id = {digest: backend for backend, digest in self._ids.items()}
        self._known = {}
        self._made = {}

    def value_of(self, backend: Backend, now: float) -> bytes:
        """The cookie that names a member, made at `now` (wall clock). Nobody will know that of one who has just left."""
        time = min(max(int(now * 1000), 0), _LAST)
        time -= time % self._part
        made = self._made.get(backend)
        if made is not None and made[0] == time:
            return made[1]
        named = (self._ids.get(backend) or self._id(backend)) + time.to_bytes(_TIME, "big")
        value = urlsafe_b64encode(named + self._seal(named))
        if backend in self._ids:
            self._made[backend] = time, value
        return value

    def find(self, value: bytes, now: float) -> tuple[Backend | None, bool]:
        """The member that a cookie names, and whether it is to be set again since the last half of `ttl` has begun.

        (None, False) for what is not ours, is over, or names nobody who is a member.
        """
        known = self._known.get(value) or self._read(value)
        if known is not None:
            backend, time = known
            age = int(now * 1000) - time
            if -self._ttl <= age < self._ttl + self._part:
                return backend, age * 2 >= self._ttl
        return None, False

    def find_first(self, values: Iterable[bytes], now: float) -> tuple[Backend | None, bool]:
        """The same for cookies of one name, of which somebody else may have set some: the first that says anything."""
        for value in values:
            found = self.find(value, now)
            if found[0] is not None:
                return found
        return None, False

    def _read(self, value: bytes) -> tuple[Backend, int] | None:
        if not _VALUE.fullmatch(value):
            return None
        content = urlsafe_b64decode(value)
        backend = self._by_id.get(content[:_ID])
        # `get` may take longer for a digest that is there; which are is no secret: each is shown to its clients.
        if backend is None or not hmac.compare_digest(content[-_SEAL:], self._seal(content[:-_SEAL])):
            return None
        known = backend, int.from_bytes(content[_ID:-_SEAL], "big")
        if len(self._known) >= MEMORY:
            self._known.clear()
        self._known[value] = known
        return known

    def _id(self, backend: Backend) -> bytes:
        name = _bytes(backend.name)
        # With its length before it: no other name and address give the same bytes.
        return _digest(self._key, b"backend %d %b%b" % (len(name), name, _bytes(backend.address)))[:_ID]

    def _seal(self, named: bytes) -> bytes:
        return _digest(self._key, b"seal " + named)[:_SEAL]

    def __repr__(self) -> str:
        return f"<CookieTable of {len(self._ids)}>"


class AddressTable:
    """The clients of one pool by address: which backend each of them had, until `ttl` after its last request."""

    __slots__ = ("_by_name", "_entries", "_members", "_most", "_news", "_ttl")

    def __init__(self, policy: StickyPolicy, most: int = MOST_CLIENTS) -> None:
        self._ttl = policy.ttl
        self._most = most
        self._members: frozenset[Backend] = frozenset()
        self._by_name: dict[str, Backend] = {}
        #: by client, least recently used first
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        #: of whom the others are to hear; None: there are no others
        self._news: dict[str, None] | None = None

    def members(self, backends: Iterable[Backend]) -> None:
        """These are the members now, of whatever state; whoever was with one that is gone is forgotten."""
        before, self._members = self._members, frozenset(backends)
        self._by_name = {backend.name: backend for backend in self._members}
        gone = before - self._members
        if gone:
            for client in [client for client, entry in self._entries.items() if entry[0] in gone]:
                self._forget(client)

    def find(self, client: str, now: float) -> Backend | None:
        """The member that a client had, which makes its time begin anew; None for a new one, or one that was long away.

        `client` is what is the same for all addresses of one client (core/clients.py), never its port; `now` is monotonic.
        """
        entry = self._entries.get(client)
        if entry is None:
            return None
        backend, end, since, told = entry
        if now >= end:
            self._forget(client)
            return None
        self._entries[client] = backend, now + self._ttl, since, told
        self._entries.move_to_end(client)
        if self._news is not None and now - told >= self._ttl / TOLD:
            self._news[client] = None
        return backend

    def put(self, client: str, backend: Backend, now: float) -> None:
        """A client has been given a backend, whichever it had before. What is no member any more is not remembered."""
        if backend not in self._members:
            self._forget(client)
            return
        if self._news is not None:
            self._news[client] = None
        self._keep(client, (backend, now + self._ttl, now, now), now)

    def _keep(self, client: str, entry: _Entry, now: float) -> None:
        self._entries[client] = entry
        self._entries.move_to_end(client)
        # Two for each that comes: what is over does not pile up, and no request pays for many.
        for _ in range(2):
            _, end, _, _ = next(iter(self._entries.values()))
            if now < end and len(self._entries) <= self._most:
                break
            self._forget(next(iter(self._entries)))

    def _forget(self, client: str) -> None:
        self._entries.pop(client, None)
        if self._news is not None:
            self._news.pop(client, None)

    # -- among several processes

    def news(self, most: int, now: float) -> list[tuple[str, str, float]]:
        """Of up to `most` clients the name of the backend that each was given, and when."""
        if self._news is None:
            self._news = dict.fromkeys(self._entries)
        found: list[tuple[str, str, float]] = []
        for client in list(islice(self._news, most)):
            del self._news[client]
            backend, end, since, _ = self._entries[client]
            self._entries[client] = backend, end, since, now
            found.append((client, backend.name, since))
        return found

    def hear(self, client: str, name: str, since: float, now: float) -> None:
        """Elsewhere a client has been given the backend of this name, or is using it still."""
        backend = self._by_name.get(name)
        if backend is None:
            return  # it is a member there already, or still there
        entry = self._entries.get(client)
        if entry is None or now >= entry[1] or (since, name) >= (entry[2], entry[0].name):
            self._keep(client, (backend, now + self._ttl, since, now), now)

    def retell(self) -> None:
        """There is somebody who has heard nothing yet: the next news are of everybody."""
        if self._news is not None:
            self._news.update(dict.fromkeys(self._entries))

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<AddressTable of {len(self._entries)} clients>"


def _digest(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
