"""The last hour in rings: what grows, what is missed, what goes, and that it never takes more than its bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.books import BUCKETS, ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.observe.history import BUDGET, COARSE, EVENTS, SPAN, UNKNOWN, WORDS, History, Ring, quantile
from lbsvc.observe.snapshot import Door
from tests.observe.sample_view import pool


@dataclass
class View:
    """snapshot.StatusView, with plain attributes."""

    pools: list[Pool] = field(default_factory=list)
    doors: list[Door] = field(default_factory=list)
    uptime: float = 0.5
    generation: int = 1

    def ready(self) -> str | None:
        return None


class QuantileTests(TestCase):
    def test_known(self) -> None:
        """Within a bucket it is a straight line; past the last bound it is that bound; of nothing it is unknown."""
        counts = [0] * (len(BUCKETS) + 1)
        self.assertEqual(quantile(counts, 0.5), UNKNOWN)
        counts[BUCKETS.index(0.005)] = 10  # 2.5 ms to 5 ms
        self.assertEqual(quantile(counts, 0.5), 3750)
        counts[-1] = 90
        self.assertEqual(quantile(counts, 0.99), 30_000_000)

    @given(st.lists(st.integers(0, 50), min_size=len(BUCKETS) + 1, max_size=len(BUCKETS) + 1))
    def test_order(self, counts: list[int]) -> None:
        """A larger share never takes less time."""
        found = [quantile(counts, share) for share in (0.5, 0.95, 0.99)]
        self.assertEqual(found, sorted(found))


class RingTests(TestCase):
    @given(st.integers(0, 3 * SPAN), st.integers(1, 40), st.integers(-1, 60))
    def test_seconds(self, first: int, count: int, back: int) -> None:
        """What was put is what comes out, over the end of the ring too."""
        ring = Ring(("requests",), 1)
        for tick in range(first, first + count):
            ring.put(tick, [tick])
        last = first + count - 1
        found = ring.since(last - back, last)["requests"]
        wanted = range(max(last - back + 1, 0), last + 1)
        self.assertEqual(found, [tick if tick >= first else UNKNOWN for tick in wanted])

    def test_steps(self) -> None:
        """Coarse rings add counts, keep the largest of gauges, and show a step when it is over."""
        ring = Ring(("requests", "active"), COARSE)
        for tick in range(25):
            ring.put(tick, [1, tick])
        self.assertEqual(ring.since(-1, 24), {"step": 10, "requests": [10, 10], "active": [9, 19]})
        self.assertEqual(ring.since(15, 24)["requests"], [10])
        self.assertEqual(ring.since(19, 24)["requests"], [])

    def test_never_more_than_an_hour(self) -> None:
        """However far back is asked."""
        ring = Ring(("requests",), 1)
        ring.put(5 * SPAN, [7])
        found = ring.since(-1, 5 * SPAN)["requests"]
        self.assertEqual((len(found), found[-1]), (SPAN, 7))


class HistoryTests(TestCase):
    def setUp(self) -> None:
        self.view = View([pool("web", "a", "b")], [Door(ListenerBooks("front", "http"), "127.0.0.1:80", "listening")])
        self.history = History()

    def second(self, number: int = 1) -> None:
        self.history.sample(self.view)
        self.view.uptime += number

    def of(self, name: str) -> Backend:
        return next(each for each in self.view.pools[0].backends if each.name == name)

    def backend(self, name: str) -> dict[str, object]:
        return next(each for each in self.history.backends(-1) if each["name"] == name)

    def test_what_grows(self) -> None:
        """Counts are of their second; answers of 5xx are errors as failures are."""
        self.second()
        self.of("a").requests[2] += 5
        self.of("a").requests[5] += 2
        self.of("a").failures["connect_failed"] += 1
        self.second()
        self.second()
        found = self.backend("a")
        self.assertEqual((found["requests"], found["errors"]), ([0, 8, 0], [0, 3, 0]))
        (web,) = self.history.pools(-1)
        self.assertEqual((web["requests"], web["errors"]), ([0, 8, 0], [0, 3, 0]))

    def test_latencies(self) -> None:
        """Percentiles of a second are those of what ended in it; lately means the last moments."""
        self.of("a").duration.counts[BUCKETS.index(0.001)] = 1000  # from before: not of any second
        self.second()
        self.of("a").requests[2] += 4
        self.of("a").duration.counts[BUCKETS.index(0.005)] += 4
        self.second()
        self.assertEqual(self.backend("a")["p95_us"], [UNKNOWN, 4875])
        self.assertEqual(self.backend("a")["lately"], {"p50_us": 3750, "p95_us": 4875, "p99_us": 4975})
        for _ in range(25):
            self.second()
        self.assertEqual(self.backend("a")["lately"], dict.fromkeys(("p50_us", "p95_us", "p99_us"), UNKNOWN))

    def test_listeners(self) -> None:
        """Requests, errors, connections and bytes of a listener, and all of them together."""
        books = self.view.doors[0].books
        route = books.route("main", "web")
        self.second()
        route.requests[b"GET", 200] = 3
        route.requests[b"GET", 503] = 1
        route.duration.counts[BUCKETS.index(0.001)] = 4
        books.open, books.bytes_out = 2, 500
        self.second()
        (front,) = self.history.listeners(0)
        self.assertEqual((front["requests"], front["errors"], front["connections"]), ([4], [1], [2]))
        total = self.history.total(0)
        self.assertEqual((total["requests"], total["bytes_out"], total["p50_us"]), ([4], [500], [750]))

    def test_our_own_backends(self) -> None:
        """What goes on to a listener of ours that is a backend is counted where it came in, and its checks nowhere."""
        backend = Backend("web", "inner", "127.0.0.1:81", "127.0.0.1", 81)
        self.view.pools[0].set_members([backend])
        self.view.doors.append(Door(ListenerBooks("inner", "http"), ":81", "listening"))
        for number in range(2):
            for door, count in zip(self.view.doors, (3, 5), strict=True):
                route = door.books.route("main", "web")
                route.requests[b"GET", 200] = count * number
                route.duration.counts[BUCKETS.index(0.001 if door.books.name == "front" else 1.0)] = count * number
            self.second()
        self.assertEqual([each["requests"] for each in self.history.listeners(0)], [[3], [5]])
        total = self.history.total(0)
        self.assertEqual((total["requests"], total["p99_us"]), ([3], [995]))

    def test_the_last_moments(self) -> None:
        """They are the same of all: the total, a pool and its backends forget together."""
        route = self.view.doors[0].books.route("main", "web")
        self.second()
        for number in range(1, 31):
            if number <= 2:
                for counts in (route.duration.counts, self.of("a").duration.counts):
                    counts[BUCKETS.index(0.005)] += 4
                route.requests[b"GET", 200] = self.of("a").requests[2] = 4 * number
            self.second()
            (web,) = self.history.pools(0)
            total = self.history.total(0)
            self.assertEqual(total["lately"], web["lately"])
            self.assertEqual(total["lately"], self.backend("a")["lately"])
            wanted = 3750 if number < 20 else UNKNOWN
            self.assertEqual((number, total["lately"]["p50_us"]), (number, wanted))

    def test_tcp(self) -> None:
        """Connections that have ended; those that a backend failed are errors."""
        books = ListenerBooks("db", "tcp")
        self.view.doors = [Door(books, "127.0.0.1:5432", "listening")]
        self.second()
        books.terminations = {"ok": 3, "client_closed": 1, "connect_failed": 2}
        self.second()
        (db,) = self.history.listeners(0)
        self.assertEqual((db["requests"], db["errors"]), ([6], [2]))

    def test_missed_seconds(self) -> None:
        """What happened while nobody looked is shared evenly, to the last one of it."""
        self.second()
        self.view.uptime += 3
        self.of("a").requests[2] += 10
        self.second()
        self.assertEqual(self.backend("a")["requests"], [0, 2, 3, 2, 3])

    def test_twice_in_a_second(self) -> None:
        """Only the first look counts."""
        self.second(0)
        self.of("a").requests[2] += 1
        self.second()
        self.second()
        self.assertEqual(self.backend("a")["requests"], [0, 1])

    def test_one_that_begins_anew(self) -> None:
        """Counters that have gone back belong to another of that name: what it says is what has come."""
        self.of("a").requests[2] = 100
        self.second()
        self.of("a").requests[2] = 3
        self.second()
        self.assertEqual(self.backend("a")["requests"], [0, 3])

    def test_what_is_gone(self) -> None:
        """Its series go, and their bytes."""
        self.second()
        size = self.history.size
        self.view.pools[0] = pool("web", "a")
        self.second()
        self.assertEqual([each["name"] for each in self.history.backends(-1)], ["a"])
        self.assertLess(self.history.size, size)

    def test_bounded(self) -> None:
        """Many backends are kept in coarse steps, and past the bytes not at all."""
        self.view.pools = [pool("web", *(f"b{number}" for number in range(3000)))]
        self.second()
        self.second()
        self.assertLessEqual(self.history.size, BUDGET)
        self.assertEqual({each["step"] for each in self.history.backends(-1)}, {1, COARSE})
        self.assertGreater(self.history.left_out, 0)
        self.assertGreater(len(list(self.history.backends(-1))), 1000)
        self.assertEqual({each["step"] for each in self.history.backends(0, only_new=True)}, {1})

    def test_events(self) -> None:
        """The last ones are kept, cut where they are long; how the last reload ended is kept beside them."""
        self.history.note({"ts": "t", "level": "info", "event": "config.reloaded", "message": "x" * 9999, "more": [1]})
        for number in range(EVENTS):
            self.history.note({"ts": "t", "level": "warn", "event": "backend.down", "message": str(number)})
        self.assertEqual([each["message"] for each in self.history.events], [str(each) for each in range(EVENTS)])
        assert self.history.reloaded is not None
        self.assertEqual(len(self.history.reloaded["message"]), WORDS)
