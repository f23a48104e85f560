"""Percentiles of durations in bounded memory, against the plain way of finding them."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.core.latencies import LONGEST, Latencies

durations = st.floats(0, 1000, allow_nan=False)


def recorded(*seconds: float) -> Latencies:
    latencies = Latencies()
    for each in seconds:
        latencies.record(each)
    return latencies


class LatenciesTests(SynchronousTestCase):
    @given(st.lists(durations, min_size=1, max_size=60), st.sampled_from([1, 50, 90, 95, 99, 100]))
    def test_percentiles(self, seconds: list[float], percent: int) -> None:
        """A percentile is the one of the sorted list, at most 0.2 % and a microsecond above it."""
        exact = sorted(seconds)[max(1, ceil(len(seconds) * percent / 100)) - 1]
        found = recorded(*seconds).percentile(percent)
        self.assertGreaterEqual(found, exact - 1e-6)
        self.assertLessEqual(found, exact * 1.002 + 1e-6)

    @given(st.lists(durations, min_size=1, max_size=60), st.integers(1, 12))
    def test_rows(self, seconds: list[float], most: int) -> None:
        """A histogram holds each duration once, in rows that go up and end with the longest."""
        rows = recorded(*seconds).rows(most)
        self.assertLessEqual(len(rows), most)
        self.assertEqual(sum(count for _, count in rows), len(seconds))
        self.assertEqual([end for end, _ in rows], sorted(end for end, _ in rows))
        self.assertEqual(rows[-1][0], max(max(seconds), 1e-6))

    def test_nothing(self) -> None:
        """Without a duration there is nothing to say, and nothing goes wrong."""
        latencies = Latencies()
        self.assertEqual((latencies.percentile(99), latencies.mean, latencies.rows()), (0.0, 0.0, []))

    def test_beyond(self) -> None:
        """What is longer than the longest, or shorter than nothing, counts as that."""
        latencies = recorded(LONGEST * 10, -1.0)
        self.assertEqual((latencies.least, latencies.most, latencies.count), (0.0, LONGEST, 2))

    def test_exact(self) -> None:
        """Least, most and mean are exact."""
        latencies = recorded(0.25, 0.5, 0.75)
        self.assertEqual((latencies.least, latencies.mean, latencies.most), (0.25, 0.5, 0.75))
