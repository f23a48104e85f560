"""The guard of a pool: what leases say, what it writes to backends, what it tells, and that it lives over changes."""

from __future__ import annotations

from collections.abc import Sequence

from lbsvc.core.backend import FAILURES, Outcome
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy
from tests.core.guarded import BAD, ERROR, GONE, GOOD, GuardCase, Guarded, Use

BREAKER = BreakerPolicy()
EJECTION = EjectionPolicy()


class CircuitTests(GuardCase):
    def test_cb_1_no_traffic_at_once(self) -> None:
        """CB-1: with the failure that opens it, and before anything else happens, the pool is told to look again."""
        self.make(BREAKER)
        self.use(self.a, *[BAD] * 4)
        self.assertEqual((self.a.circuit, self.changes), ("closed", []))
        self.use(self.a, BAD)
        self.assertEqual((self.a.circuit, self.a.has_room, self.changes), ("open", False, [self.a]))

    def test_cb_1_by_backend(self) -> None:
        """CB-1: each backend has a circuit of its own."""
        self.make(BREAKER)
        for _ in range(5):
            for backend in (self.a, self.b):
                self.use(backend, BAD if backend is self.a else GOOD)
        self.assertEqual(self.states(), ["open", "closed", "closed"])

    def test_cb_2_what_a_failure_is(self) -> None:
        """Connect failure, timeout, reset, nonsense and any answer of 500 and above; nothing else is (CB-2)."""
        for outcome, code in [*((outcome, -1) for outcome in FAILURES), (Outcome.OK, 500), (Outcome.OK, 599)]:
            self.setUp()
            self.make(BREAKER)
            self.use(self.a, *[(outcome, code)] * 5)
            self.assertEqual(self.a.circuit, "open", (outcome, code))
        for outcome, code in [(Outcome.OK, 499), (Outcome.OK, 0), (Outcome.CLIENT_GONE, 502), (Outcome.ABANDONED, -1)]:
            self.setUp()
            self.make(BREAKER)
            self.use(self.a, *[(outcome, code)] * 50)
            self.assertEqual(self.a.circuit, "closed", (outcome, code))

    def test_cb_2_success_resets(self) -> None:
        """CB-2: a success begins the row anew; a client that goes away neither begins it anew nor adds to it."""
        self.make(BREAKER)
        self.use(self.a, BAD, ERROR, BAD, BAD, GOOD, BAD, BAD, BAD, BAD, GONE)
        self.assertEqual(self.a.circuit, "closed")
        self.use(self.a, BAD)
        self.assertEqual(self.a.circuit, "open")

    def test_cb_3_half_open_by_the_clock(self) -> None:
        """Without any request it half-opens 30 s after the last failure, and not before (CB-3)."""
        self.make(BREAKER)
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(29.5)
        self.assertEqual(self.a.circuit, "open")
        self.clock.advance(0.5)
        self.assertEqual(self.a.circuit, "half_open")
        self.assertEqual(self.changes, [self.a, self.a])

    def test_cb_3_a_later_failure(self) -> None:
        """CB-3: requests under way when it opened that fail later put the trial off, with one timer for all."""
        self.make(BREAKER)
        late = [Use(self.guard, self.a) for _ in range(3)]
        self.use(self.a, *[BAD] * 5)
        for use in late:
            self.clock.advance(10.0)
            use.end(*BAD)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([9.9, 10.0, 10.0])
        self.assertEqual(self.a.circuit, "open")
        self.clock.advance(0.1)
        self.assertEqual(self.a.circuit, "half_open")

    def test_cb_1_events(self) -> None:
        """Each transition is told once, in its order, by the names of the contract."""
        self.make(BREAKER)
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        self.use(self.a, GOOD, BAD)
        self.clock.advance(30.0)
        self.use(self.a, GOOD, GOOD, GOOD, GOOD)
        words = ["open", "half_open", "open", "half_open", "closed"]
        self.assertEqual(self.told, [(f"circuit.{word}", "a") for word in words])
        self.assertEqual(self.fields[0], {"failures": 5, "seconds": 30.0})
        self.assertEqual(self.fields[1], {"requests": 3})
        self.assertEqual(self.fields[4], {"successes": 3})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_events_come_before_what_follows(self) -> None:
        """What the pool does about a change, and what comes of that, is told after the change: no event overtakes."""

        def try_at_once(backend: Guarded) -> None:
            if backend.circuit == "half_open":  # somebody waited, is sent, and fails within the call
                self.use(backend, BAD)

        self.changed = try_at_once  # type: ignore[method-assign]
        self.make(BreakerPolicy(failure_threshold=1))
        self.use(self.a, BAD)
        self.clock.advance(30.0)
        self.assertEqual([event for event, _ in self.told], ["circuit.open", "circuit.half_open", "circuit.open"])
        self.assertEqual(self.a.circuit, "open")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class EjectionTests(GuardCase):
    def test_hc_8_real_failures(self) -> None:
        """HC-8: five failures within the window eject at once, whatever succeeded in between; it returns by the clock."""
        self.make(None, EJECTION)
        self.use(self.a, BAD, GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD)
        self.assertEqual((self.ejected(), self.changes), ([], []))
        self.use(self.a, BAD)
        self.assertEqual((self.ejected(), self.changes), ([self.a], [self.a]))
        self.clock.advance(29.5)
        self.assertEqual(self.ejected(), [self.a])
        self.clock.advance(0.5)
        self.assertEqual((self.ejected(), self.changes), ([], [self.a, self.a]))
        self.assertEqual(self.told, [("backend.ejected", "a"), ("backend.returned", "a")])
        self.assertEqual(self.fields, [{"failures": 5, "seconds": 30.0, "times": 1}, {"reason": "time"}])

    def test_hc_8_what_counts(self) -> None:
        """HC-8: connect failures, timeouts, resets and nonsense count; 5xx, client aborts and our own giving up never."""
        for outcome in FAILURES:
            self.setUp()
            self.make(None, EJECTION)
            self.use(self.a, *[(outcome, -1)] * 5)
            self.assertEqual(self.ejected(), [self.a], outcome)
        for outcome, code in (ERROR, GONE, (Outcome.ABANDONED, -1), (Outcome.OK, 0), (Outcome.OK, 400)):
            self.setUp()
            self.make(None, EJECTION)
            self.use(self.a, *[(outcome, code)] * 50)
            self.assertEqual(self.ejected(), [], (outcome, code))

    def test_hc_8_never_the_whole_pool(self) -> None:
        """HC-8: when everybody fails, one of three is ejected; another may go when that one is back."""
        self.make(None, EJECTION)
        for _ in range(20):
            for backend in self.backends:
                self.use(backend, BAD)
        self.assertEqual(self.ejected(), [self.a])
        self.clock.advance(30.0)
        self.use(self.b, *[BAD] * 5)
        self.assertEqual(self.ejected(), [self.b])

    def test_hc_8_the_only_one_stays(self) -> None:
        """HC-8: errors never empty a pool of one."""
        self.backends = [self.a]
        self.make(None, EJECTION)
        self.use(self.a, *[BAD] * 100)
        self.assertEqual(self.ejected(), [])

    def test_longer_each_time(self) -> None:
        """A backend that fails again after its return stays out twice as long."""
        self.make(None, EJECTION)
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(59.0)
        self.assertEqual(self.ejected(), [self.a])
        self.clock.advance(1.0)
        self.assertEqual(self.ejected(), [])
        self.assertEqual(self.fields[2]["times"], 2)

    def test_old_failures(self) -> None:
        """Requests from before its return that fail after it do not eject it again."""
        self.make(None, EJECTION)
        old = [Use(self.guard, self.a) for _ in range(10)]
        self.use(self.a, *[BAD] * 5)
        self.clock.advance(30.0)
        for use in old:
            use.end(Outcome.TIMEOUT, -1)
        self.assertEqual(self.ejected(), [])

    def test_both(self) -> None:
        """One failure may open a circuit and eject: both are told, and the pool sorts once."""
        self.make(BREAKER, EJECTION)
        self.use(self.a, *[BAD] * 5)
        self.assertEqual(self.told, [("circuit.open", "a"), ("backend.ejected", "a")])
        self.assertEqual(self.changes, [self.a])


class LifeTests(GuardCase):
    def break_everything(self) -> None:
        """The circuits of all three open, and a is ejected."""
        for backend in self.backends:
            self.use(backend, *[BAD] * 5)
        self.told.clear()
        self.changes.clear()

    def test_strangers(self) -> None:
        """Leases of backends that have left say nothing."""
        self.make(BREAKER, EJECTION)
        self.guard.members([self.b])
        self.use(self.a, *[BAD] * 50)
        self.assertEqual((self.a.circuit, self.a.is_ejected, self.told), ("closed", False, []))

    def test_leaving(self) -> None:
        """Whoever leaves the pool is left as if never guarded, with no timer behind it; the others go on."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.guard.members([self.b, self.c])
        self.assertEqual((self.a.circuit, self.a.is_ejected, self.a.limit), ("closed", False, 1000))
        self.assertEqual(self.states(), ["closed", "open", "open"])
        self.clock.advance(30.0)
        self.assertEqual(self.told, [("circuit.half_open", "b"), ("circuit.half_open", "c")])

    def test_a_place_is_free(self) -> None:
        """An ejected backend that leaves takes its place among the ejected with it: another may go."""
        self.make(None, EJECTION)
        self.use(self.a, *[BAD] * 5)
        self.guard.members([self.b, self.c])
        self.use(self.b, *[BAD] * 5)
        self.assertEqual(self.ejected(), [self.b])

    def test_fewer_members(self) -> None:
        """With fewer members fewer may be ejected: who would return first returns now."""
        self.backends = [*self.backends, Guarded("d")]
        self.make(None, EJECTION)
        self.use(self.b, *[BAD] * 5)
        self.clock.advance(1.0)
        self.use(self.a, *[BAD] * 5)
        self.assertEqual(self.ejected(), [self.a, self.b])
        self.guard.members([self.a, self.b])
        self.assertEqual(self.ejected(), [self.a])
        self.assertEqual((self.told[-1], self.fields[-1]), (("backend.returned", "b"), {"reason": "members"}))
        self.guard.members([self.a])
        self.assertEqual((self.ejected(), self.changes[-2:]), ([], [self.b, self.a]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_new_members(self) -> None:
        """Who comes later is guarded from then on, and from the beginning, whatever another guard wrote to it."""
        self.make(BREAKER, EJECTION)
        late = Guarded("d")
        late.circuit, late.is_ejected, late.limit, late.epoch = "open", True, 3, 7
        self.guard.members([*self.backends, late])
        self.assertEqual((late.circuit, late.is_ejected, late.limit), ("closed", False, 1000))
        self.use(late, *[BAD] * 5)
        self.assertEqual((late.circuit, late.is_ejected), ("open", True))

    def test_the_same_settings(self) -> None:
        """A reload with equal settings changes nothing: what is open stays open, its timers run on."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.clock.advance(10.0)
        self.guard.revise(BreakerPolicy(), EjectionPolicy())
        self.guard.members(self.backends)
        self.assertEqual((self.states(), self.ejected(), self.told), (["open"] * 3, [self.a], []))
        self.clock.advance(20.0)
        self.assertEqual((self.states(), self.ejected()), (["half_open"] * 3, []))

    def test_another_breaker(self) -> None:
        """A reload with other settings of the breaker closes the circuits, and leaves ejections as they are."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.guard.revise(BreakerPolicy(failure_threshold=2), EJECTION)
        self.assertEqual((self.states(), self.ejected()), (["closed"] * 3, [self.a]))
        self.assertEqual((self.told, self.changes), ([("circuit.closed", name) for name in "abc"], self.backends))
        self.assertEqual(self.fields[-1], {"reason": "settings"})
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # the return of a
        self.use(self.b, BAD, BAD)
        self.assertEqual(self.b.circuit, "open")

    def test_another_ejection(self) -> None:
        """A reload with other settings of the ejection lets everybody in, and leaves circuits as they are."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.guard.revise(BREAKER, EjectionPolicy(failures=2))
        self.assertEqual((self.states(), self.ejected()), (["open"] * 3, []))
        self.assertEqual((self.told, self.fields[-1]), ([("backend.returned", "a")], {"reason": "settings"}))
        self.use(self.b, BAD, BAD)
        self.assertEqual(self.ejected(), [self.b])

    def test_written_by_another(self) -> None:
        """A reload takes back what another process has found and was only written down here, as what we have found."""
        self.make(BREAKER, EJECTION)
        self.a.circuit, self.a.is_ejected = "open", True
        self.guard.revise(BreakerPolicy(failure_threshold=2), EjectionPolicy(failures=2))
        self.assertEqual((self.states(), self.ejected(), self.clock.getDelayedCalls()), (["closed"] * 3, [], []))

    def test_switched_off(self) -> None:
        """A reload that switches both off leaves no trace and no timer; failures mean nothing then."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.clock.advance(30.0)
        self.guard.revise(None, None)
        self.use(self.a, *[BAD] * 50)
        self.assertEqual((self.states(), self.ejected(), self.a.limit), (["closed"] * 3, [], 1000))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """After the end no timer comes, and nothing is said."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.guard.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.use(self.a, GOOD, BAD)
        self.assertEqual(self.told, [])

    def test_many_events(self) -> None:
        """Whatever happens to a backend, no more than two timers are ever held for it."""
        self.make(BreakerPolicy(failure_threshold=1), EjectionPolicy(failures=1, max_ejected=1.0))
        results: Sequence[tuple[Outcome, int]] = (BAD, GOOD, ERROR, GONE)
        for n in range(200):
            self.use(self.a, results[n % 4])
            self.assertLessEqual(len(self.clock.getDelayedCalls()), 2)
            self.clock.advance(7.0)

    def test_repr(self) -> None:
        """The guard in one line."""
        self.make(BREAKER, EJECTION)
        self.break_everything()
        self.assertEqual(repr(self.guard), "<Guard of 3: 1 ejected, 3 circuits not closed>")
