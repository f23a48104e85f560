"""The image without an engine: its commands are run in a folder that stands for its root, in a fresh environment.

What the Dockerfile copies is copied, what it runs is run, and then the service, its health check and the demo backends of
the compose file are started as the image would start them. OPS-1, OPS-3, OPS-7.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from tests.integration.cases import ProcessTestCase, config
from tests.kit.docker import FOLDER, all_of, backends, exec_form, one_of, services, stages
from tests.kit.processes import DEADLINE, ROOT, Child, answers, free_ports, get, run, until

#: Where the image's folders are instead.
ROOTS = re.compile(r"(?<![\w.$/])/(opt|src|dist|etc)\b")


class Inside(Child):
    """A command of the image, with the environment that it has there and nothing of ours."""

    def __init__(self, command: list[str], root: Path, **env: str) -> None:
        self.env = {"PATH": f"{root}/opt/lbsvc/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **env}
        program = shutil.which(command[0], path=self.env["PATH"])
        assert program is not None, command
        variables = [f"{key}={value}" for key, value in self.env.items()]
        super().__init__([*the_user(), "env", "-i", *variables, *command], folder=root)


@lru_cache(None)
def the_user() -> tuple[str, ...]:
    """The prefix that makes a command one of the image's user, where we may choose and the interpreter is not root's own."""
    number = one_of(stages()[1], "USER").partition(":")[0]
    prefix = ("setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups")
    return prefix if run([*prefix, "test", "-x", os.path.realpath(sys.executable)]).returncode == 0 else ()


class ImageTests(ProcessTestCase):
    def setUp(self) -> None:
        self.root = self.scratch()
        self.build, self.final = stages()

    def inside(self, text: str) -> str:
        """A command with its absolute paths below our root."""
        return ROOTS.sub(lambda found: f"{self.root}{found[0]}", text)

    def start_inside(self, command: list[str], **env: str) -> Inside:
        child = Inside(command, self.root, **env)
        self.addCleanup(child.stop)
        return child

    def make(self) -> None:
        """Do what the Dockerfile says; pip may keep what it downloads, and the interpreter is ours."""
        source = self.root / "src"
        source.mkdir()
        for rest in all_of(self.build, "COPY"):
            *names, target = rest.split()
            for name in names:
                if (ROOT / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
                    shutil.copytree(ROOT / name, source / target, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, source / target)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}
        for rest in all_of(self.build, "RUN"):
            line = self.inside(rest.replace("--no-cache-dir ", "")).replace("python -m", f"{sys.executable} -m")
            done = subprocess.run(
                ["sh", "-euc", line], cwd=source, env=env, capture_output=True, text=True, timeout=300, check=False
            )
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")
        # Nobody writes to the root of a container that is read-only.
        self.assertTrue(list((self.root / "opt").rglob("twisted/plugins/dropin.cache")))
        for rest in all_of(self.final, "COPY"):
            if not rest.startswith("--from"):
                name, target = rest.split()
                place = Path(self.inside(target))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place)

    def command(self) -> list[str]:
        """What the image runs."""
        said = [*exec_form(one_of(self.final, "ENTRYPOINT")), *exec_form(one_of(self.final, "CMD"))]
        return [self.inside(each) for each in said]

    def test_image(self) -> None:
        """The wheel is built and installed; what it starts, and what the compose file starts, does what it shall
        (OPS-1, OPS-3, OPS-7)."""
        self.make()
        self.checks()
        self.demo_backends()
        self.serves()

    def checks(self) -> None:
        """The configuration of the image, and that of the compose file, are right ones there too."""
        for name, env in (("lb.yaml", {}), ("balancer.yml", {"LBSVC_ADMIN_TOKEN": "token"})):
            shutil.copy(FOLDER / name, self.root / "etc/lbsvc" / name)
            *program, option, _ = self.command()
            file = str(self.root / "etc/lbsvc" / name)
            child = self.start_inside([*program, option, file, "--check"], **env)
            self.assertEqual((child.wait(), child.text), (0, f"{file}: ok\n"), child.report())

    def demo_backends(self) -> None:
        """A backend of the compose file starts, its check knows that, and it leaves when it is told to."""
        service = backends()["backend-3"]
        (port,) = free_ports(1)
        command = [*service["entrypoint"], *service["command"]]
        child = self.start_inside([str(port) if each == service["environment"]["PORT"] else each for each in command])
        until(lambda: answers(port), f"listening: {child.report()}")
        word, *check = service["healthcheck"]["test"]
        self.assertEqual(word, "CMD")
        self.assertEqual(self.start_inside(check, PORT=str(port)).wait(), 0)
        self.assertEqual(get(port).body, b"backend-3\n")
        child.signal(signal.SIGTERM)
        child.wait()
        self.assertEqual(self.start_inside(check, PORT=str(port)).wait(), 1)
        asked = self.start_inside([*services()["load"]["entrypoint"], "--help"])
        self.assertEqual(asked.wait(), 0)

    def serves(self) -> None:
        """The image's own command: healthy when it is ready, and gone after TERM; the health check tells both."""
        port, backend, admin = free_ports(3)
        file = self.root / "etc/lbsvc/lb.yaml"
        text = file.read_text()
        for old, new in ((8080, port), (8001, backend), (9901, admin)):
            self.assertIn(f":{old}", text)
            text = text.replace(f":{old}", f":{new}")
        file.write_text(text)
        check = [each.replace("9901", str(admin)) for each in exec_form(one_of(self.final, "HEALTHCHECK"))]
        child = self.start_inside(self.command())
        until(lambda: self.start_inside(check).wait() == 0, f"healthy: {child.report()}", DEADLINE)
        self.assertEqual(get(port).body, b"hello from the image\n")
        child.signal(signal.SIGTERM)
        self.assertEqual(child.wait(), -signal.SIGTERM, child.report())
        self.assertEqual(self.start_inside(check).wait(), 1)
        self.assertEqual(list(self.root.glob("etc/**/__pycache__")), [])

    def test_draining_is_not_healthy(self) -> None:
        """While it drains, the health check of the image fails: what stands before it looks elsewhere."""
        port, admin = free_ports(2)
        page = {"routes": [{"match": {"path": "/*"}, "respond": {"status": 200, "body": "ok\n"}}]}
        listener = {"bind": f"127.0.0.1:{port}", **page}
        balancer = self.start(config({"web": listener}, admin=admin, shutdown={"delay": "30s"})).ready()
        _, option, code = exec_form(one_of(self.final, "HEALTHCHECK"))
        command = [sys.executable, option, code.replace("9901", str(admin))]

        def is_healthy() -> bool:
            return subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False).returncode == 0

        self.assertTrue(is_healthy())
        balancer.signal(signal.SIGTERM)
        until(lambda: not is_healthy(), "unhealthy")
        self.assertEqual(get(port).status, 200)
