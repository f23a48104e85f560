"""Open a connection to a backend, by IP address or path, within a time (the milestone "open" of both roads).

Given `tls`, the backend has been verified (net/handshaking.py) before the protocol hears of it, within the same time; given
`header`, that is sent first, before TLS. TLS is for our own reactor alone: app.py refuses it on others.

Promises: exactly one of `protocol.makeConnection(transport)` and `failed(outcome, detail)` happens, unless `cancel` was
called first, after which neither does; either may happen before `dial` returns. No resolver and, on our own reactor, no
Connector and no address objects. On any other reactor it goes the ordinary way. Running out of descriptors or of local
ports is our own trouble and not the backend's: ABANDONED.

A host that begins with "/" is the path of a unix socket. Where its queue is full, connect(2) does not wait as TCP does but
says EAGAIN. Such a dial is tried again until its time is over, and then is a timeout, so that a burst of requests waits
for the backend as it would before a port, and a backend that hangs looks like one that hangs. (nginx gives up at once: it
answers 502 to the same burst.)
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from math import inf
from typing import Any, Final, cast
from typing import Protocol as TypingProtocol

from twisted.internet.error import TimeoutError as DialTimeout
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python import log
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.core.backend import Outcome
from lbsvc.net import dialing
from lbsvc.net.client_tls import ClientTls
from lbsvc.net.dialing import OVER, Begin, connect_unix
from lbsvc.net.handshaking import ClientHandshake

#: Told when a dial fails: how it counts, and in words.
Failed = Callable[[Outcome, str], None]

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ECONNRESET: "connection reset",
}
#: Pauses before a unix socket whose queue was full is tried again, in seconds: the first, doubled up to the last.
_FIRST_PAUSE: Final = 0.005
_LAST_PAUSE: Final = 0.1


class Dialling(TypingProtocol):
    """A dial under way."""

    def cancel(self) -> None:
        """Give it up: nothing is called any more, the socket is closed. Harmless when it is over."""


def dial(
    reactor: Any,
    host: str,
    port: int,
    protocol: Protocol,
    timeout: float,
    failed: Failed,
    tls: ClientTls | None = None,
    header: bytes = b"",
) -> Dialling:
    """Connect `protocol` to `host` (an IP literal, or a path: then without port) within `timeout` seconds."""
    if tls is None and not header and hasattr(reactor, "dial_now") and not host.startswith("/"):
        # What nearly always happens: there is nothing to wait for, and nothing is made for that.
        try:
            started = reactor.dial_now(host, port, protocol)
        except OSError as error:
            try:
                failed(*explain(error, host))
            except BaseException:
                log.err(None, "Error in the callable that is told of a failed dial")
            return OVER
        return OVER if started is None else _StartedDial(reactor, host, protocol, timeout, failed, started)
    if tls is not None:
        kind = _SecureUnixDial if host.startswith("/") else _SecureDial
        return kind(reactor, host, port, protocol, timeout, failed, tls, header)
    if header:
        protocol = cast(Protocol, _Headed(protocol, header))
    if host.startswith("/"):
        return _UnixDial(reactor, host, protocol, timeout, failed)
    if hasattr(reactor, "dial"):
        return _LeanDial(reactor, host, port, protocol, timeout, failed)
    return _OrdinaryDial(reactor, host, port, protocol, timeout, failed)


class _Headed:
    """Stands for a protocol until its connection is there: the header goes out before anything of the protocol's."""

    connected = 0

    def __init__(self, protocol: Protocol, header: bytes) -> None:
        self._protocol = protocol
        self._header = header
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 - what a transport calls
        self.transport = transport
        self.connected = 1
        transport.write(self._header)
        protocol = self._protocol
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - where makeConnection has raised
        self._protocol.connectionLost(reason)


class _LeanDial:
    """On our own reactor. The timer is only made where the kernel did not connect at once."""

    __slots__ = ("_dial", "_failed", "_host", "_protocol", "_timer")

    def __init__(self, reactor: Any, host: str, port: int, protocol: Protocol, timeout: float, failed: Failed) -> None:
        self._failed: Failed | None = failed
        self._host = host
        self._protocol = protocol
        self._timer: Any = None
        self._dial: Any = None
        dialled = self._begin(reactor, host, port)
        if self._failed is not None:
            if self._dial is None:  # else it is connected, and in its handshake
                self._dial = dialled
            self._timer = reactor.callLater(timeout, self._timed_out)

    def _begin(self, reactor: Any, host: str, port: int) -> Any:
        return reactor.dial(host, port, self, self._lost)

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 - what the reactor calls: hand over to the protocol
        self._settle()
        protocol = self._protocol
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def _settle(self) -> None:
        self._failed = None
        self._dial = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _lost(self, error: OSError) -> None:
        self._refused(*explain(error, self._host))

    def _refused(self, outcome: Outcome, detail: str) -> None:
        failed = self._failed
        self._settle()
        if failed is not None:
            failed(outcome, detail)

    def _timed_out(self) -> None:
        self._timer = None
        failed, dialled = self._failed, self._dial
        self._settle()
        if dialled is not None:
            dialled.cancel()
        if failed is not None:
            failed(Outcome.CONNECT_TIMEOUT, "timed out")

    def cancel(self) -> None:
        dialled = self._dial
        self._settle()
        if dialled is not None:
            dialled.cancel()


class _StartedDial(_LeanDial):
    """The rest of one that takes time: what the kernel has been asked for is under way."""

    __slots__ = ("_started",)

    def __init__(
        self, reactor: Any, host: str, protocol: Protocol, timeout: float, failed: Failed, started: dialing.Started
    ) -> None:
        self._started = started
        super().__init__(reactor, host, 0, protocol, timeout, failed)

    @override
    def _begin(self, reactor: Any, host: str, port: int) -> Any:
        return dialing.wait(reactor, *self._started, self, self._lost)


class _SecureDial(_LeanDial):
    """The same with a handshake."""

    __slots__ = ("_header", "_reactor", "_tls")

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        protocol: Protocol,
        timeout: float,
        failed: Failed,
        tls: ClientTls,
        header: bytes,
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._header = header
        super().__init__(reactor, host, port, protocol, timeout, failed)

    @override
    def _begin(self, reactor: Any, host: str, port: int) -> Any:
        return reactor.dial(host, port, self, self._lost, self._shake_hands)

    def _shake_hands(self, skt: socket.socket, sockaddr: tuple[Any, ...]) -> None:
        self._dial = handshake = ClientHandshake(
            self._reactor, skt, sockaddr, self._protocol, self._tls, self.makeConnection, self._refused
        )
        handshake.begin(self._header)


class _UnixDial:
    """To a unix socket, on any reactor. Only a full queue makes it take time."""

    __slots__ = ("_begin", "_failed", "_left", "_path", "_pause", "_protocol", "_reactor", "_timer")

    def __init__(
        self, reactor: Any, path: str, protocol: Protocol, timeout: float, failed: Failed, begin: Begin | None = None
    ) -> None:
        self._begin = begin  # on our own reactor only
        self._failed: Failed | None = failed
        self._path = path
        self._protocol = protocol
        self._reactor = reactor
        self._left = timeout
        self._pause = _FIRST_PAUSE
        self._timer: Any = None
        self._try()

    def _try(self) -> None:
        self._timer = None
        if hasattr(self._reactor, "dial"):
            self._reactor.dial(self._path, 0, self, self._lost, self._begin)
            return
        # Twisted's connectUNIX would poll an unconnected socket without end where the queue is full.
        try:
            with connect_unix(self._path) as skt:
                self._adopt(skt)
        except OSError as error:
            self._lost(error)

    def _adopt(self, skt: socket.socket) -> None:
        failed, self._failed = self._failed, None
        protocol = self._protocol
        try:
            self._reactor.adoptStreamConnection(skt.fileno(), socket.AF_UNIX, _Only(protocol))  # on a copy of it
        except BaseException:
            if not protocol.connected:
                self._failed = failed
                raise
            log.err(None, "Error in connectionMade")
            protocol.transport.abortConnection()  # type: ignore[union-attr]

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 - what our reactor calls: hand over to the protocol
        self._failed = None
        protocol = self._protocol
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def _lost(self, error: OSError) -> None:
        failed = self._failed
        if failed is None:
            return
        if error.errno == errno.EAGAIN:
            if self._left > 0:
                pause = min(self._pause, self._left)
                self._left -= pause
                self._pause = min(2 * pause, _LAST_PAUSE)
                self._timer = self._reactor.callLater(pause, self._try)
                return
            error = TimeoutError(errno.ETIMEDOUT, "timed out")
        self._failed = None
        failed(*explain(error, self._path))

    def cancel(self) -> None:
        self._failed = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class _SecureUnixDial(_SecureDial):
    """To a unix socket, with a handshake."""

    __slots__ = ()

    @override
    def _begin(self, reactor: Any, host: str, port: int) -> Any:
        return _UnixDial(reactor, host, cast(Protocol, self), inf, self._refused, self._shake_hands)


class _Only(Factory[Protocol]):
    """Gives the one protocol that it has."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


class _OrdinaryDial(ClientFactory[Protocol]):
    """On any other reactor: Twisted's own way."""

    noisy = False

    def __init__(self, reactor: Any, host: str, port: int, protocol: Protocol, timeout: float, failed: Failed) -> None:
        self._failed: Failed | None = failed
        self._host = host
        self._instance = protocol
        self._connector: IConnector | None = None
        connector = reactor.connectTCP(host, port, self, timeout)
        if self._failed is not None:
            self._connector = connector

    @override
    def startedConnecting(self, connector: Any) -> None:
        # What is written in a turn goes out as one piece anyway: nothing to wait for.
        skt = connector.transport.getHandle() if hasattr(connector.transport, "socket") else None
        if skt is not None:
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        if self._failed is None:
            return None
        self._failed = None
        self._connector = None
        return self._instance

    @override
    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        failed, self._failed = self._failed, None
        if failed is None:
            return
        error: Any = reason.value
        if reason.check(DialTimeout):
            error = OSError(errno.ETIMEDOUT, "timed out")
        elif isinstance(getattr(error, "osError", None), int):
            error = OSError(error.osError, str(error))
        failed(*explain(error, self._host))

    def cancel(self) -> None:
        if self._failed is not None:
            self._failed = None
            if self._connector is not None:
                self._connector.disconnect()


def explain(error: Exception, host: str) -> tuple[Outcome, str]:
    """How a failed connect to `host` counts, and in words."""
    number = getattr(error, "errno", None) or 0
    words = getattr(error, "strerror", None) or str(error)
    if number == errno.ETIMEDOUT:
        return Outcome.CONNECT_TIMEOUT, "timed out"
    if number in _OURS:
        return Outcome.ABANDONED, words
    if number == errno.ENOENT and host.startswith("/"):
        return Outcome.CONNECT_FAILED, "no such socket"
    if number == errno.EADDRNOTAVAIL and _has_source(host):
        return Outcome.ABANDONED, "no local port is free"
    return Outcome.CONNECT_FAILED, _WORDS.get(number, words)


def _has_source(host: str) -> bool:
    """Whether we have an address to reach `host` from; connecting a UDP socket sends nothing, but asks for one."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
    except OSError:
        return False
    return True
