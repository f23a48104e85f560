"""Header lists of HTTP/2 as heads, and back: whatever is let through could have come by HTTP/1.1 with the same meaning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.errors import ProtocolViolation
from lbsvc.http.fields import Rules
from lbsvc.http.h2_heads import (
    Malformed,
    answer_fields,
    lines_to_fields,
    read_request,
    read_response,
    read_trailers,
    unread,
)
from lbsvc.http.messages import CHUNKED, UNSAID
from lbsvc.http.responses import make_head
from tests.http.recording import REQUESTS, read_requests

RULES = REQUESTS
PSEUDO = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", b"/a")]
_TEXT = st.binary(max_size=12)
_NAMES = st.one_of(
    _TEXT,
    st.sampled_from(
        b":method :path :authority :scheme :status :protocol host content-length transfer-encoding connection te cookie "
        b"expect upgrade x x_y content_length x-forwarded-for".split()
    ),
)
_VALUES = st.one_of(
    _TEXT, st.sampled_from([b"GET", b"POST", b"/a", b"x", b"5", b"0", b"chunked", b"trailers", b"a\r\nb: c", b"http"])
)
_LISTS = st.lists(st.tuples(_NAMES, _VALUES), max_size=8)


class RequestTests(TestCase):
    @given(_LISTS, st.booleans(), st.booleans())
    def test_as_http1(self, more: list[tuple[bytes, bytes]], ended: bool, begins: bool) -> None:
        """A head that is let through is read by our own parser of HTTP/1.1 as one request with the same meaning."""
        fields = [*PSEUDO, *more] if begins else more
        try:
            head = read_request(fields, ended, RULES, False)
        except (Malformed, ProtocolViolation):
            return
        coding = b"Transfer-Encoding: chunked\r\n" if head.section.body == CHUNKED else b""
        assert head.host is not None
        wire = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            head.method,
            head.target,
            head.host,
            head.section.wire,
            coding,
        )
        body = b"0\r\n\r\n" if coding else b"x" * max(head.section.body, 0)
        told = read_requests([wire + body])
        self.assertIsNone(told.refusal, wire)
        (message,) = told.messages
        self.assertEqual((message.head.method, message.head.target), (head.method, head.target))
        self.assertEqual([f[:2] for f in message.head.section.fields], [f[:2] for f in head.section.fields])

    def test_length(self) -> None:
        """Without a length, content that follows is in chunks; none follows, and there is nothing to be said."""
        self.assertEqual(read_request(PSEUDO, True, RULES, False).section.body, UNSAID)
        self.assertEqual(read_request(PSEUDO, False, RULES, False).section.body, CHUNKED)
        self.assertEqual(read_request([*PSEUDO, (b"content-length", b"7")], False, RULES, False).section.body, 7)
        self.assertRaises(Malformed, read_request, [*PSEUDO, (b"content-length", b"7")], True, RULES, False)

    def test_host(self) -> None:
        """Host stands in for :authority, and is not told twice."""
        without = [pair for pair in PSEUDO if pair[0] != b":authority"]
        head = read_request([*without, (b"host", b"y")], True, RULES, False)
        self.assertEqual((head.host, head.section.wire), (b"y", b""))
        head = read_request([*PSEUDO, (b"host", b"X")], True, RULES, False)
        self.assertEqual((head.host, head.section.wire), (b"x", b""))
        self.assertRaises(ProtocolViolation, read_request, without, True, RULES, False)

    def test_default_port(self) -> None:
        """Host and :authority may differ by the port that the scheme means anyway, and by no other."""
        for scheme, authority, host, is_same in (
            (b"http", b"x:80", b"X", True),
            (b"HTTPS", b"x", b"x:443", True),
            (b"http", b"[::1]", b"[::1]:80", True),
            (b"http", b"x", b"x:443", False),
            (b"https", b"x", b"x:80", False),
            (b"http", b"x:80", b"x:8080", False),
            (b"http", b"x:80", b"y", False),
        ):
            fields = [
                (b":method", b"GET"), (b":scheme", scheme), (b":authority", authority), (b":path", b"/"), (b"host", host),
            ]  # fmt: skip
            if is_same:
                self.assertEqual(read_request(fields, True, RULES, False).host, authority)
            else:
                self.assertRaises(Malformed, read_request, fields, True, RULES, False)

    def test_connect(self) -> None:
        """An extended CONNECT is Malformed where it was not offered."""
        fields = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *PSEUDO[1:]]
        self.assertRaises(Malformed, read_request, fields, False, RULES, False)
        self.assertEqual(read_request(fields, False, RULES, True).bridged, b"websocket")

    def test_unread(self) -> None:
        """What stands for a refused request has its method and path only where both are lawful."""
        self.assertEqual((unread(PSEUDO).method, unread(PSEUDO).target), (b"GET", b"/a"))
        for fields in ([], PSEUDO[:1], [(b":method", b"a b"), PSEUDO[3]], [PSEUDO[0], (b":path", b"/\n")]):
            self.assertEqual((unread(fields).method, unread(fields).target), (b"-", b"-"))
        self.assertEqual(unread([(b":method", b"CONNECT"), *PSEUDO[1:]]).method, b"CONNECT")
        self.assertEqual(unread([(b":method", b"x" * 33), *PSEUDO[1:]]).method, b"-")
        self.assertEqual(unread([*PSEUDO, (b":path", b"/b")]).target, b"-")

    def test_unread_host(self) -> None:
        """It has the host that was asked for, where that is one, and one alone."""
        for host, found in ((b"a.example:1", b"a.example:1"), (b"a b", None), (b"", None)):
            self.assertEqual(unread([(b":authority", host)]).host, found)
            self.assertEqual(unread([(b"host", host)]).host, found)
        self.assertIsNone(unread([(b":authority", b"a"), (b"host", b"b")]).host)
        self.assertIsNone(unread([(b"host", b"a"), (b"host", b"a")]).host)
        self.assertIsNone(unread([]).host)


class TrailerTests(TestCase):
    @given(_LISTS)
    def test_never_framing(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Trailers that are let through are lines of names that change nothing."""
        try:
            lines = read_trailers(fields, RULES)
        except (Malformed, ProtocolViolation):
            return
        for line in lines.split(b"\r\n")[:-1]:
            name = line.partition(b":")[0]
            self.assertIn((name, line.partition(b": ")[2]), fields)
            self.assertNotIn(
                name, (b"content-length", b"transfer-encoding", b"host", b"cookie", b"expect", b"x-forwarded-for")
            )

    def test_pseudo(self) -> None:
        """None of them is a pseudo-header field (RFC 9113, 8.1)."""
        self.assertRaises(Malformed, read_trailers, [(b":path", b"/")], RULES)


class AnswerTests(TestCase):
    def test_read(self) -> None:
        """An answer's status is three digits and all that is pseudo about it."""
        head = read_response([(b":status", b"200"), (b"x", b"y")], False, Rules(request=False))
        self.assertEqual((head.status, head.section.body, head.section.wire), (200, CHUNKED, b"x: y\r\n"))
        for fields in (
            [],
            [(b":status", b"20")],
            [(b":status", b"2 0")],
            [(b":status", b"600")],
            [(b":status", b"101")],
            [(b":status", b"200"), (b":path", b"/")],
            [(b"x", b"y"), (b":status", b"200")],
        ):
            self.assertRaises(Malformed, read_response, fields, False, Rules(request=False))
        self.assertRaises(Malformed, read_response, [(b":status", b"100")], True, Rules(request=False))

    def test_written(self) -> None:
        """Its fields in lower case, its length, and lines that were put behind its head."""
        head = make_head(200, [("X-A", "B"), ("Set-Cookie", "a=b")], 5)
        expected = [(b":status", b"200"), (b"x-a", b"B"), (b"set-cookie", b"a=b"), (b"content-length", b"5")]
        self.assertEqual(answer_fields(head), expected)
        head.wire += b"Set-Cookie: c=d\r\n"
        self.assertEqual(answer_fields(head), [*expected, (b"set-cookie", b"c=d")])
        self.assertEqual(answer_fields(make_head(204, [], 0)), [(b":status", b"204")])

    def test_lines(self) -> None:
        """Lines as fields; none from none."""
        self.assertEqual(lines_to_fields(b"A: b\r\nC:  d \r\n"), [(b"a", b"b"), (b"c", b"d")])
        self.assertEqual(lines_to_fields(b""), [])
