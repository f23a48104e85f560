"""WebSockets through us: `websockets` from PyPI on both sides, and raw sockets for what a library would not do."""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import DEADLINE, ROOT, Balancer, Child, RawClient, answers, free_port, until
from tests.kit.upstreams import Conversation, Forever, RecordingBackend, Request, Send, Step, response
from tests.kit.websocketing import Talk, WebSocketBackend, connect, echo

KIB = 1024
MIB = 1024 * KIB
MESSAGES = 10_000

ASKING = (
    b"GET /chat?room=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def block_of(number: int, size: int) -> bytes:
    """Bytes like no other's."""
    return (hashlib.sha256(b"%d" % number).digest() * (size // 32 + 1))[:size]


class UpgradeCase(ProcessTestCase):
    def front(self, talk: Talk = echo, **keys: Any) -> tuple[WebSocketBackend, Balancer, int]:
        """A balancer before a WebSocket backend."""
        backend = WebSocketBackend(talk)
        self.addCleanup(backend.stop)
        balancer, port = self.serve(backend.address, **keys)
        return backend, balancer, port

    def raw_front(self, *script: Step, **keys: Any) -> tuple[RecordingBackend, Balancer, int]:
        backend = self.backend(RecordingBackend([Request(), *script]))
        return backend, *self.serve(backend.address, **keys)

    def settled(self, balancer: Balancer, count: int = 1) -> list[dict[str, object]]:
        """Nothing is under way any more; the access log's `count` lines."""
        until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 0, "none in flight")
        until(lambda: balancer.metric("lbsvc_listener_connections") == 0, "no connection left")
        until(lambda: len(balancer.access_lines()) >= count, f"{count} lines in the access log")
        self.assertEqual(balancer.metric("lbsvc_backend_active"), 0)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        return balancer.access_lines()


class TalkTests(UpgradeCase):
    def test_ten_thousand_messages(self) -> None:
        """10,000 messages of all small sizes, sent without waiting: each comes back, whole and in order (L7-4, V15)."""
        messages = [block_of(n, n % 300) if n % 2 else f"text {n}" for n in range(MESSAGES)]
        backend, balancer, port = self.front()
        with connect(port, compression=None) as client:

            def talk() -> None:
                for message in messages:
                    client.send(message)

            talking = threading.Thread(target=talk, daemon=True)
            talking.start()
            for message in messages:
                self.assertEqual(client.recv(DEADLINE), message)
            talking.join(DEADLINE)
        self.assertEqual(backend.wait_for_ends(), [(1000, "")])
        (line,) = self.settled(balancer)
        self.assertEqual((line["status"], line["reason"], line["protocol"]), (101, "ok", "HTTP/1.1"))
        for way in ("bytes_in", "bytes_out"):
            self.assertGreater(int(str(line[way])), sum(map(len, messages)))
            direction = way.removeprefix("bytes_")
            self.assertEqual(balancer.metric("lbsvc_bytes_total", listener="main", direction=direction), line[way])
        self.assertEqual(balancer.metric("lbsvc_http_requests_total", code="101"), 1)
        self.assertEqual(balancer.metric("lbsvc_backend_connections"), 0)

    def test_large_messages(self) -> None:
        """Frames of 1 MiB, plain, compressed, and messages in several frames, come back byte for byte."""
        _, _, port = self.front()
        for compression in (None, "deflate"):
            with connect(port, compression=compression) as client:
                for number in range(16):
                    frame = block_of(number, MIB)
                    client.send([frame[:1000], frame[1000:500_000], frame[500_000:]] if number % 4 == 3 else frame)
                    self.assertEqual(client.recv(DEADLINE), frame)
                client.send("ä" * MIB)
                self.assertEqual(client.recv(DEADLINE), "ä" * MIB)

    def test_what_is_negotiated(self) -> None:
        """Subprotocol, extension, origin, target and who asks: both ends agree on them through us."""
        backend, _, port = self.front()
        keys: dict[str, Any] = {"subprotocols": ["other", "superchat", "chat"], "origin": "http://site.example"}
        with connect(port, "/room?x=%20y", additional_headers={"X-Forwarded-For": "6.6.6.6"}, **keys) as client:
            client.send("there")
            self.assertEqual(client.recv(DEADLINE), "there")
            self.assertEqual(client.subprotocol, "superchat")
            self.assertIn("permessage-deflate", client.response.headers["Sec-WebSocket-Extensions"])
            (there,) = backend.connections
            self.assertEqual((there.subprotocol, there.request.path), ("superchat", "/room?x=%20y"))
            headers = there.request.headers
            self.assertEqual(headers["X-Forwarded-For"], "127.0.0.1")
            self.assertEqual(headers["Origin"], "http://site.example")
            self.assertEqual(headers["X-Request-Id"], client.response.headers["X-Request-Id"])

    def test_close_codes(self) -> None:
        """1000, 1001 and 4000, with their reasons, are what the other end gets, whichever end closes."""
        backend, balancer, port = self.front()
        codes = [(1000, "done"), (1001, "going away"), (4000, "ours, with ü")]
        for code, reason in codes:
            with connect(port) as client:
                client.close(code, reason)
        self.assertEqual(backend.wait_for_ends(3), codes)
        for code, reason in codes:
            with connect(port) as client:
                client.send(f"close {code} {reason}")
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv(DEADLINE)
                assert caught.exception.rcvd is not None
                self.assertEqual((caught.exception.rcvd.code, caught.exception.rcvd.reason), (code, reason))
        lines = self.settled(balancer, 6)
        self.assertEqual([(line["status"], line["reason"]) for line in lines], [(101, "ok")] * 6)

    def test_pings(self) -> None:
        """A ping of either end is answered by the other, not by us."""
        answered = threading.Event()

        def ping(connection: Any) -> None:
            if connection.ping(b"from the backend").wait(DEADLINE):
                answered.set()
            echo(connection)

        _, _, port = self.front(ping)
        with connect(port) as client:
            self.assertTrue(client.ping(b"from the client").wait(DEADLINE))
            self.assertTrue(answered.wait(DEADLINE))

    def test_many_at_once(self) -> None:
        """100 at a time: each is a request in flight and a connection to the backend, and hears only its own echo
        (L7-4)."""
        _, balancer, port = self.front()
        everyone = threading.Barrier(101, timeout=DEADLINE)

        def talk(number: int) -> bool:
            if number == 100:
                until(lambda: balancer.metric("lbsvc_backend_active") == 100, "100 active")
                self.assertEqual(balancer.metric("lbsvc_http_requests_in_flight"), 100)
                everyone.wait()
                return True
            with connect(port) as client:
                for word in ("one", "two", "three"):
                    client.send(f"{word} {number}")
                    if client.recv(DEADLINE) != f"{word} {number}":
                        return False
                everyone.wait()
            return True

        self.assertEqual(self.at_once(101, talk), [True] * 101)
        self.settled(balancer, 100)

    def test_after_requests(self) -> None:
        """A connection that was kept after ordinary requests may be upgraded; a backend that refused did not take it."""
        backend, balancer, port = self.front()
        with RawClient(port) as client:
            for _ in range(2):
                client.send(ASKING.replace(b"/chat", b"/refused"))
                answer = client.response()
                self.assertEqual((answer.status, answer.body), (403, b"not you\n"))
            client.send(ASKING)
            switched = client.response()
            self.assertEqual((switched.status, switched.header("upgrade").lower()), (101, "websocket"))
            self.assertEqual(switched.header("connection").lower(), "upgrade")
            self.assertEqual(switched.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            client.send(bytes.fromhex("8185 00000000") + b"hello")  # a text, masked with zeros
            self.assertEqual(client.exactly(7), b"\x81\x05hello")
        self.assertEqual([line["status"] for line in self.settled(balancer, 3)], [403, 403, 101])
        self.assertEqual(backend.wait_for_ends(), [(1006, "")])
        with self.assertRaises(InvalidStatus) as caught, connect(port, "/refused"):
            raise AssertionError("refused, and yet connected")
        self.assertEqual(caught.exception.response.status_code, 403)

    def test_another_backend(self) -> None:
        """Where one backend cannot be reached, the handshake goes to the next."""
        backend = WebSocketBackend()
        self.addCleanup(backend.stop)
        _, port = self.serve(f"127.0.0.1:{free_port()}", backend.address)
        for number in range(6):
            with connect(port) as client:
                client.send(f"{number}")
                self.assertEqual(client.recv(DEADLINE), f"{number}")


class EndTests(UpgradeCase):
    def test_client_without_a_close(self) -> None:
        """A client that just goes: the backend sees 1006, its seat is free, and it is not to blame (L2)."""
        backend, balancer, port = self.front()
        for linger in (None, b"\1\0\0\0\0\0\0\0"):  # by FIN, and by a reset
            with connect(port) as client:
                client.send("hello")
                self.assertEqual(client.recv(DEADLINE), "hello")
                if linger is not None:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.socket.shutdown(socket.SHUT_RDWR) if linger is None else client.socket.close()
        self.assertEqual(backend.wait_for_ends(2), [(1006, "")] * 2)
        lines = self.settled(balancer, 2)
        self.assertTrue({line["reason"] for line in lines} <= {"ok", "client_closed"}, lines)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)

    def test_killed_backend(self) -> None:
        """kill -9 of the backend: its clients see 1006 at once, and a new one is served by the next backend."""
        port = free_port()
        child = Child([sys.executable, "-m", "tests.kit.websocketing", str(port)], folder=ROOT)
        self.addCleanup(child.stop)
        until(lambda: answers(port), child.report())
        spare = WebSocketBackend()
        self.addCleanup(spare.stop)
        backends = [f"127.0.0.1:{port}", {"address": spare.address, "backup": True}]
        balancer, front = self.serve(*backends)
        with connect(front) as client:
            client.send("hello")
            self.assertEqual(client.recv(DEADLINE), "hello")
            child.process.kill()
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(DEADLINE)
            self.assertIsNone(caught.exception.rcvd)  # no close frame: 1006
        with connect(front) as client:
            client.send("again")
            self.assertEqual(client.recv(DEADLINE), "again")
        self.settled(balancer, 2)
        self.assertEqual(len(spare.connections), 1)

    def test_reset_by_the_backend(self) -> None:
        """A backend that resets the connection resets the client's too, and is counted as failed."""

        class Reset(Step):
            def run(self, talk: Conversation) -> None:
                talk.until(b"bye")
                talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                talk.sock.close()

        _, balancer, port = self.raw_front(Send(SWITCHING), Reset())
        with RawClient(port) as client:
            client.send(ASKING)
            client.until(b"\r\n\r\n")
            client.send(b"bye")
            self.assertRaises(ConnectionResetError, client.rest)
        self.assertEqual(self.settled(balancer)[0]["reason"], "upstream_reset")

    def test_half_close(self) -> None:
        """An end that has said all it had to say still hears the other out."""

        class LastWords(Step):
            def run(self, talk: Conversation) -> None:
                while talk.more():
                    pass
                talk.send(b"last words " * 10_000)
                talk.sock.shutdown(socket.SHUT_WR)

        backend, balancer, port = self.raw_front(Send(SWITCHING), LastWords())
        with RawClient(port) as client:
            client.send(ASKING)
            client.until(b"\r\n\r\n")
            client.send(b"that is all")
            client.finish()
            self.assertEqual(client.rest(), b"last words " * 10_000)
        self.assertTrue(backend.received[0].endswith(b"\r\n\r\nthat is all"))
        self.assertEqual(self.settled(balancer)[0]["reason"], "ok")


class WireTests(UpgradeCase):
    def test_first_bytes(self) -> None:
        """What the backend sends in one segment with its 101, and the client before it has seen it, is not lost."""
        backend, _, port = self.raw_front(Send(SWITCHING + b"welcome"))
        with RawClient(port) as client:
            client.send(ASKING + b"impatient")
            client.until(b"\r\n\r\n")
            self.assertEqual(client.exactly(7), b"welcome")
            client.send(b" indeed")
            until(lambda: backend.received[0].endswith(b"\r\n\r\nimpatient indeed"), "all of it there")

    def test_what_the_backend_sees(self) -> None:
        """One Connection and one Upgrade, of our making; target, key and version as they came."""
        backend, _, port = self.raw_front(Send(SWITCHING))
        with RawClient(port) as client:
            client.send(ASKING)
            self.assertTrue(client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 "))
        head = backend.received[0].partition(b"\r\n\r\n")[0].lower()
        self.assertTrue(head.startswith(b"get /chat?room=1 http/1.1\r\n"))
        for line in (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13"):
            self.assertEqual(head.count(b"\r\n" + line), 1, head)
        self.assertEqual(head.count(b"upgrade:"), 1)
        self.assertEqual(head.count(b"connection:"), 1)

    def test_nobody_asked(self) -> None:
        """A 101 to a request that did not ask for one is nonsense: 502, and the connection is not used again."""
        backend, _, port = self.raw_front(Send(SWITCHING + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
        for request in (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ASKING.replace(b"WebSocket", b"h2c"),
            ASKING.replace(b"keep-alive, Upgrade", b"keep-alive"),
        ):
            with RawClient(port) as client:
                client.send(request)
                answer = client.response()
                self.assertEqual(answer.status, 502)
                self.assertTrue(answer.body.startswith(b"502 upstream_protocol "), answer.body)
        heads = [received.lower() for received in backend.received]
        self.assertEqual([head for head in heads if b"\r\nupgrade:" in head or b"\r\nconnection:" in head], [])

    def test_declined(self) -> None:
        """A backend that answers as if nobody had asked for more is passed on, and the connection goes on as HTTP."""
        backend = self.backend(RecordingBackend([Forever(Request(), Send(response(b"plain")))]))
        balancer, port = self.serve(backend.address)
        with RawClient(port) as client:
            for _ in range(3):
                client.send(ASKING)
                self.assertEqual(client.response().body, b"plain")
        self.assertEqual([line["status"] for line in self.settled(balancer, 3)], [200] * 3)
