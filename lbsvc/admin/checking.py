"""Configurations that come in requests to be checked: one at a time, and nobody waits for ever.

Promises: one is read at a time, in the order in which they came; at most `MOST_WAITING` wait, and any more are `Busy`; who
has waited for `PATIENCE` seconds, in the queue or while theirs is read, is told so. What is being read goes on to its end,
for a thread cannot be stopped, and only then comes the next; what waits is dropped when it is cancelled. Used by api.py and
calls.py. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lbsvc.admin.control import Checked

MOST_WAITING: Final = 4
PATIENCE: Final = 20.0


class Busy(Exception):
    """It cannot be done now: 503."""


class Checks:
    """The queue."""

    def __init__(self, clock: IReactorTime, read: Callable[[bytes], Deferred[Checked]]) -> None:
        self._clock = clock
        self._read = read
        self._is_reading = False
        self._waiting: dict[Deferred[Checked], bytes] = {}

    def ask(self, text: bytes) -> Deferred[Checked]:
        """What is to be said of a text; may be cancelled. Raises Busy, and fails with it."""
        if len(self._waiting) >= MOST_WAITING:
            raise Busy("as many configurations wait to be checked as may at one time")
        answer: Deferred[Checked] = Deferred()
        late = Busy(f"this could not be checked within {PATIENCE:g} seconds")
        timer = self._clock.callLater(PATIENCE, answer.errback, late)

        def leave(result: Checked | Failure) -> Checked | Failure:
            if timer.active():
                timer.cancel()
            self._waiting.pop(answer, None)
            return result

        answer.addBoth(leave)
        self._waiting[answer] = text
        self._go_on()
        return answer

    def _go_on(self) -> None:
        while self._waiting and not self._is_reading:
            answer = next(iter(self._waiting))
            self._is_reading = True
            maybeDeferred(self._read, self._waiting.pop(answer)).addBoth(self._tell, answer)

    def _tell(self, result: Checked | Failure, answer: Deferred[Checked]) -> None:
        self._is_reading = False
        if not answer.called:
            answer.callback(result)  # a failure goes the way of failures
        self._go_on()
