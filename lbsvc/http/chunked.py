"""Where does a chunked body end (RFC 9112, 7.1): a strict reader, and the writer's two lines.

Promises: bytes in, payload out, whatever the cuts; sizes are plain hexadecimal without sign, space, prefix or overflow; the
end is the last chunk, its trailers and an empty line, nothing else. Used by both roles of h1.

Decisions:

- Extensions have the grammar of RFC 9112, 7.1.1 or the body is refused; they are bounded and dropped. The bad white space
  that the grammar lets recipients read is read inside of extensions, where nothing depends on it, but not between a size
  and its first semicolon: `5 ;a` and `5 ` are refused alike, since parsers differ in whether the space belongs to the size.
- Trailers go on, in both directions, as trailers: a checksum or a gRPC status that is only known at the end. Never merged
  into the header section, and never those that a backend which does merge them would take for framing, routing, control of
  the request, authentication or identity (RFC 9110, 6.5.1), those that Connection names (7.6.1), or names with an
  underscore. They are dropped, not refused: the message means the same without them.
"""

from __future__ import annotations

import re
from typing import Final

from lbsvc.http.fields import PLAIN, SHADOW, UNDERSCORE, Rules, judge, nominated
from lbsvc.http.messages import Field

_HEX: Final = b"0123456789abcdefABCDEF"
_DIGITS: Final = 15  # of a size: far from any overflow
_LINE: Final = 1024  # longest size line, extensions included
_OVERHEAD: Final = 16 * 1024  # extension bytes that one body may bring in all
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
#: all that may be between a size and its CRLF (chunk-ext), without white space before the first semicolon
_EXTENSIONS: Final = re.compile(
    rb";[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*"
    % (_TOKEN, _TOKEN, _QUOTED, _TOKEN, _TOKEN, _QUOTED)
).fullmatch

#: A body's end where no trailers are passed on.
LAST_CHUNK: Final = b"0\r\n\r\n"

#: Never taken from trailers, beside all that has a kind (fields.py): framing, routing, control, authentication, content.
_FORBIDDEN: Final = frozenset(
    b"accept age allow authorization cache-control content-disposition content-encoding content-language "
    b"content-location content-range content-security-policy content-type cookie dnt expires if-match "
    b"if-modified-since if-none-match if-range if-unmodified-since location max-forwards origin pragma range "
    b"referer refresh retry-after set-cookie strict-transport-security trailer user-agent vary via warning "
    b"www-authenticate".split()
)
#: Nor what begins like this: negotiation, cross-origin permissions, what browsers vouch for, proxies.
_FORBIDDEN_BEGINNINGS: Final = (b"accept-", b"access-control-", b"sec-", b"cross-origin-", b"proxy-")

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

    `head` is the head that it belongs to, as it came: what its Connection fields name is looked up if there are trailers.
    A read is walked through by position and never cut at each chunk, and a line that comes in pieces is only looked at
    where it is new: neither tiny chunks nor tiny reads cost the square of their number.
    """

    __slots__ = (
        "_begun",
        "_fields",
        "_head",
        "_left",
        "_lines",
        "_overhead",
        "_rules",
        "_state",
        "ended",
        "surplus",
        "trailers",
    )

    def __init__(self, rules: Rules, head: bytes = b"") -> None:
        self._rules = rules
        self._head = head
        self._state = _SIZE
        self._begun = bytearray()  # a line that is not whole
        self._left = 0
        self._lines = 0  # trailers so far, with those that are dropped
        self._fields: list[Field] = []  # those that are not
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
            seen = len(begun)
            begun += data
            if b"\n" not in data:
                self._check_begun(state, seen)
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
            self._check_begun(state, 0)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _check_begun(self, state: int, seen: int) -> None:
        """Refuse the beginning of a line that cannot become lawful: nobody waits for more of it.

        The first `seen` bytes were looked at before. Where they come one by one they are refused at the first that is
        wrong: so a bare CR only counts where it is before the byte that is too much.
        """
        begun, longest = self._begun, self._rules.header_size
        if state == _SIZE:
            if len(begun) > _LINE or b"\r" in begun[:-1]:
                raise self._rules.violation("a chunk size line that is too long, or has a bare CR")
            self._check_size(bytes(begun).partition(b";")[0].removesuffix(b"\r"))
        elif state == _PAYLOAD_END:
            if begun != b"\r":
                raise self._rules.violation("a chunk that is longer than its size")
        elif begun.find(b"\r", max(seen - 1, 0), min(len(begun) - 1, longest)) >= 0:
            raise self._rules.violation("a bare CR in a trailer")
        elif len(begun) > longest:
            raise self._rules.violation("a trailer beyond limits.header_size", 431, "too_large")

    def _check_size(self, size: bytes) -> None:
        if size.translate(None, _HEX) or len(size) > _DIGITS:
            raise self._rules.violation("a chunk size that is not a hexadecimal number within reason")

    def _without_extension(self, line: bytes) -> bytes:
        size, _, _ = line.partition(b";")
        self._check_size(size or b"-")
        extensions = line[len(size) :]
        self._overhead += len(extensions)
        if self._overhead > _OVERHEAD:
            raise self._rules.violation("too many chunk extensions")
        if extensions and not _EXTENSIONS(extensions):
            raise self._rules.violation("chunk extensions that are not names with values")
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
                self.trailers = self._join_trailers()
                self.surplus = data[at:]
                return len(data)
            self._lines += 1
            self._overhead += len(line)
            if self._lines > rules.header_count or self._overhead > rules.header_size + _OVERHEAD:
                raise rules.violation("too many trailers", 431, "too_large")
            field = judge(line, rules)
            name, kind = field[0], field[3]
            if kind == PLAIN:
                if name not in _FORBIDDEN and not name.startswith(_FORBIDDEN_BEGINNINGS):
                    self._fields.append(field)
            elif rules.underscores == "reject" and kind in (UNDERSCORE, SHADOW):
                raise rules.violation("an underscore in a trailer's name (limits.underscore_headers)")
        return at

    def _join_trailers(self) -> bytes:
        if not self._fields:
            return b""
        names = nominated(self._head)
        return b"".join([field[2] for field in self._fields if field[0] not in names])
