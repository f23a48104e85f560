"""The handshake of a websocket over HTTP/2 (RFC 8441) on the road: how it is asked for, and what the backend sees."""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.events import StreamEnded
from h2.settings import SettingCodes

from lbsvc.config.schema import HeaderEdits, Match, Respond, RouteSettings
from lbsvc.http.h2_tunnel import accept_of
from tests.http.h2_bridge import ASK, GET, OK, BridgeCase, H2Client, key_of, switch


class HandshakeTests(BridgeCase):
    def test_accept(self) -> None:
        """The example of RFC 6455, 1.3."""
        self.assertEqual(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

    def test_offer(self) -> None:
        """Clients are told that they may ask (RFC 8441, 3)."""
        client = H2Client(self.road())
        self.assertEqual(client.connection.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL], 1)

    def test_bridge(self) -> None:
        """The backend gets an upgrade of HTTP/1.1 with a key of ours; the client gets 200, and no field of HTTP/1."""
        road = self.road(listener={"expose_backend": True})
        client = H2Client(road)
        number = client.ask((*ASK, ("sec-websocket-key", "theirs"), ("sec-websocket-accept", "theirs")))
        sent = road.upstream().take()
        self.assertTrue(sent.startswith(b"GET /chat?room=1 HTTP/1.1\r\nHost: x\r\n"), sent)
        for line in (
            b"\r\nConnection: upgrade\r\n",
            b"\r\nUpgrade: websocket\r\n",
            b"\r\nsec-websocket-version: 13\r\n",
            b"\r\nsec-websocket-protocol: chat\r\n",
            b"\r\norigin: http://x\r\n",
            b"\r\nVia: 2.0 lbsvc\r\n",
            b"\r\nX-Request-Id: ",
        ):
            self.assertEqual(sent.count(line), 1, sent)
        for word in (b"theirs", b"Transfer-Encoding", b":protocol"):
            self.assertNotIn(word, sent)
        self.assertEqual(len(key_of(sent)), 24)
        road.upstream().send(switch(key_of(sent), b"Sec-WebSocket-Protocol: chat") + b"first")
        head = client.head(number)
        self.assertEqual((head[":status"], head["sec-websocket-protocol"], head["x-backend"]), ("200", "chat", "b9001"))
        self.assertIn("x-request-id", head)
        self.assertEqual({"connection", "upgrade", "sec-websocket-accept", "content-length"} & set(head), set())
        self.assertEqual(client.data(number), b"first")
        client.send(number, b"GET / HTTP/1.1\r\n\x00\x81")
        self.assertEqual(road.upstream().take(), b"GET / HTTP/1.1\r\n\x00\x81")
        road.upstream().send(b"\x00HTTP/1.1 ")
        self.assertEqual(client.data(number), b"first\x00HTTP/1.1 ")

    def test_keys_differ(self) -> None:
        """The same request again has another key."""
        road = self.road()
        client = H2Client(road)
        keys = []
        for _ in range(3):
            client.ask()
            keys.append(key_of(road.upstream().take()))
        self.assertEqual(len(set(keys)), 3)

    def test_wrong_accept(self) -> None:
        """A 101 to another key, or to none, is nonsense: 502, and no tunnel."""
        for line in (b"Sec-WebSocket-Accept: " + accept_of(b"x"), b"Sec-WebSocket-Accept: ", b"X-A: b"):
            road = self.road()
            client = H2Client(road)
            number = client.ask()
            lines = switch(key_of(road.upstream().take())).split(b"\r\n")
            lines[3] = line
            road.upstream().send(b"\r\n".join(lines))
            self.assertEqual(client.head(number)[":status"], "502")
            self.assertEqual((road.site.relays, road.records[0].reason), (set(), "upstream_protocol"))
            self.assertFalse(road.upstream().is_open)

    def test_refusal(self) -> None:
        """A backend that refuses is heard, and the stream is over; its connections go on, on both sides."""
        road = self.road()
        client = H2Client(road)
        number = client.ask()
        client.send(number, b"early")
        road.upstream().send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual((client.head(number)[":status"], client.data(number)), ("403", b"no"))
        self.assertEqual(len(client.of(number, StreamEnded)), 1)
        road.run(6)
        self.assertEqual(client.resets(number), [ErrorCodes.NO_ERROR])
        self.assertNotIn(b"early", road.upstream().take())
        number = client.ask(GET, True)
        road.upstream().send(OK)
        self.assertEqual((client.data(number), len(road.upstream_ends)), (b"ok", 1))

    def test_success_without_switch(self) -> None:
        """What would tell the client that the tunnel is open, and is not one, is 502, and the backend's fault."""
        for answer in (
            OK,
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ):
            road = self.road()
            client = H2Client(road)
            number = client.ask()
            road.upstream().send(answer)
            self.assertEqual(client.head(number)[":status"], "502")
            self.assertEqual((road.records[0].status, road.records[0].reason), (502, "upstream_protocol"))

    def test_success_of_ours(self) -> None:
        """So is a route's own answer, which is none to a websocket: 501; its refusals stay what they are."""
        road = self.road(own="text", routes=(RouteSettings("no", Match(path="/no"), respond=Respond(404, "no")),))
        client = H2Client(road)
        number = client.ask((*ASK[:4], (":path", "/own/a")))
        self.assertEqual(client.head(number)[":status"], "501")
        number = client.ask((*ASK[:4], (":path", "/no")))
        self.assertEqual((client.head(number)[":status"], client.data(number)), ("404", b"no"))

    def test_unlawful(self) -> None:
        """Other protocols are 501; what RFC 8441 does not allow is reset, and no backend hears of any of it."""
        for fields, said in (
            ((ASK[0], (":protocol", "h2c"), *ASK[2:]), "501"),
            ((ASK[0], (":protocol", "connect-udp"), *ASK[2:]), "501"),
            ((ASK[0], ASK[3]), "501"),
            (((":method", "GET"), *ASK[1:]), ""),
            ((*ASK[:2], *ASK[3:]), ""),
            (ASK[:4], ""),
            ((*ASK, ("content-length", "5")), ""),
            ((*ASK, ("upgrade", "websocket")), ""),
        ):
            road = self.road()
            client = H2Client(road)
            client.connection.config.validate_outbound_headers = False
            client.connection.config.normalize_outbound_headers = False
            number = client.ask(fields)
            if said:
                self.assertEqual(client.head(number)[":status"], said, fields)
            else:
                self.assertEqual(client.resets(number), [ErrorCodes.PROTOCOL_ERROR], fields)
            self.assertEqual(road.upstream_ends, [])

    def test_retry(self) -> None:
        """A handshake that never reached a backend is tried on another; what came early goes with it."""
        road = self.road(2)
        road.reactor.behaviour = {9001: "refused"}
        client = H2Client(road)
        number = client.ask()
        client.send(number, b"early")
        upstream = self.open(client, number)
        self.assertEqual((upstream.port, upstream.take()), (9002, b"early"))

    def test_early_bytes(self) -> None:
        """What comes before the switch waits, goes first, and its window is given back then; END_STREAM goes behind it."""
        for ended in (False, True):
            road = self.road()
            client = H2Client(road)
            number = client.ask()
            client.send(number, b"e" * 65535, ended)
            if not ended:
                self.assertEqual(client.connection.local_flow_control_window(number), 0)
            upstream = self.open(client, number)
            self.assertEqual(upstream.take(), b"e" * 65535)
            self.assertEqual(upstream.was_finished, ended)
            if not ended:
                client.send(number, b"late")
                self.assertEqual(upstream.take(), b"late")
            else:
                upstream.send(b"answer")
                upstream.close()
                self.assertEqual((client.data(number), client.resets(number)), (b"answer", []))
                self.assertEqual(road.records[0].reason, "ok")

    def test_ended_at_once(self) -> None:
        """A client that has nothing to say may listen."""
        road = self.road()
        client = H2Client(road)
        number = client.ask(ended=True)
        upstream = self.open(client, number)
        self.assertTrue(upstream.was_finished)
        upstream.send(b"answer")
        upstream.close()
        self.assertEqual(client.data(number), b"answer")

    def test_edits(self) -> None:
        """A route's edits of answers hold for the 200 too."""
        edits = HeaderEdits(set=(("X-A", "b"),), remove=("server",))
        road = self.road(routes=(RouteSettings("e", pool="web", response_headers=edits),))
        client = H2Client(road)
        number = client.ask()
        road.upstream().send(switch(key_of(road.upstream().take()), b"Server: s"))
        head = client.head(number)
        self.assertEqual((head.get("x-a"), head.get("server")), ("b", None))

    def test_client_goes_before_the_answer(self) -> None:
        """A reset while the backend thinks: it is cut, and what came early counts against no window any more."""
        road = self.road()
        client = H2Client(road)
        for _ in range(8):  # twice the connection's window in all
            number = client.ask()
            client.send(number, b"e" * 60000)
            client.connection.reset_stream(number, ErrorCodes.CANCEL)
            client.flush()
            self.assertTrue(road.upstream().was_reset)
        self.assertEqual({record.reason for record in road.records}, {"client_closed"})
