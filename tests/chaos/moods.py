"""What a chaotic backend may do instead of answering, and what all of its connections share.

Used by backend.py, which is the process, and by faults.py, which writes scripts for it. Moods (`wild`: another each time):

    ok       what was asked for                 reset    reset once the head is there
    sick     500                                half     breaks off in its body, by an end or a reset
    ill      ok, but its checks fail            garbage  no HTTP at all
    slow     a pause first                      wrong    framing that contradicts itself
    mute     nothing, until it is mended        surplus  a second answer that nobody asked for
    drip     in pieces, with pauses             early    an answer before the body is read, and an end
    refuse   reset as soon as connected         hasty    an end right behind a good answer, without a word
    late     half of it, then nothing           interim  103 before it
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from typing import Final

MOODS: Final = [
    "ok",
    "sick",
    "slow",
    "mute",
    "drip",
    "refuse",
    "late",
    "reset",
    "half",
    "garbage",
    "wrong",
    "surplus",
    "early",
    "hasty",
    "interim",
]
WILD: Final = [each for each in MOODS if each not in ("mute", "late")]
EVIL: Final = b"evil-" * 20


class Ended(Exception):
    """This connection goes no further."""


class Service:
    """What all of its connections share."""

    def __init__(self, name: str, book: str, seed: int) -> None:
        self.name = name
        self.mood = "ok"
        self.is_well = True
        self.chance = random.Random(seed)
        self.mended = asyncio.Event()
        self._book = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, road: str, token: str, method: str, word: str) -> None:
        """Write down what was seen."""
        os.write(self._book, f"{road} {token} {method} {word}\n".encode())

    def mood_now(self) -> str:
        """That of the next request."""
        return self.chance.choice(WILD) if self.mood == "wild" else self.mood

    def take_command(self, line: str) -> None:
        """One line of standard input."""
        word, _, value = line.partition(" ")
        if word == "mood":
            self.mood = value
            self.mended.set()
            self.mended = asyncio.Event()
        elif word == "well":
            self.is_well = value == "1"

    async def pause(self) -> None:
        """As long as its mood makes it wait."""
        await asyncio.sleep(self.chance.uniform(0.05, 0.6))

    async def sulk(self) -> None:
        """Until another mood is wished for."""
        await self.mended.wait()
        raise Ended


def unit(token: str) -> bytes:
    """What a body about this token consists of."""
    return b"<%b>" % token.encode()


def cut(writer: asyncio.StreamWriter) -> None:
    """A reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise Ended
