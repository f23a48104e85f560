"""lbctl workers and lbctl upgrade: what they ask for, how long they wait, and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lbsvc.ctl import processes, tables
from lbsvc.ctl.client import Client, Failed, Unreachable
from lbsvc.ctl.processes import TAKES_OVER, wait_for_another
from lbsvc.ctl.topview import Top
from tests.admin.fake_control import WORKERS
from tests.ctl.calling import LbctlTestCase, lbctl
from tests.ctl.test_top import status
from tests.kit.processes import DEADLINE, Balancer, get, until
from tests.kit.upstreams import Answer, Close, RecordingBackend, response

PROBLEM = "Content-Type: application/problem+json"


class FakedTests(TestCase):
    """An admin interface that answers by call, and keeps what it was asked."""

    def serve(self, **answers: Any) -> None:
        self.asked: list[str] = []

        def reply(head: bytes, body: bytes) -> bytes:
            method, path = head.decode().split()[:2]
            self.asked.append(f"{method} {path}")
            found = answers[path.removeprefix("/api/v1/").replace("/", "_")]
            found = found() if callable(found) else found
            if isinstance(found, str):
                return response(json.dumps({"detail": found}).encode(), "409 Conflict", PROBLEM)
            return response(json.dumps(found).encode())

        server = RecordingBackend([Answer(reply), Close()])
        self.addCleanup(server.stop)
        self.admin = f"127.0.0.1:{server.port}"

    def call(self, *arguments: str, code: int = 0) -> str:
        done = lbctl(*arguments, admin=self.admin)
        self.assertEqual(done.returncode, code, (done.stdout, done.stderr))
        self.said = done.stderr.decode()
        return done.stdout.decode()

    def test_workers(self) -> None:
        """A line for each, with what it does and costs; --json is the API's object."""
        found = {"pid": 4700, "workers": WORKERS}
        self.serve(workers=found)
        heads, first, second = (line.split() for line in self.call("workers").splitlines())
        self.assertEqual(heads, ["WORKER", "PID", "STATE", "UPTIME", "CONNECTIONS", "REQUESTS", "RESTARTS", "CPU",
                                 "MEMORY"])  # fmt: skip
        self.assertEqual(first, ["1", "4711", "serving", "12s", "3", "1234", "0", "1.5", "s", "12.3", "MB"])
        self.assertEqual(second[:6], ["2", "4712", "starting", "0s", "3", "2468"])
        self.assertEqual(json.loads(self.call("workers", "--json")), found)

    def test_restart(self) -> None:
        """How many were replaced; a refusal is 1 in the service's words."""
        self.serve(workers_restart={"restarted": 2})
        self.assertEqual(self.call("workers", "restart"), "2 workers restarted\n")
        self.assertEqual(json.loads(self.call("workers", "restart", "--json")), {"restarted": 2})
        self.assertEqual(self.asked, ["POST /api/v1/workers/restart"] * 2)
        self.serve(workers_restart="worker 2 could not be replaced")
        self.assertEqual(self.call("workers", "restart", code=1), "")
        self.assertEqual(self.said, "lbctl: worker 2 could not be replaced\n")

    def test_upgrade(self) -> None:
        """It is over when another process answers, and not before."""
        pids = iter((4700, 4700, 4700, 4720))
        self.serve(workers=lambda: {"pid": next(pids), "workers": []}, upgrade={"pid": 4720})
        self.assertEqual(self.call("upgrade"), "process 4720 has taken over from 4700\n")
        self.assertEqual(self.asked, ["GET /api/v1/workers", "POST /api/v1/upgrade", *["GET /api/v1/workers"] * 3])
        self.assertEqual(next(pids, None), None)

    def test_upgrade_refused(self) -> None:
        """What stands against it is said, and the exit status is 1."""
        self.serve(workers={"pid": 4700, "workers": []}, upgrade="process 4720 ended with exit code 78")
        self.assertEqual(self.call("upgrade", code=1), "")
        self.assertEqual(self.said, "lbctl: process 4720 ended with exit code 78\n")

    def test_foreign(self) -> None:
        """Answers that are not ours are 69."""
        self.serve(workers=[], workers_restart={"pid": 1}, upgrade={})
        for arguments in (("workers",), ("workers", "restart"), ("upgrade",)):
            self.call(*arguments, code=69)


class Answering(Client):
    """A client that is answered by these, one after the other, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def workers(self) -> dict[str, Any]:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return {"pid": found, "workers": []}


class WaitTests(SynchronousTestCase):
    def wait(self, *answers: Any) -> float:
        """How long it waits, on a clock that only pauses move."""
        now = [0.0]

        def pause(seconds: float) -> None:
            now[0] += seconds

        wait_for_another(Answering(*answers), 4700, 4720, lambda: now[0], pause)
        return now[0]

    def test_goes_on(self) -> None:
        """Nobody there for a moment, or a refusal, is no end of it."""
        self.assertEqual(self.wait(4720), 0)
        self.assertAlmostEqual(
            self.wait(4700, Unreachable("lbctl: gone"), Failed("lbctl: no"), 4720), 3 * processes.LOOK
        )

    def test_ends(self) -> None:
        """After a while it says what is so: who still answers, or that nobody does."""
        for answer, words in ((4700, "process 4700 still answers here"), (Unreachable("lbctl: gone"), "gone")):
            error = self.assertRaises(Failed, self.wait, answer)
            self.assertEqual(
                error.lines, (f"lbctl: process 4720 is ready and serves, but after {TAKES_OVER:g} s {words}",)
            )


class ShownTests(SynchronousTestCase):
    """Workers in the status and in `top`."""

    def lines(self, width: int, draw: Callable[[], str]) -> list[str]:
        self.patch(tables, "is_terminal", lambda: True)
        self.patch(tables, "console", lambda: Console(width=width, color_system=None, force_terminal=True))
        return draw().splitlines()

    def test_status(self) -> None:
        """They stand in the status where there are any, and nowhere where there are none."""
        found = {**status(1, a=0), "workers": WORKERS}
        lines = self.lines(200, lambda: tables.for_status(found))
        self.assertTrue(any(line.split()[:3] == ["2", "4712", "starting"] for line in lines), lines)
        lines = self.lines(200, lambda: tables.for_status(status(1, a=0)))
        self.assertFalse(any("WORKER" in line for line in lines), lines)

    def test_any_width(self) -> None:
        """However narrow it is, a worker is a line, with its state in whole."""
        for width in range(50, 120, 5):
            lines = self.lines(width, lambda: tables.for_workers(WORKERS))
            self.assertLessEqual(max(map(len, lines)), width)
            self.assertEqual(sum(" serving " in line or " starting " in line for line in lines), 2, lines)

    def test_nobody(self) -> None:
        """No worker is a table without rows."""
        self.assertIn("WORKER", "".join(self.lines(80, lambda: tables.for_workers([]))))

    def test_top(self) -> None:
        """How many there are, and whether all serve."""
        top = Top("here")
        for workers, words in (
            (None, "ready"),
            (WORKERS, "ready, 1 of 2 workers serving"),
            (WORKERS[:1] * 2, "ready, 2 workers"),
        ):
            top.add(status(1, a=0) if workers is None else {**status(1, a=0), "workers": workers})
            self.assertTrue(top._head().plain.endswith(words), top._head().plain)


class AloneTests(LbctlTestCase):
    def test_one_process(self) -> None:
        """One process is one row; it has nobody to restart, which is 1, with what to do instead."""
        balancer, _ = self.serve_two()
        found = self.read("workers")
        (row,) = found["workers"]
        self.assertEqual(
            (found["pid"], row["pid"], row["state"]), (balancer.process.pid, balancer.process.pid, "serving")
        )
        self.assertEqual(self.call("workers").splitlines()[1].split()[:3], ["1", str(balancer.process.pid), "serving"])
        self.assertEqual(self.call("workers", "restart", code=1), "")
        self.assertEqual(self.said, "lbctl: workers: 1: there is nobody to take over; use upgrade\n")

    def test_upgrade(self) -> None:
        """Another process has taken over when it returns, and requests go on."""
        balancer, port = self.serve_two()
        self.addCleanup(end_all_of, balancer)
        said = self.call("upgrade")
        (pid,) = re.findall(rf"^process (\d+) has taken over from {balancer.pid}$", said.strip())
        self.assertEqual(self.read("workers")["pid"], int(pid))
        self.assertEqual(get(port).status, 200)
        self.assertIn(balancer.process.wait(DEADLINE), (0, -signal.SIGTERM))  # its successor has its standard output

    def test_upgrade_to_a_wrong_file(self) -> None:
        """A program that does not start changes nothing: 1, and why."""
        balancer, port = self.serve_two()
        self.addCleanup(end_all_of, balancer)
        balancer.file.write_text("nonsense: 1\n")
        self.assertEqual(self.call("upgrade", code=1), "")
        self.assertIn("nonsense", self.said)
        self.assertEqual(self.read("workers")["pid"], balancer.pid)
        self.assertEqual(get(port).status, 200)


class CrewTests(LbctlTestCase):
    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.read("workers")["workers"]
        return found

    def test_workers(self) -> None:
        """Two workers are two processes, whose requests are counted; the status and the metrics have them, too."""
        balancer, port = self.serve_two(workers=2)
        for _ in range(20):
            self.assertEqual(get(port).status, 200)
        rows = self.rows()
        self.assertEqual([(row["worker"], row["state"], row["restarts"]) for row in rows],
                         [(1, "serving", 0), (2, "serving", 0)])  # fmt: skip
        self.assertEqual(len({balancer.pid, *(row["pid"] for row in rows)}), 3)
        self.assertEqual(sum(row["requests"] for row in rows), 20)
        self.assertTrue(all(row["cpu_seconds"] > 0 and row["resident_bytes"] > 1 << 20 for row in rows), rows)
        self.assertEqual([row["pid"] for row in self.read("status")["workers"]], [row["pid"] for row in rows])
        page = balancer.admin("/metrics")[1].decode()
        for line in ('lbsvc_workers{state="serving"} 2', 'lbsvc_worker_restarts_total{worker="2"} 0'):
            self.assertIn(f"\n{line}\n", page)

    def test_restart(self) -> None:
        """Each is replaced, which counts as no restart of one that died; the parent stays."""
        balancer, port = self.serve_two(workers=2)
        before = self.rows()
        self.assertEqual(self.call("workers", "restart"), "2 workers restarted\n")
        until(lambda: len(self.rows()) == 2, "the former ones have left")
        after = self.rows()
        self.assertEqual([row["restarts"] for row in after], [0, 0])
        self.assertEqual({row["pid"] for row in before} & {row["pid"] for row in after}, set())
        self.assertEqual(self.read("workers")["pid"], balancer.pid)
        self.assertEqual(get(port).status, 200)

    def test_one_dies(self) -> None:
        """One that is killed is replaced, and that is counted."""
        self.serve_two(workers=2)
        first = self.rows()[0]["pid"]
        os.kill(first, signal.SIGKILL)
        until(
            lambda: [row["state"] for row in self.rows()] == ["serving"] * 2 and self.rows()[0]["pid"] != first, "back"
        )
        self.assertEqual([row["restarts"] for row in self.rows()], [1, 0])


def end_all_of(balancer: Balancer) -> None:
    """Whoever was started with its file, also in its place."""
    wanted = str(balancer.file).encode()

    def found() -> list[int]:
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "cmdline").read_bytes().split(b"\0"):
                    pids.append(int(folder.name))
        return pids

    def ended() -> bool:
        balancer.process.poll()  # so that it is no zombie
        for pid in found():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found()

    until(ended, "all have ended")
