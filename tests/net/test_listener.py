"""Accepting: as many as may be, none reset, all that wait before a close; on our own reactor and on Twisted's."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import patch

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor

from lbsvc.config.schema import ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.net.listener import Descriptors, Listener
from tests.kit.builders import bind
from tests.net.reactors import PATIENCE, ReactorCase, Side


class Accepted(Side):
    """A connection that tells its listener what a road tells it."""

    def __init__(self, listener: Listener, peer: str) -> None:
        super().__init__()
        self.listener = listener
        self.peer = peer

    def connectionMade(self) -> None:
        self.listener.connected(self.transport.fileno())
        super().connectionMade()

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.listener.lost(self.peer)


class ListenerTestCase(ReactorCase):
    """A listener and clients that are plain sockets."""

    def setUp(self) -> None:
        super().setUp()
        self.made: list[Accepted] = []
        self.addresses: list[tuple[str, int]] = []
        self.said: list[int] = []
        self.descriptors = Descriptors(1 << 20, self.said.append)

    def serve(self, *binds: str, **keys: Any) -> Listener:
        settings = ListenerSettings("main", tuple(bind(each) for each in binds or ("127.0.0.1:0",)), "tcp", **keys)
        listener = Listener(settings, ListenerBooks("main", "tcp"), self.reactor, self.descriptors, self.make)
        self.addCleanup(listener.close)
        listener.bind()
        listener.accept()
        for each in listener.addresses:
            host, _, port = each.rpartition(":")
            self.addresses.append((host.strip("[]"), int(port)))
        self.listener, self.books = listener, listener.books
        return listener

    def make(self, peer: str, arrival: object = None) -> Accepted:
        self.made.append(Accepted(self.listener, peer))
        return self.made[-1]

    def client(self, address: int = 0) -> socket.socket:
        """Connected as far as the kernel is concerned."""
        far = socket.create_connection(self.addresses[address], PATIENCE)
        self.ends.append(far)
        return far

    def clients(self, count: int, address: int = 0) -> list[socket.socket]:
        return [self.client(address) for _ in range(count)]

    def assert_refused(self, address: int = 0) -> None:
        self.assertRaises(ConnectionRefusedError, socket.create_connection, self.addresses[address], PATIENCE)

    def assert_served(self, far: socket.socket) -> None:
        """It has been accepted, and not been reset: what it sends arrives."""
        far.sendall(b"served")
        heard = sum(len(each.received) for each in self.made)
        self.spin(lambda: sum(len(each.received) for each in self.made) == heard + 6)


class LimitTests(ListenerTestCase):
    def test_past_the_limit(self) -> None:
        """Connections past `max_connections` wait in the kernel's queue and are served when others go; none is reset."""
        self.serve(max_connections=10)
        clients = self.clients(14)
        self.spin(lambda: len(self.made) == 10)
        self.turn(10)
        self.assertEqual((len(self.made), self.books.open, self.books.accepted), (10, 10, 10))
        for count in range(11, 15):
            clients.pop(0).close()
            self.spin(lambda count=count: len(self.made) == count)
            self.turn(10)
            self.assertEqual((len(self.made), self.books.open), (count, 10))
        for far in clients:
            self.assert_served(far)

    def test_several_ports(self) -> None:
        """The limit is of the listener, not of each of its ports."""
        self.serve("127.0.0.1:0", "[::1]:0", "127.0.0.2:0", max_connections=4)
        clients = [self.client(number) for _ in range(3) for number in range(3)]
        self.spin(lambda: len(self.made) == 4)
        self.turn(10)
        self.assertEqual(len(self.made), 4)
        while clients:
            for far in clients[:4]:
                self.spin(lambda: self.books.open >= min(4, len(clients)))
                self.assertLessEqual(self.books.open, 4)
                clients.remove(far)
                far.close()
        self.spin(lambda: len(self.made) == 9 and not self.books.open)

    def test_one(self) -> None:
        """A limit of one serves one after the other."""
        self.serve(max_connections=1)
        clients = self.clients(5)
        for count, far in enumerate(clients, 1):
            self.spin(lambda count=count: len(self.made) == count)
            self.turn(5)
            self.assertEqual((len(self.made), self.books.open), (count, 1))
            far.close()
        self.spin(lambda: not self.books.open)

    def test_closed_within_the_turn(self) -> None:
        """Connections that are closed as soon as they are made free their place for those that wait."""
        make = self.make

        def hasty(peer: str, arrival: object = None) -> Accepted:
            made = make(peer)
            made.on_made = lambda: made.transport.abortConnection()
            return made

        self.make = hasty  # type: ignore[method-assign]
        self.serve(max_connections=2)
        self.clients(9)
        self.spin(lambda: len(self.made) == 9 and not self.books.open)

    def test_no_leak_by_the_factory(self) -> None:
        """A connection for which no protocol can be made is closed, and takes nobody's place."""
        make = self.make

        def faulty(peer: str, arrival: object = None) -> Accepted:
            if self.books.accepted <= 3:
                raise ZeroDivisionError(peer)
            return make(peer)

        self.make = faulty  # type: ignore[method-assign]
        self.serve(max_connections=2)
        for far in self.clients(3):
            self.turn(5)
            self.assertEqual(self.books.open, 0)
            del far
        self.assert_served(self.client())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_no_leak_by_the_protocol(self) -> None:
        """A connection whose connectionMade raises is counted off again, at the latest when its client goes."""
        make = self.make

        def faulty(peer: str, arrival: object = None) -> Accepted:
            made = make(peer)
            if len(self.made) <= 3:
                made.on_made = lambda: 1 / 0
            return made

        self.make = faulty  # type: ignore[method-assign]
        self.serve(max_connections=10)
        clients = self.clients(3)
        self.spin(lambda: len(self.made) == 3)
        for far in clients:
            far.close()
        self.spin(lambda: self.books.open == 0)
        self.assert_served(self.client())
        self.assertEqual(self.books.open, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_no_delay(self) -> None:
        """Accepted sockets do not wait for small pieces to become large ones."""
        self.serve()
        self.client()
        self.spin(lambda: self.made)
        self.assertTrue(self.made[0].transport.getTcpNoDelay())


class ScarceTests(ListenerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch_retry = patch("lbsvc.net.listener.RETRY", 0.01)
        self.patch_retry.start()
        self.addCleanup(self.patch_retry.stop)

    def test_pauses_and_goes_on(self) -> None:
        """Near the end of the descriptors accepting pauses, says so once, and goes on when there is room; none is reset."""
        self.serve()
        clients = self.clients(12)
        self.descriptors.ceiling = clients[-1].fileno() + 5
        self.spin(lambda: self.said)
        accepted = len(self.made)
        self.assertLess(accepted, 12)
        self.turn(20)
        self.assertEqual(len(self.made), accepted)  # still no room
        served = 0
        while served < 12:
            waiting = clients.pop(0)
            self.assert_served(waiting)
            waiting.close()
            served += 1
        self.spin(lambda: self.books.open == 0)
        self.assertEqual((len(self.made), self.said), (12, [1 << 20]))

    def test_room_is_asked_of_the_kernel(self) -> None:
        """While descriptors are scarce for other reasons no more than one connection is accepted."""
        self.serve()
        self.clients(3)
        self.descriptors.ceiling = 3
        self.spin(lambda: self.made)
        asked: list[bool] = []
        with patch.object(self.descriptors, "are_scarce", lambda: not asked.append(True)):  # type: ignore[func-returns-value]
            self.spin(lambda: len(asked) == 5)
        self.assertEqual((len(self.made), len(self.said)), (1, 1))
        self.descriptors.ceiling = 1 << 20
        self.spin(lambda: len(self.made) == 3)

    def test_no_descriptor_at_all(self) -> None:
        """Where not one can be had they are scarce."""
        with patch("os.open", side_effect=OSError(24, "Too many open files")):
            self.assertTrue(self.descriptors.are_scarce())
        self.assertFalse(self.descriptors.are_scarce())

    def test_both_limits(self) -> None:
        """A listener that was short of descriptors stays within its limit when it goes on."""
        self.serve(max_connections=2)
        self.descriptors.ceiling = 3
        first, *_ = self.clients(3)
        self.spin(lambda: self.said)
        self.descriptors.ceiling = 1 << 20
        self.spin(lambda: len(self.made) == 2)
        self.turn(20)
        self.assertEqual((len(self.made), self.books.open), (2, 2))
        first.close()
        self.spin(lambda: len(self.made) == 3)


class CloseTests(ListenerTestCase):
    def test_queue_first(self) -> None:
        """All that wait in the accept queues when a listener closes are served; whoever comes later is refused."""
        self.serve("127.0.0.1:0", "127.0.0.2:0")
        clients = self.clients(150) + self.clients(50, 1)
        self.listener.close()
        self.assertEqual((len(self.made), self.books.accepted), (200, 200))
        for number in (0, 1):
            self.assert_refused(number)
        for far in clients[::20]:
            self.assert_served(far)

    def test_while_paused(self) -> None:
        """The same while accepting pauses because there are too many."""
        self.serve(max_connections=5)
        clients = self.clients(20)
        self.spin(lambda: len(self.made) == 5)
        self.listener.close()
        self.assertEqual((len(self.made), self.books.open), (20, 20))
        for far in clients:
            self.assert_served(far)
            far.close()
        self.spin(lambda: not self.books.open)
        self.assert_refused()

    def test_while_descriptors_are_scarce(self) -> None:
        """The same for want of descriptors; no timer is left."""
        self.serve()
        clients = self.clients(6)
        self.descriptors.ceiling = 3
        self.spin(lambda: self.made)
        self.listener.close()
        self.assertEqual(len(self.made), 6)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assert_served(clients[-1])
        self.assert_refused()

    def test_faults_in_the_queue(self) -> None:
        """One of those that wait for which no protocol can be made does not cost the others their service."""
        make = self.make

        def faulty(peer: str, arrival: object = None) -> Accepted:
            if self.books.accepted == 2:
                raise ZeroDivisionError(peer)
            return make(peer)

        self.make = faulty  # type: ignore[method-assign]
        self.serve()
        self.clients(6)
        self.listener.close()
        self.assertEqual((len(self.made), self.books.open), (5, 5))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_twice(self) -> None:
        """A second close does nothing."""
        self.serve()
        self.listener.close()
        self.listener.close()
        self.turn()
        self.assert_refused()

    def test_no_end_of_clients(self) -> None:
        """Clients that come for ever do not keep a listener from closing."""
        make = self.make

        def busy(peer: str, arrival: object = None) -> Accepted:
            if len(self.made) < 2000:
                self.client()
            return make(peer)

        self.make = busy  # type: ignore[method-assign]
        self.serve(backlog=16)
        self.client()
        self.listener.close()
        self.assertLess(len(self.made), 2000)
        self.assertGreaterEqual(len(self.made), 17)


class Ordinary:
    """Mixin: the same tests on a reactor of Twisted's."""

    def _take_apart(self: Any) -> None:
        self.reactor.disconnectAll()
        for reader in list(self.reactor._internalReaders):
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        for end in self.ends:
            end.close()


class SelectLimitTests(Ordinary, LimitTests):
    kind = SelectReactor


class SelectScarceTests(Ordinary, ScarceTests):
    kind = SelectReactor


class SelectCloseTests(Ordinary, CloseTests):
    kind = SelectReactor


class EPollLimitTests(LimitTests):
    kind = EPollReactor


class EPollCloseTests(CloseTests):
    kind = EPollReactor
