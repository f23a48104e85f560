"""Signals reach the service whatever was there before."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.signals import hold_signals, obey_signals


class Recorder:
    """A reactor and a service that note what they are asked."""

    is_stopping = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sigTerm(self, number: int, frame: Any) -> None:
        self.asked.append("term")

    def sigInt(self, number: int, frame: Any) -> None:
        self.asked.append("int")

    def callFromThread(self, function: Callable[[], None]) -> None:
        function()

    def stop_now(self) -> None:
        self.asked.append("now")

    def reload(self) -> None:
        self.asked.append("reload")

    def reopen_logs(self) -> None:
        self.asked.append("reopen")

    def upgrade(self) -> None:
        self.asked.append("upgrade")


class SignalTests(TestCase):
    def setUp(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            number = getattr(signal, name)
            # What a test before has left there may have been asked for something, and would be done here.
            self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_DFL))
        self.recorder = Recorder()

    def send(self, *names: str) -> list[str]:
        for name in names:
            os.kill(os.getpid(), getattr(signal, name))
        return self.recorder.asked

    def test_each(self) -> None:
        """The first TERM or INT stops, the next one at once; the others ask for what the contract says."""
        obey_signals(self.recorder, self.recorder)
        asked = self.send("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT")
        self.assertEqual(asked, ["reload", "reopen", "upgrade", "term", "now"])

    def test_while_it_stops_by_itself(self) -> None:
        """After an upgrade it drains without having been told to: the first TERM stops at once."""
        self.recorder.is_stopping = True
        obey_signals(self.recorder, self.recorder)
        self.assertEqual(self.send("SIGTERM"), ["now"])

    def test_ignored_before(self) -> None:
        """Behind `&` in a script INT is ignored at the start; it drains all the same, and TERM after it stops now."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        obey_signals(self.recorder, self.recorder)
        self.assertEqual(self.send("SIGINT", "SIGTERM"), ["int", "now"])

    def test_before_anybody_obeys(self) -> None:
        """What comes before the reactor runs kills nobody, and is done once it does, once."""
        hold_signals()
        self.assertEqual(self.send("SIGHUP", "SIGUSR2", "SIGHUP"), [])
        hold_signals()
        obey_signals(self.recorder, self.recorder)
        self.assertEqual(self.recorder.asked, ["reload", "upgrade"])
        self.assertEqual(self.send("SIGUSR1"), ["reload", "upgrade", "reopen"])
