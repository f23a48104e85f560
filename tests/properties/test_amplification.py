"""A pool that is dead, simulated: how often its backends are hit for each request that clients make."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Outcome
from lbsvc.core.guarding import Guard
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy
from lbsvc.core.retry import RetryBudget
from tests.core.guarded import Guarded, Use

QUICK = settings(max_examples=12, deadline=None, database=None)

#: Seconds of traffic.
SPAN = 60


@dataclass
class Dead:
    """A pool whose backends take `delay` seconds to fail; `hits` counts how often each was hit."""

    clock: Clock
    backends: list[Guarded]
    guard: Guard[Guarded]
    budget: RetryBudget
    attempts: int
    delay: float
    hits: Counter[Guarded]
    requests: int = 0
    turn: int = 0

    def request(self) -> None:
        """A client asks."""
        self.requests += 1
        self.budget.request(self.clock.seconds())
        self.choose(1)

    def choose(self, attempt: int) -> None:
        """The next backend in turn that may have it; where there is none, that was a 503."""
        for _ in self.backends:
            self.turn += 1
            backend = self.backends[self.turn % len(self.backends)]
            if backend.has_room:
                self.hits[backend] += 1
                use = Use(self.guard, backend)
                if self.delay:
                    self.clock.callLater(self.delay, self.fail, use, attempt)
                else:
                    self.fail(use, attempt)
                return

    def fail(self, use: Use, attempt: int) -> None:
        """It failed, as everything does: once more, if there is a retry left."""
        use.end(Outcome.CONNECT_FAILED, -1)
        if attempt < self.attempts and self.budget.may_retry(self.clock.seconds()):
            self.choose(attempt + 1)


def dead(
    number: int, attempts: int, delay: float, breaker: BreakerPolicy | None, ejection: EjectionPolicy | None
) -> Dead:
    clock = Clock()
    clock.advance(1000.25)
    backends = [Guarded(f"b{n}") for n in range(number)]
    guard: Guard[Guarded] = Guard(
        breaker, ejection, clock.seconds, clock.callLater, lambda backend: None, lambda event, backend, fields: None
    )
    guard.members(backends)
    return Dead(clock, backends, guard, RetryBudget(0.2), attempts, delay, Counter())


def go_on(clock: Clock, seconds: float) -> None:
    """Time passes from call to call, so that each sees the very time for which it was meant."""
    end = clock.seconds() + seconds
    while (calls := clock.getDelayedCalls()) and (due := min(call.getTime() for call in calls)) <= end:
        clock.advance(max(due - clock.seconds(), 0.0))
    clock.advance(end - clock.seconds())


def run(pool: Dead, rate: int, bursts: int = 1) -> None:
    """Clients ask `rate` times a second, in so many bursts, until the span is over; then what is under way ends."""
    for _ in range(SPAN * bursts):
        for _ in range(rate // bursts):
            pool.request()
        go_on(pool.clock, 1 / bursts)
    go_on(pool.clock, 5.0)


RATES = st.sampled_from([20, 50, 100])
NUMBERS = st.integers(1, 10)
ATTEMPTS = st.integers(2, 10)
DELAYS = st.sampled_from([0.0, 0.25, 3.0])
BURSTS = st.sampled_from([1, 4, 10])


class AmplificationTests(TestCase):
    @QUICK
    @given(RATES, NUMBERS, ATTEMPTS, DELAYS, BURSTS)
    def test_by_the_budget_alone(self, rate: int, number: int, attempts: int, delay: float, bursts: int) -> None:
        """With a budget of 20 % a dead pool is hit less than 1.25 times for each request, however many attempts
        are allowed and however it fails."""
        pool = dead(number, attempts, delay, None, None)
        run(pool, rate, bursts)
        self.assertGreaterEqual(pool.hits.total(), pool.requests)
        self.assertLess(pool.hits.total() / pool.requests, 1.25)

    def test_retries_do_come(self) -> None:
        """The budget is used: a dead pool is hit 1.2 times for each request, not less."""
        pool = dead(3, 2, 0.25, None, None)
        run(pool, 100)
        self.assertGreater(pool.hits.total() / pool.requests, 1.19)

    def test_the_floor(self) -> None:
        """With less than five requests a second the floor of ten retries in ten seconds is above the share: no more than
        one a second."""
        pool = dead(3, 10, 0.0, None, None)
        run(pool, 1)
        self.assertEqual(pool.requests, SPAN)
        self.assertLessEqual(pool.hits.total() - pool.requests, SPAN + 10)

    @QUICK
    @given(RATES, NUMBERS, ATTEMPTS, BURSTS)
    def test_cb_1_with_the_breaker(self, rate: int, number: int, attempts: int, bursts: int) -> None:
        """CB-1, CB-3: with the breaker each backend is hit five times, and then once in 30 s, however many ask."""
        pool = dead(number, attempts, 0.0, BreakerPolicy(), None)
        run(pool, rate, bursts)
        self.assertTrue(all(backend.circuit != "closed" for backend in pool.backends))
        self.assertLessEqual(max(pool.hits.values()), 5 + SPAN // 30)
        self.assertGreaterEqual(min(pool.hits.values()), 5 + 1)

    @QUICK
    @given(RATES, NUMBERS, ATTEMPTS, BURSTS)
    def test_cb_4_with_slow_failures(self, rate: int, number: int, attempts: int, bursts: int) -> None:
        """CB-4: where failing takes 3 s, what was sent in these may be lost; after that only three trials at one time."""
        pool = dead(number, attempts, 3.0, BreakerPolicy(), None)
        pool.clock.callLater(10.0, pool.hits.clear)  # by then all are open, and what was under way has failed
        run(pool, rate, bursts)
        self.assertLessEqual(max(pool.hits.values()), 3 * SPAN // 30)

    @QUICK
    @given(RATES, NUMBERS, ATTEMPTS, DELAYS, BURSTS)
    def test_hc_8_with_ejection(self, rate: int, number: int, attempts: int, delay: float, bursts: int) -> None:
        """HC-8: ejection never empties the pool, so that everyone is tried somewhere; amplification is as without it."""
        pool = dead(number, attempts, delay, None, EjectionPolicy())
        run(pool, rate, bursts)
        self.assertGreaterEqual(pool.hits.total(), pool.requests)
        self.assertLess(pool.hits.total() / pool.requests, 1.25)
