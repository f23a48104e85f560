"""Health checks as they run: when they ask, what they write down, what a flip does."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.net.prober import HealthChecker, Prober
from tests.core.members import member, pool_of
from tests.net.wired import BLACK_HOLE, BROKEN, EXHAUSTED, OPEN, REFUSED, Net

WALL = 1_700_000_000.0


class Probing:
    """A pool whose backends are checked over wires: `Probing(interval=1).start()`."""

    def __init__(self, count: int = 1, seed: int = 1, **policy: Any) -> None:
        self.net = Net()
        self.told: list[str] = []
        self.policy = HealthCheckPolicy(**policy)
        self.backends = [member(chr(97 + n), health="unknown") for n in range(count)]
        for port, backend in enumerate(self.backends, 8001):
            backend.port = port
        self.pool = pool_of(self.backends, on_empty=self.empty, on_available=self.available)
        self.checker = HealthChecker(
            self.net.clock, random.Random(seed), self.flipped, self.net.dial, lambda: WALL + self.net.clock.seconds()
        )
        for backend in self.backends:
            self.checker.add(self.pool, backend, self.policy)

    def start(self) -> Probing:
        self.checker.startService()
        self.net.settle()
        return self

    def flipped(self, backend: Backend, detail: str) -> None:
        self.told.append(f"{backend.name} {backend.health}: {detail}")

    def empty(self, pool: Pool) -> None:
        self.told.append("empty")

    def available(self, pool: Pool) -> None:
        self.told.append("available")

    @property
    def only(self) -> Backend:
        return self.backends[0]

    @property
    def times(self) -> list[float]:
        return [round(dialled.at, 6) for dialled in self.net.dials]

    @property
    def prober(self) -> Prober:
        return self.checker._probers[self.only]


class Suspected(TestCase):
    def test_back(self) -> None:
        """One that could not be reached a moment ago, and is found to be back, is trusted at once."""
        probing = Probing()
        probing.only.is_suspect = True
        probing.start()
        self.assertEqual((probing.only.health, probing.only.is_suspect), ("up", False))
        self.assertTrue(probing.pool.can_serve(probing.only))


class Tcp(TestCase):
    def test_open(self) -> None:
        """HC-1, HC-10: an open port is up with the first check, which begins at once and closes cleanly."""
        probing = Probing().start()
        self.assertEqual(probing.told, ["a up: connected"])
        self.assertEqual(probing.times, [0.0])
        (dialled,) = probing.net.dials
        assert dialled.peer is not None
        self.assertEqual((dialled.is_open, bytes(dialled.peer.received)), (False, b""))
        self.assertEqual(probing.only.last_check, (True, WALL, "connected"))
        self.assertEqual(probing.only.checks, {"success": 1, "failure": 0})

    def test_closed(self) -> None:
        """A closed port is down within interval and timeout, and the detail says why (HC-1)."""
        probing = Probing()
        probing.net.answers[8001] = REFUSED
        probing.start()
        self.assertEqual(probing.told, ["a down: connection refused", "empty"])
        self.assertIsNone(probing.pool.pick())

    def test_black_hole(self) -> None:
        """A dial that never ends fails at the timeout, and is given up (HC-4)."""
        probing = Probing(timeout=2.0)
        probing.net.answers[8001] = BLACK_HOLE
        probing.start()
        probing.net.advance(1.9)
        self.assertEqual((probing.told, probing.only.health), ([], "unknown"))
        probing.net.advance(0.2)
        self.assertEqual(probing.told, ["a down: no answer within 2s", "empty"])
        self.assertTrue(probing.net.dials[0].cancelled)
        self.assertAlmostEqual(probing.only.check_duration.total, 2.0, places=3)

    def test_another_port(self) -> None:
        """HC-7: the check goes to the policy's port, traffic to the backend's."""
        probing = Probing(port=9000)
        probing.net.answers = {8001: REFUSED, 9000: OPEN}
        probing.start()
        self.assertEqual([dialled.port for dialled in probing.net.dials], [9000])
        self.assertEqual((probing.only.health, probing.only.port), ("up", 8001))

    def test_unresolved(self) -> None:
        """A backend whose name is not resolved is down without a dial."""
        probing = Probing()
        probing.only.host = ""
        probing.start()
        self.assertEqual(probing.net.dials, [])
        self.assertEqual(probing.told[0], "a down: name not resolved")


class Rounds(TestCase):
    def test_fall_and_rise(self) -> None:
        """HC-5, HC-6: three failures in a row take it out, two successes bring it back; each change is told once."""
        probing = Probing(interval=1.0).start()
        probing.net.answers[8001] = REFUSED
        counts = []
        while probing.only.health == "up":
            probing.net.advance(0.1)
            counts.append(probing.only.checks["failure"])
        self.assertEqual(counts[-1], 3)
        self.assertIsNone(probing.pool.pick())
        probing.net.advance(5.0)
        probing.net.answers[8001] = OPEN
        before = probing.only.checks["success"]
        while probing.only.health == "down":
            probing.net.advance(0.1)
        self.assertEqual(probing.only.checks["success"] - before, 2)
        self.assertIsNotNone(probing.pool.pick())
        probing.net.advance(5.0)
        self.assertEqual(
            probing.told,
            ["a up: connected", "a down: connection refused", "empty", "available", "a up: connected"],
        )

    def test_empty_pool(self) -> None:
        """FO-4: where nobody else is left one check that passes is enough to be tried, one that fails ends it again."""
        probing = Probing(interval=1.0).start()
        probing.net.answers[8001] = REFUSED
        probing.net.advance(5.0)
        self.assertIsNone(probing.pool.pick())
        probing.net.answers[8001] = OPEN
        before = probing.only.checks["success"]
        while probing.only.checks["success"] == before:
            probing.net.advance(0.1)
        self.assertEqual(probing.only.health, "down")
        self.assertIsNotNone(probing.pool.pick())
        probing.net.answers[8001] = REFUSED
        before = probing.only.checks["failure"]
        while probing.only.checks["failure"] == before:
            probing.net.advance(0.1)
        self.assertIsNone(probing.pool.pick())

    def test_interval(self) -> None:
        """Checks are an interval apart, each within ten per cent of it, and not all alike (HC-3)."""
        probing = Probing(interval=5.0).start()
        probing.net.advance(500.0)
        gaps = [later - earlier for earlier, later in pairwise(probing.times)]
        self.assertGreater(len(gaps), 90)
        for gap in gaps:
            self.assertLessEqual(abs(gap - 5.0), 0.5 + 1e-6)
        self.assertGreater(max(gaps) - min(gaps), 0.5)

    def test_out_of_step(self) -> None:
        """HC-3: checks of backends that began together drift apart."""
        probing = Probing(count=10, interval=5.0).start()
        probing.net.advance(300.0)
        last = {}
        for dialled in probing.net.dials:
            last[dialled.port] = dialled.at
        self.assertGreater(max(last.values()) - min(last.values()), 1.0)

    def test_no_overlap(self) -> None:
        """HC-4: a timeout longer than the interval does not let two checks of a backend run at once."""
        probing = Probing(interval=1.0, timeout=3.5)
        probing.net.answers[8001] = BLACK_HOLE
        probing.start()
        probing.net.advance(40.0)
        for earlier, later in pairwise(probing.times):
            self.assertGreaterEqual(later - earlier, 3.5)
        self.assertGreater(len(probing.times), 8)

    def test_concurrent(self) -> None:
        """HC-9: ten black holes do not delay the checks of a healthy one."""
        probing = Probing(count=11, interval=1.0, timeout=10.0)
        for port in range(8001, 8011):
            probing.net.answers[port] = BLACK_HOLE
        probing.start()
        self.assertEqual(probing.told, ["k up: connected"])
        probing.net.advance(9.0)
        self.assertGreaterEqual(probing.backends[-1].checks["success"], 8)
        self.assertEqual(probing.backends[0].checks, {"success": 0, "failure": 0})

    def test_never_stops(self) -> None:
        """After 10,000 rounds, with failures, exceptions and descriptors running out, it still reacts (HC-11, V3)."""
        probing = Probing(interval=0.01, timeout=0.005)
        answers = [OPEN, REFUSED, BLACK_HOLE, BROKEN, EXHAUSTED]
        probing.start()
        for turn in range(500):
            probing.net.answers[8001] = answers[turn % 5]
            probing.net.dials.clear()
            probing.net.advance(0.25, step=0.005)
        counts = probing.only.checks
        self.assertGreater(counts["success"] + counts["failure"], 8_000)
        self.assertGreater(len(self.flushLoggedErrors(OSError)), 1000)
        for answer, health in ((OPEN, "up"), (REFUSED, "down"), (OPEN, "up")):
            probing.net.answers[8001] = answer
            probing.net.advance(0.1, step=0.005)
            self.assertEqual(probing.only.health, health)

    def test_no_descriptors(self) -> None:
        """A check that could not be made for a reason of ours counts neither way."""
        probing = Probing(interval=1.0, fall=1).start()
        probing.net.answers[8001] = EXHAUSTED
        probing.net.advance(10.0)
        self.assertEqual((probing.only.health, probing.only.checks), ("up", {"success": 1, "failure": 0}))

    def test_a_listener_that_fails(self) -> None:
        """HC-11: an exception in on_flip is logged; the pool is refreshed all the same, and checks go on."""
        probing = Probing(interval=1.0, fall=1, rise=1)
        probing.prober._on_flip = lambda backend, detail: 1 // 0
        probing.start()
        probing.net.answers[8001] = REFUSED
        probing.net.advance(1.2)
        self.assertEqual(probing.told, ["empty"])
        probing.net.answers[8001] = OPEN
        probing.net.advance(1.2)
        self.assertEqual(probing.only.health, "up")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_the_wall_clock_steps(self) -> None:
        """Only last_check carries the wall clock; a step of it moves no check."""
        probing = Probing(interval=1.0)
        step = 0.0
        probing.prober._wall = lambda: WALL + step
        probing.start()
        step = -3600.0
        probing.net.advance(10.0)
        self.assertEqual(probing.only.last_check, (True, WALL - 3600.0, "connected"))
        self.assertGreaterEqual(len(probing.times), 9)

    def test_new_policy(self) -> None:
        """HC-12: a policy that is replaced is obeyed by the next check, and the verdict is kept."""
        probing = Probing(interval=1.0).start()
        probing.prober.policy = HealthCheckPolicy(interval=4.0, port=9000)
        probing.net.advance(30.0)
        self.assertEqual({dialled.port for dialled in probing.net.dials[1:]}, {9000})
        self.assertLess(len(probing.times), 11)
        self.assertEqual(probing.told, ["a up: connected"])


class Stopping(TestCase):
    def test_stop(self) -> None:
        """After a stop in mid-check nothing is called or dialled, and the connection is closed."""
        probing = Probing(count=2, type="http", interval=1.0)
        probing.net.answers[8002] = BLACK_HOLE
        probing.start()
        self.assertEqual(len(probing.net.open), 1)
        probing.checker.stopService()
        probing.net.settle()
        self.assertEqual(probing.net.open, [])
        self.assertTrue(probing.net.dials[1].cancelled)
        probing.net.advance(30.0)
        self.assertEqual((len(probing.net.dials), probing.told), (2, []))
        self.assertEqual(probing.net.clock.getDelayedCalls(), [])

    def test_stop_between_checks(self) -> None:
        """Stopped between two checks, no timer stays."""
        probing = Probing(interval=1.0).start()
        probing.checker.stopService()
        self.assertEqual(probing.net.clock.getDelayedCalls(), [])

    def test_stop_from_on_flip(self) -> None:
        """Whoever is told of a flip may remove the backend."""
        probing = Probing(interval=1.0)
        probing.prober._on_flip = lambda backend, detail: probing.checker.remove(backend)
        probing.start()
        probing.net.advance(5.0)
        self.assertEqual((len(probing.net.dials), probing.only.health), (1, "up"))
        self.assertEqual(probing.net.clock.getDelayedCalls(), [])

    def test_start_again(self) -> None:
        """A checker that was stopped can be started again, and begins with a check at once."""
        probing = Probing(interval=1.0).start()
        probing.checker.stopService()
        probing.net.advance(10.0)
        probing.start()
        self.assertEqual(probing.times, [0.0, 10.0])


class RealSockets(TestCase):
    def test_loopback(self) -> Deferred[Any]:
        """HC-1, HC-2: over real sockets an open port is up, a closed one down, by tcp and by http."""
        from twisted.internet import reactor

        from lbsvc.net.connector import dial
        from tests.kit.upstreams import named_backend

        running = named_backend("real")
        gone = named_backend("gone")
        gone.stop()
        self.addCleanup(running.stop)
        flips: list[str] = []
        checker = HealthChecker(
            reactor,
            random.Random(1),
            lambda backend, detail: flips.append(f"{backend.name} {detail}"),
            dial,
            lambda: WALL,
        )
        for name, port, kind in (("a", running.port, "tcp"), ("b", running.port, "http"), ("c", gone.port, "tcp")):
            backend = member(name, health="unknown", host="127.0.0.1")
            backend.port = port
            checker.add(pool_of([backend]), backend, HealthCheckPolicy(type=kind, timeout=10.0, interval=60.0))
        self.addCleanup(checker.stopService)
        checker.startService()

        def judged(_: object) -> None:
            self.assertEqual(sorted(flips), ["a connected", "b status 200", "c connection refused"])

        return checker.first_round.addCallback(judged)
