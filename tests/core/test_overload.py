"""When the process is overloaded, and when it is not any more: lags and moments in, a word out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.overload import RELIEF, SAMPLES, STRETCH, Overload

INTERVAL = 0.5


class Watch:
    """Samples as a reactor gives them: each comes as late as it says."""

    def __init__(self, limit: float | None) -> None:
        self.overload = Overload(limit)
        self.now = 1000.0

    def see(self, *lags: float) -> list[bool]:
        """Whether it was on behind each sample."""
        found = []
        for late in lags:
            self.now += INTERVAL + late
            was_on = self.overload.is_on
            has_changed = self.overload.sample(late, self.now)
            assert has_changed is (was_on is not self.overload.is_on)
            found.append(self.overload.is_on)
        return found


class BeginTests(TestCase):
    def test_three_samples(self) -> None:
        """Three samples above the limit, which take long enough, are an overload; it is told once."""
        self.assertEqual(Watch(1.0).see(1.5, 1.5, 1.5, 1.5), [False, False, True, True])

    def test_long_enough(self) -> None:
        """Where samples come fast, three are not enough: the first and the last lie STRETCH apart."""
        self.assertEqual(Watch(0.05).see(0.1, 0.1, 0.1, 0.1), [False, False, False, True])

    def test_one_pause(self) -> None:
        """One pause is none, however long it was, nor are two in a row."""
        self.assertEqual(Watch(1.0).see(0.0, 3600.0, 0.01, 86400.0, 30.0, 0.01), [False] * 6)

    def test_every_sample(self) -> None:
        """One sample that is not above the limit makes all of it begin anew."""
        self.assertEqual(Watch(1.0).see(2.0, 2.0, 1.0, 2.0, 2.0, 2.0), [False] * 5 + [True])

    def test_no_limit(self) -> None:
        """Without a limit there is none."""
        self.assertEqual(Watch(None).see(*[60.0] * 10), [False] * 10)


class EndTests(TestCase):
    def setUp(self) -> None:
        self.watch = Watch(1.0)
        self.watch.see(2.0, 2.0, 2.0)

    def test_relief(self) -> None:
        """It is over when the samples have been below half of the limit for as long."""
        self.assertEqual(self.watch.see(0.1, 0.1, 0.1, 0.1), [True, True, True, False])

    def test_between(self) -> None:
        """Between half of it and the limit nothing changes, and what has been better counts no more."""
        self.assertEqual(self.watch.see(*[0.7] * 9, 0.1, 0.1, 0.5, 0.4, 0.4, 0.4), [True] * 14 + [False])

    def test_again(self) -> None:
        """Another one takes as much as the first."""
        self.watch.see(0.0, 0.0, 0.0, 0.0)
        self.assertEqual(self.watch.see(2.0, 2.0, 2.0), [False, False, True])


class ApplyTests(TestCase):
    def test_off(self) -> None:
        """Without a limit any more it is over at once, which is told."""
        watch = Watch(1.0)
        watch.see(2.0, 2.0, 2.0)
        self.assertTrue(watch.overload.apply(None))
        self.assertFalse(watch.overload.is_on)
        self.assertFalse(watch.overload.apply(None))

    def test_another_limit(self) -> None:
        """Another limit holds from the next sample on, for the whole of a stretch; what is on stays."""
        watch = Watch(5.0)
        watch.see(2.0, 2.0)
        self.assertFalse(watch.overload.apply(1.0))
        self.assertEqual(watch.see(2.0, 2.0, 2.0), [False, False, True])
        self.assertFalse(watch.overload.apply(10.0))
        self.assertEqual(watch.see(2.0, 2.0, 2.0), [True, True, False])


class PropertyTests(TestCase):
    @settings(deadline=None, database=None)
    @given(st.floats(0.05, 60.0), st.lists(st.floats(0.0, 100.0), max_size=60))
    def test_law(self, limit: float, lags: list[float]) -> None:
        """It changes exactly behind a stretch of samples on the other side that are enough and lasted long enough."""
        watch = Watch(limit)
        is_on, stretch = False, list[float]()
        for late in lags:
            found = watch.see(late)[0]
            is_beyond = late < limit * RELIEF if is_on else late > limit
            stretch = [*stretch, watch.now] if is_beyond else []
            if len(stretch) >= SAMPLES and watch.now - stretch[0] >= STRETCH:
                is_on, stretch = not is_on, []
            self.assertIs(found, is_on)
