"""Health checks that speak HTTP/2: what they ask, which answers pass, and what is said of those that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.http.h2_checks import H2Check, _read_answer, _request, check_for
from lbsvc.net.checks import Check, HttpCheck
from tests.kit.wire import Peer, Wire
from tests.net.wired import EXHAUSTED, OPEN, REFUSED, RESET, Dialled, Net

#: What a backend does with a request: it gets its side of the connection, the stream, the request's fields and body.
Reply = Callable[[Any, int, dict[str, str], bytes], None]


class H2Net(Net):
    """A network whose port 80 speaks HTTP/2 by the h2 library."""

    def __init__(self, reply: Reply | None) -> None:
        super().__init__()
        self.reply = reply
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.side: Any = None
        self.peer: Any = None

    def _connect(self, dialled: Dialled, answer: str | bytes, protocol: Any) -> None:
        if self.reply is None or answer != OPEN:
            super()._connect(dialled, answer, protocol)
            return
        side = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        side.initiate_connection()
        self.side = side
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        reply = self.reply

        def take(peer: Any, piece: bytes) -> None:
            for event in side.receive_data(piece):
                if isinstance(event, h2.events.RequestReceived):
                    heads[event.stream_id] = dict(event.headers or ())
                    bodies[event.stream_id] = b""
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    number = event.stream_id
                    self.requests.append((heads[number], bodies[number]))
                    reply(side, number, heads[number], bodies[number])
            if peer.transport.connected:
                peer.transport.write(side.data_to_send())

        dialled.peer = self.peer = Peer(take)
        dialled.wire = Wire(protocol, dialled.peer, clock=self.clock)

    def more(self, data: bytes) -> None:
        """More of the answer to the first request."""
        self.side.send_data(1, data)
        self.peer.transport.write(self.side.data_to_send())
        self.settle()


class Asked:
    """One check; `result` is what was told."""

    def __init__(
        self,
        reply: Reply | None,
        address: str = "h2c://a.example:80",
        tls: Any = None,
        answer: Any = OPEN,
        **policy: Any,
    ) -> None:
        self.net = H2Net(reply)
        self.net.answers[80] = answer
        self.told: list[tuple[bool | None, str]] = []
        backend = Backend("p", "a", address, "10.0.0.1", 80)
        backend.tls = tls
        keys = {"type": "grpc", **policy}
        self.check: Check = check_for(
            self.net.clock, HealthCheckPolicy(**keys), backend, lambda ok, detail: self.told.append((ok, detail))
        )
        self.check.begin(self.net.dial)
        self.net.settle()

    @property
    def result(self) -> tuple[bool | None, str] | None:
        assert len(self.told) < 2, self.told
        if self.told:
            self.net.advance(0.1)
            assert self.net.open == [], "a connection was left"
            assert self.net.clock.getDelayedCalls() == [], "a timer was left"
        return self.told[0] if self.told else None


def health(status: int = 1, code: int = 0, message: bytes | None = None) -> Reply:
    """An answer of grpc.health.v1."""
    if message is None:
        message = health_pb2.HealthCheckResponse(status=status).SerializeToString()

    def reply(side: Any, number: int, head: dict[str, str], body: bytes) -> None:
        side.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])
        side.send_data(number, b"\x00" + len(message).to_bytes(4, "big") + message)
        side.send_headers(number, [("grpc-status", str(code))], end_stream=True)

    return reply


def plainly(*fields: tuple[str, str], body: bytes | None = None) -> Reply:
    """An answer of these fields, and no trailers."""

    def reply(side: Any, number: int, head: dict[str, str], request: bytes) -> None:
        side.send_headers(number, fields, end_stream=body is None)
        if body is not None:
            side.send_data(number, body, end_stream=True)

    return reply


class GrpcTests(TestCase):
    def test_asked(self) -> None:
        """The request is what grpc.health.v1 wants, with the time that it may take."""
        for service in ("", "shop.v1.Orders", "x" * 255):
            asked = Asked(health(), service=service, timeout=1.5, host="shop.example")
            self.assertEqual(asked.result, (True, "SERVING"))
            ((head, body),) = asked.net.requests
            self.assertEqual(
                head,
                {
                    ":method": "POST",
                    ":scheme": "http",
                    ":authority": "shop.example",
                    ":path": "/grpc.health.v1.Health/Check",
                    "user-agent": "lbsvc-check",
                    "content-type": "application/grpc",
                    "te": "trailers",
                    "grpc-timeout": "1500m",
                },
            )
            self.assertEqual((body[:1], int.from_bytes(body[1:5], "big")), (b"\x00", len(body) - 5))
            self.assertEqual(health_pb2.HealthCheckRequest.FromString(body[5:]).service, service)

    def test_authority(self) -> None:
        """Without a name of its own the backend is asked by its address, scheme left out; a plain address will do."""
        for address in ("h2c://a.example:80", "a.example:80", "http://a.example:80"):
            asked = Asked(health(), address)
            self.assertEqual(asked.result, (True, "SERVING"))
            self.assertEqual(asked.net.requests[0][0][":authority"], "a.example:80")

    def test_health(self) -> None:
        """Only SERVING passes; the word of every other is told."""
        for status, word in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
            self.assertEqual(Asked(health(status)).result, (word == "SERVING", word))

    def test_codes(self) -> None:
        """A call that failed is no health, with trailers alone or behind a message."""
        self.assertEqual(Asked(health(code=12)).result, (False, "grpc-status 12 (unimplemented)"))
        alone = plainly((":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"))
        self.assertEqual(Asked(alone).result, (False, "grpc-status 5 (not_found)"))

    def test_no_grpc(self) -> None:
        """What answers something else is not healthy."""
        self.assertEqual(Asked(plainly((":status", "503"))).result, (False, "status 503"))
        self.assertEqual(Asked(plainly((":status", "200"), body=b"hello")).result, (False, "no grpc-status"))
        nonsense = (False, "malformed answer (no health in it)")
        for message in (b"\x08", b"\x0f", b"\x08\x09", b"\x0a\x05a", b"\xff" * 12):
            self.assertEqual(Asked(health(message=message)).result, nonsense, message)

    def test_not_h2(self) -> None:
        """A backend that speaks HTTP/1 is told from one that is broken."""
        old = Asked(None, answer=b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(old.result, (False, "does not speak HTTP/2"))
        broken = Asked(None, answer=b"\x00\x00\x00\x00\x00\x00\x00\x00\x00" + b"x" * 30)
        assert broken.result is not None
        self.assertFalse(broken.result[0])
        self.assertIn("malformed answer (", broken.result[1])

    def test_endings(self) -> None:
        """However else it may end, it ends once, in words."""

        def goaway(side: Any, number: int, head: dict[str, str], body: bytes) -> None:
            side.close_connection(error_code=11, last_stream_id=0)

        def reset(side: Any, number: int, head: dict[str, str], body: bytes) -> None:
            side.reset_stream(number, 7)

        self.assertEqual(Asked(goaway).result, (False, "the connection was ended (code 11)"))
        self.assertEqual(Asked(reset).result, (False, "the request was reset (code 7)"))
        self.assertEqual(Asked(None, answer=REFUSED).result, (False, "connection refused"))
        self.assertEqual(Asked(None, answer=RESET).result, (False, "connection reset"))
        self.assertEqual(Asked(None, answer=EXHAUSTED).result, (None, "too many open files"))

    def test_timeout(self) -> None:
        """A backend that says nothing has had its time, also where it goes on with a head."""
        silent = Asked(lambda *ignored: None)
        begun = Asked(lambda side, number, head, body: side.send_headers(number, [(":status", "200")]))
        for asked in (silent, begun):
            self.assertIsNone(asked.result)
            asked.net.advance(2.1)
            self.assertEqual(asked.result, (False, "no answer within 2s"))

    def test_cancel(self) -> None:
        """Nothing is told after it was given up, and no socket is left."""
        asked = Asked(lambda *ignored: None)
        asked.check.cancel()
        asked.net.advance(5.0)
        self.assertEqual((asked.told, asked.net.open), ([], []))

    def test_endless(self) -> None:
        """A body without end is looked at so far and no further."""

        def pour(side: Any, number: int, head: dict[str, str], body: bytes) -> None:
            side.send_headers(number, [(":status", "200")])
            for _ in range(3):
                side.send_data(number, b"x" * 16384)

        for kind, expected in (("grpc", (False, "no grpc-status")), ("http", (True, "status 200"))):
            asked = Asked(pour, type=kind)
            self.assertIsNone(asked.result)
            asked.net.more(b"x" * 16384)
            self.assertEqual(asked.result, expected)


class HttpTests(TestCase):
    def test_h2c(self) -> None:
        """An http check of an h2c:// backend has the same meaning by HTTP/2."""
        ok = plainly((":status", "200"), body=b"all is fit")
        asked = Asked(ok, type="http", path="/up", method="GET")
        self.assertEqual(asked.result, (True, "status 200"))
        head = asked.net.requests[0][0]
        self.assertEqual([head[name] for name in (":method", ":path", ":scheme")], ["GET", "/up", "http"])
        self.assertEqual(Asked(ok, type="http", expect_body="fit").result, (True, "status 200"))
        self.assertEqual(
            Asked(ok, type="http", expect_body="sick").result, (False, "status 200, body without what is expected")
        )
        self.assertEqual(Asked(plainly((":status", "500")), type="http").result, (False, "status 500"))

    def test_interim(self) -> None:
        """An interim answer is not the answer."""

        def reply(side: Any, number: int, head: dict[str, str], body: bytes) -> None:
            side.send_headers(number, [(":status", "103")])
            side.send_headers(number, [(":status", "204")], end_stream=True)

        self.assertEqual(Asked(reply, type="http").result, (True, "status 204"))

    def test_cut(self) -> None:
        """An answer that is cut is no answer."""

        def reply(side: Any, number: int, head: dict[str, str], body: bytes) -> None:
            side.send_headers(number, [(":status", "200"), ("content-length", "10")])

        asked = Asked(reply, type="http")
        peer = asked.net.dials[0].peer
        assert peer is not None
        peer.transport.loseConnection()
        asked.net.settle()
        self.assertEqual(asked.result, (False, "status 200, answer cut short"))


class Link:
    """Stands for an SSL connection."""

    def __init__(self, agreed: bytes) -> None:
        self.agreed = agreed
        self.offered: list[bytes] | None = None

    def set_alpn_protos(self, names: list[bytes]) -> None:
        self.offered = names

    def get_alpn_proto_negotiated(self) -> bytes:
        return self.agreed


class Words:
    """Stands for a ClientTls."""

    name = "a.example"

    def __init__(self, agreed: bytes) -> None:
        self.link = Link(agreed)

    def connection(self, skt: Any) -> Link:
        return self.link


class TlsNet(H2Net):
    """The same where the handshake has been made."""

    def dial(self, *given: Any, **keys: Any) -> Dialled:
        tls = given[6]
        assert tls.name == "a.example"
        tls.connection(None)
        return super().dial(*given, **keys)


class TlsTests(TestCase):
    def asked(
        self, agreed: bytes, answer: Any = OPEN, **policy: Any
    ) -> tuple[TlsNet, Words, list[tuple[bool | None, str]]]:
        net = TlsNet(plainly((":status", "200")) if policy["type"] == "http" else health())
        net.answers[80] = answer
        words = Words(agreed)
        backend = Backend("p", "a", "https://a.example:80", "10.0.0.1", 80)
        backend.tls = words
        told: list[tuple[bool | None, str]] = []
        check = check_for(net.clock, HealthCheckPolicy(**policy), backend, lambda ok, word: told.append((ok, word)))
        check.begin(net.dial)
        net.settle()
        return net, words, told

    def test_grpc(self) -> None:
        """h2 alone is offered for gRPC; who does not agree is not asked."""
        net, words, told = self.asked(b"h2", type="grpc")
        self.assertEqual((words.link.offered, told), ([b"h2"], [(True, "SERVING")]))
        self.assertEqual(net.requests[0][0][":scheme"], "https")
        for other in (b"", b"http/1.1"):
            net, words, told = self.asked(other, type="grpc")
            self.assertEqual((net.requests, told), ([], [(False, "does not speak HTTP/2")]))

    def test_http(self) -> None:
        """An http check speaks what was agreed on, of what the pool offers."""
        net, words, told = self.asked(b"h2", type="http")
        self.assertEqual((words.link.offered, told, len(net.requests)), (None, [(True, "status 200")], 1))
        old = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        net, words, told = self.asked(b"http/1.1", old, type="http")
        self.assertEqual((told, net.requests), ([(True, "status 200")], []))


class KindTests(TestCase):
    def test_kinds(self) -> None:
        """What needs no HTTP/2 is asked as ever."""
        for kind, address, expected in (
            ("tcp", "h2c://a:80", Check),
            ("tcp", "a:80", Check),
            ("http", "a:80", HttpCheck),
            ("http", "http://a:80", HttpCheck),
            ("http", "H2C://a:80", H2Check),
            ("grpc", "a:80", H2Check),
        ):
            backend = Backend("p", "a", address, "10.0.0.1", 80)
            made = check_for(Net().clock, HealthCheckPolicy(type=kind), backend, lambda ok, detail: None)
            self.assertIs(type(made), expected, (kind, address))


class MessageTests(TestCase):
    @given(st.text("abcXYZ019._/-", max_size=255))
    def test_requests(self, service: str) -> None:
        """Every name is written as protobuf writes it."""
        message = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        self.assertEqual(_request(service), b"\x00" + len(message).to_bytes(4, "big") + message)

    @given(st.binary(max_size=40))
    def test_answers(self, message: bytes) -> None:
        """Nothing that a backend says raises, and no number is less than 0."""
        framed = b"\x00" + len(message).to_bytes(4, "big") + message
        self.assertGreaterEqual(_read_answer(framed) or 0, 0)
        self.assertIsNone(_read_answer(framed + b"x"))
        self.assertIsNone(_read_answer(b"\x01" + framed[1:]))
