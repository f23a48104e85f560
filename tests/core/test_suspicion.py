"""Who could not be reached a moment ago comes after the others, and is trusted again."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.pool import Pool


class SuspicionTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = Pool("web", "round_robin", Random(1))
        self.pool.on_suspect = lambda backend: self.clock.callLater(1.0, self.pool.trust, backend)
        self.members = [Backend("web", name, f"{name}:1", "127.0.0.1", 1) for name in "abc"]
        for member in self.members:
            member.health = "up"
        self.pool.set_members(self.members)

    def picks(self, count: int) -> list[str]:
        names = []
        for _ in range(count):
            lease = self.pool.pick()
            assert lease is not None
            names.append(lease.backend.name)
            lease.release(Outcome.OK, 200)
        return names

    def fail(self, outcome: Outcome) -> str:
        lease = self.pool.pick()
        assert lease is not None
        lease.release(outcome)
        return lease.backend.name

    def test_passed_over(self) -> None:
        """FO-1: after a dial that failed the backend gets no turn while others are up, so no retry is spent on it."""
        for outcome in (Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT):
            failed = self.fail(outcome)
            self.assertNotIn(failed, self.picks(30))
            self.clock.advance(1.0)

    def test_trusted_again(self) -> None:
        """A while later it has its turns again, though no check has said anything."""
        failed = self.fail(Outcome.CONNECT_FAILED)
        self.clock.advance(1.0)
        self.assertEqual(self.picks(30).count(failed), 10)

    def test_other_failures(self) -> None:
        """A reset or an answer that is too slow is no reason: the backend was reached."""
        for outcome in (Outcome.RESET, Outcome.TIMEOUT, Outcome.PROTOCOL):
            failed = self.fail(outcome)
            self.assertEqual(self.picks(30).count(failed), 10)

    def test_all_of_them(self) -> None:
        """When nobody can be reached they are all tried on: suspicion never empties a pool."""
        for _ in self.members:
            self.fail(Outcome.CONNECT_FAILED)
        self.assertEqual(sorted(set(self.picks(3))), ["a", "b", "c"])
        self.assertTrue(self.pool.is_available)

    def test_once(self) -> None:
        """However often it fails meanwhile, it is told once and trusted once."""
        for member in self.members[1:]:
            member.health = "down"
        self.pool.refresh()
        for _ in range(5):
            self.fail(Outcome.CONNECT_FAILED)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
