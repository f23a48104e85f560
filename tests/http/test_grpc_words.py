"""The words of gRPC: what is a call, timeouts, codes and messages."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.errors import REASONS
from lbsvc.http.exchange import Exchange
from lbsvc.http.grpc import Call, code_for, error_head, exchange_for, is_call, read_status, read_timeout, status_in
from lbsvc.http.h2_heads import H2RequestHead
from lbsvc.http.messages import RequestHead, ResponseHead, Section
from lbsvc.http.responses import make_head
from tests.http.road import Road


def request(
    method: bytes = b"POST", kind: bytes | None = b"application/grpc", head: type[RequestHead] = H2RequestHead
) -> RequestHead:
    section = Section()
    if kind is not None:
        section.fields = [(b"content-type", kind, b"Content-Type: %b\r\n" % kind, 0)]
    return head(method, b"/a/b", 1, b"a", section)


class WordTests(TestCase):
    def test_calls(self) -> None:
        """A POST of HTTP/2 whose content is that of gRPC; grpc-web and look-alikes are none."""
        for kind in (
            b"application/grpc",
            b"Application/GRPC+proto",
            b"application/grpc;a=b",
            b"application/grpc ; a=b",
        ):
            self.assertTrue(is_call(request(kind=kind)), kind)
        for other in (
            None,
            b"",
            b"text/plain",
            b"application/grpc-web",
            b"application/grpc-web+proto",
            b"application/grpcx",
        ):
            self.assertFalse(is_call(request(kind=other)), other)
        self.assertFalse(is_call(request(b"GET")))
        self.assertFalse(is_call(request(head=RequestHead)))

    def test_timeouts(self) -> None:
        """Up to eight digits and a unit; what is none says nothing."""
        for said, seconds in {
            b"1H": 3600.0, b"2M": 120.0, b"3S": 3.0, b"400m": 0.4, b"5u": 5e-6, b"6n": 6e-9, b"0S": 0.0,
            b"99999999H": 99999999 * 3600.0,
        }.items():  # fmt: skip
            self.assertEqual(read_timeout(said), seconds, said)
        for none in (b"", b"1", b"S", b"-1S", b"1s", b"1.5S", b"100000000S", b" 1S", b"1S\n", "\u0661S".encode()):
            self.assertIsNone(read_timeout(none), none)

    def test_statuses(self) -> None:
        """A code is a number of gRPC; any other is UNKNOWN, and none is none."""
        self.assertEqual([read_status(b"%d" % code) for code in range(17)], list(range(17)))
        for strange in (b"", b"17", b"-1", b"x", b"0x1", b"999999999999999999999999", "\u0663".encode()):
            self.assertEqual(read_status(strange), 2, strange)
        self.assertIsNone(read_status(None))
        self.assertEqual(status_in(b"grpc-message: a\r\nGrpc-Status:  5 \r\nx: y\r\n"), 5)
        self.assertIsNone(status_in(b"x-grpc-status: 5\r\n"))

    @given(st.binary(max_size=40))
    def test_any_bytes(self, raw: bytes) -> None:
        """Nothing that a peer says raises, or becomes a code that there is not."""
        self.assertIn(read_status(raw), range(17))
        self.assertIn(status_in(raw), (None, *range(17)))
        self.assertGreaterEqual(read_timeout(raw) or 0.0, 0.0)

    def test_codes(self) -> None:
        """Every reason of ours has a code, which is never OK; the table of gRPC holds but for deadlines and limits."""
        for reason, status in REASONS.items():
            self.assertIn(code_for(status, reason), range(1, 17), reason)
        self.assertEqual(
            {status: code_for(status, "") for status in (400, 401, 403, 404, 413, 429, 502, 503, 504, 418)},
            {400: 13, 401: 16, 403: 7, 404: 12, 413: 8, 429: 8, 502: 14, 503: 14, 504: 14, 418: 2},
        )
        self.assertEqual(
            [code_for(504, reason) for reason in ("deadline", "connect_timeout", "upstream_timeout")], [4, 14, 4]
        )

    def test_messages(self) -> None:
        """The words are percent-encoded: nothing else than visible ASCII and spaces is in them."""
        message = error_head(13, "bad_request", "100% \u00e9\r\n").section.get(b"grpc-message")
        self.assertEqual(message, b"bad_request: The request breaks the rules of HTTP: 100%25 %C3%A9%0D%0A.")

    def test_kinds(self) -> None:
        """A call is an exchange of its own kind, and costs others nothing."""
        with Recorded() as road:
            server: Any = road.client().server
            self.assertIs(type(exchange_for(server, request(), 0.0)), Call)
            self.assertIs(type(exchange_for(server, request(kind=b"text/plain"), 0.0)), Exchange)


class Recorded:
    """A road for a moment."""

    def __enter__(self) -> Road:
        self.road = Road()
        return self.road

    def __exit__(self, *ignored: object) -> None:
        self.road.close()


class OwnTests(TestCase):
    def test_head(self) -> None:
        """The head of ours has no length, since no content belongs to it."""
        head: ResponseHead = error_head(14, "no_backend")
        self.assertLess(head.section.body, 0)
        self.assertEqual(make_head(200, [], 0).section.body, 0)
