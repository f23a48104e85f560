"""Connections past `connections_per_client`: one answer, whatever comes, and the end; nothing for a backend."""

from __future__ import annotations

from collections.abc import Callable

from lbsvc.core.clients import Surplus
from lbsvc.http.closing import LINGER
from lbsvc.http.h2_frames import PREFACE
from lbsvc.http.surplus import PATIENCE, SurplusConnection
from tests.http.corpus import REFUSED
from tests.http.ends import End
from tests.http.road import Client, Road, RoadCase, timeouts

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


class OneTooMany(Client):
    """A client whose connection is past its limit."""

    def __init__(self, road: Road, peer: str = "192.0.2.1") -> None:
        End.__init__(self, road)
        self.server = SurplusConnection(road.site, Surplus(peer))
        road.watch(self.server)
        self.wire.connect(self.wire.right, self.server)
        self.wire.connect(self.wire.left, self)
        road.clients.append(self)


class SurplusCase(RoadCase):
    def turned_away(self, road: Road, client: Client, method: bytes = b"GET") -> None:
        """It has been answered 429 and has seen our end, nobody was dialled, and the refusal is on the books."""
        answer = client.answer(method)
        self.assertEqual(answer.status, 429)
        self.assertEqual((answer.headers[b"connection"], answer.headers[b"retry-after"]), (b"close", b"1"))
        self.assertIn(b"x-request-id", answer.headers)
        if method != b"HEAD":
            self.assertTrue(answer.body.startswith(b"429 rate_limited "), answer.body)
        self.assertTrue(client.was_finished)
        self.assertEqual(road.reactor.dials, [])
        record = road.records[-1]
        self.assertEqual((record.status, record.reason, record.backend), (429, "rate_limited", None))
        self.assertEqual((road.books.in_flight, road.books.terminations["rate_limited"]), (0, len(road.records)))


class RequestTests(SurplusCase):
    def test_refused(self) -> None:
        """The first request is answered 429 with Retry-After, and the connection ends; it is counted and logged once."""
        road = self.road()
        client = OneTooMany(road)
        client.send(GET)
        self.turned_away(road, client)
        self.assertEqual(road.requests, {(b"GET", 429): 1})
        (record,) = road.records
        self.assertEqual((record.method, record.target, record.peer), (b"GET", b"/a", "192.0.2.1"))
        self.assertEqual({type(each) for each in (record.client, record.peer)}, {str})  # a log takes nothing else

    def test_own_answers(self) -> None:
        """Also where a route would have answered without a backend; and HEAD has no body."""
        road = self.road(own="mine")
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            client = OneTooMany(road)
            client.send(method + b" /own/ HTTP/1.1\r\nHost: x\r\n\r\n")
            self.turned_away(road, client, method)

    def test_json(self) -> None:
        """A client that prefers JSON gets that."""
        road = self.road()
        client = OneTooMany(road)
        client.send(GET[:-2] + b"Accept: application/json\r\n\r\n")
        answer = client.answer()
        self.assertEqual(answer.headers[b"content-type"], b"application/json")
        self.assertIn(b'"reason": "rate_limited"', answer.body)

    def test_in_pieces(self) -> None:
        """However the request is cut."""
        road = self.road()
        client = OneTooMany(road)
        for at in range(len(GET)):
            client.send(GET[at : at + 1])
        self.turned_away(road, client)

    def test_only_the_first(self) -> None:
        """What is pipelined behind it is dropped, not answered."""
        road = self.road(own="mine")
        client = OneTooMany(road)
        client.send(GET * 20)
        self.turned_away(road, client)
        client.send(GET * 20)
        self.assertEqual(client.take(), b"")
        self.assertEqual(len(road.records), 1)

    def test_without_its_body(self) -> None:
        """It need not have come whole, nor does `Expect: 100-continue` get a 100; the rest is read and dropped."""
        for rest in (b"", b"x" * 900, b"x" * 1000):
            road = self.road()
            client = OneTooMany(road)
            client.send(UPLOAD[:-2] + b"Expect: 100-continue\r\n\r\n" + rest)
            self.turned_away(road, client)
            self.assertTrue(client.is_open)
            client.send(b"x" * 100)
            client.finish()
            self.assertFalse(client.is_open)
            self.assertEqual(len(road.records), 1)

    def test_nonsense(self) -> None:
        """What cannot be read is answered the same, once, whether it is refused at its head or behind it."""
        for name, (wire, _) in REFUSED.items():
            road = self.road()
            client = OneTooMany(road)
            client.send(wire)
            road.run(PATIENCE + 0.5)
            if not wire.startswith(PREFACE):  # that is HTTP/2's to refuse: test_h2_server.py
                answers = client.answers()
                self.assertEqual([answer.status for answer in answers], [429], name)
            self.assertEqual([(record.status, record.reason) for record in road.records], [(429, "rate_limited")], name)
            self.assertEqual((len(road.records), road.reactor.dials), (1, []), name)


class PatienceTests(SurplusCase):
    def silent(self, say: Callable[[Road, OneTooMany], None], **keys: float) -> None:
        road = self.road(listener=timeouts(**keys))
        client = OneTooMany(road)
        say(road, client)
        self.turned_away(road, client)
        (record,) = road.records
        self.assertEqual((record.method, record.target), (None, None))
        road.run(LINGER + 0.5)
        self.assertFalse(client.is_open)
        self.assertEqual(len(road.records), 1)

    def test_silent(self) -> None:
        """One that says nothing is answered after a second, and cut when it does not end after that."""

        def say(road: Road, client: OneTooMany) -> None:
            road.run(PATIENCE - 0.2)
            self.assertEqual(client.take(), b"")
            road.run(0.5)

        self.silent(say)

    def test_slow(self) -> None:
        """Bytes do not extend the second, however long a request's head may take otherwise."""

        def say(road: Road, client: OneTooMany) -> None:
            for at in range(14):
                if at < 8:
                    self.assertEqual(bytes(client.received), b"")
                client.send(GET[at : at + 1])
                road.run(0.1)

        self.silent(say, request_header=60.0, keep_alive=60.0)

    def test_empty_lines(self) -> None:
        """Empty lines before a request are no request."""

        def say(road: Road, client: OneTooMany) -> None:
            for _ in range(14):
                client.send(b"\r\n")
                road.run(0.1)

        self.silent(say)


class EndTests(SurplusCase):
    def test_gone(self) -> None:
        """A client that ends or resets without a word is not counted, and nothing is left of it."""
        road = self.road()
        for leave in (OneTooMany.finish, OneTooMany.close, OneTooMany.reset):
            client = OneTooMany(road)
            leave(client)
            self.assertFalse(client.is_open)
        road.run(PATIENCE + 1)
        self.assertEqual((road.records, road.site.connections), ([], set()))

    def test_told_of(self) -> None:
        """The listener is told of its beginning and, once, of its end, by the peer that it was made for."""
        road = self.road()
        told: list[object] = []
        road.site.on_open = told.append
        road.site.on_close = told.append
        client = OneTooMany(road)
        client.send(GET)
        client.close()
        self.assertEqual(told, [7, "192.0.2.1"])
        self.assertIsInstance(told[1], Surplus)

    def test_drain(self) -> None:
        """A drain closes one that is silent, and waits for one that is being told."""
        road = self.road()
        silent, told = OneTooMany(road), OneTooMany(road)
        told.send(GET)
        road.site.drain()
        road.run(2)
        self.assertTrue(told.was_finished)
        self.assertTrue(silent.was_finished)

    def test_no_garbage(self) -> None:
        """Nothing of it is left for the collector."""
        road = self.road()
        for _ in range(3):
            client = OneTooMany(road)
            client.send(GET)
            client.close()
        del client
        self.assert_no_garbage(road)
