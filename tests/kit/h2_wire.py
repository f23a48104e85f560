"""A client of HTTP/2 on a real socket that sends frames by hand, lawful or not, and reads what comes back.

Promises: nothing is sent that was not asked for, not even acknowledgements, but by `settle`; each wait has the deadline
of its socket. Header blocks are encoded without Huffman coding unless a test writes its own bytes. Sizes in bytes.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hpack import Decoder, Encoder

from tests.kit.processes import RawClient

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 32
#: The first flight of a client that has nothing special to say.
OPENING = PREFACE + bytes(3) + b"\x04" + bytes(5)

Pairs = Iterable[tuple[str, str]]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    size = len(payload)
    return struct.pack(">BHBBL", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


def window(stream: int, more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">L", more))


def block(path: str = "/", *more: tuple[str, str], method: str = "GET", without: str = "nothing") -> bytes:
    """A request's header block that leaves the dynamic table alone; `without` names a field that is left out."""
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "site.example"), *more]
    return encoded((name, value) for name, value in fields if name != without)


def encoded(fields: Pairs) -> bytes:
    """Literal fields that are not indexed (RFC 7541, 6.2.2), short enough for a length of one byte."""
    found = b""
    for name, value in fields:
        found += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")
    return found


def ask(stream: int, path: str = "/", *more: tuple[str, str], ended: bool = True, method: str = "GET") -> bytes:
    """A request's HEADERS."""
    return frame(HEADERS, END_HEADERS | ended, stream, block(path, *more, method=method))


@dataclass(frozen=True)
class Frame:
    """One that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == RST_STREAM else self.payload[4:8], "big")


class H2Wire:
    """Frames over a connection of `RawClient` or what looks like one."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.encoder = Encoder()
        self.decoder = Decoder()

    def send(self, content: bytes) -> None:
        self.client.send(content)

    def frames(self) -> Iterator[Frame]:
        """What comes, until the other side ends; a reset is an end too, for what was said before it has been read."""
        while True:
            try:
                head = self.client.exactly(9)
                high, low, kind, flags, stream = struct.unpack(">BHBBL", head)
                yield Frame(kind, flags, stream & 0x7FFFFFFF, self.client.exactly(high << 16 | low))
            except (EOFError, ConnectionResetError):
                return

    def until(self, kind: int, stream: int = 0, flags: int = 0) -> list[Frame]:
        """All frames up to the first of this kind on this stream that has these flags."""
        found = []
        for each in self.frames():
            found.append(each)
            if each.kind == kind and each.stream == stream and each.flags & flags == flags:
                return found
        raise EOFError(f"ended without a frame of kind {kind} on {stream}: {found}")

    def settle(self) -> None:
        """Read the other side's SETTINGS and acknowledge them."""
        self.until(SETTINGS)
        self.send(frame(SETTINGS, ACK))

    def answer(self, stream: int) -> tuple[int, bytes]:
        """Status and content of a stream's answer, windows opened as it comes; other streams' header blocks are decoded."""
        status, content = 0, b""
        for each in self.frames():
            if each.kind == HEADERS:
                fields = dict(self.decoder.decode(each.payload))
                if each.stream == stream:
                    status = status or int(fields.get(":status", 0))
            elif each.kind == DATA and each.stream == stream:
                content += each.payload
                if each.payload:
                    self.send(window(0, len(each.payload)) + window(stream, len(each.payload)))
            if each.stream == stream and (each.kind == RST_STREAM or (each.flags & END_STREAM and each.kind < 2)):
                return status, content
        raise EOFError(f"ended before stream {stream} did: {status} {content[:100]!r}")


class EagerTls(RawClient):
    """A TLS client whose first words leave in the same write as the last message of its handshake."""

    def __init__(
        self, port: int, first: bytes, *, name: str = "site.example", protocols: tuple[str, ...] = ("h2",)
    ) -> None:
        super().__init__(port)
        side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        side.check_hostname, side.verify_mode = False, ssl.CERT_NONE
        side.set_alpn_protocols(list(protocols))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = side.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                if not (piece := self.sock.recv(65536)):
                    raise EOFError("ended in the handshake") from None
                self.incoming.write(piece)
        self.send(first)

    def _flush(self) -> None:
        self.sock.sendall(self.outgoing.read())

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def more(self) -> bool:
        while True:
            try:
                piece = self.tls.read(65536)
            except ssl.SSLWantReadError:
                raw = self.sock.recv(65536)
                if raw:
                    self.incoming.write(raw)
                    continue
                return False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return False
            self.buffer += piece
            return bool(piece)
