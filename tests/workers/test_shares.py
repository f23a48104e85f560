"""Limits dealt out to workers: nothing is lost, nobody gets nothing, and what is no number of places stays as it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Settings
from lbsvc.core.policies import KeptConnections, QueuePolicy, RatePolicy
from lbsvc.workers.shares import dealt, share_of
from tests.kit import builders

WORKERS = st.integers(1, 64)


def served(**keys: object) -> Settings:
    """A listener and a pool with limits of 10, 5 and 4, and everything that is not dealt out."""
    return builders.settings(
        builders.listener(max_connections=10, connections_per_client=3, rate_limit=RatePolicy(10.0, 20), pool="web"),
        builders.pool(
            builders.backend("127.0.0.1:1", max_connections=5),
            builders.backend("127.0.0.1:2"),
            queue=QueuePolicy(4, 1.0),
            connections=KeptConnections(7, 30.0),
            ahead=6,
        ),
    )


class ShareTests(TestCase):
    @given(st.integers(1, 10_000_000), WORKERS)
    def test_all_of_it(self, limit: int, workers: int) -> None:
        """The shares add up to the limit and differ by one at most; a limit below the number is one for each."""
        shares = [share_of(limit, worker, workers) for worker in range(workers)]
        self.assertEqual(sum(shares), max(limit, workers))
        self.assertLessEqual(max(shares) - min(shares), 1)

    @given(WORKERS)
    def test_whole_settings(self, workers: int) -> None:
        """Together the workers have what the settings say, of each limit."""
        settings = served()
        each = [dealt(settings, worker, workers) for worker in range(workers)]
        self.assertEqual(sum(part.listeners["main"].max_connections for part in each), max(10, workers))
        self.assertEqual(sum(part.pools["web"].backends[0].max_connections or 0 for part in each), max(5, workers))
        self.assertEqual(sum(part.pools["web"].queue.size for part in each), max(4, workers))
        self.assertEqual(sum(part.pools["web"].connections.keep_alive for part in each), max(7, workers))
        self.assertEqual(sum(part.pools["web"].ahead for part in each), max(6, workers))

    def test_nothing_else(self) -> None:
        """What is told between workers, what has no limit, and all that is no number of places stay as they are."""
        settings = served()
        part = dealt(settings, 1, 2)
        listener, pool = part.listeners["main"], part.pools["web"]
        self.assertEqual((listener.max_connections, listener.connections_per_client), (5, 3))
        self.assertIs(listener.rate_limit, settings.listeners["main"].rate_limit)
        self.assertEqual([each.max_connections for each in pool.backends], [2, None])
        self.assertIs(pool.backends[1], settings.pools["web"].backends[1])
        self.assertEqual(pool.queue, QueuePolicy(2, 1.0))
        self.assertIs(part.log, settings.log)

    def test_nobody_waits(self) -> None:
        """A queue of no places is one of none in each worker; the same of connections that are kept, or dialled ahead."""
        pool = builders.pool("127.0.0.1:1", queue=QueuePolicy(0), connections=KeptConnections(0))
        part = dealt(builders.settings(builders.listener(pool="web"), pool), 0, 4).pools["web"]
        self.assertEqual((part.queue.size, part.connections.keep_alive, part.ahead), (0, 0, 0))

    def test_what_needs_no_change(self) -> None:
        """One worker has the settings themselves, and so has each of several what holds no limit above its share."""
        settings = served()
        self.assertIs(dealt(settings, 0, 1), settings)
        small = builders.settings(
            builders.listener(max_connections=1, pool="web"),
            builders.pool("127.0.0.1:1", queue=QueuePolicy(0), connections=KeptConnections(0)),
        )
        self.assertIs(dealt(small, 2, 3), small)
        self.assertEqual(dealt(settings, 1, 2), dealt(settings, 1, 2))
