"""What two judges found, so that it stays mended: surplus behind an answer, resting connections, refused expectations."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolSettings
from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool
from lbsvc.http.pooling import Upstreams
from lbsvc.http.site import REST
from lbsvc.net.deadlines import Deadlines
from tests.http.road import DATE, RoadCase

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class Turning(Clock):
    """A reactor that counts its polls."""

    turn = 5


class Kept:
    """A kept connection that says whether the kernel was asked about it."""

    dies = float("inf")

    def __init__(self, kept_in: int, ended: bool = False) -> None:
        self.kept_in = kept_in
        self.ended = ended
        self.looks = 0
        self.is_closed = False

    def has_ended(self) -> bool:
        self.looks += 1
        return self.ended

    def close(self) -> None:
        self.is_closed = True


class SameTurnTests(TestCase):
    def setUp(self) -> None:
        self.reactor = Turning()
        pool = Pool("web", "round_robin", Random(1))
        self.upstreams = Upstreams(PoolSettings("web", ()), pool, self.reactor, Deadlines(self.reactor), Random(1))
        self.backend = Backend("web", "a", "a:1", "127.0.0.1", 1)

    def take(self, *kept: Kept, may_repeat: bool = True) -> Any:
        self.backend.idle[:] = kept
        return self.upstreams.take_idle(self.backend, may_repeat)

    def test_older_first(self) -> None:
        """A connection of this turn, of which nothing can have been heard since, gives way to one that has rested."""
        rested, fresh = Kept(3), Kept(5)
        self.assertIs(self.take(rested, fresh), rested)
        self.assertEqual((rested.looks, fresh.looks, self.backend.idle), (0, 0, [fresh]))

    def test_asked_first(self) -> None:
        """Where there is no other the kernel is asked, and one with surplus bytes or an end is closed, not used."""
        sound = Kept(5)
        self.assertIs(self.take(sound), sound)
        self.assertEqual(sound.looks, 1)
        spoiled = Kept(5, ended=True)
        self.assertIsNone(self.take(spoiled))
        self.assertTrue(spoiled.is_closed)

    def test_rested_ones_are_believed(self) -> None:
        """One that has been through a poll is taken unasked, for a request that may be repeated, and asked for others."""
        self.assertEqual(self.take(Kept(4)).looks, 0)
        self.assertEqual(self.take(Kept(4), may_repeat=False).looks, 1)


class RestTests(RoadCase):
    def test_forgets(self) -> None:
        """An idle connection drops what it remembers of its last head after a while, and lives on until keep_alive."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        (connection,) = road.site.connections
        self.assertIsNotNone(connection._reader._head)
        road.run(REST + 1)
        self.assertIsNone(connection._reader._head)
        client.send(GET)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        road.run(59)
        self.assertTrue(client.is_open)
        road.run(2)
        self.assertFalse(client.is_open)


class ExpectationTests(RoadCase):
    def test_refused_expectations_end_the_connection(self) -> None:
        """RFC 9110, 10.1.1: after 417 nobody knows whether the body comes, so nothing behind it is read as a request."""
        for lines in (b"Expect: 100-continue, foo\r\n", b"Expect: 100-continue\r\nExpect: foo\r\n", b"Expect: foo\r\n"):
            road = self.road()
            client = road.client()
            client.send(b"POST /a HTTP/1.1\r\nHost: x\r\n" + lines + b"Content-Length: 36\r\n\r\n")
            answer = client.answer()
            self.assertEqual((answer.status, answer.headers.get(b"connection")), (417, b"close"))

    def test_empty_expectation(self) -> None:
        """An empty list of expectations holds none that cannot be met."""
        road = self.road()
        client = road.client()
        client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nExpect:\r\n\r\n")
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)


class BegunTests(RoadCase):
    def test_a_broken_answer_is_a_try(self) -> None:
        """A backend that ends a kept connection in the middle of a head has had its try: `attempts` counts it."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(OK)
        client.answer()
        client.send(GET)
        sends = 1
        while road.upstream().is_open and sends < 5:
            road.upstream().send(b"HTTP/1.1 200 OK\r\nX: y")
            road.upstream().close()
            road.run(0.2)
            if len(road.upstream_ends) == sends:
                break
            sends = len(road.upstream_ends)
        self.assertEqual(client.answer().status, 502)
        self.assertEqual(len(road.upstream_ends), 2)
