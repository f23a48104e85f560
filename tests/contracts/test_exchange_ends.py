"""How an exchange ends that does not run its course, and how it becomes a tunnel: alike for both versions of HTTP."""

from __future__ import annotations

from tests.contracts.ways import ContractCase
from tests.http.h2_bridge import H2Client, key_of, switch

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class EndTests(ContractCase):
    def test_given_up(self) -> None:
        """A client that goes, before the answer, within it, or within its own request: its backend is given up."""
        for moment, status in (("before", 499), ("within", 200), ("uploading", 499)):
            for way in self.ways():
                call = way.ask("POST" if moment == "uploading" else "GET", ended=moment != "uploading")
                served = way.served()
                self.assertNotEqual(served.request, ("", ""))
                if moment == "within":
                    served.head()
                    served.data(b"half")
                call.give_up()
                self.assertTrue(served.is_cut, (way, moment))
                self.assertEqual(way.reasons, [(status, "client_closed")], (way, moment))
                self.assertEqual(sum(way.road.backends[0].failures.values()), 0, way)

    def test_broken_answer(self) -> None:
        """A backend that goes within its answer: the client sees that it is not whole, and it is the backend's fault."""
        found = set()
        for way in self.ways():
            call = way.ask()
            served = way.served()
            served.head()
            served.data(b"half")
            served.cut()
            self.assertEqual((call.status, call.body, call.is_whole, call.is_cut), (200, b"half", False, True), way)
            (record,) = way.road.records
            found.add((record.status, record.reason, sum(way.road.backends[0].failures.values())))
        self.assertEqual(len(found), 1, found)

    def test_drain(self) -> None:
        """What is under way is finished, and then the connection is."""
        for way in self.ways():
            call = way.ask("POST", ended=False)
            served = way.served()
            served.head()
            served.data(b"one")
            way.road.site.drain()
            way.road.run(1)
            call.data(b"x", True)
            served.data(b"two")
            self.assertEqual((served.body, served.has_ended), (b"x", True), way)
            served.finish()
            self.assertEqual((call.body, call.is_whole), (b"onetwo", True), way)
            way.road.run(12)
            self.assertFalse(call.is_connected, way)
            self.assertEqual(way.reasons, [(200, "ok")], way)
            self.assertFalse(way.road.site.connections, way)

    def test_drain_is_over(self) -> None:
        """What is still under way at a drain's end is cut, and logged so."""
        for way in self.ways():
            call = way.ask()
            served = way.served()
            served.head()
            served.data(b"one")
            way.road.site.drain()
            way.road.run(1)
            way.road.site.abort()
            way.road.run(3)
            self.assertFalse(call.is_whole or call.is_connected, way)
            self.assertEqual([reason for _, reason in way.reasons], ["killed"], way)
            self.assertTrue(served.is_cut, way)


class WebsocketTests(ContractCase):
    def test_granted(self) -> None:
        """A backend of HTTP/1 grants it: bytes both ways, FIN for FIN, one record."""
        road = self.road()
        client = road.client()
        client.send(UPGRADE)
        upstream = road.upstream()
        upstream.send(switch(key_of(upstream.take())))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 101 "))
        client.send(b"ping")
        upstream.send(b"pong")
        self.assertEqual((upstream.take(), client.take()), (b"ping", b"pong"))
        client.finish()
        self.assertTrue(upstream.was_finished)
        upstream.finish()
        other = self.road()
        bridge = H2Client(other)
        number = bridge.ask()
        upstream = other.upstream()
        upstream.send(switch(key_of(upstream.take())))
        self.assertEqual(bridge.head(number)[":status"], "200")
        bridge.send(number, b"ping")
        upstream.send(b"pong")
        self.assertEqual((upstream.take(), bridge.data(number)), (b"ping", b"pong"))
        bridge.send(number, b"", ended=True)
        self.assertTrue(upstream.was_finished)
        upstream.finish()
        for each, status in ((road, 101), (other, 200)):
            self.assertEqual([(r.status, r.reason) for r in each.records], [(status, "ok")])

    def test_not_by_http2(self) -> None:
        """A backend of HTTP/2 alone is not asked: 501 for clients of both versions, and no fault of the backend."""
        plain, multiplexed = self.way(False, True).road, self.way(True, True).road
        client = plain.client()
        client.send(UPGRADE)
        self.assertEqual(client.answer().status, 501)
        bridge = H2Client(multiplexed)
        self.assertEqual(bridge.head(bridge.ask())[":status"], "501")
        for road in (plain, multiplexed):
            self.assertEqual([(r.status, r.reason) for r in road.records], [(501, "bad_request")])
            self.assertEqual(road.records[0].attempts, 0)
            self.assertEqual((road.upstream_ends, sum(road.backends[0].failures.values())), ([], 0))
