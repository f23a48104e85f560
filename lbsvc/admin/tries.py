"""Wrong tokens: how many somebody may show, and what comes after that.

Promises: whoever has shown `BURST` wrong ones has to wait, and is not even compared meanwhile; each `PAUSE` seconds one more
is allowed, so that nobody waits for longer than that once the wrong ones stop. When `BURST_OF_ALL` were shown by all
together, those wait who have shown a wrong one lately, and nobody else: whoever shows the right one at once never waits
because of strangers, and whoever mistypes it does for seconds. Who is signed in already (a cookie) is not held up, nor what
needs no token. An event says so at first, and then once in `TOLD_EACH` seconds. Peers are those of core/clients.py (an IPv6
/64 is one), of unix sockets the users; `MOST_PEERS` of them are remembered, those who tried last. Called by site.py and
pages.py. Times are seconds on the monotonic clock.

Decision (2026-11): no lock-out that grows. It would let a stranger keep the operator out who comes by the same address (a
proxy, a tunnel), and a token worth the name is not found at thirty guesses a minute.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from math import ceil
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address

from lbsvc.core.clients import client_of
from lbsvc.observe.events import Emit

#: Wrong tokens that one peer may show at once, and the seconds after which it may show one more.
BURST: Final = 10
PAUSE: Final = 2.0
#: The same for all together.
BURST_OF_ALL: Final = 100
PAUSE_OF_ALL: Final = 0.2
MOST_PEERS: Final = 1024
TOLD_EACH: Final = 60.0

#: What whoever has to wait is told.
WAIT: Final = "too many wrong tokens: wait a moment"


def user_of(transport: Any) -> str:
    """The user at the other end of a unix socket, whom the kernel names."""
    made: socket.socket | None = getattr(transport, "socket", None)
    return str(struct.unpack("3i", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]) if made else "?"


def peer_of(address: object, transport: Any) -> str:
    """What the tries from there are counted under."""
    if isinstance(address, IPv4Address | IPv6Address):
        return client_of(address.host) or address.host
    return f"unix, user {user_of(transport)}"


class Level:
    """Wrong tokens that still count: one less every `pause` seconds."""

    __slots__ = ("_at", "_count", "_pause")

    def __init__(self, pause: float, now: float) -> None:
        self._pause = pause
        self._count = 0.0
        self._at = now

    def count(self, now: float) -> float:
        """How many there are."""
        self._count = max(0.0, self._count - (now - self._at) / self._pause)
        self._at = now
        return self._count

    def add(self, now: float) -> None:
        """One more."""
        self._count = self.count(now) + 1

    def wait(self, most: int, now: float) -> float:
        """Seconds until there is room for one more among `most`; 0: there is."""
        return max(0.0, (self.count(now) + 1 - most) * self._pause)


class Tries:
    """Those of one admin listener."""

    def __init__(self, seconds: Callable[[], float], emit: Emit) -> None:
        self._seconds = seconds
        self._emit = emit
        self._peers: dict[str, Level] = {}  # those who tried last at the end
        self._all = Level(PAUSE_OF_ALL, seconds())
        self._told_at = -TOLD_EACH
        self._wrong = self._refused = 0

    def wait(self, peer: str) -> int:
        """Seconds that somebody has to wait before a token of theirs is looked at; 0: now."""
        level = self._peers.get(peer)
        if level is None:
            return 0
        now = self._seconds()
        if not level.count(now):
            del self._peers[peer]
            return 0
        wait = max(level.wait(BURST, now), self._all.wait(BURST_OF_ALL, now))
        if not wait:
            return 0
        self._refused += 1
        self._tell(peer, now)
        return ceil(wait)

    def failed(self, peer: str) -> None:
        """The token was wrong."""
        now = self._seconds()
        level = self._peers.pop(peer, None)
        if level is None:
            level = Level(PAUSE, now)
            if len(self._peers) >= MOST_PEERS:
                del self._peers[next(iter(self._peers))]
        level.add(now)
        self._peers[peer] = level
        self._all.add(now)
        self._wrong += 1

    def _tell(self, peer: str, now: float) -> None:
        if now - self._told_at < TOLD_EACH:
            return
        wrong, refused = self._wrong, self._refused
        self._wrong = self._refused = 0
        self._told_at = now
        self._emit(
            "warn", "admin.wrong_tokens", f"{wrong} wrong tokens, and {refused} tries refused: {peer} has to wait",
            peer=peer, wrong=wrong, refused=refused,
        )  # fmt: skip
