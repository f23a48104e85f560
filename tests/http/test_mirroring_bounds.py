"""Copies of requests: bounded in number and time, with backends that read slowly or never stop, until they are closed."""

from __future__ import annotations

import gc
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lbsvc.core.policies import KeptConnections
from lbsvc.http.mirroring import MOST_COPIES, Copy, Mirroring
from tests.http.road import EXHAUSTED, HOLE, LATER, OPEN, REFUSED, REFUSED_LATER, Road, without_collector
from tests.http.test_mirroring import BRIEF, OK, START, MirrorCase

STEPS = ["send", "send", "answer", "part", "reset", "stop", "read", "wait", "dial"]


class BoundTests(MirrorCase):
    def test_number(self) -> None:
        """Past so many under way no copy is sent, not even dialled, but counted; one that ends makes room."""
        road, mirroring = self.mirroring()
        self.copy(road, mirroring, MOST_COPIES + 5)
        self.assertEqual((mirroring.sent, mirroring.skipped), (MOST_COPIES, 5))
        self.assertEqual((len(road.reactor.dials), road.backends[0].active), (MOST_COPIES, MOST_COPIES))
        road.upstream(0).send(OK)
        self.copy(road, mirroring, 2)
        self.assertEqual((mirroring.sent, mirroring.skipped), (MOST_COPIES + 1, 6))
        mirroring.close()

    def test_number_while_dialling(self) -> None:
        """Copies whose dial is under way count too."""
        road, mirroring = self.mirroring(pool={"timeouts": BRIEF})
        road.reactor.behaviour[9001] = HOLE
        for _ in range(MOST_COPIES + 1):
            mirroring.send(START, b"POST", b"body")
        self.assertEqual((len(road.reactor.dials), mirroring.skipped), (MOST_COPIES, 1))
        road.run(2)
        self.assertEqual((mirroring.copies, road.backends[0].active), (set(), 0))

    def test_others_are_not_counted(self) -> None:
        """Each route's mirror has a bound of its own, though they share a pool."""
        road, one = self.mirroring()
        two = Mirroring(road.upstreams, 1.0, random.Random(1))
        self.copy(road, one, MOST_COPIES)
        self.copy(road, two)
        self.assertEqual((two.sent, two.skipped), (1, 0))
        one.close()
        two.close()

    def test_endless_answers(self) -> None:
        """An answer that goes on and on is cut after a fixed time, which is not held against the backend."""
        for head in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ):
            road, mirroring = self.mirroring(pool={"timeouts": BRIEF})
            upstream = self.copy(road, mirroring)
            upstream.send(head)
            for _ in range(5):
                upstream.send(b"x")
                road.run(1)
            self.assertEqual(len(mirroring.copies), 1)
            upstream.send(b"x")
            road.run(1.5)
            self.assertEqual((mirroring.copies, self.failures(road)), (set(), {}))
            self.assertEqual((road.backends[0].active, road.backends[0].requests), (0, [0] * 6))
            self.assertTrue(upstream.was_reset)

    def test_endless_interim_answers(self) -> None:
        """Interim answers do not put the deadline off."""
        road, mirroring = self.mirroring(pool={"timeouts": BRIEF})
        upstream = self.copy(road, mirroring)
        for _ in range(8):
            upstream.transport.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            road.run(0.5)
        self.assertEqual((mirroring.copies, self.failures(road)), (set(), {"upstream_timeout": 1}))

    def test_streams(self) -> None:
        """The silence of an event stream is not held against the backend: it only has its time."""
        road, mirroring = self.mirroring(pool={"timeouts": BRIEF})
        upstream = self.copy(road, mirroring)
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n")
        road.run(5)
        self.assertEqual(len(mirroring.copies), 1)
        road.run(2)
        self.assertEqual((mirroring.copies, self.failures(road)), (set(), {}))
        self.assertTrue(upstream.was_reset)

    def test_the_time_is_for_one_copy(self) -> None:
        """On a kept connection each copy has the whole time."""
        road, mirroring = self.mirroring(pool={"timeouts": BRIEF})
        upstream = self.copy(road, mirroring)
        for _ in range(6):
            road.run(1.5)
            upstream.send(OK)
            self.assertIs(self.copy(road, mirroring), upstream)
        self.assertEqual((mirroring.sent, road.backends[0].requests[2], self.failures(road)), (7, 6, {}))
        mirroring.close()


class SlowBackendTests(MirrorCase):
    LARGE = START.replace(b": 4", b": 900000"), b"POST", b"x" * 900_000

    def test_reads_late(self) -> None:
        """A backend that takes the content slowly still gets all of it, and has its time to answer from then on."""
        road, mirroring = self.mirroring(kernel=4096, pool={"timeouts": BRIEF})
        mirroring.send(*self.LARGE)
        road.upstream().stop_reading()
        road.run(2.5)
        self.assertEqual(len(mirroring.copies), 1)
        road.upstream().read_on()
        self.assertEqual(bytes(road.upstream().received), self.LARGE[0] + self.LARGE[2])
        road.run(1.5)
        road.upstream().send(OK)
        self.assertEqual((road.backends[0].requests[2], len(road.backends[0].idle), self.failures(road)), (1, 1, {}))

    def test_reads_late_and_is_silent(self) -> None:
        """Once it has taken everything, a backend that says nothing is cut in the time that it has for an answer."""
        road, mirroring = self.mirroring(kernel=4096, pool={"timeouts": BRIEF})
        mirroring.send(*self.LARGE)
        road.upstream().stop_reading()
        road.run(1)
        road.upstream().read_on()
        road.run(2.5)
        self.assertEqual((mirroring.copies, self.failures(road)), (set(), {"upstream_timeout": 1}))

    def test_never_reads(self) -> None:
        """One that takes nothing for too long is cut."""
        road, mirroring = self.mirroring(kernel=4096, pool={"timeouts": BRIEF})
        mirroring.send(*self.LARGE)
        road.upstream().stop_reading()
        road.run(4)
        self.assertEqual((mirroring.copies, self.failures(road)), (set(), {"upstream_timeout": 1}))

    def test_reads_too_long(self) -> None:
        """One that takes a little again and again has its time, and no more."""
        road, mirroring = self.mirroring(kernel=4096, pool={"timeouts": BRIEF})
        mirroring.send(*self.LARGE)
        upstream = road.upstream()
        for _ in range(8):
            upstream.stop_reading()
            road.run(1)
            upstream.transport.resumeProducing()
            road.turn()
        self.assertEqual((mirroring.copies, self.failures(road)), (set(), {}))

    def test_answers_early(self) -> None:
        """A backend that answers before it has read all is believed, but its connection is not kept."""
        road, mirroring = self.mirroring(kernel=4096)
        mirroring.send(START.replace(b": 4", b": 40000"), b"POST", b"x" * 40_000)
        upstream = road.upstream()
        upstream.stop_reading()
        upstream.send(OK)
        self.assertEqual((road.backends[0].requests[2], road.backends[0].idle), (1, []))
        self.assertFalse(upstream.is_open)

    def test_slow_upstream_that_answers_in_parts(self) -> None:
        """An early answer whose body goes on is read while the content still goes out."""
        road, mirroring = self.mirroring(kernel=4096)
        mirroring.send(*self.LARGE)
        upstream = road.upstream()
        upstream.stop_reading()
        upstream.send(OK[:-1])
        self.assertEqual(len(mirroring.copies), 1)
        upstream.read_on()
        upstream.send(b"k")
        self.assertEqual((road.backends[0].requests[2], len(road.backends[0].idle)), (1, 1))


class CloseTests(MirrorCase):
    def test_in_every_state(self) -> None:
        """Closing cuts what dials, waits for an answer, or reads one; each lease comes back, and nobody is blamed."""
        for how, piece in ((HOLE, b""), (LATER, b""), (OPEN, b""), (OPEN, b"HTTP/1.1 2"), (OPEN, OK[:-1])):
            road, mirroring = self.mirroring()
            road.reactor.behaviour[9001] = how
            mirroring.send(START, b"POST", b"body")
            if piece:
                road.upstream().send(piece)
            mirroring.close()
            self.assertEqual((mirroring.copies, road.backends[0].active), (set(), 0))
            road.run()
            self.assertEqual((road.backends[0].connections, self.failures(road)), (0, {}))
            self.assertTrue(all(end.was_reset for end in road.upstream_ends))

    def test_nothing_after_it(self) -> None:
        """A closed mirror sends nothing, and may be closed again."""
        road, mirroring = self.mirroring()
        mirroring.close()
        mirroring.close()
        mirroring.send(START, b"POST", b"body")
        self.assertEqual((mirroring.skipped, road.reactor.dials), (1, []))

    def test_pool_that_closes(self) -> None:
        """Once the pool keeps nothing any more, a copy's connection ends with its answer."""
        road, mirroring = self.mirroring()
        upstream = self.copy(road, mirroring)
        road.upstreams.close_idle()
        upstream.send(OK)
        self.assertEqual((road.backends[0].requests[2], upstream.is_open), (1, False))

    def test_no_garbage(self) -> None:
        """However a copy ends, it is freed at once: no cycle is left of it."""
        without_collector(self)
        road, mirroring = self.mirroring(pool={"timeouts": BRIEF, "connections": KeptConnections(keep_alive=0)})
        for how, piece in (
            (OPEN, OK),
            (OPEN, b"nonsense\r\n\r\n"),
            (OPEN, b""),
            (REFUSED, b""),
            (REFUSED_LATER, b""),
            (EXHAUSTED, b""),
            (HOLE, b""),
        ):
            road.reactor.behaviour[9001] = how
            mirroring.send(START, b"POST", b"body")
            if piece:
                road.upstream().send(piece)
            road.run(4)
        mirroring.send(START, b"POST", b"body")
        mirroring.close()
        road.run()
        self.assert_no_garbage(road)
        self.assertEqual([each for each in gc.get_objects() if isinstance(each, Copy)], [])


class ChaosTests(MirrorCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9))))
    def test_any_order(self, steps: list[tuple[str, int]]) -> None:
        """Whatever backends do in whatever order, every lease comes back once and nothing is left behind."""
        road = Road(2, kernel=4096, pool={"timeouts": BRIEF})
        mirroring = Mirroring(road.upstreams, 1.0, random.Random(1))
        for step, number in steps:
            ends = road.upstream_ends
            end = ends[number % len(ends)] if ends else None
            if step == "send":
                size = 10 ** (number % 6)
                mirroring.send(START.replace(b": 4", b": %d" % size), b"POST", b"x" * size)
            elif step == "dial":
                hows = [OPEN, OPEN, LATER, REFUSED, REFUSED_LATER, HOLE]
                road.reactor.behaviour[9001 + number % 2] = hows[number % 6]
            elif step == "wait":
                road.run(number / 2)
            elif end is None:
                continue
            elif step == "answer":
                end.send(OK)
            elif step == "part":
                end.send(OK[:number])
            elif step == "reset":
                end.reset() if number % 2 else end.close()
            elif step == "stop":
                end.stop_reading()
            else:
                end.read_on()
            active = sum(backend.active for backend in road.backends)
            self.assertEqual(active, len(mirroring.copies))
        road.run(10)
        self.assertEqual(mirroring.copies, set())
        answered = sum(sum(backend.requests) for backend in road.backends)
        failed = sum(sum(backend.failures.values()) for backend in road.backends)
        self.assertLessEqual(answered + failed, mirroring.sent)
        road.close()
