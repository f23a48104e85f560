"""round_robin: exact shares, smooth, in a fixed order, and fair over changes."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Outcome
from lbsvc.core.pool import Pool
from lbsvc.core.rotation import PASSES
from tests.core.members import member, members, pool_of


def turns(pool: Pool, count: int, exclude: str = "") -> str:
    """The names of the next `count` picks, each given back at once."""
    out = []
    for _ in range(count):
        lease = pool.pick([each for each in pool.backends if each.name in exclude])
        assert lease is not None
        lease.release(Outcome.OK)
        out.append(lease.backend.name)
    return "".join(out)


class EqualWeights(TestCase):
    def test_a_hundred_each(self) -> None:
        """ALG-1: 1000 requests over ten equal backends: exactly 100 each, in a fixed cyclic order."""
        self.assertEqual(turns(pool_of(members("abcdefghij")), 1000), "abcdefghij" * 100)

    def test_a_hundred_at_once(self) -> None:
        """ALG-1: a hundred concurrent requests over ten backends: ten each."""
        pool = pool_of(members("abcdefghij"))
        leases = [pool.pick() for _ in range(100)]
        self.assertEqual({backend.active for backend in pool.backends}, {10})
        self.assertEqual(len(leases), 100)

    def test_one_goes_down_and_comes_back(self) -> None:
        """ALG-1: with one of ten down the nine share exactly, none doubled; after its return it has its tenth again."""
        pool = pool_of(members("abcdefghij"))
        turns(pool, 13)
        pool.backends[3].health = "down"
        pool.refresh()
        self.assertEqual(set(Counter(turns(pool, 900)).items()), {(name, 100) for name in "abcefghij"})
        pool.backends[3].health = "up"
        pool.refresh()
        self.assertEqual(set(Counter(turns(pool, 1000)).items()), {(name, 100) for name in "abcdefghij"})

    def test_an_update_does_not_begin_anew(self) -> None:
        """After a change the rotation goes on with whoever was next."""
        pool = pool_of(members("abcde"))
        self.assertEqual(turns(pool, 2), "ab")
        pool.backends[4].health = "down"
        pool.refresh()
        self.assertEqual(turns(pool, 3), "cda")
        pool.backends[1].health = "down"  # whose turn it is
        pool.refresh()
        self.assertEqual(turns(pool, 3), "cda")

    def test_changes_faster_than_cycles(self) -> None:
        """A backend that flaps at every second request does not send all others' requests to the first ones."""
        pool = pool_of(members("abcdef"))
        counts: Counter[str] = Counter()
        for turn in range(600):
            pool.backends[5].health = "up" if turn % 2 else "down"
            pool.refresh()
            counts.update(turns(pool, 1))
        self.assertGreater(min(counts[name] for name in "abcde"), 80)
        self.assertLess(max(counts.values()), 140)

    def test_a_refresh_without_a_change_changes_nothing(self) -> None:
        """Refreshing between picks leaves the order as it is."""
        pool = pool_of(members("abc"))
        out = ""
        for _ in range(6):
            out += turns(pool, 1)
            pool.refresh()
        self.assertEqual(out, "abcabc")

    def test_a_failing_backend_feeds_no_neighbour(self) -> None:
        """Retries of a backend whose dials fail go round, not all to the one after it."""
        pool = pool_of(members("abcd"))
        counts: Counter[str] = Counter()
        for _ in range(300):
            name = turns(pool, 1)
            counts.update(turns(pool, 1, exclude="a") if name == "a" else name)
        self.assertEqual(set(counts), set("bcd"))
        self.assertEqual(set(counts.values()), {100})


class Weights(TestCase):
    def test_exact_and_smooth(self) -> None:
        """ALG-2: 5:1:1 gives exactly 500:100:100 in 700, and never more than three of one in a row."""
        order = turns(pool_of(members([5, 1, 1])), 700)
        self.assertEqual(Counter(order), {"a": 500, "b": 100, "c": 100})
        self.assertEqual(max(len(list(run)) for _, run in groupby(order + order)), 3)

    def test_one_two_three(self) -> None:
        """ALG-2: 1:2:3 gives exactly 100/200/300 of 600, from wherever the count begins."""
        pool = pool_of(members([1, 2, 3]))
        for _ in range(7):
            self.assertEqual(Counter(turns(pool, 600)), {"a": 100, "b": 200, "c": 300})
            turns(pool, 1)

    def test_share_of_the_dead(self) -> None:
        """ALG-2: a down backend's share goes to the others by their weights."""
        pool = pool_of(members([1, 2, 3]))
        turns(pool, 5)
        pool.backends[2].health = "down"
        pool.refresh()
        self.assertEqual(Counter(turns(pool, 300)), {"a": 100, "b": 200})

    def test_a_change_counts_at_once(self) -> None:
        """ALG-2: a changed weight and an added backend count from the next request."""
        pool = pool_of(members([1, 1]))
        turns(pool, 3)
        pool.backends[0].weight = 3
        pool.refresh()
        self.assertEqual(Counter(turns(pool, 400)), {"a": 300, "b": 100})
        pool.set_members([*pool.backends, member("c", 4)])
        self.assertEqual(Counter(turns(pool, 800)), {"a": 300, "b": 100, "c": 400})

    def test_light_ones_outlive_many_changes(self) -> None:
        """Where members change every other request, the light ones still get about their share."""
        pool = pool_of(members([8, 1, 1, 4]))
        counts: Counter[str] = Counter()
        for turn in range(1000):
            pool.backends[3].health = "up" if turn % 2 else "down"
            pool.refresh()
            counts.update(turns(pool, 2))
        # 8:1:1 and 8:1:1:4 in turn: a light one is due 1/10 and 1/14 of the time, 171 of 2000.
        for name in "bc":
            self.assertLess(abs(counts[name] - 171), 50)

    def test_excluding_the_heavy(self) -> None:
        """Without the one that holds nearly all turns, the others still share by weight, and soon."""
        pool = pool_of(members([65535, 1, 2]))
        self.assertEqual(Counter(turns(pool, 30 * PASSES, exclude="a")), {"b": 10 * PASSES, "c": 20 * PASSES})

    def test_turns_taken_ahead_are_paid_back(self) -> None:
        """What light ones take ahead of time, while the heavy one is excluded, the next cycles take off again."""
        pool = pool_of(members([1000, 1, 2]))
        ahead = Counter(turns(pool, 30, exclude="a"))
        self.assertEqual(ahead, {"b": 10, "c": 20})
        after = Counter(turns(pool, 20 * 1003))
        self.assertLess(abs(after["b"] + ahead["b"] - 20), 4)
        self.assertLess(abs(after["c"] + ahead["c"] - 40), 7)

    def test_one_of_equals_excluded(self) -> None:
        """An excluded backend's turns go to all others by weight, not to those of its own weight."""
        pool = pool_of(members([1, 1, 2]))
        self.assertEqual(Counter(turns(pool, 300, exclude="a")), {"b": 100, "c": 200})
