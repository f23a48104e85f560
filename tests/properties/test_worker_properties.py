"""Promises of what several workers count together, for any traffic: rates, connections, and where clients belong."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.affinity import AddressTable
from lbsvc.core.clients import ClientCounts, Surplus
from lbsvc.core.policies import RatePolicy, StickyPolicy
from lbsvc.core.ratelimit import RateLimiter
from tests.core.members import members

QUICK = settings(max_examples=150, deadline=None, database=None)

#: Seconds between two exchanges, and parts of it between two events.
TURN = 0.125
PARTS = 8

WORKERS = st.integers(1, 5)
#: How many parts of a turn pass, and who asks then, how often.
ASKING = st.lists(st.tuples(st.integers(0, 3 * PARTS), st.integers(0, 4), st.integers(1, 12)), max_size=60)


class Buckets:
    """One key in several limiters that tell each other what they let in; parts of turns are counted from 0."""

    def __init__(self, workers: int, policy: RatePolicy, most: int = 1 << 30) -> None:
        self.limiters = [RateLimiter(policy) for _ in range(workers)]
        for limiter in self.limiters:
            limiter.taken = {}
        self.most = most
        self.part = 0
        self.entered: list[int] = []  # the part in which each was let in

    @property
    def now(self) -> float:
        return 1000.0 + self.part * TURN / PARTS

    def advance(self, parts: int) -> None:
        """So much later; whoever was let in in a turn is told of at its end."""
        for _ in range(parts):
            self.part += 1
            if self.part % PARTS == 0:
                self.exchange()

    def exchange(self) -> None:
        told = []
        for limiter in self.limiters:
            assert limiter.taken is not None
            told.append(dict(limiter.taken))
            limiter.taken.clear()
        for number, taken in enumerate(told):
            for other, limiter in enumerate(self.limiters):
                for key, tokens in taken.items() if other != number else ():
                    limiter.charge(key, tokens, self.now - TURN, self.now, self.most)

    def ask(self, worker: int) -> bool:
        let_in = self.limiters[worker % len(self.limiters)].take("k", self.now) == 0.0
        if let_in:
            self.entered.append(self.part)
        return let_in


class RateProperties(TestCase):
    @QUICK
    @given(WORKERS, st.sampled_from([0.5, 4.0, 16.0, 64.0, 512.0]), st.integers(1, 12), ASKING)
    def test_law(self, workers: int, rate: float, burst: int, asking: list[tuple[int, int, int]]) -> None:
        """In any t seconds all workers together let in at most rate x t + k x burst + k x rate x T, whatever is asked."""
        buckets = Buckets(workers, RatePolicy(rate, burst))
        for parts, worker, times in asking:
            buckets.advance(parts)
            for _ in range(times):
                buckets.ask(worker)
        entered = buckets.entered
        spare = Fraction(workers * burst) + Fraction(workers * rate * TURN)
        for first in range(len(entered)):
            for last in range(first, len(entered)):
                most = Fraction(rate) * (entered[last] - entered[first]) * Fraction(TURN) / PARTS + spare
                self.assertLessEqual(last - first + 1, most)

    @QUICK
    @given(WORKERS, st.sampled_from([0.5, 4.0, 16.0, 64.0]), st.integers(1, 12), ASKING)
    def test_alone(self, workers: int, rate: float, burst: int, asking: list[tuple[int, int, int]]) -> None:
        """A client that stays with one of several workers is let in exactly as if there were no other."""
        buckets, single = Buckets(workers, RatePolicy(rate, burst)), RateLimiter(RatePolicy(rate, burst))
        for parts, _, times in asking:
            buckets.advance(parts)
            for _ in range(times):
                self.assertEqual(buckets.ask(0), single.take("k", buckets.now) == 0.0)

    @QUICK
    @given(st.integers(2, 5), st.sampled_from([0.5, 4.0, 64.0]), st.integers(1, 12), st.integers(0, 6), ASKING)
    def test_debts(self, workers: int, rate: float, burst: int, most: int, asking: list[tuple[int, int, int]]) -> None:
        """Whatever others tell, nobody waits longer than for its debt and one token."""
        buckets = Buckets(workers, RatePolicy(rate, burst), most)
        for parts, worker, times in asking:
            buckets.advance(parts)
            for _ in range(times):
                buckets.ask(worker)
        for limiter in buckets.limiters:
            self.assertLessEqual(limiter.take("k", buckets.now), (most + 1) / rate + 1e-9)

    def test_its_whole_rate(self) -> None:
        """A client that asks all workers in turn, all the time, is let in at the rate, also where the burst is small."""
        for workers, burst in ((1, 5), (2, 5), (4, 5), (4, 100), (8, 200)):
            buckets = Buckets(workers, RatePolicy(256.0, burst))
            for turn in range(400 * PARTS):
                buckets.advance(1)
                for number in range(16 * workers):
                    buckets.ask(turn + number)
            seconds = 400 * TURN
            self.assertGreaterEqual(len(buckets.entered), 256 * seconds * 0.98, (workers, burst))
            self.assertLessEqual(len(buckets.entered), 256 * (seconds + workers * TURN) + workers * burst)

    def test_nothing_to_remember(self) -> None:
        """A charge that has been refilled by the time that it is heard of is not remembered, and one that has not is."""
        limiter = RateLimiter(RatePolicy(100.0, 10))
        limiter.charge("k", 9, 0.9, 1.0, 50)
        self.assertEqual(len(limiter), 0)
        limiter.charge("k", 11, 0.9, 1.0, 50)
        self.assertEqual(len(limiter), 1)

    def test_what_is_recorded(self) -> None:
        """Nothing is recorded unless somebody asks; then whoever was let in is, by the key that is remembered."""
        limiter = RateLimiter(RatePolicy(1.0, 2), most_keys=3)
        limiter.take("a", 0.0)
        self.assertIsNone(limiter.taken)
        limiter.taken = {}
        for key in ("a", "a", "b", b"b", "c" * 100, "d", "b"):
            limiter.take(key, 0.0)
        self.assertEqual(list(limiter.taken.values()), [1, 2, 1])
        self.assertEqual(list(limiter.taken)[:2], ["a", "b"])


class ClientProperties(TestCase):
    @QUICK
    @given(st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(0, 11), max_size=120))
    def test_counts(self, workers: int, limit: int, steps: list[int]) -> None:
        """Whoever comes and goes wherever: never more than the limit in one worker, exact after two quiet exchanges."""
        counts = [ClientCounts(limit, 0) for _ in range(workers)]
        told: list[Counter[int]] = [Counter() for _ in range(workers)]
        there: Counter[int] = Counter()

        def exchange() -> None:
            for number, each in enumerate(counts):
                for client, count in each.news(10):
                    self.assertEqual(client, "c")
                    for other, heard in enumerate(told):
                        if other != number:
                            heard[number] = count
            for each, heard in zip(counts, told, strict=True):
                each.elsewhere = {"c": heard.total()} if heard.total() else {}

        for step in steps:
            worker, what = step % 4 % workers, step // 4
            if what == 0:
                entered = counts[worker].enter("c")
                self.assertNotIsInstance(entered, Surplus)
                there[worker] += entered is not None
            elif what == 1 and there[worker]:
                counts[worker].leave("c")
                there[worker] -= 1
            elif what == 2:
                exchange()
            self.assertLessEqual(there[worker], limit)
        exchange()
        exchange()
        for worker, each in enumerate(counts):
            self.assertEqual(each.elsewhere.get("c", 0), there.total() - there[worker])
        room = max(limit - there.total(), 0)
        self.assertEqual(sum(counts[0].enter("c") is not None for _ in range(limit + 1)), room)


class StickyProperties(TestCase):
    @QUICK
    @given(
        st.integers(2, 4),
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xyz"), st.integers(0, 2), st.booleans()), max_size=60),
        st.randoms(use_true_random=False),
    )
    def test_all_come_to_the_same(self, workers: int, choices: list[tuple[int, str, int, bool]], dice: object) -> None:
        """Whatever is chosen wherever and heard in whatever order, after an exchange all believe the same of everybody."""
        backends = members("abc")
        tables = [AddressTable(StickyPolicy(type="ip", ttl=1000.0)) for _ in range(workers)]
        for table in tables:
            table.members(backends)
            table.news(10, 0.0)
        now = 0.0
        for worker, client, backend, is_later in choices:
            now += is_later
            tables[worker % workers].put(client, backends[backend], now)
        news = [(number, each) for number, table in enumerate(tables) for each in table.news(10, now)]
        for number, table in enumerate(tables):
            dice.shuffle(news)  # type: ignore[attr-defined]
            for source, (client, name, since) in news:
                if source != number:
                    table.hear(client, name, since, now)
        for client in "xyz":
            self.assertEqual(len({table.find(client, now) for table in tables}), 1)
