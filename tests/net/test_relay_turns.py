"""Clients that come in one turn of the reactor: their backends are dialled at its end, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.net.relay import Relay
from tests.kit.roads import Road


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.road = Road(3)
        self.flushes: list[Callable[[], None]] = []
        self.road.site._at_end_of_turn = self.flushes.append

    def end_turn(self) -> None:
        flushes, self.flushes[:] = self.flushes[:], []
        for flush in flushes:
            flush()

    def test_together(self) -> None:
        """Nobody is dialled for before the turn is over; then each is, in their order, by one call."""
        clients = [self.road.connect() for _ in range(3)]
        self.assertEqual((self.road.network.dials, len(self.flushes)), ([], 1))
        self.end_turn()
        self.assertEqual([dial.port for dial in self.road.network.dials], [9001, 9002, 9003])
        for client, backend in zip(clients, self.road.network.backends, strict=True):
            client.transport.write(b"hello")
            self.road.network.settle()
            self.assertEqual(bytes(backend.received), b"hello")
        self.road.connect()
        self.assertEqual(len(self.flushes), 1)

    def test_gone_by_then(self) -> None:
        """One that has gone before the turn is over is not dialled for; the others are."""
        clients = [self.road.connect() for _ in range(2)]
        clients[0].transport.abortConnection()
        self.road.network.settle()
        self.end_turn()
        self.assertEqual(len(self.road.network.dials), 1)
        self.assertEqual(self.road.reasons, {"client_closed": 1})
        self.assertEqual(self.road.pool.backends[0].active, 1)

    def test_fault(self) -> None:
        """One that cannot be dialled for because of a fault is cut, and the fault is logged; the next one is served."""
        clients = [self.road.connect() for _ in range(2)]
        choose, faults = Relay.choose, [ZeroDivisionError()]

        def faulty(relay: Relay) -> None:
            if faults:
                raise faults.pop()
            choose(relay)

        with patch.object(Relay, "choose", faulty):
            self.end_turn()
        self.road.network.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([client.lost is not None for client in clients], [True, False])
        self.assertEqual(len(self.road.network.dials), 1)
        self.assertEqual(self.road.reasons, {"client_closed": 1})
