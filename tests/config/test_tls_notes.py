"""What `--check` says of a listener's `tls` that is right: what ends soon, what is not there yet, what fits nothing."""

from __future__ import annotations

import time

from OpenSSL import SSL

from lbsvc.config.certificates import ENDING, load_pair
from lbsvc.config.schema import CertificateFiles
from tests.config.reading import CertificateCase
from tests.config.test_tls import DAY, ListenerTlsCase

#: A client that takes whatever OpenSSL has.
ANYTHING = b"ALL:@SECLEVEL=0"


def speaks_tls_12(ciphers: str, certificates: list[CertificateFiles]) -> bool:
    """Whether OpenSSL itself agrees on TLS 1.2 with its own client, in memory."""
    ours, theirs = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    ours.set_cipher_list(ciphers.encode())
    theirs.set_cipher_list(ANYTHING)
    for files in certificates:
        load_pair(files).use_in(ours)
    for context in (ours, theirs):
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    server, client = SSL.Connection(ours, None), SSL.Connection(theirs, None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error:
                return False
            try:
                other.bio_write(one.bio_read(1 << 16))
            except SSL.WantReadError:
                pass
    return server.get_cipher_name() is not None and client.get_cipher_name() is not None


class EndingTests(ListenerTlsCase):
    def test_ends_soon(self) -> None:
        """A certificate that ends within two weeks is noted with its day; before that, nothing is said."""
        written = f"{{certificates: {{{self.pair}}}}}"
        end = load_pair(CertificateFiles(self.cert, self.key)).not_after
        self.assertEqual(ENDING, 14 * DAY)
        self.assert_noted(written, wall=end - ENDING - 1)
        for left in (ENDING, DAY, 0):
            (note,) = self.notes(self.text(written), end - left)
            self.assertRegex(note, r"^listeners\.web\.tls\.certificates\.cert: expires soon, on 20\d\d-.* UTC$")
        (note,) = self.notes(self.text(written), end + 1)
        self.assertIn("certificates.cert: expired on ", note)

    def test_of_several(self) -> None:
        """It is said at the one that ends."""
        self.issue("short", "b.example", days=5)
        (note,) = self.notes(
            self.text(f"{{certificates: [{{{self.pair}}}, {{cert: short.pem, key: short.key}}]}}"), time.time()
        )
        self.assertIn("certificates[1].cert: expires soon, on ", note)


class ProtocolTests(ListenerTlsCase):
    def test_h2(self) -> None:
        """h2 is spoken, and nothing is to be said of it, in whatever place it stands."""
        for more in ("", "    protocol: tcp\n"):
            for written in ("", ", alpn: [http/1.1]", ", alpn: off", ", alpn: [h2]", ", alpn: [http/1.1, h2]"):
                self.assert_noted(f"{{certificates: {{{self.pair}}}{written}}}", more=more)


class CipherTests(ListenerTlsCase):
    def setUp(self) -> None:
        super().setUp()
        self.kinds = {"ecdsa": CertificateFiles(self.cert, self.key)}
        for kind in ("rsa", "ed25519"):
            self.kinds[kind] = CertificateFiles(*self.issue(kind, "a.example", kind=kind))

    def noted(self, ciphers: str, *kinds: str) -> list[str]:
        chosen = (self.kinds[kind] for kind in kinds)
        certificates = ", ".join(f"{{cert: {files.cert}, key: {files.key}}}" for files in chosen)
        return self.notes(self.text(f"{{certificates: [{certificates}], ciphers: '{ciphers}'}}"))

    def test_words(self) -> None:
        """Where no cipher goes with any certificate, it is said who cannot connect."""
        why = "listeners.web.tls.ciphers: none of these goes with a certificate that is here ({}): "
        why += "no client of TLS 1.2 can connect"
        self.assertEqual(self.noted("ECDHE-RSA-AES128-GCM-SHA256", "ecdsa"), [why.format("ecdsa")])
        self.assertEqual(
            self.noted("ECDHE-RSA-AES128-GCM-SHA256", "ed25519", "ecdsa"), [why.format("ecdsa and ed25519")]
        )
        self.assertEqual(self.noted("ECDHE-ECDSA-CHACHA20-POLY1305", "rsa"), [why.format("rsa")])

    def test_as_openssl_does(self) -> None:
        """The note is there exactly where OpenSSL's own client, which takes anything, finds no cipher either."""
        for ciphers in (
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256",
            "AES128-GCM-SHA256",
            "ECDHE-ARIA128-GCM-SHA256",
            "ECDHE+AESGCM:!aRSA",
            "ECDHE+AESGCM:!aECDSA",
            "aRSA:!DHE",
            "PSK",
            "SRP:@SECLEVEL=0",
            "aNULL:!ADH:@SECLEVEL=0",
            "HIGH",
        ):
            for kinds in (("ecdsa",), ("rsa",), ("ed25519",), ("ecdsa", "rsa"), ("ecdsa", "ed25519")):
                can_speak = speaks_tls_12(ciphers, [self.kinds[kind] for kind in kinds])
                self.assertEqual(self.noted(ciphers, *kinds) == [], can_speak, (ciphers, kinds))

    def test_nothing_else_is_said(self) -> None:
        """Without ciphers of one's own there is nothing to say, nor twice where TLS 1.2 is off."""
        self.assert_noted(f"{{certificates: {{{self.pair}}}, ciphers: null}}")
        self.assert_noted(
            f"{{certificates: {{{self.pair}}}, ciphers: ECDHE+aRSA, min_version: '1.3'}}",
            "T.ciphers: does nothing where min_version is 1.3: it is about TLS 1.2",
        )


class AlpnOfStreamsTests(CertificateCase):
    def test_only_what_is_written(self) -> None:
        """On a tcp listener, of whose backends nobody knows what they speak, nothing is offered unless it is written."""
        cert, key = self.issue("a", "a.example")
        leaf = f"{{cert: {cert}, key: {key}}}"
        for written, offered in (("", ()), (", alpn: [h2]", ("h2",))):
            text = f"""
listeners:
  l: {{bind: ":1", protocol: tcp, pool: p, tls: {{certificates: [{leaf}]{written}}}}}
pools: {{p: {{backends: ["127.0.0.1:2"]}}}}
"""
            tls = self.load(text).settings.listeners["l"].tls
            assert tls is not None
            self.assertEqual(tls.alpn, offered)
