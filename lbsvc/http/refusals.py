"""What the event log says of connections of HTTP/2 that we end since the client is at fault: floods, and broken frames.

Promises: `connection.refused` as net/entrance.py says it, with the code word of the GOAWAY; once in TOLD_EACH seconds for
each listener, with how many more there were, so that strangers do not fill the log. Every one of them is counted and logged
by whoever ends it, in `lbsvc_terminations_total` and in the access log. Made by site.py, called by h2_server.py.

Decision (2026-11): they do not count in `lbsvc_listener_rejected_total`. That is of connections that were never served, and
its `overload` says that we have no room: whoever is told ENHANCE_YOUR_CALM was served, and more room would not help.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lbsvc.http.h2_frames import ConnectionFault, code_word

#: So many seconds at least lie between two of them.
TOLD_EACH: Final = 1.0

#: An event: level, name, message, and its fields.
Tell = Callable[..., None]


def tell_nobody(level: str, event: str, message: str, **fields: Any) -> None:
    """Where there is no event log."""


class Refusals:
    """Those of one listener."""

    def __init__(self, listener: str, seconds: Callable[[], float], tell: Tell) -> None:
        self._listener = listener
        self._seconds = seconds
        self._tell = tell
        self._told_at = -TOLD_EACH
        self._untold = 0

    def add(self, client: str, reason: str, fault: ConnectionFault) -> None:
        """One more; it is told, or counted as one of those that were not."""
        now = self._seconds()
        if now - self._told_at < TOLD_EACH:
            self._untold += 1
            return
        more, self._untold, self._told_at = self._untold, 0, now
        others = f" ({more} more since the last time)" if more else ""
        code = code_word(fault.code)
        self._tell(
            "info", "connection.refused", f"{self._listener}: {client}: {reason}: {code}: {fault.detail}{others}",
            listener=self._listener, client=client, reason=reason, code=code, detail=fault.detail, more=more,
        )  # fmt: skip
