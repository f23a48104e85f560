"""The request reader: what is refused and with which status, what passes, and what it remembers between requests."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.methods import METHODS
from lbsvc.errors import ProtocolViolation
from lbsvc.http import h1_requests
from lbsvc.http.fields import Rules
from lbsvc.http.h1 import REMEMBERED, check_incomplete
from lbsvc.http.h1_requests import RequestReader
from lbsvc.http.messages import UNSAID
from tests.http.corpus import HEADS, PASSED, REFUSED, chunks, get, lined, post
from tests.http.recording import REQUESTS, RequestLog, bytewise, read_requests


class CorpusTests(TestCase):
    def test_refused(self) -> None:
        """Each stream of the corpus that has two readings, or none, is refused with its status."""
        for name, (stream, status) in REFUSED.items():
            self.assertEqual(read_requests([stream]).status, status, name)

    def test_refused_as_the_clients_fault(self) -> None:
        """A refusal blames the client, and says too_large where it is a matter of size."""
        for name, (stream, status) in REFUSED.items():
            refusal = read_requests([stream]).refusal
            assert refusal is not None
            self.assertEqual(refusal.blame, "downstream", name)
            self.assertEqual(refusal.reason, "too_large" if status in (414, 431) else "bad_request", name)

    def test_refused_at_once(self) -> None:
        """A head that is refused was never told: nothing of it can have been sent on."""
        for name, (stream, _) in HEADS.items():
            self.assertEqual(read_requests([stream]).messages, [], name)

    def test_passed(self) -> None:
        """Each lawful stream of the corpus gives its requests, with their methods, targets and bodies."""
        for name, (stream, expected) in PASSED.items():
            told = read_requests([stream])
            self.assertIsNone(told.refusal, name)
            self.assertEqual([(m.start[0], m.start[1], m.body) for m in told.messages], expected, name)

    def test_methods(self) -> None:
        """Each method of the list passes our checks and llhttp's."""
        for method in METHODS:
            told = read_requests([lined(method + (b" * " if method == b"OPTIONS" else b" /a ") + b"HTTP/1.1")])
            self.assertIsNone(told.refusal, method)
            self.assertEqual(told.messages[0].start[0], method)


class HeadTests(TestCase):
    def read(self, stream: bytes, rules: Rules = REQUESTS) -> RequestLog:
        log = RequestLog()
        RequestReader(log, rules).feed(stream)
        return log

    def test_fields_go_on_as_they_came(self) -> None:
        """Order, spelling of names, duplicates and high bytes are kept; only the space around values is made regular."""
        lines = (b"cOOkie: a=1", b"X-B:  \xe9\t ", b"Cookie: b=2", b"X-A:", b"x-b: 2")
        wire = self.read(get(*lines)).messages[0].lines
        self.assertEqual(wire, b"cOOkie: a=1\r\nX-B: \xe9\r\nCookie: b=2\r\nX-A: \r\nx-b: 2\r\n")

    def test_hop_by_hop_fields_end_here(self) -> None:
        """The fields of one connection, and what any Connection line names, are not in what goes on."""
        wire = (
            self.read(
                get(
                    b"Connection: X-One , x-two",
                    b"X-One: 1",
                    b"TE: trailers",
                    b"Keep-Alive: 5",
                    b"Upgrade: h2c",
                    b"HTTP2-Settings: AAA",
                    b"X-Two: 2",
                    b"X-Kept: 3",
                    b"Proxy-Connection: keep-alive",
                    b"Proxy-Authorization: Basic x",
                    b"connection:x-three,,close",
                    b"X-Three: 3",
                )
            )
            .messages[0]
            .lines
        )
        self.assertEqual(wire, b"X-Kept: 3\r\n")

    def test_connection_cannot_name_what_gives_meaning(self) -> None:
        """Naming Host, Content-Length, Authorization or Cookie in Connection takes none of them away."""
        told = read_requests(
            [
                post(
                    b"Connection: host, content-length, authorization, cookie",
                    b"Content-Length: 2",
                    b"Authorization: x",
                    b"Cookie: y",
                    body=b"ab",
                )
            ]
        )
        message = told.messages[0]
        self.assertEqual((message.start[3], message.start[4], message.body), (b"a.example", 2, b"ab"))
        self.assertEqual(message.lines, b"Authorization: x\r\nCookie: y\r\nContent-Length: 2\r\n")

    def test_strangers_say_nothing_about_themselves(self) -> None:
        """X-Forwarded-*, Forwarded, X-Real-IP and X-Request-Id of strangers do not go on."""
        lines = (
            b"X-Forwarded-For: 1",
            b"X-Forwarded-Anything: 2",
            b"FORWARDED: for=1",
            b"X-Real-Ip: 1",
            b"X-Request-ID: 1",
        )
        self.assertEqual(self.read(get(*lines)).messages[0].lines, b"")

    def test_underscores(self) -> None:
        """Names with underscores are dropped, kept or refused, as the listener says."""
        stream = get(b"Content_Length: 5", b"X_A: 1", b"X-B: 2")
        self.assertEqual(self.read(stream, Rules(underscores="drop")).messages[0].lines, b"X-B: 2\r\n")
        self.assertIn(b"X_A: 1\r\n", self.read(stream, Rules(underscores="keep")).messages[0].lines)
        self.assertEqual(read_requests([stream], Rules(underscores="reject")).status, 400)

    def test_trailers(self) -> None:
        """Trailers go on but for those that Connection names, on a head that was met before too, and on a long one."""
        for more in ((), (b"X-Long: " + b"x" * REMEMBERED,)):
            stream = chunks(b"0\r\nX-Sum: 1\r\nX-Hop: 2\r\n\r\n", b"Connection: X-Hop", *more)
            told = read_requests([stream * 2 + chunks(b"0\r\nX-Hop: 2\r\n\r\n")], Rules())
            self.assertEqual([m.trailers for m in told.messages], [b"X-Sum: 1\r\n"] * 2 + [b"X-Hop: 2\r\n"])

    def test_long_lines_of_the_default(self) -> None:
        """RFC 9112, 3: request lines of at least 8000 bytes pass, with the limits that we have if nobody sets others."""
        told = read_requests([lined(b"GET /%b HTTP/1.1" % (b"a" * 8000))], Rules())
        self.assertEqual(len(told.messages), 1)

    def test_expect(self) -> None:
        """100-continue is understood in any case, another expectation is 417's, and HTTP/1.0 has none."""
        for line, version, expects, unsupported in (
            (b"Expect: 100-Continue", b"1.1", True, False),
            (b"Expect: tea", b"1.1", False, True),
            (b"Expect: 100-continue, tea", b"1.1", False, True),
            (b"Expect: 100-continue", b"1.0", False, False),
            (b"Expect: tea", b"1.0", False, False),
        ):
            head = self.read(post(line, b"Content-Length: 1", version=version)).messages[0].head
            assert head is not None
            self.assertEqual((head.section.expects_continue, head.section.unsupported), (expects, unsupported), line)
            self.assertNotIn(b"xpect", head.section.wire)

    def test_sizes(self) -> None:
        """A head of just `header_size` passes and one byte more does not, whole or byte by byte."""
        for extra, status in ((0, None), (1, 431)):
            stream = get(b"A: " + b"b" * 20)
            rules = Rules(header_size=len(stream) - 4 - extra)
            self.assertEqual(read_requests([stream], rules).status, status)
            self.assertEqual(read_requests(bytewise(stream), rules).status, status)

    def test_line_sizes(self) -> None:
        """A request line of just `header_size` leaves no room for a header: 431; one byte more: 414, in pieces too."""
        for extra, status in ((0, 431), (1, 414), (2, 414), (3, 414), (9, 414)):
            line = b"GET /" + b"a" * (50 + extra) + b" HTTP/1.1"
            rules = Rules(header_size=len(line) - extra)
            for pieces in ([lined(line)], bytewise(lined(line)), [line[:20], line[20:] + b"\r\n" + b"A: b\r\n" * 9]):
                self.assertEqual(read_requests(pieces, rules).status, status, extra)

    def test_counts(self) -> None:
        """`header_count` lines pass and one more does not."""
        self.assertIsNone(read_requests([get(b"A: b")], Rules(header_count=2)).status)
        self.assertEqual(read_requests([get(b"A: b", b"C: d")], Rules(header_count=2)).status, 431)

    def test_details_do_not_repeat_the_peer(self) -> None:
        """The text of a refusal has none of the bytes that were refused."""
        for stream in (
            get(b"Evil(: x"),
            lined(b"EVIL / HTTP/1.1"),
            post(b"Transfer-Encoding: evil"),
            get(b"Host: evil/"),
        ):
            refusal = read_requests([stream]).refusal
            assert refusal is not None
            self.assertNotIn("evil", str(refusal).lower())


class MemoryTests(TestCase):
    def heads(self, *streams: bytes) -> list[tuple[object, ...]]:
        told = read_requests(streams)
        self.assertIsNone(told.refusal)
        return [(*message.start, message.lines) for message in told.messages]

    def alone(self, stream: bytes) -> tuple[object, ...]:
        return self.heads(stream)[0]

    def test_same_fields_with_another_line(self) -> None:
        """A request whose fields were met before on its connection means what it means on a fresh one."""
        streams = [
            get(b"A: b"),
            lined(b"GET /other HTTP/1.1").replace(b"\r\n\r\n", b"\r\nA: b\r\n\r\n"),
            get(b"A: b", line=b"HEAD /x HTTP/1.1"),
            get(b"A: b", line=b"GET / HTTP/1.0"),
            get(b"A: b", line=b"GET http://A.EXAMPLE/y HTTP/1.1"),
            get(b"A: b"),
        ]
        self.assertEqual(self.heads(*streams), [self.alone(stream) for stream in streams])

    def test_version_is_not_remembered_with_fields(self) -> None:
        """Fields that were lawful in HTTP/1.1 are judged anew in 1.0, and the other way round."""
        body = b"Transfer-Encoding: chunked"
        self.assertEqual(read_requests([post(body, body=b"0\r\n\r\n"), post(body, version=b"1.0")]).status, 400)
        told = read_requests([b"GET / HTTP/1.0\r\nA: b\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r\n"])
        self.assertEqual((len(told.messages), told.status), (1, 400))

    def test_expectations_are_not_remembered_over_versions(self) -> None:
        """An Expect that HTTP/1.0 ignores counts in 1.1 with the same fields."""
        lines = (b"Expect: 100-continue", b"Content-Length: 0")
        told = read_requests([post(*lines), post(*lines, version=b"1.0"), post(*lines)])
        expects = [m.head.section.expects_continue for m in told.messages if m.head is not None]
        self.assertEqual(expects, [True, False, True])

    def test_absolute_form_is_compared_each_time(self) -> None:
        """A target that names another host is refused though its fields were met before."""
        told = read_requests([get(b"A: b"), get(b"A: b", line=b"GET http://b.example/ HTTP/1.1")])
        self.assertEqual((len(told.messages), told.status), (1, 400))

    def test_same_bytes_are_the_same_head(self) -> None:
        """A head that is repeated is not read again: it is the same object."""
        messages = read_requests([get(b"A: b") * 3]).messages
        self.assertIs(messages[0].head, messages[2].head)

    def test_others_in_between(self) -> None:
        """What is remembered of a request without a body does not outlive the head that it belongs to."""
        streams = [get(b"A: b"), post(b"Content-Length: 2", body=b"ab"), get(b"A: b"), get(b"A: c") * 2, get(b"A: c")]
        told = read_requests(streams)
        methods = [message.start[0] for message in told.messages]
        self.assertEqual(methods, [b"GET", b"POST", b"GET", b"GET", b"GET", b"GET"])
        self.assertEqual([m.body for m in told.messages], [b"", b"ab", b"", b"", b"", b""])
        self.assertEqual(
            [m.lines for m in told.messages][2:4], [self.alone(get(b"A: b"))[-1], self.alone(get(b"A: c"))[-1]]
        )

    def test_bodies_are_not_remembered(self) -> None:
        """Equal heads have each its own body."""
        told = read_requests([post(b"Content-Length: 2", body=b"ab") + post(b"Content-Length: 2", body=b"cd")])
        self.assertEqual([m.body for m in told.messages], [b"ab", b"cd"])

    def test_refused_lines_are_refused_again(self) -> None:
        """A line that was refused once is refused on the next connection too, after lawful ones of the same name."""
        for _ in range(2):
            self.assertIsNone(read_requests([get(b"Accept: a")]).status)
            self.assertEqual(read_requests([get(b"Accept: a\x00")]).status, 400)

    def test_rules_of_one_listener_are_not_anothers(self) -> None:
        """Lines that a lenient listener has met are judged by the rules of a strict one."""
        stream = get(b"Accept: a", b"X_Y: z")
        self.assertIsNone(read_requests([stream], Rules(underscores="keep")).status)
        self.assertEqual(read_requests([stream], Rules(underscores="reject")).status, 400)
        self.assertEqual(read_requests([stream], Rules(header_count=1)).status, 431)

    def test_long_heads_are_not_kept(self) -> None:
        """An idle connection keeps no head longer than REMEMBERED."""
        long = get(b"X-Long: " + b"x" * REMEMBERED)
        reader = RequestReader(RequestLog(), Rules())
        reader.feed(long)
        kept = [getattr(reader, name) for name in dir(reader) if not name.startswith(("__", "_sink", "_rules"))]
        self.assertEqual([each for each in kept if isinstance(each, bytes | bytearray) and len(each) > 100], [])


class StateTests(TestCase):
    def test_holds_until_released(self) -> None:
        """After a request nothing more is told before `release`; then the next one is."""
        log = RequestLog()
        reader = RequestReader(log, REQUESTS)
        reader.feed(get() * 2)
        reader.feed(get())
        self.assertEqual((len(log.messages), reader.is_holding), (1, True))
        for count in (2, 3):
            self.assertTrue(reader.release())
            reader.feed(b"")
            self.assertEqual(len(log.messages), count)
        self.assertFalse(reader.release())
        self.assertTrue(reader.is_idle)

    def test_idle(self) -> None:
        """A reader is idle before the first byte of a request and no longer after it."""
        reader = RequestReader(RequestLog(), REQUESTS)
        self.assertTrue(reader.is_idle)
        reader.feed(b"\r\n")
        self.assertTrue(reader.is_idle)
        reader.feed(b"G")
        self.assertFalse(reader.is_idle)

    def test_no_length_is_no_body(self) -> None:
        """A request without Content-Length and Transfer-Encoding has no body, and says so."""
        log = RequestLog()
        RequestReader(log, REQUESTS).feed(post())
        self.assertEqual((log.messages[0].start[4], log.messages[0].ended), (UNSAID, True))

    def test_refused_before_its_end(self) -> None:
        """What cannot become a request is refused without waiting for the end of its head, or of its line."""
        for begin in (
            b"\x16",
            b"G\x00",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"FROB / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nA\n",
            b"GET / HTTP/1.1\rH",
            b"GET / HTTP/1.1\r\r",
            b"GET / HTTP/1.1\r\nA: b\rC",
            b"GET / HTTP/1.1\r\nHost: a\r\n\rZ",
        ):
            reader = RequestReader(RequestLog(), REQUESTS)
            self.assertRaises(ProtocolViolation, reader.feed, begin)

    def test_byte_by_byte_is_linear(self) -> None:
        """A large head of many lines that comes byte by byte is looked at a few times, not once for each byte."""
        looked_at = 0

        def counting(data: bytes | bytearray, start: int, end: int, rules: Rules) -> None:
            nonlocal looked_at
            looked_at += end - start
            check_incomplete(data, start, end, rules)

        self.patch(h1_requests, "check_incomplete", counting)
        stream = get(*[b"A:"] * 4_000)
        rules = Rules(header_size=64 * 1024, header_count=100_000)
        self.assertEqual(len(read_requests(bytewise(stream), rules).messages), 1)
        self.assertLess(looked_at, 3 * len(stream))
