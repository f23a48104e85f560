"""Calls of gRPC whose answer has begun and cannot be finished, and calls that go out later than they came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import HeaderEdits, RouteSettings
from lbsvc.core.policies import QueuePolicy, RetryPolicy
from lbsvc.http.grpc import read_timeout, write_timeout
from tests.http.h2_backends import CANCEL, INTERNAL, REFUSED_STREAM, H2Backend, H2RoadCase
from tests.http.road import HOLE, Road
from tests.http.test_grpc import MESSAGE, Answered, CallCase, Caller, trailers_only
from tests.http.test_placing import limited

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"7\r\n" + MESSAGE + b"\r\n"
CALM = 11


class LateCase(CallCase):
    def assert_ended(self, road: Road, answered: Answered, code: int, reason: str) -> None:
        """Trailers say how it ended; log and metrics agree, once; nothing is left of it."""
        self.assertTrue(answered.has_ended)
        self.assertFalse(answered.reset)
        trailers = answered.trailers or {}
        self.assertEqual(trailers["grpc-status"], str(code))
        self.assertTrue(trailers["grpc-message"].startswith(reason + ": "), trailers)
        self.assert_noted(road, code, reason)

    def assert_noted(self, road: Road, code: int | None, reason: str) -> None:
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.grpc_status), (200, reason, code))
        counted = {code: 1} if code is not None else {}
        self.assertEqual(
            [books.grpc for books in road.books.routes.values() if books.grpc], [counted] if counted else []
        )
        self.assertEqual((road.books.in_flight, sum(backend.active for backend in road.backends)), (0, 0))


class BreakTests(LateCase):
    def test_backend_is_lost(self) -> None:
        """Between two messages, and in the middle of one, the call ends as UNAVAILABLE when its backend goes."""
        for half in (b"", b"3\r\n\x00\x00\x00\r\n"):
            road, caller = self.one()
            answered = caller.call()
            road.upstream().send(HEAD + PIECE + half)
            caller.look()
            self.assertFalse(answered.has_ended)
            road.upstream().close()
            caller.look()
            self.assertTrue(answered.body.startswith(MESSAGE))
            self.assert_ended(road, answered, 14, "upstream_reset")
            self.assertEqual(sum(road.backends[0].failures.values()), 1)

    def test_unfinished_call(self) -> None:
        """So it does while its client still talks, and the connection serves the next call."""
        road, caller = self.one()
        answered = caller.call(ended=False)
        road.upstream().send(HEAD)
        caller.look()
        road.upstream().close()
        caller.look()
        self.assert_ended(road, answered, 14, "upstream_reset")
        after = caller.call()
        road.upstream().send(trailers_only(0))
        caller.look()
        self.assertEqual(after.heads[0]["grpc-status"], "0")

    def test_nonsense(self) -> None:
        """A backend that breaks the framing of its answer is UNAVAILABLE too."""
        road, caller = self.one()
        answered = caller.call()
        road.upstream().send(HEAD + PIECE)
        caller.look()
        road.upstream().send(b"no size\r\n")
        caller.look()
        self.assert_ended(road, answered, 14, "upstream_protocol")

    def test_silence(self) -> None:
        """A stream that is silent for longer than the listener's idle may be begun anew, and its backend is not blamed."""
        road, caller = self.one()
        answered = caller.call()
        road.upstream().send(HEAD + PIECE)
        caller.look()
        caller.look(1000.0)
        self.assert_ended(road, answered, 14, "idle_timeout")
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_too_large(self) -> None:
        """A call that goes beyond what its route allows is RESOURCE_EXHAUSTED."""
        road, caller = self.one(routes=(RouteSettings("r", pool="web", body_size=20),))
        answered = caller.call(ended=False)
        road.upstream().send(HEAD + PIECE)
        caller.look()
        caller.h2.send_data(1, bytes(30))
        caller.look()
        self.assert_ended(road, answered, 8, "too_large")

    def test_behind_what_waits(self) -> None:
        """The trailers come behind all that waits for the client's window."""
        road, caller = self.one()
        caller.h2.increment_flow_control_window(1_000_000)
        answered = caller.call()
        road.upstream().send(HEAD + b"186a0\r\n" + bytes(100_000) + b"\r\n")
        caller.look()
        road.upstream().close()
        caller.look()
        self.assertEqual((len(answered.body), answered.has_ended), (65535, False))
        caller.h2.increment_flow_control_window(100_000, 1)
        caller.look()
        self.assertEqual(len(answered.body), 100_000)
        self.assert_ended(road, answered, 14, "upstream_reset")

    def test_no_call(self) -> None:
        """An answer that is none of gRPC, or whose length is known, is reset: trailers would say nothing, or belie it."""
        for head in (
            HEAD.replace(b"application/grpc", b"text/html"),
            HEAD.replace(b"200 OK", b"404 Not Found"),
            HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 100"),
        ):
            road, caller = self.one()
            answered = caller.call()
            road.upstream().send(head + (MESSAGE if b"Length" in head else PIECE))
            caller.look()
            road.upstream().close()
            caller.look()
            self.assertEqual((answered.reset, answered.trailers, answered.body), (INTERNAL, None, MESSAGE))
            (record,) = road.records
            self.assertEqual((record.reason, record.grpc_status), ("upstream_reset", None))


class H2Tests(LateCase, H2RoadCase):
    def begun(self) -> tuple[Road, Caller, Answered, H2Backend]:
        """A call whose answer has begun, with a backend that speaks HTTP/2."""
        road = self.h2_road()
        caller = Caller(road)
        answered = caller.call()
        backend = self.backend(road)
        backend.head(1, fields=[(b"content-type", b"application/grpc")])
        backend.data(1, MESSAGE)
        caller.look()
        self.assertEqual((answered.body, answered.has_ended), (MESSAGE, False))
        return road, caller, answered, backend

    def test_connection_is_lost(self) -> None:
        """A backend's connection that is lost ends its calls as UNAVAILABLE."""
        road, caller, answered, backend = self.begun()
        backend.end.close()
        caller.look()
        self.assert_ended(road, answered, 14, "upstream_reset")

    def test_reset(self) -> None:
        """A reset is passed on where its code means something to gRPC, and noted as that; others are UNAVAILABLE."""
        for code, status in ((CANCEL, 1), (CALM, 8)):
            road, caller, answered, backend = self.begun()
            backend.connection.reset_stream(1, code)
            backend.go()
            caller.look()
            self.assertEqual((answered.reset, answered.trailers), (code, None))
            self.assert_noted(road, status, "upstream_reset")
        for code in (INTERNAL, REFUSED_STREAM, 0):
            road, caller, answered, backend = self.begun()
            backend.connection.reset_stream(1, code)
            backend.go()
            caller.look()
            self.assert_ended(road, answered, 14, "upstream_reset")

    def test_end_without_status(self) -> None:
        """An answer that ends without trailers goes down as it is: what it lacks is for the client to say."""
        road, caller, answered, backend = self.begun()
        backend.data(1, b"", True)
        caller.look()
        self.assertEqual((answered.has_ended, answered.trailers), (True, None))
        self.assert_noted(road, None, "ok")


def timeouts_of(road: Road) -> list[bytes]:
    """The grpc-timeout of each request that backends of HTTP/1 have got."""
    return [
        line.partition(b": ")[2]
        for end in road.upstream_ends
        for line in end.take().split(b"\r\n")
        if line.lower().startswith(b"grpc-timeout:")
    ]


class TimeLeftTests(LateCase):
    def test_at_once(self) -> None:
        """What goes out at once says what its client has said."""
        road, caller = self.one()
        caller.call(("grpc-timeout", "5S"))
        self.assertEqual(timeouts_of(road), [b"5S"])

    def test_other_try(self) -> None:
        """Each try says what is left, in a finer unit, and another one after it as well."""
        road, caller = self.one(backends=3, pool={"retry": RetryPolicy(attempts=3, when=frozenset({"unavailable"}))})
        answered = caller.call(("grpc-timeout", "5S"))
        for seconds in (2.0, 1.0):
            caller.look(seconds)
            road.upstream().send(trailers_only(14))
            caller.look(1.0)  # beyond the pause before the next try
        road.upstream().send(trailers_only(0))
        first, *others = timeouts_of(road)
        caller.look()
        self.assertEqual((answered.heads[0]["grpc-status"], first), ("0", b"5S"))
        left = [read_timeout(each) or 0.0 for each in others]
        self.assertTrue(2.0 <= left[0] <= 3.0 and 0.0 < left[1] <= left[0] - 1.0, others)
        self.assertEqual(road.records[-1].attempts, 3)

    def test_slow_dial(self) -> None:
        """So does one that has waited for its connection."""
        road = self.road(backends=1)
        road.reactor.behaviour[9001] = HOLE
        caller = Caller(road)
        caller.call(("grpc-timeout", "500m"), ("x-other", "grpc-timeout: 500m"))
        caller.look(0.2)
        road.reactor.dials[-1].connect()
        caller.look()
        wire = road.upstream().take()
        self.assertIn(b"x-other: grpc-timeout: 500m\r\n", wire.lower())
        (said,) = [line for line in wire.split(b"\r\n") if line.lower().startswith(b"grpc-timeout: ")]
        self.assertLessEqual(read_timeout(said.partition(b": ")[2]) or 1.0, 0.3)

    def test_queue(self) -> None:
        """And one that has waited for a place, though it goes out on a connection that was there."""
        road = self.road(pool={"backends": limited(1), "queue": QueuePolicy(5, 60.0)})
        caller = Caller(road)
        caller.call()
        caller.call(("grpc-timeout", "5S"))
        self.assertEqual(timeouts_of(road), [])
        caller.look(2.0)
        road.upstream().send(trailers_only(0))
        caller.look()
        (said,) = timeouts_of(road)
        self.assertTrue(0.0 < (read_timeout(said) or 9.0) <= 3.0, said)
        self.assertEqual(len(road.upstream_ends), 1)

    def test_next_call(self) -> None:
        """The next call with the same head has all of its time."""
        road = self.road(backends=1)
        road.reactor.behaviour[9001] = HOLE
        caller = Caller(road)
        caller.call(("grpc-timeout", "500m"))
        caller.look(0.2)
        road.reactor.dials[-1].connect()
        caller.look()
        road.upstream().send(trailers_only(0))
        caller.look()
        caller.call(("grpc-timeout", "500m"))
        found = timeouts_of(road)
        self.assertEqual((len(found), found[0] != b"500m", found[1]), (2, True, b"500m"))

    def test_none_left(self) -> None:
        """A call whose time is over when it comes is told so, without a try: no backend is dialled."""
        for said in ("0n", "0S"):
            road, caller = self.one()
            answered = caller.call(("grpc-timeout", said))
            self.assertEqual((answered.heads[0]["grpc-status"], answered.has_ended), ("4", True))
            self.assertEqual((road.reactor.dials, road.records[0].attempts), ([], 0))
            self.assert_noted(road, 4, "deadline")

    def test_over_when_dialled(self) -> None:
        """One whose time is over when its connection is there says nothing on it, and the connection is kept."""
        for is_h2 in (False, True):
            road = self.road(backends=1)
            if is_h2:
                road.upstreams.multiplex(road.backends[0], None, True)
            road.reactor.behaviour[9001] = HOLE
            caller = Caller(road)
            answered = caller.call(("grpc-timeout", "500m"))
            road.reactor.advance(0.5)  # nobody has looked at deadlines yet
            road.reactor.dials[-1].connect()
            if is_h2:
                road.upstream().send(b"\0\0\0\4\0\0\0\0\0")
            caller.look()
            self.assertEqual(answered.heads[0]["grpc-status"], "4")
            self.assertNotIn(b"/shop.Orders/Get", road.upstream().take())
            self.assertTrue(road.upstream().is_open)
            self.assertEqual((road.backends[0].active, sum(road.backends[0].failures.values())), (0, 0))
            caller.call()
            self.assertEqual(len(road.upstream_ends), 1)
            self.assertIn(b"/shop.Orders/Get", road.upstream().take())

    def test_over_when_tried_again(self) -> None:
        """Another try that would come too late is none."""
        road, caller = self.one(backends=3, pool={"retry": RetryPolicy(attempts=3, when=frozenset({"unavailable"}))})
        answered = caller.call(("grpc-timeout", "5S"))
        caller.look(5.05)  # over, and nobody has looked at deadlines yet
        road.upstream().send(trailers_only(14))
        caller.look()
        self.assertEqual(answered.heads[0]["grpc-status"], "4")
        self.assertEqual((len(road.upstream_ends), road.records[0].attempts), (1, 1))

    def test_h2(self) -> None:
        """A backend of HTTP/2 is told as well."""
        case = self.road(backends=2, pool={"retry": RetryPolicy(when=frozenset({"unavailable"}))})
        for each in case.backends:
            case.upstreams.multiplex(each, None, True)
        caller = Caller(case)
        caller.call(("grpc-timeout", "2M"))
        first = H2Backend(case.upstream())
        self.assertEqual(first.requests[0][1][b"grpc-timeout"], b"2M")
        caller.look(60.0)
        first.head(1, ended=True, fields=[(b"content-type", b"application/grpc"), (b"grpc-status", b"14")])
        caller.look(1.0)
        second = H2Backend(case.upstream())
        self.assertLessEqual(read_timeout(second.requests[0][1][b"grpc-timeout"]) or 99.0, 60.0)

    def test_written_by_the_route(self) -> None:
        """A timeout that the route writes in place of the client's stays what it is."""
        edits = HeaderEdits(set=(("grpc-timeout", "7S"),))
        road = self.road(routes=(RouteSettings("r", pool="web", request_headers=edits),))
        road.reactor.behaviour[9001] = HOLE
        caller = Caller(road)
        caller.call(("grpc-timeout", "500m"))
        caller.look(0.2)
        road.reactor.dials[-1].connect()
        caller.look()
        self.assertEqual(timeouts_of(road), [b"7S"])


class WrittenTests(TestCase):
    def test_units(self) -> None:
        """The finest unit that has room for it."""
        for seconds, said in {
            0.0: b"1n", -1.0: b"1n", 0.05: b"50000000n", 0.5: b"500000u", 99.0: b"99000000u", 100.0: b"100000m",
            86400.0: b"86400000m", 99999999 * 3600.0: b"99999999H", 1e30: b"99999999H",
        }.items():  # fmt: skip
            self.assertEqual(write_timeout(seconds), said, seconds)

    @given(st.integers(1, 99_999_999), st.sampled_from(["H", "M", "S", "m", "u", "n"]), st.floats(0.0, 1.0))
    def test_what_is_left(self, number: int, unit: str, share: float) -> None:
        """What is left is a timeout again, in the same unit or a finer one, rounded up and by little."""
        whole = read_timeout(b"%d%b" % (number, unit.encode()))
        assert whole is not None
        said = write_timeout(whole * share)
        left = read_timeout(said)
        assert left is not None
        self.assertGreaterEqual(left, whole * share * (1 - 1e-12))
        self.assertLessEqual(left, whole * share * (1 + 1e-4) + 1e-9)
        self.assertLessEqual("numSMH".index(chr(said[-1])), "numSMH".index(unit))
