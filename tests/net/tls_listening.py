"""A listener's TLS under test: certificates in a folder, clients of every sort, and handshakes in memory."""

from __future__ import annotations

import os
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.schema import CertificateFiles, ListenerTls
from lbsvc.net.server_tls import ServerTls, arrival_facts
from tests.kit.authority import Authority, Leaf
from tests.net.tls_pairs import VERSIONS, read, shake

lib = Binding.lib

BOTH = tuple(VERSIONS)


class Visit:
    """A client's connection after its handshake: both sides of it."""

    def __init__(self, client: SSL.Connection, server: SSL.Connection) -> None:
        self.client = client
        self.server = server
        read(client, server)  # and with it the tickets of TLS 1.3
        self.facts = arrival_facts(server)
        self.is_resumed = bool(lib.SSL_session_reused(client._ssl))

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What the server has shown."""
        return tuple(each.to_cryptography() for each in self.client.get_peer_cert_chain() or ())

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    def part(self) -> SSL.Session:
        """The end of the connection; the session, to be resumed."""
        for side in (self.client, self.server):
            side.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        session = self.client.get_session()
        assert session is not None
        return session


class ListenerCase(SynchronousTestCase):
    """Tests with a CA, a folder for files, a clock, and a log of events."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.now = time.time()
        self.events: list[tuple[str, str, str, dict[str, Any]]] = []

    def files(self, leaf: Leaf, name: str = "leaf") -> CertificateFiles:
        """The files of a certificate, in place of those that were there; the key is nobody else's."""
        files = CertificateFiles(*leaf.write(self.folder, name))
        os.chmod(files.key, 0o600)
        return files

    def tell(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((level, event, message.replace(self.folder + "/", ""), fields))

    def told(self) -> list[tuple[str, str, str]]:
        """Level, event and message of each event since the last look at them."""
        events, self.events = self.events, []
        return [event[:3] for event in events]

    def listen(self, *leaves: Leaf, **settings: Any) -> ServerTls:
        """A listener with these certificates, whose files are called 0.pem, 0.key, 1.pem…"""
        files = tuple(self.files(leaf, str(i)) for i, leaf in enumerate(leaves))
        return ServerTls(ListenerTls(files, **settings), lambda: self.now, self.tell)

    def browser(self, version: str | None = None, shown: Leaf | None = None, options: int = 0) -> SSL.Context:
        """What clients are made of: one version of TLS, a certificate of their own. They believe everybody."""
        made = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if version is not None:
            made.set_min_proto_version(VERSIONS[version])
            made.set_max_proto_version(VERSIONS[version])
        if shown is not None:
            made.use_certificate(shown.certificate)
            for each in shown.chain:
                made.add_extra_chain_cert(each)
            made.use_privatekey(shown.key)
        made.set_options(options)
        return made

    def visit(
        self,
        tls: ServerTls,
        browser: SSL.Context | None = None,
        name: str | None = None,
        session: SSL.Session | None = None,
        alpn: tuple[bytes, ...] = (),
    ) -> Visit:
        """A handshake that succeeds; raises SSL.Error where it does not."""
        client, server = SSL.Connection(browser or self.browser(), None), tls.connection(None)
        client.set_connect_state()
        if name is not None:
            client.set_tlsext_host_name(name.encode())
        if alpn:
            client.set_alpn_protos(list(alpn))
        if session is not None:
            client.set_session(session)
        shake(client, server)
        return Visit(client, server)
