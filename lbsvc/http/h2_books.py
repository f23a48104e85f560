"""The books of an HTTP/2 connection: which streams are open, which were reset, and whose windows are how far open
(RFC 9113, 5.1 and 6.9).

Promises: a stream that is over is kept by nobody here but by its number, for a while, where we have reset it: what was
on its way is nobody's fault. For each open stream `receive_window + credit` and what its reader has yet to take make
STREAM_WINDOW; whatever ends a stream gives what was not taken back to the connection's window. Part of h2_codec.py,
below h2_receiving.py. Sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_sending import Sending
from lbsvc.http.h2_streams import Sink, Stream

#: Windows that we give, in bytes: to each stream, and to all of a connection together.
STREAM_WINDOW: Final = 65535
CONNECTION_WINDOW: Final = 100 * STREAM_WINDOW  # of all streams that there may be: a slow one takes nothing from others
#: The connection's is given back so many bytes at a time.
GIVEN_BACK: Final = 131072
#: Streams that were reset are remembered: what was on its way is nobody's fault.
REMEMBERED: Final = 512
#: Gaps in the numbers of streams that are remembered: to use a number of one is another fault than to use one again.
SKIPPED: Final = 32
#: What a frame costs that comes for a stream we have reset, of `Budgets.control`.
LATE_PRICE: Final = 0.1


class Books(Sending):
    """The streams of a codec."""

    sink: Sink
    is_client: bool
    streams: dict[int, Stream]
    last_in = 0  # the largest stream that the other side has begun
    last_out: int  # and that we have
    promised = wire.LARGEST_WINDOW  # the last stream that we have said we would look at
    receive_window = CONNECTION_WINDOW
    _credit = 0
    _gone: dict[int, None]  # numbers of streams that we have reset
    _skipped: deque[tuple[int, int]]  # numbers that were passed over: the first of each gap, and the one after its last

    # -- streams that are not open

    def _not_open(self, number: int, stream: Stream | None, what: str) -> None:
        """A frame for a stream that takes none: on its way when we reset it, or a fault (RFC 9113, 5.1)."""
        if stream is not None:
            self.fault(stream, wire.STREAM_CLOSED)
            return
        self._check_begun(number, what)
        if number in self._gone or (number > self.promised and number & 1 and not self.is_client):
            # The latter: it began after the GOAWAY that its sender had not read yet.
            self._budgets.control.spend(LATE_PRICE)
            return
        if any(first <= number < end for first, end in self._skipped):
            raise ConnectionFault(wire.PROTOCOL_ERROR, f"{what} of a stream that was passed over")
        raise ConnectionFault(wire.STREAM_CLOSED, f"{what} of a stream that has ended")

    def _check_begun(self, number: int, what: str) -> None:
        last = (self.last_out if number & 1 else 0) if self.is_client else (self.last_in if number & 1 else 0)
        if not number or number > last:
            raise ConnectionFault(wire.PROTOCOL_ERROR, f"{what} of a stream that was never begun")

    def fault(self, stream: Stream, code: int) -> None:
        """The other side has broken the rules of a stream: it is reset, and the sink hears of it."""
        self._budgets.resets.spend()
        self.reset(stream, code)
        self.sink.reset(stream, code, True)

    # -- books

    def reset(self, stream: Stream, code: int) -> None:
        """We do not want any more of it."""
        if not stream.is_over:
            self._forget(stream)
            self._remember(stream.id)
            self.out.append(wire.rst_stream(stream.id, code))

    def _close_if_over(self, stream: Stream) -> None:
        if stream.has_ended_in and stream.has_ended_out and not stream.is_over:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        """It is over: nobody keeps it, and what its reader has not taken counts as taken."""
        stream.is_over = True
        self._withdraw(stream)
        self.streams.pop(stream.id, None)
        held = STREAM_WINDOW - stream.receive_window - stream.credit
        if held:
            self._give_back(held)

    def _remember(self, number: int) -> None:
        if len(self._gone) >= REMEMBERED:
            del self._gone[next(iter(self._gone))]
        self._gone[number] = None

    def _give_back(self, size: int) -> None:
        """So much of the connection's window is free again."""
        self._credit += size
        if self._credit >= GIVEN_BACK:
            self.out.append(wire.window_update(0, self._credit))
            self.receive_window += self._credit
            self._credit = 0

    def _give_back_of(self, stream: Stream, size: int) -> None:
        """And of a stream's. Half a window at a time: then the other side is never without."""
        stream.credit += size
        if stream.credit * 2 >= STREAM_WINDOW and not stream.has_ended_in:
            self.out.append(wire.window_update(stream.id, stream.credit))
            stream.receive_window += stream.credit
            stream.credit = 0
