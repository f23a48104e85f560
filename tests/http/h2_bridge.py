"""A client of HTTP/2 on the road that asks for websockets by RFC 8441 (the h2 library's), and a backend that grants them."""

from __future__ import annotations

import re
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamReset
from h2.settings import SettingCodes

from lbsvc.http.h2_tunnel import accept_of
from tests.http.ends import Upstream
from tests.http.road import DATE, Client, Road, RoadCase

ASK = (
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":authority", "x"),
    (":path", "/chat?room=1"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "chat"),
    ("origin", "http://x"),
)
GET = ((":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
MIB = 1024 * 1024


class H2Client:
    """A client of HTTP/2 by prior knowledge, on a road's connection; what came is kept by stream."""

    def __init__(self, road: Road, *, window: int | None = None, consumes: bool = True) -> None:
        self.road = road
        self.end: Client = road.client()
        self.consumes = consumes
        self.events: list[Event] = []
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        if window is not None:
            self.connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent and hear what comes of it, until nothing moves."""
        while True:
            self.end.send(self.connection.data_to_send())
            got = self.end.take()
            if not got:
                return
            for event in self.connection.receive_data(got):
                self.events.append(event)
                if isinstance(event, DataReceived) and self.consumes and event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def ask(self, fields: tuple[tuple[str, str], ...] = ASK, ended: bool = False) -> int:
        """A new stream."""
        number = self.connection.get_next_available_stream_id()
        self.connection.send_headers(number, fields, end_stream=ended)
        self.flush()
        return number

    def send(self, number: int, data: bytes, ended: bool = False) -> None:
        """Data of a stream, in frames, as far as the windows go; they must go far enough."""
        for at in range(0, max(len(data), 1), 16384):
            last = at + 16384 >= len(data)
            self.connection.send_data(number, data[at : at + 16384], end_stream=ended and last)
            self.flush()

    def of(self, number: int, kind: Any) -> list[Any]:
        self.flush()
        return [event for event in self.events if isinstance(event, kind) and event.stream_id == number]

    def data(self, number: int) -> bytes:
        return b"".join(event.data for event in self.of(number, DataReceived))

    def head(self, number: int) -> dict[str, str]:
        (response,) = self.of(number, ResponseReceived)
        return dict(response.headers)

    def resets(self, number: int) -> list[int]:
        return [event.error_code for event in self.of(number, StreamReset)]


def key_of(sent: bytes) -> bytes:
    """The one Sec-WebSocket-Key of a request."""
    (key,) = re.findall(rb"\r\nSec-WebSocket-Key: ([^\r]*)\r\n", sent)
    return bytes(key)


def switch(key: bytes, *lines: bytes) -> bytes:
    """A backend's 101."""
    return b"".join(
        line + b"\r\n"
        for line in (
            b"HTTP/1.1 101 Switching Protocols",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Accept: " + accept_of(key),
            *lines,
            b"",
        )
    )


class BridgeCase(RoadCase):
    def joined(self, road: Road, **keys: Any) -> tuple[H2Client, int, Upstream]:
        """A client with a tunnel to a backend, its stream, and the backend's end."""
        client = H2Client(road, **keys)
        number = client.ask()
        return client, number, self.open(client, number)

    def open(self, client: H2Client, number: int) -> Upstream:
        """The backend says 101."""
        upstream = client.road.upstream()
        upstream.send(switch(key_of(upstream.take())))
        self.assertEqual(client.head(number)[":status"], "200")
        return upstream
