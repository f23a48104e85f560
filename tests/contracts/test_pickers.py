"""What every registered picker must do, whatever its algorithm: tried on all of PICKERS."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from twisted.trial.unittest import TestCase

from lbsvc.core.algorithms import ALGORITHMS, canonical_algorithm
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.hashing import key_hash
from lbsvc.core.lease import Lease
from lbsvc.core.pickers import PICKERS, Picker
from lbsvc.core.pool import Pool
from tests.core.members import member, members, pool_of

KEYS = [key_hash(b"client %d" % number) for number in range(600)]
WEIGHTS = ([1], [1, 1, 1, 1], [5, 1, 1], [1, 2, 3], [3] * 7, [65535, 1, 1], list(range(1, 41)))


def pickers(backends: list[Backend]) -> Iterator[Picker]:
    """One of each kind, over the same backends, which are idle to begin with."""
    for kind in PICKERS.values():
        for backend in backends:
            backend.active = 0
        picker = kind(random.Random(7))
        picker.update(backends)
        yield picker


def hold(picker: Picker, backend: Backend) -> None:
    backend.active += 1
    picker.acquired(backend)


def drop(picker: Picker, backend: Backend) -> None:
    backend.active -= 1
    picker.released(backend)


class PickerContract(TestCase):
    def test_register(self) -> None:
        """ALG-8: exactly the algorithms that config lets through are registered, under canonical names."""
        self.assertEqual(set(PICKERS), set(ALGORITHMS))
        for name in PICKERS:
            self.assertEqual(canonical_algorithm(name), name)

    def test_nobody(self) -> None:
        """A picker without members picks nobody: fresh, after an update to none, and whatever is excluded."""
        stranger = member("x")
        for kind in PICKERS.values():
            picker = kind(random.Random(7))
            for _ in range(2):
                self.assertIsNone(picker.pick(()))
                self.assertIsNone(picker.pick((stranger,)))
                picker.update(members("ab"))
                self.assertIsNotNone(picker.pick(()))
                picker.update([])

    def test_only_members(self) -> None:
        """It picks its members only, and each of them in time, after every update."""
        everybody = members([2, 1, 1, 2, 3, 1])
        for picker in pickers(everybody):
            for few in (everybody[:3], everybody[2:], everybody[1:5:2], everybody):
                picker.update(few)
                held = []
                for _ in range(400):
                    backend = picker.pick(())
                    assert backend is not None
                    hold(picker, backend)
                    held.append(backend)
                self.assertEqual(set(held), set(few))
                for backend in held:
                    drop(picker, backend)

    def test_never_the_excluded(self) -> None:
        """An excluded member is never picked; all others still are; with all excluded there is nobody."""
        for weights in WEIGHTS:
            backends = members(weights)
            for picker in pickers(backends):
                for excluded in (backends[:1], tuple(backends[1:]), set(backends[::2]), {backends[-1]}):
                    seen = set()
                    for _ in range(3 * len(backends) + 40):
                        backend = picker.pick(excluded)
                        if backend is not None:
                            self.assertNotIn(backend, excluded)
                            hold(picker, backend)
                            seen.add(backend)
                    self.assertEqual(bool(seen), len(set(excluded)) < len(backends))
                self.assertIsNone(picker.pick(backends))

    def test_an_excluded_stranger_changes_nothing(self) -> None:
        """Excluding a backend that is no member still lets every member be picked."""
        stranger = member("x")
        backends = members("abc")
        for picker in pickers(backends):
            seen = set()
            for _ in range(60):
                backend = picker.pick([stranger])
                assert backend is not None
                hold(picker, backend)
                seen.add(backend)
            self.assertEqual(seen, set(backends))

    def test_shares_by_weight(self) -> None:
        """ALG-2: while nothing is given back, weights 1:2:3 get about 100:200:300 of 600, whatever the algorithm."""
        for picker in pickers(members([1, 2, 3])):
            counts: Counter[int] = Counter()
            for _ in range(600):
                backend = picker.pick(())
                assert backend is not None
                hold(picker, backend)
                counts[backend.weight] += 1
            for weight in (1, 2, 3):
                self.assertLess(abs(counts[weight] - 100 * weight), 40)

    def test_exclusion_has_no_favourite(self) -> None:
        """With one always excluded, the others share its turns in proportion, and no neighbour takes them all."""
        backends = members([1, 1, 1, 2, 4])
        for picker in pickers(backends):
            counts: Counter[Backend] = Counter()
            for _ in range(1600):
                backend = picker.pick(backends[:1])
                assert backend is not None
                hold(picker, backend)
                counts[backend] += 1
            for backend in backends[1:]:
                self.assertLess(abs(counts[backend] - 200 * backend.weight), 60)

    def test_hooks_of_strangers(self) -> None:
        """Leases of backends that are no members (any more) come and go without harm."""
        stranger = member("x")
        backends = members("ab")
        for picker in pickers(backends):
            hold(picker, stranger)
            picker.update(backends[:1])
            hold(picker, backends[1])
            drop(picker, backends[1])
            drop(picker, stranger)
            self.assertIs(picker.pick(()), backends[0])

    def test_hooks_balance(self) -> None:
        """CT-1: through a pool, every picker's counts return to zero, whatever the outcomes and the updates between."""
        rng = random.Random(3)
        outcomes = list(Outcome)
        for name in PICKERS:
            backends = members([1, 2, 2, 5])
            pool = pool_of(backends, name)
            leases: list[Lease] = []
            for turn in range(2000):
                if leases and rng.random() < 0.5:
                    leases.pop(rng.randrange(len(leases))).release(rng.choice(outcomes))
                elif (lease := pool.pick()) is not None:
                    leases.append(lease)
                if turn % 50 == 0:
                    rng.choice(backends).health = rng.choice(["up", "down", "unknown"])
                    pool.refresh()
                self.assertEqual(sum(backend.active for backend in backends), len(leases))
            for lease in leases:
                lease.release(Outcome.OK)
            self.assertEqual([backend.active for backend in backends], [0, 0, 0, 0])

    def test_keys(self) -> None:
        """By keys too it picks members only, each of them in time, and never one that is excluded."""
        everybody = members([2, 1, 1, 2, 3, 1])
        for picker in pickers(everybody):
            for few in (everybody, everybody[:3], everybody[1:5:2]):
                picker.update(few)
                for excluded in ((), few[:1], few[1:], set(few[::2])):
                    held = []
                    for key in KEYS:
                        backend = picker.pick_by(key, excluded)
                        assert backend is not None
                        hold(picker, backend)
                        held.append(backend)
                    self.assertEqual(set(held), set(few).difference(excluded))
                    for backend in held:
                        drop(picker, backend)
                self.assertIsNone(picker.pick_by(KEYS[0], few))

    def test_like_to_like(self) -> None:
        """ALG-4: who wants a key sends it to the same backend each time, and keys to all of them by weight."""
        backends = members([1, 2, 3])
        for picker in pickers(backends):
            if picker.wants_key:
                homes = [picker.pick_by(key, ()) for key in KEYS]
                self.assertEqual(homes, [picker.pick_by(key, ()) for key in KEYS])
                for backend in backends:
                    self.assertLess(abs(homes.count(backend) - 100 * backend.weight), 40)

    def test_who_wants_a_key(self) -> None:
        """Those that hash want keys, and no others: the pool need not work one out for them."""
        self.assertEqual(
            {name for name, kind in PICKERS.items() if kind.wants_key},
            {"ip_hash", "consistent_hash"},
        )

    def test_weight_zero(self) -> None:
        """ALG-2: weight 0 takes nothing new, from the pick after the change, and with all at 0 there is nobody."""
        for name in PICKERS:
            backends = members("abc")
            pool = pool_of(backends, name)
            self.assertIsNotNone(pool.pick())
            backends[1].weight = 0
            pool.refresh()
            self.assertNotIn("b", {picked(pool) for _ in range(100)})
            backends[0].weight = backends[2].weight = 0
            pool.refresh()
            self.assertIsNone(pool.pick())


def picked(pool: Pool) -> str:
    """The name of the next one, given back at once."""
    lease = pool.pick()
    assert lease is not None
    lease.release(Outcome.OK)
    return lease.backend.name
