"""What a frame costs that opens a window by an octet, beside a PING: microseconds of CPU for each, without any transport.

    python -m tests.bench.h2_dribble

99 answers are under way, and their windows are shut, or the connection's is. The allowances for such frames are lifted.
Before (2026-11) each took 26 to 31, since all streams were sorted and looked at.
"""

from __future__ import annotations

from time import process_time
from typing import Any, Final

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_codec import Codec
from lbsvc.http.h2_hpack import encode
from lbsvc.http.h2_streams import Stream
from tests.bench.h2_cost import ANSWER, REQUEST, Answering

REPEATS: Final = 5
NUMBERS: Final = range(1, 199, 2)


class Downloads(Answering):
    """A sink that remembers its streams."""

    is_answering = False

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def headers(self, stream: Stream, fields: Any, ended: bool) -> None:
        self.streams.append(stream)


def downloading(window: int) -> Codec:
    """A server with 99 answers that wait."""
    sink = Downloads()
    codec = sink.codec = Codec(sink, False, process_time, header_size=16384)
    codec._budgets.control._left = codec._budgets.control._most = 1e9
    codec.feed(wire.PREFACE + wire.settings({wire.INITIAL_WINDOW_SIZE: window}))
    block = encode(REQUEST)
    for number in NUMBERS:
        codec.feed(wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, number, block))
    for stream in sink.streams:
        codec.send_headers(stream, ANSWER, False)
        codec.send_data(stream, bytes(65536), False)
    codec.take()
    return codec


def measure(codec: Codec, frames: list[bytes]) -> float:
    """The least of several repeats."""
    times = []
    for _ in range(REPEATS):
        began = process_time()
        for frame in frames:
            codec.feed(frame)
            codec.take()
        times.append((process_time() - began) / len(frames) * 1e6)
    return min(times)


def main() -> None:
    every = [wire.window_update(number, 1) for number in NUMBERS] * 10
    connection = [wire.window_update(0, 1)] * 990
    for what, window, frames in (
        ("each stream opens by an octet", 0, every),
        ("the connection does, all streams are shut", 0, connection),
        ("the connection does, all streams are open", 1 << 20, connection),
        ("PING", 0, [wire.frame(wire.PING, 0, 0, bytes(8))] * 990),
    ):
        print(f"{what:42} {measure(downloading(window), frames):6.2f}")


if __name__ == "__main__":
    main()
