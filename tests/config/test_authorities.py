"""CA files: what they must hold, who is trusted by them; and what reading certificates costs nobody."""

from __future__ import annotations

from OpenSSL import SSL

from lbsvc.config.certificates import CertificateFault, load_ca, reasons
from tests.config.test_certificates import FilesCase
from tests.kit.authority import Authority, Leaf
from tests.net.tls_pairs import forge, shake


class AuthoritiesTests(FilesCase):
    def trusts(self, trusted: bytes, leaf: Leaf) -> bool:
        """Is a server believed that shows this leaf with its chain, by a client that trusts this file?"""
        client_side, server_side = SSL.Context(SSL.TLS_CLIENT_METHOD), SSL.Context(SSL.TLS_SERVER_METHOD)
        load_ca(self.put("ca.pem", trusted)).trust_in(client_side)
        client_side.set_verify(SSL.VERIFY_PEER)
        server_side.use_certificate(leaf.certificate)
        for each in leaf.chain:
            server_side.add_extra_chain_cert(each)
        server_side.use_privatekey(leaf.key)
        client, server = SSL.Connection(client_side, None), SSL.Connection(server_side, None)
        client.set_connect_state()
        server.set_accept_state()
        try:
            shake(client, server)
        except SSL.Error as error:
            self.assertIn("certificate verify failed", reasons(error))
            return False
        return True

    def test_any_of_them(self) -> None:
        """Each CA of the file is trusted, and no other; the same one twice does no harm."""
        other, stranger = Authority("other"), Authority("stranger")
        both = b"some text\n" + self.authority.pem + other.pem + other.pem
        self.assertEqual(len(load_ca(self.put("ca.pem", both)).certificates), 3)
        self.assertTrue(self.trusts(both, self.authority.issue("a.example")))
        self.assertTrue(self.trusts(both, other.issue("a.example")))
        self.assertFalse(self.trusts(both, stranger.issue("a.example")))

    def test_intermediate(self) -> None:
        """An intermediate CA is enough where it is what is trusted; what others of the root have issued is not believed."""
        middle, other = Authority("middle", self.authority), Authority("other", self.authority)
        self.assertTrue(self.trusts(middle.pem, middle.issue("a.example")))
        self.assertFalse(self.trusts(middle.pem, other.issue("a.example")))
        self.assertFalse(self.trusts(middle.pem, self.authority.issue("a.example")))

    def test_no_ca(self) -> None:
        """A certificate that is no CA's vouches for itself only, and is spoken of."""
        leaf = forge(None)
        pem = leaf.cert_pem
        notes = load_ca(self.put("ca.pem", self.authority.pem + pem)).notes
        self.assertEqual(notes, ("has a certificate (number 2) that is no CA's: only itself is trusted by it",))
        self.assertTrue(self.trusts(pem, leaf))
        self.assertFalse(self.trusts(pem, self.authority.issue("a.example")))
        self.assertEqual(load_ca(self.put("ca.pem", self.authority.pem)).notes, ())

    def test_faults(self) -> None:
        """A file without a certificate is refused, for what it is."""
        leaf = self.authority.issue("a.example")
        for content, message in (
            (b"", "is empty"),
            (b"nothing", "is not PEM: it has no -----BEGIN CERTIFICATE-----"),
            (leaf.key_pem, "holds no certificate, but PRIVATE KEY"),
            (self.authority.pem[:-30], "has a block without an end (CERTIFICATE): is it written completely?"),
        ):
            fault = self.assertRaises(CertificateFault, load_ca, self.put("ca.pem", content))
            self.assertEqual((fault.which, fault.message), ("ca", message))

    def test_reasons(self) -> None:
        """OpenSSL's words are given once each, the last first; an error without any says so."""
        queue = [("a", "", "one"), ("b", "", "two"), ("c", "", "two"), ("d", "", "")]
        self.assertEqual(reasons(SSL.Error(queue)), "two; one")
        for error in (SSL.Error(), SSL.SysCallError(-1, "Unexpected EOF"), SSL.Error([])):
            self.assertEqual(reasons(error), "no reason given")
