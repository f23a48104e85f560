"""The client of the admin interface: whatever answers, a plain value or one of its errors, and never for ever."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lbsvc.ctl.client import Client, Failed, Place, Refused, Unreachable, check_token, parse_place, server_sent
from lbsvc.ctl.session import clean
from tests.kit.processes import free_port
from tests.kit.upstreams import Close, ReadToEnd, RecordingBackend, Request, Send, Step, response


class Pieces:
    """An answer whose body comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def read1(self, size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


class PlaceTests(SynchronousTestCase):
    def test_right(self) -> None:
        """A URL, host and port, or a unix socket."""
        for text, host, port, is_secure in (
            ("http://127.0.0.1:9901", "127.0.0.1", 9901, False),
            ("http://127.0.0.1:9901/", "127.0.0.1", 9901, False),
            ("lb.example:9901", "lb.example", 9901, False),
            ("http://[::1]:9901", "::1", 9901, False),
            ("https://lb.example", "lb.example", 443, True),
            ("unix:/run/admin.sock", "/run/admin.sock", 0, False),
            ("unix:run/admin.sock", "run/admin.sock", 0, False),
        ):
            self.assertEqual(parse_place(text), Place(text, host, port, is_secure))

    def test_wrong(self) -> None:
        """Whatever else is refused, with ValueError."""
        for text in (
            *("", "unix:", "http://", "ftp://x:1", "http://x:0", "http://x:99999", "http://x:y", "http://x y:1"),
            *("http://u:p@x:1", "http://x:1/path", "http://x:1?q", "http://[::1", "x:1\r\nEvil: 1", "unix:\0"),
            "http://" + "a" * 64 + ".example:1",
        ):
            self.assertRaises(ValueError, parse_place, text)

    @given(strategies.text())
    def test_any(self, text: str) -> None:
        """Any text is a place or a ValueError."""
        try:
            self.assertIsInstance(parse_place(text), Place)
        except ValueError:
            pass

    def test_token(self) -> None:
        """A token is one visible word; nothing that could end a header passes."""
        self.assertEqual(check_token(" secret\n"), "secret")
        for text in ("", " \n", "two words", "a\r\nb", "a\x7f"):
            self.assertRaises(ValueError, check_token, text)


class EventTests(SynchronousTestCase):
    STREAM = b'retry: 2000\n\nevent: status\ndata: {"a": 1}\n\n: still here\n\nevent: change\ndata: {}\n\ndata: 1\n\n'
    FOUND = [("status", b'{"a": 1}'), ("change", b"{}"), ("message", b"1")]

    def test_whole(self) -> None:
        """Comments and the retry are passed over; the kind is the event's name."""
        self.assertEqual(list(server_sent(Pieces(self.STREAM))), self.FOUND)  # type: ignore[arg-type]

    @given(strategies.lists(strategies.integers(1, 20)))
    def test_pieces(self, sizes: list[int]) -> None:
        """However the stream is cut, the same events come."""
        pieces, rest = [], self.STREAM
        for size in sizes:
            pieces.append(rest[:size])
            rest = rest[size:]
        cut = Pieces(*filter(None, [*pieces, rest]))
        self.assertEqual(list(server_sent(cut)), self.FOUND)  # type: ignore[arg-type]

    def test_unfinished(self) -> None:
        """An event that the end of the stream has cut is none."""
        self.assertEqual(list(server_sent(Pieces(b"data: 1\n\ndata: 2"))), [("message", b"1")])  # type: ignore[arg-type]


class AnswerTests(TestCase):
    def ask(self, *steps: Step, patience: float = 10.0) -> Any:
        """What a call gives, or the error that it raises, from a server that does this."""
        server = RecordingBackend([Request(), *steps])
        self.addCleanup(server.stop)
        self.server = server
        try:
            return Client(parse_place(f"127.0.0.1:{server.port}"), "sesame", patience).status()
        except Failed as failed:
            return failed

    def problem(self, line: str, **fields: Any) -> Any:
        body = json.dumps(fields).encode()
        return self.ask(Send(response(body, line, "Content-Type: application/problem+json")), Close())

    def test_asked(self) -> None:
        """The token is sent, and what is understood is said."""
        self.assertEqual(self.ask(Send(response(b'{"pools": []}')), Close()), {"pools": []})
        head = bytes(self.server.conversations[0].received)
        self.assertIn(b"GET /api/v1/status HTTP/1.1\r\n", head)
        self.assertIn(b"Authorization: Bearer sesame\r\n", head)
        self.assertIn(b"Accept: application/json\r\n", head)

    def test_last(self) -> None:
        """An answer that ends its connection is read, though some Pythons close the socket with its last byte."""
        for body in (b'{"pools": []}', b'{"pools": []}' + b" " * 200_000):
            answer = Send(response(body, "200 OK", "Connection: close"))
            self.assertEqual(self.ask(answer, Close()), {"pools": []})

    def test_problem(self) -> None:
        """A problem's detail is what is said; its errors come one a line."""
        found = self.problem("404 Not Found", status=404, title="Not Found", detail="there is no pool x")
        self.assertIsInstance(found, Refused)
        self.assertEqual((found.code, found.lines), (1, ("lbctl: there is no pool x",)))
        found = self.problem("422 X", status=422, title="X", detail="nothing has changed: …", errors=["a:1:2: b", "c"])
        self.assertEqual(found.lines, ("a:1:2: b", "c"))
        self.assertEqual(found.problem()["errors"], ["a:1:2: b", "c"])
        self.assertIn("the token was not taken", self.problem("401 X", detail="no").lines[1])

    def test_other_refusals(self) -> None:
        """A refusal of somebody else's, a proxy's say, is shown by its status and first line."""
        found = self.ask(Send(response(b"<html>\nmore", "502 Bad Gateway")), Close())
        self.assertEqual(found.code, 1)
        self.assertRegex(found.lines[0], "says 502 Bad Gateway: <html>$")

    def test_foreign(self) -> None:
        """What is not our admin interface is as good as nobody: 69."""
        for answer in (
            response(b"hello"),
            response(b"[]"),
            response(b'{"pools": 1}'),
            response(b"[" * 100_000),
            response(b"", "302 Found", "Location: http://127.0.0.1:1/"),
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"",
        ):
            found = self.ask(Send(answer), Close())
            self.assertIsInstance(found, Unreachable, answer[:80])
            self.assertEqual(found.code, 69)

    def test_silent(self) -> None:
        """A server that takes the question and says nothing, or stops in the middle, is not waited for for ever."""
        for said in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}"):
            found = self.ask(Send(said), ReadToEnd(), patience=0.2)
            self.assertIsInstance(found, Unreachable)
            self.assertIn("no answer in time", found.lines[0])

    def test_nobody(self) -> None:
        """Nobody there: where, and why."""
        place = parse_place(f"127.0.0.1:{free_port()}")
        error = self.assertRaises(Unreachable, Client(place).status)
        self.assertEqual(error.lines[0], f"lbctl: cannot reach {place.written}: Connection refused")


class CleanTests(SynchronousTestCase):
    @given(strategies.text())
    def test_clean(self, text: str) -> None:
        """Nothing from outside steers a terminal or breaks its line."""
        self.assertTrue(clean(text).isprintable())
