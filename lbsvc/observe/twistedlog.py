"""What Twisted itself logs, routed into our event log; and twist's own observer, kept from logging it a second time.

Promises: unhandled errors, `log.failure` and warnings of Twisted and of other libraries appear as events named
`twisted`, with the rendered message and, for failures, the traceback in a field. Twisted's info-level chatter
("Starting factory ...") is debug here. After `install`, nothing of `twist` writes to standard output on its own.

Decision: our `log` section rules; `twist`'s --log-level, --log-file and --log-format choose an observer that is not
used. (2026-11) `twist` begins logging after startService and before the reactor runs, with its own observer, which
replays what was logged before it and redirects sys.stdout and sys.stderr. Removing it once the reactor runs is too
late: it has replayed by then. So we begin logging first, with our observer, and answer twist's request to begin,
which comes later, with nothing. The alternatives were the publisher's private list of observers and a reactor
trigger, both of which leave a few foreign lines.

Called by app.py, once, at the start of the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twisted.logger import (
    ILogObserver,
    LogBeginner,
    LogEvent,
    LogLevel,
    LogPublisher,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from lbsvc.observe.events import Events

_LEVELS: Final = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warn",
    LogLevel.error: "error",
    LogLevel.critical: "error",
}

#: Whose info is chatter: Twisted's own modules, and `log.msg` of the old module.
_CHATTY: Final = ("twisted.", "log_legacy", "-")


@implementer(ILogObserver)
class TwistedEvents:
    """A log observer that emits each of Twisted's log events as one of ours."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def __call__(self, event: LogEvent) -> None:
        level = _LEVELS.get(event.get("log_level", LogLevel.info), "info")
        namespace = str(event.get("log_namespace", "-"))
        if level == "info" and namespace.startswith(_CHATTY):
            level = "debug"
        if not self._events.wants(level):
            return
        failure = event.get("log_failure") or event.get("failure")
        if not isinstance(failure, Failure):
            self._events.emit(level, "twisted", formatEvent(event), logger=namespace)
            return
        # `log.err` of the old module renders the traceback into its message; what it was told is in `why`.
        message = str(event.get("why") or "Unhandled Error") if "isError" in event else formatEvent(event)
        summary = f"{failure.type.__name__}: {failure.getErrorMessage()}" if failure.type else str(failure)
        self._events.emit(
            level,
            "twisted",
            f"{message}: {summary}" if message else summary,
            logger=namespace,
            traceback=failure.getTraceback(),
        )


def install(
    events: Events,
    beginner: LogBeginner = globalLogBeginner,
    publisher: LogPublisher = globalLogPublisher,
) -> Callable[[], None]:
    """Take over Twisted's log; what was logged before is replayed to us. Gives the way back, for tests.

    sys.stdout and sys.stderr stay what they are. Where somebody has begun logging already (twistd, a test runner), ours is
    added beside theirs.
    """
    observer = TwistedEvents(events)
    beginner.beginLoggingTo([observer], redirectStandardIO=False)
    restore = quiet_twist_observer(beginner)

    def uninstall() -> None:
        restore()
        publisher.removeObserver(observer)

    return uninstall


def quiet_twist_observer(beginner: LogBeginner = globalLogBeginner) -> Callable[[], None]:
    """Let the next `beginLoggingTo` (twist's Runner.startLogging) pass without effect. Gives the way back."""

    def pass_over(observers: Iterable[ILogObserver], *_: bool, **__: bool) -> None:
        restore()

    def restore() -> None:
        vars(beginner).pop("beginLoggingTo", None)

    # The instance's attribute hides the method, and goes with the first call.
    vars(beginner)["beginLoggingTo"] = pass_over
    return restore
