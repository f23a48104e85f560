"""Which signal asks for what (contract.md, "Starting").

Promises: TERM and INT stop the reactor once, in Twisted's way, so that the process ends by its signal; a second one stops at
once; no signal that a service manager or a log rotation sends kills the process. Called by app.py once the reactor runs
(Twisted installs its own just before; `sigTerm` and `sigInt` are what they call).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Protocol


class Obedient(Protocol):
    """What can be asked for; each is called in the reactor's own turn."""

    def stop_now(self) -> None: ...
    def reload(self) -> None: ...
    def reopen_logs(self) -> None: ...
    def upgrade(self) -> None: ...


def obey_signals(reactor: Any, service: Obedient) -> None:
    """Install the handlers."""
    stops = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if stops == 1:
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
    for number, obey in (
        (signal.SIGHUP, service.reload),
        (signal.SIGUSR1, service.reopen_logs),
        (signal.SIGUSR2, service.upgrade),
    ):
        signal.signal(number, partial(ask, obey))
