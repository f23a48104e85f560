"""Real backends of HTTP/2: nginx by prior knowledge and by ALPN, before the real process."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from tests.integration.secured import SecureCase
from tests.kit.processes import Balancer, RawClient, free_port, get, run, until
from tests.kit.programs import Wrk, curl

MIB = 1024 * 1024
#: What nginx says of a request: the protocol that it was asked in, the connection, and its fields.
SAID = 'return 200 "$server_protocol $connection $http_host $request_method $http_te";'


class H2BackendCase(SecureCase):
    def h2_nginx(self, listen: str, *, extra: str = "", port: int = 0) -> int:
        """nginx that listens so on a port, which is given back; files of its folder under /file/."""
        port = port or free_port()
        files = self.files(self.authority.issue("localhost"), f"backend-{port}")
        tls = f"ssl_certificate {files['cert']}; ssl_certificate_key {files['key']};" if "ssl" in listen else ""
        self.nginx(
            f"server {{ listen 127.0.0.1:{port} {listen}; {tls} {extra} location / {{ {SAID} }}"
            f" location /file/ {{ alias {self.folder}/; dav_methods PUT; }} }}",
            port,
        )
        return port

    def over_tls(self, port: int, protocol: str, **keys: Any) -> tuple[Balancer, int]:
        """A listener before that backend, verified."""
        pool = {"tls": {"ca": self.ca}, "protocol": protocol, **keys.pop("pool", {})}
        return self.serve(f"https://localhost:{port}", pool=pool, **keys)

    def said(self, port: int) -> list[str]:
        return get(port).body.decode().split()


class PriorKnowledgeTests(H2BackendCase):
    def test_requests_share_a_connection(self) -> None:
        """All requests of all clients go on one connection, as HTTP/2, with the client's Host."""
        backend = self.h2_nginx("http2")
        _, port = self.serve(f"h2c://127.0.0.1:{backend}")
        answers = self.at_once(20, lambda number: self.said(port))
        self.assertEqual({answer[0] for answer in answers}, {"HTTP/2.0"})
        self.assertEqual(len({answer[1] for answer in answers}), 1)
        self.assertEqual(answers[0][2:], ["test.example", "GET"])

    def test_more_than_one_connection_takes(self) -> None:
        """Past the streams that the backend allows there are more connections, and no request fails."""
        backend = self.h2_nginx("http2", extra="http2_max_concurrent_streams 2; keepalive_requests 50;")
        balancer, port = self.serve(f"h2c://127.0.0.1:{backend}", pool={"retry": "off"})
        load = Wrk(f"http://127.0.0.1:{port}/", folder=self.scratch())
        until(lambda: balancer.metric("lbsvc_http_requests_total") > 2000, "2000 requests")
        report = load.end()
        self.assertEqual((report.errors, report.requests > 2000), ({}, True))

    def test_large_bodies(self) -> None:
        """20 MiB go up and down unharmed, to clients of both versions."""
        content = os.urandom(MIB) * 20
        (self.folder / "down").write_bytes(content)
        (self.folder / "up").write_bytes(content[::-1])
        backend = self.h2_nginx("http2")
        _, port = self.serve(f"h2c://127.0.0.1:{backend}")
        for version in ("--http1.1", "--http2-prior-knowledge"):
            found = curl(version, f"http://127.0.0.1:{port}/file/down", folder=self.folder).stdout
            self.assertEqual(hashlib.sha256(found).digest(), hashlib.sha256(content).digest())
            target = f"http://127.0.0.1:{port}/file/got{version}"
            curl(version, "-T", "up", target, folder=self.folder)
            self.assertEqual((self.folder / f"got{version}").read_bytes(), content[::-1])

    def test_head_and_errors(self) -> None:
        """HEAD, 304 and 404 of a real server arrive as they are."""
        (self.folder / "small").write_bytes(b"x" * 1000)
        backend = self.h2_nginx("http2")
        _, port = self.serve(f"h2c://127.0.0.1:{backend}")
        url = f"http://127.0.0.1:{port}/file/small"
        head = curl("-I", url, folder=self.folder).stdout.decode()
        self.assertIn("HTTP/1.1 200", head)
        self.assertIn("Content-Length: 1000", head.title())
        since = next(line for line in head.split("\r\n") if line.lower().startswith("last-modified"))
        asked = curl("-i", "-H", "If-Modified-Since" + since[13:], url, folder=self.folder).stdout
        self.assertIn(b"HTTP/1.1 304", asked)
        self.assertIn(b"HTTP/1.1 404", curl("-i", url + "er", folder=self.folder).stdout)

    def test_graceful_end(self) -> None:
        """nginx ends each connection after a few requests (GOAWAY): no request is lost, retries or not."""
        backend = self.h2_nginx("http2", extra="keepalive_requests 3;")
        balancer, port = self.serve(f"h2c://127.0.0.1:{backend}", pool={"retry": "off"})
        folder = self.scratch()
        posts = ["-d", "x", "-w", "%{http_code} "]
        urls = [f"http://127.0.0.1:{port}/", "-o", "/dev/null"] * 30
        told = run(["curl", "-q", "-sS", *posts, *urls], folder=folder).stdout.decode().split()
        self.assertEqual(told, ["200"] * 30)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)

    def test_backend_that_speaks_http1(self) -> None:
        """h2c:// before a server of HTTP/1.1 alone is a connect that fails, and says why."""
        backend = self.h2_nginx("")
        balancer, port = self.serve(f"h2c://127.0.0.1:{backend}")
        self.assertEqual(get(port).status, 502)
        until(lambda: balancer.access_lines(), "logged")
        self.assertEqual(balancer.access_lines()[-1]["reason"], "connect_failed")


class AlpnTests(H2BackendCase):
    def test_auto(self) -> None:
        """`auto` speaks HTTP/2 where the backend agrees, and HTTP/1.1 where it does not."""
        for listen, version in (("ssl http2", "HTTP/2.0"), ("ssl", "HTTP/1.1")):
            backend = self.h2_nginx(listen)
            _, port = self.over_tls(backend, "auto")
            answers = self.at_once(8, lambda number, port=port: self.said(port)[0])  # type: ignore[misc]
            self.assertEqual(set(answers), {version})

    def test_must(self) -> None:
        """`h2` speaks HTTP/2, and calls a backend that does not a failed connect."""
        _, port = self.over_tls(self.h2_nginx("ssl http2"), "h2")
        self.assertEqual(self.said(port)[0], "HTTP/2.0")
        balancer, port = self.over_tls(self.h2_nginx("ssl"), "h2")
        self.assertEqual(get(port).status, 502)
        until(lambda: balancer.access_lines(), "logged")
        self.assertEqual(balancer.access_lines()[-1]["reason"], "connect_failed")

    def test_default(self) -> None:
        """Without `protocol` it is HTTP/1.1, whatever the backend could."""
        _, port = self.over_tls(self.h2_nginx("ssl http2"), "http/1.1")
        self.assertEqual(self.said(port)[0], "HTTP/1.1")

    def test_checked(self) -> None:
        """Checks of HTTP succeed before each, as `auto` and as `h2`."""
        for protocol in ("auto", "h2"):
            check = {"type": "http", "path": "/", "interval": "100ms"}
            balancer, port = self.over_tls(self.h2_nginx("ssl http2"), protocol, pool={"health_check": check})
            until(
                lambda balancer=balancer: balancer.metric("lbsvc_health_checks_total", result="success"),  # type: ignore[misc]
                "checked",
            )
            self.assertEqual(get(port).status, 200)

    def test_unverified(self) -> None:
        """A backend that is not who it should be is refused on this road too."""
        pool = {"protocol": "h2"}
        balancer, port = self.serve(f"https://localhost:{self.h2_nginx('ssl http2')}", pool=pool)
        self.assertEqual(get(port).status, 502)
        until(lambda: balancer.access_lines(), "logged")
        self.assertEqual(balancer.access_lines()[-1]["reason"], "tls_verify")

    def test_upgrade(self) -> None:
        """An upgrade goes by HTTP/1.1 to a backend that could speak both."""
        _, port = self.over_tls(self.h2_nginx("ssl http2"), "auto")
        url = f"http://127.0.0.1:{port}/"
        fields = ("-H", "Connection: upgrade", "-H", "Upgrade: websocket")
        self.assertEqual(curl(url, folder=self.folder).stdout.split()[0], b"HTTP/2.0")
        self.assertEqual(curl(*fields, url, folder=self.folder).stdout.split()[0], b"HTTP/1.1")


class HeraldTests(H2BackendCase):
    def test_proxy_header(self) -> None:
        """A connection that begins with a PROXY header is for the requests of that client's connection alone."""
        told = 'location /who { return 200 "$proxy_protocol_addr $proxy_protocol_port $connection"; }'
        backend = self.h2_nginx("http2 proxy_protocol", extra=told)
        _, port = self.serve(f"h2c://127.0.0.1:{backend}", pool={"proxy_protocol": "v2"})
        clients = [RawClient(port) for _ in range(2)]
        for client in clients:
            self.addCleanup(client.sock.close)
        found = []
        for client in [*clients, *clients]:
            client.send(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
            found.append(client.response().body.decode().split())
        self.assertEqual([int(each[1]) for each in found[:2]], [client.sock.getsockname()[1] for client in clients])
        self.assertEqual(found[:2], found[2:])
        self.assertNotEqual(found[0][2], found[1][2])
