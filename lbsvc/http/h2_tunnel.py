"""WebSocket over one stream of HTTP/2 (RFC 8441): an extended CONNECT, bridged to an upgrade of HTTP/1.1 at the backend.

Promises: the backend is asked as by a client of HTTP/1.1, with a Sec-WebSocket-Key of ours, new for each stream; only a 101
with the Sec-WebSocket-Accept that belongs to it opens the tunnel, and nothing else is told to the client as success, since
for an extended CONNECT every 2xx is. From then on the stream is a transport (`Channel`) of net/carrying.py, as a socket
is: END_STREAM is FIN, and RST_STREAM with CANCEL is a reset (RFC 8441, 5), both ways; a stream that is not read stops
its own backend, and a backend that does not read stops its own stream. What a client sends before the answer waits here, at
most the stream's window of it. What the backend says and the client does not take waits no longer than an answer would:
`write`, or less where the client holds many (h2_holding.py). Made by h2_server.py. A client's HTTP/2 ends here: backends of
HTTP/2 are not asked.

Routed as the upgrade that it stands for, a GET; logged and counted as what its client has said and heard: CONNECT, and 200.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.core.backend import Outcome
from lbsvc.errors import ProtocolViolation
from lbsvc.http import h2_frames as wire
from lbsvc.http.client import UpstreamConnection
from lbsvc.http.exchange import Exchange
from lbsvc.http.fields import PLAIN
from lbsvc.http.h2_heads import answer_fields
from lbsvc.http.h2_requests import HIGH, LOW, StreamConnection
from lbsvc.http.h2_streams import prioritize
from lbsvc.http.messages import RequestHead, ResponseHead
from lbsvc.http.tunnel import Tunnel
from lbsvc.net.deadlines import NEVER

#: What a key is hashed with (RFC 6455, 1.3).
_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ACCEPT: Final = b"sec-websocket-accept"


def accept_of(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept of whoever has read this key (RFC 6455, 4.2.2)."""
    return b64encode(sha1(key + _MAGIC, usedforsecurity=False).digest())


def add_key(head: RequestHead, bits: Callable[[int], int]) -> bytes:
    """Put a new key into a head that nobody has seen yet; gives it."""
    key = b64encode(bits(128).to_bytes(16, "big"))
    line = b"Sec-WebSocket-Key: %b\r\n" % key
    section = head.section
    section.fields.append((b"sec-websocket-key", key, line, PLAIN))
    section.wire += line
    return key


class StreamLost(ConnectionLost):
    """A stream has ended before its time; `word` is the reason for the log."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class BridgedExchange(Exchange):
    """An exchange whose client has asked by extended CONNECT."""

    nonce = b""  # the Sec-WebSocket-Key that its backend gets

    @override
    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        if 200 <= head.status < 300:
            self.let_go(Outcome.PROTOCOL)
            self.refuse(502, Outcome.PROTOCOL.reason, "a websocket was asked for, and the backend did not switch")
            return
        super().response(head, body, ended, trailers)

    @override
    def answer(self, head: ResponseHead, body: bytes) -> None:
        if 200 <= head.status < 300:
            self.refuse(501, "bad_request", "what is here is no websocket")
            return
        super().answer(head, body)

    @override
    def switched(self, upstream: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
        if head.section.get(_ACCEPT) != accept_of(self.nonce):
            raise ProtocolViolation(
                502, "a 101 to another Sec-WebSocket-Key", reason="upstream_protocol", blame="upstream"
            )
        super().switched(upstream, head, rest)

    @override
    def join(self, upstream: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
        StreamTunnel(self, upstream, head, rest)

    @override
    def settle(self, now: float) -> None:
        self.head = head = self.head.copy()
        head.method = b"CONNECT"
        if self.status == 101:
            self.status = 200
        super().settle(now)


class StreamTunnel(Tunnel):
    """A client's stream and a backend's connection."""

    @override
    def count(self) -> None:
        # What comes in is on the books already, with the frames that it came in.
        self.collect()
        self.site.books.bytes_out += self.bytes_out - self.counted[1]
        self.counted = (self.bytes_in, self.bytes_out)

    @override
    def downstream_lost(self, reason: Failure) -> None:
        # Unlike Carrier's: the connection that was accepted goes on, or its owner counts its end.
        if not self.is_over:
            word = reason.value.word if isinstance(reason.value, StreamLost) else "ok"
            killed = word == "killed"
            outcome = Outcome.ABANDONED if killed else Outcome.CLIENT_GONE
            self.finish(word, outcome, abort=killed or not self.downstream.has_finished)
        if self.upstream is None or self.upstream.transport is None:
            self._gone()


class BridgedConnection(StreamConnection):
    """The stream of an extended CONNECT, before and after its tunnel is there."""

    channel: Channel | None = None
    #: what has come before the tunnel was there; its window is not given back
    _early: bytearray | None = None

    @property
    @override
    def transport(self) -> Any:
        """From the switch on the stream is one itself."""
        return self.channel or self.owner.transport

    @override
    def begin(self, head: RequestHead, ended: bool) -> None:
        priority = head.section.get(b"priority")
        if priority is not None:
            prioritize(self.stream, priority)
        self.has_finished = ended
        self.has_begun = True
        self.exchange = exchange = BridgedExchange(self, head, self.site.seconds())
        exchange.nonce = add_key(head, self.site.ids.bits)
        exchange.start(b"", True, b"")

    @override
    def data(self, data: bytes, ended: bool) -> None:
        if self.channel is not None:
            self.channel.data(data, ended)
            return
        self._received += len(data)
        self.has_finished = ended
        if self.exchange is None or self.exchange.is_over:
            self._drop(len(data), ended)
        elif self._early is None:
            self._early = bytearray(data)
        else:
            self._early += data

    @override
    def trailers(self, lines: bytes) -> None:
        # RFC 9113, 8.5: none but DATA and what manages streams.
        self.codec.fault(self.stream, wire.PROTOCOL_ERROR)

    @override
    def drained(self) -> None:
        if self.channel is None:
            super().drained()
            return
        self._has_moved = True
        if self._is_watching and not self.stream.queued:
            self._is_watching = False
            self.deadline = NEVER
        self.channel.drained()

    @override
    def reset(self, reason: str) -> None:
        channel = self.channel
        if channel is None:
            self._take_early()
            super().reset(reason)
            return
        self._let_go()
        channel.lose(StreamLost(reason))

    @override
    def _answered(self) -> None:
        self._take_early()
        super()._answered()

    @override
    def cut_response(self, exchange: Exchange) -> None:
        self._take_early()
        super().cut_response(exchange)

    def _take_early(self) -> bytes:
        """What has come; the client may send as much again."""
        early, self._early = self._early, None
        if not early:
            return b""
        self.codec.consume(self.stream, len(early))
        self.owner.flush_soon()
        return bytes(early)

    # -- what the tunnel asks for

    def send_switch(self, exchange: Exchange, head: ResponseHead) -> None:
        """The backend's 101, as the 200 that it means here."""
        self.channel = Channel(self)
        fields = [field for field in answer_fields(head) if field[0] not in (b":status", _ACCEPT)]
        fields.insert(0, (b":status", b"200"))
        if not head.section.has_date:
            fields.append((b"date", self.site.date_line()[6:-2]))
        lease = exchange.lease
        if lease is not None and self.site.settings.expose_backend:
            fields.append((b"x-backend", lease.backend.name.encode("ascii", "replace")))
        fields.append((b"x-request-id", exchange.id))
        self._send_head(exchange, fields, False)

    def leave(self) -> bytes:
        """The tunnel takes over; gives what has come for it already."""
        if not self._is_watching:  # what came behind the 101 may wait for the client already
            self.site.deadlines.forget(self)
        self.exchange = None
        return self._take_early()


class Channel:
    """A stream as a transport: what net/carrying.py and net/sides.py ask of one."""

    protocol: Any = None
    _producer: Any = None
    _is_paused = True  # until whoever carries it has begun
    _is_closing = False  # nothing more is written; what comes is dropped
    _is_over = False
    _end: Exception | None = None  # what its protocol is about to be told
    _held = 0  # bytes that have come while paused

    def __init__(self, connection: BridgedConnection) -> None:
        self.connection = connection
        self.stream = connection.stream
        self.codec = connection.codec

    @property
    def queued(self) -> int:
        """Bytes that the client's windows, or its connection, have not taken (net/unsent.py)."""
        return self.stream.queued

    def write(self, data: bytes) -> None:
        """To the client, as its windows allow."""
        if self._is_closing or self._is_over:
            return
        stream, connection = self.stream, self.connection
        self.codec.send_data(stream, data, False)
        connection.owner.flush_soon()
        if stream.queued and not connection._is_watching:
            connection._watch_write()
        if stream.queued > HIGH and not connection.is_stalled:
            connection.is_stalled = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802 - Twisted's name
        """Whose source is to be stopped while the client does not read."""
        self._producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802 - Twisted's name
        """Nobody's."""
        self._producer = None

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: the backend does not read
        self._is_paused = True

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: it reads on
        if not self._is_over:
            self._is_paused = False
            self._give_back()

    def loseWriteConnection(self) -> None:  # noqa: N802 - Twisted's name
        """END_STREAM, behind all that is queued; the client may go on."""
        if not self._is_over:
            self.codec.send_data(self.stream, b"", True)
            self.connection.owner.flush_soon()

    def loseConnection(self) -> None:  # noqa: N802 - Twisted's name
        """The same, and then the end."""
        if self._is_closing or self._is_over:
            return
        self._is_closing = True
        self._give_back()
        self.loseWriteConnection()
        self._look_for_end()

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's name
        """A reset."""
        if self._is_over or self._end is not None:
            return
        self._is_closing = True
        self._give_back()
        self.codec.reset(self.stream, wire.CANCEL)
        self._end_soon(ConnectionLost())

    def _give_back(self) -> None:
        held, self._held = self._held, 0
        if held:
            self.codec.consume(self.stream, held)
            self.connection.owner.flush_soon()

    def _look_for_end(self) -> None:
        """Has all been sent of a stream that is to be closed?"""
        stream = self.stream
        if self._is_closing and stream.has_ended_out and self._end is None:
            if not stream.has_ended_in:
                self.codec.reset(stream, wire.NO_ERROR)  # the client shall not go on
            self._end_soon(ConnectionDone())

    def _end_soon(self, end: Exception) -> None:
        """Transports do not tell of their end before whoever ends them has returned."""
        self._end = end
        self.connection.owner.flush_soon()
        self.connection.site.soon(self._tell)

    def _tell(self) -> None:
        if not self._is_over and self._end is not None:
            connection = self.connection
            connection._let_go()
            self.lose(self._end)
            connection.owner.stream_over(connection)

    # -- what the connection tells

    def data(self, data: bytes, ended: bool) -> None:
        """From the client."""
        size = len(data)
        if self._is_closing or self._is_over:
            self.codec.consume(self.stream, size)
            return
        self._held += size
        if ended or not self._is_paused:
            self._give_back()
        if data:
            self.protocol.dataReceived(data)
        if ended and not self._is_closing:
            self.protocol.readConnectionLost()

    def drained(self) -> None:
        """The client has taken some of what was queued."""
        connection = self.connection
        if connection.is_stalled and self.stream.queued <= LOW:
            connection.is_stalled = False
            if self._producer is not None:
                self._producer.resumeProducing()
        self._look_for_end()

    def lose(self, end: Exception) -> None:
        """It is over."""
        if self._is_over:
            return
        self._is_over = True
        self._give_back()
        connection, protocol = self.connection, self.protocol
        connection.channel = self._producer = self.protocol = None
        protocol.connectionLost(Failure(end))
