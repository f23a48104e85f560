"""When the history looks: once a second while the admin interface is served, so that a new dashboard shows the past.

Promises: a look is as cheap as a part of a status, and never raises; events are noted as they are told. Started and stopped
by site.py with the listener, beside its streams. `Control.sample` does the looking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbsvc.admin.control import Control

INTERVAL: Final = 1.0


class Sampling:
    """The clockwork of a history."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, control: Control) -> None:
        self._control = control
        self._ticking = LoopingCall(self._look)
        self._ticking.clock = clock
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """From now on."""
        if not self._ticking.running:
            self._unsubscribe = self._control.subscribe(self._control.history.note)
            self._ticking.start(INTERVAL)

    def stop(self) -> None:
        """Until it is started again."""
        if self._ticking.running:
            self._ticking.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _look(self) -> None:
        try:
            self._control.sample()
        except Exception:  # a moment that cannot be noted is not the last one
            self._log.failure("cannot note this second in the history")
