"""The response reader: broken answers are refused, lawful ones framed, and no byte gets from one answer into another."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.errors import ProtocolViolation
from lbsvc.http import h1_responses
from lbsvc.http.fields import Rules
from lbsvc.http.h1 import REMEMBERED, check_incomplete
from lbsvc.http.h1_responses import ResponseReader
from lbsvc.http.messages import ResponseHead
from tests.http.answers import (
    PASSED,
    PASSED_SWITCHES,
    REFUSED,
    REFUSED_SWITCHES,
    TE,
    WEBSOCKET,
    answer,
    sized,
    switch,
)
from tests.http.recording import ANSWERS, Message, ResponseLog, bytewise, read_response


class CorpusTests(TestCase):
    def test_refused(self) -> None:
        """Each answer with two readings, or none, is a violation: 502, and the backend's fault."""
        for name, stream in REFUSED.items():
            refusal = read_response([stream]).refusal
            assert refusal is not None, name
            self.assertEqual(
                (refusal.status, refusal.reason, refusal.blame), (502, "upstream_protocol", "upstream"), name
            )

    def test_passed(self) -> None:
        """Each lawful answer is told whole, with its body, and whether its connection may be used again."""
        for name, (method, stream, expected, reusable) in PASSED.items():
            told = read_response([stream], method)
            self.assertIsNone(told.refusal, name)
            self.assertEqual([(m.start[0], m.body) for m in told.messages], expected, name)
            self.assertEqual(not told.state[0], reusable, name)

    def test_end_of_the_connection(self) -> None:
        """The connection's end is the body's end where nothing else was said, and no end at all elsewhere."""
        for stream, lawful in (
            (answer(body=b"hello"), True),
            (answer(b"Content-Length: 9", body=b"hello"), False),
            (answer(TE + b"chunked", body=b"5\r\nhello\r\n"), False),
            (answer(TE + b"chunked", body=b"5\r\nhello\r\n0\r\n"), False),
            (b"HTTP/1.1 200 OK\r\n", False),
            (b"", False),
        ):
            told = read_response([stream])
            self.assertEqual(told.state[1], lawful, stream)
            self.assertEqual(all(m.ended for m in told.messages) and bool(told.messages), lawful, stream)


class SwitchTests(TestCase):
    def test_refused(self) -> None:
        """A 101 that is not to websocket by both fields, or has a body, is a violation though one was asked for."""
        for name, stream in REFUSED_SWITCHES.items():
            self.assertEqual(read_response([stream], upgrade=True).status, 502, name)

    def test_passed(self) -> None:
        """A switch is told once with the bytes behind its head; another answer is an answer though one was asked for."""
        for name, (stream, expected) in PASSED_SWITCHES.items():
            told = read_response([stream], upgrade=True)
            self.assertIsNone(told.refusal, name)
            self.assertEqual([(m.start[0], m.body) for m in told.messages], expected, name)

    def test_nobody_asked(self) -> None:
        """A lawful 101 is a violation where this request has not asked, though the one before it on the connection had."""
        for name, (stream, expected) in PASSED_SWITCHES.items():
            if expected[-1][0] == 101:
                self.assertEqual(read_response([stream]).status, 502, name)
        log = ResponseLog()
        reader = ResponseReader(log, ANSWERS)
        reader.expect(b"GET", upgrade=True)
        reader.feed(sized(b"no"))
        reader.expect(b"GET")
        self.assertRaises(ProtocolViolation, reader.feed, switch(*WEBSOCKET))
        self.assertEqual([m.start[0] for m in log.messages], [200])

    def test_never_again(self) -> None:
        """Behind a switch the connection may not carry HTTP again, and its end is no answer's end."""
        log = ResponseLog()
        reader = ResponseReader(log, ANSWERS)
        reader.expect(b"GET", upgrade=True)
        reader.feed(switch(*WEBSOCKET))
        self.assertEqual((reader.surplus, reader.has_begun, reader.eof()), (True, False, False))
        self.assertEqual([m.start for m in log.messages], [(101, "switched")])

    def test_head(self) -> None:
        """The head of a switch says so, and has the end-to-end fields only: who writes it on adds its own two."""
        (message,) = read_response([switch(*WEBSOCKET)], upgrade=True).messages
        assert isinstance(message.head, ResponseHead)
        self.assertTrue(message.head.section.upgrade)
        self.assertEqual(message.lines, b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: abc=\r\n")


class HeadTests(TestCase):
    def message(self, stream: bytes, method: bytes = b"GET") -> Message:
        return read_response([stream], method).messages[-1]

    def head(self, stream: bytes) -> ResponseHead:
        head = self.message(stream).head
        assert isinstance(head, ResponseHead)
        return head

    def test_lines_go_on_as_they_came(self) -> None:
        """Order, duplicates (Set-Cookie) and high bytes are kept, and the status line is in normal form."""
        stream = answer(
            b"Set-Cookie: a=1", b"X: \xe9", b"set-cookie:b=2", b"Content-Length: 0", b"Server: s", status=b"201"
        )
        self.assertEqual(
            self.message(stream).lines,
            b"HTTP/1.1 201 \r\nSet-Cookie: a=1\r\nX: \xe9\r\nset-cookie: b=2\r\nServer: s\r\nContent-Length: 0\r\n",
        )

    def test_answers_of_1_0_become_1_1(self) -> None:
        """We speak HTTP/1.1 whatever the backend speaks."""
        self.assertTrue(self.message(answer(version=b"1.0")).lines.startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_hop_by_hop_fields_end_here(self) -> None:
        """The fields of one connection, and what Connection names, are not in what goes on; ours replace X-Request-Id."""
        stream = sized(
            b"a",
            b"Connection: X-One",
            b"X-One: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: Basic",
            b"Upgrade: h2",
            b"X-Request-Id: theirs",
            b"X-Forwarded-For: 1",
        )
        self.assertEqual(self.message(stream).lines, b"HTTP/1.1 200 OK\r\nX-Forwarded-For: 1\r\nContent-Length: 1\r\n")

    def test_date(self) -> None:
        """An answer has a Date where one goes on: one that Connection names does not count."""
        self.assertTrue(self.head(sized(b"", b"Date: now")).is_plain)
        self.assertFalse(self.head(sized(b"")).is_plain)
        head = self.head(sized(b"", b"Date: now", b"Connection: date"))
        self.assertFalse(head.is_plain)
        self.assertNotIn(b"Date", head.wire)

    def test_no_length_where_none_may_be(self) -> None:
        """A 204 goes on without Content-Length whatever the backend said, an interim answer with 0 too."""
        for status in (b"204 No Content", b"103 Early Hints"):
            self.assertNotIn(b"Length", self.message(answer(b"Content-Length: 0", status=status)).lines)
        self.assertNotIn(b"Length", self.message(answer(b"Content-Length: 7", status=b"204 No Content")).lines)

    def test_length_of_what_was_not_sent(self) -> None:
        """HEAD and 304 keep the Content-Length that the backend said, though no body comes."""
        self.assertIn(b"Content-Length: 7\r\n", self.message(answer(b"Content-Length: 7"), b"HEAD").lines)
        self.assertIn(b"Content-Length: 7\r\n", self.message(answer(b"Content-Length: 7", status=b"304 N")).lines)

    def test_plain(self) -> None:
        """Only sized final answers with a date, other than 204 and 304, may take the short road."""
        for stream, plain in (
            (sized(b"a", b"Date: now"), True),
            (answer(b"Date: now", TE + b"chunked", body=b"0\r\n\r\n"), False),
            (answer(b"Date: now"), False),
            (answer(b"Date: now", b"Content-Length: 0", status=b"304 N"), False),
            (answer(b"Date: now", b"Content-Length: 0", status=b"204 N"), False),
            (answer(b"Date: now", b"Content-Length: 0", status=b"103 N"), False),
        ):
            self.assertEqual(self.head(stream).is_plain, plain, stream)

    def test_size(self) -> None:
        """A head of just `header_size` passes and one byte more does not, whole or byte by byte."""
        stream = sized(b"", b"A: b")
        for extra, status in ((0, None), (1, 502)):
            rules = Rules(header_size=len(stream) - 4 - extra, request=False)
            self.assertEqual(read_response([stream], rules=rules).status, status)
            self.assertEqual(read_response(bytewise(stream), rules=rules).status, status)

    def test_byte_by_byte_is_linear(self) -> None:
        """A large head of many lines that comes byte by byte is looked at a few times, not once for each byte."""
        looked_at = 0

        def counting(data: bytes | bytearray, start: int, end: int, rules: Rules) -> None:
            nonlocal looked_at
            looked_at += end - start
            check_incomplete(data, start, end, rules)

        self.patch(h1_responses, "check_incomplete", counting)
        stream = sized(b"", *[b"A:"] * 4_000)
        rules = Rules(header_size=64 * 1024, header_count=100_000, request=False)
        self.assertEqual(len(read_response(bytewise(stream), rules=rules).messages), 1)
        self.assertLess(looked_at, 2 * len(stream))


class ConnectionTests(TestCase):
    def setUp(self) -> None:
        self.log = ResponseLog()
        self.reader = ResponseReader(self.log, ANSWERS)

    def test_answers_one_after_the_other(self) -> None:
        """A connection serves many exchanges, each framed by its own request's method though the heads are equal."""
        stream = answer(b"Content-Length: 3")
        for method, body in ((b"GET", b"abc"), (b"HEAD", b""), (b"GET", b"def")):
            self.reader.expect(method)
            self.reader.feed(stream + body)
        self.assertEqual([m.body for m in self.log.messages], [b"abc", b"", b"def"])
        self.assertFalse(self.reader.surplus)
        self.assertIs(self.log.messages[0].head, self.log.messages[2].head)

    def test_bytes_before_a_request(self) -> None:
        """Bytes that come while nothing is expected are told to nobody and spoil the connection."""
        self.reader.feed(sized(b"evil"))
        self.assertEqual((self.log.messages, self.reader.surplus), ([], True))

    def test_bytes_behind_an_answer(self) -> None:
        """Bytes behind an answer spoil the connection, in the same read or a later one, and whatever frames the answer."""
        for stream in (sized(b"a"), answer(TE + b"chunked", body=b"0\r\n\r\n")):
            for pieces in ([stream + b"x"], [stream, b"x"], [stream[:-1], stream[-1:] + b"x"]):
                log = ResponseLog()
                reader = ResponseReader(log, ANSWERS)
                reader.expect(b"GET")
                for piece in pieces:
                    reader.feed(piece)
                self.assertEqual((len(log.messages), reader.surplus), (1, True), pieces)

    def test_spoiled_stays_spoiled(self) -> None:
        """A chunked answer on a connection that was spoiled does not make it good."""
        self.reader.feed(b"x")
        self.reader.expect(b"GET")
        self.reader.feed(answer(TE + b"chunked", body=b"0\r\n\r\n"))
        self.assertTrue(self.reader.surplus)

    def test_interim_answers_are_told_first(self) -> None:
        """Interim answers are told as they come, before the final one is there."""
        self.reader.expect(b"POST")
        self.reader.feed(answer(status=b"100 Continue"))
        self.assertEqual([m.start[0] for m in self.log.messages], [100])
        self.reader.feed(sized(b"ok"))
        self.assertEqual([m.start[0] for m in self.log.messages], [100, 200])

    def test_trailers(self) -> None:
        """Trailers of an answer go on but for those that its Connection names, on a head that was met before too."""
        stream = answer(TE + b"chunked", b"Connection: X-Hop", body=b"0\r\nX-Hop: 1\r\nGrpc-Status: 0\r\n\r\n")
        for _ in range(2):
            self.reader.expect(b"GET")
            self.reader.feed(stream)
        self.assertEqual([m.trailers for m in self.log.messages], [b"Grpc-Status: 0\r\n"] * 2)

    def test_refused_before_its_end(self) -> None:
        """What cannot become an answer is refused without waiting for more."""
        for begin in (b"<ht", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\rA", b"HTTP/1.1 200 OK\r\nA: b\rC"):
            reader = ResponseReader(self.log, ANSWERS)
            reader.expect(b"GET")
            self.assertRaises(ProtocolViolation, reader.feed, begin)

    def test_long_heads_are_not_kept(self) -> None:
        """A connection remembers no head longer than REMEMBERED."""
        stream = sized(b"", b"X-Long: " + b"x" * REMEMBERED)
        reader = ResponseReader(self.log, Rules(request=False))
        for _ in range(2):
            reader.expect(b"GET")
            reader.feed(stream)
        self.assertIsNot(self.log.messages[0].head, self.log.messages[1].head)
