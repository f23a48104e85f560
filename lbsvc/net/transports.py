"""TCP transports that write at once and read lean; everything else about them is Twisted's.

Who calls it: `net/ports.py` (accepted sockets) and `net/dialing.py` (dialled sockets) derive their transports from
FastConnection; above them they are ordinary ITCPTransports.

Promises
- `write` tries the socket first, and only while nothing could go wrong by it: connected, not aborting, write side not closed
  or closing, not TLS, nothing queued before it, no pull producer. In every other case, and for what the kernel did not take,
  Twisted's queue and its EPOLLOUT do the work. No error is raised or reported from inside `write`: `doWrite` reports it.
- What the socket did not take is kept by reference, never copied, as (`dataBuffer`, `offset`).
- A push producer is paused above `bufferSize` (64 KiB) queued bytes and resumed at `lowWater` (16 KiB), not only when empty.
- One read of at most READ_SIZE (124 KiB), and one send of at most `SEND_LIMIT` (256 KiB), for each event: no connection
  starves another.
- TCP_NODELAY is on: sockets that write at once would otherwise meet Nagle's algorithm with the second small write.

Invariant: `_direct` implies `_may_send()` and not `TLS`. Whoever makes one of those conditions false clears the flag first;
it comes back where the queue is found empty (`doWrite`) or the producer leaves.

Decision: 2026-11-21, reading is `recv(READ_SIZE)`, not `recv_into` one shared buffer. Measured with 25 interleaved
repetitions, minimum, Python 3.11, loopback, 100 bytes: recv(65536) 2609 ns, recv(4096) 2625, recv_into and bytes() 2883.
64 KiB: recv(65536) 3.3 us, recv_into 6.4 us (it copies once more), recv(16384) 5.6 us. The block is cut in place; and no
shared buffer means no reentrancy trap. What makes blocks of 128 KiB as cheap is said in net/allocation.py.

Decision: 2026-11-22, bulk is copied, not moved by splice(2). A MiB by `l4bulk`, medians of 5 rounds in turns: copied 328 us
of CPU, in reads of 252 KiB 401, spliced by 256 KiB 423, HAProxy 354. The copies are gone then, but the kernel sends what is
in a pipe in pieces of 16 pages, and each of them wakes the reader (perf: 36 % of the time, 12 % copied).

Decision: 2026-11-21, unix sockets of listenUNIX/connectUNIX keep Twisted's own transports: sendFileDescriptor may follow
the write whose bytes carry it, so those bytes must wait in the queue.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from errno import ENOBUFS, EPIPE
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import _newtls, main, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IProtocol
from typing_extensions import override

from lbsvc.net.allocation import keep_freed_memory
from lbsvc.net.closing import Closing

if TYPE_CHECKING:
    from lbsvc.net.reactor import Reactor

READ_SIZE: Final = 126976 if keep_freed_memory() else 65536
"""A body of 64 KiB, its head, and what heads grow by, in one read and one write (tests/bench, `post`)."""
JOIN_BELOW = 16384
"""writeSequence joins pieces up to this many bytes in all; above it sendmsg saves the copy."""
IOV_MAX = 1024


class FastConnection(Closing):
    """A connected TCP socket; see the module docstring."""

    SEND_LIMIT = 262144  # what is read at once goes out at once
    lowWater = 16384  # noqa: N815 (beside Twisted's bufferSize)
    _direct = False
    _read_later = False
    _reset = False
    piped = 0
    reactor: Reactor

    @override
    def __init__(self, skt: socket.socket, protocol: IProtocol | None, reactor: Any = None) -> None:
        # Every class that is made by Twisted's own code (Client) comes through here.
        tcp.Connection.__init__(self, skt, protocol, reactor)  # type: ignore[arg-type]
        self._send = skt.send
        self._recv = skt.recv

    @property
    def queued(self) -> int:
        """Bytes that were written but that the kernel has not taken yet."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    # Reading

    @override
    def doRead(self) -> Any:
        try:
            received = self._recv(READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not received:
            return main.CONNECTION_LOST if self._reset else main.CONNECTION_DONE
        pipe = self._pipe
        if pipe is None:
            self.protocol.dataReceived(received)
            return None
        # A relayed chunk: `write`, unrolled once more, spares two calls of three (tests/bench, `l4`: 10 %).
        size = len(received)
        self.piped += size
        if pipe._direct:
            try:
                sent = pipe._send(received)
            except BlockingIOError:
                sent = 0
            except OSError as problem:
                sent = pipe._refused(problem)
            if sent != size:
                pipe._keep(received, sent)
        else:
            pipe.write(received)
        return None

    def pipe_to(self, other: FastConnection | None) -> None:
        """From now on write what is read to `other`, without asking the protocol; None: no longer. `piped` counts bytes."""
        self._pipe = other

    @override
    def startReading(self) -> None:
        if not self.disconnected:
            self._read_later = False
            self.reactor.addReader(self)

    @override
    def stopReading(self) -> None:
        # Without a descriptor the reactor would search all selectables for us.
        if not self.disconnected:
            self._read_later = False
            if self.fileno() in self.reactor._reads:
                self.reactor.removeReader(self)

    def _begin_reading(self) -> None:
        """Start reading after makeConnection, unless the protocol said otherwise there: saves two epoll_ctl calls."""
        if self._read_later and not self.disconnected:
            self._read_later = False
            self.reactor.addReader(self)

    # Writing

    def _may_send(self) -> bool:
        """Whether bytes given to the socket now would keep their place and their meaning (TLS aside)."""
        return bool(
            self.connected
            and not self.dataBuffer
            and not self._tempDataLen
            and (self.producer is None or self.streamingProducer)
            and not self._aborting
            and not self._writeDisconnecting
            and not self._writeDisconnected
        )

    def _rearm(self) -> None:
        self._direct = not self.TLS and self._may_send()

    @override
    def write(self, data: bytes) -> None:
        # The hot path of both roads (tests/bench/reactor_cost.py): one flag, one syscall. The body is _send_now, unrolled.
        if not self._direct or not data or not isinstance(data, bytes):
            tcp.Connection.write(self, data)
            return
        size = len(data)
        if size > self.SEND_LIMIT:
            self._send_now(data)
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            sent = self._refused(problem)
        if sent != size:
            self._keep(data, sent)

    def write_last(self, data: bytes) -> None:
        """As `write`, of what our end follows in this very turn: both leave as one segment, and wake the client once.

        Without that end the last part of it would be held back for 200 ms (tcp(7), MSG_MORE).
        """
        if not self._direct or not self._is_plain or not 0 < len(data) <= JOIN_BELOW:
            self.write(data)
            return
        self._is_held_back = True
        try:
            sent = self._send(data, socket.MSG_MORE)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            sent = self._refused(problem)
        if sent != len(data):
            self._keep(data, sent)

    def _refused(self, problem: OSError) -> int:
        """A send failed; doWrite will find that out again, and say so. Nothing was sent.

        But the failure has taken the reset out of the socket, and a read that comes first would take it for an orderly end.
        (EPIPE: the peer had ended its side in order before; so a read says rightly.)
        """
        if problem.errno not in (EPIPE, ENOBUFS):
            self._reset = True
        return 0

    def _send_now(self, data: bytes) -> None:
        try:
            sent = self._send(memoryview(data)[: self.SEND_LIMIT])
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            sent = self._refused(problem)
        if sent != len(data):
            self._keep(data, sent)

    def _keep(self, data: bytes, sent: int) -> None:
        """Queue `data` from `sent` on; the queue is empty."""
        self._direct = False
        self.dataBuffer = data
        self.offset = sent
        self._maybePauseProducer()
        self.startWriting()

    @override
    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self._direct:
            sequence_now(self, iovec)
        else:
            tcp.Connection.writeSequence(self, iovec)

    @override
    def startWriting(self) -> None:
        if not self.disconnected:
            self.reactor.addWriter(self)

    @override
    def stopWriting(self) -> None:
        if not self.disconnected:
            self.reactor.removeWriter(self)

    @override
    def _isSendBufferFull(self) -> bool:
        return len(self.dataBuffer) - self.offset + self._tempDataLen > self.bufferSize

    @override
    def doWrite(self) -> Any:
        """As FileDescriptor.doWrite, but copies nothing while nothing was written since, and minds the low water mark."""
        buffer = self.dataBuffer
        offset = self.offset
        if self._tempDataLen and len(buffer) - offset < self.SEND_LIMIT:
            pieces: list[Any] = self._tempDataBuffer
            if len(buffer) > offset:
                pieces = [memoryview(buffer)[offset:], *pieces]
            self.dataBuffer = buffer = b"".join(pieces)
            self.offset = offset = 0
            self._tempDataBuffer = []
            self._tempDataLen = 0
        if len(buffer) > offset:
            try:
                offset += self._send(memoryview(buffer)[offset : offset + self.SEND_LIMIT])
            except BlockingIOError:
                pass
            except OSError as problem:
                if problem.errno != ENOBUFS:
                    return main.CONNECTION_LOST
            self.offset = offset
        producer = self.producer
        if offset < len(buffer) or self._tempDataLen:
            if (
                self.producerPaused
                and producer is not None
                and self.streamingProducer
                and len(buffer) - offset + self._tempDataLen <= self.lowWater
            ):
                self.producerPaused = False
                producer.resumeProducing()  # type: ignore[attr-defined]
            return None
        self.dataBuffer = b""
        self.offset = 0
        if self.fileno() in self.reactor._writes:
            self.reactor.removeWriter(self)
        self._rearm()
        if producer is not None and (not self.streamingProducer or self.producerPaused):
            self.producerPaused = False
            producer.resumeProducing()  # type: ignore[attr-defined]
        elif self.disconnecting:
            return self._postLoseConnection()
        elif self._writeDisconnecting:
            self._writeDisconnected = True
            return self._closeWriteConnection()
        return None

    # Producers

    @override
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if streaming and self.producer is None and not self.disconnected and not self.TLS:
            self.producer = producer
            self.streamingProducer = streaming
            return
        if not streaming:
            # A pull producer lives on the turns of doWrite: all it writes goes through the queue.
            self._direct = False
        try:
            tcp.Connection.registerProducer(self, producer, streaming)
        finally:
            if not streaming and self.producer is not producer:
                self._rearm()

    @override
    def unregisterProducer(self) -> None:
        if self.streamingProducer and not self.disconnecting and not self.TLS:
            self.producer = None  # whether writing may go on does not depend on it
            return
        tcp.Connection.unregisterProducer(self)
        self._rearm()

    @override
    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        # From here on no byte of the application may pass but through the TLS protocol.
        self._direct = False
        from lbsvc.net.beneath import BeneathTLS  # here, since it is made of this module's functions

        _newtls.startTLS(self, ctx, normal, BeneathTLS)
        if producer is not None:
            self.registerProducer(producer, streaming)


def sequence_now(transport: FastConnection, iovec: Iterable[bytes]) -> None:
    """writeSequence straight to the socket; the caller knows that the transport may send."""
    pieces = list(iovec)
    size = 0
    for piece in pieces:
        if not isinstance(piece, bytes):
            raise TypeError("Data must be bytes")
        size += len(piece)
    if size >= 2 * transport.bufferSize or len(pieces) > IOV_MAX:
        transport._direct = False
        FileDescriptor.writeSequence(transport, pieces)
        return
    if size <= JOIN_BELOW:
        if size:
            transport._send_now(b"".join(pieces))
        return
    try:
        sent = transport.socket.sendmsg(pieces)
    except BlockingIOError:
        sent = 0
    except OSError as problem:
        sent = transport._refused(problem)
    if sent != size:
        for index, piece in enumerate(pieces):
            if sent < len(piece):
                transport._tempDataBuffer = pieces[index + 1 :]
                transport._tempDataLen = sum(map(len, transport._tempDataBuffer))
                transport._keep(piece, sent)
                return
            sent -= len(piece)
