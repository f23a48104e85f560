"""How the service stops, stage by stage (contract.md, "Behaviour", SIGTERM).

Promises: not ready at once; after `delay` listeners stop accepting, what waits in their accept queues having been
accepted; idle connections close, busy ones after their answer; tcp may go on; what is left `drain_timeout` after the delay
is cut, and who can be told so (HTTP/2) has FAREWELL to close. Where another process goes on with the same sockets
(`is_gentle`) idle connections have a moment more, in which a request may arrive: clients need not notice. `force`, at any
time, skips every wait that is left. It ends whatever happens on the way: what fails is logged, and the next step is taken.
Called by app.py when the service stops; written out here, since a MultiService stops its children all at once and waits for
none. Seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: How often we look whether the last connection has gone, in seconds.
LOOK: Final = 0.05
#: How long those may take to close that were told that they are cut (HTTP/2), in seconds.
FAREWELL: Final = 1.0


class Closable(Protocol):
    """A listener: stops accepting."""

    def close(self) -> None: ...


class Site(Protocol):
    """What holds a listener's connections."""

    def leave(self) -> None: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...


class Drain:
    """One stop of the service."""

    log = Logger()

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
        is_gentle: bool = False,
        count_told: Callable[[], int] | None = None,
    ) -> None:
        self._clock = clock
        self._delay = delay
        self._timeout = timeout
        self._listeners = listeners
        self._sites = sites
        self._count_open = count_open
        self._emit = emit
        self._closing = closing
        self._is_gentle = is_gentle
        #: the connections that people are told of, where something else is waited for
        self._count_told = count_told or count_open
        self._done: Deferred[None] = Deferred()
        #: the next step and when it is due; None before `run`, between steps, and at the end
        self._step: Callable[[], None] | None = None
        self._due: IDelayedCall | None = None
        self._deadline = 0.0
        self._is_forced = False

    def run(self) -> Deferred[None]:
        """Begin; fires when every connection is gone."""
        if self._delay > 0 and not self._is_forced:
            self._try(lambda: self._emit(f"not ready; accepting for another {self._delay:g} s"))
            self._later(self._delay, self._stop_accepting)
        else:
            self._stop_accepting()
        return self._done

    def force(self) -> None:
        """Stop now."""
        self._is_forced = True
        due, step = self._due, self._step
        if due is not None and step is not None:
            due.cancel()
            self._due = self._step = None
            step()

    def hurry(self, timeout: float) -> None:
        """What is left is cut in so many seconds at the latest."""
        self._timeout = min(self._timeout, timeout)
        self._deadline = min(self._deadline, self._clock.seconds() + timeout)

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        self._step = step
        self._due = self._clock.callLater(seconds, self._take_step)

    def _take_step(self) -> None:
        step, self._due, self._step = self._step, None, None
        assert step is not None
        step()

    def _try(self, *acts: Callable[[], object]) -> None:
        """Each of them, whatever comes of the others: a stop that gets stuck would need a kill."""
        for act in acts:
            try:
                act()
            except Exception:
                self.log.failure("a step of the drain failed")

    def _say_what_is_left(self) -> None:
        if not self._is_forced:
            self._emit(f"{self._count_told()} connections to finish, for {self._timeout:g} s at most")

    def _stop_accepting(self) -> None:
        self._try(
            self._closing,
            *(listener.close for listener in self._listeners),
            *(site.leave for site in self._sites if self._is_gentle),
            *(site.drain for site in self._sites),
            self._say_what_is_left,
        )
        self._deadline = self._clock.seconds() + self._timeout
        self._look()

    def _look(self) -> None:
        left = self._count_open()
        if left and not self._is_forced and (rest := self._deadline - self._clock.seconds()) > 0:
            self._later(min(LOOK, rest), self._look)
            return
        if left:
            self._try(lambda: self._emit(f"cutting {self._count_told()} connections that are left"))
        self._try(*(site.abort for site in self._sites))
        self._deadline = self._clock.seconds() + FAREWELL
        # Aborted transports are lost in the next turn of the reactor; then nothing of theirs is left.
        self._later(0.0, self._take_leave)

    def _take_leave(self) -> None:
        """Who was told that it is cut closes: if we did so first, what it has on its way would destroy what it is told."""
        if not self._count_open():
            self._done.callback(None)
        elif not self._is_forced and (rest := self._deadline - self._clock.seconds()) > 0:
            self._later(min(LOOK, rest), self._take_leave)
        else:
            self._try(*(site.abort for site in self._sites))
            self._clock.callLater(0, self._done.callback, None)
