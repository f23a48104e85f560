"""Where does a chunked body end (RFC 9112, 7.1): a strict reader, and the writer's two lines.

Promises: bytes in, payload out, whatever the cuts; chunk extensions are dropped and bounded; sizes are plain hexadecimal
without sign, space, prefix or overflow; the end is the last chunk, its trailers and an empty line, nothing else. Trailers
that would change what a message means are dropped. Used by both roles of h1.
"""

from __future__ import annotations

from typing import Final

from lbsvc.http.fields import PLAIN, Rules, judge

_HEX: Final = b"0123456789abcdefABCDEF"
_DIGITS: Final = 15  # of a size: far from any overflow
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

# What comes next: a size line, payload, the CRLF behind it, a trailer or the end.
_SIZE, _PAYLOAD, _PAYLOAD_END, _TRAILERS = range(4)


def encode_chunk(payload: bytes) -> bytes:
    """One chunk around `payload`, which is not empty (an empty one would end the body)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def encode_end(trailers: bytes) -> bytes:
    """The last chunk, with `trailers` as complete lines."""
    return b"0\r\n%b\r\n" % trailers


class ChunkedReader:
    """One body. `feed` until `ended`; then `trailers` holds complete lines and `surplus` what follows the body.

    A read is walked through by position and never cut at each chunk, and a line that comes in pieces is only looked at
    where it is new: neither tiny chunks nor tiny reads cost the square of their number.
    """

    __slots__ = (
        "_begun",
        "_fields",
        "_left",
        "_lines",
        "_overhead",
        "_rules",
        "_state",
        "ended",
        "surplus",
        "trailers",
    )

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._state = _SIZE
        self._begun = bytearray()  # a line that is not whole
        self._left = 0
        self._lines = 0  # trailers so far, with those that are dropped
        self._fields: list[bytes] = []  # those that are not
        self._overhead = 0
        self.ended = False
        self.trailers = b""
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises ProtocolViolation as soon as what came cannot become a body."""
        state, left = self._state, self._left
        if state == _PAYLOAD and len(data) < left:
            self._left = left - len(data)
            return data
        begun = self._begun
        if begun:
            begun += data
            if b"\n" not in data:
                self._check_begun(state)
                return b""
            data = bytes(begun)
            begun.clear()
        payload: list[bytes] = []
        at, size = 0, len(data)
        while True:
            # Hot where chunks are tiny: the three states of a chunk follow each other without a call.
            if state == _SIZE:
                end = data.find(b"\n", at, at + _LINE + 1)
                if end < 0:
                    break
                if end == at or data[end - 1] != 13:
                    raise self._rules.violation("a bare LF in a chunk size line")
                line = data[at : end - 1]
                at = end + 1
                if not 0 < len(line) <= _DIGITS or line.translate(None, _HEX):
                    line = self._without_extension(line)
                left = int(line, 16)
                state = _PAYLOAD if left else _TRAILERS
            if state == _PAYLOAD:
                end = at + left
                if end > size:
                    left = end - size
                    if at < size:
                        payload.append(data[at:])
                    at = size
                    break
                payload.append(data[at:end])
                at = end
                state = _PAYLOAD_END
            if state == _PAYLOAD_END:
                if data[at : at + 2] != b"\r\n":
                    break
                at += 2
                state = _SIZE
            else:
                at = self._read_trailers(data, at)
                break
        self._state, self._left = state, left
        if at < size:
            begun += data[at:]
            self._check_begun(state)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _check_begun(self, state: int) -> None:
        """Refuse the beginning of a line that cannot become lawful: nobody waits for more of it."""
        begun = self._begun
        if state == _SIZE:
            if len(begun) > _LINE or b"\r" in begun[:-1]:
                raise self._rules.violation("a chunk size line that is too long, or has a bare CR")
            self._check_size(bytes(begun).partition(b";")[0].removesuffix(b"\r"))
        elif state == _PAYLOAD_END:
            if begun != b"\r":
                raise self._rules.violation("a chunk that is longer than its size")
        elif len(begun) > self._rules.header_size:
            raise self._rules.violation("a trailer beyond limits.header_size", 431, "too_large")

    def _check_size(self, size: bytes) -> None:
        if size.translate(None, _HEX) or len(size) > _DIGITS:
            raise self._rules.violation("a chunk size that is not a hexadecimal number within reason")

    def _without_extension(self, line: bytes) -> bytes:
        size, _, extension = line.partition(b";")
        self._check_size(size or b"-")
        self._overhead += len(extension)
        if extension.translate(None, _EXTENSION) or self._overhead > _OVERHEAD:
            raise self._rules.violation("chunk extensions with control bytes, or too many of them")
        return size

    def _read_trailers(self, data: bytes, at: int) -> int:
        """Trailer lines from `at` on; returns how far they go, which is all of `data` once the body has ended."""
        rules = self._rules
        while (end := data.find(b"\n", at, at + rules.header_size + 1)) >= 0:
            if end == at or data[end - 1] != 13:
                raise rules.violation("a bare LF in a trailer")
            line = data[at : end - 1]
            at = end + 1
            if not line:
                self.ended = True
                self.trailers = b"".join(self._fields)
                self.surplus = data[at:]
                return len(data)
            self._lines += 1
            self._overhead += len(line)
            if self._lines > rules.header_count or self._overhead > rules.header_size + _OVERHEAD:
                raise rules.violation("too many trailers", 431, "too_large")
            field = judge(line, rules)
            if field[3] == PLAIN and field[0] not in _FORBIDDEN:
                self._fields.append(field[2])
        return at
