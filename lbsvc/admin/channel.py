"""The admin listener's HTTP: twisted.web with the bounds that it lacks.

Promises: a request's body over `BODY_LIMIT` is answered 413 before it is read, a chunked one as soon as it passes the
limit; a request has `REQUEST_TIMEOUT` from its first byte to its last, whatever its bytes do; an idle connection has
`IDLE_TIMEOUT`; no more than `MAX_CONNECTIONS` at one time. twisted.web by itself buffers bodies of any size, restarts
its only timer with each byte, and resets connections whose request it did not read to the end. Used by admin/site.py.
Sizes are bytes, times seconds.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final, cast

from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from typing_extensions import override
from zope.interface import implementer

BODY_LIMIT: Final = 1024 * 1024
IDLE_TIMEOUT: Final = 30.0
REQUEST_TIMEOUT: Final = 30.0
MAX_CONNECTIONS: Final = 256

#: How long a client may go on sending after it was refused, so that the answer is not lost to a reset.
_LINGER: Final = 2.0

PROBLEM_TYPE: Final = b"application/problem+json"

#: RFC 9110's names of statuses that http.HTTPStatus has under older ones.
_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}


def problem(status: int, detail: str, **more: object) -> bytes:
    """An error body (RFC 9457); `more` are members beside its own."""
    members = {"type": "about:blank", "title": _title(status), "status": status, "detail": detail, **more}
    return json.dumps(members).encode()


def _title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


@implementer(IHalfCloseableProtocol)
class AdminChannel(HTTPChannel):
    """One connection to the admin listener."""

    site: AdminSite
    totalHeadersSize = 16 * 1024  # noqa: N815 - Twisted's names
    maxHeaders = 100  # noqa: N815
    abortTimeout = 2  # noqa: N815

    _deadline: IDelayedCall | None = None
    _refused = False
    _received = 0

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None and not self._handlingRequest:
            self._deadline = self.callLater(REQUEST_TIMEOUT, self._too_slow)
        super().dataReceived(data)

    @override
    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > BODY_LIMIT:
            self.refuse_body()
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
            super().allContentReceived()

    def body_received(self, size: int) -> bool:
        """Count a piece of body; False when it is over the limit, and the request refused."""
        self._received += size
        if self._received > BODY_LIMIT and not self._refused:
            self.refuse_body()
        return not self._refused

    def refuse_body(self) -> None:
        """Answer 413 now, stop sending, and let the client finish for a moment before the connection goes."""
        self._refused = True
        self._clear_deadline()
        body = problem(413, f"the body is over {BODY_LIMIT} bytes")
        self._wire.write(
            b"HTTP/1.1 413 Content Too Large\r\nServer: lbsvc\r\nConnection: close\r\nContent-Type: %b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (PROBLEM_TYPE, len(body), body)
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
        """A client that has finished sending still gets the answer to what it asked."""
        self.persistent = False
        if self._refused or not self._handlingRequest:
            self.loseConnection()

    def writeConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """Our own doing, after a refusal."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._clear_deadline()
        super().connectionLost(reason)
        self.site.connection_gone()


class AdminRequest(Request):
    """One request: counted while it comes, judged by the site before any resource sees it."""

    site: AdminSite
    channel: AdminChannel

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
    _open = 0

    @property
    def asks_for_token(self) -> bool:
        """Has everybody who was let pass shown a token?"""
        return False

    def judge(self, request: AdminRequest) -> tuple[int, str, tuple[tuple[bytes, bytes], ...]] | None:
        """Status, detail and headers to refuse a request with; None: let it pass."""
        return None

    @override
    def buildProtocol(self, addr: IAddress | None) -> AdminChannel | None:  # type: ignore[override]
        if self._open >= MAX_CONNECTIONS:
            return None
        self._open += 1
        return cast(AdminChannel, super().buildProtocol(addr))

    def connection_gone(self) -> None:
        self._open -= 1

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
