"""Two connections that have been joined, and the bytes of both sides until it is over: the milestones "carry" and "settle".

Promises: bytes arrive as they were sent, in order, both ways at once; a side that does not read stops the other in the
kernel's buffers, not in our memory; the end of one side's sending is passed on while the other may go on (half-close), and
so is a reset; every wait has a deadline; `finish` does its work once, with one reason word. The layer 4 road
(net/relay.py) and upgraded exchanges (http/tunnel.py) are made of this; they say how it begins and what is settled. Called,
through net/sides.py, by the two transports.

Deadlines: `idle` of the listener for silence in both directions; `half_close` once one side has finished, and again for what
is left to send when all is over. They are not moved by each chunk, but looked at now and then: silence is noticed up to an
eighth of `idle` late, never early.

TLS that ends without saying so (close_notify; some servers never do): what has come is delivered, and the end passed on as
it came: as FIN, over TLS without close_notify. Nobody learns more from us than we have been told.

Law of losses: a side that is lost before it had finished takes the other with it by a reset, so that nobody mistakes what
it has got for the whole. One that had finished leaves the other all that it sent: that is delivered. What a client still
sends is read and dropped meanwhile, since closing on unread bytes would be a reset, and cost it the answer. A backend is
not read for nobody: it would go on for as long as it has something to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from lbsvc.config.schema import ListenerSettings
from lbsvc.core.backend import Outcome
from lbsvc.core.books import ListenerBooks
from lbsvc.net.arrival import Arrival
from lbsvc.net.closing import UnsaidEnd
from lbsvc.net.deadlines import NEVER, Deadlines
from lbsvc.net.sides import Downstream, Side, Upstream
from lbsvc.net.unsent import unsent


class CarryingSite(Protocol):
    """What carriers of one listener share; net/relaysite.py and http/site.py are such."""

    settings: ListenerSettings
    books: ListenerBooks
    deadlines: Deadlines
    seconds: Callable[[], float]
    closes_late: bool
    #: those with a connection left, settled or not
    relays: set[Any]
    on_close: Callable[[str], None]


#: How often in each `idle` two transports that hand over chunks by themselves are looked at.
LOOKS: Final = 8


def drop(data: bytes) -> None:
    """The side that this was meant for is not there yet."""


class Carrier:
    """A client's connection and a backend's, joined; the latter may still be on its way (`upstream` is None)."""

    upstream: Upstream | None = None
    write_up: Callable[[bytes], None] | None = None
    bytes_in = 0
    bytes_out = 0
    counted = (0, 0)
    is_piped = False  # the transports hand chunks to each other, and count them
    deadline = NEVER
    slot = NEVER
    half_closed_at = NEVER
    is_over = False  # settled; a side may have something left to flush

    #: how the client came, where there was a PROXY header or TLS
    arrival: Arrival | None = None

    def __init__(self, site: Any, peer: str, arrival: Arrival | None = None) -> None:
        self.site = site
        self.peer = peer
        if arrival is not None:
            self.arrival = arrival
        self.seconds = site.seconds
        self.began = self.active_at = site.seconds()
        self.downstream = Downstream(self)
        self.write_down: Callable[[bytes], None] = drop

    # -- as whoever is made of this says it

    def start(self) -> None:
        """The client's connection is there."""

    def connected(self, upstream: Upstream) -> None:
        """The backend is there."""

    def hold(self, data: bytes) -> None:
        """The client sends before the backend is there."""

    def settle(self, reason: str, outcome: Outcome, now: float) -> None:
        """It is over: give back the lease, count and log; called once."""
        raise NotImplementedError

    # -- carry: chunks go from one transport to the other, by `pipe_to` or by Side.dataReceived where there is none

    def join(self, upstream: Upstream) -> None:
        """Both are there: let them flow."""
        downstream = self.downstream
        self.upstream = upstream
        upstream.other = downstream
        downstream.other = upstream
        self.active_at = self.seconds()
        transport = upstream.transport
        transport.registerProducer(upstream, True)
        self.write_up = transport.write

    def pipe(self) -> None:
        """Let the transports hand over chunks by themselves: half the calls for each (tests/bench, `l4`)."""
        assert self.upstream is not None
        timeouts = self.site.settings.timeouts
        idle = timeouts.idle
        down, up = self.downstream.transport, self.upstream.transport
        if hasattr(down, "pipe_to") and hasattr(up, "pipe_to"):
            self.is_piped = True
            down.pipe_to(up)
            up.pipe_to(down)
            idle /= LOOKS
        # Most connections are short: what is watched for their ends need not be put into another bucket (`l4close`).
        self.site.deadlines.watch(self, min(idle, timeouts.half_close))

    def collect(self) -> None:
        """Take over what the transports have counted; it also shows whether anything has moved."""
        if not self.is_piped:
            return
        down: Any = self.downstream.transport
        up: Any = self.upstream.transport if self.upstream is not None else None
        came = went = 0
        if down is not None:
            came, down.piped = down.piped, 0
        if up is not None:
            went, up.piped = up.piped, 0
        self.bytes_in += came
        self.bytes_out += went
        if came or went:
            self.active_at = self.seconds()

    def side_finished(self, side: Side) -> None:
        """One side has finished sending: say so to the other, which may go on for `half_close`."""
        if self.is_over:
            side.close()  # it was the last that we waited for
        elif self.upstream is not None:  # otherwise: passed on when the backend is there
            if side.other.has_finished:
                self.finish("ok", Outcome.OK)
            else:
                self.pass_on_end(side.other)

    def pass_on_end(self, side: Side) -> None:
        """Nothing more will come for `side`."""
        side.close_writing()
        timeouts = self.site.settings.timeouts
        self.half_closed_at = self.seconds()
        self.site.deadlines.watch(self, min(timeouts.half_close, timeouts.idle))

    def expired(self, now: float) -> None:
        """Look whether it was silent as long as it may be; if not, look again when it may have been."""
        if self.is_over:
            self.cut()
            return
        self.collect()
        timeouts = self.site.settings.timeouts
        due = self.active_at + timeouts.idle
        if self.half_closed_at != NEVER:
            due = min(due, self.half_closed_at + timeouts.half_close)
        if due > now:
            # Piped chunks leave no time behind: looking often in each `idle` makes it so much longer at most.
            self.site.deadlines.watch(self, min(due - now, timeouts.idle / LOOKS) if self.is_piped else due - now)
        else:
            # Whoever has not read what waits for him all this time is not given more of it.
            self.finish("idle_timeout", Outcome.OK, abort=self._unsent() > 0)

    def look_again(self) -> None:
        """`idle` is another: what was to be looked at only after the former one is looked at in time."""
        timeouts = self.site.settings.timeouts
        if self.upstream is not None and not self.is_over and self.deadline != NEVER:
            patience = timeouts.idle / LOOKS if self.is_piped else timeouts.idle
            self.site.deadlines.watch(self, min(patience, max(0.0, self.deadline - self.site.deadlines.now)))

    def downstream_lost(self, reason: Failure) -> None:
        """The client's connection is gone; this is told once for each connection that was accepted."""
        self.site.on_close(self.peer)
        upstream = self.upstream
        if not self.is_over:
            clean = upstream is not None and reason.check(connectionDone.type) is not None
            if clean:
                self.finish("ok", Outcome.OK)
            elif upstream is not None and reason.check(UnsaidEnd):
                upstream.withhold_end()
                self.finish("ok", Outcome.OK)
            else:
                self.finish("client_closed", Outcome.CLIENT_GONE, abort=not self.downstream.has_finished)
        if upstream is None or upstream.transport is None:
            self._gone()

    def upstream_lost(self, reason: Failure) -> None:
        """The backend's connection is gone."""
        upstream, downstream = self.upstream, self.downstream
        if upstream is not None and not self.is_over:
            if upstream.has_finished:
                self.finish("ok", Outcome.OK, lingering=True)
            elif reason.check(connectionDone.type) is not None:
                self.finish("ok", Outcome.OK)
            elif reason.check(UnsaidEnd):
                downstream.withhold_end()
                self.finish("ok", Outcome.OK)
            else:
                self.finish("upstream_reset", Outcome.RESET, abort=True)
        if downstream.transport is None:
            self._gone()

    # -- settle

    def finish(self, reason: str, outcome: Outcome, abort: bool = False, lingering: bool = False) -> None:
        """Flush and close both sides (or cut them), and settle, once.

        `lingering`: the client has been told the end, and is closed when it ends too; what it sends meanwhile is dropped.
        """
        if self.is_over:
            return
        self.is_over = True
        self.deadline = NEVER
        now = self.seconds()
        self.count()
        self._part(abort, lingering)
        self.settle(reason, outcome, now)

    def _part(self, abort: bool, lingering: bool) -> None:
        """Leave both sides. Whoever does not read what is left to flush is not waited for longer than `half_close`."""
        if abort:
            self.cut()
            return
        if lingering:
            self.downstream.drop_rest()
        else:
            self.downstream.close()
        if self.upstream is not None:
            self.upstream.close()
        site = self.site
        if self in site.relays and (lingering or site.closes_late or self._unsent()):
            site.deadlines.watch(self, site.settings.timeouts.half_close)

    def _unsent(self) -> int:
        """Bytes that wait for a side that does not read them."""
        down = self.downstream.transport
        up = self.upstream.transport if self.upstream is not None else None
        return (unsent(down) if down is not None else 0) + (unsent(up) if up is not None else 0)

    def cut(self) -> None:
        """No more patience."""
        self.downstream.abort()
        if self.upstream is not None:
            self.upstream.abort()

    def kill(self) -> None:
        """The service stops: whatever is left of it ends now."""
        if self.is_over:
            self.cut()
        else:
            self.finish("killed", Outcome.ABANDONED, abort=True)

    def _gone(self) -> None:
        """Both connections are."""
        self.site.deadlines.forget(self)
        self.site.relays.discard(self)
        # No cycle is left for the collector (tests/bench, `l4close`).
        self.downstream.forget()
        if self.upstream is not None:
            self.upstream.forget()

    def count(self) -> None:
        """Put the bytes since the last time on the books: at the end, and before each scrape, not for each chunk."""
        self.collect()
        books = self.site.books
        counted_in, counted_out = self.counted
        books.bytes_in += self.bytes_in - counted_in
        books.bytes_out += self.bytes_out - counted_out
        self.counted = (self.bytes_in, self.bytes_out)
