"""How our TCP transports end: what is read and written meanwhile is net/transports.py.

Promises: Twisted's semantics of loseConnection, loseWriteConnection, abortConnection and readConnectionLost, with less done
for each (tests/bench, `l4close`).
- A connection with nothing queued is closed at the end of the turn in which it was asked for, without EPOLLOUT; one with
  something queued when that has gone.
- connectionLost is called once. The socket is closed by close(2) alone where nobody else holds a copy (`_shouldShutdown` is
  False): no shutdown(2), and nothing is said to epoll.

Invariant: a transport is in the reactor's `_soon` if it is `_settling`. Called by net/reactor.py and by whoever has the
transport.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import error, main, tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python import log
from twisted.python.failure import Failure
from typing_extensions import override

if TYPE_CHECKING:
    from lbsvc.net.reactor import Reactor

DONE: Final = Failure(main.CONNECTION_DONE)
_half_closeable: Final[set[type]] = set()


class UnsaidEnd(error.ConnectionLost):
    """The other side's TLS has ended without close_notify: perhaps it was cut, perhaps its server never says so."""


class Closing(tcp.Connection):
    """A connected TCP socket, as far as its end is concerned; see the module docstring."""

    _direct = False  # as net/transports.py has it: false from the first word about an end on
    _read_later = False
    _settling = False
    _is_plain = True  # what is written goes to the socket as it is
    _tempDataLen = 0  # noqa: N815
    _shouldShutdown = False  # noqa: N815 (close() alone ends it: nobody else holds this socket)
    _pipe: Any = None
    _is_held_back = False  # what was written last waits for our end, to leave with it
    _send: Any
    _recv: Any
    reactor: Reactor

    @override
    def loseConnection(self) -> None:
        if self.TLS:
            tcp.Connection.loseConnection(self)
        else:
            lose(self)

    @override
    def loseWriteConnection(self) -> None:
        self._direct = False
        if self.connected:
            self._writeDisconnecting = True
            _finish(self)

    def settle(self) -> Any:
        """As doWrite, at the end of a turn; most often nothing is left to do but to close."""
        if (
            self.disconnecting
            and self._is_plain
            and self.producer is None
            and not self.dataBuffer
            and not self._tempDataLen
            and not self._aborting
        ):
            if self._is_held_back:
                _push(self)
            self.connectionLost(DONE)
            return None
        return self.doWrite()

    @override
    def readConnectionLost(self, reason: Failure) -> None:
        protocol = self.protocol
        if protocol.__class__ not in _half_closeable:
            if not IHalfCloseableProtocol.implementedBy(protocol.__class__):  # perhaps by an adapter
                tcp.Connection.readConnectionLost(self, reason)
                return
            _half_closeable.add(protocol.__class__)
        try:
            protocol.readConnectionLost()  # type: ignore[attr-defined]
        except BaseException:
            log.err()
            self.connectionLost(Failure())

    @override
    def abortConnection(self) -> None:
        self._direct = False
        tcp.Connection.abortConnection(self)

    @override
    def connectionLost(self, reason: Failure) -> None:
        if not hasattr(self, "socket"):  # a second call, as after abortConnection and then an exception
            return
        self._direct = False
        self._pipe = None
        self.connected = 0
        is_orderly = not issubclass(reason.type, error.ConnectionAborted)  # type: ignore[arg-type]
        skt = self.socket
        if self._shouldShutdown:
            self.reactor.forget(self)
        else:
            self.reactor.lose(self)
        self.disconnected = 1
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        if is_orderly and not self._shouldShutdown:
            try:
                skt.close()
            except OSError:
                pass
        else:
            self._closeSocket(is_orderly)
        protocol = self.protocol
        self._last = protocol.__class__
        del self.protocol, self.socket, self.fileno, self._send, self._recv
        protocol.connectionLost(reason)


def lose(transport: Closing) -> None:
    """FileDescriptor.loseConnection; with nothing queued the reactor closes at the end of this turn, without EPOLLOUT."""
    if transport.connected and not transport.disconnecting:
        transport._read_later = False
        transport.reactor.mute(transport)
        if transport._writeDisconnected:  # doWrite will not come any more
            transport.stopWriting()
            transport.connectionLost(DONE)
        else:
            transport.disconnecting = 1
            if transport.dataBuffer or transport._tempDataLen:
                transport.startWriting()
            elif not transport._settling:
                transport._settling = True
                transport.reactor._soon.append(transport)


def _push(transport: Closing) -> None:
    """Send what is held back, with our end: close(2) alone would throw it away where something lies unread, and reset."""
    try:
        transport.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it is lost already


def _finish(transport: Closing) -> None:
    """Have doWrite called, which closes what is to be closed: now writable, or as soon as it is."""
    if transport.dataBuffer or transport._tempDataLen:
        transport.startWriting()
    else:
        transport.reactor.settle_soon(transport)
