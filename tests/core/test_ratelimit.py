"""Token buckets: bursts and refills to the token, who shares a bucket, and what is remembered of a million clients."""

from __future__ import annotations

import math
from fractions import Fraction

from twisted.trial.unittest import TestCase

from lbsvc.core.policies import RatePolicy
from lbsvc.core.ratelimit import LONGEST_KEY, MOST_KEYS, SLOTS, RateLimiter, client_key

#: Some moment of a monotonic clock: a machine that has been up for eleven days.
START = 1e6


def limiter(rate: float = 100.0, burst: int = 200, most_keys: int = MOST_KEYS) -> RateLimiter:
    return RateLimiter(RatePolicy(rate, burst), most_keys)


def passed(limit: RateLimiter, key: str | bytes, now: float, tries: int) -> int:
    """How many of so many tries at one moment are let in."""
    return sum(limit.take(key, now) == 0 for _ in range(tries))


def names(number: int, first: int = 0) -> list[str]:
    return [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + number)]


class BucketTests(TestCase):
    def test_rl_1_burst(self) -> None:
        """At 100/s with burst 200, 200 at one moment pass and the 201st is told to come in 10 ms (RL-1)."""
        limit = limiter()
        self.assertEqual([limit.take("a", START) for _ in range(200)], [0.0] * 200)
        self.assertEqual(limit.take("a", START), 0.01)

    def test_rl_1_refill(self) -> None:
        """The refill is exact: each 10 ms bring one more, and a nanosecond less brings none (RL-1)."""
        limit = limiter()
        passed(limit, "a", START, 200)
        for n in range(1, 1001):
            self.assertGreater(limit.take("a", START + n * 0.01 - 1e-9), 0)
            self.assertEqual(passed(limit, "a", START + n * 0.01, 3), 1)

    def test_added_up(self) -> None:
        """A clock that adds up 10 ms again and again, with all its errors, gets exactly one for each."""
        limit, now = limiter(), 0.0
        passed(limit, "a", now, 200)
        for _ in range(10_000):
            now += 0.01
            self.assertEqual(passed(limit, "a", now, 2), 1)

    def test_never_more_than_full(self) -> None:
        """A bucket that has rested for a day holds its burst and no more."""
        limit = limiter()
        passed(limit, "a", START, 200)
        self.assertEqual(passed(limit, "a", START + 86400, 500), 200)

    def test_a_day_of_hammering(self) -> None:
        """At 10 a minute, who asks each second of a day gets 14400 and the burst, not one more or less."""
        limit = limiter(10 / 60, 10)
        self.assertEqual(limit.rate, Fraction(1, 6))
        allowed = sum(limit.take("a", START + second) == 0 for second in range(86401))
        self.assertEqual(allowed, 10 + 14400)

    def test_refused_for_nothing(self) -> None:
        """Whoever is refused pays nothing: a thousand refusals do not move the moment of the next token."""
        limit = limiter(1, 1)
        limit.take("a", START)
        self.assertEqual(passed(limit, "a", START + 0.5, 1000), 0)
        self.assertEqual(limit.take("a", START + 0.5), 0.5)
        self.assertEqual(limit.take("a", START + 1), 0.0)

    def test_wait_is_right(self) -> None:
        """Who comes back when told is let in, for rates that have no finite fraction too; earlier is too early."""
        for rate in (0.001, 1 / 7, 1, 3, math.pi, 100, 12345.678):
            limit, now = limiter(rate, 2), 5.0
            passed(limit, "a", now, 2)
            for _ in range(20):
                wait = limit.take("a", now)
                self.assertLess(abs(wait - 1 / rate), 2e-9)
                self.assertGreater(limit.take("a", now + wait - 2e-9), 0)
                now += wait
                self.assertEqual(limit.take("a", now), 0.0)

    def test_very_slow_and_very_fast(self) -> None:
        """One in a year and a billion a second are counted like all others."""
        slow = limiter(1 / 31_536_000, 1)
        self.assertEqual([slow.take("a", 0.0), slow.take("a", 0.0)], [0.0, 31_536_000.0])
        tiny = limiter(1e-12, 1)
        self.assertEqual(tiny.take("a", 0.0), 0.0)
        self.assertAlmostEqual(tiny.take("a", 0.0) / 1e12, 1)
        fast = limiter(1e9, 5)
        self.assertEqual(passed(fast, "a", START, 9), 5)
        self.assertEqual(passed(fast, "a", START + 1, 9), 5)

    def test_clock_steps_back(self) -> None:
        """If the clock goes back nobody gains by it."""
        limit = limiter(1, 3)
        passed(limit, "a", START, 3)
        self.assertEqual(passed(limit, "a", START - 1000, 5), 0)
        self.assertEqual(passed(limit, "a", START + 1, 5), 1)

    def test_meaningless(self) -> None:
        """A policy by which nobody would ever be let in is refused."""
        for rate, burst, most_keys in ((0, 1, 1), (-1, 1, 1), (math.inf, 1, 1), (math.nan, 1, 1), (1, 0, 1), (1, 1, 0)):
            with self.assertRaises(ValueError):
                limiter(rate, burst, most_keys)

    def test_shown(self) -> None:
        """A limiter shows its rate and how many keys it knows."""
        limit = limiter(1 / 6, 10)
        limit.take("a", START)
        self.assertEqual(repr(limit), "<RateLimiter 0.166667/s, burst 10, 1 keys>")


class KeyTests(TestCase):
    def test_each_its_own(self) -> None:
        """RL-1: a client at its limit takes nothing from any other."""
        limit = limiter(1, 2)
        passed(limit, "a", START, 5)
        self.assertEqual(passed(limit, "b", START, 5), 2)
        self.assertEqual(passed(limit, "a", START, 5), 0)

    def test_clients(self) -> None:
        """RL-1: an IPv4 address has one bucket however it is written, a /64 of IPv6 one for all its addresses."""
        self.assertEqual(client_key("192.0.2.1"), client_key("::ffff:192.0.2.1"))
        self.assertEqual(client_key("2001:db8::1"), client_key("2001:db8::ffff:0:0:1"))
        self.assertNotEqual(client_key("2001:db8::1"), client_key("2001:db8:0:1::1"))
        self.assertNotEqual(client_key("192.0.2.1"), client_key("192.0.2.2"))
        self.assertEqual(client_key("unix"), "unix")

    def test_headers_are_no_clients(self) -> None:
        """What a header says (bytes) is never the bucket of a client (str) whose address it names."""
        limit = limiter(1, 1)
        limit.take("192.0.2.1", START)
        self.assertEqual(limit.take(b"192.0.2.1", START), 0.0)
        self.assertGreater(limit.take("192.0.2.1", START), 0)

    def test_long_keys(self) -> None:
        """Long keys are told apart to their last byte, and do not make what is remembered any larger."""
        limit = limiter(1, 1)
        long = b"k" * 30_000
        for key in (long + b"1", long + b"2", "k" * 30_000, "k" * 30_000 + "\udcff", b"", ""):
            self.assertEqual([limit.take(key, START) == 0 for _ in range(3)], [True, False, False])
        self.assertLessEqual(max(len(key) for key in limit._full_at), LONGEST_KEY)


class MemoryTests(TestCase):
    def test_rl_1_idle_ones_go(self) -> None:
        """Buckets that are full again are forgotten, by whoever asks then, two at a time (RL-1)."""
        limit = limiter(1, 10)
        for name in names(1000):
            limit.take(name, START)
        self.assertEqual(len(limit), 1000)
        for _ in range(500):
            limit.take("a", START + 20)
        self.assertEqual(list(limit._full_at), ["a"])
        self.assertEqual(limit.forgotten_early, 0)

    def test_what_is_owed_stays(self) -> None:
        """Nobody is forgotten before its bucket is full, however many come and go meanwhile."""
        limit = limiter(1, 100)
        passed(limit, "deep", START, 100)
        for n, name in enumerate(names(20_000)):
            limit.take(name, START + n / 1000)
        self.assertEqual(passed(limit, "deep", START + 20, 100), 20)
        self.assertEqual(limit.forgotten_early, 0)
        self.assertLess(len(limit), 4000)

    def test_rl_1_a_million_clients(self) -> None:
        """Of a million clients within ten seconds at 1/s, each let in, no more than most_keys are remembered (RL-1)."""
        limit = limiter(1, 100, most_keys=4096)
        passed(limit, "deep", START, 100)
        for n in range(1_000_000):
            if limit.take(n.to_bytes(4), START + n / 1e5):
                self.fail(f"{n} was refused")
        self.assertEqual(len(limit), 4096)
        self.assertLess(len(limit._slots), 2 * SLOTS)
        self.assertEqual(len(limit._order), len(limit._slots))
        # Who was at its limit is remembered through all of that: ten seconds, ten tokens.
        self.assertEqual(passed(limit, "deep", START + 10, 100), 10)

    def test_full_ones_go_first(self) -> None:
        """Where there is no room the full buckets go first, then those that owe least; the deepest stay."""
        limit = limiter(1, 100, most_keys=200)
        deep, little, full = names(50), names(50, 50), names(100, 100)
        for name in full:
            limit.take(name, START)
        for name in deep:
            passed(limit, name, START + 10, 100)
        for name in little:
            passed(limit, name, START + 10, 10)
        new = names(100, 200)
        for name in new:
            passed(limit, name, START + 10, 30)
        self.assertEqual(limit.forgotten_early, 0)
        self.assertEqual(set(limit._full_at), {*deep, *little, *new})
        for name in names(50, 300):
            passed(limit, name, START + 10, 30)
        self.assertEqual(limit.forgotten_early, 50)
        self.assertEqual(set(limit._full_at), {*deep, *new, *names(50, 300)})

    def test_equals_go_in_turn(self) -> None:
        """Of those that owe the same who came first goes first, so that newcomers do not put out each other."""
        limit = limiter(1, 100, most_keys=100)
        old, new = names(100), names(50, 100)
        for name in old + new:
            limit.take(name, 0.0)
        self.assertEqual(list(limit._full_at), old[50:] + new)

    def test_full_is_not_early(self) -> None:
        """A bucket that is full when its room is needed has not been forgotten early."""
        limit = limiter(1, 100, most_keys=1)
        self.assertEqual([limit.take("a", 0.0), limit.take("b", 1.0), limit.forgotten_early], [0, 0, 0])
        self.assertEqual([limit.take("c", 1.9), limit.forgotten_early], [0, 1])

    def test_one_key(self) -> None:
        """With room for one key the last one is remembered."""
        limit = limiter(1, 2, most_keys=1)
        self.assertEqual([limit.take(key, START) for key in "aaabbb"], [0, 0, 1, 0, 0, 1])
        self.assertEqual((len(limit), limit.forgotten_early), (1, 1))

    def test_a_busy_key_leaves_nothing(self) -> None:
        """A key that is asked for all day leaves no trail of slots behind it."""
        limit = limiter(1000, 1000)
        for n in range(50_000):
            limit.take("a", START + n / 500)
        self.assertEqual(len(limit), 1)
        self.assertLess(len(limit._slots), 2 * SLOTS)
