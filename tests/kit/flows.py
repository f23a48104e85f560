"""Long streams in step with each other: one side sends all it can, the other reads a piece each time that is stuck.

Promises: nothing sleeps for a guessed time: a slow reader is one that waits until the sender cannot send; contents differ
from block to block and both sides return a checksum of what passed, so that what is lost, doubled or out of order shows.
Memory here stays small whatever the length. Used by tests of streaming and by tests/bench/streams.py. Bytes, seconds.
"""

from __future__ import annotations

import hashlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

BLOCK: Final = 64 * 1024
DEADLINE: Final = 60.0

_FILLING: Final = hashlib.sha512(b"filling").digest() * (BLOCK // 64)


class Source(Protocol):
    """A file, or a response: gives at most `count` bytes, none at its end."""

    def read(self, count: int) -> bytes: ...


class Stuck:
    """Tells a reader that the sender cannot send, which is when it reads on."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.is_over = False
        self.sent = 0

    def tell(self) -> None:
        self._event.set()

    def finish(self) -> None:
        self.is_over = True
        self._event.set()

    def forget(self) -> None:
        self._event.clear()

    def wait(self) -> None:
        if not self.is_over and not self._event.wait(DEADLINE):
            raise AssertionError(f"the sender was not stuck in {DEADLINE:.0f} s, at {self.sent} bytes")


def block(number: int) -> bytes:
    """BLOCK bytes like no other."""
    return number.to_bytes(8, "big") + _FILLING[8:]


def in_chunk(piece: bytes) -> bytes:
    """As a chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def as_it_is(piece: bytes) -> bytes:
    return piece


def pour(sock: socket.socket, size: int, stuck: Stuck, framed: Callable[[bytes], bytes] = as_it_is) -> str:
    """Send `size` bytes as fast as they are taken, each block `framed`; the checksum of what is inside."""
    checksum = hashlib.sha256()
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    try:
        for number in range(size // BLOCK):
            piece = block(number)
            checksum.update(piece)
            _push(sock, poll, memoryview(framed(piece)), stuck)
            stuck.sent += BLOCK
    finally:
        stuck.finish()
        sock.settimeout(DEADLINE)
    return checksum.hexdigest()


def _push(sock: socket.socket, poll: select.poll, view: memoryview, stuck: Stuck) -> None:
    end = time.monotonic() + DEADLINE
    while view:
        if not poll.poll(0):
            stuck.tell()
            if not poll.poll(50):
                if time.monotonic() > end:
                    raise AssertionError(f"nothing was taken in {DEADLINE:.0f} s, at {stuck.sent} bytes")
                continue
        view = view[sock.send(view) :]


def sip(source: Source, size: int, stuck: Stuck, piece: int = 1024 * 1024) -> str:
    """Read `size` bytes, each `piece` only when the sender is stuck; the checksum."""
    checksum = hashlib.sha256()
    left = size
    while left:
        stuck.wait()
        stuck.forget()
        wanted = min(piece, left)
        while wanted:
            got = source.read(wanted)
            if not got:
                raise AssertionError(f"it ended with {left} of {size} bytes still to come")
            checksum.update(got)
            wanted -= len(got)
            left -= len(got)
    return checksum.hexdigest()


def read_lines(readline: Callable[[], bytes]) -> list[bytes]:
    """The lines of a header section, up to its empty line, which is not among them."""
    lines = []
    while (line := readline()) != b"\r\n":
        if not line:
            raise EOFError(f"it ended inside a header section: {lines!r}")
        lines.append(line)
    return lines


class Chunks:
    """The content of a chunked body that is read from a file."""

    def __init__(self, file: Source, readline: Callable[[], bytes]) -> None:
        self.file = file
        self.readline = readline
        self.left = 0
        self.is_over = False

    def read(self, count: int) -> bytes:
        if self.is_over:
            return b""
        if not self.left:
            self.left = int(self.readline(), 16)
            if not self.left:
                self.is_over = True
                read_lines(self.readline)
                return b""
        got = self.file.read(min(count, self.left))
        self.left -= len(got)
        if not self.left and self.readline() != b"\r\n":
            raise AssertionError("a chunk without its end")
        return got
