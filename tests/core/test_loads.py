"""least_connections: the least loaded by weight, ties in turn, exact after any history."""

from __future__ import annotations

import random
from collections import Counter

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.lease import Lease
from lbsvc.core.loads import SLACK, SPARE, LeastConnections, Levels, Loads
from lbsvc.core.pool import Pool
from tests.core.members import member, members, pool_of


def take(pool: Pool, count: int = 1, exclude: tuple[Backend, ...] = ()) -> list[Lease]:
    leases = [pool.pick(exclude) for _ in range(count)]
    return [lease for lease in leases if lease is not None]


def names(leases: list[Lease]) -> str:
    return "".join(lease.backend.name for lease in leases)


def least(weights: str | list[int]) -> Pool:
    return pool_of(members(weights), "least_connections")


class LeastConnectionsTests(TestCase):
    def test_the_free_one(self) -> None:
        """ALG-3: with one request held on a and on b, the next goes to c."""
        pool = least("abc")
        self.assertEqual(names(take(pool, 3)), "abc")

    def test_two_each(self) -> None:
        """ALG-3: six concurrent requests over three backends: two each."""
        self.assertEqual(Counter(names(take(least("abc"), 6))), {"a": 2, "b": 2, "c": 2})

    def test_ties_rotate(self) -> None:
        """ALG-3: one client at a time goes round, although all are idle each time."""
        pool = least("abc")
        order = ""
        for _ in range(9):
            (lease,) = take(pool)
            order += lease.backend.name
            lease.release(Outcome.OK)
        self.assertEqual(order, "abcabcabc")

    def test_by_weight(self) -> None:
        """ALG-3: with weights 1:2:3 sixty held requests lie 10/20/30."""
        self.assertEqual(Counter(names(take(least([1, 2, 3]), 60))), {"a": 10, "b": 20, "c": 30})

    def test_counts_return_to_zero(self) -> None:
        """ALG-3, CT-1: after success, error, a client's abort and a backend's death nothing is left in flight."""
        pool = least("abc")
        for outcome in Outcome:
            for lease in take(pool, 5):
                lease.release(outcome)
        self.assertEqual([backend.active for backend in pool.backends], [0, 0, 0])
        self.assertEqual(names(take(pool, 3)), names(take(pool, 3)))

    def test_a_recovered_backend_is_not_flooded(self) -> None:
        """A backend that returns gets requests up to the others' level, and from then on shares with them (ALG-3)."""
        pool = least("abc")
        pool.backends[2].health = "down"
        pool.refresh()
        take(pool, 20)
        pool.backends[2].health = "up"
        pool.refresh()
        most = 0
        for _ in range(40):
            take(pool)
            a, b, c = (backend.active for backend in pool.backends)
            most = max(most, c - min(a, b))
        self.assertLessEqual(most, 1)
        self.assertEqual(sorted(backend.active for backend in pool.backends), [20, 20, 20])

    def test_excluded(self) -> None:
        """The least loaded of the others, also when the excluded ones have less; the excluded keep their place."""
        for weights in ([1, 1, 1], [1, 1, 2]):
            pool = least(weights)
            a, b, c = pool.backends
            take(pool, 3, exclude=(a, b))
            self.assertEqual((a.active, b.active, c.active), (0, 0, 3))
            self.assertEqual(names(take(pool, 1, exclude=(c,))), "a")
            self.assertEqual(names(take(pool, 1)), "b")

    def test_a_million(self) -> None:
        """After 10^6 picks and releases the next pick is still one of the least loaded, and all sums agree (ALG-3)."""
        for weights in ([1] * 20, [1, 2, 5] * 7):
            rng = random.Random(5)
            picker = LeastConnections(rng)
            backends = members(weights)
            picker.update(backends)
            held: list[Backend] = []
            for _ in range(250_000):  # two kinds of books, each a pick and a release a turn
                backend = picker.pick(())
                assert backend is not None
                backend.active += 1
                picker.acquired(backend)
                held.append(backend)
                if len(held) > 50:
                    spot = rng.randrange(len(held))
                    held[spot], held[-1] = held[-1], held[spot]
                    gone = held.pop()
                    gone.active -= 1
                    picker.released(gone)
            self.assertEqual(Counter(held), {each: each.active for each in backends if each.active})
            backend = picker.pick(())
            assert backend is not None
            self.assertEqual(backend.active / backend.weight, min(each.active / each.weight for each in backends))

    def test_alg_3_idle_ones_take_turns(self) -> None:
        """ALG-3: with one request at a time light backends get their turns too."""
        pool = least([1, 2, 3])
        counts: Counter[str] = Counter()
        for _ in range(90):
            (lease,) = take(pool)
            counts[lease.backend.name] += 1
            lease.release(Outcome.OK)
        self.assertEqual(set(counts.values()), {30})

    def test_updates_keep_the_turn(self) -> None:
        """An update between sequential requests does not send them all to the first backend."""
        for weights in ([1, 1, 1, 1], [2, 2, 2, 1]):
            pool = least(weights)
            counts: Counter[str] = Counter()
            for turn in range(90):
                pool.backends[3].health = "down" if turn % 2 else "up"
                pool.refresh()
                (lease,) = take(pool)
                counts[lease.backend.name] += 1
                lease.release(Outcome.OK)
            self.assertGreater(min(counts[name] for name in "abc"), 18)

    def test_work_from_before(self) -> None:
        """A member that joins with requests in flight counts as loaded as it is."""
        pool = least("ab")
        take(pool, 4)
        late = member("c")
        late.active = 5
        pool.set_members([*pool.backends, late])
        self.assertEqual(Counter(names(take(pool, 6))), {"a": 3, "b": 3})
        self.assertEqual(set(names(take(pool, 3))), set("abc"))


class BooksTests(TestCase):
    def test_the_heap_stays_small(self) -> None:
        """However many changes never surface, the heap keeps to its bound."""
        backends = members([1, 2])
        books = Loads(backends)
        for _ in range(10_000):
            backends[0].active += 1
            books.move(backends[0])
        self.assertLessEqual(len(books._heap), SLACK * 2 + SPARE + 1)
        self.assertIs(books.first(()), backends[1])

    def test_the_levels_stay_few(self) -> None:
        """A backend that climbs to a great load leaves no level behind for each step."""
        backends = members("ab")
        books = Levels(backends)
        for _ in range(10_000):
            backends[0].active += 1
            books.move(backends[0])
        self.assertLessEqual(len(books._levels), 2 * 2 + SPARE + 2)
        self.assertIs(books.first(()), backends[1])
        self.assertIs(books.first((backends[1],)), backends[0])

    def test_a_jump(self) -> None:
        """Counts that moved unseen (leases of another pool's picker) are taken as they are at the next move."""
        backends = members("abc")
        books = Levels(backends)
        for backend in backends:
            backend.active = 7
            books.move(backend)
        backends[1].active = 3
        books.move(backends[1])
        self.assertIs(books.first(()), backends[1])
