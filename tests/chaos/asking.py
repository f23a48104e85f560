"""Clients over HTTP/1, in threads, with plain sockets: they ask, go, dawdle, and write everything down.

Promises: whatever comes, `Asked` says what: nothing is tried again, nothing overlooked; bytes that stand behind the last
answer are somebody else's, and are blamed. Every wait ends after PATIENCE seconds, which is `hung`, and wrong. A client
leaves on purpose only where `is_rude`. HTTP/2: asking_h2.py, bytes: asking_bytes.py. Run by traffic.py.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
import struct
import time
from typing import Final

from tests.chaos.books import Asked, Books, some_count
from tests.chaos.moods import unit

#: Longer than all of the balancer's patience together.
PATIENCE: Final = 30.0


class Cut(Exception):
    """The connection has ended; says how."""


class Wire:
    """One connection of a client, plain or with TLS inside."""

    def __init__(self, port: int, source: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.sock = socket.socket()
        self.buffer = b""
        self.taken = 0  # bytes that were handed out
        try:
            self.sock.settimeout(PATIENCE)
            if source:
                self.sock.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                self.sock.bind((source, 0))
            self.sock.connect(("127.0.0.1", port))
        except OSError as error:
            self.sock.close()
            raise Cut(f"no connection: {error}") from None
        self._tls = tls

    def shake_hands(self) -> None:
        """TLS, where it is spoken."""
        if self._tls is not None:
            try:
                self.sock = self._tls.wrap_socket(self.sock, server_hostname="site.example", suppress_ragged_eofs=False)
            except OSError as error:
                raise Cut(f"no handshake: {error}") from None

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise Cut("hung") from None
        except OSError:
            raise Cut("reset") from None

    def more(self) -> None:
        """Receive something."""
        try:
            piece = self.sock.recv(65536)
        except TimeoutError:
            raise Cut("hung") from None
        except OSError:
            raise Cut("reset") from None
        if not piece:
            raise Cut("eof")
        self.buffer += piece

    def peek_until(self, marker: bytes) -> int:
        """Until `marker` has come; where it ends."""
        while (at := self.buffer.find(marker)) < 0:
            self.more()
        return at + len(marker)

    def until(self, marker: bytes) -> bytes:
        """Up to and including `marker`."""
        return self.cut(self.peek_until(marker))

    def cut(self, count: int) -> bytes:
        """The first `count` bytes of what has come."""
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        self.taken += len(piece)
        return piece

    def into(self, body: bytearray, count: int) -> None:
        """So many bytes, each as soon as it has come."""
        while count:
            if not self.buffer:
                self.more()
            piece = self.cut(count)
            count -= len(piece)
            body += piece

    def finish(self) -> None:
        """Say that nothing more comes; over TLS this ends both ways, and raises Cut as the end of the stream does."""
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock = self.sock.unwrap()
                raise Cut("eof")
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            raise Cut("reset") from None

    def leave(self, is_reset: bool) -> None:
        """Go, in order or by a reset."""
        if is_reset:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        self.sock.close()


def dial(books: Books, listener: str, port: int, source: str = "", tls: ssl.SSLContext | None = None) -> Wire | None:
    """A connection; None where there is none to be had, which is written down."""
    try:
        wire = Wire(port, source, tls)
    except Cut as cut:
        books.no_connection(f"{listener}: {cut}")
        return None
    books.connected(listener)
    return wire


def was_cut(asked: Asked, cut: Cut) -> None:
    """Write down how its connection has ended."""
    asked.ended = str(cut)
    if asked.ended == "hung":
        asked.blame("it hung")


class HttpClient:
    """Asks one listener over HTTP/1."""

    def __init__(
        self, books: Books, listener: str, port: int, chance: random.Random, tls: ssl.SSLContext | None = None
    ) -> None:
        self.books = books
        self.listener = listener
        self.port = port
        self.chance = chance
        self.tls = tls

    def converse(self, is_rude: bool) -> None:
        """One connection: a request, several one after the other, or several at once."""
        wire = dial(self.books, self.listener, self.port, tls=self.tls)
        if wire is None:
            return
        try:
            wire.shake_hands()
            if is_rude and self.chance.random() < 0.1:
                self._talk_nonsense(wire)
                return
            for number in range(self.chance.choice([1, 1, 3, 10])):
                if not self._ask(wire, number > 0, is_rude):
                    return
        except Cut as cut:
            self.books.no_handshake(f"{self.listener}: {cut}")
        finally:
            wire.leave(is_rude and self.chance.random() < 0.5)

    def _talk_nonsense(self, wire: Wire) -> None:
        """A request that is none."""
        wire.send(
            self.chance.choice([b"what?\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"])
        )
        try:
            head = wire.until(b"\r\n\r\n")
        except Cut as cut:
            self.books.trouble(f"nonsense was not answered: {cut}")
            return
        if not head.startswith(b"HTTP/1.1 400 "):
            self.books.trouble(f"nonsense was answered {head!r}")
        self.books.answered_nonsense()

    # -- requests

    def _make(self, was_kept: bool) -> tuple[Asked, list[bytes]]:
        """A request, and its bytes in pieces that may be sent apart."""
        chance = self.chance
        method = chance.choice(["GET"] * 6 + ["HEAD", "POST", "POST", "PUT"])
        route = chance.choice(["web", "web", "web", "calls", "copied"])
        asked = self.books.new(self.listener, "h1", route, method, some_count(chance))
        asked.was_kept = was_kept
        shape = chance.choice(["sized", "sized", "chunked", "close"])
        asked.is_loose = shape == "close"
        version = "1.0" if method == "GET" and chance.random() < 0.1 else "1.1"
        lines = self.head(asked, shape, version)
        pieces = [b""]
        if method in ("POST", "PUT"):
            if chance.random() < 0.15:
                lines.append("Expect: 100-continue")  # and does not wait for it, as it may
            body = unit(asked.token) * chance.choice([0, 1, 1, 20, 3000, 9000])
            if chance.random() < 0.4:
                lines.append("Transfer-Encoding: chunked")
                parts = [body[at : at + 4000] for at in range(0, len(body), 4000)]
                pieces += [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
                pieces.append(b"0\r\n\r\n")
            else:
                lines.append(f"Content-Length: {len(body)}")
                pieces += [body[at : at + 20000] for at in range(0, len(body), 20000)]
        pieces[0] = "\r\n".join([*lines, "", ""]).encode()
        return asked, pieces

    def head(self, asked: Asked, shape: str, version: str = "1.1") -> list[str]:
        """The lines that every request has."""
        return [
            f"{asked.method} /{asked.route}/{asked.token}/{asked.count}/{shape} HTTP/{version}",
            "Host: chaos.example",
            f"X-Request-Id: {asked.token}",
            f"X-Forwarded-For: 203.0.113.{self.chance.randrange(1, 255)}",
            "Accept: text/plain",
        ]

    def _ask(self, wire: Wire, was_kept: bool, is_rude: bool) -> bool:
        """One request, or some at once: may the connection be used again?"""
        chance = self.chance
        if chance.random() < 0.1:
            return self._ask_ahead(wire, was_kept)
        asked, pieces = self._make(was_kept)
        if wire.buffer:
            asked.blame(f"bytes before it was asked: {wire.buffer[:60]!r}")
        leaves = chance.choice(["head", "body", "waiting", "answer", "", ""]) if is_rude else ""
        dawdles = is_rude and chance.random() < 0.1
        try:
            if leaves == "head":
                asked.left = leaves
                wire.send(pieces[0][: chance.randrange(1, len(pieces[0]) - 2)])
                return False
            if leaves == "body" and len(pieces) > 1:
                asked.left = leaves
                wire.send(b"".join(pieces[:-1]))
                return False
            self._send(wire, pieces, dawdles)
            asked.is_sent = True
            if leaves == "waiting":
                asked.left = leaves
                return False
            return self.read(wire, asked, leaves == "answer", dawdles) and not asked.left
        except Cut as cut:
            was_cut(asked, cut)
            return False
        finally:
            self.books.over(asked)

    def _send(self, wire: Wire, pieces: list[bytes], dawdles: bool) -> None:
        if not dawdles:
            wire.send(b"".join(pieces))
            return
        half = len(pieces[0]) // 2
        for piece in (pieces[0][:half], pieces[0][half:], *pieces[1:3], b"".join(pieces[3:])):
            wire.send(piece)
            time.sleep(self.chance.uniform(0, 0.1))

    def _ask_ahead(self, wire: Wire, was_kept: bool) -> bool:
        """Several requests before the first answer."""
        batch = [self._make(was_kept or number > 0) for number in range(3)]
        try:
            wire.send(b"".join(b"".join(pieces) for _, pieces in batch))
        except Cut:
            pass  # what was answered meanwhile is there to be read
        is_open = True
        for asked, _ in batch:
            asked.is_sent = True
            try:
                if is_open:
                    is_open = self.read(wire, asked, False, False)
                else:
                    asked.is_behind = True
            except Cut as cut:
                was_cut(asked, cut)
                is_open = False
            finally:
                self.books.over(asked)
        return is_open

    # -- answers

    def read(self, wire: Wire, asked: Asked, leaves: bool, dawdles: bool) -> bool:
        """Its answer: may the connection be used again?"""
        began = wire.taken
        while True:
            head = wire.until(b"\r\n\r\n")
            asked.status = int(head.split(b" ", 2)[1])
            if asked.status >= 200:
                break
        fields = {
            name.lower(): value.strip() for name, value in re.findall(r"(?m)^([\w-]+):(.*)$", head.decode("latin-1"))
        }
        if fields.get("x-request-id") != asked.token:
            asked.blame(f"an answer to {fields.get('x-request-id')}")
        if "x-token" in fields:
            asked.served_by = fields.get("x-served-by", "?")
            if fields["x-token"] != asked.token:
                asked.blame(f"an answer about {fields['x-token']}")
        if leaves:
            asked.left = "answer"
            return False
        if dawdles:
            time.sleep(self.chance.uniform(0, 0.5))
        ends_by_close = self._read_body(wire, asked, fields)
        asked.is_whole = True
        asked.wire = wire.taken - began
        return not ends_by_close and fields.get("connection") != "close"

    def _read_body(self, wire: Wire, asked: Asked, fields: dict[str, str]) -> bool:
        """The body: did the connection's end end it?"""
        if asked.method == "HEAD" or asked.status in (204, 304):
            return False
        if "content-length" in fields:
            wire.into(asked.body, int(fields["content-length"]))
            return False
        if fields.get("transfer-encoding") == "chunked":
            while size := int(wire.until(b"\r\n"), 16):
                wire.into(asked.body, size)
                wire.into(bytearray(), 2)
            wire.until(b"\r\n")
            return False
        try:
            while True:
                wire.into(asked.body, len(wire.buffer) or 1)
        except Cut as cut:
            if str(cut) != "eof":
                raise
        return True
