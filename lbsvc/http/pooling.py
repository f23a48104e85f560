"""Which connection to a backend does a request get, and when does a kept one go (lb-reference.yaml, `connections`).

Promises: an idle connection is handed to one request at a time, the one used last first (it is likeliest alive and the
rest may age out), but for those of the same turn of the reactor, of which nothing can have been heard yet; none is kept
over its limits, but for a SURPLUS of seconds where many are in use: closed at once they would be dialled again at once
(256 clients, one backend, `keep_alive` 64: 59 us of CPU a request, and 14,000 sockets in TIME_WAIT; 21 us with it);
one that has shown surplus bytes or an end is never handed out. Called by the exchange. The idle ones of
a backend are on `backend.idle`, so that a look-up costs an attribute. A reload swaps the settings (`apply`): what is kept
obeys the new ones, what is under way goes on. Connections of another `Backend.era` are not kept (`close_kept`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lbsvc.config.schema import PoolSettings
from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool
from lbsvc.http.client import UpstreamConnection
from lbsvc.http.h2_pooling import Multiplexing
from lbsvc.http.messages import CHUNKED, ResponseHead
from lbsvc.http.placing import Placement
from lbsvc.net.arrival import seen_from
from lbsvc.net.client_tls import ClientTls
from lbsvc.net.connector import Dialling, dial
from lbsvc.net.deadlines import TICK, Deadlines
from lbsvc.net.proxyproto import header_for
from lbsvc.net.together import writer_for

if TYPE_CHECKING:
    from lbsvc.http.either import DownstreamSide, UpstreamSide
    from lbsvc.http.h2_upstream import UpstreamStream


#: Seconds that a kept connection may stay idle where `keep_alive` others are.
SURPLUS: Final = 1.0


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
        self.pool = pool
        self.reactor = reactor
        #: whose `turn` counts polls; Twisted's own reactors do not, and every kept connection is looked at
        self.turns: Any = reactor if hasattr(reactor, "turn") else _Uncounted()
        self.deadlines = deadlines
        self.seconds: Callable[[], float] = reactor.seconds
        #: for whole requests without a body
        self.write = writer_for(reactor)
        self.rng = rng
        self.is_closing = False
        #: affinity, hashing, limits; None for a pool that only takes turns
        self.placement = placement
        self._obey(settings)

    def _obey(self, settings: PoolSettings) -> None:
        self.settings = settings
        #: its connections begin with a PROXY header
        self.is_heralding = settings.proxy_protocol is not None
        self.repeatable = settings.retry.methods
        #: the statuses of answers that are dropped for another try
        self.repeated = statuses_of(settings.retry.when) if settings.retry.attempts > 1 else frozenset()
        #: how long one try may take until its answer begins, in seconds
        self.patience = settings.retry.per_try_timeout
        self.response = settings.timeouts.response + TICK
        self.keep = settings.connections
        self.idle_patience = settings.connections.idle_timeout + TICK

    def apply(self, settings: PoolSettings, placement: Placement | None) -> None:
        """A reload: from now on these are the settings; kept connections over the new limits go, the oldest first."""
        before = self.keep
        self._obey(settings)
        self.placement = placement
        if self.keep != before:
            for backend in self.pool.everyone:
                self._trim(backend)

    def _trim(self, backend: Backend) -> None:
        kept, deadlines = self.keep, self.deadlines
        idle: list[UpstreamConnection] = backend.idle
        while len(idle) > kept.keep_alive:
            idle.pop(0).close()
        for connection in idle:
            if kept.max_lifetime is not None:
                connection.dies = min(connection.dies, deadlines.now + kept.max_lifetime)
            connection.deadline = min(connection.deadline, deadlines.now + self.idle_patience, connection.dies)
            if connection.deadline < connection.slot:
                deadlines.insert(connection)
        if backend.multiplexed is not None:
            backend.multiplexed.trim(kept.keep_alive)

    def header_for(self, connection: DownstreamSide) -> bytes:
        """The PROXY header of connections that are made for this client (`is_heralding`)."""
        version = self.settings.proxy_protocol
        assert version is not None
        if connection.proxy_header[0] != version:
            arrival = seen_from(connection.transport, connection.peer, connection.arrival)
            connection.proxy_header = version, header_for(version, arrival)
        return connection.proxy_header[1]

    def take_idle(self, backend: Backend, may_repeat: bool, header: bytes = b"") -> UpstreamSide | None:
        """A kept connection, or None; one that began with this very PROXY header.

        Two kinds are asked first whether their end, or surplus bytes, have arrived already, which costs a system call: one
        for a request that may not be sent twice, since what the backend closed while idle must not cost the client an
        error; and one that was given back in this very turn of the reactor, which has not been able to tell us: what a
        backend sends after its answer must not become the next one's. If an older one is there it is taken instead.
        """
        idle: list[UpstreamConnection] = backend.idle
        turn = self.turns.turn
        if header:
            own = self._take_own(idle, header)
            if own is not None or backend.multiplexed is None:
                return own
            return self._take_stream(backend, may_repeat, header)
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
        return None if backend.multiplexed is None else self._take_stream(backend, may_repeat, header)

    def _take_own(self, idle: list[UpstreamConnection], header: bytes) -> UpstreamConnection | None:
        """Only one of this client: what a backend was told about a client holds for the whole connection."""
        for connection in [each for each in idle if each.header == header]:
            idle.remove(connection)
            if connection.dies > self.deadlines.now and not connection.has_ended():
                return connection
            connection.close()
        return None

    def _take_stream(self, backend: Backend, may_repeat: bool, header: bytes) -> UpstreamStream | None:
        """One that stands for a connection."""
        multiplexed: Multiplexing = backend.multiplexed
        return multiplexed.take(may_repeat, header)

    def multiplex(self, backend: Backend, tls: ClientTls | None, must: bool) -> None:
        """HTTP/2 is spoken to it: over TLS where ALPN agrees on it, else by prior knowledge; `must`: nothing else is."""
        backend.multiplexed = Multiplexing(self, backend, tls, must)

    def dial(
        self,
        backend: Backend,
        dialled: Callable[[UpstreamConnection], None],
        failed: Any,
        header: bytes = b"",
        is_upgrade: bool = False,
    ) -> Dialling:
        """A new connection: calls `dialled(connection)` or `failed(outcome, detail)`, once, unless it is cancelled.

        For an upgrade it is one of HTTP/1.1, which `backend.tls` is for.
        """
        multiplexed: Multiplexing | None = backend.multiplexed
        if multiplexed is not None and not is_upgrade:
            return multiplexed.dial(dialled, failed, header)
        connection = UpstreamConnection(self, backend, dialled, header)
        patience = self.settings.timeouts.connect
        protocol: Any = connection
        return dial(self.reactor, backend.host, backend.port, protocol, patience, failed, backend.tls, header)

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
        is_surplus = len(idle) >= kept.keep_alive
        if is_surplus and connection.header and kept.keep_alive:
            idle.pop(0).close()  # its client may have gone long ago
            is_surplus = False
        if (
            not kept.keep_alive
            or connection.era != backend.era
            or self.is_closing
            or (kept.max_requests is not None and connection.exchanges >= kept.max_requests)
        ):
            connection.close()
            return
        connection.kept_in = self.turns.turn
        connection.is_surplus = is_surplus
        idle.append(connection)
        # Those used last are used first: what lies on top of `keep_alive` others for so long is not needed.
        patience = self.idle_patience
        deadline = self.deadlines.now + (min(SURPLUS + TICK, patience) if is_surplus else patience)
        if connection.dies < deadline:
            deadline = connection.dies
        connection.deadline = deadline
        if deadline < connection.slot:
            self.deadlines.insert(connection)

    def keeps(self, connection: UpstreamConnection) -> bool:
        """Whether an idle one whose time has come may stay: it was surplus, and others have been used or lost meanwhile."""
        now = self.deadlines.now
        if not connection.is_surplus or connection.dies <= now or len(connection.backend.idle) > self.keep.keep_alive:
            return False
        connection.is_surplus = False
        self.deadlines.watch(connection, min(self.idle_patience - SURPLUS, connection.dies - now) - TICK)
        return True

    def close_idle(self) -> None:
        """Shut down: nothing is kept any more."""
        self.is_closing = True
        for backend in self.pool.everyone:
            close_kept(backend)

    def soon(self, flush: Callable[[], None]) -> None:
        """Call it at the end of this turn of the reactor, or a turn later where the reactor knows no such thing."""
        at_end = getattr(self.reactor, "at_end_of_turn", None)
        if at_end is not None:
            at_end(flush)
        else:
            self.reactor.callLater(0, flush)


def close_kept(backend: Backend) -> None:
    """What is kept for it is closed now, what is in use when it is done: it is in maint, leaves, or is spoken to anew."""
    backend.era += 1
    idle, backend.idle[:] = list(backend.idle), []
    for connection in idle:
        connection.close()
    if backend.multiplexed is not None:
        backend.multiplexed.part()


def statuses_of(when: frozenset[str]) -> frozenset[int]:
    """The statuses that words of `retry.when` stand for."""
    found = {int(word) for word in when if word.isdigit()}
    return frozenset(found | set(range(500, 600)) if "5xx" in when else found)
