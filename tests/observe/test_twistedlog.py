"""Twisted's own log in ours: levels, tracebacks, early events, and twist's observer kept quiet."""

from __future__ import annotations

import io
import json
import types
import warnings

from twisted.application.runner import _runner
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogBeginner, Logger, LogLevel, LogPublisher, textFileLogObserver
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from lbsvc.observe.events import Events
from lbsvc.observe.twistedlog import TwistedEvents, install
from tests.observe.test_events import Lines


class Streams:
    """What stands for the module sys."""

    def __init__(self) -> None:
        self.stdout = io.StringIO()
        self.stderr = io.StringIO()


class LogCase(TestCase):
    def setUp(self) -> None:
        self.lines = Lines()
        self.events = Events(self.lines, "debug", "json", lambda: 0.0)
        self.publisher = LogPublisher()
        self.streams = Streams()
        self.warnings = types.SimpleNamespace(showwarning=warnings.showwarning)
        self.beginner = LogBeginner(self.publisher, self.streams.stderr, self.streams, self.warnings)

    def logger(self, namespace: str) -> Logger:
        return Logger(namespace=namespace, observer=self.publisher)

    def emitted(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.lines.text().splitlines()]


class ObserverTests(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.publisher.addObserver(TwistedEvents(self.events))

    def test_levels(self) -> None:
        """Twisted's info is debug here; its warnings and errors, and anybody else's info, keep their level."""
        for level in ("debug", "info", "warn", "error", "critical"):
            self.logger("twisted.internet.protocol").emit(LogLevel.levelWithName(level), "{x}", x=level)
        self.logger("log_legacy").info("Factory starting")
        self.logger("somebody.else").info("hello")
        self.assertEqual(
            [(each["level"], each["message"]) for each in self.emitted()],
            [
                ("debug", "debug"), ("debug", "info"), ("warn", "warn"), ("error", "error"), ("error", "critical"),
                ("debug", "Factory starting"), ("info", "hello"),
            ],
        )  # fmt: skip

    def test_names(self) -> None:
        """They are events named `twisted`, with the logger's name and the rendered message."""
        self.logger("twisted.web").warn("{a} of {b.real}", a=1, b=2)
        (found,) = self.emitted()
        self.assertEqual((found["event"], found["logger"], found["message"]), ("twisted", "twisted.web", "1 of 2"))

    def test_failures(self) -> None:
        """A failure's message says what and why; the traceback is a field."""
        try:
            raise KeyError("lost")
        except KeyError:
            self.logger("twisted.x").failure("while {what}", what="looking")
        (found,) = self.emitted()
        self.assertEqual((found["level"], found["message"]), ("error", "while looking: KeyError: 'lost'"))
        self.assertIn("test_failures", found["traceback"])
        self.assertIn("KeyError", found["traceback"])

    def test_failures_of_the_old_module(self) -> None:
        """`log.err` gives the same: what and why in one line, the traceback in its field."""
        old = log.LogPublisher(self.publisher, self.publisher)
        for why in ("while looking", None):
            old.msg(failure=Failure(KeyError("lost")), why=why, isError=1)
        found = [each for each in self.emitted() if "traceback" in each]
        self.assertEqual(
            [each["message"] for each in found],
            ["while looking: KeyError: 'lost'", "Unhandled Error: KeyError: 'lost'"],
        )
        self.assertEqual({each["level"] for each in found}, {"error"})

    def test_below_the_level_nothing_is_rendered(self) -> None:
        """What the level hides is not even formatted."""

        class Loud:
            def __repr__(self) -> str:
                raise AssertionError("rendered")

        self.publisher.addObserver(observer := TwistedEvents(Events(self.lines, "info", "json", lambda: 0.0)))
        self.publisher.removeObserver(observer)
        observer(
            {"log_level": LogLevel.info, "log_namespace": "twisted.x", "log_format": "{a!r}", "a": Loud(),
             "log_time": 0.0}
        )  # fmt: skip
        self.assertEqual(self.emitted(), [])

    def test_broken_events(self) -> None:
        """An event without a format, or one that cannot be formatted, is no exception."""
        self.logger("twisted.x").warn("{missing}")
        self.logger("twisted.x").warn()
        self.assertEqual(len(self.emitted()), 2)


class InstallTests(LogCase):
    def twist(self) -> _runner.Runner:
        """What `twist` makes: a runner whose observer would write to standard output."""
        self.twisted_output = io.StringIO()
        self.patch(_runner, "globalLogBeginner", self.beginner)
        return _runner.Runner(
            reactor=MemoryReactor(), logFile=self.twisted_output, fileLogObserverFactory=textFileLogObserver
        )

    def test_early_events_are_not_lost(self) -> None:
        """What was logged before the installation is there, once."""
        self.logger("lib").warn("early")
        self.addCleanup(install(self.events, self.beginner, self.publisher))
        self.assertEqual([each["message"] for each in self.emitted()], ["early"])

    def test_twist_is_quiet(self) -> None:
        """After twist's own start of logging, events come once, to us, and standard output is what it was."""
        runner = self.twist()
        self.addCleanup(install(self.events, self.beginner, self.publisher))
        stdout = self.streams.stdout
        runner.startLogging()
        self.logger("lib").warn("late")
        self.assertEqual(self.twisted_output.getvalue(), "")
        self.assertEqual([each["message"] for each in self.emitted()], ["late"])
        self.assertIs(self.streams.stdout, stdout)
        self.assertEqual(self.streams.stderr.getvalue(), "")

    def test_only_the_first_request_is_passed_over(self) -> None:
        """Whoever begins logging after twist has done so gets what they ask for."""
        runner = self.twist()
        self.addCleanup(install(self.events, self.beginner, self.publisher))
        runner.startLogging()
        output = io.StringIO()
        self.beginner.beginLoggingTo([textFileLogObserver(output)], redirectStandardIO=False)
        self.logger("lib").warn("theirs")
        self.assertIn("theirs", output.getvalue())

    def test_warnings(self) -> None:
        """Python's warnings become events."""
        self.addCleanup(install(self.events, self.beginner, self.publisher))
        self.warnings.showwarning(UserWarning("careful"), UserWarning, "file.py", 7)
        (found,) = self.emitted()
        self.assertEqual(found["level"], "warn")
        self.assertIn("careful", found["message"])

    def test_uninstall(self) -> None:
        """The way back: no observer of ours, and logging may begin as ever."""
        runner = self.twist()
        install(self.events, self.beginner, self.publisher)()
        runner.startLogging()
        self.logger("lib").warn("after")
        self.assertEqual(self.emitted(), [])
        self.assertIn("after", self.twisted_output.getvalue())
