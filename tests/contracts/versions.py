"""Clients and backends that are spoken to in the same words whichever version of HTTP they speak.

A `Call` is one request of a client, on a connection of its own; a `Served` is what a backend sees of the newest request
on one connection, and how it answers. Both are told what to do in steps, and everything arrives after each.
"""

from __future__ import annotations

from typing import Any, Protocol

from tests.http.ends import Upstream, answers, unchunk
from tests.http.h2_backends import H2Backend
from tests.http.h2_road import H2Client
from tests.http.road import Road

Lines = tuple[tuple[str, str], ...]


class Call(Protocol):
    """A client's request and what has come of its answer."""

    def data(self, piece: bytes, ended: bool = False) -> None:
        """More of the body."""

    def finish(self, trailers: Lines = ()) -> None:
        """The body's end."""

    def give_up(self) -> None:
        """The client does not want it any more."""

    @property
    def interim(self) -> list[int]:
        """The 1xx that have come."""

    @property
    def status(self) -> int:
        """Of the answer; 0: there is none yet."""

    @property
    def body(self) -> bytes:
        """What has come of its body, and can be understood."""

    @property
    def trailers(self) -> str:
        """As in HTTP/1, names in lower case."""

    @property
    def is_whole(self) -> bool:
        """Whether the client knows that all has come."""

    @property
    def is_cut(self) -> bool:
        """Whether the client knows that it has not, and never will."""

    @property
    def is_connected(self) -> bool:
        """Whether the connection could take another request."""


class H1Call:
    """On a connection of HTTP/1.1."""

    def __init__(self, road: Road, method: str, path: str, lines: Lines, size: int | None, ended: bool) -> None:
        self.end = road.client()
        self.method = method
        self.came = b""
        self.is_chunked = not ended and size is None
        fields = [("host", "x"), *lines]
        if not ended:
            fields.append(("transfer-encoding", "chunked") if size is None else ("content-length", str(size)))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.end.send(head.encode() + b"\r\n")

    def data(self, piece: bytes, ended: bool = False) -> None:
        self.end.send(b"%x\r\n%b\r\n" % (len(piece), piece) if self.is_chunked and piece else piece)
        if ended:
            self.finish()

    def finish(self, trailers: Lines = ()) -> None:
        if self.is_chunked:
            self.end.send(b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n")

    def give_up(self) -> None:
        self.end.reset()

    def _split(self) -> tuple[list[int], bytes]:
        """Interim answers, and the final one from its first byte."""
        self.came += self.end.take()
        rest, interim = self.came, []
        while rest[9:10] == b"1" and b"\r\n\r\n" in rest:
            interim.append(int(rest[9:12]))
            rest = rest.partition(b"\r\n\r\n")[2]
        return interim, rest

    @property
    def interim(self) -> list[int]:
        return self._split()[0]

    @property
    def status(self) -> int:
        return int(self._split()[1][9:12] or 0)

    def _whole(self) -> list[Any]:
        return answers(self._split()[1], [self.method.encode()])[0]

    @property
    def body(self) -> bytes:
        whole = self._whole()
        if whole:
            return bytes(whole[0].body)
        head, _, rest = self._split()[1].partition(b"\r\n\r\n")
        if b"chunked" not in head:
            return rest
        found = unchunk(rest + b"0\r\n\r\n")  # whole chunks only come here
        assert found is not None
        return found[0]

    @property
    def trailers(self) -> str:
        return self._whole()[0].trailers.decode().lower() if self._whole() else ""

    @property
    def is_whole(self) -> bool:
        return bool(self._whole())

    @property
    def is_cut(self) -> bool:
        return not self.is_whole and not self.is_connected

    @property
    def is_connected(self) -> bool:
        return self.end.lost is None and not self.end.was_finished


class H2Call:
    """On a stream of HTTP/2."""

    def __init__(self, road: Road, method: str, path: str, lines: Lines, size: int | None, ended: bool) -> None:
        self.client = H2Client(road)
        fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path), *lines]
        if size is not None:
            fields.append(("content-length", str(size)))
        self.said = self.client.request(fields, ended)

    def data(self, piece: bytes, ended: bool = False) -> None:
        self.client.data(piece, ended)

    def finish(self, trailers: Lines = ()) -> None:
        if trailers:
            self.client.trailers(list(trailers))
        else:
            self.client.data(b"", True)

    def give_up(self) -> None:
        self.client.rst()

    @property
    def interim(self) -> list[int]:
        return [int(each[":status"]) for each in self.said.interim]

    @property
    def status(self) -> int:
        return self.said.status

    @property
    def body(self) -> bytes:
        return self.said.body

    @property
    def trailers(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self.said.trailers or ())

    @property
    def is_whole(self) -> bool:
        return self.said.has_ended

    @property
    def is_cut(self) -> bool:
        return not self.said.has_ended and self.said.code is not None

    @property
    def is_connected(self) -> bool:
        return self.client.lost is None and not self.client.was_finished and not self.client.goaways


class Served(Protocol):
    """A request as a backend sees it."""

    @property
    def request(self) -> tuple[str, str]:
        """Its method and target; empty words where none has come."""

    @property
    def body(self) -> bytes:
        """What has come of its body."""

    @property
    def trailers(self) -> str:
        """As in HTTP/1, names in lower case."""

    @property
    def has_ended(self) -> bool:
        """Whether it is whole."""

    @property
    def is_cut(self) -> bool:
        """Whether it has been given up."""

    def interim(self, status: int) -> None:
        """A 1xx."""

    def head(self, status: int = 200) -> None:
        """An answer's, of a length that is not known."""

    def data(self, piece: bytes) -> None:
        """More of its body."""

    def finish(self, trailers: Lines = ()) -> None:
        """Its end."""

    def cut(self) -> None:
        """The connection breaks."""


class H1Served:
    """On a connection of HTTP/1.1."""

    def __init__(self, end: Upstream) -> None:
        self.end = end
        self.came = b""

    def _parts(self) -> tuple[bytes, bytes]:
        self.came += self.end.take()
        head, _, rest = self.came.partition(b"\r\n\r\n")
        return head, rest

    @property
    def request(self) -> tuple[str, str]:
        words = self._parts()[0].decode().split("\r\n")[0].split(" ")
        return (words[0], words[1]) if len(words) > 1 else ("", "")

    @property
    def _is_chunked(self) -> bool:
        return b"\r\ntransfer-encoding: chunked" in self._parts()[0].lower()

    @property
    def body(self) -> bytes:
        rest = self._parts()[1]
        if not self._is_chunked:
            return rest
        found = unchunk(rest) or unchunk(rest + b"0\r\n\r\n")
        assert found is not None
        return found[0]

    @property
    def trailers(self) -> str:
        found = unchunk(self._parts()[1]) if self._is_chunked else None
        return found[1].decode().lower() if found else ""

    @property
    def has_ended(self) -> bool:
        head, rest = self._parts()
        if self._is_chunked:
            return unchunk(rest) is not None
        size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return len(rest) == int(size or 0)

    @property
    def is_cut(self) -> bool:
        return not self.end.is_open

    def interim(self, status: int) -> None:
        self.end.send(b"HTTP/1.1 %d Soon\r\nX: y\r\n\r\n" % status)

    def head(self, status: int = 200) -> None:
        self.end.send(b"HTTP/1.1 %d Word\r\nTransfer-Encoding: chunked\r\n\r\n" % status)

    def data(self, piece: bytes) -> None:
        self.end.send(b"%x\r\n%b\r\n" % (len(piece), piece))

    def finish(self, trailers: Lines = ()) -> None:
        self.end.send(b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n")
        if self.has_ended:
            self.came = b""  # the next request is the newest

    def cut(self) -> None:
        self.end.reset()


class H2Served:
    """On a stream of HTTP/2."""

    def __init__(self, end: Upstream) -> None:
        self.backend = H2Backend(end)

    @property
    def _stream(self) -> int:
        self.backend.go()
        return self.backend.requests[-1][0] if self.backend.requests else 0

    @property
    def request(self) -> tuple[str, str]:
        if not self._stream:
            return "", ""
        fields = self.backend.requests[-1][1]
        return fields[b":method"].decode(), fields[b":path"].decode()

    @property
    def body(self) -> bytes:
        return self.backend.body(self._stream)

    @property
    def trailers(self) -> str:
        return "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in self.backend.trailers(self._stream))

    @property
    def has_ended(self) -> bool:
        return self.backend.has_ended(self._stream)

    @property
    def is_cut(self) -> bool:
        stream = self._stream
        return not self.backend.end.is_open or any(number == stream for number, _ in self.backend.resets())

    def interim(self, status: int) -> None:
        self.backend.head(self._stream, status, fields=[(b"x", b"y")])

    def head(self, status: int = 200) -> None:
        self.backend.head(self._stream, status)

    def data(self, piece: bytes) -> None:
        self.backend.data(self._stream, piece)

    def finish(self, trailers: Lines = ()) -> None:
        stream = self._stream
        if trailers:
            fields = [(name.encode(), value.encode()) for name, value in trailers]
            self.backend.connection.send_headers(stream, fields, end_stream=True)
            self.backend.go()
        else:
            self.backend.data(stream, b"", True)

    def cut(self) -> None:
        self.backend.end.reset()
