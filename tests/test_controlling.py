"""What the admin interface asks for: changes, fresh numbers, rows of workers, one restart or upgrade at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from subprocess import Popen
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.admin.control import Failed, Impossible, Look, Underway
from lbsvc.config import overlay
from lbsvc.config.loader import load_text
from lbsvc.controlling import Controlling
from lbsvc.core.books import ListenerBooks
from lbsvc.errors import Mistake, Stopping
from lbsvc.observe.events import Events
from lbsvc.observe.snapshot import Door
from lbsvc.observe.usage import cpu_seconds, resident_bytes
from lbsvc.pools import Pools
from lbsvc.reloading import Applied, Drains, Reloading
from lbsvc.sending import Sending
from tests.admin.fake_control import FILE, WORKERS, FakeControl


class FakeCrew:
    """Two workers."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []

    def fresh(self) -> Deferred[None]:
        return self.start()

    def restart(self) -> Deferred[int]:
        return self.start()

    def start(self) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def rows(self) -> list[dict[str, Any]]:
        return WORKERS


class Open:
    """The part of Reloading that is asked."""

    closed = False

    def look_whether_open(self) -> None:
        if self.closed:
            raise Stopping([Mistake("", 0, 0, "", "the service is stopping")])


class ControllingCase(SynchronousTestCase):
    def make(self, crew: FakeCrew | None, upgrading: FakeCrew | None = None) -> Controlling:
        self.view = FakeControl()
        self.open = Open()
        return Controlling(
            Clock(),
            self.view,
            cast(Reloading, self.open),
            cast(Events, None),
            "lb.yaml",
            cast(Pools, None),
            cast(Sending, None),
            crew,
            upgrading,
        )


class CrewTests(ControllingCase):
    def setUp(self) -> None:
        self.crew = FakeCrew()
        self.control = self.make(self.crew)

    def test_rows(self) -> None:
        """The workers are shown, in the status too."""
        self.assertEqual((self.control.workers(), self.control.status()["workers"]), (WORKERS, WORKERS))

    def test_fresh(self) -> None:
        """It fires when the workers have told; whatever became of that, and for each who waits by himself."""
        first, second = self.control.fresh(), self.control.fresh()
        self.assertNoResult(first)
        first.cancel()
        self.failureResultOf(first)
        for each in self.crew.asked:
            each.callback(None)
        self.assertIsNone(self.successResultOf(second))
        third = self.control.fresh()
        self.crew.asked[-1].errback(KeyError("one has just died"))
        self.assertIsNone(self.successResultOf(third))

    def test_restart(self) -> None:
        """It says how many; while it goes on there is no other, nor an upgrade; afterwards there may be."""
        self.control = self.make(self.crew, self.crew)
        restarting = self.control.restart_workers("me")
        for again in (self.control.restart_workers, self.control.upgrade):
            self.assertIn("one at a time", str(self.assertRaises(Underway, again, "me")))
        self.crew.asked[-1].callback(2)
        self.assertEqual(self.successResultOf(restarting), {"restarted": 2})
        upgrading = self.control.upgrade("me")
        self.assertRaises(Underway, self.control.restart_workers, "me")
        self.crew.asked[-1].callback(4720)
        self.assertEqual(self.successResultOf(upgrading), {"pid": 4720})

    def test_failed(self) -> None:
        """What has failed may be tried again."""
        for _ in range(2):
            restarting = self.control.restart_workers("me")
            self.crew.asked[-1].errback(Failed("worker 2 died at once"))
            self.assertEqual(str(self.failureResultOf(restarting, Failed).value), "worker 2 died at once")

    def test_stopping(self) -> None:
        """A service that stops replaces no workers."""
        self.open.closed = True
        self.assertRaises(Stopping, self.control.restart_workers, "me")


class AloneTests(ControllingCase):
    def setUp(self) -> None:
        self.control = self.make(None)

    def test_row(self) -> None:
        """One process is one row: what it carries, and what it costs; its status has no workers."""
        books = self.view.books
        books.open, books.forgotten = 3, 10
        books.route("r", "web").requests = {(b"GET", 200): 5, (b"POST", 503): 1}
        tcp = ListenerBooks("db", "tcp")
        tcp.open, tcp.terminations = 2, {"ok": 4, "client_closed": 1}
        self.patch(FakeControl, "doors", [Door(books, "x", "listening"), Door(tcp, "y", "listening")])
        (row,) = self.control.workers()
        self.assertEqual(list(row), list(WORKERS[0]))
        self.assertEqual((row["worker"], row["pid"], row["restarts"]), (1, os.getpid(), 0))
        self.assertEqual((row["connections"], row["requests"]), (5, 21))
        self.assertGreater(row["cpu_seconds"], 0)
        self.assertGreater(row["resident_bytes"], 1 << 20)
        self.assertNotIn("workers", self.control.status())

    def test_states(self) -> None:
        """It serves when it is ready, and leaves when it drains."""
        for why_not, state in ((None, "serving"), ("starting", "starting"), ("draining", "leaving")):
            self.patch(self.view, "ready", lambda why_not=why_not: why_not)
            self.assertEqual(self.control.workers()[0]["state"], state)

    def test_fresh(self) -> None:
        """Its numbers are always those of now."""
        self.assertIsNone(self.successResultOf(self.control.fresh()))

    def test_others(self) -> None:
        """What the system says of other processes; of one that has ended, nothing."""
        self.assertGreater(cpu_seconds(os.getpid()), 0)
        self.assertGreater(resident_bytes(os.getpid()), 1 << 20)
        ended = Popen([sys.executable, "-c", ""])
        ended.wait()
        self.assertEqual((cpu_seconds(ended.pid), resident_bytes(ended.pid)), (0.0, 0))

    def test_impossible(self) -> None:
        """Nobody can take over; it is said what to do instead."""
        self.assertIn("use upgrade", str(self.assertRaises(Impossible, self.control.restart_workers, "me")))
        self.assertIn("start it again", str(self.assertRaises(Impossible, self.control.upgrade, "me")))


class FakePools:
    """Pools in which nothing leaves but `a`, once it has been removed."""

    def __init__(self) -> None:
        self.hurried: list[tuple[str, str, float | None]] = []

    def hurry(self, pool: str, name: str, seconds: float | None) -> list[str]:
        self.hurried.append((pool, name, seconds))
        return ["a: leaving"] if name == "a" else []


class ChangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reloading = Reloading(load_text(FILE, "lb.yaml", None), "lb.yaml", None, lambda: (), lambda *_, **__: None)
        self.drains: list[Drains] = []
        self.reloading.on_drains = self.drains.append
        self.pools = FakePools()
        self.control = Controlling(
            Clock(),
            FakeControl(),
            self.reloading,
            cast(Events, None),
            "lb.yaml",
            cast(Pools, self.pools),
            cast(Sending, None),
        )
        self.looked = 0

    def look(self) -> None:
        self.looked += 1

    def refuse(self) -> None:
        raise overlay.Exists("another has come before")

    def names(self) -> list[str]:
        return [entry.name for entry in self.reloading.settings.pools["web"].backends]

    def test_looked_at_first(self) -> None:
        """Each change is worked out after a look at what is in force; what that raises refuses it, and nothing changes."""
        entry = self.control.parse_backend("web", {"address": "10.0.0.9:1", "name": "x"})
        health = self.control.parse_health("web", {"path": "/up"})
        before = self.reloading.settings
        changes: tuple[Callable[[Look], Deferred[Applied]], ...] = (
            lambda look: self.control.add("me", "web", entry, look),
            lambda look: self.control.change("me", "web", "a", 3, "drain", look),
            lambda look: self.control.change_health("me", "web", health, look),
            lambda look: self.control.remove("me", "web", "a", 5.0, look),
        )
        for change in changes:
            self.failureResultOf(change(self.refuse), overlay.Exists)
        self.assertIs(self.reloading.settings, before)
        for count, change in enumerate(changes, 1):
            self.assertEqual((self.successResultOf(change(self.look)).generation, self.looked), (1, count))
        self.assertEqual((self.names(), self.drains[-1]), (["http://10.0.0.2:8001", "x"], {("web", "a"): 5.0}))

    def test_removed_again(self) -> None:
        """One that leaves already may be given another time; one that nobody knows is unknown."""
        self.successResultOf(self.control.remove("me", "web", "a", None))
        again = self.successResultOf(self.control.remove("me", "web", "a", 1.0))
        self.assertEqual((again.changes, self.pools.hurried), (("a: leaving",), [("web", "a", 1.0)]))
        self.failureResultOf(self.control.remove("me", "web", "nope", 1.0), overlay.Unknown)
