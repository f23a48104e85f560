"""Connections past `connections_per_client`: each is told so, once, and ends.

Promises: the first request, whatever it is and whether or not it can be read, is answered 429 `rate_limited`, and nothing
of it reaches a backend; a client that has sent none within PATIENCE is answered all the same, and then the connection
ends as every other does (closing.py), so that the client gets to see the answer. Counted and logged as any refusal. How
many there may be is the listener's to say (net/listener.py), which asks for them through app.py.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.errors import ProtocolViolation
from lbsvc.http import responses
from lbsvc.http.exchange import Exchange
from lbsvc.http.h1_requests import RequestReader
from lbsvc.http.messages import RequestHead, Section
from lbsvc.http.server import ServerConnection
from lbsvc.http.site import HttpSite
from lbsvc.net.arrival import Arrival
from lbsvc.net.deadlines import NEVER

#: How long a request is waited for, in seconds from the connection's beginning to the end of the head.
PATIENCE: Final = 1.0
#: When the client may come again, in seconds (contract.md).
RETRY_AFTER: Final = 1

#: Stands for a request that did not come, or cannot be read.
_UNREAD: Final = RequestHead(b"-", b"-", 1, None, Section())


class SurplusConnection(ServerConnection):
    """One connection too many. `peer` is a core.clients.Surplus."""

    def __init__(self, site: HttpSite, peer: str, arrival: Arrival | None = None) -> None:
        super().__init__(site, str(peer), arrival)  # the log takes plain text only
        self._entered = peer

    @property
    @override
    def entered(self) -> str:
        return self._entered

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.peer = self._entered  # the listener knows by it on which count this was; nothing is logged from here on
        super().connectionLost(reason)

    @override
    def request(self, head: RequestHead, body: bytes, ended: bool, trailers: bytes) -> None:
        self._turn_away(head, ended)

    @override
    def _violated(self, violation: ProtocolViolation) -> None:
        self._turn_away(_UNREAD, False)

    @override
    def expired(self, now: float) -> None:
        if self.is_ending:
            super().expired(now)
        else:
            self._turn_away(_UNREAD, False)

    @override
    def _watch_idle(self) -> None:
        self.site.deadlines.watch(self, PATIENCE)

    @override
    def _read_ahead(self, reader: RequestReader) -> None:
        """A head that has begun gets no more time."""

    def _turn_away(self, head: RequestHead, ended: bool) -> None:
        if self.is_ending:
            return  # it has been said: what is wrong with the rest of the request does not matter
        self.deadline = NEVER
        self._keep = False
        site = self.site
        self.exchange = exchange = Exchange(self, head, site.seconds())
        exchange.request_ended = ended
        exchange.reason = "rate_limited"
        site.books.in_flight += 1
        exchange.answer(*responses.error(429, "rate_limited", exchange.id, head, retry_after=RETRY_AFTER))
