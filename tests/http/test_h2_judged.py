"""Conversations of HTTP/2 that the `h2` library holds with us, and judges: whatever it does not allow raises."""

from __future__ import annotations

import random
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes

from lbsvc.http.h2_server import H2ServerConnection
from tests.http.ends import End, unchunk
from tests.http.road import DATE, Road, RoadCase


class Judge(End):
    """A client that is all `h2`."""

    def __init__(self, road: Road, window: int) -> None:
        super().__init__(road)
        self.server = H2ServerConnection(road.site, "192.0.2.1")
        road.watch(self.server)
        road.clients.append(self)  # type: ignore[arg-type]  # an end like others
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, str] = {}
        self.trailers: dict[int, Any] = {}
        self.ended: set[int] = set()
        self.codes: dict[int, int] = {}
        self.unsent: dict[int, bytes] = {}
        self.wire.connect(self.wire.right, self.server)
        self.wire.connect(self.wire.left, self)
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0})
        self.say()

    def say(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[":status"]
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                self.trailers[event.stream_id] = dict(event.headers)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.codes[event.stream_id] = int(event.error_code)
        self.upload()
        self.say()

    def ask(self, method: str, path: str, body: bytes | None) -> int:
        number = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path), ("cookie", "a=b")]
        self.h2.send_headers(number, fields, end_stream=body is None)
        if body is not None:
            self.unsent[number] = body
            self.upload()
        self.say()
        return number

    def upload(self) -> None:
        """As much as the windows allow."""
        for number, body in list(self.unsent.items()):
            if number in self.codes:
                del self.unsent[number]
                continue
            while True:
                size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(body))
                if body and size <= 0:
                    break
                piece, body = body[:size], body[size:]
                self.h2.send_data(number, piece, end_stream=not body)
                if not body:
                    break
            if body:
                self.unsent[number] = body
            else:
                del self.unsent[number]


class JudgedTests(RoadCase):
    def converse(self, seed: int) -> None:
        rng = random.Random(seed)
        road = self.road(kernel=rng.choice([1000, 65536]))
        road.largest = rng.choice([100, 5000, 65536])
        client = Judge(road, rng.choice([100, 65535, 1 << 20]))
        road.run()
        expected: dict[int, tuple[str, bytes]] = {}
        for turn in range(12):
            body = rng.choice([None, b"", rng.randbytes(10), rng.randbytes(rng.randrange(200_000))])
            number = client.ask("GET" if body is None else "POST", f"/{turn}", body)
            count = len(road.upstream_ends)
            road.run()
            if rng.random() < 0.2 and number not in client.ended:
                client.h2.reset_stream(number, 8)
                client.unsent.pop(number, None)
                client.say()
                road.run()
                continue
            backend = road.upstream()
            assert len(road.upstream_ends) >= count
            got = backend.take().partition(b"\r\n\r\n")[2]
            if body is not None:
                whole = unchunk(got)
                self.assertEqual(whole[0] if whole else None, body)
            answer = rng.randbytes(rng.choice([0, 10, rng.randrange(200_000)]))
            if rng.random() < 0.5:
                wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(answer), DATE, answer)
            else:
                chunk = b"%x\r\n%b\r\n" % (len(answer), answer) if answer else b""
                wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nX-Sum: 1\r\n\r\n" % chunk
            backend.send(wire)
            expected[number] = "200", answer
        for number, (status, answer) in expected.items():
            self.assertEqual((client.statuses[number], client.bodies.get(number, b"")), (status, answer))
            self.assertIn(number, client.ended)
        client.close()

    def test_conversations(self) -> None:
        """Bodies of all sizes both ways, trailers, resets, small windows, small reads: all arrives, and all is lawful."""
        for seed in range(12):
            self.converse(seed)
