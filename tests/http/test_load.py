"""The load generator on a clock and wires in memory: what is asked, how often, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from lbsvc.core.backend import Outcome
from lbsvc.ctl.load_report import as_json, as_text
from lbsvc.http.load import PAUSE, SWEEP, Load, Plan
from tests.kit.wire import Wire

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Backend: a\r\n\r\nok"


class Server(Protocol):
    """Answers each whole request with what its test says, or not yet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard = b""
        self.asked = 0

    @override
    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        while self.heard.startswith(self.world.request):
            self.heard = self.heard[len(self.world.request) :]
            self.asked += 1
            self.world.asked += 1
            self.world.answer(self)

    def say(self, answer: bytes, *, closes: bool = False) -> None:
        assert self.transport is not None
        self.transport.write(answer)
        if closes:
            self.transport.loseConnection()


class Refusing:
    """A dial that is over."""

    def cancel(self) -> None:
        pass


class World:
    """A load, its clock, and the servers that it has reached."""

    def __init__(self, answer: Callable[[Server], object], method: bytes = b"GET", **plan: Any) -> None:
        self.clock = Clock()
        self.answer = answer
        self.request = method + REQUEST[3:]
        self.asked = 0
        self.wires: list[Wire] = []
        self.servers: list[Server] = []
        self.refusal: tuple[Outcome, str] | None = None
        self.is_over = False
        self.load = Load(self.clock, self.dial, self.request, method, Plan(**plan))

    def dial(self, protocol: Protocol, timeout: float, failed: Callable[[Outcome, str], None]) -> Refusing:
        if self.refusal is not None:
            failed(*self.refusal)
        else:
            self.servers.append(Server(self))
            self.wires.append(Wire(protocol, self.servers[-1], clock=self.clock))
        return Refusing()

    def start(self) -> World:
        def over(result: object) -> None:
            self.is_over = True

        self.load.start().addCallback(over)
        self.pump()
        return self

    def pump(self) -> None:
        while sum(wire.pump() for wire in list(self.wires)):  # each of them, not up to the first that moves
            pass

    def wait(self, seconds: float, step: float = 0.01) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.pump()


class ClosedLoopTests(SynchronousTestCase):
    def test_counted(self) -> None:
        """So many requests as were asked for, on one kept connection for each client."""
        world = World(lambda server: server.say(OK), requests=10, clients=3).start()
        tally = world.load.tally
        self.assertTrue(world.is_over)
        self.assertEqual((world.asked, tally.done, tally.failed, tally.connections), (10, 10, 0, 3))
        self.assertEqual((dict(tally.statuses), dict(tally.backends), tally.received), ({200: 10}, {"a": 10}, 20))

    def test_at_one_time(self) -> None:
        """There are as many under way as there are clients, and no more."""
        world = World(lambda server: None, requests=10, clients=4).start()
        self.assertEqual((world.asked, world.load.tally.begun), (4, 4))
        world.servers[0].say(OK)
        world.pump()
        self.assertEqual(world.asked, 5)

    def test_bytewise(self) -> None:
        """An answer that comes byte by byte is counted once, when it is whole."""
        world = World(lambda server: server.say(OK), requests=2, clients=1)
        world.load.start()
        world.wires[0].pump_all(limit=1)
        self.assertEqual((world.load.tally.answered, world.load.is_over), (2, True))

    def test_new_connections(self) -> None:
        """Without keep-alive, or where the server closes, each request has a connection of its own."""
        for plan, answer in (({"is_kept": False}, OK), ({}, OK.replace(b"\r\nX", b"\r\nConnection: close\r\nX"))):
            world = World(lambda server, answer=answer: server.say(answer), requests=4, clients=1, **plan)  # type: ignore[misc]
            tally = world.start().load.tally
            self.assertEqual((tally.answered, tally.connections, tally.resent), (4, 4, 0))

    def test_bodies(self) -> None:
        """Chunks, bodies until the close, and heads alone are whole answers."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        for answer, closes in ((chunked, False), (b"HTTP/1.0 200 OK\r\n\r\nabc", True)):
            world = World(lambda server, a=answer, c=closes: server.say(a, closes=c), requests=2, clients=1)  # type: ignore[misc]
            tally = world.start().load.tally
            self.assertEqual((tally.answered, tally.received), (2, 6))
        world = World(lambda server: server.say(OK[: -len(b"ok")]), method=b"HEAD", requests=2, clients=1)
        self.assertEqual(world.start().load.tally.answered, 2)

    def test_statuses(self) -> None:
        """An answer of status 400 or more is an answer, and has failed; one of 3xx has not."""
        answers = iter([b"302 F", b"404 N", b"503 S", b"200 O"])
        world = World(
            lambda server: server.say(b"HTTP/1.1 " + next(answers) + b"\r\nContent-Length: 0\r\n\r\n"),
            requests=4,
            clients=1,
        )
        tally = world.start().load.tally
        self.assertEqual((tally.answered, tally.failed), (4, 2))
        self.assertEqual(dict(tally.backends), {None: 4})

    def test_interim(self) -> None:
        """100 and 103 come before the answer, and count for nothing."""
        world = World(lambda server: server.say(b"HTTP/1.1 103 E\r\n\r\n" + OK), requests=2, clients=1)
        self.assertEqual(dict(world.start().load.tally.statuses), {200: 2})


class FailingTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """Each refused connection is one failed request; between them there is a pause."""
        world = World(lambda server: None, requests=3, clients=1)
        world.refusal = Outcome.CONNECT_FAILED, "connection refused"
        world.start()
        self.assertEqual(world.load.tally.done, 1)
        world.wait(4 * PAUSE)
        self.assertTrue(world.is_over)
        self.assertEqual(dict(world.load.tally.errors), {"connect_failed: connection refused": 3})
        self.assertEqual(world.load.tally.failed, 3)

    def test_cut(self) -> None:
        """An answer that is cut is an error, and no answer."""
        world = World(lambda server: server.say(OK[:-1], closes=True), requests=1, clients=1).start()
        world.wait(2 * PAUSE)
        self.assertEqual(list(world.load.tally.errors), ["upstream_reset: the connection ended before the answer did"])
        self.assertEqual(world.load.tally.answered, 0)

    def test_nonsense(self) -> None:
        """What is no HTTP is an error with its reason; the next request has a new connection."""
        answers = iter([b"SSH-2.0-x\r\n\r\n", OK])
        world = World(lambda server: server.say(next(answers)), requests=2, clients=1).start()
        world.wait(2 * PAUSE)
        tally = world.load.tally
        self.assertEqual((tally.answered, tally.connections), (1, 2))
        self.assertTrue(next(iter(tally.errors)).startswith("upstream_protocol: "))

    def test_timeout(self) -> None:
        """A request without a whole answer in time is an error, however much of it has come."""
        world = World(lambda server: server.say(OK[:-1]), requests=1, clients=1, timeout=1.0).start()
        world.wait(1.0 + 2 * SWEEP + 2 * PAUSE)
        self.assertEqual(dict(world.load.tally.errors), {"timeout: no whole answer": 1})
        self.assertTrue(world.is_over)

    def test_no_connection_in_time(self) -> None:
        """A dial that takes too long is a timeout, and is told from a refusal."""
        world = World(lambda server: None, requests=1, clients=1)
        world.refusal = Outcome.CONNECT_TIMEOUT, "timed out"
        world.start()
        self.assertEqual(dict(world.load.tally.errors), {"timeout: no connection": 1})

    def close_second(self, server: Server) -> None:
        if server is server.world.servers[0] and server.asked == 2:
            server.say(b"", closes=True)
        else:
            server.say(OK)

    def test_stale(self) -> None:
        """Where the server closes a kept connection as we ask, a GET is sent again, counted apart; a POST has failed."""
        for method, expected in ((b"GET", (2, 0, 1)), (b"POST", (1, 1, 0))):
            world = World(self.close_second, method=method, requests=2, clients=1)
            world.start()
            world.wait(2 * PAUSE)
            tally = world.load.tally
            self.assertEqual((tally.answered, tally.failed, tally.resent), expected)

    def test_stale_once(self) -> None:
        """A request is sent again once at most."""
        world = World(lambda server: server.say(b"", closes=True), requests=1, clients=1).start()
        world.wait(2 * PAUSE)
        self.assertEqual((world.asked, world.load.tally.failed, world.load.tally.resent), (1, 1, 0))

    def test_surplus(self) -> None:
        """A connection with bytes behind its answer is not used again."""
        world = World(lambda server: server.say(OK + b"HTTP"), requests=3, clients=1).start()
        self.assertEqual((world.load.tally.answered, world.load.tally.connections), (3, 3))


class RateTests(SynchronousTestCase):
    def test_even(self) -> None:
        """Requests are due at equal distances, whatever the number of clients."""
        world = World(lambda server: server.say(OK), requests=None, clients=5, rate=100.0, duration=1.0).start()
        self.assertEqual(world.asked, 1)
        world.wait(0.5, step=0.005)
        self.assertEqual(world.asked, 51)
        world.wait(0.6, step=0.005)
        self.assertTrue(world.is_over)
        self.assertEqual((world.asked, world.load.tally.done), (100, 100))

    def test_from_due(self) -> None:
        """What a stalled server keeps waiting counts from when it was due, not from when it could be sent."""
        world = World(lambda server: None, requests=10, clients=1, rate=10.0).start()
        world.wait(2.0)
        world.answer = lambda server: server.say(OK)
        world.servers[0].say(OK)
        world.pump()
        self.assertTrue(world.is_over)
        latencies = world.load.tally.latencies
        self.assertAlmostEqual(latencies.most, 2.0, places=6)
        self.assertAlmostEqual(latencies.least, 1.1, places=6)  # the last was due at 0.9 s


class EndingTests(SynchronousTestCase):
    def test_duration(self) -> None:
        """After the duration nothing is begun, and what is under way is waited for and counted."""
        world = World(lambda server: None, requests=None, clients=2, duration=1.0).start()
        world.wait(1.5)
        self.assertFalse(world.is_over)
        for server in world.servers:
            server.say(OK)
        world.pump()
        self.assertTrue(world.is_over)
        self.assertEqual((world.asked, world.load.tally.answered, world.load.tally.failed), (2, 2, 0))

    def test_stop(self) -> None:
        """Stopped, it is over at once: what is under way is not counted, nothing is left behind."""
        world = World(lambda server: server.say(OK) if server.world.asked < 3 else None, requests=10, clients=2).start()
        world.load.stop()
        world.pump()
        self.assertTrue(world.is_over)
        self.assertEqual((world.load.tally.done, world.load.tally.failed), (2, 0))
        self.assertEqual(world.clock.getDelayedCalls(), [])
        self.assertTrue(all(not wire.left.connected for wire in world.wires))
        world.load.stop()

    def test_nothing_left(self) -> None:
        """When it is over no timer is left and every connection is closed."""
        world = World(lambda server: server.say(OK), requests=4, clients=2).start()
        self.assertEqual(world.clock.getDelayedCalls(), [])
        self.assertTrue(all(not wire.left.connected for wire in world.wires))

    def test_names_are_bounded(self) -> None:
        """A server that makes up names of backends cannot fill the memory."""

        def answer(server: Server) -> None:
            server.say(OK.replace(b"Backend: a", b"Backend: b%d" % world.asked))

        world = World(answer, requests=1500, clients=1)
        world.start()
        self.assertEqual(world.load.tally.answered, 1500)
        self.assertLess(len(world.load.tally.backends), 1100)


class ReportTests(SynchronousTestCase):
    def tally(self) -> World:
        def answer(server: Server) -> None:
            server.say(OK if server.world.asked % 2 else OK.replace(b"d: a", b"d: b"))

        return World(answer, requests=4, clients=1).start()

    def test_json(self) -> None:
        """Under --json there is everything, times in seconds."""
        world = self.tally()
        found = as_json(world.load.tally, world.load.plan, "http://a/", False)
        self.assertEqual(found["status"], {"200": 4})
        self.assertEqual(found["backends"], {"a": 2, "b": 2})
        self.assertEqual((found["requests"], found["failed"], found["errors"]), (4, 0, {}))
        self.assertEqual(list(found["latency"]), ["min", "mean", "p50", "p90", "p95", "p99", "max"])

    def test_text(self) -> None:
        """The text has the sums, the percentiles, the statuses and the share of each backend, and no colour."""
        world = self.tally()
        text = as_text(world.load.tally, world.load.plan, "http://a/", True)
        for piece in ("4 requests to http://a/", "(interrupted)", "0 failed", "p50", "p99", "status    200"):
            self.assertIn(piece, text)
        self.assertRegex(text, r"backend   a +2   50\.0 %\n +b +2   50\.0 %")
        self.assertNotIn("\x1b", text)

    def test_of_nothing(self) -> None:
        """A run that came to nothing can be told of too."""
        world = World(lambda server: None, requests=1, clients=1).start()
        world.load.stop()
        self.assertIn("0 requests", as_text(world.load.tally, world.load.plan, "http://a/", True))
        self.assertIsNone(as_json(world.load.tally, world.load.plan, "http://a/", True)["latency"]["p50"])
