"""What waits in a connection's socket, unread: asked where guessing would cost somebody an error.

Promises: one system call, nothing is taken out of the socket, nothing blocks. Of TLS (net/secure.py)
what counts is what is above it: a session ticket is nothing. Called by the layer 7 road: before a request
that may not be sent twice goes out on a connection that has idled, and before a drain closes an idle client.
"""

from __future__ import annotations

import socket
from typing import Any, Final

#: As a number: joining the two makes an IntFlag each time (tests/bench, `post`: 2 %).
_LOOK: Final = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


def peek(transport: Any) -> bytes | None:
    """One byte of what waits; empty where the other side has ended, or reset; None where nothing has come."""
    above_tls = getattr(transport, "peek", None)
    if above_tls is not None:
        found: bytes | None = above_tls()
        return found
    handle = transport.getHandle()
    if handle is None:
        return None
    try:
        return bytes(handle.recv(1, _LOOK))
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""
