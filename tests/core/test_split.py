"""A split's choices: exact shares, evenly spaced, from each start the same."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from twisted.trial.unittest import TestCase

from lbsvc.core.split import Split


def turns(split: Split[str], number: int) -> str:
    return "".join(split.choose() for _ in range(number))


class SplitTests(TestCase):
    def test_smooth(self) -> None:
        """5:1:1 comes in nginx's order: a a b a c a a, and so on without end."""
        self.assertEqual(turns(Split([("a", 5), ("b", 1), ("c", 1)]), 21), "aabacaa" * 3)

    def test_canary(self) -> None:
        """95:5 gives the canary exactly five of any hundred, and never two in a row."""
        order = turns(Split([("a", 95), ("b", 5)]), 1000)
        for start in range(900):
            self.assertEqual(order[start : start + 100].count("b"), 5)
        self.assertEqual(max(len(list(run)) for name, run in groupby(order) if name == "b"), 1)

    def test_equal(self) -> None:
        """Equal weights, however great, take turns in the order in which they are written."""
        for weight in (1, 7, 65535):
            self.assertEqual(turns(Split([(name, weight) for name in "abc"]), 9), "abcabcabc")

    def test_nothing(self) -> None:
        """A weight of 0 is never chosen, wherever it stands; one that is alone always is."""
        self.assertEqual(turns(Split([("x", 0), ("a", 2), ("y", 0), ("b", 1), ("z", 0)]), 6), "abaaba")
        self.assertEqual(turns(Split([("x", 0), ("a", 65535)]), 5), "aaaaa")

    def test_extremes(self) -> None:
        """One in 65536 is one in 65536."""
        self.assertEqual(Counter(turns(Split([("a", 65535), ("b", 1)]), 65536)), {"a": 65535, "b": 1})

    def test_one_thing_twice(self) -> None:
        """A choice that stands there twice has both shares."""
        self.assertEqual(Counter(turns(Split([("a", 1), ("b", 2), ("a", 3)]), 60)), {"a": 40, "b": 20})

    def test_starts(self) -> None:
        """Two splits of the same weights go the same way, and neither disturbs the other."""
        one, other = Split([("a", 3), ("b", 2)]), Split([("a", 3), ("b", 2)])
        turns(one, 2)
        self.assertEqual(turns(other, 5) + turns(other, 2), turns(Split([("a", 3), ("b", 2)]), 7))
        self.assertEqual(turns(one, 5), turns(other, 5))

    def test_refused(self) -> None:
        """No choices, none with a weight, or a weight below 0: there is nothing that could be meant."""
        for choices in ([], [("a", 0)], [("a", 1), ("b", -1)]):
            with self.assertRaises(ValueError):
                Split(choices)

    def test_shown(self) -> None:
        """A split shows what it chooses among."""
        self.assertEqual(repr(Split([("a", 1), ("b", 0), ("c", 2)])), "<Split a: 1, c: 2>")
