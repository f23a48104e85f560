"""Dials with TLS: who is there is certain before anybody hears of it; each dial ends once, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
from typing import Any

from OpenSSL import SSL

from lbsvc.core.backend import Outcome
from lbsvc.net.client_tls import is_resumed
from lbsvc.net.connector import dial
from lbsvc.net.handshaking import ClientHandshake
from lbsvc.net.proxyproto_writing import write_v1
from lbsvc.net.secure import SecureClient
from tests.kit.authority import Authority
from tests.net.reactors import PATIENCE, Side
from tests.net.secured import FarSide, SecureCase
from tests.net.tls_pairs import VERSIONS, Server

HEADER = write_v1(("192.0.2.7", 4321), ("198.51.100.1", 443))


class DiallingTests(SecureCase):
    """A backend is there, in some way, and is dialled."""

    role = "client"

    def setUp(self) -> None:
        super().setUp()
        self.watched = len(self.reactor._selectables)

    def answer_plain(self) -> socket.socket:
        """The backend's socket, on which nobody speaks TLS."""
        far, _ = self.listening.accept()
        self.ends.append(far)
        far.setblocking(False)
        return far

    def assert_failed(self, near: Side, outcome: Outcome, words: str) -> None:
        """Told so, once; the protocol has heard nothing, and nothing is left."""
        self.spin(lambda: self.failures)
        self.turn(5)
        ((found, detail),) = self.failures
        self.assertEqual(found, outcome)
        self.assertIn(words, detail)
        self.assertEqual((near.made, near.lost), (False, []))
        self.assert_nothing_left()
        self.failures.clear()

    def assert_nothing_left(self) -> None:
        self.assertEqual(len(self.reactor._selectables), self.watched)
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])

    def assert_ended(self, far: socket.socket) -> None:
        """Our end is closed."""

        def is_ended() -> bool:
            try:
                return far.recv(65536) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        self.spin(is_ended)

    def test_verified(self) -> None:
        """A backend that is who it should be: connected once, by a transport that speaks TLS; no timer is left."""
        for version in VERSIONS.values():
            self.backend(Server(self.leaf, version))
            near = Side()
            self.dial(near)
            self.assertFalse(near.made)
            far = self.answer().shake()
            self.spin(lambda near=near: near.made)
            self.assertIsInstance(near.transport, SecureClient)
            self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])
            near.transport.write(b"ping")
            self.assertEqual(far.read(4), b"ping")
            near.transport.abortConnection()
            self.spin(lambda near=near: near.lost)
            self.assertEqual(self.failures, [])
            self.assert_nothing_left()

    def test_unverified(self) -> None:
        """Anybody else: TLS_VERIFY, in words, and not a byte of ours is sent to him, nor heard of him."""
        stranger = Authority("another CA")
        for leaf, words in (
            (self.authority.issue("127.0.0.2"), "not one for 127.0.0.1"),
            (self.authority.issue("127.0.0.1", san=False), "subjectAltName"),
            (self.authority.issue("127.0.0.1", days=-1), "expired"),
            (stranger.issue("127.0.0.1"), "certificate verify failed"),
        ):
            for version in VERSIONS.values():
                self.backend(Server(leaf, version))
                near = Side()
                near.on_made = lambda near=near: near.transport.write(b"secret")  # type: ignore[misc]
                self.dial(near, header=b"")
                far = self.answer()
                try:
                    far.shake()
                    self.assertEqual(far.read_to_end()[0], b"")
                except SSL.Error:
                    pass
                self.assert_failed(near, Outcome.TLS_VERIFY, words)

    def test_unverified_on_purpose(self) -> None:
        """`verify: false` takes whoever is there."""
        self.backend(Server(Authority("another CA").issue("elsewhere.example")))
        near = Side()
        self.dial(near, self.words(verify=False, ca=None))
        self.answer().shake()
        self.spin(lambda: near.made)

    def test_header_first(self) -> None:
        """The PROXY header is in the clear, and before the first byte of TLS; also to a unix socket."""
        for path in (None, self.make_path()):
            self.backend(path=path)
            near = Side()
            self.dial(near, self.words(server_name="a.example"), header=HEADER)
            far = self.answer_plain()
            self.spin(lambda far=far: self.peeked(far) > len(HEADER) + 5)
            self.assertEqual(far.recv(len(HEADER)), HEADER)
            self.assertEqual(far.recv(1, socket.MSG_PEEK), b"\x16")
            link = SSL.Connection(self.server.openssl, far)
            link.set_accept_state()
            FarSide(self, far, link).shake()
            self.spin(lambda near=near: near.made)

    @staticmethod
    def peeked(far: socket.socket) -> int:
        try:
            return len(far.recv(65536, socket.MSG_PEEK))
        except BlockingIOError:
            return 0

    def test_header_without_tls(self) -> None:
        """Without TLS the header is the first that a backend hears, before what connectionMade writes."""
        self.backend()
        near = Side()
        near.on_made = lambda: near.transport.write(b"GET /")
        host, port = self.listening.getsockname()
        dial(self.reactor, host, port, near, PATIENCE, lambda *failure: self.failures.append(failure), None, HEADER)
        far = self.answer_plain()
        self.spin(lambda: self.peeked(far) == len(HEADER) + 5)
        self.assertEqual(far.recv(1000), HEADER + b"GET /")
        self.assertEqual(self.failures, [])

    def test_header_that_does_not_fit(self) -> None:
        """A socket that does not take the header at once is no use: the dial fails, and the socket is closed."""
        near, _ = self.sockets()
        failures: list[Any] = []
        self.backend()
        handshake = ClientHandshake(
            self.reactor,
            near,
            ("127.0.0.1", 1),
            Side(),
            self.words(),
            lambda transport: self.fail("connected"),
            lambda outcome, detail: failures.append((outcome, detail)),
        )
        try:
            while True:
                near.send(bytes(65536))
        except BlockingIOError:
            pass
        handshake.begin(HEADER)
        self.assertEqual([outcome for outcome, _ in failures], [Outcome.CONNECT_FAILED])
        self.assertEqual(near.fileno(), -1)

    def test_not_tls(self) -> None:
        """A backend that speaks something else is a failed connect, with a hint."""
        self.backend()
        near = Side()
        self.dial(near)
        far = self.answer_plain()
        far.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assert_failed(near, Outcome.CONNECT_FAILED, "is it a TLS server?")
        self.assert_ended(far)

    def test_gone(self) -> None:
        """One that goes in the middle, in order or by a reset, is a failed connect."""
        for is_reset in (False, True):
            for has_begun in (False, True):
                self.backend(Server(self.leaf, VERSIONS["TLSv1.2"]))  # whose first flight is not the last
                near = Side()
                self.dial(near)
                far = self.answer()
                if has_begun:
                    self.turn(3)
                    self.assertRaises(SSL.WantReadError, far.tls.do_handshake)
                if is_reset:
                    far.reset()
                else:
                    far.skt.close()
                self.assert_failed(near, Outcome.CONNECT_FAILED, "TLS: ")

    def test_refused_by_alert(self) -> None:
        """One that wants another version says so, and we say it on."""
        server = Server(self.leaf)
        context = server.openssl = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_cipher_list(b"AES128-SHA")
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_TLSv1_2)
        self.backend(server)
        near = Side()
        self.dial(near)
        with self.assertRaises(SSL.Error):
            self.answer().shake()
        self.assert_failed(near, Outcome.CONNECT_FAILED, "the backend refuses: ")

    def test_time(self) -> None:
        """One that accepts and says nothing is cut when the dial's time is over: CONNECT_TIMEOUT."""
        for header in (b"", HEADER):
            self.backend()
            near = Side()
            self.dial(near, header=header, timeout=0.05)
            far = self.answer_plain()
            self.assert_failed(near, Outcome.CONNECT_TIMEOUT, "timed out")
            self.assert_ended(far)

    def test_time_on_unix(self) -> None:
        """On a unix socket too, also where its queue is full."""
        self.backend(path=self.make_path())
        near = Side()
        self.dial(near, timeout=0.05)
        far = self.answer_plain()
        self.assert_failed(near, Outcome.CONNECT_TIMEOUT, "timed out")
        self.assert_ended(far)
        self.listening.listen(0)
        crowd = []
        for _ in range(10):
            crowd.append(socket.socket(socket.AF_UNIX))
            self.ends.append(crowd[-1])
            crowd[-1].setblocking(False)
            try:
                crowd[-1].connect(self.listening.getsockname())
            except BlockingIOError:
                break
        self.dial(near, timeout=0.05)
        self.assert_failed(near, Outcome.CONNECT_TIMEOUT, "timed out")

    def test_nobody(self) -> None:
        """Where nobody listens there is no handshake to wait for."""
        self.backend()
        host, port = self.listening.getsockname()
        self.listening.close()
        near = Side()
        dial(self.reactor, host, port, near, PATIENCE, lambda *failure: self.failures.append(failure), self.words())
        self.assert_failed(near, Outcome.CONNECT_FAILED, "connection refused")
        path = self.make_path()
        self.backend(path=path)
        os.unlink(path)
        near = Side()
        self.dial(near)
        self.assert_failed(near, Outcome.CONNECT_FAILED, "no such socket")

    def test_cancelled(self) -> None:
        """After `cancel` nobody is told anything, whenever it comes; twice is as good as once."""
        for turns in (0, 1, 5):
            self.backend()
            near = Side()
            dialling = self.dial(near)
            far = self.answer()
            for _ in range(turns):
                self.turn(1)
                try:
                    far.tls.do_handshake()
                except SSL.WantReadError:
                    pass
                if near.made:
                    break
            if not near.made:
                dialling.cancel()
                dialling.cancel()
                self.turn(5)
                self.assertEqual((near.made, near.lost), (False, []))
                self.assert_ended(far.skt)
                self.assert_nothing_left()
            else:
                dialling.cancel()
                self.turn(5)
                self.assertEqual(near.lost, [])
                near.transport.abortConnection()
                self.spin(lambda near=near: near.lost)
            self.assertEqual(self.failures, [])

    def test_reactor_stops(self) -> None:
        """A handshake under way when all is disconnected has failed."""
        self.backend()
        near = Side()
        self.dial(near)
        self.answer_plain()
        self.reactor.disconnectAll()
        self.assert_failed(near, Outcome.CONNECT_FAILED, "the connection was lost in the handshake")

    def test_faults(self) -> None:
        """A protocol that raises in connectionMade loses its connection; the dial has not failed."""
        self.backend()
        near = Side()
        near.on_made = lambda: 1 / 0
        self.dial(near)
        try:
            self.answer().shake()
        except SSL.Error:
            pass
        self.spin(lambda: near.lost)
        self.assertEqual((near.lost, self.failures), ([ZeroDivisionError], []))
        self.assert_nothing_left()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_faulty_failed(self) -> None:
        """A callable that raises when it is told of a failure costs nobody else anything."""
        self.backend()

        class Faulty(list[Any]):
            def append(self, failure: Any) -> None:
                super().append(failure)
                raise ZeroDivisionError

        self.failures = Faulty()
        self.dial(Side())
        self.answer_plain().send(b"no TLS at all\r\n")
        self.spin(lambda: self.failures)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_nothing_left()

    def test_spoilt_session(self) -> None:
        """A session that is offered, and with which the handshake fails, is not offered again."""
        self.backend()
        words = self.words()
        near = Side()
        self.dial(near, words)
        far = self.answer().shake()
        far.write(b"hello")
        self.spin(lambda: near.received)
        near.transport.loseConnection()
        self.spin(lambda: near.lost)
        near = Side()
        self.dial(near, words)
        self.answer_plain().send(b"no TLS any more\r\n")
        self.assert_failed(near, Outcome.CONNECT_FAILED, "TLS: ")
        self.dial(near, words)
        self.answer().shake()
        self.spin(lambda: near.made)
        self.assertFalse(is_resumed(near.transport._tls))
