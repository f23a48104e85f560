"""The API where an answer takes a while: changes that wait for their turn, numbers of workers, processes being replaced."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.defer import Deferred, fail

from lbsvc.admin.control import Failed, Impossible, Underway
from lbsvc.config.overlay import Unknown
from lbsvc.errors import Mistake, Stopping, SystemRefusal
from tests.admin.asking import Answer, AskingCase, Wire
from tests.admin.fake_control import WORKERS
from tests.admin.test_api import API, BACKENDS, WEB, WHO


class LateChangeTests(AskingCase):
    """Changes that take a while: another is made first, or workers have to prepare."""

    def setUp(self) -> None:
        super().setUp()
        self.control.is_late = True

    def ask_late(self, method: str, target: str, body: dict[str, Any], **headers: str) -> Wire:
        """A request that is not answered yet."""
        wire = self.send(method, target, json.dumps(body).encode(), **headers)
        self.assertEqual(wire.value(), b"")
        return wire

    def make(self, at: int = 0) -> None:
        self.control.late.pop(at)()

    def test_answered_when_made(self) -> None:
        """Each change is answered when it is in force, with what it was answered with at once; and logged then."""
        for method, target, body, status in (
            ("POST", BACKENDS, {"address": "10.0.0.9:1", "name": "x"}, 201),
            ("PATCH", f"{BACKENDS}/x", {"weight": 3}, 200),
            ("DELETE", f"{BACKENDS}/x", {}, 202),
            ("PATCH", f"{WEB}/health_check", {"path": "/up"}, 200),
            ("POST", "/api/add?url=http://10.0.0.9:1", {}, 200),
            ("POST", "/admin/add", {"url": "http://10.0.0.9:1", "weight": 3}, 200),
            ("POST", "/admin/remove", {"url": "http://10.0.0.9:1"}, 200),
        ):
            wire = self.ask_late(method, target, body)
            self.assertEqual(self.events, [])
            self.make()
            self.assertEqual((target, Answer(wire.value()).status), (target, status))
            self.assertEqual([event for _, event, _, _ in self.events], ["admin.change"])
            self.events.clear()

    def test_refused_when_it_is_made(self) -> None:
        """What is refused then is refused as it is at once; nothing is logged as a change."""
        first = self.ask_late("POST", BACKENDS, {"address": "10.0.0.9:1", "name": "x"})
        second = self.ask_late("POST", BACKENDS, {"address": "10.0.0.9:1", "name": "x"})
        self.make()
        self.make()
        self.assertEqual([Answer(wire.value()).status for wire in (first, second)], [201, 409])
        self.control.refusal = SystemRefusal([Mistake("lb.yaml", 3, 1, "state_file", "cannot be written: disk full")])
        for method, target in (("PATCH", f"{BACKENDS}/x"), ("PATCH", f"{BACKENDS}/nope")):
            wire = self.ask_late(method, target, {"weight": 3})
            self.make()
            self.assertEqual(Answer(wire.value()).status, 404 if "nope" in target else 500)
        self.control.refusal = Stopping([Mistake("", 0, 0, "", "the service is stopping")])
        wire = self.ask_late("PATCH", f"{BACKENDS}/x", {"weight": 3})
        self.make()
        self.assertEqual(Answer(wire.value()).status, 503)
        self.assertEqual(len(self.events), 1)

    def test_if_match_holds_when_it_is_made(self) -> None:
        """Of two that mean the same revision, the second finds another one in force, and changes nothing."""
        wires = [self.ask_late("PATCH", f"{BACKENDS}/a", {"weight": n}, If_Match='"t-1"') for n in (3, 4)]
        self.make()
        self.make()
        answers = [Answer(wire.value()) for wire in wires]
        self.assertEqual([each.status for each in answers], [200, 412])
        self.assertEqual([each.headers["etag"] for each in answers], ['"t-2"', '"t-2"'])
        self.assertEqual(self.ask("GET", f"{BACKENDS}/a").json()["weight"], 3)

    def test_no_tag_of_what_came_behind(self) -> None:
        """Who is answered when somebody else has changed the pool again gets no tag: it would be of what he has not seen."""
        wire = self.ask_late("PATCH", f"{BACKENDS}/a", {"weight": 3})
        self.control.behind = lambda: self.control.revisions.update(web=3)
        self.make()
        answer = Answer(wire.value())
        self.assertEqual((answer.status, "etag" in answer.headers), (200, False))

    def test_whoever_asked_has_gone(self) -> None:
        """The change is made all the same, whole, and logged."""
        wire = self.ask_late("PATCH", f"{BACKENDS}/a", {"weight": 3})
        wire.loseConnection()
        self.make()
        self.assertEqual(wire.value(), b"")
        self.assertEqual(self.events[-1][2], f"web/a: weight 3, by {WHO}")
        self.assertEqual(self.ask("GET", f"{BACKENDS}/a").json()["weight"], 3)

    def test_raised_or_failed(self) -> None:
        """What is raised at once is answered as what the change fails with later."""
        for error, status in ((SystemRefusal([Mistake("", 0, 0, "x", "no")]), 500), (Unknown("no"), 404)):
            for refuse in (self.failing, self.raising):
                self.patch(self.control, "change", lambda *_, refuse=refuse, error=error: refuse(error))
                self.assertEqual(self.ask("PATCH", f"{BACKENDS}/a", {"weight": 3}).status, status)

    @staticmethod
    def failing(error: Exception) -> Deferred[Any]:
        return fail(error)

    @staticmethod
    def raising(error: Exception) -> Deferred[Any]:
        raise error


class FreshTests(AskingCase):
    NUMBERS = (f"{API}/status", f"{API}/health", f"{API}/pools", WEB, BACKENDS, f"{BACKENDS}/a", f"{API}/workers",
               f"{API}/history", "/api/health", "/metrics")  # fmt: skip

    def test_numbers_are_waited_for(self) -> None:
        """Whatever shows numbers is answered when they are those of now; what shows none is answered at once."""
        self.control.is_stale = True
        for target in self.NUMBERS:
            for method in ("GET", "HEAD"):
                wire = self.send(method, target)
                self.assertEqual((target, wire.value(), len(self.control.stale)), (target, b"", 1))
                self.control.stale.pop().callback(None)
                self.clock.pump([0] * 50)
                self.assertIn(b" 200 OK", wire.value())
        wire = self.send("GET", "/metrics", Accept="application/json")
        self.assertEqual(wire.value(), b"")
        self.control.stale.pop().callback(None)
        self.assertIn(b'"alive"', wire.value())
        for target in (f"{API}/history?after=1", f"{API}/config", f"{WEB}/health_check", "/livez", "/readyz"):
            self.assertEqual((target, self.ask("GET", target).status), (target, 200))
        self.assertIn(b"event: status", self.send("GET", f"{API}/events").value())
        self.assertEqual(self.control.stale, [])

    def test_nobody_waits_any_more(self) -> None:
        """Who goes away while numbers are waited for costs no more, and is no failure."""
        self.control.is_stale = True
        for target in self.NUMBERS:
            self.send("GET", target).loseConnection()
            self.assertTrue(self.control.stale.pop().called, target)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_moment_that_cannot_be_shown(self) -> None:
        """A mistake of ours behind the wait is a 500, and logged."""

        def broken() -> dict[str, Any]:
            raise KeyError("ours")

        self.patch(self.control, "status", broken)
        for target, accept in ((f"{API}/status", "*/*"), ("/metrics", "application/json")):
            self.control.is_stale = True
            wire = self.send("GET", target, Accept=accept)
            self.control.stale.pop().callback(None)
            self.assertEqual(Answer(wire.value()).status, 500)
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_samples_do_not_wait(self) -> None:
        """The history's looks and the streams' statuses ask nobody."""
        self.site.doStart()
        self.send("GET", f"{API}/events")
        self.clock.pump([1] * 5)
        self.assertEqual(self.control.asked_fresh, 0)
        self.site.doStop()


class ProcessTests(AskingCase):
    def test_workers(self) -> None:
        """Each worker is a row; `pid` is the process that answers."""
        answer = self.ask("GET", f"{API}/workers")
        self.assertEqual((answer.status, answer.json()), (200, {"pid": os.getpid(), "workers": WORKERS}))

    def test_restart(self) -> None:
        """Answered when all are replaced; logged with who asked."""
        self.control.pending = Deferred()
        wire = self.send("POST", f"{API}/workers/restart")
        self.assertEqual(wire.value(), b"")
        self.control.pending.callback({"restarted": 2})
        answer = Answer(wire.value())
        self.assertEqual((answer.status, answer.json()), (200, {"restarted": 2}))
        self.assertEqual(self.events[-1][2], f"the workers: 2 restarted, by {WHO}")
        self.assertEqual(self.control.asked, [("restart_workers", WHO)])

    def test_upgrade(self) -> None:
        """Answered with the process that has taken over; logged with who asked."""
        answer = self.ask("POST", f"{API}/upgrade")
        self.assertEqual((answer.status, answer.json()), (200, {"pid": 4720}))
        self.assertEqual(self.events[-1][2], f"the program: upgraded, process 4720 serves now, by {WHO}")

    def test_refused(self) -> None:
        """What cannot be done here, and what is under way, is 409; what failed 500; what stops 503: each with its words."""
        for target in (f"{API}/workers/restart", f"{API}/upgrade"):
            for trouble, status in ((Impossible("there is nobody"), 409), (Underway("it is under way"), 409),
                                    (Failed("it ended with 78"), 500)):  # fmt: skip
                self.control.trouble = trouble
                answer = self.ask("POST", target)
                self.assertEqual((answer.status, answer.detail), (status, str(trouble)))
            self.control.trouble = Stopping([Mistake("", 0, 0, "", "the service is stopping")])
            self.assertEqual(self.ask("POST", target).status, 503)
        self.assertEqual(self.events, [])

    def test_whoever_asked_has_gone(self) -> None:
        """It goes on to its end, and is logged."""
        for target, done in ((f"{API}/workers/restart", {"restarted": 2}), (f"{API}/upgrade", {"pid": 4720})):
            self.control.pending = Deferred()
            self.send("POST", target).loseConnection()
            self.assertFalse(self.control.pending.called)
            self.control.pending.callback(done)
            self.assertEqual(self.events.pop()[1], "admin.change")
