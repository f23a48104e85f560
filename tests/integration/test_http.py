"""The layer 7 road from end to end: curl and raw sockets in front, nginx and scripted backends behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import RawClient, free_ports, get, run
from tests.kit.upstreams import Answer, Close, Forever, RecordingBackend, response

MIB = 1024 * 1024


def answering(reply: Callable[[bytes, bytes], bytes]) -> RecordingBackend:
    """Keeps connections alive and answers each request by `reply(head, body)`."""
    return RecordingBackend([Forever(Answer(reply))])


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class CurlTests(ProcessTestCase):
    def setUp(self) -> None:
        self.folder = self.scratch()

    def curl(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        result = run(["curl", "-sS", "--max-time", "60", *options], folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def test_files_from_nginx(self) -> None:
        """HTTP/1.0 and 1.1, HEAD, a range, a 304 and a large download by checksum, through to nginx and back."""
        (back,) = free_ports(1)
        content = os.urandom(32 * MIB)
        server = self.nginx(f"server {{ listen 127.0.0.1:{back}; root @FOLDER@; }}", back)
        folder = server.command[2]
        for name, data in (("small.txt", b"small file\n"), ("large.bin", content)):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(data)
        _, port = self.serve(f"127.0.0.1:{back}")
        url = f"http://127.0.0.1:{port}"
        for version in ("--http1.0", "--http1.1"):
            self.assertEqual(self.curl(version, f"{url}/small.txt").stdout, b"small file\n")
        head = self.curl("--head", f"{url}/large.bin").stdout
        self.assertIn(b"\r\ncontent-length: %d\r\n" % len(content), head.lower())
        self.assertEqual(self.curl("-r", "6-9", f"{url}/small.txt").stdout, b"file")
        tagged = self.curl("-D", "-", "-o", "/dev/null", f"{url}/small.txt").stdout
        (etag,) = [line for line in tagged.split(b"\r\n") if line.lower().startswith(b"etag:")]
        fresh = self.curl("-w", "%{http_code}", "-H", "If-None-Match: " + etag[5:].strip().decode(), f"{url}/small.txt")
        self.assertEqual(fresh.stdout, b"304")
        loads = self.at_once(4, lambda _: digest(self.curl(f"{url}/large.bin").stdout))
        self.assertEqual(loads, [digest(content)] * 4)

    def test_uploads(self) -> None:
        """A sized POST, a chunked one, and 2 MiB behind Expect: 100-continue arrive byte for byte."""
        body = os.urandom(2 * MIB)
        (self.folder / "body").write_bytes(body)
        backend = self.backend(answering(lambda head, got: response(digest(got).encode())))
        _, port = self.serve(backend.address)
        for header in ("X-Plain: 1", "Transfer-Encoding: chunked", "Expect: 100-continue"):
            result = self.curl("-v", "--data-binary", "@body", "-H", header, f"http://127.0.0.1:{port}/")
            self.assertEqual(result.stdout, digest(body).encode(), header)
            if header.startswith("Expect"):
                self.assertIn(b"100 Continue", result.stderr)

    def test_keep_alive(self) -> None:
        """curl keeps one connection for many requests, and so do we towards the backend."""
        backend = self.backend(answering(lambda head, body: response(b"x")))
        _, port = self.serve(backend.address)
        result = self.curl("-v", *[f"http://127.0.0.1:{port}/{n}" for n in range(50)])
        self.assertEqual(result.stdout, b"x" * 50)
        self.assertEqual(result.stderr.count(b"Connected to"), 1)
        self.assertEqual(len(backend.conversations), 1)


class WireTests(ProcessTestCase):
    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Ten requests in one segment get their ten answers in order, and the connection stays open."""
        backend = self.backend(answering(lambda head, body: response(head.split(b" ")[1])))
        _, port = self.serve(backend.address)
        with RawClient(port) as client:
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(10)))
            self.assertEqual([client.response().body for _ in range(10)], [b"/%d" % n for n in range(10)])
            self.assertEqual(client.get("/last").body, b"/last")

    def test_what_the_backend_sees(self) -> None:
        """Target and Host as they came; hop-by-hop fields gone; who asked, how and by whom added."""
        backend = self.backend(answering(lambda head, body: response(head)))
        _, port = self.serve(backend.address)
        answer = get(
            port,
            "/a%20b%2Fc?d=%C3%A9&e",
            "Connection: X-Secret",
            "X-Secret: 1",
            "Keep-Alive: 5",
            "X-Kept: yes",
            "X-Forwarded-For: 6.6.6.6",
        )
        head = answer.body.decode()
        self.assertTrue(head.startswith("GET /a%20b%2Fc?d=%C3%A9&e HTTP/1.1\r\n"), head)
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        self.assertEqual(fields["host"], "test.example")
        self.assertEqual(fields["x-kept"], "yes")
        self.assertEqual(fields["x-forwarded-proto"], "http")
        self.assertEqual(fields["x-forwarded-host"], "test.example")
        self.assertEqual(fields["x-forwarded-for"].split(",")[-1].strip(), "127.0.0.1")
        self.assertIn("1.1 ", fields["via"])
        self.assertEqual({"x-secret", "keep-alive"} & set(fields), set())
        self.assertEqual(answer.header("x-request-id"), fields["x-request-id"])

    def test_routes(self) -> None:
        """respond, redirect with the rest of the path and the query, a pool by host, and 404 for what is left."""
        backend = self.backend(answering(lambda head, body: response(b"api")))
        routes = [
            {"match": {"path": "/ping"}, "respond": {"status": 200, "body": "pong\n"}},
            {"match": {"path": "/old/*"}, "redirect": {"to": "https://example.com/new/*"}},
            {"match": {"host": "test.example", "path": "/api/*", "methods": ["GET"]}, "pool": "api"},
        ]
        port, admin = free_ports(2)
        text = config(
            {"main": {"bind": f"127.0.0.1:{port}", "routes": routes, "expose_backend": True}},
            {"api": {"backends": [{"address": backend.address, "name": "one"}], "health_check": "off"}},
            admin=admin,
        )
        self.start(text).ready()
        self.assertEqual((get(port, "/ping").status, get(port, "/ping").body), (200, b"pong\n"))
        moved = get(port, "/old/a/b?c=d")
        self.assertEqual((moved.status, moved.header("location")), (308, "https://example.com/new/a/b?c=d"))
        answer = get(port, "/api/x")
        self.assertEqual((answer.body, answer.header("x-backend")), (b"api", "one"))
        missing = get(port, "/nothing")
        self.assertEqual(missing.status, 404)
        self.assertTrue(missing.body.startswith(b"404 no_route "), missing.body)

    def test_error_bodies(self) -> None:
        """An error says its reason word and the request's id, as JSON where the client prefers it."""
        (closed,) = free_ports(1)
        _, port = self.serve(f"127.0.0.1:{closed}")
        plain = get(port)
        self.assertEqual(plain.status, 502)
        word, name, ident = plain.body.split()[:3]
        self.assertEqual((word, name), (b"502", b"connect_failed"))
        self.assertEqual(ident.decode(), plain.header("x-request-id"))
        self.assertNotIn(str(closed).encode(), plain.body)
        asked = get(port, "/", "Accept: application/json")
        told = json.loads(asked.body)
        self.assertEqual((told["status"], told["reason"]), (502, "connect_failed"))
        self.assertEqual(told["request_id"], asked.header("x-request-id"))
        self.assertTrue(told["message"])

    def test_malformed_requests_go_nowhere(self) -> None:
        """Smuggling attempts are answered 400 and never reach the backend."""
        backend = self.backend(answering(lambda head, body: response(b"x")))
        _, port = self.serve(backend.address)
        both = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        twice = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
        folded = b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"
        bare = b"GET / HTTP/1.1\nHost: a\n\n"
        for request in (both, twice, folded, bare):
            with RawClient(port) as client:
                client.send(request)
                answer = client.response()
                self.assertEqual((answer.status, answer.header("connection")), (400, "close"), request)
        self.assertEqual(backend.conversations, [])

    def test_stale_kept_connection(self) -> None:
        """A backend that closes kept connections while they are idle never costs the client an error."""
        backend = self.backend(RecordingBackend([Answer(lambda head, body: response(b"once")), Close()]))
        _, port = self.serve(backend.address)
        with RawClient(port) as client:
            self.assertEqual({client.get("/").status for _ in range(30)}, {200})
