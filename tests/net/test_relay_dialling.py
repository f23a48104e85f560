"""The layer 4 road until it has a backend: failed dials, other backends, limits, clients that go or talk meanwhile."""

from __future__ import annotations

import errno

from tests.kit.network import PENDING
from tests.kit.roads import Road
from tests.kit.wire import HalfClosingPeer
from tests.net.test_relay import BIG, RoadTestCase

REFUSED = errno.ECONNREFUSED


def failures(road: Road, reason: str) -> list[int]:
    return [each.failures[reason] for each in road.backends]


class FailoverTests(RoadTestCase):
    def whole_after_close(self, road: Road, client: HalfClosingPeer, **reasons: int) -> None:
        """The client has been closed in order, for these reasons."""
        road.network.settle()
        self.assertEqual(client.events, ["made", "read-end"])
        client.transport.loseConnection()
        self.whole(road, **reasons)

    def test_another_backend(self) -> None:
        """A connection whose dial fails goes to a backend that has not been tried."""
        road = Road(3)
        road.network.answers = {9001: REFUSED, 9002: errno.EHOSTUNREACH}
        client = road.connect()
        self.assertEqual([dial.port for dial in road.network.dials], [9001, 9002, 9003])
        client.transport.write(b"hello")
        road.network.settle()
        self.assertEqual(bytes(road.network.backends[0].received), b"hello")
        self.assertEqual(failures(road, "connect_failed"), [1, 1, 0])
        self.assertEqual([each.tcp_error for each in road.backends], [1, 1, 0])
        self.assertEqual((road.pool.retries, road.pool.budget_exhausted), (2, 0))
        client.transport.abortConnection()
        self.whole(road, client_closed=1)
        self.assertEqual((road.records[0].backend, road.records[0].attempts), ("b9003", 3))

    def test_not_the_one_that_has_failed(self) -> None:
        """Another backend is tried also where it would be the failed one's turn."""
        road = Road(2)
        road.network.answers[9001] = PENDING
        client, other = road.connect(), road.connect()
        self.assertEqual([dial.port for dial in road.network.dials], [9001, 9002])
        road.network.dials[0].fail()
        self.assertEqual(road.network.dials[2].port, 9002)
        for each in (client, other):
            each.transport.abortConnection()
        self.whole(road, client_closed=2)

    def test_attempts(self) -> None:
        """After so many attempts the client is closed, in order, and the last failure is the reason."""
        road = Road(5, attempts=3)
        road.network.answers = dict.fromkeys(range(9001, 9006), REFUSED)
        client = road.connect()
        self.whole_after_close(road, client, connect_failed=1)
        self.assertEqual([dial.port for dial in road.network.dials], [9001, 9002, 9003])
        self.assertEqual((road.records[0].backend, road.records[0].attempts), ("b9003", 3))
        self.assertIsNone(road.records[0].t_connect)

    def test_the_same_backend_where_there_is_no_other(self) -> None:
        """A pool of one gets another try at the same backend."""
        road = Road(1)
        road.network.answers[9001] = PENDING
        client = road.connect()
        road.network.pending.fail()
        road.network.pending.connect()
        client.transport.abortConnection()
        self.whole(road, client_closed=1)
        self.assertEqual(len(road.network.dials), 2)

    def test_not_asked_for(self) -> None:
        """Where `when` does not name connect_failure the first failure is the last."""
        road = Road(2, when=frozenset({"reset"}))
        road.network.answers[9001] = REFUSED
        self.whole_after_close(road, road.connect(), connect_failed=1)
        self.assertEqual(len(road.network.dials), 1)

    def test_budget(self) -> None:
        """The retry budget bounds retries: its floor of ten, then no more."""
        road = Road(1, attempts=2, budget=0.0)
        road.network.answers[9001] = REFUSED
        clients = [road.connect() for _ in range(15)]
        road.network.settle()
        self.assertEqual((road.pool.retries, road.pool.budget_exhausted, len(road.network.dials)), (10, 5, 25))
        for client in clients:
            client.transport.loseConnection()
        self.whole(road, connect_failed=15)

    def test_backoff(self) -> None:
        """With a backoff the next attempt waits, longer each time, and nothing of the client's is lost meanwhile."""
        road = Road(3, backoff=1.0)
        road.network.answers = {9001: REFUSED, 9002: REFUSED}
        client = road.connect()
        client.transport.write(b"hello")
        road.network.sleep(0.8)
        self.assertEqual(len(road.network.dials), 1)
        road.network.sleep(0.4)
        self.assertEqual(len(road.network.dials), 2)
        road.network.sleep(1.4)
        self.assertEqual(len(road.network.dials), 2)
        road.network.sleep(0.9)
        self.assertEqual(bytes(road.network.backends[0].received), b"hello")
        client.transport.abortConnection()
        self.whole(road, client_closed=1)

    def test_client_goes_during_backoff(self) -> None:
        """A client that goes while the next attempt waits ends it; nobody is dialled any more."""
        road = Road(2, backoff=1.0)
        road.network.answers[9001] = REFUSED
        client = road.connect()
        road.network.settle()
        client.transport.abortConnection()
        road.network.sleep(2)
        self.assertEqual(len(road.network.dials), 1)
        self.whole(road, client_closed=1)
        self.assertEqual(road.records[0].attempts, 1)

    def test_connect_timeout(self) -> None:
        """A dial that takes longer than `connect` is given up, counts as a timeout, and another backend is tried."""
        road = Road(2, connect=3)
        road.network.answers[9001] = PENDING
        client = road.connect()
        road.network.sleep(2.9)
        self.assertEqual(len(road.network.dials), 1)
        road.network.sleep(0.2)
        self.assertTrue(road.network.dials[0].was_cancelled)
        self.assertEqual((failures(road, "connect_timeout"), len(road.network.backends)), ([1, 0], 1))
        client.transport.abortConnection()
        self.whole(road, client_closed=1)

    def test_timeout_as_the_reason(self) -> None:
        """Where every attempt times out the client is closed for that."""
        road = Road(1, connect=1, attempts=2)
        road.network.answers[9001] = PENDING
        client = road.connect()
        road.network.sleep(2.1)
        self.whole_after_close(road, client, connect_timeout=1)

    def test_out_of_descriptors(self) -> None:
        """Having no descriptor left is no backend's fault, and no reason to try another."""
        road = Road(2)
        road.network.answers[9001] = errno.EMFILE
        self.whole_after_close(road, road.connect(), overload=1)
        self.assertEqual(len(road.network.dials), 1)
        self.assertEqual(sum(sum(each.failures.values()) + each.tcp_error for each in road.backends), 0)

    def test_no_backend(self) -> None:
        """With no backend to be had the connection is closed and counted so."""
        road = Road(2)
        for each in road.backends:
            each.health = "down"
        road.pool.refresh()
        self.whole_after_close(road, road.connect(), no_backend=1)
        self.assertEqual((road.network.dials, road.records[0].attempts), ([], 0))

    def test_pool_empties_meanwhile(self) -> None:
        """A pool that has become empty by the time of a retry is no backend."""
        road = Road(1)
        road.network.answers[9001] = PENDING
        client = road.connect()
        road.backends[0].health = "down"
        road.pool.refresh()
        road.network.pending.fail()
        self.whole_after_close(road, client, no_backend=1)


class EarlyTests(RoadTestCase):
    def pending(self, **keys: float) -> Road:
        road = Road(**keys)  # type: ignore[arg-type]
        road.network.answers[9001] = PENDING
        return road

    def test_early_bytes(self) -> None:
        """What a client sends before its backend is there is kept, one read of it, and handed over first."""
        road = self.pending()
        client = road.connect()
        client.transport.write(BIG)
        road.network.sleep(1)
        relay = next(iter(road.site.relays))
        self.assertEqual([len(each) for each in relay.early], [65536])
        self.assertGreater(client.transport.queued, len(BIG) // 2)
        backend = road.network.pending.connect()
        road.network.settle()
        self.assertEqual(bytes(backend.received), BIG)
        self.assertEqual(list(relay.early), [])
        client.transport.abortConnection()
        self.whole(road, client_closed=1)

    def test_into_a_backend_that_does_not_read(self) -> None:
        """Early bytes that the backend does not take keep the client stopped, however many reads they were."""
        road = self.pending(kernel=1000)
        client = road.connect()
        for at in range(0, 200_000, 50_000):  # as a transport may that has decrypted more than it was asked for
            road.network.wires[0].right.protocol.dataReceived(BIG[at : at + 50_000])
        client.transport.write(BIG[200_000:])
        backend = road.network.pending.connect()
        self.assertFalse(road.network.wires[0].right.reading)
        self.stop(backend)
        road.network.settle()
        self.assertLessEqual(road.network.wires[1].left.queued, 200_000)
        self.go_on(backend)
        road.network.settle()
        self.assertEqual(bytes(backend.received), BIG)

    def test_finished_side_is_not_read_on(self) -> None:
        """A side that has finished is never read again: its end would be found a second time."""
        road = Road()
        client, backend = road.pair()
        relay = next(iter(road.site.relays))
        self.stop(backend)
        client.transport.write(BIG[:200_000])
        road.network.settle()
        assert relay.upstream is not None
        relay.downstream.has_finished = True
        relay.upstream.resumeProducing()
        self.assertFalse(road.network.wires[0].right.reading)

    def test_client_finishes_first(self) -> None:
        """A client that has finished before its backend is there is heard whole, and gets its answer."""
        for early in (b"", b"all of it"):
            road = self.pending(half_close=5)
            client = road.connect()
            client.transport.write(early)
            client.transport.loseWriteConnection()
            road.network.settle()
            backend = road.network.pending.connect()
            road.network.settle()
            self.assertEqual((bytes(backend.received), backend.events), (early, ["made", "read-end"]))
            backend.transport.write(b"answer")
            road.network.sleep(4)
            self.assertEqual(bytes(client.received), b"answer")
            road.network.sleep(2)  # and the backend does not finish
            client.transport.loseConnection()
            backend.transport.loseConnection()
            self.whole(road, idle_timeout=1)

    def test_client_goes(self) -> None:
        """A client that goes while its backend is dialled ends the dial, and nobody is blamed."""
        road = self.pending()
        client = road.connect()
        road.network.settle()
        client.transport.abortConnection()
        self.whole(road, client_closed=1)
        self.assertTrue(road.network.dials[0].was_cancelled)
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_dialling_is_not_idling(self) -> None:
        """While a dial is under way only its own deadline counts."""
        road = self.pending(idle=1, connect=5)
        client = road.connect()
        road.network.sleep(4)
        self.assertEqual(road.reasons, {})
        road.network.pending.connect()
        road.network.sleep(0.5)
        client.transport.abortConnection()
        self.whole(road, client_closed=1)
