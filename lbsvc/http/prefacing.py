"""Does a plain connection begin with the preface of HTTP/2 (RFC 9113, 3.4)? Then it is HTTP/2's, by prior knowledge.

Promises: looked at once, with the first bytes, in whatever pieces they come; what only looks like the preface for a while is
read as HTTP/1 from its first byte. Server connections of HTTP/1 are made of this (server.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbsvc.http.h2_frames import PREFACE
from lbsvc.http.h2_server import H2ServerConnection
from lbsvc.http.reading import ReadingConnection

if TYPE_CHECKING:
    pass


class PrefacedConnection(ReadingConnection):
    """The part of a server connection that sees which version is spoken."""

    _received = 0
    _is_new = True  # nothing has come yet but what may be the preface
    _begun = b""

    @property
    def entered(self) -> str:
        """Whom the listener has let in: the peer, or a Surplus (surplus.py)."""
        return self.peer

    def leave(self) -> bytes:
        """The transport is another's now."""
        raise NotImplementedError

    def _is_preface(self, data: bytes) -> bool:
        """Whether it begins as HTTP/2 does (RFC 9113, 3.4), as far as can be seen; then the rest is waited for."""
        begun = self._begun + data
        size = min(len(begun), len(PREFACE))
        if begun[:size] != PREFACE[:size]:
            self._is_new = False
            if self._begun:  # it has looked like it until now
                self._begun = b""
                self._received -= len(begun)
                self.site.books.bytes_in -= len(begun)
                self.dataReceived(begun)
                return True
            return False
        self._begun = begun
        if size == len(PREFACE):
            self._is_new = False
            self._switch(begun)
        elif len(begun) == len(data):
            self.site.deadlines.watch(self, self.site.settings.timeouts.request_header)
        return True

    def _switch(self, early: bytes) -> None:
        """HTTP/2 from here on, by prior knowledge."""
        transport = self.transport
        self.leave()
        self.site.books.bytes_in -= len(early)
        H2ServerConnection(self.site, self.entered, self.arrival).take_over(transport, early)
