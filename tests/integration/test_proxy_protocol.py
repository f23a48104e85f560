"""PROXY headers from others and to others: HAProxy and nginx on both sides, curl before us, two of ours in a row."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import Any

from tests.integration.secured import NAME, SecureCase
from tests.kit.authority import Authority
from tests.kit.processes import DEADLINE, Balancer, RawClient, free_port, free_ports, until
from tests.kit.programs import curl
from tests.kit.proxies import Haproxy, NginxStreams
from tests.kit.secure_wire import SecureClient, client_side
from tests.kit.upstreams import RecordingBackend

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: 192.0.2.7:4711 to 198.51.100.1:443
BLOCK = bytes([192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xBB])
ASKING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
TRUSTING: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32", "::1/128"]}
#: A client that is not the proxy, for each family there is on loopback.
CLIENT = "127.0.0.2"


def forwarded(answer: bytes) -> list[str]:
    """What an echoing backend was told about who asks, and how."""
    lines = answer.decode("latin-1").split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.startswith(("X-Forwarded-For", "X-Forwarded-Proto"))]


class ClientFrom(RawClient):
    """A RawClient that comes from an address of its own."""

    def __init__(self, address: str, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE, (address, 0))
        self.buffer = b""


class HeaderCase(SecureCase):
    def haproxy(self, sections: str, port: int) -> Haproxy:
        started = Haproxy(sections, self.folder, port)
        self.addCleanup(started.stop)
        return started

    def ask(self, port: int, *options: str, host: str = "127.0.0.1", scheme: str = "http") -> bytes:
        """What curl gets from there."""
        return self.fetch(port, *options, host=host, scheme=scheme).stdout

    def fetch(
        self, port: int, *options: str, host: str, scheme: str = "http", status: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        place = ("--cacert", self.ca, "--connect-to", f"::{host}:{port}", f"{scheme}://{NAME}/")
        return curl(*options, *place, folder=self.folder, exit_status=status)


class ComingTests(HeaderCase):
    """Headers that others send to us."""

    def setUp(self) -> None:
        super().setUp()
        self.backend_ = self.echoing()

    def front(self, **listener: Any) -> tuple[Balancer, int]:
        """A listener that wants headers from loopback."""
        return self.serve(self.backend_.address, listener={**TRUSTING, **listener})

    def test_haproxy(self) -> None:
        """send-proxy, send-proxy-v2 and send-proxy-v2-ssl-cn, IPv4 and IPv6: the client is who the header says."""
        balancer, port = self.front()
        ways = ("send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn")
        ports = free_ports(len(ways))
        sections = "".join(
            f"listen l{at}\n bind 127.0.0.1:{at}\n bind [::1]:{at}\n server s 127.0.0.1:{port} {way}\n"
            for at, way in zip(ports, ways, strict=True)
        )
        self.haproxy(sections, ports[-1])
        for at in ports:
            self.assertEqual(forwarded(self.ask(at, "--interface", CLIENT)), [CLIENT, "http"])
            self.assertEqual(forwarded(self.ask(at, host="[::1]")), ["::1", "http"])
        lines = [line for line in self.settle(balancer, 2 * len(ways)) if "status" in line]
        self.assertEqual([line["client"] for line in lines], [CLIENT, "::1"] * len(ways))
        self.assertEqual({line["reason"] for line in lines}, {"ok"})

    def test_haproxy_ends_tls(self) -> None:
        """HAProxy ends TLS and says so by its TLVs: the backend hears https, whether a certificate was shown or not."""
        _, port = self.front()
        site = self.authority.issue(NAME)
        (self.folder / "both.pem").write_bytes(site.cert_pem + site.key_pem)
        ways = (
            "send-proxy-v2-ssl",
            "send-proxy-v2-ssl-cn",
            "send-proxy-v2-ssl-cn proxy-v2-options crc32c,authority,unique-id",
        )
        ports = free_ports(len(ways))
        secured = f"ssl crt {self.folder}/both.pem ca-file {self.ca} verify optional"
        sections = "".join(
            f"listen l{at}\n bind 127.0.0.1:{at} {secured}\n unique-id-format %t\n server s 127.0.0.1:{port} {way}\n"
            for at, way in zip(ports, ways, strict=True)
        )
        self.haproxy(sections, ports[-1])
        files = self.files(self.authority.issue("alice"), "alice")
        shown = ("--cert", files["cert"], "--key", files["key"])
        for at in ports:
            for options in ((), shown):
                told = self.ask(at, "--interface", CLIENT, *options, scheme="https")
                self.assertEqual(forwarded(told), [CLIENT, "https"])

    def test_before_tls(self) -> None:
        """The header comes before the handshake: TLS passed through HAProxy, and TLS that HAProxy makes itself."""
        balancer, port = self.secure(self.backend_.address, listener=TRUSTING)
        through, made = free_ports(2)
        options = f"ssl ca-file {self.ca} verifyhost {NAME} sni str({NAME})"
        self.haproxy(
            f"listen a\n bind 127.0.0.1:{through}\n server s 127.0.0.1:{port} send-proxy-v2\n"
            f"listen b\n bind 127.0.0.1:{made}\n server s 127.0.0.1:{port} send-proxy {options}\n",
            made,
        )
        self.assertEqual(forwarded(self.ask(through, "--interface", CLIENT, scheme="https")), [CLIENT, "https"])
        self.assertEqual(forwarded(self.ask(made, "--interface", CLIENT)), [CLIENT, "https"])
        lines = [line for line in self.settle(balancer, 2) if "status" in line]
        self.assertEqual([(line["client"], line["tls"]) for line in lines], [(CLIENT, "TLSv1.3")] * 2)

    def test_haproxy_checks_us(self) -> None:
        """HAProxy's own checks come as LOCAL and UNKNOWN: they are served, as HAProxy's own requests."""
        balancer, port = self.front()
        at = free_port()
        checks = "option httpchk GET /alive\n default-server check check-send-proxy inter 200ms"
        self.haproxy(
            f"listen l\n bind 127.0.0.1:{at}\n {checks}\n"
            f" server v1 127.0.0.1:{port} send-proxy\n server v2 127.0.0.1:{port} send-proxy-v2\n",
            at,
        )
        until(lambda: len([line for line in balancer.access_lines() if line.get("path") == "/alive"]) >= 4, "checks")
        lines = [line for line in balancer.access_lines() if "status" in line]
        self.assertEqual({(line["client"], line["reason"]) for line in lines}, {("127.0.0.1", "ok")})
        self.assertEqual(balancer.metric("lbsvc_listener_rejected_total", reason="bad_proxy_header"), 0)

    def test_curl(self) -> None:
        """curl --haproxy-protocol, plain and before TLS."""
        balancer, port = self.front()
        self.assertEqual(forwarded(self.ask(port, "--haproxy-protocol")), ["127.0.0.1", "http"])
        self.settle(balancer, 1)
        _, port = self.secure(self.backend_.address, listener=TRUSTING)
        self.assertEqual(forwarded(self.ask(port, "--haproxy-protocol", scheme="https")), ["127.0.0.1", "https"])

    def test_nginx(self) -> None:
        """nginx as a proxy of streams with `proxy_protocol on`, both families."""
        _, port = self.front()
        at = free_port()
        started = NginxStreams(
            f"server {{ listen 127.0.0.1:{at}; listen [::1]:{at}; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}",
            self.folder,
            at,
        )
        self.addCleanup(started.stop)
        self.assertEqual(forwarded(self.ask(at, "--interface", CLIENT)), [CLIENT, "http"])
        self.assertEqual(forwarded(self.ask(at, host="[::1]")), ["::1", "http"])

    def test_strangers(self) -> None:
        """Who is not trusted says no header: without one he is served as himself, with one he speaks no HTTP."""
        balancer, port = self.front()
        self.assertEqual(forwarded(self.ask(port, "--interface", CLIENT)), [CLIENT, "http"])
        with RawClient(port) as client:  # from 127.0.0.1, which is trusted and says no header
            client.send(ASKING)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.rest(), b"")
        with ClientFrom(CLIENT, port) as stranger:
            stranger.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n" + ASKING)
            self.assertEqual(stranger.response().status, 400)
        lines = self.settle(balancer, 3)
        self.assertEqual([line["reason"] for line in lines], ["ok", "bad_proxy_header", "bad_request"])
        self.assertEqual([line["client"] for line in lines], [CLIENT, "127.0.0.1", CLIENT])
        self.assertEqual(balancer.metric("lbsvc_listener_rejected_total", reason="bad_proxy_header"), 1)
        self.assertEqual(len(self.backend_.received), 1)

    def test_cut_anywhere(self) -> None:
        """Headers of every kind, byte by byte and all at once: nothing of what follows is lost or read twice."""
        balancer, port = self.front()
        noop = b"\x04\x00\x03abc"
        headers = {
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n": "192.0.2.7",
            b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n": "2001:db8::7",
            b"PROXY UNKNOWN anything 1 2 3\r\n": "127.0.0.1",
            SIGNATURE + b"\x21\x11\x00\x0c" + BLOCK: "192.0.2.7",
            SIGNATURE + b"\x21\x11\x00\x12" + BLOCK + noop: "192.0.2.7",
            SIGNATURE + b"\x20\x00\x00\x06" + noop: "127.0.0.1",
        }
        for header, client_address in headers.items():
            for size in (1, 1000):
                with RawClient(port) as client:
                    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    whole = header + ASKING
                    for at in range(0, len(whole), size):
                        client.send(whole[at : at + size])
                    self.assertEqual(forwarded(client.response().body), [client_address, "http"], header)
        self.settle(balancer, 2 * len(headers))

    def test_deadline(self) -> None:
        """A header that does not come is waited for no longer than a handshake, and so is one after which no TLS comes."""
        patience = {"timeouts": {"handshake": "1s"}}
        balancer, port = self.secure(self.backend_.address, listener={**TRUSTING, **patience})
        for said in (b"", b"PROXY TCP4 ", b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", SIGNATURE[:5]):
            with RawClient(port) as client:
                client.send(said)
                self.assertEqual(client.rest(), b"")
        reasons = sorted(str(line["reason"]) for line in self.settle(balancer, 3))
        self.assertEqual(reasons, ["bad_proxy_header", "bad_proxy_header", "handshake_failed"])
        with SecureClient(port, NAME, client_side(self.authority), preface=b"PROXY UNKNOWN\r\n") as late:
            self.assertEqual(late.get("/").status, 200)


class GoingTests(HeaderCase):
    """Headers that we send to others."""

    def front(self, address: str, version: str, protocol: str = "http", **keys: Any) -> tuple[Balancer, int]:
        """Listens on both families."""
        pool = {"proxy_protocol": version, **keys.pop("pool", {})}
        port = free_port()
        binds = {"bind": [f"127.0.0.1:{port}", f"[::1]:{port}"]}
        balancer, _ = self.serve(
            address, protocol=protocol, pool=pool, listener={**binds, **keys.pop("listener", {})}, **keys
        )
        return balancer, port

    def test_to_haproxy(self) -> None:
        """accept-proxy understands both versions and families, of both roads, and has the client's port too."""
        at = free_port()
        said = '"%[src] %[dst] %[dst_port] %[fc_rcvd_proxy]"'
        self.haproxy(
            f"frontend f\n mode http\n bind 127.0.0.1:{at} accept-proxy\n"
            f" http-request return status 200 content-type text/plain lf-string {said}\n",
            at,
        )
        for protocol in ("http", "tcp"):
            for version in ("v1", "v2"):
                _, port = self.front(f"127.0.0.1:{at}", version, protocol)
                self.assertEqual(self.ask(port, "--interface", CLIENT), f"{CLIENT} 127.0.0.1 {port} 1".encode())
                self.assertEqual(self.ask(port, host="[::1]"), f"::1 ::1 {port} 1".encode())

    def test_to_nginx(self) -> None:
        """nginx with proxy_protocol, plain and with TLS after it; our checks are let in as well."""
        plain, secured = free_ports(2)
        files = self.files(self.authority.issue("localhost"), "nginx")
        said = 'location / { return 200 "$proxy_protocol_addr $scheme"; }'
        self.nginx(
            f"server {{ listen 127.0.0.1:{plain} proxy_protocol; {said} }}\n"
            f"server {{ listen 127.0.0.1:{secured} ssl proxy_protocol; ssl_certificate {files['cert']};"
            f" ssl_certificate_key {files['key']}; {said} }}",
            plain,
        )
        checked = {"health_check": {"path": "/", "interval": "100ms", "rise": 1}}
        for version in ("v1", "v2"):
            for scheme, at in (("http", plain), ("https", secured)):
                pool = {**checked, **({"tls": {"ca": self.ca}} if scheme == "https" else {})}
                balancer, port = self.front(f"{scheme}://localhost:{at}", version, pool=pool)
                until(lambda balancer=balancer: self.checks(balancer, "success"), "a check has passed")
                self.assertEqual(self.ask(port, "--interface", CLIENT), f"{CLIENT} {scheme}".encode())
                self.assertEqual(self.ask(port, host="[::1]"), f"::1 {scheme}".encode())
                self.assertEqual(self.checks(balancer, "failure"), 0)
                balancer.stop()

    def checks(self, balancer: Balancer, result: str) -> float:
        return balancer.metric("lbsvc_health_checks_total", result=result)

    def test_connections_are_nobody_elses(self) -> None:
        """Clients at the same time, each with kept connections: the backend never hears one under another's name."""
        at = free_port()
        self.nginx(
            f"server {{ listen 127.0.0.1:{at} proxy_protocol; keepalive_requests 100000;"
            ' location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port"; } }',
            at,
        )
        balancer, port = self.front(f"127.0.0.1:{at}", "v2")

        def load(number: int) -> list[tuple[str, str]]:
            """Ten requests on each of three connections; the answers that were somebody else's, and whose they should be."""
            wrong = []
            for _ in range(3):
                with ClientFrom(f"127.0.1.{number + 1}", port) as client:
                    host, own_port = client.sock.getsockname()
                    answers = [client.get().body.decode() for _ in range(10)]
                    wrong += [(f"{host}:{own_port}", answer) for answer in answers if answer != f"{host}:{own_port}"]
            return wrong

        self.assertEqual(self.at_once(8, load), [[]] * 8)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)

    def test_what_it_says_of_tls(self) -> None:
        """Version 2 says what we know of TLS and of the name: HAProxy reads it."""
        at = free_port()
        self.haproxy(
            f"frontend f\n mode http\n bind 127.0.0.1:{at} accept-proxy\n"
            ' http-request return status 200 content-type text/plain lf-string "%[src] %[fc_pp_authority]"\n',
            at,
        )
        tls = {"certificates": [self.site()]}
        for protocol in ("http", "tcp"):
            _, port = self.front(f"127.0.0.1:{at}", "v2", protocol, listener={"tls": tls})
            told = self.ask(port, "--interface", CLIENT, scheme="https")
            self.assertEqual(told, f"{CLIENT} {NAME}".encode())

    def test_chain_of_two(self) -> None:
        """Two of ours: tcp and http in front end TLS, and say so by v2 and TLS again; the one behind believes it."""
        inner = {"tls": {"certificates": [self.files(self.authority.issue("localhost"), "inner")]}, **TRUSTING}
        backend = self.echoing()
        _, inside = self.serve(backend.address, listener=inner)
        secured = {"tls": {"ca": self.ca}}
        outer = {"tls": {"certificates": [self.site()]}}
        _, port = self.front(f"localhost:{inside}", "v2", "tcp", pool=secured, listener=outer)
        for options, host, client in ((("--interface", CLIENT), "127.0.0.1", CLIENT), ((), "[::1]", "::1")):
            told = self.ask(port, *options, host=host, scheme="https")
            self.assertEqual(forwarded(told), [client, "https"])
        _, port = self.front(f"https://localhost:{inside}", "v2", pool=secured, listener=outer)
        told = self.ask(port, "--interface", CLIENT, scheme="https")
        self.assertIn("https", forwarded(told))
        self.assertIn(CLIENT, forwarded(told)[0])

    def test_a_common_name_goes_along(self) -> None:
        """The client's certificate is in the header, where one was shown and verified."""
        clients = Authority("clients")
        files = self.files(clients.issue("alice"), "alice")
        tls = {"certificates": [self.site()], "client_ca": clients.write(str(self.folder), "clients")}
        backend = self.backend(RecordingBackend())
        _, port = self.front(backend.address, "v2", "tcp", listener={"tls": tls})
        shown = ("--cert", files["cert"], "--key", files["key"], "--max-time", "1")
        self.fetch(port, *shown, host="127.0.0.1", scheme="https", status=None)
        talk = backend.wait_for(1)[0]
        until(lambda: b"GET / " in talk.received, "asked")
        header = bytes(talk.received).partition(b"GET /")[0]
        self.assertTrue(header.startswith(SIGNATURE + b"\x21\x11"))
        for word in (b"alice", b"TLSv1.3", NAME.encode()):
            self.assertIn(word, header)
