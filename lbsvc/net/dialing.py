"""Dialling lean: from an address to a transport with five syscalls, without connector, resolver, timer, address object.

Who calls it: `Reactor.dial`, for `net/connector.py`.

Law: `dial(host, port, protocol, failed)` leads to exactly one of `protocol.makeConnection(transport)` and
`failed(OSError)`, unless the Dial is cancelled first: then nothing is called and the socket is closed. **Either may happen
before dial() returns** (for local addresses they nearly always do): the caller must be ready for both when it calls, and
must not expect to have the Dial in hand by then. `cancel` after the end does nothing. The caller owns the timeout.

- An exception in makeConnection is logged and costs that connection (connectionLost is called); one in `failed` is logged.
- Neither IP literal nor path: `failed` at once; no name is ever resolved here. `host` may have a scope (`fe80::1%eth0`).
- A host that begins with "/" is the path of a unix socket; the port does not count. It is all over when dial() returns:
  where the queue of that socket is full the kernel keeps nobody waiting, and `failed` gets EAGAIN.
- Out of descriptors, no route and their like: `failed` with the OSError of the syscall.
- Given `begin`, it is called with the connected socket and its address, in place of makeConnection: whoever wants to say
  something else first (net/handshaking.py) makes the transport then. An exception in it closes the socket.
- If the reactor stops first: `failed(ConnectionAbortedError)`, or with what has befallen the socket by then.

Syscalls when it completes at once: socket, setsockopt(TCP_NODELAY), connect (EINPROGRESS), connect (done), epoll_ctl.
Otherwise epoll_ctl twice, and connect again when epoll reports it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EAGAIN, EALREADY, ECONNABORTED, EINPROGRESS, EISCONN
from functools import lru_cache
from os import strerror
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet import address, tcp
from twisted.internet._newtls import ClientMixin
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.python import log
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.net.bare import BareSocket
from lbsvc.net.transports import FastConnection

if TYPE_CHECKING:
    from lbsvc.net.reactor import Reactor

#: Given a connected socket and its address, in place of a protocol.
Begin: TypeAlias = Callable[[socket.socket, tuple[Any, ...]], None]

#: A connect that has been begun.
Started: TypeAlias = tuple[socket.socket, tuple[Any, ...]]

_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_PENDING = (EINPROGRESS, EALREADY, EAGAIN)


class DialedClient(FastConnection, ClientMixin):
    """The transport of a connection that `Reactor.dial` made."""

    _base = FastConnection

    @override
    def __init__(self, skt: socket.socket, protocol: IProtocol, sockaddr: tuple[Any, ...], reactor: Reactor) -> None:
        self.reactor = reactor
        self._tempDataBuffer = []
        self.socket = skt
        self.fileno = skt.fileno
        self._send = skt.send
        self._recv = skt.recv
        self.protocol = protocol
        self.sockaddr = sockaddr
        self.connected = 1
        self._direct = True
        self._read_later = True

    def getHost(self) -> Any:  # noqa: N802
        """The local address of the connection."""
        return _address(tcp._getsockname(self.socket))

    def getPeer(self) -> Any:  # noqa: N802
        """The address that was dialled."""
        return _address(self.sockaddr)

    @override
    def logPrefix(self) -> str:
        protocol = getattr(self, "protocol", None)
        return f"{self._last.__name__ if protocol is None else self._getLogPrefix(protocol)},client"

    @override
    def __repr__(self) -> str:
        return f"<connection to {self.sockaddr[0]}:{self.sockaddr[1]}>"


class DialedUnixClient(DialedClient):
    """The same to a unix socket."""

    @override
    def getHost(self) -> Any:
        return address.UNIXAddress(None)

    @override
    def getPeer(self) -> Any:
        return address.UNIXAddress(self.sockaddr[0])

    @override
    def getTcpNoDelay(self) -> bool:
        return False

    @override
    def setTcpNoDelay(self, enabled: bool) -> None:
        """Unix sockets have no such option."""

    @override
    def __repr__(self) -> str:
        return f"<connection to unix:{self.sockaddr[0]}>"


class FastClient(FastConnection, tcp.Client):
    """What connectTCP makes: the stock client's way of connecting, then ours of carrying."""

    _base = FastConnection
    _commonConnection = FastConnection  # noqa: N815
    connector: Any

    __init__ = tcp.Client.__init__
    connectionLost = tcp.Client.connectionLost  # noqa: N815

    @override
    def createInternetSocket(self) -> socket.socket:
        skt: socket.socket = tcp.Client.createInternetSocket(self)
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return skt

    @override
    def _collectSocketDetails(self) -> None:
        del self.socket, self.fileno, self._send, self._recv

    @override
    def _connectDone(self) -> None:
        # Twisted's, but that the transport may write at once from the moment it is connected.
        self.protocol = self.connector.buildProtocol(self.getPeer())
        self.connected = 1
        self.logstr = f"{self._getLogPrefix(self.protocol)},client"
        self._direct = True
        if self.protocol is None:
            self.protocol = Protocol()
            self.loseConnection()
        else:
            self.startReading()
            self.protocol.makeConnection(self)


class Dial:
    """An attempt that has not ended, or has: then `cancel` does nothing. It is the reactor's selectable meanwhile."""

    __slots__ = ("_begin", "_failed", "_protocol", "_reactor", "_sockaddr", "_socket", "fileno")

    _socket: socket.socket | None

    def __init__(
        self,
        reactor: Reactor,
        skt: socket.socket,
        sockaddr: tuple[Any, ...],
        protocol: Any,
        failed: Callable[[OSError], None],
        begin: Begin | None = None,
    ) -> None:
        self._begin = begin
        self._reactor = reactor
        self._socket = skt
        self._sockaddr = sockaddr
        self._protocol = protocol
        self._failed = failed
        self.fileno = skt.fileno

    def cancel(self) -> None:
        """Give up: close the socket and call nothing."""
        skt = self._socket
        if skt is not None:
            self._reactor.forget(self)
            self._socket = None
            skt.close()
            self._protocol = self._failed = None  # type: ignore[assignment]

    def doWrite(self) -> None:  # noqa: N802
        """The socket is writable: connected, or not."""
        skt = self._socket
        if skt is None:
            return
        code = skt.connect_ex(self._sockaddr)
        if code in _PENDING:
            return
        protocol, failed, begin = self._protocol, self._failed, self._begin
        if code and code != EISCONN:
            self.cancel()
            _report(failed, OSError(code, strerror(code)))
            return
        self._reactor.forget(self)
        self._socket = None
        self._protocol = self._failed = None  # type: ignore[assignment]
        if begin is not None:
            _hand_over(begin, skt, self._sockaddr)
        else:
            connected(DialedClient(skt, protocol, self._sockaddr, self._reactor))

    doRead = doWrite  # noqa: N815

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        """The reactor saw a hang-up (its cause is still in the socket), or disconnects everything because it stops."""
        skt = self._socket
        if skt is not None:
            failed = self._failed
            code = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or ECONNABORTED
            self.cancel()
            _report(failed, OSError(code, strerror(code)))

    def logPrefix(self) -> str:  # noqa: N802
        """For the log."""
        return "dial"

    def __repr__(self) -> str:
        return f"<dial of {self._sockaddr[0]}:{self._sockaddr[1]}{'' if self._socket else ', over'}>"


class _Over:
    """What dial() returns when it is all over already: there is nothing to cancel."""

    __slots__ = ()

    def cancel(self) -> None:
        """Do nothing."""


OVER = _Over()


def dial(
    reactor: Reactor,
    host: str,
    port: int,
    protocol: IProtocol,
    failed: Callable[[OSError], None],
    begin: Begin | None = None,
) -> Dial | _Over:
    """See the module docstring."""
    if host.startswith("/"):
        return _dial_unix(reactor, host, protocol, failed, begin)
    try:
        skt, sockaddr, is_connected = attempt(host, port)
    except OSError as problem:
        _report(failed, problem)
        return OVER
    if not is_connected:
        return wait(reactor, skt, sockaddr, protocol, failed, begin)
    if begin is not None:
        _hand_over(begin, skt, sockaddr)
    else:
        connected(DialedClient(skt, protocol, sockaddr, reactor))
    return OVER


def dial_now(reactor: Reactor, host: str, port: int, protocol: IProtocol) -> Started | None:
    """Connect at once, to an IP literal: None if that is done; else what `wait` wants. Raises OSError."""
    skt, sockaddr, is_connected = attempt(host, port)
    if not is_connected:
        return skt, sockaddr
    connected(DialedClient(skt, protocol, sockaddr, reactor))
    return None


def attempt(host: str, port: int) -> tuple[socket.socket, tuple[Any, ...], bool]:
    """A socket, the address that it connects to, and whether it is connected already; raises OSError."""
    family, sockaddr = _literal(host, port) if "%" not in host else _scoped(host, port)
    skt: socket.socket = BareSocket(family, _KIND, 0)
    try:
        skt.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        code = skt.connect_ex(sockaddr)
        if code == EINPROGRESS:
            # Over loopback the handshake was done inside the first call; only a second one tells.
            code = skt.connect_ex(sockaddr)
    except OSError:
        skt.close()
        raise
    if code and code != EISCONN:
        if code in _PENDING:
            return skt, sockaddr, False
        skt.close()
        raise OSError(code, strerror(code))
    return skt, sockaddr, True


@lru_cache(4096)
def _literal(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """Family and address of an IP literal; anything else is refused: connect would ask the resolver, and wait."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.inet_pton(family, host)
    return family, (host, port)


def _scoped(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """The same with a scope, whose number may be another one tomorrow."""
    family = socket.AF_INET6
    return family, socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, tcp._NUMERIC_ONLY)[0][4]


def wait(
    reactor: Reactor,
    skt: socket.socket,
    sockaddr: tuple[Any, ...],
    protocol: Any,
    failed: Callable[[OSError], None],
    begin: Begin | None = None,
) -> Dial:
    """For what comes of an attempt that takes time."""
    waiting = Dial(reactor, skt, sockaddr, protocol, failed, begin)
    reactor.addWriter(waiting)
    return waiting


def _dial_unix(
    reactor: Reactor, path: str, protocol: IProtocol, failed: Callable[[OSError], None], begin: Begin | None
) -> _Over:
    try:
        skt = connect_unix(path)
    except OSError as problem:
        _report(failed, problem)
    else:
        if begin is not None:
            _hand_over(begin, skt, (path, 0))
        else:
            connected(DialedUnixClient(skt, protocol, (path, 0), reactor))
    return OVER


def connect_unix(path: str) -> socket.socket:
    """A connected socket that does not block, on any reactor; raises OSError. Nothing about it takes time."""
    skt: socket.socket = BareSocket(socket.AF_UNIX, _KIND, 0)
    try:
        skt.connect(path)
    except OSError:
        skt.close()
        raise
    return skt


def connected(transport: DialedClient) -> None:
    """Tell the transport's protocol that it is there."""
    try:
        transport.protocol.makeConnection(transport)
    except BaseException:
        log.err(None, "Error in connectionMade")
        transport.connectionLost(Failure())
    transport._begin_reading()


def _hand_over(begin: Begin, skt: socket.socket, sockaddr: tuple[Any, ...]) -> None:
    try:
        begin(skt, sockaddr)
    except BaseException:
        log.err(None, "Error in the callable that is given a connected socket")
        skt.close()


def _report(failed: Callable[[OSError], None], problem: OSError) -> None:
    try:
        failed(problem)
    except BaseException:
        log.err(None, "Error in the callable that is told of a failed dial")


def _address(sockaddr: tuple[Any, ...]) -> Any:
    kind = address.IPv4Address if len(sockaddr) == 2 and ":" not in sockaddr[0] else address.IPv6Address
    return kind("TCP", *sockaddr)
