"""How other parsers read what we write: llhttp (httptools) and h11, both made to say the same few things.

`request_wire` and `answer_wire` are what backends and clients get for a message that a reader has told; `told` is what it
must mean to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import h11
import httptools

from lbsvc.core.backend import Backend
from lbsvc.http.chunked import encode_chunk, encode_end
from lbsvc.http.forwarding import request_head
from lbsvc.http.messages import CHUNKED, UNSAID, UNTIL_CLOSE, RequestHead, ResponseHead
from tests.http.recording import Message

BACKEND = Backend("p", "b", "10.0.0.1:81", "10.0.0.1", 81)
WHO = b"X-Forwarded-For: 192.0.2.1\r\n"
#: a client's connection, as far as forwarding asks for it
CONNECTION: Any = SimpleNamespace(
    peer="192.0.2.1",
    scheme=b"http",
    identity_lines=b"",
    trust=SimpleNamespace(lines=lambda *_: WHO),
)


@dataclass
class Meaning:
    """One message: method and target, or status; fields in order with lower-case names; the body; trailers likewise."""

    start: tuple[object, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)


class _Callbacks:
    """llhttp's callbacks, written down."""

    def __init__(self) -> None:
        self.found: list[Meaning] = []
        self.ended = 0
        self._target = b""

    def on_message_begin(self) -> None:
        self._target = b""
        self.found.append(Meaning((), [], b""))

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        found = self.found[-1]
        (found.trailers if found.start else found.fields).append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if isinstance(self.parser, httptools.HttpRequestParser):
            self.found[-1].start = (self.parser.get_method(), self._target)
        else:
            self.found[-1].start = (self.parser.get_status_code(),)

    def on_body(self, part: bytes) -> None:
        self.found[-1].body += part

    def on_message_complete(self) -> None:
        self.ended += 1


def begun_by_llhttp(wire: bytes, asked: bytes | None) -> tuple[list[Meaning], int]:
    """The messages in `wire`, requests, or answers to a request with the method `asked`; and how many of them are whole."""
    callbacks = _Callbacks()
    while wire:
        callbacks.parser = (httptools.HttpRequestParser if asked is None else httptools.HttpResponseParser)(callbacks)
        try:
            callbacks.parser.feed_data(wire)
        except httptools.HttpParserUpgrade as upgrade:
            wire = wire[upgrade.args[0] :]  # nobody here grants one: HTTP goes on
        else:
            break
    return callbacks.found, callbacks.ended


def by_llhttp(wire: bytes, asked: bytes | None) -> list[Meaning]:
    """The messages in `wire`, each of which must be whole."""
    found, ended = begun_by_llhttp(wire, asked)
    assert ended == len(found), "a message is not whole"
    return found


def begun_by_h11(wire: bytes, asked: bytes | None) -> tuple[Meaning | None, bool]:
    """What h11 makes of `wire`: a message behind any number of interim ones, nothing behind it; and whether it is whole."""
    reader = h11.Connection(h11.SERVER if asked is None else h11.CLIENT, max_incomplete_event_size=1 << 20)
    if asked is not None:
        reader.send(h11.Request(method=asked, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
    reader.receive_data(wire)
    while isinstance(head := reader.next_event(), h11.InformationalResponse):
        pass
    if not isinstance(head, h11.Request | h11.Response):
        return None, False
    start = (head.method, head.target) if isinstance(head, h11.Request) else (head.status_code,)
    found = Meaning(start, [(bytes(name), bytes(value)) for name, value in head.headers], b"")
    while isinstance(event := reader.next_event(), h11.Data):
        found.body += bytes(event.data)
    if not isinstance(event, h11.EndOfMessage):
        return found, False
    found.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
    assert reader.trailing_data[0] == b"", "bytes behind the message"
    return found, True


def by_h11(wire: bytes, asked: bytes | None) -> list[Meaning]:
    """The one message in `wire`, which must be whole."""
    found, ended = begun_by_h11(wire, asked)
    assert found is not None and ended, "the message is not whole"
    return [found]


def _parsed(lines: bytes) -> list[tuple[bytes, bytes]]:
    pairs = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name.lower(), value) for name, _, value in pairs]


def _coded(message: Message) -> bytes:
    return (encode_chunk(message.body) if message.body else b"") + encode_end(message.trailers)


def request_wire(message: Message) -> bytes:
    """What a backend gets for a request."""
    head = message.head
    assert isinstance(head, RequestHead)
    wire = request_head(head, CONNECTION, BACKEND, None) + b"id-1\r\n\r\n"
    return wire + (_coded(message) if head.section.body == CHUNKED else message.body)


def request_told(message: Message) -> Meaning:
    """What a request must mean to its backend."""
    head = message.head
    assert isinstance(head, RequestHead)
    section = head.section
    fields = [(b"host", head.host or b"10.0.0.1:81"), *(each[:2] for each in section.fields)]
    if section.body == CHUNKED:
        fields.append((b"transfer-encoding", b"chunked"))
    elif section.body != UNSAID:
        fields.append((b"content-length", b"%d" % section.body))
    fields += [*_parsed(WHO), (b"via", b"1.%d lbsvc" % head.minor)]
    if head.upgrade:
        fields += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    fields.append((b"x-request-id", b"id-1"))
    return Meaning((head.method, head.target), fields, message.body, _parsed(message.trailers))


def _is_bare(head: ResponseHead, method: bytes) -> bool:
    return method == b"HEAD" or head.status in (204, 304)


def answer_wire(message: Message, method: bytes) -> bytes:
    """What a client of HTTP/1.1 gets for an answer, as framing.py frames it."""
    head = message.head
    assert isinstance(head, ResponseHead)
    if _is_bare(head, method):
        return head.wire + b"\r\n"
    if head.section.body in (CHUNKED, UNTIL_CLOSE):
        return head.wire + b"Transfer-Encoding: chunked\r\n\r\n" + _coded(message)
    return head.wire + b"\r\n" + message.body


def answer_told(message: Message, method: bytes) -> Meaning:
    """What an answer must mean to its client."""
    head = message.head
    assert isinstance(head, ResponseHead)
    section = head.section
    fields = [each[:2] for each in section.fields]
    if section.body in (CHUNKED, UNTIL_CLOSE):
        if not _is_bare(head, method):
            fields.append((b"transfer-encoding", b"chunked"))
    elif head.status != 204:
        fields.append((b"content-length", b"%d" % section.body))
    return Meaning((head.status,), fields, message.body, _parsed(message.trailers))
