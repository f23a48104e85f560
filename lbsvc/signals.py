"""Which signal asks for what (contract.md, "Starting").

Promises: TERM and INT stop the reactor once, in Twisted's way, so that the process ends by its signal; a second one stops at
once; no signal that a service manager or a log rotation sends kills the process. Those that come before there is anybody to
obey are obeyed later. Called by tap.py first of all (`hold_signals`), and by app.py once the reactor runs (Twisted installs
its own just before; `sigTerm` and `sigInt` are what they call).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final, Protocol


class Obedient(Protocol):
    """What can be asked for; each is called in the reactor's own turn."""

    @property
    def is_stopping(self) -> bool: ...

    def stop_now(self) -> None: ...
    def reload(self) -> None: ...
    def reopen_logs(self) -> None: ...
    def upgrade(self) -> None: ...


#: What is asked for by them can wait; their default is to kill.
_PATIENT: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Held:
    """In place of a handler while there is nobody to obey: it remembers whether its signal has come."""

    def __init__(self) -> None:
        self.has_come = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.has_come = True


def hold_signals() -> None:
    """From the beginning of the program until `obey_signals`."""
    for number in _PATIENT:
        if not isinstance(signal.getsignal(number), Held):
            signal.signal(number, Held())


def obey_signals(reactor: Any, service: Obedient) -> None:
    """Install the handlers; what was asked for meanwhile is done in the reactor's next turn."""
    stops = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if stops == 1 and not service.is_stopping:  # it may stop without having been told to: after an upgrade
            # Not what stood there before: where INT was ignored at the start, as it is behind `&` in a script, Twisted
            # leaves it so, and a stop that is counted but not begun would swallow all that follow.
            ordinarily[signal.Signals(number)](number, frame)
        else:
            reactor.callFromThread(service.stop_now)

    def ask(obey: Callable[[], None], number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(obey)

    ordinarily = {signal.SIGTERM: reactor.sigTerm, signal.SIGINT: reactor.sigInt}
    for number in ordinarily:
        signal.signal(number, stop)
    for number, obey in zip(_PATIENT, (service.reload, service.reopen_logs, service.upgrade), strict=True):
        former = signal.signal(number, partial(ask, obey))
        if isinstance(former, Held) and former.has_come:
            reactor.callFromThread(obey)
