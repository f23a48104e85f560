"""Promises of core for any input: exact shares, balanced books, kept budgets, verdicts as in a plain model."""

from __future__ import annotations

import random
from collections import Counter, deque

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import FAILURES, Backend, Outcome
from lbsvc.core.health import Verdict
from lbsvc.core.lease import Lease
from lbsvc.core.loads import LeastConnections
from lbsvc.core.paths import normal_path
from lbsvc.core.pickers import PICKERS
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.core.pool import tier_of
from lbsvc.core.retry import RetryBudget
from lbsvc.core.rotation import PASSES, RoundRobin
from lbsvc.errors import ProtocolViolation
from tests.core.members import members, pool_of

QUICK = settings(max_examples=60, deadline=None, database=None)

WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


class RotationProperties(TestCase):
    @QUICK
    @given(WEIGHTS, st.integers(0, 100))
    def test_exact_in_each_cycle(self, weights: list[int], skip: int) -> None:
        """ALG-2: over one sum of the weights everyone has exactly its weight, wherever the count begins."""
        picker = RoundRobin(random.Random())
        backends = members(weights)
        picker.update(backends)
        for _ in range(skip):
            picker.pick(())
        counts = Counter(picker.pick(()) for _ in range(sum(weights)))
        self.assertEqual(counts, {backend: backend.weight for backend in backends})

    @QUICK
    @given(WEIGHTS, st.lists(st.tuples(st.integers(0, 7), st.integers(1, 9), st.integers(0, 20)), max_size=8))
    def test_exact_after_changes(self, weights: list[int], changes: list[tuple[int, int, int]]) -> None:
        """ALG-2: after any changes of weight between picks, each cycle of what is now is exact."""
        picker = RoundRobin(random.Random())
        backends = members(weights)
        picker.update(backends)
        for which, weight, picks in changes:
            backend = backends[which % len(backends)]
            backend.weight = backend.effective = weight
            picker.update(backends)
            for _ in range(picks):
                picker.pick(())
        counts = Counter(picker.pick(()) for _ in range(sum(backend.weight for backend in backends)))
        self.assertEqual(counts, {backend: backend.weight for backend in backends})

    @QUICK
    @given(WEIGHTS)
    def test_never_far_from_its_share(self, weights: list[int]) -> None:
        """ALG-2: at any moment all backends of one weight together are within one turn of what they are due, roughly."""
        picker = RoundRobin(random.Random())
        backends = members(weights)
        picker.update(backends)
        classes = Counter(weights)
        counts: Counter[int] = Counter()
        for turn in range(1, 2 * sum(weights) + 1):
            backend = picker.pick(())
            assert backend is not None
            counts[backend.weight] += 1
            for weight, number in classes.items():
                due = turn * weight * number / sum(weights)
                # Each class is within half a turn of virtual time; so is the clock that all of them together make.
                self.assertLessEqual(abs(counts[weight] - due), 0.5 + 0.5 * len(classes))

    @QUICK
    @given(WEIGHTS, st.data())
    def test_excluding_is_being_without(self, weights: list[int], data: st.DataObject) -> None:
        """Whoever is excluded throughout leaves the others their exact shares of what is left."""
        backends = members(weights)
        excluded = data.draw(st.sets(st.sampled_from(backends)))
        rest = {backend: 3 * backend.weight for backend in backends if backend not in excluded}
        picker = RoundRobin(random.Random())
        picker.update(backends)
        if len(rest) == 0:
            self.assertIsNone(picker.pick(excluded))
        else:
            counts = Counter(picker.pick(excluded) for _ in range(sum(rest.values())))
            self.assertEqual(set(counts), set(rest))
            if 2 * sum(weights) < PASSES:  # else passing over turns may give up, and shares are only close
                self.assertEqual(counts, rest)


class LoadProperties(TestCase):
    @QUICK
    @given(WEIGHTS, st.lists(st.integers(0, 50), max_size=120), st.data())
    def test_always_a_least(self, weights: list[int], steps: list[int], data: st.DataObject) -> None:
        """ALG-3: after any picks, releases and updates, the pick is a backend of the least (active + 1) / weight."""
        picker = LeastConnections(random.Random())
        backends = members(weights)
        picker.update(backends)
        held: list[Backend] = []
        for step in steps:
            if step % 5 == 0 and held:
                gone = held.pop(step % len(held))
                gone.active -= 1
                picker.released(gone)
            elif step % 7 == 0:
                backends[step % len(backends)].effective = 1 + step % 3
                picker.update(backends)
            excluded = {backends[step % len(backends)]} if step % 3 == 0 else set()
            others = [backend for backend in backends if backend not in excluded]
            backend = picker.pick(excluded)
            if backend is None:
                self.assertEqual(others, [])
                continue
            least = min(each.active / each.effective for each in others)
            self.assertIn(backend, others)
            self.assertEqual(backend.active / backend.effective, least)
            backend.active += 1
            picker.acquired(backend)
            held.append(backend)


class PoolMachine(RuleBasedStateMachine):
    """Leases come and go, members change in every way: the books always agree."""

    leases: Bundle[Lease] = Bundle("leases")

    @initialize(algorithm=st.sampled_from(sorted(PICKERS)), weights=WEIGHTS)
    def begin(self, algorithm: str, weights: list[int]) -> None:
        self.told: list[bool] = []
        self.everybody = members(weights, health="unknown")
        self.open: list[Lease] = []
        self.pool = pool_of(
            self.everybody,
            algorithm,
            on_empty=lambda pool: self.told.append(False),
            on_available=lambda pool: self.told.append(True),
        )

    @rule(target=leases, exclude=st.sets(st.integers(0, 7), max_size=4))
    def pick(self, exclude: set[int]) -> Lease | MultipleResults[Lease]:
        excluded = [self.everybody[n] for n in exclude if n < len(self.everybody)]
        lease = self.pool.pick(excluded)
        candidates = [(tier_of(each), each) for each in self.pool.backends if each not in excluded]
        tiers = [tier for tier, _ in candidates if tier is not None]
        if lease is None:
            assert not tiers
            return multiple()
        assert tier_of(lease.backend) == min(tiers)
        assert lease.backend not in excluded
        self.open.append(lease)
        return lease

    @rule(lease=consumes(leases), outcome=st.sampled_from(list(Outcome)), code=st.sampled_from([0, 200, 404, 503]))
    def release(self, lease: Lease, outcome: Outcome, code: int) -> None:
        failures = sum(lease.backend.failures.values())
        lease.release(outcome, code, 0.01)
        self.open.remove(lease)
        assert sum(lease.backend.failures.values()) - failures == (outcome in FAILURES)
        try:
            lease.release(outcome)
        except RuntimeError:
            return
        raise AssertionError("released twice")

    @rule(
        which=st.integers(0, 7),
        health=st.sampled_from(["up", "down", "unknown"]),
        weight=st.integers(0, 4),
        state=st.sampled_from(["ready", "ready", "drain", "maint"]),
        backup=st.booleans(),
    )
    def change(self, which: int, health: str, weight: int, state: str, backup: bool) -> None:
        backend = self.everybody[which % len(self.everybody)]
        backend.health, backend.weight, backend.state, backend.backup = health, weight, state, backup
        self.pool.refresh()

    @rule(keep=st.sets(st.integers(0, 7)))
    def set_members(self, keep: set[int]) -> None:
        self.pool.set_members([each for n, each in enumerate(self.everybody) if n in keep])

    @invariant()
    def active_is_open_leases(self) -> None:
        if hasattr(self, "open"):
            counts = Counter(lease.backend for lease in self.open)
            assert all(each.active == counts[each] for each in self.everybody)

    @invariant()
    def told_in_turn(self) -> None:
        if hasattr(self, "told"):
            assert self.told == [bool(n % 2) for n in range(len(self.told))]
            available = any(tier_of(each) is not None for each in self.pool.backends)
            assert self.pool.is_available == available == (not self.told or self.told[-1])


class PoolProperties(TestCase):
    def test_the_books_agree(self) -> None:
        """CT-1: active is never negative and always the number of open leases; tiers and transitions hold throughout."""
        run_state_machine_as_test(
            PoolMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
        )


class BudgetProperties(TestCase):
    @QUICK
    @given(
        st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
        st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5, 9.99, 10.0, 30.0]), st.integers(0, 30))),
    )
    def test_the_law(self, share: float, steps: list[tuple[float, int]]) -> None:
        """At each retry that is allowed, and at no refused one, the window holds at most max(10, share x requests)."""
        budget = RetryBudget(share)
        now = 1000.0
        requests: deque[int] = deque()
        retries: deque[int] = deque()
        for pause, count in steps:
            now += pause
            for second in (requests, retries):
                while second and second[0] <= int(now) - 10:
                    second.popleft()
            for _ in range(count):
                budget.request(now)
                requests.append(int(now))
            for _ in range(count // 3 + 1):
                allowed = len(retries) + 1 <= max(10, share * len(requests))
                self.assertEqual(budget.may_retry(now), allowed)
                if allowed:
                    retries.append(int(now))


class VerdictProperties(TestCase):
    @QUICK
    @given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=60))
    def test_a_plain_model(self, rise: int, fall: int, results: list[bool]) -> None:
        """HC-5: the verdict is what the last results, looked at afresh each time, say."""
        verdict = Verdict(HealthCheckPolicy(rise=rise, fall=fall))
        state = "unknown"
        for n in range(1, len(results) + 1):
            so_far = results[:n]
            if state == "unknown":
                expected = "up" if so_far[-1] else "down"
            elif state == "up":
                expected = "down" if n >= fall and not any(so_far[-fall:]) else "up"
            else:
                expected = "up" if n >= rise and all(so_far[-rise:]) else "down"
            flip = verdict.observe(results[n - 1])
            self.assertEqual(flip, expected if expected != state else None)
            state = expected
            self.assertEqual(verdict.state, state)


SEGMENTS = st.lists(st.sampled_from([b"a", b"b", b"ab"]), max_size=4)
PATHS = st.builds(
    lambda parts, slash: b"/" + b"/".join(parts) + (b"/" if slash and parts else b""), SEGMENTS, st.booleans()
)


class PathProperties(TestCase):
    @settings(max_examples=300, deadline=None, database=None)
    @given(
        st.lists(
            st.sampled_from(
                [b"/", b"/", b".", b"..", b"a", b"%2e", b"%2F", b"%5c", b"%41", b"%25", b";", b"\\", b"%", b"%00"]
            ),
            max_size=12,
        ).map(b"".join)
        | st.binary(max_size=20)
    )
    @example(b"/a/..//b")
    def test_normal_form(self, rest: bytes) -> None:
        """Any path is refused or has a normal form: its own normal form, from the root, without dot or empty segments."""
        try:
            normal = normal_path(b"/" + rest)
        except ProtocolViolation as error:
            self.assertEqual(error.status, 400)
            return
        self.assertEqual(normal_path(normal), normal)
        self.assertTrue(normal.startswith(b"/"))
        self.assertNotIn(b"//", normal)
        self.assertFalse({b".", b".."} & set(normal.split(b"/")))

    @QUICK
    @given(PATHS, st.data())
    def test_equivalent_spellings(self, path: bytes, data: st.DataObject) -> None:
        """Escaping letters, doubling slashes and going down and up again changes nothing in the normal form."""
        spelled = b""
        for byte in path:
            here = bytes((byte,))
            if here == b"/":
                spelled += data.draw(st.sampled_from([b"/", b"//", b"/./", b"/x/../", b"/x/%2e%2E/"]))
            else:
                spelled += data.draw(st.sampled_from([here, b"%%%02x" % byte]))
        self.assertEqual(normal_path(spelled), path)
