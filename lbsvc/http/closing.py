"""How a client's connection ends: so that the client sees all that was sent to it, and never waits for us without limit.

Promises: what was written arrives, if the client reads it (progress is looked for each `write` timeout); a client that still
sends when its connection ends gets to see the answer first, for at most LINGER seconds after it has it (HURRY in an
overload) and LINGER_BYTES (a close with unread bytes would reset the connection, and the answer might never be seen);
after `lose` or `linger` nothing that comes is taken for a request. Server connections are made of this; `is_ending` and
`is_lost` only ever become true.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from zope.interface import classImplements

from lbsvc.http.site import HttpSite
from lbsvc.net.deadlines import NEVER
from lbsvc.net.peeking import peek
from lbsvc.net.protocol import BareProtocol
from lbsvc.net.unsent import undelivered, unsent

#: How long, and how many bytes, we read and drop so that a client gets to see an answer that ends its connection.
LINGER: Final = 5.0
LINGER_BYTES: Final = 16 * 1024 * 1024
#: The same, in seconds, while the process is overloaded: each is a descriptor that is held while there is too much to do.
HURRY: Final = 1.0
#: A drain gives a client that has just connected this many seconds to send its request.
GRACE: Final = 1.0


class EndingConnection(BareProtocol):
    """The part of a server connection that knows how to stop."""

    site: HttpSite
    deadline = NEVER
    slot = NEVER
    is_ending = False  # what still comes is dropped
    is_lost = False
    _is_shut = False  # our side is closed: the client has been sent all there is
    _is_late = False  # a drain has given it a second GRACE
    _left = 0  # bytes that the client had not taken when the deadline was set
    _moved_at = 0.0  # when it took some, after our side was closed
    _dropped = 0

    def lose(self) -> None:
        """Close once everything is written."""
        if self.is_lost:
            return
        self.is_ending = True
        # A producer that is paused when the last byte leaves would keep Twisted from closing.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if self.site.closes_late or unsent(self.transport):
            self.watch_write()
        else:
            self.deadline = NEVER  # it is lost at the end of this turn: nobody has to take anything any more

    def lose_in_time(self) -> None:
        """A drain: nothing has come. But where something lies unread it is we who are late, once."""
        if peek(self.transport) and not self._is_late:
            self._is_late = True
            self.site.deadlines.watch(self, GRACE)
        else:
            self.lose()

    def linger(self) -> None:
        """Close though the client may still be sending: our side first, then read and drop until it has ended too."""
        if self.is_lost:
            return
        self.is_ending = True
        self._dropped = 0
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseWriteConnection()
        self.watch_write()

    def drop(self, size: int) -> None:
        """Bytes came that nobody wants."""
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self.transport.abortConnection()

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our side is closed; the client's end follows, or LINGER is over after it has got everything."""
        if self.is_ending and not self.is_lost:
            self._is_shut = True
            self._moved_at = self.site.deadlines.now
            self._left = undelivered(self.transport)
            self.site.deadlines.watch(self, self._patience)

    @property
    def _patience(self) -> float:
        return HURRY if self.site.overload.is_on else LINGER

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost; connectionLost follows and knows what to do."""

    def end_overdue(self) -> None:
        """The deadline of an ending connection has come: a client that reads, if slowly, gets another."""
        if self._is_shut:
            self._look_at_rest()
        elif undelivered(self.transport) < self._left:
            self.watch_write()
        else:
            self.transport.abortConnection()

    def _look_at_rest(self) -> None:
        """Each LINGER seconds, or HURRY: what the kernel holds for a slow client must not be thrown away."""
        deadlines = self.site.deadlines
        left, before = undelivered(self.transport), self._left
        if left < before:
            self._moved_at = deadlines.now
        elif not left or deadlines.now - self._moved_at >= self.site.settings.timeouts.write:
            self.transport.abortConnection()
            return
        self._left = left
        deadlines.watch(self, self._patience)

    def watch_write(self) -> None:
        """From now on the client must take some of what is written, within each `write` seconds."""
        if not self.is_lost:
            self._left = undelivered(self.transport)
            self.site.deadlines.watch(self, self.site.settings.timeouts.write)

    def expired(self, now: float) -> None:
        """The deadline of this connection has come."""
        raise NotImplementedError


# Of every heir of it: they have what belongs to that.
classImplements(EndingConnection, IHalfCloseableProtocol, IPushProducer)  # type: ignore[misc]
