"""Answers of our own: their framing, the two forms of errors, and redirections that lead where they should."""

from __future__ import annotations

import json

import h11
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Redirect, Respond
from lbsvc.errors import REASONS
from lbsvc.http.messages import RequestHead, ResponseHead
from lbsvc.http.responses import PHRASES, error, fixed, make_head, prefers_json, redirect
from tests.http.corpus import get
from tests.http.recording import read_requests


def request(*lines: bytes) -> RequestHead:
    head = read_requests([get(*lines)]).messages[0].head
    assert isinstance(head, RequestHead)
    return head


def lines_of(head: ResponseHead) -> list[bytes]:
    return head.wire.split(b"\r\n")[:-1]


def location(to: str, prefix: str | None, target: bytes) -> bytes:
    head, body = redirect(Redirect(to), prefix, target)
    assert body == b""
    return next(line for line in lines_of(head) if line.startswith(b"Location: "))[10:]


class HeadTests(TestCase):
    def test_framing(self) -> None:
        """An answer of ours says its length, but where its status forbids one."""
        self.assertEqual(lines_of(make_head(200, [("A", "b")], 3)), [b"HTTP/1.1 200 OK", b"A: b", b"Content-Length: 3"])
        for status in (204, 304):
            self.assertNotIn(b"Content-Length", make_head(status, [], 0).wire)

    def test_dates(self) -> None:
        """A Date that the configuration gives is noticed, so that no second one is added."""
        self.assertTrue(make_head(200, [("date", "x")], 0).section.has_date)
        self.assertFalse(make_head(200, [], 0).section.has_date)

    def test_phrases(self) -> None:
        """Every status that we send by ourselves has its phrase of RFC 9110, in one line."""
        statuses = {status for status in REASONS.values() if status not in (0, 499)} | {400, 414, 417, 431, 501, 505}
        for status in sorted(statuses):
            self.assertRegex(PHRASES[status], rb"\A[A-Z][A-Za-z' -]+\Z")
        self.assertEqual((PHRASES[413], PHRASES[414]), (b"Content Too Large", b"URI Too Long"))
        self.assertIn(b"HTTP/1.1 299 ", make_head(299, [], 0).wire)

    def test_fixed(self) -> None:
        """A `respond` route answers its body, as text unless it says otherwise, and none with 204 and 304."""
        head, body = fixed(Respond(200, "grüezi"))
        self.assertEqual(body, "grüezi".encode())
        self.assertEqual(lines_of(head)[1:], [b"Content-Type: text/plain; charset=utf-8", b"Content-Length: 7"])
        head, body = fixed(Respond(200, "{}", (("content-type", "application/json"),)))
        self.assertEqual(lines_of(head)[1:], [b"content-type: application/json", b"Content-Length: 2"])
        head, body = fixed(Respond(304, "x"))
        self.assertEqual((lines_of(head), body), ([b"HTTP/1.1 304 Not Modified"], b""))


class ErrorTests(TestCase):
    def test_text(self) -> None:
        """An error is text: status, reason word and request id, and a line of explanation."""
        head, body = error(503, "no_backend", b"4f1c", request())
        first, second, rest = body.decode().split("\n")
        self.assertEqual((first, rest), ("503 no_backend 4f1c", ""))
        self.assertTrue(second.endswith("."))
        self.assertIn(b"Content-Type: text/plain; charset=utf-8", lines_of(head))
        self.assertIn(b"Retry-After: 1", lines_of(head))

    def test_json(self) -> None:
        """Where the client prefers it an error is JSON with the same words."""
        head, body = error(404, "no_route", b"4f1c", request(b"Accept: application/json"))
        found = json.loads(body)
        self.assertEqual(set(found), {"status", "reason", "request_id", "message"})
        self.assertEqual((found["status"], found["reason"], found["request_id"]), (404, "no_route", "4f1c"))
        self.assertIn(b"Content-Type: application/json", lines_of(head))
        self.assertNotIn(b"Retry-After: 1", lines_of(head))

    def test_no_request(self) -> None:
        """A request that could not be read is answered in text."""
        self.assertTrue(error(400, "bad_request", b"1", None, "two Host fields")[1].endswith(b": two Host fields.\n"))

    def test_every_reason(self) -> None:
        """Every reason that has a status gives an answer that h11 reads as one whole answer."""
        for reason, status in REASONS.items():
            if status in (0, 499):
                continue
            head, body = error(status, reason, b"1", None, retry_after=True)
            reader = h11.Connection(h11.CLIENT)
            reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
            reader.send(h11.EndOfMessage())
            reader.receive_data(head.wire + b"\r\n" + body)
            answer, content, end = (reader.next_event() for _ in range(3))
            assert isinstance(answer, h11.Response) and isinstance(content, h11.Data)
            self.assertEqual(
                (answer.status_code, bytes(content.data), type(end)), (status, body, h11.EndOfMessage), reason
            )

    def test_preference(self) -> None:
        """JSON is preferred where it is named with more weight than text, or where text is only covered by a wildcard."""
        for accept, expected in (
            *((b"application/json", True), (b"application/problem+json", True), (b"APPLICATION/JSON", True)),
            *(
                (b"application/json, */*", True),
                (b"application/json, */*;q=0.5", True),
                (b"text/*;q=0.5,application/json", True),
            ),
            *((b"text/plain;q=0.5, application/json;q=0.6", True), (b"application/json;charset=utf-8", True)),
            *((None, False), (b"", False), (b"*/*", False), (b"text/html", False), (b"application/*", False)),
            *((b"application/json, text/plain, */*", False), (b"application/json;q=0.5, */*", False)),
            *((b"application/json;q=0", False), (b"application/json;q=0.000, text/plain;q=0", False)),
            *((b"application/json;q=x", False), (b"application/json;q=nan", False), (b"application/json;q=-1", False)),
            *((b"application/jsonp", False), (b"application/json;q=inf, text/plain", False), (b",;,json,;q=", False)),
        ):
            self.assertEqual(prefers_json(accept), expected, accept)


class RedirectTests(TestCase):
    def test_whole(self) -> None:
        """Without a star the target is what the configuration says, whatever was asked for, with its status."""
        self.assertEqual(location("https://a/x", "/old/", b"/old/y?z"), b"https://a/x")
        self.assertTrue(redirect(Redirect("/a"), None, b"/")[0].wire.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n"))
        self.assertIn(b"Content-Length: 0", lines_of(redirect(Redirect("/a"), None, b"/")[0]))

    def test_rest(self) -> None:
        """The star stands for what the route's prefix left of the path, query included, as it came."""
        for prefix, target, rest in (
            ("/old/", b"/old/x/y%20z?a=b?c", b"x/y%20z?a=b?c"),
            ("/old/", b"/old/", b""),
            ("/old/", b"/old", b""),
            ("/old/", b"/old?a", b"?a"),
            ("/old/", b"/%6fld/x", b"x"),
            ("/old/", b"//old/x", b"x"),
            ("/", b"/x", b"x"),
            (None, b"/x/y?z", b"x/y?z"),
            (None, b"*", b""),
        ):
            self.assertEqual(location("https://a/new/*", prefix, target), b"https://a/new/" + rest, (prefix, target))

    def test_no_other_host(self) -> None:
        """What was asked for cannot lead to another host."""
        for target, found in (
            (b"//evil.example/", b"/evil.example/"),
            (b"/old//evil.example/", b"/evil.example/"),
            (b"/old/\\/evil.example", b"/evil.example"),
            (b"/old/\\\\evil.example", b"/evil.example"),
            (b"/old///?a", b"/?a"),
        ):
            prefix = "/old/" if target.startswith(b"/old") else None
            self.assertEqual(location("/*", prefix, target), found, target)
