"""What we tell the service manager (sd_notify(3)): one datagram for each message, to the socket that NOTIFY_SOCKET names.

Promises: `send` never blocks and never raises; it says whether the message is settled, which means that it was taken or
that trying again would not help (nobody listens, no NOTIFY_SOCKET). Files and abstract sockets ("@…") alike. The lines of a
message reach systemd together or not at all, and none of them can be taken for two. `interval` is how often the watchdog
wants to hear of us, None where there is none or where it is another process's.

Called by supervising.py, and by whoever else has something to tell. The environment is read and left as it is: a program
that we start (an upgrade) talks to the same manager. Seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from errno import EAGAIN, EINTR, ENOBUFS, ENOMEM
from typing import Final

from twisted.logger import Logger

_AGAIN: Final = (EAGAIN, ENOBUFS, ENOMEM, EINTR)
#: systemd reads no message that is longer, in bytes.
LONGEST: Final = 4096

_log = Logger()


class Notifier:
    """The way to the service manager."""

    def __init__(self, env: Mapping[str, str], pid: int) -> None:
        self._address = _address_of(env.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._has_complained = False
        self.interval = _interval_of(env, pid) if self._address is not None else None

    @property
    def is_wanted(self) -> bool:
        """Does anybody want to be told?"""
        return self._address is not None

    def send(self, *lines: str) -> bool:
        """One message of these lines; False: the manager's queue is full, try again later."""
        if self._address is None:
            return True
        text = "\n".join(" ".join(line.splitlines()) for line in lines)
        message = text.encode("utf-8", "replace")
        if len(message) > LONGEST:  # and no half character, for which systemd drops the line
            message = message[:LONGEST].decode("utf-8", "ignore").encode()
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(message, self._address)
        except OSError as error:
            if error.errno in _AGAIN:
                return False
            self._complain(error.strerror or str(error))
        return True

    def _complain(self, why: str) -> None:
        """Once: somebody is to be told, and cannot be."""
        if not self._has_complained:
            self._has_complained = True
            _log.warn("NOTIFY_SOCKET cannot be told of our state: {why}", why=why)

    def close(self) -> None:
        """Nothing more will be sent."""
        self._address = None
        made, self._socket = self._socket, None
        if made is not None:
            made.close()


def _address_of(text: str) -> str | None:
    """What to send to; None where there is nothing, or nothing that we know how to reach."""
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    if text:
        _log.warn("NOTIFY_SOCKET is neither an absolute path nor an abstract socket: nobody is told of our state")
    return None


def _interval_of(env: Mapping[str, str], pid: int) -> float | None:
    """Half of what WATCHDOG_USEC allows, in seconds, where WATCHDOG_PID is ours or nobody's."""
    allowed, owner = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not (allowed.isascii() and allowed.isdigit()) or int(allowed) == 0:
        return None
    if owner and owner != str(pid):
        return None
    return int(allowed) / 2_000_000
