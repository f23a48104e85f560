"""The layer 4 road: one connection and the bytes of both sides, from match to settle.

Promises: bytes arrive as they were sent, in order, both ways at once; a side that does not read stops the other in the
kernel's buffers, not in our memory; the end of one side's sending is passed on while the other may go on (half-close); a
dial that fails goes to another backend; every wait has a deadline; the lease is released once and the connection counted
and logged once, with one reason word. Called by the listener and the two transports. http/exchange.py walks the same
milestones: match, admit, choose, open, carry, settle.

Deadlines: `connect` of the pool while dialling (net/connector.py); `idle` of the listener for silence in both directions;
`half_close` once one side has finished. They are looked at once in each `idle`, not moved by each chunk: a chunk only
stores the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from lbsvc.config.schema import ListenerSettings, PoolSettings
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.books import ListenerBooks
from lbsvc.core.lease import Lease
from lbsvc.core.pool import Pool
from lbsvc.core.retry import backoff_delay
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import NEVER, Deadlines


class RelaySite:
    """What the connections of one tcp listener share."""

    def __init__(
        self,
        settings: ListenerSettings,
        pool_settings: PoolSettings,
        pool: Pool,
        books: ListenerBooks,
        reactor: Any,
        deadlines: Deadlines,
        wall: Callable[[], float],
        rng: Any,
        make_id: Callable[[], bytes],
        log: Callable[[tuple[Any, ...]], None] | None,
    ) -> None:
        self.settings = settings
        self.pool_settings = pool_settings
        self.pool = pool
        self.books = books
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.deadlines = deadlines
        self.wall = wall
        self.rng = rng
        self.make_id = make_id
        self.log = log
        self.route = "default"
        self.on_open: Callable[[int], None] = lambda number: None
        self.on_close: Callable[[], None] = lambda: None
        self.relays: set[Relay] = set()

    def drain(self) -> None:
        """Nothing to tell: tcp connections may go on until the deadline."""

    def count(self) -> None:
        """Bring the books up to date."""
        for relay in self.relays:
            relay.count()

    def abort(self) -> None:
        """Cut what is left."""
        for relay in list(self.relays):
            relay.finish("killed", Outcome.ABANDONED, abort=True)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Side(Protocol):
    """One end of a relay. As a producer it stands for what the other end sends to this one."""

    transport: Any
    other: Side

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.has_finished = False  # no more bytes come from here
        self.is_full = False  # what we send here is not read

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: this end reads too slowly
        self.is_full = True
        self.other.transport.pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: this end reads on
        self.is_full = False
        if not self.other.has_finished:
            self.other.transport.resumeProducing()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost; connectionLost follows and knows what to do."""

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        self.has_finished = True
        self.relay.side_finished(self)

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our half-close has gone out; the other half goes on."""


class Downstream(Side):
    """The client's end."""

    @override
    def connectionMade(self) -> None:
        self.relay.start()

    @override
    def dataReceived(self, data: bytes) -> None:
        relay = self.relay
        relay.bytes_in += len(data)
        write = relay.write_up
        if write is None:
            relay.hold(data)
        else:
            relay.active_at = relay.seconds()
            write(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relay.downstream_lost(reason)


class Upstream(Side):
    """The backend's end."""

    @override
    def connectionMade(self) -> None:
        self.relay.connected(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        relay = self.relay
        relay.bytes_out += len(data)
        relay.active_at = relay.seconds()
        relay.write_down(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relay.upstream_lost(self, reason)


class Relay:
    """One connection on its way through."""

    upstream: Upstream | None = None
    write_up: Callable[[bytes], None] | None = None
    lease: Lease | None = None
    pending: Any = None
    attempts = 0
    tried: tuple[Backend, ...] = ()
    connected_at = 0.0
    bytes_in = 0
    bytes_out = 0
    counted = (0, 0)
    deadline = NEVER
    slot = NEVER
    half_closed_at = NEVER
    failed_backend: Backend | None = None
    is_over = False

    def __init__(self, site: RelaySite, peer: str) -> None:
        self.site = site
        self.peer = peer
        self.seconds = site.seconds
        self.began = self.active_at = site.seconds()
        self.early: list[bytes] = []
        self.downstream = Downstream(self)
        self.write_down: Callable[[bytes], None] = self._drop

    def _drop(self, data: bytes) -> None:
        """There is no client yet, or no longer."""

    # -- match, admit, choose

    def start(self) -> None:
        """The client's connection is there."""
        site = self.site
        transport = self.downstream.transport
        self.write_down = transport.write
        transport.registerProducer(self.downstream, True)
        site.relays.add(self)
        site.pool.budget.request(self.began)
        site.deadlines.watch(self, site.settings.timeouts.idle)
        site.on_open(transport.fileno())
        self.choose()

    def choose(self) -> None:
        self.pending = None
        pool = self.site.pool
        lease = pool.pick(self.tried) if self.tried else pool.pick()
        if lease is None and self.tried:
            lease = pool.pick()  # another backend first; where there is no other, the same one once more
        if lease is None:
            self.finish("no_backend", Outcome.ABANDONED)
            return
        self.lease = lease
        self.attempts += 1
        self.open(lease)

    # -- open

    def open(self, lease: Lease) -> None:
        site = self.site
        upstream = Upstream(self)
        backend = lease.backend
        pending = dial(
            site.reactor, backend.host, backend.port, upstream, site.pool_settings.timeouts.connect, self.dial_failed
        )
        if self.lease is lease and self.upstream is None and not self.is_over:
            self.pending = pending

    def hold(self, data: bytes) -> None:
        """The client sends before the backend is there: one read's worth is kept, the rest waits in its socket."""
        if not self.is_over:
            self.early.append(data)
            self.downstream.transport.pauseProducing()

    def dial_failed(self, outcome: Outcome, detail: str) -> None:
        """Nothing was sent: another backend may have it."""
        self.pending = None
        site, lease = self.site, self.lease
        assert lease is not None
        self.lease = None
        lease.release(outcome, 0, self.seconds() - self.active_at)
        policy = site.pool_settings.retry
        if self.attempts < policy.attempts and "connect_failure" in policy.when and outcome is not Outcome.ABANDONED:
            if site.pool.budget.may_retry(self.seconds()):
                site.pool.retries += 1
                self.tried = (*self.tried, lease.backend)
                delay = backoff_delay(policy, self.attempts, site.rng)
                if delay:
                    self.pending = site.reactor.callLater(delay, self.choose)
                else:
                    self.choose()
                return
            site.pool.budget_exhausted += 1
        self.failed_backend = lease.backend
        self.finish("overload" if outcome is Outcome.ABANDONED else outcome.reason, outcome)

    def connected(self, upstream: Upstream) -> None:
        """The backend is there: hand over what was held, and let both sides flow."""
        self.pending = None
        downstream = self.downstream
        self.upstream = upstream
        upstream.other = downstream
        downstream.other = upstream
        lease = self.lease
        assert lease is not None
        lease.backend.connections += 1
        self.connected_at = self.active_at = self.seconds()
        transport = upstream.transport
        transport.registerProducer(upstream, True)
        self.write_up = transport.write
        if self.early:
            for data in self.early:
                transport.write(data)
            self.early = []
            if not downstream.has_finished and not upstream.is_full:
                downstream.transport.resumeProducing()
        if downstream.has_finished:
            transport.loseWriteConnection()

    # -- carry: data goes straight from Downstream.dataReceived to the other transport, and back

    def side_finished(self, side: Side) -> None:
        """One side has finished sending: say so to the other, which may go on for `half_close`."""
        upstream, downstream = self.upstream, self.downstream
        if upstream is None:
            return  # the client finished before the backend was there: passed on when it is
        if upstream.has_finished and downstream.has_finished:
            self.finish("ok", Outcome.OK)
            return
        side.other.transport.loseWriteConnection()
        self.half_closed_at = self.seconds()
        self.site.deadlines.watch(self, self.site.settings.timeouts.half_close)

    def expired(self, now: float) -> None:
        """Look whether it was silent as long as it may be; if not, look again when it may have been."""
        timeouts = self.site.settings.timeouts
        due = self.active_at + timeouts.idle
        if self.half_closed_at != NEVER:
            due = min(due, self.half_closed_at + timeouts.half_close)
        if due > now:
            self.site.deadlines.watch(self, due - now)
        else:
            self.finish("idle_timeout", Outcome.OK, abort=self.is_stalled)

    @property
    def is_stalled(self) -> bool:
        """Whether bytes wait for a side that does not read them."""
        return self.downstream.is_full or (self.upstream is not None and self.upstream.is_full)

    def downstream_lost(self, reason: Failure) -> None:
        clean = self.upstream is not None and reason.check(connectionDone.type) is not None
        self.write_down = self._drop
        self.site.on_close()
        if not self.is_over:
            self.finish("ok" if clean else "client_closed", Outcome.OK if clean else Outcome.CLIENT_GONE)

    def upstream_lost(self, upstream: Upstream, reason: Failure) -> None:
        if upstream is not self.upstream or self.is_over:
            return
        clean = reason.check(connectionDone.type) is not None
        self.finish("ok" if clean else "upstream_reset", Outcome.OK if clean else Outcome.RESET, abort=not clean)

    # -- settle

    def finish(self, reason: str, outcome: Outcome, abort: bool = False) -> None:
        """Flush and close both sides (or cut them), give back the lease, count and log, once."""
        if self.is_over:
            return
        self.is_over = True
        site = self.site
        site.relays.discard(self)
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        self.deadline = NEVER
        now = self.seconds()
        backend = self.failed_backend
        lease, self.lease = self.lease, None
        upstream = self.upstream
        if lease is not None:
            backend = lease.backend
            if upstream is not None:
                backend.connections -= 1
            lease.release(outcome, 0, now - self.began)
        for side in (self.downstream, upstream):
            if side is not None and side.transport is not None:
                if abort:
                    side.transport.abortConnection()
                else:
                    side.transport.loseConnection()
        # Whoever does not read what is left to flush is not waited for longer than `half_close`.
        if not abort and self.is_stalled:
            site.reactor.callLater(site.settings.timeouts.half_close, self._cut)
        books = site.books
        self.count()
        books.terminations[reason] = books.terminations.get(reason, 0) + 1
        if site.log is not None:
            self._log(reason, backend, now)

    def count(self) -> None:
        """Put the bytes since the last time on the books: at the end, and before each scrape, not for each chunk."""
        books = self.site.books
        counted_in, counted_out = self.counted
        books.bytes_in += self.bytes_in - counted_in
        books.bytes_out += self.bytes_out - counted_out
        self.counted = (self.bytes_in, self.bytes_out)

    def _cut(self) -> None:
        for side in (self.downstream, self.upstream):
            if side is not None and side.transport is not None:
                side.transport.abortConnection()

    def _log(self, reason: str, backend: Backend | None, now: float) -> None:
        """The access record, in the order of lbsvc.core.record."""
        site = self.site
        site.log(  # type: ignore[misc]
            (
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
                backend.name if backend is not None else None,
                self.attempts,
                reason,
                None,
                self.connected_at - self.began if self.connected_at else None,
                None,
                now - self.began,
                None,
                None,
            )
        )
