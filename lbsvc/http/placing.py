"""Which backend a request belongs to, where its pool does more than take turns: affinity, hashing, places to wait for.

Promises: a client that sticks to a backend comes back to it while that one may serve it (in all processes, where this is one
of several: core/affinity.py, core/homes.py), and is told by a cookie where it went otherwise; like goes to like where the
algorithm hashes; the pool's cookie is not passed on to backends. Made for each
pool (`Placement`), and anew by a reload that changes anything of this, with the same table of clients where `sticky` is the
same; asked by trying.py for each try. Plain pools have none, and pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lbsvc.config.schema import PoolSettings
from lbsvc.core.affinity import AddressTable, CookieTable
from lbsvc.core.backend import Backend
from lbsvc.core.choosing import find_lease
from lbsvc.core.clients import client_of
from lbsvc.core.hashing import key_hash
from lbsvc.core.lease import Lease
from lbsvc.core.pool import Pool
from lbsvc.core.ratelimit import client_key
from lbsvc.core.router import normal_host
from lbsvc.http.cookies import Cookie, StickyCookie
from lbsvc.http.messages import RequestHead, ResponseHead

if TYPE_CHECKING:
    from lbsvc.http.trying import Trying

#: What a request is known by, as bytes; None: by nothing that is here.
KeyOf = Callable[[RequestHead], bytes | None]


def key_of(hash_key: str) -> KeyOf:
    """The reader of a `hash_key`."""
    kind, _, name = hash_key.partition(":")
    if kind == "header":
        lower = name.lower().encode()
        return lambda head: head.header(lower)
    if kind == "cookie":
        cookie = Cookie(name)
        return lambda head: cookie.value(head.section.fields)
    if kind == "path":
        return lambda head: head.target.partition(b"?")[0]
    if kind == "host":
        return lambda head: normal_host(head.host.decode("latin-1")).encode() if head.host is not None else None
    return lambda head: None


class Placement:
    """Affinity and hashing of one pool. `addresses` and `cookies` are tables of the pool's members."""

    def __init__(
        self,
        settings: PoolSettings,
        pool: Pool,
        wall: Callable[[], float],
        former: Placement | None = None,
        is_alone: bool = True,
    ) -> None:
        self.pool = pool
        self.wall = wall
        self._key_of = key_of("client_ip" if settings.algorithm == "ip_hash" else settings.hash_key)
        self._policy = sticky = settings.sticky
        self.sticky: StickyCookie | None = None
        self.cookies: CookieTable | None = None
        self.addresses: AddressTable | None = None
        if former is not None and former._policy == sticky:
            self.sticky, self.cookies, self.addresses = former.sticky, former.cookies, former.addresses
            return
        if former is not None:
            former.leave()
        if sticky is not None and sticky.type == "cookie":
            self.sticky = StickyCookie(sticky)
            self.cookies = CookieTable(sticky, settings.name)
            self._follow(self.cookies)
        elif sticky is not None:
            self.addresses = AddressTable(sticky)
            self._follow(self.addresses)
            pool.settle_by_hash(not is_alone)

    def _follow(self, table: AddressTable | CookieTable) -> None:
        """Have it told of the members, now and whenever they change."""
        self.pool.on_members.append(table.members)
        table.members(self.pool.backends)

    def leave(self) -> None:
        """Its tables are told of no members any more."""
        self.pool.settle_by_hash(False)
        for table in (self.cookies, self.addresses):
            if table is not None and table.members in self.pool.on_members:
                self.pool.on_members.remove(table.members)

    def find(self, exchange: Trying, is_next: bool) -> Lease | None:
        """A lease for a try of this exchange. `is_next`: it has waited, and it is its turn."""
        head = exchange.head
        client = head.section.client or exchange.connection.peer
        key = None
        if self.pool.wants_key:
            raw = self._key_of(head)
            key = key_hash(client_key(client).encode() if raw is None else raw)
        preferred: Backend | None = None
        sticking: str | None = None
        if self.cookies is not None and self.sticky is not None:
            values = self.sticky.values(head.section.fields)
            preferred, exchange.is_old_cookie = self.cookies.find_first(values, self.wall())
            exchange.preferred = preferred
        elif self.addresses is not None and (sticking := client_of(client)) is not None:
            preferred = exchange.preferred = self.addresses.find(sticking, exchange.site.seconds())
        exchange.key = key
        return find_lease(self.pool, exchange.tried, key, preferred, is_next, waits_for_home=True, client=sticking)

    def find_other(self, exchange: Trying) -> Lease | None:
        """A lease on any backend with room: its own has had none for too long."""
        if exchange.preferred is None:
            return None
        exchange.keeps_home = True
        return self.pool.pick(exchange.tried, exchange.key)

    def settle_in(self, exchange: Trying, backend: Backend, head: ResponseHead) -> ResponseHead:
        """The answer of a backend: note whose client this is now, and have a cookie tell it where it is new."""
        if exchange.keeps_home:
            return head
        if self.addresses is not None:
            client = client_of(exchange.head.section.client or exchange.connection.peer)
            if backend is not exchange.preferred and client is not None:
                self.addresses.put(client, backend, exchange.site.seconds())
        if self.cookies is None or self.sticky is None:
            return head
        if backend is exchange.preferred and not exchange.is_old_cookie:
            return head
        now = self.wall()
        line = self.sticky.line(self.cookies.value_of(backend, now), exchange.connection.is_secure(exchange.head), now)
        return head.with_line(line)

    def without_cookie(self, lines: bytes) -> bytes:
        """Header lines for a backend, which the pool's own cookie is no business of."""
        return lines if self.sticky is None else self.sticky.without(lines)


def placement_of(
    settings: PoolSettings,
    pool: Pool,
    wall: Callable[[], float],
    former: Placement | None = None,
    is_alone: bool = True,
) -> Placement | None:
    """None for a pool of which nothing of this is asked. `former` is what it had: who waits for a place goes on waiting.

    `is_alone`: there is no other process that a client may come to next.
    """
    is_limited = settings.circuit_breaker is not None or any(
        each.max_connections is not None for each in settings.backends
    )
    if (
        settings.sticky is None
        and not pool.wants_key
        and not is_limited
        and not (former is not None and len(pool.queue))
    ):
        if former is not None:
            former.leave()
        return None
    return Placement(settings, pool, wall, former, is_alone)
