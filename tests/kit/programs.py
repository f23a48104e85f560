"""Programs that others wrote, as clients of ours: curl, wrk, slowhttptest; and the memory of a process at its peak.

Promises: each runs with a deadline, is stopped by its pid, and what it prints is read into values, so that a test says
`report.errors == {}` and not how wrk words it; output that has another form than expected fails loudly. Bytes, seconds.
"""

from __future__ import annotations

import csv
import re
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.processes import Child, run


def curl(
    *options: str, folder: Path, stdin: bytes = b"", exit_status: int | None = 0
) -> subprocess.CompletedProcess[bytes]:
    """curl in `folder` without its user's settings; another exit status than the expected one is a failure (None: any)."""
    result = run(["curl", "-q", "-sS", "--max-time", "60", *options], folder=folder, stdin=stdin)
    assert exit_status in (None, result.returncode), (result.returncode, result.stderr[-2000:])
    return result


@dataclass
class WrkReport:
    """What wrk printed: `errors` has only what is not zero, by kind: connect, read, write, timeout, status."""

    requests: int
    errors: dict[str, int] = field(default_factory=dict)


class Wrk(Child):
    """A load of GETs over kept connections, until it is told to end."""

    def __init__(self, url: str, *, folder: Path, connections: int = 32) -> None:
        options = ["-t", "1", "-c", str(connections), "-d", "600s", "--timeout", "20s"]
        super().__init__(["wrk", *options, url], folder=folder)

    def end(self) -> WrkReport:
        """Stop, and say what it was like."""
        assert self.process.poll() is None, self.report()
        self.signal(signal.SIGINT)
        status = self.wait()
        assert status == 0, self.report()
        found = re.search(r"(\d+) requests in ", self.text)
        assert found is not None, self.report()
        result = WrkReport(int(found[1]))
        if kinds := re.search(r"Socket errors: (.*)", self.text):
            for kind, count in re.findall(r"(\w+) (\d+)", kinds[1]):
                result.errors[kind] = int(count)
        if statuses := re.search(r"Non-2xx or 3xx responses: (\d+)", self.text):
            result.errors["status"] = int(statuses[1])
        result.errors = {kind: count for kind, count in result.errors.items() if count}
        return result


@dataclass
class SlowReport:
    """What slowhttptest found: `connected` at its most; `available`: did its own probe always get an answer."""

    ended: str
    connected: int
    closed: int
    available: bool


class SlowHttpTest(Child):
    """Slow clients by the hundred: `mode` is -H (header sections), -B (bodies) or -X (reading)."""

    def __init__(self, mode: str, url: str, *options: str, folder: Path, connections: int, seconds: int) -> None:
        self.seconds = seconds
        self.csv = folder / f"slow{mode}.csv"
        size = ["-c", str(connections), "-r", str(connections), "-l", str(seconds), "-p", "20"]
        command = ["slowhttptest", mode, *size, "-g", "-o", str(self.csv.with_suffix("")), "-u", url, *options]
        super().__init__(command, folder=folder)

    def result(self) -> SlowReport:
        """Wait for its end."""
        assert self.wait(self.seconds + 90) == 0, self.report()
        plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self.text)
        ended = re.search(r"Exit status: *(.+)", plain)
        assert ended is not None, self.report()
        with open(self.csv, newline="") as file:
            rows = [
                {key.strip().lower(): value.strip() for key, value in row.items() if key}
                for row in csv.DictReader(file)
            ]
        assert rows, self.report()
        return SlowReport(
            ended[1].strip(),
            max(int(row["connected"]) for row in rows),
            max(int(row["closed"]) for row in rows),
            all(int(row["service available"]) > 0 for row in rows),
        )


class Memory:
    """How much a process grows beyond what it has now: its peak counts, not what is left at the end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew, at what is resident now
        self.before = self._read("VmHWM")

    def _read(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    @property
    def growth(self) -> int:
        """The most bytes that were resident at one time since, beyond those of the beginning."""
        return self._read("VmHWM") - self.before
