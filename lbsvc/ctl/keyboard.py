"""A terminal that gives keys as they are pressed, and is as it was when it is over, whatever ends it.

Promises: `open_keyboard` restores the terminal's settings on every way out; TERM and HUP end it as Ctrl-C does. `Keys`
is pure: bytes in any pieces give the same keys. Used by top.py.
"""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SEQUENCES: Final = {
    **{f"\x1b[{c}".encode(): word for c, word in (("A", "up"), ("B", "down"), ("H", "home"), ("F", "end"))},
    **{f"\x1bO{c}".encode(): word for c, word in (("A", "up"), ("B", "down"), ("H", "home"), ("F", "end"))},
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
}

#: No sequence that is meant is as long.
_LONGEST: Final = 16


class Keys:
    """Keys from bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[str]:
        """The keys that are whole now. Sequences that are not known are passed over."""
        rest = self._rest + piece
        found = []
        while rest:
            size = _size(rest)
            if size == 0:
                break
            key = _SEQUENCES.get(rest[:size]) or (chr(rest[0]) if size == 1 and 32 <= rest[0] < 127 else "")
            if key:
                found.append(key)
            rest = rest[size:]
        self._rest = rest
        return found


def _size(text: bytes) -> int:
    """How long the first key is; 0: it is not whole."""
    if text[0] != 0x1B:
        return 1
    if len(text) == 1:
        return 0
    if text[1] not in b"[O":
        return 1  # Escape, and then something else
    for at in range(2, min(len(text), _LONGEST)):
        if 0x40 <= text[at] <= 0x7E:
            return at + 1
    return 0 if len(text) < _LONGEST else _LONGEST


@contextmanager
def open_keyboard(keys: int, wake: int) -> Iterator[None]:
    """Keys come unechoed and at once from the terminal `keys`; a new size writes a byte to `wake`."""
    before = termios.tcgetattr(keys)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def resize(number: int, frame: FrameType | None) -> None:
        try:
            os.write(wake, b"w")
        except BlockingIOError:
            pass  # it will wake anyway

    signals = {signal.SIGTERM: stop, signal.SIGHUP: stop, signal.SIGWINCH: resize}
    former = {number: signal.signal(number, act) for number, act in signals.items()}
    try:
        tty.setcbreak(keys, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        for number, act in former.items():
            signal.signal(number, act)
