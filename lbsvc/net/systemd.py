"""Sockets that systemd has opened for us (socket activation, sd_listen_fds(3)), by the names of their units.

Promises
- `take_passed_sockets` reads LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES once: they are gone from the environment afterwards,
  and no child of ours inherits a descriptor. What was meant for another process is left alone. What cannot be served (a
  datagram socket, a FIFO, an accepted connection, a descriptor that is not there) is refused, every mistake at once.
- Of sockets with names, as systemd passes them, it does not matter who looks first: importing twisted.internet.endpoints
  takes the variables away, and where Twisted can write no dropin.cache (installed by root, run by somebody else) it imports
  that whenever it looks for plugins.
- Several sockets of one name are a list, in the order in which they were passed; sockets without a name are "unknown", as
  systemd calls them.
- `open_passed` gives sockets of their own for a name: duplicates, so that a listener may close them and another one, after a
  reload, have them again. Nothing here ever shuts a passed socket down or removes its file: both are systemd's.
- A process that takes our place is handed them, with their names (net/inheriting.py).

Called by app.py (once, before anything else is opened) and net/listener.py. Unlike twisted.python.systemd, which knows one
socket for a name, and drops all of them, silently, where names and descriptors do not match.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from errno import ENOENT
from typing import Final, TypeAlias

from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.net.binding import UnixSocket

#: The first descriptor that systemd passes (SD_LISTEN_FDS_START).
FIRST: Final = 3
#: What systemd calls a socket whose unit gives it no name.
NAMELESS: Final = "unknown"
#: More descriptors than this nobody passes; a number beyond it is no number of descriptors.
MOST: Final = 65_536

_VARIABLES: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")

Passed: TypeAlias = Mapping[str, Sequence[socket.socket]]


def taken_by_twisted() -> Sequence[int]:
    """The descriptors that Twisted has taken before us, if it has: it leaves only their names in the environment."""
    endpoints = sys.modules.get("twisted.internet.endpoints")
    taken = getattr(getattr(endpoints, "_SystemdParser", None), "_sddaemon", None)
    return taken.inheritedDescriptors() if taken is not None else ()


def take_passed_sockets(
    env: MutableMapping[str, str],
    pid: int,
    first: int = FIRST,
    taken: Callable[[], Sequence[int]] = taken_by_twisted,
) -> dict[str, list[socket.socket]]:
    """The sockets that were passed to the process `pid`, by name; raises SystemRefusal, with none of them left open."""
    count, owner, names, _ = (env.pop(variable, None) for variable in _VARIABLES)
    if count is None and owner is None and (before := taken()):
        count, owner, first = str(len(before)), str(pid), before[0]  # they are in a row
    if count is None or owner is None or _number(owner) != pid:
        return {}
    many = _number(count)
    if many is None or many > MOST:
        raise _refusal("LISTEN_FDS", "is not a number of descriptors")
    called = names.split(":") if names else [NAMELESS] * many
    if len(called) != many:
        raise _refusal("LISTEN_FDNAMES", f"has {len(called)} names for {many} descriptors")
    passed: dict[str, list[socket.socket]] = {}
    mistakes: list[Mistake] = []
    for number, name in enumerate(called, first):
        try:
            passed.setdefault(name or NAMELESS, []).append(_take(number))
        except OSError as error:
            why = error.strerror or str(error)
            mistakes.append(Mistake("", 0, 0, "LISTEN_FDS", f"descriptor {number} ({name or NAMELESS}): {why}"))
    if mistakes:
        for made in _every(passed):
            made.close()
        raise SystemRefusal(mistakes)
    return passed


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _refusal(variable: str, message: str) -> SystemRefusal:
    return SystemRefusal([Mistake("", 0, 0, variable, message)])


def _every(passed: Passed) -> Iterator[socket.socket]:
    for sockets in passed.values():
        yield from sockets


def _take(number: int) -> socket.socket:
    """A descriptor as a listening socket, which the reactor can have and no child inherits. Raises OSError."""
    os.set_inheritable(number, False)
    made = socket.socket(fileno=number)
    try:
        is_stream = made.type == socket.SOCK_STREAM and made.family in (
            socket.AF_INET,
            socket.AF_INET6,
            socket.AF_UNIX,
        )
        if not is_stream or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(0, "is no listening stream socket: its unit needs ListenStream= and Accept=no")
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def open_passed(passed: Passed, name: str, backlog: int) -> list[socket.socket]:
    """Listening sockets for `systemd:NAME`, to be closed by whoever asks; raises OSError, which lists what was passed."""
    if name not in passed:
        there = ", ".join(sorted(passed)) or "none at all"
        raise OSError(ENOENT, f"systemd has passed no socket of this name (it has passed {there})")
    made: list[socket.socket] = []
    try:
        for original in passed[name]:
            made.append(copy := duplicate(original))
            copy.setblocking(False)
            if copy.family != socket.AF_UNIX:
                copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            copy.listen(backlog)  # on a socket that listens already: the length of its queue
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def duplicate(original: socket.socket) -> socket.socket:
    """Another descriptor of a socket; a unix socket's file does not go with it."""
    number = os.dup(original.fileno())
    return UnixSocket(fileno=number) if original.family == socket.AF_UNIX else socket.socket(fileno=number)


def address_of(made: socket.socket) -> str:
    """Where a passed socket listens, as binds are written: 10.0.0.1:80, [::]:80, unix:/run/lb.sock."""
    found = made.getsockname()
    if made.family == socket.AF_UNIX:
        name = os.fsdecode(found)
        return "unix:@" + name[1:] if name.startswith("\0") else f"unix:{name}"
    return f"[{found[0]}]:{found[1]}" if made.family == socket.AF_INET6 else f"{found[0]}:{found[1]}"
