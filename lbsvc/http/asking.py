"""A connection that requests are sent on, one at a time: each is told to be answered, or the connection to be lost.

Promises: its asker hears `connected` once, where it came to that; between `ask` and the next exactly one of `answered`,
`fail` and `lost`, unless it parted first; between requests `lost_idle` at most. An answer counts when it is whole. Called by
load.py, and by the transport; answers are read by the codec that backends' answers are read by.
"""

from __future__ import annotations

from typing import Any
from typing import Protocol as TypingProtocol

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.errors import ProtocolViolation
from lbsvc.http.client import RESPONSE_RULES
from lbsvc.http.h1_responses import ResponseReader
from lbsvc.http.messages import ResponseHead


class Asker(TypingProtocol):
    """Who asks."""

    def connected(self) -> None:
        """There is a connection; the first request is sent on it now."""

    def answered(self, status: int, backend: str | None, is_reusable: bool) -> None:
        """The answer is whole."""

    def receive(self, count: int) -> None:
        """So many bytes of a body have come."""

    def fail(self, kind: str) -> None:
        """What comes is no answer."""

    def lost(self, *, is_stale: bool) -> None:
        """The connection has ended before the answer; stale: a kept one, without a byte of the answer."""

    def lost_idle(self) -> None:
        """The connection may not be used any more; nothing was asked on it."""


class Asking(Protocol):
    """See the module docstring. The first request is sent as soon as there is a connection."""

    transport: Any

    def __init__(self, asker: Asker, request: bytes, method: bytes) -> None:
        self._asker: Asker | None = asker
        self._request = request
        self._method = method
        self._reader = ResponseReader(self, RESPONSE_RULES)
        self._is_asked = False
        self._has_heard = False  # of the answer that is awaited
        self._was_used = False
        self._is_lost = False
        self._head: ResponseHead | None = None

    @override
    def connectionMade(self) -> None:
        if self._asker is None:
            self.transport.abortConnection()
        else:
            self._asker.connected()
            self.ask()

    def ask(self) -> None:
        """Send the request."""
        self._is_asked = True
        self._has_heard = False
        self._reader.expect(self._method)
        self.transport.write(self._request)

    def part(self) -> None:
        """Nobody wants to hear of it any more."""
        self._asker = None
        if self.transport is None or self._is_lost:
            return
        if self._is_asked:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    @override
    def dataReceived(self, data: bytes) -> None:
        asker = self._asker
        if asker is None:
            return
        if not self._is_asked:  # nobody has asked for this
            self.part()
            asker.lost_idle()
            return
        self._has_heard = True
        head = self._reader.read_again(data)
        if head is not None:
            self.response(head, data[self._reader.head_size :], True, b"")
            return
        try:
            self._reader.feed(data)
        except ProtocolViolation as violation:
            asker.fail(f"{violation.reason}: {violation.detail}")

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        asker = self._asker
        if asker is None:
            return
        if not self._is_asked:
            self._asker = None
            asker.lost_idle()
        elif not (reason.check(ConnectionDone) and self._reader.eof()):
            self._asker = None
            asker.lost(is_stale=self._was_used and not self._has_heard)

    # What the reader tells

    def interim(self, head: ResponseHead) -> None:
        """100 and its like: the answer is still to come."""

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The answer's head, and the beginning of its body."""
        self._head = head
        self.response_body(body, ended, trailers)

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of its body."""
        asker, head = self._asker, self._head
        if asker is None or head is None:
            return
        asker.receive(len(body))
        if ended:
            self._head = None
            self._is_asked = False
            self._was_used = True
            name = head.section.get(b"x-backend")
            is_reusable = not (self._reader.surplus or self._is_lost)
            asker.answered(head.status, None if name is None else name.decode("utf-8", "replace"), is_reusable)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """Never: no switch of protocols was asked for."""
