"""Copies of requests: the bytes that a backend gets, the draw, and what is held against whom when it goes wrong."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from lbsvc.core.policies import UpstreamTimeouts
from lbsvc.http.mirroring import Mirroring
from tests.http.ends import Upstream
from tests.http.road import EXHAUSTED, HOLE, LATER, REFUSED, REFUSED_LATER, Road, RoadCase

START = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BRIEF = UpstreamTimeouts(connect=1, response=2, idle=3)


class Lowest(random.Random):
    """The least that chance may say, each time."""

    def random(self) -> float:
        return 0.0


class NoDraws(random.Random):
    """Chance that nobody may ask."""

    def random(self) -> float:
        raise AssertionError("a draw")


class MirrorCase(RoadCase):
    """A road whose pool gets copies only: it has no clients."""

    def mirroring(self, *given: Any, share: float = 1.0, **keys: Any) -> tuple[Road, Mirroring]:
        """Also checks, when the test ends, that no copy is left."""
        road = self.road(*given, **keys)
        made = Mirroring(road.upstreams, share, NoDraws())
        self.addCleanup(lambda: self.assertEqual(made.copies, set()))
        self.addCleanup(road.run, 1000, 10)
        return road, made

    def copy(self, road: Road, mirroring: Mirroring, number: int = 1) -> Upstream:
        """So many copies on their way; the connection of the last."""
        for _ in range(number):
            mirroring.send(START, b"POST", b"body")
        road.run()
        return road.upstream()

    def failures(self, road: Road) -> dict[str, int]:
        """What is held against the first backend."""
        return {word: number for word, number in road.backends[0].failures.items() if number}


class SendTests(MirrorCase):
    def test_bytes(self) -> None:
        """The backend gets head and content exactly as they were given."""
        road, mirroring = self.mirroring()
        self.assertEqual(self.copy(road, mirroring).take(), START + b"body")
        self.assertEqual(road.upstream().pieces, [len(START) + 4])
        self.assertEqual((mirroring.sent, mirroring.skipped, len(mirroring.copies)), (1, 0, 1))
        self.assertEqual(road.backends[0].active, 1)

    def test_answer_is_dropped(self) -> None:
        """The answer ends the copy: it counts for the backend, and the connection carries the next one."""
        road, mirroring = self.mirroring()
        upstream = self.copy(road, mirroring)
        road.reactor.advance(0.25)
        upstream.send(OK)
        backend = road.backends[0]
        self.assertEqual((backend.active, backend.requests[2], len(backend.idle)), (0, 1, 1))
        self.assertAlmostEqual(backend.latency or 0, 0.25)
        self.assertEqual((mirroring.copies, road.records, road.books.in_flight), (set(), [], 0))
        upstream.take()
        self.assertIs(self.copy(road, mirroring), upstream)
        self.assertEqual(upstream.take(), START + b"body")
        upstream.send(OK.replace(b"200 OK", b"503 No"))
        self.assertEqual((backend.requests[5], self.failures(road)), (1, {}))

    def test_large_answers(self) -> None:
        """However large an answer is and however it is framed, it is read to its end and kept nowhere."""
        body = b"x" * 3_000_000
        for answer in (
            b"Content-Length: 3000000\r\n\r\n" + body,
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-T: 1\r\n\r\n" % (len(body), body),
        ):
            road, mirroring = self.mirroring()
            self.copy(road, mirroring).send(b"HTTP/1.1 200 OK\r\n" + answer)
            self.assertEqual((road.backends[0].requests[2], len(road.backends[0].idle)), (1, 1))
        road, mirroring = self.mirroring()
        upstream = self.copy(road, mirroring)
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        self.assertEqual((len(mirroring.copies), road.backends[0].active), (1, 1))
        upstream.close()
        self.assertEqual((road.backends[0].requests[2], road.backends[0].active), (1, 0))

    def test_head(self) -> None:
        """The answer to a HEAD ends with its head, whatever length it says."""
        road, mirroring = self.mirroring()
        mirroring.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD", b"")
        road.upstream().send(OK.removesuffix(b"ok"))
        self.assertEqual((road.backends[0].requests[2], len(road.backends[0].idle)), (1, 1))

    def test_interim_answers(self) -> None:
        """1xx are dropped too, and the copy goes on."""
        road, mirroring = self.mirroring()
        upstream = self.copy(road, mirroring)
        upstream.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self.assertEqual(len(mirroring.copies), 1)
        upstream.send(OK)
        self.assertEqual(road.backends[0].requests[2], 1)

    def test_connections_that_are_not_kept(self) -> None:
        """An answer that says close, and one with bytes behind it, are the last on their connection."""
        for answer in (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK + b"surplus"):
            road, mirroring = self.mirroring()
            upstream = self.copy(road, mirroring)
            upstream.send(answer)
            self.assertEqual((road.backends[0].requests[2], road.backends[0].idle), (1, []))
            self.assertFalse(upstream.is_open)

    def test_several_backends(self) -> None:
        """Copies are balanced by the mirror's pool, each on a connection of its own."""
        road, mirroring = self.mirroring(3)
        self.copy(road, mirroring, 6)
        self.assertEqual([end.port for end in road.upstream_ends], [9001, 9002, 9003] * 2)
        self.assertEqual([backend.active for backend in road.backends], [2, 2, 2])


class DrawTests(MirrorCase):
    def test_all(self) -> None:
        """A share of 1 takes every request and no chance."""
        _, mirroring = self.mirroring()
        self.assertTrue(all(mirroring.is_drawn() for _ in range(100)))

    def test_some(self) -> None:
        """Any other share is drawn once for each request, and is met; none is never."""
        road, _ = self.mirroring()
        mirroring = Mirroring(road.upstreams, 0.1, random.Random(3))
        self.assertTrue(900 < sum(mirroring.is_drawn() for _ in range(10_000)) < 1100)
        same, draws = random.Random(5), random.Random(5)
        mirroring = Mirroring(road.upstreams, 0.5, draws)
        self.assertEqual([mirroring.is_drawn() for _ in range(50)], [same.random() < 0.5 for _ in range(50)])
        self.assertEqual(same.random(), draws.random())
        self.assertFalse(Mirroring(road.upstreams, 0.0, Lowest()).is_drawn())
        self.assertTrue(Mirroring(road.upstreams, 0.0001, Lowest()).is_drawn())


class FailureTests(MirrorCase):
    def test_nobody(self) -> None:
        """A pool with nobody in it gets nothing, and it is counted."""
        road, mirroring = self.mirroring()
        road.backends[0].health = "down"
        road.pool.refresh()
        mirroring.send(START, b"POST", b"body")
        self.assertEqual((mirroring.sent, mirroring.skipped, road.reactor.dials), (0, 1, []))

    def test_failed_dials(self) -> None:
        """A dial that fails is the backend's failure, if it is not ours, and no other backend is tried."""
        for how, wait, failures in (
            (REFUSED, 0, {"connect_failed": 1}),
            (REFUSED_LATER, 0, {"connect_failed": 1}),
            (HOLE, 2, {"connect_timeout": 1}),
            (EXHAUSTED, 0, {}),
        ):
            road, mirroring = self.mirroring(2, pool={"timeouts": BRIEF})
            road.reactor.behaviour[9001] = how
            mirroring.send(START, b"POST", b"body")
            road.run(wait)
            self.assertEqual(self.failures(road), failures, how)
            self.assertEqual((len(road.reactor.dials), road.backends[1].requests), (1, [0] * 6))
            self.assertEqual((road.backends[0].active, mirroring.copies), (0, set()))

    def test_late_dial(self) -> None:
        """A connection that comes about later gets the copy then, and the backend's time counts from there."""
        road, mirroring = self.mirroring()
        road.reactor.behaviour[9001] = LATER
        mirroring.send(START, b"POST", b"body")
        self.assertEqual(road.upstream_ends, [])
        road.reactor.advance(0.5)
        road.run()
        self.assertEqual(road.upstream().take(), START + b"body")
        road.upstream().send(OK)
        self.assertEqual((road.backends[0].requests[2], road.backends[0].latency), (1, 0.0))

    def test_failed_answers(self) -> None:
        """Whatever goes wrong counts once against the backend, and nothing is sent again."""
        for piece, ends, failures in (
            (b"", True, {"upstream_reset": 1}),
            (b"HTTP/1.1 200 OK\r\nContent-Le", True, {"upstream_reset": 1}),
            (OK[:-1], True, {"upstream_reset": 1}),
            (b"nonsense\r\n\r\n", False, {"upstream_protocol": 1}),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", False, {"upstream_protocol": 1}),
            (b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", False, {"upstream_protocol": 1}),
        ):
            road, mirroring = self.mirroring(2)
            upstream = self.copy(road, mirroring)
            if piece:
                upstream.send(piece)
            if ends:
                upstream.reset()
            self.assertEqual((self.failures(road), mirroring.copies), (failures, set()), piece)
            self.assertEqual((len(road.reactor.dials), road.backends[0].active), (1, 0))
            self.assertEqual((road.backends[0].requests, road.backends[0].tcp_error), ([0] * 6, 0))
            self.assertFalse(upstream.is_open)

    def test_silence(self) -> None:
        """The pool's deadlines hold: for the head of an answer, and for silence in its body."""
        for piece in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"):
            road, mirroring = self.mirroring(pool={"timeouts": BRIEF})
            upstream = self.copy(road, mirroring)
            if piece:
                upstream.send(piece)
            road.run(1.5)
            self.assertEqual(len(mirroring.copies), 1)
            road.run(2.5)
            self.assertEqual((self.failures(road), mirroring.copies), ({"upstream_timeout": 1}, set()))
            self.assertTrue(upstream.was_reset)

    def test_kept_connection_that_has_ended(self) -> None:
        """A kept connection whose end has arrived is not used: the copy gets a new one, since it is not sent again."""
        road, mirroring = self.mirroring()
        road.upstreams.turns = turns = SimpleNamespace(turn=1)
        first = self.copy(road, mirroring)
        first.send(OK)
        turns.turn = 2  # it has idled
        first.transport.loseConnection()
        first.wire.left.stopReading()  # its end is in the kernel, and has not been seen yet
        road.run()
        second = self.copy(road, mirroring)
        self.assertIsNot(second, first)
        second.send(OK)
        self.assertEqual((road.backends[0].requests[2], self.failures(road)), (2, {}))

    def test_kept_connection_that_ends(self) -> None:
        """A kept connection that ends as the copy is on its way is nobody's fault; still it is not sent again."""
        road, mirroring = self.mirroring()
        upstream = self.copy(road, mirroring)
        upstream.send(OK)
        self.copy(road, mirroring)
        upstream.close()
        self.assertEqual((self.failures(road), len(road.reactor.dials), mirroring.copies), ({}, 1, set()))

    def test_kept_connection_that_answers_badly(self) -> None:
        """Once the backend has begun to answer on a kept connection, what goes wrong is its fault again."""
        for piece in (b"HTTP/1.1 2", b"HTTP/1.1 103 Early\r\n\r\n", OK[:-1]):
            road, mirroring = self.mirroring()
            upstream = self.copy(road, mirroring)
            upstream.send(OK)
            self.copy(road, mirroring)
            upstream.send(piece)
            upstream.close()
            self.assertEqual(self.failures(road), {"upstream_reset": 1}, piece)
