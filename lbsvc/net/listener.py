"""Accept connections for one listener, as many as it may have (bind, backlog, max_connections, connections_per_client).

Promises: past `max_connections`, or when the process is about to run out of descriptors, accepting pauses and new
connections wait in the kernel's queue; none is reset by us; it goes on as soon as there is room. Past
`connections_per_client` a client's connections get the protocol that `surplus` makes, which refuses them: as many as the
limit, or LEAST_SURPLUS; what is more, and all where there is no `surplus`, is closed at once. Before a listener closes, all
that waits in its queue is accepted. Sockets are made by net/binding.py, so that the backlog, both address families and
(later) hand-over between processes are ours; net/sockets.py says what becomes of them when the binds change. `apply` changes
limits, and `take` binds, at run time. On reactors other than ours too. Called by listening.py and relistening.py; the roads
give it `connect` and `surplus`, which make a protocol for a peer (its IP address, or "unix"), and call `connected` and
`lost`, once for each connection.
"""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from typing_extensions import override

from lbsvc.config.schema import ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.clients import ClientCounts, Surplus
from lbsvc.core.networks import UNIX
from lbsvc.errors import SystemRefusal
from lbsvc.net.arrival import Arrival
from lbsvc.net.binding import open_sockets
from lbsvc.net.sockets import Bound, Opener, refused

#: Makes a road's protocol for a peer (its IP address, or "unix"), and for how it came, where there is anything to say.
Connect: TypeAlias = Callable[[str, Arrival | None], Any]  # Twisted's Protocol or ours (net/protocol.py)

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
        open_bind: Opener = open_sockets,
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.books = books
        self._reactor = reactor
        self._descriptors = descriptors
        self._connect = connect
        self._surplus = surplus
        self._open_bind = open_bind
        self._clients: ClientCounts | None = None
        self._count_clients(())
        #: what its binds have come to, in their order
        self.bound: list[Bound] = []
        self._is_paused = False
        self._is_closed = False
        self._retry: Any = None
        #: takes accepted sockets in place of buildLean, where something comes before the road's first byte (net/opening.py)
        self.openLean: Callable[[socket.socket, tuple[Any, ...], Any, int], None] | None = None

    def _count_clients(self, peers: Iterable[str]) -> None:
        """Each client may have `connections_per_client`; `peers` are those of connections that `lost` will tell of."""
        limit = self.settings.connections_per_client
        if limit is None:
            self._clients = None
            return
        surplus = max(limit, LEAST_SURPLUS) if self._surplus is not None else 0
        if self._clients is not None:
            self._clients.limit, self._clients.surplus = limit, surplus
            return
        self._clients = ClientCounts(limit, surplus)
        for peer in peers:
            self._clients.count(peer)

    def bind(self) -> None:
        """Open the sockets; raises SystemRefusal with every bind that is refused."""
        mistakes = []
        backlog = self.settings.backlog
        for bind in self.settings.binds:
            try:
                self.bound.append(Bound(bind, self._open_bind(bind, backlog), backlog))
            except OSError as error:
                mistakes.append(refused(self.name, bind, error))
        if mistakes:
            self.unbind()
            raise SystemRefusal(mistakes)

    def unbind(self) -> None:
        """Close sockets that were never served."""
        bounds, self.bound = self.bound, []
        for bound in bounds:
            bound.close()

    def accept(self) -> None:
        """Begin to accept."""
        for bound in self.bound:
            bound.adopt(self._reactor, self)

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return [address for bound in self.bound for address in bound.addresses]

    @property
    def clients(self) -> ClientCounts | None:
        """How many connections each client has; None where any may have any number."""
        return self._clients

    @property
    def ports(self) -> list[Any]:
        """All of its ports."""
        return [port for bound in self.bound for port in bound.ports]

    # -- at run time

    def apply(self, settings: ListenerSettings, peers: Iterable[str]) -> None:
        """Other limits, from now on; `peers` are what the protocols of its connections were made for."""
        self.settings = settings
        self._count_clients(peers)
        if self.books.open >= settings.max_connections:
            self._pause()
        elif self._retry is None:
            self._resume()

    def take(self, bounds: list[Bound]) -> None:
        """These are its binds from now on: ports that were another's, and those that it has, as it wants to be told now."""
        self.bound = bounds
        if self.books.open >= self.settings.max_connections:
            self._is_paused = True  # by connections of one of the same name, which is leaving
        for bound in bounds:
            bound.serve(self, self._is_paused, self.settings.backlog)

    def drop(self, bound: Bound) -> None:
        """One of its binds goes; what waits in its queue is accepted first, since closing would reset it."""
        bound.close(self._accept_rest)
        self.bound = [each for each in self.bound if each is not bound]

    def adopt_rest(self, bound: Bound) -> None:
        """Accept what waits in the queue of a bind that goes, and was never its own."""
        bound.serve(self, True, self.settings.backlog)
        for port in bound.ports:
            self._accept_rest(port, bound.holds)

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
            surplus: Protocol = self._surplus(entered, arrival)
            return surplus
        connection: Protocol = self._connect(entered, arrival)
        return connection

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
            for port in self.ports:
                port.pauseAccepting()

    def _resume(self) -> None:
        if self._is_paused and not self._is_closed and self.books.open < self.settings.max_connections:
            self._is_paused = False
            for port in self.ports:
                port.resumeAccepting()

    def close(self) -> None:
        """Stop accepting; what waits in the accept queue is accepted first, since closing would reset it."""
        if self._is_closed:
            return
        self._is_closed = True
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        for bound in list(self.bound):
            self.drop(bound)

    def _accept_rest(self, port: Any, holds: int) -> None:
        """Accept until the queue is empty, but not many more than it holds: others go on coming."""
        queue = select.poll()
        queue.register(port.fileno(), select.POLLIN)
        enough = self.books.accepted + holds + 1
        for _ in range(holds + 1):
            if self.books.accepted >= enough or not queue.poll(0):
                break
            port.doRead()
