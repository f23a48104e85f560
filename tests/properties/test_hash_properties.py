"""Promises of the hashing pickers for any names, weights and history: even, agreed upon, little moved, never overfull."""

from __future__ import annotations

import random
from collections import Counter
from math import ceil

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.choices import TwoChoices
from lbsvc.core.hashed import ConsistentHash, IpHash
from lbsvc.core.maglev import SIZE, fill, permutation, turns
from tests.core.members import member

#: A table takes 25 ms.
FEW = settings(max_examples=12, deadline=None, database=None)
QUICK = settings(max_examples=60, deadline=None, database=None)

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
KEY = st.integers(0, 2**64 - 1)


def lists(names: int = 10, weights: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[list[Backend]]:
    """Members with different names."""
    weight = st.integers(1, 9) if weights is None else weights
    entries = st.lists(st.tuples(NAMES, weight), min_size=1, max_size=names, unique_by=lambda entry: entry[0])
    return entries.map(lambda found: [member(name, number) for name, number in found])


def table_of(names: list[str]) -> list[str]:
    """Who holds each place, all being equal."""
    names = sorted(names)
    places = fill([permutation(name.encode()) for name in names], turns([1] * len(names)))
    return [names[index] for index in places]


class MaglevProperties(TestCase):
    @FEW
    @given(st.lists(NAMES, min_size=10, max_size=10, unique=True), st.integers(0, 9))
    def test_what_moves(self, names: list[str], gone: int) -> None:
        """When one of ten leaves, at most two keys in a hundred move that need not, and back they are again after."""
        before = table_of(names)
        after = table_of(names[:gone] + names[gone + 1 :])
        moved = sum(old != new for old, new in zip(before, after, strict=True))
        self.assertLessEqual(moved - before.count(names[gone]), 0.02 * SIZE)

    @FEW
    @given(st.lists(st.integers(1, 65535), min_size=1, max_size=40), st.randoms(use_true_random=False))
    def test_balance(self, weights: list[int], rng: random.Random) -> None:
        """Shares are those of the weights, within two places, or two per cent, whichever is more."""
        names = [b"%d" % rng.getrandbits(64) for _ in weights]
        held = Counter(fill([permutation(name) for name in names], turns(weights)))
        for index, weight in enumerate(weights):
            share = SIZE * weight / sum(weights)
            self.assertLessEqual(abs(held[index] - share), max(2, 0.02 * share))


class AgreementProperties(TestCase):
    @FEW
    @given(lists(), st.lists(KEY, min_size=1, max_size=100), st.randoms(use_true_random=False))
    def test_two_instances(self, backends: list[Backend], keys: list[int], rng: random.Random) -> None:
        """Two instances agree on every key, whatever the order of their members and whatever they knew before."""
        copies = [member(backend.name, backend.weight) for backend in backends]
        rng.shuffle(copies)
        for kind in (IpHash, ConsistentHash):
            one, other = kind(random.Random(1)), kind(random.Random(2))
            one.update(backends)
            other.update(copies[1:])
            other.pick_by(keys[0], ())
            other.update(copies)
            for key in keys:
                mine, theirs = one.pick_by(key, ()), other.pick_by(key, ())
                assert mine is not None
                assert theirs is not None
                self.assertEqual(mine.name, theirs.name)


class IpHashProperties(TestCase):
    @QUICK
    @given(lists(weights=st.integers(1, 65535)), st.lists(KEY, min_size=1, max_size=50), st.data())
    def test_excluded_is_gone(self, backends: list[Backend], keys: list[int], data: st.DataObject) -> None:
        """ALG-4: excluded or gone is the same for a key; and who has another home is not moved by it."""
        excluded = data.draw(st.sets(st.sampled_from(backends)))
        picker, without = IpHash(random.Random(1)), IpHash(random.Random(1))
        picker.update(backends)
        without.update([backend for backend in backends if backend not in excluded])
        for key in keys:
            home = picker.pick_by(key, ())
            other = picker.pick_by(key, excluded)
            self.assertIs(other, without.pick_by(key, ()))
            if home not in excluded:
                self.assertIs(other, home)

    @QUICK
    @given(lists(weights=st.integers(1, 65535)), st.lists(KEY, min_size=1, max_size=50), st.integers(1, 65535))
    def test_who_gains_takes_only_for_itself(self, backends: list[Backend], keys: list[int], weight: int) -> None:
        """A member that becomes heavier wins keys and loses none, and no key moves between two others."""
        picker = IpHash(random.Random(1))
        picker.update(backends)
        before = [picker.pick_by(key, ()) for key in keys]
        assume(weight > backends[0].effective)
        backends[0].effective = weight
        picker.update(backends)
        for key, home in zip(keys, before, strict=True):
            self.assertIn(picker.pick_by(key, ()), (home, backends[0]))


class BoundProperties(TestCase):
    @FEW
    @given(lists(names=6), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200))
    def test_never_above_the_bound(self, backends: list[Backend], steps: list[tuple[int, bool]]) -> None:
        """Whatever is asked for and given back, nobody is given more than a quarter above their share, rounded up."""
        picker = ConsistentHash(random.Random(1))
        picker.update(backends)
        weights = sum(backend.weight for backend in backends)
        held: list[Backend] = []
        for key, takes in steps:
            if takes or not held:
                backend = picker.pick_by(key * 12345, ())
                assert backend is not None
                bound = ceil(5 * (len(held) + 1) * backend.weight / (4 * weights))
                self.assertLess(backend.active, bound)
                backend.active += 1
                picker.acquired(backend)
                held.append(backend)
            else:
                backend = held.pop(key % len(held))
                backend.active -= 1
                picker.released(backend)


class ChoiceProperties(TestCase):
    @QUICK
    @given(lists(names=20), st.lists(st.integers(0, 9), min_size=20, max_size=20), st.data())
    def test_never_the_most_loaded(self, backends: list[Backend], loads: list[int], data: st.DataObject) -> None:
        """two_choices: whoever is more loaded than all others is never taken, and neither are the excluded."""
        for backend, load in zip(backends, loads, strict=False):
            backend.active = load
        excluded = data.draw(st.sets(st.sampled_from(backends)))
        picker = TwoChoices(random.Random(data.draw(st.integers(0, 99))))
        picker.update(backends)
        rest = [backend for backend in backends if backend not in excluded]
        costs = {backend: backend.active / backend.weight for backend in rest}
        worst = max(costs.values(), default=0.0)
        for _ in range(20):
            backend = picker.pick(excluded)
            self.assertEqual(backend is None, not rest)
            if backend is not None:
                self.assertIn(backend, rest)
                if list(costs.values()).count(worst) == 1 and len(rest) > 1:
                    self.assertLess(costs[backend], worst)
