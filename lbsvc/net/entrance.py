"""Where the connections of one listener begin that have something before their first byte: a PROXY header, a handshake.

Promises: every connection that is accepted becomes an Opening (net/opening.py), counts from then on, and is in `openings`
until its road has it or it is over; each that gets no further is counted, logged, and told of in the event log, once in
TOLD_EACH seconds. Made by serving.py; called by net/ports.py, and as a site by a drain. What it is made of never changes: a
listener whose TLS or whose proxies are others gets another one, and what has begun here ends by the rules that it began by.
While the process is overloaded a tcp listener closes what is new before its handshake, which would be most of the work; an
http listener shakes hands with the first HANDSHAKES of each second, so that their clients are told (503), and closes the
others like tcp: each refusal ends its connection, and new handshakes alone must not keep the overload up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from lbsvc.core.networks import Networks
from lbsvc.core.overload import Overload
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.listener import Listener
from lbsvc.net.opening import Opening
from lbsvc.net.server_tls import ServerTls

#: Why a connection was refused is told once in so many seconds, for each listener: strangers shall not fill the log.
TOLD_EACH: Final = 1.0
#: How many TLS handshakes an http listener begins in a second while the process is overloaded: a twentieth of its time.
HANDSHAKES: Final = 100


class Entrance:
    """What the openings of one listener share. As a site it is told when the service stops."""

    #: none of these has bytes to flush
    flushing = 0

    def __init__(
        self,
        listener: Listener,
        proxies: Networks | None,
        tls: ServerTls | None,
        reactor: Any,
        deadlines: Deadlines,
        wall: Callable[[], float],
        make_id: Callable[[], bytes],
        log: Callable[[tuple[Any, ...]], None] | None,
        tell: Callable[..., None],
        overload: Overload | None = None,
        is_answering: bool = False,
    ) -> None:
        self._tell = tell
        #: while there is one, nothing begins here, or little: its road has an answer for it (`is_answering`: http)
        self._overload = overload
        self._is_answering = is_answering
        self._begun = 0  # while there is one, since when
        self._begun_since = -TOLD_EACH
        self._told_at = -TOLD_EACH
        self._untold = 0
        self.listener = listener
        self.proxies = proxies
        self.tls = tls
        self.reactor = reactor
        self.deadlines = deadlines
        self.seconds: Callable[[], float] = reactor.seconds
        self.wall = wall
        self.make_id = make_id
        self.log = log
        self.patience = listener.settings.timeouts.handshake
        self.openings: set[Opening] = set()

    def open(self, skt: socket.socket, sockaddr: tuple[Any, ...], port: Any, number: int) -> None:
        """A connection has been accepted."""
        opening = Opening(self, skt, sockaddr, port, number)
        self.openings.add(opening)
        self.listener.entered(skt.fileno())
        if self._overload is not None and self._overload.is_on and not self._may_begin():
            self._count_failure(opening, "overload")  # its event tells of all of them
            opening.leave()
        else:
            opening.begin()

    def _may_begin(self) -> bool:
        """Whether one more is let in though there is an overload."""
        if not self._is_answering or self.tls is None:
            return self._is_answering
        now = self.seconds()
        if now - self._begun_since >= 1.0:
            self._begun_since, self._begun = now, 0
        self._begun += 1
        return self._begun <= HANDSHAKES

    def drain(self) -> None:
        """What was accepted is answered: openings go on, and their roads know that the service stops."""

    def leave(self) -> None:
        """The same, where only the listener goes."""

    @property
    def peers(self) -> Iterator[str]:
        """Of each opening whose client has been counted, whose it was counted as."""
        yield from [opening.entered for opening in self.openings if opening.entered is not None]

    @property
    def left(self) -> int:
        """Openings that are there."""
        return len(self.openings)

    def count(self) -> None:
        """Everything is on the books already."""

    def abort(self) -> None:
        """Cut what is left."""
        for opening in list(self.openings):
            opening.leave()

    def failed(self, opening: Opening, reason: str, detail: str) -> None:
        """Count and log one that gets no further, and say why, if not each time."""
        now = self.seconds()
        if now - self._told_at >= TOLD_EACH:
            more, self._untold, self._told_at = self._untold, 0, now
            others = f" ({more} more since the last time)" if more else ""
            message = f"{self.listener.name}: {opening.peer}: {reason}: {detail}{others}"
            self._tell(
                "info", "connection.refused", message,
                listener=self.listener.name, client=opening.peer, reason=reason, detail=detail, more=more,
            )  # fmt: skip
        else:
            self._untold += 1
        self._count_failure(opening, reason)

    def _count_failure(self, opening: Opening, reason: str) -> None:
        books = self.listener.books
        books.terminations[reason] = books.terminations.get(reason, 0) + 1
        if reason in books.rejected:
            books.rejected[reason] += 1
        else:
            self.count_handshake("failure", "none")
        if self.log is not None:
            self.log(self._record(opening, reason))

    def count_handshake(self, result: str, version: str) -> None:
        """One more handshake."""
        handshakes = self.listener.books.handshakes
        handshakes[result, version] = handshakes.get((result, version), 0) + 1

    def _record(self, opening: Opening, reason: str) -> tuple[Any, ...]:
        """The access record, in the order of lbsvc.core.record."""
        total = self.seconds() - opening.began
        return (
            self.wall(), self.make_id(), self.listener.name, "tcp", opening.peer, opening.peer, None, None, None, 0,
            opening.headed, 0, None, None, None, 0, reason, None, None, None, total, None, None, None, None, None,
            None,
        )  # fmt: skip
