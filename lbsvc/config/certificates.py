"""Certificates, keys and CAs as files hold them: read once, judged, and put into OpenSSL contexts from memory.

Promises: what is served is what was checked: a file is read once, and nothing goes back to it. A `Certificate` has a key
that has proved (by a signature) to be its own, and OpenSSL takes the pair. Whatever is wrong is a `CertificateFault` with
words for people, which never hold a path, nor anything out of a file but the labels of its blocks. What is odd but can be
served (an intermediate that has not issued the one before it, a key that everybody may read) is in `notes`; dates are for
the caller, who has a clock.

Called by the configuration (tls.py, for `--check` and the start), net/server_tls.py and net/client_tls.py. Times are Unix
seconds. Reading blocks: the files are small and local. An RSA key takes 1 ms (its primes are not tested, which would take
forty), others less.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

from lbsvc.config.pemfiles import CertificateFault, read_blocks, read_file
from lbsvc.config.schema import CertificateFiles

__all__ = ["ENDING", "Authorities", "Certificate", "CertificateFault", "day", "load_ca", "load_pair"]

T = TypeVar("T")

#: What a name must look like to be served by SNI or shown as the label of a metric.
_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
LONGEST_NAME: Final = 253
#: Seconds before its end from which on a certificate is spoken of.
ENDING: Final = 14 * 86400.0
_CERTIFICATES: Final = (b"CERTIFICATE", b"X509 CERTIFICATE")
#: What cryptography raises for what it cannot read or does not know.
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound)


@dataclass(frozen=True, eq=False)
class Certificate:
    """A certificate with its chain and its key."""

    files: CertificateFiles
    chain: tuple[x509.Certificate, ...]  # the server's own first, as they stand in the file
    key: Any = field(repr=False)
    names: tuple[str, ...]  # DNS names in lower case and IP addresses in their normal spelling; perhaps none
    not_before: float
    not_after: float
    kind: str  # rsa | ecdsa | ed25519 | ed448
    fingerprint: str  # SHA-256 of its DER, lower-case hex
    notes: tuple[str, ...] = ()  # what is odd, each as the end of a sentence that begins with the cert or key file

    @property
    def label(self) -> str:
        """What people know it by: its first name, or its file's."""
        return self.names[0] if self.names else os.path.basename(self.files.cert)

    def use_in(self, context: SSL.Context) -> None:
        """Serve (or show) it in a context, with a chain that is its own; several of different kinds go together.

        Raises SSL.Error where OpenSSL does not want it.
        """
        # Only the reader of chain files keeps a chain for each certificate: add_extra_chain_cert is for all of them.
        with os.fdopen(os.memfd_create("chain", os.MFD_CLOEXEC), "wb") as file:
            file.write(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in self.chain))
            file.flush()
            context.use_certificate_chain_file(f"/proc/self/fd/{file.fileno()}")
        context.use_privatekey(self.key)
        context.check_privatekey()


@dataclass(frozen=True, eq=False)
class Authorities:
    """The certificates of a CA file, any of which is trusted."""

    path: str
    certificates: tuple[x509.Certificate, ...]
    notes: tuple[str, ...] = ()

    def trust_in(self, context: SSL.Context) -> None:
        """Trust them, and nobody else, in a context that trusts nobody yet; an intermediate needs no root beside it."""
        store = context.get_cert_store()
        assert store is not None
        for certificate in self.certificates:
            store.add_cert(X509.from_cryptography(certificate))
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)


def load_pair(files: CertificateFiles, *, is_client: bool = False) -> Certificate:
    """Read, check and match a certificate and its key; `is_client`: it is shown to servers. Raises CertificateFault."""
    content, mode = read_file(files.cert, "cert")
    chain = _read_certificates(content, "cert", files.cert)
    if files.key != files.cert:
        content, mode = read_file(files.key, "key")
    notes: list[str] = []
    if mode & stat.S_IROTH:
        notes.append(f"has its key in a file that everybody on this machine may read (mode {stat.S_IMODE(mode):04o})")
    key = _read_key(content, files)
    leaf = chain[0]
    kind = _careful(lambda: _judge_kind(leaf), files)
    if not kind:
        message = "has a key of a kind that is not supported: RSA, ECDSA, Ed25519 and Ed448 are"
        raise CertificateFault("cert", message, files.cert)
    _match(chain, key, files)
    names = _careful(lambda: _names(leaf), files)
    notes += _careful(lambda: [*_chain_notes(chain), *_leaf_notes(leaf, names, is_client)], files)
    certificate = Certificate(
        files,
        chain,
        key,
        names,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        kind,
        leaf.fingerprint(hashes.SHA256()).hex(),
        tuple(notes),
    )
    try:
        certificate.use_in(SSL.Context(SSL.TLS_METHOD))
    except SSL.Error as error:
        raise CertificateFault("cert", f"is refused by OpenSSL: {reasons(error)}", files.cert) from None
    return certificate


def load_ca(path: str) -> Authorities:
    """Read a file of CA certificates, one at least. Raises CertificateFault("ca", …)."""
    content, _ = read_file(path, "ca")
    certificates = _read_certificates(content, "ca", path)
    found = Authorities(path, certificates, tuple(_ca_notes(certificates)))
    try:
        found.trust_in(SSL.Context(SSL.TLS_METHOD))
    except SSL.Error as error:
        raise CertificateFault("ca", f"is refused by OpenSSL: {reasons(error)}", path) from None
    return found


def day(seconds: float) -> str:
    """A date of a certificate, for people: 2026-11-30 12:00 UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def reasons(error: SSL.Error) -> str:
    """OpenSSL's own words for an error, the last first."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(dict.fromkeys(entry[2] for entry in reversed(queue) if entry[2])) or "no reason given"


# --- certificates


def _read_certificates(content: bytes, which: str, path: str) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    labels = set()
    for label, block in read_blocks(content, which, path):
        labels.add(label)
        if label in _CERTIFICATES:
            number = len(found) + 1
            try:
                certificate = x509.load_pem_x509_certificate(block)
                # These are read late, and must not fail later than here.
                _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.not_valid_after_utc
            except _UNREADABLE:
                raise CertificateFault(
                    which, f"has a certificate that cannot be read (number {number})", path
                ) from None
            found.append(certificate)
    if found:
        return tuple(found)
    if not labels:
        raise CertificateFault(which, "is not PEM: it has no -----BEGIN CERTIFICATE-----", path)
    if b"CERTIFICATE REQUEST" in labels or b"NEW CERTIFICATE REQUEST" in labels:
        raise CertificateFault(which, "holds a request for a certificate (CSR), no certificate", path)
    raise CertificateFault(which, f"holds no certificate, but {_listed(labels)}", path)


def _listed(labels: Iterable[bytes]) -> str:
    return ", ".join(sorted(label.decode() for label in labels))


def _careful(read: Callable[[], T], files: CertificateFiles) -> T:
    """What cannot be read in a certificate is a fault of its file."""
    try:
        return read()
    except _UNREADABLE:
        raise CertificateFault("cert", "has a certificate that cannot be read (number 1)", files.cert) from None


def _judge_kind(leaf: x509.Certificate) -> str:
    """The kind of its key; "" for those that nobody uses, or of which OpenSSL and cryptography think differently."""
    public = leaf.public_key()
    if leaf.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        return ""
    if isinstance(public, rsa.RSAPublicKey):
        return "rsa"
    if isinstance(public, ec.EllipticCurvePublicKey):
        return "ecdsa"
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "ed25519"
    return "ed448" if isinstance(public, ed448.Ed448PublicKey) else ""


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """Of subjectAltName; of the common name only where there is none of those."""
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        found, addresses = [str(attribute.value) for attribute in common[-1:]], []
    else:
        found = alternatives.get_values_for_type(x509.DNSName)
        addresses = [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    lawful = [name.lower() for name in found if len(name) <= LONGEST_NAME and _NAME.fullmatch(name.lower())]
    return tuple(dict.fromkeys(lawful + addresses))


def _chain_notes(chain: tuple[x509.Certificate, ...]) -> Iterator[str]:
    for number, (below, above) in enumerate(itertools.pairwise(chain), 1):
        try:
            below.verify_directly_issued_by(above)
        except (*_UNREADABLE, InvalidSignature):
            yield f"has a certificate (number {number + 1}) that has not issued the one before it"


def _leaf_notes(leaf: x509.Certificate, names: tuple[str, ...], is_client: bool) -> Iterator[str]:
    if not names and not is_client:
        yield "names no host, so it is served only where it is the first"
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    wanted = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
    if wanted not in usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
        yield f"is not meant for {'clients' if is_client else 'servers'} (by its extended key usage)"


def _ca_notes(certificates: tuple[x509.Certificate, ...]) -> Iterator[str]:
    for number, certificate in enumerate(certificates, 1):
        try:
            is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:  # version 1 has no extensions, and may be a CA
            is_ca = certificate.version is x509.Version.v1
        if not is_ca:
            yield f"has a certificate (number {number}) that is no CA's: only itself is trusted by it"


# --- keys


def _read_key(content: bytes, files: CertificateFiles) -> Any:
    """The one private key of a file."""

    def fault(message: str) -> CertificateFault:
        return CertificateFault("key", message, files.key)

    blocks = list(read_blocks(content, "key", files.key))
    keys = [(label, block) for label, block in blocks if label.endswith(b"PRIVATE KEY")]
    if not blocks:
        raise fault("is not PEM: it has no -----BEGIN PRIVATE KEY-----")
    if not keys:
        raise fault(f"holds no private key, but {_listed({label for label, _ in blocks})}")
    if len(keys) > 1:
        raise fault(f"holds {len(keys)} private keys, where one is needed")
    [(label, block)] = keys
    if label == b"ENCRYPTED PRIVATE KEY" or b"\nProc-Type: 4,ENCRYPTED" in block:
        raise fault("is encrypted, and nobody is there to be asked for its passphrase: decrypt it with `openssl pkey`")
    if label == b"OPENSSH PRIVATE KEY":
        raise fault("is a key in OpenSSH's own form, not one that TLS can use")
    try:
        return serialization.load_pem_private_key(block, None, unsafe_skip_rsa_key_validation=True)
    except _UNREADABLE:
        raise fault("has a private key that cannot be read") from None


def _match(chain: tuple[x509.Certificate, ...], key: Any, files: CertificateFiles) -> None:
    """The key is that of the first certificate, and works."""
    fits = [_is_of(certificate, key) for certificate in chain]
    if not fits[0]:
        if True in fits:
            message = f"must begin with the certificate of the key, which is number {fits.index(True) + 1}"
            raise CertificateFault("cert", message, files.cert)
        raise CertificateFault("key", "is not the key of the certificate", files.key)
    if not _signs(key):
        raise CertificateFault("key", "has a private key that is damaged: it does not sign", files.key)


def _is_of(certificate: x509.Certificate, key: Any) -> bool:
    try:
        return bool(certificate.public_key() == key.public_key())
    except _UNREADABLE:
        return False


def _signs(key: Any) -> bool:
    """Is what the private part signs verified by the public one? RSA keys are not tested otherwise."""
    probe = b"lbsvc"
    how: tuple[Any, ...] = ()
    if isinstance(key, rsa.RSAPrivateKey):
        how = padding.PKCS1v15(), hashes.SHA256()
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        how = (ec.ECDSA(hashes.SHA256()),)
    try:
        key.public_key().verify(key.sign(probe, *how), probe, *how)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True
