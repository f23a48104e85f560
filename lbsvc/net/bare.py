"""Sockets that are made and closed by C alone.

Promises: a `BareSocket` is a socket.socket in all that it can do. What differs: `close` closes at once, even while a file
made by `makefile` is open (nobody here makes any). Each connection makes and closes two: that saves it five calls of
Python (tests/bench, `l4close`). Used by net/ports.py and net/dialing.py.
"""

from __future__ import annotations

import _socket
import socket


class BareSocket(socket.socket):
    """See the module docstring."""

    # What socket.socket's own constructor would set on each.
    _io_refs = 0
    _closed = False

    __init__ = _socket.socket.__init__
    close = _socket.socket.close
