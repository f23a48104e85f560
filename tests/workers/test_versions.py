"""A worker of another version than its parent, where the package was replaced while the service runs."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from lbsvc import __version__
from lbsvc.workers import __main__ as program
from lbsvc.workers import messages


class VersionTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """It says which version it is, which its parent is, and what to do; nothing is left open."""
        ours, its = socket.socketpair()
        self.addCleanup(ours.close)
        reactor: Any = MemoryReactorClock()
        program.refuse(reactor, its, "0.0.1")
        told = messages.read_answer(ours.recv(4096)[5:])
        assert isinstance(told, messages.Refused)
        words = f"lbsvc {__version__} is what is installed by now, and lbsvc 0.0.1 is what runs: restart or upgrade it"
        self.assertEqual(told.mistakes, [("", words)])
        self.assertEqual((ours.recv(1), its.fileno(), reactor.readers), (b"", -1, set()))
