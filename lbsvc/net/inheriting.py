"""What a process that starts another one in its place hands over, and how the other one takes it (upgrading.py, SIGUSR2).

Promises
- `Package` is the one side: the listening sockets of each bind, those that systemd has passed, and what people have set at
  run time, as descriptors of the new process, an unnamed file that says what they are, and one word in its environment.
  Nothing of it is left in the old process but its own end of the channel.
- `take_inherited` is the other: it reads the word once, removes it, and believes it only of the process that has started us;
  no child of ours inherits a descriptor. What cannot be read is refused, with everything closed. What the environment says
  of our process number (WATCHDOG_PID, SYSTEMD_EXEC_PID) is true afterwards.
- An equal bind takes the inherited sockets, as copies. Until we `own` them nothing changes for the old process, whatever
  becomes of us: neither the length of their queues nor their files. Sockets that nobody has taken are closed.
- The old process hears that we are ready (and which binds we have taken), or why we are not, and then tells us to go: not
  before is anything accepted. If it ends without having said so, we are told that we are orphaned.

Called by tap.py (first of all), app.py, and upgrading.py. Messages are JSON, by net/channel.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from lbsvc.config.schema import Bind
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.net.binding import SocketFile, UnixSocket
from lbsvc.net.channel import Channel
from lbsvc.net.systemd import Passed, duplicate

#: The word in the environment: JSON.
VARIABLE: Final = "LBSVC_INHERITED"
#: Of all this; a program of another one refuses to start, and changes nothing.
VERSION: Final = 1
#: No description of sockets and changes is longer, in bytes.
LARGEST: Final = 64 << 20

#: What stands where in the new process: the channel, the description, and then the sockets.
_CHANNEL: Final = 3
_STORY: Final = 4
#: What a number of a descriptor may be.
_FIRST: Final = 3
_LAST: Final = 1 << 30
_SOCKETS: Final = 5


@dataclass(frozen=True)
class Given:
    """A bind, as it is written, with the descriptors of its listening sockets; a unix socket's has a file, known by device
    and inode."""

    bind: str
    numbers: tuple[int, ...]
    file: tuple[int, int] | None = None


class Package:
    """What a new process is started with. Raises OSError where that cannot be had."""

    def __init__(self, given: Sequence[Given], passed: Passed, changes: Any, pid: int) -> None:
        self._made: list[int] = []
        #: our end of the channel
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                self._pack(given, passed, changes, theirs)
        except BaseException:
            self.close()
            self.channel.close()
            raise
        #: for its environment
        self.word = json.dumps({"version": VERSION, "pid": pid, "channel": _CHANNEL, "story": _STORY})

    def _pack(self, given: Sequence[Given], passed: Passed, changes: Any, theirs: socket.socket) -> None:
        numbers: list[int] = []

        def place(number: int) -> int:
            numbers.append(number)
            return _SOCKETS + len(numbers) - 1

        story = {
            "sockets": [{"bind": g.bind, "numbers": [*map(place, g.numbers)], "file": g.file} for g in given],
            "passed": [[name, place(made.fileno())] for name, sockets in passed.items() for made in sockets],
            "changes": changes,
        }
        told = os.memfd_create("lbsvc upgrade", os.MFD_CLOEXEC)
        self._made.append(told)
        with open(told, "wb", closefd=False) as file:
            file.write(json.dumps(story).encode())
        os.lseek(told, 0, os.SEEK_SET)
        # Copies, above all that they become: no order of the moves can have one overwrite another.
        lowest = _SOCKETS + len(numbers)
        for number in (theirs.fileno(), told, *numbers):
            self._made.append(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, lowest))
        os.close(self._made.pop(0))

    @property
    def descriptors(self) -> dict[int, int]:
        """The new process's descriptors -> ours: the standard ones that are open, and what is handed over."""
        return {**{each: each for each in range(3) if _is_open(each)}, **dict(enumerate(self._made, _CHANNEL))}

    def close(self) -> None:
        """It has been started, or never will be: the channel is all that stays."""
        made, self._made = self._made, []
        for number in made:
            os.close(number)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


# -- the new process


class _Inherited:
    """One bind's sockets, until they are ours."""

    def __init__(self, place: int, given: Given, sockets: list[socket.socket]) -> None:
        self.place = place
        self.given = given
        self.sockets = sockets
        self.backlog: int | None = None  # as it is to be; None: nobody has taken them
        self.file: SocketFile | None = None


class Inherited:
    """What the process that has started us hands over."""

    def __init__(
        self, parent: int, channel: socket.socket, sockets: list[_Inherited], passed: Passed, changes: Any
    ) -> None:
        self.parent = parent
        #: sockets that systemd has passed, by name
        self.passed = passed
        #: what people have set at run time (reloading.py)
        self.changes = changes
        self._socket = channel
        self._channel: Channel | None = None
        self._sockets = sockets
        self._go: Callable[[], None] = lambda: None
        self._orphaned: Callable[[str], None] = lambda why: None

    def open(self, bind: Bind, backlog: int) -> list[socket.socket] | None:
        """Copies of the sockets of an equal bind, if there is one that nobody has; a later opening has none."""
        for each in self._sockets:
            if each.backlog is None and each.given.bind == str(bind) and each.sockets:
                return self._copies(each, bind, backlog)
        return None

    def _copies(self, each: _Inherited, bind: Bind, backlog: int) -> list[socket.socket]:
        made: list[socket.socket] = []
        try:
            for original in each.sockets:
                made.append(duplicate(original))  # noqa: PERF401 - those that were made are closed if one fails
        except OSError:
            for copy in made:
                copy.close()
            raise
        each.backlog = backlog
        if isinstance(made[0], UnixSocket) and each.given.file is not None:
            each.file = made[0].file = SocketFile(bind.host, is_ours=False)
        return made

    def fail(self, words: Iterable[str]) -> None:
        """We cannot start: the old process is told why. To be called before the reactor runs, as the last thing."""
        text = json.dumps({"failed": "; ".join(words)[:8192]}).encode()
        with suppress(OSError):
            channel = Channel(_Standing(), self._socket, lambda message, descriptors: None, lambda why: None)
            channel.send(text)

    def attach(self, reactor: Any, go: Callable[[], None], orphaned: Callable[[str], None]) -> None:
        """`go` is called when the old process has told us to, `orphaned` if it ends before. What nobody has taken goes."""
        for each in self._sockets:
            if each.backlog is None:
                _close(each.sockets)
        self._go, self._orphaned = go, orphaned
        self._channel = Channel(reactor, self._socket, self._heard, self._lost)

    def ready(self) -> None:
        """We could accept now, on these."""
        assert self._channel is not None
        taken = [each.place for each in self._sockets if each.backlog is not None]
        self._channel.send(json.dumps({"ready": taken}).encode())

    def give_up(self, why: str) -> None:
        """We cannot serve after all: the old process is told why, and we end."""
        assert self._channel is not None
        self._channel.send(json.dumps({"failed": why[:8192]}).encode())
        self._orphaned(why)

    def _heard(self, message: bytes, descriptors: list[int]) -> None:
        self._own()
        self.close()
        self._go()

    def _lost(self, why: str) -> None:
        self.close()
        self._orphaned(f"process {self.parent}, whose place this one was to take, has not handed it over: {why}")

    def _own(self) -> None:
        """The sockets are ours now, and so are their files."""
        for each in self._sockets:
            if each.file is not None and each.given.file is not None:
                each.file.own(each.given.file)
            for original in each.sockets if each.backlog is not None else ():
                with suppress(OSError):
                    original.listen(each.backlog or 0)  # on a socket that listens already: the length of its queue

    def close(self) -> None:
        """Nothing more is heard, or to be had."""
        if self._channel is not None:
            self._channel.close()
        self._socket.close()
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            _close(each.sockets)


class _Standing:
    """A reactor that does not turn."""

    def addReader(self, reader: object) -> None:  # noqa: N802 - Twisted's names
        pass

    addWriter = removeReader = removeWriter = addReader  # noqa: N815


def _close(sockets: Iterable[socket.socket]) -> None:
    for made in sockets:
        made.close()


def take_inherited(env: MutableMapping[str, str], pid: int, parent: int) -> Inherited | None:
    """What `parent` has handed to us, the process `pid`; None: nothing. Raises SystemRefusal."""
    word = env.pop(VARIABLE, None)
    if word is None:
        return None
    try:
        told = json.loads(word)
        if told["pid"] != parent:
            return None  # meant for another process: its descriptors are none of ours
        if told["version"] != VERSION:
            raise _refusal(f"the running program hands over by version {told['version']}, this one by {VERSION}")
        channel, story = _number(told["channel"]), _number(told["story"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise _refusal("cannot be read") from None
    for variable in ("WATCHDOG_PID", "SYSTEMD_EXEC_PID"):
        if env.get(variable) == str(parent):
            env[variable] = str(pid)
    opened: list[socket.socket] = []
    try:
        opened.append(_adopt(channel))
        return _read(parent, opened, _story(story))
    except (ValueError, TypeError, KeyError, IndexError, OSError, OverflowError, RecursionError) as error:
        _close(opened)
        raise _refusal(f"cannot be taken over: {type(error).__name__}: {error}") from None


def _refusal(message: str) -> SystemRefusal:
    return SystemRefusal([Mistake("", 0, 0, VARIABLE, message)])


def _number(value: object) -> int:
    """A descriptor that may be handed over: not one of the three that everybody has."""
    if not isinstance(value, int) or isinstance(value, bool) or not _FIRST <= value <= _LAST:
        raise ValueError(f"{value!r} is no descriptor of ours")
    return value


def _story(number: int) -> dict[str, Any]:
    with open(number, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    told = json.loads(content)
    if not isinstance(told, dict):
        raise ValueError("no mapping")
    return told


def _adopt(number: int) -> socket.socket:
    os.set_inheritable(number, False)
    return socket.socket(fileno=number)


def _read(parent: int, opened: list[socket.socket], story: dict[str, Any]) -> Inherited:
    """Every socket that is opened is in `opened` before anything else can go wrong."""

    def take(number: int) -> socket.socket:
        made = _adopt(number)
        opened.append(made)
        return made

    sockets = []
    for place, each in enumerate(story["sockets"]):
        file = each["file"]
        given = Given(
            str(each["bind"]), tuple(map(_number, each["numbers"])), (int(file[0]), int(file[1])) if file else None
        )
        sockets.append(_Inherited(place, given, [take(number) for number in given.numbers]))
    passed: dict[str, list[socket.socket]] = {}
    for name, number in story["passed"]:
        passed.setdefault(str(name), []).append(take(_number(number)))
    return Inherited(parent, opened[0], sockets, passed, story["changes"])
