"""Health checks whose policy changes at run time: what the next check goes by, when it comes, and what is kept."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import TestCase

from lbsvc.core.policies import FlappingPolicy, HealthCheckPolicy
from tests.net.test_prober import Probing
from tests.net.wired import OPEN, REFUSED


class RevisingTests(TestCase):
    def revise(self, probing: Probing, flapping: FlappingPolicy | None = None, **keys: object) -> None:
        policy = replace(probing.prober.policy, **keys)  # type: ignore[arg-type]
        self.assertTrue(probing.checker.revise(probing.only, policy, flapping))

    def test_unknown(self) -> None:
        """Who is not checked is not checked by this either."""
        probing = Probing().start()
        probing.checker.remove(probing.only)
        self.assertFalse(probing.checker.revise(probing.only, HealthCheckPolicy()))

    def test_shorter_interval(self) -> None:
        """With a shorter interval the next check comes earlier: counted from the last one, at once where that is over."""
        probing = Probing().start()
        probing.net.advance(1.0)
        self.revise(probing, interval=2.0)
        probing.net.advance(1.3)
        self.assertEqual(len(probing.times), 2)
        self.assertTrue(1.8 <= probing.times[1] <= 2.2, probing.times)
        probing.net.advance(1.0)
        self.revise(probing, interval=0.5)
        probing.net.advance(0.1)
        self.assertEqual(len(probing.times), 3)

    def test_longer_interval(self) -> None:
        """A longer interval holds from the next check on."""
        probing = Probing().start()
        self.revise(probing, interval=60.0)
        probing.net.advance(20.0)
        self.assertEqual(len(probing.times), 2)

    def test_counts_are_kept(self) -> None:
        """What has been counted against a backend stays while `rise` and `fall` are the same."""
        probing = Probing().start()
        probing.net.answers[probing.only.port] = REFUSED
        probing.net.advance(11.0)  # two failures of three
        self.revise(probing, timeout=1.0)
        self.assertEqual((probing.only.health, probing.prober.verdict.streak), ("up", 2))
        self.revise(probing, fall=4)
        self.assertEqual((probing.only.health, probing.prober.verdict.streak), ("up", 0))

    def test_another_question(self) -> None:
        """Another path or type is decided by its first answer; health is what it was until then, and told if it flips."""
        probing = Probing().start()
        probing.told.clear()
        port = probing.only.port
        self.revise(probing, type="http", path="/new")
        self.assertEqual(probing.only.health, "up")
        probing.net.answers[port] = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
        probing.net.advance(6.0)
        self.assertEqual(probing.only.health, "down")
        self.assertEqual(len(probing.told), 2, probing.told)
        self.revise(probing, type="tcp")
        probing.net.answers[port] = OPEN
        probing.net.advance(6.0)
        self.assertEqual(probing.only.health, "up")
        self.revise(probing, type="tcp", path="/other")
        probing.told.clear()
        probing.net.advance(6.0)
        self.assertEqual(probing.told, [])

    def test_under_way(self) -> None:
        """A check that is under way when the question changes ends by the old rules; the next one decides."""
        probing = Probing().start()
        port = probing.only.port
        probing.net.answers[port] = "black hole"
        probing.net.advance(6.0)  # one is waiting for an answer
        self.revise(probing, type="http", path="/new")
        probing.net.advance(2.5)
        self.assertEqual((probing.only.health, probing.prober.verdict.streak), ("up", 1))
        probing.net.answers[port] = REFUSED
        probing.net.advance(6.0)
        self.assertEqual(probing.only.health, "down")

    def test_flapping_off(self) -> None:
        """Who is held down is what its checks have found as soon as flapping is off; turned on it counts from then."""
        probing = Probing().start()
        port = probing.only.port
        self.revise(probing, FlappingPolicy(changes=2, window=60.0, hold=600.0), rise=1, fall=1)
        for answer in (REFUSED, OPEN):
            probing.net.answers[port] = answer
            probing.net.advance(6.0)
        self.assertEqual(probing.only.health, "flapping")
        self.revise(probing)
        self.assertEqual(probing.only.health, "up")
        self.assertIsNone(probing.prober.flapping)
