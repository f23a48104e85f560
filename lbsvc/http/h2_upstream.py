"""One stream to a backend, in the place that a whole connection of HTTP/1 (client.py) has for an exchange.

Promises: what client.py promises of a connection, stream by stream: the exchange hears of every answer, and of the stream's
loss exactly once; nothing is left of a stream that is over. An answer to HEAD, a 204 and a 304 are told when their stream
has ended. Made by h2_pooling.py, begun by the exchange, told by h2_client.py.

Deadlines, one at a time, as of a connection: for the head of an answer, for silence in its body, for a backend that takes
nothing of what is queued for it, or none while the client stalls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbsvc.core.backend import Outcome
from lbsvc.errors import ProtocolViolation
from lbsvc.http import h2_frames as wire
from lbsvc.http.chunked import ChunkedReader
from lbsvc.http.client import RESPONSE_RULES
from lbsvc.http.fields import Rules
from lbsvc.http.h2_heads import Malformed, lines_to_fields, read_trailers
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.h2_streams import Stream
from lbsvc.http.messages import CHUNKED, UNSAID, UNTIL_CLOSE, ResponseHead
from lbsvc.net.deadlines import NEVER

if TYPE_CHECKING:
    from lbsvc.http.client import Asker
    from lbsvc.http.h2_client import H2Upstream

#: Bytes that wait for a backend: past the first its client is stopped, at the second it goes on.
HIGH: Final = 65536
LOW: Final = 16384
#: What a backend has reset a stream with that its client is told too, where it speaks HTTP/2; all else is INTERNAL_ERROR.
_PASSED_ON: Final = frozenset({wire.CANCEL, wire.ENHANCE_YOUR_CALM})
_NAMES: Final = {
    wire.NO_ERROR: "NO_ERROR",
    wire.PROTOCOL_ERROR: "PROTOCOL_ERROR",
    wire.INTERNAL_ERROR: "INTERNAL_ERROR",
    wire.FLOW_CONTROL_ERROR: "FLOW_CONTROL_ERROR",
    wire.STREAM_CLOSED: "STREAM_CLOSED",
    wire.REFUSED_STREAM: "REFUSED_STREAM",
    wire.CANCEL: "CANCEL",
    wire.ENHANCE_YOUR_CALM: "ENHANCE_YOUR_CALM",
    wire.HTTP_1_1_REQUIRED: "HTTP_1_1_REQUIRED",
}
#: For bodies of our own making.
_OURS: Final = Rules()


class UpstreamStream:
    """One request on a connection that others share."""

    is_multiplexed = True
    exchange: Asker | None
    deadline = NEVER
    slot = NEVER
    is_stalled = False  # the backend does not take what is queued
    has_head = False
    is_unseen = False  # the backend has certainly done nothing for it
    reset_code = wire.INTERNAL_ERROR  # what a client of HTTP/2 is told if the answer cannot be finished
    _stream: Stream | None = None
    _head: ResponseHead | None = None  # one that has come, and has not been told yet
    _is_bodyless = False
    _is_for_head = False
    _is_paused = False  # the client does not read
    _left = 0  # bytes that were queued when a stall was noticed
    _silence = NEVER

    def __init__(self, connection: H2Upstream) -> None:
        self.connection = connection
        self.exchange = None  # here, as in client.py
        self.owner = connection.owner
        self.backend = connection.backend
        self.codec = connection.codec

    # -- as the exchange sees it

    @property
    def transport(self) -> UpstreamStream:
        """What `unsent` (net/unsent.py) asks."""
        return self

    @property
    def queued(self) -> int:
        """Bytes that were given and have not been sent."""
        return self._stream.queued if self._stream is not None else 0

    def begin(self, exchange: Asker, start: bytes, lines: bytes, body: bytes, ended: bool, trailers: bytes) -> None:
        """Begin: `start` is a head of forwarding.py up to and with `X-Request-Id: `, `lines` its value and the rest."""
        connection = self.connection
        known, fields = connection._asked
        if known != start:
            fields = _request_fields(start, connection.scheme)
            connection._asked = start, fields
        number, _, more = lines.partition(b"\r\n")
        fields = [*fields, (b"x-request-id", number)]
        if more:
            fields += lines_to_fields(more)
        self.exchange = exchange
        self._is_for_head = fields[0][1] == b"HEAD"
        last = ended and not body and not trailers
        self._stream = stream = self.codec.begin(fields, last)
        stream.owner = self
        connection.begun()
        if last or not (body or ended):
            connection.flush_soon()
        else:
            self.send_body(body, ended, trailers)

    def send_head(
        self,
        exchange: Asker,
        wire_bytes: bytes,
        method: bytes,
        chunked: bool,
        upgrade: bool = False,
        content: bytes = b"",
    ) -> None:
        """Begin with a whole request as HTTP/1 would have it (mirroring.py)."""
        head, _, first = wire_bytes.partition(b"\r\n\r\n")
        content = first + content
        start, name, lines = head.rpartition(b"X-Request-Id: ")
        trailers = b""
        if b"\r\nTransfer-Encoding: chunked\r\n" in start:
            reader = ChunkedReader(_OURS)
            content = reader.feed(content)
            trailers = reader.trailers
        self.begin(exchange, start + name, lines, content, exchange.request_ended, trailers)

    def send_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the request."""
        stream = self._stream
        if stream is None:
            return
        self.codec.send_data(stream, body, ended, lines_to_fields(trailers) if trailers else None)
        if stream.queued > HIGH and not self.is_stalled:
            self.is_stalled = True
            if self.exchange is not None:
                self.exchange.pause_request()
            self._watch_again()
        self.connection.flush_soon()

    def await_head(self) -> None:
        """The last byte of the request has been sent: the answer is due."""
        deadlines = self.owner.deadlines
        self.deadline = deadline = deadlines.now + self.owner.response
        if deadline < self.slot:
            deadlines.insert(self)

    def await_body(self, silence: float) -> None:
        """A head has come and its body goes on: so long may it be silent."""
        self._silence = silence
        if not self._is_paused:
            self.owner.deadlines.watch(self, silence)

    def pause_answer(self) -> None:
        """The client does not read: the stream's window is not given back, and its silence is nobody's fault."""
        self._is_paused = True
        self.deadline = NEVER

    def resume_answer(self) -> None:
        """The client reads on."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self._stream is not None:
            self.codec.go_on(self._stream)
            self.connection.flush_soon()
            self._watch_again()

    def end(self, reusable: bool) -> None:
        """The exchange is over; what has not gone of its request is of no use."""
        self._finish(wire.NO_ERROR if reusable else wire.CANCEL)

    def cut(self) -> None:
        """In the middle of an exchange: the backend shall notice at once."""
        self._finish(wire.CANCEL)

    def leave(self) -> None:
        """No protocol is ever switched on a stream."""
        raise AssertionError("a stream is not to be left")

    def _finish(self, code: int) -> None:
        self.exchange = None
        self._head = None
        self.deadline = NEVER
        self.owner.deadlines.forget(self)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.owner = None
            self.codec.finish(stream, code)
            self.connection.flush_soon()
            self.connection.stream_over()

    # -- what the connection tells

    def headers(self, head: ResponseHead, ended: bool) -> None:
        """A head; raises Malformed for one that lies about its body."""
        exchange, stream = self.exchange, self._stream
        assert stream is not None
        if head.status < 200:
            if exchange is not None:
                exchange.interim(head)
            return
        self.has_head = True
        size = head.section.body
        self._is_bodyless = self._is_for_head or head.status in (204, 304)
        if self._is_bodyless:
            stream.left = 0
        elif size >= 0:
            stream.left = size
            if ended and size:
                raise Malformed("a Content-Length without content")
        self._head = head
        if ended:
            self.tell_head(b"", True)
        elif not self._is_bodyless:
            self.connection.heads.append(self)

    def tell_head(self, body: bytes = b"", ended: bool = False, trailers: bytes = b"") -> None:
        """The head that was held back, with what has come behind it."""
        head, self._head = self._head, None
        if head is not None and self.exchange is not None:
            self.exchange.response(head, body, ended, trailers)

    def data(self, data: bytes, ended: bool) -> None:
        """More of the answer."""
        stream = self._stream
        if stream is None:
            return
        if self._is_paused:
            self.codec.hold(stream, len(data))
        else:
            self.codec.consume(stream, len(data))
            if self._silence != NEVER and self.deadline != NEVER:
                self.deadline = self.owner.deadlines.after(self._silence)
        if self._head is not None:
            if ended or not self._is_bodyless:
                self.tell_head(data, ended)
        elif self.exchange is not None:
            self.exchange.response_body(data, ended, b"")

    def trailers(self, fields: list[Pair]) -> None:
        """The end of the answer."""
        try:
            lines = b"" if self._is_bodyless else read_trailers(fields, RESPONSE_RULES)
        except (Malformed, ProtocolViolation) as violation:
            self.fail(Outcome.PROTOCOL, str(violation), wire.PROTOCOL_ERROR)
            return
        if self._head is not None:
            self.tell_head(b"", True, lines)
        elif self.exchange is not None:
            self.exchange.response_body(b"", True, lines)

    def reset(self, code: int, is_ours: bool) -> None:
        """The stream is over."""
        exchange = self.exchange
        if is_ours:
            self.lost(Outcome.PROTOCOL, "a stream against the rules of HTTP/2")
            return
        if code == wire.HTTP_1_1_REQUIRED and not self.has_head:
            # It has not answered because of how it was asked: that is not "looked at", whatever the method.
            self.is_unseen = True
            if not self.connection.multiplexing.downgrade():
                self.lost(Outcome.PROTOCOL, "it wants HTTP/1.1, which is not spoken to it here")
                return
        elif code == wire.REFUSED_STREAM and not self.has_head:
            self.is_unseen = True
        elif exchange is not None:
            exchange.was_kept_connection = False  # the backend lives, and has looked at it: this was a try
            if code in _PASSED_ON:
                self.reset_code = code
        self.lost(self.connection.loss, f"the stream was reset with {_NAMES.get(code, 'another code')}")

    def lost(self, outcome: Outcome, detail: str) -> None:
        """Nothing more comes, and nothing can be sent."""
        exchange, self.exchange = self.exchange, None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.owner = None
        self._head = None
        self.owner.deadlines.forget(self)
        if exchange is not None:
            exchange.upstream_lost(self, outcome, detail)  # type: ignore[arg-type]  # it stands for a connection

    def fail(self, outcome: Outcome, detail: str, code: int) -> None:
        """We give the stream up because of its backend."""
        exchange = self.exchange
        self._finish(code)
        if exchange is not None:
            exchange.was_kept_connection = False
            exchange.upstream_lost(self, outcome, detail)  # type: ignore[arg-type]  # the same

    def drained(self) -> None:
        """The backend has taken some of what was queued."""
        if self.is_stalled and self.queued <= LOW:
            self.is_stalled = False
            if self.exchange is not None:
                self._watch_again()
                self.exchange.resume_request()

    def expired(self, now: float) -> None:
        """Its deadline has come."""
        if self.is_stalled and self.queued < self._left:
            self._watch_again()  # it reads, if slowly
        else:
            self.fail(Outcome.TIMEOUT, "silent for too long", wire.CANCEL)

    def _watch_again(self) -> None:
        """Something has stopped or goes on: which deadline runs now? None while the client is the one that stalls."""
        deadlines, timeouts = self.owner.deadlines, self.owner.settings.timeouts
        exchange = self.exchange
        if self.is_stalled:
            self._left = self.queued
            deadlines.watch(self, timeouts.idle)
        elif self._is_paused or exchange is None:
            self.deadline = NEVER
        elif self._silence != NEVER:
            deadlines.watch(self, self._silence)
        elif exchange.request_ended and not exchange.responded:
            deadlines.watch(self, timeouts.response)
        else:
            self.deadline = NEVER


def _request_fields(start: bytes, scheme: bytes) -> list[Pair]:
    """The head that forwarding.py makes, but for its last line, as HTTP/2 has it (RFC 9113, 8.2.2 and 8.3.1)."""
    line, _, rest = start.partition(b"\r\n")
    method, target, _ = line.split(b" ", 2)
    fields: list[Pair] = []
    authority = b""
    is_call = False
    for name, value in lines_to_fields(rest.rpartition(b"X-Request-Id:")[0]):
        if name == b"host":
            authority = value
        elif name not in (b"transfer-encoding", b"connection", b"upgrade"):
            fields.append((name, value))
            is_call = is_call or (name == b"content-type" and value.lower().startswith(b"application/grpc"))
    if is_call:
        fields.append((b"te", b"trailers"))  # some gRPC servers refuse calls without it, and we do take them
    return [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", target), *fields]


def settled_head(head: ResponseHead) -> ResponseHead:
    """A head of HTTP/2 as heads of HTTP/1 are: what is said of a body that cannot be there is not passed on."""
    section = head.section
    if head.status < 200 or head.status == 204:
        if section.body > 0 and head.status < 200:
            raise Malformed("a body length on an interim answer")
        if section.body != UNSAID:
            section.wire = b"".join([field[2] for field in section.fields])
        section.body = UNTIL_CLOSE
        phrase = head.wire.partition(b"\r\n")[0].split(b" ", 2)[2]
        return ResponseHead(head.status, phrase, 1, section)
    if section.body == UNSAID:
        section.body = CHUNKED
    return head
