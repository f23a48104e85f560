"""Small writes of one turn, sent one after the other at its end instead of each where it is asked for.

Why: a send to somebody who sleeps wakes him, which costs several times what the send itself does (a third of all CPU time of
a request, seen with perf: the wake-up below sock_def_readable). Who has not caught up yet is awake, and costs nothing; sends
that follow each other closely find him so. Measured in turns (tests/bench, `http`): a quarter less CPU time a request.

Promises: what `write` was given is in the transport's own queue from then on, as if the kernel had taken nothing of it: all
that is asked of the transport afterwards, more bytes or its end, comes behind it, and what is lost with the connection is
lost alone. It is sent at the end of this turn of the reactor, or when MOST wait; what the kernel does not take then goes the
transport's ordinary way. Large pieces, and all that a transport could not send at once, are written as ever. Called by the
HTTP/1 road for whole requests and whole answers; made once for each pool and each listener.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

#: So many wait at most: with a few microseconds of work between them nobody waits for long.
MOST: Final = 64
#: More bytes than this are worth a wake-up of their own, and the receiver had better begin.
LIGHT: Final = 16384

#: Writes bytes to a transport.
Write = Callable[[Any, bytes], None]


class Outbox:
    """Transports of one reactor that have something to send at the end of this turn."""

    __slots__ = ("_at_end", "_reactor", "_waiting")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._at_end = reactor.at_end_of_turn
        #: each has its bytes as `dataBuffer`, is not `_direct`, and is watched for EPOLLOUT only if something came behind
        self._waiting: list[Any] = []

    def write(self, transport: Any, data: bytes) -> None:
        """To be sent at the end of this turn, or before."""
        # Hot path (tests/bench, `http`): twice for each request.
        if not getattr(transport, "_direct", False) or not 0 < len(data) <= LIGHT:
            transport.write(data)
            return
        transport._direct = False
        transport.dataBuffer = data
        waiting = self._waiting
        waiting.append(transport)
        if len(waiting) == 1:
            self._at_end(self.flush)
        elif len(waiting) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Send all that waits."""
        waiting, self._waiting = self._waiting, []
        writes = self._reactor._writes
        for transport in waiting:
            # Lost or cut meanwhile; or something came behind it, and EPOLLOUT takes care of all of it.
            if not transport.connected or transport._aborting or transport.fileno() in writes:
                continue
            data = transport.dataBuffer
            try:
                sent = transport._send(data)
            except BlockingIOError:
                sent = 0
            except OSError as problem:
                sent = transport._refused(problem)
            if sent == len(data):
                transport.dataBuffer = b""
                if transport.streamingProducer and not transport.TLS:
                    transport._direct = True
                else:
                    transport._rearm()
                if not transport._is_plain:
                    transport._begin_reading()  # TLS may have put it off until its record had gone
                continue
            try:
                transport._keep(data, sent)
            except BaseException:  # out of its producer
                self._reactor._failed(transport)


def write_now(transport: Any, data: bytes) -> None:
    """The same where the reactor knows no end of a turn."""
    transport.write(data)


def write_last(transport: Any, data: bytes) -> None:
    """Write what our end follows in this very turn: in one segment with it, where the transport can (net/transports.py)."""
    write = getattr(transport, "write_last", None) or transport.write
    write(data)


def writer_for(reactor: Any) -> Write:
    """What writes together on this reactor, if it can."""
    return Outbox(reactor).write if hasattr(reactor, "at_end_of_turn") else write_now
