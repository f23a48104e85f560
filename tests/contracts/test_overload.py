"""An overloaded process refuses what is new and goes on with what is under way, whatever version of HTTP is spoken."""

from __future__ import annotations

from lbsvc.config.schema import Match, Respond, RouteSettings
from lbsvc.core.overload import RETRY_AFTER
from lbsvc.core.policies import RatePolicy
from tests.contracts.versions import H2Call
from tests.contracts.ways import ContractCase, Way
from tests.http.h2_road import H2Client, head
from tests.http.test_grpc import CallCase, Caller


class OverloadTests(ContractCase):
    def assert_refused(self, way: Way, number: int = 1) -> None:
        """The last request was, before a backend was chosen; `number`: so many in all."""
        self.assertEqual(way.reasons[-1], (503, "overload"), way)
        self.assertEqual((way.road.records[-1].attempts, way.road.records[-1].backend), (0, None), way)
        self.assertEqual(way.road.books.rejected["overload"], number, way)

    def test_refused(self) -> None:
        """A new request is 503 `overload`, no backend hears of it, and its connection ends; later ones are served again."""
        for way in self.ways():
            way.road.site.overload.is_on = True
            call = way.ask()
            self.assertEqual((call.status, call.is_whole), (503, True), way)
            self.assertTrue(call.body.startswith(b"503 overload "), call.body)
            self.assertFalse(call.is_connected, way)
            self.assertEqual(way.road.upstream_ends, [], way)
            self.assert_refused(way)
            way.road.site.overload.is_on = False
            self.assert_served(way, way.ask())

    def test_fields(self) -> None:
        """The answer says when to come again; in HTTP/1 it says that the connection ends, HTTP/2 has GOAWAY for that."""
        way = self.way(False, False)
        way.road.site.overload.is_on = True
        client = way.road.client()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        (answer,) = client.answers(b"GET")
        self.assertEqual((answer.status, answer.headers[b"retry-after"]), (503, b"%d" % RETRY_AFTER))
        self.assertEqual(answer.headers[b"connection"], b"close")
        h2 = H2Call(way.road, "GET", "/a", (), None, True)
        self.assertEqual((h2.said.status, h2.said.headers["retry-after"]), (503, str(RETRY_AFTER)))
        self.assertEqual(h2.client.goaways, [(1, 0)])

    def test_under_way(self) -> None:
        """What was admitted before goes on: bodies and answers of any length, both ways."""
        for way in self.ways():
            call = way.ask("POST", ended=False)
            call.data(b"one")
            served = way.served()
            way.road.site.overload.is_on = True
            call.data(b"two", True)
            self.assertEqual((served.body, served.has_ended), (b"onetwo", True), way)
            self.assert_served(way, call)
            self.assertEqual(way.reasons, [(200, "ok")], way)

    def test_streams_beside_it(self) -> None:
        """In HTTP/2 the streams that are open on the connection are answered to their end, behind a refusal too; what the
        client sends behind that is not looked at, as it has been told."""
        for backend_is_h2 in (False, True):
            way = self.way(True, backend_is_h2)
            client = H2Client(way.road)
            first = client.request()
            served = way.served()
            way.road.site.overload.is_on = True
            client.send(client.headers(head()) + client.headers(head()))
            second, third = client.streams[3], client.streams[5]
            self.assertEqual((second.status, third.status, first.status), (503, 0, 0), way)
            self.assertEqual(client.goaways, [(3, 0)])
            served.head()
            served.data(b"late")
            served.finish()
            self.assertEqual((first.status, first.body, first.has_ended), (200, b"late", True), way)
            way.road.run(12)
            self.assertTrue(client.was_finished or client.lost is not None)
            self.assertEqual(sorted(way.reasons), [(200, "ok"), (503, "overload")], way)

    def test_bodies(self) -> None:
        """A request whose body is on its way is refused as well, at its head, and nothing of it is kept."""
        for way in self.ways():
            way.road.site.overload.is_on = True
            call = way.ask("POST", size=100_000, ended=False)
            call.data(b"x" * 50_000)
            self.assertEqual((call.status, call.is_whole), (503, True), way)
            way.road.run(12)
            self.assertFalse(call.is_connected, way)
            self.assert_refused(way)

    def test_who_goes_on_sending(self) -> None:
        """A client whose body never ends holds its connection two or three seconds, in HTTP/2 no stream: it is reset with
        NO_ERROR right behind the answer."""
        for way in self.ways():
            way.road.site.overload.is_on = True
            call = way.ask("POST", size=100_000, ended=False)
            self.assertEqual((call.status, call.is_whole), (503, True), way)
            if isinstance(call, H2Call):
                self.assertEqual((call.said.has_ended, call.said.code), (True, 0), way)
            server = call.client.server if isinstance(call, H2Call) else call.end.server
            for _ in range(4):
                call.data(b"x")
                way.road.run(1)
            self.assertTrue(server.is_lost, way)

    def test_before_all_else(self) -> None:
        """It comes before routes and limits: what a route would answer by itself is refused, and costs no token."""
        own = RouteSettings("ping", Match(path="/ping"), respond=Respond(200, "pong"))
        for way in self.ways(routes=(own,), listener={"rate_limit": RatePolicy(0.001, 1)}):
            way.road.site.overload.is_on = True
            self.assertEqual([way.ask(path="/ping").status for _ in range(3)], [503] * 3, way)
            self.assert_refused(way, 3)
            way.road.site.overload.is_on = False
            self.assertEqual([way.ask(path="/ping").status for _ in range(2)], [200, 429], way)


class CallTests(CallCase):
    def test_grpc(self) -> None:
        """A call of gRPC is told in its own words: UNAVAILABLE."""
        road = self.road()
        road.site.overload.is_on = True
        self.assert_told(road, Caller(road).call(), 14, "overload")
        self.assertEqual(road.books.rejected["overload"], 1)
