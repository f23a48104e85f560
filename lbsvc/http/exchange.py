"""The layer 7 road: one request and its answer, from match to settle.

Promises: whatever the two sides do, in whatever order, the request is answered once or its connection is cut; its lease is
released once; it is counted and logged once, with one reason word. Called by the server connection (`start`, `body`,
`client_gone`, `cut`) and by the upstream connection (`interim`, `response`, `response_body`, `upstream_lost`). Knows no
version of HTTP: both sides speak to it by the same few calls.

The milestones: match, admit, choose, open, carry, settle; net/relay.py walks the same.
Hot path (tests/bench, `http`): with a kept connection nothing here schedules, allocates a closure or waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.retry import backoff_delay, may_repeat
from lbsvc.errors import REASONS, ProtocolViolation
from lbsvc.http import responses
from lbsvc.http.chunked import encode_chunk, encode_end
from lbsvc.http.forwarding import request_head
from lbsvc.http.messages import CHUNKED, RequestHead, ResponseHead
from lbsvc.http.settling import settle
from lbsvc.net.deadlines import NEVER
from lbsvc.net.unsent import unsent

if TYPE_CHECKING:
    from lbsvc.http.client import UpstreamConnection
    from lbsvc.http.pooling import Upstreams
    from lbsvc.http.server import ServerConnection
    from lbsvc.http.site import Destination

#: How a try may have ended that another may follow.
_REPEATED: Final = (Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT, Outcome.RESET)


class Exchange:
    """One request on its way. Defaults stand on the class, so that a plain request sets few attributes."""

    destination: Destination | None = None
    upstreams: Upstreams  # once the route leads to a pool
    lease: Lease | None = None
    upstream: UpstreamConnection | None = None
    pending: Any = None  # a dial, or the pause before another try
    attempts = 0
    tried: tuple[Backend, ...] = ()
    released: Backend | None = None  # the last one that was used up, for the log
    request_ended = False
    trailers = b""
    kept: list[bytes] | None = None  # the request body so far, while it may have to be sent (again)
    kept_size = 0
    expects = False
    has_continued = False
    was_kept_connection = False  # this try went out on a connection that had idled
    must_dial = False
    responded = False
    is_special = False  # its answer has no body though it may say a length: HEAD
    is_over = False
    status = 0
    reason = "ok"
    bytes_out = 0
    tried_at = 0.0
    connected_at = 0.0
    first_at = 0.0

    def __init__(self, connection: ServerConnection, head: RequestHead, now: float) -> None:
        self.connection = connection
        self.site = connection.site
        self.head = head
        if head.method == b"HEAD":
            self.is_special = True
        self.began = now
        ids = self.site.ids
        self.id = ids.form % next(ids.numbers)

    # -- match, admit

    def start(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """The head has come, and what came with it."""
        site = self.site
        head = self.head
        self.request_ended = ended
        site.books.in_flight += 1
        table = site.table
        if table.is_trivial:
            route = table.default
        else:
            try:
                route = site.match(head)
            except ProtocolViolation as violation:
                self.refuse(violation.status, violation.reason, violation.detail)
                return
        if route is None:
            self.refuse(404, "no_route")
            return
        destination: Destination = route.action
        self.destination = destination
        section = head.section
        limit = site.settings.limits.body_size
        if limit is not None and (section.body > limit or len(body) > limit):
            self.refuse(413, "too_large")
            return
        if section.unsupported:
            self.refuse(417, "bad_request", "an Expect that cannot be met")
            return
        upstreams = destination.upstreams
        if upstreams is None:
            assert destination.answer is not None
            answer, content = destination.answer(head)
            self.answer(answer, content)
            return
        self.upstreams = upstreams
        if not ended:
            self.expects = section.expects_continue
            self.kept = [body] if body else []
            self.kept_size = len(body)
        elif body or trailers:
            self.kept = [body]
            self.kept_size = len(body)
            self.trailers = trailers
        upstreams.pool.budget.request(self.began)
        self.choose()

    # -- choose, open

    def choose(self) -> None:
        """Take a backend, and a connection to it."""
        self.pending = None
        upstreams = self.upstreams
        pool = upstreams.pool
        lease = pool.pick(self.tried) if self.tried else pool.pick()
        if lease is None:
            # "another backend first": where there is no other, the same one once more
            lease = pool.pick() if self.tried else None
            if lease is None:
                self.refuse(503, "no_backend")
                return
        self.lease = lease
        self.attempts += 1
        backend = lease.backend
        if not self.must_dial and backend.idle:
            connection = upstreams.take_idle(backend, self.request_ended and self.head.method in upstreams.repeatable)
            if connection is not None:
                self.was_kept_connection = True
                self.send(connection, self.began if self.attempts == 1 else self.site.seconds())
                return
        self.open()

    def open(self) -> None:
        """Dial; meanwhile the client's body waits in its socket."""
        upstreams, lease = self.upstreams, self.lease
        assert lease is not None
        self.was_kept_connection = False
        if not self.request_ended:
            self.connection.pause_request()
        self.tried_at = self.site.seconds()
        pending = upstreams.dial(lease.backend, self.dialled, self.dial_failed)
        if self.upstream is None and self.lease is lease:
            self.pending = pending  # neither end of it has come yet

    def dialled(self, connection: UpstreamConnection) -> None:
        """The dial has come through."""
        self.pending = None
        self.connected_at = now = self.site.seconds()
        self.send(connection, now)

    def dial_failed(self, outcome: Outcome, detail: str) -> None:
        """The dial has failed: nothing was sent."""
        self.pending = None
        self.try_failed(outcome, detail, sent=False)

    def send(self, connection: UpstreamConnection, now: float) -> None:
        """The head, and in the same write what is there of the body."""
        lease = self.lease
        assert lease is not None
        head = self.head
        self.upstream = connection
        self.tried_at = now
        start = head.forward or request_head(head, self.connection.identity, lease.backend)
        if self.expects and not self.request_ended:
            wire = b"%b%b\r\nExpect: 100-continue\r\n\r\n" % (start, self.id)
        else:
            wire = b"%b%b\r\n\r\n" % (start, self.id)
        chunked = head.section.body == CHUNKED
        if chunked or self.kept is not None:
            wire += self._content(chunked)
        if self.request_ended:
            connection.send_head(self, wire, head.method, chunked)
            if not connection.is_stalled:
                connection.await_head()
        else:
            connection.deadline = NEVER  # the client's runs
            connection.send_head(self, wire, head.method, chunked)
            if not connection.is_stalled:
                self.connection.resume_request()

    def _content(self, chunked: bool) -> bytes:
        """What is there of the body, framed. It is only kept on while it is small enough to be sent again."""
        content = b"".join(self.kept or ())
        if self.kept_size > self.upstreams.settings.retry.buffer:
            self.kept = None
        if chunked:
            content = encode_chunk(content) if content else b""
            if self.request_ended:
                content += encode_end(self.trailers)
        return content

    # -- carry: towards the backend

    def body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the request."""
        self.request_ended = ended
        kept = self.kept
        self.kept_size += len(body)
        limit = self.site.settings.limits.body_size
        if limit is not None and self.kept_size > limit:
            self.refuse(413, "too_large")
            return
        if kept is not None:
            kept.append(body)
            self.trailers = trailers
        upstream = self.upstream
        if upstream is None:
            return  # it is kept, and goes out with the head
        if kept is not None and self.kept_size > self.upstreams.settings.retry.buffer:
            self.kept = None
        upstream.send_body(body, ended, trailers)
        if ended and not self.responded and not upstream.is_stalled:
            upstream.await_head()

    def pause_request(self) -> None:
        """The backend reads too slowly."""
        if not self.request_ended:
            self.connection.pause_request()

    def resume_request(self) -> None:
        if not self.request_ended:
            self.connection.resume_request()

    # -- carry: towards the client

    def interim(self, head: ResponseHead) -> None:
        """1xx: 100 once and only if it was asked for, the others as they come, none to HTTP/1.0 (RFC 9110, 15.2)."""
        self.was_kept_connection = False  # the backend has read the request: it is not a connection that had ended
        if self.head.minor == 0 or self.is_over:
            return
        if head.status == 100:
            if not self.expects or self.has_continued:
                return
            self.has_continued = True
        self.connection.send_interim(self, head)

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The answer's head and what came with it."""
        self.responded = True
        self.status = head.status
        now = self.site.seconds()
        self.first_at = now
        self.connection.send_response(self, head, body, ended, trailers)
        if ended:
            self.complete(now)
        elif self.upstream is not None:
            self.upstream.await_body(self.upstreams.silence(head, self.site.settings.timeouts.idle))

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        self.connection.send_body(self, body, ended, trailers)
        if ended:
            self.complete(self.site.seconds())

    def pause_response(self) -> None:
        """The client reads too slowly."""
        if self.upstream is not None:
            self.upstream.pause_answer()

    def resume_response(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_answer()

    # -- settle

    def complete(self, now: float) -> None:
        """The answer has gone down as a whole."""
        upstream, lease = self.upstream, self.lease
        assert upstream is not None and lease is not None
        self.upstream = None
        self.lease = None
        self.released = lease.backend
        lease.release(Outcome.OK, self.status, now - self.tried_at)
        # What the backend has not taken of a body stands before the next request.
        upstream.end(self.request_ended and not (self.kept_size and unsent(upstream.transport)))
        self.is_over, self.kept = True, None
        try:
            settle(self, now)
        finally:
            self.connection.exchange_over(self)

    def upstream_lost(self, upstream: UpstreamConnection, outcome: Outcome, detail: str) -> None:
        """The backend's connection is gone before the answer was whole."""
        if upstream is not self.upstream:
            return
        self.upstream = None
        if self.responded:
            self._release(outcome)
            self.reason = outcome.reason
            self.settle(self.site.seconds())
            self.connection.cut_response(self)
            return
        self.try_failed(outcome, detail, sent=True)

    def try_failed(self, outcome: Outcome, detail: str, sent: bool) -> None:
        """One try is over without an answer: another one, or the end."""
        upstreams, lease = self.upstreams, self.lease
        assert lease is not None
        policy = upstreams.settings.retry
        whole = self.kept is not None or (self.request_ended and self.kept_size == 0)
        if self.was_kept_connection and outcome is Outcome.RESET and whole and self.head.method in policy.methods:
            # The backend closed a connection that had idled, as it may: the same backend, on a new one. No retry.
            self.must_dial = True
            self.open()
            return
        self._release(outcome)
        word = "overload" if outcome is Outcome.ABANDONED else outcome.reason
        cause = "reset" if sent else "connect_failure"
        if (
            self.attempts < policy.attempts
            and outcome in _REPEATED
            and may_repeat(policy, self.head.method, sent, whole, cause)
        ):
            if upstreams.pool.budget.may_retry(self.site.seconds()):
                upstreams.pool.retries += 1
                self.tried = (*self.tried, lease.backend)
                self._try_again(backoff_delay(policy, self.attempts, upstreams.rng))
                return
            upstreams.pool.budget_exhausted += 1
            self.refuse(REASONS[word], "retry_budget")
            return
        self.refuse(REASONS[word], word)

    def _try_again(self, delay: float) -> None:
        if not delay:
            self.choose()
            return
        if not self.request_ended:
            self.connection.pause_request()
        self.pending = self.upstreams.reactor.callLater(delay, self.choose)

    def _release(self, outcome: Outcome) -> None:
        lease, self.lease = self.lease, None
        if lease is not None:
            self.released = lease.backend
            lease.release(outcome, self.status or -1, self.site.seconds() - self.tried_at)

    def refuse(self, status: int, reason: str, detail: str = "") -> None:
        """An answer of ours instead of a backend's."""
        self.reason = reason
        self._let_go(Outcome.ABANDONED)
        if self.responded:
            self.status = self.status or status
            self.settle(self.site.seconds())
            self.connection.cut_response(self)
            return
        head, body = responses.error(status, reason, self.id, self.head, detail)
        self.answer(head, body)

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Our own answer, whole."""
        self.responded = True
        self.status = head.status
        self.connection.send_response(self, head, body, True, b"")
        try:
            self.settle(self.site.seconds())
        finally:
            self.connection.exchange_over(self)

    def client_gone(self, reason: str = "client_closed") -> None:
        """The client's connection is lost, or was cut: nobody waits for the answer any more."""
        if self.is_over:
            return
        self._let_go(Outcome.CLIENT_GONE)
        self.reason = reason
        if not self.responded:
            self.status = 499
        self.settle(self.site.seconds())

    def _let_go(self, outcome: Outcome) -> None:
        """Whatever is under way upstream ends."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.cut()
        self._release(outcome)

    def settle(self, now: float) -> None:
        """Count it and log it, once."""
        self.is_over, self.kept = True, None
        settle(self, now)
