"""What the service manager is told arrives whole, and telling it costs nothing else."""

from __future__ import annotations

import shutil

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from lbsvc.net.notify import LONGEST, Notifier
from tests.kit.notifying import NotifySocket
from tests.kit.processes import scratch_folder

PID = 4711


class NotifierTests(TestCase):
    def socket(self, *, is_abstract: bool = False) -> NotifySocket:
        folder = scratch_folder()
        self.addCleanup(shutil.rmtree, folder, True)
        made = NotifySocket(None if is_abstract else folder)
        self.addCleanup(made.close)
        return made

    def notifier(self, env: dict[str, str]) -> Notifier:
        made = Notifier(env, PID)
        self.addCleanup(made.close)
        return made

    def warnings(self) -> list[str]:
        """What is logged from now on."""
        said: list[str] = []

        def observe(event: LogEvent) -> None:
            said.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return said

    def test_arrives(self) -> None:
        """One message, all of its lines, over a file and over an abstract socket."""
        for is_abstract in (False, True):
            manager = self.socket(is_abstract=is_abstract)
            notifier = self.notifier(manager.env)
            self.assertTrue(notifier.is_wanted)
            self.assertTrue(notifier.send("RELOADING=1", "MONOTONIC_USEC=1"))
            self.assertTrue(notifier.send("READY=1"))
            self.assertEqual(manager.read(), [["RELOADING=1", "MONOTONIC_USEC=1"], ["READY=1"]])

    def test_nobody_asks(self) -> None:
        """Without NOTIFY_SOCKET, or with one of a kind that we do not know, nothing is sent and nothing fails."""
        for env in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "@"}):
            notifier = self.notifier({**env, "WATCHDOG_USEC": "1000000"})
            self.assertFalse(notifier.is_wanted)
            self.assertIsNone(notifier.interval)
            self.assertTrue(notifier.send("READY=1"))

    def test_nobody_listens(self) -> None:
        """A manager that is gone, or an address that cannot be, is told once to the log; trying again would not help."""
        said = self.warnings()
        for address in ("/nowhere/notify", "@lbsvc-test-nobody", "/" + "x" * 200):
            notifier = self.notifier({"NOTIFY_SOCKET": address})
            said.clear()
            self.assertTrue(notifier.send("READY=1"))
            self.assertTrue(notifier.send("READY=1"))
            self.assertEqual(len(said), 1, said)
            self.assertIn("NOTIFY_SOCKET", said[0])

    def test_full(self) -> None:
        """Where the manager does not read, `send` says so instead of waiting; later it arrives."""
        manager = self.socket()
        notifier = self.notifier(manager.env)
        sent = 0
        while notifier.send(f"STATUS={sent}"):
            sent += 1
            self.assertLess(sent, 100_000)
        self.assertEqual(len(manager.read()), sent)
        self.assertTrue(notifier.send("READY=1"))
        self.assertEqual(manager.read()[-1], ["READY=1"])

    def test_one_line_each(self) -> None:
        """A status cannot smuggle in another assignment, whatever characters and however many it has."""
        manager = self.socket()
        notifier = self.notifier(manager.env)
        notifier.send("STATUS=a\nMAINPID=1\r\nb\x85c\udc80", "READY=1")
        notifier.send("STATUS=" + "é" * LONGEST)
        first, second = manager.read()
        self.assertEqual(first, ["STATUS=a MAINPID=1 b c?", "READY=1"])
        self.assertLessEqual(len(second[0].encode()), LONGEST)

    def test_closed(self) -> None:
        """Nothing is sent after the end."""
        manager = self.socket()
        notifier = self.notifier(manager.env)
        notifier.close()
        self.assertTrue(notifier.send("READY=1"))
        self.assertFalse(notifier.is_wanted)
        self.assertEqual(manager.read(), [])

    def test_watchdog(self) -> None:
        """A ping is due in half the time, if it is we who are watched; nonsense is no watchdog."""
        for env, interval in (
            ({"WATCHDOG_USEC": "30000000"}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "-5"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
            ({}, None),
        ):
            self.assertEqual(self.notifier({"NOTIFY_SOCKET": "/run/x", **env}).interval, interval, env)
