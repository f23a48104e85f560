"""A codec of HTTP/2 with somebody who writes down what it tells, and frames read back from what it says.

Promises: `Heard.events` has what a sink hears, in order, each as a tuple that begins with its kind; nothing is consumed
but by the test. `frames` are the whole frames of a piece of wire. Used by the tests of the codec.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_codec import Codec
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_hpack import Pair, encode
from lbsvc.http.h2_streams import Stream

GET: list[Pair] = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.example")]
POST: list[Pair] = [(b":method", b"POST"), *GET[1:]]
OK: list[Pair] = [(b":status", b"200")]
BLOCK = encode(GET)


class Owner:
    """Whose stream it is."""

    has_head = False


class Heard:
    """A codec of either role, its clock, and what it has told."""

    def __init__(self, is_client: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        self.events: list[tuple[Any, ...]] = []
        self.streams: dict[int, Stream] = {}
        self.promises: dict[int, int] = {}  # stream -> the Content-Length that its head is taken to have
        settings.setdefault("header_size", 16384)
        self.codec = Codec(self, is_client, self.clock.seconds, **settings)

    # -- as a sink

    def headers(self, stream: Stream, fields: list[Pair] | None, ended: bool) -> None:
        self.streams[stream.id] = stream
        if stream.owner is None:
            stream.owner = Owner()
        stream.owner.has_head = fields is None or (b":status", b"103") not in fields
        stream.left = self.promises.get(stream.id)
        self.events.append(("headers", stream.id, fields, ended))

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        self.events.append(("data", stream.id, data, ended))

    def trailers(self, stream: Stream, fields: list[Pair] | None) -> None:
        self.events.append(("trailers", stream.id, fields))

    def reset(self, stream: Stream, code: int, is_ours: bool) -> None:
        self.events.append(("reset", stream.id, code, is_ours))

    def drained(self, stream: Stream) -> None:
        self.events.append(("drained", stream.id))

    def goaway(self, last: int, code: int) -> None:
        self.events.append(("goaway", last, code))

    def pong(self) -> None:
        self.events.append(("pong",))

    # -- as a test

    def greet(self, values: dict[int, int] | None = None) -> Heard:
        """The other side has begun; what we have said to that is forgotten."""
        self.codec.feed((b"" if self.codec.is_client else wire.PREFACE) + wire.settings(values or {}))
        self.codec.take()
        return self

    def begin(self, fields: list[Pair], ended: bool) -> Stream:
        """A client's new request, with an owner."""
        stream = self.codec.begin(fields, ended)
        stream.owner = Owner()
        self.streams[stream.id] = stream
        return stream

    def feed(self, *pieces: bytes) -> str:
        """How it ends: `GOAWAY n` for a fault of the connection, `RST n` for the last reset of ours, else nothing."""
        try:
            for piece in pieces:
                self.codec.feed(piece)
        except ConnectionFault as fault:
            return f"GOAWAY {fault.code}"
        resets = [wire.read_long(each[3]) for each in frames(self.take()) if each[0] == wire.RST_STREAM]
        return f"RST {resets[-1]}" if resets else ""

    def take(self) -> bytes:
        """What is to be written, which stays there to be looked at."""
        made = self.codec.take()
        self.codec.out.append(made)
        return made

    def said(self) -> list[tuple[int, int, int, bytes]]:
        """The frames that are to be written, taken away."""
        return frames(self.codec.take())

    def heard(self) -> list[tuple[Any, ...]]:
        """The events until now, taken away."""
        events, self.events = self.events, []
        return events


def frames(raw: bytes) -> list[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each."""
    found: list[tuple[int, int, int, bytes]] = []
    raw = raw.removeprefix(wire.PREFACE)
    while raw:
        length = int.from_bytes(raw[:3], "big")
        found.append((raw[3], raw[4], int.from_bytes(raw[5:9], "big"), raw[9 : 9 + length]))
        assert len(raw) >= 9 + length, "a piece of a frame"
        raw = raw[9 + length :]
    return found


def head(stream: int, ended: bool = True, block: bytes = BLOCK) -> bytes:
    """A whole HEADERS frame."""
    return wire.frame(wire.HEADERS, wire.END_HEADERS | (wire.END_STREAM if ended else 0), stream, block)


def data(stream: int, payload: bytes, ended: bool = False) -> bytes:
    """A DATA frame."""
    return wire.frame(wire.DATA, wire.END_STREAM if ended else 0, stream, payload)
