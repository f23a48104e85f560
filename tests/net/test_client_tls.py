"""Who is believed to be a backend: the one that was meant, and nobody else, in both versions of TLS."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.hazmat import DNS_ID
from twisted.trial.unittest import TestCase

from lbsvc.config.certificates import CertificateFault
from lbsvc.config.schema import CertificateFiles, PoolTls
from lbsvc.net import client_tls
from lbsvc.net.client_tls import ClientTls, Unverified, UpstreamTls
from tests.kit.authority import DAY, Authority, Leaf
from tests.net.tls_pairs import VERSIONS, Server, carry, dns_names, forge, meet, reason, shake, write_pem

FAILED = "certificate verify failed: "
NOT_YET = "certificate is not yet valid or the system clock is incorrect"
ODD = "the certificate has no subjectAltName, or one that is not as it should be"
NOT_ISSUED = FAILED + "unable to get local issuer certificate"


class Case(TestCase):
    """One CA for all; `tls` trusts it."""

    authority = Authority()

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.ca = self.authority.write(self.folder)

    def tls(self, host: str = "a.example", alpn: tuple[str, ...] = (), **settings: Any) -> ClientTls:
        return UpstreamTls(PoolTls(**{"ca": self.ca, **settings}), time.time, alpn).for_host(host)

    def told(self, leaf: Leaf, make: Callable[[], ClientTls] | None = None) -> str:
        """Why a server with this certificate is not believed ("" where it is), which no version may change."""
        found = {reason((make or self.tls)(), Server(leaf, version)) for version in VERSIONS.values()}
        self.assertEqual(len(found), 1, found)
        return found.pop()


class ChainTests(Case):
    def test_right_name(self) -> None:
        """A certificate of the CA with the backend's name is believed, in both versions, of each kind of key."""
        for kind in ("ecdsa", "rsa", "ed25519"):
            self.assertEqual(self.told(self.authority.issue("b.example", "a.example", kind=kind)), "", kind)

    def test_untrusted_authority(self) -> None:
        """A CA that is not ours convinces nobody, though it has the same name."""
        self.assertEqual(self.told(Authority().issue("a.example")), NOT_ISSUED)

    def test_expired(self) -> None:
        """An expired certificate is refused."""
        self.assertEqual(self.told(self.authority.issue("a.example", days=-1)), FAILED + "certificate has expired")

    def test_not_yet_valid(self) -> None:
        """One that begins tomorrow is refused today."""
        self.assertEqual(self.told(forge(self.authority, begins=DAY)), FAILED + NOT_YET)

    def test_wrong_purpose(self) -> None:
        """A client's certificate makes no server, though the name is right."""
        leaf = forge(self.authority, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
        self.assertEqual(self.told(leaf), FAILED + "unsuitable certificate purpose")
        self.assertEqual(self.told(forge(self.authority)), "")

    def test_missing_intermediate(self) -> None:
        """A server has to show what lies between it and the CA."""
        leaf = Authority("between", parent=self.authority).issue("a.example")
        self.assertEqual(self.told(leaf), "")
        self.assertEqual(self.told(Leaf(leaf.certificate, leaf.key)), NOT_ISSUED)

    def test_intermediate_as_ca(self) -> None:
        """An intermediate given as `ca` is trusted without its root, and nothing else of that root is."""
        between = Authority("between", parent=self.authority)
        ca = between.write(self.folder, "between")
        leaf = between.issue("a.example")
        self.assertEqual(self.told(Leaf(leaf.certificate, leaf.key), lambda: self.tls(ca=ca)), "")
        self.assertEqual(self.told(self.authority.issue("a.example"), lambda: self.tls(ca=ca)), NOT_ISSUED)

    def test_self_signed(self) -> None:
        """A self-signed certificate given as `ca` is trusted itself, under its own name only, and another like it is not."""
        own = forge(None)
        ca = write_pem(os.path.join(self.folder, "own.pem"), own.certificate)
        self.assertEqual(self.told(own), FAILED + "self-signed certificate")
        self.assertEqual(self.told(own, lambda: self.tls(ca=ca)), "")
        wrong = "the certificate is not one for b.example"
        self.assertEqual(self.told(own, lambda: self.tls("b.example", ca=ca)), wrong)
        other = forge(None, begins=-2 * DAY)
        self.assertIn(FAILED, self.told(other, lambda: self.tls(ca=ca)))

    def test_several_authorities(self) -> None:
        """Each certificate in the `ca` file is trusted."""
        other = Authority("other")
        ca = write_pem(os.path.join(self.folder, "both.pem"), self.authority.certificate, other.certificate)
        for authority in (self.authority, other):
            self.assertEqual(self.told(authority.issue("a.example"), lambda: self.tls(ca=ca)), "")

    def test_system_store(self) -> None:
        """Without `ca` the system's store says who is trusted; with it the store does not count."""
        other = Authority("of the system")
        before = os.environ.get("SSL_CERT_FILE")
        if before is None:
            self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        else:
            self.addCleanup(os.environ.__setitem__, "SSL_CERT_FILE", before)
        os.environ["SSL_CERT_FILE"] = other.write(self.folder, "system")
        leaf = other.issue("a.example")
        self.assertEqual(self.told(leaf, lambda: self.tls(ca=None)), "")
        self.assertEqual(self.told(self.authority.issue("a.example"), lambda: self.tls(ca=None)), NOT_ISSUED)
        self.assertEqual(self.told(leaf), NOT_ISSUED)


class NameTests(Case):
    def test_wrong_name(self) -> None:
        """A certificate of the CA for somebody else is refused, and the words say whom we meant."""
        told = self.told(self.authority.issue("b.example", common_name="a.example"))
        self.assertEqual(told, "the certificate is not one for a.example")

    def test_no_alternative_name(self) -> None:
        """A common name alone is no name."""
        self.assertEqual(self.told(self.authority.issue("a.example", san=False)), ODD)

    def test_malformed(self) -> None:
        """A name that is not lawful spoils the certificate, even beside the right one."""
        for names in (("*",), ("*", "a.example"), ("*.example", "a.example"), ("x.*.example", "a.example")):
            self.assertEqual(self.told(self.authority.issue(*names, common_name="a.example")), ODD, names)

    def test_unreadable(self) -> None:
        """So do bytes that make no name: NUL, what is not ASCII, what is no DER."""
        for raw in (dns_names(b"a.example\0.evil"), dns_names(b"a.example", b"\0")):
            self.assertEqual(self.told(forge(self.authority, raw=raw)), ODD)
        told = self.told(forge(self.authority, raw=dns_names(b"a.example", b"\xff")))
        self.assertEqual(told, "the certificate cannot be judged (ValueError)")
        for raw in (b"\x30\x80", b"\x30\x03\x82\x01", b""):  # OpenSSL's servers do not even speak TLS 1.2 with those
            self.assertIn(FAILED, reason(self.tls(), Server(forge(self.authority, raw=raw), SSL.TLS1_3_VERSION)))

    def test_wildcards(self) -> None:
        """`*` stands for one whole label, and not for a part of one."""
        cases = [
            ("*.b.example", "a.b.example", True),
            ("*.B.EXAMPLE", "A.b.example", True),
            ("*.b.example", "b.example", False),
            ("*.b.example", "x.a.b.example", False),
            ("a*.b.example", "ab.b.example", False),
            ("*b.b.example", "ab.b.example", False),
            ("*.b.example", "xn--bcher-kva.b.example", False),
        ]
        for pattern, host, is_right in cases:
            leaf = self.authority.issue(pattern)
            told = self.told(leaf, lambda host=host: self.tls(host))  # type: ignore[misc]
            self.assertEqual(told, "" if is_right else f"the certificate is not one for {host.lower()}", pattern)

    def test_trailing_dot(self) -> None:
        """A host that is written to its root is the same host; a certificate's name is not written so."""
        self.assertEqual(self.told(self.authority.issue("a.example"), lambda: self.tls("a.example.")), "")
        self.assertIn("is not one for", self.told(self.authority.issue("a.example.")))

    def test_addresses(self) -> None:
        """An address is right where it is an address in the certificate, however both are spelt."""
        leaf = self.authority.issue("127.0.0.1", "2001:db8::1")
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "2001:DB8:0::1", "2001:db8::1%eth0"):
            self.assertEqual(self.told(leaf, lambda host=host: self.tls(host)), "", host)  # type: ignore[misc]
        self.assertIn("not one for 127.0.0.2", self.told(leaf, lambda: self.tls("127.0.0.2")))

    def test_names_are_no_addresses(self) -> None:
        """A DNS name that looks like an address spoils the certificate; an address is no name, and a name no address."""
        leaf = forge(self.authority, ["127.0.0.1"])
        self.assertEqual(self.told(leaf, lambda: self.tls("127.0.0.1")), ODD)
        self.assertIn("is not one for", self.told(self.authority.issue("a.example"), lambda: self.tls("127.0.0.1")))
        self.assertIn("is not one for", self.told(self.authority.issue("127.0.0.1")))

    def test_server_name(self) -> None:
        """`server_name` is what is asked for and verified, whatever the host is; the host's own name counts no more."""
        for host in ("b.example", "127.0.0.1", "/run/b.sock"):
            make = lambda host=host: self.tls(host, server_name="a.example")  # noqa: E731
            self.assertEqual(self.told(self.authority.issue("a.example"), make), "")
            self.assertEqual(meet(make(), Server(self.authority.issue("a.example")))[1].get_servername(), b"a.example")
            self.assertIn("is not one for a.example", self.told(self.authority.issue("b.example", "127.0.0.1"), make))
        self.assertEqual(
            self.told(self.authority.issue("127.0.0.1"), lambda: self.tls("b.example", server_name="127.0.0.1")), ""
        )

    def test_international(self) -> None:
        """Names beyond ASCII are asked for and compared in their ASCII form, by the rules of today."""
        for host in ("Bücher.example", "xn--bcher-kva.example", "BÜCHER。example."):
            _, server = meet(self.tls(host), Server(self.authority.issue("xn--bcher-kva.example")))
            self.assertEqual(server.get_servername(), b"xn--bcher-kva.example")
        self.assertEqual(self.tls("straße.example").name, "xn--strae-oqa.example")

    def test_nobody(self) -> None:
        """What has no name that could be compared is never believed; what is no name is not asked for either."""
        for host in (
            "/run/b.sock",
            "",
            ".",
            "a..example",
            "-a.example",
            "1234",
            "a b.example",
            "ü" * 300,
            "a." * 127 + "example",
            "a.example\n",
        ):
            tls = self.tls(host)
            self.assertEqual(tls.name, "", host)
            self.assertIn("tls.server_name gives one", reason(tls, Server(self.authority.issue("a.example"))))

    @given(st.text(max_size=300))
    def test_any_text(self, host: str) -> None:
        """Any text is a lawful name, an address, or nobody."""
        name, identity = client_tls._identify(host)
        if isinstance(identity, DNS_ID):
            self.assertEqual(identity.hostname, name.encode("ascii"))
            self.assertLessEqual(len(name), 253)
            self.assertTrue(client_tls._NAME.fullmatch(name))
        elif identity is None:
            self.assertEqual(name, "")
        else:
            self.assertEqual(str(identity.ip), name)


class DoubtTests(Case):
    def test_unfinished(self) -> None:
        """Before the handshake is over nobody is believed: a certificate can be shown by anybody, without its key."""
        for verify in (True, False):
            tls = self.tls(verify=verify)
            client = tls.connection(None)
            self.assertRaises(Unverified, tls.verify, client)
            server = Server(self.authority.issue("a.example"), SSL.TLS1_3_VERSION).connection()
            self.assertRaises(SSL.WantReadError, client.do_handshake)
            carry(client, server)
            self.assertRaises(SSL.WantReadError, server.do_handshake)
            client.bio_write(server.bio_read(1 << 16)[:-1])
            self.assertRaises(SSL.WantReadError, client.do_handshake)
            self.assertIsNotNone(client.get_peer_certificate())
            error = self.assertRaises(Unverified, tls.verify, client)
            self.assertEqual(str(error), "the handshake is not over")

    def test_no_certificate(self) -> None:
        """Whoever shows none is nobody, though OpenSSL finds nothing wrong with that."""
        tls = self.tls()
        client, _ = meet(tls, Server(self.authority.issue("a.example")))
        client.get_peer_certificate = lambda: None  # type: ignore[method-assign]
        self.assertEqual(str(self.assertRaises(Unverified, tls.verify, client)), "there is no certificate")

    def test_unforeseen(self) -> None:
        """An exception that nobody has thought of refuses, and its name is told but not its text."""

        def fail(*_: Any) -> None:
            raise RuntimeError("peer's bytes")

        self.patch(client_tls, "extract_patterns", fail)
        told = self.told(self.authority.issue("a.example"))
        self.assertEqual(told, "the certificate cannot be judged (RuntimeError)")

    def test_chain_is_asked_for_again(self) -> None:
        """OpenSSL's verdict is looked at after the handshake too: one that let somebody through does not count."""
        tls = self.tls()
        tls.upstream.openssl.set_verify(SSL.VERIFY_NONE)
        self.assertEqual(reason(tls, Server(Authority().issue("a.example"))), NOT_ISSUED)

    def test_seen_is_compared_whole(self) -> None:
        """What was learned about one certificate says nothing about the next one, on the same backend."""
        tls = self.tls()
        for _ in range(2):
            self.assertEqual(reason(tls, Server(self.authority.issue("a.example"))), "")
            self.assertIn("is not one for", reason(tls, Server(self.authority.issue("b.example"))))
            self.assertEqual(reason(tls, Server(Authority().issue("a.example"))), NOT_ISSUED)

    def test_verify_false(self) -> None:
        """`verify: false` believes anybody, and still asks for the name."""
        for leaf in (forge(None, ["x"]), self.authority.issue("b.example", days=-1), self.authority.issue(san=False)):
            self.assertEqual(self.told(leaf, lambda: self.tls(verify=False)), "")
            self.assertEqual(self.told(leaf, lambda: self.tls("/run/b.sock", verify=False)), "")
        tls = self.tls(verify=False, ca=os.path.join(self.folder, "none.pem"))
        _, server = meet(tls, Server(self.authority.issue("b.example")))
        self.assertEqual(server.get_servername(), b"a.example")


class SpeechTests(Case):
    def test_asked_name(self) -> None:
        """SNI has the host in lower case, without the dot at its end; addresses are not asked for."""
        for host, asked in (("A.Example.", b"a.example"), ("127.0.0.1", None), ("::1", None)):
            _, server = meet(self.tls(host), Server(self.authority.issue("a.example", "127.0.0.1", "::1")))
            self.assertEqual(server.get_servername(), asked)

    def test_protocols(self) -> None:
        """ALPN offers what the pool speaks, or nothing."""
        for alpn, offered in ((("http/1.1",), [b"http/1.1"]), ((), [])):
            server = Server(self.authority.issue("a.example"))
            server.speak(b"http/1.1")
            client, _ = meet(self.tls(alpn=alpn), server)
            self.assertEqual(server.offered, offered)
            self.assertEqual(client.get_alpn_proto_negotiated(), b"http/1.1" if alpn else b"")

    def test_client_certificate(self) -> None:
        """Ours is shown with its chain to a server that asks, and verified by its CA."""
        leaf = Authority("between", parent=self.authority).issue("us.example")
        pair = CertificateFiles(*leaf.write(self.folder))
        for version in VERSIONS.values():
            for client, shown in ((pair, leaf.certificate), (None, None)):
                server = Server(self.authority.issue("a.example"), version)
                store: Any = server.openssl.get_cert_store()
                store.add_cert(X509.from_cryptography(self.authority.certificate))
                server.openssl.set_verify(SSL.VERIFY_PEER)
                side = meet(self.tls(client=client), server)[1]
                seen: Any = side.get_peer_certificate()
                self.assertEqual(seen and seen.to_cryptography(), shown)

    def test_old_versions(self) -> None:
        """TLS 1.1 is not spoken."""
        server = Server(self.authority.issue("a.example"))
        server.openssl.set_cipher_list(b"ALL:@SECLEVEL=0")
        server.openssl.set_min_proto_version(SSL.TLS1_VERSION)
        server.openssl.set_max_proto_version(SSL.TLS1_1_VERSION)
        client = self.tls().connection(None)
        error = self.assertRaises(SSL.Error, shake, client, server.connection())
        told = "the backend refuses: protocol version (TLS 1.2 is the least that is spoken here)"
        self.assertEqual(client_tls.explain(error), (False, told))

    def test_files(self) -> None:
        """Files that cannot be used are a fault at once."""
        missing = os.path.join(self.folder, "missing.pem")
        cert, key = self.authority.issue("a.example").write(self.folder)
        cases: list[tuple[str, dict[str, Any]]] = [
            ("ca", {"ca": missing}),
            ("ca", {"ca": key}),
            ("cert", {"client": CertificateFiles(missing, key)}),
            ("key", {"client": CertificateFiles(cert, missing)}),
            ("key", {"client": CertificateFiles(cert, self.ca)}),
        ]
        for which, settings in cases:
            self.assertEqual(self.assertRaises(CertificateFault, self.tls, **settings).which, which)

    def test_defaults(self) -> None:
        """A pool without a `tls` section verifies, by the system's store."""
        self.assertEqual(UpstreamTls(None, time.time).settings, PoolTls())
        self.assertTrue(PoolTls().verify)
        self.assertEqual(datetime.timedelta(seconds=client_tls.LONGEST_SESSION), datetime.timedelta(hours=1))
