"""One question to one backend: does it live? Asked once, over one connection, answered in words.

Promises: a `Check` ends exactly once, within the policy's timeout over all (dial, request and answer together, bytes do
not extend it), by calling `ended(ok, detail)`; after `cancel` it never does. It leaves no socket behind: closed cleanly
after an answer, aborted otherwise. ok None means that no answer could be sought for a reason of ours (no descriptors
left), which says nothing about the backend. Made by net/prober.py; dials through the callable it is given.

tcp: connects, then closes. http: one request with `Connection: close`; the answer must be whole (head, and body to its
end or to 64 KiB), its status among `expect_status`, and `expect_body` inside it where that is given. A backend on a unix
socket is asked there, whatever `port` says, and by the name `localhost` unless `host` says another. What has to speak
HTTP/2 is asked by http/h2_checks.py, which is made of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httptools
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.policies import HealthCheckPolicy

#: The signature of net/connector.dial: (reactor, host, port, protocol, timeout, failed, tls, header): has cancel().
Dial = Callable[[Any, str, int, Protocol, float, Callable[[Outcome, str], None], Any, bytes], Any]

#: Told how a check ended: did it pass (None: it could not be made), and in words.
Ended = Callable[[bool | None, str], None]

#: Of a body we look at no more than this.
LARGEST_BODY: Final = 64 * 1024

#: A head longer than this is no answer to a health check.
LARGEST_HEAD: Final = 64 * 1024


class Check(Protocol):
    """A tcp check, and what both kinds have in common."""

    def __init__(self, reactor: IReactorTime, policy: HealthCheckPolicy, backend: Backend, ended: Ended) -> None:
        self._reactor = reactor
        self._policy = policy
        self._backend = backend
        self._ended: Ended | None = ended  # None: over
        self._dialling: Any = None
        self._timer: IDelayedCall | None = None

    def begin(self, dial: Dial) -> None:
        """Ask. The check may be over when this returns."""
        policy = self._policy
        if not self._backend.host:
            self._end(False, "name not resolved")
            return
        self._timer = self._reactor.callLater(policy.timeout, self._timed_out)
        host = self._backend.host
        port = 0 if host.startswith("/") else policy.port or self._backend.port
        # Our own timer covers the dial as well; whichever of the two is first says the same.
        backend = self._backend
        tls = self._tls_words()
        dialling = dial(self._reactor, host, port, self, policy.timeout, self._not_connected, tls, backend.greeting)
        if self._ended is not None and not self.connected:
            self._dialling = dialling

    def _tls_words(self) -> Any:
        """How TLS is spoken for this check (net/client_tls.py); None for none."""
        return self._backend.tls

    def cancel(self) -> None:
        """Give it up without a word."""
        self._settle()
        self._leave(clean=False)

    @override
    def connectionMade(self) -> None:
        self._dialling = None
        if self._ended is None:
            self._leave(clean=False)
        else:
            self._ask()

    def _ask(self) -> None:
        self._end(True, "connected", clean=True)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._ended is not None:
            self._lost(clean=reason.check(ConnectionDone) is not None)

    def _lost(self, clean: bool) -> None:
        self._end(False, "connection closed without an answer" if clean else "connection reset")

    def _not_connected(self, outcome: Outcome, detail: str) -> None:
        self._dialling = None
        if outcome is Outcome.CONNECT_TIMEOUT:
            self._timed_out()
        else:
            self._end(None if outcome is Outcome.ABANDONED else False, detail)

    def _timed_out(self) -> None:
        self._end(False, f"no answer within {self._policy.timeout:g}s")

    def _settle(self) -> Ended | None:
        """From here on nothing is called; whom to tell, if nobody has been told yet."""
        ended, self._ended = self._ended, None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        return ended

    def _leave(self, clean: bool) -> None:
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()
        transport: Any = self.transport
        if transport is not None and self.connected:
            if clean:
                transport.loseConnection()
            else:
                transport.abortConnection()

    def _end(self, ok: bool | None, detail: str, *, clean: bool = False) -> None:
        ended = self._settle()
        if ended is not None:
            self._leave(clean)
            ended(ok, detail)


class HttpCheck(Check):
    """An http check; the methods in lower case are called by httptools."""

    def __init__(self, reactor: IReactorTime, policy: HealthCheckPolicy, backend: Backend, ended: Ended) -> None:
        super().__init__(reactor, policy, backend, ended)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._received = 0
        self._status = 0  # of the final head; 0 before it has come
        self._sized = False  # the head says where the body ends
        self._body = bytearray()
        self._whole = False

    @override
    def _settle(self) -> Ended | None:
        self._parser = None  # it knows us: no cycle is left for the collector, which comes by once an hour
        return super()._settle()

    @override
    def _ask(self) -> None:
        policy = self._policy
        self._transport().write(
            f"{policy.method} {policy.path} HTTP/1.1\r\nHost: {self._authority()}\r\n"
            f"User-Agent: lbsvc-check\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()
        )

    def _authority(self) -> str:
        """The name that the backend is asked by."""
        if self._policy.host is not None:
            return self._policy.host
        # An address may be written as a URL; Host has its authority alone. A path is no authority.
        address = self._backend.address.rpartition("://")[2].rstrip("/")
        return "localhost" if self._backend.host.startswith("/") else address

    def _transport(self) -> Any:
        return self.transport

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._ended is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end(False, "status 101, an upgrade that nobody asked for")
        except httptools.HttpParserError as error:
            # What comes after a whole answer is nonsense only to whoever reads on.
            if not self._whole:
                self._end(False, f"malformed answer ({type(error).__name__})")
        self._received += len(data)
        if self._whole or (self._status and len(self._body) >= LARGEST_BODY):
            self._judge()
        elif not self._status and self._received > LARGEST_HEAD:
            self._end(False, "malformed answer (endless head)")

    @override
    def _lost(self, clean: bool) -> None:
        if not self._status:
            super()._lost(clean)
        elif clean and not self._sized:
            self._judge()  # the body ends with the connection
        else:
            self._end(False, f"status {self._status}, answer cut short")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._sized = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer (RFC 9110 section 15.2): the final one follows
            self._sized = False
            return
        self._status = status
        # llhttp waits for a body that these announce and never send (RFC 9112 section 6.3).
        if self._policy.method == "HEAD" or status in (204, 304):
            self._whole = True

    def on_body(self, body: bytes) -> None:
        room = LARGEST_BODY - len(self._body)
        self._body += body[:room]

    def on_message_complete(self) -> None:
        if self._status:
            self._whole = True

    def _judge(self) -> None:
        status = self._status
        wanted = self._policy.expect_body
        if not any(low <= status <= high for low, high in self._policy.expect_status):
            self._end(False, f"status {status}", clean=True)
        elif wanted is not None and wanted.encode() not in self._body:
            self._end(False, f"status {status}, body without what is expected", clean=True)
        else:
            self._end(True, f"status {status}", clean=True)


#: What makes a check: of a reactor, a policy, a backend, and whom to tell.
MakeCheck = Callable[[Any, HealthCheckPolicy, Backend, Ended], Check]


def check_for(reactor: IReactorTime, policy: HealthCheckPolicy, backend: Backend, ended: Ended) -> Check:
    """The kind of check that the policy asks for, of those that need no HTTP/2."""
    return (HttpCheck if policy.type == "http" else Check)(reactor, policy, backend, ended)
