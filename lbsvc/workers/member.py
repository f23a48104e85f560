"""One worker as its parent sees it: a process, a channel, and what it has not answered yet.

Promises: the process is started with its end of a socketpair as descriptor 3, with the parent's standard output and error,
in the environment of the parent without what a service manager meant for that alone, and finds modules where the parent
does, so that both are one program wherever that was started; `gone` is called once, when it has
ended, whatever the reason, after everything that it had said was heard. One that closes its channel and lives on is killed.
Called by workers/crew.py. Seconds of a monotonic clock.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc import __version__
from lbsvc.net.channel import Channel
from lbsvc.workers import messages

#: What is for the first process of a service only.
_NOT_INHERITED: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
#: At most so many descriptors go with one message.
MOST_GIVEN: Final = 200

#: So long one may take to end that has closed its channel, in seconds.
GRACE: Final = 5.0

STARTING: Final = "starting"
SERVING: Final = "serving"
LEAVING: Final = "leaving"


def environment(env: Mapping[str, str], path: Iterable[str], is_deaf: bool) -> dict[str, str]:
    """A worker's: modules are to be found where they are found here, and nowhere else, such as in the working folder.
    `is_deaf`: our interpreter was told to believe nothing of its environment (-E, -I)."""
    kept = {
        key: value
        for key, value in env.items()
        if key not in _NOT_INHERITED and not (is_deaf and key.startswith("PYTHON"))
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, path)), "PYTHONSAFEPATH": "1"}


def _flags() -> list[str]:
    """How this interpreter was started, but that a worker must hear of its environment."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return ["-s" if each == "-I" else each for each in flags if each != "-E"]


class _Ending(ProcessProtocol):
    """Hears of the process's end."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended

    @override
    def processEnded(self, reason: Failure) -> None:
        error = reason.value
        if isinstance(error, ProcessDone):
            self._ended("it has ended")
        elif isinstance(error, ProcessTerminated) and error.signal is not None:
            self._ended(f"it was ended by signal {error.signal}")
        else:
            self._ended(f"it has ended with {getattr(error, 'exitCode', None)}")


class Member:
    """One of the crew. `number` is never used twice, `place` is from 1."""

    def __init__(
        self,
        reactor: Any,
        number: int,
        place: int,
        heard: Callable[[Member, messages.Answer], None],
        gone: Callable[[Member, str], None],
        env: Mapping[str, str],
    ) -> None:
        self.number = number
        self.place = place
        self.state = STARTING
        self.born = reactor.seconds()
        #: when it first served; None: it has not
        self.served_since: float | None = None
        #: how many questions in a row it has not answered
        self.unanswered = 0
        self._heard = heard
        self._gone = gone
        self._reactor = reactor
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel = Channel(reactor, ours, self._hear, self._lost)
        self._is_lost = False
        self._ended: str | None = None
        self._killing: Any = None
        devnull = -1
        try:
            devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            # Where they were closed when we were started their numbers are those of other things of ours.
            output = 1 if sys.__stdout__ is not None else devnull
            errors = 2 if sys.__stderr__ is not None else devnull
            self._process = reactor.spawnProcess(
                _Ending(self._end),
                sys.executable,
                [sys.executable, *_flags(), "-m", "lbsvc.workers", f"{place}", __version__],
                env=environment(env, sys.path, bool(sys.flags.ignore_environment)),
                childFDs={0: devnull, 1: output, 2: errors, 3: its.fileno()},
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            if devnull >= 0:
                os.close(devnull)
            its.close()
        self.pid: int = self._process.pid

    # -- to it

    def say(self, message: messages.Message, descriptors: Sequence[int] = ()) -> None:
        """Tell it something; what cannot be told to one that is gone is lost."""
        self._channel.send(messages.encode(message), descriptors)

    def give(self, binds: Iterable[tuple[str, Sequence[socket.socket]]]) -> None:
        """Copies of the listening sockets of each of these binds."""
        count: Counter[str] = Counter()
        named: list[tuple[tuple[str, int], int]] = []
        for bind, sockets in binds:
            named += [((bind, count[bind]), made.fileno()) for made in sockets]
            count[bind] += 1
        for begin in range(0, len(named), MOST_GIVEN):
            some = named[begin : begin + MOST_GIVEN]
            self._channel.send(messages.encode(messages.Given([name for name, _ in some])), [fd for _, fd in some])

    def kill(self) -> None:
        """It does not answer, or has had its time."""
        try:
            self._process.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    # -- from it

    def _hear(self, message: bytes, descriptors: list[int]) -> None:
        for number in descriptors:
            os.close(number)  # it has none to give
        self._heard(self, messages.read_answer(message))

    def _lost(self, why: str) -> None:
        """All that it had said was heard."""
        self._is_lost = True
        if self._ended is None:  # it is ending, or is of no use any more
            self._killing = self._reactor.callLater(GRACE, self.kill)
        self._look_whether_gone()

    def _end(self, how: str) -> None:
        self._ended = how
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        if not self._is_lost:
            # Its last words may still be under way: the channel ends behind them.
            self._reactor.callLater(1.0, self._end_anyway)
        self._look_whether_gone()

    def _end_anyway(self) -> None:
        """Some child of its own may hold the other end."""
        if not self._is_lost:
            self._is_lost = True
            self._look_whether_gone()

    def _look_whether_gone(self) -> None:
        if self._ended is not None and self._is_lost:
            gone, self._gone = self._gone, lambda member, how: None
            self._channel.close()
            gone(self, self._ended)

    def __repr__(self) -> str:
        return f"<worker {self.place}, process {self.pid}, {self.state}>"
