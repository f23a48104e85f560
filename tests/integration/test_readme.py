"""README.md, done from its beginning to its end: what it says to type is typed, and what it shows is what is printed.

The tree is copied, its addresses are moved to free ports, and everything is run by the programs that the README's own
command has installed. What takes a machine of its own (systemd, users) is asked of stand-ins, which write down what they
were asked. How each block is tried stands in tests/readme.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.integration.cases import ProcessTestCase
from tests.kit.operating import ask
from tests.kit.processes import TWIST, Child, answers, free_ports, get, until
from tests.readme import README, Block, Moved, differs, furnish, read_blocks, whole
from tests.test_packaging import copy_tree

#: Writes down what it was asked, as a line of JSON; `python3 -m venv FOLDER` leaves programs there that do the same.
STAND_IN = """#!{python}
import json, os, sys
name = sys.argv[0]
with open({record!r}, "a") as file:
    file.write(json.dumps([os.path.basename(name), *sys.argv[1:]]) + "\\n")
if sys.argv[1:3] == ["-m", "venv"]:
    os.makedirs(sys.argv[3] + "/bin")
    for each in ("pip", "twist", "lbctl"):
        os.link(name, sys.argv[3] + "/bin/" + each)
"""


class Typed:
    """A block that somebody types into a shell: what goes on after it, goes on until the test ends."""

    def __init__(self, script: str, folder: Path, env: dict[str, str], output: Path) -> None:
        self.out, self.err = output.with_suffix(".out"), output.with_suffix(".err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail", "-c", script],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self) -> None:
        """End it, with all that it has started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(30)

    def report(self) -> str:
        return f"{self.out.read_text()}{self.err.read_text()}"


class ReadmeTests(ProcessTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.root = self.scratch()
        self.tree = copy_tree(self.root / "lbsvc")
        self.programs = self.root / "programs"
        self.programs.mkdir()
        self.typed = 0
        self.moved = Moved(self.root / "machine", free_ports(40))
        self.blocks = read_blocks(README.read_text())

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def type(self, script: str) -> Typed:
        """Type this, with what the README's reader has: no settings of ours, the installed programs first."""
        dropped = ("PYTHON", "LBSVC_", "LBCTL_", "VIRTUAL_ENV")
        env = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        env["PATH"] = f"{self.programs}:{self.tree}/.venv/bin:{env['PATH']}:/usr/sbin:/sbin"
        env["LBCTL_ADMIN"] = f"http://127.0.0.1:{self.moved.port('', '9901')}"
        self.typed += 1
        typed = Typed(script, self.tree, env, self.root / f"typed-{self.typed}")
        self.addCleanup(typed.end)
        return typed

    def run_block(self, block: Block, after: Block | None) -> None:
        """Type it to its end; if the next block is what it prints, compare."""
        typed = self.type(self.moved.text(block.text))
        until(lambda: typed.process.poll() is not None, f"over: {block}", 120)
        shows = after is not None and after.kind == "prints"
        # A wrong configuration is shown by a command that fails.
        self.assertIn(typed.process.returncode, (0, 78) if shows else (0,), f"{block}\n{typed.report()}")
        if after is not None and shows:
            printed = typed.out.read_text() or typed.err.read_text()  # curl and pip say more to people
            self.assertEqual(differs(after, self.moved.back(printed)), "", after)

    def test_from_top_to_bottom(self) -> None:
        """Installed and started by the README's first command; each further block of commands then does what it says."""
        self.program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        # Our hatchling builds what else is installed: pip would fetch another one for it.
        ours = sysconfig.get_path("purelib")
        said = 'install --no-build-isolation "$@"'
        self.program("pip", f"#!/bin/sh\nshift\nPYTHONPATH={ours} exec {self.tree}/.venv/bin/pip {said}\n")
        listening = f"--web.listen-address=127.0.0.1:{self.moved.port('', '9090')}"
        self.program("prometheus", f'#!/bin/sh\nexec {shutil.which("prometheus")} {listening} "$@"\n')
        for name in ("lb.yaml", "prometheus/targets/lbsvc.yml"):
            file = self.tree / "etc" / name
            file.write_text(self.moved.text(file.read_text()))
        (first,) = (block for block in self.blocks if (block.kind, block.how) == ("command", "run"))
        service = self.type(first.text)
        admin = self.moved.port("", "9901")

        def is_ready() -> bool:
            self.assertIsNone(service.process.poll(), service.report())
            return answers(admin) and get(admin, "/readyz").status == 200

        until(is_ready, "ready", 240)
        for block, after in zip(self.blocks, [*self.blocks[1:], None], strict=True):
            if block.kind == "config":
                self.save(block)
            elif (block.kind, block.how) == ("run", "for good"):
                self.start_for_good(block)
            elif block.kind == "run" and block.how != "a stand-in":
                self.run_block(block, after)
        self.wait_scraped()
        # Ctrl-C: bash waits for it and passes its end on.
        os.killpg(service.process.pid, signal.SIGINT)
        until(lambda: service.process.poll() is not None, "ended by Ctrl-C")
        self.assertNotIn("Traceback", service.report())

    def save(self, block: Block) -> None:
        """As lb.yaml; a wrong one as it is, with its columns."""
        text = whole(block)
        if block.how != "wrong":
            text = Moved(self.tree, free_ports(20)).text(text)
            furnish(text, self.tree)
        (self.tree / "lb.yaml").write_text(text)

    def start_for_good(self, block: Block) -> None:
        typed = self.type(self.moved.text(block.text))
        self.assertIn("prometheus", block.text)
        self.prometheus = typed

    def wait_scraped(self) -> None:
        """Prometheus, started a while ago, has found the service, and keeps what it finds below run/."""

        def is_up() -> bool:
            self.assertIsNone(self.prometheus.process.poll(), self.prometheus.report())
            port = self.moved.port("", "9090")
            if not answers(port):
                return False
            found = json.loads(get(port, "/api/v1/targets").body)["data"]["activeTargets"]
            return [each["health"] for each in found] == ["up"]

        until(is_up, "scraped")
        self.assertTrue((self.tree / "run/prometheus/wal").is_dir())  # not where only root may write

    def test_stand_ins(self) -> None:
        """What takes a machine of its own is typed with stand-ins: what the unit starts is there, as is what it reads."""
        (block,) = (block for block in self.blocks if (block.kind, block.how) == ("run", "a stand-in"))
        record = self.root / "asked"
        machine = self.root / "machine"
        (machine / "etc/systemd/system").mkdir(parents=True)
        for name in ("python3", "useradd", "systemctl"):
            self.program(name, STAND_IN.format(python=sys.executable, record=str(record)))
        self.run_block(block, None)
        asked = [json.loads(line) for line in record.read_text().splitlines()]
        self.assertIn(["pip", "install", "-q", "."], asked)
        (unit,) = (machine / "etc/systemd/system").glob("*.service")
        said = unit.read_text()
        for program, file in re.findall(r"^ExecStart\w*=(\S+) loadbalancer --config (\S+)", said, re.MULTILINE):
            self.assertTrue(os.access(f"{machine}{program}", os.X_OK), program)
            self.assertTrue(Path(f"{machine}{file}").is_file(), file)
        started = [words for words in asked if words[0] == "systemctl" and words[1] in ("start", "enable")]
        self.assertEqual([words[-1].removesuffix(".service") for words in started], [unit.stem])
        (user,) = re.findall(r"^User=(.*)", said, re.MULTILINE)
        self.assertEqual([words[-1] for words in asked if words[0] == "useradd"], [user])
        # Typed by whoever is there first: the user is made before anything is started.
        self.assertLess(*(next(i for i, words in enumerate(asked) if words[0] == n) for n in ("useradd", "systemctl")))

    def test_configurations_start(self) -> None:
        """Each configuration, and each piece of one, starts: it gets ready, and its listeners accept."""
        started = []
        for block in self.blocks:
            if block.kind == "config" and block.how != "wrong":
                folder = self.scratch()
                moved = Moved(folder, free_ports(20))
                text = moved.text(whole(block))
                if "\nadmin:" not in f"\n{text}":
                    text += f"admin: {{bind: 127.0.0.1:{moved.port('', '9901')}}}\n"
                furnish(text, folder)
                (folder / "lb.yaml").write_text(text)
                child = Child([*TWIST, "loadbalancer", "--config", "lb.yaml"], folder=folder)
                self.addCleanup(child.stop)
                started.append((block, child, moved.port("", "9901")))
        self.assertGreater(len(started), 5)
        for block, child, admin in started:
            self.wait_ready(child, admin, block)
            listeners = ask(admin, "GET", "/api/v1/status").value["listeners"]
            self.assertEqual({each["state"] for each in listeners}, {"listening"}, block)
            for port in re.findall(r":(\d+)", " ".join(str(each["bind"]) for each in listeners)):
                self.assertTrue(answers(int(port)), f"{block}: {port}")

    def wait_ready(self, child: Child, admin: int, block: Block) -> None:
        def is_ready() -> bool:
            self.assertIsNone(child.process.poll(), f"{block}\n{child.report()}")
            return answers(admin) and get(admin, "/readyz").status == 200

        until(is_ready, f"ready: {block}", 60)
