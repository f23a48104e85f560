"""How many workers there are, as a reload may change it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.errors import SystemRefusal
from lbsvc.workers.workforce import WORKFORCE
from tests.workers.acting import settings_of


class WorkforceTests(SynchronousTestCase):
    def test_several(self) -> None:
        """Of several there may be more or fewer, and it is said; the same number is no change."""
        for before, after, words in ((2, 5, ["workers: 2 -> 5"]), (5, 2, ["workers: 5 -> 2"]), (3, 3, []), (1, 1, [])):
            plan = WORKFORCE.prepare(settings_of(before), settings_of(after))
            self.assertEqual(plan.commit(), words)
            plan.abandon()

    def test_one(self) -> None:
        """From one to several, or back, is refused, in words, for the key that asks for it."""
        for before, after in ((1, 2), (4, 1)):
            refusal = self.assertRaises(SystemRefusal, WORKFORCE.prepare, settings_of(before), settings_of(after))
            (mistake,) = refusal.mistakes
            self.assertEqual(mistake.key, "workers")
            self.assertIn(f"from {before} to {after} takes a restart", mistake.message)
