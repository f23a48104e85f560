"""Accept connections for one listener, as many as it may have (bind, backlog, max_connections, connections_per_client).

Promises: past `max_connections`, or when the process is about to run out of descriptors, accepting pauses and new
connections wait in the kernel's queue; none is reset by us; it goes on as soon as there is room. Past
`connections_per_client` a client's connections get the protocol that `surplus` makes, which refuses them: as many as the
limit, or LEAST_SURPLUS; what is more, and all where there is no `surplus`, is closed at once. Before a listener closes, all
that waits in its queue is accepted. Sockets are made by net/binding.py, so that the backlog, both address families and
(later) hand-over between processes are ours. On reactors other than ours too (`OrdinaryPort`). Called by app.py; the roads
give it `connect` and `surplus`, which make a protocol for a peer (its IP address, or "unix"), and call `connected` and
`lost`, once for each connection.
"""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Callable
from errno import EAGAIN
from typing import Any, Final, TypeAlias

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.config.schema import ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.clients import ClientCounts, Surplus
from lbsvc.core.networks import UNIX
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.net.arrival import Arrival
from lbsvc.net.binding import SocketFile, adopt, open_sockets

#: Makes a road's protocol for a peer (its IP address, or "unix"), and for how it came, where there is anything to say.
Connect: TypeAlias = Callable[[str, Arrival | None], Protocol]

#: Descriptors that are kept free for dials, files and the admin interface while accepting goes on.
RESERVE: Final = 256
#: So many connections past its limit a client may have at least, to be told that they are.
LEAST_SURPLUS: Final = 16
#: How often a listener that paused for want of descriptors looks again, in seconds.
RETRY: Final = 0.5


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; the limit that is then in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


class Descriptors:
    """The process's room for descriptors, seen by the number of the newest one: the kernel gives the lowest free."""

    def __init__(self, limit: int, on_pause: Callable[[int], None] | None = None) -> None:
        self.ceiling = max(limit - RESERVE, limit // 2)
        self.limit = limit
        self._on_pause = on_pause
        self._has_said = False

    def is_scarce(self, number: int) -> bool:
        return number >= self.ceiling

    def are_scarce(self) -> bool:
        """Ask the kernel: what number would it give now?"""
        try:
            number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        os.close(number)
        return self.is_scarce(number)

    def say(self) -> None:
        """Once, not for each connection."""
        if not self._has_said and self._on_pause is not None:
            self._has_said = True
            self._on_pause(self.limit)


class _Gate(socket.socket):
    """A listening socket that can be shut: then nothing waits in it, as far as its port can see."""

    is_shut = False

    @override
    def accept(self) -> tuple[socket.socket, Any]:
        if self.is_shut:
            raise BlockingIOError(EAGAIN, "accepting is paused")
        return super().accept()


class OrdinaryPort:
    """Twisted's own port, as other reactors make it, with what ours can do: above all pause in the middle of a turn."""

    def __init__(self, port: Any) -> None:
        self._port = port
        # A stock port takes up to a hundred connections in a turn, whatever is said meanwhile; only its socket can stop it.
        self._gate = port.socket = _Gate(fileno=port.socket.detach())
        port.fileno = self._gate.fileno
        self.fileno = self._gate.fileno

    def pauseAccepting(self) -> None:  # noqa: N802 - as net/ports.py
        self._gate.is_shut = True
        self._port.stopReading()

    def resumeAccepting(self) -> None:  # noqa: N802 - as net/ports.py
        self._gate.is_shut = False
        self._port.startReading()

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        self._gate.is_shut = False
        self._port.doRead()

    def stopReading(self) -> None:  # noqa: N802 - Twisted's name
        self._port.stopReading()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        self._port.connectionLost(reason)


class Listener(Factory):
    """One listener: its sockets, its ports, its limit. A factory to its ports."""

    noisy = False

    def __init__(
        self,
        settings: ListenerSettings,
        books: ListenerBooks,
        reactor: Any,
        descriptors: Descriptors,
        connect: Connect,
        surplus: Connect | None = None,
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.books = books
        self._reactor = reactor
        self._descriptors = descriptors
        self._connect = connect
        self._surplus = surplus
        limit = settings.connections_per_client
        self._clients: ClientCounts | None = None
        if limit is not None:
            self._clients = ClientCounts(limit, max(limit, LEAST_SURPLUS) if surplus is not None else 0)
        self._sockets: list[socket.socket] = []
        self._files: list[SocketFile] = []
        self._ports: list[Any] = []
        self._is_paused = False
        self._is_closed = False
        self._retry: Any = None
        self.addresses: list[str] = []
        #: takes accepted sockets in place of buildLean, where something comes before the road's first byte (net/opening.py)
        self.openLean: Callable[[socket.socket, tuple[Any, ...], Any, int], None] | None = None

    def bind(self) -> None:
        """Open the sockets; raises SystemRefusal with every bind that is refused."""
        mistakes = []
        for bind in self.settings.binds:
            try:
                self._sockets += open_sockets(bind, self.settings.backlog)
            except OSError as error:
                reason = error.strerror or str(error)
                mistakes.append(Mistake("", 0, 0, f"listeners.{self.name}.bind", f"cannot listen on {bind}: {reason}"))
        if mistakes:
            self.unbind()
            raise SystemRefusal(mistakes)
        for made in self._sockets:
            file = getattr(made, "file", None)
            if file is not None:
                self._files.append(file)
                self.addresses.append(f"unix:{file.path}")
                continue
            host, port = made.getsockname()[:2]
            self.addresses.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def unbind(self) -> None:
        """Close sockets that were never served."""
        for made in self._sockets:
            made.close()
        self._sockets = []

    def accept(self) -> None:
        """Begin to accept."""
        sockets, self._sockets = self._sockets, []
        for made in sockets:
            # adopted ports do not shut the socket down when they close
            port = adopt(self._reactor, made, self)
            self._ports.append(port if hasattr(port, "pauseAccepting") else OrdinaryPort(port))

    # -- as the ports see it

    def buildLean(self, peer: tuple[Any, ...]) -> Protocol | None:  # noqa: N802 - beside Twisted's buildProtocol
        """A protocol for a connection from `peer`, the socket's address."""
        books = self.books
        books.accepted += 1
        clients = self._clients
        protocol = self._connect(peer[0], None) if clients is None else self._connect_counted(peer[0], clients)
        if protocol is None:
            return None
        books.open += 1  # from here on its connectionLost is certain, and `lost` with it
        if books.open >= self.settings.max_connections:
            self._pause()
        return protocol

    def _connect_counted(self, peer: str, clients: ClientCounts) -> Protocol | None:
        """The same where each client may have so many: past them a refusal, in words or without."""
        entered = self.admit(peer)
        if entered is None:
            return None
        try:
            return self.make(entered, None)
        except BaseException:
            clients.leave(entered)
            raise

    # -- as openings see it (net/opening.py)

    def entered(self, number: int) -> None:
        """A connection has been accepted on the descriptor `number`, which counts from now on, until it is `lost`."""
        books = self.books
        books.accepted += 1
        books.open += 1
        self.connected(number)
        if books.open >= self.settings.max_connections:
            self._pause()

    def admit(self, peer: str) -> str | None:
        """Count a client's connection: as whose `make` and `lost` are to be told of it; None: it is one too many."""
        clients = self._clients
        if clients is None:
            return peer
        entered = clients.enter(peer)
        if entered is not peer:
            self.books.rejected["connections"] += 1
        return entered

    def make(self, entered: str, arrival: Arrival | None) -> Protocol:
        """The road's protocol for a client that was admitted."""
        if self._surplus is not None and isinstance(entered, Surplus):
            return self._surplus(entered, arrival)
        return self._connect(entered, arrival)

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        if isinstance(addr, UNIXAddress):
            return self.buildLean((UNIX, 0))
        return self.buildLean((getattr(addr, "host", ""), getattr(addr, "port", 0)))

    def connected(self, number: int) -> None:
        """A connection has been made on the descriptor `number`."""
        if self._descriptors.is_scarce(number) and not self._is_paused and not self._is_closed:
            self._descriptors.say()
            self._pause()
            self._retry = self._reactor.callLater(RETRY, self._try_again)

    def lost(self, peer: str | None) -> None:
        """A connection of this listener is gone; `peer` is what its protocol was made for, None: it was not admitted."""
        self.books.open -= 1
        if self._clients is not None and peer is not None:
            self._clients.leave(peer)
        if self._is_paused and self._retry is None:
            self._resume()

    def _try_again(self) -> None:
        if self._descriptors.are_scarce():
            self._retry = self._reactor.callLater(RETRY, self._try_again)
        else:
            self._retry = None
            self._resume()

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            for port in self._ports:
                port.pauseAccepting()

    def _resume(self) -> None:
        if self._is_paused and not self._is_closed and self.books.open < self.settings.max_connections:
            self._is_paused = False
            for port in self._ports:
                port.resumeAccepting()

    def close(self) -> None:
        """Stop accepting; what waits in the accept queue is accepted first, since closing would reset it."""
        if self._is_closed:
            return
        self._is_closed = True
        for file in self._files:
            file.remove()  # before the queue is emptied: nobody can come after that
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        for port in self._ports:
            self._accept_rest(port)
            # At once, and not by stopListening, which closes a turn later: what came until then would be reset.
            port.stopReading()
            port.connectionLost(Failure(CONNECTION_DONE))
        self._ports = []
        self.unbind()

    def _accept_rest(self, port: Any) -> None:
        """Accept until the queue is empty, but not many more than it holds: others go on coming."""
        queue = select.poll()
        queue.register(port.fileno(), select.POLLIN)
        holds = self.settings.backlog + 1
        enough = self.books.accepted + holds
        for _ in range(holds):
            if self.books.accepted >= enough or not queue.poll(0):
                break
            port.doRead()
