"""A worker's process, as workers/member.py starts it: `python -m lbsvc.workers`, its end of the channel as descriptor 3."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

from lbsvc.signals import hold_signals
from lbsvc.tap import install_reactor

#: The descriptor of the channel.
CHANNEL = 3


def main() -> int:
    """Be a worker, for its whole life; its exit code."""
    hold_signals()
    install_reactor()
    from twisted.internet import reactor as installed  # noqa: TID251 - a program, as tap.py is

    from lbsvc.workers.worker import Worker

    reactor: Any = installed
    codes: list[int] = []

    def end(code: int) -> None:
        if not codes:
            codes.append(code)
            reactor.callWhenRunning(reactor.stop)

    os.set_inheritable(CHANNEL, False)
    Worker(reactor, socket.socket(fileno=CHANNEL), time.time, os.environ, end)  # noqa: TID251 - the same
    reactor.run(installSignalHandlers=False)
    return codes[0] if codes else 1


if __name__ == "__main__":
    sys.exit(main())
