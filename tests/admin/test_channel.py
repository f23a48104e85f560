"""Connections of the admin listener: who makes room, what is no request, and requests that come together."""

from __future__ import annotations

from lbsvc.admin import channel
from lbsvc.admin.channel import IDLE_TIMEOUT, AdminChannel, split_target
from tests.admin.asking import Answer, AskingCase, Wire

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
PATCH = b"PATCH /api/v1/pools/web/backends/a HTTP/1.1\r\nHost: localhost\r\n"
WEIGHT = b'{"weight":7}'


class RoomTests(AskingCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(channel, "MAX_CONNECTIONS", 3)

    def open(self, sent: bytes = b"") -> tuple[AdminChannel, Wire]:
        made, wire = self.connect()
        if sent:
            made.dataReceived(sent)
        return made, wire

    def test_silent_ones_first(self) -> None:
        """Past the bound the oldest connection that never had a whole request makes room, whatever it has sent of one."""
        _, kept = self.open(LIVEZ)
        _, silent = self.open()
        _, slow = self.open(LIVEZ[:-1])
        _, new = self.open(LIVEZ)
        self.assertEqual([each.aborted for each in (kept, silent, slow, new)], [False, True, False, False])
        self.open(LIVEZ)
        self.assertEqual([each.aborted for each in (kept, slow, new)], [False, True, False])

    def test_then_the_longest_idle(self) -> None:
        """Of those that have been answered, the one that has asked for nothing for longest."""
        (first, one), (_, two), (_, three) = (self.open(LIVEZ) for _ in range(3))
        first.dataReceived(LIVEZ)
        self.open(LIVEZ)
        self.assertEqual([each.aborted for each in (one, two, three)], [False, True, False])

    def test_then_those_that_do_not_read(self) -> None:
        """Who has not yet taken the answer is cut only where nobody else can be."""
        (first, one), (second, two), (_, three) = (self.open(LIVEZ) for _ in range(3))
        for each in (first, second):
            each.pauseProducing()
        self.open(LIVEZ)
        self.assertEqual([each.aborted for each in (one, two, three)], [False, False, True])
        self.open()
        self.open()
        self.assertEqual([each.aborted for each in (one, two)], [False, False])

    def test_never_the_ones_that_are_answered(self) -> None:
        """While all are being answered, streams of events included, another is refused; one that ends makes room."""
        wires = [self.send("GET", "/api/v1/events") for _ in range(3)]
        self.assertIsNone(self.site.buildProtocol(None))
        wires[0].loseConnection()
        self.open(LIVEZ)
        self.assertEqual([each.aborted for each in wires[1:]], [False, False])

    def test_nothing_is_left(self) -> None:
        """Connections that came and went leave no timer and no place taken."""
        wires = [self.open(sent)[1] for sent in (b"", LIVEZ, LIVEZ[:9], b"x\r\n\r\n", LIVEZ * 3, LIVEZ)]
        for wire in wires:
            if wire.connected:
                wire.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for _ in range(3):
            self.send("GET", "/api/v1/events")
        self.assertIsNone(self.site.buildProtocol(None))

    def test_streams_at_the_end(self) -> None:
        """Who is told that there is nothing more to watch is let go, too."""
        self.site.doStart()
        self.site.doStop()
        wire = self.send("GET", "/api/v1/events")
        answer = Answer(wire.value())
        self.assertEqual((answer.status, answer.headers["connection"], wire.connected), (503, "close", False))

    def test_who_does_not_take_the_end(self) -> None:
        """A connection that is to be closed, and cannot be for its client does not read, is cut after IDLE_TIMEOUT."""
        made, wire = self.connect()
        self.patch(wire, "loseConnection", lambda: None)
        made.dataReceived(b"GET /livez HTTP/1.0\r\n\r\n")
        self.patch(wire, "loseConnection", type(wire).loseConnection.__get__(wire))
        self.assertTrue(wire.connected)
        self.clock.advance(IDLE_TIMEOUT)
        self.assertFalse(wire.connected)


class FramingTests(AskingCase):
    def refused(self, request: bytes, status: int = 400) -> None:
        """It is answered once, by a problem, and nothing is done."""
        made, wire = self.connect()
        made.dataReceived(request)
        self.assertEqual(wire.value().count(b"HTTP/1.1 "), 1, (request[:99], wire.value()))
        answer = Answer(wire.value())
        self.assertEqual((answer.status, answer.headers["connection"]), (status, "close"), request[:99])
        self.assertTrue(answer.detail)
        self.assertTrue(wire.is_half_closed)
        self.assertEqual(self.control.asked, [])
        self.clock.advance(IDLE_TIMEOUT)
        self.assertFalse(wire.connected)

    def test_what_is_no_request(self) -> None:
        """What cannot be read is a problem like any other, and not obeyed where only one of its headers is wrong."""
        good = b"Content-Length: 12\r\n"
        for head in (b"Content-Length: +12\r\n", b"Content-Length: 12\r\nContent-Length: 13\r\n", b"Bad : x\r\n" + good,
                     b"no colon\r\n" + good, good + b"\x00: x\r\n", good + b"A: \x00\r\n",
                     b"a: b\r\n" * 101 + good):  # fmt: skip
            self.refused(PATCH + head + b"\r\n" + WEIGHT)
        for line in (
            b"GET /livez HTTP/9.9",
            b"GET /livez",
            b"PRI * HTTP/2.0",
            b"GET  /livez HTTP/1.1",
            b"\x16\x03\x01",
        ):
            self.refused(line + b"\r\nHost: x\r\n\r\n")

    def test_what_is_too_long(self) -> None:
        """A request line without end is 414, a line of the head 431."""
        self.refused(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414)
        self.refused(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431)

    def test_transfer_codings(self) -> None:
        """A body is chunked by one line of HTTP/1.1, or not at all."""
        chunked, body = b"Transfer-Encoding: chunked\r\n", b"c\r\n" + WEIGHT + b"\r\n0\r\n\r\n"
        identity = b"Transfer-Encoding: identity\r\n"
        for head in (chunked * 2, chunked + identity, identity + chunked, identity + b"Content-Length: 12\r\n",
                     chunked + b"Content-Length: 12\r\n", b"Content-Length: 12\r\n" + chunked,
                     b"Transfer-Encoding: gzip, chunked\r\n"):  # fmt: skip
            self.refused(PATCH + head + b"\r\n" + body)
        self.refused(PATCH.replace(b"1.1", b"1.0") + chunked + b"\r\n" + body)
        self.refused(PATCH + chunked + b"\r\n" + body.replace(b"c\r", b"0xc\r", 1))
        made, wire = self.connect()
        made.dataReceived(PATCH + chunked.replace(b"chunked", b"Chunked") + b"\r\n" + body)
        self.assertEqual(Answer(wire.value()).status, 200)

    def test_absolute_form(self) -> None:
        """A target may name us whole; then its authority counts, and Host does not."""
        for target, host, status in (
            ("http://127.0.0.1:9901/api/v1/health", "localhost", 200), ("HTTP://localhost:/livez", "evil.example", 200),
            ("http://localhost/api/v1/health?x=1", "localhost", 400), ("http://localhost", "localhost", 404),
            ("http://evil.example/api/v1/health", "localhost", 421), ("http://localhost?x", "localhost", 404),
            ("http://localhost@evil.example/api/v1/health", "localhost", 421), ("http:///api/v1/health", "localhost", 421),
            ("https://localhost/api/v1/health", "localhost", 404), ("http://localhost/api/v1/health", "evil", 200),
        ):  # fmt: skip
            self.assertEqual((target, self.ask("GET", target, Host=host).status), (target, status))
        made, wire = self.connect()
        made.dataReceived(b"GET http://localhost/api/v1/health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
        self.assertEqual(Answer(wire.value()).status, 400)
        made, wire = self.connect()
        made.dataReceived(b"GET http://localhost/api/v1/health HTTP/1.0\r\n\r\n")
        self.assertEqual(Answer(wire.value()).status, 200)

    def test_targets(self) -> None:
        """What is not http:// is taken as it came."""
        for target in (b"*", b"/x", b"//x/y", b"httpx://a", b"a:1", b""):
            self.assertEqual(split_target(target), (None, target))
        self.assertEqual(split_target(b"http://a:1?b/c"), (b"a:1", b"/?b/c"))


class TogetherTests(AskingCase):
    def test_one_in_each_turn(self) -> None:
        """Of requests that came together one is answered in each turn of the reactor, in their order."""
        made, wire = self.connect()
        self.patch(made, "callLater", lambda seconds, *call: self.clock.callLater(seconds or 1, *call))
        made.dataReceived(LIVEZ * 2 + LIVEZ.replace(b"livez", b"readyz")[:20])
        self.assertEqual(wire.value().count(b" 200 OK"), 1)
        made.dataReceived(LIVEZ.replace(b"livez", b"readyz")[20:])
        self.assertEqual(wire.value().count(b" 200 OK"), 1)
        self.clock.advance(1)
        self.assertEqual(wire.value().count(b" 200 OK"), 2)
        self.clock.advance(1)
        self.assertTrue(wire.value().endswith(b"ready\n"))
        wire.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leaving_meanwhile(self) -> None:
        """Who leaves before the rest is answered leaves nothing behind."""
        made, wire = self.connect()
        made.dataReceived(LIVEZ * 3)
        wire.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])
