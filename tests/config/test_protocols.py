"""Other names of protocols, and names that belong elsewhere: each is a mistake that says what to write."""

from __future__ import annotations

from collections.abc import Mapping

from lbsvc.config.protocols import scheme_hint
from tests.config.reading import LISTENER, POOL, CertificateCase, listener, mistakes, pool, pool_mistakes

HTTP = "did you mean http? It is HTTP/1.1, HTTP/2, gRPC and WebSocket"
H2C = "HTTP/2 without TLS is said by h2c:// before an address"
GRPC = "gRPC is HTTP/2: h2 for https:// addresses, and h2c:// before others"


class ProtocolTests(CertificateCase):
    def assert_hints(self, found: list[str], rule: str, written: str, hint: str) -> None:
        """One mistake: the rule, what stands there, and the hint."""
        tail = f"; {hint})" if hint else ")"
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].endswith(tail) and f"{rule} (got " in found[0], (written, found))
        if not hint:
            self.assertNotIn(";", found[0])

    def test_pools(self) -> None:
        """`protocol` of a pool: http2 is h2, and so on; what its addresses or its listener say is told so."""
        for hint, names in {
            "did you mean h2?": "http/2 http2 HTTP2 HTTP/2.0 2 2.0 H2 h2s",
            "did you mean http/1.1?": "h1 http http1 http/1 HTTP/1.1 1.1 http/1.0",
            "did you mean auto?": "Auto any alpn",
            H2C: "h2c H2C h2c://",
            GRPC: "grpc gRPC grpcs",
            "HTTP/3 is not spoken": "h3 http/3 quic",
            "TLS is said by https:// before an address": "https tls",
            "layer 4 is said by the listener: protocol: tcp": "tcp",
            "": "spdy off null true [h2] {}",
        }.items():
            for name in names.split():
                found = pool_mistakes(f"protocol: {name}")
                self.assert_hints(found, "must be http/1.1, auto or h2", name, hint)
        self.assertEqual(pool("protocol: h2").protocol, "h2")

    def test_listeners(self) -> None:
        """`protocol` of a listener: whatever is HTTP is http."""
        for hint, names in {
            HTTP: "h2 h2c http2 http/2 HTTP/1.1 1.1 2 grpc ws websocket",
            "did you mean http? TLS is a section of its own, tls": "https tls ssl",
            "did you mean http?": "htpp",
            "did you mean tcp?": "TCP l4",
            "HTTP/3 is not spoken": "h3",
            "": "udp null [http]",
        }.items():
            for name in names.split():
                found = mistakes(f"{LISTENER}    protocol: {name}\n{POOL}")
                self.assert_hints(found, "must be http or tcp", name, hint)
        self.assertEqual(listener("protocol: tcp").protocol, "tcp")

    def test_checks(self) -> None:
        """A check's type says no version: that of the address is meant."""
        version = "did you mean http? It is asked by the version and TLS of the address"
        for name, hint in {"h2": version, "h2c": version, "https": version, "gRPC": "did you mean grpc?"}.items():
            for written in (name, f"{{type: {name}}}"):
                found = pool_mistakes(f"health_check: {written}")
                self.assert_hints(found, "must be http, tcp or grpc", name, hint)

    def alpn(self, written: str, protocol: str = "http") -> list[str]:
        self.issue("site", "site.example")
        tls = f"{{certificates: {{cert: site.pem, key: site.key}}, alpn: {written}}}"
        return self.mistakes(f"{LISTENER}    protocol: {protocol}\n    tls: {tls}\n{POOL}")

    def test_alpn(self) -> None:
        """`alpn` has the names of ALPN."""
        rule = "must be h2, http/1.1 or http/1.0 where protocol is http"
        for hint, names in {
            "did you mean h2?": "http/2 http2 H2",
            "did you mean h2? That is HTTP/2 over TLS; without TLS it needs no key": "h2c",
            "did you mean h2? gRPC is HTTP/2": "grpc grpc-exp",
            "did you mean http/1.1?": "h1 http1 http HTTP/1.1",
            "HTTP/3 is not spoken": "h3",
            "": "imap",
        }.items():
            for name in names.split():
                self.assert_hints(self.alpn(name), rule, name, hint)
                self.assertEqual(len(self.alpn(f"[h2, {name}]")), 1)

    def test_alpn_of_streams(self) -> None:
        """On tcp it may be any protocol, but for HTTP by a name that no client offers."""
        rule = "is no name that clients know HTTP by"
        for name, hint in {
            "http/2": "did you mean h2?",
            "H2": "did you mean h2?",
            "h1": "did you mean http/1.1?",
        }.items():
            self.assert_hints(self.alpn(f"[imap, {name}]", "tcp"), rule, name, hint)
        self.assertEqual(self.alpn("[imap, h2, h2c, http/1.1, http/1.0, h3, grpc-exp, dot]", "tcp"), [])

    def test_addresses(self) -> None:
        """What stands before an address is a scheme of ours, or one that is known to mean one of them."""
        h2 = "did you mean h2c://? HTTP/2 over TLS is https:// with protocol: h2"
        grpc = "did you mean h2c://? gRPC over TLS is https:// with protocol: h2"
        for scheme, hint in {
            "h2": h2,
            "http2": h2,
            "grpc": grpc,
            "GRPCS": grpc,
            "tls": "did you mean https://?",
            "ws": "did you mean http://, or https:// for TLS? WebSocket begins as that",
            "tcp": "did you mean host:port? A tcp listener needs no scheme",
            "ftp": "",
        }.items():
            found = self.backend(f"{scheme}://h:1")
            self.assert_hints(found, "h2c://host:port or unix:PATH", scheme, hint)
        self.assert_hints(self.backend("h2c://h:0"), "needs a port from 1 to 65535", "h2c", "")
        self.assertEqual(scheme_hint("gopher"), "")

    def test_nothing_is_shown(self) -> None:
        """What came out of a variable is not told, nor what it looks like."""
        found = self.backend("${A}", {"A": "grpc://h:1"})
        self.assertTrue(found[0].endswith(" (from ${A})"), found)
        found = mistakes(f"{LISTENER}{POOL}    protocol: ${{A}}\n", {"A": "h2c"})
        self.assertEqual(found, ["8:5: pools.p.protocol: must be http/1.1, auto or h2 (from ${A})"])

    def backend(self, address: str, env: Mapping[str, str] | None = None) -> list[str]:
        return mistakes(f"{LISTENER}pools:\n  p:\n    backends: ['{address}']\n", env)
