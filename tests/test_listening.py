"""What listeners do besides listening: certificates are looked at as often as was said, or never."""

from __future__ import annotations

import random
import tempfile
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import CertificateFiles, ListenerTls
from lbsvc.core.books import ListenerBooks
from lbsvc.listening import Listeners
from tests.kit.authority import Authority


class LookTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.files = CertificateFiles(*Authority().issue("a.example").write(folder.name))
        self.other = Authority().issue("b.example")
        self.folder = folder.name
        self.events: list[str] = []

    def listeners(self, clock: Clock, interval: float | None) -> Listeners:
        """With the certificates of one, which are looked at from now on."""
        unused: Any = None
        listeners = Listeners(
            clock,
            unused,
            unused,
            unused,
            random.Random(1),
            unused,
            clock.seconds,
            lambda level, event, *_, **__: self.events.append(event),
        )
        listeners._make_tls(
            ListenerTls((self.files,), reload_interval=interval), "web", ListenerBooks("web", "http"), "k"
        )
        listeners.start()
        return listeners

    def test_interval(self) -> None:
        """Files that change are taken up after the interval."""
        clock = Clock()
        listeners = self.listeners(clock, 5.0)
        self.other.write(self.folder)
        clock.advance(4.9)
        self.assertEqual(self.events, [])
        clock.advance(0.1)
        self.assertEqual(self.events, ["certificate.loaded"])
        listeners.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_never(self) -> None:
        """Without an interval files that change are left alone."""
        clock = Clock()
        listeners = self.listeners(clock, None)
        self.other.write(self.folder)
        for _ in range(48):
            clock.advance(3600.0)
        self.assertEqual(self.events, [])
        listeners.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
