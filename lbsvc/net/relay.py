"""The layer 4 road: one connection and the bytes of both sides, from match to settle.

Promises: what net/carrying.py promises of two joined connections; a dial that fails goes to another backend; the lease is
released once and the connection counted and logged once, with one reason word. A client past the listener's rate limit is
closed at once. One that sticks to a backend by its address, or is hashed to one, comes to it; where nobody has room it
waits in the pool's queue, for a time, and a client that is seen to leave gives up its place. Called by the listener and,
through net/sides.py, by the two transports. http/exchange.py walks the same milestones: match, admit, choose, open, carry,
settle.

Deadlines: `queue.timeout` of the pool while waiting, from each time that it has to (coarse: net/deadlines.py); `connect`
while dialling (net/connector.py); then those of net/carrying.py.

Before there is a backend a client's bytes are kept as far as EARLY goes, and the rest waits in its socket. So who sends a
little and goes is seen to go; of one who sends much, only its turn will tell.
"""

from __future__ import annotations

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
from lbsvc.net.carrying import Carrier
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import NEVER
from lbsvc.net.relaysite import RelaySite
from lbsvc.net.sides import Side, Upstream

__all__ = ["Relay", "RelaySite"]

#: A client that has no backend yet is read until it has sent so many bytes, or chunks.
EARLY: Final = 16384
EARLY_CHUNKS: Final = 64


class Relay(Carrier):
    """One connection on its way through."""

    site: RelaySite
    lease: Lease | None = None
    pending: Any = None
    ticket: Ticket | None = None  # its place in the pool's queue
    placed_at = 0.0  # when it got a place that it had waited for
    attempts = 0
    tried: tuple[Backend, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()  # the tries that have failed: backend and reason
    tried_at = 0.0
    connected_at = 0.0
    failed_backend: Backend | None = None

    def __init__(self, site: RelaySite, peer: str) -> None:
        super().__init__(site, peer)
        self.early: list[bytes] = []
        self.early_size = 0

    # -- match, admit, choose

    @override
    def start(self) -> None:
        site = self.site
        transport = self.downstream.transport
        self.write_down = transport.write
        transport.registerProducer(self.downstream, True)
        site.relays.add(self)
        site.on_open(transport.fileno())
        limiter = site.limiter
        if limiter is not None and limiter.take(site.limit_key(self.peer), self.began) > 0:
            site.count_limited()
            self.finish("rate_limited", Outcome.ABANDONED)
            return
        site.pool.budget.request(self.began)
        self.choose()

    def choose(self) -> None:
        """A backend: one that has not been tried, or where there is no other, one that has; or a place in the queue."""
        self.pending = None
        pool = self.site.pool
        lease = pool.pick() if self.site.is_plain and not pool.full and not self.tried else self._find(False)
        if lease is not None:
            self.begin(lease)
        elif must_wait(pool):
            self._enter_queue()
        else:
            self.finish(reason_for_nobody(pool), Outcome.ABANDONED)

    def _find(self, is_next: bool) -> Lease | None:
        """A lease, by all that the pool is asked to mind. `is_next`: it has waited, and it is its turn."""
        site = self.site
        pool = site.pool
        key = key_hash(client_key(self.peer).encode()) if pool.wants_key else None
        addresses = site.addresses
        client = client_of(self.peer) if addresses is not None else None
        if addresses is None or client is None:
            return find_lease(pool, self.tried, key, None, is_next)
        now = self.seconds()
        preferred = addresses.find(client, now)
        lease = find_lease(pool, self.tried, key, preferred, is_next)
        if lease is not None and lease.backend is not preferred:
            # Not only once it is connected: a client's connections of one moment shall go to one backend.
            addresses.put(client, lease.backend, now)
        return lease

    def _enter_queue(self) -> None:
        """Every backend is at its limit: wait for a place, behind those who came before."""
        site = self.site
        self.ticket = site.pool.queue.enter(self._take_turn)
        if self.ticket is None:
            self.finish("queue_full", Outcome.ABANDONED)
        else:
            site.deadlines.watch(self, site.pool_settings.queue.timeout)

    def _take_turn(self) -> bool:
        """A place is free, and it is ours to take, if it is of use."""
        lease = self._find(True)
        if lease is None:
            if must_wait(self.site.pool):
                return False
            self.ticket = None
            self.finish(reason_for_nobody(self.site.pool), Outcome.ABANDONED)
            return True
        self.ticket = None
        self.deadline = NEVER
        self.placed_at = self.seconds()
        self.begin(lease)
        return True

    @override
    def side_finished(self, side: Side) -> None:
        """Who has said nothing, waits in the queue and closes has left: its place is for those who are still there."""
        if self.ticket is not None and not self.bytes_in:
            self.finish("client_closed", Outcome.CLIENT_GONE)
        else:
            super().side_finished(side)

    @override
    def expired(self, now: float) -> None:
        if self.ticket is not None:
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
        if site.ahead is not None:
            transport = site.ahead.take(backend)
            if transport is not None:
                upstream = Upstream(self)
                transport.protocol = upstream
                upstream.makeConnection(transport)
                if upstream.transport is not None:  # what its backend has said already is read from here on
                    upstream.transport.resumeProducing()
                return
        timeout = site.pool_settings.timeouts.connect
        pending = dial(site.reactor, backend.host, backend.port, Upstream(self), timeout, self.dial_failed)
        if self.lease is lease and self.upstream is None and not self.is_over:
            self.pending = pending

    @override
    def hold(self, data: bytes) -> None:
        """The client sends before the backend is there: some of it is kept, the rest waits in its socket."""
        if not self.is_over:
            self.early.append(data)
            self.early_size += len(data)
            if self.early_size >= EARLY or len(self.early) >= EARLY_CHUNKS:
                self.downstream.transport.pauseProducing()

    def dial_failed(self, outcome: Outcome, detail: str) -> None:
        """Nothing was sent: another backend may have it."""
        self.pending = None
        site, lease = self.site, self.lease
        assert lease is not None
        self.lease = None
        lease.release(outcome, 0, self.seconds() - self.tried_at)
        word = "overload" if outcome is Outcome.ABANDONED else outcome.reason
        policy = site.pool_settings.retry
        if self.attempts < policy.attempts and "connect_failure" in policy.when and outcome is not Outcome.ABANDONED:
            if site.pool.budget.may_retry(self.seconds()):
                site.pool.retries += 1
                self.tried = (*self.tried, lease.backend)
                self.failures = (*self.failures, (lease.backend.name, word))
                delay = backoff_delay(policy, self.attempts, site.rng)
                if delay:
                    self.pending = site.reactor.callLater(delay, self.choose)
                else:
                    self.choose()
                return
            site.pool.budget_exhausted += 1
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
            self.early = []
            if not upstream.is_full and not downstream.has_finished:
                downstream.transport.resumeProducing()
        self.pipe()
        if downstream.has_finished:
            self.pass_on_end(upstream)
        guard = self.site.pool.guard
        if guard is not None:
            # A connection may last for days: that it came about is what a half-open circuit wanted to know. Last, since
            # others may get their turn by it.
            lease.epoch = guard.answered(lease.backend, lease.epoch)

    # -- settle

    @override
    def settle(self, reason: str, outcome: Outcome, now: float) -> None:
        site = self.site
        self.early = []
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            site.pool.queue.leave(ticket)
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
        site = self.site
        name = backend.name if backend is not None else None
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
            site.route,
            site.pool.name,
            name,
            self.attempts,
            reason,
            self.placed_at - self.began if self.placed_at else None,
            self.connected_at - self.began if self.upstream is not None else None,
            None,
            now - self.began,
            None,
            None,
            (*self.failures, (name or "", reason)) if self.failures else None,
        )
