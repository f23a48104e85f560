"""Orphans are reaped where they come to us, and Twisted's own children stay Twisted's."""

from __future__ import annotations

import os
import signal
import sys

from twisted.trial.unittest import TestCase

from lbsvc.reaping import end_early, gets_orphans, reap_orphans
from tests.kit.launching import ADOPTER
from tests.kit.processes import run

#: Leaves five grandchildren behind and starts one child by Twisted; prints what came of them all.
FAMILY = """
import os, signal, sys
from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from lbsvc.reaping import gets_orphans, reap_orphans

class Own(ProcessProtocol):
    def processEnded(self, reason):
        print("own", reason.value.exitCode)
        reactor.callLater(0, look)

def look(times=3000):
    try:
        left = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        print("nobody left")
        return reactor.stop()
    if times == 0:
        print("left", left)
        return reactor.stop()
    reactor.callLater(0.01, look, times - 1)

def orphan():
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(3)
        os._exit(0)
    os.waitpid(child, 0)

release, hold = os.pipe()
for _ in range(5):
    orphan()

def run():
    print("gets orphans", gets_orphans(os.getpid()), reap_orphans(reactor, os.getpid()))
    os.close(hold)
    reactor.spawnProcess(Own(), sys.executable, [sys.executable, "-c", "raise SystemExit(7)"])

reactor.callWhenRunning(run)
reactor.run()
"""


class ReapingTests(TestCase):
    def test_family(self) -> None:
        """Whoever adopts orphans reaps them all, and still learns how its own child has ended."""
        result = run([sys.executable, "-c", ADOPTER, sys.executable, "-c", FAMILY])
        self.assertEqual(
            (result.stdout.decode().splitlines(), result.stderr),
            (["gets orphans True True", "own 7", "nobody left"], b""),
        )

    def test_nobodys(self) -> None:
        """Where orphans go elsewhere nothing is installed, and whoever starts programs otherwise keeps their status."""
        before = signal.getsignal(signal.SIGCHLD)
        self.assertTrue(gets_orphans(1))
        self.assertFalse(gets_orphans(os.getpid()))
        self.assertFalse(reap_orphans(None, os.getpid()))
        self.assertIs(signal.getsignal(signal.SIGCHLD), before)


class EarlyTests(TestCase):
    def status(self, pid: int) -> int:
        """How a process ends that is told to before it serves, as the process `pid`."""
        program = (
            "import os, signal, sys; from lbsvc.reaping import end_early;"
            f"end_early({pid}); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
        )
        return run([sys.executable, "-c", program]).returncode

    def test_first(self) -> None:
        """TERM ends the first process with 0 while it starts; any other ends by its signal, as always."""
        self.assertEqual(self.status(1), 0)
        self.assertEqual(self.status(2), -signal.SIGTERM)

    def test_others_untouched(self) -> None:
        """Nothing is installed in a process that is not the first."""
        before = signal.getsignal(signal.SIGTERM)
        end_early(os.getpid())
        self.assertIs(signal.getsignal(signal.SIGTERM), before)
