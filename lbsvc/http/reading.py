"""Requests on their way in: when is the reader fed, when does what comes wait, and which deadline runs meanwhile?

Promises: one request at a time; what arrives while it is in progress is kept up to AHEAD and one read, then the socket is
left alone; pipelined requests that are answered at once are a loop with a budget, not recursion; while the client does not
read its answers no further request of it is begun. Server connections are made of this (server.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from lbsvc.errors import ProtocolViolation
from lbsvc.http.answering import AnsweringConnection
from lbsvc.http.fields import Rules
from lbsvc.http.h1_requests import RequestReader
from lbsvc.net.deadlines import NEVER

if TYPE_CHECKING:
    from lbsvc.http.exchange import Exchange
    from lbsvc.http.identity import Trust
    from lbsvc.net.arrival import Arrival

#: What is read ahead of an exchange's end, in bytes; past it the socket waits.
AHEAD: Final = 16 * 1024
#: Pipelined requests that are answered in one turn of the reactor.
TURN: Final = 16
#: Takes the place of a lost connection's reader, which refers back to it: no garbage is left for the collector.
NO_READER: Final = RequestReader(cast(Any, None), Rules())


class ReadingConnection(AnsweringConnection):
    """The part of a server connection that reads."""

    exchange: Exchange | None = None
    is_stalled = False  # the client does not read
    has_finished = False  # the client has closed its side
    _is_feeding = False
    _is_again = False  # answered at once, while we fed the reader: there is more to feed
    _is_waiting = False  # the next pipelined request is due in the next turn
    _is_heading = False  # a head has begun to come: its deadline runs
    _heading_at = 0.0  # since when
    _is_reading = True  # not paused, be it for a backend or for what was read ahead
    _reader: RequestReader
    arrival: Arrival | None = None  # how it came, where there is anything to say
    peer: str
    trust: Trust
    is_believed: bool

    def renew(self, is_patience_new: bool) -> None:
        """The listener's settings, or its table, are others: for the next request. What is under way keeps what it has."""
        site, arrival = self.site, self.arrival
        self.trust = site.distrust if arrival is not None and arrival.is_nameless else site.trust
        self.is_believed = self.trust.believes(self.peer)
        if self.is_lost:
            return
        self._reader.obey(site.rules)
        is_busy = self.exchange is not None or self.is_ending or self.is_stalled or self._is_waiting
        if is_patience_new and not is_busy and not site.is_draining and self._reader.is_idle:
            self._watch_idle()

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        self._is_feeding = True
        try:
            reader.feed(data)
            if self._is_again:
                self._feed_pipelined(reader)
        except ProtocolViolation as violation:
            self._is_again = False
            self._violated(violation)
            return
        finally:
            self._is_feeding = False
        if reader.buffer:
            self._read_ahead(reader)

    def _feed_pipelined(self, reader: RequestReader) -> None:
        """Requests that came with one that was answered at once: a loop, not recursion, and only so many in a turn."""
        for _ in range(TURN - 1):
            self._is_again = False
            reader.release()
            reader.feed(b"")
            if not self._is_again:
                return
        self._is_again = False
        self._postpone()

    def _read_ahead(self, reader: RequestReader) -> None:
        """Something of the next request is there: a part of its head, or bytes that wait for their turn."""
        if reader.is_holding:
            if len(reader.buffer) >= AHEAD and self._is_reading:
                self._pause()
        elif not (self._is_heading or self.is_ending):
            self._is_heading = True
            self._heading_at = self.site.seconds()
            self.site.deadlines.watch(self, self.site.settings.timeouts.request_header)

    def _postpone(self) -> None:
        """The next request, a turn later; what comes meanwhile waits behind it, since the reader still holds."""
        self.deadline = NEVER
        if not self._is_waiting:
            self._is_waiting = True
            self.site.reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._is_waiting = False
        if self.is_lost or self.is_ending or self.exchange is not None or self.is_stalled:
            return
        self._resume()
        if self._reader.release():
            self._feed(b"")
        self._went_on()

    def _went_on(self) -> None:
        """What was fed may have changed everything, which mypy does not know of a method that asked before it."""
        if self.is_ending:
            return
        if self.has_finished:
            self._check_finished()
        elif self.exchange is None and self._reader.is_idle:
            self._watch_idle()

    def _pause(self) -> None:
        self._is_reading = False
        self.transport.pauseProducing()

    def _resume(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            if not self.has_finished:
                self.transport.resumeProducing()

    def _violated(self, violation: ProtocolViolation) -> None:
        """What came is not HTTP."""
        raise NotImplementedError

    def _check_finished(self) -> None:
        """The client has finished sending."""
        raise NotImplementedError

    def _watch_idle(self) -> None:
        """Between requests."""
        raise NotImplementedError
