"""A connection to a backend in the client's role of HTTP/1.1: writes requests, reads answers, watches the backend's silence.

Promises: at most one exchange at a time; the exchange hears of every answer, and of the connection's loss exactly once; a
connection on which anything was odd is closed, never kept. Called by pooling and the exchange. Deadlines are of one kind
at a time: for the head of an answer, for silence in its body, for idling, or none while the other side stalls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast
from typing import Protocol as TypingProtocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import classImplements

from lbsvc.core.backend import Backend, Outcome
from lbsvc.errors import ProtocolViolation
from lbsvc.http.chunked import encode_chunk, encode_end
from lbsvc.http.fields import Rules
from lbsvc.http.h1_responses import ResponseReader
from lbsvc.http.messages import ResponseHead
from lbsvc.net.deadlines import NEVER
from lbsvc.net.peeking import peek
from lbsvc.net.protocol import BareProtocol
from lbsvc.net.together import LIGHT
from lbsvc.net.unsent import undelivered, unsent

if TYPE_CHECKING:
    from lbsvc.http.pooling import Upstreams

#: What a backend may answer is bounded too; it is trusted more than a stranger.
RESPONSE_RULES: Final = Rules(header_size=256 * 1024, header_count=1000, request=False)
#: Stands where there is no connection yet, or no more: a reader refers back to it, and no garbage shall be left.
_NO_READER: Final = ResponseReader(cast(Any, None), RESPONSE_RULES)


class Asker(TypingProtocol):
    """Who asks a backend and hears its answer: an exchange, or a copy of one (mirroring.py)."""

    request_ended: bool
    responded: bool
    was_kept_connection: bool

    def interim(self, head: ResponseHead) -> None: ...
    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None: ...
    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None: ...
    def switched(self, upstream: UpstreamConnection, head: ResponseHead, rest: bytes) -> None: ...
    def upstream_lost(self, upstream: UpstreamConnection, outcome: Outcome, detail: str) -> None: ...
    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...


class UpstreamConnection(BareProtocol):
    """One connection to one backend."""

    exchange: Asker | None
    is_multiplexed = False  # as a stream of HTTP/2 is (h2_upstream.py)
    is_unseen = False  # that the backend has done nothing for a request is never certain
    reset_code = 2  # INTERNAL_ERROR: what a client of HTTP/2 is told of an answer that cannot be finished
    header = b""  # the PROXY header that it began with: it is that client's alone
    exchanges = 0
    deadline = NEVER
    slot = NEVER
    kept_in: int | None = -1  # the reactor's turn in which it was given back last
    dies = NEVER  # when its lifetime is over
    is_surplus = False  # as many others were idle when it was given back as are kept
    is_stalled = False  # the backend does not read what we send
    _left = 0  # bytes that it had not taken when that was noticed
    _is_paused = False  # we do not read what the backend sends
    _is_closed = False
    _chunked = False
    _silence = NEVER  # longest silence in this answer's body
    _reader = _NO_READER  # until it is connected

    def __init__(
        self,
        owner: Upstreams,
        backend: Backend,
        dialled: Callable[[UpstreamConnection], None],
        header: bytes = b"",
    ) -> None:
        self.owner = owner
        self.exchange = None  # mypyc forgets it on the class where a type is a Protocol's
        self.backend = backend
        #: it is kept as long as this is the backend's (pooling.py); -1: not at all
        self.era = -1 if backend.state == "maint" or backend.is_leaving else backend.era
        if header:
            self.header = header
        self._dialled: Callable[[UpstreamConnection], None] | None = dialled
        lifetime = owner.settings.connections.max_lifetime
        if lifetime is not None:
            self.dies = owner.seconds() + lifetime

    # -- as the pool sees it

    def has_ended(self) -> bool:
        """Whether the kernel holds the backend's end (or surplus bytes) already: one system call."""
        return peek(self.transport) is not None

    def close(self) -> None:
        """No longer wanted; nothing is in flight on it."""
        self._is_closed = True
        self.deadline = NEVER
        if unsent(self.transport):
            self.transport.abortConnection()  # what it does not read would keep the connection open
        else:
            self.transport.unregisterProducer()  # one that is paused would keep Twisted from closing
            self.transport.loseConnection()

    def cut(self) -> None:
        """In the middle of an exchange: the backend shall notice at once."""
        self.exchange = None
        self._is_closed = True
        self.deadline = NEVER
        self.transport.abortConnection()

    # -- as the exchange sees it

    def send_head(
        self, exchange: Asker, wire: bytes, method: bytes, chunked: bool, upgrade: bool = False, content: bytes = b""
    ) -> None:
        """Begin an exchange: `wire` is the head, `content` what is there of the body; `upgrade`: 101 may come."""
        self.exchange = exchange
        self._chunked = chunked
        self._reader.expect(method, upgrade)
        if exchange.request_ended and len(content) <= LIGHT:
            self.owner.write(self.transport, wire + content if content else wire)
        elif content:
            self.transport.writeSequence((wire, content))
        else:
            self.transport.write(wire)

    def send_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the request."""
        if self._chunked:
            body = encode_chunk(body) if body else b""
            if ended:
                body += encode_end(trailers)
        if body:
            self.transport.write(body)

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
        """The client does not read: nor do we, and the backend's silence is nobody's fault."""
        self._is_paused = True
        self.deadline = NEVER
        self.transport.pauseProducing()

    def resume_answer(self) -> None:
        if self._is_closed or not self._is_paused:
            return
        self._is_paused = False
        self.transport.resumeProducing()
        self._watch_again()

    def end(self, reusable: bool) -> None:
        """The exchange is over, cleanly for this connection or not."""
        self.exchange = None
        self._silence = NEVER
        self.deadline = NEVER
        if self._is_closed:
            return
        if self._is_paused:  # the answer's last bytes were more than the client took at once
            self._is_paused = False
            self.transport.resumeProducing()
        if reusable and not self._reader.surplus and not self.is_stalled:
            self.owner.give_back(self)
        else:
            self.close()

    # -- what the reader tells

    def interim(self, head: ResponseHead) -> None:
        if self.exchange is not None:
            self.exchange.interim(head)

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        if self.exchange is not None:
            self.exchange.response(head, body, ended, trailers)

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        if self._silence != NEVER and self.deadline != NEVER:
            self.deadline = self.owner.deadlines.after(self._silence)
        if self.exchange is not None:
            self.exchange.response_body(body, ended, trailers)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """101: what follows is not HTTP."""
        if self.exchange is not None:
            self.exchange.switched(self, head, rest)

    def leave(self) -> None:
        """The transport is another's now."""
        self.exchange = None
        self._is_closed = True
        self.owner.deadlines.forget(self)
        self._reader = _NO_READER
        self.transport.unregisterProducer()

    # -- as the transport sees it

    @override
    def connectionMade(self) -> None:
        self.backend.connections += 1
        self._reader = ResponseReader(self, RESPONSE_RULES)
        self.transport.registerProducer(self, True)
        dialled, self._dialled = self._dialled, None
        if dialled is not None:
            dialled(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self.exchange is None:
            self._forget()
            self.close()  # bytes that belong to no exchange: it is never used again
            return
        reader = self._reader
        head = reader.read_again(data)
        if head is not None:
            self.exchange.response(head, data[reader.head_size :], True, b"")
            return
        try:
            reader.feed(data)
        except ProtocolViolation as violation:
            self._fail(Outcome.PROTOCOL, violation.detail)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.backend.connections -= 1
        self._is_closed = True
        self.owner.deadlines.forget(self)
        reader, self._reader = self._reader, _NO_READER
        if self.exchange is None:
            self._forget()
        elif not (reason.check(ConnectionDone) and reader.eof()):
            self._broke_off(reader)

    def _broke_off(self, reader: ResponseReader) -> None:
        """It is lost, and its answer, if one is due, is not whole."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            if reader.has_begun:
                exchange.was_kept_connection = False  # it had begun to answer: this was a try
            exchange.upstream_lost(self, Outcome.RESET, "the connection was lost")

    def expired(self, now: float) -> None:
        if self.exchange is None:
            if not self.owner.keeps(self):
                self._forget()
                self.close()
        elif self.is_stalled and undelivered(self.transport) < self._left:
            self._watch_again()  # it reads, if slowly
        else:
            self._fail(Outcome.TIMEOUT, "silent for too long")

    def _fail(self, outcome: Outcome, detail: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.cut()
        if exchange is not None:
            exchange.upstream_lost(self, outcome, detail)

    def _forget(self) -> None:
        if self in self.backend.idle:
            self.backend.idle.remove(self)

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: the backend reads too slowly
        self.is_stalled = True
        if self.exchange is not None:
            self.exchange.pause_request()
            self._watch_again()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: the backend reads on
        self.is_stalled = False
        if self.exchange is not None:
            self._watch_again()
            self.exchange.resume_request()

    def _watch_again(self) -> None:
        """Something has stopped or goes on: which deadline runs now? None while the client is the one that stalls."""
        deadlines, timeouts = self.owner.deadlines, self.owner.settings.timeouts
        exchange = self.exchange
        if self.is_stalled:
            self._left = undelivered(self.transport)
            deadlines.watch(self, timeouts.idle)
        elif self._is_paused or exchange is None:
            self.deadline = NEVER
        elif self._silence != NEVER:
            deadlines.watch(self, self._silence)
        elif exchange.request_ended and not exchange.responded:
            deadlines.watch(self, timeouts.response)
        else:
            self.deadline = NEVER

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost; connectionLost follows and knows what to do."""


classImplements(UpstreamConnection, IPushProducer)
