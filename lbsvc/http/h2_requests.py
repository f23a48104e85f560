"""One stream of an HTTP/2 connection, in the place that a whole connection has for an exchange of HTTP/1.

Promises: what http/exchange.py asks of a client's connection, stream by stream: a slow stream stops its own backend and
nobody else's; the window of a request's body is given back when its backend takes it; a stream whose answer is over before
its request is reset with NO_ERROR (RFC 9113, 8.1), and an answer that cannot be finished with another code. Nothing is left
of a stream that is over, nor of what it held of the connection's window. Made by h2_server.py for each request, called by
the exchange and, through its owner, by the codec.

Decision (2026-11): behind an error the rest of the request is dropped for LINGER or LINGER_BYTES before that reset, as in
HTTP/1, since curl (7.88) throws away a 413 that a reset follows. Behind other answers it would wait for ever instead; there
it gets the reset at once, as nginx and Caddy do it. So it does behind any answer while the process is overloaded: what is
dropped then is work too, and a stream that is open holds its connection, which shall go (GOAWAY); a client that throws away
the 503 has been refused all the same.

A client that holds many answers at once, and takes of none, gets ENHANCE_YOUR_CALM before their deadlines (h2_holding.py).

Deadlines, one at a time: `request_body` for silence inside a body while we take it (`idle`, for silence of both sides, once
the answer is a stream of its own), `write` while the client takes nothing of what is queued for it, be it by its windows or
by the connection, LINGER for the rest of a request whose answer is an error, and over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lbsvc.http import h2_frames as wire
from lbsvc.http.closing import LINGER, LINGER_BYTES
from lbsvc.http.exchange import Exchange
from lbsvc.http.grpc import exchange_for
from lbsvc.http.h2_budgets import RESETS_EARNED
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_heads import answer_fields, lines_to_fields
from lbsvc.http.h2_holding import LOOK
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.h2_streams import Stream, prioritize
from lbsvc.http.messages import RequestHead, ResponseHead
from lbsvc.net.deadlines import NEVER
from lbsvc.net.unsent import undelivered

if TYPE_CHECKING:
    from lbsvc.http.h2_server import H2ServerConnection

#: Bytes that wait for a client: past the first its backend is stopped, at the second it goes on.
HIGH: Final = 65536
LOW: Final = 16384

#: Reasons for which an answer ends that are not our side's.
_CLIENTS: Final = frozenset({"client_timeout", "too_large"})


class StreamConnection:
    """A request's stream."""

    is_stalled = False  # the client does not take what is queued
    has_finished = False  # what ends is the stream, never the connection's side
    is_lost = False
    has_begun = False  # there is, or was, an exchange: set by the owner, or by `refuse`
    exchange: Exchange | None = None
    deadline = NEVER
    slot = NEVER
    proxy_header = "", b""
    _is_paused = False  # the backend does not take the body
    _held = 0  # bytes of the body that it has not taken, whose window is not given back
    _received = 0
    _is_watching = False  # the deadline is the one for writing
    _has_moved = False  # the client has taken some since that was set
    _waits_since = 0.0
    _write_due = NEVER  # until then it must
    _is_bodyless = False
    _dropped = 0  # bytes of the request that came when its answer was over
    _heard = 0  # bytes of the answer when the client's silence began
    unread: RequestHead | None = None  # what can be said of a request that is reset as it is

    def __init__(self, owner: H2ServerConnection, stream: Stream, size: int) -> None:
        self.owner = owner
        self.codec = owner.codec
        self.stream = stream
        self.site = owner.site
        self.peer = owner.peer
        self.scheme = owner.scheme
        self.trust = owner.trust
        self.is_believed = owner.is_believed
        self.identity_lines = owner.identity_lines
        self._received = size

    @property
    def transport(self) -> Any:
        """The connection's: who is there is the same for all streams."""
        return self.owner.transport

    @property
    def arrival(self) -> Any:
        return self.owner.arrival

    @arrival.setter
    def arrival(self, arrival: Any) -> None:
        self.owner.arrival = arrival  # settling.py takes the handshake's time off it, once for each connection

    # -- what comes, by the owner

    def begin(self, head: RequestHead, ended: bool) -> None:
        """The request's head."""
        priority = head.section.get(b"priority")
        if priority is not None:
            prioritize(self.stream, priority)
        self.stream.left = head.section.body if head.section.body >= 0 and not ended else None
        self.exchange = exchange = exchange_for(self, head, self.site.seconds())
        exchange.start(b"", ended, b"")
        if not ended and not self._is_paused and not exchange.is_over:
            self.begin_body()

    def refuse(self, head: RequestHead, status: int, reason: str, detail: str, retry_after: int = 0) -> None:
        """A request that is lawful HTTP/2, and refused."""
        self.has_begun = True
        self.exchange = exchange = exchange_for(self, head, self.site.seconds())
        exchange.request_ended = self.stream.has_ended_in
        self.site.books.in_flight += 1
        exchange.refuse(status, reason, detail, retry_after)

    def record(self, head: RequestHead, status: int, reason: str) -> None:
        """A request that is nobody's to answer, since it breaks the protocol: it is counted and logged, and that is all."""
        exchange = Exchange(self, head, self.site.seconds())
        exchange.status = status
        exchange.reason = reason
        self.site.books.in_flight += 1
        exchange.settle(self.site.seconds())

    def data(self, data: bytes, ended: bool) -> None:
        """More of the body."""
        size = len(data)
        self._received += size
        exchange = self.exchange
        if exchange is None or exchange.is_over:
            self._drop(size, ended)
            return
        if self._is_paused:
            self._held += size
        else:
            self.codec.consume(self.stream, size)
            if not self._is_watching:
                self.deadline = NEVER
        exchange.body(data, ended, b"")
        if not ended and not self._is_paused and self.exchange is exchange and not exchange.is_over:
            self.begin_body()

    def _drop(self, size: int, ended: bool) -> None:
        """More of a request whose answer is over, if perhaps not sent yet."""
        self.codec.consume(self.stream, size)
        self._dropped += size
        if self.exchange is None and (ended or self._dropped > LINGER_BYTES):
            self._end()

    def trailers(self, lines: bytes) -> None:
        """The end of the body, with trailers."""
        exchange = self.exchange
        if not self._is_watching:
            self.deadline = NEVER
        if exchange is None:
            self._end()
        elif not exchange.is_over:
            exchange.body(b"", True, lines)

    def reset(self, reason: str) -> None:
        """The stream is over before its answer was."""
        self._let_go()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone(reason)

    def _let_go(self) -> None:
        """Nobody calls us any more."""
        self.is_lost = True
        self.site.deadlines.forget(self)
        self.stream.owner = None

    def drained(self) -> None:
        """The client has taken some of what was queued."""
        stream = self.stream
        self._has_moved = True
        if self.is_stalled and stream.queued <= LOW and not self.owner.is_stalled:
            self.is_stalled = False
            exchange = self.exchange
            if exchange is not None and not exchange.is_over:
                exchange.resume_response()
        if stream.queued or self.exchange is None:
            return
        if self._is_watching:
            self._is_watching = False
            self.deadline = NEVER
        if stream.has_ended_out and self.exchange.is_over:
            self._answered()
        elif not self.exchange.request_ended and not self._is_paused:
            self.begin_body()

    def expired(self, now: float) -> None:
        """Its deadline has come."""
        exchange = self.exchange
        if self._is_watching:
            self._look(now)
        elif exchange is None:
            self._end()
        elif exchange.is_over:
            pass
        elif not (exchange.is_stream and exchange.responded):
            exchange.refuse(408, "client_timeout")
        elif exchange.bytes_out != self._heard:
            self.begin_body()  # the backend talks, and the client listens
        else:
            exchange.refuse(408, "idle_timeout")

    # -- what the exchange asks of a connection

    def identify(self, head: RequestHead) -> bytes | None:
        """As server.py."""
        section = head.section
        if not section.client and head.method != b"-":
            section.client = self.trust.client(self.peer, section)
        return section.request_id

    def end_after_this(self) -> None:
        """The connection of HTTP/1 would end: a stream ends anyway."""

    def drain(self) -> None:
        """The connection takes no more requests; what is under way on it is answered."""
        self.owner.part()

    def is_secure(self, head: RequestHead) -> bool:
        """As server.py."""
        return self.scheme == b"https" or (self.is_believed and head.header(b"x-forwarded-proto") == b"https")

    def begin_body(self) -> None:
        """It is the client's turn, unless it waits for a 100 that has not come yet."""
        exchange = self.exchange
        if exchange is not None and not exchange.awaits_continue and not self._is_watching:
            timeouts = self.site.settings.timeouts
            patience = timeouts.request_body
            if exchange.is_stream:
                # Where both talk at once, as gRPC does, a client that listens need not say anything.
                patience = timeouts.idle
                self._heard = exchange.bytes_out
            self.site.deadlines.watch(self, patience)

    def pause_request(self) -> None:
        """The backend is not ready for more of the body."""
        self._is_paused = True
        if not self._is_watching:
            self.deadline = NEVER

    def resume_request(self) -> None:
        """It is again."""
        if self._is_paused:
            self._is_paused = False
            held, self._held = self._held, 0
            if held:
                self.codec.consume(self.stream, held)
                self.owner.flush_soon()
            if not self.stream.has_ended_in:
                self.begin_body()

    def send_interim(self, exchange: Exchange, head: ResponseHead) -> None:
        """1xx."""
        self._send_head(exchange, answer_fields(head), False)
        if self.owner.is_stalled and not self.is_stalled:
            self.is_stalled = True  # heads do not queue by stream, and a backend may send them without end
            exchange.pause_response()

    def send_response(self, exchange: Exchange, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The head, and what is there of the body."""
        fields = answer_fields(head)
        if not head.section.has_date:
            fields.append((b"date", self.site.date_line()[6:-2]))
        lease = exchange.lease
        if lease is not None and self.site.settings.expose_backend:
            fields.append((b"x-backend", lease.backend.name.encode("ascii", "replace")))
        fields.append((b"x-request-id", exchange.id))
        self._is_bodyless = exchange.is_special or head.status in (204, 304)
        last = ended and not trailers and (self._is_bodyless or not body)
        self._send_head(exchange, fields, last)
        if not last:
            self.send_body(exchange, body, ended, trailers)

    def _send_head(self, exchange: Exchange, fields: list[Pair], ended: bool) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in fields)
        self.site.books.bytes_out += size
        exchange.bytes_out += size
        self.codec.send_headers(self.stream, fields, ended)
        self.owner.flush_soon()

    def send_body(self, exchange: Exchange, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the answer."""
        if self._is_bodyless:
            if not ended:
                return
            body = b""
        stream = self.stream
        size = len(body)
        self.site.books.bytes_out += size
        exchange.bytes_out += size
        self.codec.send_data(stream, body, ended, lines_to_fields(trailers) if trailers else None)
        if stream.queued > HIGH and not self.is_stalled:
            self.is_stalled = True
            exchange.pause_response()
        if stream.queued and not self._is_watching:
            self._watch_write()
        self.owner.flush_soon()

    @property
    def is_held(self) -> bool:
        """Whether some of the answer waits for the client."""
        return self._is_watching

    def _watch_write(self) -> None:
        self._is_watching = True
        self._has_moved = False
        deadlines, write = self.site.deadlines, self.site.settings.timeouts.write
        self._waits_since = deadlines.now
        self._write_due = deadlines.after(write)
        deadlines.watch(self, LOOK if write > LOOK else write)

    def _look(self, now: float) -> None:
        """Does the client take any of it?"""
        owner, held = self.owner, self.codec.held
        write = self.site.settings.timeouts.write
        frames = self.codec.sent_frames - self.codec.tiny_frames
        if held.is_due(now) and held.look(now, owner.requests, frames, undelivered(owner.transport), write):
            self._calm()
        elif self._has_moved or (self.stream.send_window > 0 and held.moved_at > self._waits_since):
            self._watch_write()  # it takes some, if slowly; or others' turn it was
        elif now < self._write_due:
            self.site.deadlines.watch(self, min(LOOK, self._write_due - now))
        else:
            owner.reset_stream(self, wire.CANCEL, "client_timeout")

    def _calm(self) -> None:
        """The client holds too many answers for too long: the connection is over."""
        owner = self.owner
        for request in list(owner.requests):
            owner.reset_stream(request, wire.ENHANCE_YOUR_CALM, "client_timeout")
        if not owner.is_ending:
            fault = ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many answers that are not taken")
            self.site.refusals.add(self.peer, "client_timeout", fault)
            self.codec.fail(fault)
            owner.transport.write(self.codec.take())
            owner.linger()

    def exchange_over(self, exchange: Exchange) -> None:
        """The answer is whole, if perhaps not sent."""
        if self.stream.has_ended_out or self.stream.is_over:
            self._answered()

    def _answered(self) -> None:
        """Nothing more is to be said on this stream."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None and exchange.reason == "ok" and exchange.released is not None:
            self.codec.resets.earn(RESETS_EARNED)  # a backend has answered it, and not we
        is_told = exchange is not None and exchange.status >= 400 and not self.site.overload.is_on
        if self.stream.has_ended_in or self.stream.is_over or not is_told:
            self._end()
            return
        held, self._held = self._held, 0
        self._is_paused = self._is_watching = False
        if held:
            self.codec.consume(self.stream, held)
            self.owner.flush_soon()
        self.site.deadlines.watch(self, LINGER)

    def _end(self) -> None:
        """The stream is over, or what is left of its request is of no use."""
        self._let_go()
        if not self.stream.has_ended_in:
            self.codec.reset(self.stream, wire.NO_ERROR)
        self.owner.stream_over(self)

    def cut_response(self, exchange: Exchange) -> None:
        """An answer that has begun cannot be finished."""
        self.exchange = None
        self.owner.reset_stream(self, wire.CANCEL if exchange.reason in _CLIENTS else exchange.reset_code, "")

    def take_bytes_in(self) -> int:
        """Bytes of the request that is being settled."""
        size, self._received = self._received, 0
        return size

    def add_bytes_in(self, size: int) -> None:
        """Bytes that came after the protocol was switched."""
        self._received += size
