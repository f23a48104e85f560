"""How much of what was written has not arrived: the same two questions on every reactor.

Promises: `unsent` is what a transport still holds, exact on our own transports (`queued`) and on those of Twisted's stock
reactors, whose queue has no public name; what the kernel has taken does not count. `undelivered` counts that too, as far as
the other side has not taken it: it shrinks whenever somebody reads, however slowly, where the kernel's own queue may hold
megabytes that hide it. Called by the roads off the hot path: where a connection is closed or has stalled.
"""

from __future__ import annotations

import array
import fcntl
import termios
from typing import Any


def unsent(transport: Any) -> int:
    """Bytes that were written but that the kernel has not taken yet."""
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
