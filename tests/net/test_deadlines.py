"""The sweep over stored deadlines: never early, little late, cheap to move, nothing left behind."""

from __future__ import annotations

import gc
import random
import weakref

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.net.deadlines import NEVER, TICK, Deadlines

LATE = 3 * TICK


class Patient:
    """Something that waits, and writes down when its patience ended."""

    def __init__(self, *again: float) -> None:
        self.deadline = NEVER
        self.slot = NEVER
        self.ended: list[float] = []
        self.again = list(again)
        self.deadlines: Deadlines | None = None

    def expired(self, now: float) -> None:
        self.ended.append(now)
        if self.again and self.deadlines is not None:
            self.deadlines.watch(self, self.again.pop())


class DeadlinesTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(12345.678)
        self.deadlines = Deadlines(self.clock)
        self.deadlines.start()
        self.addCleanup(self.deadlines.stop)

    def go(self, seconds: float, step: float = 0.033) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()) or step)

    def held(self) -> int:
        return sum(map(len, self.deadlines._buckets.values()))

    def test_neither_early_nor_late(self) -> None:
        """Whatever the patience and the moment, the call comes after it, by three ticks at most, once."""
        rng = random.Random(1)
        waiting = []
        for _ in range(300):
            item, patience = Patient(), rng.choice([0.0, 0.05, 0.1, 1.0, rng.uniform(0, 20)])
            waiting.append((item, self.clock.seconds() + patience))
            self.deadlines.watch(item, patience)
            self.go(rng.uniform(0, 0.2))
        self.go(25)
        for item, due in waiting:
            (ended,) = item.ended
            self.assertGreaterEqual(ended, due - 1e-9)
            self.assertLessEqual(ended, due + LATE + 0.034)

    def test_moved_later_by_an_attribute(self) -> None:
        """Storing a later deadline is all it takes to move it."""
        item = Patient()
        self.deadlines.watch(item, 1)
        for _ in range(20):
            self.go(0.5)
            item.deadline = self.deadlines.after(1)
        self.assertEqual(item.ended, [])
        self.go(1 + LATE)
        self.assertEqual(len(item.ended), 1)

    def test_moved_earlier(self) -> None:
        """A shorter patience takes the place of a longer one, and the longer one never ends."""
        item = Patient()
        self.deadlines.watch(item, 60)
        self.deadlines.watch(item, 1)
        self.assertEqual(self.held(), 1)
        self.go(1 + LATE)
        self.assertEqual(len(item.ended), 1)
        self.go(70)
        self.assertEqual(len(item.ended), 1)

    def test_taken_off(self) -> None:
        """NEVER, stored or watched for, ends the waiting."""
        stored, watched = Patient(), Patient()
        for item in (stored, watched):
            self.deadlines.watch(item, 1)
        stored.deadline = NEVER
        self.deadlines.watch(watched, NEVER)
        self.go(5)
        self.assertEqual((stored.ended, watched.ended, self.held()), ([], [], 0))
        self.deadlines.watch(stored, 1)
        self.go(1 + LATE)
        self.assertEqual(len(stored.ended), 1)

    def test_again_from_within(self) -> None:
        """What is set while the call is made is kept; without that there is no second call."""
        item = Patient(2, 1)
        item.deadlines = self.deadlines
        self.deadlines.watch(item, 1)
        self.go(10)
        self.assertEqual(len(item.ended), 3)

    def test_busy_items_stay_where_they_are(self) -> None:
        """Thousands of moves within a bucket's time, or to later ones, put nothing anywhere."""
        item = Patient()
        inserted: list[object] = []
        insert = self.deadlines.insert
        self.patch(self.deadlines, "insert", lambda each: (inserted.append(each), insert(each)))
        for _ in range(1000):
            self.deadlines.watch(item, 5)
            self.go(0.01, 0.01)
        self.assertLess(len(inserted), 5)
        self.assertEqual(self.held(), 1)

    def test_forget(self) -> None:
        """What is forgotten is called no more, and held by nothing, however often it was moved."""
        item = Patient()
        for patience in (60, 30, 10, 40):
            self.deadlines.watch(item, patience)
        self.deadlines.forget(item)
        self.assertEqual((self.held(), item.deadline, item.slot), (0, NEVER, NEVER))
        self.deadlines.forget(item)
        self.go(61)
        self.assertEqual(item.ended, [])
        gc.disable()
        self.addCleanup(gc.enable)
        gone = weakref.ref(item)
        del item
        self.assertIsNone(gone())

    def test_forgotten_by_another(self) -> None:
        """One that ends may forget, or move, another of the same bucket."""

        class Ending(Patient):
            def expired(self, now: float) -> None:
                super().expired(now)
                deadlines.forget(other)
                deadlines.watch(moved, 5)

        deadlines = self.deadlines
        first, other, moved = Ending(), Patient(), Patient()
        for item in (first, other, moved):
            deadlines.watch(item, 1)
        self.go(4)
        self.assertEqual([len(item.ended) for item in (first, other, moved)], [1, 0, 0])
        self.go(3)
        self.assertEqual([len(item.ended) for item in (first, other, moved)], [1, 0, 1])

    def test_one_that_raises(self) -> None:
        """An error is logged; the others of its bucket, and later ones, are called all the same."""

        class Broken(Patient):
            def expired(self, now: float) -> None:
                raise RuntimeError("cannot expire")

        items = [Patient(), Broken(), Patient()]
        for item in items:
            self.deadlines.watch(item, 1)
        later = Patient()
        self.deadlines.watch(later, 2)
        self.go(3)
        self.assertEqual([len(item.ended) for item in (*items, later)], [1, 0, 1, 1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_long_pause(self) -> None:
        """After a pause of a day all that is due is called at once, and the sweep counts through no empty ticks."""
        items = [Patient() for _ in range(3)]
        for patience, item in enumerate(items):
            self.deadlines.watch(item, 10.0 + patience)
        self.clock.advance(86400)
        self.assertEqual([len(item.ended) for item in items], [1, 1, 1])
        late = Patient()
        self.deadlines.watch(late, 1)
        self.go(0.9)
        self.assertEqual(late.ended, [])
        self.go(0.1 + LATE)
        self.assertEqual(len(late.ended), 1)

    def test_stopped(self) -> None:
        """After `stop` no timer is left, whether it ran or not."""
        self.deadlines.stop()
        self.deadlines.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
