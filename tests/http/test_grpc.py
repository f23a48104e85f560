"""Calls of gRPC on the road: our errors in its words, deadlines, codes, and whether a call is made again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import h2.config
import h2.connection
import h2.events

from lbsvc.config.schema import Match, RouteSettings
from lbsvc.core.policies import BreakerPolicy, RetryPolicy
from lbsvc.http.grpc import (
    COUNTED,
)
from tests.http.road import HOLE, REFUSED, Client, Road, RoadCase

CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a.example"),
    (":path", "/shop.Orders/Get"),
    ("content-type", "application/grpc+proto"),
    ("te", "trailers"),
)
MESSAGE = b"\x00\x00\x00\x00\x02hi"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"


class Answered:
    """What came on one stream."""

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.body = b""
        self.trailers: dict[str, str] | None = None
        self.has_ended = False
        self.reset: int | None = None


class Caller:
    """A client of HTTP/2 on a road, by the h2 library."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.client: Client = road.client()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.streams: dict[int, Answered] = {}
        self.look()

    def call(self, *more: tuple[str, str], ended: bool = True, body: bytes = MESSAGE) -> Answered:
        """Begin a call."""
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = answered = Answered()
        self.h2.send_headers(number, [*CALL, *more])
        self.h2.send_data(number, body, end_stream=ended)
        self.look()
        return answered

    def look(self, seconds: float = 0.0) -> None:
        """Send what is to be sent, let time pass, and see what has come."""
        self.client.send(self.h2.data_to_send())
        self.road.run(seconds)
        for event in self.h2.receive_data(self.client.take()):
            self._see(event)
        self.client.send(self.h2.data_to_send())
        self.road.run()

    def _see(self, event: Any) -> None:
        found = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if found is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            found.heads.append(dict(event.headers or ()))
        elif isinstance(event, h2.events.DataReceived):
            found.body += event.data or b""
        elif isinstance(event, h2.events.TrailersReceived):
            found.trailers = dict(event.headers or ())
        elif isinstance(event, h2.events.StreamEnded):
            found.has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            found.reset = event.error_code


class CallCase(RoadCase):
    def one(self, **keys: Any) -> tuple[Road, Caller]:
        road = self.road(**keys)
        return road, Caller(road)

    def assert_told(self, road: Road, answered: Answered, code: int, reason: str) -> None:
        """The whole answer is a head that says so; log and metrics agree."""
        self.assertTrue(answered.has_ended)
        self.assertEqual(
            (len(answered.heads), answered.body, answered.trailers, answered.reset or None), (1, b"", None, None)
        )
        (head,) = answered.heads
        self.assertEqual((head[":status"], head["content-type"]), ("200", "application/grpc"))
        self.assertEqual(head["grpc-status"], str(code))
        self.assertTrue(head["grpc-message"].startswith(reason + ": "), head)
        self.assertNotIn("content-length", head)
        record = road.records[-1]
        self.assertEqual((record.status, record.reason, record.grpc_status), (200, reason, code))
        self.assertEqual(sum(books.grpc.get(code, 0) for books in road.books.routes.values()), 1)


class RefusalTests(CallCase):
    def test_nobody(self) -> None:
        """Without a backend the call is UNAVAILABLE."""
        road, caller = self.one(backends=0)
        self.assert_told(road, caller.call(), 14, "no_backend")

    def test_unreachable(self) -> None:
        """So it is where none can be reached."""
        road = self.road(pool={"retry": RetryPolicy(attempts=1)})
        road.reactor.behaviour[9001] = REFUSED
        self.assert_told(road, Caller(road).call(), 14, "connect_failed")

    def test_no_route(self) -> None:
        """What leads nowhere is UNIMPLEMENTED."""
        road, caller = self.one(unrouted=True)
        self.assert_told(road, caller.call(), 12, "no_route")

    def test_denied(self) -> None:
        """What is denied is PERMISSION_DENIED."""
        road, caller = self.one(routes=(RouteSettings("no", Match(path="/shop.Orders/*"), deny=403),))
        self.assert_told(road, caller.call(), 7, "denied")

    def test_others(self) -> None:
        """A request that is no call gets the same error as ever."""
        road, caller = self.one(backends=0)
        caller.h2.send_headers(1, [*CALL[:4], ("content-type", "application/json")], end_stream=True)
        caller.streams[1] = Answered()
        caller.look()
        self.assertEqual(caller.streams[1].heads[0][":status"], "503")
        self.assertIsNone(road.records[-1].grpc_status)


class DeadlineTests(CallCase):
    def test_backend_is_silent(self) -> None:
        """grpc-timeout ends the call as DEADLINE_EXCEEDED, and says nothing about the backend."""
        road, caller = self.one(pool={"circuit_breaker": BreakerPolicy(failure_threshold=1)})
        answered = caller.call(("grpc-timeout", "500m"))
        self.assertFalse(answered.heads)
        caller.look(2.0)
        self.assert_told(road, answered, 4, "deadline")
        (backend,) = road.backends
        self.assertEqual((backend.circuit, sum(backend.failures.values())), ("closed", 0))
        self.assertIsNotNone(road.upstream().lost)

    def test_dialling(self) -> None:
        """It bounds the tries as well: a dial that goes nowhere is given up."""
        road = self.road()
        road.reactor.behaviour[9001] = HOLE
        caller = Caller(road)
        answered = caller.call(("grpc-timeout", "200m"))
        caller.look(1.0)
        self.assert_told(road, answered, 4, "deadline")
        self.assertTrue(road.reactor.dials[-1].is_over)

    def test_route_is_shorter(self) -> None:
        """A route's timeout holds where it is the shorter one; then it is the backend that has been too slow."""
        for said, seconds in (("10S", 0.3), ("100m", 5.0)):
            road, caller = self.one(routes=(RouteSettings("r", pool="web", timeout=seconds),))
            answered = caller.call(("grpc-timeout", said))
            caller.look(1.0)
            self.assert_told(road, answered, 4, "deadline")
            self.assertEqual(sum(road.backends[0].failures.values()), 1 if seconds < 1 else 0)

    def test_nonsense(self) -> None:
        """One that cannot be read says nothing."""
        road, caller = self.one()
        answered = caller.call(("grpc-timeout", "soon"))
        caller.look(5.0)
        self.assertFalse(answered.heads)
        self.assertEqual(road.books.in_flight, 1)

    def test_in_the_answer(self) -> None:
        """An answer that has begun ends with trailers that say so."""
        road, caller = self.one()
        answered = caller.call(("grpc-timeout", "1S"))
        road.upstream().send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n"
            + MESSAGE
            + b"\r\n"
        )
        caller.look(0.1)
        self.assertEqual((answered.body, answered.has_ended), (MESSAGE, False))
        caller.look(2.0)
        self.assertTrue(answered.has_ended)
        self.assertEqual((answered.trailers or {})["grpc-status"], "4")
        record = road.records[-1]
        self.assertEqual((record.status, record.reason, record.grpc_status), (200, "deadline", 4))
        self.assertIsNotNone(road.upstream().lost)

    def test_silence_of_both(self) -> None:
        """A call that is being answered is UNAVAILABLE once neither side has talked for `idle`; the backend is enough."""
        road, caller = self.one()
        answered = caller.call(ended=False)
        caller.look(300.0)
        chunk = b"7\r\n" + MESSAGE + b"\r\n"
        road.upstream().send(HEAD + chunk)
        for _ in range(3):
            caller.look(500.0)
            self.assertEqual((answered.has_ended, road.records), (False, []))
            road.upstream().send(chunk)
        caller.look(700.0)
        self.assertEqual((answered.has_ended, (answered.trailers or {})["grpc-status"]), (True, "14"))
        self.assertTrue((answered.trailers or {})["grpc-message"].startswith("idle_timeout: "))
        record = road.records[-1]
        self.assertEqual((record.status, record.reason, record.grpc_status), (200, "idle_timeout", 14))
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_silent_client(self) -> None:
        """So it is where the client's own silence is noticed first, since `idle` is another by then."""
        road, caller = self.one()
        answered = caller.call(ended=False)
        road.upstream().send(HEAD)
        settings = road.site.settings
        road.site.apply(replace(settings, timeouts=replace(settings.timeouts, idle=100.0)), road.site.table)
        caller.h2.send_data(1, MESSAGE)
        caller.look(200.0)
        self.assertEqual((answered.trailers or {})["grpc-status"], "14")
        self.assertEqual((road.records[-1].reason, road.records[-1].grpc_status), ("idle_timeout", 14))

    def test_silence(self) -> None:
        """A stream of messages may be silent for longer than a body may, by the listener's idle."""
        road, caller = self.one()
        answered = caller.call(ended=False)
        caller.look(120.0)
        self.assertFalse(answered.has_ended)
        self.assertEqual(road.records, [])
        caller.look(600.0)
        self.assert_told(road, answered, 4, "client_timeout")


def trailers_only(code: int) -> bytes:
    """An answer without content, in HTTP/1 for a backend on the road."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: %d\r\nContent-Length: 0\r\n\r\n" % code


class GivenUpTests(CallCase):
    def assert_given_up(self, road: Road, code: int | None, reason: str = "client_closed") -> None:
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.grpc_status), (499, reason, code))
        told = {code: 1} if code is not None else {}
        self.assertEqual([books.grpc for books in road.books.routes.values() if books.grpc], [told] if told else [])

    def cancel(self, caller: Caller) -> None:
        caller.h2.reset_stream(1, 8)
        caller.look()

    def test_cancelled(self) -> None:
        """A call that its client gives up is CANCELLED, whether or not it has a deadline, or an answer has begun."""
        for more in ((), (("grpc-timeout", "10S"),)):
            road, caller = self.one()
            caller.call(*more)
            caller.look(5.0)
            self.cancel(caller)
            self.assert_given_up(road, 1)
        road, caller = self.one()
        caller.call()
        road.upstream().send(HEAD)
        caller.look()
        self.cancel(caller)
        self.assertEqual((road.records[0].status, road.records[0].grpc_status), (200, 1))

    def test_client_goes(self) -> None:
        """So is one whose client's connection is lost."""
        road, caller = self.one()
        caller.call()
        caller.client.reset()
        road.run()
        self.assert_given_up(road, 1)

    def test_deadline(self) -> None:
        """Where the time that its client has named is over, or as good as over, it is DEADLINE_EXCEEDED."""
        for seconds, code in ((0.49, 1), (0.496, 4), (0.5, 4), (0.51, 4)):
            road, caller = self.one()
            caller.call(("grpc-timeout", "500m"))
            road.reactor.advance(seconds)  # nobody has looked at deadlines yet
            self.cancel(caller)
            self.assert_given_up(road, code)

    def test_fault(self) -> None:
        """A connection that breaks the protocol is no cancellation."""
        road, caller = self.one()
        caller.call()
        caller.client.send(b"\x00\x00\x00\x06\x00\x00\x00\x00\x00")  # a PING without content
        self.assertEqual([(each.reason, each.grpc_status) for each in road.records], [("bad_request", None)] * 2)

    def test_others(self) -> None:
        """A request that is no call has no status of gRPC."""
        road, caller = self.one()
        caller.h2.send_headers(1, CALL[:4], end_stream=True)
        caller.look()
        self.cancel(caller)
        self.assert_given_up(road, None)


class StatusTests(CallCase):
    def test_trailers(self) -> None:
        """The status of trailers goes down with them, and is noted."""
        road, caller = self.one()
        answered = caller.call()
        road.upstream().send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n"
            + MESSAGE
            + b"\r\n0\r\nGrpc-Status: 5\r\n\r\n"
        )
        caller.look()
        self.assertEqual((answered.body, (answered.trailers or {})["grpc-status"]), (MESSAGE, "5"))
        self.assertEqual((road.records[-1].status, road.records[-1].grpc_status), (200, 5))
        self.assertEqual(road.backends[0].requests[2], 1)

    def test_counted(self) -> None:
        """A backend that fails in the words of gRPC has failed; what clients can bring about does not count so."""
        for code in range(17):
            road, caller = self.one()
            answered = caller.call()
            road.upstream().send(trailers_only(code))
            caller.look()
            self.assertEqual(answered.heads[0]["grpc-status"], str(code))
            self.assertEqual(road.backends[0].requests[5], int(code in COUNTED), code)
            self.assertEqual((road.records[-1].status, road.records[-1].grpc_status), (200, code))

    def test_breaker(self) -> None:
        """So the circuit of one that is UNAVAILABLE opens."""
        road, caller = self.one(pool={"circuit_breaker": BreakerPolicy(failure_threshold=1)})
        caller.call()
        road.upstream().send(trailers_only(14))
        caller.look()
        self.assertEqual(road.backends[0].circuit, "open")
        self.assert_told_open(road, caller.call())

    def assert_told_open(self, road: Road, answered: Answered) -> None:
        self.assertTrue(answered.heads[0]["grpc-message"].startswith("circuit_open: "))
        self.assertEqual([record.grpc_status for record in road.records], [14, 14])


class RetryTests(CallCase):
    def test_code(self) -> None:
        """A code that is listed sends the call to another backend, though its method is not; the log names the try."""
        road, caller = self.one(backends=2, pool={"retry": RetryPolicy(when=frozenset({"unavailable"}))})
        answered = caller.call()
        road.upstream().send(trailers_only(14))
        caller.look()
        self.assertFalse(answered.heads)
        road.upstream().send(trailers_only(0))
        caller.look()
        self.assertEqual(answered.heads[0]["grpc-status"], "0")
        record = road.records[-1]
        self.assertEqual((record.attempts, record.grpc_status), (2, 0))
        self.assertEqual([reason for _, reason in record.tries or ()], ["unavailable", "ok"])
        self.assertEqual(sorted(backend.requests[5] for backend in road.backends), [0, 1])
        self.assertTrue(all(end.take().endswith(MESSAGE + b"\r\n0\r\n\r\n") for end in road.upstream_ends))

    def test_not_listed(self) -> None:
        """Others go down."""
        road, caller = self.one(backends=2, pool={"retry": RetryPolicy(when=frozenset({"unavailable"}))})
        answered = caller.call()
        road.upstream().send(trailers_only(8))
        caller.look()
        self.assertEqual(answered.heads[0]["grpc-status"], "8")
        self.assertEqual(road.records[-1].attempts, 1)

    def test_attempts(self) -> None:
        """The last answer goes down as it is."""
        road, caller = self.one(backends=2, pool={"retry": RetryPolicy(when=frozenset({"unavailable"}))})
        answered = caller.call()
        for _ in range(2):
            road.upstream().send(trailers_only(14))
            caller.look()
        self.assertEqual(answered.heads[0]["grpc-status"], "14")
        self.assertEqual((road.records[-1].attempts, road.records[-1].grpc_status), (2, 14))

    def test_no_call(self) -> None:
        """A grpc-status says nothing in the answer to a request that is no call."""
        road, caller = self.one(backends=2, pool={"retry": RetryPolicy(when=frozenset({"unavailable"}))})
        caller.h2.send_headers(1, CALL[:4], end_stream=True)
        caller.streams[1] = Answered()
        caller.look()
        road.upstream().send(trailers_only(14))
        caller.look()
        self.assertEqual(caller.streams[1].heads[0]["grpc-status"], "14")
        self.assertIsNone(road.records[-1].grpc_status)
