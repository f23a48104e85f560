"""Retries and patience with backends in numbers: when each try comes, and what is not cut however long it takes."""

from __future__ import annotations

from itertools import pairwise

from lbsvc.core.policies import Backoff, RetryPolicy, UpstreamTimeouts
from tests.http.road import DATE, HOLE, REFUSED, RoadCase

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class PolicyTests(RoadCase):
    def test_times(self) -> None:
        """Four tries from 100 ms on, doubled: at 0, 100, 300 and 700 ms, each pause within ten per cent, each at another
        backend, and then no more: 502 (FO-2)."""
        road = self.road(5, pool={"retry": RetryPolicy(attempts=4, backoff=Backoff(initial=0.1, max=1.0))})
        road.reactor.behaviour = dict.fromkeys(range(9001, 9006), REFUSED)
        client = road.client()
        client.send(GET)
        began, seen = road.reactor.seconds(), [0.0]
        while len(road.reactor.dials) < 4:
            road.run(0.001, step=0.001)
            seen += [road.reactor.seconds() - began] * (len(road.reactor.dials) - len(seen))
        for (before, after), planned in zip(pairwise(seen), (0.1, 0.2, 0.4), strict=True):
            self.assertLess(abs(after - before - planned), planned / 10 + 0.002, seen)
        self.assertEqual(client.answer().status, 502)
        road.run(10)
        self.assertEqual(len({dial.port for dial in road.reactor.dials}), 4)
        self.assertEqual(len(road.reactor.dials), 4)

    def test_client_gone(self) -> None:
        """A client that goes in a pause ends it: no further try is made (FO-2)."""
        road = self.road(4, pool={"retry": RetryPolicy(attempts=4, backoff=Backoff(initial=0.1, max=1.0))})
        road.reactor.behaviour = dict.fromkeys(range(9001, 9005), REFUSED)
        client = road.client()
        client.send(GET)
        road.run(0.15)
        self.assertEqual(len(road.reactor.dials), 2)
        client.reset()
        road.run(10)
        self.assertEqual((len(road.reactor.dials), road.records[0].reason), (2, "client_closed"))


class PatienceTests(RoadCase):
    """The defaults: 3 s for a dial, 60 s until an answer begins, 60 s of silence inside it."""

    def test_dial(self) -> None:
        """A backend that cannot be dialled costs 3 s; meanwhile others are accepted, and then another serves it (FO-6)."""
        road = self.road(2)
        road.reactor.behaviour = {9001: HOLE}
        client, other = road.client(), road.client()
        client.send(GET)
        other.send(GET)
        road.upstream().send(OK)
        self.assertEqual(other.answer().status, 200)
        road.run(2.9)
        self.assertEqual(client.take(), b"")
        road.run(0.5)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_first_byte(self) -> None:
        """60 s without a byte of an answer are 504, and not a second less (FO-6)."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.run(59.9)
        self.assertEqual(client.take(), b"")
        road.run(0.5)
        self.assertEqual(client.answer().status, 504)

    def test_long_answers(self) -> None:
        """A download of ten minutes, and as long a stream of events that says something only every two minutes, come
        whole (FO-6)."""
        self.assertEqual(UpstreamTimeouts(), UpstreamTimeouts(connect=3.0, response=60.0, idle=60.0))
        for head, pause in (
            (b"Content-Length: 20", 30),
            (b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", 120),
        ):
            road = self.road()
            client = road.client()
            client.send(GET)
            road.upstream().send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            pieces = 600 // pause
            for _ in range(pieces):
                road.run(pause, step=1)
                road.upstream().send(b"x" if pause == 30 else b"1\r\nx\r\n")
            road.upstream().send(b"0\r\n\r\n" if pause == 120 else b"")
            self.assertEqual((client.answer().body, road.records[0].reason), (b"x" * pieces, "ok"))
