"""TLS over our transports: after startTLS nothing of the application passes in plain text, and all of it arrives."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import _producer_helpers, ssl
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Cooperator
from twisted.protocols import tls
from twisted.protocols.basic import FileSender

from tests.net.reactors import Dialling, ReactorCase, Serving, Side, TwistedsOwn

SECRET = b"this must not be seen"


def server_options() -> Any:
    """A context factory with a new key and a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ssl.PrivateCertificate.loadPEM(pem).options()


def client_options() -> Any:
    return ssl.CertificateOptions()


class StartTLSTests(ReactorCase):
    def setUp(self) -> None:
        super().setUp()
        # TLS gathers small writes, and pulls from pull producers, by the global reactor, which does not turn here.
        self.patch(tls, "_get_default_clock", lambda: self.reactor)
        turns = Cooperator(scheduler=lambda again: self.reactor.callLater(0, again))
        self.patch(_producer_helpers, "cooperate", turns.cooperate)

    def test_nothing_in_plain_text(self) -> None:
        """After startTLS what is written goes to TLS only: the peer sees a handshake and no byte of the application."""
        server, far = self.accepted()
        server.transport.write(b"plain;")
        server.transport.startTLS(client_options(), normal=False)
        server.transport.write(SECRET)
        server.transport.writeSequence([SECRET, SECRET])
        self.turn()
        server.transport.write(SECRET)
        seen = b""
        while len(seen) < 12:
            seen += far.recv(65536)
        self.assertEqual(seen[:8], b"plain;\x16\x03")
        self.assertNotIn(SECRET, seen)
        server.transport.abortConnection()
        self.spin(lambda: server.lost)

    def test_behind_a_queue(self) -> None:
        """What was queued before startTLS arrives before the handshake, in plain text, and nothing else does."""
        server, far = self.accepted()
        before = random.Random(3).randbytes(5_000_000)
        server.transport.write(before)
        server.transport.startTLS(client_options(), normal=False)
        server.transport.write(SECRET)
        seen = bytearray()
        far.setblocking(False)

        def read() -> bool:
            try:
                seen.extend(far.recv(1 << 20))
            except BlockingIOError:
                pass
            return len(seen) > len(before) + 20

        self.spin(read)
        self.assertTrue(seen.startswith(before))
        self.assertEqual(seen[len(before) :][:2], b"\x16\x03")
        self.assertNotIn(SECRET, seen)
        server.transport.abortConnection()
        self.spin(lambda: server.lost)

    def test_upgrade(self) -> None:
        """Both ends upgrade after a word in plain text; a large file goes one way, many small writes the other."""
        server, client = self.pair()
        blob = random.Random(4).randbytes(1_500_000)

        def upgrade(data: bytes) -> None:
            server.on_data = None
            server.transport.write(b"go ahead")
            server.transport.startTLS(server_options())
            FileSender().beginFileTransfer(io.BytesIO(blob), server.transport)

        def follow(data: bytes) -> None:
            client.on_data = None
            client.received.clear()
            client.transport.startTLS(client_options())
            for number in range(3000):
                client.transport.write(b"%05d" % number)

        server.on_data, client.on_data = upgrade, follow
        client.transport.write(b"STARTTLS")
        self.spin(lambda: len(client.received) == len(blob) and len(server.received) == 15008)
        self.assertTrue(ISSLTransport.providedBy(client.transport))
        self.assertEqual(client.received, blob)
        self.assertEqual(server.received, b"STARTTLS" + b"".join(b"%05d" % number for number in range(3000)))
        client.transport.loseConnection()
        self.spin(lambda: client.lost and server.lost)
        self.assertEqual((client.lost, server.lost), ([ConnectionDone], [ConnectionDone]))

    def test_push_producer_stays(self) -> None:
        """A push producer that was registered before startTLS is paused and resumed by TLS afterwards."""
        server, client = self.pair()
        calls: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

            def stopProducing(self) -> None:
                calls.append("stop")

        server.transport.registerProducer(Producer(), True)
        server.transport.startTLS(server_options())
        client.transport.startTLS(client_options())
        server.transport.write(bytes(3_000_000))
        self.spin(lambda: len(client.received) == 3_000_000)
        self.spin(lambda: calls[-1:] == ["resume"])
        self.assertEqual(calls[0], "pause")
        server.transport.unregisterProducer()
        server.transport.loseConnection()
        self.spin(lambda: server.lost)
        self.assertNotIn("stop", calls)

    def test_tls_port(self) -> None:
        """A TLS factory around an ordinary one serves over our ports and transports."""
        server, client = Side(), Side()
        factory = tls.TLSMemoryBIOFactory(server_options(), False, Serving(server))
        port = self.listen(factory)
        self.reactor.connectSSL("127.0.0.1", port.getHost().port, Dialling(client), client_options())
        self.spin(lambda: client.made)
        client.transport.write(b"question")
        self.spin(lambda: server.received == b"question")
        server.transport.write(b"answer" * 50_000)
        server.transport.loseConnection()
        self.spin(lambda: client.lost)
        self.assertEqual(client.received, b"answer" * 50_000)


class OnTwistedsTests(TwistedsOwn, StartTLSTests):
    """None of these tests asks for more than Twisted gives."""
