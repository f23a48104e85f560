"""Promises of the guard for any traffic: who is let in when, how many at one time, and that nothing is left behind."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import FAILURES, Outcome
from lbsvc.core.breaker import Breaker
from lbsvc.core.ejection import Ejection, most_ejected
from lbsvc.core.guarding import Guard
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy
from tests.core.guarded import Guarded, Use

QUICK = settings(max_examples=100, deadline=None, database=None)

#: Multiples of a quarter are exact in binary, so that the model and the clock agree to the last bit.
PAUSES = st.sampled_from([0.0, 0.25, 1.0, 2.5, 9.75, 10.0, 30.0])

BREAKERS = st.builds(
    BreakerPolicy,
    failure_threshold=st.integers(1, 4),
    reset_timeout=st.sampled_from([0.25, 5.0, 30.0]),
    half_open_requests=st.integers(1, 4),
)
EJECTIONS = st.builds(
    EjectionPolicy,
    failures=st.integers(1, 4),
    window=st.sampled_from([1.0, 10.0]),
    eject=st.sampled_from([0.5, 30.0]),
    max_ejected=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
RESULTS = st.sampled_from([(Outcome.OK, 200), (Outcome.OK, 200), (Outcome.OK, 503), (Outcome.CLIENT_GONE, -1)])


class BreakerProperties(TestCase):
    @QUICK
    @given(BREAKERS, st.lists(st.tuples(PAUSES, st.booleans(), st.booleans()), max_size=80))
    def test_a_plain_model(self, policy: BreakerPolicy, steps: list[tuple[float, bool, bool]]) -> None:
        """CB-2, CB-3, CB-4: the state is what the results since the last change, looked at afresh each time, say."""
        breaker = Breaker(policy)
        now, state = 0.0, "closed"
        since: list[bool] = []  # the results that count, since the last change
        last_failure = 0.0
        for pause, ok, is_old in steps:
            now += pause
            due = state == "open" and now - last_failure >= policy.reset_timeout
            self.assertEqual(breaker.half_open(now), due)
            if due:
                state, since = "half_open", []
            former = state
            if state == "open":
                last_failure = last_failure if ok else now
            elif not is_old:
                since.append(ok)
                last_failure = last_failure if ok else now
                threshold = policy.failure_threshold
                row = len(since) >= threshold and not any(since[-threshold:])
                if row if state == "closed" else not ok:
                    state, since = "open", []
                elif state == "half_open" and len(since) == policy.half_open_requests:
                    state, since = "closed", []
            change = breaker.observe(ok, now, is_old)
            self.assertEqual(change, state if state != former else None)
            self.assertEqual(breaker.state, state)
            calm = state == "closed" and (not since or since[-1])
            self.assertEqual(breaker.failures == 0, calm)


class EjectionProperties(TestCase):
    @QUICK
    @given(EJECTIONS, st.lists(PAUSES, max_size=80))
    def test_the_window(self, policy: EjectionPolicy, pauses: list[float]) -> None:
        """HC-8: it is ejected exactly when so many failures are younger than the window; n times as long the n-th time."""
        ejection = Ejection(policy)
        now, n, lasted, returned = 0.0, 0, 0.0, 0.0
        failed: list[float] = []
        for pause in pauses:
            now += pause
            if ejection.is_ejected:
                self.assertFalse(ejection.observe(now))
                if now < ejection.until:
                    continue
                ejection.restore(now)
                returned, failed = now, []
            failed.append(now)
            due = sum(now - each < policy.window for each in failed) >= policy.failures
            self.assertEqual(ejection.observe(now), due)
            if due:
                n = 1 if n == 0 or now - returned >= lasted else min(n + 1, 10)
                lasted = n * policy.eject
                self.assertEqual(ejection.eject(now), lasted)

    @QUICK
    @given(st.integers(0, 100), st.integers(0, 500))
    def test_most(self, percent: int, members: int) -> None:
        """Never more than the share, in whole numbers and exactly; one where the share of several would be none."""
        most = most_ejected(percent / 100, members)
        exact = percent * members // 100
        self.assertEqual(most, exact if exact or not percent or members < 2 else 1)


class GuardMachine(RuleBasedStateMachine):
    """Traffic, time, members and settings in any order, on a clock; leases only where a pool would give them."""

    @initialize(breaker=st.none() | BREAKERS, ejection=st.none() | EJECTIONS, most=st.sampled_from([2, 1000]))
    def begin(self, breaker: BreakerPolicy | None, ejection: EjectionPolicy | None, most: int) -> None:
        self.clock = Clock()
        self.everybody = [Guarded(name, most) for name in "abcde"]
        self.present = list(self.everybody)
        self.uses: deque[Use] = deque()
        self.trials: dict[Guarded, set[Use]] = {}  # open, not yet counted, and begun since the half-opening
        self.failed: dict[Guarded, float] = {}  # when each last failed
        self.known = self.looks()
        self.reentrant = False
        self.guard: Guard[Guarded] = Guard(
            breaker, ejection, self.clock.seconds, self.clock.callLater, self.changed, self.tell
        )
        self.guard.members(self.present)

    def looks(self) -> dict[Guarded, tuple[str, bool]]:
        return {backend: (backend.circuit, backend.is_ejected) for backend in self.everybody}

    def changed(self, backend: Guarded) -> None:
        """The pool sorts, and sometimes somebody who has waited is sent and fails within the call."""
        self.known[backend] = (backend.circuit, backend.is_ejected)
        if self.reentrant and backend.has_room and backend.circuit == "half_open":
            use = Use(self.guard, backend)
            self.end(use, Outcome.CONNECT_FAILED, -1)

    def tell(self, event: str, backend: Guarded, fields: dict[str, Any]) -> None:
        policy = self.guard.breaker
        if event == "circuit.half_open":
            assert policy is not None
            assert self.clock.seconds() - self.failed[backend] >= policy.reset_timeout  # CB-3
            self.trials[backend] = set()
        elif event.startswith("circuit"):
            self.trials.pop(backend, None)

    def end(self, use: Use, outcome: Outcome, code: int) -> None:
        backend = use.backend
        if outcome in FAILURES or (outcome is Outcome.OK and code >= 500):
            self.failed[backend] = self.clock.seconds()
        self.trials.get(backend, set()).discard(use)
        use.end(outcome, code)

    @rule(which=st.integers(0, 4), count=st.integers(1, 8))
    def take(self, which: int, count: int) -> None:
        """Requests come; the pool lets in whom there is room for."""
        backend = self.everybody[which]
        for _ in range(count):
            if backend in self.present and backend.has_room:
                self.uses.append(use := Use(self.guard, backend))
                if backend.circuit == "half_open":
                    self.trials[backend].add(use)

    @rule(results=st.lists(RESULTS | st.tuples(st.sampled_from(FAILURES), st.just(-1)), max_size=8), turn=st.integers())
    def finish(self, results: list[tuple[Outcome, int]], turn: int) -> None:
        """Requests end, old ones and new ones."""
        for outcome, code in results:
            if self.uses:
                self.uses.rotate(turn % len(self.uses))
                self.end(self.uses.popleft(), outcome, code)

    @rule(which=st.integers(0, 4), outcome=st.sampled_from(FAILURES))
    def outage(self, which: int, outcome: Outcome) -> None:
        """Whatever a backend is asked it fails at once, until it is asked no more."""
        backend = self.everybody[which]
        for _ in range(4):
            if backend in self.present and backend.has_room:
                self.end(Use(self.guard, backend), outcome, -1)

    @rule(turn=st.integers())
    def answer(self, turn: int) -> None:
        """A request turns out to be a tunnel."""
        if self.uses:
            use = self.uses[turn % len(self.uses)]
            self.trials.get(use.backend, set()).discard(use)
            use.answered()

    @rule(pause=PAUSES, reentrant=st.booleans())
    def wait(self, pause: float, reentrant: bool) -> None:
        """Time passes."""
        self.reentrant = reentrant
        self.clock.advance(pause)
        self.reentrant = False

    @rule(keep=st.sets(st.integers(0, 4)))
    def come_and_go(self, keep: set[int]) -> None:
        """Other members."""
        self.present = [each for n, each in enumerate(self.everybody) if n in keep]
        for gone in set(self.everybody).difference(self.present):
            self.trials.pop(gone, None)
        self.guard.members(self.present)
        self.known = self.looks()

    @rule(breaker=st.none() | BREAKERS, ejection=st.none() | EJECTIONS)
    def reload(self, breaker: BreakerPolicy | None, ejection: EjectionPolicy | None) -> None:
        """Other settings."""
        self.guard.revise(breaker, ejection)

    @invariant()
    def few_trials(self) -> None:
        """CB-4: at most so many trials at one time, and never above what people set."""
        if hasattr(self, "guard"):
            assert all(backend.active <= backend.most for backend in self.everybody)
            assert all(backend.limit <= backend.most for backend in self.everybody)
            for backend, trials in self.trials.items():
                assert self.guard.breaker is not None and backend.circuit == "half_open"
                most = self.guard.breaker.half_open_requests
                assert len(trials) <= most
                room = min(most - len(trials), backend.most - backend.active)
                assert backend.limit - backend.active == room  # none too many, and none lost

    @invariant()
    def few_ejected(self) -> None:
        """HC-8: never more than the share, and nobody who has left or whose pool ejects nobody."""
        if hasattr(self, "guard"):
            ejected = [backend for backend in self.everybody if backend.is_ejected]
            policy = self.guard.ejection
            assert set(ejected) <= set(self.present)
            assert len(ejected) <= (0 if policy is None else most_ejected(policy.max_ejected, len(self.present)))

    @invariant()
    def the_pool_knows(self) -> None:
        """Nothing changes that the pool is not told of."""
        if hasattr(self, "guard"):
            assert self.known == self.looks()

    @invariant()
    def timers(self) -> None:
        """One timer for each open circuit and each ejected backend, and no other."""
        if hasattr(self, "guard"):
            looks = self.looks().values()
            due = sum((circuit == "open") + ejected for circuit, ejected in looks)
            assert len(self.clock.getDelayedCalls()) == due


class GuardProperties(TestCase):
    def test_any_traffic(self) -> None:
        """CB-1 to CB-4, HC-8: whatever comes in whatever order, the invariants of the guard hold."""
        run_state_machine_as_test(
            GuardMachine, settings=settings(max_examples=150, stateful_step_count=50, deadline=None, database=None)
        )
