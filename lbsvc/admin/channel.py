"""The admin listener's HTTP: twisted.web with the bounds that it lacks.

Promises: a request's body over `BODY_LIMIT` (`TEXT_LIMIT` for a configuration) is answered 413 before it is read, a chunked
one as soon as it passes the limit; a request has `REQUEST_TIMEOUT` from its first byte to its last, whatever its bytes do;
an idle connection has `IDLE_TIMEOUT`, and so has a client to take the end of an answer; no more than `MAX_CONNECTIONS` at
one time: past them the one that has been without a request for longest makes room, first those that never had one, never
one that is being answered. What is no request is answered as a problem, and nothing of it is obeyed; of requests sent
together one is answered in each turn of the reactor. twisted.web by itself buffers bodies of any size, restarts its only
timer with each byte, resets connections whose request it did not read to the end, and obeys a request of which it has
refused a header. Used by admin/site.py. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final, cast

from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from typing_extensions import override
from zope.interface import implementer

BODY_LIMIT: Final = 64 * 1024
TEXT_LIMIT: Final = 1024 * 1024
IDLE_TIMEOUT: Final = 30.0
REQUEST_TIMEOUT: Final = 30.0
MAX_CONNECTIONS: Final = 256

#: How long a client may go on sending after it was refused, so that the answer is not lost to a reset.
_LINGER: Final = 2.0

PROBLEM_TYPE: Final = b"application/problem+json"

#: Among a refusal's headers: the connection has had enough, too.
CLOSE: Final = (b"Connection", b"close")

#: Whose body is a configuration.
CHECK_PATH: Final = b"/api/v1/config/check"

_ABSOLUTE: Final = re.compile(rb"http://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)

#: RFC 9110's names of statuses that http.HTTPStatus has under older ones.
_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}


def problem(status: int, detail: str, **more: object) -> bytes:
    """An error body (RFC 9457); `more` are members beside its own."""
    members = {"type": "about:blank", "title": _title(status), "status": status, "detail": detail, **more}
    return json.dumps(members).encode()


def _title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of a target in absolute form (RFC 9112, 3.2.2), None where it has another, and the rest of it."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None, target
    return match[1], match[2] if match[2].startswith(b"/") else b"/" + match[2]


@implementer(IHalfCloseableProtocol)
class AdminChannel(HTTPChannel):
    """One connection to the admin listener."""

    site: AdminSite
    totalHeadersSize = 16 * 1024  # noqa: N815 - Twisted's names
    maxHeaders = 100  # noqa: N815
    abortTimeout = 2  # noqa: N815

    _deadline: IDelayedCall | None = None
    _turn: IDelayedCall | None = None
    _refused = False
    _received = 0
    _limit = BODY_LIMIT

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None and not self._handlingRequest:
            self._deadline = self.callLater(REQUEST_TIMEOUT, self._too_slow)
        super().dataReceived(data)

    @override
    def lineReceived(self, line: bytes) -> None:
        if not self._refused:
            super().lineReceived(line)

    @override
    def lineLengthExceeded(self, line: bytes) -> None:
        if hasattr(self, "_command"):
            self.refuse(431, "a line of the head is too long")
        else:
            self.refuse(414, "the request line is too long")

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's name
        self.refuse(400, "this cannot be read as a request")

    @override
    def allHeadersReceived(self) -> None:
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"Transfer-Encoding", [])
        self._limit = TEXT_LIMIT if split_target(self._path)[1].partition(b"?")[0] == CHECK_PATH else BODY_LIMIT
        if codings and (self._version != b"HTTP/1.1" or [each.lower() for each in codings] != [b"chunked"]):
            # One of those who read it another way may stand between us and the client (RFC 9112, 6.1).
            self.refuse(400, "Transfer-Encoding must be there once, be chunked, and be in HTTP/1.1")
        elif self.length is not None and self.length > self._limit:
            self._refuse_body()
        else:
            self._received = 0
            super().allHeadersReceived()

    @override
    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    @override
    def allContentReceived(self) -> None:
        if not self._refused:
            self._clear_deadline()
            self.site.answering(self)
            super().allContentReceived()

    @override
    def requestDone(self, request: Request) -> None:
        self.site.answered(self)
        self.paused = True  # whatever has been sent meanwhile waits for a turn of its own
        super().requestDone(request)
        if not self.persistent:
            self._deadline = self.callLater(IDLE_TIMEOUT, self._linger_over)  # for the rest of the answer
        elif self._buffer:
            self._turn = self.callLater(0, self._go_on)
        else:
            self.paused = False

    def _go_on(self) -> None:
        self._turn = None
        self.paused = False
        self.dataReceived(b"")

    def body_received(self, size: int) -> bool:
        """Count a piece of body; False when it is over the limit, and the request refused."""
        self._received += size
        if self._received > self._limit:
            self._refuse_body()
        return not self._refused

    def _refuse_body(self) -> None:
        self.refuse(413, f"the body is over {self._limit} bytes")

    def refuse(self, status: int, detail: str) -> None:
        """Answer now, stop sending, and let the client finish for a moment before the connection goes."""
        if self._refused:
            return
        self._refused = True
        self._clear_deadline()
        body = problem(status, detail)
        self._wire.write(
            b"HTTP/1.1 %d %b\r\nServer: lbsvc\r\nConnection: close\r\nContent-Type: %b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (status, _title(status).encode(), PROBLEM_TYPE, len(body), body)
        )
        self._wire.loseWriteConnection()
        self.setTimeout(None)
        self._deadline = self.callLater(_LINGER, self._linger_over)

    def _linger_over(self) -> None:
        self._deadline = None
        self.abort()

    def abort(self) -> None:
        """Cut the connection, whatever has not been sent."""
        self._wire.abortConnection()

    @property
    def is_sending(self) -> bool:
        """Has the client not yet taken what was answered?"""
        return bool(self._waitingForTransport)

    def _too_slow(self) -> None:
        self._deadline = None
        self.timeoutConnection()

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def _wire(self) -> ITCPTransport:
        return cast(ITCPTransport, self.transport)

    def readConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """A client that has finished sending still gets the answer to what it asked, unless that is worth nothing to
        whoever has gone: a socket that was closed ends its bytes in the same way."""
        self.persistent = False
        if self._refused or not self._handlingRequest or self.requests[0].ends_with_reading:
            self.loseConnection()

    def writeConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """Our own doing, after a refusal."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._clear_deadline()
        if self._turn is not None:
            self._turn.cancel()
        super().connectionLost(reason)
        self.site.connection_gone(self)


class AdminRequest(Request):
    """One request: counted while it comes, judged by the site before any resource sees it."""

    site: AdminSite
    channel: AdminChannel
    #: Is it over when its client has finished sending?
    ends_with_reading = False

    @override
    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        authority, target = split_target(path)
        if authority is not None:
            hosts = self.requestHeaders.getRawHeaders(b"Host", [])
            if len(hosts) == 1 or (not hosts and version == b"HTTP/1.0"):
                self.requestHeaders.setRawHeaders(b"Host", [authority])
        super().requestReceived(command, target, version)

    @override
    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.body_received(len(data)):
            super().handleContentChunk(data)

    @override
    def process(self) -> None:
        self.site = self.channel.site
        self.setHeader(b"Server", b"lbsvc")
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        self.setHeader(b"Cache-Control", b"no-store")
        self.setHeader(b"Cross-Origin-Resource-Policy", b"same-origin")
        refusal = self.site.judge(self)
        if refusal is None:
            super().process()
        else:
            self.fail(*refusal)

    @override
    def setHeader(self, name: bytes, value: bytes) -> None:
        """As ever, but for the Server header, into which Twisted writes its version."""
        super().setHeader(name, b"lbsvc" if name == b"Server" else value)

    @override
    def processingFailed(self, reason: Failure) -> Failure:
        self._log.failure("admin request failed", failure=reason)
        if self.startedWriting:
            self.channel.loseConnection()
        else:
            self.fail(500, "something went wrong here; the event log says what")
        return reason

    def fail(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = (), **more: object) -> None:
        """Answer an error as problem+json, and finish."""
        for name, value in headers:
            self.setHeader(name, value)
        if CLOSE in headers:
            self.channel.persistent = False
        self.setResponseCode(status, _title(status).encode())
        self.answer(problem(status, detail, **more), PROBLEM_TYPE)

    def answer(self, body: bytes, content_type: bytes) -> None:
        """Answer with a whole body, and finish; of HEAD, only the head goes out."""
        self.setHeader(b"Content-Type", content_type)
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()


class AdminSite(Site):
    """A site with bounds, without sessions, without an access log of its own."""

    noisy = False
    requestFactory = AdminRequest  # noqa: N815 - Twisted's name
    protocol = AdminChannel  # type: ignore[assignment]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._open: set[AdminChannel] = set()
        # Connections without a whole request, those that have waited for longest first: never had one; had one.
        self._silent: dict[AdminChannel, None] = {}
        self._idle: dict[AdminChannel, None] = {}

    @property
    def asks_for_token(self) -> bool:
        """Has everybody who was let pass shown a token?"""
        return False

    def judge(self, request: AdminRequest) -> tuple[int, str, tuple[tuple[bytes, bytes], ...]] | None:
        """Status, detail and headers to refuse a request with; None: let it pass."""
        return None

    @override
    def buildProtocol(self, addr: IAddress | None) -> AdminChannel | None:  # type: ignore[override]
        if len(self._open) >= MAX_CONNECTIONS and not self._made_room():
            return None
        made = cast(AdminChannel, super().buildProtocol(addr))
        self._open.add(made)
        self._silent[made] = None
        return made

    def _made_room(self) -> bool:
        """Cut the connection that is least of all missed; False where all are being answered."""
        taken = (each for each in self._idle if not each.is_sending)
        least = next(iter(self._silent), None) or next(taken, None) or next(iter(self._idle), None)
        if least is None:
            return False
        self._forget(least)
        least.abort()
        return True

    def answering(self, channel: AdminChannel) -> None:
        """A connection has had a whole request."""
        self._silent.pop(channel, None)
        self._idle.pop(channel, None)

    def answered(self, channel: AdminChannel) -> None:
        """It waits for another, or for its end."""
        if channel in self._open:
            self._idle[channel] = None

    def connection_gone(self, channel: AdminChannel) -> None:
        self._forget(channel)

    def _forget(self, channel: AdminChannel) -> None:
        self._open.discard(channel)
        self._silent.pop(channel, None)
        self._idle.pop(channel, None)

    @override
    def startFactory(self) -> None:
        """Nothing: neither log file nor the timer for its dates."""

    @override
    def stopFactory(self) -> None:
        """Nothing to stop."""

    @override
    def log(self, request: object) -> None:
        """Scrapes are not logged."""

    @override
    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]
