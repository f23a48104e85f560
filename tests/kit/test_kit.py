"""Scripted backends, raw client and builders do what other tests take for granted."""

from __future__ import annotations

import threading

from twisted.trial.unittest import TestCase

from tests.kit import builders
from tests.kit.processes import RawClient, free_ports, get
from tests.kit.upstreams import (
    Close,
    Expect,
    HalfClose,
    ReadToEnd,
    RecordingBackend,
    Request,
    Reset,
    Send,
    SlowBytes,
    Take,
    WaitFor,
    echo_backend,
    named_backend,
    response,
)


class BackendTests(TestCase):
    def test_records_exact_bytes(self) -> None:
        """What each connection brought is kept byte for byte, and the script's answer arrives."""
        with RecordingBackend([Request(), Send(response(b"ok")), Close()]) as backend:
            answer = get(backend.port, "/a?b=c")
            self.assertEqual((answer.status, answer.body), (200, b"ok"))
            expected = b"GET /a?b=c HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"
            self.assertEqual(backend.received, [expected])

    def test_script_by_connection(self) -> None:
        """A callable gives each connection its own script."""
        with RecordingBackend(lambda number: [Send(b"%d" % number), Close()]) as backend:
            seen = []
            for _ in range(3):
                with RawClient(backend.port) as client:
                    seen.append(client.rest())
            self.assertEqual(seen, [b"0", b"1", b"2"])
            self.assertEqual(len(backend.wait_for(3)), 3)

    def test_bodies_are_read_whole(self) -> None:
        """A request ends where its length or its last chunk says; the next begins behind it."""
        head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
        sized = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
        script = [Request(), Send(b"1"), Request(), Send(b"2"), Close()]
        with RecordingBackend(script) as backend, RawClient(backend.port) as client:
            client.send(chunked + sized)
            self.assertEqual(client.rest(), b"12")
            self.assertEqual(backend.received, [chunked + sized])

    def test_gate_half_close_and_end(self) -> None:
        """A script waits for the test, finishes writing first, and reads on to the end."""
        gate = threading.Event()
        script = [
            Expect(b"!"),
            Take(2),
            WaitFor(gate),
            SlowBytes(b"slow", 2, 0.001),
            HalfClose(),
            ReadToEnd(),
        ]
        with RecordingBackend(script) as backend, RawClient(backend.port) as client:
            client.send(b"go!ab")
            gate.set()
            self.assertEqual(client.rest(), b"slow")
            client.send(b"more")
            client.finish()
            talk = backend.wait_for(1)[0]
            self.assertTrue(talk.over.wait(10))
            self.assertEqual((bytes(talk.received), talk.ended), (b"go!abmore", "eof"))

    def test_reset(self) -> None:
        """A reset reaches the client as one."""
        with RecordingBackend([Expect(b"x"), Reset()]) as backend, RawClient(backend.port) as client:
            client.send(b"x")
            self.assertRaises(ConnectionResetError, client.rest)

    def test_named_and_echo(self) -> None:
        """The two ready-made backends: one answers with its name on a kept connection, one echoes."""
        with named_backend("alpha") as backend, RawClient(backend.port) as client:
            self.assertEqual([client.get("/").body, client.get("/health").body], [b"alpha", b"alpha"])
        with echo_backend() as backend, RawClient(backend.port) as client:
            client.send(b"hello")
            client.finish()
            self.assertEqual(client.rest(), b"hello")

    def test_script_errors_surface(self) -> None:
        """A script that is wrong fails the test that uses it."""
        backend = RecordingBackend(lambda number: [None])  # type: ignore[list-item]
        with RawClient(backend.port) as client:
            client.rest()
        self.assertRaises(AttributeError, backend.stop)


class ClientTests(TestCase):
    def test_responses_by_framing(self) -> None:
        """Interim, chunked and close-delimited responses are told apart on one connection."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
        script = [
            Send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + chunked + b"HTTP/1.0 200 OK\r\n\r\nrest"),
            Close(),
        ]
        with RecordingBackend(script) as backend, RawClient(backend.port) as client:
            seen = [client.response() for _ in range(3)]
        self.assertEqual([(r.status, r.body) for r in seen], [(103, b""), (200, b"abc"), (200, b"rest")])
        self.assertEqual(seen[1].raw, chunked)

    def test_free_ports_differ(self) -> None:
        """Free ports are different from each other."""
        self.assertEqual(len(set(free_ports(5))), 5)


class BuilderTests(TestCase):
    def test_tree(self) -> None:
        """Builders give the same tree as the loader would, named and with the defaults."""
        tree = builders.settings(
            builders.listener("127.0.0.1:8080", pool="web", routes=(builders.route(path="/x", pool="web"),)),
            builders.pool("http://127.0.0.1:8001", builders.backend("[::1]:8002", weight=2)),
        )
        self.assertEqual(str(tree.listeners["main"].binds[0]), "127.0.0.1:8080")
        self.assertEqual(
            [(b.host, b.port, b.weight) for b in tree.pools["web"].backends],
            [
                ("127.0.0.1", 8001, 1),
                ("::1", 8002, 2),
            ],
        )
