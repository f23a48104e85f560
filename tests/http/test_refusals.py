"""Connections of HTTP/2 that end since their client is at fault: what the event log, the books and the access log say."""

from __future__ import annotations

from typing import Any

from hyperframe.frame import PingFrame
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_frames import ConnectionFault, code_word
from lbsvc.http.refusals import Refusals
from tests.http.h2_road import H2Client, head
from tests.http.road import Road, RoadCase, timeouts

#: A PING of another size.
BROKEN = wire.frame(wire.PING, 0, 0, b"short")


class Events:
    """An event log."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, dict[str, Any]]] = []

    def tell(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.told.append((level, event, message, fields))


class RefusalTests(TestCase):
    def test_once_a_second(self) -> None:
        """The first is told at once; those of a second are told with the next one after it, as a number."""
        clock, events = Clock(), Events()
        refusals = Refusals("main", clock.seconds, events.tell)
        fault = ConnectionFault(wire.ENHANCE_YOUR_CALM, "too many x")
        for _ in range(3):
            refusals.add("192.0.2.1", "bad_request", fault)
        clock.advance(1)
        refusals.add("192.0.2.2", "bad_request", fault)
        clock.advance(1)
        refusals.add("192.0.2.3", "bad_request", fault)
        start = "bad_request: ENHANCE_YOUR_CALM: too many x"
        self.assertEqual(
            [message for _, _, message, _ in events.told],
            [
                f"main: 192.0.2.1: {start}",
                f"main: 192.0.2.2: {start} (2 more since the last time)",
                f"main: 192.0.2.3: {start}",
            ],
        )
        self.assertEqual([fields["more"] for *_, fields in events.told], [0, 2, 0])

    def test_words(self) -> None:
        """Codes are called as the RFC calls them, and those that it does not know by their number."""
        self.assertEqual(
            [code_word(code) for code in (0, wire.CANCEL, wire.ENHANCE_YOUR_CALM, wire.HTTP_1_1_REQUIRED, 14)],
            ["NO_ERROR", "CANCEL", "ENHANCE_YOUR_CALM", "HTTP_1_1_REQUIRED", "14"],
        )


class ConnectionTests(RoadCase):
    def told(self, road: Road) -> Events:
        events = Events()
        road.site.refusals = Refusals("main", road.site.seconds, events.tell)
        return events

    def assert_told(self, events: Events, reason: str, code: str, detail: str) -> None:
        (said,) = events.told
        fields = {
            "listener": "main", "client": "192.0.2.1", "reason": reason, "code": code, "detail": detail, "more": 0,
        }  # fmt: skip
        self.assertEqual(said, ("info", "connection.refused", f"main: 192.0.2.1: {reason}: {code}: {detail}", fields))

    def test_flood(self) -> None:
        """A flood is told of with its code, and counted; what was under way ends for the same reason, not its client's."""
        road = self.road()
        events = self.told(road)
        client = H2Client(road)
        client.request()
        client.send(PingFrame(0, b"12345678").serialize() * 1200)
        self.assertEqual([code for _, code in client.goaways], [wire.ENHANCE_YOUR_CALM])
        self.assert_told(events, "bad_request", "ENHANCE_YOUR_CALM", "too many frames that ask for nothing")
        self.assertEqual(
            sorted((each.status, each.reason) for each in road.records), [(400, "bad_request"), (499, "bad_request")]
        )
        self.assertEqual(road.books.terminations["bad_request"], 2)
        self.assertEqual(sum(road.books.rejected.values()), 0)
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_protocol_fault(self) -> None:
        """So is a frame that may not be, on a connection without streams too."""
        road = self.road()
        events = self.told(road)
        client = H2Client(road)
        client.send(BROKEN)
        self.assert_told(events, "bad_request", "FRAME_SIZE_ERROR", "a PING of another size")
        self.assertEqual(road.books.terminations, {"bad_request": 1})

    def test_rapid_reset(self) -> None:
        """Streams that are given up before the flood is one are their client's; the connection is ours to end."""
        road = self.road()
        events = self.told(road)
        client = H2Client(road)
        for _ in range(220):
            client.transport.write(client.headers(head()) + wire.rst_stream(client.last, 8))
        road.run()
        self.assert_told(
            events, "bad_request", "ENHANCE_YOUR_CALM", "too many streams that end before they are answered"
        )
        self.assertEqual({each.reason for each in road.records}, {"client_closed", "bad_request"})

    def test_head_in_pieces(self) -> None:
        """A header section that does not come in time ends the connection for that reason, and what was under way."""
        road = self.road(listener=timeouts(request_header=2))
        events = self.told(road)
        client = H2Client(road)
        client.request()
        client.send(client.headers(head())[:-2])
        road.run(5)
        self.assert_told(events, "client_timeout", "PROTOCOL_ERROR", "a header section that did not come in time")
        self.assertEqual(
            sorted((each.status, each.reason) for each in road.records),
            [(408, "client_timeout"), (499, "client_timeout")],
        )

    def test_lawful_ends(self) -> None:
        """Nothing is told of clients that go, of streams that are reset, of drains, or of what we cut."""
        road = self.road()
        events = self.told(road)
        clients = [H2Client(road) for _ in range(3)]
        for client in clients:
            client.request()
        clients[0].rst()
        clients[0].request([(":method", "GET"), (":scheme", "http"), (":path", "/a"), ("Bad", "x")])
        clients[1].close()
        road.site.drain()
        road.run(2)
        road.site.abort()
        road.run()
        self.assertEqual(events.told, [])


class MalformedTests(RoadCase):
    def test_logged(self) -> None:
        """A request that is reset as it is is logged with its method, host and path, where these can be read."""
        for fields, expected in (
            (head("PUT", "/p?q=1", ("connection", "close")), (b"PUT", b"x", b"/p?q=1")),
            (head("GET", "/a", ("host", "y")), (b"GET", None, b"/a")),
            (head("GET", "/a", (":path", "/b")), (None, b"x", None)),
            (head()[1:], (None, b"x", None)),
        ):
            road = self.road()
            said = H2Client(road).request(fields)
            self.assertEqual(said.code, wire.PROTOCOL_ERROR)
            (record,) = road.records
            self.assertEqual((record.status, record.reason), (400, "bad_request"))
            self.assertEqual((record.method, record.host, record.target), expected)

    def test_refused(self) -> None:
        """So is one that is answered, though nobody may do what it asks for."""
        road = self.road()
        said = H2Client(road).request(head("BREW", "/pot"))
        self.assertEqual(said.status, 501)
        (record,) = road.records
        self.assertEqual((record.status, record.method, record.host, record.target), (501, b"BREW", b"x", b"/pot"))
        self.assertEqual(road.requests, {(b"other", 501): 1})
