"""A listener whose connections begin with something, and what must be true of it when they are gone."""

from __future__ import annotations

import socket

from lbsvc.net.arrival import Arrival
from tests.net.secured import SecureCase

LOOPBACK = ("127.0.0.0/8",)
SOURCE, DESTINATION = ("192.0.2.7", 4321), ("198.51.100.1", 443)
#: Index of the peer and the reason in an access record.
PEER, REASON = 4, 16


class OpeningCase(SecureCase):
    """Looks at the books, and at what is left."""

    def setUp(self) -> None:
        super().setUp()
        self.watched = len(self.reactor._selectables)

    def assert_nothing_left(self) -> None:
        """Nothing is open, nothing watched, nothing waited for: but the listening socket."""
        self.spin(lambda: not self.books.open)
        self.assertEqual(self.entrance.openings, set())
        self.assertEqual(len(self.reactor._selectables), self.watched + len(self.listener.ports))
        self.assertFalse(any(self.deadlines._buckets.values()))
        clients = self.listener._clients
        self.assertEqual(len(clients) if clients is not None else 0, 0)

    def assert_closed(self, far: socket.socket) -> None:
        """We have closed it."""

        def is_closed() -> bool:
            try:
                return far.recv(1000) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        self.spin(is_closed)

    def assert_refused(self, reason: str, peer: str = "127.0.0.1") -> None:
        """One connection got no further: it is on the books, in the access log, and nowhere else."""
        self.spin(lambda: self.records)
        (record,) = self.records
        self.assertEqual((record[REASON], record[PEER]), (reason, peer))
        self.assertEqual(self.books.terminations, {reason: 1})
        self.assertEqual(self.books.rejected["bad_proxy_header"], int(reason == "bad_proxy_header"))
        self.assertEqual(self.books.handshakes, {("failure", "none"): 1} if reason == "handshake_failed" else {})
        self.assertEqual((self.sides, len(self.told)), ([], 1))
        self.assertIn(reason, self.told[0])
        self.spin(lambda: not self.books.open)
        self.assert_nothing_left()

    def arrived(self) -> Arrival:
        """How the only connection came."""
        self.spin(lambda: self.sides and self.sides[-1].made)
        (arrival,) = self.arrivals
        assert arrival is not None
        return arrival
