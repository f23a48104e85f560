"""The trial of a half-open circuit: so many at one time, and only what began since then."""

from __future__ import annotations

from lbsvc.core.backend import Outcome
from lbsvc.core.guarding import PAST
from lbsvc.core.policies import BreakerPolicy
from tests.core.guarded import BAD, ERROR, GONE, GOOD, GuardCase, Guarded, Use

BREAKER = BreakerPolicy()


class TrialTests(GuardCase):
    def trial(self, backend: Guarded, breaker: BreakerPolicy = BREAKER) -> None:
        self.make(breaker)
        self.use(backend, *[BAD] * breaker.failure_threshold)
        self.clock.advance(breaker.reset_timeout)
        self.assertEqual(backend.circuit, "half_open")

    def fill(self, backend: Guarded) -> list[Use]:
        """As many as the pool would let in."""
        uses = []
        while backend.has_room:
            uses.append(Use(self.guard, backend))
        return uses

    def test_cb_4_three_at_one_time(self) -> None:
        """CB-4: at most three trials in flight; whoever ends makes room for another, whatever came of it."""
        self.trial(self.a)
        first, second, third = self.fill(self.a)
        first.end(*GOOD)
        self.assertEqual(len(self.fill(self.a)), 1)
        second.end(*GONE)
        self.assertEqual(len(self.fill(self.a)), 1)
        third.end(Outcome.ABANDONED, -1)
        self.assertEqual(len(self.fill(self.a)), 1)
        self.assertEqual(self.a.circuit, "half_open")

    def test_cb_4_closes(self) -> None:
        """CB-4: three successes close it, its limit is its own again, and it takes five failures to open it."""
        self.trial(self.a)
        for use in self.fill(self.a):
            self.assertEqual(self.a.circuit, "half_open")
            use.end(*GOOD)
        self.assertEqual((self.a.circuit, self.a.limit), ("closed", 1000))
        self.use(self.a, *[BAD] * 4)
        self.assertEqual(self.a.circuit, "closed")
        self.use(self.a, BAD)
        self.assertEqual(self.a.circuit, "open")

    def test_cb_4_any_failure(self) -> None:
        """CB-4: any failure reopens it and restarts the timer; the other trials cannot close it any more."""
        self.trial(self.a)
        first, second, third = self.fill(self.a)
        self.clock.advance(7.0)
        first.end(*ERROR)
        self.assertEqual(self.a.circuit, "open")
        second.end(*GOOD)
        third.end(*GOOD)
        self.clock.advance(29.0)
        self.assertEqual(self.a.circuit, "open")
        self.clock.advance(1.0)
        self.assertEqual(self.a.circuit, "half_open")
        self.use(self.a, GOOD, GOOD)
        self.assertEqual(self.a.circuit, "half_open")

    def test_cb_4_old_requests_take_no_place(self) -> None:
        """CB-4: downloads that began before the outage neither take a trial's place nor leave one free when they end."""
        self.make(BREAKER)
        old = [Use(self.guard, self.a) for _ in range(20)]
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        trials = self.fill(self.a)
        self.assertEqual(len(trials), 3)
        for use, result in zip(old, [GOOD, GONE, BAD, ERROR] * 5, strict=True):
            use.end(*result)
            self.assertFalse(self.a.has_room)
            self.assertEqual(self.a.circuit, "half_open")
        self.assertEqual((self.a.active, self.a.limit), (3, 3))

    def test_cb_4_old_requests_do_not_count(self) -> None:
        """CB-4: what began before the outage and fails after the recovery does not open the circuit again."""
        self.make(BREAKER)
        old = [Use(self.guard, self.a) for _ in range(20)]
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        self.use(self.a, GOOD, GOOD, GOOD)
        for use in old:
            use.end(Outcome.TIMEOUT, -1)
        self.assertEqual(self.a.circuit, "closed")

    def test_cb_4_trials_of_an_earlier_trial(self) -> None:
        """CB-4: a trial that hangs while the circuit opened and half-opened again is an old one by then."""
        self.trial(self.a)
        first, second, _ = self.fill(self.a)
        first.end(*BAD)
        self.clock.advance(30.0)
        self.assertEqual((self.a.circuit, self.a.active, self.a.limit), ("half_open", 2, 5))
        second.end(*BAD)
        self.assertEqual((self.a.circuit, len(self.fill(self.a))), ("half_open", 3))

    def test_never_above_what_people_set(self) -> None:
        """The trial's limit is never above max_connections, and a change of that is minded at once."""
        self.a.most = self.a.limit = 2
        self.trial(self.a)
        self.assertEqual(self.a.limit, 2)
        self.a.most = 50
        self.guard.take_over(self.a)
        self.assertEqual(self.a.limit, 3)
        self.use(self.a, GOOD, GOOD, GOOD)
        self.assertEqual(self.a.limit, 50)

    def test_cb_4_answered(self) -> None:
        """CB-4: tunnels close the circuit by being granted, though they last for hours; each counts once."""
        self.trial(self.a)
        tunnels = []
        for room in (3, 3, 3):
            self.assertEqual(self.a.limit - self.a.active, room)
            tunnels.append(Use(self.guard, self.a))
            before = len(self.changes)
            tunnels[-1].answered()
            self.assertEqual(len(self.changes) - before, 1)
        self.assertEqual((self.a.circuit, self.a.limit, self.a.active), ("closed", 1000, 3))
        for tunnel in tunnels:
            tunnel.end(*BAD)
        self.use(self.a, *[BAD] * 4)
        self.assertEqual(self.a.circuit, "closed")

    def test_cb_4_answered_and_ended(self) -> None:
        """CB-4: a tunnel that was counted and ends during the trial leaves the number of places as it is."""
        self.trial(self.a)
        tunnel = Use(self.guard, self.a)
        tunnel.answered()
        self.assertEqual(tunnel.epoch, PAST)
        self.assertEqual(self.a.limit - self.a.active, 3)
        tunnel.end(*BAD)
        self.assertEqual((self.a.circuit, self.a.limit - self.a.active), ("half_open", 3))

    def test_answered_elsewhere(self) -> None:
        """Outside of a trial `answered` says nothing: the end of the lease does."""
        self.make(BREAKER)
        for guarded in (self.a, Guarded("stranger")):
            self.assertEqual(self.guard.answered(guarded, 0), 0)
        old = Use(self.guard, self.a)
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        self.assertEqual(self.guard.answered(self.a, old.epoch), old.epoch)
        self.use(self.a, GOOD, GOOD)
        self.assertEqual(self.a.circuit, "half_open")
