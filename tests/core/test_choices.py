"""two_choices: two different draws by weight, and the less loaded of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.chance import RandomChoice
from lbsvc.core.choices import DRAWS, FEW, TwoChoices, Urn, lighter
from lbsvc.core.pickers import Picker
from tests.core.members import members


def choices(backends: Sequence[Backend], seed: int = 11) -> TwoChoices:
    picker = TwoChoices(random.Random(seed))
    picker.update(backends)
    return picker


def fill(picker: Picker, count: int, exclude: Sequence[Backend] = ()) -> Counter[Backend]:
    """So many picks, none of them given back."""
    counts: Counter[Backend] = Counter()
    for _ in range(count):
        backend = picker.pick(exclude)
        assert backend is not None
        backend.active += 1
        counts[backend] += 1
    return counts


class Script(random.Random):
    """A source that gives these numbers, over and over."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values
        self.calls = 0

    def random(self) -> float:
        self.calls += 1
        return self.values[(self.calls - 1) % len(self.values)]


class TwoChoicesTests(TestCase):
    def test_the_lighter_one(self) -> None:
        """Load is what is in flight for each unit of weight; of equals it is the first."""
        first, second = members([1, 2])
        self.assertIs(lighter(first, second), first)
        self.assertIs(lighter(second, first), second)
        second.active = 1
        self.assertIs(lighter(second, first), first)
        first.active = 1
        self.assertIs(lighter(first, second), second)
        second.active = 2
        self.assertIs(lighter(first, second), first)

    def test_never_the_fullest(self) -> None:
        """The backend with more to do than any other is never taken, whatever the weights."""
        for weights in ([1, 1, 1, 1], [1, 2, 3, 4]):
            backends = members(weights)
            backends[2].active = 50
            picker = choices(backends)
            self.assertNotIn(backends[2], {picker.pick(()) for _ in range(500)})

    def test_two_different_ones(self) -> None:
        """Of two backends it is always the less loaded: a draw is never made twice of the same one."""
        for weights in ([1, 1], [1, 1000], [65535, 1]):
            for busy in (0, 1):
                backends = members(weights)
                backends[busy].active = 10**6
                picker = choices(backends)
                self.assertEqual({picker.pick(()) for _ in range(300)}, {backends[1 - busy]})

    def test_idle_ones_by_weight(self) -> None:
        """While nothing is in flight each gets its share by weight."""
        backends = members([1, 1, 2])
        picker = choices(backends)
        counts = Counter(picker.pick(()) for _ in range(4000))
        self.assertLess(abs(counts[backends[2]] - 2000), 120)
        self.assertLess(abs(counts[backends[0]] - 1000), 120)

    def test_shares_while_held(self) -> None:
        """ALG-2: weights 1:2:3 of 600 requests in flight get 100, 200 and 300, within a few."""
        backends = members([1, 2, 3])
        counts = fill(choices(backends), 600)
        for backend in backends:
            self.assertLess(abs(counts[backend] - 100 * backend.weight), 6)

    def test_shorter_queues_than_by_one_draw(self) -> None:
        """The law's point: of 10,000 requests over 100 backends the fullest has a few more than the mean; by chance, 25."""
        for kind, least, most in ((TwoChoices, 100, 106), (RandomChoice, 115, 150)):
            backends = members([1] * 100)
            picker = kind(random.Random(5))
            picker.update(backends)
            fullest = max(fill(picker, 10_000).values())
            self.assertGreaterEqual(fullest, least)
            self.assertLess(fullest, most)

    def test_only_the_given_source(self) -> None:
        """The same source gives the same picks, another gives others."""

        def order(seed: int) -> list[str]:
            picker = choices(members([1, 1, 2, 3]), seed)
            return [backend.name for _ in range(50) if (backend := picker.pick(())) is not None]

        self.assertEqual(order(1), order(1))
        self.assertNotEqual(order(1), order(2))

    def test_excluded_among_many(self) -> None:
        """Among many, those who are not excluded share evenly, in a bounded number of draws."""
        backends = members([1] * 40)
        source = random.Random(3)
        rng = Script(*(source.random() for _ in range(100_003)))
        picker = TwoChoices(rng)
        picker.update(backends)
        counts = fill(picker, 2000, backends[:20])
        self.assertEqual(set(counts), set(backends[20:]))
        self.assertLess(max(counts.values()) - min(counts.values()), 12)
        self.assertLessEqual(rng.calls, 2000 * (DRAWS + 2))

    def test_one_left(self) -> None:
        """With all but one excluded it is that one, be they few or many, light or heavy; then nobody."""
        for weights in ([1, 65535], [65535, 1], [1] * (FEW + 5), [65535] * 20 + [1]):
            backends = members(weights)
            picker = choices(backends)
            self.assertIs(picker.pick(backends[:-1]), backends[-1])
            self.assertIs(picker.pick(backends[1:]), backends[0])
            self.assertIsNone(picker.pick(backends))

    def test_the_edges_of_a_draw(self) -> None:
        """The least and the greatest numbers that a source may give draw two different members, within the range."""
        edges = (0.0, 0.5, 1 - 2**-53)
        for weights in ([1, 1], [1, 1, 1], [1, 2], [2, 1], [1, 2, 3], [65535, 1, 65535], list(range(1, 1001))):
            backends = members(weights)
            for first in edges:
                for second in edges:
                    urn = Urn(backends, Script(first, second).random)
                    # The one that is taken stays so when it is given much to do only if it was drawn twice.
                    taken = urn.pick()
                    assert taken is not None
                    taken.active = 10**9
                    self.assertIsNot(Urn(backends, Script(first, second).random).pick(), taken)
                    taken.active = 0
