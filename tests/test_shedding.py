"""From a reactor that is late to a word in the log: Shedding on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import OverloadSettings
from lbsvc.shedding import Shedding
from tests.kit.builders import settings


class SheddingTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((level, event, fields))

    def start(self, lag: float | None) -> Shedding:
        made = Shedding(self.clock, OverloadSettings(lag) if lag is not None else None, self.emit)
        made.start()
        return made

    def hold_up(self, late: float, times: int = 1) -> None:
        """The reactor comes to its timers so late, so often."""
        for _ in range(times):
            self.clock.advance(0.5 + late)

    def test_both_changes_are_told(self) -> None:
        """An overload begins and is over with one event each, which say how late the reactor was and how long it took."""
        shedding = self.start(1.0)
        self.hold_up(1.5, 10)
        self.assertTrue(shedding.overload.is_on)
        self.hold_up(0.0, 10)
        self.assertFalse(shedding.overload.is_on)
        begun, over = self.events
        self.assertEqual(begun, ("warn", "overload.begun", {"lag": 1.5, "limit": 1.0}))
        self.assertEqual(over[:2], ("info", "overload.over"))
        self.assertEqual(over[2], {"seconds": 7 * 2.0 + 4 * 0.5})  # seven more late samples, and four that are not

    def test_a_pause_is_none(self) -> None:
        """A process that was stopped for an hour has nothing to tell."""
        shedding = self.start(0.1)
        self.hold_up(3600.0)
        self.hold_up(0.0, 10)
        self.assertEqual((shedding.overload.is_on, self.events), (False, []))

    def test_measured_without_a_limit(self) -> None:
        """`overload: off`: the lag is measured as ever, and nothing is refused."""
        shedding = self.start(None)
        self.hold_up(10.0, 10)
        self.assertEqual((shedding.overload.is_on, self.events), (False, []))
        self.assertEqual(sum(shedding.lag.histogram.counts), 10)

    def test_leading(self) -> None:
        """Where others carry the traffic our own lag is measured, and refuses nobody anything."""
        shedding = self.start(1.0)
        shedding.is_leading = True
        self.hold_up(1.5, 10)
        self.assertEqual((shedding.overload.is_on, self.events), (False, []))
        self.assertEqual(sum(shedding.lag.histogram.counts), 10)

    def test_stopped(self) -> None:
        """No timer is left."""
        shedding = self.start(1.0)
        shedding.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reload(self) -> None:
        """Other settings come by a plan: nothing changes before it is committed; off ends what there is, and says so."""
        shedding = self.start(1.0)
        old = settings(overload=OverloadSettings(1.0))
        self.assertEqual(shedding.prepare(old, settings(overload=OverloadSettings(1.0))).commit(), [])
        self.hold_up(2.0, 3)
        shedding.prepare(old, settings(overload=None)).abandon()
        self.assertTrue(shedding.overload.is_on)
        self.assertEqual(shedding.prepare(old, settings(overload=None)).commit(), ["overload: off"])
        self.assertFalse(shedding.overload.is_on)
        self.assertEqual([event for _, event, _ in self.events], ["overload.begun", "overload.over"])
        wanted = settings(overload=OverloadSettings(0.25))
        self.assertEqual(shedding.prepare(settings(overload=None), wanted).commit(), ["overload.lag: 250ms"])
        self.assertEqual(shedding.overload.limit, 0.25)
