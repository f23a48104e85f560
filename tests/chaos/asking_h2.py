"""Clients over HTTP/2, by the library h2: several streams at a time on one connection, some of them given up.

Promises: as asking.py's. A stream that the server says it has not looked at (GOAWAY, REFUSED_STREAM) ends as `goaway` or
`refused`; any other end before the answer's is `stream` with its code, or what became of the connection. Run by traffic.py.
"""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from tests.chaos.asking import Cut, Wire, dial
from tests.chaos.books import Asked, Books, some_count
from tests.chaos.moods import unit


@dataclass
class Stream:
    """One request that is under way."""

    asked: Asked
    body: bytes
    leaves: str


class H2Client:
    """Asks one listener over HTTP/2."""

    def __init__(
        self, books: Books, listener: str, port: int, chance: random.Random, tls: ssl.SSLContext | None = None
    ) -> None:
        self.books = books
        self.listener = listener
        self.port = port
        self.chance = chance
        self.tls = tls

    def converse(self, is_rude: bool) -> None:
        """One connection, some rounds of streams."""
        wire = dial(self.books, self.listener, self.port, tls=self.tls)
        if wire is None:
            return
        try:
            wire.shake_hands()
            talk = Talk(self, wire)
            for _ in range(self.chance.choice([1, 2, 5])):
                if not talk.round(self.chance.choice([1, 3, 8]), is_rude):
                    return
        except Cut as cut:
            self.books.no_handshake(f"{self.listener}: {cut}")
        finally:
            wire.leave(is_rude and self.chance.random() < 0.5)


class Talk:
    """One connection of a client."""

    def __init__(self, client: H2Client, wire: Wire) -> None:
        self.client = client
        self.chance = client.chance
        self.wire = wire
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.open: dict[int, Stream] = {}
        self.rounds = 0
        self.is_going = False  # GOAWAY has come: nothing new may be begun
        self.flush()

    def flush(self) -> None:
        self.wire.send(self.h2.data_to_send())

    def round(self, count: int, is_rude: bool) -> bool:
        """So many streams, to the end of all: may there be more?"""
        try:
            for _ in range(count):
                self._begin(is_rude)
            while self.open:
                self._push()
                self._take()
        except Cut as cut:
            self._lost(str(cut))
            return False
        except ProtocolError as error:
            for stream in self.open.values():
                stream.asked.blame(f"HTTP/2 is broken: {error!r}")
            self._lost("broken")
            return False
        self.rounds += 1
        return not self.is_going

    def _begin(self, is_rude: bool) -> None:
        chance = self.chance
        method = chance.choice(["GET"] * 6 + ["HEAD", "POST", "POST", "PUT"])
        route = chance.choice(["web", "calls", "calls", "copied"])
        asked = self.client.books.new(self.client.listener, "h2", route, method, some_count(chance))
        asked.was_kept = self.rounds > 0
        body = unit(asked.token) * chance.choice([0, 1, 1, 20, 3000]) if method in ("POST", "PUT") else b""
        leaves = chance.choice(["waiting", "body", "answer", "", "", ""]) if is_rude else ""
        number = self.h2.get_next_available_stream_id()
        self.open[number] = Stream(asked, body, leaves)
        shape = "quiet" if leaves else "sized"  # 103 on a stream that was given up is too much for the library
        fields = [
            (":method", method),
            (":scheme", "http" if self.client.tls is None else "https"),
            (":authority", "chaos.example"),
            (":path", f"/{route}/{asked.token}/{asked.count}/{shape}"),
            ("x-request-id", asked.token),
            ("x-forwarded-for", f"203.0.113.{chance.randrange(1, 255)}"),
            ("accept", "text/plain"),
        ]
        self.h2.send_headers(number, fields, end_stream=not body)
        asked.is_sent = not body
        self.flush()

    def _push(self) -> None:
        """Bodies, as far as the windows allow; and those who leave do so."""
        for number, stream in list(self.open.items()):
            if stream.leaves == "body" and stream.body:
                self.h2.send_data(number, stream.body[: min(100, self.h2.local_flow_control_window(number))])
                self._leave(number, stream)
                continue
            while stream.body:
                room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
                if room <= 0:
                    break
                piece, stream.body = stream.body[:room], stream.body[room:]
                self.h2.send_data(number, piece, end_stream=not stream.body)
                stream.asked.is_sent = not stream.body
            if stream.leaves == "waiting" and stream.asked.is_sent:
                self._leave(number, stream)
        self.flush()

    def _leave(self, number: int, stream: Stream) -> None:
        stream.asked.left = stream.leaves
        try:
            self.h2.reset_stream(number, ErrorCodes.CANCEL)
        except ProtocolError:
            pass  # its end has come in the same piece
        self._over(number)

    def _over(self, number: int, ended: str = "") -> None:
        stream = self.open.pop(number, None)
        if stream is not None:
            stream.asked.ended = ended
            self.client.books.over(stream.asked)

    def _lost(self, how: str) -> None:
        for number, stream in list(self.open.items()):
            if how == "hung":
                stream.asked.blame("it hung")
            self._over(number, how)

    # -- what comes

    def _take(self) -> None:
        if not self.open:
            return
        self.wire.more()
        # Frame by frame: behind a GOAWAY the library would take nothing more, also of streams that go on.
        while (frame := self._frame()) is not None:
            for event in self.h2.receive_data(frame):
                self._happened(event)
            if self.is_going:
                self.h2.state_machine.state = ConnectionState.CLIENT_OPEN
        self.flush()

    def _frame(self) -> bytes | None:
        """The next one that has come as a whole."""
        buffer = self.wire.buffer
        size = 9 + int.from_bytes(buffer[:3], "big")
        return self.wire.cut(size) if len(buffer) >= max(9, size) else None

    def _happened(self, event: Any) -> None:
        number = getattr(event, "stream_id", None)
        stream = self.open.get(number) if isinstance(number, int) else None
        if isinstance(event, h2.events.ConnectionTerminated):
            self.is_going = True
            last = event.last_stream_id or 0
            for each in [each for each in self.open if each > last]:
                self._over(each, "goaway")
        elif isinstance(event, h2.events.DataReceived):
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream is not None:
                stream.asked.body += event.data
        elif stream is None or number is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            self._answered(number, stream, dict(event.headers))
        elif isinstance(event, h2.events.StreamEnded):
            stream.asked.is_whole = True
            self._over(number)
        elif isinstance(event, h2.events.StreamReset):
            refused = event.error_code == ErrorCodes.REFUSED_STREAM
            self._over(number, "refused" if refused else f"stream {event.error_code}")

    def _answered(self, number: int, stream: Stream, fields: dict[Any, Any]) -> None:
        asked = stream.asked
        asked.status = int(fields[":status"])
        if fields.get("x-request-id") != asked.token:
            asked.blame(f"an answer to {fields.get('x-request-id')}")
        if "x-token" in fields:
            asked.served_by = fields.get("x-served-by", "?")
            if fields["x-token"] != asked.token:
                asked.blame(f"an answer about {fields['x-token']}")
        if stream.leaves == "answer":
            self._leave(number, stream)
