"""The loop of our reactor: whose event it is, what an exception costs, what time it is."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from itertools import pairwise
from typing import Any

from twisted.internet import task
from twisted.internet.error import ConnectionDone, ConnectionFdescWentAway
from twisted.python import context, log
from zope.interface.verify import verifyObject

from lbsvc.net import reactor as module
from tests.net.reactors import ReactorCase, Serving, Side, TwistedsOwn, Watched


class GuardTests(ReactorCase):
    """What Twisted's loop guards, ours guards too."""

    def test_exception_costs_one_connection(self) -> None:
        """An exception in dataReceived is logged and ends that connection; others of the same turn are served."""
        good, bad = Side(), Side()
        bad.on_data = lambda data: 1 / 0
        port = self.listen(Serving(bad, good))
        far = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(2)]
        self.spin(lambda: bad.made and good.made)
        for end in far:
            self.ends.append(end)
            end.sendall(b"x")
        self.spin(lambda: bad.lost and good.received)
        self.assertEqual((bad.lost, good.lost), ([ZeroDivisionError], []))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(far[0].recv(1), b"")
        far[1].sendall(b"y")
        self.spin(lambda: good.received == b"xy")

    def test_exception_in_connection_lost(self) -> None:
        """An exception in connectionLost is logged once, and the loop goes on."""
        server, far = self.accepted()
        server.connectionLost = lambda reason: 1 / 0
        far.close()
        self.spin(lambda: not server.transport.connected)
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_exception_in_a_writer(self) -> None:
        """An exception out of doWrite is logged and ends that selectable only."""
        near, _ = self.sockets()
        watched = Watched(near.fileno(), lambda: 1 / 0)
        self.reactor.addWriter(watched)
        self.turn()
        self.assertEqual((watched.writes, watched.lost), (1, [ZeroDivisionError]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.reactor.getWriters(), [])

    def test_result_ends_it(self) -> None:
        """What doRead returns is the reason of the loss; an orderly one reaches a plain selectable as well."""
        for why in (ConnectionDone(), OSError("odd")):
            near, far = self.sockets()
            watched = Watched(near.fileno(), lambda why=why: why)
            self.reactor.addReader(watched)
            far.send(b"x")
            self.turn()
            self.assertEqual((watched.reads, watched.lost), (1, [type(why)]))

    def test_lost_number(self) -> None:
        """A selectable whose fileno has become -1 is not read, but told that its descriptor went away."""
        for event in ("addReader", "addWriter"):
            near, far = self.sockets()
            watched = Watched(near.fileno())
            getattr(self.reactor, event)(watched)
            far.send(b"x")
            watched.fd = -1
            self.turn()
            self.assertEqual((watched.reads, watched.writes), (0, 0))
            self.assertEqual(watched.lost, [ConnectionFdescWentAway])

    def test_hang_up_without_input(self) -> None:
        """A pipe whose other end is closed (EPOLLHUP or EPOLLERR alone) ends: in order if read, lost if written."""
        for read in (True, False):
            ends = os.pipe()
            self.addCleanup(os.close, ends[not read])
            watched = Watched(ends[not read])
            if read:
                self.reactor.addReader(watched)
            else:
                self.reactor.addReader(watched)
                self.reactor.removeReader(watched)
                os.set_blocking(ends[1], False)
                while True:
                    try:
                        os.write(ends[1], bytes(65536))
                    except BlockingIOError:
                        break
                self.reactor.addWriter(watched)
            os.close(ends[read])
            self.turn()
            self.assertEqual(len(watched.lost), 1)
            self.assertEqual(watched.lost[0].__name__, "ConnectionDone" if read else "ConnectionLost")

    def test_files_are_polled(self) -> None:
        """What epoll refuses (a regular file) is read again and again, until removed."""
        with tempfile.TemporaryFile() as file:
            watched = Watched(file.fileno())
            self.reactor.addReader(watched)
            self.spin(lambda: watched.reads > 2)
            self.reactor.removeReader(watched)
            self.turn()
            reads = watched.reads
            self.turn()
            self.assertEqual(watched.reads, reads)

    def test_interrupted(self) -> None:
        """EINTR out of epoll is no event; any other error of it is raised."""

        class Poller:
            code = errno.EINTR

            def poll(self, *_: Any) -> list[Any]:
                raise OSError(self.code, "in epoll")

        poller = self.reactor._poller
        self.reactor._poller = Poller()
        try:
            self.assertIsNone(self.reactor.doPoll(0))
            Poller.code = errno.EBADF
            self.assertRaises(OSError, self.reactor.doPoll, 0)
        finally:
            self.reactor._poller = poller


class GuardsOfTwistedTests(TwistedsOwn, GuardTests):
    """None of these tests asks for more than Twisted gives."""


class TimeTests(ReactorCase):
    def test_monotonic(self) -> None:
        """seconds() is the monotonic clock, and the time of a call is told in it."""
        before = time.monotonic()
        call = self.reactor.callLater(5, lambda: None)
        after = time.monotonic()
        self.assertTrue(before <= call.getTime() - 5 <= after)
        self.assertTrue(after <= self.reactor.seconds() <= time.monotonic())

    def test_steps_of_the_wall_clock(self) -> None:
        """A wall clock that steps an hour either way neither hastens nor delays callLater and LoopingCall."""
        wall = time.time
        for step in (3600, -3600):
            fired: list[str] = []
            self.reactor.callLater(1800, fired.append, "far")
            self.reactor.callLater(0.001, fired.append, "near")
            looping = task.LoopingCall(fired.append, "loop")
            looping.clock = self.reactor
            looping.start(0.001, now=False)
            self.patch(time, "time", lambda step=step: wall() + step)
            self.spin(lambda fired=fired: fired.count("loop") > 2 and "near" in fired)
            looping.stop()
            self.assertNotIn("far", fired)
            self.patch(time, "time", wall)

    def test_run(self) -> None:
        """In run(): timers in order, calls from callFromThread, cancelled calls in great number, and stop."""
        seen: list[Any] = []
        for number in (3, 1, 2):
            self.reactor.callLater(number / 1000, seen.append, number)
        for _ in range(200):
            self.reactor.callLater(100, seen.append, "cancelled").cancel()
        self.reactor.callFromThread(seen.append, "thread")
        self.reactor.callLater(0.01, self.reactor.stop)
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual(seen, ["thread", 1, 2, 3])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_calls_leave_room_for_events(self) -> None:
        """A chain of callLater(0) does not keep events from being served."""
        near, far = self.sockets()
        rounds = [0]

        def again() -> None:
            rounds[0] += 1
            if rounds[0] < 1000:
                self.reactor.callLater(0, again)
            else:
                self.reactor.stop()

        watched = Watched(near.fileno(), self.reactor.stop)
        self.reactor.addReader(watched)
        far.send(b"x")
        self.reactor.callWhenRunning(again)
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual(watched.reads, 1)
        self.assertLess(rounds[0], 10)


class EndTests(ReactorCase):
    """Closes that wait for the end of the turn."""

    def test_settled_without_epoll(self) -> None:
        """A connection with nothing queued is lost in the turn of its loseConnection; it counts as a writer until then."""
        server, _ = self.accepted()
        server.transport.loseConnection()
        self.assertIn(server.transport, self.reactor.getWriters())
        self.assertEqual(server.lost, [])
        self.reactor.iterate(0)
        self.assertEqual((server.lost, self.reactor.getWriters()), ([ConnectionDone], []))

    def test_settled_without_events(self) -> None:
        """A connection that a timer closes is lost at once, though no event wakes the loop."""
        server, _ = self.accepted()
        lost = server.connectionLost
        server.connectionLost = lambda reason: (lost(reason), self.reactor.stop())
        late: list[int] = []
        self.reactor.callLater(0, server.transport.loseConnection)
        self.reactor.callLater(2, lambda: (late.append(1), self.reactor.running and self.reactor.stop()))
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual((server.lost, late), ([ConnectionDone], []))

    def test_disconnect_all(self) -> None:
        """A connection that waits to be closed is among what removeAll gives back, and is lost by disconnectAll once."""
        server, _ = self.accepted()
        server.transport.loseConnection()
        self.reactor.disconnectAll()
        self.turn()
        self.assertEqual(len(server.lost), 1)

    def test_one_closes_the_other(self) -> None:
        """A chain of connections, each closed by the loss of the one before, ends within a few turns."""
        sides = [self.accepted()[0] for _ in range(6)]
        for one, other in pairwise(sides):
            one.connectionLost = lambda reason, one=one, other=other: (
                one.lost.append(reason.type),
                other.transport.loseConnection(),
            )
        sides[0].transport.loseConnection()
        self.turn(3)
        self.assertEqual([side.lost for side in sides], [[ConnectionDone]] * 6)

    def test_log_prefix(self) -> None:
        """While an event is handled the log's system is the prefix of whose event it is; outside of events it is `-`."""
        seen: list[str] = []
        server, far = self.accepted()
        server.on_data = lambda data: seen.append(context.get(log.ILogContext)["system"])
        far.sendall(b"x")
        self.reactor.callLater(0, lambda: seen.append(context.get(log.ILogContext)["system"]))
        self.spin(lambda: len(seen) == 2)
        self.assertEqual(set(seen), {"-", server.transport.logPrefix()})
        self.assertTrue(server.transport.logPrefix().startswith("Side,0,127.0.0.1"))

    def test_interfaces(self) -> None:
        """The reactor provides what Twisted's epoll reactor provides."""
        from twisted.internet import interfaces as offered

        for name in ("IReactorCore", "IReactorTime", "IReactorTCP", "IReactorFDSet", "IReactorSocket", "IReactorUNIX"):
            verifyObject(getattr(offered, name), self.reactor)
        self.assertEqual(module.MOST_EVENTS, 256)
