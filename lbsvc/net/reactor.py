"""An EPollReactor that does less for each event, and whose TCP transports write at once: Twisted, only faster.

Who calls it: `tap.py` installs it if no reactor was chosen; everything else gets it as an argument. On any other reactor
lbsvc works too, through `net/connector.py`, only slower.

Promises, over and above EPollReactor's:
- `seconds()` is the monotonic clock, and every timer (callLater, LoopingCall) runs on it: steps of the wall clock move none.
- What epoll is told is in `net/watching.py`; TCP connections are `net/transports.py`, TCP ports and adopted ports
  `net/ports.py`; `dial` is `net/dialing.py`.
- An event is passed on only to the selectable it was meant for: one whose descriptor was closed since the poll, even if the
  number is in use again, and one that is no longer read or written, get nothing.
- An exception out of a selectable is logged and costs that connection only. There is a log context as on any reactor, but
  its `system` is made when something is logged: making one for each event costs 3 us.
- A connection that is closed with nothing left to send is lost at the end of the turn, not inside loseConnection.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable
from errno import EINTR
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Any, cast

from twisted.internet import error, unix
from twisted.internet.base import _topHandler
from twisted.internet.interfaces import IProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST, installReactor
from twisted.internet.posixbase import _NO_FILEDESC
from twisted.internet.tcp import Connector
from twisted.python import context as log_context
from twisted.python import log
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.net import dialing
from lbsvc.net.closing import DONE, Closing
from lbsvc.net.dialing import FastClient
from lbsvc.net.ports import FastServer, LeanPort, port_for
from lbsvc.net.transports import FastConnection
from lbsvc.net.watching import Watching

MOST_EVENTS = 256
"""Events taken in one poll; epoll hands out the rest in turn. Twisted's own limit grows with the idle connections."""

_REASONS = {error.ConnectionDone: DONE, error.ConnectionLost: Failure(CONNECTION_LOST)}
_HANG_UP = EPOLLHUP | EPOLLERR


class Reactor(Watching):
    """See the module docstring."""

    seconds = staticmethod(monotonic)

    @override
    def __init__(self) -> None:
        #: polls so far: what came about in this one has not been heard of since
        self.turn = 0
        # Transports with nothing queued whose close, or end of writing, is due at the end of this turn.
        self._soon: deque[Closing] = deque()
        # What is to be written together once all events of this turn have been seen.
        self._flushes: list[Callable[[], None]] = []
        # Whose event is being handled: asked only if something is logged.
        self._owner: Any = None
        super().__init__()

    # The loop

    @override
    def mainLoop(self) -> None:
        """As ReactorBase.mainLoop, but runUntilCurrent is called only when it has something to do."""
        log_context.call({log.ILogContext: _LogOwner(self)}, self._loop)
        log.msg("Main loop terminated.")

    def _loop(self) -> None:
        while self._started:
            with _topHandler:
                while self._started:
                    pending = self._pendingTimedCalls
                    if (
                        self.threadCallQueue
                        or self._newTimedCalls
                        or self._justStopped
                        or self._cancellations > 50
                        or (pending and pending[0].time <= self.seconds())
                    ):
                        self.runUntilCurrent()
                    timeout = self.timeout() if self._pendingTimedCalls or self._newTimedCalls else None
                    self.doIteration(self.running and timeout)

    @override
    def iterate(self, delay: float = 0.0) -> None:
        # May be called from within an event: the outer batch must still know what is fresh to it.
        fresh, owner = self._fresh, self._owner
        self._fresh, self._owner = set(), None
        try:
            log_context.call({log.ILogContext: _LogOwner(self)}, super().iterate, delay)
        finally:
            fresh |= self._fresh
            self._fresh, self._owner = fresh, owner

    @override
    def doPoll(self, timeout: float | None) -> None:
        self.turn += 1
        if self._soon or self._flushes:
            timeout = 0
        elif timeout is None:
            timeout = -1
        selectables = self._selectables
        try:
            events = self._poller.poll(timeout, MOST_EVENTS)
        except OSError as problem:
            if problem.errno == EINTR:
                return
            raise
        fresh = self._fresh
        fresh.clear()
        reads = self._reads
        writes = self._writes
        for fd, event in events:
            if fresh and fd in fresh:
                continue
            if event & EPOLLIN:
                if fd in reads:
                    self._owner = selectable = selectables[fd]
                    try:
                        why = _NO_FILEDESC if selectable.fileno() == -1 else selectable.doRead()
                    except BaseException:
                        self._failed(selectable)
                        continue
                    if why:
                        self._end(selectable, why, why is not _NO_FILEDESC)
                        continue
                if event == EPOLLIN:
                    continue
            elif event & _HANG_UP:
                if fd in selectables:
                    log.callWithLogger(selectables[fd], self._doReadOrWrite, selectables[fd], fd, event)
                continue
            # What doRead did meanwhile counts: it may have ended the connection, and another may have the number.
            if event & EPOLLOUT and fd in writes and fd not in fresh:
                self._owner = selectable = selectables[fd]
                try:
                    why = _NO_FILEDESC if selectable.fileno() == -1 else selectable.doWrite()
                except BaseException:
                    self._failed(selectable)
                    continue
                if why:
                    self._end(selectable, why, False)
        if self._flushes:
            self._flush()
        if self._soon:
            self._settle()
        if self._muted:
            self._deafen()
        self._owner = None

    doIteration = doPoll  # type: ignore[assignment]  # noqa: N815

    def _failed(self, selectable: Any) -> None:
        """An exception is being handled that came out of a selectable: log it as Twisted does, and lose the connection."""
        why = sys.exc_info()[1]
        log.callWithLogger(selectable, log.err)
        self._end(selectable, why, False)

    def _end(self, selectable: Any, why: Any, is_read: bool) -> None:
        try:
            if is_read and why is CONNECTION_DONE and isinstance(selectable, FastConnection):
                self.mute(selectable)
                selectable.readConnectionLost(DONE)
            else:
                self._disconnectSelectable(selectable, why, is_read)
        except KeyboardInterrupt:
            raise
        except BaseException:
            log.callWithLogger(selectable, log.err)

    @override
    def _disconnectSelectable(self, selectable: Any, why: Any, isRead: bool, *failures: Any) -> None:
        reason = _REASONS.get(why.__class__)
        if reason is None or not isinstance(selectable, FastConnection):
            super()._disconnectSelectable(selectable, why, isRead, *failures)
        elif isRead and why.__class__ is error.ConnectionDone:
            self.removeReader(selectable)
            selectable.readConnectionLost(reason)
        else:
            selectable.connectionLost(reason)

    def settle_soon(self, transport: Closing) -> None:
        """Call doWrite of a transport with nothing queued at the end of this turn, as if EPOLLOUT had been reported."""
        if not transport._settling:
            transport._settling = True
            self._soon.append(transport)

    def at_end_of_turn(self, flush: Callable[[], None]) -> None:
        """Call it, once, when all events of this turn have been seen; what it raises is logged."""
        self._flushes.append(flush)

    def _flush(self) -> None:
        flushes, self._flushes = self._flushes, []
        for flush in flushes:
            try:
                flush()
            except Exception:
                log.err(None, "Error at the end of a turn")

    def _settle(self) -> None:
        soon = self._soon
        # Twice, because one side of a relay closes the other; what is added after that waits for the next turn.
        for _ in range(2):
            for _ in range(len(soon)):
                transport = soon.popleft()
                transport._settling = False
                if not transport.disconnected:
                    self._owner = transport
                    try:
                        why = transport.settle()
                    except BaseException:
                        self._failed(transport)
                        continue
                    if why:
                        self._end(transport, why, False)

    @override
    def removeAll(self) -> list[Any]:
        waiting = [transport for transport in self._soon if not transport.disconnected]
        self._soon.clear()
        removed: list[Any] = super().removeAll()
        return removed + [transport for transport in waiting if transport not in removed]

    @override
    def getWriters(self) -> list[Any]:
        writers: list[Any] = super().getWriters()
        return writers + [transport for transport in self._soon if transport not in writers]

    # TCP

    @override
    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listening = LeanPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    @override
    def connectTCP(
        self,
        host: Any,
        port: Any,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> Any:
        connector = _FastConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def dial(
        self,
        host: str,
        port: int,
        protocol: IProtocol,
        failed: Callable[[OSError], None],
        begin: dialing.Begin | None = None,
    ) -> dialing.Dial | dialing._Over:
        """Connect `protocol` to an IP literal; either end may come before this returns. See `net/dialing.py`."""
        return dialing.dial(self, host, port, protocol, failed, begin)

    dial_now = dialing.dial_now

    @override
    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        if addressFamily not in self._supportedAddressFamilies:
            raise error.UnsupportedAddressFamily(addressFamily)
        kind = port_for(addressFamily, factory)
        if addressFamily == socket.AF_UNIX:
            listening = kind._fromListeningDescriptor(self, fileDescriptor, factory)
        else:
            listening = kind._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return listening

    @override
    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> Any:
        listening = port_for(socket.AF_UNIX, factory)(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    @override
    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        if addressFamily not in self._supportedAddressFamilies:
            raise error.UnsupportedAddressFamily(addressFamily)
        if addressFamily == socket.AF_UNIX:
            return unix.Server._fromConnectedSocket(fileDescriptor, factory, self)
        return FastServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)


class _LogOwner(dict[str, Any]):
    """Twisted's log context, whose `system` is the prefix of whoever's event is being handled, made when asked for."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(log_context.get(log.ILogContext))
        self._reactor = reactor

    @override
    def copy(self) -> dict[str, Any]:
        owner = self._reactor._owner
        if owner is None:
            return dict(self)
        try:
            system = owner.logPrefix()
        except Exception:
            system = "(buggy logPrefix method)"
        return {**self, "system": system}

    @override
    def __getitem__(self, key: str) -> Any:
        return self.copy()[key] if key == "system" else super().__getitem__(key)


class _FastConnector(Connector):
    reactor: Any

    @override
    def _makeTransport(self) -> FastClient:
        return cast(FastClient, FastClient(self.host, self.port, self.bindAddress, self, self.reactor))


def install() -> None:
    """Make a Reactor the global reactor."""
    installReactor(Reactor())
