"""The service as one process after the other has its place: who has it now, and that nobody is left when a test ends.

Promises: `pid` is of the process that serves; a process counts as gone when it has ended, whoever is to reap it; `stop` ends
all of them, by their numbers, which the event log has told. Used by tests/integration/test_upgrade.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kit.processes import DEADLINE, until


def is_there(pid: int) -> bool:
    """Does a process run, and is not just waiting to be reaped?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    """Until it has ended."""
    until(lambda: not is_there(pid), f"process {pid}: gone", 60)


class Succession:
    """Mixed into a Balancer that upgrades itself."""

    process: Any
    file: Path
    events: Callable[[], list[dict[str, Any]]]
    _pid = 0
    _seen = 0

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        return self._pid or int(self.process.pid)

    def signal(self, number: int) -> None:
        """To the process that serves."""
        os.kill(self.pid, number)

    def told(self) -> list[dict[str, Any]]:
        """What the log says of upgrades."""
        return [event for event in self.events() if event["event"] == "service.upgrade"]

    def outcome(self) -> dict[str, Any]:
        """The next word on an upgrade, but for its beginning."""

        def next_word() -> dict[str, Any] | None:
            for number, event in enumerate(self.told()[self._seen :], self._seen + 1):
                if "starts, and is given" not in event["message"]:
                    self._seen = number
                    return event
            return None

        found: dict[str, Any] | None = None

        def is_told() -> bool:
            nonlocal found
            found = next_word()
            return found is not None

        until(is_told, "told how an upgrade went")
        assert found is not None
        return found

    def upgrade(self) -> int:
        """Have the next process take over; the pid of the one before, which drains."""
        former = self.pid
        self.signal(signal.SIGUSR2)
        event = self.outcome()
        assert event["level"] == "info" and " serves, " in event["message"], event
        self._pid = event["pid"]
        return former

    def stop(self) -> None:
        """End all of them."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        for pid in {int(event["pid"]) for event in self.told() if "pid" in event}:
            with suppress(OSError):
                if str(self.file) in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    os.kill(pid, signal.SIGKILL)
        super().stop()  # type: ignore[misc]
