"""systemd reads our unit as we mean it."""

from __future__ import annotations

import configparser
import re

from lbsvc.config.loader import load_file
from tests.integration.cases import ProcessTestCase
from tests.kit.processes import ROOT, run

UNIT = ROOT / "systemd/lbsvc.service"


class UnitTests(ProcessTestCase):
    def verify(self, text: str) -> bytes:
        """What systemd-analyze says; it returns 0 for keys that it ignores, so what it prints is what counts."""
        folder = self.scratch()
        # The program need not be installed where the tests run; that it exists is all that is checked of it.
        (folder / UNIT.name).write_text(text.replace("/opt/lbsvc/bin/twist", "/bin/true"))
        result = run(["systemd-analyze", "verify", "--man=no", str(folder / UNIT.name)])
        return bytes(result.stdout + result.stderr) + (b"" if result.returncode == 0 else b"failed")

    def test_nothing_to_say(self) -> None:
        """systemd-analyze verify knows every key and value."""
        self.assertEqual(self.verify(UNIT.read_text()), b"")

    def test_it_would_be_said(self) -> None:
        """A misspelt key is told, so silence means something."""
        wrong = UNIT.read_text().replace("KillMode=", "KilMode=")
        self.assertIn(b"KilMode", self.verify(wrong))

    def test_stop_is_longer_than_the_drain(self) -> None:
        """systemd waits longer than the default drain takes, and knows our exit statuses."""
        unit = configparser.RawConfigParser(strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(UNIT.read_text())
        service = unit["Service"]
        shutdown = load_file(str(ROOT / "etc/examples/minimal.yaml"), {}).settings.shutdown
        self.assertGreater(int(service["TimeoutStopSec"]), shutdown.delay + shutdown.drain_timeout)
        self.assertEqual((service["SuccessExitStatus"], service["RestartPreventExitStatus"]), ("143", "78"))
        self.assertIsNone(re.search(r"(?m)^MemoryDenyWriteExecute=", UNIT.read_text()))
