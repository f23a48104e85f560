"""Answers of our own: their framing, the two forms of errors, and redirections that lead where they should."""

from __future__ import annotations

import json

import h11
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Redirect, Respond
from lbsvc.errors import REASONS, ProtocolViolation
from lbsvc.http.messages import RequestHead, ResponseHead, Section
from lbsvc.http.responses import PHRASES, error, fixed, make_head, prefers_json, redirect
from tests.http.corpus import get
from tests.http.recording import read_requests


def request(*lines: bytes) -> RequestHead:
    head = read_requests([get(*lines)]).messages[0].head
    assert isinstance(head, RequestHead)
    return head


def lines_of(head: ResponseHead) -> list[bytes]:
    return head.wire.split(b"\r\n")[:-1]


def asking(target: bytes, host: bytes | None = b"a.example:8080") -> RequestHead:
    return RequestHead(b"GET", target, 1 if host else 0, host, Section())


def location(
    to: str, prefix: str | None, target: bytes, host: bytes | None = b"a.example:8080", scheme: bytes = b"http"
) -> bytes:
    head, body = redirect(Redirect(to), prefix, asking(target, host), scheme)
    assert body == b""
    line, end = lines_of(head)[1:]
    assert line.startswith(b"Location: ") and end == b"Content-Length: 0"
    return line[10:]


class HeadTests(TestCase):
    def test_framing(self) -> None:
        """An answer of ours says its length, but where its status forbids one."""
        self.assertEqual(lines_of(make_head(200, [("A", "b")], 3)), [b"HTTP/1.1 200 OK", b"A: b", b"Content-Length: 3"])
        for status in (204, 304):
            self.assertNotIn(b"Content-Length", make_head(status, [], 0).wire)

    def test_fields(self) -> None:
        """A head of ours has its fields one by one too, as a head that was read has."""
        section = make_head(200, [("A", "b"), ("Date", "x")], 3).section
        self.assertEqual(
            [field[:3] for field in section.fields], [(b"a", b"b", b"A: b\r\n"), (b"date", b"x", b"Date: x\r\n")]
        )
        self.assertEqual(section.get(b"a"), b"b")

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

    def test_retry_after(self) -> None:
        """Whoever is to come back is told when, in seconds; a 503 always says so."""
        for status, seconds, line in (
            *(
                (429, 1, b"Retry-After: 1"),
                (429, 30, b"Retry-After: 30"),
                (503, 0, b"Retry-After: 1"),
                (503, 5, b"Retry-After: 5"),
            ),
            *((429, 0, None), (403, 0, None), (504, 0, None)),
        ):
            found = [
                line for line in lines_of(error(status, "x", b"1", None, retry_after=seconds)[0]) if b"Retry" in line
            ]
            self.assertEqual(found, [line] if line else [])

    def test_words_of_routes(self) -> None:
        """What routes and limits refuse is explained each in its own words."""
        texts = {
            error(400, reason, b"1", None)[1] for reason in ("denied", "fault", "rate_limited", "deadline", "other")
        }
        self.assertEqual(len({text.split(b"\n")[1] for text in texts}), 5)

    def test_every_reason(self) -> None:
        """Every reason that has a status gives an answer that h11 reads as one whole answer."""
        for reason, status in REASONS.items():
            if status in (0, 499):
                continue
            head, body = error(status, reason, b"1", None, retry_after=7)
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
            lines = [b"Accept: " + accept] if accept is not None else []
            self.assertEqual(prefers_json(request(*lines).section), expected, accept)

    def test_preference_in_parts(self) -> None:
        """Several Accept fields are one list; without a request there is no preference."""
        for lines, expected in (
            ((b"Accept: text/plain;q=0.5", b"X: y", b"accept: application/json"), True),
            ((b"Accept: application/json", b"Accept: text/html"), False),
            ((b"Accept: application/json;q=0.5", b"Accept: text/html;q=0.4", b"Accept:"), True),
            ((b"Accept: " + b"a/b," * 300, b"Accept: application/json"), False),
        ):
            self.assertEqual(prefers_json(request(*lines).section), expected, lines)
        self.assertFalse(prefers_json(None))


class RedirectTests(TestCase):
    def test_whole(self) -> None:
        """Without a star the target is what the configuration says, whatever was asked for, with its status."""
        self.assertEqual(location("https://a/x", "/old/", b"/old/y?z"), b"https://a/x")
        head, _ = redirect(Redirect("/a"), None, asking(b"/"), b"http")
        self.assertTrue(head.wire.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n"))
        self.assertIn(b"Content-Length: 0", lines_of(head))
        self.assertIn(b"302 Found", redirect(Redirect("/a", 302), None, asking(b"/"), b"http")[0].wire)
        for to in ("https://a", "https://a/", "https://a?b", "https://a/#c", "//cdn.example/x", "https://a//x", "/"):
            self.assertEqual(location(to, None, b"/x"), to.encode())

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

    def test_rest_means_the_same(self) -> None:
        """What the star carries on leads to where the path behind the prefix leads, and not out of there."""
        for target, rest in (
            (b"/old/a/../b", b"a/../b"),
            (b"/old/../old/x", b"x"),
            (b"/old/a/../../old/x", b"x"),
            (b"/old/%2e/x", b"x"),
            (b"/older", b""),
            (b"/old/..%2fx", b""),
        ):
            self.assertEqual(location("https://a/new/*", "/old/", target), b"https://a/new/" + rest, target)

    def test_words(self) -> None:
        """A target may be a template of the request's parts, which are filled in as they came."""
        for to, expected in (
            ("https://{host}{uri}", b"https://a.example/x/y%2f?b=c?d"),
            ("https://{host}:8443{path}", b"https://a.example:8443/x/y%2f"),
            ("{scheme}://www.{host}/in{uri}&e", b"http://www.a.example/in/x/y%2f?b=c?d&e"),
            ("https://b.example{uri}", b"https://b.example/x/y%2f?b=c?d"),
            ("https://b.example/{path}", b"https://b.example/x/y%2f"),
            ("/see{path}?from={host}&{query}", b"/see/x/y%2f?from=a.example&b=c?d"),
            ("/see/{uri}", b"/see/x/y%2f?b=c?d"),
            ("{path}", b"/x/y%2f"),
            ("//b.example{path}", b"//b.example/x/y%2f"),
            ("https://{host}/new/*", b"https://a.example/new/y%2f?b=c?d"),
            ("https://a/*/b", b"https://a/*/b"),
            ("https://a/{word}/{HOST}", b"https://a/{word}/{HOST}"),
        ):
            self.assertEqual(location(to, "/x/", b"/x/y%2f?b=c?d"), expected, to)

    def test_queries(self) -> None:
        """{query} is empty without a query, and {uri} has a mark where there was one."""
        for target, query, uri in (
            (b"/a", b"", b"/a"),
            (b"/a?", b"", b"/a?"),
            (b"/a?b", b"b", b"/a?b"),
            (b"*", b"", b"/"),
        ):
            self.assertEqual(location("https://a/?q={query}", None, target), b"https://a/?q=" + query)
            self.assertEqual(location("https://a{uri}", None, target), b"https://a" + uri)

    def test_hosts(self) -> None:
        """{host} is the host without its port, whatever it is; a request that names none is refused."""
        for asked, host in (
            *(
                (b"b", b"b"),
                (b"B.Example.:81", b"B.Example."),
                (b"b:", b"b"),
                (b"[::1]:8080", b"[::1]"),
                (b"[::1]", b"[::1]"),
            ),
            (b"192.0.2.1:80", b"192.0.2.1"),
        ):
            self.assertEqual(location("https://{host}/", None, b"/", asked), b"https://%b/" % host)
        for to in ("https://{host}/", "/from/{host}"):
            with self.assertRaises(ProtocolViolation) as caught:
                location(to, None, b"/", None)
            self.assertEqual((caught.exception.status, caught.exception.reason), (400, "bad_request"))
        self.assertEqual(location("{scheme}://a{uri}?{query}", None, b"/x", None, b"https"), b"https://a/x?")

    def test_words_of_the_client(self) -> None:
        """What looks like one of our words in a path or query is the client's, and stays."""
        self.assertEqual(
            location("https://a{path}?{query}", None, b"/{host}*?{path}{uri}*"), b"https://a/{host}*?{path}{uri}*"
        )
        self.assertEqual(location("/*", "/", b"/{host}?{query}*"), b"/{host}?{query}*")

    def test_words_without_a_place(self) -> None:
        """Words that are put where a host would stand lead behind a slash."""
        for to, expected in (
            ("https://a{query}", b"https://a/@evil.example"),
            ("https://{query}", b"/https://@evil.example"),
            ("{query}", b"/@evil.example"),
            ("//{query}", b"/@evil.example"),
            ("//{path}", b"/x"),
            ("{scheme}:{query}", b"/http:@evil.example"),
            ("https://a*", b"https://a/x?@evil.example"),
            ("https://a.{path}", b"https://a./x"),
        ):
            self.assertEqual(location(to, None, b"/x?@evil.example"), expected, to)

    def test_no_other_host(self) -> None:
        """What was asked for cannot lead to another host."""
        for target, found in (
            (b"//evil.example/", b"/evil.example/"),
            (b"/old//evil.example/", b"/evil.example/"),
            (b"/old/\\/evil.example", b"/"),
            (b"/old/\\\\evil.example", b"/"),
            (b"/old///?a", b"/?a"),
            (b"/old/.//evil.example", b"/evil.example"),
            (b"/old/%2E//evil.example", b"/evil.example"),
            (b"/old/a/..//evil.example", b"/a/..//evil.example"),
        ):
            prefix = "/old/" if target.startswith(b"/old") else None
            for to in ("/*", "//*", "*"):
                self.assertEqual(location(to, prefix, target), found, target)

    def test_no_other_host_by_words(self) -> None:
        """Nor by way of the words, whatever stands before them."""
        for target, found in (
            (b"//evil.example/", b"/evil.example/"),
            (b"///evil.example", b"/evil.example"),
            (b"/\\evil.example", b"/"),
            (b"/.//evil.example", b"/evil.example"),
            (b"/./\\evil.example", b"/"),
        ):
            for to in ("{path}", "/{path}", "{uri}", "/{uri}", "//{uri}"):
                self.assertEqual(location(to, None, target), found, (to, target))
            self.assertEqual(location("https://{host}{uri}", None, target), b"https://a.example" + found)
        for query in (b"/evil.example", b"//evil.example", b"\\evil.example", b"\\/evil.example"):
            for to in ("{query}", "/{query}"):
                self.assertEqual(location(to, None, b"/?" + query), b"/evil.example", query)
