"""For how long may a client of HTTP/2 hold many answers at once? (zero windows that are held, or nothing that is read)

Promises: a connection may hold MOST_HELD answers for `write`, as that many connections of HTTP/1 may. If it holds more, and
none of its streams makes progress, it may do so for as many stream-seconds: 100 for about a sixth of `write`. Then it is
over. Progress is a DATA frame on any stream, but those that a window has made tiny, or bytes that the client's kernel has
taken; it clears the books: a slow client, or one whose other streams go on, has `write`, stream by stream. Called by
h2_requests.py for streams that wait, websockets among them, each LOOK seconds; nothing runs for those that do not. Values
only; seconds.

Decision (2026-11): the backends of such answers are stopped, and what waits is in the kernel: 130 KB of a connection that
is new, up to 3 MB of one that was fast. To bound that was measured: a smaller window once it is stopped (TCP_WINDOW_CLAMP)
changes nothing, since what was offered comes in any case, and costs a third of the speed afterwards; SO_RCVBUF keeps the
kernel from growing it for backends far away. So time is bounded here; how many connections a client may have is the
listener's limit. A client that takes a little now and then is not told from a slow one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

#: Answers of one connection that may be held for the whole of `write`.
MOST_HELD: Final = 16
#: How often is it looked at what waits, in seconds.
LOOK: Final = 2.0


class Waiting(Protocol):
    """An answer, as far as it matters here."""

    @property
    def is_held(self) -> bool: ...


class Held:
    """The books of one connection."""

    __slots__ = ("_debt", "_frames", "_left", "_looked_at", "moved_at")

    def __init__(self) -> None:
        self.moved_at = 0.0  # when progress was seen last
        self._looked_at = 0.0
        self._debt = 0.0  # stream-seconds since then
        self._frames = 0
        self._left = 0

    def is_due(self, now: float) -> bool:
        """Whether to `look`: many streams ask at once."""
        return now - self._looked_at >= LOOK / 2

    def look(self, now: float, requests: Iterable[Any], frames: int, left: int, write: float) -> bool:
        """Whether the connection has held too many for too long; `frames`: sent until now, `left`: bytes not delivered."""
        held = sum(request.is_held for request in requests)
        # Where nothing was looked at for longer, nothing was held.
        passed = min(now - self._looked_at, 2 * LOOK)
        self._looked_at = now
        if frames != self._frames or left < self._left:
            self._debt = 0.0
            self.moved_at = now
        elif held > MOST_HELD:
            self._debt += held * passed
        else:
            self._debt = 0.0
        self._frames, self._left = frames, left
        return self._debt > MOST_HELD * write
