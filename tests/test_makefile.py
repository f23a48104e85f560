"""etc/Makefile: each name that developers know from the smaller balancers is there, and does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.kit.processes import ROOT, clean_environment, scratch_folder
from tests.readme import README, read_blocks
from tests.test_packaging import copy_tree

FILE = ROOT / "etc" / "Makefile"
MK_1 = ["all", "build", "clean", "demo", "down", "failover", "health", "help", "install", "k6", "lint", "setup", "up"]
MK_1 += ["test", "testsum", "test-algo", "test-chaos", "test-e2e"]
MK_2 = ["run-lb", "run-test"]

PASSING = """
from twisted.trial.unittest import TestCase
class Tests(TestCase):
    def test_one(self): pass
    def test_two(self): pass
"""
#: What trial makes a failure of: a mistake in a Deferred that nobody looks at, and a reactor that is left with work.
UNHANDLED = """
from twisted.internet.defer import fail
from twisted.trial.unittest import TestCase
class Tests(TestCase):
    def test_unhandled(self): fail(ValueError("nobody looks"))
"""
DIRTY = """
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
class Tests(TestCase):
    def test_dirty(self): reactor.callLater(3600, str)
"""

#: Makes an environment whose pip and Python write down what they were asked; pip fails where there is no `fault` to remove.
PYTHON3 = """#!/bin/sh
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "pip $*" >>{record}\\nexec rm {fault}\\n' >"$3/bin/pip"
printf '#!/bin/sh\\necho "python $*" >>{record}\\n' >"$3/bin/python"
chmod 755 "$3/bin/pip" "$3/bin/python"
"""


def make(
    *arguments: str, file: Path = FILE, path: str = "", python: str | None = sys.executable
) -> subprocess.CompletedProcess[str]:
    """make, by this Python, or the one that it makes itself; `path` is looked through for programs first."""
    env = {key: value for key, value in clean_environment().items() if key != "PYTHON"}
    if path:
        env["PATH"] = f"{path}:{env['PATH']}"
    given = [] if python is None else [f"PYTHON={python}"]
    command = ["make", "--no-print-directory", "-C", str(file.parent), *given, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z][a-z0-9-]*):", FILE.read_text()))


def recipes(target: str) -> str:
    """The commands that a target would run."""
    done = make("-n", target)
    assert done.returncode == 0, done.stderr
    return done.stdout


class NamesTests(TestCase):
    def test_names(self) -> None:
        """The names are there, no file can stand in for one, and the help lists each and no other (MK-1, MK-2, L19)."""
        self.assertEqual({*MK_1, *MK_2} - targets(), set())
        phony = set(" ".join(re.findall(r"(?m)^\.PHONY: (.*)", FILE.read_text())).split())
        self.assertEqual(phony, targets())
        told = make()  # without a name it helps
        self.assertEqual((told.returncode, told.stderr), (0, ""))
        self.assertEqual({line.split()[0] for line in told.stdout.splitlines()}, targets())
        self.assertEqual(told.stdout, make("help").stdout)

    def test_what_is_named(self) -> None:
        """Each recipe can be read, and each module, script and file that one names is there (MK-1, MK-2, L19)."""
        for target in targets() - {"help"}:
            said = recipes(target)
            self.assertTrue(said.strip(), target)
            for module in re.findall(r"(?<![\w/.-])(?:tests|lbsvc)(?:\.\w+)+", said):
                place = ROOT / module.replace(".", "/")
                self.assertTrue(place.is_dir() or place.with_suffix(".py").is_file(), f"{target}: {module}")
            for file in re.findall(rf"{re.escape(str(ROOT))}/etc/[\w./-]+", said):
                self.assertTrue(Path(file).is_file(), f"{target}: {file}")

    def test_as_in_ci(self) -> None:
        """What is linted here is what .ci/run lints, and all is lint, test and build (MK-1, L19)."""
        in_ci = re.search(r'for check in (".*"); do', (ROOT / ".ci/run").read_text())
        assert in_ci is not None
        here = re.findall(r"-m ((?:mypy|ruff).*)", recipes("lint"))
        self.assertEqual(here, re.findall(r'"(.*?)"', in_ci[1]))
        self.assertEqual(recipes("all"), "".join(map(recipes, ("lint", "test", "build"))))

    def test_install(self) -> None:
        """install is for the Python of who asks (MK-1)."""
        self.assertEqual(recipes("install"), f"python3 -m pip install {ROOT}\n")

    def test_paths(self) -> None:
        """Paths are meant from the root of the checkout, as the help writes them; absolute ones are as they are (MK-2)."""
        for given, meant in (("etc/lb.yaml", f"{ROOT}/etc/lb.yaml"), ("/tmp/lb.yaml", "/tmp/lb.yaml")):
            self.assertIn(f" --config {meant}\n", make("-n", "run-lb", f"CONFIG={given}").stdout)
        self.assertEqual(make("-n", "run-lb").stdout, make("-n", "run-lb", "CONFIG=etc/lb.yaml").stdout)
        self.assertEqual(make("-n", "certs").stdout, make("-n", "certs", "CERTS=run/certs").stdout)
        self.assertIn(f"generate-certs.sh {ROOT}/run/certs\n", recipes("certs"))


class DoingTests(TestCase):
    """In a folder that looks like a checkout."""

    def setUp(self) -> None:
        self.folder = scratch_folder()
        self.addCleanup(shutil.rmtree, self.folder)

    def small(self) -> Path:
        """A Makefile in a tree of nothing but it."""
        (self.folder / "etc").mkdir()
        shutil.copy(FILE, self.folder / "etc")
        return self.folder / "etc" / "Makefile"

    def test_setup(self) -> None:
        """What tests need is put into an environment of their own, the README's: whatever is in .venv, again where that was
        not finished, and once only; whoever names a Python has what is needed (MK-1)."""
        file = self.small()
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        programs, record, fault = self.folder / "programs", self.folder / "asked", self.folder / "fault"
        (self.folder / ".venv/bin").mkdir(parents=True)
        (self.folder / ".venv/bin/python").touch()  # what the README's first command leaves knows no mypy
        programs.mkdir()
        (programs / "python3").write_text(PYTHON3.format(record=record, fault=fault))
        (programs / "python3").chmod(0o755)
        self.assertEqual(make("setup", file=file, path=str(programs), python=None).returncode, 2)  # there is no `fault`
        fault.touch()
        for target in ("setup", "setup", "lint"):
            done = make(target, file=file, path=str(programs), python=None)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        asked = record.read_text().splitlines()
        self.assertEqual(asked[:3], [f"pip install -q -e {self.folder}[test]"] * 2 + ["python -m mypy"])
        self.assertTrue((self.folder / ".venv-test/bin/pip").exists())
        (command,) = (block.text for block in read_blocks(README.read_text()) if block.how == "test")
        self.assertIn(".venv-test/bin/trial", command)
        self.assertNotIn("venv", make("-n", "lint", file=file, python="/opt/bin/python").stdout)

    def test_tests(self) -> None:
        """Tests that pass are 0 and those that fail are not; nor are those that leave an error unhandled, or the reactor
        with something to do (MK-1, TST-6, S7)."""
        file = self.small()
        for name, text in (("passing", PASSING), ("unhandled", UNHANDLED), ("dirty", DIRTY)):
            (self.folder / f"{name}.py").write_text(text)
        for target in ("test", "testsum"):
            done = make(target, "TESTS=passing", file=file)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("PASSED (successes=2)", done.stdout)
        self.assertNotIn("test_one", make("testsum", "TESTS=passing", file=file).stdout)
        for name, words in (("unhandled", "nobody looks"), ("dirty", "DirtyReactorAggregateError")):
            done = make("test", f"TESTS={name}", file=file)
            self.assertEqual((done.returncode, "FAILED (errors=1" in done.stdout), (2, True), done.stdout)
            self.assertIn(words, done.stdout)

    def test_clean(self) -> None:
        """What was built and what tools remember goes, and nothing else (MK-1)."""
        file = self.small()
        for gone in ("build/x", "dist/x", "_trial_temp/x", "_trial_temp-1/x", ".mypy_cache/x", "lbsvc/a/__pycache__/x"):
            (self.folder / gone).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / gone).touch()
        for kept in ("lbsvc/a/b.py", "tests/c.py", "twisted/plugins/d.py", ".venv/bin/python", "run/certs/site.key"):
            (self.folder / kept).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / kept).touch()
        done = make("clean", file=file)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        left = {str(each.relative_to(self.folder)) for each in self.folder.rglob("*") if each.is_file()}
        expected = {"etc/Makefile", "lbsvc/a/b.py", "tests/c.py", "twisted/plugins/d.py", ".venv/bin/python"}
        self.assertEqual(left, {*expected, "run/certs/site.key"})

    def test_build(self) -> None:
        """The wheel is in dist/ (MK-1)."""
        tree = copy_tree(self.folder / "tree")
        done = make("build", file=tree / "etc" / "Makefile")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (wheel,) = (tree / "dist").iterdir()
        with zipfile.ZipFile(wheel) as archive:
            self.assertIn("lbsvc/tap.py", archive.namelist())

    def test_containers(self) -> None:
        """up and down are docker's, with the compose file and a token, made up where none is given (MK-1, OPS-1)."""
        programs = self.folder / "programs"
        programs.mkdir()
        docker = programs / "docker"
        docker.write_text(f'#!/bin/sh\n[ "$2" = version ] || echo "$LBSVC_ADMIN_TOKEN $*" >>{self.folder}/asked\n')
        docker.chmod(0o755)
        for target in ("up", "up", "down"):
            done = make(target, path=str(programs))
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        (first, up), (second, again), (_, down) = (
            line.split(" ", 1) for line in (self.folder / "asked").read_text().splitlines()
        )
        compose = f"compose -f {ROOT}/etc/docker/compose.yml"
        self.assertEqual([up, again, down], [f"{compose} up --build --wait"] * 2 + [f"{compose} down"])
        self.assertRegex(first, "^[0-9a-f]{32}$")
        self.assertNotEqual(first, second)
        docker.write_text('#!/bin/sh\necho "unknown shorthand flag: $*" >&2; exit 125\n')
        for target in ("up", "down"):
            done = make(target, path=str(programs))
            self.assertIn("docker compose is not there: version 2 of it is needed", done.stderr)
            self.assertEqual((done.returncode, "unknown" in done.stderr), (2, False))
