"""The layer 4 road: one connection and the bytes of both sides, from match to settle.

Promises: what net/carrying.py promises of two joined connections; a dial that fails goes to another backend; the lease is
released once and the connection counted and logged once, with one reason word. Called by the listener and, through
net/sides.py, by the two transports. http/exchange.py walks the same milestones: match, admit, choose, open, carry, settle.

Deadlines: `connect` of the pool while dialling (net/connector.py); then those of net/carrying.py.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.retry import backoff_delay
from lbsvc.net.carrying import Carrier
from lbsvc.net.connector import dial
from lbsvc.net.relaysite import RelaySite
from lbsvc.net.sides import Upstream

__all__ = ["Relay", "RelaySite"]


class Relay(Carrier):
    """One connection on its way through."""

    site: RelaySite
    lease: Lease | None = None
    pending: Any = None
    attempts = 0
    tried: tuple[Backend, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()  # the tries that have failed: backend and reason
    tried_at = 0.0
    connected_at = 0.0
    failed_backend: Backend | None = None

    def __init__(self, site: RelaySite, peer: str) -> None:
        super().__init__(site, peer)
        self.early: list[bytes] = []

    # -- match, admit, choose

    @override
    def start(self) -> None:
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

    @override
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

    # -- settle

    @override
    def settle(self, reason: str, outcome: Outcome, now: float) -> None:
        site = self.site
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        backend = self.failed_backend
        lease, self.lease = self.lease, None
        if lease is not None:
            backend = lease.backend
            if self.upstream is not None:
                backend.connections -= 1
            lease.release(outcome, 0, now - self.began)
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
            None,
            self.connected_at - self.began if self.upstream is not None else None,
            None,
            now - self.began,
            None,
            None,
            (*self.failures, (name or "", reason)) if self.failures else None,
        )
