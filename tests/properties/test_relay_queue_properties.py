"""Whatever clients and backends of a limited tcp pool do, in whatever order: no backend has more than its limit, nobody
waits while there is a place, and nothing is left over; with connections made ahead and without."""

from __future__ import annotations

import errno
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.policies import BreakerPolicy, QueuePolicy, RatePolicy, StickyPolicy
from tests.kit.network import PENDING
from tests.kit.roads import FIRST_PORT, Road
from tests.kit.wire import HalfClosingPeer

WORDS = [
    "client",
    "client",
    "client",
    "write",
    "close",
    "abort",
    "finish",
    "turn",
    "sleep",
    "backend ends",
    "dials",
    "refuses",
    "is open",
    "is slow",
    "goes down",
    "comes up",
    "drains",
    "returns",
    "look",
]
ACTS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 40)), max_size=60)


class Crowd:
    """Clients and two backends, and what they do."""

    def __init__(self, most: int, size: int, ahead: int, **keys: Any) -> None:
        self.road = Road(
            2, most=most, queue=QueuePolicy(size, 3.0), ahead=ahead, connect=2.0, backoff=0.5, half_close=5, **keys
        )
        if self.road.ahead is not None:
            self.road.ahead.start()
        self.network = self.road.network
        self.clients: list[HalfClosingPeer] = []

    def act(self, what: str, number: int) -> None:
        road, network = self.road, self.network
        backend = road.backends[number % 2]
        if what == "client":
            self.clients.append(road.connect(address=f"192.0.2.{number}"))
        elif what == "turn":
            network.turn()
        elif what == "sleep":
            network.sleep(number / 10, step=0.5)
        elif what == "look" and road.ahead is not None:
            road.ahead.look()
        elif what == "dials":
            for dialled in [each for each in network.dials if not each.is_over]:
                dialled.connect()
        elif what in ("refuses", "is slow"):
            network.answers[FIRST_PORT + number % 2] = errno.ECONNREFUSED if what == "refuses" else PENDING
        elif what == "is open":
            network.answers.pop(FIRST_PORT + number % 2, None)
        elif what in ("goes down", "comes up"):
            backend.health = "down" if what == "goes down" else "up"
            road.pool.refresh()
        elif what in ("drains", "returns"):
            backend.state = "drain" if what == "drains" else "ready"
            road.pool.refresh()
        else:
            self._speak(what, number)

    def _speak(self, what: str, number: int) -> None:
        peers = self.network.backends if what == "backend ends" else self.clients
        open_ones = [peer for peer in peers if peer.transport.connected]
        if not open_ones:
            return
        transport = open_ones[number % len(open_ones)].transport
        if what == "write":
            transport.write(bytes(number * 1000))
        elif what in ("close", "backend ends"):
            transport.loseConnection()
        elif what == "abort":
            transport.abortConnection()
        elif what == "finish":
            transport.loseWriteConnection()

    def end(self) -> None:
        """Everybody goes, and everything that was to come has come."""
        for peer in self.clients:
            peer.transport.abortConnection()
        self.network.sleep(40, step=1.0)
        self.road.site.drain()
        self.network.settle()
        for peer in self.network.backends:
            if peer.transport.connected:
                peer.transport.loseConnection()
        self.network.settle()


class RelayQueueProperties(TestCase):
    def broken_now(self, crowd: Crowd) -> list[str]:
        """What may never be, at any moment."""
        road = crowd.road
        found = [f"{each!r} has more than {each.limit}" for each in road.backends if each.active > each.limit]
        has_place = any(
            each.active < each.limit and each.state == "ready" and each.health == "up" and each.circuit != "open"
            for each in road.backends
        )
        if has_place and len(road.pool.queue):
            found.append("somebody waits while there is a place")
        if road.ahead is not None:
            found += [
                f"{each!r} has {each.connections} connections"
                for each in road.backends
                if not 0 <= each.connections <= each.most and road.ahead.is_served(each)
            ]
        return found

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.integers(1, 3), st.sampled_from([0, 2, 100]), st.sampled_from([0, 0, 2]), ACTS)
    def test_queue(self, most: int, size: int, ahead: int, acts: list[tuple[str, int]]) -> None:
        """Limits hold at every moment, no place stays empty while somebody waits, all are settled once, nothing is left."""
        crowd = Crowd(most, size, ahead)
        for act in acts:
            crowd.act(*act)
            self.assertEqual(self.broken_now(crowd), [], act)
        crowd.end()
        self.assertEqual(crowd.road.broken(), [])

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.sampled_from(["round_robin", "consistent_hash", "adaptive"]), st.booleans(), ACTS)
    def test_with_everything(self, algorithm: str, is_sticky: bool, acts: list[tuple[str, int]]) -> None:
        """The same with a breaker, rates, affinity and algorithms that want keys or results."""
        crowd = Crowd(
            2,
            5,
            1,
            algorithm=algorithm,
            sticky=StickyPolicy(type="ip", ttl=5.0) if is_sticky else None,
            breaker=BreakerPolicy(2, 3.0, 1),
            limit=RatePolicy(1.0, 3),
        )
        for act in acts:
            crowd.act(*act)
            self.assertEqual(self.broken_now(crowd), [], act)
        crowd.end()
        self.assertEqual(crowd.road.broken(), [])
        self.assertEqual(len(crowd.road.records), len(crowd.clients))
