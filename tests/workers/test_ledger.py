"""What the parent makes of what its workers tell, case by case."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.observe.history import History
from lbsvc.observe.metrics import LbsvcCollector
from lbsvc.observe.snapshot import Door, status
from tests.observe.sample_view import pool
from tests.workers.counting import Parent, Worker, move


class LedgerCase(TestCase):
    """A parent and two workers, told by `tell`."""

    def setUp(self) -> None:
        self.parent = Parent()
        self.ledger = self.parent.ledger
        self.one, self.two = Worker(), Worker()

    def tell(self) -> None:
        for number, worker in enumerate((self.one, self.two), 1):
            self.ledger.take(number, worker.report())


class CountTests(LedgerCase):
    def test_told_twice(self) -> None:
        """A report that is taken twice is counted once."""
        self.one.request("api", 200)
        report = self.one.report()
        for _ in range(2):
            self.ledger.take(1, report)
        self.assertEqual(self.parent.web.route("api", "app").requests, {(b"GET", 200): 1})

    def test_begun_anew(self) -> None:
        """Counts of a backend that fall have begun anew: what they say then is added to what there was."""
        self.one.backend().requests[2] = 10
        self.tell()
        self.one.backend().requests[2] = 4
        self.tell()
        self.assertEqual(self.parent.backend().requests[2], 14)

    def test_rounding(self) -> None:
        """A sum of durations that is a rounding error less than before is no new beginning."""
        backend = self.one.backend()
        backend.requests[2], backend.duration.total = 10, 0.1 + 0.2
        self.tell()
        backend.requests[2], backend.duration.total = 11, 0.3
        self.tell()
        self.assertEqual(self.parent.backend().requests[2], 11)
        self.assertEqual(self.parent.backend().duration.total, 0.1 + 0.2)

    def test_ends(self) -> None:
        """What ended well is neither overwritten nor counted twice by the parent's own reckoning."""
        for worker in (self.one, self.two):
            for status_ in (200, 200, 404):
                worker.request("api", status_)
        self.tell()
        for _ in range(2):
            self.parent.books()
        self.assertEqual(self.parent.web.terminations, {"ok": 4, "no_route": 2})
        self.one.request("api", 200)
        self.one.web.forget_routes((), ())  # before it was told
        self.tell()
        self.parent.web.forget_routes((), ())
        self.parent.books()
        self.assertEqual(self.parent.web.terminations, {"ok": 5, "no_route": 2})
        self.assertEqual(self.parent.web.forgotten, 7)

    def test_two_of_one_name(self) -> None:
        """What one that leaves and its successor have counted is counted once, before and after it is inherited."""
        lease = self.one.pools[0].take(self.one.backend())
        assert lease is not None
        self.one.backend().requests[2] = 10
        move(self.one.pools[0], "a", "10.9.9.9")
        self.one.backend().requests[2] = 5
        self.tell()
        self.assertEqual(self.parent.backend().requests[2], 15)
        lease.release(Outcome.OK, 200)
        self.assertEqual(self.one.backend().requests[2], 16)
        self.tell()
        self.assertEqual(self.parent.backend().requests[2], 16)

    def test_what_the_parent_does_not_know(self) -> None:
        """What the parent has no place for waits: once there is one, it has all of it, though nothing is new."""
        extra = ListenerBooks("extra", "http")
        extra.open, extra.accepted = 2, 5
        extra.route("r", "new").requests = {(b"GET", 200): 3}
        new = pool("new", "x")
        new.retries, new.backends[0].active, new.backends[0].requests[2] = 1, 1, 3
        self.one.view.listeners.append(extra)
        self.one.pools.append(new)
        self.tell()
        books, there = ListenerBooks("extra", "http"), pool("new", "x")
        self.parent.view.listeners.append(books)
        self.parent.pools.append(there)
        self.tell()
        self.tell()
        self.assertEqual((books.open, books.accepted, books.forgotten), (2, 5, 0))
        self.assertEqual(books.routes["r", "new"].requests, {(b"GET", 200): 3})
        self.assertEqual((there.retries, there.backends[0].active, there.backends[0].requests[2]), (1, 1, 3))

    def test_another_protocol(self) -> None:
        """Books of a listener that speaks another protocol here than there are not mixed up."""
        self.one.web.protocol = "tcp"
        self.one.web.accepted = 5
        self.tell()
        self.assertEqual(self.parent.web.accepted, 0)

    def test_of_nobody_in_particular(self) -> None:
        """Lag, lost lines and overload of all processes are shown as one; overload goes with who has it."""
        self.parent.lag.counts[3] = 1
        self.one.lag.counts[3], self.one.lag.total = 2, 0.5
        self.one.view.log_dropped["access"] = 3
        self.two.view.log_dropped["access"] = 4
        self.two.overload.is_on = True
        self.tell()
        self.tell()
        self.assertEqual((self.parent.lag.counts[3], self.parent.lag.total), (3, 0.5))
        self.assertEqual(self.ledger.dropped["access"], 7)
        self.assertEqual(self.overloaded(), 1)
        self.ledger.forget(2)
        self.assertEqual(self.overloaded(), 0)
        self.assertEqual(self.ledger.dropped["access"], 7)

    def overloaded(self) -> float:
        collector: LbsvcCollector = self.parent.collector()
        (family,) = [each for each in collector.collect() if each.name == "lbsvc_overloaded"]
        return float(family.samples[0].value)


class MomentTests(LedgerCase):
    def test_who_waits(self) -> None:
        """Who waits in the queues of workers is shown, in metrics, status and history."""
        for worker, count in ((self.one, 2), (self.two, 1)):
            for _ in range(count):
                worker.pools[0].queue.enter(lambda: False)
        self.tell()
        view: Any = self.parent.view
        view.doors = [Door(self.parent.web, "", "listening")]
        view.uptime, view.ready = 0.5, lambda: None
        history = History()
        history.sample(view)
        self.assertEqual(self.parent.pools[0].queued, 3)
        self.assertEqual(self.parent.numbers()[1]["lbsvc_queue_length", (("pool", "app"),)], 3)
        self.assertEqual(status(view)["pools"][0]["queued"], 3)
        self.assertEqual(next(history.pools(-1))["queued"], [3])

    def test_the_worst_is_shown(self) -> None:
        """A circuit is as bad as the worst worker's, a backend ejected where anybody's is; the pool is sorted once."""
        sorted_: list[str] = []
        self.patch(Pool, "refresh", lambda each: sorted_.append(each.name))
        shown = self.parent.backend()
        self.one.backend().circuit = "half_open"
        self.two.backend("b").is_ejected = True
        self.tell()
        self.assertEqual((shown.circuit, self.parent.backend("b").is_ejected), ("half_open", True))
        self.assertEqual(sorted_, ["app", "app"])
        self.two.backend().circuit = "open"
        self.tell()
        self.assertEqual(shown.circuit, "open")
        self.tell()
        self.ledger.forget(2)
        self.assertEqual((shown.circuit, self.parent.backend("b").is_ejected), ("half_open", False))
        self.assertEqual(sorted_, ["app"] * 4)

    def test_an_ejected_backend_gets_nothing(self) -> None:
        """The parent's pool is sorted by what workers have found."""
        self.assertTrue(self.parent.pools[1].is_available)
        self.one.backend("one", 1).circuit = "open"
        self.tell()
        self.assertFalse(self.parent.pools[1].is_available)

    def test_latency(self) -> None:
        """The latency is the workers' mean by their answers; what was told long ago hardly counts."""
        shown = self.parent.backend()
        for worker, latency, answers in ((self.one, 0.1, 30), (self.two, 0.4, 10)):
            worker.backend().latency, worker.backend().requests[2] = latency, answers
        self.tell()
        assert shown.latency is not None
        self.assertTrue(0.1 < shown.latency < 0.25, shown.latency)
        for _ in range(20):
            self.two.backend().requests[2] += 1
            self.tell()
        self.assertAlmostEqual(shown.latency, 0.4, places=2)
        self.ledger.forget(2)
        self.assertEqual(shown.latency, 0.1)
        self.ledger.forget(1)
        self.assertEqual(shown.latency, 0.1)

    def test_the_last_lease_of_who_leaves(self) -> None:
        """A backend that leaves the parent's pool is there until no worker has a lease on it; its counts stay."""
        gone: list[Backend] = []
        departures = self.parent.pools[0].departures
        inherit = departures.on_gone
        assert inherit is not None
        departures.on_gone = lambda backend: (gone.append(backend), inherit(backend))
        lease = self.one.pools[0].take(self.one.backend())
        assert lease is not None
        self.tell()
        for process in (self.one, self.parent, self.two):
            move(process.pools[0], "a", "10.9.9.9")
        self.tell()
        self.assertEqual([each.active for each in self.parent.pools[0].leaving], [1])
        lease.release(Outcome.OK, 200)
        self.tell()
        self.assertEqual([each.address for each in gone], ["10.0.0.1:80"])
        self.assertEqual(self.parent.pools[0].leaving, [])
        self.assertEqual(self.parent.backend().requests[2], 1)

    def test_who_leaves_when_its_worker_dies(self) -> None:
        """A worker that dies gives back its leases."""
        self.one.backend().active = 1
        self.tell()
        move(self.parent.pools[0], "a", "10.9.9.9")
        self.assertEqual(len(self.parent.pools[0].leaving), 1)
        self.ledger.forget(1)
        self.assertEqual(self.parent.pools[0].leaving, [])

    def test_words_of_the_dead(self) -> None:
        """What a forgotten worker had still said is not taken."""
        self.one.web.open = self.one.web.accepted = 3
        late = self.one.report()
        self.ledger.forget(1)
        self.ledger.take(1, late)
        self.assertEqual((self.parent.web.open, self.parent.web.accepted), (0, 0))

    def test_other_objects(self) -> None:
        """After a reload what is so at this moment is written to objects that have come in place of others."""
        self.one.web.open, self.one.backend().active = 3, 2
        self.tell()
        web, app = ListenerBooks("web", "http"), pool("app", "a", "b")
        self.parent.view.listeners[0], self.parent.pools[0] = web, app
        self.ledger.renew()
        self.assertEqual((web.open, app.backends[0].active), (3, 2))
