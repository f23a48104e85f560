"""Connections of HTTP/2 to one backend: which one a request's stream goes on, and when another is dialled.

Promises: requests that come while a connection is being opened wait for it, as many as it can be expected to take; the first
connection with room is used, so that others empty and go; each waiter hears of its stream or of a failure exactly once,
unless it is cancelled; a dial that nobody waits for any more is given up. With a PROXY header a connection belongs to one
header. Where ALPN may choose (`protocol: auto`), a backend that prefers HTTP/1.1 gets ordinary connections, and so does, for
DOWNGRADED seconds, one that has said HTTP_1_1_REQUIRED (RFC 9113, 7): that may be its word on one request only (one that
needs a client certificate, say), so after that it is asked again. Called by pooling.py; one Multiplexing is on
`Backend.multiplexed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lbsvc.core.backend import Backend, Outcome
from lbsvc.http.client import UpstreamConnection
from lbsvc.http.h2_client import MOST_STREAMS, H2Upstream
from lbsvc.http.h2_upstream import UpstreamStream
from lbsvc.net.client_tls import ClientTls
from lbsvc.net.connector import Dialling, dial
from lbsvc.net.protocol import BareProtocol

if TYPE_CHECKING:
    from lbsvc.http.pooling import Upstreams

#: Streams that a backend is expected to take before it has said how many (RFC 9113, 6.5.2 wishes for as many).
EXPECTED = 100
#: How long a backend that wants HTTP/1.1 gets it, in seconds.
DOWNGRADED = 300.0


class Multiplexing:
    """One backend's. `tls` None: by prior knowledge; `must`: HTTP/1.1 is never spoken to it."""

    def __init__(self, upstreams: Upstreams, backend: Backend, tls: ClientTls | None, must: bool) -> None:
        self.upstreams = upstreams
        self.backend = backend
        self.tls = tls
        self.must = must
        #: those that may have room, and those that were found to have none until a stream of theirs ends
        self.connections: list[H2Upstream] = []
        self.full: set[H2Upstream] = set()
        self.openings: list[Opening] = []
        #: how many requests may wait for one connection
        self.expected = EXPECTED
        #: until then HTTP/1.1 is spoken to it, as it has asked
        self._downgraded_until = 0.0

    @property
    def idle(self) -> int:
        """How many connections have no stream."""
        return sum(not each.codec.streams for each in self.connections)

    def take(self, may_repeat: bool, header: bytes = b"") -> UpstreamStream | None:
        """A stream on a connection that is open, or None."""
        if self._downgraded_until and self.is_downgraded:
            return None
        for connection in list(self.connections):
            if connection.header != header:
                continue
            if not connection.room:
                if connection.codec.streams:
                    self.connections.remove(connection)
                    self.full.add(connection)
            elif may_repeat or connection.codec.streams or not connection.has_ended():
                return UpstreamStream(connection)
            else:
                connection.cut()
        return None

    def downgrade(self) -> bool:
        """The backend wants HTTP/1.1 instead: will it get that?"""
        if not self.must:
            self._downgraded_until = self.upstreams.seconds() + DOWNGRADED
        return not self.must

    @property
    def is_downgraded(self) -> bool:
        """Whether HTTP/1.1 is spoken to it for now."""
        return self.upstreams.seconds() < self._downgraded_until

    def freed(self, connection: H2Upstream) -> None:
        """A stream of it has ended."""
        if connection in self.full:
            self.full.remove(connection)
            self.connections.append(connection)

    def dial(self, dialled: Callable[[Any], None], failed: Callable[[Outcome, str], None], header: bytes) -> Dialling:
        """A stream on a connection that is not open yet: calls one of the two, once."""
        if self.is_downgraded:
            return self.upstreams.dial(self.backend, dialled, failed, header, True)
        waiter = Waiter(dialled, failed)
        self.wait(waiter, header)
        return waiter

    def wait(self, waiter: Waiter, header: bytes) -> None:
        """Join a connection that is being opened, or open one."""
        for opening in self.openings:
            if opening.header == header and len(opening.waiters) < self.expected:
                opening.join(waiter)
                return
        opening = Opening(self, header)
        self.openings.append(opening)
        opening.join(waiter)
        opening.begin()

    def forget(self, connection: H2Upstream) -> None:
        """It takes no more streams."""
        self.full.discard(connection)
        if connection in self.connections:
            self.connections.remove(connection)

    def part(self) -> None:
        """Leave all: those without streams close now, the others behind the last of theirs, and take no more."""
        connections, self.connections, self.full = self.connections, [], set()
        for connection in connections:
            if not connection.codec.streams:
                connection.close()

    def trim(self, most: int) -> None:
        """So many may idle from now on: the oldest go. The others mind the new patience when they are looked at next."""
        idle = [each for each in self.connections if not each.codec.streams]
        for connection in idle[: max(len(idle) - most, 0)]:
            connection.close()
        for connection in idle[max(len(idle) - most, 0) :]:
            connection.look_again()


class Waiter:
    """A request that waits for a connection."""

    __slots__ = ("dialled", "dialling", "failed", "opening")

    def __init__(self, dialled: Callable[[Any], None], failed: Callable[[Outcome, str], None]) -> None:
        self.dialled = dialled
        self.failed = failed
        self.opening: Opening | None = None
        self.dialling: Dialling | None = None  # of its own, by HTTP/1.1

    def dial_ordinary(self, multiplexing: Multiplexing, header: bytes) -> None:
        """What it has waited for is not to be had: HTTP/1.1 is."""
        self.opening = None
        self.dialling = multiplexing.upstreams.dial(multiplexing.backend, self.dialled, self.failed, header, True)

    def cancel(self) -> None:
        """Give it up: nothing is called any more."""
        opening, self.opening = self.opening, None
        if opening is not None:
            opening.leave(self)
        dialling, self.dialling = self.dialling, None
        if dialling is not None:
            dialling.cancel()


class Opening:
    """A connection that is being dialled, or whose backend has not said its SETTINGS yet."""

    def __init__(self, multiplexing: Multiplexing, header: bytes) -> None:
        self.multiplexing = multiplexing
        self.header = header
        self.waiters: dict[Waiter, None] = {}
        self.connection: H2Upstream | None = None
        self._dialling: Dialling | None = None
        self._is_over = False

    def join(self, waiter: Waiter) -> None:
        """One more."""
        waiter.opening = self
        self.waiters[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """One less; the last one puts out the light."""
        self.waiters.pop(waiter, None)
        if self.waiters or self._is_over:
            return
        dialling, connection = self._dialling, self.connection
        self._settle()
        if dialling is not None:
            dialling.cancel()
        if connection is not None and connection.transport is not None:  # else it was still being dialled
            connection.opening = None
            connection.cut()

    def begin(self) -> None:
        """Dial."""
        multiplexing = self.multiplexing
        upstreams, backend, tls = multiplexing.upstreams, multiplexing.backend, multiplexing.tls
        protocol: Any
        if tls is None:
            self.connection = protocol = H2Upstream(upstreams, backend, self, self.header, b"http")
        else:
            protocol = _Chosen(self)
        patience = upstreams.settings.timeouts.connect
        dialling = dial(
            upstreams.reactor, backend.host, backend.port, protocol, patience, self.failed, tls, self.header
        )
        if not self._is_over:
            self._dialling = dialling

    def chosen(self, transport: Any) -> None:
        """The handshake is over: what have both sides agreed on?"""
        multiplexing = self.multiplexing
        upstreams, backend = multiplexing.upstreams, multiplexing.backend
        protocol: Any
        if transport.agreed == b"h2":
            self.connection = protocol = H2Upstream(upstreams, backend, self, self.header, b"https")
        elif multiplexing.must:
            transport.protocol = _NOBODY
            transport.abortConnection()
            self.failed(Outcome.CONNECT_FAILED, "does not speak HTTP/2 (it has not agreed on h2 by ALPN)")
            return
        else:
            multiplexing.expected = 1
            protocol = UpstreamConnection(upstreams, backend, self._got_ordinary, self.header)
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def _got_ordinary(self, connection: UpstreamConnection) -> None:
        """HTTP/1.1: a connection for one of them, and each other needs its own."""
        first, *others = self._settle()
        first.dialled(connection)
        for waiter in others:
            if waiter.opening is self:
                self.multiplexing.wait(waiter, self.header)

    def opened(self, connection: H2Upstream) -> None:
        """Its SETTINGS have come."""
        multiplexing = self.multiplexing
        multiplexing.connections.append(connection)
        took = False  # any at all: one that takes none would be dialled again and again
        multiplexing.expected = max(min(connection.codec.allowed_streams, MOST_STREAMS), 1)
        for waiter in self._settle():
            if waiter.opening is not self:
                continue  # it was cancelled by one before it
            if connection.room:
                took = True
                waiter.opening = None
                waiter.dialled(UpstreamStream(connection))
            elif took:
                multiplexing.wait(waiter, self.header)
            elif multiplexing.is_downgraded:
                waiter.dial_ordinary(multiplexing, self.header)
            else:
                waiter.opening = None
                waiter.failed(Outcome.CONNECT_FAILED, "it allows no streams")
        connection.stream_over()  # nobody may have been left

    def failed(self, outcome: Outcome, detail: str) -> None:
        """It has come to nothing."""
        for waiter in self._settle():
            if waiter.opening is self:
                waiter.opening = None
                waiter.failed(outcome, detail)

    def _settle(self) -> list[Waiter]:
        self._is_over = True
        self._dialling = None
        if self in self.multiplexing.openings:
            self.multiplexing.openings.remove(self)
        return list(self.waiters)


class _Chosen(BareProtocol):
    """Stands for a protocol until the handshake has said which it is."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    @override
    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connected = 1
        self._opening.chosen(transport)


_NOBODY = BareProtocol()
