"""Who of several processes is ahead by its connections, and what a port does that knows."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.net.scales import Scales, memory, vacate
from lbsvc.net.sharing import LONGEST_STEP, LOOK, SLACK, STEP, Turns


class ScalesTests(TestCase):
    def setUp(self) -> None:
        self.memory = memory()
        self.addCleanup(os.close, self.memory)
        self.counts = [0, 0, 0]
        self.scales = [self.made(place) for place in range(3)]

    def made(self, place: int) -> Scales:
        scales = Scales(self.memory, place, 3, lambda: self.counts[place])
        self.addCleanup(scales.close)
        return scales

    def test_alone(self) -> None:
        """Where nobody else serves nobody is ahead, however many connections there are."""
        self.counts[0] = 5000
        self.assertFalse(self.scales[0].is_ahead(0))

    def test_ahead(self) -> None:
        """Ahead is who has more than the least of the others, an eighth and the slack."""
        for each in self.scales:
            each.weigh()
        self.counts[0] = 3
        self.assertEqual([self.scales[0].is_ahead(slack) for slack in (2, 3)], [True, False])
        self.counts[1] = self.counts[2] = 80
        for each in self.scales:
            each.weigh()
        for own, is_ahead in ((92, False), (93, True)):
            self.counts[0] = own
            self.assertIs(self.scales[0].is_ahead(2), is_ahead)

    def test_gone(self) -> None:
        """For one that has left, or is gone, nobody waits."""
        self.scales[1].weigh()
        self.counts[0] = 10
        self.assertTrue(self.scales[0].is_ahead(2))
        self.scales[1].leave()
        self.assertFalse(self.scales[0].is_ahead(2))
        self.scales[2].weigh()
        self.assertTrue(self.scales[0].is_ahead(2))
        vacate(self.memory, 2)
        self.assertFalse(self.scales[0].is_ahead(2))

    def test_places(self) -> None:
        """Places beyond those that there are do not count."""
        self.scales[2].weigh()
        self.counts[0] = 10
        self.scales[0].places = 2
        self.assertFalse(self.scales[0].is_ahead(2))

    def test_own_place_is_gone(self) -> None:
        """Who is to go, since there are fewer places now, or has left, lets nobody come first, and writes nothing down."""
        self.scales[0].weigh()
        self.counts[:] = [0, 10, 10]
        self.scales[2].places = 2
        self.scales[1].leave()
        for place in (1, 2):
            self.assertFalse(self.scales[place].is_ahead(2))
        self.scales[1].weigh()
        self.assertFalse(self.scales[0].is_ahead(0))
        self.counts[0] = 1
        self.assertFalse(self.scales[0].is_ahead(0))


class Sharing:
    """A reactor that notes who waits in the kernel's queue."""

    def __init__(self, clock: Clock) -> None:
        self.callLater = clock.callLater
        self.waiting = False

    def share_reader(self, port: Any) -> None:
        self.waiting = True

    def removeReader(self, port: Any) -> None:
        self.waiting = False


class Port:
    """A listening socket that is read when told to."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.fileno = self.socket.fileno
        self.reads = 0

    def doRead(self) -> None:
        self.reads += 1


class Lead:
    """So many connections ahead."""

    by = 0

    def is_ahead(self, slack: int) -> bool:
        return self.by > slack


class StandingBackTests(TestCase):
    def setUp(self) -> None:
        self.clock, self.lead, self.port = Clock(), Lead(), Port()
        self.addCleanup(self.port.socket.close)
        self.reactor = Sharing(self.clock)
        self.turns = Turns(self.port, self.reactor, self.lead)
        self.turns.begin()

    def client(self) -> None:
        """Somebody waits in the queue."""
        client = socket.create_connection(self.port.socket.getsockname())
        self.addCleanup(client.close)

    def test_even(self) -> None:
        """Who is not ahead waits for the next connection at once."""
        self.lead.by = SLACK
        self.turns.pass_on()
        self.assertTrue(self.reactor.waiting)

    def test_ahead(self) -> None:
        """Who is ahead does not wait in the queue until others have caught up."""
        self.lead.by = SLACK + 1
        self.turns.pass_on()
        self.assertFalse(self.reactor.waiting)
        for _ in range(5):
            self.clock.advance(LONGEST_STEP)
            self.assertFalse(self.reactor.waiting)
        self.lead.by = 0
        self.clock.advance(LONGEST_STEP)
        self.assertTrue(self.reactor.waiting)

    def test_nobody_comes(self) -> None:
        """What nobody else has taken after a moment is taken, and from then on twice the lead is nothing."""
        self.lead.by = SLACK + 1
        self.turns.pass_on()
        self.client()
        self.clock.advance(STEP)
        self.assertTrue(self.reactor.waiting)
        self.turns.pass_on()
        self.assertTrue(self.reactor.waiting)
        self.lead.by = 2 * SLACK + 1
        self.turns.pass_on()
        self.assertFalse(self.reactor.waiting)

    def test_forgiven(self) -> None:
        """Once it was even again, the old lead is too much again."""
        self.test_nobody_comes()
        self.lead.by = 0
        self.port.socket.accept()[0].close()
        self.clock.advance(STEP)
        self.turns.pass_on()
        self.lead.by = SLACK + 1
        self.turns.pass_on()
        self.assertFalse(self.reactor.waiting)

    def test_end(self) -> None:
        """Paused, a port has no timer, standing back or not; the look at the queue leaves who stands back in peace."""
        self.lead.by = SLACK + 1
        self.turns.pass_on()
        self.client()
        self.turns.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.turns.begin()
        self.turns.pass_on()
        self.clock.advance(LOOK)
        self.assertLessEqual(self.port.reads, 1)
