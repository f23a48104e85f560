"""Both sides of TLS in memory: a server that is what a test wants it to be, and handshakes with it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import SSL
from OpenSSL.crypto import X509

from lbsvc.net.client_tls import ClientTls, explain
from tests.kit.authority import DAY, Authority, Leaf, make_key

VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


class Server:
    """A server with one certificate, which speaks one version, or whatever is best."""

    def __init__(self, leaf: Leaf, version: int | None = None, tickets: bool = True) -> None:
        self.openssl = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.openssl.use_certificate(X509.from_cryptography(leaf.certificate))
        for each in leaf.chain:
            self.openssl.add_extra_chain_cert(X509.from_cryptography(each))
        self.openssl.use_privatekey(leaf.key)
        self.openssl.set_session_id(b"test")
        if version is not None:
            self.openssl.set_min_proto_version(version)
            self.openssl.set_max_proto_version(version)
        if not tickets:
            self.openssl.set_options(SSL.OP_NO_TICKET)
            self.openssl.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.offered: list[bytes] = []  # what the last client offered by ALPN

    def speak(self, *protocols: bytes) -> None:
        """ALPN; the first of these is chosen."""

        def choose(connection: Any, offered: list[bytes]) -> bytes:
            self.offered = offered
            return protocols[0]

        self.openssl.set_alpn_select_callback(choose)

    def connection(self) -> SSL.Connection:
        side = SSL.Connection(self.openssl, None)
        side.set_accept_state()
        return side


def carry(one: SSL.Connection, other: SSL.Connection) -> None:
    """Everything that they have to say to one another."""
    for source, sink in ((one, other), (other, one)):
        try:
            sink.bio_write(source.bio_read(1 << 17))
        except SSL.WantReadError:
            pass


def shake(client: SSL.Connection, server: SSL.Connection) -> None:
    """Both handshakes; raises what the client's raises in the end, or else the server's."""
    refusal: SSL.Error | None = None
    for _ in range(8):
        carry(client, server)
        try:
            client.do_handshake()
        except SSL.WantReadError:
            pass
        carry(client, server)
        try:
            server.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal


def read(client: SSL.Connection, server: SSL.Connection, content: bytes = b"hello") -> bytes:
    """What the client reads of what the server writes, with the tickets that come before it."""
    server.send(content)
    carry(client, server)
    return client.recv(len(content))


def meet(tls: ClientTls, server: Server) -> tuple[SSL.Connection, SSL.Connection]:
    """A connection that has been verified: the client's side and the server's."""
    client, side = tls.connection(None), server.connection()
    shake(client, side)
    tls.verify(client)
    return client, side


def part(tls: ClientTls, client: SSL.Connection) -> None:
    """The end of a connection, as net/secure.py makes it."""
    client.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
    tls.remember(client)


def reason(tls: ClientTls, server: Server) -> str:
    """Why the server is not believed; "" where it is."""
    client, side = tls.connection(None), server.connection()
    try:
        shake(client, side)
        tls.verify(client)
    except Exception as error:
        is_verify, words = explain(error, client)
        assert is_verify, words
        return words
    return ""


def forge(
    authority: Authority | None,
    names: Iterable[str] = ("a.example",),
    *,
    raw: bytes | None = None,
    begins: datetime.timedelta = -DAY,
    purpose: ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Leaf:
    """A leaf with what Authority.issue does not make: no authority but itself, a raw subjectAltName, other dates or uses."""
    key = make_key("ecdsa", 7)
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")])
    san: x509.ExtensionType
    if raw is None:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    else:
        san = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, raw)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + begins + 30 * DAY)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(san, critical=False)
        .sign(key if authority is None else authority.key, hashes.SHA256())
    )
    return Leaf(certificate, key)


def dns_names(*names: bytes) -> bytes:
    """A subjectAltName in DER with these bytes for names, lawful or not."""
    entries = b"".join(b"\x82" + bytes([len(name)]) + name for name in names)
    assert len(entries) < 128
    return b"\x30" + bytes([len(entries)]) + entries


def write_pem(path: str, *certificates: x509.Certificate) -> str:
    """A file with these certificates; its path."""
    with open(path, "wb") as file:
        file.writelines(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
    return path
