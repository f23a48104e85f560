"""Real clients of HTTP/2: curl, nghttp, h2load, Chromium with its websockets, and frames written by hand."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import struct
import threading
from collections.abc import Iterator

from tests.integration.secured import NAME, SecureCase
from tests.kit.processes import Balancer, Child, RawClient, free_port, run, until
from tests.kit.programs import curl
from tests.kit.upstreams import Answer, Forever, RecordingBackend, Request, Send, WaitFor, response
from tests.kit.websocketing import WebSocketBackend

MIB = 1024 * 1024
#: What curl says about how it went: version, status, connections made.
SUMMARY = "%{http_version} %{http_code} %{num_connects}\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, GOAWAY, HEADERS, DATA, PING = 4, 7, 1, 0, 6
#: GET http://x/ without Huffman coding or indexing but of the static table.
GET = b"\x82\x86\x84\x01\x01x"

PAGE = b"""<!doctype html><title>h2</title><link rel="icon" href="data:,"><script>
const got = [];
async function parts() {
  const texts = await Promise.all([...Array(40).keys()].map(n => fetch("/part/" + n).then(r => r.text())));
  const body = "b".repeat(500000);
  const sent = await fetch("/upload", {method: "POST", body}).then(r => r.text());
  return texts.filter((text, n) => text === "part " + n).length + "-" + sent;
}
async function talk() {
  const told = await parts();
  const socket = new WebSocket("wss://" + location.host + "/chat");
  socket.onopen = () => {
    for (let n = 0; n < 100; n++) socket.send("m" + n);
    socket.send("x".repeat(1000000));
  };
  socket.onmessage = event => {
    got.push(event.data);
    if (got.length === 101) socket.send("close 4001 bye");
  };
  socket.onclose = event => {
    const right = got.filter((text, n) => text === (n < 100 ? "m" + n : "x".repeat(1000000))).length;
    fetch("/done/" + [told, right, event.code, event.reason].join("-"));
  };
}
talk();
</script>"""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def frames(client: RawClient) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of what comes."""
    while True:
        high, low, kind, flags, stream = struct.unpack(">HBBBL", client.exactly(9))
        yield kind, flags, stream, client.exactly(high << 8 | low)


def reply(head: bytes, body: bytes) -> bytes:
    """What the backend answers, by the path."""
    path = head.split(b" ")[1]
    if path == b"/trailers":
        coding = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        return coding + b"3\r\none\r\n0\r\nX-Sum: abc\r\n\r\n"
    if path == b"/large":
        return response(os.urandom(1) * (20 * MIB))
    if body:
        return response(hashlib.sha256(body).hexdigest().encode())
    return response(path)


class H2Case(SecureCase):
    """A listener in plain text and one with TLS, before one backend."""

    def setUp(self) -> None:
        super().setUp()
        self.upstream = self.backend(RecordingBackend([Forever(Answer(reply))]))
        self.balancer, ports = self.secure_all(
            {
                "plain": {"protocol": "http", "pool": "web"},
                "secure": {"protocol": "http", "pool": "web", "tls": {"certificates": [self.site()]}},
            },
            {"web": {"backends": [self.upstream.address]}},
        )
        self.plain, self.tls = ports["plain"], ports["secure"]

    def both(self) -> list[tuple[str, list[str]]]:
        """The beginning of a URL, and what curl must be told to speak HTTP/2 to it."""
        place = ["--cacert", self.ca, "--connect-to", f"{NAME}:443:127.0.0.1:{self.tls}"]
        return [
            (f"http://127.0.0.1:{self.plain}", ["--http2-prior-knowledge"]),
            (f"https://{NAME}", ["--http2", *place]),
        ]

    def over(self, lines: int) -> list[dict[str, object]]:
        """The access log, once all is over and nothing has gone wrong."""
        found = self.settle(self.balancer, lines)
        self.assertEqual(len(found), lines)
        self.assertEqual(self.balancer.metric("lbsvc_http_requests_in_flight"), 0)
        self.assertEqual(self.balancer.metric("lbsvc_backend_active"), 0)
        return found


class CurlTests(H2Case):
    def test_get(self) -> None:
        """By ALPN and by prior knowledge; HEAD has no body. (By the latter curl 7.88 cannot use a connection again.)
        (L7-5)"""
        for url, options in self.both():
            found = curl(*options, "-w", SUMMARY, f"{url}/a", folder=self.folder).stdout
            self.assertEqual(found, b"/a2 200 1\n")
            found = curl(*options, "-I", "-w", SUMMARY, f"{url}/a", folder=self.folder).stdout
            self.assertIn(b"content-length: 2\r\n", found)
            self.assertTrue(found.endswith(b"\r\n\r\n2 200 1\n"), found)
        for line in self.over(4):
            self.assertEqual((line["protocol"], line["reason"]), ("HTTP/2", "ok"))

    def test_shared_connection(self) -> None:
        """Requests share a connection, one after the other, and a hundred at once."""
        url, options = self.both()[1]
        found = curl(*options, "-w", SUMMARY, f"{url}/a", f"{url}/b", folder=self.folder).stdout
        self.assertEqual(found, b"/a2 200 1\n/b2 200 0\n")
        many = ["-Z", "--parallel-max", "100", "-w", SUMMARY, "-o", "/dev/null"]
        found = curl(*options, *many, f"{url}/[1-100]", folder=self.folder).stdout
        self.assertEqual((found.count(b"2 200 0\n"), found.count(b"2 200 1\n")), (99, 1), found)
        self.over(102)

    def test_bodies(self) -> None:
        """20 MiB arrive whole, in both directions."""
        body = os.urandom(MIB) * 20
        (self.folder / "body").write_bytes(body)
        for url, options in self.both():
            send = ["--data-binary", "@body", "-H", "Expect:"]
            found = curl(*options, *send, "-w", SUMMARY, f"{url}/upload", folder=self.folder).stdout
            self.assertEqual(found, hashlib.sha256(body).hexdigest().encode() + b"2 200 1\n")
            found = curl(*options, "-T", "body", f"{url}/upload", folder=self.folder).stdout
            self.assertEqual(found, hashlib.sha256(body).hexdigest().encode())
            found = curl(
                *options, "-w", "%{size_download}", "-o", "/dev/null", f"{url}/large", folder=self.folder
            ).stdout
            self.assertEqual(int(found), 20 * MIB)
        for line in self.over(6):
            self.assertEqual((line["protocol"], line["reason"]), ("HTTP/2", "ok"))

    def test_trailers(self) -> None:
        """A backend's trailers come behind the body, as a header section of their own."""
        for url, options in self.both():
            found = curl(*options, "-D", "heads", f"{url}/trailers", folder=self.folder).stdout
            self.assertEqual(found, b"one")
            head, _, rest = (self.folder / "heads").read_bytes().partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/2 200"), head)
            self.assertNotIn(b"x-sum", head)
            self.assertIn(b"x-sum: abc", rest)

    def test_older_versions(self) -> None:
        """HTTP/1 is spoken on the same ports as ever, also to a client that would rather upgrade to h2c."""
        place = ["--cacert", self.ca, "--connect-to", f"{NAME}:443:127.0.0.1:{self.tls}"]
        for version in ("--http1.1", "--http1.0", "--http2"):
            found = curl(version, "-w", SUMMARY, f"http://127.0.0.1:{self.plain}/a", folder=self.folder).stdout
            # Our answers are of HTTP/1.1 whoever asks (RFC 9110, 6.2).
            self.assertEqual(found, b"/a1.1 200 1\n", version)
        for version in ("--http1.1", "--no-alpn"):
            found = curl(version, *place, "-w", SUMMARY, f"https://{NAME}/a", folder=self.folder).stdout
            self.assertEqual(found, b"/a1.1 200 1\n")
        versions = [str(line["protocol"]) for line in self.over(5)]
        self.assertEqual(sorted(versions), ["HTTP/1.0", *["HTTP/1.1"] * 4])


class OtherClientTests(H2Case):
    def test_nghttp(self) -> None:
        """nghttp asks 100 times at once with priorities, and uploads with trailers, which the backend gets."""
        (self.folder / "body").write_bytes(b"b" * MIB)
        url = f"http://127.0.0.1:{self.plain}"
        got = run(["nghttp", "-n", "-s", "-m", "100", f"{url}/a"], folder=self.folder)
        self.assertEqual((got.returncode, got.stdout.count(b" 200 ")), (0, 100), got.stdout[-2000:])
        got = run(
            ["nghttp", "-d", "body", "--no-content-length", "--trailer", "x-sum: abc", f"{url}/b"], folder=self.folder
        )
        self.assertEqual(got.stdout, hashlib.sha256(b"b" * MIB).hexdigest().encode(), got.stderr)
        self.assertTrue(any(each.endswith(b"0\r\nx-sum: abc\r\n\r\n") for each in self.upstream.received))
        self.over(101)

    def test_h2load(self) -> None:
        """h2load sees no failure: 20 connections, each with 50 streams at once, over TLS and without."""
        port = free_port()
        self.nginx(f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}', port)
        _, ports = self.secure_all(
            {
                "plain": {"protocol": "http", "pool": "web"},
                "secure": {"protocol": "http", "pool": "web", "tls": {"certificates": [self.site("localhost")]}},
            },
            {"web": {"backends": [f"127.0.0.1:{port}"]}},
        )
        for url in (f"http://127.0.0.1:{ports['plain']}/", f"https://127.0.0.1:{ports['secure']}/"):
            command = ["h2load", "-n", "4000", "-c", "20", "-m", "50", url]
            got = run(command, folder=self.folder).stdout.decode()
            self.assertIn("4000 done, 4000 succeeded, 0 failed, 0 errored, 0 timeout", got)
            self.assertIn("status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx", got)

    def test_preface_in_pieces(self) -> None:
        """A plain connection is told by its first bytes, in whatever pieces they come; what only begins alike is HTTP/1."""
        opening = PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 5, 1, GET)
        with RawClient(self.plain) as client:
            for at in range(len(opening)):
                client.send(opening[at : at + 1])
            data = b"".join(self.until_ended(client, 1))
            self.assertEqual(data, b"/")
        with RawClient(self.plain) as client:
            client.send(opening)
            self.assertEqual(b"".join(self.until_ended(client, 1)), b"/")
        with RawClient(self.plain) as client:
            client.send(b"PRI")
            client.send(b" / HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(client.response().status, 501)
        with RawClient(self.plain) as client:
            client.send(b"P")
            client.send(b"OST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual(client.response().body, b"/p")

    def until_ended(self, client: RawClient, number: int) -> Iterator[bytes]:
        """The data of a stream, up to its end."""
        for kind, flags, stream, payload in frames(client):
            if kind == DATA and stream == number:
                yield payload
            if kind in (DATA, HEADERS) and stream == number and flags & 1:
                return


class DrainTests(SecureCase):
    def test_goaway(self) -> None:
        """TERM: GOAWAY without a last stream, then with it; what is under way is answered, and then it all ends."""
        gate = threading.Event()
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"done"))]))
        balancer, port = self.serve(backend.address)
        with RawClient(port) as client:
            client.send(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 5, 1, GET))
            (talk,) = backend.wait_for(1)
            until(lambda: b"\r\n\r\n" in talk.received, "the backend is asked")
            balancer.signal(signal.SIGTERM)
            found: list[tuple[int, bytes]] = []
            for kind, flags, stream, payload in frames(client):
                if kind == GOAWAY:
                    found.append((kind, payload))
                    if len(found) == 2:
                        gate.set()
                elif kind == PING and not flags:
                    client.send(frame(PING, 1, 0, payload))
                elif stream == 1:
                    found.append((kind, payload))
                    if flags & 1:
                        break
            self.assertEqual(found[0], (GOAWAY, struct.pack(">LL", 0x7FFFFFFF, 0)))
            self.assertEqual(found[1], (GOAWAY, struct.pack(">LL", 1, 0)))
            self.assertEqual([kind for kind, _ in found[2:]], [HEADERS, DATA])
            self.assertEqual(found[-1], (DATA, b"done"))
            client.rest()
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


def carried(balancer: Balancer) -> list[dict[str, object]]:
    """The lines of what got past the handshake."""
    return [line for line in balancer.access_lines() if line["reason"] != "handshake_failed"]


class BrowserTests(SecureCase):
    def test_page_and_websocket(self) -> None:
        """Chromium loads a page with its parts, uploads, and talks over a websocket, all of it by HTTP/2."""
        done = threading.Event()
        said: list[bytes] = []

        def page(head: bytes, body: bytes) -> bytes:
            path = head.split(b" ")[1]
            if path.startswith(b"/done/"):
                said.append(path)
                done.set()
            if path.startswith(b"/part/"):
                return response(b"part " + path[6:])
            if path == b"/upload":
                return response(b"%d" % len(body))
            return response(PAGE, "200 OK", "Content-Type: text/html")

        site = self.backend(RecordingBackend([Forever(Answer(page))]))
        chat = WebSocketBackend()
        self.addCleanup(chat.stop)
        route = {"name": "chat", "match": {"path": "/chat"}, "pool": "chat"}
        tls = {"certificates": [self.site()]}
        balancer, ports = self.secure_all(
            {"main": {"protocol": "http", "tls": tls, "routes": [route], "pool": "web"}},
            {"web": {"backends": [site.address]}, "chat": {"backends": [chat.address]}},
        )
        browser = Child(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--no-proxy-server",
                "--ignore-certificate-errors",
                f"--user-data-dir={self.folder / 'browser'}",
                f"--host-resolver-rules=MAP {NAME} 127.0.0.1:{ports['main']}",
                "--remote-debugging-port=0",  # so that it stays when the page is loaded
                f"https://{NAME}/",
            ],
            folder=self.folder,
        )
        self.addCleanup(browser.stop)
        self.assertTrue(done.wait(60), browser.report())
        self.assertEqual(said, [b"/done/40-500000-101-4001-bye"])
        self.assertEqual(chat.wait_for_ends(), [(4001, "bye")])
        browser.signal(signal.SIGTERM)
        browser.wait()
        # Chromium dials ahead what it may not need: a connection without a handshake has a line of its own.
        self.settle(balancer, 44)
        until(lambda: len(carried(balancer)) >= 44, "a line of everything that the page asked for")
        lines = carried(balancer)
        self.assertEqual({line["protocol"] for line in lines}, {"HTTP/2"}, json.dumps(lines[:3]))
        (tunnel,) = [line for line in lines if line["path"] == "/chat"]
        self.assertEqual((tunnel["status"], tunnel["method"], tunnel["reason"]), (200, "CONNECT", "ok"))
        self.assertGreater(int(str(tunnel["bytes_out"])), 1000)
        self.assertIsNone(re.search("Traceback", balancer.text + balancer.errors))
