"""Ports whose socket several processes accept from: here two reactors in one process, turned in turn."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from select import EPOLLEXCLUSIVE
from typing import Any

from twisted.internet.epollreactor import EPollReactor

from lbsvc.net import sharing
from lbsvc.net.ordinary import OrdinaryPort
from lbsvc.net.reactor import Reactor
from tests.net.reactors import LeanServing, ReactorCase, Serving, Side


class Counting:
    """An epoll that remembers what it was asked, and may be deaf: then it reports nothing."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self.asked: list[str] = []
        self.is_deaf = False

    def register(self, fd: int, events: int) -> None:
        self.asked.append("register")
        self._poller.register(fd, events)

    def unregister(self, fd: int) -> None:
        self.asked.append("unregister")
        self._poller.unregister(fd)

    def poll(self, timeout: float, most: int) -> Any:
        events = self._poller.poll(timeout, most)
        return [] if self.is_deaf else events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class SharingCase(ReactorCase):
    def setUp(self) -> None:
        super().setUp()
        self.other: Any = Reactor()
        self.addCleanup(self._take_other_apart)

    def _take_other_apart(self) -> None:
        first, self.reactor, self.ends = self.reactor, self.other, []
        self._take_apart()
        self.reactor = first

    def listening(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
        skt = socket.socket(family)
        skt.bind(address)
        skt.listen(100)
        skt.setblocking(False)
        self.ends.append(skt)
        return skt

    def shared(self, skt: socket.socket, reactor: Any, factory: Any = None) -> tuple[Any, Any]:
        """A shared port of one of the reactors on the socket, and its factory."""
        factory = factory or LeanServing()
        port = reactor.adoptStreamPort(skt.fileno(), skt.family, factory)
        port.share()
        return port, factory

    def dial(self, skt: socket.socket) -> socket.socket:
        far = socket.socket(skt.family)
        self.ends.append(far)
        far.connect(skt.getsockname())
        return far

    def flags(self, reactor: Any, port: Any) -> int:
        """What the kernel has been told to watch the port for; 0: it is not registered."""
        with open(f"/proc/self/fdinfo/{reactor._poller.fileno()}") as info:
            found = re.search(rf"tfd:\s+{port.fileno()} events:\s+([0-9a-f]+)", info.read())
        return int(found[1], 16) if found else 0


class SharingTests(SharingCase):
    def test_exclusive(self) -> None:
        """A shared port waits with EPOLLEXCLUSIVE from then on, also after a pause; paused or closed, not at all."""
        port, _ = self.shared(self.listening(), self.reactor)
        self.assertTrue(self.flags(self.reactor, port) & EPOLLEXCLUSIVE)
        port.pauseAccepting()
        self.assertEqual(self.flags(self.reactor, port), 0)
        port.resumeAccepting()
        self.assertTrue(self.flags(self.reactor, port) & EPOLLEXCLUSIVE)
        before = self.flags(self.reactor, port)
        port.share()
        self.assertEqual(self.flags(self.reactor, port), before)

    def test_not_shared(self) -> None:
        """A port that nobody has called shared waits without, and keeps no timer."""
        port = self.listen(LeanServing())
        self.assertNotEqual(self.flags(self.reactor, port), 0)
        self.assertFalse(self.flags(self.reactor, port) & EPOLLEXCLUSIVE)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_shared_while_paused(self) -> None:
        """A paused port that becomes shared stays paused."""
        skt = self.listening()
        port = self.reactor.adoptStreamPort(skt.fileno(), skt.family, LeanServing())
        port.pauseAccepting()
        port.share()
        self.assertEqual((self.flags(self.reactor, port), self.reactor.getDelayedCalls()), (0, []))

    def test_one_in_each_turn(self) -> None:
        """Of what waits each takes one in a turn: two that turn alike share it alike, and nothing is left."""
        skt = self.listening()
        _, first = self.shared(skt, self.reactor)
        _, second = self.shared(skt, self.other)
        for _ in range(20):
            self.dial(skt)
        for turn in range(1, 11):
            self.reactor.iterate(0)
            self.other.iterate(0)
            self.assertEqual((len(first.built), len(second.built)), (turn, turn))
        self.assertRaises(BlockingIOError, skt.accept)

    def test_last_in_the_queue(self) -> None:
        """After it has accepted, and only then, a port registers anew: the kernel wakes another one next time."""
        skt = self.listening()
        _, factory = self.shared(skt, self.reactor)
        self.reactor._poller = poller = Counting(self.reactor._poller)
        self.turn()
        self.assertEqual(poller.asked, [])
        self.dial(skt)
        self.reactor.iterate(0)
        self.assertEqual(len(factory.built), 1)
        # that of the accepted connection, then its own
        self.assertEqual(poller.asked, ["register", "unregister", "register"])

    def test_paused_while_accepting(self) -> None:
        """One that pauses from within buildLean is not registered again by the accept that it was called in."""
        skt = self.listening()
        port, factory = self.shared(skt, self.reactor)
        far = [self.dial(skt) for _ in range(2)]
        build = factory.buildLean

        def pausing(sockaddr: Any) -> Any:
            port.pauseAccepting()
            return build(sockaddr)

        port._build = pausing
        self.turn()
        self.assertEqual((len(factory.built), self.flags(self.reactor, port)), (1, 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        port.resumeAccepting()
        self.spin(lambda: len(factory.built) == len(far))

    def test_nobody_is_stranded(self) -> None:
        """A connection whose wake-up was lost, with the process that it woke, is accepted all the same."""
        self.patch(sharing, "LOOK", 0.05)
        skt = self.listening()
        _, factory = self.shared(skt, self.reactor)
        self.reactor._poller = poller = Counting(self.reactor._poller)
        poller.is_deaf = True
        for number in (1, 2):
            self.dial(skt)
            self.spin(lambda number=number: len(factory.built) == number)

    def test_no_timer_is_left(self) -> None:
        """One timer looks after the queue while the port accepts; once it is paused or closed there is none."""
        for close in ("pauseAccepting", "stopListening"):
            port, _ = self.shared(self.listening(), self.reactor)
            port.resumeAccepting()
            self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
            getattr(port, close)()
            self.turn()
            self.assertEqual(self.reactor.getDelayedCalls(), [])
        port, _ = self.shared(self.listening(), self.reactor)
        self.reactor.disconnectAll()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closing_leaves_the_others(self) -> None:
        """A shared port that closes, with connections waiting, leaves all of them to the others."""
        skt = self.listening()
        port, first = self.shared(skt, self.reactor)
        _, second = self.shared(skt, self.other)
        far = [self.dial(skt) for _ in range(3)]
        port.stopListening()
        self.turn()
        self.reactor, mine = self.other, self.reactor
        self.spin(lambda: len(second.built) == len(far))
        self.reactor = mine
        self.assertEqual((first.built, port.connected), ([], False))

    def test_unix(self) -> None:
        """The same of a unix socket."""
        with tempfile.TemporaryDirectory() as folder:
            skt = self.listening(socket.AF_UNIX, os.path.join(folder, "socket"))
            port, first = self.shared(skt, self.reactor)
            _, second = self.shared(skt, self.other)
            self.assertTrue(self.flags(self.reactor, port) & EPOLLEXCLUSIVE)
            for _ in range(4):
                self.dial(skt)
            for _ in range(2):
                self.reactor.iterate(0)
                self.other.iterate(0)
            self.assertEqual((len(first.built), len(second.built)), (2, 2))
            port.stopListening()
            self.turn()
            self.assertEqual((port.connected, self.reactor.getDelayedCalls()), (False, []))

    def test_on_the_stock_reactor(self) -> None:
        """On other reactors a shared port serves as before, beside others on the same socket."""
        stock = EPollReactor()
        first, self.reactor = self.reactor, stock
        try:
            skt = self.listening()
            factory = Serving(Side())
            port = OrdinaryPort(stock.adoptStreamPort(skt.fileno(), socket.AF_INET, factory))
            port.share()
            self.dial(skt)
            self.spin(lambda: factory.built)
        finally:
            ends, self.ends = self.ends, []
            self._take_apart()
            self.reactor, self.ends = first, ends
