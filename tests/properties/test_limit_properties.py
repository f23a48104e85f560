"""Promises of the limits for any input: buckets exact over time, a fair queue, holds as in a plain model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.flapping import Flapping
from lbsvc.core.policies import FlappingPolicy, RatePolicy
from lbsvc.core.queueing import Queue, Ticket
from lbsvc.core.ratelimit import RateLimiter, client_key

QUICK = settings(max_examples=100, deadline=None, database=None)

SECOND = 10**9

RATES = st.one_of(
    st.sampled_from([100.0, 1.0, 10 / 60, 100 / 3600, 1 / 86400, 1e6, 0.1, 1 / 3]),
    st.floats(1e-5, 1e7),
)
#: Pauses in nanoseconds: none, around a token of many rates, anything up to a day.
PAUSES = st.one_of(
    st.just(0),
    st.sampled_from([1, 9_999_999, 10_000_000, 10_000_001, SECOND - 1, SECOND, SECOND + 1, 6 * SECOND]),
    st.integers(0, 10 * SECOND),
    st.integers(0, 86400 * SECOND),
)
KEYS = st.sampled_from("abcd")
TAKES = st.lists(st.tuples(KEYS, PAUSES), max_size=80)


class Bucket:
    """A token bucket as the textbook has it, in exact fractions."""

    def __init__(self, rate: Fraction, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.filled = Fraction(burst), 0

    def take(self, now: int) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + self.rate * (now - self.filled) / SECOND)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class RateProperties(TestCase):
    @QUICK
    @given(RATES, st.integers(1, 20), TAKES)
    def test_rl_1_as_the_textbook_has_it(self, rate: float, burst: int, takes: list[tuple[str, int]]) -> None:
        """RL-1: every decision, for any keys at any times, is that of a bucket of exact fractions; waits are exact."""
        limit = RateLimiter(RatePolicy(rate, burst))
        buckets = {key: Bucket(limit.rate, burst) for key in "abcd"}
        now = 0
        for key, pause in takes:
            now += pause
            wait = limit.take(key, now / SECOND)
            self.assertEqual(wait == 0, buckets[key].take(now))
            if wait:
                due = (1 - buckets[key].tokens) / limit.rate
                # Rounded up to a nanosecond, and to what a float holds of a long time.
                self.assertLess(abs(Fraction(wait) - due), Fraction(1, SECOND) + due / 10**12)

    @QUICK
    @given(RATES, st.integers(1, 20), st.lists(PAUSES, max_size=60), st.integers(1, 30))
    def test_rl_1_never_more(self, rate: float, burst: int, pauses: list[int], tries: int) -> None:
        """RL-1: in any interval at all, one key is let in at most rate x t + burst times, to the nanosecond."""
        limit = RateLimiter(RatePolicy(rate, burst))
        allowed: list[tuple[int, int]] = []
        now = 0
        for pause in pauses:
            now += pause
            allowed.append((now, sum(limit.take("a", now / SECOND) == 0 for _ in range(tries))))
        for first, (begin, _) in enumerate(allowed):
            total = 0
            for end, count in allowed[first:]:
                total += count
                self.assertLessEqual(total, limit.rate * (end - begin) / SECOND + burst)

    @QUICK
    @given(RATES)
    def test_rates_are_taken_as_they_are(self, rate: float) -> None:
        """The rate that is reckoned with is the configured one, to the last bit of a float."""
        self.assertEqual(float(RateLimiter(RatePolicy(rate, 1)).rate), rate)

    @QUICK
    @given(RATES, st.integers(1, 20), st.lists(st.tuples(st.integers(0, 40), PAUSES), max_size=120), st.integers(1, 6))
    def test_rl_1_bounded(self, rate: float, burst: int, takes: list[tuple[int, int]], most_keys: int) -> None:
        """RL-1: with too little room nobody is refused who would not be otherwise, and the bound and the books hold."""
        limit = RateLimiter(RatePolicy(rate, burst), most_keys)
        roomy = RateLimiter(RatePolicy(rate, burst))
        now = 0
        for number, pause in takes:
            now += pause
            key = str(number)
            if limit.take(key, now / SECOND):
                self.assertGreater(roomy.take(key, now / SECOND), 0)
            else:
                roomy.take(key, now / SECOND)
            self.assertLessEqual(len(limit), most_keys)
            filed = {key: slot for slot, keys in limit._slots.items() for key in keys}
            self.assertEqual(filed, {key: due // limit._width for key, due in limit._full_at.items()})
            self.assertEqual(sorted(limit._order), sorted(limit._slots))
        self.assertEqual(roomy.forgotten_early, 0)

    @QUICK
    @given(st.ip_addresses(v=4), st.ip_addresses(v=4))
    def test_rl_1_ipv4_keys(self, one: IPv4Address, other: IPv4Address) -> None:
        """RL-1: each IPv4 address has a key of its own, the same where it is written as IPv6."""
        self.assertEqual(client_key(str(one)) == client_key(str(other)), one == other)
        self.assertEqual(client_key(str(one)), client_key(f"::ffff:{one}"))
        self.assertEqual(client_key(str(one)), client_key(str(IPv6Address(0xFFFF << 32 | int(one)))))

    @QUICK
    @given(st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1), st.lists(st.integers(0, 2**64 - 1), min_size=2))
    def test_rl_1_ipv6_keys(self, network: int, other: int, hosts: list[int]) -> None:
        """RL-1: all addresses of a /64 have one key, which no address of another /64 has."""
        keys = {client_key(str(IPv6Address(network << 64 | host))) for host in hosts}
        self.assertEqual(len(keys), 1)
        self.assertEqual(client_key(str(IPv6Address(other << 64 | hosts[0]))) in keys, network == other)


STEPS = st.lists(
    st.one_of(
        st.just(("enter", 0)),
        st.tuples(st.just("leave"), st.integers(0, 50)),
        st.tuples(st.just("next"), st.integers(0, 3)),
    ),
    max_size=80,
)


class QueueProperties(TestCase):
    @QUICK
    @given(st.integers(0, 8), STEPS)
    def test_rl_3_as_a_plain_list(self, size: int, steps: list[tuple[str, int]]) -> None:
        """RL-3: whoever enters, leaves and declines in whatever order: served are those of a plain list, in its order."""
        queue = Queue(size)
        line: list[int] = []
        tickets: dict[int, Ticket] = {}
        served: list[int] = []
        place = [0]

        def waiter(number: int) -> Callable[[], bool]:
            def take() -> bool:
                if number % 4 == place[0]:  # it has tried this backend before
                    return False
                served.append(number)
                return True

            return take

        for number, (step, argument) in enumerate(steps):
            if step == "enter":
                ticket = queue.enter(waiter(number))
                self.assertEqual(ticket is None, len(line) >= size)
                if ticket is not None:
                    tickets[number] = ticket
                    line.append(number)
            elif step == "leave":
                if tickets:
                    who = list(tickets)[argument % len(tickets)]
                    self.assertEqual(queue.leave(tickets[who]), who in line)
                    if who in line:
                        line.remove(who)
            else:
                place[0] = argument
                expected = next((who for who in line if who % 4 != argument), None)
                self.assertEqual(queue.next(), expected is not None)
                if expected is not None:
                    self.assertEqual(served[-1], expected)
                    line.remove(expected)
            self.assertEqual(queue.waiting(), [tickets[who] for who in line])
            self.assertEqual(len(queue), len(line))
            self.assertEqual(queue.entered, queue.served + queue.left + len(queue))
        self.assertEqual(queue.served, len(served))
        self.assertTrue(all(count == 1 for count in Counter(served).values()))

    @QUICK
    @given(st.integers(1, 5), st.lists(st.booleans(), max_size=150), st.integers(0, 3))
    def test_rl_3_fair(self, places: int, arrivals: list[bool], failing: int) -> None:
        """RL-3: with so many places, requests that come and finish anyhow begin in the order in which they came.

        Some of them fail at once, so that their place is free while they are being served.
        """
        queue = Queue(1000)
        began: list[int] = []
        free = [places]

        def begin(number: int) -> bool:
            began.append(number)
            free[0] -= 1
            if failing and number % (failing + 1) == 0:
                finish()
            return True

        def finish() -> None:
            free[0] += 1
            queue.next()

        came = 0
        for is_arrival in arrivals:
            if is_arrival:
                number, came = came, came + 1
                if free[0] and not len(queue):
                    begin(number)
                else:
                    self.assertIsNotNone(queue.enter(lambda number=number: begin(number)))
            elif free[0] < places:
                finish()
            self.assertGreaterEqual(free[0], 0)
            self.assertTrue(free[0] == 0 or len(queue) == 0)  # nobody waits for a place that is free
        self.assertEqual(began, list(range(len(began))))
        self.assertEqual(len(began) + len(queue), came)


class FlappingProperties(TestCase):
    @QUICK
    @given(
        st.integers(1, 6),
        st.integers(0, 60),
        st.integers(0, 60),
        st.lists(st.integers(0, 40), max_size=60),
    )
    def test_cb_5_as_in_a_plain_model(self, changes: int, window: int, hold: int, pauses: list[int]) -> None:
        """CB-5: held is who has had so many changes within the window at some change of the last `hold` seconds."""
        flapping = Flapping(FlappingPolicy(changes, window, hold))
        times: list[int] = []
        now = 0
        for pause in pauses:
            now += pause
            times.append(now)
            rapid = [
                end
                for place, end in enumerate(times)
                if sum(end - window <= time for time in times[: place + 1]) >= changes
            ]
            expected = any(now < end + hold for end in rapid)
            self.assertEqual(flapping.changed(now), expected)
            self.assertEqual(flapping.is_held(now), expected)
            if rapid:
                self.assertEqual(flapping.held_until, max(rapid) + hold)
