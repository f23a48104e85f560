"""The test's ends of connections on the layer 7 road, and what a client makes of the bytes that it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.kit.wire import HalfClosingPeer, Wire, WireTransport


class Handle:
    """What `getHandle` of a wire's end gives: enough of a socket to be peeked into."""

    def __init__(self, transport: WireTransport) -> None:
        self.transport = transport

    def recv(self, size: int, flags: int) -> bytes:
        into = self.transport.into
        if self.transport._reset:
            raise ConnectionResetError
        if not into.bytes and not into.finished:
            raise BlockingIOError
        return bytes(into.bytes[:size])


class End(HalfClosingPeer):
    """The test's end of a connection."""

    transport: WireTransport

    def __init__(self, road: Any) -> None:
        super().__init__()
        self.road = road
        self.wire = Wire(kernel=road.kernel)
        for end in (self.wire.left, self.wire.right):
            end.fileno = lambda: 7  # type: ignore[attr-defined]
            end.getHandle = lambda end=end: Handle(end)  # type: ignore[method-assign]

    def send(self, piece: bytes) -> None:
        self.transport.write(piece)
        self.road.run()

    def finish(self) -> None:
        self.transport.loseWriteConnection()
        self.road.run()

    def close(self) -> None:
        self.transport.loseConnection()
        self.road.run()

    def reset(self) -> None:
        self.transport.abortConnection()
        self.road.run()

    def stop_reading(self) -> None:
        self.transport.pauseProducing()

    def read_on(self) -> None:
        self.transport.resumeProducing()
        self.road.run()

    def take(self) -> bytes:
        """What has come since the last time."""
        found = bytes(self.received)
        self.received.clear()
        return found

    @property
    def is_open(self) -> bool:
        """Whether our own code still has its end open."""
        other = self.wire.right if self.transport is self.wire.left else self.wire.left
        return other.connected

    @property
    def was_finished(self) -> bool:
        """Whether our own code has closed its side in order."""
        return "read-end" in self.events

    @property
    def was_reset(self) -> bool:
        return self.lost is not None and type(self.lost).__name__ == "ConnectionLost"


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes
    trailers: bytes = b""


def answers(stream: bytes, methods: Sequence[bytes] = (), ended: bool = False) -> tuple[list[Answer], bytes]:
    """The answers in a stream of bytes, and what is left of it: an answer that is not whole, or nothing."""
    found: list[Answer] = []
    finals = at = 0
    while at < len(stream):
        end = stream.find(b"\r\n\r\n", at)
        if end < 0:
            break
        head, end = stream[at:end], end + 4
        line, *fields = head.split(b"\r\n")
        status = int(line.split(b" ")[1])
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {name.lower(): value for name, _, value in (field.partition(b": ") for field in fields)}
        method = methods[finals] if finals < len(methods) else b"GET"
        trailers = body = b""
        if status < 200 or method == b"HEAD" or status in (204, 304):
            pass
        elif b"content-length" in headers:
            size = int(headers[b"content-length"])
            body, end = stream[end : end + size], end + size
            if end > len(stream):
                break
        elif b"transfer-encoding" in headers:
            found_body = unchunk(stream[end:])
            if found_body is None:
                break
            body, trailers, rest = found_body
            end = len(stream) - len(rest)
        else:
            body, end = stream[end:], len(stream)
            if not ended:
                break
        finals += status >= 200
        found.append(Answer(status, headers, body, trailers))
        at = end
    return found, stream[at:]


def unchunk(stream: bytes) -> tuple[bytes, bytes, bytes] | None:
    """A chunked body, its trailers and what follows; None while it is not whole."""
    body = b""
    while True:
        line, mark, stream = stream.partition(b"\r\n")
        if not mark:
            return None
        size = int(line, 16)
        if not size:
            break
        if len(stream) < size + 2:
            return None
        assert stream[size : size + 2] == b"\r\n"
        body, stream = body + stream[:size], stream[size + 2 :]
    trailers = b""
    while not stream.startswith(b"\r\n"):
        line, mark, stream = stream.partition(b"\r\n")
        if not mark:
            return None
        trailers += line + mark
    return body, trailers, stream[2:]


class Upstream(End):
    """A backend's end of one connection: the right one."""

    port = 0
