"""TLS towards clients, with other people's clients: versions, names, resumption, what is refused, what is told of it."""

from __future__ import annotations

import hashlib
import signal
import socket
import threading
from typing import Any

from tests.integration.secured import NAME, SecureCase
from tests.kit.openssl import Typing, s_client
from tests.kit.processes import RawClient, get, until
from tests.kit.upstreams import Answer, Forever, RecordingBackend, Request, Send, WaitFor, echo_backend, response

MIB = 1024 * 1024
ASKING = b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n"
VERSIONS = ("1.2", "1.3")


class CurlTests(SecureCase):
    def test_versions(self) -> None:
        """curl is served in TLS 1.2 and in 1.3, and verifies us; the backend is told https; log and metric say which
        (TLS-1)."""
        balancer, port = self.secure(self.echoing().address)
        for version in VERSIONS:
            told = self.curl(port, f"--tlsv{version}", "--tls-max", version).stdout
            self.assertIn(b"\r\nX-Forwarded-Proto: https\r\n", told)
            self.assertIn(b"\r\nHost: site.example\r\n", told)
        lines = self.settle(balancer, 2)
        self.assertEqual([line["tls"] for line in lines], ["TLSv1.2", "TLSv1.3"])
        self.assertEqual({line["protocol"] for line in lines}, {"HTTP/2"})
        for line in lines:
            times: Any = line["t"]
            self.assertEqual(next(iter(times)), "handshake")
            self.assertGreater(times["handshake"], 0)
        for version in VERSIONS:
            self.assertEqual(self.handshakes(balancer, "success", f"TLSv{version}"), 1)
        self.assertEqual(self.handshakes(balancer, "failure"), 0)

    def test_names(self) -> None:
        """Each name gets its certificate: exact before wildcard, one label only, the first for whoever asks for no
        other (TLS-4)."""
        first, exact, wild = self.site("first.example"), self.site("a.b.example"), self.site("*.b.example")
        _, port = self.secure(self.one(), tls={"certificates": [first, wild, exact]})
        named = {"a.b.example": "a.b.example", "z.b.example": "*.b.example", "A.B.example": "a.b.example"}
        for name, subject in named.items():
            self.assertEqual(self.curl(port, name=name).stdout, b"one")
            spoken = s_client(port, "-servername", name, folder=self.folder)
            self.assertEqual(spoken.subject, subject)
        for name in ("b.example", "x.y.b.example", "nobody.example"):
            self.assertEqual(s_client(port, "-servername", name, folder=self.folder).subject, "first.example")
            self.assertEqual(self.curl(port, name=name, status=60).stdout, b"")  # curl: not the name of the certificate
        self.assertEqual(s_client(port, "-noservername", folder=self.folder).subject, "first.example")

    def test_kinds_side_by_side(self) -> None:
        """RSA and ECDSA for one name: each client gets what it can verify."""
        both = [self.site(NAME, kind="ecdsa"), self.site(NAME, kind="rsa")]
        _, port = self.secure(self.one(), tls={"certificates": both})
        for ciphers, kind in (("aECDSA", "ECDSA"), ("aRSA", "RSA-PSS")):
            spoken = s_client(port, "-tls1_2", "-cipher", ciphers, "-servername", NAME, folder=self.folder)
            self.assertEqual((spoken.version, spoken.signature), ("TLSv1.2", kind))
        for algorithm, kind in (("ECDSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256", "RSA-PSS")):
            options = ("-tls1_3", "-sigalgs", algorithm, "-servername", NAME)
            self.assertEqual(s_client(port, *options, folder=self.folder).signature, kind)

    def test_redirect(self) -> None:
        """One route sends everybody from http to https, with path and query; curl follows and arrives."""
        to_https = {"match": {"path": "/*"}, "redirect": {"to": "https://{host}{uri}", "status": 308}}
        backend = self.echoing()
        _, ports = self.secure_all(
            {"plain": {"routes": [to_https]}, "web": {"tls": {"certificates": [self.site()]}, "pool": "web"}},
            {"web": {"backends": [backend.address]}},
        )
        answer = get(ports["plain"], "/a%20b?c=d&e")
        self.assertEqual((answer.status, answer.header("location")), (308, "https://test.example/a%20b?c=d&e"))
        places = ("--connect-to", f"{NAME}:80:127.0.0.1:{ports['plain']}")
        options = ("-L", *places, f"http://{NAME}/x?y=z")
        told = self.curl(ports["web"], *options, "--connect-to", f"{NAME}:443:127.0.0.1:{ports['web']}").stdout
        self.assertIn(b"GET /x?y=z HTTP/1.1\r\n", told)


class OpensslTests(SecureCase):
    def test_resumption(self) -> None:
        """openssl resumes its session in both versions, and TLS 1.2 by a session id as by a ticket."""
        balancer, port = self.secure(self.one())
        kinds = {"tls1_2": (), "tls1_3": (), "tls1_2 by id": ("-no_ticket",)}
        for kind, options in kinds.items():
            session = str(self.folder / f"{kind}.session")
            options = (f"-{kind.split()[0]}", "-servername", NAME, *options)
            first = s_client(port, *options, "-sess_out", session, folder=self.folder, said=ASKING)
            self.assertFalse(first.is_resumed, kind)
            again = s_client(port, *options, "-sess_in", session, folder=self.folder, said=ASKING)
            self.assertTrue(again.is_resumed, kind)
            self.assertIn("one", again.text)
        self.assertEqual(self.handshakes(balancer, "success"), 6)

    def test_no_renegotiation(self) -> None:
        """A client that wants to negotiate anew is told no (TLS 1.2) and others do not notice; keys are updated (1.3)."""
        balancer, port = self.secure(self.one())
        typing = self.type(port, "-tls1_2", "-servername", NAME)
        typing.type("R\n")
        typing.shown("no renegotiation")
        typing.end()
        typing = self.type(port, "-tls1_3", "-servername", NAME, "-crlf")
        typing.type("K\n")
        typing.shown("KEYUPDATE")
        typing.type(f"GET / HTTP/1.1\nHost: {NAME}\nConnection: close\n\n")
        typing.shown("200 OK")
        typing.end()
        self.assertEqual(self.curl(port).stdout, b"one")
        self.settle(balancer, 2)

    def type(self, port: int, *options: str) -> Typing:
        typing = Typing(port, *options, folder=self.scratch())
        self.addCleanup(typing.stop)
        return typing

    def test_old_versions(self) -> None:
        """TLS 1.0 and 1.1 are refused by an alert, 1.2 too where min_version is 1.3; it is logged and counted (TLS-1,
        TLS-2)."""
        balancer, port = self.secure(self.one())
        for version in ("-tls1", "-tls1_1"):
            spoken = s_client(port, version, "-cipher", "DEFAULT:@SECLEVEL=0", folder=self.folder)
            self.assertEqual((spoken.version, spoken.alert), ("", "protocol version"))
        lines = self.settle(balancer, 2)
        self.assertEqual([(line["reason"], line["protocol"]) for line in lines], [("handshake_failed", "tcp")] * 2)
        self.assertEqual(self.handshakes(balancer, "failure", "none"), 2)
        self.assertEqual(balancer.metric("lbsvc_terminations_total", reason="handshake_failed"), 2)

        _, port = self.secure(self.one(), tls={"min_version": "1.3"})
        self.assertEqual(s_client(port, "-tls1_2", folder=self.folder).alert, "protocol version")
        self.assertEqual(s_client(port, folder=self.folder).version, "TLSv1.3")

    def test_alpn(self) -> None:
        """http/1.1 is agreed on where that is all; who offers nothing that we speak is told so, in both versions."""
        _, port = self.secure(self.one(), tls={"alpn": ["http/1.1"]})
        for version in ("-tls1_2", "-tls1_3"):
            for offered in ("h2,http/1.1", "http/1.1", "h2", "spdy/3"):
                options = (version, "-servername", NAME, "-alpn", offered)
                spoken = s_client(port, *options, folder=self.folder, said=ASKING)
                if "http" in offered:
                    self.assertEqual(spoken.alpn, "http/1.1")
                    self.assertIn("200 OK", spoken.text)
                else:
                    self.assertEqual(spoken.alert, "no application protocol")

    def test_ciphers(self) -> None:
        """Ours are spoken and no other; what is weak is not among the defaults (TLS-2)."""
        _, port = self.secure(self.one(), tls={"ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305"})
        options = ("-tls1_2", "-servername", NAME, "-cipher")
        self.assertEqual(s_client(port, *options, "ECDHE-ECDSA-AES128-GCM-SHA256", folder=self.folder).version, "")
        self.assertEqual(
            s_client(port, *options, "ECDHE-ECDSA-CHACHA20-POLY1305", folder=self.folder).version, "TLSv1.2"
        )
        _, port = self.secure(self.one())
        for weak in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "kRSA", "aNULL", "eNULL"):
            spoken = s_client(port, *options, f"{weak}:@SECLEVEL=0", folder=self.folder)
            self.assertEqual((spoken.version, spoken.alert), ("", "handshake failure"), weak)


class RoadTests(SecureCase):
    def test_a_hundred_megabytes(self) -> None:
        """A large body is the same at the other end, up and down."""
        content = b"".join(hashlib.sha256(b"%d" % number).digest() * 2048 for number in range(1600))
        (self.folder / "body").write_bytes(content)
        backend = self.backend(RecordingBackend([Forever(Answer(lambda head, body: response(body)))]))
        _, port = self.secure(backend.address)
        for version in VERSIONS:
            options = (f"--tlsv{version}", "--tls-max", version, "--data-binary", "@body", "-o", "got", "-H", "Expect:")
            self.curl(port, *options)
            got = (self.folder / "got").read_bytes()
            self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(content).digest())

    def test_plain_http_to_a_tls_port(self) -> None:
        """Somebody who forgets the s is refused, without an answer in the clear, and logged as handshake_failed."""
        balancer, port = self.secure(self.one())
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertNotIn(b"HTTP/1.1 200", client.rest())
        self.assertEqual([line["reason"] for line in self.settle(balancer, 1)], ["handshake_failed"])

    def test_end_is_said(self) -> None:
        """Our end is a close_notify and not just the end of the connection, whoever closes first."""
        _, port = self.secure(self.one())
        for version in VERSIONS:
            client = self.client(port, version=version)
            self.assertEqual(client.get("/", "Connection: close").body, b"one")
            self.assertEqual(client.rest(), b"")  # EOFError if it was not said
            client = self.client(port, version=version)
            self.assertEqual(client.get("/").body, b"one")
            client.finish()
            self.assertEqual(client.rest(), b"")

    def test_an_end_that_is_not_said(self) -> None:
        """A whole request whose client ends without close_notify, as many do, is answered (RFC 9112, 9.8)."""
        _, port = self.secure(self.one())
        for version in VERSIONS:
            client = self.client(port, version=version)
            client.send(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")
            client.secure.cut(socket.SHUT_WR)
            self.assertEqual(client.response().body, b"one")

    def test_hellos_without_end(self) -> None:
        """A ClientHello that says that it will be huge is refused at its first bytes, and the event log says why."""
        balancer, port = self.secure(self.one())
        with RawClient(port) as huge:
            huge.send(b"\x16\x03\x01\x40\x00\x01\x02\x00\x00")
            self.assertEqual(huge.rest(), b"")
        [line] = self.settle(balancer, 1)
        self.assertEqual((line["reason"], line["bytes_in"]), ("handshake_failed", 0))
        until(lambda: "connection.refused" in balancer.text, "told")
        self.assertIn("a ClientHello that is longer than it may be", balancer.text)

    def test_slow_handshakes(self) -> None:
        """A handshake is cut at the deadline, however it dawdles; who has said nothing at all is not logged."""
        balancer, port = self.secure(self.one(), listener={"timeouts": {"handshake": "1s"}})
        with RawClient(port) as silent:
            self.assertEqual(silent.rest(), b"")
        self.assertEqual(self.handshakes(balancer, "failure"), 0)
        with RawClient(port) as slow:
            slow.send(b"\x16\x03\x01\x02\x00\x01\x00")
            self.assertEqual(slow.rest(), b"")
        lines = self.settle(balancer, 1)
        self.assertEqual([line["reason"] for line in lines], ["handshake_failed"])
        self.assertEqual(self.handshakes(balancer, "failure"), 1)

    def test_half_open_ones_stop_nobody(self) -> None:
        """200 clients that began a handshake and say no more: others are served at once."""
        balancer, port = self.secure(self.one())
        for number in range(200):
            idle = RawClient(port)
            self.addCleanup(idle.sock.close)
            if number % 2:
                idle.send(b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03")
        until(lambda: balancer.metric("lbsvc_listener_connections") == 200, "two hundred")
        for version in VERSIONS:
            self.assertEqual(self.curl(port, f"--tlsv{version}", "--tls-max", version).stdout, b"one")

    def test_drain(self) -> None:
        """SIGTERM: a request under way over TLS is answered and told to close, idle ones hear close_notify."""
        gate = threading.Event()
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"done"))]))
        balancer, port = self.secure(backend.address)
        idle, opening = self.client(port), RawClient(port)
        self.addCleanup(opening.sock.close)
        opening.send(b"\x16\x03\x01")
        busy = self.client(port)
        busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        backend.wait_for(1)
        balancer.signal(signal.SIGTERM)
        self.assertEqual(idle.rest(), b"")
        gate.set()
        answer = busy.response()
        self.assertEqual((answer.body, answer.header("connection").lower()), (b"done", "close"))
        self.assertEqual(busy.rest(), b"")
        opening.sock.close()
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


class StreamTests(SecureCase):
    def test_half_close(self) -> None:
        """tcp over TLS: each side may end its direction and hear the other to its end, in both versions (TLS-1,
        A13)."""
        _, port = self.secure(self.backend(echo_backend()).address, protocol="tcp")
        for version in VERSIONS:
            client = self.client(port, version=version)
            client.send(b"x" * MIB)
            client.finish()
            self.assertEqual(len(client.rest()), MIB)

    def test_truncation_is_passed_on(self) -> None:
        """A client that ends without close_notify, as many do: what it has sent is delivered, and then the backend told."""
        seen = RecordingBackend()
        backend = self.backend(seen)
        _, port = self.secure(backend.address, protocol="tcp")
        client = self.client(port)
        client.send(b"half of")
        talk = backend.wait_for(1)[0]
        until(lambda: talk.received == b"half of", "received")
        client.secure.cut(socket.SHUT_WR)
        until(lambda: talk.ended, "ended")
        self.assertEqual(talk.ended, "eof")
