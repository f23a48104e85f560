"""`connections_per_client` at a listener: what is past it, with and without words; the books; who is not concerned."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import patch

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor

from lbsvc.config.schema import ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.clients import Surplus
from lbsvc.net.listener import Listener
from tests.kit.builders import bind
from tests.net.reactors import PATIENCE
from tests.net.test_listener import Accepted, ListenerTestCase, Ordinary


class PerClientCase(ListenerTestCase):
    def setUp(self) -> None:
        super().setUp()
        patched = patch("lbsvc.net.listener.LEAST_SURPLUS", 1)
        patched.start()
        self.addCleanup(patched.stop)

    def limit(self, number: int, *, polite: bool, **keys: Any) -> None:
        """A listener with this limit for each client; `polite`: what is past it is told so."""
        self.refusing: list[Accepted] = []
        settings = ListenerSettings("main", (bind("127.0.0.1:0"),), "tcp", connections_per_client=number, **keys)
        self.listener = Listener(
            settings,
            ListenerBooks("main", "tcp"),
            self.reactor,
            self.descriptors,
            self.make,
            self.refuse if polite else None,
        )
        self.books = self.listener.books
        self.addCleanup(self.listener.close)
        self.listener.bind()
        self.listener.accept()
        host, _, port = self.listener.addresses[0].rpartition(":")
        self.addresses = [(host, int(port))]

    def refuse(self, peer: str, arrival: object = None) -> Accepted:
        self.refusing.append(Accepted(self.listener, peer))
        return self.refusing[-1]

    def come(self, host: str = "127.0.0.1") -> socket.socket:
        """A client whose address is `host`."""
        far = socket.create_connection(self.addresses[0], PATIENCE, (host, 0))
        self.ends.append(far)
        accepted = self.books.accepted
        self.spin(lambda: self.books.accepted > accepted)
        self.turn()
        return far

    def go(self, far: socket.socket) -> None:
        left = self.books.open
        far.close()
        self.spin(lambda: self.books.open == left - 1)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Served, being refused, open by the books, rejected by the books."""
        served, refusing = ([each for each in kind if not each.lost] for kind in (self.made, self.refusing))
        return len(served), len(refusing), self.books.open, self.books.rejected["connections"]


class PerClientTests(PerClientCase):
    def test_closed_at_once(self) -> None:
        """Without words, what is past the limit is closed at once, and takes nobody's place."""
        self.limit(2, polite=False)
        clients = [self.come() for _ in range(2)]
        for _ in range(3):
            self.assertEqual(self.come().recv(10), b"")
        self.assertEqual(self.counts, (2, 0, 2, 3))
        self.assertEqual(self.books.accepted, 5)
        self.go(clients.pop())
        self.assert_served(self.come())
        self.assertEqual(self.counts, (2, 0, 2, 3))

    def test_refused(self) -> None:
        """With words, as many again are refused in them, and only past these it closes at once."""
        self.limit(2, polite=True)
        for _ in range(4):
            self.come()
        self.assertEqual(self.counts, (2, 2, 4, 2))
        self.assertEqual(self.come().recv(10), b"")
        self.assertEqual(self.counts, (2, 2, 4, 3))
        self.assertEqual([each.peer for each in self.refusing], ["127.0.0.1"] * 2)
        self.assertTrue(all(isinstance(each.peer, Surplus) for each in self.refusing))
        self.assertFalse(any(isinstance(each.peer, Surplus) for each in self.made))

    def test_small_limits(self) -> None:
        """However small the limit, some are refused in words before any is closed without."""
        with patch("lbsvc.net.listener.LEAST_SURPLUS", 4):
            self.limit(1, polite=True)
        for _ in range(5):
            self.come()
        self.assertEqual(self.counts, (1, 4, 5, 4))
        self.assertEqual(self.come().recv(10), b"")

    def test_places(self) -> None:
        """A place is free when a connection that has it goes, though others are being refused; and not when those go."""
        self.limit(1, polite=True)
        first, second = self.come(), self.come()
        self.go(second)
        self.come()
        self.assertEqual(self.counts, (1, 1, 2, 2))
        self.go(first)
        self.come()
        self.assertEqual(self.counts, (1, 1, 2, 2))

    def test_each_client(self) -> None:
        """Other clients are not concerned."""
        self.limit(1, polite=False)
        for last in range(2, 7):
            self.assert_served(self.come(f"127.0.0.{last}"))
            self.assertEqual(self.come(f"127.0.0.{last}").recv(10), b"")
        self.assertEqual(self.counts, (5, 0, 5, 5))

    def test_nothing_remembered(self) -> None:
        """When all have gone, by whatever way, nothing is open and nobody is remembered."""
        self.limit(1, polite=True)
        ends = [self.come() for _ in range(3)] + [self.come("127.0.0.2")]
        served: Any = self.made[0].transport
        served.abortConnection()
        refused: Any = self.refusing[0].transport
        refused.loseConnection()
        self.spin(lambda: self.books.open == 1)
        for end in ends:
            end.close()
        self.spin(lambda: self.books.open == 0)
        assert self.listener._clients is not None
        self.assertEqual(len(self.listener._clients), 0)

    def test_faults(self) -> None:
        """A connection for which no protocol can be made, be it to serve or to refuse it, leaves nothing behind."""
        self.limit(1, polite=True)
        make, refuse = self.listener._connect, self.listener._surplus
        self.listener._connect = self.listener._surplus = lambda peer, arrival: 1 / 0  # type: ignore[assignment, return-value]
        self.come()
        self.assertEqual(self.counts, (0, 0, 0, 0))
        self.listener._connect = make
        self.come()
        self.come()
        self.listener._surplus = refuse
        self.come()
        self.assertEqual(self.counts, (1, 1, 2, 2))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_both_limits(self) -> None:
        """Those that are being refused count for `max_connections`; past that all wait, and none is refused."""
        self.limit(1, polite=True, max_connections=2)
        first, second = self.come(), self.come()
        waiting = [socket.create_connection(self.addresses[0], PATIENCE) for _ in range(2)]
        self.ends += waiting
        self.turn(10)
        self.assertEqual(self.counts, (1, 1, 2, 1))
        for each in (first, second):
            each.close()
        self.spin(lambda: len(self.made) + len(self.refusing) == 4)
        self.assertEqual(self.books.open, 2)

    def test_in_the_queue(self) -> None:
        """What waits in the queue when it closes is judged as any other."""
        self.limit(2, polite=False)
        clients = [socket.create_connection(self.addresses[0], PATIENCE) for _ in range(5)]
        self.ends += clients
        self.listener.close()
        self.assertEqual(self.counts, (2, 0, 2, 3))
        for far in clients[:2]:
            self.assert_served(far)


class EPollPerClientTests(PerClientTests):
    kind = EPollReactor


class SelectPerClientTests(Ordinary, PerClientTests):
    kind = SelectReactor
