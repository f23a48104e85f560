"""A day in seconds: no rule is broken, nothing is left over, and the same seed gives the same day."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Collection
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolSettings
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import find_lease
from lbsvc.core.lease import Lease
from lbsvc.core.policies import BreakerPolicy, QueuePolicy, RetryPolicy
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue, Ticket, Waiter
from lbsvc.core.retry import RetryBudget
from tests.kit.processes import ROOT
from tests.simulation import visits
from tests.simulation.days import DAY, HOUR, LOAD, MACHINES, RETRY, plan, world
from tests.simulation.machines import Machine
from tests.simulation.referee import Broken
from tests.simulation.tables import remember
from tests.simulation.world import Step, World, entry

SEED = 3


def played(seed: int, days: float, load: float = LOAD) -> World:
    """So much of a day."""
    simulated = world(seed, load)
    simulated.play(plan(seed, days), days * DAY)
    return simulated


class DayTests(TestCase):
    def setUp(self) -> None:
        remember(self)

    def test_a_day(self) -> None:
        """24 hours with every algorithm, policy and trouble: no rule is broken, and at the end nothing is left
        (TST-5)."""
        simulated = played(SEED, 1.0)
        names = {each.name for each in simulated.pool.backends}
        self.assertEqual(simulated.now, DAY)
        self.assertGreater(simulated.arrived, 50_000)
        # It was a day on which something happened.
        for word in ("ok", "client_closed", "rate_limited", "queue_full", "queue_timeout", "circuit_open"):
            self.assertGreater(simulated.ends[word], 0, simulated.ends)
        for word in ("upstream_reset", "upstream_timeout", "connect_failed", "retry_budget", "killed"):
            self.assertGreater(simulated.ends[word], 0, simulated.ends)
        for word in ("circuit.open", "circuit.half_open", "circuit.closed", "backend.ejected", "backend.returned"):
            self.assertGreater(simulated.told[word], 10, simulated.told)
        for word in ("health", "flapping", "empty", "cut", "drained", "backend.removed", "backend.added"):
            self.assertGreater(simulated.told[word], 0, simulated.told)
        self.assertGreater(simulated.ends["ok"], 0.7 * simulated.arrived)
        simulated.end()
        self.assert_forgotten(simulated, names)

    def assert_forgotten(self, simulated: World, names: set[str]) -> None:
        """Of all backends, leases and tickets of the day the members alone are alive, and who has just left."""
        name = simulated.pool.name
        simulated.last.clear()
        gc.collect()
        alive = [each for each in gc.get_objects() if isinstance(each, Backend | Lease | Ticket)]
        backends = [each for each in alive if isinstance(each, Backend) and each.pool == name]
        leases = [each for each in alive if isinstance(each, Lease) and each.backend.pool == name]
        tickets = [each for each in alive if isinstance(each, Ticket) and each._queue is simulated.pool.queue]
        self.assertLessEqual(len(backends), len(names) + simulated.gone, backends)
        self.assertEqual((len(leases), len(tickets)), (0, 1))  # a queue's ring is closed by a ticket

    def test_by_its_seed_alone(self) -> None:
        """The same seed gives the same day to the last event, in another process with other hashes too."""
        first = played(SEED, 0.05)
        first.end()
        again = played(SEED, 0.05)
        again.end()
        self.assertEqual(first.digest, again.digest)
        other = played(SEED + 1, 0.05)
        self.assertNotEqual(first.digest, other.digest)
        environment = os.environ | {"PYTHONHASHSEED": "4711"}
        command = [sys.executable, "-m", "tests.simulation", "--days", "0.05", "--seed", str(SEED), "--quiet"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        found = re.search(r"digest (\w+)", done.stdout)
        assert found is not None
        self.assertEqual(found[1], first.digest)


def trial_pool() -> PoolSettings:
    """One that fails, and is tried again and again, and two backups that are busy meanwhile."""
    entries = entry(0), entry(1, backup=True, max_connections=1), entry(2, backup=True, max_connections=1)
    return PoolSettings("trials", entries, circuit_breaker=BreakerPolicy(1, 3.0, 1), queue=QueuePolicy(50, 20.0))


def retry_pool() -> PoolSettings:
    """One that has a single place and often fails, and a backup that is idle."""
    entries = entry(0, max_connections=1), entry(1, backup=True, max_connections=1)
    retry = RetryPolicy(2, frozenset({"reset"}), budget=1.0)
    return PoolSettings("retries", entries, queue=QueuePolicy(50, 20.0), retry=retry)


def crowded(settings: PoolSettings, trouble: str) -> World:
    """Five minutes with always somebody waiting; the first machine has this trouble, the last of three now and then more
    places."""
    count = len(settings.backends)
    simulated = World(SEED, settings, [Machine(2.0) for _ in range(count)], load=1.5)
    steps = [Step(1.0, "trouble", 0, trouble, 300.0)]
    if count > 2:
        places = [(float(at), {"max_connections": at // 5 % 2 * 2 + 1}) for at in range(10, 300, 5)]
        steps += [Step(at, "backend", count - 1, keys) for at, keys in places]
    simulated.play(steps, 300.0)
    return simulated


class RefereeTests(TestCase):
    """Pools with a fault built in: the referee must notice, or the days above say nothing."""

    def assert_noticed(self, words: str, load: float = LOAD) -> None:
        error = self.assertRaises(Broken, played, SEED, 4 * HOUR / DAY, load)
        self.assertIn(f"seed {SEED}", str(error))
        self.assertIn(words, str(error))

    def test_forgotten_waiters(self) -> None:
        """A queue that is not served is noticed."""
        self.patch(Pool, "serve_queue", lambda pool: None)
        self.assert_noticed("waits")

    def test_overtaking(self) -> None:
        """A queue that serves first who came last is noticed."""
        enter = Queue.enter

        def at_the_front(queue: Queue, waiter: Waiter) -> Ticket | None:
            ticket = enter(queue, waiter)
            ring = queue._ring
            if ticket is not None and ring._after is not ticket:
                ticket._before._after, ring._before = ring, ticket._before
                ticket._before, ticket._after = ring, ring._after
                ring._after._before = ring._after = ticket
            return ticket

        self.patch(Queue, "enter", at_the_front)
        self.assert_noticed("who waits for longer", 3.0)

    def test_a_lease_that_counts_twice(self) -> None:
        """Books that are one off are noticed."""
        release = Lease.release

        def twice(lease: Lease, outcome: Outcome, *rest: Any) -> None:
            if outcome is Outcome.CLIENT_GONE:
                lease.backend.active -= 1
            release(lease, outcome, *rest)

        self.patch(Lease, "release", twice)
        self.assert_noticed("leases")

    def test_traffic_for_the_dead(self) -> None:
        """A pool that is not sorted anew gives work to who should have none: noticed."""
        refresh = Pool.refresh

        def seldom(pool: Pool) -> None:
            if not any(backend.circuit == "open" for backend in pool.backends):
                refresh(pool)

        self.patch(Pool, "refresh", seldom)
        self.assert_noticed("was picked")

    def test_no_room_at_backups(self) -> None:
        """A pool that knows no room at backups while the others are on trial makes those who wait miss it: noticed."""
        crowded(trial_pool(), "stalls").end()

        def has_room(pool: Pool) -> bool:
            rooms = pool._places.rooms
            return bool(rooms and rooms[0])

        self.patch(Pool, "has_room", property(has_room))
        error = self.assertRaises(Broken, crowded, trial_pool(), "stalls")
        self.assertIn("have room", str(error))

    def test_retries_behind_the_queue(self) -> None:
        """Retries that stand behind those who wait for the backend that they have tried are noticed."""
        crowded(retry_pool(), "resets").end()

        def find(
            pool: Pool,
            tried: Collection[Backend],
            key: int | None,
            preferred: Backend | None,
            is_next: bool,
            waits_for_home: bool = False,
        ) -> Lease | None:
            if len(pool.queue) and not is_next and not pool.has_spare_room:
                return None
            return find_lease(pool, tried, key, preferred, is_next, waits_for_home)

        self.patch(visits, "find_lease", find)
        error = self.assertRaises(Broken, crowded, retry_pool(), "resets")
        self.assertIn("which it has not tried", str(error))

    def test_a_budget_without_an_end(self) -> None:
        """Retries over the budget are noticed."""
        self.patch(RetryBudget, "may_retry", lambda budget, now: True)
        simulated = world(SEED, 6.0)
        steps = [Step(0.0, "settings", what={"retry": RETRY})]
        steps += [Step(10.0, "trouble", who, "resets", 600.0) for who in range(MACHINES)]
        error = self.assertRaises(Broken, simulated.play, steps, 600.0)
        self.assertIn("requests: True", str(error))
