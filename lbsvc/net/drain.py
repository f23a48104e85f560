"""How the service stops, stage by stage (contract.md, "Behaviour", SIGTERM).

Promises: not ready at once; after `delay` listeners stop accepting, what waits in their accept queues having been
accepted; idle connections close, busy ones after their answer; tcp may go on; what is left `drain_timeout` after the delay
is cut. `force` skips every wait that is left. Called by app.py when the service stops; written out here, since a
MultiService stops its children all at once and waits for none. Seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

#: How often we look whether the last connection has gone, in seconds.
LOOK: Final = 0.05


class Closable(Protocol):
    """A listener: stops accepting."""

    def close(self) -> None: ...


class Site(Protocol):
    """What holds a listener's connections."""

    def drain(self) -> None: ...
    def abort(self) -> None: ...


class Drain:
    """One stop of the service."""

    def __init__(
        self,
        clock: IReactorTime,
        delay: float,
        timeout: float,
        listeners: Sequence[Closable],
        sites: Sequence[Site],
        count_open: Callable[[], int],
        emit: Callable[[str], None],
        closing: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._delay = delay
        self._timeout = timeout
        self._listeners = listeners
        self._sites = sites
        self._count_open = count_open
        self._emit = emit
        self._closing = closing
        self._done: Deferred[None] = Deferred()
        self._waiting: list[Callable[[], None]] = []
        self._deadline = 0.0
        self._look = LoopingCall(self._check)
        self._look.clock = clock
        self._is_forced = False

    def run(self) -> Deferred[None]:
        """Begin; fires when every connection is gone."""
        if self._delay > 0 and not self._is_forced:
            self._emit(f"not ready; accepting for another {self._delay:g} s")
            later = self._clock.callLater(self._delay, self._stop_accepting)
            self._waiting.append(later.cancel)
        else:
            self._stop_accepting()
        return self._done

    def force(self) -> None:
        """Stop now."""
        if self._is_forced:
            return
        self._is_forced = True
        waiting, self._waiting = self._waiting, []
        for cancel in waiting:
            cancel()
            self._stop_accepting()
        if self._look.running:
            self._check()

    def _stop_accepting(self) -> None:
        self._waiting = []
        self._closing()
        for listener in self._listeners:
            listener.close()
        for site in self._sites:
            site.drain()
        left = self._count_open()
        self._emit(f"{left} connections to finish, for {self._timeout:g} s at most")
        self._deadline = self._clock.seconds() + self._timeout
        self._look.start(LOOK, now=True)

    def _check(self) -> None:
        left = self._count_open()
        if left and not self._is_forced and self._clock.seconds() < self._deadline:
            return
        self._look.stop()
        if left:
            self._emit(f"cutting {left} connections that are left")
        for site in self._sites:
            site.abort()
        # Aborted transports are lost in the next turn of the reactor; then nothing of theirs is left.
        self._clock.callLater(0, self._done.callback, None)
