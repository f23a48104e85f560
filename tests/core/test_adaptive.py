"""adaptive: what one report does to what is known, what is forgotten, and who is preferred then."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from math import inf, isfinite, nan

from twisted.trial.unittest import TestCase

from lbsvc.core.adaptive import FEW, MEMORY, Adaptive, Lots, Pace
from lbsvc.core.backend import Backend
from tests.core.members import member, members


class Fixed(random.Random):
    """A source that gives one number only."""

    value = 0.0

    def random(self) -> float:
        return self.value


class AdaptiveTestCase(TestCase):
    now = 100.0

    def picker_of(self, backends: Sequence[Backend], seed: int = 5) -> Adaptive:
        picker = Adaptive(random.Random(seed))
        picker.seconds = lambda: self.now
        picker.update(backends)
        return picker

    def report(self, picker: Adaptive, backend: Backend, seconds: float, failed: bool = False, times: int = 1) -> None:
        for _ in range(times):
            picker.finished(backend, seconds, failed, self.now)

    def counts(self, picker: Adaptive, picks: int = 3000, exclude: Collection[Backend] = ()) -> Counter[str]:
        """How often each is picked, while nothing is held or reported."""
        found: Counter[str] = Counter()
        for _ in range(picks):
            backend = picker.pick(exclude)
            assert backend is not None
            found[backend.name] += 1
        return found


class ScoreTests(AdaptiveTestCase):
    def test_alg_6_nothing_known(self) -> None:
        """ALG-6: as long as nothing was reported each gets its weight's share."""
        counts = self.counts(self.picker_of(members([1, 2, 3])), 6000)
        for name, share in (("a", 1000), ("b", 2000), ("c", 3000)):
            self.assertLess(abs(counts[name] - share), 200)

    def test_alg_6_the_first_answer_of_all(self) -> None:
        """ALG-6: the first answer says what is usual, and does not set the one that gave it apart."""
        backends = members("abc")
        picker = self.picker_of(backends)
        self.report(picker, backends[0], 0.5)
        self.assertLess(max(self.counts(picker).values()), 1150)

    def test_alg_6_slow_first_answers(self) -> None:
        """ALG-6: the first answers of a pool, or of each backend, may be slow: nobody is left out for it."""
        for slow in (1, 4):
            for seed in range(30):
                backends = members("ab")
                picker = self.picker_of(backends, seed)
                given: Counter[str] = Counter()
                for number in range(60):
                    backend = picker.pick(())
                    assert backend is not None
                    given[backend.name] += 1
                    is_slow = number == 0 if slow == 1 else given[backend.name] == 1
                    self.report(picker, backend, 0.03 if is_slow else 0.001)
                self.assertGreater(min(given["a"], given["b"]), 10, (slow, seed, given))

    def test_alg_6_slower(self) -> None:
        """ALG-6: who answers ten times slower than the others is hardly picked, and the others share the rest."""
        backends = members("abc")
        picker = self.picker_of(backends)
        for _ in range(20):
            self.report(picker, backends[0], 0.1)
            self.report(picker, backends[1], 0.01)
            self.report(picker, backends[2], 0.01)
        counts = self.counts(picker)
        self.assertLess(counts["a"], 30)
        self.assertLess(abs(counts["b"] - counts["c"]), 150)

    def test_alg_6_noise_moves_nobody(self) -> None:
        """ALG-6: who is fifteen per cent slower, or slower by some microseconds, gets its full share."""
        for quick, slow in ((0.02, 0.023), (0.00001, 0.0001)):
            backends = members("abc")
            picker = self.picker_of(backends)
            for _ in range(50):
                self.report(picker, backends[0], slow)
                self.report(picker, backends[1], quick)
                self.report(picker, backends[2], quick)
            self.assertGreater(self.counts(picker)["a"], 900)

    def test_alg_6_one_outlier_is_no_verdict(self) -> None:
        """ALG-6: after one answer that took a hundred times as long, thirty good ones are enough for its full share."""
        backends = members("abc")
        picker = self.picker_of(backends)
        for backend in backends:
            self.report(picker, backend, 0.01, times=10)
        self.report(picker, backends[0], 1.0)
        self.assertLess(self.counts(picker)["a"], 100)
        self.report(picker, backends[0], 0.01, times=30)
        self.assertGreater(self.counts(picker)["a"], 900)

    def test_alg_6_fast_failures(self) -> None:
        """ALG-6: who fails at once is picked less and less, though its failures take no time at all."""
        backends = members("abc")
        picker = self.picker_of(backends)
        for backend in backends:
            self.report(picker, backend, 0.05, times=10)
        shares = []
        for _ in range(4):
            self.report(picker, backends[0], 0.0, failed=True)
            shares.append(self.counts(picker, 6000)["a"])
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertLess(shares[0], 1000)
        self.assertLess(shares[-1], 30)

    def test_alg_6_slow_failures_are_slow(self) -> None:
        """ALG-6: a failure that took long counts as slow too, which outlives that it failed."""
        shares = []
        for seconds in (0.0, 10.0):
            backends = members("ab")
            picker = self.picker_of(backends)
            for backend in backends:
                self.report(picker, backend, 0.01, times=10)
            self.report(picker, backends[0], seconds, failed=True, times=3)
            self.report(picker, backends[0], 0.01, times=22)
            shares.append(self.counts(picker)["a"])
        self.assertGreater(shares[0], 700)
        self.assertLess(shares[1], 300)

    def test_alg_6_in_flight(self) -> None:
        """ALG-6: of two that are equally quick the one with less in flight is preferred, by its weight."""
        backends = members([1, 2])
        picker = self.picker_of(backends)
        backends[0].active, backends[1].active = 5, 10
        self.assertGreater(self.counts(picker)["a"], 900)
        backends[0].active, backends[1].active = 10, 5
        self.assertLess(self.counts(picker)["a"], 100)

    def test_alg_6_numbers_that_are_none(self) -> None:
        """ALG-6: durations below 0, without end, or no numbers at all, leave costs that can be compared."""
        backends = members("ab")
        picker = self.picker_of(backends)
        for seconds in (-1.0, inf, -inf, nan, 1e300):
            for failed in (True, False):
                self.report(picker, backends[0], seconds, failed, times=50)
        for pace in picker._lots.paces:
            self.assertTrue(isfinite(pace.score))
        self.assertGreater(self.counts(picker, 200)["b"], 150)

    def test_alg_6_strangers(self) -> None:
        """ALG-6: reports about backends that never were members change nothing and are not kept."""
        backends = members("ab")
        picker = self.picker_of(backends)
        stranger = member("x")
        self.report(picker, stranger, 9.0, failed=True)
        self.assertNotIn(stranger, picker._known)


class TimeTests(AdaptiveTestCase):
    def test_alg_6_silence_forgives(self) -> None:
        """ALG-6: a backend that nobody asks comes nearer to its share as time goes by, and has it in the end."""
        backends = members("abc")
        picker = self.picker_of(backends)
        for backend, failed in zip(backends, (True, False, False), strict=True):
            self.report(picker, backend, 0.01, failed, times=30)
        shares = []
        for _ in range(6):
            shares.append(self.counts(picker)["a"])
            self.now += 5.0
        self.assertEqual(shares, sorted(shares))
        self.assertLess(shares[0], 30)
        self.assertGreater(shares[-1], 750)

    def test_alg_6_small_steps_are_as_one(self) -> None:
        """ALG-6: forgetting in many steps comes to the same as forgetting in one."""
        backend = member("a")
        whole, steps = Pace(backend, 3.0, 0.0), Pace(backend, 3.0, 0.0)
        whole.errors = steps.errors = 0.8
        whole.fade(-2.0, 10.0)
        for n in range(1, 101):
            steps.fade(-2.0, n / 10)
        self.assertAlmostEqual(whole.level, steps.level)
        self.assertAlmostEqual(whole.errors, steps.errors)

    def test_alg_6_a_clock_that_steps_back(self) -> None:
        """ALG-6: a clock that stands or goes back forgets nothing and breaks nothing."""
        backends = members("ab")
        picker = self.picker_of(backends)
        for backend, seconds in zip(backends, (1.0, 0.001), strict=True):
            self.report(picker, backend, seconds, times=20)
        before = [(pace.level, pace.errors) for pace in picker._lots.paces]
        self.now -= 50.0
        self.counts(picker, 100)
        self.assertEqual([(pace.level, pace.errors) for pace in picker._lots.paces], before)

    def test_alg_6_without_a_clock(self) -> None:
        """ALG-6: a picker that was not given a clock picks all the same, and learns what it is told."""
        backends = members("abc")
        picker = Adaptive(random.Random(3))
        picker.update(backends)
        self.counts(picker, 100)
        for _ in range(20):
            picker.finished(backends[0], 0.1, False, 5.0)
            picker.finished(backends[1], 0.001, False, 5.0)
        picker.update(backends[:2])
        self.assertLess(self.counts(picker, 100)["a"], 10)

    def test_alg_6_back_after_a_moment(self) -> None:
        """ALG-6: who is no member for a moment is known when it comes back; after a minute it begins anew."""
        for pause, known in ((1.0, True), (MEMORY + 1.0, False)):
            backends = members("abc")
            picker = self.picker_of(backends)
            for backend, seconds in zip(backends, (0.1, 0.01, 0.01), strict=True):
                self.report(picker, backend, seconds, times=20)
            picker.update(backends[1:])
            self.now += pause
            picker.update(backends)
            self.assertEqual(self.counts(picker)["a"] < 100, known)

    def test_alg_6_after_a_long_silence(self) -> None:
        """ALG-6: a picker that was told nothing for a minute begins anew: the first answer then says what is usual."""
        backends = members("ab")
        picker = self.picker_of(backends)
        for backend in backends:
            self.report(picker, backend, 2.0, times=20)
        self.now += MEMORY + 1.0
        picker.update(backends)
        self.report(picker, backends[0], 0.01, times=5)
        self.assertLess(abs(self.counts(picker)["a"] - 1500), 150)

    def test_alg_6_no_errors_left(self) -> None:
        """ALG-6: after enough good answers, or enough time, a failure has left nothing, and costs no work any more."""
        for by_time in (True, False):
            backends = members("ab")
            picker = self.picker_of(backends)
            for backend in backends:
                self.report(picker, backend, 0.01, failed=True, times=10)
            pace = picker._lots.paces[0]
            if by_time:
                self.now += 200.0
                self.counts(picker, 20)
            else:
                self.report(picker, backends[0], 0.01, times=200)
            self.assertEqual(pace.errors, 0.0)
            self.assertEqual(pace.score, pace.level)

    def test_alg_6_results_of_the_absent(self) -> None:
        """ALG-6: what began before a member left counts for it when it ends, and is there when it comes back."""
        backends = members("abc")
        picker = self.picker_of(backends)
        picker.update(backends[1:])
        self.report(picker, backends[0], 0.001, failed=True, times=20)
        picker.update(backends)
        self.assertLess(self.counts(picker)["a"], 30)

    def test_alg_6_the_gone_are_let_go(self) -> None:
        """ALG-6: a member that has left is not held for ever: with traffic or an update, a minute later nobody knows it."""
        for by_update in (True, False):
            backends = members("abc")
            picker = self.picker_of(backends)
            picker.update(backends[1:])
            self.now += MEMORY + 1.0
            if by_update:
                picker.update(backends[1:])
            else:
                self.counts(picker, 5)
                self.now += MEMORY + 1.0
                self.counts(picker, 5)
            self.assertEqual(set(picker._known), set(backends[1:]))

    def test_alg_6_bounded(self) -> None:
        """ALG-6: members that come and go for ever leave no more behind than those of the last minute."""
        picker = self.picker_of([])
        for _ in range(500):
            picker.update(members("ab"))
            self.now += 1.0
        self.assertLessEqual(len(picker._known), 2 * (MEMORY + 2))

    def test_alg_6_new_members(self) -> None:
        """ALG-6: who is new counts as usual: it is neither flooded nor shunned."""
        backends = members("abc")
        picker = self.picker_of(backends[:2])
        for backend in backends[:2]:
            self.report(picker, backend, 0.2, times=60)
        picker.update(backends)
        self.assertLess(abs(self.counts(picker)["c"] - 1000), 150)

    def test_alg_6_weights_change(self) -> None:
        """ALG-6: an update of weights alone keeps what is known, and counts from the next pick."""
        backends = members("abc")
        picker = self.picker_of(backends)
        for backend, seconds in zip(backends, (0.1, 0.01, 0.01), strict=True):
            self.report(picker, backend, seconds, times=20)
        backends[1].effective = 3
        picker.update(backends)
        counts = self.counts(picker)
        self.assertLess(counts["a"], 60)
        self.assertLess(abs(counts["b"] / counts["c"] - 3.0), 0.5)


class DrawTests(AdaptiveTestCase):
    def test_two_are_two(self) -> None:
        """Two draws are of two different ones, each first by its weight, whatever the weights are."""
        for weights in ([1, 1], [1, 65535], [65535, 1, 1], [2, 1, 3], [1] * 9, [65535] * 2000 + [1]):
            lots = Lots(paces_of(weights), random.Random(4).random)
            firsts: Counter[int] = Counter()
            for _ in range(3000):
                first, second = lots.two()
                self.assertIsNot(first, second)
                firsts[first.weight] += 1
            for weight in set(weights):
                share = 3000 * weight * weights.count(weight) / sum(weights)
                self.assertLess(abs(firsts[weight] - share), 150)

    def test_second_by_weight(self) -> None:
        """The second draw is by weight among the others."""
        lots = Lots(paces_of([5, 1, 3]), random.Random(4).random)
        seconds: Counter[tuple[int, int]] = Counter()
        for _ in range(9000):
            first, second = lots.two()
            seconds[first.weight, second.weight] += 1
        for (one, other), share in {
            (5, 1): 5 / 9 / 4, (5, 3): 5 / 9 * 3 / 4, (1, 5): 1 / 9 * 5 / 8, (3, 1): 3 / 9 / 6, (3, 5): 3 / 9 * 5 / 6,
        }.items():  # fmt: skip
            self.assertLess(abs(seconds[one, other] - 9000 * share), 200)

    def test_the_edges_of_a_draw(self) -> None:
        """The least and the greatest number that a source may give fall on members, and on two different ones."""
        for weights in ([1, 1], [1] * 7, [1, 2, 3], [3, 2, 1], [1, 2**20, 1], [65535, 1] * 500):
            for value in (0.0, 0.5, 1 - 2**-53):
                rng = Fixed()
                rng.value = value
                lots = Lots(paces_of(weights), rng.random)
                first, second = lots.two()
                self.assertIsNot(first, second)
                self.assertIn(lots.one(), lots.paces)

    def test_exclusion_among_many(self) -> None:
        """Of many with few excluded the draw goes on; with nearly all excluded the rest is found in a bounded time."""
        backends = members([1] * (FEW + 20))
        picker = self.picker_of(backends)
        for excluded in (backends[:1], backends[1:], backends[2:], set(backends[::2])):
            counts = self.counts(picker, 600, excluded)
            self.assertEqual(set(counts), {each.name for each in backends if each not in excluded})
        self.assertIsNone(picker.pick(backends))

    def test_the_better_among_others(self) -> None:
        """ALG-6: with somebody excluded the quicker ones are still preferred, among few and among many."""
        for count in (4, FEW + 8):
            backends = members([1] * count)
            picker = self.picker_of(backends)
            for backend in backends:
                self.report(picker, backend, 0.2 if backend is backends[1] else 0.01, times=20)
            self.assertLess(self.counts(picker, 3000, backends[:1])[backends[1].name], 30)


def paces_of(weights: Sequence[int]) -> list[Pace]:
    paces = []
    for backend in members(weights):
        pace = Pace(backend, 0.0, 0.0)
        pace.weight = backend.effective
        paces.append(pace)
    return paces
