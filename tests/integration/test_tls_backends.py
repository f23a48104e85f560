"""TLS towards backends: who is believed, what is shown and remembered, and what becomes of impostors."""

from __future__ import annotations

import hashlib
import json
import ssl
from typing import Any

from tests.integration.secured import NAME, SecureCase
from tests.kit.authority import Authority, Leaf
from tests.kit.processes import Balancer, RawClient, Response, free_port, get, until
from tests.kit.secure_wire import EndSecurely, SecureBackend
from tests.kit.upstreams import (
    Answer,
    Close,
    Forever,
    Hang,
    RecordingBackend,
    Request,
    Send,
    Take,
    echo_backend,
    response,
)

MIB = 1024 * 1024
VERSIONS = ("1.2", "1.3")


class VerifyCase(SecureCase):
    def front(self, *backends: SecureBackend | str, **keys: Any) -> tuple[Balancer, int]:
        """A plain listener before backends that are verified for the name `localhost`, by our CA; `tls` adds to that."""
        tls = {"ca": self.ca, **keys.pop("tls", {})}
        addresses = [
            each if isinstance(each, str) else f"https://{keys.get('host', 'localhost')}:{each.port}"
            for each in backends
        ]
        keys.pop("host", None)
        pool = {"tls": tls, **keys.pop("pool", {})}
        return self.serve(*addresses, pool=pool, **keys)

    def assert_refused(self, balancer: Balancer, answer: Response) -> None:
        """502, and the word is tls_verify everywhere."""
        self.assertEqual((answer.status, answer.body.split()[1]), (502, b"tls_verify"))
        self.assertGreater(balancer.metric("lbsvc_backend_failures_total", reason="tls_verify"), 0)
        until(lambda: balancer.access_lines(), "logged")
        self.assertEqual(balancer.access_lines()[-1]["reason"], "tls_verify")


class VerifyTests(VerifyCase):
    def test_right(self) -> None:
        """The right name is served in each version, asks for it by SNI, and the client's Host is what the backend gets
        (TLS-5)."""
        for version in VERSIONS:
            backend = self.secure_backend(self.authority.issue("localhost"), version=version)
            balancer, port = self.front(backend)
            answer = get(port)
            self.assertIn(b"\r\nHost: test.example\r\n", answer.body)
            self.assertEqual(backend.handshakes, [(f"TLSv{version}", "localhost", "", False)])
            self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)

    def test_wrong(self) -> None:
        """The five others of the six certificates are refused, and nothing is said to them, whatever the version
        (TLS-5)."""
        wrong: dict[str, Leaf] = {
            "wrong name": self.authority.issue("other.example"),
            "no name": self.authority.issue("localhost", san=False),
            "malformed name": self.authority.issue("*"),
            "another CA": Authority().issue("localhost"),
            "expired": self.authority.issue("localhost", days=-2),
        }
        for what, leaf in wrong.items():
            for version in VERSIONS:
                backend = self.secure_backend(leaf, version=version)
                balancer, port = self.front(backend)
                self.assert_refused(balancer, get(port))
                self.assertEqual([bytes(talk.received) for talk in backend.conversations if talk.received], [], what)
                balancer.stop()
                backend.stop()

    def test_another_is_tried(self) -> None:
        """Where one backend is not who it should be the request goes to one that is: the client notices nothing."""
        bad = self.secure_backend(Authority().issue("localhost"))
        good = self.secure_backend(self.authority.issue("localhost"))
        balancer, port = self.front(bad, good, pool={"retry": {"attempts": 2}})
        for _ in range(4):
            self.assertEqual(get(port).status, 200)
        self.assertGreater(balancer.metric("lbsvc_retries_total"), 0)
        self.assertEqual(balancer.metric("lbsvc_http_requests_total", code="502"), 0)

    def test_addresses_and_names(self) -> None:
        """A host that is an address is verified as one and asks for no name; server_name stands for the host, both ways."""
        by_address = self.secure_backend(self.authority.issue("127.0.0.1"))
        _, port = self.front(by_address, host="127.0.0.1")
        self.assertEqual(get(port).status, 200)
        self.assertEqual(by_address.handshakes[0][1], "")

        named = self.secure_backend(self.authority.issue(NAME))
        balancer, port = self.front(named, host="127.0.0.1")
        self.assert_refused(balancer, get(port))
        _, port = self.front(named, host="127.0.0.1", tls={"server_name": NAME})
        self.assertEqual(get(port).status, 200)
        self.assertEqual(named.handshakes[-1][1], NAME)

    def test_the_system_store(self) -> None:
        """Without `ca` the system's store counts, and our CA is not in it; where it is, the backend is believed
        (TLS-5)."""
        backend = self.secure_backend(self.authority.issue("localhost"))
        balancer, port = self.front(backend, tls={"ca": None})
        self.assert_refused(balancer, get(port))
        _, port = self.front(backend, tls={"ca": None}, process={"env": {"SSL_CERT_FILE": self.ca}})
        self.assertEqual(get(port).status, 200)

    def test_not_verified(self) -> None:
        """`verify: false` believes everybody (TLS-5)."""
        backend = self.secure_backend(Authority().issue("whoever", days=-2))
        _, port = self.front(backend, tls={"ca": None, "verify": False})
        self.assertEqual(get(port).status, 200)

    def test_no_tls_there(self) -> None:
        """A backend that speaks no TLS, says nothing, or hangs up: connect_failed or a timeout, and 502 or 504."""
        plain = self.backend(RecordingBackend([Send(b"220 hello\r\n")]))
        balancer, port = self.front(f"https://localhost:{plain.port}")
        self.assertEqual(get(port).body.split()[1], b"connect_failed")
        gone = self.secure_backend(self.authority.issue("localhost"))
        gone.script = [Close()]
        gone.side.set_ciphers("aNULL")  # no certificate can be shown: it refuses us by an alert
        gone.side.maximum_version = ssl.TLSVersion.TLSv1_2
        _, port = self.front(gone)
        self.assertEqual(get(port).body.split()[1], b"connect_failed")
        quiet = self.backend(RecordingBackend([Hang()]))
        _, port = self.front(f"https://localhost:{quiet.port}", pool={"timeouts": {"connect": "1s"}})
        self.assertEqual(get(port).body.split()[1], b"connect_timeout")
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


class SessionTests(VerifyCase):
    def test_resumed(self) -> None:
        """The next connection to a backend resumes the session of the last, in both versions."""
        for version in VERSIONS:
            backend = self.secure_backend(self.authority.issue("localhost"), version=version)
            _, port = self.front(backend, pool={"connections": {"keep_alive": 0}})
            for _ in range(3):
                self.assertEqual(get(port).status, 200)
            self.assertEqual([resumed for *_, resumed in backend.handshakes], [False, True, True])

    def test_kept(self) -> None:
        """Kept connections are used again: twenty requests, one handshake; what their end looks like does not matter."""
        backend = self.secure_backend(self.authority.issue("localhost"))
        _, port = self.front(backend)
        with RawClient(port) as client:
            for _ in range(20):
                self.assertEqual(client.get().status, 200)
        self.assertEqual(len(backend.handshakes), 1)

    def test_both_sides(self) -> None:
        """TLS to us and from us: a large body is the same after both, in both directions."""
        content = b"".join(hashlib.sha256(b"%d" % number).digest() * 2048 for number in range(512))
        (self.folder / "body").write_bytes(content)
        backend = self.secure_backend(
            self.authority.issue("localhost"), [Forever(Answer(lambda head, body: response(body)))]
        )
        address = f"https://localhost:{backend.port}"
        _, port = self.secure(address, pool={"tls": {"ca": self.ca}})
        self.curl(port, "--data-binary", "@body", "-o", "got", "-H", "Expect:")
        self.assertEqual((self.folder / "got").read_bytes(), content)

    def test_truncated_answers(self) -> None:
        """An answer that ends with its connection is whole only if the end was said: else the client hears of it."""
        head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nsome of "
        said = self.secure_backend(self.authority.issue("localhost"), [Request(), Send(head), EndSecurely()])
        _, port = self.front(said)
        self.assertEqual(get(port).body, b"some of ")
        cut = self.secure_backend(self.authority.issue("localhost"), [Request(), Send(head), Close()])
        balancer, port = self.front(cut)
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with self.assertRaises((EOFError, ConnectionResetError)):
                client.response()
        until(lambda: balancer.access_lines(), "logged")
        self.assertEqual(balancer.access_lines()[0]["reason"], "upstream_reset")


class CheckTests(VerifyCase):
    def test_checks_verify(self) -> None:
        """A backend whose certificate is wrong never comes up, whatever it answers; with the right one it does."""
        backend = self.secure_backend(Authority().issue("localhost"))
        for check in ({"type": "http", "path": "/health"}, {"type": "tcp"}):
            backend.wear(Authority().issue("localhost"))
            pool = {"health_check": {**check, "interval": "100ms", "rise": 1, "fall": 1}}
            balancer, port = self.front(backend, pool=pool)
            until(lambda balancer=balancer: self.checks(balancer, "failure") >= 2, "two have failed")
            self.assertEqual(self.checks(balancer, "success"), 0)
            self.assertEqual(get(port).body.split()[1], b"no_backend")
            empty = next(line for line in balancer.events() if line["event"] == "pool.empty")
            self.assertIn("TLS: ", json.dumps(empty))
            backend.wear(self.authority.issue("localhost"))
            until(lambda port=port: get(port).status == 200, "up")
            backend.wear(Authority().issue("localhost"))
            until(lambda port=port: get(port).status != 200, "down")
            balancer.stop()

    def checks(self, balancer: Balancer, result: str) -> float:
        return balancer.metric("lbsvc_health_checks_total", result=result)


class NginxTests(VerifyCase):
    def test_nginx_asks_for_a_certificate(self) -> None:
        """nginx with ssl_verify_client: ours is shown and its subject arrives; without one, nginx's own 400."""
        port = free_port()
        server = self.files(self.authority.issue("localhost"), "nginx")
        clients = Authority("clients of nginx")
        ours = self.files(clients.issue("balancer.example"), "ours")
        self.nginx(
            f"server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3;"
            f" ssl_certificate {server['cert']}; ssl_certificate_key {server['key']};"
            f" ssl_client_certificate {clients.write(str(self.folder), 'nginx-clients')}; ssl_verify_client on;"
            ' location / { return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_protocol"; } }',
            port,
        )
        _, front = self.front(f"https://localhost:{port}", tls=ours)
        for _ in range(3):
            self.assertEqual(get(front).body, b"SUCCESS CN=balancer.example TLSv1.3")
        _, front = self.front(f"https://localhost:{port}")
        self.assertEqual((get(front).status, b"No required SSL certificate" in get(front).body), (400, True))
        checked = {"health_check": {"path": "/", "interval": "100ms", "rise": 1}}
        balancer, front = self.front(f"https://localhost:{port}", tls=ours, pool=checked)
        until(lambda: balancer.metric("lbsvc_health_checks_total", result="success") > 0, "a check has passed")

    def test_our_own_refusal(self) -> None:
        """A backend of our own kind that wants a certificate: without one nothing gets through, with one it does."""
        clients = Authority("clients")
        tls = {
            "certificates": [self.files(self.authority.issue("localhost"), "inner")],
            "client_ca": clients.write(str(self.folder), "inner-clients"),
        }
        _, inner = self.secure(self.echoing().address, tls=tls)
        _, port = self.front(f"https://localhost:{inner}")
        self.assertEqual(get(port).status, 502)
        _, port = self.front(f"https://localhost:{inner}", tls=self.files(clients.issue("outer"), "outer"))
        self.assertIn(b"X-Client-Cert-Subject: CN=outer", get(port).body)


class StreamTests(VerifyCase):
    def test_tcp_pool(self) -> None:
        """A tcp pool with `tls`: plain clients, a secure backend, ends passed on as such; an impostor hears nothing."""
        backend = self.secure_backend(
            self.authority.issue("localhost"), [Take(5), Send(b"hello to you"), EndSecurely()]
        )
        tls = {"tls": {"ca": self.ca}}
        _, port = self.serve(f"localhost:{backend.port}", protocol="tcp", pool=tls)
        with RawClient(port) as client:
            client.send(b"hello")
            self.assertEqual(client.rest(), b"hello to you")
        wrong = self.secure_backend(self.authority.issue("other.example"))
        balancer, port = self.serve(f"localhost:{wrong.port}", protocol="tcp", pool=tls)
        with RawClient(port) as client:
            client.send(b"secret")
            try:
                self.assertEqual(client.rest(), b"")
            except ConnectionResetError:
                pass  # it was cut before what it had sent was read
        until(lambda: balancer.access_lines(), "logged")
        self.assertEqual(balancer.access_lines()[0]["reason"], "tls_verify")
        self.assertEqual([bytes(talk.received) for talk in wrong.conversations if talk.received], [])

    def test_through_two(self) -> None:
        """TLS, TLS again, then plain: both directions end one after the other and not a byte is missing."""
        _, inner = self.secure(
            self.backend(echo_backend()).address,
            protocol="tcp",
            tls={"certificates": [self.files(self.authority.issue("localhost"), "inner")]},
        )
        _, port = self.secure(f"localhost:{inner}", protocol="tcp", pool={"tls": {"ca": self.ca}})
        for version in VERSIONS:
            client = self.client(port, version=version)
            content = hashlib.sha512(version.encode()).digest() * (4 * MIB // 64)
            for at in range(0, len(content), MIB):
                client.send(content[at : at + MIB])
                self.assertEqual(client.exactly(MIB), content[at : at + MIB])
            client.send(b"last words")
            client.finish()
            self.assertEqual(client.rest(), b"last words")
