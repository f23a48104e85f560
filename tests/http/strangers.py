"""How other parsers read what we write: llhttp (httptools) and h11, both made to say the same few things."""

from __future__ import annotations

from dataclasses import dataclass

import h11
import httptools


@dataclass
class Meaning:
    """One message: method and target, or status; fields in order with lower-case names; the body."""

    start: tuple[object, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes


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
        if self.found[-1].start == ():
            self.found[-1].fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if isinstance(self.parser, httptools.HttpRequestParser):
            self.found[-1].start = (self.parser.get_method(), self._target)
        else:
            self.found[-1].start = (self.parser.get_status_code(),)

    def on_body(self, part: bytes) -> None:
        self.found[-1].body += part

    def on_message_complete(self) -> None:
        self.ended += 1


def by_llhttp(wire: bytes, asked: bytes | None) -> list[Meaning]:
    """The messages in `wire`: requests, or answers to a request with the method `asked`. Each must be whole."""
    callbacks = _Callbacks()
    callbacks.parser = (httptools.HttpRequestParser if asked is None else httptools.HttpResponseParser)(callbacks)
    callbacks.parser.feed_data(wire)
    assert callbacks.ended == len(callbacks.found), "a message is not whole"
    return callbacks.found


def by_h11(wire: bytes, asked: bytes | None) -> list[Meaning]:
    """The same by h11, which reads one message and must find nothing behind it."""
    reader = h11.Connection(h11.SERVER if asked is None else h11.CLIENT)
    if asked is not None:
        reader.send(h11.Request(method=asked, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
    reader.receive_data(wire)
    head = reader.next_event()
    assert isinstance(head, h11.Request | h11.Response), head
    start = (head.method, head.target) if isinstance(head, h11.Request) else (head.status_code,)
    found = Meaning(start, [(bytes(name), bytes(value)) for name, value in head.headers], b"")
    while isinstance(event := reader.next_event(), h11.Data):
        found.body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert reader.trailing_data[0] == b"", "bytes behind the message"
    return [found]
