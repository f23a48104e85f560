"""The example of an algorithm of one's own: built and installed as its README says, and named in a configuration.

It is installed into a folder of its own, from a copy, so that nothing is written into the checkout or among our packages.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import ROOT, TWIST, free_ports, get, run
from tests.kit.upstreams import named_backend

EXAMPLE = ROOT / "etc" / "examples" / "plugin"


class PluginExampleTests(ProcessTestCase):
    def install(self) -> Path:
        """The folder into which the example's wheel was unpacked, which is all that installing does."""
        folder = self.scratch()
        shutil.copytree(EXAMPLE, folder / "tree", ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        built = run(
            [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--wheel", "-o", "..", "."],
            folder=folder / "tree",
        )
        self.assertEqual(built.returncode, 0, built.stderr.decode())
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            self.members = [name for name in archive.namelist() if ".dist-info/" not in name]
            archive.extractall(folder / "site")
        return folder / "site"

    def path(self, site: Path) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}

    def test_alg_10_end_to_end(self) -> None:
        """The class of ten lines is built, installed and named; the real service balances by it, also when the
        first backend has gone (ALG-10)."""
        backends = [self.backend(named_backend(name)) for name in ("one", "two")]
        site = self.install()
        self.assertEqual(sorted(self.members), ["lbsvc_first/__init__.py", "twisted/plugins/lbsvc_first_plugin.py"])
        addresses = [f"127.0.0.1:{backend.port}" for backend in backends]
        balancer, port = self.serve(*addresses, pool={"algorithm": "First"}, process={"env": self.path(site)})
        self.assertEqual({get(port).body for _ in range(10)}, {b"one"})
        backends[0].stop()
        self.assertEqual({get(port).body for _ in range(10)}, {b"two"}, balancer.report())

    def test_checked(self) -> None:
        """ALG-8, ALG-10: `--check` lists it among the names; what is wrong with it is said where it is named, only."""
        site = self.install()
        for algorithm, status, said in (
            ("first", 0, ""),
            ("round_robin", 0, ""),
            ("furst", 78, 'or first (got "furst"; did you mean first?)'),
        ):
            self.assertIn(said, self.check(site, algorithm, status))
        (site / "lbsvc_first" / "__init__.py").write_text("import not_there_at_all\n")
        self.check(site, "round_robin", 0)
        said = self.check(site, "first", 78)
        self.assertIn("its plugin twisted.plugins.lbsvc_first_plugin cannot be used: ModuleNotFoundError", said)
        self.assertNotIn("Traceback", said)

    def check(self, site: Path, algorithm: str, status: int) -> str:
        """Standard error of `--check` of a configuration that names this algorithm; it must end with this status."""
        port, admin = free_ports(2)
        file = site.parent / "lb.yaml"
        pool = {"algorithm": algorithm, "backends": ["127.0.0.1:1"]}
        file.write_text(config({"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}, {"web": pool}, admin=admin))
        done = run([*TWIST, "loadbalancer", "--config", str(file), "--check"], env=self.path(site))
        said = done.stderr.decode()
        self.assertEqual(done.returncode, status, said)
        return said
