"""What other processes have found out about backends: it holds here too, in our own time, and is told as theirs."""

from __future__ import annotations

from lbsvc.core.policies import BreakerPolicy, EjectionPolicy
from tests.core.guarded import BAD, GOOD, GuardCase, Guarded, Use

BREAKER = BreakerPolicy()
EJECTION = EjectionPolicy()


class OthersTests(GuardCase):
    """Three backends, of which others speak."""

    def test_cb_1_tripped(self) -> None:
        """A circuit that has opened elsewhere opens here at once, is told as another's, and is tried by our own clock."""
        self.make(BREAKER)
        self.use(self.a, BAD, BAD)
        self.guard.trip(self.a)
        self.assertEqual((self.a.circuit, self.changes), ("open", [self.a]))
        self.assertEqual(self.told, [("circuit.open", "a")])
        self.assertEqual(self.fields, [{"failures": 5, "seconds": 30.0, "by": "another worker"}])
        self.clock.advance(30.0)
        self.assertEqual(self.a.circuit, "half_open")
        self.use(self.a, GOOD, GOOD, GOOD)
        self.assertEqual(self.a.circuit, "closed")
        self.assertTrue(all("by" not in fields for fields in self.fields[1:]))

    def test_cb_1_tripped_on_trial(self) -> None:
        """A circuit that is being tried here opens again when somebody else's trial has failed."""
        self.make(BREAKER)
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        trial = Use(self.guard, self.a)
        self.guard.trip(self.a)
        self.assertEqual(self.a.circuit, "open")
        trial.end(*GOOD)
        self.assertEqual(self.a.circuit, "open")
        self.clock.advance(30.0)
        self.assertEqual((self.a.circuit, self.a.limit, self.clock.getDelayedCalls()), ("half_open", 3, []))

    def test_cb_1_failures_after_it(self) -> None:
        """Requests under way when it was tripped put its trial off, as they do where it opened by itself."""
        self.make(BREAKER)
        late = Use(self.guard, self.a)
        self.guard.trip(self.a)
        self.clock.advance(20.0)
        late.end(*BAD)
        self.clock.advance(10.0)
        self.assertEqual(self.a.circuit, "open")
        self.clock.advance(20.0)
        self.assertEqual(self.a.circuit, "half_open")

    def test_once(self) -> None:
        """What is open or ejected already, what is no member, and what has no such policy is left as it is."""
        self.make(BREAKER, EJECTION)
        self.use(self.a, *[BAD] * 5)
        told, changes = list(self.told), list(self.changes)
        timers = len(self.clock.getDelayedCalls())
        self.clock.advance(1.0)
        for _ in range(3):
            for backend in (self.a, Guarded("d")):
                self.guard.trip(backend)
                self.guard.eject(backend)
        self.assertEqual((self.told, self.changes), (told, changes))
        self.assertEqual(len(self.clock.getDelayedCalls()), timers)
        self.clock.advance(29.0)
        self.assertEqual((self.a.circuit, self.a.is_ejected), ("half_open", False))
        for policies in ((BREAKER, None), (None, EJECTION)):
            self.setUp()
            self.make(*policies)
            self.guard.trip(self.a) if policies[0] is None else self.guard.eject(self.a)
            self.assertEqual((self.a.circuit, self.a.is_ejected, self.told), ("closed", False, []))

    def test_hc_8_ejected(self) -> None:
        """HC-8: who was ejected elsewhere is ejected here, returns by our own clock, and stays out longer the next time."""
        self.make(None, EJECTION)
        self.guard.eject(self.a)
        self.assertEqual((self.ejected(), self.changes), ([self.a], [self.a]))
        self.assertEqual(self.fields[0]["by"], "another worker")
        self.clock.advance(30.0)
        self.assertEqual(self.ejected(), [])
        self.use(self.a, *[BAD] * 5)
        self.assertEqual((self.fields[-1]["times"], "by" in self.fields[-1]), (2, False))

    def test_hc_8_never_the_whole_pool(self) -> None:
        """HC-8: whatever others tell, no more are ejected than may be; who was refused goes when it is told again."""
        self.make(None, EJECTION)
        for backend in self.backends:
            self.guard.eject(backend)
        self.assertEqual(self.ejected(), [self.a])
        self.clock.advance(30.0)
        self.guard.eject(self.b)
        self.assertEqual(self.ejected(), [self.b])
        self.backends = [self.a]
        self.guard.members([self.a])
        self.guard.eject(self.a)
        self.assertEqual(self.ejected(), [])

    def test_failures_of_several(self) -> None:
        """With k workers that tell each other, at most k x (threshold - 1) + 1 failures in a row pass before all open."""
        workers = 4
        guards = []
        for _ in range(workers):
            self.setUp()
            guards.append((self.make(BREAKER), self.a))
        failures = 0
        while not any(backend.circuit == "open" for _, backend in guards):
            guard, backend = guards[failures % workers]
            Use(guard, backend).end(*BAD)
            failures += 1
        self.assertEqual(failures, workers * (BREAKER.failure_threshold - 1) + 1)
        for guard, backend in guards:
            guard.trip(backend)
        self.assertEqual({backend.circuit for _, backend in guards}, {"open"})
