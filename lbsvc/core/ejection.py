"""Passive health of one backend: failures of real requests eject it for a while, longer each time.

Law (after Envoy's outlier detection; contract.md, "Settled details"). `failures` failures within `window` seconds eject;
successes in between change nothing, for they are counted by time and not in a row. The n-th ejection lasts n x `eject`, at
most ten times as long. n is forgotten when the backend has stayed in, after its return, for at least as long as its last
ejection lasted: the longer the trouble, the longer it has to be good. Failures that came while it was ejected do not
count, and after its return it begins with none.

`most_ejected`: never more than floor(`max_ejected` x members) at one time, but one where the share is above nothing and
there is more than one member. A backend that is refused by this keeps its failures: while they are in the window, each
further one asks again.

Asked by core/guarding.py. No clock: `now` is given, in seconds of any clock that does not step back. Memory: at most
`failures` times of failures.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from lbsvc.core.policies import EjectionPolicy

#: The longest ejection, in multiples of the first.
MOST_TIMES: Final = 10

#: What a product of a share such as 0.29 and a number of members may be short of the whole number that it should be.
_ROUNDING: Final = 1e-9


def most_ejected(share: float, members: int) -> int:
    """How many of so many members may be ejected at one time."""
    if share <= 0 or members <= 0:
        return 0
    least = 1 if members > 1 else 0
    return max(math.floor(share * members + _ROUNDING), least)


class Ejection:
    """The failures of one backend, and what they have led to; `until` is when an ejected one returns."""

    __slots__ = ("_failed", "_lasted", "_returned", "is_ejected", "policy", "times", "until")

    def __init__(self, policy: EjectionPolicy) -> None:
        self.policy = policy
        self.is_ejected = False
        self.times = 0  # ejections that are not forgotten, this one included; at most MOST_TIMES
        self.until = 0.0
        self._failed: deque[float] = deque(maxlen=policy.failures)  # when, oldest first, none older than the window
        self._lasted = 0.0  # how long the last ejection was meant to be
        self._returned = 0.0

    @property
    def failures(self) -> int:
        """How many failures were in the window when the last one came."""
        return len(self._failed)

    def observe(self, now: float) -> bool:
        """Take one failure: True if it is to be ejected for it, which `eject` then does."""
        if self.is_ejected:
            return False
        failed = self._failed
        failed.append(now)
        while now - failed[0] >= self.policy.window and len(failed) > 1:
            failed.popleft()
        return len(failed) >= self.policy.failures

    def eject(self, now: float) -> float:
        """It is ejected now: for how many seconds."""
        if self.times and now - self._returned >= self._lasted:
            self.times = 0
        self.times = min(self.times + 1, MOST_TIMES)
        self._lasted = self.policy.eject * self.times
        self.until = now + self._lasted
        self.is_ejected = True
        self._failed.clear()
        return self._lasted

    def restore(self, now: float) -> None:
        """It takes part again, whether or not its time was over."""
        self.is_ejected = False
        self._returned = now

    def __repr__(self) -> str:
        return f"<Ejection {'out' if self.is_ejected else 'in'}, {self.failures} failures, {self.times} times>"
