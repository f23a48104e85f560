"""What the first process of a container owes the others (contract.md, "As PID 1").

Promises: children that others have left to us are reaped as soon as they end; those that this process has started by
Twisted are Twisted's, and keep their exit status. Where nobody's orphans come to us (we are neither PID 1 nor a
"subreaper", prctl(2)) nothing is installed. `end_early` makes TERM end a first process that has not yet begun to serve: the
kernel delivers it no signal that it does not handle.

That a clean stop ends with 0 needs nothing: the signal that Twisted ends itself by is ignored, for the same reason.
Called by tap.py (`end_early`) and, once the reactor runs, by app.py (`reap_orphans`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import Any, Final, NoReturn

from twisted.internet import process

#: prctl(2)
_PR_GET_CHILD_SUBREAPER: Final = 37


def gets_orphans(pid: int) -> bool:
    """Do processes whose parent has ended become children of `pid`, which is this process?"""
    if pid == 1:
        return True
    asked, none = ctypes.c_int(0), ctypes.c_ulong(0)
    try:
        answer = ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(asked), none, none, none)
    except (OSError, AttributeError):  # no Linux
        return False
    return answer == 0 and asked.value != 0


def reap() -> int:
    """Reap every child that has ended, Twisted's own by its own way; how many were nobody's."""
    process.reapAllProcesses()
    count = 0
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return count
        if ended is None or ended.si_pid in process.reapProcessHandlers:
            return count  # one of Twisted's that ended just now: its signal is under way, and brings us here again
        os.waitpid(ended.si_pid, os.WNOHANG)
        count += 1


def reap_orphans(reactor: Any, pid: int) -> bool:
    """From now on, if they come to us. To be called once the reactor runs, which installs its own way of noticing first."""
    if not gets_orphans(pid):
        return False

    def ended(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(reap)

    # In place of Twisted's, which does nothing: that there is one makes the kernel's signal wake the reactor.
    signal.signal(signal.SIGCHLD, ended)
    signal.siginterrupt(signal.SIGCHLD, False)
    reap()  # whoever ended before
    return True


def end_early(pid: int) -> None:
    """TERM ends the first process, with 0, until the reactor runs and drains instead."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    if pid == 1:
        signal.signal(signal.SIGTERM, end)
