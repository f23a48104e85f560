"""The layer 4 road: one connection and the bytes of both sides, from match to settle.

Promises: bytes arrive as they were sent, in order, both ways at once; a side that does not read stops the other in the
kernel's buffers, not in our memory; the end of one side's sending is passed on while the other may go on (half-close), and
so is a reset; a dial that fails goes to another backend; every wait has a deadline; the lease is released once and the
connection counted and logged once, with one reason word. Called by the listener and, through net/sides.py, by the two
transports. http/exchange.py walks the same milestones: match, admit, choose, open, carry, settle.

Deadlines: `connect` of the pool while dialling (net/connector.py); `idle` of the listener for silence in both directions;
`half_close` once one side has finished, and again for what is left to send when the relay is over. They are not
moved by each chunk, but looked at now and then: silence is noticed up to an eighth of `idle` late, never early.

Law of losses: a side that is lost before it had finished takes the other with it by a reset, so that nobody mistakes what
it has got for the whole. One that had finished leaves the other all that it sent: that is delivered. What a client still
sends is read and dropped meanwhile, since closing on unread bytes would be a reset, and cost it the answer. A backend is
not read for nobody: it would go on for as long as it has something to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.retry import backoff_delay
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import NEVER
from lbsvc.net.relaysite import RelaySite
from lbsvc.net.sides import Downstream, Side, Upstream
from lbsvc.net.unsent import unsent

__all__ = ["Relay", "RelaySite"]


def drop(data: bytes) -> None:
    """The side that this was meant for is not there yet."""


class Relay:
    """One connection on its way through."""

    upstream: Upstream | None = None
    write_up: Callable[[bytes], None] | None = None
    lease: Lease | None = None
    pending: Any = None
    attempts = 0
    tried: tuple[Backend, ...] = ()
    tried_at = 0.0
    connected_at = 0.0
    bytes_in = 0
    bytes_out = 0
    counted = (0, 0)
    is_piped = False  # the transports hand chunks to each other, and count them
    deadline = NEVER
    slot = NEVER
    half_closed_at = NEVER
    failed_backend: Backend | None = None
    is_over = False  # settled; a side may have something left to flush

    def __init__(self, site: RelaySite, peer: str) -> None:
        self.site = site
        self.peer = peer
        self.seconds = site.seconds
        self.began = self.active_at = site.seconds()
        self.early: list[bytes] = []
        self.downstream = Downstream(self)
        self.write_down: Callable[[bytes], None] = drop

    # -- match, admit, choose

    def start(self) -> None:
        """The client's connection is there."""
        site = self.site
        transport = self.downstream.transport
        self.write_down = transport.write
        transport.registerProducer(self.downstream, True)
        site.relays.add(self)
        site.pool.budget.request(self.began)
        site.on_open(transport.fileno())
        self.choose()

    def choose(self) -> None:
        """A backend: one that has not been tried, or where there is no other, one that has."""
        self.pending = None
        pool = self.site.pool
        lease = pool.pick(self.tried) if self.tried else pool.pick()
        if lease is None and self.tried:
            lease = pool.pick()
        if lease is None:
            self.finish("no_backend", Outcome.ABANDONED)
            return
        self.lease = lease
        self.attempts += 1
        self.open(lease)

    # -- open

    def open(self, lease: Lease) -> None:
        """Dial. It may have succeeded or failed, and another have begun, when this returns."""
        site = self.site
        backend = lease.backend
        self.tried_at = self.seconds()
        timeout = site.pool_settings.timeouts.connect
        pending = dial(site.reactor, backend.host, backend.port, Upstream(self), timeout, self.dial_failed)
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
        lease.release(outcome, 0, self.seconds() - self.tried_at)
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
        site, downstream, lease = self.site, self.downstream, self.lease
        assert lease is not None
        self.upstream = upstream
        upstream.other = downstream
        downstream.other = upstream
        lease.backend.connections += 1
        self.connected_at = self.active_at = self.seconds()
        site.deadlines.watch(self, site.settings.timeouts.idle)
        transport = upstream.transport
        transport.registerProducer(upstream, True)
        self.write_up = transport.write
        if self.early:
            for data in self.early:
                transport.write(data)
            self.early = []
            if not upstream.is_full and not downstream.has_finished:
                downstream.transport.resumeProducing()
        self._pipe(downstream.transport, transport)
        if downstream.has_finished:
            self._pass_on_end(upstream)

    # -- carry: chunks go from one transport to the other, by `pipe_to` or by Side.dataReceived where there is none

    def _pipe(self, down: Any, up: Any) -> None:
        """Let the transports hand over chunks by themselves: half the calls for each (tests/bench, `l4`)."""
        if hasattr(down, "pipe_to") and hasattr(up, "pipe_to"):
            self.is_piped = True
            down.pipe_to(up)
            up.pipe_to(down)

    def collect(self) -> None:
        """Take over what the transports have counted; it also shows whether anything has moved."""
        if not self.is_piped:
            return
        down: Any = self.downstream.transport
        up: Any = self.upstream.transport if self.upstream is not None else None
        came = went = 0
        if down is not None:
            came, down.piped = down.piped, 0
        if up is not None:
            went, up.piped = up.piped, 0
        self.bytes_in += came
        self.bytes_out += went
        if came or went:
            self.active_at = self.seconds()

    def side_finished(self, side: Side) -> None:
        """One side has finished sending: say so to the other, which may go on for `half_close`."""
        if self.is_over:
            side.close()  # it was the last that we waited for
        elif self.upstream is not None:  # otherwise: passed on when the backend is there
            if side.other.has_finished:
                self.finish("ok", Outcome.OK)
            else:
                self._pass_on_end(side.other)

    def _pass_on_end(self, side: Side) -> None:
        side.close_writing()
        timeouts = self.site.settings.timeouts
        self.half_closed_at = self.seconds()
        self.site.deadlines.watch(self, min(timeouts.half_close, timeouts.idle))

    def expired(self, now: float) -> None:
        """Look whether it was silent as long as it may be; if not, look again when it may have been."""
        if self.is_over:
            self.cut()
            return
        self.collect()
        timeouts = self.site.settings.timeouts
        due = self.active_at + timeouts.idle
        if self.half_closed_at != NEVER:
            due = min(due, self.half_closed_at + timeouts.half_close)
        if due > now:
            # Piped chunks leave no time behind: looking eight times in each `idle` makes it an eighth longer at most.
            self.site.deadlines.watch(self, min(due - now, timeouts.idle / 8) if self.is_piped else due - now)
        else:
            # Whoever has not read what waits for him all this time is not given more of it.
            self.finish("idle_timeout", Outcome.OK, abort=self._unsent() > 0)

    def downstream_lost(self, reason: Failure) -> None:
        """The client's connection is gone; this is told once for each connection that was accepted."""
        self.site.on_close()
        upstream = self.upstream
        if not self.is_over:
            clean = upstream is not None and reason.check(connectionDone.type) is not None
            if clean:
                self.finish("ok", Outcome.OK)
            else:
                self.finish("client_closed", Outcome.CLIENT_GONE, abort=not self.downstream.has_finished)
        if upstream is None or upstream.transport is None:
            self._gone()

    def upstream_lost(self, reason: Failure) -> None:
        """The backend's connection is gone."""
        upstream, downstream = self.upstream, self.downstream
        if upstream is not None and not self.is_over:
            if upstream.has_finished:
                self.finish("ok", Outcome.OK, lingering=True)
            elif reason.check(connectionDone.type) is not None:
                self.finish("ok", Outcome.OK)
            else:
                self.finish("upstream_reset", Outcome.RESET, abort=True)
        if downstream.transport is None:
            self._gone()

    # -- settle

    def finish(self, reason: str, outcome: Outcome, abort: bool = False, lingering: bool = False) -> None:
        """Flush and close both sides (or cut them), give back the lease, count and log, once.

        `lingering`: the client has been told the end, and is closed when it ends too; what it sends meanwhile is dropped.
        """
        if self.is_over:
            return
        self.is_over = True
        site = self.site
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
        self.count()
        self._part(abort, lingering)
        terminations = site.books.terminations
        terminations[reason] = terminations.get(reason, 0) + 1
        if site.log is not None:
            self._log(reason, backend, now)

    def _part(self, abort: bool, lingering: bool) -> None:
        """Leave both sides. Whoever does not read what is left to flush is not waited for longer than `half_close`."""
        if abort:
            self.cut()
            return
        if lingering:
            self.downstream.drop_rest()
        else:
            self.downstream.close()
        if self.upstream is not None:
            self.upstream.close()
        site = self.site
        if self in site.relays and (lingering or site.closes_late or self._unsent()):
            site.deadlines.watch(self, site.settings.timeouts.half_close)

    def _unsent(self) -> int:
        """Bytes that wait for a side that does not read them."""
        down = self.downstream.transport
        up = self.upstream.transport if self.upstream is not None else None
        return (unsent(down) if down is not None else 0) + (unsent(up) if up is not None else 0)

    def cut(self) -> None:
        """No more patience."""
        self.downstream.abort()
        if self.upstream is not None:
            self.upstream.abort()

    def _gone(self) -> None:
        """Both connections are."""
        self.site.deadlines.forget(self)
        self.site.relays.discard(self)
        # No cycle is left for the collector (tests/bench, `l4close`).
        self.downstream.forget()
        if self.upstream is not None:
            self.upstream.forget()

    def count(self) -> None:
        """Put the bytes since the last time on the books: at the end, and before each scrape, not for each chunk."""
        self.collect()
        books = self.site.books
        counted_in, counted_out = self.counted
        books.bytes_in += self.bytes_in - counted_in
        books.bytes_out += self.bytes_out - counted_out
        self.counted = (self.bytes_in, self.bytes_out)

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
                self.connected_at - self.began if self.upstream is not None else None,
                None,
                now - self.began,
                None,
                None,
            )
        )
