"""One http check: what it sends, which answers pass, and what is said of those that do not."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.net.checks import LARGEST_BODY, LARGEST_HEAD, Check, check_for
from tests.core.members import member
from tests.net.wired import OPEN, REFUSED, RESET, Net

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfit"


class Asked:
    """One check against one answer; `result` is what was told."""

    def __init__(
        self, answer: str | bytes, *, largest: int = 64 * 1024, keep_open: bool = False, **policy: Any
    ) -> None:
        self.net = Net()
        self.net.answers[80] = answer
        self.net.largest = largest
        self.net.keep_open = keep_open
        self.told: list[tuple[bool | None, str]] = []
        self.backend = member()
        self.check: Check = check_for(
            self.net.clock,
            HealthCheckPolicy(type="http", **policy),
            self.backend,
            lambda ok, detail: self.told.append((ok, detail)),
        )
        self.check.begin(self.net.dial)
        self.net.settle()

    @property
    def result(self) -> tuple[bool | None, str] | None:
        assert len(self.told) < 2, self.told
        return self.told[0] if self.told else None

    @property
    def sent(self) -> bytes:
        peer = self.net.dials[0].peer
        assert peer is not None
        return bytes(peer.received)


class Requests(TestCase):
    def test_default(self) -> None:
        """HC-2: GET /health, with the backend's address as Host, on a connection of its own."""
        asked = Asked(OK)
        self.assertEqual(
            asked.sent,
            b"GET /health HTTP/1.1\r\nHost: a.example:80\r\nUser-Agent: lbsvc-check\r\n"
            b"Accept: */*\r\nConnection: close\r\n\r\n",
        )
        self.assertEqual(asked.result, (True, "status 200"))
        self.assertEqual(asked.net.open, [])
        self.assertEqual(asked.net.clock.getDelayedCalls(), [])

    def test_nothing_is_left(self) -> None:
        """A check that is over is gone with the last who knows it: checks go on for ever, and the collector rarely comes."""
        gc.disable()
        self.addCleanup(gc.enable)
        over = [weakref.ref(Asked(answer).check) for answer in (OK, b"nonsense\r\n\r\n", RESET, REFUSED)]
        self.assertEqual([each() for each in over], [None] * 4)

    def test_policy(self) -> None:
        """HC-2, HC-7: method, path, host and port are the policy's."""
        asked = Asked(OK, method="OPTIONS", path="/up?deep=1", host="shop.example", port=80)
        self.assertTrue(asked.sent.startswith(b"OPTIONS /up?deep=1 HTTP/1.1\r\nHost: shop.example\r\n"))

    def test_host_of_a_url(self) -> None:
        """An address written as a URL gives its authority as Host."""
        net = Net()
        net.answers[80] = OK
        backend = member()
        backend.address = "http://a.example:80/"
        check_for(net.clock, HealthCheckPolicy(type="http"), backend, lambda ok, detail: None).begin(net.dial)
        net.settle()
        peer = net.dials[0].peer
        assert peer is not None
        self.assertIn(b"\r\nHost: a.example:80\r\n", bytes(peer.received))

    def test_unix(self) -> None:
        """A backend on a unix socket is asked there, by the name localhost unless the policy has another."""
        policies = {
            b"localhost": HealthCheckPolicy(type="http"),
            b"shop.example": HealthCheckPolicy(type="http", host="shop.example", port=9000),
        }
        for host, policy in policies.items():
            net = Net()
            backend = Backend("web", "unix:run/a.sock", "unix:run/a.sock", "/srv/run/a.sock", 0)
            check_for(net.clock, policy, backend, lambda ok, detail: None).begin(net.dial)
            net.settle()
            (dialled,) = net.dials
            assert dialled.peer is not None
            self.assertEqual((dialled.host, dialled.port), ("/srv/run/a.sock", 0))
            self.assertIn(b"\r\nHost: %b\r\n" % host, bytes(dialled.peer.received))


class Answers(TestCase):
    def test_status(self) -> None:
        """HC-2: by default 200 to 399 pass, and the others are named."""
        for status, ok in (
            (200, True),
            (204, True),
            (302, True),
            (399, True),
            (404, False),
            (500, False),
            (503, False),
        ):
            answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
            self.assertEqual(Asked(answer).result, (ok, f"status {status}"))

    def test_expected_status(self) -> None:
        """HC-2: expect_status lists ranges: only these pass."""
        ranges = ((200, 200), (420, 429))
        for status, ok in ((200, True), (201, False), (302, False), (420, True), (429, True), (430, False)):
            answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
            asked = Asked(answer, expect_status=ranges)
            self.assertEqual(asked.result, (ok, f"status {status}"))

    def test_framings(self) -> None:
        """A whole answer passes however its end is marked, in whatever pieces it comes."""
        for answer in (
            OK,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n1\r\nt\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nfit until the end",
            b"HTTP/1.0 200 OK\r\n\r\nfit",
            b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
            b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nfit",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nfit and what nobody announced",
        ):
            for largest in (64 * 1024, 1, 7):
                self.assertEqual(Asked(answer, largest=largest, expect_body="fit").result, (True, "status 200"), answer)

    def test_ends_without_a_close(self) -> None:
        """An answer whose end is marked is judged at once, also where the backend leaves the connection open."""
        self.assertEqual(Asked(OK, keep_open=True).result, (True, "status 200"))
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        self.assertEqual(Asked(chunked, keep_open=True).result, (True, "status 200"))

    def test_no_body(self) -> None:
        """HEAD, 204 and 304 have no body, whatever they announce."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
        self.assertEqual(Asked(head, method="HEAD", keep_open=True).result, (True, "status 200"))
        for status in (204, 304):
            answer = b"HTTP/1.1 %d X\r\nETag: x\r\n\r\n" % status
            self.assertEqual(Asked(answer, keep_open=True).result, (True, f"status {status}"))

    def test_expected_body(self) -> None:
        """expect_body must be inside the body: not in the head, and across chunks if it falls so."""
        self.assertEqual(Asked(OK, expect_body="fi").result, (True, "status 200"))
        answer = b"HTTP/1.1 200 healthy\r\nX: healthy\r\nContent-Length: 2\r\n\r\nno"
        asked = Asked(answer, expect_body="healthy")
        self.assertEqual(asked.result, (False, "status 200, body without what is expected"))

    def test_large_body(self) -> None:
        """Of a body 64 KiB are looked at, and then no more is waited for."""
        for place, ok in ((LARGEST_BODY - 3, True), (LARGEST_BODY - 2, False)):
            body = b"x" * place + b"fit" + b"x" * 200_000
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body
            asked = Asked(answer, keep_open=True, expect_body="fit")
            assert asked.result is not None
            self.assertEqual(asked.result[0], ok)
            self.assertEqual(asked.net.open, [])

    def test_cut_short(self) -> None:
        """HC-2: an answer that ends before its end is a failure, as is none at all."""
        cut = (False, "status 200, answer cut short")
        self.assertEqual(Asked(OK[:-1]).result, cut)
        self.assertEqual(Asked(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n").result, cut)
        nothing = (False, "connection closed without an answer")
        self.assertEqual(Asked(b"HTTP/1.1 200 OK\r\nContent-").result, nothing)
        self.assertEqual(Asked(b"").result, nothing)
        self.assertEqual(Asked(b"HTTP/1.1 100 Continue\r\n\r\n").result, nothing)

    def test_garbage(self) -> None:
        """HC-2: what is not HTTP fails at once, by a detail that does not repeat it."""
        for answer in (b"SSH-2.0-x\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"\0" * 9, b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"):
            asked = Asked(answer, keep_open=True)
            assert asked.result is not None
            self.assertFalse(asked.result[0])
            self.assertTrue(asked.result[1].startswith("malformed answer"), asked.result)
            self.assertEqual(asked.net.open, [])

    def test_upgrade(self) -> None:
        """A 101 that nobody asked for is a failure."""
        asked = Asked(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", keep_open=True)
        self.assertEqual(asked.result, (False, "status 101, an upgrade that nobody asked for"))

    def test_endless_head(self) -> None:
        """A head without end is not read to its end."""
        for answer in (
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LARGEST_HEAD,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 9000,
        ):
            asked = Asked(answer, keep_open=True)
            self.assertEqual(asked.result, (False, "malformed answer (endless head)"))


class Troubles(TestCase):
    def test_timeout_covers_everything(self) -> None:
        """The timeout is absolute: bytes that come one by one do not extend it (HC-4)."""
        asked = Asked(OPEN, timeout=1.0)
        peer: Any = asked.net.dials[0].peer
        for byte in OK[:-1]:
            peer.transport.write(bytes((byte,)))
            asked.net.advance(0.02, step=0.02)
        self.assertIsNone(asked.result)
        asked.net.advance(1.0)
        self.assertEqual(asked.result, (False, "no answer within 1s"))
        self.assertEqual(asked.net.open, [])

    def test_refused_and_reset(self) -> None:
        """HC-2: refused and reset connections are failures, each with its words."""
        self.assertEqual(Asked(REFUSED).result, (False, "connection refused"))
        self.assertEqual(Asked(RESET).result, (False, "connection reset"))

    def test_cancel(self) -> None:
        """A cancelled check says nothing, whenever that is, and closes its connection."""
        asked = Asked(OPEN)
        asked.check.cancel()
        asked.check.cancel()
        asked.net.advance(10.0)
        self.assertEqual((asked.result, asked.net.open, asked.net.clock.getDelayedCalls()), (None, [], []))
