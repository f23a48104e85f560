"""Certificates of clients: who is let in by which name, and what is told of them; attacks on `client_ca`; resumption."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from lbsvc.config.certificates import reasons
from lbsvc.net import server_tls
from lbsvc.net.arrival import ClientCertificate
from lbsvc.net.server_tls import ServerTls, ascii_subject
from tests.kit.authority import Authority, Leaf
from tests.net.tls_listening import BOTH, ListenerCase
from tests.net.tls_pairs import forge, shake

NAMES = (None, "a.example", "b.example", "c.b.example", "unknown.example")


class ClientCase(ListenerCase):
    def setUp(self) -> None:
        super().setUp()
        self.clients = Authority("clients")
        self.ca = self.clients.write(self.folder)
        self.friend = self.clients.issue("friend", san=False)

    def guarded(self, auth: str = "required") -> ServerTls:
        """A listener of several names, that asks for certificates."""
        leaves = [self.authority.issue(name) for name in ("a.example", "b.example", "*.b.example")]
        return self.listen(*leaves, client_ca=self.ca, client_auth=auth)

    def refusal(self, tls: ServerTls, version: str, shown: Leaf | None, name: str | None) -> str:
        """Why a client is refused; "" where it is not."""
        try:
            self.visit(tls, self.browser(version, shown), name)
        except SSL.Error as error:
            return reasons(error)
        return ""


class AttackTests(ClientCase):
    def test_nobody_comes_in(self) -> None:
        """Where a certificate is required no name of SNI is a way around it, in no version."""
        strangers = {
            "none at all": None,
            "another CA": self.authority.issue("friend"),
            "a CA of the same name": Authority("clients").issue("friend"),
            "expired": self.clients.issue("friend", days=-1),
            "for servers": self.clients.issue("friend", client=False),
            "of itself": forge(None),
        }
        tls = self.guarded()
        for version in BOTH:
            for name in NAMES:
                for what, shown in strangers.items():
                    self.assertNotEqual(self.refusal(tls, version, shown, name), "", (version, name, what))
                self.assertEqual(self.refusal(tls, version, self.friend, name), "", (version, name))

    def test_optional(self) -> None:
        """Where a certificate is optional none is needed; one that is shown must be right all the same."""
        tls = self.guarded("optional")
        wrong = (self.authority.issue("friend"), self.clients.issue("friend", days=-1), forge(None))
        for version in BOTH:
            for name in NAMES:
                self.assertEqual(self.refusal(tls, version, None, name), "")
                self.assertEqual(self.refusal(tls, version, self.friend, name), "")
                for shown in wrong:
                    self.assertNotEqual(self.refusal(tls, version, shown, name), "", (version, name))

    def test_alerts(self) -> None:
        """A client that is refused is told what is wrong, by an alert."""
        tls = self.guarded()
        for shown, alert in (
            (None, "certificate required"),
            (self.authority.issue("x"), "unknown ca"),
            (self.clients.issue("x", days=-1), "certificate expired"),
        ):
            client, server = SSL.Connection(self.browser("TLSv1.3", shown), None), tls.connection(None)
            client.set_connect_state()
            self.assertRaises(SSL.Error, shake, client, server)
            # By its own lights the client's handshake had ended well.
            error = self.assertRaises(SSL.Error, client.recv, 1)
            self.assertIn(alert, reasons(error))

    def test_wanted_names(self) -> None:
        """Clients are told which CAs are believed, so that they can choose among their certificates."""
        tls = self.guarded()
        for name in NAMES:
            asked = self.visit(tls, self.browser(shown=self.friend), name).client.get_client_ca_list()
            self.assertEqual([each.CN for each in asked], ["clients"])

    def test_nobody_is_asked(self) -> None:
        """Without `client_ca` nobody is asked, and what a client would show is not looked at."""
        tls = self.listen(self.authority.issue("a.example"))
        self.assertFalse(tls.asks_for_certificates)
        for version in BOTH:
            visit = self.visit(tls, self.browser(version, self.friend))
            self.assertIsNone(visit.facts[4])
            self.assertEqual(visit.client.get_client_ca_list(), [])
        self.assertTrue(self.guarded().asks_for_certificates)

    def test_intermediate(self) -> None:
        """Certificates below an intermediate of the CA are believed where the intermediate is shown with them."""
        leaf = Authority("middle", self.clients).issue("friend")
        for version in BOTH:
            self.assertEqual(self.refusal(self.guarded(), version, leaf, "b.example"), "")
            self.assertNotEqual(
                self.refusal(self.guarded(), version, Leaf(leaf.certificate, leaf.key), "b.example"), ""
            )


class ResumptionTests(ClientCase):
    def test_every_name(self) -> None:
        """Sessions are resumed by their tickets, whatever name they were made for; what is known of them stays."""
        tls = self.listen(*(self.authority.issue(name) for name in ("a.example", "b.example")))
        for version in BOTH:
            browser = self.browser(version)
            for name in ("a.example", "b.example", "unknown.example", None):
                visit = self.visit(tls, browser, name)
                self.assertFalse(visit.is_resumed)
                again = self.visit(tls, browser, name, visit.part())
                self.assertTrue(again.is_resumed, (version, name))
                self.assertEqual(again.facts, visit.facts)

    def test_without_tickets(self) -> None:
        """A client of TLS 1.2 that knows no tickets is found in the memory of sessions."""
        tls = self.listen(*(self.authority.issue(name) for name in ("a.example", "b.example")))
        browser = self.browser("TLSv1.2", options=SSL.OP_NO_TICKET)
        for name in ("a.example", "b.example"):
            self.assertTrue(self.visit(tls, browser, name, self.visit(tls, browser, name).part()).is_resumed)

    def test_certificate_is_kept(self) -> None:
        """A resumed session is still its client's, in both versions and for every name."""
        for auth in ("required", "optional"):
            tls = self.guarded(auth)
            for version in BOTH:
                browser = self.browser(version, self.friend)
                for name in NAMES:
                    visit = self.visit(tls, browser, name)
                    again = self.visit(tls, browser, name, visit.part())
                    self.assertTrue(again.is_resumed, (auth, version, name))
                    self.assertIsNotNone(again.facts[4])
                    self.assertEqual(again.facts, visit.facts)

    def test_nobody_stays_nobody(self) -> None:
        """A session without a certificate is resumed as one, whatever name is used."""
        tls = self.guarded("optional")
        for version in BOTH:
            browser = self.browser(version)
            session = self.visit(tls, browser, "a.example").part()
            again = self.visit(tls, browser, "b.example", session)
            self.assertTrue(again.is_resumed)
            self.assertIsNone(again.facts[4])

    def test_not_elsewhere(self) -> None:
        """A session of a listener that asks for nothing, or for less, opens no other."""
        leaf = self.authority.issue("a.example")
        open_one, optional, guarded = self.listen(leaf), self.guarded("optional"), self.guarded()
        for version in BOTH:
            browser = self.browser(version)
            for other in (open_one, optional):
                for name in NAMES:
                    session = self.visit(other, browser, name).part()
                    self.assertRaises(SSL.Error, self.visit, guarded, browser, name, session)
            session = self.visit(optional, browser).part()
            self.assertFalse(self.visit(open_one, browser, None, session).is_resumed)

    def test_of_another_process(self) -> None:
        """A session of another process with the same settings costs a whole handshake, and nothing else."""
        leaf = self.authority.issue("a.example")
        one, other = self.listen(leaf), self.listen(leaf)
        for version in BOTH:
            browser = self.browser(version)
            again = self.visit(other, browser, "a.example", self.visit(one, browser, "a.example").part())
            self.assertFalse(again.is_resumed)
            self.assertTrue(self.visit(other, browser, "a.example", again.part()).is_resumed)

    def test_not_after_another_ca(self) -> None:
        """Whom the CA that is in force no longer vouches for is not let in by an old session either."""
        for version in BOTH:
            self.clients.write(self.folder)
            tls = self.guarded()
            browser = self.browser(version, self.friend)
            session = self.visit(tls, browser).part()
            Authority("others").write(self.folder)
            tls.look()
            self.assertRaises(SSL.Error, self.visit, tls, browser, None, session)

    def test_keys_are_changed(self) -> None:
        """The keys of tickets are changed once a day, without a word."""
        tls = self.listen(self.authority.issue("a.example"))
        browser = self.browser("TLSv1.3")
        session = self.visit(tls, browser).part()
        self.now += server_tls.KEYS_LIFETIME - 1
        tls.look()
        visit = self.visit(tls, browser, None, session)
        self.assertTrue(visit.is_resumed)
        session = visit.part()
        self.now += 1
        tls.look()
        self.assertFalse(self.visit(tls, browser, None, session).is_resumed)
        self.assertEqual(self.events, [])
        self.assertEqual(tls.reloads, {"success": 0, "failure": 0})


class SubjectTests(ClientCase):
    def told_of(self, leaf: Leaf) -> ClientCertificate:
        found = self.visit(self.guarded(), self.browser(shown=leaf), "b.example").facts[4]
        assert found is not None
        return found

    def with_subject(self, *attributes: tuple[x509.ObjectIdentifier, str]) -> Leaf:
        builder = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
        leaf = self.friend
        certificate = (
            x509.CertificateBuilder()
            .subject_name(builder)
            .issuer_name(leaf.certificate.issuer)
            .public_key(leaf.key.public_key())
            .serial_number(7)
            .not_valid_before(leaf.certificate.not_valid_before_utc)
            .not_valid_after(leaf.certificate.not_valid_after_utc)
            .sign(self.clients.key, hashes.SHA256())
        )
        return Leaf(certificate, leaf.key)

    def test_words(self) -> None:
        """Subject by RFC 4514, the last part first; fingerprint of the whole; common name."""
        leaf = self.clients.issue(common_name="Anne, Marie", organization="Ours", san=False)
        fingerprint = leaf.certificate.fingerprint(hashes.SHA256()).hex()
        self.assertEqual(self.told_of(leaf), ClientCertificate("CN=Anne\\, Marie,O=Ours", fingerprint, "Anne, Marie"))

    def test_ascii(self) -> None:
        """What is not visible ASCII is escaped byte by byte, line ends before all."""
        leaf = self.with_subject((NameOID.COMMON_NAME, "Jürgen\r\nX-Admin: yes"))
        found = self.told_of(leaf)
        self.assertEqual(found.subject, "CN=J\\C3\\BCrgen\\0D\\0AX-Admin: yes")
        self.assertEqual(found.common_name, "Jürgen\r\nX-Admin: yes")
        self.assertEqual(ascii_subject("\x7f\x00\ud800"), "\\7F\\00\\ED\\A0\\80")

    def test_nameless(self) -> None:
        """A certificate without a common name, or any name, is told by its fingerprint."""
        found = self.told_of(self.with_subject((NameOID.ORGANIZATION_NAME, "Ours")))
        self.assertEqual((found.subject, found.common_name), ("O=Ours", ""))
        found = self.told_of(self.with_subject())
        self.assertEqual((found.subject, found.common_name, len(found.fingerprint)), ("", "", 64))

    def test_long(self) -> None:
        """A subject that is too long to be passed on is left out, not cut: the rest might be another's name."""
        many = [(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60)] * 40
        found = self.told_of(self.with_subject(*many, (NameOID.COMMON_NAME, "long")))
        self.assertEqual((found.subject, found.common_name), ("", "long"))
