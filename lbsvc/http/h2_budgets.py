"""How much that costs us and asks for nothing may a peer send? (RFC 9113, 10.5; CVE-2019-9511 and its family,
CVE-2023-44487)

Promises: each connection has two allowances. `control` pays for frames that only make work: PING, SETTINGS, PRIORITY,
empty DATA and CONTINUATION, WINDOW_UPDATE, header sections of hundreds of fields, what is unknown; it grows with time, with
DATA that we send, which lawful peers acknowledge, and with messages of ours that are whole. `resets` pays for streams that
end before they were answered, by the peer or by its faults (CVE-2025-8671); it grows with time and with whole answers of
backends (h2_requests.py). What we say ourselves, a 501 or a 404, say, earns nothing: else it would pay for requests that
backends work at for nobody. Whoever is through with one gets ENHANCE_YOUR_CALM. DATA that the peer's windows have cut to
a few octets makes `control` grow only as far as a third allowance goes, `tiny`. Called by h2_codec.py; seconds of the
injected clock.

Decision (2026-11): an answer earns one reset, not half of one: clients that give up every other request are lawful (Envoy
draws the line there too), and pay for each reset with a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbsvc.http.h2_frames import ENHANCE_YOUR_CALM, ConnectionFault

#: Frames at once, and in each second; and for each DATA frame that we have sent, and each message.
CONTROL: Final = 1000.0
CONTROL_RATE: Final = 100.0
CONTROL_EARNED: Final = 2.0
#: Streams at once, and in each second; and for each whole answer of a backend.
RESETS: Final = 200.0
RESETS_RATE: Final = 20.0
RESETS_EARNED: Final = 1.0
#: DATA frames that windows have made tiny: at once, and in each second. Each costs some 5 µs, as a sixth of a request does.
TINY: Final = 100_000.0
TINY_RATE: Final = 500.0


class Budget:
    """One allowance."""

    __slots__ = ("_at", "_left", "_most", "_rate", "_seconds", "_what")

    def __init__(self, what: str, most: float, rate: float, seconds: Callable[[], float]) -> None:
        self._what = what
        self._most = most
        self._left = most
        self._rate = rate
        self._seconds = seconds
        self._at = seconds()

    def spend(self, price: float = 1.0) -> None:
        """Raises ConnectionFault if it is not there."""
        self._left -= price
        if self._left < 0 and not self._grow(price):
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"too many {self._what}")

    def _grow(self, price: float) -> bool:
        """Add what time has brought; whether that pays. Only now is the clock asked: most peers never come here."""
        now = self._seconds()
        self._left = min(self._most, self._left + price + (now - self._at) * self._rate) - price
        self._at = now
        return self._left >= 0

    def take(self) -> bool:
        """Whether one more is there; then it is spent."""
        self._left -= 1.0
        if self._left >= 0 or self._grow(1.0):
            return True
        self._left += 1.0
        return False

    def earn(self, amount: float) -> None:
        """Something useful was done."""
        left = self._left + amount
        self._left = left if left < self._most else self._most


class Budgets:
    """All of a connection."""

    __slots__ = ("control", "resets", "tiny")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.control = Budget("frames that ask for nothing", CONTROL, CONTROL_RATE, seconds)
        self.resets = Budget("streams that end before they are answered", RESETS, RESETS_RATE, seconds)
        self.tiny = Budget("tiny DATA frames", TINY, TINY_RATE, seconds)
