"""Certificates for tests: a CA of one's own, and leaves with whatever is right or wrong about them.

`Authority().issue("a.example")` gives a `Leaf`, whose `write(folder)` leaves `cert` and `key` files. Keys are made once for
each process and kind, since making RSA keys is slow.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@lru_cache(None)
def make_key(kind: str, number: int = 0) -> Any:
    """A private key: "ecdsa", "rsa" or "ed25519"; the same one for the same number."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def _digest(key: Any) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def key_pem(key: Any) -> bytes:
    """PKCS#8, not encrypted."""
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


class Leaf:
    """A certificate, its key, and the certificates between it and the root."""

    def __init__(self, certificate: x509.Certificate, key: Any, chain: tuple[x509.Certificate, ...] = ()) -> None:
        self.certificate = certificate
        self.key = key
        self.chain = chain

    @property
    def cert_pem(self) -> bytes:
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (self.certificate, *self.chain))

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)

    def write(self, folder: str, name: str = "leaf") -> tuple[str, str]:
        """Files of both; their paths. What was there is replaced at once, as a careful tool does it."""
        paths = os.path.join(folder, f"{name}.pem"), os.path.join(folder, f"{name}.key")
        for path, content in zip(paths, (self.cert_pem, self.key_pem), strict=True):
            with open(path + ".new", "wb") as file:
                file.write(content)
            os.replace(path + ".new", path)
        return paths


class Authority:
    """A CA: a root of its own, or below `parent`."""

    def __init__(self, name: str = "test CA", parent: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.parent = parent
        signer = parent if parent is not None else self
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate: x509.Certificate = self._build(
            subject, self.key.public_key(), subject if parent is None else parent.certificate.subject
        ).sign(signer.key, hashes.SHA256())

    @staticmethod
    def _build(subject: x509.Name, public: Any, issuer: x509.Name) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, folder: str, name: str = "ca") -> str:
        path = os.path.join(folder, f"{name}.pem")
        with open(path, "wb") as file:
            file.write(self.pem)
        return path

    def issue(
        self,
        *names: str,
        common_name: str | None = None,
        kind: str = "ecdsa",
        days: float = 90.0,
        since: float = 1.0,
        san: bool = True,
        organization: str | None = None,
        client: bool = True,
        number: int = 0,
    ) -> Leaf:
        """A leaf for DNS names and IP addresses.

        It is valid from `since` days ago for `days` from now (negative: expired). `san` False: no subjectAltName at all.
        A name such as "*" is written as it stands. `number` chooses another key.
        """
        key = make_key(kind, number)
        now = datetime.datetime.now(datetime.UTC)
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name or (names[0] if names else "nobody"))]
        if organization is not None:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
        end = now + days * DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now - since * DAY, end - DAY))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if san and names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_general(names)), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Leaf(certificate, key, () if self.parent is None else (self.certificate,))


def _general(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
