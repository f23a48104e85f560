"""GitHub's workflow, read: it runs .ci/run on every Python that we name, with no more rights than reading takes.

No runner is at hand for these tests: what the file says is compared with pyproject.toml, and .ci/run is asked what it does
with an interpreter that is not the wanted one.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from typing import Any

import yaml
from twisted.trial.unittest import TestCase

from tests.kit.processes import ROOT

WORKFLOWS = ROOT / ".github/workflows"
SCRIPT = ROOT / ".ci/run"


def named_versions() -> list[str]:
    """The Pythons of pyproject.toml's classifiers."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    found = [re.fullmatch(r"Programming Language :: Python :: (\d+\.\d+)", line) for line in lines]
    return [each[1] for each in found if each]


class WorkflowTests(TestCase):
    def setUp(self) -> None:
        self.text = (WORKFLOWS / "ci.yml").read_text()
        self.workflow: dict[Any, Any] = yaml.safe_load(self.text)
        (self.job,) = self.workflow["jobs"].values()

    def test_occasions(self) -> None:
        """Every push and every pull request is tested; nobody else's code sees what a run on the target's side would
        (OPS-5)."""
        # YAML 1.1 reads the key `on` as true.
        self.assertEqual(self.workflow[True], {"push": None, "pull_request": None})

    def test_versions(self) -> None:
        """One run for each Python that pyproject.toml names, in an image of that Python; one failing stops no other."""
        self.assertEqual(self.job["strategy"], {"fail-fast": False, "matrix": {"python": named_versions()}})
        self.assertEqual(self.job["container"]["image"], "python:${{ matrix.python }}-bookworm")

    def test_whole_script(self) -> None:
        """The job is a checkout and .ci/run, told which Python is meant; nothing is left out or forgiven (OPS-5)."""
        checkout, last = self.job["steps"]
        self.assertEqual(checkout["uses"].partition("@")[0], "actions/checkout")
        self.assertEqual((last["run"], last["env"]["LBSVC_CI_PYTHON"]), (".ci/run", "${{ matrix.python }}"))
        self.assertTrue(os.access(SCRIPT, os.X_OK))
        for word in ("if", "continue-on-error", "exclude", "paths", "paths-ignore", "LBSVC_CI_INSTALL"):
            self.assertNotRegex(self.text, rf"(?m)^[\s-]*{word}\s*:", word)

    def test_rights(self) -> None:
        """It may read the code and nothing else, keeps no token in the checkout, and what it uses is pinned by its hash."""
        self.assertEqual(self.workflow["permissions"], {"contents": "read"})
        self.assertNotIn("permissions", self.job)
        self.assertNotIn("secrets", self.text)
        self.assertIs(self.job["steps"][0]["with"]["persist-credentials"], False)
        for step in self.job["steps"]:
            self.assertNotIn("${{", step.get("run", ""))
            self.assertRegex(step.get("uses", "none@" + "0" * 40), r"@[0-9a-f]{40}$")
        self.assertNotRegex(self.job["container"]["options"], r"privileged|cap-add|security-opt|docker\.sock")

    def test_bounds(self) -> None:
        """A run that hangs ends, and a pull request has one run at a time."""
        self.assertEqual(self.job["timeout-minutes"], 45)
        self.assertIn("github.ref", self.workflow["concurrency"]["group"])
        self.assertIn("pull_request", self.workflow["concurrency"]["cancel-in-progress"])

    def test_container(self) -> None:
        """The container reaps orphans, has [::1], and as many descriptors as the tests of many connections take."""
        options = self.job["container"]["options"].split()
        self.assertIn("--init", options)
        self.assertIn("net.ipv6.conf.all.disable_ipv6=0", options)
        self.assertIn("nofile=65536:65536", options)


class VersionTests(TestCase):
    def setUp(self) -> None:
        self.project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def test_lowest(self) -> None:
        """The oldest Python that is named is what installing asks for, and what types and style are checked for."""
        lowest = named_versions()[0]
        self.assertEqual(self.project["project"]["requires-python"], f">={lowest}")
        self.assertEqual(self.project["tool"]["mypy"]["python_version"], lowest)
        self.assertEqual(self.project["tool"]["ruff"]["target-version"], "py" + lowest.replace(".", ""))

    def test_in_order_without_gaps(self) -> None:
        """The versions follow one another: none in between is forgotten."""
        minors = [int(each.removeprefix("3.")) for each in named_versions()]
        self.assertEqual(minors, list(range(minors[0], minors[-1] + 1)))


class ScriptTests(TestCase):
    def test_another_python(self) -> None:
        """Where `python3` is not the Python that is meant, .ci/run says so and does not begin."""
        env = {**os.environ, "LBSVC_CI_INSTALL": "no", "LBSVC_CI_PYTHON": "2.7"}
        done = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^python3 is /\S+, Python 3\.\d+\.\d+\S*: not Python 2\.7\n$")
