"""Copies of requests that another pool gets too (a route's `mirror`), and whose answers nobody waits for.

Promises: `send` never fails, waits or calls back; a copy is sent once, never again, whatever befalls it; its lease is
released once, with an outcome that counts only where the backend is to blame; its answer is read and dropped, so that the
connection can be kept. Bounded: at most MOST_COPIES of one Mirroring are under way, past that they are not sent but counted
(`skipped`), and each is cut after a fixed time, whatever its backend does. Called by the exchange, for a request that is
there as a whole; `close` by the app.

Towards its connection (client.py) a copy plays the part of an exchange; there is no client behind it, so nothing is ever
passed on, paused or repeated. Copies stand in no access log and in no listener's counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from lbsvc.core.backend import Outcome
from lbsvc.core.lease import Lease
from lbsvc.http.messages import ResponseHead
from lbsvc.net.deadlines import NEVER
from lbsvc.net.unsent import unsent

if TYPE_CHECKING:
    from random import Random

    from lbsvc.http.either import UpstreamSide
    from lbsvc.http.pooling import Upstreams

#: Copies of one Mirroring under way at a time: a pool that does not keep up loses copies, it does not gather them.
MOST_COPIES: Final = 100


class Mirroring:
    """One route's mirror: which requests are copied, and their copies under way."""

    def __init__(self, upstreams: Upstreams, share: float, rng: Random) -> None:
        self.upstreams = upstreams
        self.share = share
        self.rng = rng
        #: those that took a backend, and those that were not sent: too many under way, nobody to send them to, or shut down
        self.sent = 0
        self.skipped = 0
        self.copies: set[Copy] = set()
        self.is_closed = False

    @property
    def lifetime(self) -> float:
        """Seconds that a copy may take in all: as long as a backend may take, by now, for each of its parts."""
        timeouts = self.upstreams.settings.timeouts
        return timeouts.connect + timeouts.response + timeouts.idle

    def is_drawn(self) -> bool:
        """Whether this request is one of the `share`: to be asked once for each request."""
        return self.share >= 1.0 or self.rng.random() < self.share

    def send(self, start: bytes, method: bytes, content: bytes) -> None:
        """Send a copy: `start` is a whole head with its empty line, `content` the body as it is framed there.

        The head asks for no 100 and no upgrade: there is nobody to answer to.
        """
        if self.is_closed or len(self.copies) >= MOST_COPIES:
            self.skipped += 1
            return
        lease = self.upstreams.pool.pick()
        if lease is None:
            self.skipped += 1
            return
        self.sent += 1
        Copy(self, lease, method).begin(start + content)

    def close(self) -> None:
        """Cut what is under way, and send nothing any more."""
        self.is_closed = True
        for copy in list(self.copies):
            copy.cut()


class Copy:
    """One copy, from its lease to the end of its answer."""

    __slots__ = (
        "_lease",
        "_method",
        "_mirroring",
        "_pending",
        "_status",
        "_tried_at",
        "_upstream",
        "_wire",
        "deadline",
        "responded",
        "slot",
        "was_kept_connection",
    )

    #: What a connection asks its exchange: the request was whole before it was copied.
    request_ended = True

    def __init__(self, mirroring: Mirroring, lease: Lease, method: bytes) -> None:
        self._mirroring = mirroring
        self._lease: Lease | None = lease
        self._method = method
        self._pending: Any = None  # a dial
        self._status = 0
        self._tried_at = 0.0
        self._upstream: UpstreamSide | None = None
        self._wire = b""  # until it is written
        self.deadline = NEVER
        self.slot = NEVER
        self.responded = False
        self.was_kept_connection = False

    # -- as its Mirroring sees it

    def begin(self, wire: bytes) -> None:
        """Find a connection, and send."""
        lease = self._lease
        assert lease is not None
        self._mirroring.copies.add(self)
        upstreams = self._mirroring.upstreams
        upstreams.deadlines.watch(self, self._mirroring.lifetime)
        self._tried_at = upstreams.seconds()
        self._wire = wire
        backend = lease.backend
        # It is not sent twice, whatever its method: a connection that has ended already is not worth losing it for.
        # Nobody's header: it is no client that asks.
        has_any = bool(backend.idle) or backend.multiplexed is not None
        connection = upstreams.take_idle(backend, False, backend.greeting) if has_any else None
        if connection is not None:
            self.was_kept_connection = True
            self._send(connection)
            return
        pending = upstreams.dial(backend, self._send, self._dial_failed, backend.greeting)
        if self._upstream is None and self._lease is not None:
            self._pending = pending  # neither end of it has come yet

    def cut(self) -> None:
        """Give it up, wherever it is; its backend is not to blame."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.cut()
        self._settle(Outcome.ABANDONED)

    def expired(self, now: float) -> None:
        """Its time is over: an answer without end, or a backend that has read for so long."""
        self.cut()

    def _dial_failed(self, outcome: Outcome, detail: str) -> None:
        self._pending = None
        self._settle(outcome)

    def _send(self, connection: UpstreamSide) -> None:
        """The dial has come through, or there was a connection: all of it in one write."""
        self._pending = None
        self._upstream = connection
        self._tried_at = self._mirroring.upstreams.seconds()
        wire, self._wire = self._wire, b""
        connection.send_head(cast(Any, self), wire, self._method, False)
        if not connection.is_stalled:
            connection.await_head()

    def _settle(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        mirroring = self._mirroring
        self._wire = b""
        mirroring.copies.discard(self)
        mirroring.upstreams.deadlines.forget(self)
        lease.release(outcome, self._status or -1, mirroring.upstreams.seconds() - self._tried_at)

    # -- as its connection sees it: the part of an exchange

    def interim(self, head: ResponseHead) -> None:
        """Whatever it says; the backend has read the request."""
        self.was_kept_connection = False

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The answer's head: how it counts is known now."""
        self.responded = True
        self._status = head.status
        if ended:
            self._complete()
        elif self._upstream is not None:
            mirroring = self._mirroring
            self._upstream.await_body(mirroring.upstreams.silence(head, mirroring.lifetime))

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """Dropped as it comes."""
        if ended:
            self._complete()

    def upstream_lost(self, upstream: UpstreamSide, outcome: Outcome, detail: str) -> None:
        """The connection is gone before the answer was whole.

        One that had idled may end at any time, also as the copy is on its way: as little the backend's fault as for a
        request of a client, which is sent anew then.
        """
        if upstream is not self._upstream:
            return
        self._upstream = None
        if self.was_kept_connection and outcome is Outcome.RESET and not self.responded:
            outcome = Outcome.ABANDONED
        self._settle(outcome)

    def pause_request(self) -> None:
        """The backend reads too slowly; there is no more to be sent."""

    def resume_request(self) -> None:
        """It reads on."""

    def _complete(self) -> None:
        """The answer has come as a whole: the connection may be kept if it has also taken all of the request."""
        upstream = self._upstream
        assert upstream is not None
        self._upstream = None
        self._settle(Outcome.OK)
        upstream.end(not unsent(upstream.transport))
