"""What HTTP/2 costs without any transport, in the server's role: our codec, the h2 library, and jh2 where it is there.

    python -m tests.bench.h2_cost

- `small`: a request of which every field was met before, and its answer with 13 bytes; microseconds for each
- `paths`: the same with a path that is new each time, as hpack encodes it
- `up`: DATA that comes, taken at once; microseconds for a frame of 16 KiB
- `down`: DATA that is sent, acknowledged by the client on both windows; the same

CPU time, the least of several interleaved repeats, since the machine may be busy with other things. The exchange, header
lists as heads, and all that lbsvc adds are not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from time import process_time
from typing import Any

from hpack import Encoder

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_codec import Codec
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.h2_streams import Stream

NUMBER = 4_000
FRAMES = 400
REPEATS = 5

REQUEST: list[Pair] = [
    *[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"bench.example"), (b":path", b"/")],
    *[(b"user-agent", b"curl/8.9.1"), (b"accept", b"*/*")],
]
ANSWER: list[Pair] = [
    *[(b":status", b"200"), (b"server", b"bench"), (b"content-type", b"text/plain"), (b"content-length", b"13")],
    (b"date", b"Mon, 01 Jan 2024 00:00:00 GMT"),
]
BODY = b"Hello, world\n"
PIECE = bytes(wire.LEAST_FRAME)
GREETING = wire.PREFACE + wire.settings({wire.INITIAL_WINDOW_SIZE: 1 << 24}) + wire.window_update(0, 1 << 30)


def requests(is_new: bool) -> list[bytes]:
    """What a client says, request by request."""
    encoder = Encoder()
    made = []
    for number in range(NUMBER):
        fields = [(name, b"/p/%d" % number if is_new and name == b":path" else value) for name, value in REQUEST]
        made.append(wire.header_frames(2 * number + 1, encoder.encode(fields), True, wire.LEAST_FRAME))
    return made


class Answering:
    """The sink of our codec: answers requests, and takes bodies."""

    codec: Codec
    last: Stream | None = None
    is_answering = True

    def headers(self, stream: Stream, fields: list[Pair] | None, ended: bool) -> None:
        self.last = stream
        if self.is_answering:
            self.codec.send_headers(stream, ANSWER, False)
            self.codec.send_data(stream, BODY, True)

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        self.codec.consume(stream, len(data))

    def trailers(self, stream: Stream, fields: list[Pair] | None) -> None: ...

    def reset(self, stream: Stream, code: int, is_ours: bool) -> None: ...

    def drained(self, stream: Stream) -> None: ...

    def goaway(self, last: int, code: int) -> None: ...

    def pong(self) -> None: ...


class Ours:
    """Our codec, driven as h2_server.py drives it."""

    def __init__(self) -> None:
        self.sink = Answering()
        self.sink.codec = self.codec = Codec(self.sink, False, process_time, header_size=16384)
        self.codec.feed(GREETING)

    def answer(self, said: list[bytes]) -> None:
        codec = self.codec
        for each in said:
            codec.feed(each)
            codec.take()

    def up(self, said: list[bytes]) -> None:
        self.sink.is_answering = False
        self.answer(said)

    def down(self, said: list[bytes]) -> None:
        self.up(said[:1])
        stream, codec = self.sink.last, self.codec
        assert stream is not None
        codec.send_headers(stream, ANSWER, False)
        for each in said[1:]:
            codec.send_data(stream, PIECE, False)
            codec.take()
            codec.feed(each)


class Theirs:
    """The h2 library, or its fork."""

    def __init__(self, name: str) -> None:
        self.events = import_module(f"{name}.events")
        config = import_module(f"{name}.config").H2Configuration(client_side=False, header_encoding=None)
        self.peer: Any = import_module(f"{name}.connection").H2Connection(config)
        self.peer.initiate_connection()
        self.peer.receive_data(GREETING)

    def answer(self, said: list[bytes]) -> None:
        peer, kind = self.peer, self.events.RequestReceived
        for each in said:
            for event in peer.receive_data(each):
                if isinstance(event, kind):
                    peer.send_headers(event.stream_id, ANSWER)
                    peer.send_data(event.stream_id, BODY, end_stream=True)
            peer.data_to_send()

    def up(self, said: list[bytes]) -> None:
        peer, kind = self.peer, self.events.DataReceived
        for each in said:
            for event in peer.receive_data(each):
                if isinstance(event, kind):
                    peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            peer.data_to_send()

    def down(self, said: list[bytes]) -> None:
        peer = self.peer
        peer.receive_data(said[0])
        peer.send_headers(1, ANSWER)
        for each in said[1:]:
            peer.send_data(1, PIECE)
            peer.data_to_send()
            peer.receive_data(each)


def makers() -> dict[str, Callable[[], Ours | Theirs]]:
    """Who is there."""
    found: dict[str, Callable[[], Ours | Theirs]] = {"lbsvc": Ours}
    for name in ("h2", "jh2"):
        try:
            import_module(f"{name}.connection")
        except ImportError:
            continue
        found[name] = lambda name=name: Theirs(name)  # type: ignore[misc]
    return found


def main() -> None:
    """Print the table."""
    same, new = requests(False), requests(True)
    begin = wire.header_frames(1, Encoder().encode(REQUEST), False, wire.LEAST_FRAME)
    up = [begin, *[wire.frame(wire.DATA, 0, 1, PIECE)] * FRAMES]
    updates = wire.window_update(0, len(PIECE)) + wire.window_update(1, len(PIECE))
    rows: dict[str, Callable[[Ours | Theirs], float]] = {
        "small": lambda who: timed(who.answer, same),
        "paths": lambda who: timed(who.answer, new),
        "up": lambda who: timed(who.up, up),
        "down": lambda who: timed(who.down, [begin, *[updates] * FRAMES]),
    }
    found = makers()
    print("".join(f"{name:>10}" for name in ("", *found)), "  us")
    for row, run in rows.items():
        least = dict.fromkeys(found, 1e9)
        for _ in range(REPEATS):
            for name, make in found.items():
                least[name] = min(least[name], run(make()))
        print(f"{row:>10}", *(f"{least[name]:9.2f}" for name in found))
        sys.stdout.flush()


def timed(run: Callable[[list[bytes]], None], said: list[bytes]) -> float:
    """Microseconds for each thing said."""
    begin = process_time()
    run(said)
    return (process_time() - begin) / len(said) * 1e6


if __name__ == "__main__":
    main()
