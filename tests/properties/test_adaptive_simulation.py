"""The numbers of features.md, ALG-6, for `adaptive`: simulated traffic on a clock of its own, from 10 to 1000 a second.

Every simulation has its seed, so each test passes or fails for good. Times are seconds of the simulated clock.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from statistics import mean

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.adaptive import Adaptive
from tests.core.members import members

#: What the n-th backend does with a request at this time: how long it takes, and whether it fails.
Service = Callable[[int, float, random.Random], tuple[float, bool]]

FAIR = 1 / 3


class Traffic:
    """Requests to backends that `serve`, chosen by a picker: `rate` a second, or from `clients` that wait for answers."""

    def __init__(
        self, serve: Service, *, seed: int = 1, weights: Sequence[int] = (1, 1, 1), rate: float = 0.0, clients: int = 0
    ) -> None:
        self.now = 0.0
        self.serve = serve
        self.rng = random.Random(seed)
        self.rate = rate
        self.backends = members(weights)
        self.picker = Adaptive(random.Random(seed + 1000))
        self.picker.seconds = lambda: self.now
        self.picker.update(self.backends)
        self.times: list[float] = []  # of the picks
        self.picked: list[int] = []  # who it was
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        if rate:
            self.arrive()
        for _ in range(clients):
            self.ask()

    def run(self, until: float) -> Traffic:
        """Let time go on."""
        while self.events[0][0] <= until:
            self.now, _, event = heappop(self.events)
            event()
        self.now = until
        return self

    def later(self, delay: float, event: Callable[[], None]) -> None:
        self.count += 1
        heappush(self.events, (self.now + delay, self.count, event))

    def arrive(self) -> None:
        """A request comes out of the blue, and the next is under way."""
        self.later(self.rng.expovariate(self.rate), self.arrive)
        self.ask(waits=False)

    def ask(self, waits: bool = True) -> None:
        """One request; a client that waits asks again when it is over."""
        backend = self.picker.pick(())
        assert backend is not None
        number = self.backends.index(backend)
        self.times.append(self.now)
        self.picked.append(number)
        backend.active += 1
        seconds, failed = self.serve(number, self.now, self.rng)

        def end() -> None:
            backend.active -= 1
            self.picker.finished(backend, seconds, failed, self.now)
            if waits:
                self.ask()

        self.later(seconds, end)

    def share(self, number: int, begin: float, end: float) -> float:
        """Of the requests in this time, which part went to the n-th backend?"""
        window = self.picked[bisect_left(self.times, begin) : bisect_left(self.times, end)]
        return window.count(number) / len(window)


def answering(seconds: float, spread: float = 0.3) -> Service:
    """All answer in about this time, with a tail to the right."""
    return lambda number, now, rng: (seconds * rng.lognormvariate(0.0, spread), False)


def ill(service: Service, illness: Service, until: float) -> Service:
    """The first backend is ill until then."""
    return lambda number, now, rng: (illness if number == 0 and now < until else service)(number, now, rng)


def slower(service: Service, factor: float = 1.0, plus: float = 0.0) -> Service:
    def serve(number: int, now: float, rng: random.Random) -> tuple[float, bool]:
        seconds, failed = service(number, now, rng)
        return seconds * factor + plus, failed

    return serve


def failing(service: Service, share: float, seconds: float | None = None) -> Service:
    """This share fails, in this time, or else in that of an answer."""

    def serve(number: int, now: float, rng: random.Random) -> tuple[float, bool]:
        answer, _ = service(number, now, rng)
        failed = rng.random() < share
        return (answer if seconds is None or not failed else seconds), failed

    return serve


#: (requests a second, how many runs are taken together: few requests say little)
RATES = ((10.0, 12), (100.0, 3), (1000.0, 1))

SICK = 20.0  # the illness ends


class SimulationTests(TestCase):
    def check(self, service: Service, illness: Service, below: float, label: str) -> None:
        """Within 5 s the sick one's share is below this; 30 s after its recovery it is above a quarter."""
        for rate, runs in RATES:
            whole = [
                Traffic(ill(service, illness, SICK), seed=seed, rate=rate).run(SICK + 30 + 10) for seed in range(runs)
            ]
            sick = mean(each.share(0, 5.0, SICK) for each in whole)
            well = mean(each.share(0, SICK + 30, SICK + 40) for each in whole)
            self.assertLess(sick, below, f"{label}, {rate} a second")
            self.assertGreater(well, 0.25, f"{label}, {rate} a second")

    def test_alg_6_ten_times_slower(self) -> None:
        """ALG-6: who is ten times slower gets less than a fifth of its fair share after 5 s, and is forgiven in 30 s."""
        for seconds in (0.002, 0.01, 0.1):
            service = answering(seconds)
            self.check(service, slower(service, 10.0), FAIR / 5, f"{seconds} s")

    def test_alg_6_200_ms_slower(self) -> None:
        """Who is 200 ms slower gets less than 15 % after 5 s, and is forgiven in 30 s (ALG-6)."""
        for seconds in (0.001, 0.02, 0.08):
            service = answering(seconds)
            self.check(service, slower(service, plus=0.2), 0.15, f"{seconds} s")

    def test_alg_6_half_of_it_fails(self) -> None:
        """Who fails half of the time gets less than 15 % after 5 s, also if it fails fast; it is forgiven in 30 s
        (ALG-6)."""
        for seconds in (0.005, 0.05):
            service = answering(seconds)
            self.check(service, failing(service, 0.5), 0.15, f"{seconds} s")
            self.check(service, failing(service, 0.5, 0.0002), 0.15, f"{seconds} s, fast")

    def test_alg_6_all_of_it_fails_fast(self) -> None:
        """ALG-6: who refuses everything at once never looks fast: it gets less than 15 %, and is forgiven in 30 s."""
        service = answering(0.05)
        self.check(service, failing(service, 1.0, 0.0001), 0.15, "")

    def test_alg_6_equal_ones_share(self) -> None:
        """Of three equal ones none gets above 45 % in any ten seconds (at ten a second: on the whole) (ALG-6)."""
        for spread in (0.05, 0.3, 0.7):
            for seconds in (0.001, 0.1):
                service = answering(seconds, spread)
                for rate, window in ((10.0, 60), (100.0, 10), (1000.0, 10)):
                    span = 60 if rate < 1000 else 20
                    traffic = Traffic(service, rate=rate).run(span)
                    for begin in range(0, span, window):
                        for number in range(3):
                            share = traffic.share(number, begin, begin + window)
                            self.assertLess(share, 0.45, f"{seconds} s, spread {spread}, {rate} a second, at {begin} s")

    def test_alg_6_clients_that_wait(self) -> None:
        """ALG-6: the same numbers where clients ask again when they have their answer: one, ten, a hundred of them."""
        service = answering(0.02)
        for clients in (1, 10, 100):
            equal = Traffic(service, clients=clients).run(30)
            for number in range(3):
                self.assertLess(equal.share(number, 0, 30), 0.45)
            for illness in (slower(service, 10.0), slower(service, plus=0.2), failing(service, 0.5, 0.001)):
                traffic = Traffic(ill(service, illness, SICK), clients=clients).run(SICK + 40)
                self.assertLess(traffic.share(0, 5.0, SICK), FAIR / 5)
                self.assertGreater(traffic.share(0, SICK + 30, SICK + 40), 0.25)

    def test_alg_6_a_little_slower(self) -> None:
        """ALG-6: nobody runs away from one that is a few per cent slower than two others."""
        service = answering(0.02, 0.1)
        traffic = Traffic(ill(service, slower(service, 1.05), 60), rate=200.0).run(60)
        self.assertGreater(traffic.share(0, 0, 60), 0.25)

    def test_alg_6_trickle(self) -> None:
        """The worst still gets a request now and then, in any twenty seconds, at ten a second and at a thousand
        (ALG-6)."""
        service = answering(0.005)
        for illness in (slower(service, 1000.0), failing(service, 1.0), failing(slower(service, 100.0), 1.0)):
            for rate in (10.0, 1000.0):
                traffic = Traffic(ill(service, illness, 60), rate=rate).run(60)
                for begin in (0, 20, 40):
                    self.assertGreater(traffic.share(0, begin, begin + 20), 0.0)
                self.assertLess(traffic.share(0, 5, 60), FAIR / 5)

    def test_alg_6_most_are_ill(self) -> None:
        """ALG-6: where two of three are ten times slower, the third serves three quarters and more of all."""
        quick = answering(0.005)
        slow = slower(quick, 10.0)

        def serve(number: int, now: float, rng: random.Random) -> tuple[float, bool]:
            return (quick if number == 2 else slow)(number, now, rng)

        for rate in (10.0, 100.0, 1000.0):
            traffic = Traffic(serve, rate=rate).run(30)
            self.assertGreater(traffic.share(2, 5, 30), 0.75)
            for number in (0, 1):
                self.assertLess(traffic.share(number, 5, 30), FAIR / 2)

    def test_alg_6_all_are_ill(self) -> None:
        """ALG-6: where all become slow, or all fail, they share as before, for there is nobody better."""
        service = answering(0.005)
        for illness in (slower(service, 20.0), failing(service, 0.5), failing(service, 1.0)):

            def serve(number: int, now: float, rng: random.Random, illness: Service = illness) -> tuple[float, bool]:
                return (service if now < 5 else illness)(number, now, rng)

            traffic = Traffic(serve, rate=300.0).run(30)
            for number in range(3):
                self.assertLess(traffic.share(number, 10, 30), 0.45)

    def test_alg_2_weights(self) -> None:
        """ALG-2: equally quick ones get about their weights' shares; a ten times slower one less than a fifth of its own."""
        service = answering(0.01)
        weights = (2, 1, 5)
        for rate, within in ((10.0, 0.07), (500.0, 0.06), (2000.0, 0.03)):
            traffic = Traffic(service, weights=weights, rate=rate).run(20)
            for number, weight in enumerate(weights):
                self.assertLess(abs(traffic.share(number, 0, 20) - weight / 8), within)
            traffic = Traffic(ill(service, slower(service, 10.0), 60), weights=weights, rate=rate).run(20)
            self.assertLess(traffic.share(0, 5, 20), 2 / 8 / 5)

    def test_alg_6_one_that_hangs(self) -> None:
        """ALG-6: one that takes requests and never ends them loses its share by what it has in flight alone."""
        service = answering(0.02)
        traffic = Traffic(ill(service, slower(service, plus=1000.0), 1000), rate=100.0).run(30)
        self.assertLess(traffic.share(0, 5, 30), FAIR / 5)


#: What may happen: who is asked or ends, after how long, with what.
HAPPENINGS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.floats(0, 100),
        st.one_of(st.floats(-10, 1e12), st.sampled_from([0.0, float("inf"), float("nan")])),
        st.booleans(),
    ),
    max_size=60,
)


class AnyHistoryTests(TestCase):
    @settings(max_examples=80, deadline=None, database=None)
    @given(HAPPENINGS, st.lists(st.integers(1, 65535), min_size=2, max_size=5), st.integers(0, 9))
    def test_alg_6_every_member_may_be_picked_after_any_history(
        self, happenings: list[tuple[int, float, float, bool]], weights: list[int], seed: int
    ) -> None:
        """Whatever was reported, it picks members that are not excluded, and after two silent minutes any of them."""
        backends = members(weights)
        now = 0.0
        picker = Adaptive(random.Random(seed))
        picker.seconds = lambda: now
        picker.update(backends)
        for number, pause, seconds, failed in happenings:
            now += pause
            backend = backends[number % len(backends)]
            picker.finished(backend, seconds, failed, now)
            for excluded in ((), (backend,), backends[:1]):
                self.assertIn(picker.pick(excluded), set(backends).difference(excluded))
            self.assertIsNone(picker.pick(backends))
        now += 120
        # Even of the lightest one in as many draws as it takes: others excluded, it is the only one.
        for backend in backends:
            self.assertIs(picker.pick([each for each in backends if each is not backend]), backend)
        even = members([1] * 3)
        picker.update(even)
        self.assertEqual({picker.pick(()) for _ in range(100)}, set(even))
