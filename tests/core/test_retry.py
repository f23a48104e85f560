"""Retries: which requests, how many, how soon."""

from __future__ import annotations

import random

from twisted.trial.unittest import TestCase

from lbsvc.core.policies import Backoff, RetryPolicy
from lbsvc.core.retry import RetryBudget, backoff_delay, may_repeat


class MayRepeat(TestCase):
    def test_nothing_sent(self) -> None:
        """FO-1, FO-3: where nothing was sent any method goes again, whatever has become of its body."""
        for method in (b"GET", b"POST", b"PATCH", b"FROB"):
            for body_whole in (True, False):
                self.assertTrue(may_repeat(RetryPolicy(), method, False, body_whole, "connect_failure"))

    def test_something_sent(self) -> None:
        """FO-3: what a backend may have seen goes again only by a listed method, and with its body whole."""
        policy = RetryPolicy()
        self.assertTrue(may_repeat(policy, b"GET", True, True, "reset"))
        self.assertTrue(may_repeat(policy, b"PUT", True, True, "reset"))
        self.assertFalse(may_repeat(policy, b"PUT", True, False, "reset"))
        for method in (b"POST", b"PATCH", b"get"):
            self.assertFalse(may_repeat(policy, method, True, True, "reset"))
        self.assertTrue(may_repeat(RetryPolicy(methods=frozenset({b"POST"})), b"POST", True, True, "reset"))

    def test_only_listed_causes(self) -> None:
        """A cause that `when` does not list is never a reason to try again."""
        self.assertFalse(may_repeat(RetryPolicy(), b"GET", False, True, "timeout"))
        policy = RetryPolicy(when=frozenset({"connect_failure"}))
        self.assertFalse(may_repeat(policy, b"GET", True, True, "reset"))
        self.assertTrue(may_repeat(policy, b"GET", False, True, "connect_failure"))


class Budget(TestCase):
    def test_ten_are_always_there(self) -> None:
        """With few requests ten retries in ten seconds are allowed, the eleventh is not."""
        budget = RetryBudget(0.2)
        self.assertEqual([budget.may_retry(100.0) for _ in range(12)], [True] * 10 + [False] * 2)
        self.assertFalse(budget.may_retry(109.9))
        self.assertTrue(budget.may_retry(110.0))

    def test_a_share_of_many(self) -> None:
        """With 1000 requests in ten seconds 200 retries are allowed, and as requests leave the window, fewer."""
        budget = RetryBudget(0.2)
        for n in range(1000):
            budget.request(50.0 + n / 100)
        self.assertEqual(sum(budget.may_retry(59.99) for _ in range(1000)), 200)
        self.assertFalse(budget.may_retry(68.0))
        self.assertEqual(sum(budget.may_retry(69.0) for _ in range(1000)), 10)

    def test_a_long_silence(self) -> None:
        """After more than the window everything is forgotten, at once and without a walk over the seconds between."""
        budget = RetryBudget(0.2)
        for _ in range(500):
            budget.request(0.5)
        self.assertEqual(sum(budget.may_retry(1.0) for _ in range(500)), 100)
        self.assertEqual(sum(budget.may_retry(1e9) for _ in range(500)), 10)

    def test_a_share_of_none(self) -> None:
        """Share 0 leaves the floor, and with floor 0 nothing."""
        budget = RetryBudget(0.0)
        self.assertEqual(sum(budget.may_retry(1.0) for _ in range(20)), 10)
        self.assertFalse(RetryBudget(0.0, floor=0).may_retry(1.0))

    def test_repr(self) -> None:
        """The budget in one line."""
        budget = RetryBudget(0.2)
        budget.request(5.0)
        budget.may_retry(6.0)
        self.assertEqual(repr(budget), "<RetryBudget 1 retries, 1 requests in 10 s>")


class BackoffDelay(TestCase):
    def test_none(self) -> None:
        """By default the first retry follows at once, and so do the others."""
        rng = random.Random(1)
        self.assertEqual([backoff_delay(RetryPolicy(), n, rng) for n in (1, 2, 50)], [0.0, 0.0, 0.0])

    def test_doubling(self) -> None:
        """100 ms, doubled each time up to the limit, each within ten per cent, never above the limit (FO-2)."""
        policy = RetryPolicy(backoff=Backoff(initial=0.1, max=1.0))
        for seed in range(50):
            rng = random.Random(seed)
            for attempt, planned in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (5000, 1.0)):
                delay = backoff_delay(policy, attempt, rng)
                self.assertLessEqual(abs(delay - planned), 0.1 * planned + 1e-12)
                self.assertLessEqual(delay, 1.0)

    def test_jitter(self) -> None:
        """Two clients that failed together do not come back together."""
        policy = RetryPolicy(backoff=Backoff(initial=0.1, max=1.0))
        rng = random.Random(1)
        self.assertEqual(len({backoff_delay(policy, 1, rng) for _ in range(20)}), 20)
