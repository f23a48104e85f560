"""Whether a request that failed is tried again, how soon, and how often in all.

Promises: a request that a backend may have seen is not sent again unless its method is listed (`may_repeat`); retries of
a pool never exceed max(floor, share x requests) of the same ten seconds, so that a pool in trouble is not beaten with its
own retries (`RetryBudget`); pauses double up to a limit, with jitter (`backoff_delay`). Asked by the roads after a
failure; only `RetryBudget.request` is on the hot path. Times are seconds of any clock that does not step back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbsvc.core.policies import RetryPolicy

if TYPE_CHECKING:
    from random import Random

#: Seconds (and one-second buckets, the current one included) over which requests and retries are counted.
WINDOW: Final = 10

#: Retries in that time that a pool has at any rate. Each of several processes has its share of them.
FLOOR: Final = 10

#: A pause differs from its plan by up to this share, so that clients who failed together do not return together.
JITTER: Final = 0.1


class RetryBudget:
    """How many retries a pool has left: counts of requests and retries in ten buckets of one second.

    A retry is allowed while, with it, retries <= max(floor, share x requests), both counted over the current second and
    the nine before it. Seconds are whole ones of the clock. Both sums are kept, so every call is O(1).
    """

    __slots__ = (
        "_current",
        "_ends",
        "_requests",
        "_retries",
        "_second",
        "_sum_requests",
        "_sum_retries",
        "floor",
        "share",
    )

    def __init__(self, share: float, floor: int = FLOOR, window: float = float(WINDOW)) -> None:
        self.share = share
        self.floor = floor
        buckets = max(1, round(window))
        self._requests = [0] * buckets
        self._retries = [0] * buckets
        self._sum_requests = 0  # of the finished seconds in the window
        self._sum_retries = 0  # of all seconds in the window
        self._current = 0  # requests in the current second
        self._second = 0
        self._ends = float("-inf")  # where the current second ends

    def request(self, now: float) -> None:
        """Count a request (not a retry). Hot path: a comparison and an add."""
        if now >= self._ends:
            self._turn(now)
        self._current += 1

    def may_retry(self, now: float) -> bool:
        """Is there a retry left? If so it is counted: ask only when the retry will follow."""
        if now >= self._ends:
            self._turn(now)
        allowed = max(self.floor, self.share * (self._sum_requests + self._current))
        if self._sum_retries + 1 > allowed:
            return False
        self._sum_retries += 1
        self._retries[self._second % len(self._retries)] += 1
        return True

    def _turn(self, now: float) -> None:
        """Begin a new second: file the old one, forget those that left the window."""
        buckets = len(self._requests)
        second = int(now // 1)
        if self._ends == float("-inf") or second - self._second >= buckets:
            self._requests = [0] * buckets
            self._retries = [0] * buckets
            self._sum_requests = self._sum_retries = 0
        else:
            self._requests[self._second % buckets] = self._current
            self._sum_requests += self._current
            for each in range(self._second + 1, second + 1):
                slot = each % buckets
                self._sum_requests -= self._requests[slot]
                self._sum_retries -= self._retries[slot]
                self._requests[slot] = self._retries[slot] = 0
        self._current = 0
        self._second = second
        self._ends = second + 1.0

    def __repr__(self) -> str:
        requests = self._sum_requests + self._current
        return f"<RetryBudget {self._sum_retries} retries, {requests} requests in {len(self._requests)} s>"


def may_repeat(policy: RetryPolicy, method: bytes, sent_anything: bool, body_whole: bool, cause: str) -> bool:
    """May a request that failed before the first response byte be sent to another backend?

    `cause` is a word of `retry.when` (connect_failure, reset). `sent_anything`: has a byte of it been written to a
    backend's connection (features.md FO-3)? If not, any method may go again, whatever has come of its body, for all of
    that is still ours. If so, the method must be listed and its body still be whole. Attempts and budget are counted
    by the caller, who also never asks once response bytes have gone down.
    """
    if cause not in policy.when:
        return False
    return not sent_anything or (body_whole and method in policy.methods)


def backoff_delay(policy: RetryPolicy, attempt: int, rng: Random) -> float:
    """Seconds to wait before retry number `attempt` (1 is the first): initial, doubled each time, +-10 %, at most max."""
    backoff = policy.backoff
    if backoff.initial <= 0:
        return 0.0
    # Past 2**60 any initial has reached its max; without the limit a large attempt would overflow a float.
    planned = min(backoff.initial * 2.0 ** min(attempt - 1, 60), backoff.max)
    return min(planned * (1 - JITTER + 2 * JITTER * rng.random()), backoff.max)
