"""A backend of HTTP/2 on the road in memory: the h2 library in the server's role behind a wire's end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes

from tests.http.ends import Upstream
from tests.http.road import Road, RoadCase

GET = b"GET /x?y HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
CANCEL, REFUSED_STREAM, INTERNAL = 8, 7, 2

Pairs = Sequence[tuple[bytes, bytes]]


class H2Backend:
    """One connection's other side; `go` lets it read, and acknowledge windows unless `is_greedy` is False."""

    def __init__(self, end: Upstream, streams: int = 100, is_greedy: bool = True) -> None:
        self.end = end
        self.is_greedy = is_greedy
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.connection.local_settings = type(self.connection.local_settings)(
            client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: streams}
        )
        self.connection.initiate_connection()
        self.events: list[Event] = []
        self.go()

    def go(self) -> None:
        """Read, answer what the protocol itself wants, and let everything arrive."""
        for _ in range(100):
            data = self.end.take()
            events = self.connection.receive_data(data) if data else []
            self.events += events
            for event in events:
                size = event.flow_controlled_length if isinstance(event, DataReceived) else 0
                if self.is_greedy and size:
                    assert isinstance(event, DataReceived)
                    self.connection.acknowledge_received_data(size, event.stream_id)
            out = self.connection.data_to_send()
            if out:
                self.end.send(out)
            else:
                self.end.road.run()
            if not self.end.received:
                return

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def requests(self) -> list[tuple[int, dict[bytes, bytes]]]:
        """Streams and their fields, in order."""
        return [(event.stream_id, dict(event.headers)) for event in self.of(RequestReceived)]

    def body(self, stream: int) -> bytes:
        """What has come of a request's body."""
        return b"".join(event.data for event in self.of(DataReceived) if event.stream_id == stream)

    def has_ended(self, stream: int) -> bool:
        """Whether the request is whole."""
        return any(event.stream_id == stream for event in self.of(StreamEnded))

    def trailers(self, stream: int) -> list[tuple[bytes, bytes]]:
        """A request's."""
        return [pair for event in self.of(TrailersReceived) if event.stream_id == stream for pair in event.headers]

    def resets(self) -> list[tuple[int, int]]:
        """Streams that we have reset, and with which code."""
        return [(event.stream_id, int(event.error_code)) for event in self.of(StreamReset)]

    def head(self, stream: int, status: int = 200, ended: bool = False, fields: Pairs = ()) -> None:
        """An answer's head."""
        self.connection.send_headers(stream, [(b":status", b"%d" % status), *fields], end_stream=ended)
        self.go()

    def data(self, stream: int, data: bytes, ended: bool = False) -> None:
        """More of its body."""
        self.connection.send_data(stream, data, end_stream=ended)
        self.go()

    def answer(self, stream: int, body: bytes = b"ok", status: int = 200, fields: Pairs = ()) -> None:
        """A whole answer, in one piece."""
        self.connection.send_headers(stream, [(b":status", b"%d" % status), *fields], end_stream=not body)
        if body:
            self.connection.send_data(stream, body, end_stream=True)
        self.go()


class H2RoadCase(RoadCase):
    """Tests before backends that are spoken to by HTTP/2 alone, by prior knowledge."""

    def h2_road(self, *given: Any, **keys: Any) -> Road:
        road = self.road(*given, **keys)
        for backend in road.backends:
            road.upstreams.multiplex(backend, None, True)
        return road

    def backend(self, road: Road, number: int = -1, **keys: Any) -> H2Backend:
        """The other side of a connection that was dialled."""
        return H2Backend(road.upstream(number), **keys)
