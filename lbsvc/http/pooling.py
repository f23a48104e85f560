"""Which connection to a backend does a request get, and when does a kept one go (lb-reference.yaml, `connections`).

Promises: an idle connection is handed to one request at a time, the one used last first (it is likeliest alive and the
rest may age out), but for those of the same turn of the reactor, of which nothing can have been heard yet; none is kept
over its limits; one that has shown surplus bytes or an end is never handed out. Called by the exchange. The idle ones of
a backend are on `backend.idle`, so that a look-up costs an attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lbsvc.config.schema import PoolSettings
from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool
from lbsvc.http.client import UpstreamConnection
from lbsvc.http.messages import CHUNKED, ResponseHead
from lbsvc.http.placing import Placement
from lbsvc.net.connector import Dialling, dial
from lbsvc.net.deadlines import TICK, Deadlines


class _Uncounted:
    """Stands for a reactor that does not count its polls: every kept connection is of "this turn"."""

    turn: int | None = None


class Upstreams:
    """One pool's connections, for the exchanges that use it."""

    def __init__(
        self,
        settings: PoolSettings,
        pool: Pool,
        reactor: Any,
        deadlines: Deadlines,
        rng: Any,
        placement: Placement | None = None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.reactor = reactor
        #: whose `turn` counts polls; Twisted's own reactors do not, and every kept connection is looked at
        self.turns: Any = reactor if hasattr(reactor, "turn") else _Uncounted
        self.deadlines = deadlines
        self.seconds: Callable[[], float] = reactor.seconds
        self.rng = rng
        self.is_closing = False
        self.repeatable = settings.retry.methods
        #: the statuses of answers that are dropped for another try
        self.repeated = statuses_of(settings.retry.when) if settings.retry.attempts > 1 else frozenset()
        #: how long one try may take until its answer begins, in seconds
        self.patience = settings.retry.per_try_timeout
        #: affinity, hashing, limits; None for a pool that only takes turns
        self.placement = placement
        self.response = settings.timeouts.response + TICK
        self.keep = settings.connections
        self.idle_patience = settings.connections.idle_timeout + TICK

    def take_idle(self, backend: Backend, may_repeat: bool) -> UpstreamConnection | None:
        """A kept connection, or None.

        Two kinds are asked first whether their end, or surplus bytes, have arrived already, which costs a system call: one
        for a request that may not be sent twice, since what the backend closed while idle must not cost the client an
        error; and one that was given back in this very turn of the reactor, which has not been able to tell us: what a
        backend sends after its answer must not become the next one's. If an older one is there it is taken instead.
        """
        idle: list[UpstreamConnection] = backend.idle
        turn = self.turns.turn
        while idle:
            connection = idle.pop()
            is_fresh = connection.kept_in == turn
            if is_fresh and idle and idle[0].kept_in != turn:
                idle.append(connection)
                connection = idle.pop(0)
                is_fresh = False
            is_sound = (may_repeat and not is_fresh) or not connection.has_ended()
            if is_sound and connection.dies > self.deadlines.now:
                return connection
            connection.close()
        return None

    def dial(self, backend: Backend, dialled: Callable[[UpstreamConnection], None], failed: Any) -> Dialling:
        """A new connection: calls `dialled(connection)` or `failed(outcome, detail)`, once, unless it is cancelled."""
        connection = UpstreamConnection(self, backend, dialled)
        return dial(self.reactor, backend.host, backend.port, connection, self.settings.timeouts.connect, failed)

    def silence(self, head: ResponseHead, stream: float) -> float:
        """How long the body of an answer may be silent: a stream for `stream` seconds, any other as this pool says."""
        return stream if self.is_stream(head) else self.settings.timeouts.idle

    def is_stream(self, head: ResponseHead) -> bool:
        """Whether nobody can say when the next piece of an answer is due."""
        kind = (head.section.get(b"content-type") or b"").lower()
        return head.section.body < CHUNKED or kind.startswith((b"text/event-stream", b"application/grpc"))

    def give_back(self, connection: UpstreamConnection) -> None:
        """An exchange has ended cleanly on `connection`: keep it, or close it."""
        kept = self.keep
        backend = connection.backend
        idle: list[UpstreamConnection] = backend.idle
        connection.exchanges += 1
        if (
            len(idle) >= kept.keep_alive
            or backend.state == "maint"
            or self.is_closing
            or (kept.max_requests is not None and connection.exchanges >= kept.max_requests)
        ):
            connection.close()
            return
        connection.kept_in = self.turns.turn
        idle.append(connection)
        deadline = self.deadlines.now + self.idle_patience
        if connection.dies < deadline:
            deadline = connection.dies
        connection.deadline = deadline
        if deadline < connection.slot:
            self.deadlines.insert(connection)

    def close_idle(self) -> None:
        """Shut down: nothing is kept any more."""
        self.is_closing = True
        for backend in self.pool.backends:
            idle, backend.idle[:] = list(backend.idle), []
            for connection in idle:
                connection.close()


def statuses_of(when: frozenset[str]) -> frozenset[int]:
    """The statuses that words of `retry.when` stand for."""
    found = {int(word) for word in when if word.isdigit()}
    return frozenset(found | set(range(500, 600)) if "5xx" in when else found)
