"""A client's connection in the server's role of HTTP/1: reads requests one by one, writes their answers in order.

Promises: one exchange at a time, so that pipelined requests are answered in order and no byte of one answer gets into
another; what arrives meanwhile is kept up to 16 KiB, then the socket is left alone; every wait has a deadline; an answer
that ends the connection early is still seen by the client (lingering close). Called by the transport and by the exchange.

Deadlines, one at a time: `request_header` from a request's first byte (absolute), `request_body` for silence inside a
body while we read, `write` while the client does not read, `keep_alive` between requests, LINGER at the end, or none.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from lbsvc.errors import ProtocolViolation
from lbsvc.http.chunked import encode_chunk, encode_end
from lbsvc.http.exchange import Exchange
from lbsvc.http.forwarding import identity_lines
from lbsvc.http.h1_requests import RequestReader
from lbsvc.http.messages import RequestHead, ResponseHead, Section
from lbsvc.http.site import HttpSite
from lbsvc.net.deadlines import NEVER

#: What is read ahead of an exchange's end, in bytes; past it the socket waits.
AHEAD: Final = 16 * 1024
#: How long, and how many bytes, we read and drop so that a client gets to see an answer that ends its connection.
LINGER: Final = 5.0
LINGER_BYTES: Final = 16 * 1024 * 1024
#: Pipelined requests that are answered in one turn of the reactor.
TURN: Final = 16

_UNREAD: Final = RequestHead(b"-", b"-", 1, None, Section())  # stands for a request that could not be read


@implementer(IHalfCloseableProtocol, IPushProducer)
class ServerConnection(Protocol):
    """One client. As a producer it stands for what the other side sends to this client."""

    transport: Any

    def __init__(self, site: HttpSite, peer: str) -> None:
        self.site = site
        self.peer = peer
        self.identity = identity_lines(site.settings.forwarded, peer, b"http")
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.slot = NEVER
        self._reader = RequestReader(self, site.rules)
        self._keep = True  # the connection goes on after this exchange
        self._chunked = False  # this answer's body is sent in chunks
        self._bodyless = False  # this answer has none
        self._is_feeding = False
        self._is_again = False
        self._is_reading = True  # not paused for back-pressure
        self._is_stalled = False  # the client does not read
        self._stalled_at = 0  # bytes that were queued when the write deadline was set
        self._is_lingering = False
        self._is_lost = False
        self._has_finished = False  # the client has closed its side
        self._received = 0
        self._attributed = 0
        self._dropped = 0

    # -- as the transport sees it

    @override
    def connectionMade(self) -> None:
        site = self.site
        site.connections.add(self)
        site.on_open(self.transport.fileno())
        self.transport.registerProducer(self, True)
        self._watch_idle()  # a request's first byte starts the header's deadline

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        self.site.books.bytes_in += len(data)
        if self._is_lingering:
            if self._received > LINGER_BYTES:
                self.transport.abortConnection()
            return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        budget = TURN
        self._is_feeding = True
        try:
            was_idle = reader.is_idle
            reader.feed(data)
            while self._is_again:
                self._is_again = False
                budget -= 1
                if not budget:
                    self.site.reactor.callLater(0, self._go_on)
                    break
                was_idle = True
                reader.feed(b"")
        except ProtocolViolation as violation:
            self._is_again = False
            self._violated(violation)
            return
        finally:
            self._is_feeding = False
        if self.exchange is None:
            if was_idle and reader.buffer and not self._is_lingering and not self._is_lost:
                site = self.site
                site.deadlines.watch(self, site.settings.timeouts.request_header)
        elif len(reader.buffer) >= AHEAD and self._is_reading and reader.is_holding:
            self._is_reading = False
            self.transport.pauseProducing()

    def _go_on(self) -> None:
        """The rest of the pipelined requests, a turn later; what came meanwhile waits behind them."""
        if not self._is_lost and not self._is_lingering and self.exchange is None and self._reader.buffer:
            self._feed(b"")

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The client has finished sending. A request that is whole still gets its answer (RFC 9112, 9.6)."""
        self._has_finished = True
        exchange = self.exchange
        if exchange is not None and (exchange.request_ended or exchange.is_over):
            self._keep = False
            return
        self._lose()

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """We have closed our side, lingering; the client's end or a deadline follows."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        self.deadline = NEVER
        self.site.connections.discard(self)
        self.site.on_close()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: the client reads too slowly
        self._is_stalled = True
        self._watch_write()
        if self.exchange is not None:
            self.exchange.pause_response()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: the client reads on
        self._is_stalled = False
        self.deadline = NEVER
        exchange = self.exchange
        if exchange is None:
            self._watch_idle()
        else:
            if not exchange.request_ended and self._is_reading:
                self._watch_body()
            exchange.resume_response()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost; connectionLost follows and knows what to do."""

    # -- deadlines

    def _watch_write(self) -> None:
        self._stalled_at = self.transport.queued
        self.site.deadlines.watch(self, self.site.settings.timeouts.write)

    def _watch_body(self) -> None:
        self.site.deadlines.watch(self, self.site.settings.timeouts.request_body)

    def _watch_idle(self) -> None:
        self.site.deadlines.watch(self, self.site.settings.timeouts.keep_alive)

    def expired(self, now: float) -> None:
        if self._is_lingering:
            self.transport.abortConnection()
        elif self._is_stalled:
            if self.transport.queued < self._stalled_at:
                self._watch_write()  # it reads, if slowly
            else:
                self.cut("client_timeout")
        elif self.exchange is not None:
            if self.exchange.is_over:
                self.exchange = None
                self._linger()
            else:
                self.exchange.refuse(408, "client_timeout")
        elif self._reader.is_idle:
            self._lose()
        else:
            self._violated(ProtocolViolation(408, "", reason="client_timeout"))

    # -- what the reader tells

    def request(self, head: RequestHead, body: bytes, ended: bool, trailers: bytes) -> None:
        site = self.site
        self._keep = (
            (not head.section.close if head.minor else head.section.keep_alive and not head.section.close)
            and not self._has_finished
            and not site.is_draining
        )
        self.exchange = exchange = Exchange(self, head, site.seconds())
        self.deadline = NEVER
        exchange.start(body, ended, trailers)
        if not ended and self.exchange is exchange and self._is_reading:
            self._watch_body()

    def request_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.is_over:  # the answer was over before the request
            self._dropped += len(body)
            exchange.request_ended = ended
            if ended:
                self._next()
            elif self._dropped > LINGER_BYTES:
                self.exchange = None
                self._linger()
            return
        if ended:
            self.deadline = NEVER
        elif self._is_reading and not self._is_stalled:
            self._watch_body()
        exchange.body(body, ended, trailers)

    def _violated(self, violation: ProtocolViolation) -> None:
        """What came is not HTTP: say so, and read nothing more."""
        exchange = self.exchange
        self._keep = False
        if exchange is not None:
            if exchange.is_over:
                self.exchange = None
                self._linger()
            else:
                exchange.refuse(violation.status, violation.reason, violation.detail)
            return
        self.exchange = exchange = Exchange(self, _UNREAD, self.site.seconds())
        self.site.books.in_flight += 1
        exchange.refuse(violation.status, violation.reason, violation.detail)

    # -- what the exchange asks for

    def pause_request(self) -> None:
        """The backend is not ready for more of the body."""
        if self._is_reading:
            self._is_reading = False
            if not self._is_stalled:
                self.deadline = NEVER
            self.transport.pauseProducing()

    def resume_request(self) -> None:
        if not self._is_reading and not self._is_lost:
            self._is_reading = True
            if not self._is_stalled:
                self._watch_body()
            self.transport.resumeProducing()

    def send_interim(self, head: ResponseHead) -> None:
        self._write(head.wire + b"\r\n", None)

    def send_response(self, exchange: Exchange, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The head, framed for this client, and what is there of the body, in one write."""
        request = exchange.head
        if head.is_plain and self._keep and request.minor and not exchange.is_special and not self.site.is_special:
            # Hot path (tests/bench, `http`): nothing to add but the request's id.
            self._chunked = self._bodyless = False
            wire = b"%bX-Request-Id: %b\r\n\r\n%b" % (head.wire, exchange.id, body)
            size = len(wire)
            self.site.books.bytes_out += size
            exchange.bytes_out += size
            self.transport.write(wire)
            return
        section = head.section
        status = head.status
        framing = b""
        self._chunked = False
        self._bodyless = request.method == b"HEAD" or status == 204 or status == 304
        if self._bodyless:
            body = b""
        elif section.body < 0:
            if request.minor:
                self._chunked = True
                framing = b"Transfer-Encoding: chunked\r\n"
                body = encode_chunk(body) if body else b""
                if ended:
                    body += encode_end(trailers)
            else:
                self._keep = False  # HTTP/1.0 knows no other end than the connection's
        lease = exchange.lease
        if self._keep and (self.site.is_draining or (lease is None and not exchange.request_ended)):
            self._keep = False  # an answer of ours to a request that is still coming: the rest is not worth reading
        if not self._keep:
            framing += b"Connection: close\r\n"
        elif not request.minor:
            framing += b"Connection: keep-alive\r\n"
        if not section.has_date:
            framing += self.site.date_line()
        if lease is not None and self.site.settings.expose_backend:
            framing += b"X-Backend: %b\r\n" % lease.backend.name.encode("ascii", "replace")
        wire = b"%b%bX-Request-Id: %b\r\n\r\n%b" % (head.wire, framing, exchange.id, body)
        self._write(wire, exchange)

    def send_body(self, exchange: Exchange, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the answer."""
        if self._bodyless:
            return
        if self._chunked:
            body = encode_chunk(body) if body else b""
            if ended:
                body += encode_end(trailers)
        if body:
            self._write(body, exchange)

    def _write(self, wire: bytes, exchange: Exchange | None) -> None:
        size = len(wire)
        self.site.books.bytes_out += size
        if exchange is not None:
            exchange.bytes_out += size
        self.transport.write(wire)

    def exchange_over(self, exchange: Exchange) -> None:
        """The answer is whole: on to the next request, or the end of the connection."""
        if not exchange.request_ended:
            if self._keep and not self._has_finished:
                # The answer has promised to keep the connection: the rest of the body is read and dropped, within LINGER.
                if not self._is_reading:
                    self.resume_request()
                self._dropped = 0
                self.site.deadlines.watch(self, LINGER)
                return
            self.exchange = None
            self._linger()
            return
        self._next()

    def _next(self) -> None:
        self.exchange = None
        if not self._keep or self.site.is_draining:
            if self._has_finished or not self._reader.buffer:
                self._lose()
            else:
                self._linger()
            return
        if self._reader.release():
            if self._is_feeding:
                self._is_again = True
            else:
                self.site.reactor.callLater(0, self._go_on)
        if not self._is_reading:
            self._is_reading = True
            self.transport.resumeProducing()
        if not self._is_stalled:
            site = self.site
            deadline = site.deadlines.now + site.keep_alive
            self.deadline = deadline
            if deadline < self.slot:
                site.deadlines.insert(self)

    def cut_response(self, exchange: Exchange) -> None:
        """An answer that has begun cannot be finished: the client must see that it is short (RFC 9112, 8)."""
        self.exchange = None
        if self._chunked or exchange.is_sized:
            self._lose()  # what is missing shows; what was sent still arrives
        else:
            self.transport.abortConnection()

    # -- ends

    def drain(self) -> None:
        """Nothing new: an idle connection closes now, a busy one after its answer."""
        if self.exchange is None and not self._is_lingering:
            self._lose()

    def cut(self, reason: str) -> None:
        """Now, whatever is under way."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone(reason)
        self.transport.abortConnection()

    def _lose(self) -> None:
        """Close once everything is written; a client that does not read is not waited for longer than `write`."""
        self._keep = False
        if self._is_lost:
            return
        self._is_lingering = True  # what still comes is dropped
        self.transport.loseConnection()
        self.site.deadlines.watch(self, self.site.settings.timeouts.write)

    def _linger(self) -> None:
        """Close so that the client sees the answer though we have not read all it sends: our side first, then wait.

        A close with unread bytes resets the connection, and the client may never see what was sent before.
        """
        if self._is_lost:
            return
        self._is_lingering = True
        self._received = 0
        if not self._is_reading:
            self._is_reading = True
            self.transport.resumeProducing()
        self.transport.loseWriteConnection()
        self.site.deadlines.watch(self, LINGER)

    def take_bytes_in(self) -> int:
        """Bytes of the request that is being settled: what came, less what belongs to the next."""
        total = self._received - len(self._reader.buffer)
        size, self._attributed = total - self._attributed, total
        return size
