"""Events of workers as the service's own.

Promises: each is told as it happened, with the `worker` it happened in; what the parent tells itself (it checks, binds,
changes settings and sees backends go) is told once, by the parent. Called by crew.py, with lines of logs.py's `Told`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

#: What the parent tells itself: events, and beginnings of their names.
_OURS: Final = (
    *("backend.added", "backend.down", "backend.drained", "backend.removed", "backend.state", "backend.up"),
    *("certificate.", "config.", "listener.bound", "listener.closed", "pool.available", "pool.empty"),
)


def retell(line: bytes, place: int, emit: Callable[..., None]) -> None:
    """An event, as a line of JSON, of the worker at this place."""
    fields = json.loads(line)
    level, event, message = fields.pop("level"), fields.pop("event"), fields.pop("message")
    fields.pop("ts", None)
    if not event.startswith(_OURS):
        emit(level, event, message, **{**fields, "worker": place})
