"""Client certificates: who gets in, for every name and version, and what backends are told; strangers cannot say it."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes

from tests.integration.secured import NAME, SecureCase
from tests.kit.authority import Authority, Leaf
from tests.kit.openssl import s_client
from tests.kit.processes import get

VERSIONS = ("1.2", "1.3")

FORGED = (
    *(
        "-H",
        "X-Client-Cert-Verified: true",
        "-H",
        "X-Client-Cert-Subject: CN=admin",
        "-H",
        "X_Client_Cert_Subject: CN=admin",
    ),
    *("-H", "x-client-cert-fingerprint: 00", "-H", "X-Client-Cert-Anything: 1", "-H", "X-SSL-Client-Verify: SUCCESS"),
    *("-H", "Client-Cert: :AAAA:", "-H", "X-SSL-Client-S-DN: CN=admin"),
)
FORGED_LINES = ("-H", "X-Client-Cert-Subject: CN=from the proxy", "-H", "X-Client-Cert-Verified: true")


def told(answer: bytes) -> list[str]:
    """The lines about certificates in a request that a backend has echoed."""
    lines = answer.decode("latin-1").split("\r\n")
    return [line for line in lines if "cert" in line.lower() or "ssl" in line.lower()]


class ClientCertificateTests(SecureCase):
    def setUp(self) -> None:
        super().setUp()
        self.clients = Authority("clients' CA")
        self.clients_ca = self.clients.write(str(self.folder), "clients")
        self.alice = self.clients.issue("alice", organization="Müller, Söhne & Co")
        self.backend_ = self.echoing()

    def front(self, auth: str | None = "required", *names: str, **tls: Any) -> int:
        """A listener that asks for certificates; the port."""
        certificates = [self.site(name) for name in (NAME, *names)]
        wanted = {"certificates": certificates, "client_ca": self.clients_ca, "client_auth": auth, **tls}
        self.balancer, port = self.secure(self.backend_.address, tls=wanted)
        return port

    def shown(self, leaf: Leaf, name: str) -> tuple[str, ...]:
        """The options by which curl shows this certificate."""
        files = self.files(leaf, name)
        return "--cert", files["cert"], "--key", files["key"]

    def words(self, leaf: Leaf, subject: str) -> list[str]:
        return [
            "X-Client-Cert-Verified: true",
            f"X-Client-Cert-Subject: {subject}",
            f"X-Client-Cert-Fingerprint: {leaf.certificate.fingerprint(hashes.SHA256()).hex()}",
        ]

    def test_required(self) -> None:
        """Who shows a certificate of our CA is served, and the backend is told whose; what clients say of it is dropped."""
        port = self.front()
        subject = r"CN=alice,O=M\C3\BCller\, S\C3\B6hne & Co"
        for version in VERSIONS:
            options = (f"--tlsv{version}", "--tls-max", version, *self.shown(self.alice, "alice"), *FORGED)
            self.assertEqual(told(self.curl(port, *options).stdout), self.words(self.alice, subject))

    def test_refused(self) -> None:
        """No certificate, one of another CA, one that has expired: refused by an alert, whatever the version and name."""
        strange = self.shown(Authority("clients' CA").issue("alice"), "strange")
        expired = self.shown(self.clients.issue("alice", days=-2), "expired")
        server = self.shown(self.site_only(), "server-only")
        port = self.front("required", "other.example", "*.any.example")
        reasons: tuple[tuple[tuple[str, ...], str, str], ...] = (
            ((), "handshake failure", "certificate required"),
            (strange, "unknown ca", "unknown ca"),
            (expired, "certificate expired", "certificate expired"),
            (server, "unsupported certificate", "unsupported certificate"),
        )
        count = 0
        for name in (NAME, "other.example", "x.any.example", "unknown.example"):
            for shown, *alerts in reasons:
                for version, alert in zip(("-tls1_2", "-tls1_3"), alerts, strict=True):
                    options = tuple(option.replace("--", "-") for option in shown)
                    said = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                    spoken = s_client(port, version, "-servername", name, *options, folder=self.folder, said=said)
                    self.assertEqual(spoken.alert, alert, (name, version, shown))
                    count += 1
        self.assertEqual(self.backend_.conversations, [])
        lines = self.settle(self.balancer, count)
        self.assertEqual({line["reason"] for line in lines}, {"handshake_failed"})
        self.assertEqual(self.handshakes(self.balancer, "failure"), count)

    def site_only(self) -> Leaf:
        """A certificate of the right CA that is for servers only."""
        return self.clients.issue("alice", client=False)

    def test_optional(self) -> None:
        """Who has none is served too, as somebody who has shown none; a wrong one is refused even so."""
        port = self.front("optional", "other.example")
        for version in VERSIONS:
            options = (f"--tlsv{version}", "--tls-max", version)
            for name in (NAME, "other.example"):
                unknown = told(self.curl(port, *options, *FORGED, name=name).stdout)
                self.assertEqual(unknown, ["X-Client-Cert-Verified: false"])
                shown = self.shown(self.clients.issue("bob"), "bob")
                self.assertIn(
                    "X-Client-Cert-Subject: CN=bob", told(self.curl(port, *options, *shown, name=name).stdout)
                )
            strange = self.shown(Authority("clients' CA").issue("alice"), "strange")
            refused = self.curl(port, *options, *strange, status=None)
            self.assertNotEqual(refused.returncode, 0)
            self.assertEqual(refused.stdout, b"")

    def test_never_from_strangers(self) -> None:
        """Where no certificates are asked for nothing is said of them, with TLS or without, whatever clients say."""
        _, port = self.secure(self.backend_.address)
        self.assertEqual(told(self.curl(port, *FORGED).stdout), [])
        _, port = self.serve(self.backend_.address)
        said = [line for line in FORGED if line != "-H"]
        self.assertEqual(told(get(port, "/", *said).body), [])

    def test_from_a_trusted_proxy(self) -> None:
        """What a trusted proxy says of its client's certificate is passed on, once, and ours is not added to it."""
        trusting = {"trusted_proxies": ["127.0.0.1/32"]}
        _, port = self.serve(self.backend_.address, listener=trusting)
        said = [line for line in FORGED_LINES if line != "-H"]
        self.assertEqual(told(get(port, "/", *said).body), said)
        tls = {"certificates": [self.site()], "client_ca": self.clients_ca}
        _, port = self.secure(self.backend_.address, tls=tls, listener=trusting)
        shown = self.shown(self.alice, "alice")
        self.assertEqual(told(self.curl(port, "--http1.1", *shown, *FORGED_LINES).stdout), said)
        self.assertEqual(len(told(self.curl(port, *shown).stdout)), 3)

    def test_chain_of_two(self) -> None:
        """Through two of ours: the first asks, the second believes it, the backend knows who it is."""
        inner, inner_port = self.serve(self.backend_.address, listener={"trusted_proxies": ["127.0.0.1/32"]})
        tls = {"certificates": [self.site()], "client_ca": self.clients_ca}
        _, port = self.secure(f"127.0.0.1:{inner_port}", tls=tls)
        answer = self.curl(port, *self.shown(self.clients.issue("bob"), "bob"), *FORGED).stdout
        self.assertEqual(told(answer)[1], "X-Client-Cert-Subject: CN=bob")
        self.assertEqual(len(told(answer)), 3)
        self.assertIn(b"\r\nX-Forwarded-Proto: https\r\n", answer)
        self.assertNotIn("Traceback", inner.text + inner.errors)

    def test_connections_are_not_mixed_up(self) -> None:
        """Two clients on kept connections, to one kept backend connection: each request says its own client."""
        port = self.front("optional")
        one, two, none = (
            self.client(port, shown=shown) for shown in (self.clients.issue("one"), self.clients.issue("two"), None)
        )
        for _ in range(5):
            self.assertIn("X-Client-Cert-Subject: CN=one", told(one.get("/").body))
            self.assertIn("X-Client-Cert-Subject: CN=two", told(two.get("/").body))
            self.assertEqual(told(none.get("/").body), ["X-Client-Cert-Verified: false"])
        self.assertEqual(len(self.backend_.conversations), 1)

    def test_resumed(self) -> None:
        """A resumed session has the identity of its first handshake, in both versions; also if the CA is required."""
        port = self.front()
        shown = tuple(option.replace("--", "-") for option in self.shown(self.clients.issue("bob"), "bob"))
        said = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        for version in ("-tls1_2", "-tls1_3"):
            session = str(self.folder / f"{version}.session")
            options = (version, "-servername", NAME)
            s_client(port, *options, *shown, "-sess_out", session, folder=self.folder, said=said)
            again = s_client(port, *options, "-sess_in", session, folder=self.folder, said=said)
            self.assertTrue(again.is_resumed)
            self.assertIn("X-Client-Cert-Subject: CN=bob", again.text)
            anew = s_client(port, *options, folder=self.folder, said=said)
            self.assertNotIn("200 OK", anew.text)
