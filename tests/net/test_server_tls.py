"""A listener's certificates in time: taken up anew when files change, kept when they are wrong, spoken of when they end."""

from __future__ import annotations

import os
import socket

from OpenSSL import SSL

from lbsvc.config.certificates import CertificateFault, day
from lbsvc.config.schema import CertificateFiles, ListenerTls
from lbsvc.net import server_tls
from lbsvc.net.server_tls import ServerTls
from tests.kit.authority import Authority, Leaf
from tests.net.tls_listening import BOTH, ListenerCase
from tests.net.tls_pairs import carry, read

DAY = server_tls.DAY


class ReloadCase(ListenerCase):
    def shown(self, tls: ServerTls, name: str | None = None) -> object:
        return self.visit(tls, None, name).certificate

    def put(self, name: str, content: bytes) -> None:
        """A file whose content is another one, whatever its time says."""
        path = os.path.join(self.folder, name)
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.chmod(path + ".new", 0o600)
        os.replace(path + ".new", path)

    def valid(self, leaf: Leaf, name: str = "a.example") -> tuple[str, str, str]:
        until = day(leaf.certificate.not_valid_after_utc.timestamp())
        return ("info", "certificate.loaded", f"the certificate of {name} is valid until {until}")


class ReloadTests(ReloadCase):
    def test_new_certificate(self) -> None:
        """A changed pair is taken up at the next look, for new connections; open ones live on; it is told once."""
        tls = self.listen(self.authority.issue("a.example"))
        visit = self.visit(tls)
        leaf = self.authority.issue("a.example", number=1)
        self.files(leaf, "0")
        self.assertNotEqual(self.shown(tls), leaf.certificate)
        tls.look()
        self.assertEqual(self.shown(tls), leaf.certificate)
        self.assertEqual(read(visit.client, visit.server), b"hello")
        tls.look()
        tls.look()
        self.assertEqual(self.told(), [self.valid(leaf)])
        self.assertEqual(tls.reloads, {"success": 1, "failure": 0})

    def test_fields(self) -> None:
        """The event of a certificate has its name, file, fingerprint and end."""
        tls = self.listen(self.authority.issue("a.example"))
        self.files(self.authority.issue("b.example", number=1), "0")
        tls.look()
        [(_, _, _, fields)] = self.events
        self.assertEqual(sorted(fields), ["fingerprint", "name", "not_after", "path"])
        self.assertEqual((fields["name"], len(fields["fingerprint"])), ("b.example", 64))
        self.assertEqual(fields["path"], os.path.join(self.folder, "0.pem"))
        self.assertRegex(fields["not_after"], r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

    def test_nothing_new(self) -> None:
        """Without a change, and with the same content written again, nothing is told and sessions go on."""
        leaf = self.authority.issue("a.example")
        tls = self.listen(leaf)
        browser = self.browser("TLSv1.3")
        session = self.visit(tls, browser).part()
        tls.look()
        self.files(leaf, "0")
        tls.look()
        tls.look()
        self.assertTrue(self.visit(tls, browser, None, session).is_resumed)
        self.assertEqual((self.events, tls.reloads), ([], {"success": 0, "failure": 0}))

    def test_handshake_under_way(self) -> None:
        """A handshake that has begun ends with the certificate that it has begun with."""
        first, second = self.authority.issue("a.example"), self.authority.issue("a.example", number=1)
        for version in BOTH:
            tls = self.listen(first)
            client, server = SSL.Connection(self.browser(version), None), tls.connection(None)
            client.set_connect_state()
            self.assertRaises(SSL.WantReadError, client.do_handshake)
            carry(client, server)
            self.files(second, "0")
            tls.look()
            for _ in range(4):
                for side in (server, client):
                    try:
                        side.do_handshake()
                    except SSL.WantReadError:
                        pass
                    carry(client, server)
            self.assertEqual(read(client, server), b"hello")
            self.assertEqual(client.get_peer_cert_chain()[0].to_cryptography(), first.certificate)

    def test_names_come_and_go(self) -> None:
        """The names are those of the certificate that is served now."""
        tls = self.listen(self.authority.issue("a.example"), self.authority.issue("b.example"))
        leaf = self.authority.issue("c.example", number=1)
        self.files(leaf, "1")
        tls.look()
        self.assertEqual(self.shown(tls, "c.example"), leaf.certificate)
        self.assertEqual(self.shown(tls, "b.example"), self.shown(tls, "a.example"))
        self.assertEqual(sorted(tls.expiries), ["a.example", "c.example"])

    def test_another_ca(self) -> None:
        """A changed CA file is taken up, too."""
        mine, yours = Authority("mine"), Authority("yours")
        tls = self.listen(self.authority.issue("a.example"), client_ca=mine.write(self.folder))
        yours.write(self.folder)
        tls.look()
        for version in BOTH:
            self.visit(tls, self.browser(version, yours.issue("x")))
            self.assertRaises(SSL.Error, self.visit, tls, self.browser(version, mine.issue("x")))
        self.put("ca.pem", yours.pem + mine.pem)
        tls.look()
        self.assertEqual(
            self.told(),
            [
                (
                    "info",
                    "certificate.loaded",
                    "clients are judged by ca.pem (1 certificate)",
                ),
                ("info", "certificate.loaded", "clients are judged by ca.pem (2 certificates)"),
            ],
        )

    def test_oddities(self) -> None:
        """What is odd about a new certificate is said as it is taken up."""
        tls = self.listen(self.authority.issue("a.example"))
        leaf = self.authority.issue("b.example", since=-2, number=1)
        self.files(Leaf(leaf.certificate, leaf.key, (Authority("stranger").certificate,)), "0")
        tls.look()
        level, event, message = self.told()[0]
        self.assertEqual((level, event), ("warn", "certificate.loaded"))
        begins = day(leaf.certificate.not_valid_before_utc.timestamp())
        told = "; has a certificate (number 2) that has not issued the one before it; is not valid before "
        self.assertTrue(message.endswith(told + begins), message)


class RefusalTests(ReloadCase):
    def test_wrong_file(self) -> None:
        """A file that is wrong changes nothing and is told once; when it is right it is taken up."""
        leaf = self.authority.issue("a.example")
        tls = self.listen(leaf)
        self.put("0.pem", b"nothing")
        refused = "0.pem is not PEM: it has no -----BEGIN CERTIFICATE-----; what was loaded before stays"
        for _ in range(3):
            tls.look()
        self.assertEqual(self.shown(tls), leaf.certificate)
        self.assertEqual(self.told(), [("error", "certificate.refused", refused)])
        self.assertEqual(tls.reloads, {"success": 0, "failure": 1})
        os.unlink(os.path.join(self.folder, "0.pem"))
        tls.look()
        refused = "0.pem cannot be read: no such file; what was loaded before stays"
        self.assertEqual(self.told(), [("error", "certificate.refused", refused)])
        other = self.authority.issue("a.example", number=1)
        self.files(other, "0")
        tls.look()
        self.assertEqual(self.shown(tls), other.certificate)
        self.assertEqual(self.told(), [self.valid(other)])
        self.assertEqual(tls.reloads, {"success": 1, "failure": 2})

    def test_wrong_again(self) -> None:
        """Another change that is as wrong as the last one is told again."""
        tls = self.listen(self.authority.issue("a.example"))
        for content in (b"nothing", b"nothing more"):
            self.put("0.pem", content)
            tls.look()
        self.assertEqual(tls.reloads, {"success": 0, "failure": 2})

    def test_back_to_what_was(self) -> None:
        """A file that is what it was before it was wrong is nothing new; the next fault is told."""
        leaf = self.authority.issue("a.example")
        tls = self.listen(leaf)
        for content in (b"nothing", leaf.cert_pem, b"nothing"):
            self.put("0.pem", content)
            tls.look()
            tls.look()
        self.assertEqual(tls.reloads, {"success": 0, "failure": 2})

    def test_half_a_pair(self) -> None:
        """A new certificate without its key yet does no harm, and is taken up when the key is there."""
        leaf, other = self.authority.issue("a.example"), self.authority.issue("a.example", number=1)
        tls = self.listen(leaf)
        for first, second in (("pem", "key"), ("key", "pem")):
            content = {"pem": other.cert_pem, "key": other.key_pem}
            self.put(f"0.{first}", content[first])
            tls.look()
            self.assertEqual(self.shown(tls), leaf.certificate)
            self.put(f"0.{second}", content[second])
            tls.look()
            self.assertEqual(self.shown(tls), other.certificate)
            leaf, other = other, leaf
        refused = (
            "error",
            "certificate.refused",
            "0.key is not the key of the certificate; what was loaded before stays",
        )
        self.assertEqual(self.told(), [refused, self.valid(other), refused, self.valid(leaf)])

    def test_same_stamp(self) -> None:
        """A file that is written twice within one stamp of its time is read again at the next look."""
        leaf, other = self.authority.issue("a.example"), self.authority.issue("a.example", number=1)
        tls = self.listen(leaf)
        self.patch(server_tls, "_stamp_of", lambda path: (1, 1, 1))
        self.put("0.pem", leaf.cert_pem)
        tls.look()
        self.files(other, "0")
        tls.look()
        self.assertEqual(self.shown(tls), other.certificate)

    def test_others_are_taken_up(self) -> None:
        """One wrong pair does not hinder the others."""
        tls = self.listen(self.authority.issue("a.example"), self.authority.issue("b.example"))
        self.put("0.key", b"")
        leaf = self.authority.issue("b.example", number=1)
        self.files(leaf, "1")
        tls.look()
        self.assertEqual(self.shown(tls, "b.example"), leaf.certificate)
        refused = ("error", "certificate.refused", "0.key is empty; what was loaded before stays")
        self.assertEqual(self.told(), [refused, self.valid(leaf, "b.example")])

    def test_refused_by_openssl(self) -> None:
        """What OpenSSL does not want when all is put together changes nothing."""
        leaf = self.authority.issue("a.example")
        tls = self.listen(leaf)
        real = server_tls.ServedNames

        def refuse(*args: object) -> object:
            raise SSL.Error([("SSL routines", "", "no way")])

        self.files(self.authority.issue("a.example", number=1), "0")
        self.patch(server_tls, "ServedNames", refuse)
        tls.look()
        tls.look()
        self.assertEqual(self.shown(tls), leaf.certificate)
        message = "0.pem is refused by OpenSSL: no way; what was loaded before stays"
        self.assertEqual(self.told(), [("error", "certificate.refused", message)])
        self.patch(server_tls, "ServedNames", real)
        tls.look()
        self.assertNotEqual(self.shown(tls), leaf.certificate)

    def test_at_start(self) -> None:
        """What is wrong at the start is a fault, ciphers too."""
        missing = CertificateFiles("/nonexistent/a.pem", "/nonexistent/a.key")
        fault = self.assertRaises(CertificateFault, ServerTls, ListenerTls((missing,)), lambda: 0.0, self.tell)
        self.assertEqual((fault.which, fault.path), ("cert", missing.cert))
        leaf = self.authority.issue("a.example")
        fault = self.assertRaises(CertificateFault, self.listen, leaf, ciphers="NONSENSE")
        self.assertEqual(str(fault), "ciphers: are refused by OpenSSL: no cipher match")
        self.assertRaises(CertificateFault, self.listen, leaf, client_ca="/nonexistent/ca.pem")


class ExpiryTests(ReloadCase):
    def test_expiries(self) -> None:
        """Each certificate's end is known by its first name; of two for one name the earlier one counts."""
        rsa = self.authority.issue("a.example", "b.example", kind="rsa", days=30)
        leaves = rsa, self.authority.issue("a.example", days=20), self.authority.issue(common_name="x y", san=False)
        tls = self.listen(*leaves)
        ends = [leaf.certificate.not_valid_after_utc.timestamp() for leaf in leaves]
        self.assertEqual(tls.expiries, {"a.example": ends[1], "2.pem": ends[2]})

    def test_ends_soon(self) -> None:
        """Two weeks before its end a certificate is spoken of, once a day, and each day after."""
        leaf = self.authority.issue("a.example", days=14.5)
        tls = self.listen(leaf)
        end = leaf.certificate.not_valid_after_utc.timestamp()
        tls.look()
        self.assertEqual(self.events, [])
        self.now = end - 14 * DAY
        tls.look()
        expires = ("warn", "certificate.expiring", f"the certificate of a.example expires on {day(end)}")
        self.assertEqual(self.events[0][3]["days"], 14.0)
        self.assertEqual(self.told(), [expires])
        self.now += DAY - 1
        tls.look()
        self.assertEqual(self.told(), [])
        self.now += 1
        tls.look()
        self.assertEqual(self.told(), [expires])
        self.now = end + 1
        tls.look()
        gone = f"the certificate of a.example has expired on {day(end)}, and is served still"
        self.assertEqual(self.told(), [("warn", "certificate.expiring", gone)])
        self.assertEqual(self.shown(tls), leaf.certificate)

    def test_clock_that_goes_back(self) -> None:
        """A clock that is set back does not silence the warning."""
        tls = self.listen(self.authority.issue("a.example", days=1))
        tls.look()
        self.now -= 2 * DAY
        tls.look()
        self.assertEqual(len(self.told()), 2)

    def test_renewed(self) -> None:
        """A certificate that is renewed is not spoken of any more; one that ends as soon is, at once."""
        tls = self.listen(self.authority.issue("a.example", days=1))
        tls.look()
        self.files(self.authority.issue("a.example", days=2, number=1), "0")
        tls.look()
        self.assertEqual(
            [event for _, event, _ in self.told()],
            ["certificate.expiring", "certificate.loaded", "certificate.expiring"],
        )
        self.files(self.authority.issue("a.example", days=90), "0")
        tls.look()
        self.now += DAY
        tls.look()
        self.assertEqual([event for _, event, _ in self.told()], ["certificate.loaded"])


class SocketTests(ReloadCase):
    def test_on_sockets(self) -> None:
        """The connection works on a socket of its own, that does not block."""
        tls = self.listen(self.authority.issue("a.example"), self.authority.issue("b.example"))
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
            self.addCleanup(each.close)
        server, client = tls.connection(ours), SSL.Connection(self.browser(), theirs)
        client.set_connect_state()
        client.set_tlsext_host_name(b"b.example")
        waiting = [client, server]
        for _ in range(8):
            for side in list(waiting):
                try:
                    side.do_handshake()
                    waiting.remove(side)
                except SSL.WantReadError:
                    pass
        self.assertEqual(waiting, [])
        self.assertEqual(client.send(b"hello"), 5)
        self.assertEqual(server.recv(100), b"hello")
        self.assertEqual(server_tls.arrival_facts(server)[2], "b.example")
