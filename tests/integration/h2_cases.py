"""What RFC 9113 and RFC 7541 want of a server, sentence by sentence, as frames and what has to come of them.

The sections are named after h2spec's, whose list was written down from memory: this is not that program. Each case
says what is sent behind a lawful opening, and one outcome: `Broken` (GOAWAY with one of these codes, and the end),
`Reset` (one stream ends with one of these codes, the connection serves on), or `Served` (a stream is answered so).
Streams of requests for /hang are never answered by their backend; all other paths are, at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.kit.h2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ask,
    block,
    encoded,
    frame,
    settings,
    window,
)

NO_ERROR, PROTOCOL, INTERNAL, FLOW, SETTINGS_TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, CONNECT, CALM = range(
    12
)
#: As long as windows and stream numbers can be.
LARGEST = 0x7FFFFFFF


@dataclass(frozen=True)
class Broken:
    codes: tuple[int, ...]


@dataclass(frozen=True)
class Reset:
    codes: tuple[int, ...]
    stream: int = 1


@dataclass(frozen=True)
class Served:
    stream: int = 1
    status: int = 200


@dataclass(frozen=True)
class Case:
    section: str
    what: str
    sent: bytes
    wanted: Broken | Reset | Served


def broken(section: str, what: str, sent: bytes, *codes: int) -> Case:
    return Case(section, what, sent, Broken(codes or (PROTOCOL,)))


def reset(section: str, what: str, sent: bytes, *codes: int, stream: int = 1) -> Case:
    return Case(section, what, sent, Reset(codes or (PROTOCOL,), stream))


def served(section: str, what: str, sent: bytes, stream: int = 1, status: int = 200) -> Case:
    return Case(section, what, sent, Served(stream, status))


def dependency(on: int, weight: int = 15, exclusive: bool = False) -> bytes:
    return struct.pack(">LB", on | exclusive << 31, weight)


def malformed(section: str, what: str, *fields: tuple[str, str], without: str = "nothing") -> Case:
    sent = frame(HEADERS, END_HEADERS | END_STREAM, 1, block("/", *fields, without=without))
    return reset(section, what, sent)


def raw(*fields: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, encoded(fields))


def hpack(rest: bytes) -> bytes:
    """A request whose block ends in these bytes."""
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, block() + rest)


OPEN = ask(1, "/hang", ended=False, method="POST")  # a stream that is open
HALF = ask(1, "/hang")  # one that is half closed by us
GONE = HALF + frame(RST_STREAM, 0, 1, struct.pack(">L", CANCEL))  # one that we have reset
PART = frame(HEADERS, END_STREAM, 1, block("/hang")[:20])  # a section that goes on
REST = block("/hang")[20:]
METHOD, SCHEME, PATH, HOST = (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "site.example")

GENERIC = (
    served("generic/2", "PRIORITY of an idle stream", frame(PRIORITY, 0, 1, dependency(0)) + ask(1)),
    served("generic/2", "WINDOW_UPDATE of a stream half closed", ask(1) + window(1, 100)),
    served("generic/2", "PRIORITY of a stream half closed", ask(1) + frame(PRIORITY, 0, 1, dependency(0))),
    served("generic/2", "RST_STREAM of a stream half closed", GONE + ask(3), 3),
    served("generic/2", "PRIORITY of a closed stream", GONE + frame(PRIORITY, 0, 1, dependency(0)) + ask(3), 3),
    served("generic/2", "WINDOW_UPDATE of a closed stream", GONE + window(1, 1) + ask(3), 3),
    served("generic/2", "RST_STREAM of a closed stream", GONE + frame(RST_STREAM, 0, 1, bytes(4)) + ask(3), 3),
    served("generic/3.1", "DATA", ask(1, ended=False, method="POST") + frame(DATA, 1, 1, b"x")),
    served(
        "generic/3.1", "much DATA", ask(1, ended=False, method="POST") + frame(DATA, 0, 1, b"x") * 9 + frame(DATA, 1, 1)
    ),
    served("generic/3.1", "DATA with padding", ask(1, ended=False, method="POST") + frame(DATA, 9, 1, b"\x02x\0\0")),
    served(
        "generic/3.1", "DATA that is all padding", ask(1, ended=False, method="POST") + frame(DATA, 9, 1, b"\x02\0\0")
    ),
    served("generic/3.2", "HEADERS with padding", frame(HEADERS, 5 | PADDED, 1, b"\x03" + block() + bytes(3))),
    served("generic/3.2", "HEADERS with priority", frame(HEADERS, 5 | WITH_PRIORITY, 1, dependency(0) + block())),
    served(
        "generic/3.2",
        "HEADERS with both",
        frame(HEADERS, 5 | PADDED | WITH_PRIORITY, 1, b"\x03" + dependency(0, 255, True) + block() + bytes(3)),
    ),
    served("generic/3.3", "PRIORITY of the least weight", frame(PRIORITY, 0, 1, dependency(0, 0)) + ask(1)),
    served("generic/3.3", "PRIORITY of the most weight", frame(PRIORITY, 0, 1, dependency(0, 255)) + ask(1)),
    served("generic/3.3", "PRIORITY, exclusive", frame(PRIORITY, 0, 1, dependency(3, 1, True)) + ask(1)),
    served("generic/3.3", "a stream below one with PRIORITY", frame(PRIORITY, 0, 5, dependency(0)) + ask(3), 3),
    served("generic/3.9", "WINDOW_UPDATE of the connection", window(0, 1) + ask(1)),
    served(
        "generic/3.10",
        "CONTINUATION",
        frame(HEADERS, 1, 1, block()[:9])
        + frame(CONTINUATION, 0, 1, block()[9:20])
        + frame(CONTINUATION, 4, 1, block()[20:]),
    ),
    served("generic/4", "HEAD", ask(1, method="HEAD")),
    served(
        "generic/4",
        "POST with trailers",
        ask(1, ended=False, method="POST") + frame(DATA, 0, 1, b"x") + frame(HEADERS, 5, 1, encoded([("x-sum", "1")])),
    ),
)

FRAMES = (
    served("4.1", "a frame of an unknown kind", frame(0x16, 0, 0, bytes(8)) + ask(1)),
    served("4.1", "flags that mean nothing", frame(PING, 0x16, 0, bytes(8)) + ask(1)),
    served("4.1", "the reserved bit", frame(PING, 0, 1 << 31, bytes(8)) + ask(1)),
    served("4.2", "DATA of the largest size", ask(1, ended=False, method="POST") + frame(DATA, 1, 1, bytes(16384))),
    broken("4.2", "DATA too large", OPEN + frame(DATA, 1, 1, bytes(16385)), SIZE),
    broken("4.2", "HEADERS too large", frame(HEADERS, 5, 1, block() + bytes(16385)), SIZE),
    broken("4.2", "an unknown frame too large", frame(0x16, 0, 1, bytes(16385)), SIZE),
    broken(
        "4.3",
        "a block that is none",
        frame(HEADERS, 5, 1, b"\x82\x86\x84\xff\xff\xff\xff\xff\xff\xff\xff"),
        COMPRESSION,
    ),
    broken(
        "4.3",
        "PRIORITY inside a section",
        PART + frame(PRIORITY, 0, 1, dependency(0)) + frame(CONTINUATION, 4, 1, REST),
    ),
    broken("4.3", "HEADERS of another stream inside a section", PART + ask(3)),
    broken("5.1", "DATA of an idle stream", frame(DATA, 1, 1, b"x")),
    broken("5.1", "RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, bytes(4))),
    broken("5.1", "WINDOW_UPDATE of an idle stream", window(1, 1)),
    broken("5.1", "CONTINUATION of an idle stream", frame(CONTINUATION, 4, 1, block())),
    broken("5.1", "an even stream that is idle: WINDOW_UPDATE", window(2, 1)),
    reset("5.1", "DATA, half closed", HALF + frame(DATA, 1, 1, b"x"), CLOSED),
    reset("5.1", "HEADERS, half closed", HALF + frame(HEADERS, 5, 1, encoded([("x-a", "1")])), CLOSED),
    broken("5.1", "CONTINUATION, half closed", HALF + frame(CONTINUATION, 4, 1, block()), PROTOCOL, CLOSED),
    broken("5.1.1", "an even number", ask(2)),
    broken("5.1.1", "a number that falls", ask(5, "/hang") + ask(3), PROTOCOL, CLOSED),
    broken("5.1.1", "HEADERS of stream 0", frame(HEADERS, 5, 0, block())),
    reset(
        "5.1.2",
        "a stream too many",
        b"".join(ask(2 * n + 1, "/hang") for n in range(101)),
        PROTOCOL,
        REFUSED,
        stream=201,
    ),
    broken("5.3.1", "HEADERS that depend on themselves", frame(HEADERS, 5 | WITH_PRIORITY, 1, dependency(1) + block())),
    reset("5.3.1", "PRIORITY that depends on itself", OPEN + frame(PRIORITY, 0, 1, dependency(1))),
    served(
        "5.5",
        "an unknown frame of a stream",
        ask(1, ended=False, method="POST") + frame(0x16, 0, 1) + frame(DATA, 1, 1),
    ),
    broken(
        "5.5", "an unknown frame inside a section", PART + frame(0x16, 0, 0, bytes(8)) + frame(CONTINUATION, 4, 1, REST)
    ),
    broken("6.1", "DATA of stream 0", frame(DATA, 1, 0, b"x")),
    broken("6.1", "padding longer than DATA", OPEN + frame(DATA, 9, 1, b"\x05xxxx")),
    broken("6.1", "DATA without the length of its padding", OPEN + frame(DATA, 9, 1), PROTOCOL, SIZE),
    broken("6.2", "padding longer than HEADERS", frame(HEADERS, 5 | PADDED, 1, b"\xff" + block())),
    broken("6.2", "HEADERS too short for a priority", frame(HEADERS, 5 | WITH_PRIORITY, 1, b"\0\0"), SIZE, PROTOCOL),
    broken("6.3", "PRIORITY of stream 0", frame(PRIORITY, 0, 0, dependency(1))),
    reset("6.3", "PRIORITY of 4 bytes", OPEN + frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    broken("6.4", "RST_STREAM of stream 0", frame(RST_STREAM, 0, 0, bytes(4))),
    broken("6.4", "RST_STREAM of 3 bytes", OPEN + frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    broken("6.5", "an acknowledgement with settings", frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    broken("6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1, bytes(6))),
    broken("6.5", "SETTINGS of 3 bytes", frame(SETTINGS, 0, 0, bytes(3)), SIZE),
    broken("6.5.2", "ENABLE_PUSH of 2", settings((2, 2))),
    broken("6.5.2", "a first window too large", settings((4, 1 << 31)), FLOW),
    broken("6.5.2", "frames too small", settings((5, 16383))),
    broken("6.5.2", "frames too large", settings((5, 1 << 24))),
    served("6.5.2", "an unknown setting", settings((255, 1)) + ask(1)),
    served("6.5.2", "a setting of the table, the largest", settings((1, 0xFFFFFFFF)) + ask(1)),
    broken("6.7", "PING of a stream", frame(PING, 0, 1, bytes(8))),
    broken("6.7", "PING of 6 bytes", frame(PING, 0, 0, bytes(6)), SIZE),
    broken("6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, bytes(8))),
    broken("6.8", "GOAWAY of 4 bytes", frame(GOAWAY, 0, 0, bytes(4)), SIZE),
    broken("6.9", "the connection's window grows by nothing", window(0, 0)),
    reset("6.9", "a stream's window grows by nothing", OPEN + window(1, 0)),
    broken("6.9", "WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    broken("6.9", "WINDOW_UPDATE of 3 bytes of a stream", OPEN + frame(WINDOW_UPDATE, 0, 1, bytes(3)), SIZE),
    broken("6.9.1", "the connection's window too large", window(0, LARGEST) * 2, FLOW),
    reset("6.9.1", "a stream's window too large", OPEN + window(1, LARGEST) * 2, FLOW),
    broken(
        "6.9.2",
        "a stream's window too large by SETTINGS",
        OPEN + window(1, LARGEST - 65535) + settings((4, 65536)),
        FLOW,
    ),
    broken("6.10", "another frame behind CONTINUATION", PART + frame(CONTINUATION, 0, 1) + frame(DATA, 1, 1, b"x")),
    broken("6.10", "CONTINUATION of stream 0", PART + frame(CONTINUATION, 4, 0, REST)),
    broken("6.10", "CONTINUATION of another stream", PART + frame(CONTINUATION, 4, 3, REST)),
    broken("6.10", "CONTINUATION behind a whole section", OPEN + frame(CONTINUATION, 4, 1, REST)),
    broken(
        "6.10",
        "CONTINUATION behind the last one",
        PART + frame(CONTINUATION, 4, 1, REST) + frame(CONTINUATION, 4, 1, REST),
    ),
    broken("6.10", "CONTINUATION behind DATA", OPEN + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, 4, 1, REST)),
    served("7", "RST_STREAM with an unknown code", HALF + frame(RST_STREAM, 0, 1, struct.pack(">L", 255)) + ask(3), 3),
)

MESSAGES = (
    reset("8.1", "trailers that are not the end", OPEN + frame(HEADERS, END_HEADERS, 1, encoded([("x-a", "1")]))),
    malformed("8.1.2", "upper case", ("X-Test", "ok")),
    malformed("8.1.2", "an empty name", ("", "ok")),
    malformed("8.1.2", "a space in a name", ("x y", "ok")),
    malformed("8.1.2", "CR LF in a value", ("x", "a\r\nb: c")),
    malformed("8.1.2", "NUL in a value", ("x", "a\0b")),
    malformed("8.1.2", "a space before a value", ("x", " a")),
    malformed("8.1.2.1", "an unknown pseudo-header", (":test", "ok")),
    malformed("8.1.2.1", "an answer's pseudo-header", (":status", "200")),
    reset("8.1.2.1", "a pseudo-header in trailers", OPEN + frame(HEADERS, 5, 1, encoded([METHOD]))),
    reset("8.1.2.1", "a pseudo-header behind fields", raw(METHOD, SCHEME, HOST, ("x", "y"), PATH)),
    malformed("8.1.2.2", "connection", ("connection", "keep-alive")),
    malformed("8.1.2.2", "transfer-encoding", ("transfer-encoding", "chunked")),
    malformed("8.1.2.2", "upgrade", ("upgrade", "h2c")),
    malformed("8.1.2.2", "proxy-connection", ("proxy-connection", "keep-alive")),
    malformed("8.1.2.2", "te of something else", ("te", "trailers, deflate")),
    served("8.1.2.2", "te: trailers", ask(1, "/", ("te", "trailers"))),
    reset("8.1.2.3", "an empty path", raw(METHOD, SCHEME, (":path", ""), HOST)),
    malformed("8.1.2.3", "no method", without=":method"),
    malformed("8.1.2.3", "no scheme", without=":scheme"),
    malformed("8.1.2.3", "no path", without=":path"),
    malformed("8.1.2.3", "two methods", METHOD),
    malformed("8.1.2.3", "two schemes", SCHEME),
    malformed("8.1.2.3", "two paths", PATH),
    malformed("8.1.2.3", "two authorities", HOST),
    malformed("8.1.2.3", "a Host that is another", ("host", "other.example")),
    reset(
        "8.1.2.6",
        "less DATA than said",
        ask(1, "/hang", ("content-length", "2"), ended=False, method="POST") + frame(DATA, 1, 1, b"x"),
    ),
    reset(
        "8.1.2.6",
        "more DATA than said, in two",
        ask(1, "/hang", ("content-length", "1"), ended=False, method="POST")
        + frame(DATA, 0, 1, b"x")
        + frame(DATA, 1, 1, b"x"),
    ),
    reset("8.1.2.6", "an end in place of what was said", ask(1, "/", ("content-length", "1"), method="POST")),
    broken("8.2", "PUSH_PROMISE", OPEN + frame(PUSH_PROMISE, 4, 1, struct.pack(">L", 2) + block())),
)

COMPRESSED = (
    served("hpack/generic", "indexed", frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x01x")),
    served(
        "hpack/generic", "literal, Huffman", frame(HEADERS, 5, 1, bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))
    ),
    served("hpack/generic", "never indexed", hpack(b"\x10\x01x\x01y")),
    served("hpack/generic", "an update of the table", frame(HEADERS, 5, 1, b"\x20\x3f\xe1\x1f" + block())),
    broken("hpack/2.3.3", "an index beyond both tables", hpack(b"\xc6"), COMPRESSION),
    broken("hpack/2.3.3", "a name beyond both tables", hpack(b"\x7f\x07\x01x"), COMPRESSION),
    broken("hpack/4.2", "an update of the table at the end", hpack(b"\x20"), COMPRESSION),
    broken("hpack/5.2", "Huffman padding of more than 7 bits", hpack(b"\x00\x01x\x83\x1f\xff\xff"), COMPRESSION),
    broken("hpack/5.2", "Huffman padding of zeros", hpack(b"\x00\x01x\x81\x18"), COMPRESSION),
    broken("hpack/5.2", "Huffman with EOS", hpack(b"\x00\x01x\x84\xff\xff\xff\xff"), COMPRESSION),
    broken("hpack/6.1", "index 0", hpack(b"\x80"), COMPRESSION),
    broken("hpack/6.3", "an update beyond the setting", frame(HEADERS, 5, 1, b"\x3f\xe2\x1f" + block()), COMPRESSION),
    broken("hpack/5.1", "a number without end", hpack(b"\x7f" + b"\xff" * 12 + b"\x01"), COMPRESSION),
    broken("hpack/5.2", "a string cut short", hpack(b"\x00\x01x\x05y"), COMPRESSION),
)
