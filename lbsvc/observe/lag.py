"""How late the reactor is: a timer, twice a second, that compares the moment it asked for with the one that it got.

Promises: each sample is in `histogram` (`lbsvc_reactor_lag_seconds`), and told to `on_sample`; between `start` and `stop`
there is one timer. However long the reactor is held up, that is one sample. Seconds. Made by shedding.py, which judges by
it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lbsvc.core.books import BUCKETS, Histogram


class ReactorLag:
    """The timer."""

    def __init__(
        self, clock: IReactorTime, interval: float = 0.5, on_sample: Callable[[float], None] = lambda late: None
    ) -> None:
        self.histogram = Histogram()
        self._on_sample = on_sample
        self._clock = clock
        self._interval = interval
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        self._due = self._clock.seconds() + self._interval
        self._call = self._clock.callLater(self._interval, self._tick)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _tick(self) -> None:
        late = max(0.0, self._clock.seconds() - self._due)
        self.histogram.counts[bisect_left(BUCKETS, late)] += 1
        self.histogram.total += late
        self.start()
        self._on_sample(late)
