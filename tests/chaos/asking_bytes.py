"""Clients that send bytes and have them back: through a tcp listener, and through a connection that was upgraded.

Promises: as asking.py's. What comes back is compared piece by piece, so that nothing is kept of it. A connection of a tcp
listener is known by its source address, which nobody else has, an upgraded one by its request's id. Run by traffic.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.chaos.asking import Cut, HttpClient, Wire, dial, was_cut
from tests.chaos.books import Asked, Books, some_count
from tests.chaos.moods import unit


def have_back(wire: Wire, asked: Asked, chance: random.Random) -> None:
    """Send what the request is about, piece by piece, have it back, and end; leaves in the middle where that is meant."""
    whole = unit(asked.token) * asked.count
    step = chance.choice([1000, 50_000])
    for at in range(0, len(whole), step):
        piece = whole[at : at + step]
        wire.send(piece)
        is_half_way = (at + len(piece)) * 2 > len(whole)
        if asked.left == "body" and is_half_way:
            return
        came = bytearray()
        wire.into(came, len(piece))
        if came != piece:
            asked.blame(f"bytes that were not sent: {bytes(came[:60])!r}")
        if asked.left == "answer" and is_half_way:
            return
    asked.is_sent = asked.is_whole = True
    wire.finish()
    wire.more()
    asked.blame(f"bytes behind the end: {wire.buffer[:60]!r}")


class BytesClient:
    """Sends bytes through a tcp listener."""

    def __init__(
        self, books: Books, listener: str, port: int, chance: random.Random, address: Callable[[], str]
    ) -> None:
        self.books = books
        self.listener = listener
        self.port = port
        self.chance = chance
        self.address = address

    def converse(self, is_rude: bool) -> None:
        """One connection."""
        chance = self.chance
        source = self.address()
        wire = dial(self.books, self.listener, self.port, source)
        if wire is None:
            return
        asked = self.books.new(self.listener, "tcp", count=some_count(chance) or 1)
        asked.address = source
        asked.left = chance.choice(["silent", "body", "answer", "", ""]) if is_rude else ""
        try:
            if asked.left != "silent":
                wire.send(f"TCP {asked.token} {asked.count}\n".encode())
                have_back(wire, asked, chance)
        except Cut as cut:
            was_cut(asked, cut)
        finally:
            wire.leave(is_rude and chance.random() < 0.5)
            self.books.over(asked)


class TunnelClient(HttpClient):
    """Asks for an upgrade, and sends bytes through what that gives."""

    def converse(self, is_rude: bool) -> None:
        """One connection."""
        chance = self.chance
        wire = dial(self.books, self.listener, self.port, tls=self.tls)
        if wire is None:
            return
        asked = self.books.new(self.listener, "ws", "web", "GET", some_count(chance) or 1)
        leaves = chance.choice(["waiting", "body", "answer", "", ""]) if is_rude else ""
        try:
            wire.shake_hands()
            wire.send("\r\n".join([*self.head(asked, "sized"), *UPGRADE, "", ""]).encode())
            asked.is_sent = True
            asked.left = leaves if leaves == "waiting" else ""
            if not asked.left and self.is_switched(wire, asked):
                asked.is_sent, asked.left = False, leaves
                have_back(wire, asked, chance)
        except Cut as cut:
            was_cut(asked, cut)
        finally:
            wire.leave(is_rude and chance.random() < 0.5)
            self.books.over(asked)

    def is_switched(self, wire: Wire, asked: Asked) -> bool:
        """Whether the answer is 101; else it is read to its end."""
        wire.peek_until(b"\r\n\r\n")
        if not wire.buffer.startswith(b"HTTP/1.1 101 "):
            self.read(wire, asked, False, False)
            return False
        head = wire.until(b"\r\n\r\n")
        asked.status = 101
        if b"\r\nX-Token: %b\r\n" % asked.token.encode() not in head:
            asked.blame(f"an answer to somebody else: {head!r}")
        return True


UPGRADE = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]
