"""An exchange whose protocol was switched (101): what the client and the backend say from here on is theirs (RFC 9110, 7.8).

Promises: what net/carrying.py promises of two joined connections; bytes that either side had sent before the switch was
through are passed on first; the exchange stays in flight, its lease taken, until the tunnel is over, and is settled then
with its bytes and its reason. Made by the exchange, which has nothing more to do; held by its site, so that a drain lets it
go on and the end of the drain cuts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lbsvc.core.backend import Outcome
from lbsvc.http.messages import ResponseHead
from lbsvc.net.carrying import Carrier
from lbsvc.net.sides import Side, Upstream

if TYPE_CHECKING:
    from lbsvc.http.client import UpstreamConnection
    from lbsvc.http.exchange import Exchange


class Tunnel(Carrier):
    """A client's connection and a backend's, of which nobody here knows what they say."""

    def __init__(self, exchange: Exchange, upstream: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
        connection: Any = exchange.connection  # of HTTP/1, or a stream that stands for one (h2_tunnel.py)
        super().__init__(connection.site, connection.peer)
        self.exchange = exchange
        self.site.relays.add(self)
        connection.send_switch(exchange, head)
        down, up = connection.transport, upstream.transport
        if rest:
            down.write(rest)
            self.bytes_out += len(rest)
        is_full, has_finished = connection.is_stalled, connection.has_finished
        early = connection.leave()
        upstream.leave()
        exchange.upstream = None
        _adopt(self.downstream, down)
        down.registerProducer(self.downstream, True)
        self.write_down = down.write
        backend_side = Upstream(self)
        _adopt(backend_side, up)
        self.join(backend_side)
        self.pipe()
        if early:
            up.write(early)
        self.downstream.is_full = is_full
        if is_full:
            up.pauseProducing()  # until the client reads: the transport remembers that it asked for a pause
        else:
            up.resumeProducing()
        if has_finished:
            self.downstream.has_finished = True
            self.pass_on_end(backend_side)
        elif not backend_side.is_full:
            down.resumeProducing()

    @override
    def settle(self, reason: str, outcome: Outcome, now: float) -> None:
        exchange = self.exchange
        lease, exchange.lease = exchange.lease, None
        if lease is not None:
            lease.backend.connections -= 1
            exchange.released = lease.backend
            # What the backend took is the time to its 101: how long people talk then says nothing about it.
            lease.release(outcome, 101, exchange.first_at - exchange.tried_at)
        exchange.reason = reason
        exchange.bytes_out += self.bytes_out
        exchange.connection.add_bytes_in(self.bytes_in)
        exchange.settle(now)


def _adopt(side: Side, transport: Any) -> None:
    """From here on the transport's events are for `side`. It is connected already, so that nothing is to be made."""
    side.transport = transport
    side.connected = 1
    transport.protocol = side
