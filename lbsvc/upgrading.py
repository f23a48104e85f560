"""The next program in this one's place, without a gap (SIGUSR2, `lbctl upgrade`): the side of the one that runs.

Promises
- The new process is started by the same command, in the same folder and environment, with every listening socket and what
  people have set at run time (net/inheriting.py). It accepts nothing before it is ready (its first round of checks) and we
  have told it to go; until then we serve, and nothing is changed here, so that what it was given stays true.
- Then the service manager is told who is the service now (MAINPID=), our sockets are closed without being shut down, with
  whoever waits in them left to the new process, and we drain: see app.py and net/drain.py.
- A process that ends before that, or is not ready within PATIENCE and what its checks may take (then it is killed), changes
  nothing: we go on, and why is told to the log (`service.upgrade`) and to whoever asked. Another one may be tried.
- One at a time. Where it cannot work it is refused in words, and nothing is started: while we start or stop; where somebody
  takes the end of this process for the end of the service, and cannot be told otherwise.

Called by app.py (SIGUSR2, stop) and controlling.py. Seconds of the reactor's clock.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from lbsvc.admin.control import Failed, Impossible, Underway
from lbsvc.adminlistener import AdminListener
from lbsvc.config.schema import Settings
from lbsvc.errors import Mistake, Stopping
from lbsvc.listening import Listeners
from lbsvc.net.channel import Channel
from lbsvc.net.inheriting import VARIABLE, Given, Package
from lbsvc.net.listener import Listener
from lbsvc.net.sockets import Bound
from lbsvc.net.systemd import Passed
from lbsvc.reloading import Reloading
from lbsvc.supervising import Supervision

#: How long a new process may take until it is ready, beside what its health checks may take, in seconds.
PATIENCE: Final = 60.0
#: Parents that end a service, or start it again, when the process has ended that they have started; by their names.
_SUPERVISORS: Final = frozenset(
    (
        *("catatonit", "docker-init", "dumb-init", "podman-init", "tini"),
        *("circusd", "runsv", "s6-supervise", "supervise", "supervisord"),
    )
)
#: Why nothing is changed meanwhile.
_CLOSED: Final = "the service is being upgraded: what is changed now, the new process would not know"


class Service(Protocol):
    """The part of app.py's Balancer that is handed over."""

    admin: AdminListener
    reloading: Reloading
    supervision: Supervision
    #: why it is not ready; None: it is
    unready: str | None

    @property
    def is_stopping(self) -> bool: ...

    @property
    def listening(self) -> Listeners | None: ...

    @property
    def settings(self) -> Settings: ...

    def succeeded(self) -> None:
        """Another process serves: drain, and end."""


@dataclass
class Gift:
    """What is given, and how we part with it once another process has it."""

    given: Given
    hand_over: Callable[[], None]


class Upgrading:
    """Starts the next process, and hands over."""

    def __init__(
        self,
        reactor: Any,
        env: Mapping[str, str],
        service: Service,
        passed: Passed,
        emit: Callable[..., None],
        command: tuple[str, list[str]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._env = env
        self._service = service
        self._passed = passed
        self._emit = emit
        self._command = command or (sys.executable, [sys.executable, *sys.orig_argv[1:]])
        self._attempt: Attempt | None = None
        #: the process that has taken our place
        self.successor: int | None = None

    # -- what is asked

    def start(self) -> Deferred[int]:
        """Start the new process; fires with its pid when it serves, a turn before we begin to drain. Fails with
        admin.control's Impossible, Underway, Failed, or with Stopping."""
        try:
            self._look_whether_possible()
            attempt = self._begin()
        except (Impossible, Underway, Failed, Stopping) as refusal:
            self._emit("error", "service.upgrade", f"upgrade: refused: {_in_words(refusal)}")
            return fail(refusal)
        words = f"upgrade: process {attempt.pid} starts, and is given {len(attempt.gifts)} binds"
        self._emit("info", "service.upgrade", words, pid=attempt.pid)
        return attempt.done

    def obey(self) -> None:
        """The same, for a signal: what comes of it is in the log."""
        self.start().addErrback(lambda failure: failure.trap(Impossible, Underway, Failed, Stopping) and None)

    def stop(self) -> None:
        """We stop: no process starts any more."""
        if self._attempt is not None:
            self._attempt.give_up(Stopping([Mistake("", 0, 0, "", "the service is stopping")]))

    def _look_whether_possible(self) -> None:
        if self._service.is_stopping or self.successor is not None:
            raise Stopping([Mistake("", 0, 0, "", "the service is stopping")])
        if self._attempt is not None:
            raise Underway(f"an upgrade is under way: process {self._attempt.pid} is starting")
        if self._service.unready is not None:
            raise Underway("the service is not ready yet")
        why = why_not(self._env, os.getpid(), os.getppid(), name_of(os.getppid()))
        if why is None and not hasattr(self._reactor, "spawnProcess"):
            why = "this reactor starts no processes"
        if why is not None:
            raise Impossible(f"it cannot be upgraded here: {why}")

    # -- one attempt

    def _begin(self) -> Attempt:
        service = self._service
        service.reloading.look_whether_open()
        service.reloading.closed = _CLOSED
        try:
            attempt = Attempt(self, self._reactor, _gifts(service), PATIENCE + _longest_check(service.settings))
            package = Package(
                [gift.given for gift in attempt.gifts], self._passed, service.reloading.hand_over(), os.getpid()
            )
            try:
                program, arguments = self._command
                env = {**self._env, VARIABLE: package.word}
                process = self._reactor.spawnProcess(attempt, program, arguments, env, childFDs=package.descriptors)
            except BaseException:
                package.channel.close()
                raise
            finally:
                package.close()
            attempt.begin(process, package)
        except OSError as error:
            self._reopen()
            raise Failed(f"the new process cannot be started: {error.strerror or error}") from None
        except BaseException:
            self._reopen()
            raise
        self._attempt = attempt
        return attempt

    def _reopen(self) -> None:
        if self._service.reloading.closed is _CLOSED:
            self._service.reloading.closed = None

    def failed(self, attempt: Attempt, why: Exception) -> None:
        """Nothing has come of it."""
        self._attempt = None
        self._reopen()
        fate = f"process {os.getpid()} goes on as it was"
        if isinstance(why, Stopping):
            fate = f"process {attempt.pid}, which had not taken over, was killed"
        words = f"upgrade: {_in_words(why)}: {fate}"
        self._emit("error", "service.upgrade", words, pid=attempt.pid, exit=attempt.exit_code)
        attempt.done.errback(why)

    def ready(self, attempt: Attempt, places: list[int]) -> None:
        """The new process could serve. Whoever supervises us must know it before it speaks."""
        self._service.supervision.succeeded_by(attempt.pid, partial(self._hand_over, attempt, places))

    def _hand_over(self, attempt: Attempt, places: list[int]) -> None:
        if attempt.is_over:  # it has ended meanwhile, or we stop
            return
        self._attempt = None
        self.successor = attempt.pid
        self._service.supervision.stop()
        for place in places:
            attempt.gifts[place].hand_over()
        attempt.go()
        words = f"upgrade: process {attempt.pid} serves, process {os.getpid()} drains"
        self._emit("info", "service.upgrade", words, pid=attempt.pid)
        attempt.done.callback(attempt.pid)
        self._reactor.callLater(0, self._service.succeeded)

    def bereaved(self, attempt: Attempt) -> None:
        """The process that has taken our place has ended while we drain: because it was told to, or not."""
        if attempt.was_told_to_end:
            words = f"upgrade: process {attempt.pid}, which had taken over, was told to end"
            self._emit("info", "service.upgrade", words, pid=attempt.pid)
        else:
            self._emit("error", "service.upgrade", f"upgrade: {attempt.fate()}, having taken over", pid=attempt.pid)


class Attempt(ProcessProtocol):
    """One new process, until it serves or has failed."""

    def __init__(self, upgrading: Upgrading, reactor: Any, gifts: list[Gift], patience: float) -> None:
        self._upgrading = upgrading
        self._reactor = reactor
        self._patience = patience
        self.gifts = gifts
        self.done: Deferred[int] = Deferred()
        self.pid = 0
        self.exit_code: int | None = None
        self.is_over = False
        self._is_gone = False
        self._signal: int | None = None
        self._words = ""  # what it has to say
        self._process: Any = None
        self._channel: Channel | None = None
        self._due: Any = None

    def begin(self, process: Any, package: Package) -> None:
        """It has been started."""
        self._process = process
        self.pid = process.pid
        self._channel = Channel(self._reactor, package.channel, self._heard, lambda why: None)  # its end says more
        self._due = self._reactor.callLater(self._patience, self._overdue)

    def _heard(self, message: bytes, descriptors: list[int]) -> None:
        told = json.loads(message)
        if "failed" in told:
            self._words = str(told["failed"])
        elif not self.is_over and self._due is not None:
            self._wait_no_longer()
            self._upgrading.ready(self, told["ready"])

    def _wait_no_longer(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            due.cancel()

    def _overdue(self) -> None:
        self._due = None
        self.give_up(Failed(f"process {self.pid} was not ready within {self._patience:g} s, and was killed"))

    def go(self) -> None:
        """It is its turn."""
        assert self._channel is not None
        self.is_over = True
        self._channel.send(b'{"go": true}')
        self._channel.close()

    def give_up(self, why: Exception) -> None:
        """It goes, whatever it is at."""
        if self.is_over:
            return
        if not self._is_gone:
            with suppress(ProcessExitedAlready):
                self._process.signalProcess("KILL")
        self._fail(why)

    def _fail(self, why: Exception) -> None:
        self.is_over = True
        self._wait_no_longer()
        if self._channel is not None:
            self._channel.close()
        self._upgrading.failed(self, why)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """It has ended, and all that it has said can be read."""
        self._is_gone = True
        self.exit_code = 0
        if isinstance(reason.value, ProcessTerminated):
            self.exit_code, self._signal = reason.value.exitCode, reason.value.signal
        if self.pid == self._upgrading.successor:
            self._upgrading.bereaved(self)
        elif not self.is_over:
            assert self._channel is not None
            self._channel.doRead()  # the end is noticed before what came of it
            self._fail(Failed(self.fate()))

    @property
    def was_told_to_end(self) -> bool:
        """Has it ended as a service does that is stopped?"""
        return self._signal in (signal.SIGTERM, signal.SIGINT) or (self._signal is None and self.exit_code == 0)

    def fate(self) -> str:
        """How it has ended, in words."""
        how = f"by signal {self._signal}" if self._signal is not None else f"with exit code {self.exit_code}"
        if self._words and not self.exit_code and self._signal is None:
            return f"process {self.pid} gave up: {self._words}"
        why = self._words or "whatever it had to say stands on the standard error that it shares with us"
        return f"process {self.pid} ended {how}: {why}"


def why_not(env: Mapping[str, str], pid: int, parent: int, parent_name: str) -> str | None:
    """Why this process cannot leave its place to another one; None: it can."""
    if pid == 1:
        return "as process 1 of a container its end would be the container's: start another container"
    is_told = bool(env.get("NOTIFY_SOCKET"))
    is_main = env.get("SYSTEMD_EXEC_PID") == str(pid) or (parent == 1 and "INVOCATION_ID" in env)
    if is_main and not is_told:
        return (
            "systemd would take the end of this process for the service's, since we have no way to tell it otherwise: "
            "its unit needs Type=notify"
        )
    if parent_name in _SUPERVISORS and not is_told:
        return f"{parent_name}, which has started this process, would take its end for the service's"
    if not sys.executable:
        return "it is not known which Python runs this"
    if not hasattr(os, "memfd_create"):
        return "this system has no unnamed files"
    return None


def name_of(pid: int) -> str:
    """What a process is called; nothing where that cannot be known."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _in_words(why: Exception) -> str:
    """Why not; nobody asks which file it was."""
    return "; ".join(each.message for each in why.mistakes) if isinstance(why, Stopping) else str(why)


def _longest_check(settings: Settings) -> float:
    checks = [pool.health_check for pool in settings.pools.values()]
    return max((check.timeout for check in checks if check is not None), default=0.0)


def _gifts(service: Service) -> list[Gift]:
    """Every socket that is open, but those that systemd has passed: they go over by their names."""
    assert service.listening is not None
    gifts = [
        Gift(bound.given, partial(_part, listener, bound))
        for listener in service.listening.listeners
        for bound in listener.bound
        if bound.bind.passed_as is None
    ]
    admin = service.admin.given(service.settings.admin)
    return gifts if admin is None else [*gifts, Gift(admin, service.admin.hand_over)]


def _part(listener: Listener, bound: Bound) -> None:
    listener.bound = [each for each in listener.bound if each is not bound]
    bound.hand_over()
