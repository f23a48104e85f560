"""Hostile and unusual peers of TLS transports: key updates, renegotiation, records that are none; what others feel of it."""

from __future__ import annotations

import array
import fcntl
import random
import termios
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.error import ConnectionDone, ConnectionLost

from lbsvc.net import opening
from tests.net.reactors import HalfSide, Side
from tests.net.secured import SecureCase, narrow
from tests.net.system_tls import SystemSide


def unread(near: Any) -> int:
    """Bytes that wait in the kernel for our end."""
    found = array.array("i", [0])
    fcntl.ioctl(near.transport.fileno(), termios.FIONREAD, found)
    return found[0]


def spoil() -> None:
    """Leave an error in OpenSSL's queue, as a lookup in vain may."""
    assert SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    lib.ERR_put_error(11, 0, 101, b"", 0)
    assert lib.ERR_peek_error()


class KeyUpdates(SecureCase):
    """The tests for either side; TLS 1.3 only."""

    def connect_system(self, near: Any) -> tuple[Any, SystemSide]:
        """As `connect`, with a far side that updates its keys."""
        if self.role == "server":
            self.serve()
            self.next.append(near)
            far = SystemSide(self, self.reach())
        else:
            files = self.leaf.write(self.folder)
            self.backend()
            self.dial(near)
            skt, _ = self.listening.accept()
            skt.setblocking(False)
            self.ends.append(skt)
            far = SystemSide(self, skt, files)
        far.shake()
        self.spin(lambda: near.made or self.failures)
        self.assertEqual(self.failures, [])
        return near, far

    def test_updates(self) -> None:
        """Keys may change at any time, both ways, also many times; nothing is lost."""
        near, far = self.connect_system(Side())
        dice = random.Random(12)
        for number in range(50):
            content = dice.randbytes(dice.choice((1, 1000, 40_000)))
            near.received.clear()
            far.update(asks=bool(number % 3))
            far.write(content)
            self.spin(lambda content=content: len(near.received) == len(content))
            self.assertEqual(near.received, content)
            near.transport.write(content)
            self.assertEqual(far.read(len(content)), content)

    def test_update_while_we_write(self) -> None:
        """A key update that wants an answer, while what we write is stuck in the middle of a record, spoils neither."""
        near, far = self.connect_system(Side())
        narrow(near, far)  # type: ignore[arg-type]
        dice = random.Random(13)
        for number in range(1, 10):
            blob = dice.randbytes(dice.randrange(300_000, 500_000))
            near.transport.write(blob)
            self.turn(dice.randrange(4))
            far.update(asks=True)
            far.write(b"x")
            self.turn(dice.randrange(20))
            far.write(b"y")
            self.assertEqual(far.read(len(blob)), blob)
            self.spin(lambda number=number: near.received == b"xy" * number)
        near.transport.write(b"and on")
        self.assertEqual(far.read(6), b"and on")

    def test_many_updates_while_we_write(self) -> None:
        """Nor do several, before any of them is answered: OpenSSL by itself would fail to write the second answer."""
        near, far = self.connect_system(Side())
        narrow(near, far)  # type: ignore[arg-type]
        dice = random.Random(14)
        for _ in range(25):
            near.received.clear()
            blob = dice.randbytes(dice.randrange(300_000, 500_000))
            near.transport.write(blob)
            self.turn(dice.randrange(4))
            sent = 0
            for _ in range(5):
                far.update(asks=True)
                for _ in range(dice.randrange(1, 5)):
                    far.write(b"x")
                    sent += 1
                    self.turn(dice.randrange(3))
            self.assertEqual(far.read(len(blob)), blob)
            self.spin(lambda sent=sent: len(near.received) == sent)

    def test_update_with_nothing_to_say(self) -> None:
        """With no room in the kernel an update is taken nevertheless, and what comes behind it, without spinning."""
        near, far = self.connect_system(Side())
        try:
            while True:
                near.transport.socket.send(bytes(4096))
        except BlockingIOError:
            pass
        far.update(asks=True)
        far.write(b"behind")
        self.spin(lambda: near.received == b"behind")
        reads: list[int] = []
        do_read = near.transport.doRead
        near.transport.doRead = lambda: (reads.append(0), do_read())[1]
        self.turn(50)
        self.assertEqual(reads, [])

    def test_update_behind_our_end(self) -> None:
        """Who has half-closed, and can answer no update, reads on behind it."""
        near, far = self.connect_system(HalfSide())
        near.transport.loseWriteConnection()
        self.assertTrue(far.is_ended())
        far.update(asks=True)
        far.write(b"late answer")
        self.spin(lambda: near.received == b"late answer")
        far.end()
        self.spin(lambda: "read" in near.ends)
        near.transport.loseConnection()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_flood(self) -> None:
        """Whoever sends key updates without end is handled one at a time: others have their turns between."""
        near, far = self.connect_system(Side())
        other, friend = self.connect(Side())
        near.transport.pauseProducing()
        while unread(near) < 20_000 and far.update(asks=False):
            pass
        before = unread(near)
        friend.write(b"and I?")
        near.transport.resumeProducing()
        self.spin(lambda: other.received == b"and I?")
        self.assertGreater(unread(near), before // 2)
        far.write(b"done")
        self.spin(lambda: near.received == b"done")


class ServerKeyUpdateTests(KeyUpdates):
    """Accepted."""


class ClientKeyUpdateTests(KeyUpdates):
    """Dialled."""

    role = "client"


class Attacks(SecureCase):
    """The tests for either side and version."""

    def assert_well(self, near: Any, far: Any) -> None:
        """Both ways."""
        near.received.clear()
        far.write(b"ping")
        self.spin(lambda: near.received == b"ping")
        near.transport.write(b"pong")
        self.assertEqual(far.read(4), b"pong")

    def test_not_a_record(self) -> None:
        """Bytes that are no record of this connection lose it, with an alert; others on the thread feel nothing."""
        bystander, friend = self.connect()
        for junk in (
            b"\x17\x03\x03\x00\x20" + bytes(32),
            b"\x17\x03\x03\xff\xff" + bytes(100),
            b"\x17\x03\x03\x00\x00",
            b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            bytes(64),
        ):
            near, far = self.connect()
            far.write(b"before")
            friend.write(b"beside")
            far.skt.send(junk)
            self.spin(lambda near=near: near.lost)
            self.assertEqual((near.received, near.lost), (b"before", [ConnectionLost]))
            self.spin(lambda: bystander.received == b"beside")
            self.assert_well(bystander, friend)
            bystander.received.clear()
            _, how = far.read_to_end()
            self.assertIn("alert", how)

    def test_spoilt_while_we_write(self) -> None:
        """The same while our bytes wait for it: what it has not got it never gets, and nothing is raised."""
        near, far = self.connect()
        narrow(near, far)
        near.transport.write(bytes(2_000_000))
        far.skt.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionLost])

    def test_tickets_while_we_write(self) -> None:
        """Session tickets that come while what we write is stuck do not keep us from reading what is behind them."""
        if self.role == "server":
            near, far = self.connect()
        else:
            near = Side()
            near.on_made = lambda: (narrow(near, far), near.transport.write(bytes(3_000_000)))
            self.backend()
            self.dial(near)
            far = self.answer()
            far.shake()
        far.write(b"no more of that")
        self.spin(lambda: near.received == b"no more of that")
        if self.role == "client":
            self.assertGreater(near.transport.queued, 0)

    def test_write_behind_a_fault(self) -> None:
        """A paused connection that was spoilt finds it out by itself when it reads; writing before that does no harm."""
        near, far = self.connect()
        near.transport.pauseProducing()
        far.skt.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        near.transport.write(b"still well")
        self.assertEqual(far.read(10), b"still well")
        near.transport.resumeProducing()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionLost])

    def test_fault_behind_a_full_record(self) -> None:
        """What was whole before the fault is delivered; then comes the loss."""
        near, far = self.connect()
        near.transport.pauseProducing()
        far.write_some(bytes(16384))
        far.skt.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        near.transport.resumeProducing()
        self.spin(lambda: near.lost)
        self.assertEqual((len(near.received), near.lost), (16384, [ConnectionLost]))

    def test_stale_errors(self) -> None:
        """What a handshake has left in OpenSSL's error queue is not taken for a failure of the connection."""
        if self.role == "server":
            facts = opening.arrival_facts
            self.patch(opening, "arrival_facts", lambda tls: (facts(tls), spoil())[0])
            near, far = self.connect()
        else:
            self.backend()
            words, near = self.words(), Side()
            verify = words.verify
            words.verify = lambda tls: (verify(tls), spoil())[1]  # type: ignore[method-assign]
            self.dial(near, words)
            far = self.answer().shake()
            self.spin(lambda: near.made)
        self.turn(5)
        self.assert_well(near, far)


class Renegotiation(SecureCase):
    """TLS 1.2 only."""

    version = "TLSv1.2"

    def test_refused(self) -> None:
        """A peer that asks for another handshake is told no, as often as it asks; the first one stays, and its keys."""
        near, far = self.connect()
        secret = near.transport._tls.master_key()
        for _ in range(3):
            far.tls.renegotiate()
            try:
                far.tls.do_handshake()
            except (SSL.WantReadError, SSL.Error):
                pass
            self.turn(5)
            try:
                far.read_some()
            except SSL.Error as error:
                self.assertIn("no renegotiation", str(error))
                break
        if not near.lost:
            self.assertEqual(near.transport._tls.master_key(), secret)
        other, friend = self.connect()
        friend.write(b"fine")
        self.spin(lambda: other.received == b"fine")


class ServerRenegotiationTests(Renegotiation):
    """Accepted."""


class ClientRenegotiationTests(Renegotiation):
    """Dialled."""

    role = "client"


class ServerAttackTests(Attacks):
    """Accepted, TLS 1.3."""


class OldServerAttackTests(Attacks):
    """Accepted, TLS 1.2."""

    version = "TLSv1.2"


class ClientAttackTests(Attacks):
    """Dialled, TLS 1.3."""

    role = "client"


class OldClientAttackTests(Attacks):
    """Dialled, TLS 1.2."""

    role = "client"
    version = "TLSv1.2"


del KeyUpdates, Attacks, Renegotiation
