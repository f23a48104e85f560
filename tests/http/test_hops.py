"""Max-Forwards: who answers the last hop of a TRACE or OPTIONS, what it may say, and how the number goes down."""

from __future__ import annotations

import h11
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.methods import METHODS
from lbsvc.http.fields import Rules
from lbsvc.http.hops import MOST_HOPS, answer_last_hop, decremented, reflect
from lbsvc.http.messages import RequestHead
from tests.http.recording import read_requests

LAST = b"Max-Forwards: 0"


def request(line: bytes, *lines: bytes) -> RequestHead:
    """A head as the reader makes it."""
    whole = b"\r\n".join([line, b"Host: shop.example:8080", *lines]) + b"\r\n\r\n"
    head = read_requests([whole], Rules()).messages[0].head
    assert isinstance(head, RequestHead)
    return head


def trace(*lines: bytes) -> bytes:
    """What comes back of a TRACE that has these lines beside its limit."""
    answered = answer_last_hop(request(b"TRACE /a HTTP/1.1", LAST, *lines))
    assert answered is not None
    return answered[1]


class LastHopTests(TestCase):
    def test_trace(self) -> None:
        """The last hop of a TRACE sends the request's head back, as message/http."""
        head = request(b"TRACE /a?b=%2F HTTP/1.1", LAST, b"accept:  */* ", b"X-Twice: 1", b"X-Twice: 2", b"Via: 1.1 a")
        answered = answer_last_hop(head)
        assert answered is not None
        self.assertEqual(
            answered[1],
            b"TRACE /a?b=%2F HTTP/1.1\r\nHost: shop.example:8080\r\nMax-Forwards: 0\r\naccept: */*\r\n"
            b"X-Twice: 1\r\nX-Twice: 2\r\nVia: 1.1 a\r\n\r\n",
        )
        self.assertEqual(
            answered[0].wire,
            b"HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: %d\r\n" % len(answered[1]),
        )

    def test_trace_is_a_request(self) -> None:
        """What comes back is a request that another parser reads as the one that was sent."""
        reader = h11.Connection(h11.SERVER)
        reader.receive_data(trace(b"Accept: text/plain", b"Content-Length: 0"))
        event = reader.next_event()
        assert isinstance(event, h11.Request)
        self.assertEqual((event.method, event.target), (b"TRACE", b"/a"))
        self.assertEqual([name for name, _ in event.headers], [b"host", b"max-forwards", b"accept"])
        self.assertIsInstance(reader.next_event(), h11.EndOfMessage)

    def test_old_version(self) -> None:
        """The version is the client's, and a Host that it did not send is not made up."""
        head = read_requests([b"TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n"]).messages[0].head
        assert isinstance(head, RequestHead)
        self.assertEqual(reflect(head), b"TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")

    def test_secrets_do_not_come_back(self) -> None:
        """Fields that are likely to be secret are not shown to whoever made a client send the TRACE."""
        found = trace(
            b"Authorization: Basic hidden",
            b"Cookie: sid=hidden",
            b"cookie2: hidden",
            b"Proxy-Authorization: Basic hidden",
            b"Proxy-Anything: hidden",
            b"X-Api-Key: hidden",
            b"X-CSRF-Token: hidden",
            b"X-Auth-User: hidden",
            b"X-Amz-Security-Token: hidden",
            b"X-Session-Id: hidden",
            b"X-SSL-Client-Cert: hidden",
            b"Signature: hidden",
            b"X-Password: hidden",
            b"Accept: shown",
        )
        self.assertEqual(found.count(b"\r\n"), 5, found)
        self.assertNotIn(b"hidden", found)
        self.assertIn(b"Accept: shown\r\n", found)

    def test_what_is_not_passed_on_does_not_come_back(self) -> None:
        """Neither what strangers say about the client nor what concerns one connection is in the reflection."""
        found = trace(
            b"X-Forwarded-For: 10.0.0.1",
            b"Forwarded: for=10.0.0.1",
            b"X-Real-IP: 10.0.0.1",
            b"True-Client-IP: 10.0.0.1",
            b"Connection: x-hop, keep-alive",
            b"X-Hop: 10.0.0.1",
            b"Keep-Alive: 10",
            b"TE: trailers",
        )
        self.assertEqual(found, b"TRACE /a HTTP/1.1\r\nHost: shop.example:8080\r\nMax-Forwards: 0\r\n\r\n")

    def test_options(self) -> None:
        """The last hop of an OPTIONS says which methods there are, and has no content."""
        for line in (b"OPTIONS * HTTP/1.1", b"OPTIONS /a HTTP/1.1", b"OPTIONS http://shop.example:8080 HTTP/1.1"):
            answered = answer_last_hop(request(line, LAST))
            assert answered is not None
            head, content = answered
            self.assertEqual((head.status, head.section.body, content), (200, 0, b""))
            status, allow, length, end = head.wire.split(b"\r\n")
            self.assertEqual((status, length, end), (b"HTTP/1.1 200 OK", b"Content-Length: 0", b""))
            name, _, methods = allow.partition(b": ")
            self.assertEqual((name, set(methods.split(b", "))), (b"Allow", METHODS))

    def test_goes_on(self) -> None:
        """A request that may go further, or whose method is not counted, is not answered here."""
        for line in (b"TRACE /a HTTP/1.1", b"OPTIONS /a HTTP/1.1", b"OPTIONS * HTTP/1.1"):
            self.assertIsNone(answer_last_hop(request(line)))
            for value in (b"1", b"01", b"10", b"9" * 5000):
                self.assertIsNone(answer_last_hop(request(line, b"Max-Forwards: " + value)), value[:5])
        for method in METHODS - {b"TRACE", b"OPTIONS"}:
            self.assertIsNone(answer_last_hop(request(method + b" /a HTTP/1.1", LAST)), method)

    def test_no_number(self) -> None:
        """A limit that is no decimal number is as none."""
        for value in (b"", b"-0", b"+0", b"0x0", b"0.0", b"0 0", b"0, 0", b'"0"', b"none", b"\xb2", b"\xd9\xa0"):
            head = request(b"TRACE /a HTTP/1.1", b"Max-Forwards: " + value)
            self.assertIsNone(answer_last_hop(head), value)
            lines = b"A: b\r\nMax-Forwards: %b\r\nC: d\r\n" % value
            self.assertEqual(decremented(lines), lines)

    def test_other_spellings(self) -> None:
        """Names have no case, and zeros before a number do not make it another one."""
        for line in (b"max-forwards: 0", b"MAX-FORWARDS:0", b"Max-Forwards: 000", b"Max-Forwards:\t" + b"0" * 5000):
            self.assertIsNotNone(answer_last_hop(request(b"TRACE /a HTTP/1.1", line)), line[:20])

    def test_twice(self) -> None:
        """Where two limits are given, the request stops at whichever is used up first."""
        for first, second in ((b"0", b"5"), (b"5", b"0"), (b"nonsense", b"0")):
            head = request(b"OPTIONS * HTTP/1.1", b"Max-Forwards: " + first, b"Max-Forwards: " + second)
            self.assertIsNotNone(answer_last_hop(head))
        self.assertEqual(
            decremented(b"Max-Forwards: 9\r\nmax-forwards: 5\r\n"), b"Max-Forwards: 8\r\nmax-forwards: 4\r\n"
        )


class DecrementTests(TestCase):
    def test_values(self) -> None:
        """One less; never below 0, and never more than is supported, however long the number is."""
        for value, after in (
            (b"1", b"0"),
            (b"0", b"0"),
            (b"00", b"0"),
            (b"10", b"9"),
            (b"007", b"6"),
            (b"%d" % MOST_HOPS, b"%d" % (MOST_HOPS - 1)),
            (b"%d" % (MOST_HOPS + 1), b"%d" % MOST_HOPS),
            (b"%d" % (MOST_HOPS + 2), b"%d" % MOST_HOPS),
            (b"9" * 30_000, b"%d" % MOST_HOPS),
            (b"0" * 30_000 + b"3", b"2"),
        ):
            self.assertEqual(decremented(b"Max-Forwards: %b\r\n" % value), b"Max-Forwards: %b\r\n" % after, value[:20])

    def test_only_its_own_line(self) -> None:
        """The line is found wherever it stands, and nothing that only looks like it is touched."""
        others = b"X-Max-Forwards: 5\r\nMax-Forwards-X: 5\r\nVia: Max-Forwards: 5\r\nMax_Forwards: 5\r\nA: 5\r\n"
        self.assertEqual(decremented(others), others)
        for before, after in ((b"", others), (others, b""), (others, others)):
            self.assertEqual(
                decremented(before + b"max-Forwards: 5\r\n" + after), before + b"max-Forwards: 4\r\n" + after
            )
        self.assertEqual(decremented(b""), b"")

    @given(st.lists(st.tuples(st.sampled_from([b"Host", b"Max-Forwards", b"max-forwards", b"X"]), st.binary())))
    @example([(b"Max-Forwards", b"0"), (b"Max-Forwards", b"1" * 5000)])
    @example([(b"Max-Forwards", b"12"), (b"X", b"Max-Forwards: 3")])
    def test_any_lines(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Whatever the values, each line stays one line in its place, and only limits change, to a smaller number."""
        allowed = bytes([*range(0x20, 0x7F), *range(0x80, 0x100)])
        kept = [(name, bytes(b for b in value if b in allowed).strip()) for name, value in fields]
        before = [b"%b: %b\r\n" % field for field in kept]
        after = decremented(b"".join(before))
        self.assertEqual(after.count(b"\r\n"), len(before))
        for (name, value), old, new in zip(kept, before, after.split(b"\r\n"), strict=False):
            if name.lower() == b"max-forwards" and value.isdigit():
                was = int(value[-20:]) if len(value.lstrip(b"0")) <= 20 else MOST_HOPS + 1
                self.assertEqual(new, b"%b: %d" % (name, max(min(was - 1, MOST_HOPS), 0)))
            else:
                self.assertEqual(new + b"\r\n", old)
