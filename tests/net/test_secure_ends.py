"""How the other side of a TLS connection ends: said or not, whole or half, found while somebody reads or not."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost

from lbsvc.net.closing import UnsaidEnd
from tests.net.reactors import HalfSide, Side
from tests.net.secured import SecureCase, narrow

RECORD = 16384


class Ends(SecureCase):
    """The tests for either side and version."""

    def test_orderly(self) -> None:
        """close_notify is the end, after the last byte: ConnectionDone; with or without FIN behind it."""
        for with_fin in (False, True):
            near, far = self.connect()
            far.write(b"last words")
            far.end()
            if with_fin:
                far.close()
            self.spin(lambda near=near: near.lost)
            self.assertEqual((near.received, near.lost), (b"last words", [ConnectionDone]))
            if not with_fin:
                self.assertEqual(far.read_to_end(), (b"", "close_notify"))

    def test_end_behind_a_full_record(self) -> None:
        """The same where the end is found in the event that reads the last bytes."""
        for size in (RECORD, 2 * RECORD, 3 * RECORD + 5, 4 * RECORD):
            near, far = self.connect()
            near.transport.pauseProducing()
            far.write_some(bytes(size))
            far.end()
            near.transport.resumeProducing()
            self.spin(lambda near=near: near.lost)
            self.assertEqual((len(near.received), near.lost), (size, [ConnectionDone]))

    def test_cut(self) -> None:
        """FIN without close_notify is a loss, since anybody on the way could have sent it; what came before it counts."""
        for size in (10, RECORD, 100_000):
            near, far = self.connect()
            far.write(bytes(size))
            far.close()
            self.spin(lambda near=near: near.lost)
            self.assertEqual((len(near.received), near.lost), (size, [UnsaidEnd]))

    def test_cut_of_halves(self) -> None:
        """It is no half-close either."""
        near, far = self.connect(HalfSide())
        far.write(b"half a")
        far.close()
        self.spin(lambda: near.lost)
        self.assertEqual((near.received, near.lost, near.ends), (b"half a", [UnsaidEnd], []))

    def test_cut_record(self) -> None:
        """A record of which only a part came before FIN is worth nothing, and the connection is lost."""
        near, far = self.connect()
        far.write(b"whole")
        far.skt.send(b"\x17\x03\x03\x00\x40half of it")
        far.close()
        self.spin(lambda: near.lost)
        self.assertEqual((near.received, near.lost), (b"whole", [UnsaidEnd]))

    def test_reset(self) -> None:
        """A reset is a loss."""
        near, far = self.connect()
        far.reset()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionLost])

    def test_end_while_paused(self) -> None:
        """Paused, nothing is told of an end; after the resume it is, once, and behind the bytes."""
        for size in (5, RECORD, 2 * RECORD):
            near, far = self.connect(HalfSide())

            def pause(data: bytes, near: Any = near, size: int = size) -> None:
                if len(near.received) == size:
                    near.transport.pauseProducing()

            near.on_data = pause
            near.transport.pauseProducing()
            far.write_some(bytes(size))
            far.end()
            self.turn(5)
            self.assertEqual((near.received, near.ends, near.lost), (b"", [], []))
            near.transport.resumeProducing()
            self.spin(lambda near=near, size=size: len(near.received) == size)
            self.turn(5)
            self.assertEqual((near.ends, near.lost), ([], []))
            near.transport.resumeProducing()
            near.transport.pauseProducing()
            self.turn(5)
            self.assertEqual((near.ends, near.lost), ([], []))
            near.transport.resumeProducing()
            near.transport.pauseProducing()
            near.transport.resumeProducing()
            self.spin(lambda near=near: near.ends)
            self.turn(5)
            self.assertEqual((near.ends, near.lost), (["read"], []))

    def test_loss_found_while_paused(self) -> None:
        """A cut that is found with the last bytes, by somebody who pauses at them, is told when he resumes."""
        near, far = self.connect()
        near.on_data = lambda data: near.transport.pauseProducing()
        near.transport.pauseProducing()
        far.write_some(bytes(RECORD))
        far.skt.shutdown(1)
        near.transport.resumeProducing()
        self.spin(lambda: near.received)
        self.turn(5)
        self.assertEqual(near.lost, [])
        near.transport.resumeProducing()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [UnsaidEnd])

    # -- halves

    def test_their_half(self) -> None:
        """They have finished; we go on, as long as we like, and they get it all and our end."""
        near, far = self.connect(HalfSide())
        narrow(near, far)
        far.write(b"question")
        far.end()
        self.spin(lambda: near.ends)
        self.assertEqual((near.received, near.ends, near.lost), (b"question", ["read"], []))
        answer = random.Random(8).randbytes(1_000_000)
        near.transport.write(answer)
        near.transport.loseConnection()
        self.assertEqual(far.read_to_end(), (answer, "close_notify"))
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_our_half(self) -> None:
        """We have finished: they read all, our end, and may go on; then comes theirs."""
        near, far = self.connect(HalfSide())
        narrow(near, far)
        question = random.Random(9).randbytes(1_000_000)
        near.transport.write(question)
        near.transport.loseWriteConnection()
        self.assertEqual(far.read_to_end(), (question, "close_notify"))
        self.spin(lambda: near.ends)
        self.assertEqual((near.ends, near.lost), (["write"], []))
        far.write(question)
        self.spin(lambda: len(near.received) == len(question))
        self.assertEqual(near.received, question)
        far.end()
        self.spin(lambda: len(near.ends) == 2)
        self.assertEqual(near.ends, ["write", "read"])
        near.transport.loseConnection()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_half_is_two_ends(self) -> None:
        """Our half-close is both: close_notify, for TLS, and then FIN."""
        near, far = self.connect(HalfSide())
        near.transport.loseWriteConnection()
        self.assertEqual(far.read_to_end(), (b"", "close_notify"))
        far.skt.setblocking(True)
        self.assertEqual(far.skt.recv(10), b"")

    def test_half_of_whom_nobody_asked(self) -> None:
        """A protocol that knows no halves is lost when the other side has finished, and says its end."""
        near, far = self.connect(Side())
        near.transport.write(b"answer")
        far.end()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])
        self.assertEqual(far.read(6), b"answer")


class ServerEndTests(Ends):
    """Accepted, TLS 1.3."""


class OldServerEndTests(Ends):
    """Accepted, TLS 1.2."""

    version = "TLSv1.2"


class ClientEndTests(Ends):
    """Dialled, TLS 1.3."""

    role = "client"


class OldClientEndTests(Ends):
    """Dialled, TLS 1.2."""

    role = "client"
    version = "TLSv1.2"


del Ends
