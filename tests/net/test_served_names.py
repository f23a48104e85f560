"""Which certificate is shown for which name, and what a listener speaks: handshakes in memory."""

from __future__ import annotations

import gc

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.certificates import reasons
from lbsvc.net import served_names
from lbsvc.net.served_names import normal_name
from tests.kit.authority import Authority
from tests.net.tls_listening import BOTH, ListenerCase
from tests.net.tls_pairs import carry, read

lib = Binding.lib


class NameTests(ListenerCase):
    def test_choice(self) -> None:
        """An exact name goes before a wildcard, which stands for one label; all others get the first certificate."""
        leaves = {
            "first": self.authority.issue("a.example", common_name="first"),
            "wild": self.authority.issue("*.b.example", common_name="wild"),
            "exact": self.authority.issue("www.b.example", "b.example", common_name="exact"),
        }
        tls = self.listen(*leaves.values())
        for version in BOTH:
            browser = self.browser(version)
            for name, expected in (
                (None, "first"), ("a.example", "first"), ("A.Example", "first"),
                ("b.example", "exact"), ("www.b.example", "exact"), ("WWW.B.EXAMPLE", "exact"),
                ("other.b.example", "wild"), ("other.b.example.", "wild"),
                ("two.labels.b.example", "first"), ("*.b.example", "first"), (".b.example", "first"),
                ("unknown.example", "first"), ("example", "first"), ("192.0.2.1", "first"),
            ):  # fmt: skip
                shown = self.visit(tls, browser, name).certificate
                self.assertEqual(shown, leaves[expected].certificate, (version, name))

    def test_facts(self) -> None:
        """What is told of a connection: version, cipher, the name in its normal spelling, no certificate."""
        tls = self.listen(self.authority.issue("a.example"))
        for version, cipher in (("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("TLSv1.3", "TLS_AES_256_GCM_SHA384")):
            browser = self.browser(version)
            for asked, name in ((None, ""), ("WWW.Example", "www.example"), ("a.example.", "a.example"), ("a b", "")):
                self.assertEqual(self.visit(tls, browser, asked).facts, (version, cipher, name, b"", None))

    def test_kinds(self) -> None:
        """Of an RSA and an ECDSA certificate for one name, clients get the one that they can, with the chain that is its."""
        middle = Authority("middle", self.authority)
        both = {"RSA": middle.issue("a.example", kind="rsa"), "ECDSA": self.authority.issue("a.example")}
        for order in (("RSA", "ECDSA"), ("ECDSA", "RSA")):
            tls = self.listen(*(both[kind] for kind in order))
            for name in ("a.example", None):
                for kind, leaf in both.items():
                    old = self.browser("TLSv1.2")
                    old.set_cipher_list(f"ECDHE-{kind}-AES128-GCM-SHA256".encode())
                    new = self.browser("TLSv1.3")
                    algorithm = b"rsa_pss_rsae_sha256" if kind == "RSA" else b"ecdsa_secp256r1_sha256"
                    lib.SSL_CTX_set1_sigalgs_list(new._context, algorithm)
                    for browser in (old, new):
                        self.assertEqual(self.visit(tls, browser, name).chain, (leaf.certificate, *leaf.chain))

    def test_kinds_of_some_names(self) -> None:
        """A second kind for some of the names is offered for those; without a name, where it has all of the first's."""
        rsa = self.authority.issue("a.example", "b.example", kind="rsa")
        tls = self.listen(rsa, self.authority.issue("a.example"), self.authority.issue("c.example"))
        browser = self.browser("TLSv1.2")
        browser.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256")
        self.visit(tls, browser, "a.example")
        for name in ("b.example", None):
            error = self.assertRaises(SSL.Error, self.visit, tls, browser, name)
            self.assertIn("handshake failure", reasons(error))

    def test_same_kind_twice(self) -> None:
        """Of two certificates of one kind for one name the first is served."""
        first, second = self.authority.issue("a.example"), self.authority.issue("a.example", "b.example", number=1)
        tls = self.listen(first, second)
        self.assertEqual(self.visit(tls, None, "a.example").certificate, first.certificate)
        self.assertEqual(self.visit(tls, None, "b.example").certificate, second.certificate)

    def test_second_hello(self) -> None:
        """A client that has to say hello again gets the certificate of its name, though others have been loaded since."""
        tls = self.listen(self.authority.issue("a.example"), self.authority.issue("b.example"))
        leaf = self.authority.issue("b.example", number=1)
        browser = self.browser("TLSv1.3")
        # A key for the first group only, which the server does not know: it asks for one of the second.
        lib.SSL_CTX_set1_curves_list(browser._context, b"brainpoolP512r1tls13:P-256")
        client, server = SSL.Connection(browser, None), tls.connection(None)
        client.set_connect_state()
        client.set_tlsext_host_name(b"b.example")
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        carry(client, server)
        self.assertRaises(SSL.WantReadError, server.do_handshake)
        carry(client, server)
        self.assertRaises(SSL.WantReadError, client.do_handshake)  # it has said hello again
        before = self.visit(tls, None, "b.example").certificate
        self.files(leaf, "1")
        tls.look()
        self.assertEqual(self.visit(tls, None, "b.example").certificate, leaf.certificate)
        gc.collect()
        for _ in range(4):
            carry(client, server)
            for side in (client, server):
                try:
                    side.do_handshake()
                except SSL.WantReadError:
                    pass
        self.assertEqual(read(client, server), b"hello")
        self.assertEqual(client.get_group_name(), "secp256r1")
        self.assertEqual(client.get_peer_cert_chain()[0].to_cryptography(), before)

    def test_failing_choice(self) -> None:
        """An error of ours while a certificate is chosen is logged, and fails the handshake."""
        tls = self.listen(self.authority.issue("a.example"))
        self.patch(served_names, "normal_name", lambda asked: 1 // 0)
        for version in BOTH:
            self.assertRaises(SSL.Error, self.visit, tls, self.browser(version))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class NormalNameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """A host name comes in lower case; nothing, an address, or what is no name, is none."""
        longest = b".".join([b"a" * 62] * 4)
        for asked, name in (
            (b"a.Example", "a.example"), (b"a.example.", "a.example"), (b"_x.a-b.example", "_x.a-b.example"),
            (b"localhost", "localhost"), (b"1.example", "1.example"), (longest, longest.decode()),
            (None, ""), (b"", ""), (b".", ""), (b"a..b", ""), (b"-a.b", ""), (b"a-.b", ""), (b"*.b", ""), (b"a b", ""),
            (b"192.0.2.1", ""), (b"::1", ""), (b"[::1]", ""), (b"a.b\n", ""), (b"\xc3\xa4.b", ""), (longest + b"aaaa", ""),
        ):  # fmt: skip
            self.assertEqual(normal_name(asked), name, asked)


class ProtocolTests(ListenerCase):
    def agreed(self, ours: tuple[str, ...], theirs: tuple[bytes, ...]) -> bytes:
        tls = self.listen(self.authority.issue("a.example"), self.authority.issue("b.example"), alpn=ours)
        found = {self.visit(tls, None, name, alpn=theirs).facts[3] for name in (None, "b.example")}
        [protocol] = found
        return protocol

    def refused(self, ours: tuple[str, ...], theirs: tuple[bytes, ...]) -> str:
        tls = self.listen(self.authority.issue("a.example"), alpn=ours)
        return str(self.assertRaises(SSL.Error, self.visit, tls, None, None, alpn=theirs))

    def test_alpn(self) -> None:
        """For every name the first of our protocols that the client offers is agreed on; who offers none of them is told."""
        self.assertEqual(self.agreed(("x", "http/1.1"), (b"http/1.1", b"x")), b"x")
        self.assertEqual(self.agreed(("x", "http/1.1"), (b"other", b"http/1.1")), b"http/1.1")
        self.assertIn("no application protocol", self.refused(("x",), (b"y",)))
        self.assertEqual(self.agreed((), (b"http/1.1",)), b"")
        self.assertEqual(self.agreed(("x",), ()), b"")

    def test_old_clients(self) -> None:
        """Who offers HTTP/1.0 alone is one of HTTP/1, where that is spoken, and gets 1.1 if it offers both."""
        self.assertEqual(self.agreed(("h2", "http/1.1"), (b"http/1.0",)), b"http/1.0")
        self.assertEqual(self.agreed(("h2", "http/1.1"), (b"http/1.0", b"http/1.1")), b"http/1.1")
        self.assertIn("no application protocol", self.refused(("h2",), (b"http/1.0",)))

    def test_h2(self) -> None:
        """HTTP/2 is agreed on where both sides have it, by our order."""
        self.assertEqual(self.agreed(("h2", "http/1.1"), (b"http/1.1", b"h2")), b"h2")
        self.assertEqual(self.agreed(("http/1.1",), (b"h2", b"http/1.1")), b"http/1.1")

    def test_most_protocols(self) -> None:
        """Of a list without end only the beginning is looked at."""
        fill = tuple(b"%d" % number for number in range(served_names.MOST_PROTOCOLS - 1))
        self.assertEqual(self.agreed(("http/1.1",), (*fill, b"http/1.1")), b"http/1.1")
        self.assertIn("no application protocol", self.refused(("http/1.1",), (*fill, b"one more", b"http/1.1")))

    def test_failing_alpn(self) -> None:
        """An error of ours while a protocol is chosen is logged, and fails the handshake."""
        tls = self.listen(self.authority.issue("a.example"))
        self.patch(served_names, "_protocols", lambda text: 1 // 0)
        self.assertRaises(SSL.Error, self.visit, tls, alpn=(b"http/1.1",))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StrengthTests(ListenerCase):
    def refusal(self, browser: SSL.Context, **settings: object) -> str:
        tls = self.listen(self.authority.issue("a.example"), self.authority.issue("b.example"), **settings)
        found = set()
        for name in (None, "b.example"):
            try:
                self.visit(tls, browser, name)
                found.add("")
            except SSL.Error as error:
                found.add(reasons(error))
        [refusal] = found
        return refusal

    def test_old_versions(self) -> None:
        """TLS 1.1 is refused; so is 1.2 where 1.3 is asked for, whatever name is used."""
        old = SSL.Context(SSL.TLS_CLIENT_METHOD)
        old.set_min_proto_version(SSL.TLS1_1_VERSION)
        old.set_max_proto_version(SSL.TLS1_1_VERSION)
        old.set_cipher_list(b"ALL:@SECLEVEL=0")
        self.assertNotEqual(self.refusal(old), "")
        self.assertIn("protocol version", self.refusal(self.browser("TLSv1.2"), min_version="1.3"))
        self.assertEqual(self.refusal(self.browser("TLSv1.3"), min_version="1.3"), "")
        self.assertEqual(self.refusal(self.browser("TLSv1.2")), "")

    def test_ciphers(self) -> None:
        """By default TLS 1.2 is forward secret and authenticated; another list is obeyed for every name."""
        cbc = self.browser("TLSv1.2")
        cbc.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA")
        self.assertIn("handshake failure", self.refusal(cbc))
        self.assertEqual(self.refusal(cbc, ciphers="ECDHE-ECDSA-AES128-SHA"), "")
        self.assertIn("handshake failure", self.refusal(self.browser("TLSv1.2"), ciphers="ECDHE-RSA-AES128-GCM-SHA256"))

    def test_our_order(self) -> None:
        """Of the ciphers that both know, ours is the order that counts."""
        tls = self.listen(self.authority.issue("a.example"))
        browser = self.browser("TLSv1.2")
        browser.set_cipher_list(b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual(self.visit(tls, browser).facts[1], "ECDHE-ECDSA-AES128-GCM-SHA256")

    def test_key_exchange(self) -> None:
        """The hybrid of X25519 and ML-KEM is spoken by default, and X25519 with those who do not know it."""
        tls = self.listen(self.authority.issue("a.example"))
        self.assertEqual(self.visit(tls, self.browser("TLSv1.3")).server.get_group_name(), "X25519MLKEM768")
        browser = self.browser("TLSv1.3")
        lib.SSL_CTX_set1_curves_list(browser._context, b"X25519")
        self.assertEqual((self.visit(tls, browser).server.get_group_name() or "").lower(), "x25519")

    def test_no_renegotiation(self) -> None:
        """A client cannot make us shake hands again."""
        tls = self.listen(self.authority.issue("a.example"))
        visit = self.visit(tls, self.browser("TLSv1.2"))
        self.assertTrue(visit.client.renegotiate())
        self.assertRaises(SSL.WantReadError, visit.client.do_handshake)
        carry(visit.client, visit.server)
        self.assertRaises(SSL.WantReadError, visit.server.recv, 100)
        carry(visit.client, visit.server)
        error = self.assertRaises(SSL.Error, visit.client.do_handshake)
        self.assertIn("no renegotiation", reasons(error))
        self.assertEqual(visit.server.total_renegotiations(), 0)

    def test_no_chain_of_the_ca(self) -> None:
        """The CA that clients are judged by is not sent along with a certificate of its own making."""
        path = self.authority.write(self.folder)
        leaf = self.authority.issue("a.example")
        tls = self.listen(leaf, client_ca=path, client_auth="optional")
        self.assertEqual(self.visit(tls).chain, (leaf.certificate,))
