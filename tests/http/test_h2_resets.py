"""Streams that clients give up: what pays for them, and that one client's cost the others nothing, whose requests are on the
same connection to a backend."""

from __future__ import annotations

from typing import Any

from lbsvc.config.schema import Limits, Match, Respond, RouteSettings
from lbsvc.core.policies import RetryPolicy
from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_budgets import RESETS
from lbsvc.http.h2_client_codec import MOST_RESETS
from tests.http.h2_backends import CANCEL, GET, POST, H2Backend, H2RoadCase
from tests.http.h2_road import H2Client, head
from tests.http.road import DATE, Client, Road, RoadCase

CALM = wire.ENHANCE_YOUR_CALM
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class EarningTests(RoadCase):
    def alternate(self, road: Road, fields: Any, body: bytes | None = None) -> int:
        """How many requests are given up, each beside another one, until the connection ends; 3 x RESETS at most."""
        client = H2Client(road)
        for count in range(int(3 * RESETS)):
            said = client.request(fields, ended=body is None)
            if body:
                client.data(body, True)
            if not said.fields:
                road.upstream().send(OK)
            self.assertTrue(said.fields or client.goaways)
            client.request(head("GET", "/hang"))
            client.rst()
            if client.goaways:
                self.assertEqual(client.goaways[-1][1], CALM)
                return count
        return int(3 * RESETS)

    def test_answers_of_ours(self) -> None:
        """What we answer ourselves pays for no reset, whatever it is."""
        routes = (
            RouteSettings("own", Match(path="/own"), respond=Respond(200, "ours")),
            RouteSettings("rest", pool="web"),
        )
        for fields, body in (
            (head("FOO"), None),
            (head("GET", "/a#b"), None),
            (head("GET", "/a", *[(f"x-{n}", "1") for n in range(9)]), None),
            (head("GET", "/" + "a" * 4000), None),
            (head("GET", "/own"), None),
            (head("POST", "/a", ("content-length", "99")), b"x" * 99),
            (head("OPTIONS", "/a", ("max-forwards", "0")), None),
        ):
            road = self.road(listener={"limits": Limits(header_count=7, body_size=10, header_size=2000)}, routes=routes)
            self.assertLessEqual(self.alternate(road, fields, body), RESETS + 1, fields)

    def test_answers_of_backends(self) -> None:
        """Who gives up every other request, and has the others answered by backends, whatever they say, is lawful."""
        self.assertEqual(self.alternate(self.road(), head()), 3 * RESETS)

    def test_lost_backends(self) -> None:
        """An error in the place of a backend's answer pays for none."""
        road = self.road(pool={"retry": RetryPolicy(attempts=1)})
        client = H2Client(road)
        count = 0
        while not client.goaways and count <= 2 * RESETS:
            client.request()
            road.upstream().reset()
            client.request(head("GET", "/hang"))
            client.rst()
            count += 1
        self.assertLessEqual(count, RESETS + 1)


class SharedCase(H2RoadCase):
    def stranger(self, road: Road, request: bytes = POST) -> tuple[Client, H2Backend]:
        """A client whose request is under way, and the backend that has it."""
        client = road.client()
        client.send(request)
        return client, self.backend(road)

    def abandon(self, road: Road, backends: list[H2Backend], count: int) -> None:
        """So many requests are given up, one after the other, once their backend has seen them."""
        for _ in range(count):
            client = road.client()
            client.send(GET)
            if len(road.upstream_ends) > len(backends):
                backends.append(self.backend(road))
            for backend in backends:
                backend.go()
            client.reset()

    def give_up(self, road: Road, backend: H2Backend, count: int = 1) -> None:
        """The same, where it is on this connection."""
        for _ in range(count):
            client = road.client()
            client.send(GET)
            backend.go()
            client.reset()
        backend.go()


class SharedTests(SharedCase):
    def test_bounded(self) -> None:
        """A connection bears so many resets, then another is opened; what else is on it is answered, and it ends."""
        road = self.h2_road()
        client, first = self.stranger(road)
        backends = [first]
        self.abandon(road, backends, 5 * MOST_RESETS // 2)
        for backend in backends:
            backend.go()
        self.assertEqual([len(each.resets()) for each in backends], [MOST_RESETS, MOST_RESETS, MOST_RESETS // 2])
        self.assertEqual([each.end.is_open for each in backends], [True, False, True])
        first.answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)
        self.assertFalse(first.end.is_open)
        self.assertEqual(road.backends[0].connections, 1)

    def test_at_once(self) -> None:
        """Resets that go out together with what they reset count for more: some backends bear few of those."""
        road = self.h2_road()
        client, first = self.stranger(road)
        attacker = H2Client(road)
        sent = b""
        for _ in range(60):
            sent += attacker.headers(head("GET", "/hang"))
            sent += wire.rst_stream(attacker.last, CANCEL)
        attacker.send(sent)
        first.go()
        self.assertTrue(1 < len(first.resets()) < 20, first.resets())
        first.answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)

    def test_all_that_is_there(self) -> None:
        """Streams that are open when the number is reached may be reset too: not more than a connection has."""
        road = self.h2_road()
        client, first = self.stranger(road)
        others = [road.client() for _ in range(90)]
        for other in others:
            other.send(GET)
        first.go()
        for other in others:
            other.reset()
        first.go()
        self.assertEqual(len(first.resets()), 90)
        new, second = self.stranger(road, GET)
        second.answer(1)
        first.answer(1)
        self.assertEqual((new.answer(b"GET").status, client.answer(b"POST").status), (200, 200))

    def test_now_and_then(self) -> None:
        """Fewer cost nothing: the connection is kept."""
        road = self.h2_road()
        _, backend = self.stranger(road)
        self.give_up(road, backend, MOST_RESETS - 1)
        self.assertEqual(len(road.upstream_ends), 1)


class CalmTests(SharedCase):
    """Backends that end a connection with ENHANCE_YOUR_CALM."""

    def calm(self, backend: H2Backend, last: int) -> None:
        """It has had enough."""
        backend.end.send(wire.goaway(last, CALM))
        backend.end.close()

    def test_behind_resets(self) -> None:
        """Behind resets of ours it is no failure of the backend's: POST is 502, GET is asked again."""
        road = self.h2_road()
        poster, backend = self.stranger(road)
        getter = road.client()
        getter.send(GET)
        self.give_up(road, backend)
        self.calm(backend, 99)
        self.assertEqual(poster.answer(b"POST").status, 502)
        self.backend(road).answer(1)
        self.assertEqual(getter.answer(b"GET").status, 200)
        self.assertEqual({record.reason for record in road.records}, {"client_closed", "upstream_reset", "ok"})
        self.assertEqual((sum(road.backends[0].failures.values()), road.backends[0].active), (0, 0))

    def test_retried(self) -> None:
        """A first try on it is tried elsewhere, as behind any reset, within attempts."""
        road = self.h2_road(2)
        getter, backend = self.stranger(road, GET)
        other = road.client()
        other.send(GET)
        gone = road.client()
        gone.send(GET)
        backend.go()
        gone.reset()
        self.calm(backend, 99)
        for number in range(1, len(road.upstream_ends)):
            each = self.backend(road, number)
            for stream, _ in each.requests:
                each.answer(stream)
        self.assertEqual(getter.answer(b"GET").status, 200)
        self.assertEqual(road.records[-1].attempts, 2)
        self.assertEqual([sum(each.failures.values()) for each in road.backends], [0, 0])

    def test_unseen(self) -> None:
        """What it has not looked at goes elsewhere whatever its method, again and again no failure."""
        road = self.h2_road()
        gone = road.client()
        gone.send(GET)
        backend = self.backend(road)
        poster = road.client()
        poster.send(POST)
        backend.go()
        gone.reset()
        self.calm(backend, 1)
        backend = self.backend(road)
        self.give_up(road, backend)
        self.calm(backend, 0)
        self.backend(road).answer(1)
        self.assertEqual(poster.answer(b"POST").status, 200)
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_broken_off(self) -> None:
        """An answer that has begun is cut, and that is no failure either."""
        road = self.h2_road()
        client, backend = self.stranger(road, GET)
        backend.head(1, fields=[(b"content-length", b"9")])
        self.give_up(road, backend)
        self.calm(backend, 99)
        self.assertTrue(client.was_reset or client.was_finished)
        self.assertEqual([record.reason for record in road.records], ["client_closed", "upstream_reset"])
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_for_nothing(self) -> None:
        """A backend that has no such reason has failed."""
        road = self.h2_road()
        client, backend = self.stranger(road)
        self.calm(backend, 99)
        self.assertEqual(client.answer(b"POST").status, 502)
        self.assertEqual(road.backends[0].failures["upstream_reset"], 1)
