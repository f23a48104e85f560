"""What an exchange promises, whichever version of HTTP its client speaks, and whichever its backend: all four ways alike."""

from __future__ import annotations

from lbsvc.config.schema import Limits, Match, RouteSettings
from lbsvc.core.policies import Backoff, RetryPolicy, UpstreamTimeouts
from tests.contracts.ways import ContractCase
from tests.http.road import HOLE, REFUSED, timeouts

AT_ONCE = Backoff(0.0, 0.0)


class RetryTests(ContractCase):
    def test_dials(self) -> None:
        """A dial that fails is followed by one to another backend, body and all."""
        for way in self.ways(2, pool={"retry": RetryPolicy(backoff=AT_ONCE)}):
            way.road.reactor.behaviour = {9001: REFUSED}
            call = way.ask("POST", ended=False)
            call.data(b"body", True)
            self.assertEqual(len(way.road.upstream_ends), 1)
            served = way.served()
            self.assertEqual((served.request, served.body, served.has_ended), (("POST", "/a"), b"body", True), way)
            served.head()
            served.finish()
            self.assertEqual([(r.attempts, r.reason) for r in way.road.records], [(2, "ok")], way)

    def test_resets(self) -> None:
        """A connection that breaks before the answer: GET is asked elsewhere, POST is 502."""
        for method, reason in (("GET", (200, "ok")), ("POST", (502, "reset"))):
            for way in self.ways(2, pool={"retry": RetryPolicy(backoff=AT_ONCE)}):
                call = way.ask(method)
                self.assertEqual(way.served().request, (method, "/a"))
                way.served().cut()
                way.road.run(1)
                if method == "GET":
                    self.assert_served(way, call)
                self.assertEqual((call.status, call.is_whole), (reason[0], True), way)
                self.assertEqual([record.status for record in way.road.records], [reason[0]], way)
                self.assertEqual(way.road.records[0].attempts, 2 if method == "GET" else 1, way)

    def test_statuses(self) -> None:
        """An answer whose status is listed is not the client's; the last one is."""
        retry = RetryPolicy(attempts=2, when=frozenset({"503"}), backoff=AT_ONCE)
        for way in self.ways(3, pool={"retry": retry}):
            call = way.ask()
            for number in range(2):
                self.assertEqual(call.status, 0)
                served = way.served(number)
                served.head(503)
                if not served.is_cut:  # a stream that is not wanted is reset at once
                    served.data(b"no %d" % number)
                    served.finish()
                way.road.run(1)
            self.assertEqual((call.status, call.body, call.is_whole), (503, b"no 1", True), way)
            self.assertEqual([record.attempts for record in way.road.records], [2], way)

    def test_bodies_past_the_buffer(self) -> None:
        """What is not kept cannot be sent again: 502."""
        retry = RetryPolicy(buffer=10, methods=frozenset({b"PUT"}), backoff=AT_ONCE)
        for way in self.ways(2, pool={"retry": retry}):
            for size, status in ((8, 200), (50, 502)):
                call = way.ask("PUT", size=size, ended=False)
                call.data(b"x" * size, True)
                served = way.served()
                self.assertEqual(len(served.body), size)
                served.cut()
                way.road.run(1)
                if status == 200:
                    self.assertEqual(way.served().body, b"x" * size)
                    self.assert_served(way, call)
                self.assertEqual((call.status, way.road.records[-1].status), (status, status), way)


class LimitTests(ContractCase):
    def test_said(self) -> None:
        """A body that says that it is too large is 413, and no backend hears of it."""
        for way in self.ways(listener={"limits": Limits(body_size=10)}):
            call = way.ask("POST", size=11, ended=False)
            self.assertEqual((call.status, call.is_whole, way.road.upstream_ends), (413, True, []), way)
            self.assertEqual(way.reasons, [(413, "too_large")], way)

    def test_grown(self) -> None:
        """One that turns out to be is 413 too, and its backend never sees an end."""
        for way in self.ways(listener={"limits": Limits(body_size=10)}):
            call = way.ask("POST", ended=False)
            call.data(b"x" * 8)
            served = way.served()
            self.assertEqual(served.body, b"x" * 8)
            call.data(b"x" * 8)
            self.assertEqual((call.status, call.is_whole), (413, True), way)
            self.assertEqual((served.is_cut, served.has_ended), (True, False), way)
            self.assertEqual(way.reasons, [(413, "too_large")], way)

    def test_at_the_limit(self) -> None:
        """Just as large as it may be it goes through."""
        for way in self.ways(listener={"limits": Limits(body_size=10)}):
            for size in (10, None):
                call = way.ask("POST", size=size, ended=False)
                call.data(b"x" * 10, True)
                self.assertEqual(way.served().body, b"x" * 10)
                self.assert_served(way, call)


class DeadlineTests(ContractCase):
    def test_silent_body(self) -> None:
        """A client that does not go on with its body: 408, and the backend is given up."""
        for way in self.ways(listener=timeouts(request_body=2.0)):
            call = way.ask("POST", size=10, ended=False)
            call.data(b"half")
            served = way.served()
            self.assertEqual(served.body, b"half")
            way.road.run(3)
            self.assertEqual((call.status, call.is_whole, served.is_cut), (408, True, True), way)
            self.assertEqual(way.reasons, [(408, "client_timeout")], way)

    def test_silent_backend(self) -> None:
        """A backend that does not answer: 504, and it is given up."""
        for way in self.ways(pool={"timeouts": UpstreamTimeouts(response=2.0), "retry": RetryPolicy(attempts=1)}):
            call = way.ask()
            served = way.served()
            self.assertEqual(served.request, ("GET", "/a"))
            way.road.run(3)
            self.assertEqual((call.status, call.is_whole, served.is_cut), (504, True, True), way)
            self.assertEqual([status for status, _ in way.reasons], [504], way)

    def test_dial(self) -> None:
        """A dial that is not answered: 504 or 502 by the same word, both ways."""
        pool = {"timeouts": UpstreamTimeouts(connect=1.0), "retry": RetryPolicy(attempts=1)}
        found = set()
        for way in self.ways(pool=pool):
            way.road.reactor.behaviour = {9001: HOLE}
            call = way.ask()
            way.road.run(2)
            self.assertTrue(call.is_whole)
            found.add((call.status, *way.reasons))
        self.assertEqual(len(found), 1, found)

    def test_each_try(self) -> None:
        """A try that takes too long is followed by another."""
        retry = RetryPolicy(attempts=2, when=frozenset({"timeout"}), per_try_timeout=1.0, backoff=AT_ONCE)
        for way in self.ways(2, pool={"retry": retry}):
            call = way.ask()
            served = way.served()
            self.assertEqual(served.request, ("GET", "/a"))
            way.road.run(2)
            self.assertTrue(served.is_cut, way)
            self.assert_served(way, call, 1)

    def test_silent_answer(self) -> None:
        """A backend that does not go on with its answer: the client sees that it is not whole."""
        for way in self.ways(pool={"timeouts": UpstreamTimeouts(idle=2.0)}):
            call = way.ask()
            served = way.served()
            served.head()
            served.data(b"half")
            way.road.run(4)
            self.assertEqual((call.status, call.body, call.is_cut, served.is_cut), (200, b"half", True, True), way)

    def test_whole(self) -> None:
        """A route's timeout is about all of it: 504 before an answer, a cut within it."""
        route = RouteSettings("r", Match(path="/*"), pool="web", timeout=2.0)
        for begins in (False, True):
            for way in self.ways(routes=(route,)):
                call = way.ask()
                served = way.served()
                self.assertEqual(served.request, ("GET", "/a"))
                if begins:
                    served.head()
                    for _ in range(4):
                        way.road.run(0.4)
                        served.data(b"x")
                way.road.run(3)
                self.assertEqual(served.is_cut, True, way)
                self.assertEqual(
                    (call.status, call.is_whole, call.is_cut), (200 if begins else 504, not begins, begins)
                )
                self.assertEqual([reason for _, reason in way.reasons], ["deadline"], way)


class FlowTests(ContractCase):
    def test_trailers(self) -> None:
        """They arrive behind bodies in both directions."""
        for way in self.ways():
            call = way.ask("POST", lines=(("te", "trailers"),), ended=False)
            call.data(b"up")
            call.finish((("x-up", "1"),))
            served = way.served()
            self.assertEqual((served.body, served.trailers, served.has_ended), (b"up", "x-up: 1\r\n", True), way)
            served.head()
            served.data(b"down")
            served.finish((("x-down", "2"),))
            self.assertEqual((call.body, call.trailers, call.is_whole), (b"down", "x-down: 2\r\n", True), way)

    def test_interim(self) -> None:
        """103 passes as it comes, as often as it comes."""
        for way in self.ways():
            call = way.ask()
            served = way.served()
            served.interim(103)
            self.assertEqual((call.interim, call.status), ([103], 0), way)
            served.interim(103)
            served.head(404)
            served.finish()
            self.assertEqual((call.interim, call.status, call.is_whole), ([103, 103], 404, True), way)

    def test_side_by_side(self) -> None:
        """An answer may begin before its request has ended, and both go on."""
        for way in self.ways():
            call = way.ask("POST", ended=False)
            call.data(b"a")
            served = way.served()
            served.head()
            served.data(b"A")
            self.assertEqual((call.status, call.body), (200, b"A"), way)
            call.data(b"b", True)
            self.assertEqual((served.body, served.has_ended), (b"ab", True), way)
            served.data(b"B")
            served.finish()
            self.assertEqual((call.body, call.is_whole), (b"AB", True), way)
            self.assertEqual(way.reasons, [(200, "ok")], way)

    def test_early_answers(self) -> None:
        """One that is whole before its request is an answer all the same, refusal or not; the rest is not asked for."""
        for status in (200, 413):
            for way in self.ways():
                call = way.ask("POST", size=10, ended=False)
                call.data(b"half")
                served = way.served()
                served.head(status)
                served.data(b"enough")
                served.finish()
                self.assertEqual((call.status, call.body, call.is_whole), (status, b"enough", True), way)
                self.assertFalse(served.has_ended)
                way.road.run(12)
                self.assertEqual(way.reasons, [(status, "ok")], way)
                self.assertEqual(sum(way.road.backends[0].failures.values()), 0, way)
