"""Wrong tokens: how many somebody may show, and what comes after that.

Promises
- An address may show `BURST` different wrong tokens, and one more each `PAUSE` seconds. Past that nothing that comes from
  there is looked at, right or wrong, and all of it gets the same answer: a right guess among them tells nobody that it was
  one. Nobody waits for longer than a pause once the wrong ones stop.
- The same wrong token again is told so again, and counts for nothing: it tells nothing new. A script with a token of last
  week, or somebody who says `no` as fast as he can, holds up nobody.
- When `BURST_OF_ALL` were shown by all together, those wait who have shown a wrong one lately, and nobody else.
- From where a long token (config/service.py: LONG_TOKEN) or its cookie was shown in the last `KNOWN_FOR` seconds nobody
  waits, whatever strangers with the same address do (a proxy, a tunnel): they cannot lock the operator out. What they can do
  is guess as fast as they are answered, which finds no token of that length that was drawn at random.
- Of a shorter token the first promise holds everywhere. Whoever shares the operator's address can hold him up there, by new
  wrong tokens all the time; a cookie, other addresses and a unix socket's other users are not held up.
- What needs no token is never held up, nor who is signed in. After a start, or when the token changes, no address is known.

The two things cannot both be had from one address for a token that can be guessed: whoever lets the right one pass among any
number of wrong ones answers any number of guesses. So the length decides, which is what guessing depends on.

An event says so at first, and then once in `TOLD_EACH` seconds. Peers are those of core/clients.py (an IPv6 /64 is one), of
unix sockets the users; `MOST_PEERS` of them are remembered, those who tried last. Called by site.py and pages.py. Times are
seconds on the monotonic clock.

Decision (2026-11): no lock-out that grows. It would let a stranger keep the operator out who comes by the same address, and
a token worth the name is not found at thirty guesses a minute.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from hashlib import blake2b
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
#: Wrong tokens that are known again, of all peers together.
MOST_WRONG: Final = 4096
#: How long an address is known by what it has shown rightly.
KNOWN_FOR: Final = 7 * 24 * 3600.0
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

    def add(self, most: int, now: float) -> None:
        """One more, as far as that goes: past `most` they are not waited for any longer."""
        self._count = min(self.count(now) + 1, most)

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
        self._known: dict[str, float] = {}  # when they showed the right one; the last at the end
        self._seen: dict[tuple[str, bytes], None] = {}  # who showed which wrong one; the last at the end
        self._key = secrets.token_bytes(32)
        self._heard = Level(PAUSE, seconds())  # wrong ones of anybody, the same again included
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
        if not wait or self._is_known(peer, now):
            return 0
        self._refused += 1
        self._tell(peer, now)
        return ceil(wait)

    def passed(self, peer: str) -> None:
        """A long token was right, or the cookie of one."""
        self._known.pop(peer, None)
        self._known[peer] = self._seconds()
        if len(self._known) > MOST_PEERS:
            del self._known[next(iter(self._known))]

    def forget(self) -> None:
        """The token is another one: who knew the former may not know it."""
        self._known.clear()

    def _is_known(self, peer: str, now: float) -> bool:
        shown = self._known.get(peer)
        return shown is not None and now - shown < KNOWN_FOR

    def failed(self, peer: str, token: bytes | None = None) -> None:
        """The token was wrong. None: whether it is the same again is not known."""
        now = self._seconds()
        self._wrong += 1
        self._heard.add(BURST, now)
        if token is None or not self._is_seen(peer, token):
            self._count(peer, now)
        if self._heard.count(now) >= BURST:
            self._tell(peer, now)

    def _is_seen(self, peer: str, token: bytes) -> bool:
        """Has it shown this one before? From now on it has."""
        one = peer, blake2b(token, digest_size=16, key=self._key).digest()
        is_seen = one in self._seen
        self._seen.pop(one, None)
        self._seen[one] = None
        if len(self._seen) > MOST_WRONG:
            del self._seen[next(iter(self._seen))]
        return is_seen

    def _count(self, peer: str, now: float) -> None:
        level = self._peers.pop(peer, None)
        if level is None:
            level = Level(PAUSE, now)
            if len(self._peers) >= MOST_PEERS:
                del self._peers[next(iter(self._peers))]
        level.add(BURST, now)
        self._peers[peer] = level
        self._all.add(BURST_OF_ALL, now)

    def _tell(self, peer: str, now: float) -> None:
        if now - self._told_at < TOLD_EACH:
            return
        wrong, refused = self._wrong, self._refused
        self._wrong = self._refused = 0
        self._told_at = now
        self._emit(
            "warn", "admin.wrong_tokens", f"{wrong} wrong tokens, and {refused} tries refused, the last from {peer}",
            peer=peer, wrong=wrong, refused=refused,
        )  # fmt: skip
