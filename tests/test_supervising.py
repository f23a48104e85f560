"""The service manager is told what is true, when it is, and in order."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.net.notify import Notifier
from lbsvc.supervising import BEAT, MOST_OWED, RETRY, Supervision
from tests.kit.notifying import NotifySocket
from tests.observe.sample_view import SampleView, pool, realistic

EXTEND = "EXTEND_TIMEOUT_USEC=30000000"


@dataclass
class Service(SampleView):
    """A view that says whether it is ready."""

    reason: str | None = "starting"

    def ready(self) -> str | None:
        return self.reason


class Stuck(Notifier):
    """A notifier of which the manager's queue can be full."""

    is_full = False

    def send(self, *lines: str) -> bool:
        return not self.is_full and super().send(*lines)


class SupervisionTestCase(TestCase):
    watchdog: dict[str, str] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.manager = NotifySocket()
        self.addCleanup(self.manager.close)
        self.service = Service()
        self.notifier = Stuck({**self.manager.env, **self.watchdog}, 1)
        self.supervision = Supervision(self.clock, self.notifier, self.service, lambda: 12.5)
        self.addCleanup(self.supervision.stop)

    def told(self) -> list[list[str]]:
        """What has been told since this was asked last."""
        told = list(self.manager.read())
        self.manager.messages.clear()
        return told

    def is_ready(self) -> None:
        self.supervision.start()
        self.service.reason = None
        self.supervision.ready()
        self.told()


class StateTests(SupervisionTestCase):
    def test_start(self) -> None:
        """READY comes once, when it is said; until then more time is asked for with each beat, and afterwards no more."""
        self.supervision.start()
        self.clock.advance(BEAT)
        first, second = self.told()
        for message in (first, second):
            self.assertTrue(message[0].startswith("STATUS=starting, generation 1"), message)
            self.assertEqual(message[1:], [EXTEND])
        self.service.reason = None
        self.supervision.ready()
        self.supervision.ready()
        (ready,) = self.told()
        self.assertEqual(ready[0], "READY=1")
        self.assertTrue(ready[1].startswith("STATUS=ready"), ready)
        self.clock.advance(BEAT)
        self.assertEqual([len(message) for message in self.told()], [1])

    def test_successor(self) -> None:
        """MAINPID is told behind all that waits, and the successor may speak only then; we say no more."""
        self.is_ready()
        self.notifier.is_full = True
        self.supervision.tell("reloading")
        then: list[str] = []

        def end() -> None:
            then.append("end")
            self.supervision.stop()

        self.supervision.succeeded_by(4711, end)
        self.assertEqual((self.told(), then), ([], []))
        self.notifier.is_full = False
        self.clock.advance(RETRY)
        self.assertEqual([message[0] for message in self.told()], ["RELOADING=1", "MAINPID=4711"])
        self.assertEqual(then, ["end"])
        self.supervision.stopping()
        self.clock.advance(BEAT)
        self.assertEqual((self.told(), self.clock.getDelayedCalls()), ([], []))

    def test_reload(self) -> None:
        """RELOADING comes with the monotonic time in the same message, and READY after it."""
        self.is_ready()
        self.supervision.tell("reloading")
        self.service.last_reload_ok = False
        self.supervision.tell("ready")
        reloading, ready = self.told()
        self.assertEqual(reloading[:2], ["RELOADING=1", "MONOTONIC_USEC=12500000"])
        self.assertEqual(ready[0], "READY=1")
        self.assertTrue(ready[1].endswith("; the last reload was refused"), ready)

    def test_workers_hang(self) -> None:
        """While a worker hangs that cannot be replaced the watchdog is told nothing; a status goes on being told."""
        for is_well in (True, False, True):
            self.supervision.stop()
            self.supervision = Supervision(
                self.clock, Notifier({**self.manager.env, "WATCHDOG_USEC": "2000000"}, 1), self.service
            )
            self.supervision.is_well = lambda is_well=is_well: is_well  # type: ignore[misc]
            self.supervision.start()
            self.clock.pump([0.5] * 12)
            told = self.told()
            self.assertEqual(["WATCHDOG=1"] in told, is_well)
            self.assertTrue(any(message[0].startswith("STATUS=") for message in told))

    def test_reload_before_ready(self) -> None:
        """A reload while we start does not make us ready."""
        self.supervision.start()
        self.told()
        self.supervision.tell("reloading")
        self.supervision.tell("ready")
        self.assertEqual(self.told(), [])

    def test_stop(self) -> None:
        """STOPPING comes once; more time is asked for until the end; no READY follows, of a start or a reload."""
        self.is_ready()
        self.supervision.tell("reloading")
        self.service.reason = "draining"
        self.supervision.stopping()
        self.supervision.stopping()
        self.supervision.tell("ready")
        self.supervision.ready()
        self.clock.advance(BEAT)
        _, stopping, beat = self.told()
        self.assertEqual((stopping[0], stopping[2]), ("STOPPING=1", EXTEND))
        self.assertTrue(stopping[1].startswith("STATUS=draining"), stopping)
        self.assertEqual(beat[1:], [EXTEND])
        self.supervision.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_ready(self) -> None:
        """Told to stop while it starts, it never says that it is ready."""
        self.supervision.start()
        self.supervision.stopping()
        self.supervision.ready()
        self.assertEqual(self.manager.states(), ["STOPPING=1"])

    def test_nobody(self) -> None:
        """Without a manager no timer runs, and nothing waits to be told."""
        alone = Supervision(self.clock, Notifier({"WATCHDOG_USEC": "10"}, 1), self.service)
        alone.start()
        alone.ready()
        alone.tell("reloading")
        alone.tell("ready")
        alone.stopping()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        alone.stop()


class StatusTests(SupervisionTestCase):
    def status(self) -> str:
        self.clock.advance(BEAT)
        return self.told()[-1][0]

    def test_counts(self) -> None:
        """Connections, requests (tcp: connections) per second since the last beat, and who is up, as they are now."""
        sample = realistic()
        self.service.listeners, self.service.pools = sample.listeners, sample.pools
        self.service.generation = 4
        self.is_ready()
        web, db = sample.listeners
        web.routes['host="api" path=\\v1', "web"].requests[b"GET", 200] += 40
        db.accepted += 10
        db.open = 2
        self.assertEqual(
            self.status(), "STATUS=ready, generation 4: 5 connections, 10.0 requests/s, 2 of 4 backends up"
        )
        self.assertEqual(self.status(), "STATUS=ready, generation 4: 5 connections, 0.0 requests/s, 2 of 4 backends up")

    def test_listener_gone(self) -> None:
        """A removed listener takes its counts along; the rate does not become negative."""
        self.service.listeners = realistic().listeners
        self.is_ready()
        self.service.listeners = []
        self.assertIn("0 connections, 0.0 requests/s", self.status())

    def test_empty(self) -> None:
        """Pools without anybody are named, a few of them; not while we start, when nobody was asked yet."""
        self.service.pools = [pool(f"p{number}", "a") for number in range(7)]
        for each in self.service.pools:
            each.backends[0].state = "maint"
            each.refresh()
        self.supervision.start()
        self.assertNotIn("nobody", self.told()[0][0])
        self.service.reason = None
        self.supervision.ready()
        self.assertTrue(self.status().endswith("; nobody serves in p0, p1, p2, p3, p4 and 2 more"))

    def test_failing(self) -> None:
        """A status that cannot be put together costs no other message."""
        self.service.pools = None  # type: ignore[assignment]
        self.supervision.start()
        self.supervision.ready()
        self.assertEqual(self.told(), [["STATUS=unknown", EXTEND], ["READY=1", "STATUS=unknown"]])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)


class WatchdogTests(SupervisionTestCase):
    watchdog = {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}

    def pings(self) -> int:
        return self.told().count(["WATCHDOG=1"])

    def test_pings(self) -> None:
        """A ping at once and then in half the time, while we start, serve and drain; none after the end."""
        self.supervision.start()
        self.assertEqual(self.pings(), 1)
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.pings(), 4)
        self.supervision.stopping()
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.pings(), 4)
        self.supervision.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_room(self) -> None:
        """What finds no room comes later, in order; of pings that wait there is one, of statuses none."""
        self.is_ready()
        self.notifier.is_full = True
        self.supervision.tell("reloading")
        self.clock.pump([1.0] * 12)
        self.supervision.tell("ready")
        self.assertEqual(self.told(), [])
        self.notifier.is_full = False
        self.clock.advance(RETRY)
        self.assertEqual([message[0] for message in self.told()], ["RELOADING=1", "WATCHDOG=1", "READY=1"])

    def test_away(self) -> None:
        """A manager that never reads does not make us keep ever more for it; what is newest stays."""
        self.is_ready()
        self.notifier.is_full = True
        for _ in range(MOST_OWED):
            self.supervision.tell("reloading")
            self.supervision.tell("ready")
        self.supervision.stopping()
        self.notifier.is_full = False
        for _ in range(MOST_OWED):  # the kernel's queue holds some ten
            self.clock.advance(RETRY)
            states = self.manager.states()
        self.assertEqual((len(states), states[-1]), (MOST_OWED, "STOPPING=1"))
