"""Reports and the ledger together: whatever workers count, tell and die of, the parent shows the sums."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.workers.reports import Report
from tests.observe.sample_view import crowded
from tests.workers.counting import Numbers, Parent, Process, Worker, move, total

STEPS = st.lists(
    st.tuples(st.sampled_from(["count", "count", "report", "die", "forget route", "move"]), st.integers(0, 2)),
    max_size=40,
)


class Life:
    """Three places for workers, and a parent; each place is taken anew when its worker dies."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.parent = Parent()
        self.number = 0
        self.workers: dict[int, tuple[int, Worker]] = {}
        #: what each worker has told, those that died included: what only grows, and what is so now
        self.told: dict[int, tuple[Numbers, Numbers]] = {}
        #: how many requests each has told of
        self.requests: dict[int, int] = {}
        self.shown: Numbers = {}
        for place in range(3):
            self.start(place)

    def start(self, place: int) -> None:
        self.number += 1
        self.workers[place] = self.number, Worker()

    def step(self, what: str, place: int) -> None:
        number, worker = self.workers[place]
        if what == "count":
            worker.count(self.dice)
        elif what == "report":
            self.told[number] = worker.numbers()
            self.requests[number] = requests(worker)
            self.parent.ledger.take(number, worker.report())
        elif what == "die":
            self.parent.ledger.forget(number)
            if number in self.told:
                self.told[number] = self.told[number][0], {}
            self.start(place)
        elif what == "forget route":
            process = self.dice.choice([worker, self.parent])
            process.web.forget_routes((), ())
        elif what == "move":
            process = self.dice.choice([worker, self.parent])
            move(process.pools[0], "a", f"10.1.0.{self.dice.randrange(3)}")


def requests(process: Process) -> int:
    """All that a listener has had, on routes that are there and that are not."""
    return process.web.forgotten + sum(sum(route.requests.values()) for route in process.web.routes.values())


def without_routes(numbers: Numbers) -> Numbers:
    """What is shown of listeners, pools and backends."""
    return {
        (name, labels): value
        for (name, labels), value in numbers.items()
        if "route" not in dict(labels) and dict(labels).get("reason") != "rate_limited"
    }


class SumTests(TestCase):
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), STEPS)
    def test_sums(self, seed: int, steps: list[tuple[str, int]]) -> None:
        """What is shown is the sum of what all workers have told; nothing that is counted ever falls; the dead have no
        connections."""
        life = Life(seed)
        for what, place in steps:
            if what in ("move", "forget route"):
                continue
            life.step(what, place)
            if what == "count":
                continue
            counts, now = life.parent.numbers()
            self.compare(counts, total([each for each, _ in life.told.values()]))
            self.compare(now, total([each for _, each in life.told.values()]))
            self.assertEqual([key for key, value in life.shown.items() if counts[key] < value], [])
            life.shown = counts

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), STEPS)
    def test_sums_while_things_change(self, seed: int, steps: list[tuple[str, int]]) -> None:
        """While addresses of backends change, and routes are forgotten, here sooner and there later, sums by name stay."""
        life = Life(seed)
        for what, place in steps:
            life.step(what, place)
            if what == "count":
                continue
            counts, _ = life.parent.numbers()
            self.compare(without_routes(counts), without_routes(total([each for each, _ in life.told.values()])))
            self.assertEqual(requests(life.parent), sum(life.requests.values()))

    def compare(self, shown: Numbers, expected: Numbers) -> None:
        """Series that nobody has told of yet are nothing."""
        self.assertEqual(
            {key: value for key, value in shown.items() if value},
            {key: value for key, value in expected.items() if value},
        )


class SizeTests(TestCase):
    def test_nothing_new(self) -> None:
        """A report in which nothing is new is small, however many backends there are; one change is one backend."""
        worker = Worker()
        worker.view = crowded(300)
        worker.pools = worker.view.pools
        self.assertEqual(len(worker.report().backends), 300)
        idle = worker.report()
        self.assertEqual((idle.gone, idle.listeners, idle.routes, idle.pools, idle.backends), ([], [], [], [], []))
        self.assertLess(len(msgspec.msgpack.encode(idle)), 100)
        worker.pools[0].backends[7].active += 1
        changed = worker.report()
        self.assertEqual([each.name for each in changed.backends], ["b7"])
        self.assertLess(len(msgspec.msgpack.encode(changed)), 250)

    def test_written_and_read(self) -> None:
        """A report is the same at the other end."""
        worker = Worker()
        worker.count(random.Random(1))
        report = worker.reporter.report()
        self.assertEqual(msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=Report), report)

    def test_what_is_gone(self) -> None:
        """What is no more is named once; what has begun anew under its name is named, and told in full."""
        worker = Worker()
        worker.request("api", 200)
        worker.report()
        worker.web.forget_routes((), ())
        worker.pools.pop()
        worker.request("api", 200)
        report = worker.report()
        api = ("route", "web", "http", "api", "app")
        self.assertEqual(
            set(report.gone),
            {api, ("route", "web", "http", "static", "app"), ("pool", "db"), ("backend", "db", "one")},
        )
        self.assertEqual([each.key for each in report.routes], [api])
        self.assertEqual(worker.report().gone, [])
