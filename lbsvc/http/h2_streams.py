"""One HTTP/2 stream as its codec keeps it: windows, what waits to be sent, and which sides have ended.

Promises: values and sums only; h2_codec.py decides, h2_sending.py takes from the queue. `owner` is whoever hears of it.
Sizes and windows are bytes.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from lbsvc.http.h2_hpack import Pair

#: By RFC 9218, 4.1, what is not said otherwise.
URGENCY = 3
#: Behind the numbers of all streams: the place of those that share.
_SHARED = (1 << 32) - 1


class Stream:
    """A stream that is open, or half."""

    __slots__ = (
        "credit",
        "has_ended_in",
        "has_ended_out",
        "id",
        "is_incremental",
        "is_over",
        "is_waiting",
        "left",
        "owner",
        "queue",
        "queued",
        "rank",
        "receive_window",
        "send_window",
        "tail",
    )

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.owner: Any = None
        self.send_window = send_window
        self.receive_window = receive_window
        self.credit = 0  # taken by whoever reads, and not yet given back to the other side's window
        self.left: int | None = None  # what Content-Length has promised and has not come; None: nothing was promised
        self.queue: deque[bytes | bytearray] = deque()
        self.queued = 0
        #: the trailers that end it, to be sent behind the queue; [] for a bare END_STREAM; None: it goes on
        self.tail: list[tuple[bytes, bytes]] | None = None
        self.has_ended_in = False  # the other side has
        self.has_ended_out = False  # we have, in frames that are on their way
        self.is_over = False  # both have, or it was reset
        self.is_waiting = False  # it has something to send, and the codec knows it
        self.is_incremental = True  # shares with others of its urgency, unless its client says otherwise
        #: who sends first: the urgent, of these who comes one after the other, by number, then who shares (RFC 9218, 10)
        self.rank = URGENCY << 32 | _SHARED

    @property
    def urgency(self) -> int:
        """0, the most urgent, to 7."""
        return self.rank >> 32

    def __repr__(self) -> str:
        return f"<Stream {self.id}{', over' if self.is_over else ''}, {self.queued} queued>"


class Sink(Protocol):
    """Who hears of what comes. `stream.owner` is the sink's own."""

    def headers(self, stream: Stream, fields: list[Pair] | None, ended: bool) -> None:
        """A stream begins (server), or a head comes (client; again after 1xx). None: a list beyond the limit."""

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """More of a body; `consume` gives its window back."""

    def trailers(self, stream: Stream, fields: list[Pair] | None) -> None:
        """The end, with trailers."""

    def reset(self, stream: Stream, code: int, is_ours: bool) -> None:
        """It is over: the other side has reset it, or we have because of what it sent."""

    def drained(self, stream: Stream) -> None:
        """Some of its queue has been sent."""

    def goaway(self, last: int, code: int) -> None:
        """The other side begins no more, and has not looked at streams of ours beyond `last`."""

    def pong(self) -> None:
        """The answer to our PING."""


def prioritize(stream: Stream, value: bytes) -> None:
    """Take a hint of RFC 9218: `u=3, i`; what cannot be read says nothing."""
    urgency, is_incremental = 3, False
    for part in value.split(b","):
        name, _, said = part.strip(b" ").partition(b";")[0].partition(b"=")
        if name == b"u" and len(said) == 1 and b"0" <= said <= b"7":
            urgency = int(said)
        elif name == b"i":
            is_incremental = said in (b"", b"?1")
    stream.is_incremental = is_incremental
    stream.rank = urgency << 32 | (_SHARED if is_incremental else stream.id)
