"""`tls` of listeners: what each key takes, what is refused, and what is said of certificates. (Pools: test_pool_tls.py.)"""

from __future__ import annotations

import os
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config import loader
from lbsvc.config.schema import CertificateFiles, ListenerTls
from lbsvc.errors import ConfigErrors
from tests.config.reading import LISTENER, POOL, CertificateCase, listener

DAY = 86400.0


class ListenerTlsCase(CertificateCase):
    """Tests of `tls` of the listener `web`, which begins at 5:5 and is called T in mistakes and notes."""

    def setUp(self) -> None:
        super().setUp()
        self.cert, self.key = self.issue("site", "a.example")
        self.pair = "cert: site.pem, key: site.key"

    def text(self, written: str, more: str = "") -> str:
        return f"{LISTENER}    tls: {written}\n{more}{POOL}"

    def tls(self, written: str, more: str = "") -> ListenerTls:
        found = self.load(self.text(written, more)).settings.listeners["web"].tls
        assert found is not None
        return found

    def assert_wrong(self, written: str, *messages: str, more: str = "", env: dict[str, str] | None = None) -> None:
        found = [m.replace("listeners.web.tls", "T") for m in self.mistakes(self.text(written, more), env)]
        self.assertEqual(found, list(messages))

    def assert_noted(self, written: str, *notes: str, more: str = "", wall: float | None = None) -> None:
        """These are its notes, and all of them."""
        found = [note.replace("listeners.web.tls", "T") for note in self.notes(self.text(written, more), wall)]
        self.assertEqual(found, list(notes))


class KeyTests(ListenerTlsCase):
    def test_defaults(self) -> None:
        """A certificate is enough; the rest is as the reference says (FIELD-9)."""
        found = self.tls(f"{{certificates: [{{{self.pair}}}]}}")
        self.assertEqual(found, ListenerTls((CertificateFiles(self.cert, self.key),)))
        self.assertEqual((found.min_version, found.ciphers, found.alpn), ("1.2", None, ("h2", "http/1.1")))
        self.assertEqual((found.client_ca, found.client_auth, found.reload_interval), (None, "required", 10))

    def test_off(self) -> None:
        """Without TLS there is none; off, false and null say so."""
        self.assertIsNone(listener("").tls)
        for off in ("off", "false", "null"):
            self.assertIsNone(listener(f"tls: {off}").tls, off)

    def test_every_key(self) -> None:
        """All keys, at other values."""
        found = self.tls(
            f"{{certificates: {{{self.pair}}}, min_version: '1.3', ciphers: null, alpn: [http/1.1], client_ca: ca.pem, "
            "client_auth: optional, reload_interval: 1m}"
        )
        files = (CertificateFiles(self.cert, self.key),)
        self.assertEqual(found, ListenerTls(files, "1.3", None, ("http/1.1",), self.ca, "optional", 60))

    def test_tcp(self) -> None:
        """A tcp listener ends TLS too, whatever is spoken inside it, and its handshake's deadline acts."""
        more = "    protocol: tcp\n    timeouts: {handshake: 5s}\n"
        self.assertEqual(self.tls(f"{{certificates: {{{self.pair}}}, alpn: imap}}", more).alpn, ("imap",))
        self.assert_noted(f"{{certificates: {{{self.pair}}}}}", more=more)

    def test_handshake_acts(self) -> None:
        """With TLS there is a handshake to limit: nothing is to be said."""
        self.assert_noted(f"{{certificates: {{{self.pair}}}}}", more="    timeouts: {handshake: 5s}\n")

    def test_versions(self) -> None:
        """1.2 or 1.3, as text or as the number that YAML takes it for; of others nobody guesses what was meant
        (TLS-2)."""
        for written, version in {
            "'1.2'": "1.2",
            "1.3": "1.3",
            "1.20": "1.2",
            "'${V}'": "1.3",
            "'1.${W}'": "1.2",
        }.items():
            text = self.text(f"{{certificates: {{{self.pair}}}, min_version: {written}}}")
            found = self.load(text, {"V": "1.3", "W": "2"}).settings.listeners["web"].tls
            assert found is not None
            self.assertEqual(found.min_version, version, written)
        for written, got in {
            "'1.1'": '"1.1"',
            "1.1": "1.1",
            "1": "1",
            "tls": '"tls"',
            "true": "true",
            "null": "null",
        }.items():
            self.assert_wrong(
                f"{{certificates: {{{self.pair}}}, min_version: {written}}}",
                f'5:58: T.min_version: must be "1.2" or "1.3" (got {got})',
            )

    def test_unknown_and_wrong_keys(self) -> None:
        """All mistakes at once, also where there is no certificate at all."""
        self.assert_wrong(
            "{certificate: a, alpn: [5], client_auth: maybe, reload_interval: 0}",
            "5:10: T.certificates: is required",
            "5:11: T.certificate: unknown key (did you mean certificates?)",
            "5:34: T.alpn[0]: must be text: quote it (got 5)",
            '5:38: T.client_auth: must be required or optional (got "maybe")',
            "5:58: T.reload_interval: must be 100ms or more (got 0)",
        )
        self.assert_wrong("{}", "5:10: T.certificates: is required")
        self.assert_wrong("true", "5:5: T: must be a mapping, or off (got true)")
        self.assert_wrong("[]", "5:5: T: must be a mapping, or off (got a list)")

    def test_what_others_call_it(self) -> None:
        """A key by the name that it has elsewhere is told ours, where there is such a key."""
        certificates = "5:10: T.certificates: is required"
        for word in ("certs", "certificate", "cert", "ssl-certificate"):
            hint = f"5:11: T.{word}: unknown key (did you mean certificates?)"
            self.assert_wrong(f"{{{word}: a}}", certificates, hint)
        self.assert_wrong(
            "{certificates: {certs: site.pem, private_key: site.key}, ca_file: a}",
            "5:25: T.certificates.cert: is required",
            "5:26: T.certificates.certs: unknown key (did you mean cert?)",
            "5:43: T.certificates.private_key: unknown key (did you mean key?)",
            "5:67: T.ca_file: unknown key (did you mean client_ca?)",
        )
        self.assertEqual(
            self.mistakes(f"{LISTENER}    ssl: on\n    sni: a\n{POOL}"),
            ["5:5: listeners.web.ssl: unknown key (did you mean tls?)", "6:5: listeners.web.sni: unknown key"],
        )

    def test_never_looked_at(self) -> None:
        """Files need not be looked at again: off, false and null say so; no time at all is not meant by that."""
        for off in ("off", "false", "null"):
            self.assertIsNone(self.tls(f"{{certificates: {{{self.pair}}}, reload_interval: {off}}}").reload_interval)

    def test_alpn(self) -> None:
        """Protocols in order of preference, each once; on http those that we speak."""
        for written, alpn in {
            "[http/1.1, h2, http/1.1]": ("http/1.1", "h2"),
            "http/1.1": ("http/1.1",),
            "[http/1.0]": ("http/1.0",),
            "[]": (),
            "null": (),
            "off": (),
        }.items():
            self.assertEqual(self.tls(f"{{certificates: {{{self.pair}}}, alpn: {written}}}").alpn, alpn, written)
        self.assert_wrong(
            f"{{certificates: {{{self.pair}}}, alpn: [h2, http/2, 'a b', 5]}}",
            '5:69: T.alpn[1]: must be h2, http/1.1 or http/1.0 where protocol is http (got "http/2"; did you mean h2?)',
            '5:77: T.alpn[2]: must be the name of a protocol, such as http/1.1 (got "a b")',
            "5:84: T.alpn[3]: must be text: quote it (got 5)",
        )
        self.assert_wrong(
            f"{{certificates: {{{self.pair}}}, alpn: {'a' * 256}}}", "5:58: T.alpn: must be at most 255 characters long"
        )


class CipherTests(ListenerTlsCase):
    def ciphers(self, written: str, *messages: str) -> None:
        text = f"{{certificates: {{{self.pair}}}, ciphers: {written}}}"
        self.assert_wrong(text, *(f"5:58: T.ciphers: {message}" for message in messages))

    def test_what_openssl_takes(self) -> None:
        """Names of ciphers and of groups, what is left out of them, and how they are ordered."""
        for written in (
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE+CHACHA20",
            "HIGH:!aNULL:!MD5:!RC4:@STRENGTH",
            "DEFAULT@SECLEVEL=2:-SHA1",
            "ECDHE+AESGCM,DHE+AESGCM AES128-SHA256",
        ):
            self.assertEqual(self.tls(f"{{certificates: {{{self.pair}}}, ciphers: '{written}'}}").ciphers, written)

    def test_what_it_does_not_know(self) -> None:
        """A word that OpenSSL would pass over is refused, and so is what leaves nothing, or is no cipher string
        (TLS-2)."""
        self.ciphers("'ECDHE+AESGCM:ECHDE+CHACHA20'", 'OpenSSL knows no cipher "ECHDE+CHACHA20"')
        self.ciphers("TLSv9", 'OpenSSL knows no cipher "TLSv9"')
        self.ciphers(
            "'ECDHE+AESGCM:TLS_AES_128_GCM_SHA256'",
            'OpenSSL knows no cipher "TLS_AES_128_GCM_SHA256": this is about TLS 1.2; the ciphers of 1.3 are always on',
        )
        self.ciphers("'HIGH:!HIGH'", 'leaves no cipher, or is no cipher string (got "HIGH:!HIGH")')
        self.ciphers("'HIGH:@FAST'", 'leaves no cipher, or is no cipher string (got "HIGH:@FAST")')
        self.ciphers("'!HIGH'", 'leaves no cipher, or is no cipher string (got "!HIGH")')
        rule = "must be an OpenSSL cipher string, such as ECDHE+AESGCM:!RSA"
        self.ciphers("''", f'{rule} (got "")')
        self.ciphers('"HIGH\\0x"', f'{rule} (got "HIGH\\x00x")')
        self.ciphers("é", f'{rule} (got "é")')
        self.ciphers("[HIGH]", "must be text (got a list)")

    def test_no_variable_is_shown(self) -> None:
        """What came out of a variable is not repeated."""
        self.assert_wrong(
            f"{{certificates: {{{self.pair}}}, ciphers: '${{C}}'}}",
            "5:58: T.ciphers: OpenSSL does not know all of these (from ${C})",
            env={"C": "hunter2"},
        )

    def test_without_tls_12(self) -> None:
        """They do nothing where TLS 1.2 is not spoken."""
        self.assert_noted(
            f"{{certificates: {{{self.pair}}}, ciphers: HIGH, min_version: 1.3}}",
            "T.ciphers: does nothing where min_version is 1.3: it is about TLS 1.2",
        )


class CertificateTests(ListenerTlsCase):
    def test_forms(self) -> None:
        """A list, one alone, and one whose file holds the key too, by name alone or as a mapping."""
        with open(self.cert, "rb") as one, open(self.key, "rb") as other:
            both = self.write("both.pem", other.read() + one.read())
        pair = CertificateFiles(self.cert, self.key)
        alone = CertificateFiles(both, both)
        for written, files in {
            f"[{{{self.pair}}}]": (pair,),
            f"{{{self.pair}}}": (pair,),
            f"{{cert: {self.cert}, key: {self.key}}}": (pair,),
            "{cert: both.pem}": (alone,),
            "{cert: both.pem, key: null}": (alone,),
            "both.pem": (alone,),
            f"[both.pem, {{{self.pair}}}]": (alone, pair),
        }.items():
            self.assertEqual(self.tls(f"{{certificates: {written}}}").certificates, files, written)

    def test_relative_to_the_file(self) -> None:
        """Paths are absolute, also where the configuration was named by a relative path."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(os.path.dirname(self.folder))
        name = os.path.join(os.path.basename(self.folder), "lb.yaml")
        tls = (
            loader.load_text(
                self.text("{certificates: {cert: ./site.pem, key: '../${D}/site.key'}}"),
                name,
                {"D": os.path.basename(self.folder)},
            )
            .settings.listeners["web"]
            .tls
        )
        assert tls is not None
        (files,) = tls.certificates
        os.chdir("/")
        self.assertTrue(os.path.isabs(files.cert) and os.path.samefile(files.cert, self.cert), files)
        self.assertTrue(os.path.isabs(files.key) and os.path.samefile(files.key, self.key), files)

    def test_none(self) -> None:
        """TLS needs a certificate."""
        for empty in ("[]", "null", "{}"):
            self.assert_wrong(f"{{certificates: {empty}}}", "5:11: T.certificates: needs at least one certificate")
        self.assert_wrong(
            "{certificates: [{key: site.key}, null]}",
            *("5:26: T.certificates[0].cert: is required", "5:43: T.certificates[1].cert: is required"),
        )

    def test_files_that_cannot_be_used(self) -> None:
        """What is wrong with a file is said at the key that names it, for all files at once; exit code 78 follows."""
        self.write("text.pem", b"hello\n")
        self.issue("other", "b.example", number=1)
        self.assert_wrong(
            "{certificates: [{cert: none.pem, key: site.key}, {cert: site.pem, key: none.key}, "
            "{cert: site.pem, key: other.key}, {cert: text.pem, key: site.key}, {cert: site.pem}]}",
            '5:27: T.certificates[0].cert: cannot be read: no such file (got "none.pem", relative to F)',
            '5:76: T.certificates[1].key: cannot be read: no such file (got "none.key", relative to F)',
            '5:109: T.certificates[2].key: is not the key of the certificate (got "other.key", relative to F)',
            "5:127: T.certificates[3].cert: is not PEM: it has no -----BEGIN CERTIFICATE----- "
            '(got "text.pem", relative to F)',
            "5:160: T.certificates[4].cert: holds no private key, but CERTIFICATE; it has to hold the key too where there "
            'is no key (got "site.pem", relative to F)',
        )
        self.assert_wrong(
            "{certificates: [site.pem, 5, /none/none.pem]}",
            "5:26: T.certificates[0]: holds no private key, but CERTIFICATE; it has to hold the key too where there "
            'is no key (got "site.pem", relative to F)',
            "5:36: T.certificates[1]: must be text: quote it (got 5)",
            '5:39: T.certificates[2]: cannot be read: no such file (got "/none/none.pem")',
        )

    def test_names_that_no_file_has(self) -> None:
        """A name is text, with nothing in it that no path can hold; a wrong key hides no other mistake."""
        self.assert_wrong(
            '{certificates: [{cert: "", key: [x]}, {cert: "a\\0b", key: 5}]}',
            '5:27: T.certificates[0].cert: must be the name of a file (got "")',
            "5:37: T.certificates[0].key: must be text (got a list)",
            '5:49: T.certificates[1].cert: must be the name of a file (got "a\\x00b")',
            "5:63: T.certificates[1].key: must be text: quote it (got 5)",
        )
        self.assert_wrong(
            "{certificates: {cert: site.pem, key: 5}}", "5:42: T.certificates.key: must be text: quote it (got 5)"
        )

    def test_no_variable_is_shown(self) -> None:
        """A path that came out of a variable is not repeated; the variable is named."""
        self.assert_wrong(
            "{certificates: {cert: '${C}', key: site.key}}",
            "5:26: T.certificates.cert: cannot be read: no such file (from ${C})",
            env={"C": "hunter2"},
        )

    def test_the_same_twice(self) -> None:
        """The same files are a mistake; others that are never served are noted, unless their key is of another kind."""
        self.issue("more", "a.example", "b.example")
        self.issue("rsa", "a.example", kind="rsa")
        self.assert_wrong(
            f"{{certificates: [{{{self.pair}}}, {{{self.pair}}}]}}",
            "5:59: T.certificates[1]: is the same as certificates[0]",
        )
        more, rsa = "{cert: more.pem, key: more.key}", "{cert: rsa.pem, key: rsa.key}"
        self.assert_noted(f"{{certificates: [{{{self.pair}}}, {more}, {rsa}]}}")
        self.assert_noted(
            f"{{certificates: [{more}, {rsa}, {{{self.pair}}}]}}",
            "T.certificates[2]: is never served: others before it have all its names",
        )

    def test_age(self) -> None:
        """An expired certificate is noted and served, and so is one whose time has not come."""
        self.issue("old", "a.example", days=-3)
        written = "{certificates: {cert: old.pem, key: old.key}}"
        (note,) = [note for note in self.notes(self.text(written)) if "expired" in note]
        self.assertRegex(
            note,
            r"^listeners\.web\.tls\.certificates\.cert: expired on 20\d\d-\d\d-\d\d .*UTC; it is served all the same$",
        )
        self.assertEqual(len(self.tls(written).certificates), 1)
        written = f"{{certificates: {{{self.pair}}}}}"
        now = time.time()
        self.assert_noted(written, wall=now)
        (early,) = [note for note in self.notes(self.text(written), now - 2 * DAY) if "before" in note]
        self.assertRegex(early, r"certificates\.cert: is not valid before .* UTC; it is served all the same$")
        (late,) = [note for note in self.notes(self.text(written), now + 91 * DAY) if "expired" in note]
        self.assertIn("certificates.cert: expired on ", late)

    def test_what_is_odd(self) -> None:
        """A key that everybody may read, and what else certificates.py finds odd, is noted at the certificate."""
        os.chmod(self.key, 0o644)
        self.assert_noted(
            f"{{certificates: [{{{self.pair}}}]}}",
            "T.certificates[0].cert: has its key in a file that everybody on this machine may read (mode 0644)",
        )


class ClientTests(ListenerTlsCase):
    def test_authorities(self) -> None:
        """The file of CAs is read, and what is wrong with it is said at its key."""
        self.assertEqual(self.tls(f"{{certificates: {{{self.pair}}}, client_ca: ca.pem}}").client_ca, self.ca)
        self.write("empty.pem", b"")
        self.assert_wrong(
            f"{{certificates: {{{self.pair}}}, client_ca: empty.pem, client_auth: optional}}",
            '5:58: T.client_ca: is empty (got "empty.pem", relative to F)',
        )
        self.assert_wrong(
            f"{{certificates: {{{self.pair}}}, client_ca: {self.key}}}",
            '5:58: T.client_ca: holds no certificate, but PRIVATE KEY (got "F/site.key")',
        )

    def test_authorities_that_verify_nobody(self) -> None:
        """That nobody can be verified any longer, or that a certificate is no CA's, is noted."""
        written = f"{{certificates: {{{self.pair}}}, client_ca: ca.pem}}"
        self.assert_noted(written)
        found = [note for note in self.notes(self.text(written), time.time() + 4000 * DAY) if "client_ca" in note]
        self.assertRegex(found[0], r"client_ca: expired on .* UTC: nobody can be verified by it$")
        self.assert_noted(
            f"{{certificates: {{{self.pair}}}, client_ca: site.pem}}",
            "T.client_ca: has a certificate (number 1) that is no CA's: only itself is trusted by it",
        )

    def test_auth_without_authorities(self) -> None:
        """Whether a certificate is required matters where one is asked for; else it is noted that none is."""
        note = "T.client_auth: does nothing without client_ca: no client is asked for a certificate"
        self.assert_noted(f"{{certificates: {{{self.pair}}}, client_auth: required}}", note)
        self.assert_noted(f"{{certificates: {{{self.pair}}}, client_auth: optional, client_ca: null}}", note)
        self.assert_noted(f"{{certificates: {{{self.pair}}}, client_auth: optional, client_ca: ca.pem}}")


class AnythingTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None, database=None)
    @given(
        st.text(max_size=20)
        | st.lists(st.sampled_from(["HIGH", "!", "+", "-", "@", "=", ":", " ", "é", "\0", "AES"])).map("".join),
        st.text(max_size=12) | st.sampled_from(["/dev/zero", "/dev/null", "/", ".", "..", "~", "-"]),
    )
    def test_any_words(self, ciphers: str, file: str) -> None:
        """Any cipher string and any name of a file give settings or mistakes, each on one line."""
        tls = {"certificates": [{"cert": file, "key": file}], "ciphers": ciphers, "client_ca": file}
        text = loader.document.yaml.safe_dump(
            {"listeners": {"web": {"bind": 80, "pool": "p", "tls": tls}}, "pools": {"p": {"backends": ["h:1"]}}}
        )
        with self.assertRaises(ConfigErrors) as caught:
            loader.load_text(text, "/nowhere/lb.yaml", {})
        for mistake in caught.exception.mistakes:
            self.assertTrue(str(mistake).isprintable(), mistake)
