"""Maglev's table: the paper's, place by place, with shares by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.trial.unittest import TestCase

from lbsvc.core.maglev import SIZE, Permutation, fill, permutation, turns


def names(count: int) -> list[bytes]:
    return [b"10.0.%d.%d:80" % divmod(number, 256) for number in range(count)]


def table_of(weights: Sequence[int]) -> list[int]:
    return fill([permutation(name) for name in names(len(weights))], turns(weights))


def plain_table(permutations: Sequence[Permutation], order: Sequence[int]) -> list[int]:
    """The pseudocode of the paper, word for word."""
    following = [0] * len(permutations)
    entry = [-1] * SIZE
    for index in order:
        offset, step = permutations[index]
        place = (offset + following[index] * step) % SIZE
        while entry[place] >= 0:
            following[index] += 1
            place = (offset + following[index] * step) % SIZE
        entry[place] = index
        following[index] += 1
    return entry


class PermutationTests(TestCase):
    def test_every_place_once(self) -> None:
        """A member wants each place of the table, and each once."""
        for name in names(5):
            offset, step = permutation(name)
            self.assertEqual(len({(offset + turn * step) % SIZE for turn in range(SIZE)}), SIZE)

    def test_in_range(self) -> None:
        """Steps are never 0 nor the size, offsets lie in the table, and names differ in both."""
        found = [permutation(name) for name in names(2000)]
        self.assertLess(max(each.offset for each in found), SIZE)
        self.assertGreaterEqual(min(each.step for each in found), 1)
        self.assertLess(max(each.step for each in found), SIZE)
        self.assertEqual(len(set(found)), len(found))


class TableTests(TestCase):
    def test_as_in_the_paper(self) -> None:
        """Whatever way the last places are found, the table is that of the paper's pseudocode."""
        for weights in ([1], [1, 1], [1] * 7, [5, 1, 1], [1] * 300):
            order = turns(weights)
            permutations = [permutation(name) for name in names(len(weights))]
            self.assertEqual(fill(permutations, order), plain_table(permutations, order))

    def test_the_least_and_the_greatest_steps(self) -> None:
        """Steps of one place and of all but one find every place as well."""
        permutations = [Permutation(0, 1), Permutation(SIZE - 1, SIZE - 1), Permutation(77, SIZE // 2)]
        order = turns([1, 1, 1])
        self.assertEqual(fill(permutations, order), plain_table(permutations, order))

    def test_equal_shares(self) -> None:
        """Equal members hold equal numbers of places, within one, up to a thousand of them."""
        for count in (1, 2, 3, 10, 1000):
            held = Counter(table_of([1] * count)).values()
            self.assertEqual(sum(held), SIZE)
            self.assertLessEqual(max(held) - min(held), 1)
            self.assertEqual(len(held), count)

    def test_shares_by_weight(self) -> None:
        """ALG-2: places go by weight, within one or two, however many different weights there are."""
        for weights in ([1, 2, 3], [5, 1, 1], [100, 50, 10, 1], list(range(1, 101)), [65535, 65534, 7]):
            held = Counter(table_of(weights))
            for index, weight in enumerate(weights):
                self.assertLessEqual(abs(held[index] - SIZE * weight / sum(weights)), 2, (weights, weight))

    def test_the_light_have_a_place(self) -> None:
        """Who weighs next to nothing beside the others still has one place."""
        for weights in ([65535] * 50 + [1], [1, 65535], [1] + [65535] * 999):
            held = Counter(table_of(weights))
            self.assertEqual(len(held), len(weights))

    def test_turns_are_spread(self) -> None:
        """A heavy member does not take its turns in a row: 5:1:1 never has more than five."""
        order = turns([5, 1, 1])
        self.assertEqual(len(order), SIZE)
        longest = run = 0
        for index in order:
            run = run + 1 if index == 0 else 0
            longest = max(longest, run)
        self.assertLessEqual(longest, 5)
