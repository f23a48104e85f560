"""The law of HTTP/2 frame by frame, after h2spec's sections: raw frames, and how the connection or the stream ends.

Each row of a table: what it is, the frames behind a greeting, and `GOAWAY code`, `RST code`, or nothing.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_books import CONNECTION_WINDOW
from lbsvc.http.h2_hpack import encode
from tests.http.h2_sink import BLOCK, GET, OK, Heard, data, frames, head

PING = wire.frame(wire.PING, 0, 0, bytes(8))
UNENDED = wire.frame(wire.HEADERS, wire.END_STREAM, 1, BLOCK[:1])
REST = wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, BLOCK[1:])
PRIORITY = wire.HAS_PRIORITY | wire.END_HEADERS | wire.END_STREAM
TRAILERS = encode([(b"x", b"y")])
RST_1 = wire.rst_stream(1, wire.CANCEL)
SET = wire.SETTINGS


def setting(name: int, value: int) -> bytes:
    return wire.settings({name: value})


#: What a client may not say, or may.
TO_SERVER: list[tuple[str, list[bytes], str]] = [
    # generic, 4
    ("4.1: an unknown type", [wire.frame(0x16, 0xFF, 0, b"x" * 8), PING], ""),
    ("4.1: undefined flags", [wire.frame(wire.PING, 0x16, 0, bytes(8))], ""),
    ("4.1: the reserved bit", [wire.frame(wire.PING, 0, 0x80000000, bytes(8))], ""),
    ("4.2: DATA of 2^14", [head(1, False), data(1, bytes(16384))], ""),
    ("4.2: DATA of 2^14 + 1", [head(1, False), data(1, bytes(16385))], "GOAWAY 6"),
    ("4.2: HEADERS of 2^14 + 1", [head(1, True, bytes(16385))], "GOAWAY 6"),
    ("4.3: a block that cannot be decoded", [head(1, True, b"\xff\xff\xff\xff\xff\xff")], "GOAWAY 9"),
    ("4.3: PRIORITY within a header section", [UNENDED, wire.frame(wire.PRIORITY, 0, 1, bytes(5)), REST], "GOAWAY 1"),
    ("4.3: HEADERS of another stream within", [UNENDED, head(3), REST], "GOAWAY 1"),
    ("5.5: an unknown frame within", [UNENDED, wire.frame(0x16, 0, 0), REST], "GOAWAY 1"),
    # streams, 5.1
    ("5.1: idle: DATA", [data(1, b"x", True)], "GOAWAY 1"),
    ("5.1: idle: RST_STREAM", [RST_1], "GOAWAY 1"),
    ("5.1: idle: WINDOW_UPDATE", [wire.window_update(1, 100)], "GOAWAY 1"),
    ("5.1: idle: CONTINUATION", [REST], "GOAWAY 1"),
    ("5.1: half-closed: DATA", [head(1), data(1, b"x")], "RST 5"),
    ("5.1: half-closed: HEADERS", [head(1), head(1)], "RST 5"),
    ("5.1: half-closed: CONTINUATION", [head(1), REST], "GOAWAY 1"),
    ("5.1: half-closed: WINDOW_UPDATE, PRIORITY", [head(1), wire.window_update(1, 9), PING], ""),
    ("5.1: closed by RST_STREAM: DATA", [head(1, False), RST_1, data(1, b"x")], "GOAWAY 5"),
    ("5.1: closed by RST_STREAM: HEADERS", [head(1, False), RST_1, head(1)], "GOAWAY 5"),
    ("5.1: closed: RST_STREAM, WINDOW_UPDATE", [head(1), RST_1, RST_1, wire.window_update(1, 1)], ""),
    ("5.1.1: an even number", [head(2)], "GOAWAY 1"),
    ("5.1.1: a number that is less", [head(5), head(3)], "GOAWAY 1"),
    ("5.1.1: the first number, passed over", [head(5), head(1)], "GOAWAY 1"),
    ("5.1.1: a number once more", [head(5), RST_1.replace(b"\1", b"\5"), head(5)], "GOAWAY 5"),
    ("5.1.2: beyond the concurrency", [head(1, False), head(3, False), head(5, False)], "RST 7"),
    ("5.3.1: HEADERS that depend on themselves", [wire.frame(1, PRIORITY, 1, b"\0\0\0\1\7" + BLOCK)], "GOAWAY 1"),
    ("5.3.1: PRIORITY of itself", [head(1, False), wire.frame(2, 0, 1, b"\0\0\0\1\7")], "RST 1"),
    ("5.3.1: PRIORITY of itself, idle", [wire.frame(2, 0, 1, b"\0\0\0\1\7")], "GOAWAY 1"),
    # DATA, 6.1
    ("6.1: stream 0", [data(0, b"x")], "GOAWAY 1"),
    ("6.1: padding", [head(1, False), wire.frame(0, 9, 1, b"\2abc\0\0")], ""),
    ("6.1: nothing but padding", [head(1, False), wire.frame(0, 9, 1, b"\5\0\0\0\0\0")], ""),
    ("6.1: too much padding", [head(1, False), wire.frame(0, 8, 1, b"\6\0\0\0\0\0")], "GOAWAY 1"),
    ("6.1: no length of padding", [head(1, False), wire.frame(0, 8, 1)], "GOAWAY 6"),
    # HEADERS, 6.2
    ("6.2: stream 0", [head(0)], "GOAWAY 1"),
    ("6.2: padding and priority", [wire.frame(1, PRIORITY | 8, 1, b"\2\0\0\0\0\7" + BLOCK + b"\0\0")], ""),
    ("6.2: too much padding", [wire.frame(1, 13, 1, b"\xff" + BLOCK)], "GOAWAY 1"),
    ("6.2: no length of padding", [wire.frame(1, 13, 1)], "GOAWAY 6"),
    ("6.2: too short for a priority", [wire.frame(1, PRIORITY, 1, b"\0\0\0\0")], "GOAWAY 6"),
    # PRIORITY, 6.3
    ("6.3: stream 0", [wire.frame(2, 0, 0, bytes(5))], "GOAWAY 1"),
    ("6.3: another size", [head(1, False), wire.frame(2, 0, 1, bytes(4))], "RST 6"),
    ("6.3: another size, idle", [wire.frame(2, 0, 1, bytes(6))], "GOAWAY 6"),
    ("6.3: idle, and closed", [wire.frame(2, 0, 1, bytes(5)), head(1), RST_1, wire.frame(2, 0, 1, bytes(5))], ""),
    # RST_STREAM, 6.4
    ("6.4: stream 0", [wire.rst_stream(0, 8)], "GOAWAY 1"),
    ("6.4: another size", [head(1, False), wire.frame(3, 0, 1, bytes(3))], "GOAWAY 6"),
    ("6.4: an unknown code", [head(1, False), wire.rst_stream(1, 0xFFFFFFFF)], ""),
    # SETTINGS, 6.5
    ("6.5: an acknowledgement with a payload", [wire.frame(SET, 1, 0, b"x")], "GOAWAY 6"),
    ("6.5: of a stream", [wire.frame(SET, 0, 1)], "GOAWAY 1"),
    ("6.5: another size", [wire.frame(SET, 0, 0, bytes(3))], "GOAWAY 6"),
    ("6.5.2: ENABLE_PUSH 2", [setting(2, 2)], "GOAWAY 1"),
    ("6.5.2: INITIAL_WINDOW_SIZE 2^31", [setting(4, 0x80000000)], "GOAWAY 3"),
    ("6.5.2: MAX_FRAME_SIZE 2^14 - 1", [setting(5, 16383)], "GOAWAY 1"),
    ("6.5.2: MAX_FRAME_SIZE 2^24", [setting(5, 1 << 24)], "GOAWAY 1"),
    ("6.5.2: MAX_FRAME_SIZE 2^24 - 1", [setting(5, (1 << 24) - 1)], ""),
    ("6.5.2: unknown", [setting(0xFF, 9)], ""),
    ("8441: ENABLE_CONNECT_PROTOCOL 2", [setting(8, 2)], "GOAWAY 1"),
    ("9218: NO_RFC7540_PRIORITIES 2", [setting(9, 2)], "GOAWAY 1"),
    # PUSH_PROMISE, 8.4
    ("8.4: PUSH_PROMISE", [head(1, False), wire.frame(5, 4, 1, b"\0\0\0\2" + BLOCK)], "GOAWAY 1"),
    # PING, 6.7
    ("6.7: of a stream", [wire.frame(6, 0, 1, bytes(8))], "GOAWAY 1"),
    ("6.7: another size", [wire.frame(6, 0, 0, bytes(6))], "GOAWAY 6"),
    # GOAWAY, 6.8
    ("6.8: of a stream", [wire.frame(7, 0, 1, bytes(8))], "GOAWAY 1"),
    ("6.8: too short", [wire.frame(7, 0, 0, bytes(7))], "GOAWAY 6"),
    # WINDOW_UPDATE, 6.9
    ("6.9: 0 for the connection", [wire.window_update(0, 0)], "GOAWAY 1"),
    ("6.9: 0 for a stream", [head(1, False), wire.window_update(1, 0)], "RST 1"),
    ("6.9: another size", [wire.frame(8, 0, 0, bytes(3))], "GOAWAY 6"),
    (
        "6.9.1: too much for the connection",
        [wire.window_update(0, 0x7FFFFFFF - 65535), wire.window_update(0, 1)],
        "GOAWAY 3",
    ),
    ("6.9.1: too much for a stream", [head(1, False), wire.window_update(1, 0x7FFFFFFF)], "RST 3"),
    ("6.9.2: too much by SETTINGS", [head(1), wire.window_update(1, 0x7FFF0000), setting(4, 0x7FFFFFFF)], "GOAWAY 3"),
    # CONTINUATION, 6.10
    ("6.10: several", [UNENDED, wire.frame(9, 0, 1, BLOCK[1:2]), wire.frame(9, 4, 1, BLOCK[2:])], ""),
    ("6.10: and then DATA", [UNENDED, data(1, b"x")], "GOAWAY 1"),
    ("6.10: stream 0", [UNENDED, wire.frame(9, 4, 0, BLOCK)], "GOAWAY 1"),
    ("6.10: behind END_HEADERS", [head(1, False), REST], "GOAWAY 1"),
    ("6.10: of another stream", [UNENDED, wire.frame(9, 4, 3, BLOCK[1:])], "GOAWAY 1"),
    # messages, 8.1
    ("8.1: trailers", [head(1, False), data(1, b"x"), head(1, True, TRAILERS)], ""),
    ("8.1: trailers that are not the end", [head(1, False), head(1, False, TRAILERS)], "RST 1"),
    # RFC 9218, 7.1
    ("9218: PRIORITY_UPDATE", [head(1), wire.frame(16, 0, 0, b"\0\0\0\1u=0")], ""),
    ("9218: of a stream", [head(1), wire.frame(16, 0, 1, b"\0\0\0\1u=0")], "GOAWAY 1"),
    ("9218: too short", [wire.frame(16, 0, 0, b"\0\0\1")], "GOAWAY 6"),
    ("9218: for stream 0", [wire.frame(16, 0, 0, bytes(4))], "GOAWAY 1"),
]

ANSWER = head(1, False, encode(OK))
#: What a server may not say, or may, to a request that has ended.
TO_CLIENT: list[tuple[str, list[bytes], str]] = [
    ("an answer", [ANSWER, data(1, b"x", True)], ""),
    ("interim answers", [head(1, False, encode([(b":status", b"103")])), ANSWER, data(1, b"", True)], ""),
    ("trailers", [ANSWER, data(1, b"x"), head(1, True, TRAILERS)], ""),
    ("two heads", [ANSWER, ANSWER], "RST 1"),
    ("DATA before a head", [data(1, b"x", True)], "RST 1"),
    ("DATA behind the end", [head(1, True, encode(OK)), data(1, b"x")], "GOAWAY 5"),
    ("a stream that we have not begun", [head(3, True, encode(OK))], "GOAWAY 1"),
    ("a stream of its own", [head(2, True, encode(OK))], "GOAWAY 1"),
    ("DATA of one", [data(2, b"x")], "GOAWAY 1"),
    ("a push", [wire.frame(5, 4, 1, b"\0\0\0\2" + BLOCK)], "GOAWAY 1"),
    ("ENABLE_PUSH 1", [setting(2, 1)], "GOAWAY 1"),
    ("ENABLE_PUSH 0", [setting(2, 0)], ""),
    ("ENABLE_CONNECT_PROTOCOL taken back", [setting(8, 1), setting(8, 0)], "GOAWAY 1"),
    ("PRIORITY_UPDATE", [wire.frame(16, 0, 0, b"\0\0\0\1u=0")], "GOAWAY 1"),
    ("a reset", [ANSWER, RST_1], ""),
    ("HEADERS behind a reset", [RST_1, ANSWER], "GOAWAY 5"),
]


class LawTests(TestCase):
    def server(self) -> Heard:
        return Heard(most_streams=2).greet()

    def client(self) -> Heard:
        heard = Heard(True).greet()
        heard.begin(GET, True)
        heard.codec.take()
        return heard

    def test_server(self) -> None:
        """Every sentence about what a client may not send ends as RFC 9113 wants it."""
        wrong = [(what, found) for what, said, end in TO_SERVER if (found := self.server().feed(*said)) != end]
        self.assertEqual(wrong, [])

    def test_client(self) -> None:
        """And so about servers."""
        wrong = [(what, found) for what, said, end in TO_CLIENT if (found := self.client().feed(*said)) != end]
        self.assertEqual(wrong, [])

    def test_bytewise(self) -> None:
        """All of that holds for frames that come byte by byte."""
        wrong = []
        for make, table in ((self.server, TO_SERVER), (self.client, TO_CLIENT)):
            for what, said, end in table:
                raw = b"".join(said)
                if len(raw) < 2000 and make().feed(*[raw[at : at + 1] for at in range(len(raw))]) != end:
                    wrong.append(what)
        self.assertEqual(wrong, [])

    def test_goaway(self) -> None:
        """A fault names the last stream that was looked at, its code, and what was wrong."""
        heard = self.server()
        heard.feed(head(5))
        fault = self.assertRaises(wire.ConnectionFault, heard.codec.feed, data(0, b""))
        heard.codec.fail(fault)
        self.assertEqual(heard.said()[-1], (wire.GOAWAY, 0, 0, b"\0\0\0\5\0\0\0\1" + b"DATA of no stream"))


class GreetingTests(TestCase):
    def test_preface(self) -> None:
        """A client that begins otherwise than with the preface and SETTINGS breaks the connection (3.4)."""
        whole = wire.PREFACE + wire.settings({})
        for said, end in (
            (whole, ""),
            (b"GET / HTTP/1.1\r\n", "GOAWAY 1"),
            (wire.PREFACE[:-1] + b"x", "GOAWAY 1"),
            (wire.PREFACE + PING, "GOAWAY 1"),
            (wire.PREFACE + wire.frame(SET, wire.ACK, 0), "GOAWAY 1"),
            (wire.PREFACE + head(1), "GOAWAY 1"),
        ):
            self.assertEqual(Heard().feed(said), end, said)
            self.assertEqual(Heard().feed(*[said[at : at + 1] for at in range(len(said))]), end, said)

    def test_server_says(self) -> None:
        """A server begins with SETTINGS: its streams, windows, lists, no priorities of RFC 7540; CONNECT if wanted."""
        first, second = Heard(most_streams=7, header_size=999, is_bridging=True).said()
        self.assertEqual(dict(wire.read_settings(first[3])), {3: 7, 4: 65535, 6: 999, 8: 1, 9: 1})
        self.assertEqual(second, (wire.WINDOW_UPDATE, 0, 0, (CONNECTION_WINDOW - 65535).to_bytes(4, "big")))

    def test_client_says(self) -> None:
        """A client begins with the preface, and wants no push."""
        heard = Heard(True)
        raw = heard.codec.take()
        self.assertTrue(raw.startswith(wire.PREFACE))
        self.assertEqual(dict(wire.read_settings(frames(raw)[0][3])), {2: 0, 4: 65535, 6: 16384})

    def test_client_is_greeted(self) -> None:
        """A server that begins with anything but SETTINGS breaks the connection."""
        self.assertEqual(Heard(True).feed(PING), "GOAWAY 1")
        self.assertEqual(Heard(True).feed(wire.settings({})), "")

    def test_acknowledged(self) -> None:
        """SETTINGS are acknowledged and PINGs answered, once each, and their answers are not."""
        heard = Heard().greet()
        heard.feed(
            setting(4, 1), wire.frame(SET, 1, 0), wire.frame(6, 0, 0, b"abcdefgh"), wire.frame(6, 1, 0, bytes(8))
        )
        self.assertEqual(heard.said(), [(SET, 1, 0, b""), (6, 1, 0, b"abcdefgh")])
        self.assertEqual(heard.heard(), [])

    def test_pong(self) -> None:
        """The answer to a PING of ours is told; that to none of ours is not."""
        heard = Heard().greet()
        heard.codec.ping()
        ((_, _, _, payload),) = heard.said()
        heard.feed(wire.frame(6, 1, 0, b"whatever"), wire.frame(6, 1, 0, payload))
        self.assertEqual(heard.heard(), [("pong",)])
