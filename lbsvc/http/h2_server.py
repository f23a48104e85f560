"""A client's connection in the server's role of HTTP/2: streams, each with an exchange of its own.

Promises: streams do not wait for each other; what is written in one turn of the reactor goes out as one piece; whatever
breaks the protocol ends as RFC 9113 says, with GOAWAY or RST_STREAM, is counted and logged once (400 `bad_request`, as in
HTTP/1), and nothing of it reaches a backend. A connection that ends so is told of in the event log too (refusals.py), and
what was under way on it ends for the same reason: its client has not just gone. Made by the listener where ALPN has agreed
on h2, and by prefacing.py where a plain connection begins with the preface. See h2_codec.py for what is judged how, and
h2_requests.py for one stream.

Deadlines, one at a time: `keep_alive` while there is no stream, `request_header` while a header section is on its way
(absolute), `write` while the transport is stalled, those of closing.py; and, beside them, GRACE of a drain.

Drain: GOAWAY with the largest number, so that what is on its way is not lost, and a PING; with its answer (or after
GRACE) the number of the last stream that came; the connection ends with the last of them.

Where `peer` is a Surplus the connection is one too many: its first request is answered 429, and then it ends; so it does,
without an answer, when none has come within PATIENCE (surplus.py says the same for HTTP/1).
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.core.clients import Surplus
from lbsvc.errors import ProtocolViolation
from lbsvc.http import h2_frames as wire
from lbsvc.http.fields import fields_of
from lbsvc.http.h1 import REMEMBERED
from lbsvc.http.h2_codec import Codec
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_heads import H2RequestHead, Malformed, read_request, read_trailers, unread
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.h2_leaving import MOST_UNSENT, NOBODY, Grace, LeavingConnection
from lbsvc.http.h2_requests import StreamConnection
from lbsvc.http.h2_streams import Stream
from lbsvc.http.h2_tunnel import BridgedConnection
from lbsvc.http.identity import certificate_lines
from lbsvc.http.messages import Field
from lbsvc.http.site import HttpSite
from lbsvc.net.arrival import Arrival
from lbsvc.net.deadlines import NEVER
from lbsvc.net.unsent import limit_unsent, undelivered

#: How long a client with too many connections may take for its first request, and when it may come again, in seconds.
PATIENCE: Final = 1.0
RETRY_AFTER: Final = 1


class H2ServerConnection(LeavingConnection):
    """One client."""

    scheme = b"http"
    identity_lines = b""
    is_believed = False
    _known: tuple[Field, ...] = ()

    def __init__(self, site: HttpSite, peer: str, arrival: Arrival | None = None) -> None:
        self.site = site
        self.peer = str(peer)  # the log takes plain text only
        self._entered = peer  # the listener knows by it on which count this is
        self.is_surplus = isinstance(peer, Surplus)
        if arrival is not None:
            self.arrival = arrival
            if arrival.is_secure:
                self.scheme = b"https"
            if site.asks_certificates:
                self.identity_lines = certificate_lines(arrival, True)
                self._known = fields_of(self.identity_lines, site.rules)
        self.trust = site.distrust if arrival is not None and arrival.is_nameless else site.trust
        if self.trust.believes(peer):
            self.is_believed = True
        self.codec = Codec(self, False, site.seconds, header_size=site.rules.header_size, is_bridging=True)
        #: requests that are not over, in the order in which they came
        self.requests = {}
        self._grace = Grace(self)

    # -- as the transport sees it

    @override
    def connectionMade(self) -> None:
        site = self.site
        site.connections.add(self)  # drains and cuts as one of HTTP/1
        site.on_open(self.transport.fileno())
        self._begin()

    def take_over(self, transport: Any, early: bytes) -> None:
        """A connection of HTTP/1 that has begun with our preface: it is ours from here on."""
        self.transport = transport
        self.connected = 1
        transport.protocol = self
        self.site.connections.add(self)
        self._begin()
        self.dataReceived(early)

    def _begin(self) -> None:
        self.transport.registerProducer(self, True)
        limit_unsent(self.transport, MOST_UNSENT)
        self._watch_idle()
        self.flush()
        if self.site.is_draining:
            self.drain()

    @override
    def dataReceived(self, data: bytes) -> None:
        self.site.books.bytes_in += len(data)
        if self.is_ending:
            self.drop(len(data))
            return
        self._is_feeding = True
        try:
            self.codec.feed(data)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        finally:
            self._is_feeding = False
        if self.is_lost or self.is_ending:
            return
        self.flush()
        self._watch()
        self._look_for_end()

    def _fail(self, fault: ConnectionFault, status: int = 400, reason: str = "bad_request") -> None:
        """GOAWAY; nothing more is read, and nothing that is under way can be answered."""
        if self.is_ending:
            return
        self._end_requests(reason)
        self._record(status, reason)
        self.site.refusals.add(self.peer, reason, fault)
        self.codec.fail(fault)
        self._end()

    def _record(self, status: int, reason: str) -> None:
        """What broke the protocol is counted and logged, as one request that could not be read."""
        StreamConnection(self, Stream(0, 0, 0), 0).record(unread([]), status, reason)

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """The client has finished sending: it will acknowledge nothing, and begin nothing; what is whole is answered."""
        self.has_finished = True
        if self.is_ending or not self.requests:
            self.lose()
            return
        self._is_leaving = 2
        for request in list(self.requests):
            if not request.stream.has_ended_in:
                self.reset_stream(request, wire.CANCEL, "client_closed")

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = self.is_ending = True
        site = self.site
        site.deadlines.forget(self)
        site.deadlines.forget(self._grace)
        site.connections.discard(self)
        site.on_close(self._entered)
        self._end_requests("client_closed")
        del self._grace  # it refers to us, as do all that hear of streams
        self._last = None, False, None, 0
        self.codec.sink = NOBODY

    def _end_requests(self, reason: str) -> None:
        for request in list(self.requests):
            request.reset(reason)
        self.requests.clear()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: the client reads too slowly
        self.is_stalled = self.codec.is_stalled = True
        self.watch_write()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: it reads on
        self.is_stalled = self.codec.is_stalled = False
        if self.is_ending:
            return
        if self._is_unread:
            self._is_unread = False
            self.transport.resumeProducing()
        self.deadline = NEVER
        self.codec.pump()
        self.flush()
        for request in list(self.requests):
            request.drained()
        self._watch()
        self._look_for_end()

    # -- deadlines

    def _watch(self) -> None:
        """Which deadline runs now?"""
        if self.is_ending or self.is_stalled:
            return
        deadlines = self.site.deadlines
        if self.codec.is_heading:
            if not self._is_heading or self._section != self.codec.sections:
                self._is_heading = True
                self._section = self.codec.sections
                self._section_due = deadlines.after(self.site.settings.timeouts.request_header)
            # Absolute: whatever else has had its deadline meanwhile.
            self.deadline = self._section_due
            if self.deadline < self.slot:
                deadlines.insert(self)
        elif self._is_heading or self.deadline == NEVER:
            self._is_heading = False
            if self.requests:
                self.deadline = NEVER
            else:
                self._watch_idle()

    @override
    def _watch_idle(self) -> None:
        patience = PATIENCE if self.is_surplus else self.site.settings.timeouts.keep_alive
        self.site.deadlines.watch(self, patience)

    @override
    def expired(self, now: float) -> None:
        if self.is_ending:
            self.end_overdue()
        elif self.is_stalled:
            if undelivered(self.transport) < self._left:
                self.watch_write()  # it reads, if slowly
            else:
                self.cut("client_timeout")
        elif self.is_surplus and not self.requests:
            self._fail(ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many connections"), 429, "rate_limited")
        elif self._is_heading:
            fault = ConnectionFault(wire.PROTOCOL_ERROR, "a header section that did not come in time")
            self._fail(fault, 408, "client_timeout")
        elif not self.requests:
            self._go()

    def _go(self) -> None:
        """Nothing is under way: say so, and end."""
        self.codec.go_away(True)
        self._end()

    # -- what the codec tells

    def headers(self, stream: Stream, fields: list[Pair] | None, ended: bool) -> None:
        """A request."""
        last, last_ended, head, size = self._last
        if last is not fields or last_ended is not ended or fields is None:
            size = sum(len(name) + len(value) + 4 for name, value in fields or ())
            head = None
        if not self.is_stalled:  # else `write` goes on: who reads nothing may not put that off by asking for more
            self.deadline = NEVER
        try:
            if head is None:
                head = self._read(fields, ended, size)
            kind = BridgedConnection if head.bridged else StreamConnection
            request = self._open(kind, stream, size)
            if self.is_surplus:
                raise ProtocolViolation(429, "", reason="rate_limited")
        except Malformed:
            self._open(StreamConnection, stream, size).unread = unread(fields or [])
            self.codec.fault(stream, wire.PROTOCOL_ERROR)
        except ProtocolViolation as violation:
            self._refuse(self._open(StreamConnection, stream, size), fields or [], violation)
        else:
            request.has_begun = True
            request.begin(head, ended)

    def _open(self, kind: type[StreamConnection], stream: Stream, size: int) -> StreamConnection:
        request = kind(self, stream, size)
        self.requests.pop(stream.owner, None)
        stream.owner = request
        self.requests[request] = None
        return request

    def _read(self, fields: list[Pair] | None, ended: bool, size: int) -> H2RequestHead:
        """The head that a header list is; it is remembered, since it is often met again."""
        if fields is None:
            if self.codec.crossed == b":path":
                raise ProtocolViolation(414, "a :path beyond limits.header_size", reason="too_large")
            raise ProtocolViolation(431, "a header section beyond limits.header_size", reason="too_large")
        most = self.site.rules.header_count + 5
        # However many the crumbs of a cookie are, they are one field (RFC 9113, 8.2.3).
        if len(fields) > most and sum([name != b"cookie" for name, _ in fields]) >= most:
            raise ProtocolViolation(431, "more fields than limits.header_count", reason="too_large")
        head = read_request(fields, ended, self.site.rules, True)
        if self._known:
            head.known = self._known
        if size <= REMEMBERED and not head.bridged:  # whose key is its own
            self._last = fields, ended, head, size
        return head

    def _refuse(self, request: StreamConnection, fields: list[Pair], violation: ProtocolViolation) -> None:
        """An answer to what is lawful as HTTP/2; one connection too many is refused, whatever it asks for, and ends."""
        if not self.is_surplus:
            request.refuse(unread(fields), violation.status, violation.reason, violation.detail)
            return
        self._is_leaving = 2
        request.refuse(unread(fields), 429, "rate_limited", "", RETRY_AFTER)
        self.codec.go_away(True)

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """More of a request."""
        stream.owner.data(data, ended)

    def trailers(self, stream: Stream, fields: list[Pair] | None) -> None:
        """A request's end."""
        try:
            if fields is None:
                raise Malformed("trailers beyond limits.header_size")
            lines = read_trailers(fields, self.site.rules)
        except (Malformed, ProtocolViolation):
            self.codec.fault(stream, wire.PROTOCOL_ERROR)
            return
        stream.owner.trailers(lines)

    def reset(self, stream: Stream, code: int, is_ours: bool) -> None:
        """A stream is over."""
        request = stream.owner
        if request is not None:
            self.requests.pop(request, None)
            if is_ours and request.exchange is None and not request.has_begun:
                request.record(request.unread or unread([]), 400, "bad_request")
            request.reset("bad_request" if is_ours else "client_closed")
            self._look_for_end()

    def drained(self, stream: Stream) -> None:
        """A client takes what was queued for a stream."""
        if stream.owner is not None:
            stream.owner.drained()

    def goaway(self, last: int, code: int) -> None:
        """The client begins no more."""
        self._is_leaving = 2
        self._look_for_end()

    def pong(self) -> None:
        """It has got the first GOAWAY."""
        self.leave()

    # -- what requests tell

    def stream_over(self, request: StreamConnection) -> None:
        """A request and its answer are over."""
        if self.requests.pop(request, request) is None:
            self.flush_soon()
            self._look_for_end()

    def reset_stream(self, request: StreamConnection, code: int, reason: str) -> None:
        """We give a stream up."""
        self.requests.pop(request, None)
        self.codec.reset(request.stream, code)
        request.reset(reason or "killed")
        self.flush_soon()
        self._look_for_end()

    # -- ends

    def cut(self, reason: str) -> None:
        """Now, whatever is under way. Who reads is told: GOAWAY, and for each stream that it has ended."""
        is_told = reason == "killed" and not (self.is_stalled or self.is_ending or self.is_lost)
        if is_told:
            for stream in list(self.codec.streams.values()):
                is_tunnel = isinstance(
                    stream.owner, BridgedConnection
                )  # where CANCEL stands for TCP's reset (RFC 8441, 5)
                self.codec.reset(stream, wire.CANCEL if is_tunnel else wire.INTERNAL_ERROR)
            self.codec.go_away(True)  # behind them: the h2 library looks at nothing that follows
        self._end_requests(reason)
        if is_told:
            self._end()
            return
        self.is_ending = True
        self.transport.abortConnection()


#: For annotations elsewhere.
__all__ = ["H2RequestHead", "H2ServerConnection"]
