"""The first round of health checks: when it is over, for whom, and who serves before it is."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Outcome
from tests.core.members import member
from tests.net.test_prober import Probing
from tests.net.wired import BLACK_HOLE, BROKEN, EXHAUSTED, REFUSED


class FirstRound(TestCase):
    def setUp(self) -> None:
        self.done: list[None] = []

    def watch(self, probing: Probing) -> Probing:
        probing.checker.first_round.addCallback(self.done.append)
        return probing.start()

    def test_all_have_a_verdict(self) -> None:
        """The first round is over when each backend has a verdict or its first timeout is over."""
        probing = Probing(count=3, timeout=2.0)
        probing.net.answers.update({8002: REFUSED, 8003: BLACK_HOLE})
        self.watch(probing)
        probing.net.advance(1.9)
        self.assertEqual(self.done, [])
        probing.net.advance(0.2)
        self.assertEqual(self.done, [None])
        self.assertEqual([backend.health for backend in probing.backends], ["up", "down", "down"])

    def test_nobody(self) -> None:
        """Without backends to check the round is over at once."""
        self.watch(Probing(count=0))
        self.assertEqual(self.done, [None])

    def test_removed_ones_are_not_awaited(self) -> None:
        """A backend that is removed during the round is not waited for."""
        probing = Probing(count=2)
        probing.net.answers[8002] = BLACK_HOLE
        self.watch(probing)
        probing.checker.remove(probing.backends[1])
        self.assertEqual(self.done, [None])
        probing.checker.remove(probing.backends[1])

    def test_ours_to_blame(self) -> None:
        """A first check that could not be made does not keep the round waiting."""
        for answer in (EXHAUSTED, BROKEN):
            self.done.clear()
            probing = Probing()
            probing.net.answers[8001] = answer
            self.watch(probing)
            self.assertEqual(self.done, [None])
        self.flushLoggedErrors(OSError)

    def test_stopped_before_the_end(self) -> None:
        """Stopping is no verdict: the round of a checker that is stopped is never over."""
        probing = Probing()
        probing.net.answers[8001] = BLACK_HOLE
        self.watch(probing)
        probing.checker.stopService()
        probing.net.advance(10.0)
        probing.checker.remove(probing.only)
        self.assertEqual(self.done, [])

    def test_added_later(self) -> None:
        """HC-10: a backend that is added while the service runs is checked at once; twice is a mistake."""
        probing = self.watch(Probing(interval=5.0))
        probing.net.advance(1.0)
        late = member("z", health="unknown")
        probing.checker.add(probing.pool, late, probing.policy)
        self.assertEqual((late.health, probing.times[-1]), ("up", 1.0))
        self.assertRaises(ValueError, probing.checker.add, probing.pool, late, probing.policy)
        self.assertEqual(repr(probing.checker), "<HealthChecker of 2 backends>")

    def test_another_round(self) -> None:
        """Whoever is there later can be awaited too: late names, say; it is over at once where all have been asked."""
        probing = self.watch(Probing(interval=5.0, timeout=2.0))
        rounds: list[str] = []
        probing.checker.everyone_asked().addCallback(lambda _: rounds.append("all asked"))
        self.assertEqual(rounds, ["all asked"])
        late = member("z", health="unknown")
        probing.net.answers[late.port] = BLACK_HOLE
        probing.checker.add(probing.pool, late, probing.policy)
        probing.checker.everyone_asked().addCallback(lambda _: rounds.append("late one too"))
        probing.net.advance(1.9)
        self.assertEqual(rounds, ["all asked"])
        probing.net.advance(0.2)
        self.assertEqual((rounds, late.health), (["all asked", "late one too"], "down"))

    def test_unchecked_ones_serve_only_if_nobody_else_does(self) -> None:
        """HC-10: until a first check has passed a backend serves only while no other is up."""
        probing = Probing(count=2)
        probing.net.answers.update({8001: BLACK_HOLE, 8002: BLACK_HOLE})
        probing.start()
        lease = probing.pool.pick()
        assert lease is not None
        lease.release(Outcome.OK)
        probing.backends[1].health = "up"
        probing.pool.refresh()
        self.assertEqual({lease.backend.name for _ in range(9) if (lease := probing.pool.pick())}, {"b"})
