"""A stop of the service, stage by stage, on a clock that the test turns."""

from __future__ import annotations

from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.net.drain import Drain


class Stop:
    """A drain of one listener and one site, which write down what they are told and when."""

    def __init__(self, delay: float = 0.0, timeout: float = 30.0, left: int = 0, is_gentle: bool = False) -> None:
        self.clock = Clock()
        self.left = left
        self.told: list[tuple[float, str]] = []
        self.said: list[str] = []
        self.fault: str | None = None
        self.stays = False  # what is cut is there until it closes
        self.drain = Drain(
            self.clock, delay, timeout, [self], [Site(self)], self.count, self.emit, self.closing, is_gentle
        )
        self.done: list[float] = []

    def run(self) -> Stop:
        over: Deferred[None] = self.drain.run()
        over.addCallback(lambda _: self.done.append(self.clock.seconds()))
        return self

    def tell(self, what: str) -> None:
        self.told.append((self.clock.seconds(), what))
        if what == self.fault:
            raise ZeroDivisionError(what)

    def close(self) -> None:
        self.tell("close")

    def closing(self) -> None:
        self.tell("closing")

    def count(self) -> int:
        return self.left

    def emit(self, text: str) -> None:
        self.said.append(text)
        if self.fault == "emit":
            raise ZeroDivisionError(text)

    def turn(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)


class Site:
    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def leave(self) -> None:
        self.stop.tell("leave")

    def drain(self) -> None:
        self.stop.tell("drain")

    def abort(self) -> None:
        self.stop.tell("abort")
        if not self.stop.stays:
            self.stop.left = 0


class DrainTests(TestCase):
    def test_nothing_to_wait_for(self) -> None:
        """Without delay and connections every stage comes at once, in order, and the end a turn later."""
        stop = Stop().run()
        self.assertEqual([what for _, what in stop.told], ["closing", "close", "drain", "abort"])
        self.assertEqual(stop.done, [])
        stop.clock.advance(0)
        self.assertEqual(stop.done, [0.0])
        self.assertEqual(stop.said, ["0 connections to finish, for 30 s at most"])
        self.assertEqual(stop.clock.getDelayedCalls(), [])

    def test_gentle(self) -> None:
        """Where others go on, sites are told so first: idle connections need not be closed at once."""
        stop = Stop(is_gentle=True).run()
        self.assertEqual([what for _, what in stop.told], ["closing", "close", "leave", "drain", "abort"])
        stop.turn(0.1)
        self.assertEqual(len(stop.done), 1)

    def test_told(self) -> None:
        """People are told of connections also where something else is waited for."""
        stop = Stop(timeout=1, left=2)
        stop.drain._count_told = lambda: 7
        stop.run().turn(1.1)
        self.assertEqual(stop.said, ["7 connections to finish, for 1 s at most", "cutting 7 connections that are left"])

    def test_stages(self) -> None:
        """Nothing stops during `delay`; then accepting does; what is left `drain_timeout` after that is cut."""
        stop = Stop(delay=5, timeout=10, left=3).run()
        stop.turn(4.9)
        self.assertEqual(stop.told, [])
        stop.turn(0.2)
        self.assertEqual([what for _, what in stop.told], ["closing", "close", "drain"])
        stop.turn(9.8)
        self.assertEqual(len(stop.told), 3)
        stop.turn(0.2)
        at, what = stop.told[-1]
        self.assertEqual(what, "abort")
        self.assertApproximates(at, 15.0, 0.03)
        stop.turn(0.1)
        self.assertApproximates(stop.done[0], 15.0, 0.05)
        self.assertEqual(
            stop.said,
            [
                "not ready; accepting for another 5 s",
                "3 connections to finish, for 10 s at most",
                "cutting 3 connections that are left",
            ],
        )
        self.assertEqual(stop.clock.getDelayedCalls(), [])

    def test_ends_with_the_last_connection(self) -> None:
        """It ends when the last connection has gone, well before the deadline."""
        stop = Stop(timeout=600, left=2).run()
        stop.turn(3)
        stop.left = 1
        stop.turn(1)
        self.assertEqual(stop.done, [])
        stop.left = 0
        stop.turn(0.1)
        self.assertApproximates(stop.done[0], 4.0, 0.1)

    def test_hurried(self) -> None:
        """Told to hurry, before it begins or while it waits, it cuts what is left in so many seconds; never later."""
        for before in (True, False):
            stop = Stop(timeout=inf, left=2)
            if before:
                stop.drain.hurry(5)
            stop.run()
            stop.turn(3)
            if not before:
                stop.drain.hurry(2)
            stop.drain.hurry(600)
            self.assertEqual(stop.done, [])
            stop.turn(2.1)
            self.assertIn("abort", [what for _, what in stop.told])

    def test_forced_at_each_stage(self) -> None:
        """Forced before it begins, during the delay, or while waiting, it cuts what is left and ends at once."""
        for when in (None, 0.0, 2.0, 7.0):
            stop = Stop(delay=5, timeout=600, left=3)
            if when is None:
                stop.drain.force()
            stop.run()
            if when is not None:
                stop.turn(when)
                stop.drain.force()
            self.assertEqual([what for _, what in stop.told], ["closing", "close", "drain", "abort"])
            stop.clock.advance(0)
            self.assertEqual(stop.done, [stop.clock.seconds()])
            self.assertEqual(stop.clock.getDelayedCalls(), [])

    def test_forced_twice_and_after_the_end(self) -> None:
        """Forcing again, also when it is over, changes nothing."""
        stop = Stop(left=1).run()
        for _ in range(3):
            stop.drain.force()
            stop.clock.advance(0)
        self.assertEqual(len(stop.done), 1)
        self.assertEqual([what for _, what in stop.told].count("abort"), 1)

    def test_faults(self) -> None:
        """A stage that fails is logged; the next ones come all the same, and the stop ends."""
        for fault in ("closing", "close", "drain", "abort", "emit"):
            stop = Stop(delay=1, timeout=2, left=1)
            stop.fault = fault
            stop.run()
            stop.turn(5)
            told = ["closing", "close", "drain", *["abort"] * (2 if fault == "abort" else 1)]
            self.assertEqual([what for _, what in stop.told], told)
            self.assertEqual(len(stop.done), 1)
            self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_farewell(self) -> None:
        """Those that were told that they are cut have a second to close, and are waited for no longer than they take."""
        for closes in (True, False):
            stop = Stop(timeout=0, left=2)
            stop.stays = True
            stop.run()
            stop.turn(0.5)
            self.assertEqual(stop.done, [])
            if closes:
                stop.left = 0
            stop.turn(0.7)
            self.assertApproximates(stop.done[0], 0.55 if closes else 1.0, 0.06)
            self.assertEqual([what for _, what in stop.told].count("abort"), 1 if closes else 2)

    def test_forced_farewell(self) -> None:
        """Told again to stop, it does not wait for them."""
        stop = Stop(timeout=0, left=2)
        stop.stays = True
        stop.run()
        stop.turn(0.2)
        stop.drain.force()
        stop.clock.advance(0)
        self.assertEqual(len(stop.done), 1)

    def test_no_time_at_all(self) -> None:
        """A `drain_timeout` of nothing cuts at once."""
        stop = Stop(timeout=0, left=5).run()
        self.assertEqual(stop.told[-1][1], "abort")
        stop.clock.advance(0)
        self.assertEqual(stop.done, [0.0])
