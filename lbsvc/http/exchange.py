"""The layer 7 road: one request and its answer, from match to settle.

Promises: whatever the two sides do, in whatever order, the request is answered once or its connection is cut; its lease is
released once; it is counted and logged once, with one reason word. Called by the server connection (`start`, `body`,
`client_gone`, `cut`) and by the upstream connection (`interim`, `response`, `response_body`, `switched`, `upstream_lost`).
Knows no version of HTTP: both sides speak to it by the same few calls.

The milestones: match, admit, choose, open, carry, settle; net/relay.py walks the same. Choose and open are in trying.py.
Hot path (tests/bench, `http`): with a kept connection nothing here schedules, allocates a closure or waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from lbsvc.core.backend import Outcome
from lbsvc.errors import ProtocolViolation
from lbsvc.http import responses
from lbsvc.http.hops import answer_last_hop
from lbsvc.http.messages import RequestHead, ResponseHead
from lbsvc.http.settling import settle
from lbsvc.http.trying import Trying
from lbsvc.http.tunnel import Tunnel
from lbsvc.net.deadlines import NEVER
from lbsvc.net.unsent import unsent

if TYPE_CHECKING:
    from lbsvc.core.books import RouteBooks
    from lbsvc.http.client import UpstreamConnection
    from lbsvc.http.destination import Destination
    from lbsvc.http.edits import Edits
    from lbsvc.http.either import DownstreamSide, UpstreamSide
    from lbsvc.http.limiting import RequestLimit


class Exchange(Trying):
    """One request on its way."""

    edits: Edits | None = None  # what the route changes in the answer
    is_special = False  # its answer has no body though it may say a length: HEAD
    is_stream = False  # its answer is one: silence of it is nobody's failure
    is_over = False
    reason = "ok"
    asked_at = 0.0  # when its first byte came, where its head came in pieces; else that is `began`
    bytes_out = 0
    first_at = 0.0
    grpc_status: int | None = None  # of a call of gRPC (grpc.py) that has been told how it ended

    def __init__(self, connection: DownstreamSide, head: RequestHead, now: float) -> None:
        self.connection, self.upstream = connection, None
        self.site = site = connection.site
        self.head = head
        if head.method == b"HEAD":
            self.is_special = True
        self.began = now
        if connection.is_believed:
            self.id = connection.identify(head) or site.ids.make()
        else:
            self.id = b"%016x" % site.ids.bits(64)

    # -- match, admit

    def start(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """The head has come, and what came with it."""
        site = self.site
        head = self.head
        self.request_ended = ended
        site.books.in_flight += 1
        if site.overload.is_on:
            self.turn_away()
            return
        limit_of_listener = site.limit
        if limit_of_listener is not None and self._is_limited(limit_of_listener, site.unrouted):
            return
        table = site.table
        if table.is_trivial:
            route = table.default
        else:
            try:
                route = head.route if head.table is table else site.match(head, self.connection)
            except ProtocolViolation as violation:
                self.connection.end_after_this()  # as after all that is ambiguous
                self.refuse(violation.status, violation.reason, violation.detail)
                return
        if route is None:
            self.refuse(404, "no_route")
            return
        destination: Destination = route.action
        if not destination.is_plain:
            if destination.split is not None:
                destination = destination.split.choose()
            self.edits = destination.edits
        self.destination = destination
        if destination.deny is not None:
            self.refuse(destination.deny, "denied")
            return
        if destination.limit is not None and self._is_limited(destination.limit, destination.books):
            return
        section = head.section
        limit = destination.body_size
        if limit is not None and (section.body > limit or len(body) > limit):
            self.refuse(413, "too_large")
            return
        if not ended:
            self.expects = section.expects_continue
            self.kept = [body] if body else []
            self.kept_size = len(body)
        elif body or trailers:
            self.kept = [body]
            self.kept_size = len(body)
            self.trailers = self._edited_trailers(trailers)
        if head.is_odd and self._answered_here():
            return
        upstreams = destination.upstreams
        if upstreams is not None:
            self.upstreams = upstreams
            upstreams.pool.budget.request(self.began)
            if destination.is_plain:
                self.choose()
                return
        self._admit(destination)

    def _is_limited(self, limit: RequestLimit, books: RouteBooks) -> bool:
        """Whether this one is too much; then it has been told so."""
        wait = limit.wait(self.head, self.head.section.client or self.connection.peer, self.began)
        if wait:
            books.limited += 1
            self.refuse(429, "rate_limited", retry_after=wait)
        return wait > 0

    def _answered_here(self) -> bool:
        """A request that no backend shall see, wherever its route leads."""
        if self.head.section.unsupported:
            self.refuse(417, "bad_request", "an Expect that cannot be met")
            return True
        last = answer_last_hop(self.head)
        if last is None:
            return False
        self.answer(*last)
        return True

    def _admit(self, destination: Destination) -> None:
        """A route that does more than lead to a pool."""
        if destination.timeout is not None:
            self.limit(destination.timeout)
        mirroring = destination.mirroring
        if mirroring is not None and not self.head.upgrade and mirroring.is_drawn():
            self.copies = mirroring
        fault = destination.fault
        if fault is not None and self.site.rng.random() < fault.share:
            if fault.delay:
                if not self.request_ended:
                    self.connection.pause_request()
                self.pending = self.site.reactor.callLater(fault.delay, self._delayed, destination)
                return
            if fault.abort is not None:
                self.refuse(fault.abort, "fault")
                return
        self._go_on(destination)

    def _delayed(self, destination: Destination) -> None:
        """A fault's delay is over."""
        self.pending = None
        fault = destination.fault
        assert fault is not None
        if fault.abort is not None:
            self.refuse(fault.abort, "fault")
        else:
            self._go_on(destination)
            self.went_late()

    def _go_on(self, destination: Destination) -> None:
        if destination.answer is None:
            self.copy()
            self.choose()
            return
        try:
            made = destination.answer(self.head, self.connection.scheme)
        except ProtocolViolation as violation:  # a redirect to the request's host, and it has named none
            self.refuse(violation.status, violation.reason, violation.detail)
            return
        self.answer(*made)

    # -- carry: towards the backend

    def body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the request."""
        self.request_ended = ended
        kept = self.kept
        self.kept_size += len(body)
        destination = self.destination
        assert destination is not None
        limit = destination.body_size
        if limit is not None and self.kept_size > limit:
            self.refuse(413, "too_large")
            return
        if trailers:
            trailers = self._edited_trailers(trailers)
        if kept is not None:
            kept.append(body)
            self.trailers = trailers
        upstream = self.upstream
        if upstream is None:  # it is kept, and goes out with the head
            if self.ticket is not None and self.kept_size > self.upstreams.settings.retry.buffer:
                self.connection.pause_request()
            return
        if kept is not None and self.kept_size > self.upstreams.settings.retry.buffer:
            self.kept = None
        if self.awaits_continue:
            self.awaits_continue = False
            upstream.deadline = NEVER
            if not ended:
                self.connection.begin_body()  # the client's runs again
        upstream.send_body(body, ended, trailers)
        if ended:
            self.sent_at = self.site.seconds()
            if not self.responded and not upstream.is_stalled:
                upstream.await_head()
            if self.copies is not None:
                self.copy()

    def _edited_trailers(self, trailers: bytes) -> bytes:
        """What the route changes in a request's fields cannot be walked around by a trailer."""
        edits = self.edits
        return trailers if edits is None or edits.request is None else edits.request.without_edited(trailers)

    def pause_request(self) -> None:
        """The backend reads too slowly."""
        if not self.request_ended:
            self.connection.pause_request()

    def resume_request(self) -> None:
        """The backend reads on."""
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
            if self.awaits_continue and self.upstream is not None:
                self.awaits_continue = False
                self.upstream.deadline = NEVER
                self.connection.begin_body()  # it is the client's turn
        self.connection.send_interim(self, head)

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The answer's head and what came with it."""
        if head.status >= 500 and head.status in self.upstreams.repeated and self.is_tried_again(head, ended):
            return
        self.responded = True
        self.status = head.status
        now = self.site.seconds()
        self.first_at = now
        if self._try_due != NEVER:
            self.answer_began()
        if self.edits is not None:
            head, trailers = self.edits.answer(head), self.edits.answer_trailers(trailers)
        placement = self.upstreams.placement
        if placement is not None and self.lease is not None:
            head = placement.settle_in(self, self.lease.backend, head)
        self.connection.send_response(self, head, body, ended, trailers)
        if ended:
            self.complete(now)
        elif self.upstream is not None:
            self.is_stream = self.upstreams.is_stream(head)
            timeouts = self.site.settings.timeouts if self.is_stream else self.upstreams.settings.timeouts
            self.upstream.await_body(timeouts.idle)

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the answer."""
        if trailers and self.edits is not None:
            trailers = self.edits.answer_trailers(trailers)
        self.connection.send_body(self, body, ended, trailers)
        if ended:
            self.complete(self.site.seconds())

    def switched(self, upstream: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
        """101: from here on both sides speak another protocol, and nobody here reads it."""
        self.responded = True
        self.status = 101
        self.first_at = self.site.seconds()
        if self.slot != NEVER:
            self.site.deadlines.forget(self)  # a route's timeout is for the exchange, not for what follows it
        if self.edits is not None:
            head = self.edits.answer(head)
        lease, placement, guard = self.lease, self.upstreams.placement, self.upstreams.pool.guard
        if lease is not None and placement is not None:
            head = placement.settle_in(self, lease.backend, head)
        if lease is not None and guard is not None:
            lease.epoch = guard.answered(lease.backend, lease.epoch)  # how long people talk then is no trial
        self.join(upstream, head, rest)

    def join(self, upstream: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
        """Let both sides talk."""
        Tunnel(self, upstream, head, rest)

    def pause_response(self) -> None:
        """The client reads too slowly."""
        if self.upstream is not None:
            self.upstream.pause_answer()

    def resume_response(self) -> None:
        """The client reads on."""
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
        # What the backend has not taken of a body stands before the next request.
        upstream.end(self.request_ended and not (self.kept_size and unsent(upstream.transport)))
        tried_at = self.tried_at
        # A client that takes its time with the body says nothing about the backend.
        asked_at = self.sent_at if tried_at < self.sent_at <= self.first_at else tried_at
        # Behind the above: who has waited for this place gets the connection with it.
        lease.release(Outcome.OK, self.status, now - tried_at, self.first_at - asked_at)
        try:
            self.settle(now)
        finally:
            self.connection.exchange_over(self)

    def upstream_lost(self, upstream: UpstreamSide, outcome: Outcome, detail: str) -> None:
        """The backend's connection is gone before the answer was whole."""
        if upstream is not self.upstream:
            return
        self.upstream = None
        is_ours = outcome is Outcome.ABANDONED  # the backend had enough of resets of ours: a loss, and not its failure
        if is_ours:
            outcome = Outcome.RESET
        if self.responded:
            word = outcome.reason
            self.reset_code = upstream.reset_code
            if self.is_stream and outcome is Outcome.TIMEOUT and not upstream.is_stalled:
                outcome, word = Outcome.OK, "idle_timeout"  # a stream may be silent: that is no failure of its backend
            self.release(Outcome.ABANDONED if is_ours else outcome)
            self.reason = word
            self.break_off()
            return
        self.try_failed(outcome, detail, sent=not upstream.is_unseen, is_ours=is_ours)

    @override
    def refuse(self, status: int, reason: str, detail: str = "", retry_after: int = 0) -> None:
        self.reason = reason
        self.let_go(Outcome.ABANDONED)
        if self.responded:
            self.status = self.status or status
            self.break_off()
            return
        self.answer(*responses.error(status, reason, self.id, self.head, detail, retry_after))

    def break_off(self) -> None:
        """An answer that has begun goes no further."""
        self.settle(self.site.seconds())
        self.connection.cut_response(self)

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Our own answer, whole."""
        self.responded = True
        self.status = head.status
        if self.edits is not None:
            head = self.edits.answer(head)
        self.connection.send_response(self, head, body, True, b"")
        try:
            self.settle(self.site.seconds())
        finally:
            self.connection.exchange_over(self)

    def client_gone(self, reason: str = "client_closed") -> None:
        """The client's connection is lost, or was cut: nobody waits for the answer any more."""
        if self.is_over:
            return
        self.let_go(Outcome.CLIENT_GONE)
        self.reason = reason
        if not self.responded:
            self.status = 499
        self.settle(self.site.seconds())

    def settle(self, now: float) -> None:
        """Count it and log it, once."""
        self.is_over, self.kept = True, None
        if self.slot != NEVER:
            self.site.deadlines.forget(self)
        settle(self, now)
