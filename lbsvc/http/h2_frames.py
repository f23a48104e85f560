"""HTTP/2 frames as bytes (RFC 9113, 4 and 6): what they are called, how they are cut out of a stream, how they are
written.

Promises: `FrameReader.feed` takes bytes as they come, in pieces of any size, and hands out whole frames in order, none
longer than `largest`; what it keeps is less than one frame. Nothing here knows what a frame means. Called by
h2_codec.py. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from lbsvc.errors import LbsvcError

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9
PRIORITY_UPDATE: Final = 16  # RFC 9218, 7.1

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# Error codes (RFC 9113, 7).
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
SETTINGS_TIMEOUT: Final = 4
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
CONNECT_ERROR: Final = 10
ENHANCE_YOUR_CALM: Final = 11
INADEQUATE_SECURITY: Final = 12
HTTP_1_1_REQUIRED: Final = 13
_CODE_WORDS: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)

# Settings (RFC 9113, 6.5.2; RFC 8441, 3; RFC 9218, 2.1).
HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8
NO_RFC7540_PRIORITIES: Final = 9

#: How a client begins (RFC 9113, 3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: The length of a frame that everybody must take, and of ours.
LEAST_FRAME: Final = 16384
LARGEST_WINDOW: Final = 0x7FFFFFFF

_HEAD: Final = Struct(">HBBBL")
_read_head: Final = _HEAD.unpack_from
_write_head: Final = _HEAD.pack
_LONG: Final = Struct(">L")
_SETTING: Final = Struct(">HL")
_TWO_LONGS: Final = Struct(">LL")


def code_word(code: int) -> str:
    """An error code as RFC 9113, 7, calls it; others by their number."""
    return _CODE_WORDS[code] if code < len(_CODE_WORDS) else str(code)


class ConnectionFault(LbsvcError):
    """The other side has broken the protocol of the whole connection (RFC 9113, 5.4.1): GOAWAY with `code`, and the end."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class FrameReader:
    """Cuts frames out of a stream."""

    def __init__(self, largest: int = LEAST_FRAME) -> None:
        self.largest = largest
        self._rest = b""

    def feed(self, data: bytes, take: Callable[[int, int, int, bytes], None]) -> None:
        """Call `take(type, flags, stream, payload)` for each whole frame; raises ConnectionFault for one that is too long.

        What `take` raises comes through, and the reader is not to be fed again.
        """
        if self._rest:
            data = self._rest + data
        size = len(data)
        at = 0
        while size - at >= 9:
            high, low, kind, flags, stream = _read_head(data, at)
            length = high << 8 | low
            if length > self.largest:
                raise ConnectionFault(FRAME_SIZE_ERROR, "a frame longer than SETTINGS_MAX_FRAME_SIZE")
            end = at + 9 + length
            if end > size:
                break
            take(kind, flags, stream & LARGEST_WINDOW, data[at + 9 : end])
            at = end
        self._rest = data[at:] if at else data

    @property
    def kind(self) -> int:
        """The type of the frame that has begun to come; -1 where that is not known yet."""
        return self._rest[3] if len(self._rest) > 3 else -1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    length = len(payload)
    return _write_head(length >> 8, length & 0xFF, kind, flags, stream) + payload


def frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes before a payload of `length`."""
    return _write_head(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The values of a SETTINGS frame in their order; raises ConnectionFault."""
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a SETTINGS frame that is no list of settings")
    return list(_SETTING.iter_unpack(payload))


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, _LONG.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _TWO_LONGS.pack(last, code) + debug)


def read_long(payload: bytes, at: int = 0) -> int:
    """Four bytes as a number."""
    found: int = _LONG.unpack_from(payload, at)[0]
    return found


def header_frames(stream: int, block: bytes, ended: bool, largest: int) -> bytes:
    """A header block as HEADERS, and CONTINUATION where it does not fit into one frame."""
    flags = END_STREAM if ended else 0
    if len(block) <= largest:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [frame(HEADERS, flags, stream, block[:largest])]
    for at in range(largest, len(block), largest):
        last = at + largest >= len(block)
        parts.append(frame(CONTINUATION, END_HEADERS if last else 0, stream, block[at : at + largest]))
    return b"".join(parts)
