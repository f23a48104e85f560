"""Requests read from bytes: the server's half of the HTTP/1 codec (RFC 9112).

Promises: any bytes, cut anywhere, give the same calls on the sink or a ProtocolViolation; a message that two parsers could
read differently is a violation and nothing of it is handed on. Called by server.py with what the transport read. No
transport, no clock. See h1.py for how heads are judged.

Decisions, where RFC 9112 leaves one: one empty line before a request is forgiven (2.2); a version other than 1.0 and 1.1 in
a lawful request line is 505, any other 400; Host must be the authority of an absolute-form target letter by letter but for
case, a port included; a body is a body under every method (fat GETs go on as they are) but under TRACE, which may have none;
what upgrades takes both of its fields and HTTP/1.1, and either alone is a request like others (fields.py).
"""

from __future__ import annotations

import re
from typing import Final, Protocol

import httptools

from lbsvc.core.methods import METHODS
from lbsvc.http.chunked import ChunkedReader
from lbsvc.http.fields import Rules, is_authority, is_token, read_section
from lbsvc.http.h1 import CHUNKS, DEAF, END, HEAD, HELD, LENGTH, REMEMBERED, check_incomplete
from lbsvc.http.messages import CHUNKED, RequestHead, Section

_TARGET: Final = bytes(b for b in range(0x21, 0x7F) if b != 0x23)  # visible ASCII but the fragment's mark
_METHOD_SIZE: Final = 32  # a token that is longer is no method that anybody knows
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch


def is_target(target: bytes) -> bool:
    """Whether these bytes may stand in a request's target: visible ASCII but the fragment's mark."""
    return bool(target) and not target.translate(None, _TARGET)


class RequestSink(Protocol):
    """What a RequestReader tells, in this order for each message: request, then body until `ended`."""

    def request(self, head: RequestHead, body: bytes, ended: bool, trailers: bytes) -> None: ...
    def request_body(self, body: bytes, ended: bool, trailers: bytes) -> None: ...


class RequestReader:
    """The server's reader. After a message it holds what follows until `release`: one exchange at a time."""

    __slots__ = (
        "_block",
        "_bytes",
        "_chunks",
        "_has_line",
        "_has_skipped",
        "_head",
        "_left",
        "_rules",
        "_section",
        "_seen",
        "_sink",
        "_state",
        "_whole",
        "asked",
        "buffer",
    )

    def __init__(self, sink: RequestSink, rules: Rules) -> None:
        self._sink = sink
        self._rules = rules
        self._state = HEAD
        self._left = 0
        self._has_skipped = False
        self._has_line = False  # the request line of a head that is not whole has been judged
        self._seen = 0  # how much of such a head has been looked at
        self._chunks: ChunkedReader | None = None
        self._block: bytes | None = None  # the last header section's bytes, and what they mean
        self._section: Section | None = None
        self._whole: bytes | None = None  # what was read when that head, without a body, was all there was
        self._bytes: bytes | None = None  # the last whole head's, and what they mean
        self._head: RequestHead | None = None
        #: method, target and minor version of a head that is being read, as soon as they are known
        self.asked: tuple[bytes, bytes, int] | None = None
        #: an incomplete head, or (while holding) what came after the message
        self.buffer: bytes | bytearray = b""

    @property
    def is_idle(self) -> bool:
        """Between messages, with nothing of the next one read."""
        return self._state == HEAD and not self.buffer

    @property
    def is_holding(self) -> bool:
        """A message has ended and `release` has not been called yet."""
        return self._state == HELD

    def read_again(self, data: bytes) -> RequestHead | None:
        """The head, where `data` is the request before this one, once more, and had no body; else it is to be fed.

        Hot path (tests/bench, `http`): nothing is told to the sink, which saves calls.
        """
        if data == self._whole and self._state == HEAD and not self.buffer:
            self._has_skipped = False
            self._state = HELD
            return self._head
        return None

    def feed(self, data: bytes) -> None:
        """Read on; at most one message's end is told. Raises ProtocolViolation, after which nothing more may be fed."""
        state = self._state
        if state == HEAD:
            if self.buffer:
                if self._seen:
                    self._feed_more(data)
                    return
                data = bytes(self.buffer) + data
                self.buffer = b""
            self._feed_head(data)
        elif state == LENGTH:
            ready = len(data)
            if ready < self._left:
                self._left -= ready
                self._sink.request_body(data, False, b"")
            else:
                self._state = HELD
                self.buffer = data[self._left :]
                self._sink.request_body(data[: self._left] if ready > self._left else data, True, b"")
        elif state == CHUNKS:
            self._feed_chunks(data)
        else:
            self.buffer += data

    def forget(self) -> None:
        """The connection rests: what it remembers of its last head would only take room."""
        self._block = self._section = self._bytes = self._head = self._whole = None

    def obey(self, rules: Rules) -> None:
        """Other rules from here on; what is remembered was judged, and made into what backends get, by the former ones."""
        self._rules = rules
        self.forget()

    def release(self) -> bool:
        """The exchange is over: True where there is something to be fed again (`feed(b"")`)."""
        self._state = HEAD
        return bool(self.buffer)

    def _feed_head(self, data: bytes) -> None:
        if data.startswith(b"\r\n"):
            # RFC 9112, 2.2: one empty line before a request is forgiven, more are not
            data = data[2:]
            if self._has_skipped or data.startswith(b"\r\n"):
                raise self._rules.violation("empty lines instead of a request")
            self._has_skipped = True
        end = data.find(END)
        if end < 0 or end > self._rules.header_size:
            self._await_head(data)
            return
        self._take_head(data, end)

    def _feed_more(self, data: bytes) -> None:
        """More of a head that has begun: only what is new is looked at."""
        buffer = self.buffer
        assert isinstance(buffer, bytearray)
        seen = self._seen
        buffer += data
        if seen == 1:
            # perhaps the rest of an empty line
            self.buffer, self._seen = b"", 0
            self._feed_head(bytes(buffer))
            return
        end = buffer.find(END, max(seen - 3, 0))
        if end < 0 or end > self._rules.header_size:
            self._await_head(buffer)
            return
        self.buffer, self._seen, self._has_line = b"", 0, False
        self._take_head(bytes(buffer), end)

    def _await_head(self, data: bytes | bytearray) -> None:
        """Keep the beginning of a head, or refuse it where it can only be wrong; at each cut as it is here for the whole.

        Hence the order: first what is known by the first bytes, and nothing that lies behind the place where bytes that
        come one by one would have been refused for their number.
        """
        rules, seen = self._rules, self._seen
        longest = rules.header_size + len(END)
        is_long = len(data) >= longest
        if is_long:
            data = data[:longest]
        if not self._has_line and data:
            self._check_method(bytes(data[: _METHOD_SIZE + 1]), len(data))
            cut = data.find(b"\r\n", max(seen - 1, 0))
            check_incomplete(data, seen, len(data) if cut < 0 else cut, rules)
            if cut > rules.header_size or (cut < 0 and is_long):
                raise rules.violation("a request line beyond limits.header_size", 414, "too_large")
            if cut >= 0:
                self.asked = self._read_line(bytes(data[:cut]))[:3]
                self._has_line = True
        check_incomplete(data, seen, len(data), rules)
        if is_long:
            raise rules.violation("a head beyond limits.header_size", 431, "too_large")
        self._seen = len(data)
        self.buffer = bytearray(data) if isinstance(data, bytes) else data

    def _take_head(self, data: bytes, end: int) -> None:
        """A whole head, which ends at `end`, and what came behind it."""
        head, start = self._head, data[:end]
        if head is None or start != self._bytes:
            head = self._read_head(data, end)
        self._has_skipped = False
        end += 4
        body = head.section.body
        if body <= 0 and body != CHUNKED:
            self._state = HELD
            if len(data) > end:
                self.buffer = data[end:]
            else:
                self._whole = data if head is self._head else None
            self._sink.request(head, b"", True, b"")
            return
        data = data[end:]
        if body == CHUNKED:
            self._state = CHUNKS
            self._chunks = chunks = ChunkedReader(self._rules, start)
            payload = chunks.feed(data)
            if chunks.ended:
                self._state = HELD
                self.buffer = chunks.surplus
            self._sink.request(head, payload, chunks.ended, chunks.trailers)
        elif len(data) < body:
            self._state = LENGTH
            self._left = body - len(data)
            self._sink.request(head, data, False, b"")
        else:
            self._state = HELD
            self.buffer = data[body:]
            self._sink.request(head, data[:body], True, b"")

    def _feed_chunks(self, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None
        payload = chunks.feed(data)
        if chunks.ended:
            self._state = HELD
            self._chunks = None
            self.buffer = chunks.surplus
            self._sink.request_body(payload, True, chunks.trailers)
        elif payload:
            self._sink.request_body(payload, False, b"")

    def _check_method(self, start: bytes, size: int) -> None:
        """The method by its first bytes, `start` of `size`: what is no HTTP at all is refused before its first line ends."""
        method, space, _ = start.partition(b" ")
        if not space and size == len(start):
            method = method.removesuffix(b"\r")  # perhaps the line ends here
            if not method:
                return
        if not is_token(method):
            raise self._rules.violation("a request line that begins with no method")
        if len(method) > _METHOD_SIZE:
            raise self._rules.violation("a method that is not known here", 501)

    def _read_head(self, data: bytes, end: int) -> RequestHead:
        cut = data.find(b"\r\n", 0, end)
        if cut < 0:
            cut = end
        self.asked = None
        method, target, minor, authority = self._read_line(data[:cut])
        self.asked = method, target, minor
        block = data[cut + 2 : max(end, cut + 2)]  # there may be no header line
        section = self._section
        if section is None or block != self._block or minor == 0:
            section = read_section(block, self._rules, minor)
            self._judge(data[: end + 4])
            if section.host is None and minor:
                raise self._rules.violation("no Host field in HTTP/1.1")
            if minor and end <= REMEMBERED:
                self._block, self._section = block, section
        if method == b"TRACE" and (section.body > 0 or section.body == CHUNKED):
            # RFC 9110, 9.3.8: there must be none, so some backends take what follows for the next request.
            raise self._rules.violation("a TRACE with content")
        host = section.host
        if authority is not None:
            if host is None:
                host = authority
            elif host.lower() != authority.lower():
                raise self._rules.violation("a Host field that is not the target's")
        self.asked = None
        head = RequestHead(method, target, minor, host, section)
        if minor and end <= REMEMBERED:
            self._bytes, self._head, self._whole = data[:end], head, None
        return head

    def _read_line(self, line: bytes) -> tuple[bytes, bytes, int, bytes | None]:
        """Method, target as backends get it, minor version, and the authority of an absolute-form target."""
        violation = self._rules.violation
        parts = line.split(b" ")
        if len(parts) != 3 or parts[0] not in METHODS:
            self._check_method(line[: _METHOD_SIZE + 1], len(line))
            if len(parts) != 3:
                raise violation("a request line that is not method, target and version")
        method, target, version = parts
        if not target or target.translate(None, _TARGET):
            raise violation("a request target with bytes that it may not have")
        minor = 1
        if version != b"HTTP/1.1":
            if version != b"HTTP/1.0":
                if _VERSION(version):
                    raise violation("a version other than HTTP/1.0 and HTTP/1.1", 505)
                raise violation("a request line without a lawful version")
            minor = 0
        if method not in METHODS:
            raise violation("a method that is not known here", 501)
        if target.startswith(b"/"):
            return method, target, minor, None
        if target == b"*":
            if method != b"OPTIONS":
                raise violation("the target * with a method other than OPTIONS")
            return method, target, minor, None
        scheme, mark, rest = target.partition(b"://")
        if not mark or scheme.lower() not in (b"http", b"https"):
            raise violation("a request target that is neither a path nor an http URL")
        cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        authority, path = rest[:cut], rest[cut:]
        if not authority or not is_authority(authority):
            raise violation("a request target whose authority names no host")
        if not path.startswith(b"/"):
            # RFC 9112, 3.2.4: OPTIONS on a server as a whole is sent on with the asterisk-form
            path = b"*" if method == b"OPTIONS" and not path else b"/" + path
        return method, path, minor, authority

    def _judge(self, head: bytes) -> None:
        """llhttp's opinion: a second parser that must agree."""
        try:
            httptools.HttpRequestParser(DEAF).feed_data(head)
        except httptools.HttpParserUpgrade:
            return  # an Upgrade header: not an error, and not passed on
        except httptools.HttpParserError as refusal:
            raise self._rules.violation("a head that llhttp refuses") from refusal
