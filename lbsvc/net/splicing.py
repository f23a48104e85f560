"""Bytes in bulk, from one socket to another without a copy of ours: splice(2), by way of one pipe for the whole process.

Who calls it: net/transports.py, whose transports have `read_in_bulk` in place of doRead as long as much comes at a time.

Promises
- What net/transports.py promises of relayed chunks: order, byte counts (`piped`), one read for each event, what the kernel
  did not take is the other transport's queue, with its water marks; no error is raised out of a write.
- The pipe is empty whenever `carry` returns: what the other socket did not take is read out of it. So one pipe is enough,
  whatever the number of connections, and nothing is left in it by one that is lost.
- Where there is no splice (another kernel, a filter of system calls, sockets that know none of it) all goes on without.

Decision: 2026-11-22. Pipes of their own for stalled connections would save copying what is left over, and cost two
descriptors and up to MOST of kernel memory each, half-close, water marks and `queued` done twice; a reader that keeps up
(`l4bulk`, `bulk`: all of 15,000 reads were taken whole) never meets them.
"""

from __future__ import annotations

import fcntl
import os
from errno import EINVAL, ENOSYS, EPERM
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lbsvc.net.transports import FastConnection

#: Bytes that one event moves at most.
MOST: Final = 256 * 1024
#: Who brings less than this at a time is read as others are, from then on.
LITTLE: Final = 16 * 1024
#: Of the pipe: its slots are pages, and not every page comes full.
ROOM: Final = 1024 * 1024
_F_SETPIPE_SZ: Final[int] = getattr(fcntl, "F_SETPIPE_SZ", 1031)


class Splicer:
    """The pipe, made when it is first needed."""

    #: None before that; afterwards, whether there is one
    is_possible: bool | None = None

    def __init__(self) -> None:
        self._ends: tuple[int, ...] = ()

    def prepare(self) -> bool:
        """Whether `carry` may be called."""
        if self.is_possible is None:
            self.is_possible = hasattr(os, "splice") and self._make()
        return self.is_possible

    def _make(self) -> bool:
        try:
            self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.fcntl(self._ends[1], _F_SETPIPE_SZ, ROOM)
        except OSError:
            pass  # more than this user may have: what it has will do
        self._flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        return True

    def close(self) -> None:
        """Give the pipe back; it is made anew when it is needed again."""
        for end in self._ends:
            os.close(end)
        self._ends = ()
        self.is_possible = None

    def carry(self, source: FastConnection, target: FastConnection, most: int) -> int | None:
        """Read up to `most` bytes of `source` and write them to `target`, which has nothing queued.

        Gives the number of bytes that were moved (0: nothing was there), or None where it cannot be done by this means.
        """
        outlet, inlet = self._ends
        try:
            size = os.splice(source.fileno(), inlet, most, flags=self._flags)
        except BlockingIOError:
            return 0
        except OSError as problem:
            self._doubt(problem)
            return None
        if not size:
            return None  # the end: whoever reads finds it again, and says so
        try:
            sent = os.splice(outlet, target.fileno(), size, flags=self._flags)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            sent = 0 if self._doubt(problem) else target._refused(problem)
        if sent != size:
            rest = os.read(outlet, size - sent)
            while len(rest) < size - sent:
                rest += os.read(outlet, size - sent - len(rest))
            target._keep(rest, 0)
        return size

    def _doubt(self, problem: OSError) -> bool:
        """Whether it is splice that failed here, and not a connection: then it is not tried again."""
        if problem.errno in (EINVAL, ENOSYS, EPERM):
            self.is_possible = False
            return True
        return False


#: That of the process.
splicer: Final = Splicer()


def read_in_bulk(transport: FastConnection) -> Any:
    """One event of a transport that is relayed: as its doRead, by `splicer` where that may be."""
    pipe = transport._pipe
    if pipe is not None and pipe._direct:
        size = splicer.carry(transport, pipe, MOST)
        if size is not None:
            transport.piped += size
            if size < LITTLE or not splicer.is_possible:
                del transport.doRead
            return None
    if pipe is None or pipe._direct:
        del transport.doRead
    return transport.__class__.doRead(transport)
