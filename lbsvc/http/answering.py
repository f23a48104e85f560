"""Answers on their way to a client: the head framed for it, its body in the pieces that come, one write for each.

Promises: an answer is whole, ends where its head says, and says `Connection: close` exactly if the connection ends after it;
it carries the request's id, and a Date. Server connections are made of this; the exchange calls it, with nothing in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbsvc.http.closing import EndingConnection
from lbsvc.http.framing import CHUNKS, SIZED, TO_END, frame, framing_of, may_go_on
from lbsvc.http.messages import ResponseHead
from lbsvc.net.together import write_last

if TYPE_CHECKING:
    from lbsvc.http.exchange import Exchange


_UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n"


class AnsweringConnection(EndingConnection):
    """The part of a server connection that writes."""

    _keep = True  # the connection goes on after this exchange
    _framing = SIZED  # of this answer

    def send_interim(self, exchange: Exchange, head: ResponseHead) -> None:
        self._write(head.wire + b"\r\n", exchange)

    def send_switch(self, exchange: Exchange, head: ResponseHead) -> None:
        """The 101 of a backend; the two fields that belong to it were hop-by-hop, and are said anew."""
        lines = _UPGRADE + self._backend_line(exchange)
        self._write(b"%b%bX-Request-Id: %b\r\n\r\n" % (head.wire, lines, exchange.id), exchange)

    def _backend_line(self, exchange: Exchange) -> bytes:
        lease = exchange.lease
        if lease is None or not self.site.settings.expose_backend:
            return b""
        return b"X-Backend: %b\r\n" % lease.backend.name.encode("ascii", "replace")

    def send_response(self, exchange: Exchange, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        """The head, framed for this client, and what is there of the body, in one write."""
        request = exchange.head
        if (
            head.is_plain
            and self._keep
            and exchange.request_ended
            and request.minor
            and not exchange.is_special
            and not self.site.is_special
        ):
            # Hot path (tests/bench, `http`): nothing to add but the request's id.
            self._framing = SIZED
            wire = b"%bX-Request-Id: %b\r\n\r\n%b" % (head.wire, exchange.id, body)
            size = len(wire)
            self.site.books.bytes_out += size
            exchange.bytes_out += size
            if ended and exchange.upstream is not None:
                self.site.write(self.transport, wire)
            else:
                self.transport.write(wire)  # more of it may come in this very turn
            return
        self._framing = framing = framing_of(request, head)
        if (
            framing == TO_END
            or self.site.is_draining
            or not (exchange.request_ended or may_go_on(request, exchange.has_continued, head.status))
        ):
            self._keep = False
        lines = b"Transfer-Encoding: chunked\r\n" if framing == CHUNKS else b""
        if not self._keep:
            lines += b"Connection: close\r\n"
        elif not request.minor:
            lines += b"Connection: keep-alive\r\n"
        if not head.section.has_date:
            lines += self.site.date_line()
        lines += self._backend_line(exchange)
        if head.status == 426 and head.section.upgrade:
            lines += _UPGRADE  # it must say to what (RFC 9110, 15.5.22)
        body = frame(framing, body, ended, trailers)
        self._write(b"%b%bX-Request-Id: %b\r\n\r\n%b" % (head.wire, lines, exchange.id, body), exchange, ended)

    def send_body(self, exchange: Exchange, body: bytes, ended: bool, trailers: bytes) -> None:
        """More of the answer."""
        if self._framing != SIZED:
            body = frame(self._framing, body, ended, trailers)
        if body:
            self._write(body, exchange, ended)

    def _write(self, wire: bytes, exchange: Exchange, is_last: bool = False) -> None:
        size = len(wire)
        self.site.books.bytes_out += size
        exchange.bytes_out += size
        if is_last and not self._keep:
            write_last(self.transport, wire)  # the exchange is over, and with it the connection
        elif is_last and exchange.upstream is not None:
            self.site.write(self.transport, wire)
        else:
            self.transport.write(wire)
