"""Workers replaced one by one: nobody leaves before somebody else serves."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.workers import messages
from lbsvc.workers.member import LEAVING, SERVING
from lbsvc.workers.rolling import NotReplaced, Rolling
from tests.workers.acting import Actor, Play


class RollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.play = Play(self, 2)
        self.crew = self.play.crew
        self.one, self.two = self.play.begin()

    def roll(self, *members: Actor) -> Deferred[int]:
        return Rolling(self.crew, cast(Any, members) or None).begin()

    @property
    def newest(self) -> Actor:
        return self.play.everyone[-1]

    def test_one_by_one(self) -> None:
        """Each leaves when its successor serves, and the next one's comes after that; it does not count as a death."""
        over = self.roll()
        first = self.newest
        self.assertEqual((first.place, self.one.state, len(self.play.there)), (1, SERVING, 3))
        first.serve()
        second = self.newest
        self.assertEqual((self.one.state, second.place, self.two.state), (LEAVING, 2, SERVING))
        self.assertEqual((len(first.all(messages.Accept)), second.all(messages.Accept)), (1, []))
        self.assertNoResult(over)
        second.serve()
        self.assertEqual((self.two.state, self.successResultOf(over)), (LEAVING, 2))
        for actor in (self.one, self.two):
            actor.die("it has ended")
        self.play.clock.advance(1.0)
        self.assertEqual((self.play.there, self.crew.restarts), ([first, second], {}))

    def test_refused(self) -> None:
        """One that cannot begin ends it, in its words; whom it was to replace serves on, and so does everybody else."""
        over = self.roll()
        self.newest.serve()
        last = self.newest
        last.answer(messages.Refused([("access_log.path", "cannot be opened")]))
        refusal = self.failureResultOf(over, NotReplaced)
        self.assertIn("worker 2 stays, 1 were replaced: access_log.path: cannot be opened", str(refusal.value))
        last.die("it has ended with 1")
        self.play.clock.advance(100.0)
        self.assertEqual((self.two.state, len(self.play.everyone)), (SERVING, 4))

    def test_no_process(self) -> None:
        """The same where no process can be started."""
        self.play.is_full = True
        refusal = self.failureResultOf(self.roll(), NotReplaced)
        self.assertIn("worker 1 stays, 0 were replaced: no process can be started: no more", str(refusal.value))
        self.assertEqual(self.one.state, SERVING)

    def test_dies(self) -> None:
        """One that dies before it serves is the same; one that was to be replaced and dies is replaced all the same."""
        over = self.roll()
        self.newest.die()
        self.failureResultOf(over, NotReplaced)
        over = self.roll()
        first = self.newest
        self.one.die()
        self.two.die()
        first.serve()
        self.assertEqual(self.successResultOf(over), 1)
        self.play.clock.advance(1.0)
        self.assertEqual([actor.place for actor in self.play.there], [1, 2])

    def test_two_at_a_time(self) -> None:
        """One who is to go twice is replaced once: the second successor leaves again, unless it is needed."""
        all_, one = self.roll(), self.roll(self.one)
        first, second = self.play.everyone[2:4]
        first.serve()
        second.serve()
        self.assertEqual((self.successResultOf(one), first.state, second.state), (1, SERVING, LEAVING))
        self.newest.serve()
        self.assertEqual(self.successResultOf(all_), 2)
        serving = [actor for actor in self.play.there if actor.state == SERVING]
        self.assertEqual(sorted(actor.place for actor in serving), [1, 2])

    def test_during_a_change(self) -> None:
        """Where other settings are under way a successor begins when they are in force, or are not to be."""
        self.crew.hold_back()
        self.roll()
        first = self.newest
        self.assertEqual(first.told, [])
        self.crew.go_on(None)
        self.assertEqual(len(first.all(messages.Begin)), 1)
