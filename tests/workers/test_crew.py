"""The crew: whoever ends or hangs is replaced, in good time and not too often; everybody is told what is to be told."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.schema import ShutdownSettings
from lbsvc.core.backend import Backend
from lbsvc.workers import messages
from lbsvc.workers.crew import ANSWERS, FRESHNESS, GRACE, STARTING_ANSWERS
from lbsvc.workers.member import LEAVING, SERVING
from lbsvc.workers.messages import unpack_settings
from lbsvc.workers.vacancies import LONGEST_PAUSE, STEADY
from tests.workers.acting import Actor, Play


class CrewCase(SynchronousTestCase):
    workers = 2

    def setUp(self) -> None:
        self.play = Play(self, self.workers)
        self.crew = self.play.crew

    def new_ones(self, known: list[Actor]) -> list[Actor]:
        return [actor for actor in self.play.there if actor not in known]


class StartTests(CrewCase):
    def test_all_they_need(self) -> None:
        """Each gets its place, the whole settings, health and names, and the sockets of every bind."""
        port = SimpleNamespace(socket="a socket")
        self.play.listeners.append(SimpleNamespace(bound=[SimpleNamespace(bind="127.0.0.1:0", ports=[port, port])]))
        self.play.names["a.example"] = ["10.0.0.1"]
        self.crew.start()
        one, two = self.play.there
        begins = [each.last(messages.Begin) for each in (one, two)]
        self.assertEqual([(each.worker, each.workers) for each in begins], [(1, 2), (2, 2)])
        self.assertEqual(unpack_settings(begins[1].settings), self.play.settings)
        self.assertEqual(begins[0].names, {"a.example": ["10.0.0.1"]})
        self.assertEqual(one.given, [("127.0.0.1:0", ["a socket", "a socket"])])

    def test_complete(self) -> None:
        """It is complete when somebody serves at each place; the others hear of each that has come."""
        changes: list[bool] = []
        self.crew.on_change = lambda: changes.append(self.crew.is_complete)
        self.crew.start()
        one, two = self.play.there
        one.serve()
        two.serve()
        self.assertEqual(changes, [False, True])
        self.assertEqual((len(one.all(messages.Joined)), len(two.all(messages.Joined))), (1, 0))
        self.assertEqual([each["worker"] for each in self.play.told_of("worker.started")], [1, 2])

    def test_accept(self) -> None:
        """Each is told to accept when it is ready, once; nobody who was told to go before."""
        self.crew.start()
        one, two = self.play.there
        self.assertEqual(one.all(messages.Accept), [])
        one.serve()
        self.assertEqual((len(one.all(messages.Accept)), two.all(messages.Accept)), (1, []))
        self.crew.see_off(two)
        two.serve()
        self.assertEqual(two.all(messages.Accept), [])

    def test_accept_later(self) -> None:
        """In another process's place they are ready, and accept when the crew may; who comes to be ready later does at once,
        and who has left does not."""
        self.crew.start(may_accept=False)
        one, two = self.play.there
        one.serve()
        two.serve()
        self.assertTrue(self.crew.is_complete)
        one.die()
        self.play.clock.advance(0)
        (late,) = self.new_ones([one, two])
        self.assertEqual([actor.all(messages.Accept) for actor in self.play.everyone], [[], [], []])
        self.crew.accept()
        self.assertEqual((len(two.all(messages.Accept)), late.all(messages.Accept)), (1, []))
        late.serve()
        self.assertEqual([len(actor.all(messages.Accept)) for actor in self.play.everyone], [0, 1, 1])
        words = [each["message"] for each in self.play.told_of("worker.started")]
        self.assertEqual(
            [each.split(" (")[0] for each in words], ["worker 1 is ready", "worker 2 is ready", "worker 1 serves"]
        )

    def test_gone_after_the_end(self) -> None:
        """Whoever ends when everything was stopped is only counted: the shared memory is closed by then."""
        one, _ = self.play.begin()
        self.play.crew.leave(0.0, False)
        self.play.crew.stop()
        one.die()
        self.assertEqual(self.play.crew.left, 1)


class ReplacedTests(CrewCase):
    workers = 1

    def pauses(self, count: int) -> list[float]:
        """How long it takes each time until there is another one, who dies at once."""
        found = []
        for _ in range(count):
            (actor,) = self.play.there
            actor.die()
            begun = self.play.clock.seconds()
            while not self.play.there:
                self.play.clock.advance(0.25)
            found.append(self.play.clock.seconds() - begun)
        return found

    def test_at_once(self) -> None:
        """One that has served for a while is replaced at once, again and again; it counts."""
        self.play.begin()
        for times in (1, 2, 3):
            (actor,) = self.play.there
            self.play.beat(int(STEADY))
            actor.die()
            self.play.clock.advance(0)
            (successor,) = self.play.there
            successor.serve()
            self.assertEqual((successor.place, self.crew.restarts), (1, {1: times}))
        self.assertEqual(len({each.number for each in self.play.everyone}), 4)

    def test_pauses_double(self) -> None:
        """Those that do not come to serve are replaced more and more seldom, but for ever."""
        self.crew.start()
        pauses = self.pauses(10)
        self.assertEqual(pauses[:5], [0.25, 0.5, 1.0, 2.0, 4.0])  # (nothing happens before the clock moves)
        self.assertEqual(pauses[-1], LONGEST_PAUSE)
        (actor,) = self.play.there
        actor.serve()
        self.play.beat(int(STEADY))
        self.assertEqual(self.pauses(2), [0.25, 0.5])

    def test_refused(self) -> None:
        """What one cannot begin with is told, before it ends."""
        self.crew.start()
        (actor,) = self.play.there
        actor.answer(messages.Refused([("listeners.main.tls", "no such file")]))
        actor.die("it has ended with 1")
        (refused,) = self.play.told_of("worker.refused")
        self.assertIn("listeners.main.tls: no such file", refused["message"])
        self.assertEqual(self.play.told_of("worker.gone")[0]["how"], "it has ended with 1")

    def test_no_process(self) -> None:
        """Where no process can be started it is tried again, at once and then more seldom, and told of each time."""
        self.play.is_full = True
        self.crew.start()
        self.play.clock.pump([0.25] * 8)
        refused = self.play.told_of("worker.refused")
        self.assertEqual([each["message"] for each in refused], ["worker 1 cannot be started: no more processes"] * 4)
        self.play.is_full = False
        self.play.clock.pump([0.25] * 8)
        self.assertEqual([actor.place for actor in self.play.there], [1])

    def test_its_numbers(self) -> None:
        """What one that is gone carried is nobody's any more, for the books and for the others."""
        play = Play(self, 2)
        one, two = play.begin()
        one.die()
        self.assertEqual(play.books.calls[-1], ("forget", one.number))
        self.assertEqual(two.last(messages.Forget).worker, one.number)


class HungTests(CrewCase):
    def test_killed(self) -> None:
        """One that answers no more is killed, and told of once; the others are left in peace."""
        one, two = self.play.begin()
        self.play.beat(ANSWERS, silent=[one])
        self.assertEqual((one.is_killed, two.is_killed), (True, False))
        self.play.beat(3, silent=[one])
        self.assertEqual([each["pid"] for each in self.play.told_of("worker.hung")], [one.pid])

    def test_answers_in_time(self) -> None:
        """One answer is enough, and counting begins anew."""
        one, _ = self.play.begin()
        for _ in range(3):
            self.play.beat(ANSWERS - 1, silent=[one])
            one.report()
        self.assertFalse(one.is_killed)

    def test_our_own_pause(self) -> None:
        """While we stood still ourselves nobody could answer: that is not held against anybody."""
        actors = self.play.begin()
        for _ in range(5):
            self.play.clock.advance(100.0)
            for actor in actors:
                actor.report()
        self.assertFalse(any(actor.is_killed for actor in actors))

    def test_slow_start(self) -> None:
        """One that begins has more time, and none of it counts when it serves."""
        self.crew.start()
        slow, never = self.play.there
        self.play.clock.pump([1.0] * (STARTING_ANSWERS - 1))
        slow.serve()
        self.play.clock.advance(1.0)
        self.assertEqual((slow.is_killed, never.is_killed), (False, True))

    def test_well(self) -> None:
        """All is well while everybody answers; who begins takes its time; who is killed and gone does no harm."""
        one, two = self.play.begin()
        self.assertTrue(self.crew.is_well)
        self.play.beat(ANSWERS + 1, silent=[one])
        self.assertFalse(self.crew.is_well)
        one.die()
        self.play.clock.advance(0)
        (new,) = self.new_ones([one, two])
        self.play.beat(ANSWERS + 1, silent=[new])
        self.assertTrue(self.crew.is_well)


class HearingTests(CrewCase):
    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.play.begin()

    def happened(self, event: str) -> list[dict[str, Any]]:
        line = {"ts": "then", "level": "warn", "event": event, "message": "words", "pool": "web"}
        self.two.answer(messages.Happened(json.dumps(line).encode()))
        return self.play.told_of(event)

    def test_events(self) -> None:
        """Events of a worker are the service's, with its place; what the parent tells itself is not told again."""
        self.assertEqual(
            self.happened("circuit.open"), [{"level": "warn", "message": "words", "pool": "web", "worker": 2}]
        )
        for event in ("backend.up", "listener.bound", "pool.empty", "certificate.loaded", "config.note"):
            self.assertEqual(self.happened(event), [])

    def test_found_out(self) -> None:
        """What one finds out all others hear, and what it has counted, under its number; itself it does not."""
        self.one.answer(messages.Found("web", "a", "127.0.0.1:1", "circuit"))
        self.one.answer(messages.Tallied(0, [["listener", "main", "", []]]))
        self.assertEqual(self.two.last(messages.Found).backend, "a")
        self.assertEqual(self.two.last(messages.Tallied).worker, self.one.number)
        self.assertEqual(self.one.all(messages.Found) + self.one.all(messages.Tallied), [])

    def test_told(self) -> None:
        """Health, names and other times for those that leave go to everybody, who leaves included."""
        self.crew.see_off(self.two)
        self.crew.tell_health(Backend("web", "a", "127.0.0.1:1", "127.0.0.1", 1))
        self.crew.tell_name("a.example", ["10.0.0.1"])
        self.crew.hurry("web", "a", 2.0)
        self.crew.reopen_logs()
        for actor in (self.one, self.two):
            for kind in (messages.Checked, messages.Named, messages.Hurry, messages.Reopen):
                self.assertEqual(len(actor.all(kind)), 1, kind)

    def test_fresh(self) -> None:
        """The books are fresh when all have told their numbers, or have not in time; a hung one is not waited for again."""
        fired: list[object] = []
        self.crew.fresh().addCallback(fired.append)
        self.one.report()
        self.assertEqual(fired, [])
        self.two.report()
        self.assertEqual(len(fired), 1)
        self.crew.fresh().addCallback(fired.append)
        self.play.clock.advance(FRESHNESS)
        self.assertEqual(len(fired), 2)
        self.play.beat(2, silent=[self.one])
        self.crew.fresh().addCallback(fired.append)
        self.two.report()
        self.assertEqual(len(fired), 3)

    def test_watched(self) -> None:
        """Records that were asked for come to whoever asked, also from one that comes later, and no more when it is over."""
        seen: list[tuple[Any, ...]] = []
        self.crew.watch("main", b"agent", seen.append)
        self.one.die()
        self.play.clock.advance(0)
        (new,) = self.new_ones([self.one, self.two])
        new.serve()
        for actor in (new, self.two):
            self.assertEqual(actor.last(messages.Watch), messages.Watch("main", b"agent"))
            actor.answer(messages.Witnessed([1.5, "main"]))
        self.assertEqual(seen, [(1.5, "main")] * 2)
        self.crew.watch("main", b"agent", None)
        self.assertEqual(self.two.last(messages.Watch), messages.Watch("main", b""))
        self.two.answer(messages.Witnessed([2.5, "main"]))
        self.assertEqual(len(seen), 2)


class EndTests(CrewCase):
    def test_seen_off(self) -> None:
        """One that is to go has the time of `shutdown.removed`, once, and a little; then it is killed. Nobody takes its
        place."""
        one, _ = self.play.begin()
        self.crew.hold_back()
        self.crew.go_on(replace(self.play.settings, shutdown=ShutdownSettings(removed=30.0)))
        self.crew.see_off(one)
        self.play.beat(10)
        self.crew.see_off(one)
        self.assertEqual(one.all(messages.Leave), [messages.Leave(30.0, True)])
        self.play.beat(20 + int(GRACE) - 1)
        self.assertFalse(one.is_killed)
        self.play.beat(1)
        self.assertTrue(one.is_killed)
        one.die()
        self.assertEqual((len(self.play.told_of("worker.left")), len(self.play.there)), (1, 1))

    def test_no_limit(self) -> None:
        """Without that it may stay as long as its connections do; when the service stops it has as long as the others."""
        one, two = self.play.begin()
        self.crew.see_off(one)
        self.assertEqual(one.all(messages.Leave), [messages.Leave(inf, True)])
        self.play.beat(1000)
        self.assertFalse(one.is_killed)
        for is_gentle in (True, False):
            self.crew.leave(30.0, is_gentle)
        self.assertEqual(one.all(messages.Leave)[1:], [messages.Leave(30.0, True)])
        self.assertEqual(two.all(messages.Leave), [messages.Leave(30.0, True)])

    def test_told_to_leave_before_it_serves(self) -> None:
        """One that begins to serve when it has been told to leave is not taken for one that serves."""
        self.crew.start()
        one, _ = self.play.there
        self.crew.see_off(one)
        one.serve()
        self.assertEqual(one.state, LEAVING)
        one.die("it has ended")
        self.assertEqual(self.play.told_of("worker.gone"), [])

    def test_stop(self) -> None:
        """At the end who serves may finish, who begins is killed, and nobody is replaced, whenever it was to be."""
        one, two = self.play.begin()
        one.die()
        two.die()
        self.play.clock.advance(0)
        three, four = self.new_ones([])
        three.serve()
        four.die()  # the second time: a pause
        self.crew.leave(30.0, False)
        self.crew.leave(30.0, True)
        self.assertEqual(three.all(messages.Leave), [messages.Leave(30.0, False)])
        self.play.beat(2)
        self.assertEqual(self.play.there, [three])
        self.crew.end()
        self.assertEqual(len(three.all(messages.End)), 1)
        three.die("it has ended")
        self.play.beat(2)
        self.crew.stop()
        self.assertEqual((self.crew.left, self.play.clock.getDelayedCalls()), (0, []))
        self.assertEqual([fields["worker"] for fields in self.play.told_of("worker.left")], [three.place])

    def test_stop_before_they_accept(self) -> None:
        """Who is ready, and was never told to accept, leaves as everybody does."""
        self.crew.start(may_accept=False)
        for actor in self.play.there:
            actor.serve()
        self.crew.leave(30.0, False)
        for actor in self.play.there:
            self.assertEqual(actor.told[-1], messages.Leave(30.0, False))
            self.assertEqual(actor.all(messages.Accept), [])

    def test_stop_while_one_begins(self) -> None:
        """Who has not served yet is not asked to finish anything: it is killed, and is not told to accept, whatever it says
        meanwhile."""
        self.crew.start()
        self.crew.leave(30.0, False)
        for actor in self.play.there:
            actor.serve()
            self.assertEqual(actor.all(messages.Accept), [])
        self.assertTrue(all(actor.is_killed for actor in self.play.there))
        for actor in self.play.there:
            actor.die()
        self.play.beat(2)
        self.crew.stop()
        self.assertEqual((self.play.there, self.play.clock.getDelayedCalls()), ([], []))
        self.assertEqual(self.crew.those(SERVING), [])
