"""Accept connections for one listener, as many as it may have (lb-reference.yaml: bind, backlog, max_connections).

Promises: past `max_connections`, or when the process is about to run out of descriptors, accepting pauses and new
connections wait in the kernel's queue; none is reset by us; it goes on as soon as there is room. Before it closes, all that
waits in that queue is accepted. Sockets are made here, so that the backlog, both address families and (later) hand-over
between processes are ours. On reactors other than ours too (`OrdinaryPort`). Called by app.py; the roads give it `connect`,
which makes a protocol for a peer, and call `connected` and `lost`, once for each connection.
"""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Callable
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.config.schema import Bind, ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.errors import Mistake, SystemRefusal

#: Descriptors that are kept free for dials, files and the admin interface while accepting goes on.
RESERVE: Final = 256
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


def open_sockets(bind: Bind, backlog: int) -> list[socket.socket]:
    """Listening sockets for a bind: one, or for ":8080" one of each family. Raises OSError."""
    if bind.host == "":
        first = _open(socket.AF_INET6, ("::", bind.port), backlog) if socket.has_ipv6 and _has_ipv6() else None
        port = first.getsockname()[1] if first is not None else bind.port
        try:
            second = _open(socket.AF_INET, ("0.0.0.0", port), backlog)
        except OSError:
            if first is not None:
                first.close()
            raise
        return [second] if first is None else [first, second]
    # A name is bound with every address that it has and that this machine has too (`localhost` where IPv6 is off).
    found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in dict.fromkeys((each[0], each[4]) for each in found):
        try:
            made.append(_open(family, address, backlog))
        except OSError as error:
            if error.errno not in (EADDRNOTAVAIL, EAFNOSUPPORT):
                for each in made:
                    each.close()
                raise
            absent = error
    if absent is not None and not made:
        raise absent
    return made


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _open(family: int, address: Any, backlog: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


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
        connect: Callable[[str], Protocol],
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.books = books
        self._reactor = reactor
        self._descriptors = descriptors
        self._connect = connect
        self._sockets: list[socket.socket] = []
        self._ports: list[Any] = []
        self._is_paused = False
        self._is_closed = False
        self._retry: Any = None
        self.addresses: list[str] = []

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
            host, port = made.getsockname()[:2]
            self.addresses.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def unbind(self) -> None:
        """Close sockets that were never served."""
        for made in self._sockets:
            made.close()
        self._sockets = []

    def accept(self) -> None:
        """Begin to accept."""
        for made in self._sockets:
            # adoptStreamPort duplicates the descriptor; adopted ports do not shut the socket down when they close
            port = self._reactor.adoptStreamPort(made.fileno(), made.family, self)
            self._ports.append(port if hasattr(port, "pauseAccepting") else OrdinaryPort(port))
        self.unbind()

    # -- as the ports see it

    def buildLean(self, peer: tuple[Any, ...]) -> Protocol | None:  # noqa: N802 - beside Twisted's buildProtocol
        """A protocol for a connection from `peer`, the socket's address."""
        books = self.books
        books.accepted += 1
        protocol = self._connect(peer[0])
        books.open += 1  # from here on its connectionLost is certain, and `lost` with it
        if books.open >= self.settings.max_connections:
            self._pause()
        return protocol

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return self.buildLean((getattr(addr, "host", ""), getattr(addr, "port", 0)))

    def connected(self, number: int) -> None:
        """A connection has been made on the descriptor `number`."""
        if self._descriptors.is_scarce(number) and not self._is_paused and not self._is_closed:
            self._descriptors.say()
            self._pause()
            self._retry = self._reactor.callLater(RETRY, self._try_again)

    def lost(self) -> None:
        """A connection of this listener is gone."""
        self.books.open -= 1
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
