"""One backend, as a process: HTTP/1, HTTP/2 by prior knowledge and plain bytes on one port, in whatever mood it is told.

`python -m tests.chaos.backend NAME HOST PORT BOOK SEED`. Commands come on standard input, one per line: `mood WORD`,
`well 0`, `well 1`; its end ends the process. A connection's first bytes say what it speaks. A request's path is
/ROUTE/TOKEN/COUNT/SHAPE: its answer's body is `unit(TOKEN)` repeated COUNT times, SHAPE is how it is framed (sized, chunked,
close, or quiet, which is sized with nothing before it). Every request is written to the file BOOK, in one write(2) each, so
that a process that is killed has written what it had read: ROAD TOKEN METHOD, and `head`, `body`, `refused` (RFC 9113, 8.7)
or `bad` (somebody else's bytes). Moods: moods.py. Started by backends.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Final

from tests.chaos.backend_h2 import serve_h2
from tests.chaos.moods import EVIL, Ended, Service, cut, unit

#: What surely comes in one piece.
SEGMENT: Final = 1200

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The request's body, decoded."""
    if sized := re.search(rb"(?im)^content-length: *(\d+)", head):
        return await reader.readexactly(int(sized[1]))
    if not re.search(rb"(?im)^transfer-encoding: *chunked", head):
        return b""
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def framed(shape: str, body: bytes) -> tuple[list[bytes], bytes]:
    """The fields that say how long a body is, and the bytes of it."""
    if shape == "chunked":
        pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        return [b"Transfer-Encoding: chunked"], b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    if shape == "close":
        return [b"Connection: close"], body
    return [b"Content-Length: %d" % len(body)], body


class HttpTalk:
    """One connection of HTTP/1."""

    def __init__(self, service: Service, streams: Streams) -> None:
        self.service = service
        self.reader, self.writer = streams

    async def run(self, first: bytes) -> None:
        while True:
            head = first + await self.reader.readuntil(b"\r\n\r\n")
            first = b""
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            if target.startswith("/health"):
                word = b"200 OK" if self.service.is_well else b"503 Ill"
                self.writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % word)
            else:
                await self.answer(head, method, target)
            await self.writer.drain()

    async def answer(self, head: bytes, method: str, target: str) -> None:
        """One request, and what the mood makes of it."""
        service, writer = self.service, self.writer
        _, _, token, count, shape = target.split("/")
        service.note("h1", token, method, "head")
        if re.search(rb"(?im)^upgrade: *websocket", head):
            names = b"Upgrade: websocket\r\nConnection: Upgrade\r\nX-Token: %b" % token.encode()
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\r\n" % names)
            await send_back(service, (self.reader, writer), "h1", token, int(count))
        mood = service.mood_now()
        if mood == "reset":
            cut(writer)
        if mood == "early":
            writer.write(
                b"HTTP/1.1 413 Early\r\nX-Token: %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % token.encode()
            )
            await writer.drain()
            raise Ended
        if re.search(rb"(?im)^expect: *100-continue", head):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await read_body(self.reader, head)
        service.note("h1", token, method, "bad" if body.replace(unit(token), b"") else "body")
        if mood == "mute":
            await service.sulk()
        if mood == "slow":
            await service.pause()
        if mood == "garbage":
            writer.write(service.chance.choice([b"\0\1\2nonsense\r\n\r\n", b"HTTP/9.9 what\r\n\r\n", b"SSH-2.0-x\r\n"]))
            await writer.drain()
            raise Ended
        if mood == "interim" and shape != "quiet":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </%b>\r\n\r\n" % token.encode())
        await self._send(mood, method, token, unit(token) * int(count), shape)

    async def _send(self, mood: str, method: str, token: str, body: bytes, shape: str) -> None:
        service, writer = self.service, self.writer
        fields, wire = framed(shape, body)
        status = b"500 Sick" if mood == "sick" else b"200 OK"
        if mood == "wrong":
            fields.append(service.chance.choice([b"Content-Length: 3", b"Transfer-Encoding: xchunked", b"No colon"]))
        names = [b"X-Token: %b" % token.encode(), b"X-Served-By: %b" % service.name.encode()]
        answer = b"\r\n".join([b"HTTP/1.1 " + status, *names, *fields, b"", b""])
        wire = b"" if method == "HEAD" else wire
        if mood in ("half", "late"):
            writer.write((answer + wire)[: len(answer) + len(wire) // 2 if wire else -2])
            await writer.drain()
            if mood == "late":
                await service.sulk()
            if service.chance.random() < 0.5:
                cut(writer)
            raise Ended
        whole = answer + wire
        # In one piece: what comes once the connection has another request cannot be told from that one's answer.
        if mood == "surplus" and shape != "close" and len(whole) < SEGMENT:
            whole += b"HTTP/1.1 200 OK\r\nX-Token: evil\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL
        step = len(whole) // 4 + 1 if mood == "drip" else len(whole)
        for at in range(0, len(whole), step):
            writer.write(whole[at : at + step])
            await writer.drain()
            if mood == "drip":
                await asyncio.sleep(service.chance.uniform(0.0, 0.15))
        if shape == "close" or mood == "hasty":
            raise Ended


async def serve_bytes(service: Service, streams: Streams) -> None:
    """A connection of plain bytes: `TCP TOKEN COUNT`, and so many units, which go back; and an end after the client's."""
    _, token, count = (b"TCP" + await streams[0].readuntil(b"\n")).decode().split()
    service.note("tcp", token, "-", "head")
    await send_back(service, streams, "tcp", token, int(count))


async def send_back(service: Service, streams: Streams, road: str, token: str, count: int) -> None:
    """So many units, each as it comes, as the mood will have it; then an end."""
    reader, writer = streams
    mood = service.mood_now()
    if mood in ("reset", "garbage", "wrong"):
        cut(writer)
    if mood in ("early", "hasty"):
        raise Ended
    if mood == "mute":
        await service.sulk()
    left = count * len(unit(token))
    seen = b""
    pauses = 4  # and no more of them, however long it is
    while left and (piece := await reader.read(min(left, 65536))):
        left -= len(piece)
        seen += piece
        if mood == "half" and len(seen) * 2 > left:
            writer.write(piece[: len(piece) // 2])
            cut(writer)
        if mood in ("slow", "drip") and pauses:
            pauses -= 1
            await service.pause()
        if mood == "late":
            await service.sulk()
        writer.write(piece)
        await writer.drain()
    service.note(road, token, "-", "bad" if seen.replace(unit(token), b"") and not left else "body")
    await reader.read()
    raise Ended


async def converse(service: Service, streams: Streams) -> None:
    """One connection, whatever it speaks."""
    reader, writer = streams
    try:
        if service.mood == "refuse":
            cut(writer)
        first = await reader.readexactly(3)
        if first == b"PRI":
            await serve_h2(service, first, reader, writer)
        elif first == b"TCP":
            await serve_bytes(service, streams)
        else:
            await HttpTalk(service, streams).run(first)
    except (Ended, OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(name: str, host: str, port: str, book: str, seed: str) -> None:
    """Serve until standard input ends."""
    service = Service(name, book, int(seed))
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(converse(service, (reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await asyncio.start_server(connected, host, int(port), backlog=200, limit=1 << 20)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        service.take_command(line.decode().strip())
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
