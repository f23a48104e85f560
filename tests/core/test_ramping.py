"""Slow start: weights that grow in a straight line, and what pickers make of them."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.chance import RandomChoice
from lbsvc.core.loads import LeastConnections
from lbsvc.core.pickers import Picker
from lbsvc.core.ramping import LEAST, SCALE, STEPS, Ramp, effective, effective_weights
from lbsvc.core.rotation import RoundRobin
from tests.core.members import members

QUICK = settings(max_examples=100, deadline=None, database=None)

WEIGHTS = st.integers(0, 65535)
SHARES = st.one_of(st.just(1.0), st.floats(LEAST, 1.0))


class RampTests(TestCase):
    def test_linear(self) -> None:
        """A backend that came back at 50 has the share of its weight that the part of the 30 s says."""
        ramp = Ramp(30.0)
        for now, share in (
            (50.0, LEAST),
            (50.2, LEAST),
            (53.0, 0.1),
            (65.0, 0.5),
            (77.0, 0.9),
            (80.0, 1.0),
            (9e9, 1.0),
        ):
            self.assertAlmostEqual(ramp.share(50.0, now), share)
            self.assertEqual(ramp.is_over(50.0, now), share == 1.0)

    def test_not_at_start(self) -> None:
        """Who was always here has its full weight at once, and so has everybody where there is no slow start."""
        self.assertEqual(Ramp(30.0).share(None, 0.0), 1.0)
        self.assertTrue(Ramp(30.0).is_over(None, 0.0))
        for duration in (0.0, -1.0):
            self.assertEqual(Ramp(duration).share(5.0, 5.0), 1.0)
            self.assertEqual(Ramp(duration).interval, 0.0)

    def test_a_clock_that_steps_back(self) -> None:
        """Before it came back, as an odd clock may say, a backend has the least share, and not less than nothing."""
        self.assertEqual(Ramp(30.0).share(50.0, 20.0), LEAST)

    def test_timers_come_to_the_end(self) -> None:
        """A timer that adds up the intervals has the full weight at its last step, however the sums are rounded."""
        for duration in (0.001, 0.1, 1.0, 7.3, 30.0, 3600.0):
            for start in (0.0, 0.1, 12345.678):
                ramp = Ramp(duration)
                now = start
                shares = [ramp.share(start, now)]
                for _ in range(STEPS):
                    now += ramp.interval
                    shares.append(ramp.share(start, now))
                self.assertEqual(shares[-1], 1.0)
                self.assertLess(shares[-2], 1.0)

    @QUICK
    @given(st.floats(0.001, 1e5), st.floats(0, 1e9), st.lists(st.floats(0, 2e5), min_size=2, max_size=8))
    def test_never_falls(self, duration: float, since: float, ages: list[float]) -> None:
        """For any duration the share grows or stays as time goes on, between the least and the whole."""
        shares = [Ramp(duration).share(since, since + age) for age in sorted(ages)]
        self.assertEqual(shares, sorted(shares))
        self.assertTrue(all(LEAST <= share <= 1.0 for share in shares))


class WeightTests(TestCase):
    def test_nobody_ramps(self) -> None:
        """While nobody ramps pickers see the weights as they are configured, and 0 is 0."""
        self.assertEqual(effective_weights([(5, 1.0), (1, 1.0), (0, 1.0), (65535, 1.0)]), [5, 1, 0, 65535])
        self.assertEqual(effective_weights([(5, 1.0), (0, 0.2)]), [5, 0])
        self.assertEqual(effective_weights([]), [])

    def test_somebody_ramps(self) -> None:
        """While one ramps it counts with its part of the whole, and the others stand to each other as before."""
        self.assertEqual(effective_weights([(5, 1.0), (1, 1.0), (2, 0.25), (0, 1.0)]), [500, 100, 50, 0])
        self.assertEqual(effective_weights([(1, LEAST), (1, 1.0)]), [1, SCALE])

    @QUICK
    @given(st.lists(st.tuples(WEIGHTS, SHARES), max_size=8))
    def test_any_weights(self, given_members: list[tuple[int, float]]) -> None:
        """For any weights and shares: 0 exactly for 0; else at least 1, and within half a unit of the part."""
        found = effective_weights(given_members)
        scale = 1 if all(share >= 1.0 or not weight for weight, share in given_members) else SCALE
        self.assertEqual(len(found), len(given_members))
        for each, (weight, share) in zip(found, given_members, strict=True):
            self.assertEqual(each > 0, weight > 0)
            self.assertLessEqual(abs(each - weight * share * scale), 0.5 + 1e-6 * each)

    @QUICK
    @given(st.integers(1, 65535), SHARES, SHARES)
    def test_more_is_more(self, weight: int, one: float, other: float) -> None:
        """Of two shares of one weight the greater never makes the smaller number."""
        self.assertLessEqual(effective(weight, min(one, other)), effective(weight, max(one, other)))


class PickingTests(TestCase):
    def ramp_up(self, picker: Picker, requests: int = 400) -> list[int]:
        """One of three comes back: what it gets in each of the twenty steps, at so many requests a step."""
        backends = members("abc")
        ramp = Ramp(20.0)
        parts = []
        for step in range(STEPS):
            weights = effective_weights([(1, ramp.share(0.0, step * ramp.interval)), (1, 1.0), (1, 1.0)])
            for backend, weight in zip(backends, weights, strict=True):
                backend.effective = weight
            picker.update(backends)
            counts: Counter[str] = Counter()
            for _ in range(requests):
                backend = picker.pick(())
                assert backend is not None
                counts[backend.name] += 1
                backend.active += 1
                picker.acquired(backend)
            for backend in backends:
                while backend.active:
                    backend.active -= 1
                    picker.released(backend)
            parts.append(counts["a"])
        return parts

    def test_pickers_follow(self) -> None:
        """What pickers give to a backend that comes back grows with its weight: s / (2 + s) of all at the share s."""
        for kind, within in ((RoundRobin, 3), (LeastConnections, 3), (RandomChoice, 40)):
            for step, got in enumerate(self.ramp_up(kind(random.Random(2)))):
                share = max(step / STEPS, LEAST)
                self.assertLess(abs(got - 400 * share / (2 + share)), within, f"{kind.__name__}, step {step}")

    def test_shares_are_exact_afterwards(self) -> None:
        """When it is over round robin is exact again over each cycle of the configured weights."""
        backends = members([1, 2, 3])
        picker = RoundRobin(random.Random(2))
        for share in (0.05, 0.5, 1.0):
            weights = effective_weights([(1, share), (2, 1.0), (3, 1.0)])
            for backend, weight in zip(backends, weights, strict=True):
                backend.effective = weight
            picker.update(backends)
            for _ in range(17):
                picker.pick(())
        for _ in range(5):
            counts = Counter(picker.pick(()) for _ in range(6))
            self.assertEqual([counts[backend] for backend in backends], [1, 2, 3])
