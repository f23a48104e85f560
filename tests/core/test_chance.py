"""random: by weight, without a period, from the given source alone."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from twisted.trial.unittest import TestCase

from lbsvc.core.chance import DRAWS, RandomChoice
from tests.core.members import members


def draws(weights: list[int], count: int, seed: int = 11) -> str:
    picker = RandomChoice(random.Random(seed))
    picker.update(members(weights))
    out = []
    for _ in range(count):
        backend = picker.pick(())
        assert backend is not None
        out.append(backend.name)
    return "".join(out)


class RandomTests(TestCase):
    def test_a_third_each(self) -> None:
        """3000 requests over three: each 1000 within ten per cent (ALG-5)."""
        counts = Counter(draws([1, 1, 1], 3000))
        self.assertEqual(set(counts), set("abc"))
        for count in counts.values():
            self.assertLess(abs(count - 1000), 100)

    def test_no_period(self) -> None:
        """ALG-5: what follows a backend is any of the three, about equally often."""
        order = draws([1, 1, 1], 3000)
        pairs = Counter(pairwise(order))
        self.assertEqual(len(pairs), 9)
        for count in pairs.values():
            self.assertLess(abs(count - 333), 90)

    def test_by_weight(self) -> None:
        """ALG-5: weights 1:2:7 are respected."""
        counts = Counter(draws([1, 2, 7], 5000))
        for name, share in (("a", 500), ("b", 1000), ("c", 3500)):
            self.assertLess(abs(counts[name] - share), 150)

    def test_only_the_given_source(self) -> None:
        """ALG-5: the same source gives the same draws, another gives others."""
        self.assertEqual(draws([1, 1, 2], 50), draws([1, 1, 2], 50))
        self.assertNotEqual(draws([1, 1, 2], 50), draws([1, 1, 2], 50, seed=12))

    def test_excluding_the_heavy(self) -> None:
        """With the heaviest excluded the others are drawn by their weights, in a bounded number of draws."""
        calls = 0

        class Counting(random.Random):
            def random(self) -> float:
                nonlocal calls
                calls += 1
                return super().random()

        picker = RandomChoice(Counting(2))
        backends = members([65535, 1, 3])
        picker.update(backends)
        counts = Counter(picker.pick(backends[:1]) for _ in range(2000))
        self.assertEqual(set(counts), set(backends[1:]))
        self.assertLess(abs(counts[backends[1]] - 500), 100)
        self.assertLessEqual(calls, 2000 * (DRAWS + 1))

    def test_the_edges_of_a_draw(self) -> None:
        """The least and the greatest number that a source may give fall on the first and the last member."""

        class Fixed(random.Random):
            value = 0.0

            def random(self) -> float:
                return self.value

        for weights in ([1, 1, 1], [1, 2, 3], [65535] * 3, list(range(1, 1001))):
            rng = Fixed()
            picker = RandomChoice(rng)
            backends = members(weights)
            picker.update(backends)
            self.assertIs(picker.pick(()), backends[0])
            rng.value = 1 - 2**-53
            self.assertIs(picker.pick(()), backends[-1])
