"""A service manager's ear: the socket that NOTIFY_SOCKET names, with what was said to it.

Promises: messages are kept in order, each as its lines; `room` small enough makes the kernel's queue full. Used by the tests
of net/notify.py and supervising.py, and of the real process.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from tests.kit.processes import until


class NotifySocket:
    """Where a service tells its state; `folder` None makes it an abstract socket."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            self.address = f"@lbsvc-test-{secrets.token_hex(8)}"
            name = "\0" + self.address[1:]
        else:
            name = self.address = str(folder / "notify")
        self.messages: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name)
        self._socket.setblocking(False)

    @property
    def env(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address}

    def read(self) -> list[list[str]]:
        """Everything that has been said until now."""
        while True:
            try:
                self.messages.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return self.messages

    def told(self, line: str, times: int = 1) -> bool:
        """Has a message with this line come so often?"""
        return sum(line in message for message in self.read()) >= times

    def wait(self, line: str, times: int = 1) -> None:
        until(lambda: self.told(line, times), f"told {line} ({times} times); told was {self.messages[-5:]}")

    def states(self) -> list[str]:
        """The first words of messages that are more than a status or a ping, in order."""
        return [each[0] for each in self.read() if not each[0].startswith(("STATUS=", "WATCHDOG=", "EXTEND_"))]

    def statuses(self) -> list[str]:
        return [line[7:] for message in self.read() for line in message if line.startswith("STATUS=")]

    def find(self, wanted: Callable[[str], bool]) -> bool:
        """Is there a status like this?"""
        return any(map(wanted, self.statuses()))

    def close(self) -> None:
        self._socket.close()
