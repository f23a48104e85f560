"""An in-memory TCP connection between two protocols that behaves like a real one where it hurts.

Promises: nothing is delivered but by `pump`; bytes are cut wherever the test says; each direction has a
kernel buffer of finite size, so that a reader who stops stops the writer too, first in the kernel's buffer,
then in the transport's queue (`queued`, bytes), then by pausing its producer. Half-close, close and abort
reach the peer as FIN or RST, with the reasons that Twisted gives (ConnectionDone, ConnectionLost,
ConnectionAborted). An RST destroys what was under way: that is harsher than Linux sometimes is, and exactly
what code must survive. Exceptions of a protocol reach the test.

Used by the codec, relay and exchange tests. Sizes are bytes. The semantics follow twisted.internet.tcp:
writing goes on after loseConnection while its queue drains; reading does not; a paused transport notices
neither FIN nor RST.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

KERNEL_BUFFER = 64 * 1024
LARGEST_READ = 64 * 1024


class Lane:
    """One direction: the kernel's bytes between a writer and a reader; has the writer finished?"""

    def __init__(self, room: int) -> None:
        self.room = room
        self.bytes = bytearray()
        self.finished = False  # FIN stands behind the bytes
        self.carried = 0  # delivered so far

    def take(self, offered: bytes) -> int:
        """Accept what fits and say how much that was."""
        accepted = min(len(offered), self.room - len(self.bytes))
        self.bytes += offered[:accepted]
        return accepted


@implementer(ITCPTransport, IConsumer, IPushProducer)
class WireTransport:
    """One end of a wire, as a protocol sees it."""

    high_water = 64 * 1024
    low_water = 16 * 1024

    def __init__(self, wire: Wire, out: Lane, into: Lane, host: IPv4Address, peer: IPv4Address) -> None:
        self.wire = wire
        self.out = out
        self.into = into
        self.host = host
        self.peer = peer
        self.protocol: Any = None
        self.connected = True
        self.disconnected = False
        self.disconnecting = False
        self.reading = True
        self.producer: Any = None
        self.streaming = False
        self.producer_paused = False
        self.no_delay = False
        self.keep_alive = False
        self.written = bytearray()  # everything that write() accepted, for tests
        self._queue = bytearray()
        self._finishing = False  # loseWriteConnection was called
        self._write_closed = False  # and has happened
        self._saw_end = False  # readConnectionLost was called
        self._reset = False  # an RST has arrived
        self._aborting = False
        self._closing_now = False  # loseConnection when both halves are closed already

    def __repr__(self) -> str:
        state = "connected" if self.connected else "lost"
        where = f"{self.host.port}->{self.peer.port}"
        return f"<WireTransport {where} {state} queued={self.queued} unread={len(self.into.bytes)}>"

    # -- what protocols call

    @property
    def queued(self) -> int:
        """Bytes that write() accepted and the kernel has not."""
        return len(self._queue)

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"bytes are written, not {type(data).__name__}")
        if not self.connected or self._write_closed or self._aborting or not data:
            return
        self.written += data
        self._queue += data
        if self.wire.immediate:
            self._push()
        if self.producer is not None and self.streaming and not self.producer_paused and self.queued > self.high_water:
            self.producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self, *ignored: Any) -> None:
        if self.connected and not self.disconnecting and not self._aborting:
            self.reading = False
            self.disconnecting = True
            self._closing_now = self._write_closed

    def loseWriteConnection(self) -> None:
        self._finishing = True

    def abortConnection(self) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self.reading = False

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting and not self._aborting:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    # Names under which Twisted's descriptors offer the same.
    stopReading = pauseProducing  # noqa: N815
    startReading = resumeProducing  # noqa: N815

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"a producer is registered already: {self.producer!r}")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streaming = streaming
        self.producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def getPeer(self) -> IPv4Address:
        return self.peer

    def getHost(self) -> IPv4Address:
        return self.host

    def getHandle(self) -> None:
        return None

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return self.keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = bool(enabled)

    # -- what the wire calls

    def _push(self) -> int:
        """Move queued bytes into the kernel's buffer; what an RST overtakes is lost."""
        moved = self.out.take(bytes(self._queue[: self.out.room]))
        del self._queue[:moved]
        return moved

    def step_writing(self) -> bool:
        """What the reactor does when the socket is writable; true where something happened."""
        if not self.connected:
            return False
        if self._aborting:
            self.wire.reset_peer_of(self)
            self._lost(ConnectionAborted())
            return True
        if self._reset and (self._queue or self.out.bytes):
            self._lost(ConnectionLost())
            return True
        happened = self._push() > 0
        if self._ask_producer():
            happened = True
        if not self.connected or self._aborting or self._queue:
            return happened
        if self._finishing and not self._write_closed and self.producer is None:
            self._write_closed = True
            self.out.finished = True
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.writeConnectionLost()
            return True
        if self.disconnecting and (self.producer is None or self._closing_now):
            self._lost(ConnectionDone())
            return True
        return happened

    def _ask_producer(self) -> bool:
        """Resume a push producer at the low water mark; ask a pull producer when the queue is empty."""
        if self.producer is None:
            return False
        if self.streaming:
            if self.producer_paused and self.queued <= self.low_water:
                self.producer_paused = False
                self.producer.resumeProducing()
                return True
            return False
        if not self._queue and self.out.room > len(self.out.bytes):
            self.producer.resumeProducing()
            return True
        return False

    def step_reading(self, limit: int) -> int:
        """Deliver up to `limit` bytes, or the end; returns how many bytes, or 1 for the end."""
        if not self.connected or not self.reading or self._aborting:
            return 0
        if self._reset:
            self._lost(ConnectionLost())
            return 1
        lane = self.into
        if lane.bytes:
            piece = bytes(lane.bytes[:limit])
            del lane.bytes[: len(piece)]
            lane.carried += len(piece)
            self.protocol.dataReceived(piece)
            return len(piece)
        if lane.finished and not self._saw_end:
            self._saw_end = True
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                self._lost(ConnectionDone())
            else:
                half.readConnectionLost()
            return 1
        return 0

    def receive_reset(self) -> None:
        """An RST arrived: what was under way is gone; the protocol hears of it when it reads or writes."""
        if self.connected:
            self._reset = True
            self.into.bytes.clear()
            self.out.bytes.clear()

    def _lost(self, reason: Exception) -> None:
        self.connected = False
        self.disconnected = True
        self.disconnecting = False
        self.reading = False
        self._queue.clear()
        if self.into.bytes:
            # A close with unread bytes resets: the peer may never see what we sent last.
            self.wire.reset_peer_of(self)
        self.out.finished = True
        if self.producer is not None:
            producer, self.producer = self.producer, None
            producer.stopProducing()
        protocol, self.protocol = self.protocol, None
        protocol.connectionLost(Failure(reason))


class Wire:
    """Two transports joined by two lanes. `left` is the client's end by custom, `right` the server's."""

    def __init__(
        self,
        left: Any = None,
        right: Any = None,
        *,
        clock: Clock | None = None,
        kernel: int = KERNEL_BUFFER,
        immediate: bool = True,
    ) -> None:
        """`immediate`: write() tries the socket at once, as lean transports do; False: as stock Twisted.

        `kernel`: bytes that fit between the two ends in each direction. With a clock, each pump also runs
        its calls that are due (callLater(0)). Given protocols are connected at once, the server first.
        """
        self.clock = clock
        self.immediate = immediate
        client, server = IPv4Address("TCP", "127.0.0.1", 50001), IPv4Address("TCP", "127.0.0.1", 8080)
        rightward, leftward = Lane(kernel), Lane(kernel)
        self.left = WireTransport(self, rightward, leftward, client, server)
        self.right = WireTransport(self, leftward, rightward, server, client)
        if right is not None:
            self.connect(self.right, right)
        if left is not None:
            self.connect(self.left, left)

    def connect(self, transport: WireTransport, protocol: Any) -> None:
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def reset_peer_of(self, transport: WireTransport) -> None:
        (self.right if transport is self.left else self.left).receive_reset()

    def pump(self, limit: int = LARGEST_READ) -> int:
        """One turn of the reactor: both ends write, then each reads at most `limit` bytes. 0: at rest."""
        if self.clock is not None:
            self.clock.advance(0)
        happened = 0
        for end in (self.left, self.right):
            if end.protocol is not None:
                happened += end.step_writing()
        for end in (self.right, self.left):
            if end.protocol is not None:
                happened += end.step_reading(limit)
        for end in (self.left, self.right):
            if not end.connected and end.into.bytes:
                # Bytes reached a socket that is closed.
                end.into.bytes.clear()
                self.reset_peer_of(end)
                happened += 1
        return happened

    def pump_all(self, limit: int = LARGEST_READ, turns: int = 1_000_000) -> None:
        """Pump until nothing moves; `limit=1` is byte by byte. An exchange without end fails."""
        for _ in range(turns):
            if not self.pump(limit):
                return
        raise AssertionError(f"still moving after {turns} turns: {self.left!r} {self.right!r}")

    def pump_random(self, rng: random.Random, largest: int = 100, turns: int = 1_000_000) -> None:
        """Pump until nothing moves, each time with another limit of 1 to `largest` bytes."""
        for _ in range(turns):
            if not self.pump(rng.randint(1, largest)):
                return
        raise AssertionError(f"still moving after {turns} turns: {self.left!r} {self.right!r}")


class Peer(Protocol):
    """A protocol that writes down what happens to it. `on_bytes(peer, piece)` may answer."""

    def __init__(self, on_bytes: Callable[[Any, bytes], None] | None = None) -> None:
        self.received = bytearray()
        self.pieces: list[int] = []
        self.events: list[str] = []
        self.lost: Exception | None = None
        self.on_bytes = on_bytes

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(len(data))
        if self.on_bytes is not None:
            self.on_bytes(self, data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.events.append("lost")
        self.lost = reason.value


@implementer(IHalfCloseableProtocol)
class HalfClosingPeer(Peer):
    """The same, told of each half; it goes on after the other side has finished until `loseConnection`."""

    def readConnectionLost(self) -> None:
        self.events.append("read-end")

    def writeConnectionLost(self) -> None:
        self.events.append("write-end")
