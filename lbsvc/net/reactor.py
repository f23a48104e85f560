"""An EPollReactor that does less for each event, and whose TCP transports write at once: Twisted, only faster.

Who calls it: `tap.py` installs it if no reactor was chosen; everything else gets it as an argument. On any other reactor lbsvc
works too, through `net/connector.py`, only slower.

Promises, over and above EPollReactor's:
- `seconds()` is the monotonic clock, and every timer (callLater, LoopingCall) runs on it: steps of the wall clock move nothing.
- TCP connections are `net/transports.py`, TCP ports and adopted ports `net/ports.py`; `dial` is `net/dialing.py`.
- An event is passed on only to the selectable it was meant for: one whose descriptor was closed since the poll, even if the
  number is in use again, and one that is no longer read or written, get nothing.
- An exception out of a selectable is logged, with its log prefix, and costs that connection only. No log context is kept while
  things go well (3 us an event): what protocols log by themselves carries no `system`.
- A connection that is closed with nothing left to send is lost at the end of the turn, not inside loseConnection.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable
from errno import EINTR
from select import EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Any

from twisted.internet import error, unix
from twisted.internet.base import _topHandler
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProtocol
from twisted.internet.main import installReactor
from twisted.internet.posixbase import _NO_FILEDESC
from twisted.internet.tcp import Connector
from twisted.python import log
from typing_extensions import override

from lbsvc.net import dialing
from lbsvc.net.dialing import FastClient
from lbsvc.net.ports import FastServer, LeanPort, port_for
from lbsvc.net.transports import FastConnection

MOST_EVENTS = 512
"""Events taken in one poll; epoll hands out the rest in turn. Twisted's own limit grows with the idle connections."""

_IN_OUT = EPOLLIN | EPOLLOUT


class Reactor(EPollReactor):
    """See the module docstring."""

    seconds = staticmethod(monotonic)

    @override
    def __init__(self) -> None:
        # Descriptors registered since the last poll: what the batch at hand says about them is about their predecessors.
        self._fresh: set[int] = set()
        # Transports with nothing queued whose close, or end of writing, is due at the end of this turn.
        self._soon: deque[FastConnection] = deque()
        super().__init__()

    # The loop

    @override
    def mainLoop(self) -> None:
        """As ReactorBase.mainLoop, but runUntilCurrent is called only when it has something to do."""
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
        log.msg("Main loop terminated.")

    @override
    def iterate(self, delay: float = 0.0) -> None:
        # May be called from within an event: the outer batch must still know what is fresh to it.
        outer = self._fresh
        self._fresh = set()
        try:
            super().iterate(delay)
        finally:
            outer |= self._fresh
            self._fresh = outer

    @override
    def doPoll(self, timeout: float | None) -> None:
        if self._soon:
            timeout = 0
        elif timeout is None:
            timeout = -1
        selectables = self._selectables
        try:
            events = self._poller.poll(timeout, min(len(selectables), MOST_EVENTS) or 1)
        except OSError as problem:
            if problem.errno == EINTR:
                return
            raise
        reads = self._reads
        fresh = self._fresh
        fresh.clear()
        for fd, event in events:
            if event == EPOLLIN:
                if fd not in reads or (fresh and fd in fresh):
                    continue
                selectable = selectables[fd]
                try:
                    if selectable.fileno() == -1:
                        why = _NO_FILEDESC
                    else:
                        why = selectable.doRead()
                    if why:
                        self._disconnectSelectable(selectable, why, why is not _NO_FILEDESC)
                except BaseException:
                    self._failed(selectable)
            elif fd in selectables and fd not in fresh:
                log.callWithLogger(selectables[fd], self._doReadOrWrite, selectables[fd], fd, event)
        if self._soon:
            self._settle()

    doIteration = doPoll  # noqa: N815

    def _failed(self, selectable: Any) -> None:
        """An exception is being handled that came out of a selectable: log it as Twisted does, and lose the connection."""
        why = sys.exc_info()[1]
        log.callWithLogger(selectable, log.err)
        log.callWithLogger(selectable, self._disconnectSelectable, selectable, why, False)

    @override
    def _doReadOrWrite(self, selectable: Any, fd: int, event: int) -> None:
        # An event that is both is read first; what that ends is not written any more.
        if event & _IN_OUT == _IN_OUT:
            super()._doReadOrWrite(selectable, fd, event & ~EPOLLOUT)
            if fd not in self._writes or fd in self._fresh or self._selectables.get(fd) is not selectable:
                return
            event = EPOLLOUT
        elif not event & EPOLLIN and event & EPOLLOUT and fd not in self._writes:
            return
        super()._doReadOrWrite(selectable, fd, event)

    # Selectables

    def forget(self, selectable: Any) -> None:
        """Watch it no more, neither way: removeReader and removeWriter with one syscall at most."""
        fd = selectable.fileno()
        selectables = self._selectables
        if selectables.get(fd) is selectable:
            del selectables[fd]
            self._reads.discard(fd)
            self._writes.discard(fd)
            self._poller.unregister(fd)

    def watches(self, selectable: Any) -> bool:
        """Whether it is being read."""
        fd = selectable.fileno()
        return fd in self._reads and self._selectables[fd] is selectable

    @override
    def _add(self, xer: Any, primary: Any, other: Any, selectables: Any, event: int, antievent: int) -> None:
        fd = xer.fileno()
        if fd not in primary:
            if fd in other:
                self._poller.modify(fd, event | antievent)
            else:
                self._poller.register(fd, event)
                self._fresh.add(fd)
            primary.add(fd)
            selectables[fd] = xer

    def settle_soon(self, transport: FastConnection) -> None:
        """Call doWrite of a transport with nothing queued at the end of this turn, as if EPOLLOUT had been reported."""
        if not transport._settling:
            transport._settling = True
            self._soon.append(transport)

    def _settle(self) -> None:
        soon = self._soon
        # Twice, because one side of a relay closes the other; what is added after that waits for the next turn.
        for _ in range(2):
            for _ in range(len(soon)):
                transport = soon.popleft()
                transport._settling = False
                if not transport.disconnected:
                    log_why = None
                    try:
                        log_why = transport.doWrite()
                        if log_why:
                            self._disconnectSelectable(transport, log_why, False)
                    except BaseException:
                        self._failed(transport)

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
        bindAddress: Any = None,  # noqa: N803
    ) -> Any:
        connector = _FastConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def dial(
        self, host: str, port: int, protocol: IProtocol, failed: Callable[[OSError], None]
    ) -> dialing.Dial | dialing._Over:
        """Connect `protocol` to an IP literal; either end may come before this returns. See `net/dialing.py`."""
        return dialing.dial(self, host, port, protocol, failed)

    @override
    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:  # noqa: N803
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
        wantPID: int = 0,  # noqa: N803
    ) -> Any:
        listening = port_for(socket.AF_UNIX, factory)(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    @override
    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:  # noqa: N803
        if addressFamily not in self._supportedAddressFamilies:
            raise error.UnsupportedAddressFamily(addressFamily)
        if addressFamily == socket.AF_UNIX:
            return unix.Server._fromConnectedSocket(fileDescriptor, factory, self)
        return FastServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)


class _FastConnector(Connector):
    @override
    def _makeTransport(self) -> FastClient:
        return FastClient(self.host, self.port, self.bindAddress, self, self.reactor)


def install() -> None:
    """Make a Reactor the global reactor."""
    installReactor(Reactor())
