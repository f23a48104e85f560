"""Responses read from bytes: the client's half of the HTTP/1 codec (RFC 9112).

Promises: any bytes, cut anywhere, give the same calls on the sink or a ProtocolViolation that blames the backend; what
belongs to no answer is never given to one; `surplus` is true once the connection may not be used again, be it for that or
because the backend says so. A 101 that was not asked for, or is not to websocket, is a violation; one that was ends the
reading: the reader is deaf behind it. Called by client.py with what the transport read. No transport, no clock. See h1.py
for how heads are judged.

Decision: an answer is judged as strictly as a request, and refused as a whole. Where RFC 9112 has a proxy mend or refuse a
field (white space before the colon, 5.1; folded lines, 5.2), it is refused: who breaks those breaks others.
"""

from __future__ import annotations

from typing import Final, Protocol

import httptools

from lbsvc.http.chunked import ChunkedReader
from lbsvc.http.fields import Rules, read_section
from lbsvc.http.h1 import CHUNKS, CLOSE, DEAF, END, HEAD, HELD, LENGTH, REMEMBERED, check_incomplete
from lbsvc.http.messages import CHUNKED, UNSAID, UNTIL_CLOSE, ResponseHead

_REASON: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])


class ResponseSink(Protocol):
    """What a ResponseReader tells: any number of interim heads, then one response, then body until `ended`; or `switched`.

    `switched` is the last that is told of a connection: a 101 that was asked for, and the bytes behind its head, which are
    the other protocol's first.
    """

    def interim(self, head: ResponseHead) -> None: ...
    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None: ...
    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None: ...
    def switched(self, head: ResponseHead, rest: bytes) -> None: ...


class ResponseReader:
    """The client's reader, one exchange after the other: `expect`, then `feed` until the sink was told the end."""

    __slots__ = (
        "_buffer",
        "_chunks",
        "_head",
        "_head_bytes",
        "_left",
        "_may_switch",
        "_method",
        "_rules",
        "_seen",
        "_sink",
        "_state",
        "_whole_size",
        "head_size",
        "surplus",
    )

    def __init__(self, sink: ResponseSink, rules: Rules) -> None:
        self._sink = sink
        self._rules = rules
        self._state = HELD
        self._method = b""
        self._may_switch = False
        self._left = 0
        self._whole_size = -1  # of the last head and its body, where nothing is special about them
        self.head_size = 0
        self._buffer = bytearray()  # a head that is not whole
        self._seen = 0  # how much of it has been looked at
        self._chunks: ChunkedReader | None = None
        self._head_bytes = b""  # the last head's bytes, and what they mean
        self._head: ResponseHead | None = None
        #: the connection may not be used again: bytes came that belong to no message, or the answer says so
        self.surplus = False

    def expect(self, method: bytes, upgrade: bool = False) -> None:
        """A request with `method` is being sent: a response may come, and with `upgrade` a switch to websocket."""
        self._method = method
        self._may_switch = upgrade
        self._state = HEAD

    @property
    def has_begun(self) -> bool:
        """Some of an answer's head is there, but not all."""
        return self._state == HEAD and bool(self._buffer)

    def read_again(self, data: bytes) -> ResponseHead | None:
        """The head, where `data` is the one before it, once more, and exactly its body; else it is to be fed.

        Hot path (tests/bench, `http`): nothing is told to the sink, which saves calls. The body is behind `head_size`.
        """
        if (
            len(data) == self._whole_size
            and self._state == HEAD
            and not self._buffer
            and data.startswith(self._head_bytes)
            and self._method != b"HEAD"
        ):
            self._state = HELD
            return self._head
        return None

    def feed(self, data: bytes) -> None:
        """Read on. Raises ProtocolViolation (502), after which nothing more may be fed."""
        state = self._state
        if state == HEAD:
            if self._buffer:
                self._buffer += data
                if self._buffer.find(END, max(self._seen - 3, 0)) < 0:
                    self._await_head(self._buffer)
                    return
                data = bytes(self._buffer)
                self._buffer, self._seen = bytearray(), 0
            self._feed_head(data)
        elif state == LENGTH:
            ready = len(data)
            if ready < self._left:
                self._left -= ready
                self._sink.response_body(data, False, b"")
            else:
                if ready > self._left:
                    self.surplus = True
                    data = data[: self._left]
                self._state = HELD
                self._sink.response_body(data, True, b"")
        elif state == CHUNKS:
            chunks = self._chunks
            assert chunks is not None
            payload = chunks.feed(data)
            if chunks.ended:
                self._end_chunks(chunks)
                self._sink.response_body(payload, True, chunks.trailers)
            elif payload:
                self._sink.response_body(payload, False, b"")
        elif state == CLOSE:
            self._sink.response_body(data, False, b"")
        else:
            self.surplus = True

    def eof(self) -> bool:
        """The connection has ended: True where that is the lawful end of the body (and the sink has been told)."""
        if self._state == CLOSE:
            self._state = HELD
            self._sink.response_body(b"", True, b"")
            return True
        return False

    def _end_chunks(self, chunks: ChunkedReader) -> None:
        self._state = HELD
        self._chunks = None
        if chunks.surplus:
            self.surplus = True

    def _await_head(self, data: bytes | bytearray) -> None:
        """Keep the beginning of a head, or refuse it where it can only be wrong."""
        rules, seen = self._rules, self._seen
        if not b"HTTP/1.".startswith(data[:7]):
            raise rules.violation("an answer that does not begin with HTTP/1")
        check_incomplete(data, seen, len(data), rules)
        if len(data) >= rules.header_size + len(END):
            raise rules.violation("a head that is too large")
        self._seen = len(data)
        self._buffer = bytearray(data) if isinstance(data, bytes) else data

    def _feed_head(self, data: bytes) -> None:
        while True:
            known = self._head
            if known is not None and data.startswith(self._head_bytes):
                # Hot path (tests/bench, `http`): the head before this one, up to its empty line, once more.
                head = known
                end = len(self._head_bytes)
            else:
                end = data.find(END)
                if end < 0 or end > self._rules.header_size:
                    self._await_head(data)
                    return
                head = self._read_head(data[:end])
                end += 4
            if head.status >= 200:
                break
            data = data[end:]
            if head.status == 101:
                self._switch(head, data)
                return
            self._sink.interim(head)
            if self._state != HEAD or not data:
                return
        if head.section.close:
            self.surplus = True
        body = head.section.body
        if self._method == b"HEAD" or head.status == 204 or head.status == 304:
            body = 0
        if body >= 0:
            ready = len(data) - end
            if ready < body:
                self._state = LENGTH
                self._left = body - ready
                self._sink.response(head, data[end:], False, b"")
            else:
                self._state = HELD
                if ready > body:
                    self.surplus = True
                self._sink.response(head, data[end : end + body] if ready else b"", True, b"")
        elif body == CHUNKED:
            self._state = CHUNKS
            self._chunks = chunks = ChunkedReader(self._rules, self._head_bytes if head is self._head else data[:end])
            payload = chunks.feed(data[end:])
            if chunks.ended:
                self._end_chunks(chunks)
            self._sink.response(head, payload, chunks.ended, chunks.trailers)
        else:
            self._state = CLOSE
            self._sink.response(head, data[end:], False, b"")

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        """A 101: from here on the bytes are not HTTP, and the connection never carries HTTP again."""
        if not (self._may_switch and head.section.upgrade):
            raise self._rules.violation("a switch of protocols that nobody asked for")
        self._state = HELD
        self.surplus = True
        self._sink.switched(head, rest)

    def _read_head(self, block: bytes) -> ResponseHead:
        violation = self._rules.violation
        line, _, fields = block.partition(b"\r\n")
        version, _, rest = line.partition(b" ")
        code, _, reason = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not b"100" <= code < b"600":
            raise violation("an answer without a lawful status line")
        if not code.isdigit():
            raise violation("an answer without a lawful status line")
        if reason.translate(None, _REASON):
            raise violation("a control byte in the reason phrase")
        minor = 1 if version == b"HTTP/1.1" else 0
        section = read_section(fields, self._rules, minor)
        status = int(code)
        if section.body == UNSAID:
            section.body = UNTIL_CLOSE
        elif status < 200 or status == 204:
            # RFC 9110, 8.6 and RFC 9112, 6.1: neither may be there; framing by them would swallow the next answer. A 204
            # ends here whatever it says (RFC 9112, 6.3), and so does its connection: the backend may think otherwise.
            if section.body != 0:
                if status < 200:
                    raise violation("a body length on an interim answer")
                section.close = True
            section.body = UNTIL_CLOSE
            section.wire = b"".join([f[2] for f in section.fields])
        if minor == 0 and not section.keep_alive:
            section.close = True
        try:
            httptools.HttpResponseParser(DEAF).feed_data(block + END)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as refusal:
            raise violation("a head that llhttp refuses") from refusal
        head = ResponseHead(status, reason, minor, section)
        if len(block) <= REMEMBERED:
            self._head_bytes, self._head = block + END, head
            self.head_size = size = len(block) + 4
            plain = head.is_plain and not section.close
            self._whole_size = size + section.body if plain else -1
        return head
