"""Work beside the reactor: what comes of it, and that nobody waits for it at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from lbsvc.net.aside import run_aside

reactor = cast(IReactorFromThreads, global_reactor)

#: A process whose reactor is told to stop while work goes on that never ends.
STOPPED = """
import threading
from twisted.internet import reactor
from lbsvc.net.aside import run_aside
begun = threading.Event()
def work():
    begun.set()
    threading.Event().wait()
def stop():
    run_aside(reactor, work)
    begun.wait()
    reactor.stop()
reactor.callWhenRunning(stop)
reactor.run()
"""


class Gone:
    """A reactor that has gone."""

    def callFromThread(self, *what: Any) -> None:
        raise OSError("no waker")


class AsideTests(TestCase):
    async def test_result(self) -> None:
        """What it gives is told in the reactor's thread, though it was made in another."""
        found = await run_aside(reactor, threading.current_thread)
        self.assertIsNot(found, threading.current_thread())
        self.assertTrue(found.daemon)

    async def test_failure(self) -> None:
        """What it raises is a failure."""

        def fail() -> None:
            raise KeyError("x")

        with self.assertRaises(KeyError):
            await run_aside(reactor, fail)

    async def test_cancelled(self) -> None:
        """Who has had enough hears nothing more; the work goes on."""
        go, ended = threading.Event(), Deferred[None]()

        def work() -> None:
            go.wait()
            reactor.callFromThread(ended.callback, None)

        asked = run_aside(reactor, work)
        asked.cancel()
        go.set()
        with self.assertRaises(CancelledError):
            await asked
        await ended

    def test_a_reactor_that_has_gone(self) -> None:
        """Nobody hears of it, and nothing is raised."""
        ended, raised = threading.Event(), []
        self.patch(threading, "excepthook", raised.append)
        run_aside(cast(IReactorFromThreads, Gone()), ended.set)
        self.assertTrue(ended.wait(10))
        for thread in threading.enumerate():
            if thread.name == "lbsvc aside":
                thread.join(10)
        self.assertEqual(raised, [])

    def test_the_end_does_not_wait(self) -> None:
        """A process ends while such work goes on."""
        subprocess.run([sys.executable, "-c", STOPPED], check=True, timeout=30)
