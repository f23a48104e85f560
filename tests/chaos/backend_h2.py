"""The HTTP/2 half of a chaotic backend: what moods.py says, for streams instead of connections.

Called by backend.py for a connection that begins with HTTP/2's preface. Each stream is answered in a task of its own, so
that slow ones hold up nobody; flow control is obeyed. Moods that end an HTTP/1 connection end one stream here, or the
connection with a GOAWAY, as chance has it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from tests.chaos.moods import Ended, Service, unit


class _Call:
    """One stream: its request, as far as it has come."""

    def __init__(self, number: int, fields: dict[str, str]) -> None:
        self.number = number
        self.method = fields[":method"]
        _, _, self.token, self.count, self.shape = fields[":path"].split("/")
        self.body = b""


class H2Talk:
    """One connection."""

    def __init__(self, service: Service, writer: asyncio.StreamWriter) -> None:
        self.service = service
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.calls: dict[int, _Call] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.moved = asyncio.Condition()
        self.is_over = False

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def run(self, first: bytes, reader: asyncio.StreamReader) -> None:
        self.h2.initiate_connection()
        self.flush()
        data = first
        try:
            while data and not self.is_over:
                for event in self.h2.receive_data(data):
                    await self.happened(event)
                self.flush()
                await self.writer.drain()
                data = await reader.read(65536)
        except ProtocolError:
            pass
        finally:
            for task in self.tasks:
                task.cancel()

    async def happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            fields: dict[Any, Any] = dict(event.headers)
            if fields[":path"].startswith("/health"):
                self.answer_check(event.stream_id)
                return
            call = self.calls[event.stream_id] = _Call(event.stream_id, fields)
            self.service.note("h2", call.token, call.method, "head")
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.calls:
                self.calls[event.stream_id].body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in self.calls:
                task = asyncio.ensure_future(self.answer(self.calls.pop(event.stream_id)))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.is_over = True
        async with self.moved:
            self.moved.notify_all()

    def answer_check(self, number: int) -> None:
        status = "200" if self.service.is_well else "503"
        self.h2.send_headers(number, [(":status", status)], end_stream=True)

    async def answer(self, call: _Call) -> None:
        """One request, and what the mood makes of it."""
        service = self.service
        right = not call.body.replace(unit(call.token), b"")
        service.note("h2", call.token, call.method, "body" if right else "bad")
        try:
            await self._answer(service.mood_now(), call, unit(call.token) * int(call.count))
        except Ended:
            self.is_over = True
            self.writer.transport.abort()
        except (ProtocolError, OSError):
            pass  # the stream or the connection has gone meanwhile

    async def _answer(self, mood: str, call: _Call, body: bytes) -> None:
        service, chance = self.service, self.service.chance
        if mood in ("reset", "refuse", "early"):
            self.break_stream(call)
            return
        if mood == "mute":
            await service.sulk()
        if mood == "slow":
            await service.pause()
        if mood in ("garbage", "wrong"):
            self.writer.write(chance.choice([b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 40, b"\xff" * 40]))
            raise Ended
        if mood == "interim" and call.shape != "quiet":
            self.h2.send_headers(call.number, [(":status", "103"), ("link", f"</{call.token}>")])
        status = "500" if mood == "sick" else "200"
        fields = [(":status", status), ("x-token", call.token), ("x-served-by", service.name)]
        if call.method == "HEAD":
            self.h2.send_headers(call.number, fields, end_stream=True)
            self.flush()
            return
        self.h2.send_headers(call.number, fields)
        if mood in ("half", "late"):
            await self.send(call.number, body[: len(body) // 2])
            if mood == "late":
                await service.sulk()
            self.break_stream(call)
            return
        if mood == "drip":
            await self.send(call.number, body[: len(body) // 2])
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            body = body[len(body) // 2 :]
        await self.send(call.number, body)
        self.h2.end_stream(call.number)
        self.flush()
        if mood in ("hasty", "surplus"):
            self.h2.close_connection(ErrorCodes.NO_ERROR)
            self.flush()
            await self.writer.drain()
            if mood == "surplus":
                raise Ended
            self.is_over = True
            self.writer.close()

    def break_stream(self, call: _Call) -> None:
        """Reset the stream, by one word or another, or the whole connection."""
        word = self.service.chance.choice(
            [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.REFUSED_STREAM, ErrorCodes.PROTOCOL_ERROR, None]
        )
        if word is None:
            raise Ended
        if word is ErrorCodes.REFUSED_STREAM:  # which says that it was not looked at: it may be sent again
            self.service.note("h2", call.token, call.method, "refused")
        self.h2.reset_stream(call.number, word)
        self.flush()

    async def send(self, number: int, data: bytes) -> None:
        """All of it, as the windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                async with self.moved:
                    await self.moved.wait()
                continue
            self.h2.send_data(number, data[:room])
            data = data[room:]
            self.flush()
            await self.writer.drain()


async def serve_h2(service: Service, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, to its end."""
    await H2Talk(service, writer).run(first, reader)
