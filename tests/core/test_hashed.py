"""ip_hash and consistent_hash: like to like, little moved by changes, and nobody far above their share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from math import ceil

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.hashed import PAUSE, ConsistentHash, IpHash, rounded
from lbsvc.core.hashing import key_hash
from lbsvc.core.maglev import SIZE
from lbsvc.core.pickers import Picker
from tests.core.members import members

KEYS = [key_hash(b"192.0.%d.%d" % divmod(number, 256)) for number in range(3000)]


def hashed(
    kind: Callable[[random.Random], Picker], backends: Sequence[Backend], seconds: Callable[[], float] | None = None
) -> Picker:
    picker = kind(random.Random(4))
    if seconds is not None:
        picker.seconds = seconds
    picker.update(backends)
    return picker


def homes(picker: Picker, exclude: Collection[Backend] = ()) -> list[str]:
    """The name of each key's backend."""
    found = []
    for key in KEYS:
        backend = picker.pick_by(key, exclude)
        assert backend is not None
        found.append(backend.name)
    return found


def hold(picker: Picker, backend: Backend | None) -> Backend:
    assert backend is not None
    backend.active += 1
    picker.acquired(backend)
    return backend


def drop(picker: Picker, backend: Backend) -> None:
    backend.active -= 1
    picker.released(backend)


class BothTests(TestCase):
    kinds = (IpHash, ConsistentHash)

    def test_a_client_has_a_home(self) -> None:
        """ALG-4: a thousand requests of one client go to one backend; different clients go to all of them."""
        for kind in self.kinds:
            picker = hashed(kind, members("abcde"))
            self.assertEqual(len({picker.pick_by(KEYS[0], ()) for _ in range(1000)}), 1)
            self.assertEqual(set(homes(picker)), set("abcde"))

    def test_a_hundred_at_once(self) -> None:
        """ALG-4: a hundred requests of one client at one time stay together by ip_hash, however many they are."""
        picker = hashed(IpHash, members("abcde"))
        self.assertEqual(len({hold(picker, picker.pick_by(KEYS[0], ())) for _ in range(100)}), 1)

    def test_home_leaves_and_comes_back(self) -> None:
        """ALG-4: when its home dies a client goes to exactly one other, and back to it when it returns."""
        for kind in self.kinds:
            backends = members("abcde")
            picker = hashed(kind, backends)
            home = picker.pick_by(KEYS[0], ())
            picker.update([backend for backend in backends if backend is not home])
            others = {picker.pick_by(KEYS[0], ()) for _ in range(1000)}
            self.assertEqual(len(others), 1)
            self.assertNotIn(home, others)
            picker.update(backends)
            self.assertIs(picker.pick_by(KEYS[0], ()), home)

    def test_instances_agree(self) -> None:
        """Two instances with the same backends choose alike, in whatever order they are listed, with whatever chance."""
        for kind in self.kinds:
            backends = members([1, 2, 1, 3])
            one = hashed(kind, backends)
            other = kind(random.Random(99))
            other.update(members("xyz"))
            other.update(members([1, 2, 1, 3])[::-1])
            self.assertEqual(homes(one), homes(other))

    def test_by_weight(self) -> None:
        """ALG-2: clients are spread by the weights."""
        for kind in self.kinds:
            for weights in ([1, 2, 3], [10, 10, 40]):
                backends = members(weights)
                counts = Counter(homes(hashed(kind, backends)))
                for backend in backends:
                    expected = len(KEYS) * backend.effective / sum(weights)
                    self.assertLess(abs(counts[backend.name] - expected), 0.15 * expected)

    def test_the_next_choice(self) -> None:
        """A client whose home is excluded has one next choice, and the clients of one home have different ones."""
        for kind in self.kinds:
            backends = members("abcde")
            picker = hashed(kind, backends)
            before = homes(picker)
            after = homes(picker, backends[:1])
            self.assertEqual(after, homes(picker, {backends[0]}))
            moved = Counter(new for old, new in zip(before, after, strict=True) if old == "a")
            self.assertEqual(set(moved), set("bcde"))
            self.assertLess(max(moved.values()), 2 * min(moved.values()))
            self.assertEqual(
                [old for old in before if old != "a"],
                [new for old, new in zip(before, after, strict=True) if old != "a"],
            )

    def test_a_weight_counts_from_the_next_pick(self) -> None:
        """A weight that grows moves clients to that backend; by ip_hash no others at all, by Maglev few."""
        for kind, most in ((IpHash, 0), (ConsistentHash, 0.05 * len(KEYS))):
            backends = members([2, 2, 2])
            picker = hashed(kind, backends)
            before = homes(picker)
            for weight in (3, 4, 5, 100, 101, 65535):
                backends[0].effective = weight
                picker.update(backends)
                after = homes(picker)
                self.assertGreaterEqual(after.count("a"), before.count("a"))
                elsewhere = sum(old != new and new != "a" for old, new in zip(before, after, strict=True))
                self.assertLessEqual(elsewhere, most)
                before = after
            self.assertGreater(before.count("a"), 0.98 * len(KEYS))

    def test_without_a_key(self) -> None:
        """Requests without a key are spread by weight."""
        for kind in self.kinds:
            backends = members([1, 3])
            picker = hashed(kind, backends)
            counts = Counter(picker.pick(()) for _ in range(2000))
            self.assertLess(abs(counts[backends[1]] - 1500), 100)
            self.assertIs(picker.pick(backends[1:]), backends[0])

    def test_nobody(self) -> None:
        """Without members, and with all of them excluded, a key has no backend."""
        for kind in self.kinds:
            backends = members("abc")
            picker = hashed(kind, backends)
            self.assertIsNone(picker.pick_by(KEYS[0], backends))
            picker.update([])
            self.assertIsNone(picker.pick_by(KEYS[0], ()))
            self.assertIsNone(picker.pick_by(KEYS[0], backends))
            self.assertIsNone(kind(random.Random(1)).pick_by(KEYS[0], ()))
            picker.update(backends[:1])
            self.assertEqual({picker.pick_by(key, ()) for key in KEYS}, {backends[0]})


class IpHashTests(TestCase):
    def test_only_its_own_clients_move(self) -> None:
        """ALG-4: removing one of ten, of whatever weight, moves its clients and nobody else's."""
        for weights in ([1] * 10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 100]):
            backends = members(weights)
            before = homes(hashed(IpHash, backends))
            for gone in (0, 4, 9):
                after = homes(hashed(IpHash, backends[:gone] + backends[gone + 1 :]))
                for old, new in zip(before, after, strict=True):
                    self.assertEqual(new == old, old != backends[gone].name)

    def test_excluded_is_gone(self) -> None:
        """Where a client goes while its home cannot be reached is where it goes when its home is down."""
        backends = members([1, 1, 2, 3, 1, 8])
        for gone in ([0], [5], [2, 3], [0, 1, 2, 3], [1, 2, 3, 4, 5]):
            excluded = [backends[index] for index in gone]
            others = [backend for backend in backends if backend not in excluded]
            self.assertEqual(homes(hashed(IpHash, backends), excluded), homes(hashed(IpHash, others)))

    def test_rounded_weights(self) -> None:
        """Weights are rounded to seven binary digits: by a 128th at most, never past one another, the small not at all."""
        weights = [rounded(weight) for weight in range(1, 65536)]
        self.assertEqual(weights, sorted(weights))
        self.assertEqual(weights[:128], list(range(1, 129)))
        self.assertLess(len(set(weights)), 720)
        for weight, found in enumerate(weights, 1):
            self.assertLessEqual(abs(found - weight), weight / 128)

    def test_larger_weights_of_the_same_shares(self) -> None:
        """Weights a hundred times as large, as while somebody's slow start lasts, move nobody."""
        for kind in (IpHash, ConsistentHash):
            few = homes(hashed(kind, members([1, 2, 3, 1, 5])))
            self.assertEqual(few, homes(hashed(kind, members([100, 200, 300, 100, 500]))))

    def test_rows_are_remembered_rightly(self) -> None:
        """A second look gives what the first gave, before and after a change."""
        backends = members("abcd")
        picker = hashed(IpHash, backends)
        first = homes(picker)
        self.assertEqual(homes(picker), first)
        picker.update(backends[1:])
        self.assertNotIn("a", homes(picker))
        picker.update(backends)
        self.assertEqual(homes(picker), first)


class BoundTests(TestCase):
    """Bounded loads: nobody takes one more who has ceil(1.25 x (all + 1) x share) in flight."""

    def test_a_hot_key(self) -> None:
        """A key that everybody asks for is spread, and no backend is ever above its bound."""
        for weights in ([1] * 10, [1, 2, 3], [65535, 1]):
            backends = members(weights)
            picker = hashed(ConsistentHash, backends)
            for total in range(400):
                backend = hold(picker, picker.pick_by(KEYS[0], ()))
                self.assertLessEqual(backend.active, ceil(1.25 * (total + 1) * backend.effective / sum(weights)))

    def test_a_home_that_is_full(self) -> None:
        """A client whose home is at its bound has one other place, and goes home when there is room."""
        backends = members("abcde")
        picker = hashed(ConsistentHash, backends)
        home = picker.pick_by(KEYS[0], ())
        hold(picker, home)
        hold(picker, home)
        other = picker.pick_by(KEYS[0], ())
        self.assertIsNot(other, home)
        self.assertEqual({picker.pick_by(KEYS[0], ()) for _ in range(50)}, {other})
        for _ in range(8):  # others are busy: the bound of all has grown
            hold(picker, other)
        self.assertIs(picker.pick_by(KEYS[0], ()), home)

    def test_what_is_in_flight_already(self) -> None:
        """Leases from before an update count, and those of strangers and of removed members do not."""
        backends = members("abcd")
        picker = hashed(ConsistentHash, backends[:3])
        home = picker.pick_by(KEYS[0], ())
        assert home is not None
        others = [backend for backend in backends[:3] if backend is not home]
        for _ in range(100):
            hold(picker, backends[3])
        hold(picker, home)
        hold(picker, home)
        self.assertIn(picker.pick_by(KEYS[0], ()), others)
        for _ in range(4):
            hold(picker, others[0])
        self.assertIs(picker.pick_by(KEYS[0], ()), home)
        picker.update([home, others[1]])  # the four are nobody's any more: the bound is 2
        self.assertIs(picker.pick_by(KEYS[0], ()), others[1])
        drop(picker, others[0])
        drop(picker, home)
        self.assertIs(picker.pick_by(KEYS[0], ()), home)

    def test_all_others_are_excluded(self) -> None:
        """A bound does not turn a request away: the only one left takes it, or the least loaded of those left."""
        backends = members("abc")
        picker = hashed(ConsistentHash, backends)
        for _ in range(50):
            hold(picker, backends[0])
        self.assertIs(picker.pick_by(KEYS[0], backends[1:]), backends[0])
        for _ in range(40):
            hold(picker, backends[1])
        self.assertEqual({picker.pick_by(key, backends[2:]) for key in KEYS[:50]}, {backends[1]})


class TableTests(TestCase):
    """When the table of consistent_hash is made."""

    def setUp(self) -> None:
        self.now = 50.0
        self.backends = members("abcdef")
        self.picker = hashed(ConsistentHash, self.backends, lambda: self.now)
        self.before = homes(self.picker)

    def test_at_most_once_in_a_while(self) -> None:
        """Until the pause is over who left gets nothing and who came waits; then the table is that of a fresh start."""
        self.now += PAUSE / 2
        there = self.backends[1:] + members("g")
        self.picker.update(there)
        after = homes(self.picker)
        self.assertEqual(set(after), set("bcdef"))
        self.assertEqual(
            [old for old in self.before if old != "a"],
            [new for old, new in zip(self.before, after, strict=True) if old != "a"],
        )
        self.now += PAUSE
        self.assertEqual(homes(self.picker), homes(hashed(ConsistentHash, there)))

    def test_at_once_after_a_while(self) -> None:
        """A change after a quiet time counts from the next pick."""
        self.now += 2 * PAUSE
        self.picker.update(self.backends[1:])
        self.assertEqual(homes(self.picker), homes(hashed(ConsistentHash, self.backends[1:])))

    def test_at_once_when_most_are_gone(self) -> None:
        """A table that is mostly of the gone is made anew without a pause."""
        self.picker.update(self.backends[4:])
        self.assertEqual(homes(self.picker), homes(hashed(ConsistentHash, self.backends[4:])))
        self.picker.update(members("xyz"))
        self.assertEqual(set(homes(self.picker)), set("xyz"))

    def test_there_and_back(self) -> None:
        """Who leaves and returns within the pause finds its clients."""
        self.picker.update(self.backends[1:])
        self.assertNotIn("a", homes(self.picker))
        self.picker.update(self.backends)
        self.assertEqual(homes(self.picker), self.before)

    def test_every_key(self) -> None:
        """Keys from 0 to the greatest have a place; a walk from the last place goes on with the first."""
        for key in (0, 1, SIZE - 1, SIZE, 2**64 - 1):
            home = self.picker.pick_by(key, ())
            assert home is not None
            self.assertIsNot(self.picker.pick_by(key, [home]), home)
