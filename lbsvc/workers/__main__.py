"""A worker's process, as workers/member.py starts it: `python -m lbsvc.workers PLACE VERSION`, its end of the channel as
descriptor 3. Where another version is installed by now than the parent's it says so, and ends. When the parent dies the
kernel kills it: one that hangs or is stopped would else keep the listening sockets, and nobody could start the service anew.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from typing import Any

from lbsvc import __version__
from lbsvc.net.channel import Channel
from lbsvc.signals import hold_signals
from lbsvc.tap import install_reactor
from lbsvc.workers import messages

#: The descriptor of the channel.
CHANNEL = 3
#: prctl(2)
_PR_SET_PDEATHSIG = 1


def refuse(reactor: Any, skt: socket.socket, version: str) -> None:
    """The parent is of another version, and would not be understood."""
    words = f"lbsvc {__version__} is what is installed by now, and lbsvc {version} is what runs: restart or upgrade it"
    channel = Channel(reactor, skt, lambda message, descriptors: None, lambda why: None)
    channel.send(messages.encode(messages.Refused([("", words)])))
    channel.close()


def die_with_parent() -> None:
    """Have the kernel kill us when the parent dies (prctl(2), PR_SET_PDEATHSIG). Else the channel's end says so."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):  # no Linux
        return


def main() -> int:
    """Be a worker, for its whole life; its exit code."""
    die_with_parent()
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
    skt = socket.socket(fileno=CHANNEL)
    if sys.argv[2:] != [__version__]:
        refuse(reactor, skt, sys.argv[2] if sys.argv[2:] else "another version")
        return 1
    Worker(reactor, skt, time.time, os.environ, end)  # noqa: TID251 - the same
    reactor.run(installSignalHandlers=False)
    return codes[0] if codes else 1


if __name__ == "__main__":
    sys.exit(main())
