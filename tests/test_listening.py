"""What listeners do besides listening: certificates are looked at as often as was said, or never."""

from __future__ import annotations

import random
import tempfile
from typing import Any
from weakref import WeakSet

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import CertificateFiles, ListenerSettings, ListenerTls
from lbsvc.serving import Certificates, Surroundings
from tests.kit.authority import Authority


class LookTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.files = CertificateFiles(*Authority().issue("a.example").write(folder.name))
        self.other = Authority().issue("b.example")
        self.folder = folder.name
        self.events: list[str] = []

    def certificates(self, clock: Clock, interval: float | None) -> Certificates:
        """Those of one listener, which are looked at from now on."""
        unused: Any = None
        around = Surroundings(
            clock,
            unused,
            unused,
            unused,
            random.Random(1),
            unused,
            clock.seconds,
            lambda level, event, *_, **__: self.events.append(event),
            unused,
            None,
            WeakSet(),
        )
        tls = ListenerTls((self.files,), reload_interval=interval)
        certificates = Certificates(around, ListenerSettings("web", (), tls=tls))
        certificates.start()
        return certificates

    def test_interval(self) -> None:
        """Files that change are taken up after the interval."""
        clock = Clock()
        certificates = self.certificates(clock, 5.0)
        self.other.write(self.folder)
        clock.advance(4.9)
        self.assertEqual(self.events, [])
        clock.advance(0.1)
        self.assertEqual(self.events, ["certificate.loaded"])
        certificates.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_never(self) -> None:
        """Without an interval files that change are left alone."""
        clock = Clock()
        certificates = self.certificates(clock, None)
        self.other.write(self.folder)
        for _ in range(48):
            clock.advance(3600.0)
        self.assertEqual(self.events, [])
        certificates.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
