"""A connection to a backend in the client's role of HTTP/2: many streams, each in the place of a connection for an exchange.

Promises: a connection is open once the backend's SETTINGS have come, so that whoever does not speak HTTP/2 is a failed
connect, and so that no more streams are begun than it allows; what the backend has certainly not looked at (REFUSED_STREAM,
beyond the last stream of a GOAWAY) is told as `is_unseen`; a slow client stops its own stream and nobody else's, since the
connection's window is given back at once and only the stream's is held. Made by h2_pooling.py.

A connection on which we have reset many streams is left before its backend ends it (h2_client_codec.py). One that ends all
the same with ENHANCE_YOUR_CALM is lost like any other, but no failure of the backend's: our clients have brought it about.

Signs of life: after SILENCE seconds without any byte one PING is sent, once for each silence (gRPC servers count more than
two without need as abuse). If nothing comes for PATIENCE seconds the connection gets no new stream until it says something;
one that idles is closed. Streams under way have deadlines of their own: a backend that is busy need not answer PINGs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import classImplements

from lbsvc.core.backend import Backend, Outcome
from lbsvc.errors import ProtocolViolation
from lbsvc.http import h2_frames as wire
from lbsvc.http.client import RESPONSE_RULES
from lbsvc.http.h2_client_codec import ClientCodec
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_heads import Malformed, read_response
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.h2_streams import Stream
from lbsvc.http.h2_upstream import UpstreamStream, settled_head
from lbsvc.http.messages import ResponseHead
from lbsvc.net.deadlines import NEVER
from lbsvc.net.peeking import peek
from lbsvc.net.protocol import BareProtocol

if TYPE_CHECKING:
    from lbsvc.http.h2_pooling import Opening
    from lbsvc.http.pooling import Upstreams

#: Seconds without a byte until a PING is sent, and then until the connection is doubted.
SILENCE: Final = 15.0
PATIENCE: Final = 5.0
#: Streams on one connection, whatever the backend allows: past that another one is dialled.
MOST_STREAMS: Final = 256


class H2Upstream(BareProtocol):
    """One connection to one backend."""

    exchanges = 0
    deadline = NEVER
    slot = NEVER
    dies = NEVER  # when its lifetime is over
    is_stalled = False  # the backend does not read what we send
    is_closed = False
    is_calmed = False  # the backend has had enough of resets of ours
    is_doubtful = False  # it has not answered a PING
    _is_pinged = False  # in this silence
    _is_feeding = False
    _is_flushing = False
    _heard_at = 0.0
    _idle_since = 0.0
    _last: tuple[Any, bool, Any] = (None, False, None)  # the last header list of an answer, and what it meant
    _asked: tuple[bytes, list[Pair]]  # the last head that was asked with, as fields

    def __init__(self, owner: Upstreams, backend: Backend, opening: Opening, header: bytes, scheme: bytes) -> None:
        self.owner = owner
        self.backend = backend
        self._asked = b"", []
        self.header = header  # the PROXY header that it began with: it is that client's alone
        self.scheme = scheme
        self.opening: Opening | None = opening
        #: where it stands, whatever the backend has by now
        self.multiplexing = opening.multiplexing
        #: as that of a connection of HTTP/1.1
        self.era = -1 if backend.state == "maint" or backend.is_leaving else backend.era
        self.codec = ClientCodec(self, owner.seconds)
        #: streams whose head has come, and is held back until the end of this read: its body may be here too
        self.heads: list[UpstreamStream] = []
        lifetime = owner.settings.connections.max_lifetime
        if lifetime is not None:
            self.dies = owner.seconds() + lifetime

    # -- as the pool sees it

    @property
    def room(self) -> int:
        """How many more streams may be begun now."""
        codec = self.codec
        if self.opening is not None or self.is_closed or self.is_doubtful or self.is_stalled or not codec.has_room:
            return 0
        if self.dies <= self.owner.deadlines.now:
            return 0
        room = min(codec.allowed_streams, MOST_STREAMS) - len(codec.streams)
        most = self.owner.keep.max_requests
        return max(room if most is None else min(room, most - self.exchanges), 0)

    def has_ended(self) -> bool:
        """Whether the kernel holds the backend's end already: one system call."""
        return peek(self.transport) == b""

    def close(self) -> None:
        """No longer wanted, and nothing is in flight on it."""
        if self.is_closed:
            return
        self._leave()
        self.codec.go_away(True)
        self.transport.unregisterProducer()
        self._write()
        self.transport.loseConnection()
        self.owner.deadlines.watch(self, PATIENCE)  # what it does not read would keep the connection open

    def cut(self) -> None:
        """Now, whatever it holds."""
        self._leave()
        self.transport.abortConnection()

    def _leave(self) -> None:
        self.is_closed = True
        self.deadline = NEVER
        self.multiplexing.forget(self)

    # -- as streams see it

    def flush_soon(self) -> None:
        """At the end of what is being done."""
        if not self._is_feeding and not self._is_flushing:
            self._is_flushing = True
            self.owner.soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_flushing = False
        self._flush()

    def _flush(self) -> None:
        if not self.is_closed:
            self._write()

    def _write(self) -> None:
        codec = self.codec
        codec.written = codec.last_out
        while codec.out:
            self.transport.write(codec.take())
            if self.is_stalled:
                return
            codec.pump()

    def begun(self) -> None:
        """A stream has begun."""
        self.exchanges += 1
        if self.deadline == NEVER:
            self._watch()

    def stream_over(self) -> None:
        """One has ended: it may have been the last."""
        codec = self.codec
        self.multiplexing.freed(self)
        if codec.streams or self.is_closed:
            return
        owner = self.owner
        kept = owner.keep
        if (
            codec.is_going
            or self.is_doubtful
            or owner.is_closing
            or self.era != self.backend.era
            or self.dies <= owner.deadlines.now
            or (kept.max_requests is not None and self.exchanges >= kept.max_requests)
            or self.multiplexing.idle > kept.keep_alive
        ):
            self.close()
            return
        self._idle_since = owner.deadlines.now
        self._watch()

    def head_of(self, fields: list[Pair], ended: bool) -> ResponseHead:
        """What a header list means; one like the one before it is not judged again. Raises Malformed, ProtocolViolation."""
        last, last_ended, head = self._last
        if last is not fields or last_ended is not ended:
            if len(fields) > RESPONSE_RULES.header_count:
                raise ProtocolViolation(502, "too many fields", reason="upstream_protocol", blame="upstream")
            head = settled_head(read_response(fields, ended, RESPONSE_RULES))
            self._last = fields, ended, head
        found: ResponseHead = head
        return found

    # -- deadlines

    def _watch(self) -> None:
        deadlines = self.owner.deadlines
        due = self._heard_at + (SILENCE + PATIENCE if self._is_pinged else SILENCE)
        if not self.codec.streams:
            due = min(due, self._idle_since + self.owner.keep.idle_timeout, self.dies)
        elif self.is_doubtful:
            return
        deadlines.watch(self, max(due - deadlines.now, 0.0))

    def look_again(self) -> None:
        """A reload: idling has other limits."""
        lifetime = self.owner.settings.connections.max_lifetime
        if lifetime is not None:
            self.dies = min(self.dies, self.owner.deadlines.now + lifetime)
        self._watch()

    def expired(self, now: float) -> None:
        """Silence, or a life that is over."""
        if self.is_closed:
            self.transport.abortConnection()
        elif self.opening is not None:
            self._fail(Outcome.CONNECT_TIMEOUT, "no HTTP/2 settings within the time")
        elif not self.codec.streams and (
            self._idle_since + self.owner.keep.idle_timeout <= now or self.dies <= now or self.owner.is_closing
        ):
            self.close()
        elif self._is_pinged and self._heard_at + SILENCE + PATIENCE <= now:
            self.is_doubtful = True
            if not self.codec.streams:
                self.cut()
        else:
            if not self._is_pinged and self._heard_at + SILENCE <= now:
                self._is_pinged = True
                self.codec.ping()
                self._flush()
            self._watch()

    # -- as the transport sees it

    @override
    def connectionMade(self) -> None:
        self.backend.connections += 1
        self.transport.registerProducer(self, True)
        self._heard_at = self.owner.deadlines.now
        self.owner.deadlines.watch(self, self.owner.settings.timeouts.connect)
        self._write()

    @override
    def dataReceived(self, data: bytes) -> None:
        if self.is_closed:
            return
        codec = self.codec
        self._heard_at = self.owner.deadlines.now
        if self._is_pinged:
            self._is_pinged = self.is_doubtful = False
            self._watch()
        self._is_feeding = True
        try:
            codec.feed(data)
        except ConnectionFault as fault:
            codec.fail(fault)
            self._write()
            self._fail(Outcome.PROTOCOL, fault.detail)
            return
        finally:
            self._is_feeding = False
        opening = self.opening
        if opening is not None and codec.is_greeted:
            self.opening = None
            self._idle_since = self._heard_at
            self._watch()
            opening.opened(self)
        if self.heads:
            heads, self.heads = self.heads, []
            for stream in heads:
                stream.tell_head()
        if codec.is_going and not codec.streams:
            self.close()
        self._flush()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.backend.connections -= 1
        self._end(self.loss, "the connection was lost")
        self.owner.deadlines.forget(self)

    @property
    def loss(self) -> Outcome:
        """What it is to lose a stream, or all, to the backend. ABANDONED: a loss that is not counted against it."""
        return Outcome.ABANDONED if self.is_calmed else Outcome.RESET

    def _fail(self, outcome: Outcome, detail: str) -> None:
        self.cut()
        self._end(outcome, detail)

    def _end(self, outcome: Outcome, detail: str) -> None:
        """Nothing more will come: whoever waits is told."""
        self._leave()
        opening, self.opening = self.opening, None
        self.heads = []
        codec = self.codec
        streams = list(codec.streams.values())
        codec.streams.clear()
        codec.out = []
        for stream in streams:
            stream.is_over = True
            if stream.owner is not None:
                stream.owner.lost(outcome, detail)
        codec.sink = _NOBODY
        if opening is not None:
            if outcome is not Outcome.CONNECT_TIMEOUT:
                outcome, detail = Outcome.CONNECT_FAILED, f"does not speak HTTP/2 ({detail})"
            opening.failed(outcome, detail)

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: the backend reads too slowly
        self.is_stalled = self.codec.is_stalled = True

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: the backend reads on
        self.is_stalled = self.codec.is_stalled = False
        if not self.is_closed:
            self.codec.pump()
            self._flush()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost; connectionLost follows and knows what to do."""

    # -- what the codec tells

    def headers(self, stream: Stream, fields: list[Pair] | None, ended: bool) -> None:
        """An answer's head, or an interim one."""
        owner: UpstreamStream = stream.owner
        try:
            if fields is None:
                raise Malformed("a header section that is too large")
            owner.headers(self.head_of(fields, ended), ended)
        except (Malformed, ProtocolViolation) as violation:
            detail = violation.detail if isinstance(violation, ProtocolViolation) else str(violation)
            owner.fail(Outcome.PROTOCOL, detail, wire.PROTOCOL_ERROR)

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """More of an answer."""
        stream.owner.data(data, ended)

    def trailers(self, stream: Stream, fields: list[Pair] | None) -> None:
        """The end of an answer."""
        stream.owner.trailers(fields or [])

    def reset(self, stream: Stream, code: int, is_ours: bool) -> None:
        """A stream is over: the backend does not want it, or has broken its rules."""
        if stream.owner is not None:
            stream.owner.reset(code, is_ours)
        self.stream_over()

    def drained(self, stream: Stream) -> None:
        """Some of a stream's queue has gone."""
        if stream.owner is not None:
            stream.owner.drained()

    def goaway(self, last: int, code: int) -> None:
        """It takes no more streams, and has not looked at those beyond `last`."""
        self.multiplexing.forget(self)
        if code == wire.HTTP_1_1_REQUIRED:
            self.multiplexing.downgrade()
        elif code == wire.ENHANCE_YOUR_CALM and self.codec.resets_sent:
            self.is_calmed = True
        unseen = code if code == wire.HTTP_1_1_REQUIRED else wire.REFUSED_STREAM
        for stream in [each for each in self.codec.streams.values() if each.id > last]:
            self.codec.drop(stream)
            if stream.owner is not None:
                stream.owner.reset(unseen, False)

    def pong(self) -> None:
        """A sign of life, as every byte is."""


class _Nobody:
    """Hears what a codec tells whose connection is lost."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


_NOBODY: Final[Any] = _Nobody()


classImplements(H2Upstream, IPushProducer)
