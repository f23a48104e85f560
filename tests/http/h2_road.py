"""Clients of HTTP/2 on the road in memory: frames by `hyperframe`, header blocks by `hpack`, so that nothing of ours judges
itself.

A client gives windows back as it reads, unless `is_greedy` is False; it checks that no window is overrun, that each stream
has one head, and that nothing comes for a stream behind its end.
"""

from __future__ import annotations

from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from lbsvc.http.h2_server import H2ServerConnection
from lbsvc.http.server import ServerConnection
from lbsvc.http.surplus import SurplusConnection
from lbsvc.net.arrival import Arrival
from tests.http.ends import End
from tests.http.road import Road

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[str, str]]


def head(method: str = "GET", path: str = "/a", *more: tuple[str, str], authority: str = "x") -> Fields:
    """The header list of a request."""
    return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *more]


class Said:
    """What has come on one stream."""

    def __init__(self) -> None:
        self.interim: list[dict[str, str]] = []
        self.fields: Fields = []
        self.body = b""
        self.trailers: Fields | None = None
        self.has_ended = False
        self.code: int | None = None  # of a reset

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", "0"))

    def __repr__(self) -> str:
        return f"<{self.status} {len(self.body)} ended={self.has_ended} code={self.code}>"


class H2Client(End):
    """A client; its end is the left one. `is_plain`: its connection begins as one of HTTP/1, and the preface is seen."""

    def __init__(
        self,
        road: Road,
        peer: str = "192.0.2.1",
        arrival: Arrival | None = None,
        *,
        is_plain: bool = False,
        is_surplus: bool = False,
        window: int = 65535,
        greets: bool = True,
    ) -> None:
        super().__init__(road)
        kind: Any = (SurplusConnection if is_surplus else ServerConnection) if is_plain else H2ServerConnection
        self.server = kind(road.site, peer, arrival)
        road.watch(self.server)
        road.clients.append(self)  # type: ignore[arg-type]  # an end like others
        self.streams: dict[int, Said] = {}
        self.goaways: list[tuple[int, int]] = []
        self.settings: dict[int, int] = {}
        self.updates: dict[int, int] = {}
        self.pings: list[bytes] = []
        self.is_greedy = True
        self.answers_pings = True
        self.acknowledges = greets
        self.window = 65535
        self.first_window = window
        self.left: dict[int, int] = {}
        self._rest = b""
        self._next = 1
        self._decoder, self._encoder = Decoder(), Encoder()
        self._section: tuple[int, bool, bytes] | None = None
        self.wire.connect(self.wire.right, self.server)
        self.wire.connect(self.wire.left, self)
        if greets:
            settings = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: window})
            self.send(PREFACE + settings.serialize())

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._rest += data
        while len(self._rest) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._rest[:9]))
            if len(self._rest) < 9 + length:
                break
            frame.parse_body(memoryview(self._rest[9 : 9 + length]))
            self._rest = self._rest[9 + length :]
            self._take(frame)

    def _take(self, frame: Any) -> None:
        number = frame.stream_id
        if isinstance(frame, SettingsFrame):
            if "ACK" not in frame.flags:
                self.settings.update(frame.settings)
                if self.acknowledges:
                    self.transport.write(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame):
            self.pings.append(frame.opaque_data)
            if "ACK" not in frame.flags and self.answers_pings:
                self.transport.write(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code))
        elif isinstance(frame, WindowUpdateFrame):
            self.updates[number] = self.updates.get(number, 0) + frame.window_increment
        elif isinstance(frame, HeadersFrame):
            self._section = number, "END_STREAM" in frame.flags, frame.data
        elif isinstance(frame, ContinuationFrame):
            assert self._section is not None
            self._section = number, self._section[1], self._section[2] + frame.data
        elif isinstance(frame, RstStreamFrame):
            self.streams[number].code = frame.error_code
        elif isinstance(frame, DataFrame):
            self._take_data(frame)
        else:
            raise AssertionError(frame)
        if self._section is not None and "END_HEADERS" in frame.flags:
            (number, ended, block), self._section = self._section, None
            self._take_section(number, ended, self._decoder.decode(block))

    def _take_section(self, number: int, ended: bool, fields: Any) -> None:
        said = self.streams[number]
        assert not said.has_ended and said.code is None, "headers behind the end"
        fields = [tuple(pair) for pair in fields]
        for name, _ in fields:
            assert name == name.lower() and name not in ("connection", "transfer-encoding", "upgrade", "keep-alive"), (
                name
            )
        if said.fields:
            assert ended, "trailers that are not the end"
            said.trailers = fields
        elif dict(fields)[":status"].startswith("1"):
            assert not ended
            said.interim.append(dict(fields))
        else:
            said.fields = fields
        said.has_ended = ended

    def _take_data(self, frame: Any) -> None:
        number, size = frame.stream_id, frame.flow_controlled_length
        said = self.streams[number]
        assert said.fields and not said.has_ended and said.code is None, "data where none may be"
        self.window -= size
        self.left[number] -= size
        assert self.window >= 0 and self.left[number] >= 0, "a window is overrun"
        said.body += frame.data
        said.has_ended = "END_STREAM" in frame.flags
        if self.is_greedy and size:
            self.give(0, size, run=False)
            if not said.has_ended:
                self.give(number, size, run=False)

    # -- what a test has it send

    def give(self, number: int, size: int, run: bool = True) -> None:
        """Open a window."""
        if number:
            self.left[number] += size
        else:
            self.window += size
        self.transport.write(WindowUpdateFrame(number, window_increment=size).serialize())
        if run:
            self.road.run()

    def headers(self, fields: Fields, ended: bool = True, number: int = 0) -> bytes:
        """The frame of a header section, for a new stream unless its `number` is said."""
        if not number:
            number, self._next = self._next, self._next + 2
            self.streams[number] = Said()
            self.left[number] = self.first_window
        flags = ["END_HEADERS", "END_STREAM"] if ended else ["END_HEADERS"]
        made: bytes = HeadersFrame(number, self._encoder.encode(fields), flags=flags).serialize()
        return made

    def headers_in_pieces(self, fields: Fields) -> bytes:
        """The frames of a header section that is too long for one, for a new stream that it ends."""
        whole = self.headers(fields)
        block, number = whole[9:], self.last
        pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        wire: bytes = HeadersFrame(number, pieces[0], flags=["END_STREAM"]).serialize()
        for piece in pieces[1:]:
            flags = ["END_HEADERS"] if piece is pieces[-1] else []
            wire += ContinuationFrame(number, piece, flags=flags).serialize()
        return wire

    def request(self, fields: Fields | None = None, ended: bool = True) -> Said:
        """Send one; what comes on its stream."""
        self.send(self.headers(head() if fields is None else fields, ended))
        return self.streams[self._next - 2]

    @property
    def last(self) -> int:
        """The number of the newest stream."""
        return self._next - 2

    def data(self, body: bytes, ended: bool = False, number: int = 0) -> None:
        """More of a body, whatever the windows."""
        number = number or self.last
        wire = b""
        pieces = [body[at : at + 16384] for at in range(0, len(body), 16384)] or [b""]
        for piece in pieces:
            wire += DataFrame(number, piece, flags=["END_STREAM"] if ended and piece is pieces[-1] else []).serialize()
        self.send(wire)

    def trailers(self, fields: Fields, number: int = 0) -> None:
        """The end of a body."""
        self.send(self.headers(fields, True, number or self.last))

    def rst(self, code: int = 8, number: int = 0) -> None:
        """Give a stream up."""
        self.send(RstStreamFrame(number or self.last, error_code=code).serialize())
