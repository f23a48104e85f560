"""Listening ports that accept lean: a bounded number of connections in a turn, each with as little as Twisted's terms allow.

Who calls it: `net/reactor.py` for listenTCP and adopted ports; `net/listener.py` pauses and resumes them.

Promises
- A factory with a method `buildLean(sockaddr: tuple) -> Protocol | None` is asked by that instead of buildProtocol, so that
  no address object is made for each connection (getPeer and getHost make them when asked). `sockaddr` is what accept(2)
  gave: (host, port) or (host, port, flow, scope); on a unix socket ("unix", 0), whatever the client has named its end:
  it may name it 192.0.2.1. None: it is closed at once.
- One with `openLean` that is not None is given the accepted socket by that, and what goes with it, and does the rest.
- Accepted sockets are non-blocking and have TCP_NODELAY (inherited from the listening socket, which costs them nothing), if
  they are TCP sockets.
- One turn accepts at most `numberAccepts` connections, which adapts as Twisted's does but never above MOST_ACCEPTS.
- `serve(factory)` gives a port another factory, of the same kind: whatever waits in its queue is that one's from then on.
- `pauseAccepting()` and `resumeAccepting()` may be called at any time, also from within buildLean and connectionMade; after
  the first no further connection is taken, not even in the same turn.
- `share()`: other processes accept from the same socket, and each gets its part (net/sharing.py).
- Running out of descriptors is handled as Twisted does (its reserved descriptor), as are all other errors of accept(2).
- Adopted sockets are never shut down, only closed: other processes may share them. The file of an adopted unix socket keeps
  its mode, and is removed only by the `file` that net/binding.py has given to its port; its queue keeps its length.
- An exception in the factory or in connectionMade is logged; the next connection is accepted all the same.

Syscalls for a connection: accept4, getsockname (inside Python's socket()), ioctl(FIONBIO), epoll_ctl.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import address, tcp, unix
from twisted.internet.interfaces import IProtocol
from twisted.python import log
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.core.networks import UNIX
from lbsvc.net.bare import BareSocket
from lbsvc.net.sharing import SHARED_ACCEPTS, Lead, Turns
from lbsvc.net.transports import FastConnection

MOST_ACCEPTS = 128


class FastServer(FastConnection, tcp.Server):
    """An accepted or adopted connection; that of a factory with buildLean reads once `_begin_reading` is called."""

    _base = FastConnection
    client: Any
    server: Any

    @override
    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        # What tcp.Server's constructor does, but names for logs and repr are made when asked for.
        self.reactor = reactor
        self._tempDataBuffer = []
        sock.setblocking(False)
        self.socket = sock
        self.fileno = sock.fileno
        self._send = sock.send
        self._recv = sock.recv
        self.protocol = protocol
        self.client = client
        self.server = server
        self.sessionno = sessionno
        self.connected = 1
        self._direct = True
        if server is None:
            self._shouldShutdown = True  # adopted: whoever gave the descriptor still has its own copy
            self.startReading()
        elif server._build is None:
            self.startReading()
        else:
            self._read_later = True

    @classmethod
    def _fromConnectedSocket(cls, fileDescriptor: int, addressFamily: int, factory: Any, reactor: Any) -> Any:  # noqa: N802, N803
        with socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM) as skt:
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return super()._fromConnectedSocket(fileDescriptor, addressFamily, factory, reactor)

    @property
    def hostname(self) -> Any:  # type: ignore[override]
        return _with_scope(self.client)[0]

    @property
    def _addressType(self) -> Any:  # type: ignore[override]  # noqa: N802
        return address.IPv4Address if len(self.client) == 2 else address.IPv6Address

    @override
    def getPeer(self) -> Any:
        return self._addressType("TCP", *_with_scope(self.client))

    @override
    def logPrefix(self) -> str:
        return self.logstr

    @property
    def logstr(self) -> str:  # type: ignore[override]
        protocol = getattr(self, "protocol", None)
        prefix = self._last.__name__ if protocol is None else self._getLogPrefix(protocol)
        return f"{prefix},{self.sessionno},{self.hostname}"

    @override
    def __repr__(self) -> str:
        if self.server is None:
            return self.repstr
        name = getattr(self, "protocol", None).__class__.__name__ if self.connected else self._last.__name__
        return f"<{name} #{self.sessionno} on {self.server._realPortNumber}>"


class FastUnixServer(FastServer):
    """An accepted unix connection for our own factories (`buildLean`), which never pass descriptors."""

    @override
    def getHost(self) -> Any:
        return address.UNIXAddress(self.socket.getsockname())

    @override
    def getPeer(self) -> Any:
        return address.UNIXAddress(self.client[0] or None)

    @override
    def getTcpNoDelay(self) -> bool:
        return False

    @override
    def setTcpNoDelay(self, enabled: bool) -> None:
        """Unix sockets have no such option."""


def _with_scope(sockaddr: tuple[Any, ...]) -> tuple[Any, ...]:
    """A socket address with the scope of a link-local IPv6 address as part of its host, as Twisted shows it."""
    if len(sockaddr) == 4 and sockaddr[3]:
        return tcp._getrealname(sockaddr)  # type: ignore[no-any-return]
    return sockaddr


class LeanPort(tcp.Port):
    """A TCP port, IPv4 or IPv6; see the module docstring."""

    transport = FastServer
    reactor: Any
    _build: Any = None
    _open: Any = None
    _most = MOST_ACCEPTS
    _turns: Turns | None = None

    @override
    def startListening(self) -> None:
        super().startListening()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ask_factory()

    def _ask_factory(self) -> None:
        """How the factory wants to be told of connections."""
        self._build = getattr(self.factory, "buildLean", None)
        self._open = getattr(self.factory, "openLean", None)

    def serve(self, factory: Any) -> None:
        """Connections are `factory`'s from now on; the same one again is asked anew how it wants them."""
        change_factory(self, factory)
        self._ask_factory()

    def share(self, lead: Lead | None = None) -> None:
        """From now on it is one of several that accept from this socket; may be called at any time while it listens. `lead`
        says whether this process has more connections than others."""
        if self._turns is not None:
            return
        was_watched = self.reactor.watches(self)
        self.stopReading()
        self._turns = Turns(self, self.reactor, lead)
        self.numberAccepts = self._most = SHARED_ACCEPTS
        if was_watched:
            self.startReading()

    @override
    def startReading(self) -> None:
        if self._turns is None:
            super().startReading()
        else:
            self._turns.begin()

    @override
    def stopReading(self) -> None:
        if self._turns is not None:
            self._turns.end()
        super().stopReading()

    @override
    def connectionLost(self, reason: Any) -> None:
        if self._turns is not None:
            self._turns.end()
        super().connectionLost(reason)

    def pauseAccepting(self) -> None:  # noqa: N802
        """Leave new connections in the kernel's queue."""
        self.stopReading()

    def resumeAccepting(self) -> None:  # noqa: N802
        """Accept again; does nothing on a port that is closing."""
        if self.connected and not self.disconnecting:
            self.startReading()

    @override
    def doRead(self) -> None:
        accept = self.socket._accept  # type: ignore[union-attr]
        limit = self.numberAccepts
        watched = self.reactor.watches
        taken = 0
        while taken < limit:
            try:
                descriptor, sockaddr = accept()
            except BlockingIOError:
                break
            except OSError:
                self._accept_in_trouble(limit - taken)
                break
            taken += 1
            self._take(descriptor, sockaddr)
            if not watched(self):  # paused or closed by what was just called
                return
        # As the stock port: meet a burst with longer turns, but try accept(2) in vain as seldom as possible.
        self.numberAccepts = min(limit + 20, self._most) if taken == limit else max(1, taken)
        if taken and self._turns is not None:
            self._turns.pass_on()

    def _take(self, descriptor: int, sockaddr: Any) -> None:
        """Make protocol and transport for an accepted descriptor, or close it."""
        if self._open is not None:
            self._let_open(descriptor, sockaddr)
            return
        build = self._build
        try:
            protocol = self._protocol(sockaddr) if build is None else build(sockaddr)
        except BaseException:
            log.err(None, "Error in the factory of a listening port")
            protocol = None
        if protocol is None:
            os.close(descriptor)
            return
        number = self.sessionno
        self.sessionno = number + 1
        skt = BareSocket(self.addressFamily, self.socketType, 0, descriptor)
        transport = self.transport(skt, protocol, sockaddr, self, number, self.reactor)
        try:
            protocol.makeConnection(transport)
        except BaseException:
            log.err(None, "Error in connectionMade")
            if build is not None:
                transport.connectionLost(Failure())
        transport._begin_reading()

    def _let_open(self, descriptor: int, sockaddr: tuple[Any, ...]) -> None:
        number = self.sessionno
        self.sessionno = number + 1
        skt = BareSocket(self.addressFamily, self.socketType, 0, descriptor)
        skt.setblocking(False)
        try:
            self._open(skt, sockaddr, self, number)
        except BaseException:
            log.err(None, "Error in the opening of a connection")

    def _protocol(self, sockaddr: tuple[Any, ...]) -> Any:
        if len(sockaddr) == 4:
            sockaddr = tcp._getrealname(sockaddr)
        return self.factory.buildProtocol(self._buildAddr(sockaddr))  # type: ignore[union-attr]

    def _accept_in_trouble(self, limit: int) -> None:
        """accept(2) failed: go on with Twisted's own loop, which knows what to do about each error."""
        try:
            with tcp._BuffersLogs(self._logger.namespace, self._logger.observer) as logger:
                for skt, sockaddr in tcp._accept(logger, range(limit), self.socket, tcp._reservedFD):
                    self._take(skt.detach(), sockaddr)
                    if not self.reactor.watches(self):
                        break
        except BaseException:
            log.deferr()


class PlainUnixPort(unix.Port):
    """Twisted's unix port, but that it leaves the file and the queue of a socket alone that it was given ("adopted")."""

    #: removes the socket's file, if that is this port's to do: see net/binding.py
    file: Any = None
    _is_adopted = False
    _preexistingSocket: Any  # noqa: N815

    @override
    def startListening(self) -> None:
        skt, self._preexistingSocket = self._preexistingSocket, None
        if skt is None:
            super().startListening()
            return
        # What Twisted does, without opening the file to everybody and making the queue short.
        self._is_adopted = True
        self._shouldShutdown = False
        tcp._reservedFD.reserve()
        log.msg(f"{self._getLogPrefix(self.factory)} starting on {os.fsdecode(self._bindPath)!r}")
        self.factory.doStart()  # type: ignore[union-attr]
        self.socket = skt
        self.fileno = skt.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    @override
    def loseConnection(self, *arguments: Any) -> Any:
        # Now, since the rest comes a turn later, which a reactor that stops may not have.
        self._remove_file()
        return super().loseConnection(*arguments)

    stopListening = loseConnection  # noqa: N815

    def _remove_file(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            file.remove()

    @override
    def connectionLost(self, reason: Any) -> None:
        self._remove_file()
        if self._is_adopted:
            tcp.Port.connectionLost(self, reason)
        else:
            super().connectionLost(reason)


class LeanUnixPort(LeanPort, PlainUnixPort):
    """A unix port for factories with buildLean; all others get Twisted's, whose transports pass descriptors."""

    transport = FastUnixServer  # type: ignore[assignment]

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        unix.Port.__init__(self, *args, **kwargs)

    @override
    def startListening(self) -> None:
        PlainUnixPort.startListening(self)
        self._ask_factory()

    @override
    def _ask_factory(self) -> None:
        self._build = self._build_local
        self._open = getattr(self.factory, "openLean", None)

    def _build_local(self, sockaddr: tuple[Any, ...]) -> Any:
        return self.factory.buildLean((UNIX, 0))  # type: ignore[union-attr]

    @override
    def _take(self, descriptor: int, sockaddr: Any) -> None:
        super()._take(descriptor, (sockaddr or "", 0))

    _fromListeningDescriptor = unix.Port.__dict__["_fromListeningDescriptor"]  # noqa: N815
    __repr__ = unix.Port.__repr__
    getHost = unix.Port.getHost  # noqa: N815
    _buildAddr = unix.Port._buildAddr  # noqa: N815
    _logConnectionLostMsg = unix.Port._logConnectionLostMsg  # noqa: N815


def change_factory(port: Any, factory: Any) -> None:
    """Give a port another factory; each knows how many ports it has."""
    before, port.factory = port.factory, factory
    if before is not factory:
        factory.doStart()
        before.doStop()


def port_for(family: int, factory: Any) -> type[Any]:
    """The class of listening port that serves `factory` best on sockets of this family."""
    if family != socket.AF_UNIX:
        return LeanPort
    return LeanUnixPort if hasattr(factory, "buildLean") else PlainUnixPort
