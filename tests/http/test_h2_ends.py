"""How connections of HTTP/2 begin and end: by the preface, by deadlines, in a drain, one too many."""

from __future__ import annotations

from hyperframe.frame import PingFrame, SettingsFrame

from lbsvc.core.clients import Surplus
from lbsvc.http.h2_leaving import GRACE
from tests.http.h2_road import PREFACE, H2Client, head
from tests.http.road import DATE, RoadCase, timeouts

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
MIB = 1024 * 1024


class EndTests(RoadCase):
    def test_given_up(self) -> None:
        """A stream that its client resets is over: its backend's connection is cut, the log says client_closed."""
        road = self.road()
        client = H2Client(road)
        client.request()
        client.rst()
        self.assertFalse(road.upstream().is_open)
        self.assertEqual([(r.status, r.reason) for r in road.records], [(499, "client_closed")])
        client.request()
        road.upstream().send(OK)
        self.assertTrue(client.is_open)

    def test_backend_dies(self) -> None:
        """Before its head: 502. Within its answer: the stream is reset with INTERNAL_ERROR, and only that."""
        road = self.road()
        client = H2Client(road)
        early = client.request(head("POST"))
        road.upstream().reset()
        self.assertEqual((early.status, early.has_ended), (502, True))
        late = client.request()
        road.upstream().send(OK[:-1])
        road.upstream().reset()
        self.assertEqual((late.status, late.code, late.has_ended), (200, 2, False))
        self.assertEqual(client.goaways, [])

    def test_drain(self) -> None:
        """GOAWAY twice, streams that began before the second are answered, then the connection ends."""
        road = self.road()
        client = H2Client(road)
        client.answers_pings = False
        first = client.request()
        road.site.drain()
        road.run()
        self.assertEqual(client.goaways, [(0x7FFFFFFF, 0)])
        late = client.request(head("GET", "/late"))
        client.send(PingFrame(0, client.pings[-1], flags=["ACK"]).serialize())
        self.assertEqual(client.goaways[1:], [(3, 0)])
        ignored = client.request(head("POST", "/ignored"), ended=False)
        client.data(b"x", True)
        for each in range(2):
            self.assertTrue(client.is_open)
            self.assertFalse(client.was_finished)
            road.upstream(each).send(OK)
        self.assertEqual((first.status, late.status, ignored.fields), (200, 200, []))
        self.assertTrue(client.was_finished)
        self.assertEqual(len(road.upstream_ends), 2)

    def test_drain_without_answer(self) -> None:
        """A client that does not answer our PING is told the last number after GRACE, though it begins streams."""
        road = self.road()
        client = H2Client(road)
        client.answers_pings = False
        road.site.drain()
        client.request()
        road.run(GRACE + 0.5)
        self.assertEqual(client.goaways, [(0x7FFFFFFF, 0), (1, 0)])
        road.upstream().send(OK)
        self.assertTrue(client.was_finished)

    def test_drain_idle(self) -> None:
        """An idle connection ends; what is cut at the end of a drain is logged as killed."""
        road = self.road()
        idle, busy = H2Client(road), H2Client(road)
        busy.request()
        road.site.drain()
        road.run()
        self.assertTrue(idle.was_finished)
        road.site.abort()
        road.run()
        self.assertEqual([record.reason for record in road.records], ["killed"])

    def test_finished(self) -> None:
        """A client that has finished sending gets the answers to what was whole; the rest is over."""
        road = self.road()
        client = H2Client(road)
        whole = client.request()
        client.request(head("POST"), ended=False)
        client.finish()
        self.assertEqual([record.reason for record in road.records], ["client_closed"])
        road.upstream(0).send(OK)
        self.assertEqual(whole.body, b"ok")
        self.assertFalse(client.is_open)

    def test_client_leaves(self) -> None:
        """A connection that is lost ends all of its streams."""
        road = self.road()
        client = H2Client(road)
        client.request()
        client.request()
        client.reset()
        self.assertEqual([record.reason for record in road.records], ["client_closed"] * 2)


class DeadlineTests(RoadCase):
    def test_idle(self) -> None:
        """An idle connection is told to go after `keep_alive`, also after a request."""
        for asks in (False, True):
            road = self.road(listener=timeouts(keep_alive=3.0))
            client = H2Client(road)
            if asks:
                client.request()
                road.run(5)
                self.assertEqual(client.goaways, [])
                road.upstream().send(OK)
            road.run(4)
            self.assertEqual(client.goaways, [(1 if asks else 0, 0)])
            self.assertTrue(client.was_finished)

    def test_header(self) -> None:
        """A header section that does not come in time ends the connection, and is logged as a 408."""
        road = self.road(listener=timeouts(request_header=2.0))
        client = H2Client(road)
        for byte in client.headers(head())[:-3]:
            client.send(bytes([byte]))
            road.run(0.1)
        road.run(2)
        self.assertEqual([code for _, code in client.goaways], [1])
        self.assertEqual([(r.status, r.reason) for r in road.records], [(408, "client_timeout")])

    def test_header_behind_another(self) -> None:
        """Each header section has a deadline of its own, also where one begins with the end of another."""
        road = self.road(listener=timeouts(request_header=2.0, keep_alive=60.0))
        client = H2Client(road)
        client.is_greedy = False  # nothing else is said
        first, second = client.headers(head()), client.headers(head("GET", "/b"))
        client.send(first[:-3])
        client.send(first[-3:] + second[:-3])
        road.upstream().send(OK)
        road.run(3)
        self.assertEqual([(r.status, r.reason) for r in road.records], [(200, "ok"), (408, "client_timeout")])
        self.assertTrue(client.was_finished)

    def test_header_is_absolute(self) -> None:
        """Neither the bytes of a header section nor the answers of other streams, nor a malformed one, move its deadline."""
        for first in (head(), [*head(), ("Upper", "case")]):
            road = self.road(listener=timeouts(request_header=2.0, keep_alive=60.0))
            client = H2Client(road)
            client.is_greedy = False
            whole, slow = client.headers(first), client.headers(head("GET", "/slow" * 9))
            client.send(whole + slow[:10])
            for byte in slow[10:16]:
                road.run(0.3)
                client.send(bytes([byte]))
            if first == head():
                road.upstream().send(OK)
            road.run(1.0)
            self.assertEqual(road.records[-1].status, 408)
            self.assertTrue(client.was_finished)

    def test_long_upload(self) -> None:
        """A body may take longer than `request_header`, wherever its frames are cut."""
        road = self.road(listener=timeouts(request_header=1.0, request_body=2.0))
        client = H2Client(road)
        said = client.request(head("POST"), ended=False)
        frame = bytes.fromhex("000400000000000001") + b"x" * 1024
        client.send(frame[:500])
        for _ in range(10):
            client.send(frame[500:] + frame[:500])
            road.run(1)
        client.send(frame[500:])
        client.data(b"", True)
        road.upstream().send(OK)
        self.assertEqual(said.status, 200)

    def test_body(self) -> None:
        """Silence inside a body: 408 on its stream, and only there."""
        road = self.road(listener=timeouts(request_body=2.0))
        client = H2Client(road)
        other = client.request()
        said = client.request(head("POST"), ended=False)
        road.run(3)
        self.assertEqual((said.status, said.has_ended), (408, True))
        road.upstream(0).send(OK)
        self.assertEqual(other.status, 200)


class SurplusTests(RoadCase):
    def test_refused(self) -> None:
        """One connection too many: its first request is answered 429, and it ends; by ALPN, and by the preface."""
        for is_plain in (False, True):
            road = self.road()
            told: list[object] = []
            road.site.on_close = told.append
            client = H2Client(road, Surplus("192.0.2.1"), is_plain=is_plain, is_surplus=True)
            said = client.request(head("POST"), ended=False)
            self.assertEqual((said.status, said.headers["retry-after"], said.has_ended), (429, "1", True))
            client.data(b"x", True)
            self.assertEqual(client.goaways, [(1, 0)])
            self.assertTrue(client.was_finished)
            client.close()
            self.assertEqual([type(each) for each in told], [Surplus])
            (record,) = road.records
            self.assertEqual((record.status, record.reason, type(record.peer)), (429, "rate_limited", str))
            self.assertEqual(road.reactor.dials, [])

    def test_silent(self) -> None:
        """One that asks for nothing is told to go after a second, and counted."""
        road = self.road()
        client = H2Client(road, Surplus("192.0.2.1"))
        road.run(1.5)
        self.assertEqual(client.goaways, [(0, 11)])
        self.assertEqual([(r.status, r.reason) for r in road.records], [(429, "rate_limited")])


class PrefaceTests(RoadCase):
    def test_in_pieces(self) -> None:
        """A plain connection that begins with the preface is HTTP/2's, however it is cut."""
        for size in (1, 5, 1000):
            road = self.road()
            client = H2Client(road, is_plain=True, greets=False)
            wire = PREFACE + SettingsFrame(0).serialize() + client.headers(head())
            for at in range(0, len(wire), size):
                client.send(wire[at : at + size])
            road.upstream().send(OK)
            self.assertEqual(client.streams[1].body, b"ok")
            self.assertGreater(road.books.bytes_in, len(wire) - 1)

    def test_look_alike(self) -> None:
        """What looks like it for a while is HTTP/1, from its first byte."""
        road = self.road()
        client = road.client()
        for byte in b"PRINT /a HTTP/1.1\r\nHost: x\r\n\r\n":
            client.send(bytes([byte]))
        self.assertEqual(client.answer().status, 501)
        road = self.road()
        client = road.client()
        for byte in b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":
            client.send(bytes([byte]))
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_draining(self) -> None:
        """A connection that begins in a drain may have its first requests."""
        road = self.road()
        road.site.is_draining = True
        client = H2Client(road, is_plain=True)
        road.run()
        self.assertTrue(client.was_finished or client.goaways)
