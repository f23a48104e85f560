"""How we end TLS connections: flushed, said, half or whole, cut; from the beginning, and at the wrong time."""

from __future__ import annotations

import random
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from lbsvc.net import secure
from tests.net.reactors import HalfSide, Side
from tests.net.secured import SecureCase, narrow

RECORD = 16384


class Closing(SecureCase):
    """The tests for either side and version."""

    def fill(self, near: Any) -> None:
        """The kernel takes no byte more of what ours sends, and OpenSSL does not know it."""
        try:
            while True:
                near.transport.socket.send(bytes(4096))
        except BlockingIOError:
            pass

    def test_flushed(self) -> None:
        """loseConnection sends what is queued, says the end, and closes."""
        near, far = self.connect()
        narrow(near, far)
        blob = random.Random(10).randbytes(2_000_000)
        near.transport.write(blob)
        near.transport.loseConnection()
        self.assertEqual(far.read_to_end(999), (blob, "close_notify"))
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_flushed_and_said(self) -> None:
        """However full the kernel is after the last byte, the end is said: an honest end never looks like a cut."""
        dice = random.Random(11)
        for _ in range(20):
            near, far = self.connect()
            narrow(near, far)
            size = dice.randrange(100_000, 300_000)
            near.transport.write(bytes(size))
            near.transport.loseConnection()
            content, how = far.read_to_end(dice.choice((500, 5000, RECORD)))
            self.assertEqual((len(content), how), (size, "close_notify"))

    def test_end_waits_for_room(self) -> None:
        """With no room for close_notify a close waits for some, END_PATIENCE at most, and does not spin meanwhile."""
        near, far = self.connect()
        narrow(near, far)
        self.fill(near)
        writes: list[int] = []
        do_write = near.transport.doWrite
        near.transport.doWrite = lambda: (writes.append(0), do_write())[1]
        near.transport.loseConnection()
        self.turn(50)
        self.assertEqual((near.lost, len(writes) < 10), ([], True))
        (timer,) = (each for each in self.reactor.getDelayedCalls() if each.func == near.transport._end_unsaid)
        self.assertLessEqual(timer.getTime(), self.reactor.seconds() + secure.END_PATIENCE)
        timer.reset(0)
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_room_for_the_end(self) -> None:
        """When there is room again the end is said, and no timer is left."""
        near, far = self.connect()
        far.write(b"!")
        self.spin(lambda: near.received)  # and what came before it: to close on unread tickets would be a reset
        narrow(near, far)
        self.fill(near)
        near.transport.loseConnection()
        self.turn(5)
        self.assertEqual(near.lost, [])
        raw = bytearray()

        def read() -> bool:
            try:
                raw.extend(far.skt.recv(1 << 16))
            except BlockingIOError:
                pass
            return bool(near.lost)

        self.spin(read)
        self.assertEqual(near.lost, [ConnectionDone])
        raw += self.read_all(far.skt)
        behind = raw.rpartition(bytes(64))[2]
        self.assertEqual(behind[:1], b"\x17" if self.version == "TLSv1.3" else b"\x15")  # 1.3 hides that it is an alert
        self.assertEqual([each for each in self.reactor.getDelayedCalls() if near.transport is each.func.__self__], [])

    def test_room_for_half_an_end(self) -> None:
        """FIN never goes before close_notify: a half-close waits for room, too; a close meanwhile waits with it."""
        for is_closed in (False, True):
            near, far = self.connect(HalfSide())
            far.write(b"!")
            self.spin(lambda near=near: near.received)
            narrow(near, far)
            self.fill(near)
            near.transport.loseWriteConnection()
            self.turn(5)
            self.assertEqual((near.ends, near.lost), ([], []))
            if is_closed:
                near.transport.loseConnection()
                self.turn(5)
                self.assertEqual(near.lost, [])
            raw = bytearray()

            def read(near: Any = near, far: Any = far, raw: bytearray = raw) -> bool:
                try:
                    raw.extend(far.skt.recv(1 << 16))
                except BlockingIOError:
                    pass
                return bool(near.lost or near.ends)

            self.spin(read)
            self.assertEqual((near.ends, near.lost), ([], [ConnectionDone]) if is_closed else (["write"], []))
            raw += self.read_all(far.skt)
            self.assertIn(raw.rpartition(bytes(64))[2][:1], (b"\x17", b"\x15"))

    def test_abort(self) -> None:
        """abortConnection sends nothing more: a reset, no close_notify, and the queue is dropped."""
        near, far = self.connect()
        narrow(near, far)
        near.transport.write(bytes(2_000_000))
        near.transport.abortConnection()
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionAborted])
        self.assertEqual(far.read_to_end()[1], "reset")

    def test_abort_while_closing(self) -> None:
        """A close that waits, for a reader or for room, can be cut."""
        for is_full in (False, True):
            near, far = self.connect()
            narrow(near, far)
            if is_full:
                self.fill(near)
            else:
                near.transport.write(bytes(2_000_000))
            near.transport.loseConnection()
            self.turn(5)
            near.transport.abortConnection()
            self.spin(lambda near=near: near.lost)
            self.assertEqual(near.lost, [ConnectionAborted])

    def test_withheld(self) -> None:
        """Who passes on an end that was not said does not say it either."""
        near, far = self.connect()
        far.write(b"!")
        self.spin(lambda: near.received)
        near.transport.write(b"as far as it came")
        near.transport.withhold_end()
        near.transport.loseConnection()
        self.assertEqual(far.read_to_end(), (b"as far as it came", "cut"))
        self.spin(lambda: near.lost)

    def test_close_from_the_beginning(self) -> None:
        """A connection may be closed in connectionMade: what was written there is read, and the end."""
        near = Side()
        near.on_made = lambda: (near.transport.write(b"go away"), near.transport.loseConnection())
        _, far = self.connect(near)
        self.assertEqual(far.read_to_end(), (b"go away", "close_notify"))
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_abort_from_the_beginning(self) -> None:
        """Or cut."""
        near = Side()
        near.on_made = lambda: near.transport.abortConnection()
        try:
            _, far = self.connect(near)
            self.assertIn(far.read_to_end()[1], ("reset", "cut"))
        except (SSL.Error, ConnectionError):
            pass  # their handshake was not over yet
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionAborted])

    def test_close_twice(self) -> None:
        """Closing what is closed, or lost, does nothing."""
        near, far = self.connect(HalfSide())
        transport = near.transport
        transport.loseWriteConnection()
        transport.loseWriteConnection()
        transport.loseConnection()
        transport.loseConnection()
        self.assertEqual(far.read_to_end(), (b"", "close_notify"))
        self.spin(lambda: near.lost)
        for act in (transport.loseConnection, transport.abortConnection, transport.stopReading, transport.startReading):
            act()
        transport.write(b"late")
        self.turn(5)
        self.assertEqual(near.lost, [ConnectionDone])

    def test_faults(self) -> None:
        """A protocol that raises, at its beginning or later, costs its own connection and no descriptor."""
        near = Side()
        near.on_made = lambda: 1 / 0
        try:
            self.connect(near)
        except (SSL.Error, ConnectionError):
            pass
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ZeroDivisionError])
        later, far = self.connect()
        later.on_data = lambda data: 1 / 0
        far.write(b"boom")
        self.spin(lambda: later.lost)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        good, far = self.connect()
        far.write(b"fine")
        self.spin(lambda: good.received == b"fine")

    def test_writes_to_the_dead(self) -> None:
        """Writing to somebody who has gone loses the connection, and raises nothing."""
        near, far = self.connect()
        near.transport.pauseProducing()
        far.reset()
        for _ in range(5):
            near.transport.write(b"hello?")
            self.turn(1)
        self.spin(lambda: near.lost)
        self.assertEqual(near.lost, [ConnectionLost])

    def test_descriptors(self) -> None:
        """Whatever the end, the socket is closed and the reactor forgets it."""
        near, far = self.connect()
        watched = len(self.reactor._selectables)
        for end in ("end", "close", "reset"):
            near, far = self.connect()
            number = near.transport.fileno()
            getattr(far, end)()
            self.spin(lambda near=near: near.lost)
            self.assertNotIn(number, self.reactor._selectables)
        self.assertEqual(len(self.reactor._selectables), watched)
        if self.role == "server":
            self.assertEqual((self.books.open, len(self.entrance.openings)), (1, 0))


class ServerClosingTests(Closing):
    """Accepted, TLS 1.3."""


class OldServerClosingTests(Closing):
    """Accepted, TLS 1.2."""

    version = "TLSv1.2"


class ClientClosingTests(Closing):
    """Dialled, TLS 1.3."""

    role = "client"


class OldClientClosingTests(Closing):
    """Dialled, TLS 1.2."""

    role = "client"
    version = "TLSv1.2"


del Closing
