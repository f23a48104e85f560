"""`lbctl top`: its rates and keys by themselves, and the whole on a pseudo-terminal against the real service."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Any

from hypothesis import given, strategies
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.ctl import tables
from lbsvc.ctl.keyboard import Keys
from lbsvc.ctl.rates import SPAN, Rates
from lbsvc.ctl.topview import HELP, Top
from tests.ctl.calling import LBCTL, LbctlTestCase, lbctl
from tests.kit.processes import DEADLINE, clean_environment, get, until


def status(uptime: float, **requests: int) -> dict[str, Any]:
    """A status with one pool, of these backends and their counts."""
    backends = [
        {
            "name": name, "address": f"{name}:1", "weight": 1, "backup": False, "state": "ready", "health": "up",
            "circuit": "closed", "active": 0, "requests": count, "failures": count // 10, "latency": None,
            "source": "config",
        }
        for name, count in requests.items()
    ]  # fmt: skip
    pools = [{"name": "web", "algorithm": "round_robin", "queued": 0, "backends": backends}]
    return {"version": "1", "generation": 1, "uptime": uptime, "ready": True, "listeners": [], "pools": pools}


class RateTests(SynchronousTestCase):
    def rates(self, *statuses: dict[str, Any]) -> list[tuple[float | None, float | None]]:
        rates = Rates()
        for each in statuses:
            rates.add(each)
        return [(row.rate, row.failing) for row in rates.pools[0].rows]

    def test_rates(self) -> None:
        """A rate is what was counted by the time that has passed, over the last few statuses."""
        self.assertEqual(self.rates(status(1, a=0)), [(None, None)])
        self.assertEqual(self.rates(status(1, a=0), status(3, a=100)), [(50.0, 5.0)])
        later = [status(i, a=0) for i in range(10)] + [status(10, a=40)]
        self.assertEqual(self.rates(*later), [(40 / SPAN, 4 / SPAN)])

    def test_new(self) -> None:
        """One that has come, and all of a service that has restarted, have no rate until the next status."""
        self.assertEqual(self.rates(status(1, a=0), status(2, a=10, b=5)), [(10.0, 1.0), (None, None)])
        self.assertEqual(self.rates(status(90, a=500), status(1, a=3)), [(None, None)])
        self.assertEqual(self.rates(status(1, a=500), status(2, a=3)), [(None, None)])

    def test_total(self) -> None:
        """A pool's rate is that of its backends."""
        rates = Rates()
        for each in (status(1, a=0, b=0), status(2, a=10, b=30)):
            rates.add(each)
        self.assertEqual((rates.pools[0].rate, rates.pools[0].failing, rates.pools[0].up), (40.0, 4.0, 2))


class KeyTests(SynchronousTestCase):
    @given(strategies.lists(strategies.sampled_from([b"a", b"\x1b[A", b"\x1b[6~", b"\x1bOB", b"\x1b[1;5C", b"q"])))
    def test_pieces(self, pressed: list[bytes]) -> None:
        """Byte by byte or all at once, the same keys come, and unknown sequences are none."""
        words = {b"\x1b[A": "up", b"\x1b[6~": "page-down", b"\x1bOB": "down", b"a": "a", b"q": "q"}
        wanted = [words[each] for each in pressed if each in words]
        self.assertEqual(Keys().feed(b"".join(pressed)), wanted)
        keys = Keys()
        self.assertEqual([key for byte in b"".join(pressed) for key in keys.feed(bytes([byte]))], wanted)

    @given(strategies.binary(max_size=200))
    def test_any(self, noise: bytes) -> None:
        """Whatever is pressed, no more is kept than one sequence."""
        keys = Keys()
        keys.feed(noise)
        self.assertLess(len(keys._rest), 16)


class ViewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Top("here")
        for each in (status(1, a=0, b=0, c=0), status(2, a=10, b=30, c=20)):
            self.top.add(each)

    def chosen(self) -> str:
        row = self.top.chosen
        assert row is not None
        return row.name

    def lines(self, height: int | None, width: int = 120) -> list[str]:
        self.patch(tables, "is_terminal", lambda: height is not None)
        console = Console(width=width, height=50, color_system=None)
        with console.capture() as captured:
            console.print(self.top.drawing(height, None if height is None else width))
        return captured.get().splitlines()

    def test_choose(self) -> None:
        """Up and down stop at the ends; d and r are wishes for the chosen one."""
        self.assertEqual(self.chosen(), "a")
        for key in ("down", "j", "down", "down"):
            self.assertIsNone(self.top.press(key))
        self.assertEqual(self.chosen(), "c")
        wish = self.top.press("d")
        assert wish is not None
        self.assertEqual((wish.key, wish.state), (("web", "c", "c:1"), "drain"))
        self.top.press("k")
        wish = self.top.press("r")
        assert wish is not None
        self.assertEqual((wish.key[1], wish.state), ("b", "ready"))

    def test_stays_chosen(self) -> None:
        """Sorting and the coming of others leave the choice where it is; one that goes passes it to who stands there."""
        self.top.press("down")
        self.top.press("S")
        self.assertEqual(self.chosen(), "b")
        self.top.press("S")
        self.top.add(status(3, z=0, a=20, b=60, c=40))
        self.assertEqual(self.chosen(), "b")
        self.top.add(status(4, a=20, c=40))
        self.assertEqual(self.chosen(), "c")
        self.top.add(status(5))
        self.assertIsNone(self.top.chosen)
        self.assertIsNone(self.top.press("d"))

    def test_sort(self) -> None:
        """Sorted by requests, the busiest is first; S turns it round."""
        while self.top.order != "requests":
            self.top.press("s")
        self.assertEqual([line.split()[0] for line in self.lines(None) if ":1 " in line], ["b", "c", "a"])
        self.top.press("S")
        self.assertEqual([line.split()[0] for line in self.lines(None) if ":1 " in line], ["a", "c", "b"])

    def test_fits(self) -> None:
        """Whatever the size of the terminal, no more lines are drawn than fit, and the chosen backend is one of them."""
        self.top.add(status(3, **{f"backend-{i}": 0 for i in range(1000)}))
        for _ in range(60):
            self.top.press("page-down")
        for height, width in ((10, 40), (24, 80), (50, 200)):
            lines = self.lines(height, width)
            self.assertLessEqual(len(lines), height)
            if width > 40:
                self.assertTrue(any(self.chosen() in line for line in lines))
                self.assertIn(HELP, lines[-1])

    def test_before(self) -> None:
        """Before the first status nothing is said that nobody knows."""
        self.patch(tables, "is_terminal", lambda: True)
        console = Console(width=80, height=50, color_system=None)
        with console.capture() as captured:
            console.print(Top("here").drawing(24, 80))
        self.assertEqual(captured.get().splitlines()[0].strip(), "lbsvc at here: waiting for its first status")
        self.assertNotIn("None", captured.get())

    def test_quit(self) -> None:
        """q ends it."""
        self.top.press("q")
        self.assertTrue(self.top.has_ended)


class StatusTests(SynchronousTestCase):
    """The tables of `lbctl status` on terminals of all widths."""

    def lines(self, width: int, found: dict[str, Any]) -> list[str]:
        self.patch(tables, "is_terminal", lambda: True)
        self.patch(tables, "console", lambda: Console(width=width, color_system=None, force_terminal=True))
        return tables.for_status(found).splitlines()

    def found(self, *names: str, **keys: Any) -> dict[str, Any]:
        found = status(1, **dict.fromkeys(names, 12345))
        found["listeners"] = [
            {"name": "main", "bind": "127.0.0.1:8080", "protocol": "http", "state": "listening", "connections": 12}
        ]
        for backend in found["pools"][0]["backends"]:
            backend |= {"address": backend["name"], "latency": 0.0123, **keys}
        return found

    def test_eighty_columns(self) -> None:
        """On 80 columns each backend is a line, words are whole, and what a failed check said stands below."""
        checked = {"ok": False, "at": 1.0, "detail": "503 Service Unavailable, not 200-399"}
        found = self.found("10.0.0.1:8001", "10.0.0.2:8001", last_check=checked, health="down", source="runtime")
        lines = self.lines(80, found)
        self.assertLessEqual(max(map(len, lines)), 80)
        for name in ("10.0.0.1:8001", "10.0.0.2:8001"):
            (line,) = [line for line in lines if f" {name} " in line]
            self.assertEqual(line.split()[2:5], ["1", "ready", "down"])
            self.assertTrue(line.endswith("12.3 ms"), line)
            self.assertIn(f"web/{name}: last check failed: 503 Service Unavailable, not 200-399", lines)
        self.assertNotIn("LAST CHECK", "".join(lines))

    def test_wide(self) -> None:
        """Where there is room for all, all is there, on its line alone."""
        lines = self.lines(200, self.found("a:1", last_check={"ok": True, "at": 1.0, "detail": "200"}, circuit="open"))
        (heads,) = [line for line in lines if "BACKEND" in line]
        self.assertIn("ADDRESS", heads)
        self.assertIn("CIRCUIT", heads)
        self.assertTrue(lines[-1].rstrip().endswith("ok: 200"), lines)

    def test_any_width(self) -> None:
        """However narrow it is, a backend is a line, with its state and health in whole; its name may be cut."""
        found = self.found("a-backend-with-a-long-name.internal.example:8001", circuit="half_open")
        for width in range(40, 140, 7):
            lines = self.lines(width, found)
            self.assertLessEqual(max(map(len, lines)), width)
            (line,) = [line for line in lines if "a-ba" in line]
            for whole in (" ready ", " up "):
                self.assertIn(whole, line)


class Terminal:
    """A command on a pseudo-terminal of its own: what it has written, and keys for it."""

    def __init__(self, *command: str, **env: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 120)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, cwd="/", start_new_session=True,
            env=clean_environment({"TERM": "xterm-256color", **env}),
        )  # fmt: skip
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def sees(self, text: str) -> None:
        """Wait until this was written since the last time."""
        end = time.monotonic() + DEADLINE
        while (at := self.text.find(text)) < 0:
            left = end - time.monotonic()
            if left < 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"not seen: {text!r} in {self.text[-3000:]!r}")
            self.text += os.read(self.master, 65536).decode("utf-8", "replace")
        self.text = self.text[at + len(text) :]

    def ended(self) -> int:
        """The exit status; what is still written is read meanwhile, so that it can end."""

        def is_over() -> bool:
            while select.select([self.master], [], [], 0)[0]:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            return self.process.poll() is not None

        until(is_over, "ended")
        return self.process.returncode

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        os.close(self.master)
        os.close(self.slave)


class LiveTests(LbctlTestCase):
    def terminal(self, *arguments: str, **env: str) -> Terminal:
        terminal = Terminal(*LBCTL, *arguments, LBCTL_ADMIN=self.admin, **env)
        self.addCleanup(terminal.stop)
        return terminal

    def test_live(self) -> None:
        """It shows, drains and makes ready by keys, sorts, and quits with the terminal as it was."""
        _, port = self.serve_two()
        terminal = self.terminal("top")
        terminal.sees("\x1b[?1049h")  # the other screen
        terminal.sees("lbsvc ")
        terminal.sees(" at ")  # of the first frame
        self.assertNotIn("None", terminal.text)
        terminal.sees("round_robin")
        self.assertEqual(get(port).status, 200)
        terminal.press("d")
        terminal.sees("web/a: drain")
        self.assertEqual(self.states(), {"a": "drain", "b": "ready"})
        terminal.press("\x1b[Bd")
        terminal.sees("web/b: drain")
        self.assertEqual(self.states(), {"a": "drain", "b": "drain"})
        terminal.press("r")
        terminal.sees("web/b: ready")
        self.assertEqual(self.states(), {"a": "drain", "b": "ready"})
        terminal.press("s")
        terminal.sees("sorted by name")
        terminal.press("q")
        terminal.sees("\x1b[?1049l")
        self.assertEqual(terminal.ended(), 0)
        self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)

    def test_signals(self) -> None:
        """Ctrl-C and TERM end it with 130, the terminal as it was."""
        self.serve_two()
        for end in (signal.SIGINT, signal.SIGTERM):
            terminal = self.terminal("top")
            terminal.sees("round_robin")
            terminal.process.send_signal(end)
            terminal.sees("\x1b[?1049l")
            self.assertEqual(terminal.ended(), 130)
            self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)

    def test_resize(self) -> None:
        """A new size is drawn for at once."""
        self.serve_two()
        terminal = self.terminal("top")
        terminal.sees("round_robin")
        terminal.resize(8, 60)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.sees("more lines")
        terminal.press("q")
        self.assertEqual(terminal.ended(), 0)

    def test_away(self) -> None:
        """A service that goes away is said to be away; keys are obeyed all the same."""
        balancer, _ = self.serve_two()
        terminal = self.terminal("top")
        terminal.sees("round_robin")
        balancer.process.kill()
        terminal.sees("trying again")
        terminal.press("d")
        terminal.sees("cannot reach")
        terminal.press("q")
        self.assertEqual(terminal.ended(), 0)

    def test_colour(self) -> None:
        """A terminal gets colour, one under NO_COLOR none, and a pipe neither colour nor a live view."""
        self.serve_two()
        coloured, plain = self.terminal("status"), self.terminal("status", NO_COLOR="1")
        self.assertEqual((coloured.ended(), plain.ended()), (0, 0))
        self.assertIn("\x1b[32m", coloured.text)
        self.assertNotIn("\x1b[3", plain.text)
        self.assertNotIn("\x1b", self.call("status", FORCE_COLOR="1"))
        self.assertNotIn("\x1b", self.call("top", "-n", "1"))

    def test_pipe(self) -> None:
        """Off a terminal it is a table a second, under --json an object a line, as many as -n says."""
        self.serve_two()
        self.assertEqual(self.call("top", "-n", "2").count("round_robin"), 2)
        lines = lbctl("top", "--json", "-n", "2", admin=self.admin).stdout.splitlines()
        self.assertEqual(len(lines), 2)
        pool = json.loads(lines[1])["pools"][0]
        self.assertEqual([backend["name"] for backend in pool["backends"]], ["a", "b"])
        self.assertEqual(pool["requests_per_second"], 0.0)
