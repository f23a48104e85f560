"""Readers of HTTP/1 driven over pieces of a stream, and what they told, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from lbsvc.errors import ProtocolViolation
from lbsvc.http.fields import Rules
from lbsvc.http.h1_requests import RequestReader
from lbsvc.http.h1_responses import ResponseReader
from lbsvc.http.messages import RequestHead, ResponseHead

ANSWERS = Rules(header_size=4096, header_count=50, request=False)
REQUESTS = Rules(header_size=4096, header_count=50, underscores="drop")


@dataclass
class Message:
    """One message as the sink heard it, its body in one piece."""

    start: tuple[object, ...]
    lines: bytes
    body: bytes = b""
    ended: bool = False
    trailers: bytes = b""
    head: RequestHead | ResponseHead | None = field(default=None, compare=False)

    def more(self, body: bytes, ended: bool, trailers: bytes) -> None:
        assert not self.ended, "told more of a body that had ended"
        self.body += body
        self.ended = ended
        self.trailers += trailers


@dataclass
class Told:
    """All that a reader told about a stream: its messages, its refusal, and what state it was left in."""

    messages: list[Message]
    refusal: ProtocolViolation | None
    state: tuple[object, ...]

    @property
    def status(self) -> int | None:
        return self.refusal.status if self.refusal else None

    @property
    def whole(self) -> list[Message]:
        return [message for message in self.messages if message.ended]


class RequestLog:
    """A RequestSink that writes everything down."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def request(self, head: RequestHead, body: bytes, ended: bool, trailers: bytes) -> None:
        section = head.section
        start = (head.method, head.target, head.minor, head.host, section.body, section.close, section.keep_alive)
        self.messages.append(Message(start, section.wire, head=head))
        self.messages[-1].more(body, ended, trailers)

    def request_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        self.messages[-1].more(body, ended, trailers)


class ResponseLog:
    """A ResponseSink that writes everything down; interim answers are messages without a body, a switch is one with it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def interim(self, head: ResponseHead) -> None:
        self.messages.append(Message((head.status, "interim"), head.wire, ended=True, head=head))

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        section = head.section
        start = (head.status, head.minor, section.body, section.close, head.is_plain)
        self.messages.append(Message(start, head.wire, head=head))
        self.messages[-1].more(body, ended, trailers)

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        self.messages[-1].more(body, ended, trailers)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self.messages.append(Message((head.status, "switched"), head.wire, rest, ended=True, head=head))


def read_requests(pieces: Iterable[bytes], rules: Rules = REQUESTS) -> Told:
    """Feed the pieces as a server does that answers each request at once."""
    log = RequestLog()
    reader = RequestReader(log, rules)
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.is_holding and reader.release():
                reader.feed(b"")
    except ProtocolViolation as refusal:
        return Told(log.messages, refusal, ())
    return Told(log.messages, None, (reader.is_idle, reader.is_holding, bytes(reader.buffer)))


def read_response(
    pieces: Iterable[bytes],
    method: bytes = b"GET",
    rules: Rules = ANSWERS,
    eof: bool = True,
    upgrade: bool = False,
) -> Told:
    """Feed the pieces of one answer to a request with `method`, then the end of the connection.

    What comes behind a switch of protocols is joined to what the reader told of it, as a tunnel would.
    """
    log = ResponseLog()
    reader = ResponseReader(log, rules)
    reader.expect(method, upgrade)
    try:
        for piece in pieces:
            if log.messages and log.messages[-1].start[-1] == "switched":
                log.messages[-1].body += piece
            else:
                reader.feed(piece)
    except ProtocolViolation as refusal:
        return Told(log.messages, refusal, (reader.surplus,))
    return Told(log.messages, None, (reader.surplus, reader.eof() if eof else None))


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    """The stream in pieces, cut at `places` (any numbers; those outside cut nothing)."""
    edges = [0, *sorted({place for place in places if 0 < place < len(stream)}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def difference(one: Told, other: Told) -> str | None:
    """How two readings of one stream differ, or None.

    Where the stream is refused, the message that was being told may have got further in one of them: it is lost anyway.
    """
    if one.status != other.status:
        return f"{one.status} and {other.status}"
    if one.refusal is None:
        if one != other:
            return f"{one} and {other}"
        return None
    if one.whole != other.whole:
        return f"{one.whole} and {other.whole}"
    begun = [told.messages[-1] for told in (one, other) if told.messages and not told.messages[-1].ended]
    if len(begun) == 2:
        a, b = begun
        if (a.start, a.lines) != (b.start, b.lines) or not (a.body.startswith(b.body) or b.body.startswith(a.body)):
            return f"{a} and {b}"
    return None
