"""How many bytes a transport still holds that were written to it: the same question on every reactor.

Promises: exact on our own transports (`queued`) and on those of Twisted's stock reactors, whose queue has no public name;
what the kernel has taken does not count. Called by the roads off the hot path: where a connection is closed or has stalled.
"""

from __future__ import annotations

from typing import Any


def unsent(transport: Any) -> int:
    """Bytes that were written but that the kernel has not taken yet."""
    queued = getattr(transport, "queued", None)
    if queued is not None:
        return int(queued)
    # twisted.internet.abstract.FileDescriptor; of a transport that is not one we know nothing
    buffer = getattr(transport, "dataBuffer", b"")
    return len(buffer) - getattr(transport, "offset", 0) + getattr(transport, "_tempDataLen", 0)
