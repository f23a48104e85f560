"""TLS transports among others: piped to plain ones, on unix sockets, looked into before use; and sessions resumed."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.error import ConnectionDone

from lbsvc.net import secure
from lbsvc.net.arrival import seen_from
from lbsvc.net.client_tls import is_resumed
from lbsvc.net.peeking import peek
from lbsvc.net.secure import SecureClient, SecureServer, SecureUnixClient, SecureUnixServer
from tests.net.reactors import HalfSide, Side
from tests.net.secured import SecureCase, narrow
from tests.net.tls_pairs import VERSIONS, Server

RECORD = 16384


class Joined(SecureCase):
    """The tests for either side and version."""

    def test_pipe_out(self) -> None:
        """What a plain connection brings is written by TLS: all of it, in order, counted, whoever is slow."""
        near, far = self.connect()
        narrow(near, far)
        plain, raw = self.accepted()
        plain.transport.pipe_to(near.transport)
        blob = random.Random(14).randbytes(1_500_000)
        raw.setblocking(False)
        left, received = memoryview(blob), bytearray()
        while len(received) < len(blob):
            if left and near.transport.queued < 100_000:
                try:
                    left = left[raw.send(left[:50_000]) :]
                except BlockingIOError:
                    pass
            self.turn(1)
            received += far.read_some()
        self.assertEqual(received, blob)
        self.assertEqual((plain.transport.piped, plain.received), (len(blob), b""))

    def test_pipe_in(self) -> None:
        """What TLS brings is written plain; the end, which no pipe takes, is told to the protocol."""
        near, far = self.connect(HalfSide())
        plain, raw = self.accepted()
        near.transport.pipe_to(plain.transport)
        blob = random.Random(15).randbytes(1_500_000)
        raw.setblocking(False)
        left, received = memoryview(blob), bytearray()
        while len(received) < len(blob):
            left = left[far.write_some(left[:50_000]) :]  # type: ignore[arg-type]
            self.turn(1)
            try:
                received += raw.recv(1 << 16)
            except BlockingIOError:
                pass
        self.assertEqual(received, blob)
        self.assertEqual((near.transport.piped, near.received), (len(blob), b""))
        far.end()
        self.spin(lambda: near.ends)

    def test_pipe_of_two(self) -> None:
        """From TLS to TLS, both ways at once, until one has had enough of it."""
        one, left = self.connect()
        other, right = self.connect()
        one.transport.pipe_to(other.transport)
        other.transport.pipe_to(one.transport)
        for size in (1, RECORD, 3 * RECORD + 7, 50_000):
            there, back = (random.Random(size + n).randbytes(size) for n in range(2))
            left.write(there)
            right.write(back)
            self.assertEqual((right.read(size), left.read(size)), (there, back))
        one.transport.pipe_to(None)
        left.write(b"for you")
        self.spin(lambda: one.received == b"for you")

    def test_pipe_to_the_dead(self) -> None:
        """A pipe to somebody who has gone raises nothing and loses nobody else."""
        one, left = self.connect()
        other, right = self.connect()
        one.transport.pipe_to(other.transport)
        other.transport.pauseProducing()
        right.reset()
        for _ in range(5):
            left.write(b"anybody?")
            self.turn(2)
        self.spin(lambda: other.lost)
        self.assertEqual(one.lost, [])

    # -- peek

    def test_peek(self) -> None:
        """Nothing, bytes, an end, a reset: each is told without being taken, and bytes are read all the same, once."""
        near, far = self.connect()
        self.turn(3)
        self.assertIsNone(peek(near.transport))
        near.transport.pauseProducing()
        far.write(b"bytes")
        self.spin(lambda: peek(near.transport) == b"b")
        self.assertEqual(peek(near.transport), b"b")
        self.turn(3)
        self.assertEqual(near.received, b"")
        near.transport.resumeProducing()
        self.spin(lambda: near.received)
        self.turn(3)
        self.assertEqual(near.received, b"bytes")

    def test_peek_while_reading(self) -> None:
        """Bytes that a peek has taken out of the kernel are read in the next turn, by a pipe as by a protocol."""
        near, far = self.connect()
        self.turn(3)
        far.write(b"bytes")
        self.assertEqual((peek(near.transport), near.received), (b"b", b""))
        self.turn(1)
        self.assertEqual(near.received, b"bytes")
        plain, raw = self.accepted()
        near.transport.pipe_to(plain.transport)
        far.write(b"more")
        self.assertEqual(peek(near.transport), b"m")
        self.turn(2)
        self.assertEqual(raw.recv(10), b"more")

    def test_peek_at_an_end(self) -> None:
        """An end that was said, one that was not, a reset: empty, and told in its time."""
        for end in ("end", "close", "reset"):
            near, far = self.connect()
            self.turn(3)
            near.transport.pauseProducing()
            getattr(far, end)()
            self.spin(lambda near=near: peek(near.transport) == b"" or near.lost)
            self.assertEqual(peek(near.transport), b"")
            near.transport.resumeProducing()
            self.spin(lambda near=near: near.lost)
            self.assertEqual(peek(near.transport), b"")

    def test_peek_and_fault(self) -> None:
        """A protocol that raises at what was peeked at is lost as if the reactor had read it."""
        near, far = self.connect()
        self.turn(3)
        near.on_data = lambda data: 1 / 0
        far.write(b"boom")
        self.assertEqual(peek(near.transport), b"b")
        self.spin(lambda: near.lost)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # -- unix sockets

    def test_unix(self) -> None:
        """TLS on a unix socket is carried as on any other."""
        if self.role == "server":
            self.serve_unix()
        else:
            self.backend(path=self.make_path())
        near, far = self.connect()
        self.assertIsInstance(near.transport, SecureUnixServer if self.role == "server" else SecureUnixClient)
        blob = random.Random(16).randbytes(500_000)
        near.transport.write(blob)
        self.assertEqual(far.read(len(blob)), blob)
        far.write(blob)
        self.spin(lambda: len(near.received) == len(blob))
        self.assertEqual(near.received, blob)
        self.assertFalse(near.transport.getTcpNoDelay())
        near.transport.loseConnection()
        self.assertEqual(far.read_to_end(), (b"", "close_notify"))

    # -- what it is

    def test_addresses(self) -> None:
        """Addresses, no delay, and what a PROXY header would say, are those of the socket below."""
        near, far = self.connect()
        transport = near.transport
        self.assertIsInstance(transport, SecureServer if self.role == "server" else SecureClient)
        self.assertEqual((transport.getHost().host, transport.getHost().port), far.skt.getpeername())
        self.assertEqual((transport.getPeer().host, transport.getPeer().port), far.skt.getsockname())
        self.assertTrue(transport.getTcpNoDelay())
        self.assertEqual(seen_from(transport, "127.0.0.1", None).destination, far.skt.getpeername())
        self.assertIn("127.0.0.1" if self.role == "client" else "Welcomed", repr(transport) + transport.logPrefix())

    def test_no_tls_within(self) -> None:
        """TLS within TLS is refused."""
        near, _ = self.connect()
        self.assertRaises(NotImplementedError, near.transport.startTLS, None)


class ServerJoinedTests(Joined):
    """Accepted, TLS 1.3."""


class OldServerJoinedTests(Joined):
    """Accepted, TLS 1.2."""

    version = "TLSv1.2"


class ClientJoinedTests(Joined):
    """Dialled, TLS 1.3."""

    role = "client"


class OldClientJoinedTests(Joined):
    """Dialled, TLS 1.2."""

    role = "client"
    version = "TLSv1.2"


class ResumptionTests(SecureCase):
    """Sessions from one dial to the next."""

    role = "client"

    def meet(self, words: Any) -> tuple[Any, Any]:
        near = Side()
        self.dial(near, words)
        far = self.answer().shake()
        self.spin(lambda: near.made)
        return near, far

    def test_resumed(self) -> None:
        """The second connection resumes the first one's session, in both versions, whoever has ended the first."""
        for version in VERSIONS.values():
            for is_ours in (True, False):
                self.backend(Server(self.leaf, version))
                words = self.words()
                near, far = self.meet(words)
                self.assertFalse(is_resumed(near.transport._tls))
                far.write(b"hello")  # and the tickets of TLS 1.3 before it
                self.spin(lambda near=near: near.received == b"hello")
                if is_ours:
                    near.transport.loseConnection()
                else:
                    far.end()
                self.spin(lambda near=near: near.lost)
                self.assertEqual(near.lost, [ConnectionDone])
                near, far = self.meet(words)
                self.assertTrue(is_resumed(near.transport._tls))
                far.write(b"again")
                self.spin(lambda near=near: near.received == b"again")

    def test_aborted(self) -> None:
        """Cutting a connection is no reason to forget its session."""
        self.backend()
        words = self.words()
        near, far = self.meet(words)
        far.write(b"hello")
        self.spin(lambda: near.received)
        near.transport.abortConnection()
        self.spin(lambda: near.lost)
        near, _ = self.meet(words)
        self.assertTrue(is_resumed(near.transport._tls))

    def test_broken(self) -> None:
        """A connection whose TLS has failed leaves no session behind."""
        self.backend()
        words = self.words()
        near, far = self.meet(words)
        far.write(b"hello")
        self.spin(lambda: near.received)
        far.skt.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.spin(lambda: near.lost)
        near, _ = self.meet(words)
        self.assertFalse(is_resumed(near.transport._tls))

    def test_unread_tickets_are_no_end(self) -> None:
        """A kept connection on which tickets wait has not ended; one with tickets and an end behind them has."""
        self.backend()
        near = Side()
        near.on_made = lambda: near.transport.pauseProducing()
        self.dial(near)
        far = self.answer().shake()
        self.spin(lambda: near.made)
        self.assertIsNone(peek(near.transport))
        far.end()
        self.spin(lambda: peek(near.transport) == b"")
        self.assertEqual(near.lost, [])

    def test_tickets_without_end(self) -> None:
        """A peek looks behind so many tickets and no more; whoever sends that many is not well."""
        self.assertLess(secure.PEEKS, 100)
        self.backend()
        near = Side()
        self.dial(near)
        far = self.answer().shake()
        self.spin(lambda: near.made)
        self.patch(secure, "PEEKS", 1)
        near.transport.pauseProducing()
        self.assertIn(peek(near.transport), (None, b""))
        far.write(b"well")
        near.transport.resumeProducing()
        self.spin(lambda: near.received == b"well")


del Joined
