"""How what an HTTP/2 connection says gets out, and how the connection ends: the parts of h2_server.py that know no request.

Promises: what is written in one turn of the reactor goes out as one piece; while the client does not read, frames wait here,
and past MOST_WAITING bytes of them it is not read either; what was said before the end arrives, if the client reads it.
`requests` are those that are not over: while there are any the connection does not end by itself. A drain is GOAWAY with the
largest number and a PING, then, with the answer to that or after GRACE, GOAWAY with the last number that came. To `part` is
the latter alone: by it the client knows that nothing of what followed was looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lbsvc.http.closing import EndingConnection
from lbsvc.http.h2_codec import Codec
from lbsvc.net.deadlines import NEVER

if TYPE_CHECKING:
    from lbsvc.http.h2_requests import StreamConnection
    from lbsvc.http.identity import Trust
    from lbsvc.net.arrival import Arrival

#: Between the two GOAWAYs, if the client does not answer the PING, in seconds.
GRACE: Final = 1.0
#: Frames of ours that wait for a client that does not read them, in bytes: then it is not read either.
MOST_WAITING: Final = 65536
#: The kernel takes about so many bytes that are not on their way yet: what is urgent, and what a client no longer wants, is
#: decided here, by stream, and not there (measured: tests/bench/h2_backends.py, h2-h2c-bulk).
MOST_UNSENT: Final = 131072


class LeavingConnection(EndingConnection):
    """The part of a server connection of HTTP/2 that writes, and knows how to stop."""

    codec: Codec
    #: StreamConnections, in the order in which they came
    requests: dict[StreamConnection, None]
    is_stalled = False
    has_finished = False  # the client has finished sending
    __deletable__ = ("_grace",)  # of a compiled class nothing else can be
    _grace: Grace
    arrival: Arrival | None = None
    peer: str
    trust: Trust
    is_believed: bool
    _is_feeding = False
    _is_heading = False
    _section = 0  # which header section it is that has begun to come, and until when it must be whole
    _section_due = NEVER
    _is_flushing = False  # a flush is due in this turn
    _is_leaving = 0  # GOAWAYs that have been sent
    _is_unread = False  # paused, since it does not read what we say

    #: the last header list, whether it was all of the request, what it meant, and its size
    _last: tuple[Any, bool, Any, int] = (None, False, None, 0)
    _entered: str

    @property
    def entered(self) -> str:
        """What the listener knows this connection by."""
        return self._entered

    def renew(self, is_patience_new: bool) -> None:
        """The listener's settings, or its table, are others: for the next request. What is under way keeps what it has.

        A header section may be as large as the client was told at the beginning.
        """
        site, arrival = self.site, self.arrival
        self.trust = site.distrust if arrival is not None and arrival.is_nameless else site.trust
        self.is_believed = self.trust.believes(self.peer)
        self._last = None, False, None, 0
        is_idle = not (self.requests or self.is_ending or self.is_lost or self.is_stalled or self._is_heading)
        if is_patience_new and is_idle:
            self._watch_idle()

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
            if self.is_stalled:
                # It waits here, in one piece. The client is read on: what it says may be that it wants less, or wants
                # something else first, and that must not wait for all that it has asked for until then.
                if not self._is_unread and sum(map(len, codec.out)) >= MOST_WAITING:
                    self._is_unread = True
                    self.transport.pauseProducing()
                return
            self.transport.write(codec.take())
            codec.pump()  # nothing, where that has filled the transport

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

    def part(self) -> None:
        """What is under way is answered; whatever the client has sent behind it belongs on another connection, at once."""
        self._is_leaving = self._is_leaving or 1
        self.leave()

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
