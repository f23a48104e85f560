"""Listeners that are no more: how long their connections may go on, on a clock that the test turns."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.books import ListenerBooks
from lbsvc.leaving import Leaving


class Site:
    def __init__(self, left: int) -> None:
        self.left = left
        self.told: list[str] = []
        self.fault: Exception | None = None

    def leave(self) -> None:
        self.told.append("leave")

    def abort(self) -> None:
        self.told.append("abort")
        if self.fault is not None:
            raise self.fault


class Gone:
    """What Leaving asks of a listener that was served."""

    name = "web"

    def __init__(self, left: int) -> None:
        self.site = Site(left)
        self.sites = [self.site]
        self.is_stopped = False
        self.books = ListenerBooks("web", "http")

    @property
    def left(self) -> int:
        return self.site.left

    def stop(self) -> None:
        self.is_stopped = True


class LeavingTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.leaving = Leaving(self.clock, lambda level, event, message, **fields: self.events.append(event))

    def see_off(self, left: int, patience: float | None, elsewhere: int = 0) -> Any:
        gone: Any = Gone(left)
        gone.books.open = elsewhere
        self.leaving.see_off(gone, patience)
        return gone

    def turn(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)

    def test_nobody(self) -> None:
        """One without connections is gone at once, and no timer is left."""
        gone = self.see_off(0, 10.0)
        self.assertTrue(gone.is_stopped)
        self.assertEqual((self.leaving.everyone, self.clock.getDelayedCalls()), ([], []))

    def test_goes(self) -> None:
        """It is listed until its last connection is gone; then no timer is left."""
        gone = self.see_off(2, None)
        self.turn(86400 / 4)
        self.assertEqual((self.leaving.everyone, gone.site.told), ([gone], ["leave"]))
        gone.site.left = 0
        self.turn(1)
        self.assertEqual((self.leaving.everyone, self.clock.getDelayedCalls(), self.events), ([], [], []))

    def test_cut(self) -> None:
        """What is left when its time is over is cut, again after a second if it is still there; it is told once."""
        gone = self.see_off(2, 10.0)
        self.turn(9.5)
        self.assertEqual(gone.site.told, ["leave"])
        self.turn(1)
        self.assertEqual(gone.site.told, ["leave", "abort"])
        self.turn(1)
        self.assertEqual(gone.site.told, ["leave", "abort", "abort"])
        self.assertEqual(self.events, ["listener.cut"])
        gone.site.left = 0
        self.turn(1)
        self.assertEqual((self.leaving.everyone, self.clock.getDelayedCalls()), ([], []))

    def test_no_time(self) -> None:
        """With no time at all they are cut at once."""
        self.assertEqual(self.see_off(1, 0.0).site.told, ["leave", "abort"])

    def test_faults(self) -> None:
        """One that cannot be cut does not keep the others."""
        first, second = self.see_off(1, 1.0), self.see_off(1, 1.0)
        first.site.fault = ZeroDivisionError()
        self.turn(1.25)
        self.assertEqual(second.site.told, ["leave", "abort"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_elsewhere(self) -> None:
        """Where other processes have the connections it is listed while its books have any, and cut by nobody here; not when
        another listener counts in its books."""
        self.leaving.is_elsewhere = True
        self.assertEqual((self.see_off(5, 1.0).books.open, self.leaving.everyone), (0, []))
        one, other = self.see_off(0, 1.0, 2), self.see_off(0, 0.0, 3)
        self.turn(5)
        self.assertEqual(self.leaving.everyone, [one, other])
        self.assertEqual((one.site.told, other.site.told, self.events), (["leave"], ["leave"], []))
        one.books.open = 0
        self.turn(1)
        self.assertEqual(self.leaving.everyone, [other])
        self.leaving.go_on(other.books)
        self.turn(1)
        self.assertEqual((self.leaving.everyone, self.clock.getDelayedCalls()), ([], []))

    def test_goes_on(self) -> None:
        """Here it is listed while it has connections, whoever counts in its books."""
        gone = self.see_off(1, None)
        self.leaving.go_on(gone.books)
        self.assertEqual(self.leaving.everyone, [gone])
        self.leaving.stop()

    def test_stop(self) -> None:
        """When the service stops no timer is left, and they are still listed: the stop waits for them."""
        gone = self.see_off(1, 10.0)
        self.leaving.stop()
        self.assertEqual((self.leaving.everyone, self.clock.getDelayedCalls()), ([gone], []))
