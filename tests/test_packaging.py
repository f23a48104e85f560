"""What is built and installed: the wheel's members, the plugin's discovery, the command from any folder.

Everything is built from a copy of the tree, so that nothing is written into the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import TestCase

from tests.kit.processes import ROOT, scratch_folder
from tests.test_floors import imports

PLUGIN = "twisted/plugins/lbsvc_plugin.py"


def copy_tree(target: Path) -> Path:
    """What a checkout holds, without what git ignores, at `target`."""
    target.mkdir()
    for name in ("lbsvc", "twisted", "tests", "etc", "systemd"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, target / name)
    return target


def python(*arguments: str, cwd: Path | str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run this interpreter with nothing but `path` before the installed packages."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if path:
        env["PYTHONPATH"] = path
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )


class WheelTests(TestCase):
    def setUp(self) -> None:
        self.folder = scratch_folder()
        self.addCleanup(shutil.rmtree, self.folder)
        self.tree = copy_tree(self.folder / "tree")

    def build(self) -> zipfile.ZipFile:
        built = python("-m", "build", "--no-isolation", "--wheel", "--outdir", "../dist", ".", cwd=self.tree)
        self.assertEqual(built.returncode, 0, built.stdout + built.stderr)
        (wheel,) = (self.folder / "dist").glob("*.whl")
        archive = zipfile.ZipFile(wheel)
        self.addCleanup(archive.close)
        return archive

    def test_wheel(self) -> None:
        """The wheel holds the package and the plugin, no cache, no __init__ beside it, no tests; and it runs.

        A stray dropin.cache lies in the tree, and the list of ignored files may be gone: still none is shipped.
        """
        (self.tree / "twisted/plugins/dropin.cache").write_bytes(b"stale")
        (self.tree / ".gitignore").unlink()
        archive = self.build()
        members = set(archive.namelist())
        modules = {str(file.relative_to(ROOT)) for file in (ROOT / "lbsvc").rglob("*.py")}
        self.assertEqual(modules - members, set())
        self.assertIn(PLUGIN, members)
        forbidden = {"twisted/__init__.py", "twisted/plugins/__init__.py", "twisted/plugins/dropin.cache"}
        self.assertEqual(members & forbidden, set())
        others = {name.split("/")[0] for name in members}
        self.assertEqual({name for name in others if not name.endswith(".dist-info")}, {"lbsvc", "twisted"})
        self.assertEqual([name for name in members if name.startswith("twisted/")], [PLUGIN])

        unpacked = self.folder / "site"
        archive.extractall(unpacked)
        self.runs(cwd="/", path=str(unpacked))

    def test_checkout(self) -> None:
        """From the root of a checkout, and from / with the checkout on the path as an editable install puts it."""
        self.runs(cwd=self.tree, path="")
        self.runs(cwd="/", path=str(self.tree))

    def runs(self, cwd: Path | str, path: str) -> None:
        helped = python("-m", "twisted", "loadbalancer", "--help", cwd=cwd, path=path)
        self.assertEqual(helped.returncode, 0, helped.stdout + helped.stderr)
        for option in ("--config", "--check", "--listen", "--backends", "--algorithm"):
            self.assertIn(option, helped.stdout)
        self.assertEqual(helped.stderr.replace("\n", ""), "")


class PluginTests(TestCase):
    def test_discovered(self) -> None:
        """`twist` finds the command among the plugins, once."""
        found = [each for each in getPlugins(IServiceMaker) if each.tapname == "loadbalancer"]
        self.assertEqual([each.module for each in found], ["lbsvc.tap"])

    def test_imports_nothing_of_ours(self) -> None:
        """The plugin file imports ServiceMaker and nothing else: a broken install of ours breaks no other plugin."""
        found = [(each.module, each.names) for each in imports((ROOT / PLUGIN).read_text())]
        self.assertEqual(found, [("twisted.application.service", ("ServiceMaker",))])


class ProjectFileTests(TestCase):
    def setUp(self) -> None:
        self.project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def test_dependencies_are_declared(self) -> None:
        """Every package that lbsvc imports is the standard library's, or declared with a floor for its version."""
        names = {
            "twisted": "twisted",
            "httptools": "httptools",
            "OpenSSL": "pyopenssl",
            "service_identity": "service-identity",
            "prometheus_client": "prometheus-client",
            "yaml": "pyyaml",
            "msgspec": "msgspec",
            "zope": "twisted",
            "typing_extensions": "typing-extensions",
        }
        declared = {each.split(">=")[0].split("[")[0].lower() for each in self.project["project"]["dependencies"]}
        self.assertTrue(all(">=" in each for each in self.project["project"]["dependencies"]))
        used = {
            found.module.split(".")[0]
            for file in (ROOT / "lbsvc").rglob("*.py")
            for found in imports(file.read_text())
            if found.module and not found.typing_only
        }
        foreign = used - set(sys.stdlib_module_names) - {"lbsvc", "core", "config", "net", "http"}
        self.assertEqual({name for name in foreign if names.get(name, name) not in declared}, set())

    def test_cache_is_kept_out_twice(self) -> None:
        """dropin.cache is excluded in the build and ignored by git: hatchling ships it unless one of them holds."""
        self.assertIn("dropin.cache", self.project["tool"]["hatch"]["build"]["exclude"])
        self.assertIn("dropin.cache", (ROOT / ".gitignore").read_text().splitlines())

    def test_flat_layout(self) -> None:
        """The wheel's packages are named: hatchling cannot guess them, and `twisted` is none that it would take."""
        wheel = self.project["tool"]["hatch"]["build"]["targets"]["wheel"]
        self.assertEqual(wheel["packages"], ["lbsvc", "twisted"])
