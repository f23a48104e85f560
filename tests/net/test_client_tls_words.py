"""What is said of a handshake that has failed: whether it was for want of trust, and why, in words that no peer chooses."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolTls
from lbsvc.errors import LbsvcError
from lbsvc.net.client_tls import ClientTls, Unverified, UpstreamTls, explain
from tests.kit.authority import Authority
from tests.net.tls_pairs import VERSIONS, Server, shake


class ExplainTests(TestCase):
    authority = Authority()

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.settings = PoolTls(ca=self.authority.write(self.folder))

    def tls(self) -> ClientTls:
        return UpstreamTls(self.settings, time.time).for_host("a.example")

    def server(self, version: int | None = None) -> Server:
        return Server(self.authority.issue("a.example"), version)

    def told(self, server: Server) -> tuple[bool, str]:
        """Why the handshake with it fails."""
        client = self.tls().connection(None)
        return explain(self.assertRaises(SSL.Error, shake, client, server.connection()), client)

    def answered(self, answer: bytes) -> tuple[bool, str]:
        """Why the handshake fails with somebody who says this."""
        client = self.tls().connection(None)
        client.bio_write(answer)
        return explain(self.assertRaises(SSL.Error, client.do_handshake), client)

    def test_unverified(self) -> None:
        """Unverified is for want of trust, and says itself why."""
        self.assertEqual(explain(Unverified("so it is")), (True, "so it is"))
        self.assertTrue(issubclass(Unverified, LbsvcError))

    def test_chain(self) -> None:
        """A chain that OpenSSL does not believe is for want of trust; why, the connection knows."""
        client = self.tls().connection(None)
        error = self.assertRaises(SSL.Error, shake, client, Server(Authority().issue("a.example")).connection())
        told = "certificate verify failed: unable to get local issuer certificate"
        self.assertEqual(explain(error, client), (True, told))
        self.assertEqual(explain(error), (True, "certificate verify failed"))

    def test_no_tls(self) -> None:
        """Servers that speak something else are asked about, and what they said is not repeated."""
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", b"220 mail ESMTP\r\n", bytes(64)):
            self.assertEqual(self.answered(answer), (False, "wrong version number (is it a TLS server?)"))

    def test_refusals(self) -> None:
        """What a server refuses is told as its refusal, be it for a certificate that we do not show or for our ciphers."""
        told = (False, "the backend refuses: handshake failure")
        server = self.server(VERSIONS["TLSv1.2"])
        server.openssl.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self.assertEqual(self.told(server), told)
        server = self.server(VERSIONS["TLSv1.2"])
        server.openssl.set_cipher_list(b"AECDH-NULL-SHA:ADH-AES128-SHA256:@SECLEVEL=0")
        self.assertEqual(self.told(server), told)

    def test_alerts(self) -> None:
        """Each alert is told in OpenSSL's word for it."""
        cases = {
            40: "the backend refuses: handshake failure",
            48: "the backend refuses: unknown ca (it does not know the CA of our certificate)",
            70: "the backend refuses: protocol version (TLS 1.2 is the least that is spoken here)",
            80: "the backend refuses: internal error",
            112: "the backend refuses: unrecognized name (it does not know the name that it was asked for)",
            120: "the backend refuses: no application protocol (it speaks none of the protocols that it was offered)",
            116: "the backend refuses: certificate required (it wants a client certificate: tls.cert and tls.key)",
        }
        for alert, told in cases.items():
            self.assertEqual(self.answered(b"\x15\x03\x03\x00\x02\x02" + bytes([alert])), (False, told))

    def test_losses(self) -> None:
        """A connection that is closed, reset, or ended in the midst of the handshake is told as that."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        client = self.tls().connection(near)
        far.close()
        error: Any = self.assertRaises(SSL.SysCallError, client.do_handshake)
        self.assertEqual(explain(error, client), (False, "Broken pipe"))
        self.assertEqual(explain(SSL.SysCallError(104, "ECONNRESET")), (False, "Connection reset by peer"))
        gone = (False, "the backend has closed the connection in the handshake")
        self.assertEqual(explain(SSL.SysCallError(-1, "Unexpected EOF")), gone)
        self.assertEqual(explain(SSL.SysCallError()), gone)
        self.assertEqual(explain(SSL.ZeroReturnError()), (False, "the backend has ended TLS before it had begun"))

    def test_closed(self) -> None:
        """An end after the first flight, on a socket, is an end."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        client = self.tls().connection(near)
        near.setblocking(False)
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        far.recv(65536)
        far.close()
        error: Any = self.assertRaises(SSL.SysCallError, client.do_handshake)
        self.assertEqual(explain(error, client), (False, "the backend has closed the connection in the handshake"))

    def test_others(self) -> None:
        """What is no error of TLS is told by its own words, or its name."""
        self.assertEqual(explain(OSError("so it is")), (False, "so it is"))
        self.assertEqual(explain(ValueError()), (False, "ValueError"))
        self.assertEqual(explain(SSL.Error([])), (False, "OpenSSL gives no reason"))
        self.assertEqual(explain(SSL.Error()), (False, "OpenSSL gives no reason"))
        self.assertEqual(explain(SSL.Error([("a", "", "first"), ("b", "", "second")])), (False, "first"))
