"""The parent's side: who looks names up and tells, what a stop waits for, and what becomes of one that was sent TERM."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.admin.control import Failed
from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.overload import Overload
from lbsvc.net.sockets import HeldSocket
from lbsvc.traffic import Sources
from lbsvc.workers import leading as leading_module
from lbsvc.workers import messages
from lbsvc.workers.leading import HESITATION, Hopeless, Leading
from lbsvc.workers.member import LEAVING, SERVING
from tests.workers.acting import Actor, Play


class LeadingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.answers: dict[str, Any] = {}
        self.patch(leading_module, "system_lookup", lambda reactor: lambda host: self.answers[host])
        self.play = Play(self, 2)
        self.clock = self.play.clock
        self.leading = Leading(2, self.clock, {})
        self.books = ListenerBooks("main", "http")
        self.backend = Backend("web", "a", "10.0.0.1:80", "10.0.0.1", 80)
        pools = SimpleNamespace(
            everyone=[SimpleNamespace(name="web", everyone=[self.backend])], is_leading=False, on_hurry=None
        )
        listening = SimpleNamespace(listeners=[], books=[self.books], all_books=[self.books], is_leading=False)
        self.traffic: Any = SimpleNamespace(
            pools=pools,
            listening=listening,
            shedding=SimpleNamespace(lag=SimpleNamespace(histogram=None), is_leading=False),
        )
        self.checker: Any = SimpleNamespace(on_learned=None)
        self.reloading: Any = SimpleNamespace(followers=None)
        self.leading.prepare(self.play.settings, self.traffic, self.checker, self.reloading, self.play.emit)
        self.crew = self.leading.crew

    def begin(self) -> list[Actor]:
        """All serve, one after the other."""
        begun: list[int] = []
        complete = self.leading.start(lambda: begun.append(1))
        for number, actor in enumerate(self.play.everyone):
            self.assertEqual(len(begun), min(number, 1))
            self.assertNoResult(complete)
            actor.serve()
        self.successResultOf(complete)
        self.assertEqual(len(begun), 1)
        return self.play.there


class TellingTests(LeadingCase):
    def look_up(self, answer: Any) -> Deferred[list[str]]:
        sources = self.leading.led(Sources(cast(Any, None), cast(Any, None), lambda bind, backlog: []))
        assert sources.lookup is not None
        self.answers["a.example"] = answer
        return sources.lookup("a.example")

    def test_names(self) -> None:
        """The parent looks names up, and tells what has changed; that one cannot be is told while nothing is known of it."""
        one, _ = self.begin()
        self.failureResultOf(self.look_up(fail(OSError())), OSError)
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.look_up(succeed(["10.0.0.1"]))), ["10.0.0.1"])
        self.failureResultOf(self.look_up(fail(OSError())), OSError)
        self.assertEqual([each.addresses for each in one.all(messages.Named)], [[], ["10.0.0.1"]])
        one.die()
        self.clock.advance(0)
        self.assertEqual(self.play.everyone[-1].last(messages.Begin).names, {"a.example": ["10.0.0.1"]})

    def test_health(self) -> None:
        """What checks find is told at once, and to one that begins later all that is known."""
        one, _ = self.begin()
        self.assertEqual(one.last(messages.Begin).verdicts, [])
        self.backend.health, self.backend.last_check = "down", (False, 1.5, "refused")
        self.checker.on_learned(self.backend)
        (verdict,) = one.last(messages.Checked).verdicts
        one.die()
        self.clock.advance(0)
        self.assertEqual(self.play.everyone[-1].last(messages.Begin).verdicts, [verdict])
        self.assertEqual((verdict.address, verdict.health), ("10.0.0.1:80", "down"))

    def test_sockets_are_held(self) -> None:
        """Binds are opened as ever, and nobody accepts on them here."""
        made = socket.socket()
        self.addCleanup(made.close)
        sources = self.leading.led(Sources(cast(Any, None), cast(Any, None), lambda bind, backlog: [made]))
        (held,) = sources.open_bind(cast(Any, None), 5)
        self.addCleanup(held.close)
        self.assertIsInstance(held, HeldSocket)
        self.assertTrue(self.traffic.listening.is_leading and self.traffic.pools.is_leading)


class StopTests(LeadingCase):
    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.begin()
        self.said: list[str] = []

    def drain(self, delay: float = 0.0) -> Deferred[None]:
        return self.leading.drain(delay, 30.0, self.said.append, lambda: None).run()

    def test_waits_for_processes(self) -> None:
        """A stop waits until the last process has ended, and tells of connections."""
        self.books.open = 7
        over = self.drain()
        self.assertEqual(self.said, ["7 connections to finish, for 30 s at most"])
        self.assertEqual([each.state for each in (self.one, self.two)], [LEAVING, LEAVING])
        self.books.open = 0
        self.clock.advance(1.0)
        self.assertNoResult(over)
        for actor in (self.one, self.two):
            actor.die("it has ended")
        self.clock.pump([0.1, 0.1])
        self.successResultOf(over)

    def test_time_is_over(self) -> None:
        """Who has not finished in time is told to end, and who does not do that is killed in the end."""
        over = self.drain()
        self.clock.pump([1.0] * 34)
        self.successResultOf(over)
        self.assertTrue(self.one.all(messages.End))
        self.leading.stop()
        self.assertTrue(self.one.is_killed)

    def test_overload(self) -> None:
        """Anybody who refuses what is new is enough."""
        own = Overload()
        self.assertFalse(self.leading.overload(own).is_on)
        own.is_on = True
        self.assertTrue(self.leading.overload(own).is_on)


class StartTests(LeadingCase):
    def test_hopeless(self) -> None:
        """Where another process serves meanwhile, a start fails when as many workers as that have been lost; else never."""
        complete = self.leading.get_ready(tries=3)
        for lost in range(3):
            self.assertNoResult(complete)
            self.play.there[0].die(f"it has ended with {lost}")
            self.clock.advance(10.0)
        self.assertIn("it has ended with 2", str(self.failureResultOf(complete, Hopeless).value))

    def test_ready(self) -> None:
        """There all of them are ready before any of them accepts, which is when we are told to."""
        complete = self.leading.get_ready()
        for actor in self.play.there:
            self.assertNoResult(complete)
            actor.serve()
        self.successResultOf(complete)
        self.assertFalse(any(actor.all(messages.Accept) for actor in self.play.there))
        self.leading.accept()
        self.assertTrue(all(actor.all(messages.Accept) for actor in self.play.there))

    def test_hopeful(self) -> None:
        """A start of the service goes on trying, and is over when all of them serve."""
        complete = self.leading.start()
        for _ in range(5):
            self.play.there[0].die("it has ended with 1")
            self.clock.advance(60.0)
        self.assertNoResult(complete)
        for actor in self.play.there:
            actor.serve()
        self.successResultOf(complete)


class TermTests(LeadingCase):
    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.begin()

    def test_replaced(self) -> None:
        """One that was sent TERM leaves when another one serves in its place, however often it was sent."""
        self.one.answer(messages.Resigned())
        self.one.answer(messages.Resigned())
        self.clock.advance(HESITATION)
        (new,) = self.play.everyone[2:]
        self.assertEqual((new.place, self.one.state), (1, SERVING))
        new.serve()
        self.assertEqual((self.one.state, len(self.play.everyone)), (LEAVING, 3))

    def test_all_are_to_stop(self) -> None:
        """Where all processes were sent TERM, in whatever order, they leave as a stop of the service has it."""
        self.one.answer(messages.Resigned())
        self.clock.advance(HESITATION / 2)
        self.leading.drain(5.0, 30.0, lambda text: None, lambda: None).run()
        self.two.answer(messages.Resigned())
        self.clock.advance(4.0)
        self.assertEqual((self.one.state, self.two.state), (SERVING, SERVING))  # the delay: they accept
        self.clock.advance(1.0)
        self.assertEqual((self.one.state, self.two.state, len(self.play.everyone)), (LEAVING, LEAVING, 2))

    def test_gone_meanwhile(self) -> None:
        """One that has gone by then is replaced once; one whose successor cannot begin stays, and may be told anew."""
        self.one.answer(messages.Resigned())
        self.one.die()
        self.clock.advance(HESITATION)
        self.assertEqual(len(self.play.there), 2)
        for times in (1, 2):
            self.two.answer(messages.Resigned())
            self.clock.advance(HESITATION)
            self.play.everyone[-1].answer(messages.Refused([("", "no")]))
            self.play.everyone[-1].die()
            self.assertEqual((self.two.state, len(self.play.everyone)), (SERVING, 3 + times))

    def test_restart(self) -> None:
        """A restart that cannot be done is said to have failed, in words."""
        restarted = self.leading.restart()
        self.play.everyone[-1].answer(messages.Refused([("", "no")]))
        self.assertIn("worker 1 stays", str(self.failureResultOf(restarted, Failed).value))
