"""Where does a chunked body end (RFC 9112, 7.1): a strict reader, and the writer's two lines.

Promises: bytes in, payload out, whatever the cuts; chunk extensions are dropped and bounded; sizes are plain hexadecimal
without sign, space, prefix or overflow; the end is the last chunk, its trailers and an empty line, nothing else. Trailers
that would change what a message means are dropped. Used by both roles of h1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbsvc.http.fields import PLAIN, Rules, judge

_HEX: Final = b"0123456789abcdefABCDEF"
_LINE: Final = 1024  # longest size line, extensions included
_OVERHEAD: Final = 16 * 1024  # extension bytes that one body may bring in all
_EXTENSION: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

#: A body's end where no trailers are passed on.
LAST_CHUNK: Final = b"0\r\n\r\n"

#: Never taken from trailers (RFC 9110, 6.5.1): framing, routing, control, authentication.
_FORBIDDEN: Final = frozenset(
    b"authorization cache-control content-encoding content-length content-range content-type cookie date expect expires "
    b"host location max-forwards pragma proxy-authenticate proxy-authorization range retry-after set-cookie te trailer "
    b"transfer-encoding vary warning www-authenticate age connection keep-alive upgrade".split()
)


def encode_chunk(payload: bytes) -> bytes:
    """One chunk around `payload`, which is not empty (an empty one would end the body)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def encode_end(trailers: bytes) -> bytes:
    """The last chunk, with `trailers` as complete lines."""
    return b"0\r\n%b\r\n" % trailers


class ChunkedReader:
    """One body. `feed` until `ended`; then `trailers` holds complete lines and `surplus` what follows the body.

    The position moves through a buffer that is cut once in each feed: cutting it at each chunk would make a read full of
    tiny chunks cost the square of its length.
    """

    __slots__ = ("_at", "_buffer", "_left", "_overhead", "_rules", "_state", "ended", "surplus", "trailers")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._state: Callable[[ChunkedReader, list[bytes]], bool] = ChunkedReader._read_size
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._overhead = 0
        self.ended = False
        self.trailers = b""
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`; raises ProtocolViolation at the first byte that can only be wrong."""
        if self._state is ChunkedReader._read_payload and len(data) < self._left:
            self._left -= len(data)
            return data
        payload: list[bytes] = []
        self._buffer += data
        while self._state(self, payload):
            pass
        self._buffer, self._at = self._buffer[self._at :], 0
        if self.ended:
            self.surplus, self._buffer = self._buffer, b""
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _line(self, limit: int, what: str) -> bytes | None:
        """The next line without CRLF, or None while it is incomplete."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at, at + limit + 1)
        if end < 0:
            if len(buffer) - at > limit:
                raise self._rules.violation(f"{what} is too long")
            if b"\r" in buffer[at:-1]:
                raise self._rules.violation(f"a bare CR in {what}")
            return None
        if end == at or buffer[end - 1] != 13:
            raise self._rules.violation(f"a bare LF in {what}")
        self._at = end + 1
        return buffer[at : end - 1]

    def _check_size(self, size: bytes) -> None:
        if size.translate(None, _HEX) or len(size) > 15:
            raise self._rules.violation("a chunk size that is not a hexadecimal number within reason")

    def _read_size(self, payload: list[bytes]) -> bool:
        line = self._line(_LINE, "a chunk size line")
        if line is None:
            # A size that cannot become lawful is refused before its line is whole: nobody waits for more of it.
            self._check_size(self._buffer[self._at :].partition(b";")[0].removesuffix(b"\r"))
            return False
        size, semicolon, extension = line.partition(b";")
        self._check_size(size or b"-")
        if semicolon:
            self._overhead += len(extension)
            if extension.translate(None, _EXTENSION) or self._overhead > _OVERHEAD:
                raise self._rules.violation("chunk extensions with control bytes, or too many of them")
        self._left = int(size, 16)
        self._state = ChunkedReader._read_payload if self._left else ChunkedReader._read_trailers
        return True

    def _read_payload(self, payload: list[bytes]) -> bool:
        buffer, at = self._buffer, self._at
        ready = len(buffer) - at
        if not ready:
            return False
        if ready < self._left:
            self._left -= ready
            payload.append(buffer[at:])
            self._at = len(buffer)
            return False
        self._at = at + self._left
        payload.append(buffer[at : self._at])
        self._left = 0
        self._state = ChunkedReader._read_payload_end
        return True

    def _read_payload_end(self, payload: list[bytes]) -> bool:
        found = self._buffer[self._at : self._at + 2]
        if not b"\r\n".startswith(found):
            raise self._rules.violation("a chunk that is longer than its size")
        if len(found) < 2:
            return False
        self._at += 2
        self._state = ChunkedReader._read_size
        return True

    def _read_trailers(self, payload: list[bytes]) -> bool:
        line = self._line(self._rules.header_size, "a trailer line")
        if line is None:
            return False
        if line:
            self._left += 1  # counts trailer lines here
            self._overhead += len(line)
            if self._left > self._rules.header_count or self._overhead > self._rules.header_size + _OVERHEAD:
                raise self._rules.violation("too many trailers", 431, "too_large")
            field = judge(line, self._rules)
            if field[3] == PLAIN and field[0] not in _FORBIDDEN:
                self.trailers += field[2]
            return True
        self.ended = True
        return False
