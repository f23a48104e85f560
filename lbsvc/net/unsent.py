"""How much of what was written has not arrived: the same two questions on every reactor.

Promises: `unsent` is what a transport still holds, exact on our own transports (`queued`) and on those of Twisted's stock
reactors, whose queue has no public name; what the kernel has taken does not count. `undelivered` counts that too, as far as
the other side has not taken it: it shrinks whenever somebody reads, however slowly, where the kernel's own queue may hold
megabytes that hide it. Called by the roads off the hot path: where a connection begins, is closed or has stalled.
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios
from typing import Any, Final

#: tcp(7): Linux's number, where Python does not know it.
TCP_NOTSENT_LOWAT: Final[int] = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


def unsent(transport: Any) -> int:
    """Bytes that were written but that the kernel has not taken yet."""
    if getattr(transport, "_direct", False):
        return 0  # one of ours that would give the next bytes to the kernel at once
    queued = getattr(transport, "queued", None)
    if queued is not None:
        return int(queued)
    # twisted.internet.abstract.FileDescriptor; of a transport that is not one we know nothing
    buffer = getattr(transport, "dataBuffer", b"")
    return len(buffer) - getattr(transport, "offset", 0) + getattr(transport, "_tempDataLen", 0)


def undelivered(transport: Any) -> int:
    """Bytes that were written but that the other side has not taken yet (of TCP: not acknowledged)."""
    found = array.array("i", [0])
    try:
        fcntl.ioctl(transport.getHandle().fileno(), termios.TIOCOUTQ, found)  # the same number as SIOCOUTQ
    except (AttributeError, OSError):
        pass  # it is lost, or no socket of ours
    return unsent(transport) + found[0]


def limit_unsent(transport: Any, size: int) -> None:
    """Let the kernel take no more than about `size` bytes that are not on their way yet (TCP_NOTSENT_LOWAT).

    What is said then is not far behind what was said before, however slowly the other side reads.
    """
    try:
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, size)
    except (AttributeError, OSError):
        pass  # no socket of ours, or not one of TCP
