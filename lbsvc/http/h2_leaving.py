"""How what an HTTP/2 connection says gets out, and how the connection ends: the parts of h2_server.py that know no request.

Promises: what is written in one turn of the reactor goes out as one piece; while the client does not read, frames wait here,
and past MOST_WAITING bytes of them it is not read either; what was said before the end arrives, if the client reads it.
`requests` are those that are not over: while there are any the connection does not end by itself. A drain is GOAWAY with the
largest number and a PING, then, with the answer to that or after GRACE, GOAWAY with the last number that came.
"""

from __future__ import annotations

from typing import Any, Final

from lbsvc.http.closing import EndingConnection
from lbsvc.http.h2_codec import Codec
from lbsvc.net.deadlines import NEVER

#: Between the two GOAWAYs, if the client does not answer the PING, in seconds.
GRACE: Final = 1.0
#: Frames of ours that wait for a client that does not read them, in bytes: then it is not read either.
MOST_WAITING: Final = 65536


class LeavingConnection(EndingConnection):
    """The part of a server connection of HTTP/2 that writes, and knows how to stop."""

    codec: Codec
    #: StreamConnections, in the order in which they came
    requests: dict[Any, None]
    is_stalled = False
    has_finished = False  # the client has finished sending
    _grace: Grace
    _is_feeding = False
    _is_heading = False
    _section = 0  # which header section it is that has begun to come, and until when it must be whole
    _section_due = NEVER
    _is_flushing = False  # a flush is due in this turn
    _is_leaving = 0  # GOAWAYs that have been sent
    _is_unread = False  # paused, since it does not read what we say

    def _watch_idle(self) -> None:
        """There is no stream."""
        raise NotImplementedError

    # -- what is written

    def flush_soon(self) -> None:
        """At the end of what is being done."""
        if not self._is_feeding and not self._is_flushing and not self.is_ending:
            self._is_flushing = True
            self.site.soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_flushing = False
        self.flush()

    def flush(self) -> None:
        """Write what there is."""
        codec = self.codec
        while codec.out and not self.is_ending:
            if self.is_stalled and sum(map(len, codec.out)) < MOST_WAITING:
                return  # it waits here, in one piece
            wire_bytes = codec.take()
            self.transport.write(wire_bytes)
            if self.is_stalled:
                if not self._is_unread and not self.is_ending:
                    self._is_unread = True
                    self.transport.pauseProducing()
                return
            codec.pump()

    # -- ends

    def drain(self) -> None:
        """Nothing new; what is under way is answered."""
        if self._is_leaving or self.is_ending:
            return
        self._is_leaving = 1
        self.codec.go_away(False)
        self.codec.ping()
        self.flush()
        self.site.deadlines.watch(self._grace, GRACE)

    def leave(self) -> None:
        """Nobody may begin a stream any more."""
        if self._is_leaving == 1 and not self.is_ending:
            self._is_leaving = 2
            self.codec.go_away(True)
            self.flush_soon()
            self._look_for_end()

    def _end(self) -> None:
        """Write what there is, whether or not the client reads; then our side is closed."""
        if self.codec.out and not self.is_lost:
            self.transport.write(self.codec.take())
        if self.has_finished:
            self.lose()
        else:
            self.linger()

    def _look_for_end(self) -> None:
        if self.requests or self.is_ending or self._is_feeding:
            return
        if self._is_leaving == 2:
            self._end()
        elif not self.is_stalled and not self._is_heading and self.deadline == NEVER:
            self._watch_idle()


class Grace:
    """The deadline of a drain, beside that of the connection."""

    __slots__ = ("connection", "deadline", "slot")

    def __init__(self, connection: LeavingConnection) -> None:
        self.connection = connection
        self.deadline = self.slot = NEVER

    def expired(self, now: float) -> None:
        """The client has not answered our PING."""
        self.connection.leave()


class _Nobody:
    """Hears what a codec tells whose connection is lost."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


NOBODY: Final[Any] = _Nobody()
