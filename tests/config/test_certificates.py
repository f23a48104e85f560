"""What certificates, keys and CA files must be, and what is said of those that are not."""

from __future__ import annotations

import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config import pemfiles
from lbsvc.config.certificates import Certificate, CertificateFault, day, load_ca, load_pair
from lbsvc.config.schema import CertificateFiles
from tests.kit.authority import Authority, Leaf, make_key
from tests.net.tls_pairs import dns_names, forge, shake

PEM = serialization.Encoding.PEM


class FilesCase(SynchronousTestCase):
    """Tests with a folder and a CA of their own."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority()

    def put(self, name: str, content: bytes, mode: int = 0o600) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def files(self, leaf: Leaf) -> CertificateFiles:
        return CertificateFiles(self.put("cert.pem", leaf.cert_pem), self.put("cert.key", leaf.key_pem))

    def load(self, leaf: Leaf, *, is_client: bool = False) -> Certificate:
        return load_pair(self.files(leaf), is_client=is_client)

    def assert_fault(self, which: str, message: str, files: CertificateFiles) -> None:
        fault = self.assertRaises(CertificateFault, load_pair, files)
        self.assertEqual((fault.which, fault.message), (which, message))
        self.assertEqual(fault.path, files.key if which == "key" else files.cert)

    def assert_bad_cert(self, message: str, content: bytes) -> None:
        key = self.put("cert.key", self.authority.issue("a.example").key_pem)
        self.assert_fault("cert", message, CertificateFiles(self.put("cert.pem", content), key))

    def assert_bad_key(self, message: str, content: bytes) -> None:
        cert = self.put("cert.pem", self.authority.issue("a.example").cert_pem)
        self.assert_fault("key", message, CertificateFiles(cert, self.put("cert.key", content)))


class GoodPairTests(FilesCase):
    def test_kinds(self) -> None:
        """Keys of each kind that TLS knows are taken, and called by their names."""
        for kind in ("rsa", "ecdsa", "ed25519"):
            leaf = self.authority.issue("a.example", kind=kind)
            found = self.load(leaf)
            self.assertEqual((found.kind, found.names, found.notes), (kind, ("a.example",), ()))
            self.assertEqual(found.fingerprint, leaf.certificate.fingerprint(hashes.SHA256()).hex())

    def test_dates(self) -> None:
        """Dates are Unix seconds; an expired certificate can be loaded, and is shown as people write dates."""
        leaf = self.authority.issue("a.example", days=-2)
        found = self.load(leaf)
        self.assertEqual(found.not_before, leaf.certificate.not_valid_before_utc.timestamp())
        self.assertEqual(found.not_after, leaf.certificate.not_valid_after_utc.timestamp())
        self.assertEqual(day(1764504000.0), "2025-11-30 12:00 UTC")

    def test_names(self) -> None:
        """Names are those of subjectAltName: lower case, each once, wildcards and addresses too; not the common name."""
        leaf = self.authority.issue(
            "A.Example", "a.example", "*.b.example", "192.0.2.1", "2001:DB8::1", common_name="c"
        )
        self.assertEqual(self.load(leaf).names, ("a.example", "*.b.example", "192.0.2.1", "2001:db8::1"))

    def test_common_name(self) -> None:
        """Only a certificate without subjectAltName is called by its common name, if that is a host's."""
        self.assertEqual(self.load(self.authority.issue(common_name="Old.example", san=False)).names, ("old.example",))
        found = self.load(self.authority.issue(common_name="Old server: 1", san=False))
        self.assertEqual((found.names, found.label), ((), "cert.pem"))
        self.assertEqual(found.notes, ("names no host, so it is served only where it is the first",))

    def test_names_that_are_none(self) -> None:
        """What is no host name is no name, whatever stands in the certificate."""
        leaf = forge(
            self.authority, raw=dns_names(b"*", b"a..b", b"-a.example", b"f*.example", b"a.example:80", b"b\x00c")
        )
        self.assertEqual(self.load(leaf).names, ())

    def test_one_file(self) -> None:
        """Certificate and key may be in one file, in any order, with text and line ends of every sort around them."""
        leaf = self.authority.issue("a.example")
        for content in (
            leaf.cert_pem + leaf.key_pem,
            b"\xef\xbb\xbf" + (leaf.key_pem + b"Subject: a.example\n" + leaf.cert_pem).replace(b"\n", b"\r\n"),
        ):
            path = self.put("both.pem", content)
            self.assertEqual(load_pair(CertificateFiles(path, path)).names, ("a.example",))

    def test_traditional_key(self) -> None:
        """Keys in OpenSSL's old forms are taken, also behind the parameters that old tools write."""
        for kind in ("rsa", "ecdsa"):
            leaf = self.authority.issue("a.example", kind=kind)
            old = leaf.key.private_bytes(
                PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
            parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
            files = CertificateFiles(self.put("c", leaf.cert_pem), self.put("k", parameters + old))
            self.assertEqual(load_pair(files).kind, kind)

    def test_chain(self) -> None:
        """The chain is what stands behind the certificate, in its order."""
        middle = Authority("middle", self.authority)
        leaf = middle.issue("a.example")
        found = self.load(leaf)
        self.assertEqual(found.chain, (leaf.certificate, middle.certificate))
        self.assertEqual(found.notes, ())

    def test_chains_of_their_own(self) -> None:
        """Two certificates in one context keep the chain that each has; files are not looked at again."""
        first, second = Authority("first", self.authority), Authority("second", self.authority)
        leaves = [first.issue("a.example", kind="rsa"), second.issue("a.example")]
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        for leaf in leaves:
            found = self.load(leaf)
            os.unlink(found.files.cert)
            os.unlink(found.files.key)
            found.use_in(context)
        for kind, middle in (("RSA", first), ("ECDSA", second)):
            client = SSL.Context(SSL.TLS_CLIENT_METHOD)
            client.set_max_proto_version(SSL.TLS1_2_VERSION)
            client.set_cipher_list(f"ECDHE-{kind}-AES128-GCM-SHA256".encode())
            shown = [each.to_cryptography() for each in _chain(client, context)]
            self.assertEqual(shown[1:], [middle.certificate])


def _chain(client_side: SSL.Context, server_side: SSL.Context) -> list[object]:
    client, server = SSL.Connection(client_side, None), SSL.Connection(server_side, None)
    client.set_connect_state()
    server.set_accept_state()
    shake(client, server)
    return list(client.get_peer_cert_chain() or ())


class NoteTests(FilesCase):
    def test_key_of_everybody(self) -> None:
        """A key that every user of the machine may read is spoken of; one for the group is not."""
        leaf = self.authority.issue("a.example")
        cert = self.put("cert.pem", leaf.cert_pem, 0o644)
        for mode, notes in (
            (0o644, ("has its key in a file that everybody on this machine may read (mode 0644)",)),
            (0o640, ()),
        ):
            found = load_pair(CertificateFiles(cert, self.put("cert.key", leaf.key_pem, mode)))
            self.assertEqual(found.notes, notes)
        both = self.put("both.pem", leaf.cert_pem + leaf.key_pem, 0o604)
        self.assertEqual(len(load_pair(CertificateFiles(both, both)).notes), 1)

    def test_chain_that_does_not_lead_on(self) -> None:
        """Certificates that have not issued one another are served as they stand, and spoken of by number."""
        middle, stranger = Authority("middle", self.authority), Authority("stranger")
        leaf = middle.issue("a.example")
        for chain, numbers in (
            ((self.authority.certificate, middle.certificate), (2, 3)),
            ((middle.certificate, stranger.certificate), (3,)),
            ((leaf.certificate, middle.certificate), (2,)),
        ):
            notes = self.load(Leaf(leaf.certificate, leaf.key, chain)).notes
            expected = [
                f"has a certificate (number {number}) that has not issued the one before it" for number in numbers
            ]
            self.assertEqual(list(notes), expected)

    def test_purpose(self) -> None:
        """A certificate that says it is not for servers, or clients, is spoken of where it is used as one."""
        server = self.authority.issue("a.example", client=False)
        self.assertEqual(self.load(server).notes, ())
        notes = self.load(server, is_client=True).notes
        self.assertEqual(notes, ("is not meant for clients (by its extended key usage)",))
        client = forge(self.authority, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
        self.assertEqual(self.load(client, is_client=True).notes, ())
        self.assertEqual(self.load(client).notes, ("is not meant for servers (by its extended key usage)",))
        anything = forge(self.authority, purpose=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
        self.assertEqual(self.load(anything).notes + self.load(anything, is_client=True).notes, ())

    def test_client_without_name(self) -> None:
        """Nobody asks a client's certificate for a host name."""
        self.assertEqual(self.load(self.authority.issue(common_name="one of us", san=False), is_client=True).notes, ())


class FileFaultTests(FilesCase):
    def test_no_such_file(self) -> None:
        """A missing file is named by its key."""
        leaf = self.authority.issue("a.example")
        there, missing = self.files(leaf), os.path.join(self.folder, "missing")
        self.assert_fault("cert", "cannot be read: no such file", CertificateFiles(missing, there.key))
        self.assert_fault("key", "cannot be read: no such file", CertificateFiles(there.cert, missing))
        self.assert_fault("cert", "is no path", CertificateFiles("a\x00b", there.key))

    def test_permission(self) -> None:
        """A file that we may not read is called so."""
        files = self.files(self.authority.issue("a.example"))
        real = os.open

        def forbid(path: str, flags: int) -> int:
            if path == files.key:
                raise PermissionError(13, "Permission denied")
            return real(path, flags)

        self.patch(pemfiles.os, "open", forbid)
        self.assert_fault("key", "cannot be read: permission denied", files)

    def test_no_regular_file(self) -> None:
        """Folders are refused, and pipes at once: nobody waits for a writer."""
        key = self.files(self.authority.issue("a.example")).key
        self.assert_fault("cert", "is a directory", CertificateFiles(self.folder, key))
        pipe = os.path.join(self.folder, "pipe")
        os.mkfifo(pipe)
        self.assert_fault("cert", "is no regular file", CertificateFiles(pipe, key))

    def test_too_large(self) -> None:
        """No more is read than the largest file may have."""
        self.assert_bad_cert("is too large (more than 1 MiB)", b"\n" * (pemfiles.LARGEST + 1))

    def test_empty(self) -> None:
        """An empty file is called so, also one of blanks."""
        for content in (b"", b" \n"):
            self.assert_bad_cert("is empty", content)
            self.assert_bad_key("is empty", content)

    def test_not_pem(self) -> None:
        """Other text is not PEM; DER and PKCS#12 are recognised."""
        leaf = self.authority.issue("a.example")
        self.assert_bad_cert("is not PEM: it has no -----BEGIN CERTIFICATE-----", b"hello\n")
        self.assert_bad_key("is not PEM: it has no -----BEGIN PRIVATE KEY-----", b"hello\n")
        self.assert_bad_cert("is DER or PKCS#12, not PEM", leaf.certificate.public_bytes(serialization.Encoding.DER))

    def test_half_written(self) -> None:
        """A block that does not end is a file that is being written."""
        leaf = self.authority.issue("a.example")
        message = "has a block without an end (CERTIFICATE): is it written completely?"
        self.assert_bad_cert(message, leaf.cert_pem[:200])
        self.assert_bad_cert(message, leaf.cert_pem + leaf.cert_pem[:200])
        self.assert_bad_cert(message, leaf.cert_pem[:200] + b"\n" + leaf.cert_pem)
        self.assert_bad_key(message.replace("CERTIFICATE", "PRIVATE KEY"), leaf.key_pem[:80])


class PairFaultTests(FilesCase):
    def test_other_things(self) -> None:
        """What holds something else says what it holds."""
        leaf = self.authority.issue("a.example")
        request = x509.CertificateSigningRequestBuilder().subject_name(leaf.certificate.subject)
        signed = request.sign(leaf.key, hashes.SHA256()).public_bytes(PEM)
        self.assert_bad_cert("holds a request for a certificate (CSR), no certificate", signed)
        self.assert_bad_cert("holds no certificate, but PRIVATE KEY", leaf.key_pem)
        self.assert_bad_key("holds no private key, but CERTIFICATE", leaf.cert_pem)

    def test_damaged_certificate(self) -> None:
        """A certificate that cannot be read is told by its number."""
        leaf = self.authority.issue("a.example")
        lines = leaf.cert_pem.splitlines(keepends=True)
        damaged = b"".join([lines[0], b"A" * 64 + b"\n", *lines[2:]])
        self.assert_bad_cert("has a certificate that cannot be read (number 1)", damaged)
        self.assert_bad_cert("has a certificate that cannot be read (number 2)", leaf.cert_pem + damaged)

    def test_malformed_names(self) -> None:
        """A subjectAltName that is none is not guessed at, and the common name does not stand in for it."""
        files = self.files(forge(self.authority, raw=b"\x00"))
        self.assert_fault("cert", "has a certificate that cannot be read (number 1)", files)

    def test_encrypted(self) -> None:
        """An encrypted key is refused in both forms, and nobody is asked for a passphrase."""
        message = "is encrypted, and nobody is there to be asked for its passphrase: decrypt it with `openssl pkey`"
        key = make_key("ecdsa")
        for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
            self.assert_bad_key(message, key.private_bytes(PEM, form, serialization.BestAvailableEncryption(b"secret")))

    def test_several_keys(self) -> None:
        """One key is needed, not a choice."""
        key = self.authority.issue("a.example").key_pem
        self.assert_bad_key("holds 2 private keys, where one is needed", key + key)

    def test_openssh(self) -> None:
        """A key in OpenSSH's form is recognised."""
        form = serialization.PrivateFormat.OpenSSH
        key = make_key("ed25519").private_bytes(PEM, form, serialization.NoEncryption())
        self.assert_bad_key("is a key in OpenSSH's own form, not one that TLS can use", key)

    def test_damaged_key(self) -> None:
        """A key that cannot be read is one; so is an RSA key that can be read and signs wrongly."""
        self.assert_bad_key(
            "has a private key that cannot be read", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        )
        leaf = self.authority.issue("a.example", kind="rsa")
        numbers = leaf.key.private_numbers()
        wrong = rsa.RSAPrivateNumbers(
            numbers.p, numbers.q, numbers.d + 2, numbers.dmp1 + 2, numbers.dmq1, numbers.iqmp, numbers.public_numbers
        ).private_key(unsafe_skip_rsa_key_validation=True)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        content = wrong.private_bytes(PEM, form, serialization.NoEncryption())
        files = CertificateFiles(self.put("c", leaf.cert_pem), self.put("k", content))
        self.assert_fault("key", "has a private key that is damaged: it does not sign", files)

    def test_key_of_another(self) -> None:
        """A key that fits nothing is not the certificate's; one of a later certificate tells what is wrong."""
        leaf = self.authority.issue("a.example")
        other = self.authority.issue("a.example", number=1)
        cert, key = self.put("c", leaf.cert_pem), self.put("k", other.key_pem)
        self.assert_fault("key", "is not the key of the certificate", CertificateFiles(cert, key))
        rsa_key = self.put("r", self.authority.issue("a.example", kind="rsa").key_pem)
        self.assert_fault("key", "is not the key of the certificate", CertificateFiles(cert, rsa_key))
        turned = self.put("t", self.authority.pem + leaf.cert_pem)
        files = CertificateFiles(turned, self.put("k2", leaf.key_pem))
        self.assert_fault("cert", "must begin with the certificate of the key, which is number 2", files)

    def test_kinds_that_nobody_uses(self) -> None:
        """Certificates of DSA keys are refused by kind."""
        key = dsa.generate_private_key(2048)
        content = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files = CertificateFiles(self.put("c", self.signed(key.public_key())), self.put("k", content))
        self.assert_fault("cert", "has a key of a kind that is not supported: RSA, ECDSA, Ed25519 and Ed448 are", files)

    def test_too_weak(self) -> None:
        """What OpenSSL does not want is refused with its own words."""
        key = rsa.generate_private_key(65537, 1024)
        content = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files = CertificateFiles(self.put("c", self.signed(key.public_key())), self.put("k", content))
        self.assert_fault("cert", "is refused by OpenSSL: ee key too small", files)

    def signed(self, public: dsa.DSAPublicKey | rsa.RSAPublicKey) -> bytes:
        """A certificate of the CA's for this key."""
        certificate = self.authority.issue("a.example").certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(certificate.subject)
            .issuer_name(certificate.issuer)
            .public_key(public)
            .serial_number(1)
            .not_valid_before(certificate.not_valid_before_utc)
            .not_valid_after(certificate.not_valid_after_utc)
        )
        return builder.sign(self.authority.key, hashes.SHA256()).public_bytes(PEM)

    def test_repr(self) -> None:
        """A certificate that is printed shows no key, and neither message nor text of a fault shows a path."""
        found = self.load(self.authority.issue("a.example"))
        self.assertNotIn("PrivateKey", repr(found))
        fault = self.assertRaises(CertificateFault, load_ca, os.path.join(self.folder, "secret"))
        self.assertEqual(str(fault), "ca: cannot be read: no such file")
