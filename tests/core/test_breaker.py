"""A circuit as a story in time: closed, open, half-open, and back."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.breaker import Breaker
from lbsvc.core.policies import BreakerPolicy


def broken(now: float = 0.0, policy: BreakerPolicy | None = None) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(policy or BreakerPolicy())
    while breaker.state == "closed":
        breaker.observe(False, now)
    return breaker


def tried(now: float = 0.0, policy: BreakerPolicy | None = None) -> Breaker:
    """A breaker that opened at `now` and is half-open since its time was over."""
    breaker = broken(now, policy)
    assert breaker.half_open(now + breaker.policy.reset_timeout)
    return breaker


class ClosedTests(TestCase):
    def test_cb_2_opens_at_the_threshold(self) -> None:
        """CB-2: four failures in a row leave it closed, the fifth opens it, and is told once."""
        breaker = Breaker(BreakerPolicy())
        self.assertEqual([breaker.observe(False, 1.0) for _ in range(5)], [None, None, None, None, "open"])
        self.assertEqual(breaker.state, "open")
        self.assertIsNone(breaker.observe(False, 1.0))

    def test_cb_2_success_resets_the_count(self) -> None:
        """CB-2: a success while closed begins the row anew, so that four and four with one between do not open it."""
        breaker = Breaker(BreakerPolicy())
        for ok in (False, False, False, False, True, False, False, False, False):
            self.assertIsNone(breaker.observe(ok, 1.0))
        self.assertEqual(breaker.observe(False, 1.0), "open")

    def test_cb_2_rows_have_no_age(self) -> None:
        """CB-2: failures in a row open it however far apart they are."""
        breaker = Breaker(BreakerPolicy(failure_threshold=3))
        self.assertEqual([breaker.observe(False, now) for now in (0.0, 1e5, 2e5)], [None, None, "open"])

    def test_a_threshold_of_one(self) -> None:
        """With a threshold of one the first failure opens it, and nothing before it does."""
        breaker = Breaker(BreakerPolicy(failure_threshold=1))
        self.assertIsNone(breaker.observe(True, 0.0))
        self.assertEqual(breaker.observe(False, 0.0), "open")

    def test_old_results(self) -> None:
        """What began before the last trial neither opens a closed circuit nor begins its row anew."""
        breaker = Breaker(BreakerPolicy())
        for _ in range(4):
            breaker.observe(False, 0.0)
        self.assertIsNone(breaker.observe(False, 0.0, is_old=True))
        self.assertIsNone(breaker.observe(True, 0.0, is_old=True))
        self.assertEqual(breaker.observe(False, 0.0), "open")


class OpenTests(TestCase):
    def test_cb_3_not_before_its_time(self) -> None:
        """CB-3: it is not tried before reset_timeout after the failure that opened it, then once and for all."""
        breaker = broken(100.0)
        self.assertFalse(breaker.half_open(129.999))
        self.assertTrue(breaker.half_open(130.0))
        self.assertEqual(breaker.state, "half_open")
        self.assertFalse(breaker.half_open(130.0))

    def test_cb_3_counts_from_the_last_failure(self) -> None:
        """CB-3: a request that was under way when it opened and fails later puts the trial off."""
        breaker = broken(100.0)
        self.assertIsNone(breaker.observe(False, 120.0, is_old=True))
        self.assertFalse(breaker.half_open(149.999))
        self.assertTrue(breaker.half_open(150.0))

    def test_successes_mean_nothing(self) -> None:
        """Successes of requests that were under way when it opened neither close it nor bring the trial nearer."""
        breaker = broken(100.0)
        for _ in range(50):
            self.assertIsNone(breaker.observe(True, 101.0))
        self.assertFalse(breaker.half_open(129.0))

    def test_a_closed_one_is_not_tried(self) -> None:
        """Only an open circuit half-opens."""
        self.assertFalse(Breaker(BreakerPolicy()).half_open(1e9))


class HalfOpenTests(TestCase):
    def test_cb_4_successes_close_it(self) -> None:
        """CB-4: the third success closes it, not the second."""
        breaker = tried()
        self.assertEqual([breaker.observe(True, 31.0) for _ in range(3)], [None, None, "closed"])

    def test_cb_4_zeroes_the_counters(self) -> None:
        """Once closed it takes all five failures again to open it (CB-4)."""
        breaker = tried()
        for _ in range(3):
            breaker.observe(True, 31.0)
        self.assertEqual([breaker.observe(False, 32.0) for _ in range(5)], [None] * 4 + ["open"])

    def test_cb_4_any_failure_reopens_it(self) -> None:
        """One failure opens it, even after two successes, and restarts the timer (CB-4)."""
        breaker = tried()
        breaker.observe(True, 31.0)
        breaker.observe(True, 31.0)
        self.assertEqual(breaker.observe(False, 40.0), "open")
        self.assertFalse(breaker.half_open(69.999))
        self.assertTrue(breaker.half_open(70.0))

    def test_cb_4_successes_of_one_trial(self) -> None:
        """CB-4: successes of a trial that failed do not count for the next one."""
        breaker = tried()
        breaker.observe(True, 31.0)
        breaker.observe(True, 31.0)
        breaker.observe(False, 31.0)
        self.assertTrue(breaker.half_open(61.0))
        self.assertEqual([breaker.observe(True, 62.0) for _ in range(3)], [None, None, "closed"])

    def test_old_results(self) -> None:
        """What began before the trial neither closes nor opens it."""
        breaker = tried()
        for ok in (True, True, True, False, True):
            self.assertIsNone(breaker.observe(ok, 31.0, is_old=True))
        self.assertEqual(breaker.state, "half_open")

    def test_repr(self) -> None:
        """The breaker in one line."""
        self.assertEqual(repr(tried()), "<Breaker half_open, 5 failures in a row>")
