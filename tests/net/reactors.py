"""A private reactor for each test, turned by hand, and protocols that remember what happened to them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from lbsvc.net.reactor import Reactor

#: Seconds before a test that waits for something has failed.
PATIENCE = 20


class Side(Protocol):
    """One end of a connection; `on_data`, if set, is called with what was received."""

    made = False
    on_data: Callable[[bytes], object] | None = None
    on_made: Callable[[], object] | None = None

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: list[Any] = []

    def connectionMade(self) -> None:
        self.made = True
        if self.on_made is not None:
            self.on_made()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.on_data is not None:
            self.on_data(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfSide(Side):
    """One end of a connection that goes on when the other has finished sending."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")


class Serving(ServerFactory):
    """Hands out the protocols it was given, or new Sides."""

    noisy = False

    def __init__(self, *protocols: Any) -> None:
        self.protocols = list(protocols)
        self.built: list[Any] = []
        self.addresses: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        self.built.append(self.protocols.pop(0) if self.protocols else Side())
        return self.built[-1]


class LeanServing(Serving):
    """As Serving, for a lean port."""

    def buildLean(self, sockaddr: tuple[Any, ...]) -> Any:
        return Serving.buildProtocol(self, sockaddr)

    def buildProtocol(self, addr: Any) -> Any:
        raise AssertionError("a lean port asks for buildLean")


class Dialling(ClientFactory):
    """Connects one protocol."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self.it = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self.it


class Watched:
    """A bare selectable that counts its events."""

    def __init__(self, fd: int, act: Callable[[], Any] = lambda: None) -> None:
        self.fd = fd
        self.act = act
        self.reads = 0
        self.writes = 0
        self.lost: list[Any] = []

    def fileno(self) -> int:
        return self.fd

    def doRead(self) -> Any:
        self.reads += 1
        return self.act()

    def doWrite(self) -> Any:
        self.writes += 1
        return self.act()

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason.type)

    def logPrefix(self) -> str:
        return "watched"


class ReactorCase(SynchronousTestCase):
    """Builds `kind`, turns it, and takes it apart."""

    kind: Any = Reactor

    def setUp(self) -> None:
        self.reactor: Any = self.kind()
        self.ends: list[socket.socket] = []
        self.addCleanup(self._take_apart)

    def _take_apart(self) -> None:
        self.reactor.disconnectAll()
        for reader in list(self.reactor._internalReaders):
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        self.reactor._poller.close()
        for end in self.ends:
            end.close()

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Two plain connected sockets that do not block."""
        pair = socket.socketpair()
        for end in pair:
            end.setblocking(False)
        self.ends += pair
        return pair

    def turn(self, number: int = 3) -> None:
        """Turns of the reactor that do not wait for anything."""
        for _ in range(number):
            self.reactor.iterate(0)

    def spin(self, done: Callable[[], object]) -> None:
        """Turn until done() is true."""
        end = time.monotonic() + PATIENCE
        while not done():
            self.reactor.iterate(0.01)
            if time.monotonic() > end:
                self.fail("it did not happen")

    def listen(self, factory: Any, interface: str = "127.0.0.1") -> Any:
        return self.reactor.listenTCP(0, factory, interface=interface)

    def pair(self, server: Any = None, client: Any = None) -> tuple[Any, Any]:
        """Two connected protocols on this reactor: the accepted one, the connecting one."""
        server, client = server or Side(), client or Side()
        port = self.listen(Serving(server))
        self.reactor.connectTCP("127.0.0.1", port.getHost().port, Dialling(client))
        self.spin(lambda: server.made and client.made)
        port.stopListening()
        self.turn()
        return server, client

    def accepted(self, server: Any = None, factory: type[Serving] = Serving) -> tuple[Any, socket.socket]:
        """An accepted protocol, and the plain blocking socket at its other end."""
        server = server or Side()
        port = self.listen(factory(server))
        far = socket.create_connection(("127.0.0.1", port.getHost().port), PATIENCE)
        self.ends.append(far)
        self.spin(lambda: server.made)
        port.stopListening()
        self.turn()
        return server, far

    def read_all(self, far: socket.socket) -> bytes:
        """Everything that comes to a plain socket until its end, while the reactor turns."""
        far.setblocking(False)
        received = bytearray()
        end = time.monotonic() + PATIENCE
        while True:
            try:
                piece = far.recv(1 << 20)
            except BlockingIOError:
                self.reactor.iterate(0)
                if time.monotonic() > end:
                    self.fail(f"no end after {len(received)} bytes")
                continue
            if not piece:
                return bytes(received)
            received += piece


class TwistedsOwn:
    """Mixin: the same tests on Twisted's own reactor, to show that they ask for nothing new."""

    kind = EPollReactor
