"""Backends that go up and down: held down by their prober, told once, let go when they have become quiet."""

from __future__ import annotations

import random

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.policies import FlappingPolicy, HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.net.prober import HealthChecker
from tests.core.members import member, pool_of
from tests.net.wired import OPEN, REFUSED, Net

#: One check a second turns the verdict.
CHECKS = HealthCheckPolicy(interval=1.0, rise=1, fall=1)
PORT = 8001


class Shaking:
    """A backend `a` whose checks find what `turn` says, and a steady `b` where `with_other`."""

    def __init__(self, policy: FlappingPolicy | None, with_other: bool = False) -> None:
        self.net = Net()
        self.told: list[str] = []
        self.shaky = member("a", health="unknown")
        self.shaky.port = PORT
        others = [member("b")] if with_other else []
        self.pool = pool_of([self.shaky, *others], on_empty=self.empty, on_available=self.available)
        self.checker = HealthChecker(self.net.clock, random.Random(1), self.flipped, self.net.dial, lambda: 0.0)
        self.checker.add(self.pool, self.shaky, CHECKS, policy)
        self.checker.startService()
        self.net.settle()

    def flipped(self, backend: Backend, detail: str) -> None:
        self.told.append(f"{backend.health}: {detail}")

    def empty(self, pool: Pool) -> None:
        self.told.append("empty")

    def available(self, pool: Pool) -> None:
        self.told.append("available")

    def turn(self, times: int = 1) -> None:
        """So many checks that find the contrary of the one before."""
        for _ in range(times):
            ok = self.shaky.last_check is not None and self.shaky.last_check[0]
            self.net.answers[PORT] = REFUSED if ok else OPEN
            done = sum(self.shaky.checks.values())
            while sum(self.shaky.checks.values()) == done:
                self.net.advance(0.05)

    @property
    def picked(self) -> str | None:
        lease = self.pool.pick()
        return lease.backend.name if lease is not None else None


class FlappingTests(TestCase):
    def test_cb_5_held_down(self) -> None:
        """CB-5: four changes are told one by one; with the fifth the backend is held down, and said to be."""
        shaking = Shaking(FlappingPolicy())
        shaking.turn(4)
        self.assertEqual(
            [each.split(":")[0] for each in shaking.told if ":" in each], ["up", "down", "up", "down", "up"]
        )
        del shaking.told[:]
        shaking.turn()
        self.assertEqual(shaking.shaky.health, "flapping")
        self.assertEqual(
            shaking.told,
            ["flapping: up and down too often, held down for 60s; connection refused", "empty"],
        )

    def test_cb_5_steady_others(self) -> None:
        """CB-5: while it is held the others serve, and neither the pool nor its log flaps, whatever the checks find."""
        shaking = Shaking(FlappingPolicy(), with_other=True)
        shaking.turn(5)
        del shaking.told[:]
        for _ in range(30):
            shaking.turn()
            self.assertEqual((shaking.picked, shaking.picked), ("b", "b"))
        self.assertEqual((shaking.told, shaking.shaky.health), ([], "flapping"))

    def test_cb_5_let_go(self) -> None:
        """CB-5: 60 s after the change that was too many it is what its checks have found: up at once if they pass."""
        shaking = Shaking(FlappingPolicy(), with_other=True)
        shaking.turn(5)
        since = shaking.net.clock.seconds()
        shaking.net.answers[PORT] = OPEN
        del shaking.told[:]
        while shaking.shaky.health == "flapping":
            shaking.net.advance(0.05)
        # Its return, a second or so after the fifth change, was one more within the window: the hold counts from there.
        held = shaking.net.clock.seconds() - since
        self.assertTrue(60.0 < held < 61.5, held)
        self.assertEqual(shaking.told, ["up: no longer held down; connected"])
        self.assertEqual({shaking.picked, shaking.picked}, {"a", "b"})

    def test_let_go_while_down(self) -> None:
        """One that is down when its hold ends is down, and told so."""
        shaking = Shaking(FlappingPolicy(changes=3, hold=10.0))
        shaking.turn(3)
        del shaking.told[:]
        shaking.net.advance(12.0)
        self.assertEqual(shaking.told, ["down: no longer held down; connection refused"])
        self.assertIsNone(shaking.picked)

    def test_goes_on_flapping(self) -> None:
        """One that keeps flapping is held all the while, with one timer beside that of its checks."""
        shaking = Shaking(FlappingPolicy(changes=3, window=10.0, hold=5.0))
        shaking.turn(3)
        del shaking.told[:]
        for _ in range(40):
            shaking.turn()
            self.assertEqual(shaking.shaky.health, "flapping")
        self.assertEqual([each for each in shaking.told if ":" in each], [])
        self.assertLessEqual(len(shaking.net.clock.getDelayedCalls()), 2)

    def test_nobody_else(self) -> None:
        """FO-4: where nobody else is left one that is held down is tried while its last check has passed."""
        shaking = Shaking(FlappingPolicy(changes=3))
        shaking.turn(3)
        self.assertIsNone(shaking.picked)
        shaking.turn()
        self.assertEqual((shaking.shaky.health, shaking.picked), ("flapping", "a"))
        shaking.turn()
        self.assertIsNone(shaking.picked)

    def test_slow_changes(self) -> None:
        """Changes that are far enough apart are no flapping."""
        shaking = Shaking(FlappingPolicy(changes=3, window=5.0))
        for _ in range(10):
            shaking.turn()
            shaking.net.advance(5.0)
            self.assertIn(shaking.shaky.health, ("up", "down"))

    def test_the_first_verdict_is_no_change(self) -> None:
        """Coming up for the first time does not count: with `changes: 1` the next flip is the one too many."""
        shaking = Shaking(FlappingPolicy(changes=1))
        self.assertEqual(shaking.shaky.health, "up")
        shaking.turn()
        self.assertEqual(shaking.shaky.health, "flapping")

    def test_off(self) -> None:
        """Without a policy a backend may flap for ever."""
        shaking = Shaking(None)
        for _ in range(20):
            shaking.turn()
            self.assertIn(shaking.shaky.health, ("up", "down"))

    def test_stop(self) -> None:
        """A checker that stops leaves no timer of a hold; started again, it holds for what is left of it."""
        shaking = Shaking(FlappingPolicy(changes=3, hold=20.0))
        shaking.turn(3)
        shaking.checker.stopService()
        self.assertEqual(shaking.net.clock.getDelayedCalls(), [])
        shaking.net.advance(15.0)
        shaking.checker.startService()
        shaking.net.advance(4.0)
        self.assertEqual(shaking.shaky.health, "flapping")
        shaking.net.advance(2.0)
        self.assertEqual(shaking.shaky.health, "down")

    def test_remove_from_on_flip(self) -> None:
        """Whoever is told of the hold, or of its end, may remove the backend: no timer is left."""
        for word in ("flapping", "down: no longer"):
            shaking = Shaking(FlappingPolicy(changes=3, hold=5.0))

            def flipped(backend: Backend, detail: str, shaking: Shaking = shaking, word: str = word) -> None:
                if f"{backend.health}: {detail}".startswith(word):
                    shaking.checker.remove(backend)

            shaking.checker._probers[shaking.shaky]._on_flip = flipped
            shaking.turn(3)
            shaking.net.advance(10.0)
            self.assertEqual(shaking.checker._probers, {})
            self.assertEqual(shaking.net.clock.getDelayedCalls(), [])

    def test_a_listener_that_fails(self) -> None:
        """An exception in on_flip at the end of a hold is logged; the pool hears of it, and checks go on."""
        shaking = Shaking(FlappingPolicy(changes=3, hold=5.0))
        shaking.turn(3)
        shaking.checker._probers[shaking.shaky]._on_flip = lambda backend, detail: 1 // 0
        shaking.net.answers[PORT] = OPEN
        shaking.net.advance(10.0)
        self.assertEqual((shaking.shaky.health, shaking.picked), ("up", "a"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
