"""The logs of the process, as the configuration has them: events, and what was asked.

Promises: `emit` is one callable for as long as the process lives, whatever becomes of the event log's path, level and
format; a log whose path changes goes on in the new file from the next line, and nothing that was queued for the old one is
lost; a file that cannot be opened refuses the change as a whole. A process of several tells its events to the one that
writes them (`tell`), and writes its own access lines. Called by app.py and workers/worker.py; a part of what a reload
changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from lbsvc.config.schema import AccessLogSettings, Settings
from lbsvc.core.record import AccessRecord
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.observe.accesslog import AccessLog
from lbsvc.observe.events import Events, Writer, level_in_force
from lbsvc.observe.logwriter import Destinations, LogWriter
from lbsvc.observe.twistedlog import install as take_over_logging


class Logs:
    """Both of them."""

    def __init__(
        self,
        reactor: Any,
        wall: Callable[[], float],
        rng: Random,
        env: Mapping[str, str],
        tell: Callable[[bytes], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._wall = wall
        self._rng = rng
        self._env = env
        #: takes events in place of a file, each as a line of JSON
        self._tell = tell
        self._destinations = Destinations()
        self._writers: dict[str, LogWriter] = {}
        self._unlog: Callable[[], None] = lambda: None
        self._access: AccessLog | None = None
        #: told when what takes access records may be another
        self.on_change: Callable[[], None] = lambda: None
        self.events: Events

    def open(self, settings: Settings) -> None:
        """At the start. Raises SystemRefusal."""
        self._writers = self._open(settings, {"events": None, "access": None})
        level, complaint = level_in_force(settings.log.level, self._env)
        self.events = Events(self._line_writer(), level, self._format(settings), self._wall, self._is_journal)
        self._unlog = take_over_logging(self.events)
        if complaint:
            self.emit("warn", "log.level", complaint)
        self._access = self._access_log(settings.access_log, self._writers)

    def _line_writer(self) -> Writer:
        return Told(self._tell) if self._tell is not None else self._writers["events"]

    @property
    def _is_journal(self) -> bool:
        return self._tell is None and self._writers["events"].is_journal(self._env.get("JOURNAL_STREAM", ""))

    def _format(self, settings: Settings) -> str:
        return "json" if self._tell is not None else settings.log.format

    def _open(self, settings: Settings, former: Mapping[str, str | None]) -> dict[str, LogWriter]:
        """Writers for the logs whose path is not what it was."""
        access = settings.access_log
        found: dict[str, LogWriter] = {}
        mistakes = []
        for name, path, key in (
            ("events", settings.log.path if self._tell is None else None, "log.path"),
            ("access", access and access.path, "access_log.path"),
        ):
            if path and path != former[name]:
                try:
                    found[name] = self._destinations.writer(path, name)
                except OSError as error:
                    mistakes.append(Mistake("", 0, 0, key, f"cannot be opened: {error.strerror or error}"))
        if mistakes:
            for writer in found.values():
                self._destinations.release(writer)
            raise SystemRefusal(mistakes)
        return found

    def _access_log(self, settings: AccessLogSettings | None, writers: Mapping[str, LogWriter]) -> AccessLog | None:
        if settings is None:
            return None
        return AccessLog(self._reactor, writers["access"], settings.format, settings.sample, self._rng)

    # -- what others use

    def emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        """Log an event."""
        self.events.emit(level, event, message, **fields)

    @property
    def log(self) -> Callable[[AccessRecord], None] | None:
        """What takes access records now; None where there is no access log."""
        return self._access.log if self._access is not None else None

    @property
    def dropped(self) -> Mapping[str, int]:
        """Lines that the logs have lost, by log."""
        return self._destinations.dropped()

    def reopen(self) -> list[str]:
        """Log files may have been renamed; complaints in words."""
        return self._destinations.reopen()

    def prepare(self, old: Settings, new: Settings) -> LogsPlan:
        """Open what is new. Raises SystemRefusal."""
        access = old.access_log.path if old.access_log is not None else None
        former: dict[str, str | None] = {"events": old.log.path, "access": access}
        return LogsPlan(self, old, new, self._open(new, former))

    def change(self, old: Settings, new: Settings, opened: Mapping[str, LogWriter]) -> list[str]:
        """Go over to other settings; `opened` are the writers of paths that are new."""
        changes = []
        stale = [self._writers[name] for name in opened if name in self._writers]
        if new.access_log is None and "access" in self._writers:
            stale.append(self._writers.pop("access"))
        self._writers.update(opened)
        if old.log != new.log:
            level = level_in_force(new.log.level, self._env)[0]
            self.events.redirect(self._line_writer(), level, self._format(new), self._is_journal)
            changes.append("log: changed")
        if old.access_log != new.access_log:
            if self._access is not None:
                self._access.close()
            self._access = self._access_log(new.access_log, self._writers)
            changes.append("access_log: changed" if new.access_log is not None else "access_log: off")
        for writer in stale:
            self._destinations.release(writer)
        self.on_change()
        return changes

    def release(self, writers: Sequence[LogWriter]) -> None:
        """They are not needed after all."""
        for writer in writers:
            self._destinations.release(writer)

    def close(self, timeout: float) -> None:
        """The end: whatever can be written within `timeout` seconds."""
        if self._access is not None:
            self._access.close()
        self._unlog()
        self._destinations.close(timeout)


class Told:
    """What takes the lines of events where somebody else writes them."""

    def __init__(self, tell: Callable[[bytes], object]) -> None:
        self._tell = tell

    def write(self, data: bytes) -> bool:
        """One event."""
        self._tell(data)
        return True

    def isatty(self) -> bool:
        """Never."""
        return False


class LogsPlan:
    """Files that are open, and not written to yet."""

    def __init__(self, logs: Logs, old: Settings, new: Settings, opened: Mapping[str, LogWriter]) -> None:
        self._logs = logs
        self._old = old
        self._new = new
        self._opened = opened

    def commit(self) -> list[str]:
        """Write to them from the next line on."""
        return self._logs.change(self._old, self._new, self._opened)

    def abandon(self) -> None:
        """Close them."""
        self._logs.release(list(self._opened.values()))
