"""The admin listener over loopback: its three pages, its refusals, and its bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from typing_extensions import override

from lbsvc.admin.channel import BODY_LIMIT, IDLE_TIMEOUT, REQUEST_TIMEOUT, TEXT_LIMIT, AdminChannel
from lbsvc.admin.site import make_site
from lbsvc.core.books import Histogram
from lbsvc.observe.metrics import LbsvcCollector
from tests.observe.sample_view import SampleView, crowded

reactor = cast(EPollReactor, global_reactor)


class Asking(Protocol):
    """Sends bytes, collects what comes back until the connection ends."""

    def __init__(self, request: bytes, finish: bool) -> None:
        self.request = request
        self.finish = finish
        self.answer = b""
        self.ended: Deferred[bytes] = Deferred()

    @override
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.request)
        if self.finish:
            self.transport.loseWriteConnection()  # type: ignore[attr-defined]

    @override
    def dataReceived(self, data: bytes) -> None:
        self.answer += data

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(self.answer)


class Once(ClientFactory[Asking]):
    """A factory of one protocol."""

    noisy = False

    def __init__(self, asking: Asking) -> None:
        self.asking = asking

    @override
    def buildProtocol(self, addr: object) -> Asking:
        return self.asking


class Answer:
    """A parsed response."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def problem(self) -> dict[str, object]:
        if self.headers["content-type"] != "application/problem+json":
            raise AssertionError(self.headers)
        parsed: dict[str, object] = json.loads(self.body)
        return parsed


class SiteCase(TestCase):
    view = SampleView()
    token = ""

    def setUp(self) -> None:
        self.reason: str | None = None
        self.site = make_site(
            reactor, LbsvcCollector(self.view, Histogram()), lambda: self.reason, "127.0.0.1", (), self.token
        )
        self.leaving: list[Deferred[None]] = []
        gone = self.site.connection_gone

        def connection_gone(channel: AdminChannel) -> None:
            gone(channel)
            self.leaving.pop().callback(None)

        self.patch(self.site, "connection_gone", connection_gone)
        self.port: IListeningPort = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    def number(self) -> int:
        address = self.port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    async def raw(self, request: bytes, finish: bool = False) -> bytes:
        """Send it, and give what came back once both sides have ended."""
        asking = Asking(request, finish)
        left: Deferred[None] = Deferred()
        self.leaving.append(left)
        reactor.connectTCP("127.0.0.1", self.number(), Once(asking))
        answer = await asking.ended
        await left
        return answer

    async def ask(self, target: str, method: str = "GET", host: str = "localhost", **headers: str) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return Answer(await self.raw("\r\n".join([*lines, "", ""]).encode()))


class PageTests(SiteCase):
    async def test_livez(self) -> None:
        """/livez answers 200 while the process runs, ready or not."""
        self.reason = "starting"
        answer = await self.ask("/livez")
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))

    async def test_readyz(self) -> None:
        """/readyz is 503 with the reason until ready, and 503 again when it is not."""
        self.assertEqual((await self.ask("/readyz")).status, 200)
        self.reason = "draining"
        answer = await self.ask("/readyz")
        self.assertEqual((answer.status, answer.body), (503, b"draining\n"))

    async def test_metrics(self) -> None:
        """/metrics speaks text by default, OpenMetrics to who asks for it."""
        answer = await self.ask("/metrics")
        self.assertEqual((answer.status, answer.headers["content-type"]),
                         (200, "text/plain; version=0.0.4; charset=utf-8"))  # fmt: skip
        self.assertIn(b"\n# TYPE lbsvc_build_info gauge\n", answer.body)
        other = await self.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        self.assertTrue(other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0"))
        self.assertTrue(other.body.endswith(b"# EOF\n"))

    async def test_head(self) -> None:
        """HEAD is GET without a body, its length told."""
        for path in ("/livez", "/readyz", "/metrics"):
            answer = await self.ask(path, "HEAD")
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertGreater(int(answer.headers["content-length"]), 0)

    async def test_other_methods(self) -> None:
        """Other methods are 405, and Allow says which are not."""
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer = await self.ask("/metrics", method)
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"))
            self.assertEqual(answer.problem()["status"], 405)

    async def test_unknown_paths(self) -> None:
        """What is not there is 404, as a problem."""
        for path in ("/", "/metrics/", "/livez/x", "/nothing", "/%2e%2e/metrics", "/metricsx", "//"):
            answer = await self.ask(path)
            self.assertEqual((path, answer.status, answer.problem()["title"]), (path, 404, "Not Found"))

    async def test_no_versions(self) -> None:
        """No header says what we are made of."""
        for target in ("/livez", "/nothing"):
            answer = await self.ask(target)
            self.assertEqual(answer.headers["server"], "lbsvc")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        self.assertNotIn(
            b"Twisted", await self.raw(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        )

    async def test_keep_alive(self) -> None:
        """Several requests in one connection, sent at once, are answered in order."""
        answer = await self.raw(
            b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK\r\n"), 3)
        self.assertTrue(answer.endswith(b"\r\n\r\nready\n"))

    async def test_a_client_that_has_finished_sending(self) -> None:
        """Who closes their side after the request still gets the answer (printf | nc)."""
        for target in (b"/livez", b"/metrics"):
            answer = Answer(await self.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n", finish=True))
            self.assertEqual((answer.status, len(answer.body)), (200, int(answer.headers["content-length"])))

    async def test_finishing_without_a_request(self) -> None:
        """Who connects and leaves gets nothing, and leaves nothing behind."""
        self.assertEqual(await self.raw(b"", finish=True), b"")
        self.assertEqual(await self.raw(b"GET /liv", finish=True), b"")

    async def test_mistakes_of_ours(self) -> None:
        """An exception of ours is a 500 without its text, and logged."""

        def broken() -> str | None:
            raise KeyError("internal detail")

        self.site.resource.children[b"readyz"]._ready = broken
        answer = await self.ask("/readyz")
        self.assertEqual(answer.problem()["status"], 500)
        self.assertNotIn(b"internal detail", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class CrowdedTests(SiteCase):
    view = crowded(120)

    async def test_a_large_page(self) -> None:
        """A page of many turns arrives whole, and another request is answered before it."""
        order: list[str] = []

        async def ask(path: str) -> Answer:
            answer = await self.ask(path)
            order.append(path)
            return answer

        first, second = Deferred.fromCoroutine(ask("/metrics")), Deferred.fromCoroutine(ask("/livez"))
        answer = await first
        await second
        self.assertEqual(order, ["/livez", "/metrics"])
        self.assertEqual(len(answer.body), int(answer.headers["content-length"]))
        self.assertEqual(answer.body.count(b"# TYPE lbsvc_backend_state gauge"), 1)


class GuardTests(SiteCase):
    token = "s3cret"

    async def test_the_three_are_open(self) -> None:
        """Neither token nor a known Host is needed for the three."""
        for path in ("/livez", "/readyz", "/metrics"):
            self.assertEqual((await self.ask(path, host="evil.example", Origin="http://evil.example")).status, 200)

    async def test_everything_else_is_not(self) -> None:
        """Without the token 401, with a foreign Host 421, from a foreign page 403: whether it exists or not."""
        answer = await self.ask("/api/v1/status")
        self.assertEqual((answer.status, answer.headers["www-authenticate"]), (401, 'Bearer realm="lbsvc"'))
        self.assertEqual(answer.problem()["status"], 401)
        right = "Bearer s3cret"
        self.assertEqual((await self.ask("/api/v1/status", Authorization="Bearer wrong")).status, 401)
        self.assertEqual((await self.ask("/api/v1/status", Authorization=right)).status, 404)
        self.assertEqual((await self.ask("/", host="evil.example", Authorization=right)).status, 421)
        self.assertEqual((await self.ask("/", Origin="http://evil.example", Authorization=right)).status, 403)
        self.assertEqual((await self.ask("*", "OPTIONS")).status, 401)


class BodyTests(SiteCase):
    async def refused(self, request: bytes) -> None:
        answer = Answer(await self.raw(request))
        self.assertEqual((answer.status, answer.headers["connection"]), (413, "close"))
        self.assertEqual(answer.problem()["status"], 413)

    async def test_configurations(self) -> None:
        """A configuration may be larger than any other body, however its place is asked for."""
        for target in (b"/api/v1/config/check", b"http://x/api/v1/config/check?x"):
            head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            answer = await self.raw(head % TEXT_LIMIT + b"x" * TEXT_LIMIT)
            self.assertNotEqual(Answer(answer).status, 413)
            await self.refused(head % (TEXT_LIMIT + 1))

    async def test_announced(self) -> None:
        """A body over 64 KiB is refused when it is announced, before a byte of it."""
        await self.refused(b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT + 1))

    async def test_expected(self) -> None:
        """A client that asks first is not told to continue."""
        head = b"POST /api HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"
        await self.refused(head)

    async def test_sent_anyway(self) -> None:
        """Who sends the whole body without waiting still reads the answer, not a reset."""
        head = b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (3 * BODY_LIMIT)
        await self.refused(head + b"x" * (3 * BODY_LIMIT))

    async def test_chunked(self) -> None:
        """A chunked body is refused as soon as it has passed the limit, and kept nowhere."""
        chunks = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        head = b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.refused(head + chunks * 20 + b"0\r\n\r\n")

    async def test_at_the_limit(self) -> None:
        """A body of exactly 64 KiB is read, and the request judged like any other."""
        head = b"POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % BODY_LIMIT
        self.assertEqual(Answer(await self.raw(head + b"x" * BODY_LIMIT)).status, 405)

    async def test_the_limit_is_for_each_request(self) -> None:
        """Two bodies under the limit in one connection are two requests."""
        one = b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (BODY_LIMIT - 1)
        body = b"\r\n" + b"x" * (BODY_LIMIT - 1)
        answer = await self.raw(one + body + one + b"Connection: close\r\n" + body)
        self.assertEqual(answer.count(b"HTTP/1.1 405 "), 2)

    async def test_heads_are_bounded(self) -> None:
        """A head without end is refused."""
        self.assertIn(b" 400 ", (await self.raw(b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 9000)).split(b"\r\n")[0])


class PatienceTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.site = make_site(self.clock, LbsvcCollector(SampleView(), Histogram()), lambda: None)

    def connect(self) -> tuple[AdminChannel, StringTransportWithDisconnection]:
        protocol = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    def test_a_slow_request(self) -> None:
        """A request that comes byte by byte has REQUEST_TIMEOUT in all, from its first byte."""
        protocol, transport = self.connect()
        for byte in one_by_one(b"GET /livez HTTP/1.1\r\nX: y"):
            protocol.dataReceived(byte)
            self.clock.advance(REQUEST_TIMEOUT / 40)
        self.assertTrue(transport.connected)
        self.clock.advance(REQUEST_TIMEOUT / 2)
        self.assertFalse(transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_idle_connection(self) -> None:
        """A kept connection without requests goes after IDLE_TIMEOUT; requests before it start it anew."""
        protocol, transport = self.connect()
        for _ in range(3):
            self.clock.advance(IDLE_TIMEOUT - 1)
            protocol.dataReceived(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(transport.value().count(b" 200 OK"), 3)
        self.assertTrue(transport.connected)
        self.clock.advance(IDLE_TIMEOUT)
        self.assertFalse(transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_timer_of_its_own(self) -> None:
        """A site without connections keeps no timer running."""
        self.site.doStart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.site.doStop()


def one_by_one(text: bytes) -> Iterator[bytes]:
    return (text[at : at + 1] for at in range(len(text)))
