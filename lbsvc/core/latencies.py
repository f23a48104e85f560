"""How long things took: percentiles of any number of durations, in bounded memory.

Promises: whatever is recorded, the memory is the same (about 110 KiB) and a percentile is off by less than 0.2 % upwards,
never downwards; smallest, largest and mean are exact. The buckets are those of an HDR histogram: microseconds, 512 to each
power of two. What takes longer than `LONGEST` counts as that. Called by http/load.py, and by whoever tells of a
load; durations are seconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import ceil, inf
from typing import Final

#: The longest duration that is told from longer ones, in seconds.
LONGEST: Final = 36_000.0

_EXACT: Final = 1024  # microseconds below which each has a bucket of its own
_HALF: Final = _EXACT // 2


def _bucket(micros: int) -> int:
    if micros < _EXACT:
        return micros
    shift = micros.bit_length() - 10
    return shift * _HALF + (micros >> shift)


def _top(bucket: int) -> float:
    """The longest duration that is in a bucket."""
    if bucket < _EXACT:
        return bucket / 1e6
    shift = bucket // _HALF - 1
    return (((bucket - shift * _HALF + 1) << shift) - 1) / 1e6


_MOST: Final = int(LONGEST * 1e6)


class Latencies:
    """Durations that were recorded."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * (_bucket(_MOST) + 1)))
        self.count = 0
        self.total = 0.0
        self.least = inf
        self.most = 0.0

    def record(self, seconds: float) -> None:
        """One more; a negative one counts as none."""
        seconds = min(max(seconds, 0.0), LONGEST)
        self._counts[_bucket(int(seconds * 1e6))] += 1
        self.count += 1
        self.total += seconds
        if seconds < self.least:
            self.least = seconds
        if seconds > self.most:
            self.most = seconds

    @property
    def mean(self) -> float:
        """0 where nothing was recorded."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """So long at most took this share of them; 0 where nothing was recorded."""
        rank = max(1, ceil(self.count * percent / 100))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return min(_top(bucket), self.most)
        return 0.0

    def rows(self, most: int = 10) -> list[tuple[float, int]]:
        """A histogram of at most so many rows, from the shortest to the longest: each row's upper end, and its count.

        The ends grow by the same factor, since latencies spread over orders of magnitude.
        """
        if not self.count:
            return []
        low, high = max(self.least, 1e-6), max(self.most, 1e-6)
        ends = [low * (high / low) ** ((i + 1) / most) for i in range(most - 1)] if high > low else []
        ends.append(high)
        found: list[tuple[float, int]] = []
        buckets = self._filled()
        top, count = next(buckets)
        for end in ends:
            held = 0
            while count and (top <= end or end is ends[-1]):
                held += count
                top, count = next(buckets, (inf, 0))
            found.append((end, held))
        return found

    def _filled(self) -> Iterator[tuple[float, int]]:
        return ((_top(bucket), count) for bucket, count in enumerate(self._counts) if count)
