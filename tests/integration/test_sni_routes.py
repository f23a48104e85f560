"""Connections told apart by name, with other people's clients and servers: TLS passes through us unopened, or ends here."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from OpenSSL import SSL

from tests.integration.secured import NAME, SecureCase
from tests.kit.openssl import s_client
from tests.kit.processes import DEADLINE, RawClient, free_ports
from tests.kit.proxies import Haproxy
from tests.kit.secure_wire import client_side
from tests.kit.upstreams import Answer, Forever, named_backend, response

A, B, WILD = "a.example", "b.example", "*.wild.example"
ASKING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
VERSIONS = ("1.2", "1.3")


class PassingCase(SecureCase):
    def setUp(self) -> None:
        """nginx has two servers that speak TLS, each with the certificate of its own name."""
        super().setUp()
        self.a, self.b = free_ports(2)
        blocks = []
        for port, name in ((self.a, A), (self.b, B)):
            files = self.files(self.authority.issue(name, WILD), name)
            blocks.append(
                f"server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {files['cert']};"
                f" ssl_certificate_key {files['key']};"
                f' location / {{ return 200 "{name} $ssl_server_name $ssl_protocol"; }} }}'
            )
        self.nginx("\n".join(blocks), self.b)
        self.pools: dict[str, Any] = {
            "a": {"backends": [f"127.0.0.1:{self.a}"]},
            "b": {"backends": [f"127.0.0.1:{self.b}"]},
        }
        self.routes: list[dict[str, Any]] = [
            {"match": {"sni": A}, "pool": "a", "name": "to-a"},
            {"match": {"sni": [B, WILD]}, "pool": "b", "name": "to-b"},
        ]

    def front(self, **listener: Any) -> int:
        """A tcp listener with these routes; its port."""
        fronts = {"main": {"protocol": "tcp", "routes": self.routes, **listener}}
        self.balancer, ports = self.secure_all(fronts, self.pools)
        return ports["main"]


class PassingTests(PassingCase):
    def test_by_name(self) -> None:
        """curl reaches the server of the name that it asks for, in each version, and verifies that server itself."""
        port = self.front()
        for version in VERSIONS:
            options = (f"--tlsv{version}", "--tls-max", version)
            wanted = {A: A, B: B, "A.Example": A, "x.wild.example": B}
            for name, server in wanted.items():
                told = self.curl(port, *options, name=name).stdout.decode()
                self.assertEqual(told, f"{server} {name.lower()} TLSv{version}")
        lines = self.settle(self.balancer, 8)
        self.assertEqual([line["route"] for line in lines], ["to-a", "to-b", "to-a", "to-b"] * 2)
        self.assertEqual({line["reason"] for line in lines}, {"ok"})
        self.assertNotIn("tls", lines[0])  # it is not ours

    def test_nowhere(self) -> None:
        """What no route is for is closed and logged as no_route; with a default pool it goes there."""
        port = self.front()
        for options in (("-servername", "c.example"), ("-servername", "wild.example"), ("-noservername",)):
            self.assertEqual(s_client(port, *options, folder=self.folder).version, "")
        lines = self.settle(self.balancer, 3)
        self.assertEqual([line["reason"] for line in lines], ["no_route"] * 3)
        port = self.front(pool="a")
        for options in (("-servername", "c.example"), ("-noservername",)):
            self.assertEqual(s_client(port, *options, folder=self.folder).subject, A)
        self.assertEqual(s_client(port, "-servername", B, folder=self.folder).subject, B)

    def test_in_pieces(self) -> None:
        """A hello that comes byte by byte, or is longer than a segment, is the same hello."""
        port = self.front()
        for version in VERSIONS:
            for protocols in ([], [bytes([65 + n % 26]) * 250 for n in range(20)]):
                self.assertIn(f"{B} {B} TLSv{version}".encode(), self.dribble(port, B, version, protocols))

    def dribble(self, port: int, name: str, version: str, alpn: list[bytes]) -> bytes:
        """The answer to a request; everything that the client says goes out in pieces of a byte at first."""
        tls = SSL.Connection(client_side(self.authority, version), None)
        tls.set_connect_state()
        tls.set_tlsext_host_name(name.encode())
        if alpn:
            tls.set_alpn_protos([b"http/1.1", *alpn])
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def flush() -> None:
                with contextlib.suppress(SSL.WantReadError):
                    while said := tls.bio_read(65536):
                        for at in range(len(said)):
                            sock.sendall(said[at : at + 1])

            while True:
                try:
                    tls.do_handshake()
                    break
                except SSL.WantReadError:
                    flush()
                    tls.bio_write(sock.recv(65536))
            tls.send(ASKING)
            flush()
            got = b""
            while True:
                try:
                    got += tls.recv(65536)
                except SSL.WantReadError:
                    piece = sock.recv(65536)
                    if not piece:
                        return got
                    tls.bio_write(piece)
                except SSL.ZeroReturnError:
                    return got

    def test_resumption_passes(self) -> None:
        """Sessions are the server's own affair: they are resumed through us."""
        port = self.front()
        for version in ("-tls1_2", "-tls1_3"):
            session = str(self.folder / f"{version}.session")
            options = (version, "-servername", A)
            s_client(port, *options, "-sess_out", session, folder=self.folder, said=ASKING)
            again = s_client(port, *options, "-sess_in", session, folder=self.folder, said=ASKING)
            self.assertTrue(again.is_resumed)

    def test_a_hundred_megabytes(self) -> None:
        """What follows the hello is relayed untouched, however much it is."""
        content = b"".join(number.to_bytes(8, "big") * 8192 for number in range(1600))
        (self.folder / "body").write_bytes(content)
        backend = self.secure_backend(self.authority.issue(NAME), [Forever(Answer(lambda head, body: response(body)))])
        self.pools["large"] = {"backends": [backend.address]}
        self.routes.append({"match": {"sni": NAME}, "pool": "large"})
        port = self.front()
        self.curl(port, "--data-binary", "@body", "-o", "got", "-H", "Expect:")
        self.assertTrue((self.folder / "got").read_bytes() == content)

    def test_by_client(self) -> None:
        """A route may ask for the client too: others get what is left."""
        self.routes[0]["match"]["client"] = ["127.0.0.2/32"]
        port = self.front(pool="b")
        self.assertIn(A.encode() + b" ", self.curl(port, "--interface", "127.0.0.2", name=A).stdout)
        self.assertEqual(s_client(port, "-servername", A, folder=self.folder).subject, B)


class BesidesTests(PassingCase):
    def test_with_headers_on_both_sides(self) -> None:
        """A PROXY header before the hello is taken, and another is given: HAProxy behind us hears who asks."""
        behind, before = free_ports(2)
        site = self.authority.issue(NAME)
        (self.folder / "both.pem").write_bytes(site.cert_pem + site.key_pem)
        port, _ = free_ports(2)
        sections = (
            f"frontend f\n mode http\n bind 127.0.0.1:{behind} accept-proxy ssl crt {self.folder}/both.pem\n"
            ' http-request return status 200 content-type text/plain lf-string "%[src] %[ssl_fc_sni]"\n'
            f"listen l\n bind 127.0.0.1:{before}\n server s 127.0.0.1:{port} send-proxy-v2\n"
        )
        started = Haproxy(sections, self.folder, before)
        self.addCleanup(started.stop)
        self.pools["headed"] = {"backends": [f"127.0.0.1:{behind}"], "proxy_protocol": "v2"}
        self.routes.append({"match": {"sni": NAME}, "pool": "headed"})
        trusting = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
        self.front(bind=f"127.0.0.1:{port}", **trusting)
        for at in (before, port):
            told = self.curl(at, "--interface", "127.0.0.2").stdout
            self.assertEqual(told, f"127.0.0.2 {NAME}".encode())

    def test_ended_here(self) -> None:
        """Where TLS ends at the listener, routes go by the name of the handshake, and backends hear plain bytes."""
        one, two = (self.backend(named_backend(name)) for name in ("one", "two"))
        self.pools = {"a": {"backends": [one.address]}, "b": {"backends": [two.address]}}
        names = [self.site(A), self.site(B, WILD)]
        port = self.front(tls={"certificates": names})
        self.assertEqual(self.curl(port, name=A).stdout, b"one")
        self.assertEqual(self.curl(port, name="x.wild.example").stdout, b"two")
        lines = self.settle(self.balancer, 2)
        self.assertEqual([(line["route"], line["tls"]) for line in lines], [("to-a", "TLSv1.3"), ("to-b", "TLSv1.3")])

    def test_other_protocols(self) -> None:
        """What is not TLS goes to the default pool; a hello that is none is closed, and nobody else notices."""
        plain = self.backend(named_backend("plain"))
        self.pools["plain"] = {"backends": [plain.address]}
        port = self.front(pool="plain")
        with RawClient(port) as client:
            self.assertEqual(client.get("/", "Connection: close").body, b"plain")
        with RawClient(port) as client:
            client.send(b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03" + b"\x00" * 50)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.rest(), b"")
        self.assertIn(A.encode() + b" ", self.curl(port, name=A).stdout)
        lines = self.settle(self.balancer, 3)
        self.assertEqual(sorted(str(line["reason"]) for line in lines), ["handshake_failed", "ok", "ok"])
