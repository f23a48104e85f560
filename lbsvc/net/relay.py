"""The layer 4 road: one connection and the bytes of both sides, from match to settle.

Promises: what net/carrying.py promises of two joined connections; a dial that fails goes to another backend; the lease is
released once and the connection counted and logged once, with one reason word. A client past the listener's rate limit is
closed at once, and so is everybody new while the process is overloaded. One that sticks to a backend by its address, or is
hashed to one, comes to it; where nobody has room it waits in the pool's queue, for a time, and a client that is seen to
leave gives up its place. Called by the listener and, through net/sides.py, by the two transports. http/exchange.py walks
the same milestones: match, admit, choose, open, carry, settle.

Deadlines: `handshake` of the listener while a name is waited for; `queue.timeout` of the pool while waiting for a place,
from each time that it has to (coarse: net/deadlines.py); `connect` while dialling (net/connector.py); then those of
net/carrying.py.

Law of names: where a client goes may depend on the name in its ClientHello, and only then is that waited for. TLS that ends
here has told it already; otherwise net/clienthello.py reads it, and the backend gets all that was read. Who shows that it
speaks no TLS has no name. Neither has one that has said nothing when `handshake`, or its own side, is over: servers that
speak first (SMTP, MySQL) are asked for by silence; where that leads nowhere it is client_timeout, or client_closed. Who has
begun with TLS and goes on for too long, ends, or breaks its rules is closed (handshake_failed): any pool would be the wrong
one.

Before there is a backend a client's bytes are kept as far as EARLY goes (a ClientHello: as net/clienthello.py says), and the
rest waits in its socket. So who sends a little and goes is seen to go; of one who sends much, only its turn will tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from typing_extensions import override

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import find_lease, must_wait, reason_for_nobody
from lbsvc.core.clients import client_of
from lbsvc.core.hashing import key_hash
from lbsvc.core.lease import Lease
from lbsvc.core.queueing import Ticket
from lbsvc.core.ratelimit import client_key
from lbsvc.core.retry import backoff_delay
from lbsvc.net.arrival import seen_from
from lbsvc.net.carrying import Carrier
from lbsvc.net.clienthello import HelloReader, Verdict
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import NEVER
from lbsvc.net.proxyproto import header_for
from lbsvc.net.relaysite import RelayRoute, RelayRule, StreamSite, is_within
from lbsvc.net.sides import Side, Upstream

#: A client that has no backend yet is read until it has sent so many bytes, or chunks.
EARLY: Final = 16384
EARLY_CHUNKS: Final = 64


class Relay(Carrier):
    """One connection on its way through."""

    site: StreamSite
    #: reads the ClientHello, while that is waited for
    hello: HelloReader | None = None
    #: the way to its pool, once it may go there
    route: RelayRoute
    #: the names of its route and its pool, once they are known
    names: tuple[str, str | None] = ("none", None)
    lease: Lease | None = None
    pending: Any = None
    preferred: Backend | None = None  # the backend that its client belongs to
    ticket: Ticket | None = None  # its place in the pool's queue
    placed_at = 0.0  # when it got a place that it had waited for
    waited = 0.0  # for a ClientHello, in seconds
    attempts = 0
    tried: tuple[Backend, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()  # the tries that have failed: backend and reason
    tried_at = 0.0
    connected_at = 0.0
    failed_backend: Backend | None = None

    early: Sequence[bytes] = ()
    early_size = 0

    # -- match, admit, choose

    @override
    def start(self) -> None:
        site = self.site
        transport = self.downstream.transport
        self.write_down = transport.write
        transport.registerProducer(self.downstream, True)
        site.relays.add(self)
        site.on_open(transport.fileno())
        route = site.alone
        if route is not None:
            self.route, self.names = route, route.names
        limiter = site.limiter
        if site.overload.is_on:
            site.books.rejected["overload"] += 1
            self.finish("overload", Outcome.ABANDONED)
        elif limiter is not None and not is_within(limiter, self.peer, self.began):
            # As for http, what a listener limits is of no route.
            site.books.rejected["rate_limited"] += 1
            self.finish("rate_limited", Outcome.ABANDONED)
        elif route is not None:
            route.pool.budget.request(self.began)
            site.choose_soon(self)
        else:
            self._match()

    def _match(self) -> None:
        """Take a route, at once where that does not depend on a name, or the name is known."""
        site, arrival = self.site, self.arrival
        assert site.table is not None
        if arrival is not None and arrival.tls is not None:
            self._take_route(site.table.find(self.peer, arrival.name))
        elif site.table.needs_name(self.peer):
            self.hello = HelloReader()
            site.deadlines.watch(self, site.settings.timeouts.handshake)
        else:
            self._take_route(site.table.find(self.peer, ""))

    def _read_hello(self, hello: HelloReader, data: bytes) -> None:
        """More of what may be a ClientHello."""
        verdict = hello.feed(data)
        if verdict is None:
            return
        self.hello = None
        self.deadline = NEVER
        self.waited = self.seconds() - self.began
        if verdict is Verdict.MALFORMED:
            self.finish("handshake_failed", Outcome.ABANDONED)
            return
        self._keep_early(bytes(hello.raw))
        assert self.site.table is not None
        self._take_route(self.site.table.find(self.peer, hello.hello.name))

    def _miss_hello(self, hello: HelloReader) -> None:
        """No more of it comes, or not in time."""
        self.hello = None
        self.waited = self.seconds() - self.began
        self.deadline = NEVER
        assert self.site.table is not None
        rule = self.site.table.find(self.peer, "")
        if hello.raw:
            self.finish("handshake_failed", Outcome.ABANDONED)
        elif rule is not None:
            self._take_route(rule)
        elif self.downstream.has_finished:
            self.finish("client_closed", Outcome.CLIENT_GONE)  # it has asked for nothing, as probes of ports do
        else:
            self.finish("client_timeout", Outcome.ABANDONED)

    def _take_route(self, rule: RelayRule | None) -> None:
        if rule is None:
            self.finish("no_route", Outcome.ABANDONED)
            return
        self.names = rule.names
        now = self.seconds()
        if rule.limiter is not None and not is_within(rule.limiter, self.peer, now):
            rule.books.limited += 1
            self.finish("rate_limited", Outcome.ABANDONED)
            return
        self.route = route = rule.split.choose()
        self.names = route.names
        route.pool.budget.request(now)
        self.site.choose_soon(self)

    def choose(self) -> None:
        """A backend: one that has not been tried, or where there is no other, one that has; or a place in the queue."""
        self.pending = None
        route = self.route
        pool = route.pool
        lease = pool.pick() if route.is_plain and not pool.full and not self.tried else self._find(False)
        if lease is not None:
            self.begin(lease)
        elif must_wait(pool, self.preferred, self.tried):
            self._enter_queue()
        else:
            self.finish(reason_for_nobody(pool), Outcome.ABANDONED)

    def _find(self, is_next: bool) -> Lease | None:
        """A lease, by all that the pool is asked to mind. `is_next`: it has waited, and it is its turn."""
        pool = self.route.pool
        key = key_hash(client_key(self.peer).encode()) if pool.wants_key else None
        addresses = self.route.addresses
        client = client_of(self.peer) if addresses is not None else None
        if addresses is None or client is None:
            return find_lease(pool, self.tried, key, None, is_next)
        now = self.seconds()
        self.preferred = preferred = addresses.find(client, now)
        lease = find_lease(pool, self.tried, key, preferred, is_next, client=client)
        if lease is not None and lease.backend is not preferred:
            # Not only once it is connected: a client's connections of one moment shall go to one backend.
            addresses.put(client, lease.backend, now)
        return lease

    def _enter_queue(self) -> None:
        """Every backend is at its limit: wait for a place, behind those who came before."""
        route = self.route
        self.ticket = route.pool.queue.enter(self._take_turn)
        if self.ticket is None:
            self.finish("queue_full", Outcome.ABANDONED)
        else:
            self.site.deadlines.watch(self, route.pool_settings.queue.timeout)

    def _take_turn(self) -> bool:
        """A place is free, and it is ours to take, if it is of use."""
        lease = self._find(True)
        if lease is None:
            if must_wait(self.route.pool, self.preferred, self.tried):
                return False
            self.ticket = None
            self.finish(reason_for_nobody(self.route.pool), Outcome.ABANDONED)
            return True
        self.ticket = None
        self.deadline = NEVER
        self.placed_at = self.seconds()
        self.begin(lease)
        return True

    @override
    def side_finished(self, side: Side) -> None:
        """Who has said nothing, waits in the queue and closes has left: its place is for those who are still there."""
        if self.hello is not None:
            self._miss_hello(self.hello)
        elif self.ticket is not None and not self.bytes_in:
            self.finish("client_closed", Outcome.CLIENT_GONE)
        else:
            super().side_finished(side)

    @override
    def expired(self, now: float) -> None:
        if self.hello is not None:
            self._miss_hello(self.hello)
        elif self.ticket is not None:
            self.finish("queue_timeout", Outcome.ABANDONED)
        else:
            super().expired(now)

    # -- open

    def begin(self, lease: Lease) -> None:
        """One try, with this backend: on a connection that is ready, or dial.

        It may have succeeded or failed, and another have begun, when this returns.
        """
        site = self.site
        backend = lease.backend
        self.lease = lease
        self.attempts += 1
        self.tried_at = self.seconds()
        if self.route.ahead is not None:
            transport = self.route.ahead.take(backend)
            if transport is not None:
                upstream = Upstream(self)
                transport.protocol = upstream
                upstream.makeConnection(transport)
                if upstream.transport is not None:  # what its backend has said already is read from here on
                    upstream.transport.resumeProducing()
                return
        timeout = self.route.pool_settings.timeouts.connect
        header = self._header() if self.route.is_heralding else b""
        pending = dial(
            site.reactor, backend.host, backend.port, Upstream(self), timeout, self.dial_failed, backend.tls, header
        )
        if self.lease is lease and self.upstream is None and not self.is_over:
            self.pending = pending

    def _header(self) -> bytes:
        """The PROXY header that the backend gets first."""
        version = self.route.pool_settings.proxy_protocol
        assert version is not None
        return header_for(version, seen_from(self.downstream.transport, self.peer, self.arrival))

    @override
    def hold(self, data: bytes) -> None:
        """The client sends before the backend is there: some of it is kept, the rest waits in its socket."""
        if self.hello is not None:
            self._read_hello(self.hello, data)
        elif not self.is_over:
            self._keep_early(data)

    def _keep_early(self, data: bytes) -> None:
        self.early = [*self.early, data]
        self.early_size += len(data)
        if self.early_size >= EARLY or len(self.early) >= EARLY_CHUNKS:
            self.downstream.transport.pauseProducing()

    def dial_failed(self, outcome: Outcome, detail: str) -> None:
        """Nothing was sent: another backend may have it."""
        self.pending = None
        route, lease = self.route, self.lease
        assert lease is not None
        self.lease = None
        lease.release(outcome, 0, self.seconds() - self.tried_at)
        word = "overload" if outcome is Outcome.ABANDONED else outcome.reason
        policy = route.pool_settings.retry
        if self.attempts < policy.attempts and "connect_failure" in policy.when and outcome is not Outcome.ABANDONED:
            if route.pool.budget.may_retry(self.seconds()):
                route.pool.retries += 1
                self.tried = (*self.tried, lease.backend)
                self.failures = (*self.failures, (lease.backend.name, word))
                delay = backoff_delay(policy, self.attempts, self.site.rng)
                if delay:
                    self.pending = self.site.reactor.callLater(delay, self.choose)
                else:
                    self.choose()
                return
            route.pool.budget_exhausted += 1
        self.failed_backend = lease.backend
        self.finish(word, outcome)

    @override
    def connected(self, upstream: Upstream) -> None:
        """The backend is there: hand over what was held, and let both sides flow."""
        self.pending = None
        downstream, lease = self.downstream, self.lease
        assert lease is not None
        self.join(upstream)
        lease.backend.connections += 1
        self.connected_at = self.active_at
        if self.early:
            for data in self.early:
                upstream.transport.write(data)
            self.early = ()
            if not upstream.is_full and not downstream.has_finished:
                downstream.transport.resumeProducing()
        self.pipe()
        if downstream.has_finished:
            self.pass_on_end(upstream)
        guard = self.route.pool.guard
        if guard is not None:
            # A connection may last for days: that it came about is what a half-open circuit wanted to know. Last, since
            # others may get their turn by it.
            lease.epoch = guard.answered(lease.backend, lease.epoch)

    # -- settle

    @override
    def settle(self, reason: str, outcome: Outcome, now: float) -> None:
        site = self.site
        self.early = ()
        self.hello = None
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            self.route.pool.queue.leave(ticket)
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        backend = self.failed_backend
        lease, self.lease = self.lease, None
        if lease is not None:
            backend = lease.backend
            seconds = now - self.tried_at
            if self.upstream is not None:
                backend.connections -= 1
                # How long a connection lasts says nothing about how fast its backend is, but how long it took to get it.
                seconds = self.connected_at - self.tried_at
            lease.release(outcome, 0, seconds)
        terminations = site.books.terminations
        terminations[reason] = terminations.get(reason, 0) + 1
        if site.log is not None:
            site.log(self._record(reason, backend, now))

    def _record(self, reason: str, backend: Backend | None, now: float) -> tuple[Any, ...]:
        """The access record, in the order of lbsvc.core.record."""
        site, arrival = self.site, self.arrival
        name = backend.name if backend is not None else None
        began = self.began + self.waited  # a client that takes its time to say a name says nothing about a backend
        return (
            site.wall(),
            site.make_id(),
            site.books.name,
            "tcp",
            self.peer,
            self.peer,
            None,
            None,
            None,
            0,
            self.bytes_in,
            self.bytes_out,
            *self.names,
            name,
            self.attempts,
            reason,
            self.placed_at - began if self.placed_at else None,
            self.connected_at - began if self.upstream is not None else None,
            None,
            now - self.began,
            None,
            None,
            (*self.failures, (name or "", reason)) if self.failures else None,
            arrival.tls if arrival is not None else None,
            (self.waited + (arrival.handshake if arrival is not None else 0.0)) or None,
            None,
        )
