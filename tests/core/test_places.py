"""Crowded pools: a pick looks at few, whoever has room is found, and nobody is asked where nobody has."""

from __future__ import annotations

import random
from collections import Counter
from itertools import cycle
from typing import Any, NoReturn

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import find_lease, must_wait
from lbsvc.core.hashing import key_hash
from lbsvc.core.pickers import PICKERS
from lbsvc.core.pool import Pool
from tests.core.members import pool_of

KEYS = [key_hash(b"client %d" % number) for number in range(50)]
ARRIVALS = 200


class Looked(Backend):
    """A backend that counts how often one of them is looked up."""

    looks = 0

    def __hash__(self) -> int:
        Looked.looks += 1
        return id(self) >> 4


def _walk(*_: object) -> NoReturn:
    raise AssertionError("all who are full were walked through")


class Unwalked(set[Backend]):
    """Those who are full: to be asked for one of them, and never for all."""

    __iter__ = union = difference = copy = issubset = issuperset = isdisjoint = _walk
    __le__ = __ge__ = __lt__ = __gt__ = __or__ = __ror__ = __sub__ = __rsub__ = __and__ = __rand__ = _walk  # type: ignore[assignment]


def crowded(size: int, algorithm: str, free: int) -> Pool:
    """Each has one place, and so many of these are free."""
    backends = [Looked("web", f"b{number}", "10.0.0.1:80", "10.0.0.1", 80, most=1) for number in range(size)]
    for backend in backends:
        backend.health = "up"
    pool = pool_of(backends, algorithm)
    for backend in random.Random(2).sample(backends, size - free):
        assert pool.take(backend) is not None
    pool.full = pool._places.full = Unwalked(list(pool.full))  # type: ignore[misc]
    return pool


def looks_of(pool: Pool) -> float:
    """How many looks an arrival takes, on the average, with its release or the question whether it waits."""
    keys = cycle(KEYS if pool.wants_key else (None,))
    for first in range(2):
        if first == 1:
            Looked.looks = 0
        for _ in range(ARRIVALS):
            lease = find_lease(pool, (), next(keys), None, False)
            if lease is not None:
                lease.release(Outcome.OK, 200)
            else:
                must_wait(pool)
    return Looked.looks / ARRIVALS


class CostTests(TestCase):
    def test_nobody_has_room(self) -> None:
        """Where all of a thousand are full an arrival looks at none of them, by any algorithm."""
        for algorithm in PICKERS:
            self.assertEqual(looks_of(crowded(1000, algorithm, 0)), 0, algorithm)

    def test_one_has_room(self) -> None:
        """The one free place of a thousand is found with as few looks as that of ten."""
        for algorithm in PICKERS:
            few = looks_of(crowded(10, algorithm, 1))
            self.assertEqual(looks_of(crowded(1000, algorithm, 1)), few, algorithm)

    def test_some_have_room(self) -> None:
        """With ten free, or half of them, it is about twice the square root of their number at most."""
        for algorithm in set(PICKERS) - {"ip_hash", "consistent_hash"}:  # which say what they cost
            for free in (10, 40, 500):
                self.assertLess(looks_of(crowded(1000, algorithm, free)), 100, (algorithm, free))

    def test_a_queue(self) -> None:
        """A place that is given back goes to who waits without a look at the others, be they a thousand."""
        pool = crowded(1000, "round_robin", 1)
        pool.queue.size = 1
        lease = pool.pick()
        assert lease is not None
        served: list[Any] = []

        def take() -> bool:
            served.append(find_lease(pool, (), None, None, True))
            return served[-1] is not None

        pool.queue.enter(take)
        Looked.looks = 0
        lease.release(Outcome.OK, 200)
        self.assertIs(served[0].backend, lease.backend)
        self.assertLess(Looked.looks, 30)


class FairTests(TestCase):
    def test_few_by_weight(self) -> None:
        """Among the few of many that have room each gets its share by weight, round robin to within one or two."""
        for algorithm in ("round_robin", "random"):
            pool = crowded(200, algorithm, 5)
            roomy = [backend for backend in pool.backends if backend.active == 0]
            for backend, weight in zip(roomy, (5, 1, 1, 1, 2), strict=True):
                backend.weight, backend.limit = weight, 100
            pool._places.full = pool.full = set()  # type: ignore[misc]
            pool.refresh()
            found: Counter[Backend] = Counter()
            for _ in range(1000):
                lease = pool.pick()
                assert lease is not None
                found[lease.backend] += 1
                lease.release(Outcome.OK, 200)
            slack = 2 if algorithm == "round_robin" else 60
            for backend in roomy:
                self.assertLessEqual(abs(found[backend] - 100 * backend.weight), slack, (algorithm, found))

    def test_like_to_like(self) -> None:
        """A key's next choice among few is the one that it would have with all others excluded."""
        for algorithm in ("ip_hash", "consistent_hash"):
            pool = crowded(100, algorithm, 4)
            roomy = [backend for backend in pool.backends if backend.active == 0]
            others = [backend for backend in pool.backends if backend.active]
            for key in KEYS:
                expected = pool.picker.pick_by(key, others)
                self.assertIs(pool.picker.pick_among(roomy, key), expected, algorithm)
                lease = pool.pick((), key)
                assert lease is not None
                self.assertIs(lease.backend, expected, algorithm)
                lease.release(Outcome.OK, 200)

    def test_tried_ones_last(self) -> None:
        """Who has been tried is passed over, whether few have room, or many."""
        for algorithm in PICKERS:
            for size, free in ((100, 2), (100, 3), (100, 60), (5, 3), (5, 2)):
                pool = crowded(size, algorithm, free)
                roomy = [backend for backend in pool.backends if backend.active == 0]
                lease = pool.pick(tuple(roomy[1:]), KEYS[0] if pool.wants_key else None)
                assert lease is not None
                self.assertIs(lease.backend, roomy[0], algorithm)
                self.assertIsNone(pool.pick(tuple(roomy[1:]), KEYS[0] if pool.wants_key else None))
