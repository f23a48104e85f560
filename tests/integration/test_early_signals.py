"""Signals that reach the real process before it serves: none kills it, and what they ask for is done later."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import TWIST, Child, free_ports, until

#: Opens the pipe as descriptor 3 and becomes the command: as `--config <(…)` of a shell does.
GIVEN = 'exec 3<"$0"; exec "$@"'


class EarlySignalTests(ProcessTestCase):
    def test_while_the_configuration_is_read(self) -> None:
        """HUP, USR1 and USR2 while the configuration is awaited: it starts, and then does what was asked for."""
        folder = self.scratch()
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        command = [*TWIST, "loadbalancer", "--config", "/dev/fd/3"]
        child = Child(["sh", "-c", GIVEN, str(pipe), *command], folder=folder)
        self.addCleanup(child.stop)
        port, admin = free_ports(2)
        routes = [{"match": {"path": "/*"}, "respond": {"status": 200}}]
        with pipe.open("w") as file:
            until(lambda: self.catches(child.pid, signal.SIGUSR2), "catching signals")
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                child.signal(number)
            file.write(config({"main": {"bind": f"127.0.0.1:{port}", "routes": routes}}, admin=admin))
        for event in ("service.ready", "config.refused", "service.upgrade"):
            until(lambda event=event: event in child.text, event)  # type: ignore[misc]
        child.signal(signal.SIGTERM)
        self.assertEqual(child.wait(), -signal.SIGTERM)

    def catches(self, pid: int, number: int) -> bool:
        """Has the process a handler of its own for the signal?"""
        (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("SigCgt:")]
        return bool(int(line.split()[1], 16) >> (number - 1) & 1)
