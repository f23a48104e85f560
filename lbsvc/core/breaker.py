"""A circuit breaker for one backend: after failures in a row it is left alone, then tried with a few requests.

Law (M. Nygard, Release It!, 2007, chapter 5; contract.md, "Settled details"). `closed`: `failure_threshold` failures in a
row open it, a success begins the row anew. `open`: no new work until `reset_timeout` after the *last* failure; failures of
requests that were under way when it opened put that off, their successes mean nothing. `half_open`: `half_open_requests`
successes close it and zero the counters, one failure opens it again and restarts the timer.

Promises: results of requests that began before the half-opening (`is_old`) count in `open` only. Later they would tell of
the past: a request that waited through the outage and times out after the recovery must not open the circuit again, nor
may a download that began before it close it. Whoever asks knows which they are (core/guarding.py, by epochs).
Invariant: `failures` is 0 exactly while it is closed and the last result that counted was a success, or none.

Asked by core/guarding.py. No clock: `now` is given, in seconds of any clock that does not step back.
"""

from __future__ import annotations

from typing import Final

from lbsvc.core.policies import BreakerPolicy

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"


class Breaker:
    """`state` is closed, open or half_open; `until` is when an open one may be tried again."""

    __slots__ = ("failures", "policy", "state", "successes", "until")

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = CLOSED
        self.failures = 0  # in a row; those that opened it are kept until it closes
        self.successes = 0  # of the last trial
        self.until = 0.0

    def observe(self, ok: bool, now: float, is_old: bool = False) -> str | None:
        """Take one result; the new state if it changed, else None."""
        if self.state == OPEN:
            if not ok:
                self.until = now + self.policy.reset_timeout
            return None
        if is_old:
            return None
        if self.state == HALF_OPEN:
            if not ok:
                return self._open(now)
            self.successes += 1
            if self.successes < self.policy.half_open_requests:
                return None
            self.state = CLOSED
            self.failures = 0
            return CLOSED
        if ok:
            self.failures = 0
            return None
        self.failures += 1
        return self._open(now) if self.failures >= self.policy.failure_threshold else None

    def trip(self, now: float) -> bool:
        """Open it as if there had been failures enough, if it is not open: True if that was done now."""
        if self.state == OPEN:
            return False
        self.failures = max(self.failures, self.policy.failure_threshold)
        self._open(now)
        return True

    def half_open(self, now: float) -> bool:
        """Half-open it if it is open and its time has come: True if that was done now."""
        if self.state != OPEN or now < self.until:
            return False
        self.state = HALF_OPEN
        self.successes = 0
        return True

    def _open(self, now: float) -> str:
        self.state = OPEN
        self.until = now + self.policy.reset_timeout
        return OPEN

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self.failures} failures in a row>"
