"""The demo backend: its answers in memory, and the process as people start it."""

from __future__ import annotations

import json
import random
import signal
import sys
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.ctl.demo import DemoBackend, DemoSite
from tests.integration.cases import ProcessTestCase
from tests.kit.processes import Child, RawClient, Response, answers, free_port, until
from tests.kit.wire import Wire


class DemoTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def serve(self, **how: Any) -> DemoBackend:
        return DemoBackend("a", self.clock, random.Random(7), **how)

    def ask(self, backend: DemoBackend, method: str, path: str, body: bytes = b"") -> Any:
        """The client's end of a wire, on which it has asked."""
        site = DemoSite(backend, reactor=self.clock)
        channel = site.buildProtocol(None)
        assert channel is not None
        wire = Wire(None, channel, clock=self.clock)
        client = Heard(wire)
        wire.connect(wire.left, client)
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        wire.left.write(head.encode() + body)
        wire.pump_all()
        return client

    def answer(self, backend: DemoBackend, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        return self.ask(backend, method, path, body).answer  # type: ignore[no-any-return]


class Heard:
    """A client's protocol that keeps what it hears."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.heard = b""

    def makeConnection(self, transport: Any) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: object) -> None:
        pass

    @property
    def answer(self) -> tuple[int, str]:
        self.wire.pump_all()
        head, _, body = self.heard.partition(b"\r\n\r\n")
        return (int(head.split(b" ")[1]), body.decode()) if head else (0, "")


class AnsweringTests(DemoTestCase):
    def test_name(self) -> None:
        """Whatever is asked is answered with the name; HEAD without it (CLI-6)."""
        backend = self.serve()
        self.assertEqual(self.answer(backend, "GET", "/x?y"), (200, "a\n"))
        self.assertEqual(self.answer(backend, "POST", "/", b"hello"), (200, "a\n"))
        self.assertEqual(self.answer(backend, "HEAD", "/"), (200, ""))

    def test_health(self) -> None:
        """Health is switched by POST and PUT, and told by the status (CLI-6)."""
        backend = self.serve()
        self.assertEqual(self.answer(backend, "GET", "/health"), (200, "up\n"))
        self.assertEqual(self.answer(backend, "POST", "/health", b"down\n"), (200, "down\n"))
        self.assertEqual(self.answer(backend, "GET", "/health"), (503, "down\n"))
        self.assertEqual(self.answer(backend, "GET", "/"), (200, "a\n"))
        self.assertEqual(self.answer(backend, "PUT", "/health", b"UP"), (200, "up\n"))
        self.assertEqual(self.answer(backend, "HEAD", "/health"), (200, ""))

    def test_wrong_health(self) -> None:
        """What is neither up nor down changes nothing, and says what would."""
        backend = self.serve()
        self.assertEqual(self.answer(backend, "POST", "/health", b"maybe"), (422, "send up or down\n"))
        self.assertEqual(self.answer(backend, "DELETE", "/health")[0], 405)
        self.assertTrue(backend.is_up)

    def test_latency(self) -> None:
        """An answer takes the latency, more or less by the jitter; health takes none."""
        backend = self.serve(latency=1.0, jitter=0.5)
        client = self.ask(backend, "GET", "/")
        self.assertEqual(self.answer(backend, "GET", "/health"), (200, "up\n"))
        self.clock.advance(0.49)
        self.assertEqual(client.answer, (0, ""))
        self.assertEqual(backend.active, 1)
        self.clock.advance(1.02)
        self.assertEqual(client.answer, (200, "a\n"))
        self.assertEqual(backend.active, 0)

    def test_failures(self) -> None:
        """The share that was asked for fails, with 500."""
        backend = self.serve(failures=0.25)
        found = [self.answer(backend, "GET", "/")[0] for _ in range(400)]
        self.assertEqual(set(found), {200, 500})
        self.assertTrue(70 < found.count(500) < 130, found.count(500))
        self.assertEqual(backend.failed, found.count(500))

    def test_stats(self) -> None:
        """Stats tell of the requests, and not of those for health and stats (CLI-6)."""
        backend = self.serve()
        self.answer(backend, "GET", "/")
        self.answer(backend, "POST", "/")
        self.answer(backend, "GET", "/health")
        self.clock.advance(2)
        status, body = self.answer(backend, "GET", "/stats")
        expected = {"name": "a", "health": "up", "requests": 2, "failures": 0, "active": 0, "gone": 0}
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(body), {**expected, "methods": {"GET": 1, "POST": 1}, "uptime": 2.0})

    def test_gone(self) -> None:
        """A client that goes away before its answer leaves nothing behind."""
        backend = self.serve(latency=1.0)
        client = self.ask(backend, "GET", "/")
        client.wire.left.abortConnection()
        client.wire.pump_all()
        self.assertEqual((backend.active, backend.gone), (0, 1))


class LeavingTests(DemoTestCase):
    def test_idle(self) -> None:
        """With nothing under way it leaves at once, and its health says so."""
        backend = self.serve()
        self.successResultOf(backend.leave())
        self.assertEqual(self.answer(backend, "GET", "/health"), (503, "down\n"))

    def test_under_way(self) -> None:
        """It leaves when what is under way has been answered."""
        backend = self.serve(latency=1.0)
        client = self.ask(backend, "GET", "/")
        leaving = backend.leave()
        self.assertNoResult(leaving)
        self.clock.advance(1.0)
        self.assertEqual(client.answer, (200, "a\n"))
        self.successResultOf(leaving)

    def test_patience(self) -> None:
        """What takes too long is not waited for without end."""
        backend = self.serve(latency=100.0)
        self.ask(backend, "GET", "/")
        leaving = backend.leave(patience=5.0)
        self.clock.advance(4.9)
        self.assertNoResult(leaving)
        self.clock.advance(0.2)
        self.successResultOf(leaving)


class ProcessTests(ProcessTestCase):
    def backend(self, *options: str) -> tuple[Child, int]:  # type: ignore[override]
        port = free_port()
        child = Child(
            [sys.executable, "-m", "lbsvc.ctl.main", "demo-backend", "--port", str(port), *options],
            folder=self.scratch(),
        )
        self.addCleanup(child.stop)
        until(lambda: answers(port) or child.process.poll() is not None, "listening")
        return child, port

    def get(self, port: int, path: str) -> Response:
        with RawClient(port) as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            return client.response()

    def test_signals(self) -> None:
        """USR1 turns health over, TERM ends it with 0; the first line says where it listens."""
        child, port = self.backend("--name", "small")
        self.assertEqual(self.get(port, "/").body, b"small\n")
        self.assertEqual(child.text, f"small: http://127.0.0.1:{port}/\n")
        child.signal(signal.SIGUSR1)
        until(lambda: self.get(port, "/health").status == 503, "down")
        child.signal(signal.SIGUSR1)
        until(lambda: self.get(port, "/health").status == 200, "up")
        child.signal(signal.SIGTERM)
        self.assertEqual(child.wait(), 0, child.report())

    def test_request_in_flight(self) -> None:
        """A request that is under way when TERM comes is answered, and nobody else is taken."""
        child, port = self.backend("--latency", "1s")
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            until(lambda: json.loads(self.get(port, "/stats").body)["active"] == 1, "under way")
            child.signal(signal.SIGTERM)
            until(lambda: not answers(port), "closed")
            self.assertEqual(client.response().status, 200)
        self.assertEqual(child.wait(), 0, child.report())

    def test_taken_port(self) -> None:
        """A port that is taken is one line, and exit 1."""
        _, port = self.backend()
        other = Child(
            [sys.executable, "-m", "lbsvc.ctl.main", "demo-backend", "--port", str(port)], folder=self.scratch()
        )
        self.addCleanup(other.stop)
        self.assertEqual(other.wait(), 1)
        self.assertEqual(other.errors, f"cannot listen on 127.0.0.1:{port}: Address already in use\n")

    def test_wrong_options(self) -> None:
        """A share without % is wrong usage."""
        child = Child(
            [sys.executable, "-m", "lbsvc.ctl.main", "demo-backend", "--failures", "0.1"], folder=self.scratch()
        )
        self.addCleanup(child.stop)
        self.assertEqual(child.wait(), 64)
        self.assertIn("a share such as 10%", child.errors)
