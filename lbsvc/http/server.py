"""A client's connection in the server's role of HTTP/1: reads requests one by one, writes their answers in order.

Promises: one exchange at a time, so that pipelined requests are answered in order and no byte of one answer gets into
another; every wait has a deadline. Called by the transport and by the exchange. See reading.py for how requests come,
answering.py for what is written, and closing.py for how it ends.

Deadlines, one at a time: `request_header` from a request's first byte (absolute), `request_body` for silence inside a
body while we read, `write` while the client does not read, `keep_alive` between requests, LINGER while the rest of a
request is dropped whose answer is over, those of closing.py, or none.
"""

from __future__ import annotations

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.errors import ProtocolViolation
from lbsvc.http.closing import GRACE, LINGER, LINGER_BYTES
from lbsvc.http.exchange import Exchange
from lbsvc.http.fields import fields_of
from lbsvc.http.framing import TO_END, wants_close
from lbsvc.http.h1_requests import RequestReader
from lbsvc.http.identity import certificate_lines
from lbsvc.http.messages import Field, RequestHead, Section
from lbsvc.http.prefacing import PrefacedConnection
from lbsvc.http.reading import NO_READER
from lbsvc.http.site import REST, HttpSite
from lbsvc.net.arrival import Arrival
from lbsvc.net.deadlines import NEVER
from lbsvc.net.peeking import peek
from lbsvc.net.unsent import undelivered


class ServerConnection(PrefacedConnection):
    """One client. As a producer it stands for what the other side sends to it. Defaults stand on the class: it is small."""

    scheme = b"http"
    identity_lines = b""  # what backends are told of its certificate, where clients are asked for one
    _known: tuple[Field, ...] = ()  # the same, for routes
    proxy_header = "", b""  # what pools with this `proxy_protocol` tell their backends of this client (pooling.py)
    is_believed = False  # the peer is a trusted proxy: what it says about its client counts
    _is_resting = False  # idle for so long that it has forgotten its last head
    _attributed = 0

    def __init__(self, site: HttpSite, peer: str, arrival: Arrival | None = None) -> None:
        self.site = site
        self.peer = peer
        if arrival is not None:
            self.arrival = arrival
            if arrival.is_secure:
                self.scheme = b"https"
            if arrival.tls is not None:
                self._is_new = False  # over TLS it is ALPN that agrees on HTTP/2, and nothing else (RFC 9113, 3.3)
            if site.asks_certificates:
                self.identity_lines = certificate_lines(arrival, True)
                self._known = fields_of(self.identity_lines, site.rules)
        if arrival is not None and arrival.is_nameless:
            self.trust = site.distrust
        else:
            self.trust = site.trust
        if self.trust.believes(peer):
            self.is_believed = True
        self._reader = RequestReader(self, site.rules)

    # -- as the transport sees it

    @override
    def connectionMade(self) -> None:
        site = self.site
        site.connections.add(self)
        site.on_open(self.transport.fileno())
        self.transport.registerProducer(self, True)
        self._watch_idle()  # a request's first byte starts the header's deadline
        if site.is_draining:  # its handshake took until now
            site.deadlines.watch(self, GRACE)

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        self.site.books.bytes_in += len(data)
        if self.is_ending:
            self.drop(len(data))
            return
        if self._is_new and self._is_preface(data):
            return
        head = self._reader.read_again(data)
        if head is not None:
            self.request(head, b"", True, b"")
        else:
            self._feed(data)

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The client has finished sending. Requests that are whole still get their answers (RFC 9112, 9.6)."""
        self.has_finished = True
        if self.is_ending:
            self.lose()
        else:
            self._check_finished()

    def _check_finished(self) -> None:
        """Nothing more will come: what cannot become whole is over."""
        exchange, reader = self.exchange, self._reader
        if exchange is None:
            if not reader.is_holding:
                self.lose()
        elif not exchange.request_ended or exchange.ticket is not None:
            # Who waits in a queue, and closes, has left: its place is for those who are still there.
            self.exchange = None
            exchange.client_gone()
            self.lose()
        elif not reader.buffer:
            self._keep = False

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = self.is_ending = True
        site = self.site
        site.deadlines.forget(self)
        site.connections.discard(self)
        site.on_close(self.peer)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
        self._reader = NO_READER

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: the client reads too slowly
        self.is_stalled = True
        self.watch_write()
        if self.exchange is not None:
            self.exchange.pause_response()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: the client reads on
        self.is_stalled = False
        if self.is_ending:
            return
        exchange = self.exchange
        if exchange is None:
            self._postpone()  # nothing was begun while it did not read
            return
        self.deadline = NEVER
        if exchange.is_over:
            self.site.deadlines.watch(self, LINGER)
        elif not exchange.request_ended and self._is_reading:
            self.await_body()
        exchange.resume_response()

    # -- deadlines

    def await_body(self) -> None:
        """It is the client's turn, unless it waits for a 100 that the backend has not sent yet (RFC 9110, 10.1.1)."""
        exchange = self.exchange
        if exchange is None or not exchange.awaits_continue:
            self.site.deadlines.watch(self, self.site.settings.timeouts.request_body)

    def begin_body(self) -> None:
        """The 100 has come, or the client does without it."""
        if self._is_reading and not self.is_stalled:
            self.await_body()

    def end_after_this(self) -> None:
        """The connection ends with this exchange."""
        self._keep = False

    def _watch_idle(self) -> None:
        self._is_resting = False
        self.site.deadlines.watch(self, min(self.site.settings.timeouts.keep_alive, REST))

    def _rest(self) -> None:
        """Idle for a while: a stranger's heads shall not take room for all of `keep_alive`."""
        patience = self.site.settings.timeouts.keep_alive - REST
        if self._is_resting or patience <= 0:
            return self.lose()
        self._is_resting = True
        self._is_heading = False  # an empty line may have begun it, and was all
        self._reader.forget()
        return self.site.deadlines.watch(self, patience)

    @override
    def expired(self, now: float) -> None:
        exchange = self.exchange
        if self.is_ending:
            self.end_overdue()
        elif self.is_stalled:
            if undelivered(self.transport) < self._left:
                self.watch_write()  # it reads, if slowly
            else:
                self.cut("client_timeout")
        elif exchange is not None:
            self._keep = False
            if exchange.is_over:
                self.exchange = None
                self.linger()
            else:
                exchange.refuse(408, "client_timeout")
        elif not self._reader.is_idle or self._begun:
            self._violated(ProtocolViolation(408, "", reason="client_timeout"))
        elif self.site.is_draining:
            self.lose_in_time()
        else:
            self._rest()

    # -- what the reader tells

    def request(self, head: RequestHead, body: bytes, ended: bool, trailers: bytes) -> None:
        site = self.site
        section = head.section
        wanted = not section.close if head.minor else section.keep_alive and not section.close
        self._keep = wanted and not site.is_draining and (not self.has_finished or bool(self._reader.buffer))
        self._is_resting = False
        self.deadline = NEVER
        if self._known:
            head.known = self._known
        self.exchange = exchange = Exchange(self, head, site.seconds())
        if self._is_heading:
            self._is_heading = False
            exchange.asked_at = self._heading_at
        exchange.start(body, ended, trailers)
        if not ended:
            self._go_on_with(exchange)

    def _go_on_with(self, exchange: Exchange) -> None:
        if self._is_reading and self.exchange is exchange and not exchange.is_over:  # all of it may have changed
            self.await_body()

    def request_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.is_over:  # the answer was over before the request
            self._dropped += len(body)
            exchange.request_ended = ended
            if ended:
                self.take_bytes_in()  # they belong to the request that is over
                self._next(exchange)
            elif self._dropped > LINGER_BYTES:
                self.exchange = None
                self.linger()
            return
        if self._is_reading and not self.is_stalled:
            if ended:
                self.deadline = NEVER
            else:
                self.await_body()
        exchange.body(body, ended, trailers)

    def _violated(self, violation: ProtocolViolation) -> None:
        """What came is not HTTP: say so, and read nothing more."""
        self._keep = False
        exchange = self.exchange
        if exchange is None:
            # Stands for a request that could not be read, but perhaps for its first line.
            method, target, minor = self._reader.asked or (b"-", b"-", 1)
            unread = RequestHead(method, target, minor, None, Section())
            self.exchange = exchange = Exchange(self, unread, self.site.seconds())
            if self._is_heading:
                exchange.asked_at = self._heading_at
            self._attributed -= len(self._reader.buffer)  # these bytes are its own
            self.site.books.in_flight += 1
        if exchange.is_over:
            self.exchange = None
            self.linger()
        else:
            exchange.refuse(violation.status, violation.reason, violation.detail)

    # -- what the exchange asks for

    def pause_request(self) -> None:
        """The backend is not ready for more of the body."""
        if self._is_reading:
            if not self.is_stalled:
                self.deadline = NEVER
            self._pause()

    def resume_request(self) -> None:
        if not self._is_reading and not self.is_lost:
            self._resume()
            if not self.is_stalled:
                self.await_body()

    def exchange_over(self, exchange: Exchange) -> None:
        """The answer is whole: on to the next request, or the end of the connection."""
        site = self.site
        waits = self.is_stalled or site.is_draining or self._reader.buffer
        if exchange.request_ended and self._keep and self._is_reading and not waits:
            # Hot path (tests/bench, `http`): nothing waits, and nothing is to be said.
            self.exchange = None
            self._reader.release()
            self.deadline = deadline = site.deadlines.now + site.keep_alive
            if deadline < self.slot:
                site.deadlines.insert(self)
        elif exchange.request_ended:
            self._next(exchange)
        elif self._keep:
            # The answer has promised to keep the connection: the rest of the body is read and dropped, within LINGER.
            self._dropped = 0
            self._resume()
            if not self.is_stalled:
                site.deadlines.watch(self, LINGER)
        else:
            self.exchange = None
            self.linger()

    def _next(self, exchange: Exchange) -> None:
        """This request and its answer are over."""
        self.exchange = None
        site = self.site
        reader = self._reader
        if self._keep and site.is_leaving and not (self.has_finished or self.is_stalled or reader.buffer):
            # Its head had promised that the connection stays: a request may be on its way, and is answered as the last one.
            reader.release()
            self._resume()
            site.deadlines.watch(self, GRACE)
        elif not self._keep or (site.is_draining and not (site.is_leaving and (reader.buffer or self.is_stalled))):
            if self.has_finished or (wants_close(exchange.head) and not reader.buffer):
                self.lose()
            else:
                self.linger()
        elif reader.buffer and not self.is_stalled:
            if self._is_feeding:
                self._is_again = True
            else:
                self._postpone()
        elif not self.is_stalled:  # else it goes on in resumeProducing
            reader.release()
            self._resume()
            self._watch_idle()

    def cut_response(self, exchange: Exchange) -> None:
        """An answer that has begun cannot be finished: the client must see that it is short (RFC 9112, 8)."""
        self.exchange = None
        if self._framing == TO_END:
            self.transport.abortConnection()
        else:
            self.lose()  # what is missing shows; what was sent still arrives

    # -- ends

    def drain(self) -> None:
        """Nothing new: an idle connection closes now, a busy one after its answer.

        What was accepted is answered: a connection that has just been made is not idle, nor one whose request waits unread.
        """
        if self.exchange is not None or self.is_ending:
            return
        if self._reader.is_holding:
            if not self.site.is_leaving:
                self.linger()  # between pipelined requests
        elif self._reader.is_idle and not peek(self.transport):
            if self._received and not self.site.is_leaving:
                self.lose()
            else:  # a request may be on its way: it is answered, as the last one
                self.site.deadlines.watch(self, GRACE)

    def cut(self, reason: str) -> None:
        """Now, whatever is under way."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone(reason)
        self.is_ending = True
        self.transport.abortConnection()

    def leave(self) -> bytes:
        """The exchange has switched protocols: the transport is another's now. Gives what was read and not used."""
        site = self.site
        site.deadlines.forget(self)
        site.connections.discard(self)
        self.is_lost = self.is_ending = True
        self.exchange = None
        self.transport.unregisterProducer()
        early = bytes(self._reader.buffer)
        self._reader = NO_READER
        return early

    def is_secure(self, head: RequestHead) -> bool:
        """Whether the client came over TLS, to us or to a trusted proxy."""
        return self.scheme == b"https" or (self.is_believed and head.header(b"x-forwarded-proto") == b"https")

    def identify(self, head: RequestHead) -> bytes | None:
        """Who asks, as a trusted proxy says it, is noted on the head; gives the id that the proxy gave the request."""
        section = head.section
        if not section.client and head.method != b"-":  # nobody has said anything in what could not be read
            section.client = self.trust.client(self.peer, section)
        return section.request_id

    def add_bytes_in(self, size: int) -> None:
        """Bytes that came after the protocol was switched."""
        self._received += size

    def take_bytes_in(self) -> int:
        """Bytes of the request that is being settled: what came, less what belongs to the next."""
        total = self._received - len(self._reader.buffer)
        size, self._attributed = total - self._attributed, total
        return size
