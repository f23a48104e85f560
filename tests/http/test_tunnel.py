"""Upgrades on the road: who may ask, what is passed on, and how a tunnel ends."""

from __future__ import annotations

from lbsvc.config.schema import HeaderEdits, RouteSettings
from tests.http.road import DATE, Client, Road, RoadCase, timeouts

ASK = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class TunnelTests(RoadCase):
    def joined(self, road: Road) -> Client:
        """A client with a tunnel to the first backend."""
        client = road.client()
        client.send(ASK)
        road.upstream().take()
        road.upstream().send(SWITCH)
        head, _, rest = client.take().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertEqual(rest, b"")
        return client

    def test_switch(self) -> None:
        """Both heads carry Connection and Upgrade, once, and what belongs to the new protocol; then bytes go both ways."""
        road = self.road(listener={"expose_backend": True})
        client = road.client()
        client.send(ASK)
        sent = road.upstream().take()
        for line in (
            b"Connection: upgrade\r\n",
            b"Upgrade: websocket\r\n",
            b"Sec-WebSocket-Key: k\r\n",
            b"X-Request-Id: ",
        ):
            self.assertEqual(sent.count(line), 1, sent)
        road.upstream().send(SWITCH + b"first")
        head, _, rest = client.take().partition(b"\r\n\r\n")
        for line in (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Accept: a", b"X-Backend: b9001"):
            self.assertIn(line, head.split(b"\r\n"))
        self.assertEqual(rest, b"first")
        client.send(b"GET / HTTP/1.1\r\n\x00\x81")
        self.assertEqual(road.upstream().take(), b"GET / HTTP/1.1\r\n\x00\x81")
        road.upstream().send(b"\x00HTTP/1.1 ")
        self.assertEqual(client.take(), b"\x00HTTP/1.1 ")

    def test_end(self) -> None:
        """The tunnel's end is the exchange's: one record with status 101 and the bytes of both directions, one count."""
        road = self.road()
        client = self.joined(road)
        self.assertEqual((road.books.in_flight, road.backends[0].active, road.records), (1, 1, []))
        client.send(b"x" * 1000)
        road.upstream().send(b"y" * 2000)
        client.close()
        road.upstream().close()
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.bytes_in), (101, "ok", len(ASK) + 1000))
        self.assertGreater(record.bytes_out, 2000)
        self.assertEqual((road.books.in_flight, road.backends[0].active, road.site.relays), (0, 0, set()))
        road.site.count()
        self.assertEqual(road.books.bytes_in, len(ASK) + 1000)

    def test_early_bytes(self) -> None:
        """What a client sends right behind its request is kept until the switch, and then goes first."""
        road = self.road()
        client = road.client()
        client.send(ASK + b"early")
        client.send(b" bytes")
        self.assertTrue(road.upstream().take().endswith(b"\r\n\r\n"))
        road.upstream().send(SWITCH)
        client.send(b" and late ones")
        self.assertEqual(road.upstream().take(), b"early bytes and late ones")

    def test_refusal(self) -> None:
        """A backend that does not switch has answered; the connection goes on with HTTP, and so does what was pipelined."""
        road = self.road()
        client = road.client()
        client.send(ASK + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        road.upstream().take()
        road.upstream().send(OK)
        self.assertTrue(road.upstream().take().startswith(b"GET /next "))
        road.upstream().send(OK)
        self.assertEqual([answer.status for answer in client.answers()], [200, 200])

    def test_other_protocols(self) -> None:
        """Only websocket is passed on, and only by GET of HTTP/1.1 with both fields and without a body."""
        for request in (
            ASK.replace(b"websocket", b"h2c"),
            ASK.replace(b"Connection: Upgrade\r\n", b""),
            ASK.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
            ASK.replace(b"Upgrade: websocket\r\n", b""),
            ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
            ASK.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
            ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
        ):
            road = self.road()
            client = road.client()
            client.send(request)
            sent = road.upstream().take().lower()
            self.assertNotIn(b"upgrade", sent, request)
            road.upstream().send(SWITCH)
            self.assertEqual(client.answer().status, 502, request)

    def test_half_switch(self) -> None:
        """A 101 that does not name the protocol is nonsense: 502, and no tunnel."""
        for answer in (
            SWITCH.replace(b"Upgrade: websocket\r\n", b""),
            SWITCH.replace(b"Connection: Upgrade\r\n", b""),
            SWITCH.replace(b"websocket", b"h2c"),
        ):
            road = self.road()
            client = road.client()
            client.send(ASK)
            road.upstream().send(answer)
            self.assertEqual((client.answer().status, road.site.relays), (502, set()))

    def test_idle(self) -> None:
        """Silence in both directions ends it after `idle`; the route's timeout ends with the switch."""
        road = self.road(listener=timeouts(idle=20), routes=(RouteSettings("t", pool="web", timeout=2),))
        client = self.joined(road)
        for _ in range(5):
            road.run(10)
            client.send(b"x")
        self.assertTrue(client.is_open)
        road.run(30)
        self.assertFalse(client.is_open)
        self.assertEqual(road.records[0].reason, "idle_timeout")

    def test_idle_after_traffic(self) -> None:
        """What moved at the beginning does not make the silence after it count twice."""
        road = self.road(listener=timeouts(idle=20))
        client = self.joined(road)
        road.run(1)
        client.send(b"x")
        road.run(24)
        self.assertEqual([record.reason for record in road.records], ["idle_timeout"])

    def test_upgrade_required(self) -> None:
        """A 426 says to what (RFC 9110, 15.5.22)."""
        road = self.road()
        client = road.client()
        client.send(ASK)
        road.upstream().send(
            b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual(client.answer().headers[b"upgrade"], b"websocket")

    def test_back_pressure(self) -> None:
        """A side that does not read stops the other; nothing is lost when it reads on."""
        for stalls_client in (True, False):
            road = self.road()
            client = self.joined(road)
            reader, writer = (client, road.upstream()) if stalls_client else (road.upstream(), client)
            reader.stop_reading()
            writer.send(b"z" * 2_000_000)
            writer_end = writer.wire.left if writer.transport is writer.wire.right else writer.wire.right
            self.assertFalse(writer_end.reading)
            reader.read_on()
            self.assertEqual(len(reader.take()), 2_000_000)

    def test_stalled_switch(self) -> None:
        """A client that does not even read the 101 holds up the backend, until it reads."""
        road = self.road(kernel=64)
        client = road.client()
        client.stop_reading()
        client.send(ASK)
        road.upstream().send(SWITCH)
        road.upstream().send(b"z" * 500_000)
        client.read_on()
        self.assertEqual(client.take().count(b"z"), 500_000)

    def test_half_close(self) -> None:
        """The end of one side's sending is passed on; the other may finish."""
        road = self.road()
        client = self.joined(road)
        client.send(b"last")
        client.finish()
        self.assertTrue(road.upstream().was_finished)
        road.upstream().send(b"word")
        self.assertEqual(client.take(), b"word")
        road.upstream().close()
        self.assertEqual(road.records[0].reason, "ok")

    def test_resets(self) -> None:
        """A reset of either side is passed on, and called by its name; a client that goes is not the backend's fault."""
        road = self.road()
        client = self.joined(road)
        road.upstream().reset()
        self.assertTrue(client.was_reset)
        self.assertEqual(road.records[-1].reason, "upstream_reset")
        road = self.road()
        client = self.joined(road)
        client.reset()
        self.assertTrue(road.upstream().was_reset)
        self.assertEqual(road.records[-1].reason, "client_closed")
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_drain(self) -> None:
        """A drain lets it go on, counted as open; the drain's end cuts it."""
        road = self.road()
        client = self.joined(road)
        road.site.drain()
        client.send(b"on")
        self.assertEqual(road.upstream().take(), b"on")
        road.site.abort()
        road.run()
        self.assertFalse(client.is_open)
        self.assertEqual(road.records[0].reason, "killed")

    def test_retry(self) -> None:
        """A handshake that never reached a backend is tried on another."""
        road = self.road(2)
        road.reactor.behaviour = {9001: "refused"}
        client = self.joined(road)
        client.send(b"x")
        self.assertEqual((road.upstream().port, road.upstream().take()), (9002, b"x"))

    def test_edits(self) -> None:
        """A route's edits of answers hold for the 101 too."""
        road = self.road(
            routes=(
                RouteSettings("e", pool="web", response_headers=HeaderEdits(set=(("X-A", "b"),), remove=("server",))),
            )
        )
        client = road.client()
        client.send(ASK)
        road.upstream().send(SWITCH.replace(b"\r\n\r\n", b"\r\nServer: s\r\n\r\n"))
        head = client.take()
        self.assertIn(b"X-A: b\r\n", head)
        self.assertNotIn(b"Server", head)
