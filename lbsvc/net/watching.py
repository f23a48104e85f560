"""Which descriptors epoll watches, and for what: the books of net/reactor.py, and what the kernel is told of them.

Promises, over and above EPollReactor's
- Each change is one syscall, or none. A connection that is to be closed is `mute` first: epoll is told at the end of the
  turn that it is read no more, and not at all if it has been closed by then, as most are (`lose`).
- An event that is about a descriptor's predecessor is known by `_fresh`.

Invariants: a descriptor is in `_selectables` if it is in `_reads` or `_writes`; one that is in `_muted` is in none of them,
and registered for reading alone. Only what nobody else has a copy of is muted: a copy would keep it in epoll. (A child
has one between fork and exec. What epoll tells of it meanwhile goes to whoever has the number by then, always as something
to read, and is a read in vain.) Units: none. Called by the reactor and by its transports and ports.
"""

from __future__ import annotations

from select import EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from typing_extensions import override


class Watching(EPollReactor):
    """See the module docstring."""

    @override
    def __init__(self) -> None:
        # Descriptors registered since the last poll: what the batch at hand says about them is about their predecessors.
        self._fresh: set[int] = set()
        # Descriptors that are read no more, which the kernel has not been told yet.
        self._muted: set[int] = set()
        super().__init__()

    def forget(self, selectable: Any) -> None:
        """Watch it no more, neither way: removeReader and removeWriter with one syscall at most."""
        fd = selectable.fileno()
        selectables = self._selectables
        if selectables.get(fd) is selectable:
            del selectables[fd]
            self._reads.discard(fd)
            self._writes.discard(fd)
            self._poller.unregister(fd)

    def lose(self, selectable: Any) -> None:
        """As `forget`, of one whose socket, which nobody else has, is closed right now: epoll finds that out by itself."""
        fd = selectable.fileno()
        if fd in self._muted:
            self._muted.discard(fd)
        elif fd in self._writes:
            self.forget(selectable)  # not so: its hang-up would be whose the number is then
        elif self._selectables.get(fd) is selectable:
            del self._selectables[fd]
            self._reads.discard(fd)

    def mute(self, selectable: Any) -> None:
        """As removeReader, of one that is likely to be closed in this turn: epoll is told at its end, if it is still so."""
        fd = selectable.fileno()
        if fd not in self._reads:
            return
        if fd in self._writes or selectable._shouldShutdown:
            self.removeReader(selectable)
        else:
            self._reads.remove(fd)
            del self._selectables[fd]
            self._muted.add(fd)

    def _deafen(self) -> None:
        muted, self._muted = self._muted, set()
        for fd in muted:
            try:
                self._poller.unregister(fd)
            except OSError:
                pass  # it was closed behind our back

    def replace(self, selectable: Any, other: Any) -> None:
        """`other`, which has the same descriptor, is read from now on in place of `selectable`: without a syscall."""
        fd = selectable.fileno()
        self._selectables[fd] = other
        if fd in self._writes:
            self.removeWriter(other)
        if fd not in self._reads:
            self.addReader(other)

    def share_reader(self, reader: Any) -> None:
        """As addReader, for what other processes read too and which is never written: see net/sharing.py."""
        self._add(reader, self._reads, self._writes, self._selectables, EPOLLIN | EPOLLEXCLUSIVE, 0)

    def watches(self, selectable: Any) -> bool:
        """Whether it is being read."""
        fd = selectable.fileno()
        return fd in self._reads and self._selectables[fd] is selectable

    @override
    def removeReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if fd in self._reads:
            self._reads.remove(fd)
            self._unwatch(fd, EPOLLOUT, self._writes)
        else:
            super().removeReader(reader)

    @override
    def removeWriter(self, writer: Any) -> None:
        fd = writer.fileno()
        if fd in self._writes:
            self._writes.remove(fd)
            self._unwatch(fd, EPOLLIN, self._reads)
        else:
            super().removeWriter(writer)

    def _unwatch(self, fd: int, remaining: int, others: set[int]) -> None:
        # Our own books first: epoll refuses a descriptor that was closed behind our back.
        if fd in others:
            self._poller.modify(fd, remaining)
        else:
            del self._selectables[fd]
            self._poller.unregister(fd)

    @override
    def addReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if fd in self._reads:
            return
        if fd in self._writes or fd in self._muted:
            super().addReader(reader)
            return
        try:
            self._poller.register(fd, EPOLLIN)
        except OSError:
            super().addReader(reader)
            return
        self._fresh.add(fd)
        self._reads.add(fd)
        self._selectables[fd] = reader

    @override
    def _add(self, xer: Any, primary: Any, other: Any, selectables: Any, event: int, antievent: int) -> None:
        fd = xer.fileno()
        if fd not in primary:
            if fd in other:
                self._poller.modify(fd, event | antievent)
            elif fd in self._muted:
                self._muted.discard(fd)
                self._poller.modify(fd, event)
            else:
                self._poller.register(fd, event)
                self._fresh.add(fd)
            primary.add(fd)
            selectables[fd] = xer
