"""Sessions with backends: resumed where they may be, and believed no longer than a handshake would be."""

from __future__ import annotations

import os
import time
from typing import Any

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolTls
from lbsvc.net.client_tls import LONGEST_SESSION, ClientTls, Unverified, UpstreamTls, is_resumed
from tests.kit.authority import DAY, Authority
from tests.net.tls_pairs import VERSIONS, Server, carry, meet, part, read, reason, shake


class Case(TestCase):
    """A clock that begins now, and a CA that is trusted."""

    authority = Authority()

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.settings = PoolTls(ca=self.authority.write(self.folder))
        self.clock = Clock()
        self.clock.advance(time.time())
        self.leaf = self.authority.issue("a.example", "b.example")

    def upstream(self) -> UpstreamTls:
        return UpstreamTls(self.settings, self.clock.seconds)

    def tls(self) -> ClientTls:
        return self.upstream().for_host("a.example")

    def visit(self, tls: ClientTls, server: Server) -> bool:
        """A connection from its beginning to its end: was it resumed?"""
        client, side = meet(tls, server)
        self.assertEqual(read(client, side, b"hello"), b"hello")
        part(tls, client)
        return is_resumed(client)

    def visits(self, tls: ClientTls, *servers: Server) -> list[bool]:
        return [self.visit(tls, server) for server in servers]


class EachVersion(Case):
    """Tests that are made with both versions."""

    version = SSL.TLS1_3_VERSION

    def server(self, tickets: bool = True) -> Server:
        return Server(self.leaf, self.version, tickets)


class ResumptionTests(EachVersion):
    def test_resumed(self) -> None:
        """After the first connection each one is resumed, one after the other and side by side, and verified as before."""
        tls, server = self.tls(), self.server()
        self.assertEqual(self.visits(tls, server, server, server), [False, True, True])
        pairs = [meet(tls, server) for _ in range(3)]
        self.assertEqual([is_resumed(client) for client, _ in pairs], [True] * 3)
        self.assertEqual([is_resumed(side) for _, side in pairs], [True] * 3)

    def test_compared_each_time(self) -> None:
        """The certificate of a resumed session is compared with the name again; what is refused is not offered again."""
        tls, server, other = self.tls(), self.server(), self.upstream().for_host("c.example")
        self.visit(tls, server)
        tls._identity, tls._seen = other._identity, other._seen
        client, side = tls.connection(None), server.connection()
        shake(client, side)
        self.assertTrue(is_resumed(client))
        self.assertEqual(
            str(self.assertRaises(Unverified, tls.verify, client)), "the certificate is not one for c.example"
        )
        self.assertIsNone(tls._session)

    def test_hosts_do_not_share(self) -> None:
        """A session is not offered to another host of the same pool, nor under other settings."""
        upstream, server = self.upstream(), self.server()
        self.visit(upstream.for_host("a.example"), server)
        for other in (upstream.for_host("b.example"), upstream.for_host("a.example"), self.tls()):
            self.assertFalse(self.visit(other, server))

    def test_an_hour(self) -> None:
        """A chain is believed for an hour, however often it is resumed meanwhile; then the whole handshake is due."""
        tls, server = self.tls(), self.server()
        self.visit(tls, server)
        self.clock.advance(LONGEST_SESSION - 60)
        self.assertEqual(self.visits(tls, server, server), [True, True])
        self.clock.advance(60)
        self.assertEqual(self.visits(tls, server, server), [False, True])

    def test_end_of_the_certificate(self) -> None:
        """A session ends with the certificate in it."""
        self.leaf = self.authority.issue("a.example", days=600 / DAY.total_seconds())
        tls, server = self.tls(), self.server()
        self.visit(tls, server)
        self.clock.advance(590)
        self.assertTrue(self.visit(tls, server))
        self.clock.advance(20)
        self.assertFalse(is_resumed(meet(tls, server)[0]))

    def test_clock_goes_back(self) -> None:
        """A clock that was set back, by however little, makes nothing valid for longer."""
        tls, server = self.tls(), self.server()
        self.visit(tls, server)
        self.clock.rightNow -= 1
        self.assertFalse(is_resumed(meet(tls, server)[0]))

    def test_later_chain_stays(self) -> None:
        """A connection that parts late does not replace a session whose chain was verified after its own."""
        tls, server = self.tls(), self.server()
        client, side = meet(tls, server)
        read(client, side)
        self.clock.advance(LONGEST_SESSION - 60)
        self.visit(tls, server)
        part(tls, client)
        self.clock.advance(120)
        self.assertTrue(self.visit(tls, server))

    def test_server_begins_anew(self) -> None:
        """A server that does not know the session makes a whole handshake, and its own session counts from then on."""
        tls = self.tls()
        server, other = self.server(), self.server()
        self.assertEqual(self.visits(tls, server, server, other, other), [False, True, False, True])

    def test_swapped_certificate(self) -> None:
        """A server that comes back with a certificate for somebody else, or of another CA, is noticed."""
        for leaf, words in (
            (self.authority.issue("c.example"), "is not one for a.example"),
            (Authority().issue("a.example"), "unable to get local issuer certificate"),
        ):
            tls, server = self.tls(), self.server()
            self.assertEqual(self.visits(tls, server, server), [False, True])
            self.assertIn(words, reason(tls, Server(leaf, self.version)))
            renewed = Server(self.authority.issue("a.example", kind="rsa"), self.version)
            self.assertEqual(self.visits(tls, renewed, renewed), [False, True])

    def test_forgotten(self) -> None:
        """A session whose handshake has failed is not offered again; one that was not offered there stays."""
        tls, server = self.tls(), self.server()
        bystander = tls.connection(None)
        self.visit(tls, server)
        tls.forget(bystander)
        failed = tls.connection(None)
        self.assertTrue(is_resumed(meet(tls, server)[0]))
        tls.forget(failed)
        self.assertEqual(self.visits(tls, server, server), [False, True])

    def test_without_verify(self) -> None:
        """Where nobody is verified there is resumption all the same."""
        self.settings = PoolTls(verify=False)
        self.leaf = Authority().issue("x", days=-1)
        tls, server = self.tls(), self.server()
        self.assertEqual(self.visits(tls, server, server), [False, True])
        self.clock.advance(LONGEST_SESSION)
        self.assertFalse(self.visit(tls, server))

    def test_not_verified(self) -> None:
        """Nothing is remembered of a connection that was not verified, nor is anything better given up for it."""
        tls, server = self.tls(), self.server()
        for is_known in (False, True):
            client, side = tls.connection(None), server.connection()
            shake(client, side)
            read(client, side)
            part(tls, client)
            self.assertEqual(self.visit(tls, server), is_known)

    def test_cut(self) -> None:
        """OpenSSL spoils the session of a connection that is freed without any end: then the handshake is a whole one."""
        tls, server = self.tls(), self.server()
        client, side = meet(tls, server)
        read(client, side)
        tls.remember(client)
        del client
        self.assertEqual(self.visits(tls, server, server), [False, True])

    def test_nothing_to_resume(self) -> None:
        """A server without tickets and cache is met by whole handshakes, without harm."""
        tls, server = self.tls(), self.server(tickets=False)
        self.assertEqual(self.visits(tls, server, server), [False, False])


class ResumptionTests12(ResumptionTests):
    """The same by TLS 1.2, where the ticket comes with the handshake."""

    version = SSL.TLS1_2_VERSION


class TicketTests(Case):
    def test_tickets_come_late(self) -> None:
        """By TLS 1.3 a connection that has read nothing has nothing to remember, and takes nothing away."""
        tls, server = self.tls(), Server(self.leaf, VERSIONS["TLSv1.3"])
        silent = [meet(tls, server)[0] for _ in range(2)]
        part(tls, silent[0])
        self.assertFalse(self.visit(tls, server))
        part(tls, silent[1])
        silent.append(meet(tls, server)[0])
        self.assertTrue(is_resumed(silent[2]))
        part(tls, silent[2])
        self.assertTrue(self.visit(tls, server))

    def test_before_it_parts(self) -> None:
        """A session may be remembered as soon as something was read, again and again."""
        tls, server = self.tls(), Server(self.leaf, VERSIONS["TLSv1.3"])
        client, side = meet(tls, server)
        others = []
        for _ in range(3):
            read(client, side)
            tls.remember(client)
            others.append(meet(tls, server)[0])
        self.assertEqual([is_resumed(other) for other in others], [True] * 3)

    def test_versions_change(self) -> None:
        """A session of one version does no harm where the server speaks another one by now."""
        tls = self.tls()
        old, new = (Server(self.leaf, version) for version in VERSIONS.values())
        self.assertEqual(self.visits(tls, old, new, new, old, old), [False, False, True, False, True])

    def test_renegotiation(self) -> None:
        """A server that wants to renegotiate is refused, and gets no second handshake."""
        client, side = meet(self.tls(), Server(self.leaf, VERSIONS["TLSv1.2"]))
        read(client, side)
        before: Any = client.get_finished()
        side.renegotiate()
        side.do_handshake()
        carry(client, side)
        self.assertRaises(SSL.WantReadError, client.recv, 1)
        carry(client, side)
        error = self.assertRaises(SSL.Error, side.recv, 1)
        self.assertEqual(error.args[0][0][2], "no renegotiation")
        self.assertEqual(client.get_finished(), before)
