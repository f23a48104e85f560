"""The compiled wheel, which is built only where it is asked for: that nobody gets it who did not ask, that nothing is in our
modules that it would do otherwise (etc/compiled/audit.py), and that it is built and does what the Python files do.

A C compiler and Python's headers must be there: .ci/run installs them. The wheel is built once, hardly optimized.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tomllib
import zipfile
from pathlib import Path

from twisted.trial.unittest import TestCase

import lbsvc
from tests.kit.processes import ROOT, scratch_folder
from tests.test_packaging import copy_tree, python

COMPILED = ROOT / "etc/compiled"

#: Each is one thing that Python does, and the compiled module would not.
MISTAKES = """
from typing import Protocol, TypeVar

K = TypeVar("K")


class Ear(Protocol):
    def hear(self) -> None: ...


class First:
    is_over = False
    peer: First | None = None
    several: First | int | None = None
    ear: Ear | None = None
    names: list[str]

    def end(self) -> None:
        self.is_over = True
        self.peer = None


class Second(First):
    names: list[str]

    def unreachable(self) -> int:
        if self.is_over:
            return 1
        self.end()
        if self.is_over:
            return 2
        return 3

    def taken_for_granted(self, other: First) -> bool:
        self.peer = other
        self.end()
        return self.peer is other


def listed(kind: type[K]) -> type[K]:
    return kind


@listed
class Decorated:
    pass
"""

#: Those stand something of their own in for what is compiled, look at __slots__, or patch a constant.
SET_ASIDE = {"test_edits", "test_forwarding", "test_h2_budgets", "test_h2_codec_flow", "test_judged"}


def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python(str(COMPILED / "audit.py"), *arguments, cwd="/", path="")


class PureTests(TestCase):
    def test_off_by_default(self) -> None:
        """Nothing is compiled unless it is asked for, and a build that is not asked does not even read the hook."""
        target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        self.assertIs(target["hooks"]["custom"]["enable-by-default"], False)
        self.assertEqual(list((ROOT / "lbsvc").rglob("*.so")), [])
        self.assertIs(lbsvc.is_compiled(), False)

    def test_audit(self) -> None:
        """Nothing in the modules that are compiled would be done otherwise there."""
        found = audit(str(ROOT))
        self.assertEqual((found.stdout, found.stderr, found.returncode), ("", "", 0))

    def test_audit_sees(self) -> None:
        """It finds one of each kind."""
        folder = scratch_folder()
        self.addCleanup(shutil.rmtree, folder)
        (folder / "lbsvc").mkdir()
        (folder / "lbsvc/__init__.py").touch()
        (folder / "lbsvc/wrong.py").write_text("from __future__ import annotations\n" + MISTAKES)
        found = audit(str(folder), "lbsvc/wrong.py")
        self.assertEqual(found.returncode, 1, found.stderr)
        self.assertEqual(found.stderr, "")
        words = ("several", "ear", "names", "unreachable", "peer is taken for", "Decorated: not native")
        self.assertEqual([word for word in words if word not in found.stdout], [], found.stdout)
        self.assertEqual(len(found.stdout.splitlines()), len(words), found.stdout)


class WheelTests(TestCase):
    def setUp(self) -> None:
        self.folder = scratch_folder()
        self.addCleanup(shutil.rmtree, self.folder)

    def build(self) -> Path:
        """The compiled wheel, unpacked, and beside it what the tests are and need."""
        headers = Path(sysconfig.get_path("include"), "Python.h")
        self.assertTrue(headers.exists(), f"{headers} is missing: it comes with python3-dev, which .ci/run installs")
        tree = copy_tree(self.folder / "tree")
        os.environ.update(HATCH_BUILD_HOOKS_ENABLE="true", LBSVC_COMPILE_LEVEL="0")
        self.addCleanup(os.environ.pop, "HATCH_BUILD_HOOKS_ENABLE")
        self.addCleanup(os.environ.pop, "LBSVC_COMPILE_LEVEL")
        built = python("-m", "build", "--no-isolation", "--wheel", "--outdir", "../dist", ".", cwd=tree)
        self.assertEqual(built.returncode, 0, built.stdout[-3000:] + built.stderr[-3000:])
        (wheel,) = (self.folder / "dist").glob("*.whl")
        self.assertNotIn("py3-none-any", wheel.name)
        site = self.folder / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        for name in ("tests", "etc", "systemd", "README.md", "pyproject.toml", "LICENSE", ".gitignore"):
            (site / name).symlink_to(tree / name)
        return site

    def test_wheel(self) -> None:
        """It holds the Python files too, says what it is, and passes our tests: those in memory, and of a real `twist`."""
        site = self.build()
        files = {str(file.relative_to(ROOT)) for file in (ROOT / "lbsvc").rglob("*.py")}
        shipped = {str(file.relative_to(site)) for file in (site / "lbsvc").rglob("*")}
        self.assertEqual(files - shipped, set())
        self.assertTrue(any(name.startswith("lbsvc/http/exchange.") and name.endswith(".so") for name in shipped))
        told = python("-m", "twisted", "loadbalancer", "--version", cwd="/", path=str(site))
        self.assertEqual(told.stdout, f"lbsvc {lbsvc.__version__}, compiled\n", told.stderr)
        http = sorted(file.stem for file in (ROOT / "tests/http").glob("test_*.py"))
        modules = ["tests.contracts", *(f"tests.http.{name}" for name in http if name not in SET_ASIDE)]
        modules.append("tests.integration.test_http")
        ran = python("-m", "twisted.trial", "--temp-directory", "../_trial", *modules, cwd=site, path=str(site))
        self.assertEqual(ran.returncode, 0, ran.stdout[-6000:] + ran.stderr[-3000:])
        self.assertIn("PASSED", ran.stdout)
