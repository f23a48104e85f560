"""What a backend is told: the client's request in normal form, and who the client is."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.http.forwarding import authority
from lbsvc.http.forwarding import request_head as forward
from lbsvc.http.identity import Trust
from lbsvc.http.messages import RequestHead
from tests.http.corpus import chunks, get, post
from tests.http.recording import read_requests

BACKEND = Backend("p", "b", "10.0.0.1:81", "10.0.0.1", 81)
WHO = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"


class Connection:
    """As much of a client's connection as forwarding looks at."""

    scheme = b"http"
    identity_lines = b""

    def __init__(self, forwarded: str = "x-forwarded", peer: str = "192.0.2.1") -> None:
        self.peer = peer
        self.site = self
        self.trust = Trust((), forwarded)


def request_head(head: RequestHead, connection: Connection, backend: Backend) -> bytes:
    return forward(head, connection, backend, None)  # type: ignore[arg-type]


def heads(*streams: bytes) -> list[RequestHead]:
    told = read_requests(streams)
    assert told.refusal is None
    return [message.head for message in told.messages if isinstance(message.head, RequestHead)]


CLIENT = Connection()


def wire(stream: bytes, connection: Connection = CLIENT) -> bytes:
    return request_head(heads(stream)[0], connection, BACKEND)


class HeadTests(TestCase):
    def test_whole(self) -> None:
        """Request line and Host first, then the client's lines as they came, then ours."""
        self.assertEqual(
            wire(get(b"User-Agent: x", b"aCCept: a", b"ACCEPT: b", line=b"GET /%7Ea?b HTTP/1.1")),
            b"GET /%7Ea?b HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\naCCept: a\r\nACCEPT: b\r\n"
            + WHO
            + b"X-Forwarded-Host: a.example\r\nVia: 1.1 lbsvc\r\nX-Request-Id: ",
        )

    def test_what_strangers_say(self) -> None:
        """What a stranger says about itself is replaced by what we know, and is there once."""
        found = wire(get(b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Host: evil", b"X-Request-Id: 6", b"X-Real-IP: 6"))
        self.assertNotIn(b"6.6", found)
        self.assertNotIn(b"evil", found)
        for name in (b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Request-Id", b"X-Real-IP"):
            self.assertEqual(found.count(name), 1, name)

    def test_connection_cannot_name_ours(self) -> None:
        """A client cannot have our own lines removed by naming them in Connection."""
        found = wire(get(b"Connection: X-Forwarded-For, X-Request-Id, Via, Host"))
        self.assertIn(WHO, found)
        self.assertIn(b"\r\nHost: a.example\r\n", found)
        self.assertIn(b"\r\nVia: 1.1 lbsvc\r\n", found)

    def test_bodies(self) -> None:
        """A body is announced as it came: sized, or in chunks, never both."""
        self.assertEqual(wire(post(b"Content-Length: 2", body=b"ab")).count(b"Content-Length: 2\r\n"), 1)
        found = wire(chunks(b"0\r\n\r\n"))
        self.assertEqual((found.count(b"Transfer-Encoding: chunked\r\n"), found.count(b"Length")), (1, 0))
        self.assertNotIn(b"Length", wire(get()))

    def test_via(self) -> None:
        """Via says which version the client spoke, behind the Via that came."""
        found = wire(get(b"Via: 1.0 fred", line=b"GET / HTTP/1.0"))
        self.assertLess(found.index(b"Via: 1.0 fred\r\n"), found.index(b"Via: 1.0 lbsvc\r\n"))
        self.assertTrue(found.startswith(b"GET / HTTP/1.1\r\n"))

    def test_absolute_form(self) -> None:
        """An absolute-form target goes on in origin-form, with its authority as Host."""
        self.assertTrue(
            wire(get(line=b"GET http://a.example/x HTTP/1.1")).startswith(b"GET /x HTTP/1.1\r\nHost: a.example\r\n")
        )
        self.assertTrue(
            wire(b"GET http://b.example:81?y HTTP/1.0\r\n\r\n").startswith(
                b"GET /?y HTTP/1.1\r\nHost: b.example:81\r\n"
            )
        )

    def test_no_host(self) -> None:
        """For a client that named no host the backend's own is put in, each time anew."""
        head = heads(b"GET / HTTP/1.0\r\n\r\n")[0]
        other = Backend("p", "c", "x", "2001:db8::1", 82)
        self.assertIn(b"\r\nHost: 10.0.0.1:81\r\n", request_head(head, CLIENT, BACKEND))
        found = request_head(head, CLIENT, other)
        self.assertIn(b"\r\nHost: [2001:db8::1]:82\r\n", found)
        self.assertNotIn(b"X-Forwarded-Host", found)

    def test_off(self) -> None:
        """With `forwarded: off` nothing is said about the client, and what it says is still dropped."""
        self.assertNotIn(b"X-Forwarded", wire(get(b"X-Forwarded-For: 1"), Connection("off")))

    def test_hops(self) -> None:
        """Max-Forwards of TRACE and OPTIONS is one less behind us; for other methods it means nothing."""
        for method, left in ((b"TRACE", b"4"), (b"OPTIONS", b"4"), (b"GET", b"5")):
            found = wire(get(b"Max-Forwards: 5", line=method + b" / HTTP/1.1"))
            self.assertIn(b"\r\nMax-Forwards: %b\r\n" % left, found)

    def test_authority(self) -> None:
        """A backend's own name is its host and port, IPv6 in brackets."""
        self.assertEqual(authority(BACKEND), b"10.0.0.1:81")
        self.assertEqual(authority(Backend("p", "b", "x", "::1", 80)), b"[::1]:80")
        self.assertEqual(authority(Backend("p", "b", "unix:x", "/run/x", 0)), b"localhost")


class MemoryTests(TestCase):
    def test_each_request_has_its_own_line(self) -> None:
        """Requests whose fields are the same bytes share their text but not their request line."""
        found = [
            request_head(head, CLIENT, BACKEND)
            for head in heads(*(get(b"A: b", line=line + b" HTTP/1.1") for line in (b"GET /1", b"HEAD /2", b"GET /1")))
        ]
        tails = {text.partition(b"\r\n")[2] for text in found}
        self.assertEqual([text.partition(b"\r\n")[0][:-9] for text in found], [b"GET /1", b"HEAD /2", b"GET /1"])
        self.assertEqual(len(tails), 1)

    def test_versions_do_not_share(self) -> None:
        """The same fields in another version say so in Via."""
        found = [
            request_head(head, CLIENT, BACKEND)
            for head in heads(*(get(b"A: b", line=b"GET / HTTP/1." + minor) for minor in (b"1", b"0", b"1")))
        ]
        self.assertEqual([b"Via: 1.0" in text for text in found], [False, True, False])

    def test_the_second_time_is_the_first(self) -> None:
        """What is remembered on a head is what was made of it."""
        head = heads(get(b"A: b"))[0]
        first = request_head(head, CLIENT, BACKEND)
        self.assertEqual((head.forward, request_head(head, CLIENT, BACKEND)), (first, first))
