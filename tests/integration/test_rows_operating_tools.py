"""etc/Makefile and etc/scripts with real processes: a demonstration that checks itself, servers, certificates."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from functools import partial

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import ROOT, Child, answers, free_ports, get, run, until
from tests.kit.upstreams import named_backend
from tests.test_packaging import copy_tree

MAKE = ["make", "--no-print-directory", "-C", str(ROOT / "etc"), f"PYTHON={sys.executable}"]
DEMO = ROOT / "etc" / "scripts" / "demo.sh"


def is_free(port: int) -> bool:
    return not answers(port)


class DemoTests(ProcessTestCase):
    def test_demo(self) -> None:
        """Each step of it passes, a crash under load among them, and nothing is left behind (MK-1, OPS-6)."""
        ports = free_ports(5)
        folder = self.scratch()
        env = {"DEMO_PORTS": " ".join(map(str, ports)), "TMPDIR": str(folder)}
        done = run([*MAKE, "demo"], env=env)
        said = done.stdout.decode()
        self.assertEqual(done.returncode, 0, said + done.stderr.decode())
        steps = [line[3:] for line in said.splitlines() if line.startswith("== ")]
        self.assertEqual(
            [each.partition(":")[0] for each in steps], ["setup", "health", "loadtest", "failover", "teardown", "done"]
        )
        for words in (
            "1000 requests to ",
            "100.0 %",
            "was killed, and is out",
            "is back",
            "no request has failed meanwhile",
        ):
            self.assertIn(words, said)
        self.assertEqual([answers(port) for port in ports], [False] * 5)
        self.assertEqual(list(folder.iterdir()), [])

    def test_failing(self) -> None:
        """It does not pass where requests fail, or where it was asked for what it does not have (OPS-6)."""
        folder = self.scratch()
        program = folder / "python"  # one whose load generator finds fault
        program.write_text(
            f'#!/bin/sh\nfor word; do [ "$word" != request ] || exit 1; done\nexec {sys.executable} "$@"\n',
        )
        program.chmod(0o755)
        ports = free_ports(5)
        env = {"DEMO_PORTS": " ".join(map(str, ports)), "PYTHON": str(program)}
        done = run([str(DEMO), "loadtest"], env=env)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertNotIn(b"== done", done.stdout)
        self.assertEqual([answers(port) for port in ports], [False] * 5)
        self.assertEqual(run([str(DEMO), "everything"], env=env).returncode, 64)
        self.assertEqual(run([str(DEMO)], env={**env, "DEMO_PORTS": "1 2"}).returncode, 64)


class ServersTests(ProcessTestCase):
    def started(self, *arguments: str) -> Child:
        child = Child([*MAKE, *arguments], folder=self.scratch())
        self.addCleanup(child.stop)
        self.addCleanup(child.signal, signal.SIGTERM)  # make tells its child, and waits for it
        return child

    def test_servers(self) -> None:
        """run-test is a backend, run-lb a balancer, before it here, and health says who is up (MK-1, MK-2, CLI-6)."""
        port, admin, back = free_ports(3)
        file = self.scratch() / "lb.yaml"
        front = {"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}
        file.write_text(config(front, {"web": {"backends": [f"127.0.0.1:{back}"]}}, admin=admin))
        backend = self.started("run-test", f"PORT={back}")
        until(lambda: answers(back), backend.report())
        balancer = self.started("run-lb", f"CONFIG={file}")
        asking = ["curl", "-q", "-s", f"http://127.0.0.1:{admin}/api/health"]
        until(lambda: b"true" in run(asking).stdout, "up")
        self.assertEqual((get(port).status, get(port, "/stats").status), (200, 200))
        told = run([*MAKE, "health"], env={"LBCTL_ADMIN": f"http://127.0.0.1:{admin}"})
        self.assertRegex(told.stdout.decode(), rf"(?m)^web +127\.0\.0\.1:{back} +yes$")
        for child, where in ((balancer, port), (backend, back)):
            child.signal(signal.SIGTERM)
            child.wait()
            until(partial(is_free, where), "ended")

    def test_certs(self) -> None:
        """certs makes what a listener serves, and curl believes by the authority beside it, by name and address (OPS-6)."""
        folder = self.scratch() / "made"
        done = run([*MAKE, "certs", f"CERTS={folder}"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({each.name: each.stat().st_mode & 0o77 for each in folder.iterdir()}["site.key"], 0)
        backend = self.backend(named_backend("one"))
        pair = {"cert": str(folder / "site.pem"), "key": str(folder / "site.key")}
        _, port = self.serve(backend.address, listener={"tls": {"certificates": [pair]}})
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{port}/"
            got = run(["curl", "-q", "-sS", "-4", "--cacert", str(folder / "ca.pem"), url])
            self.assertEqual((got.returncode, got.stdout), (0, b"one"), got.stderr)
        self.assertEqual(run(["curl", "-q", "-sS", url]).returncode, 60)

    def test_examples_with_certs(self) -> None:
        """What an example says about its certificates makes them, and then it passes its check; git does not see them."""
        tree = copy_tree(self.scratch() / "tree")
        found = 0
        for file in sorted((tree / "etc/examples").glob("*.yaml")):
            text = file.read_text()
            if "cert:" not in text:
                continue
            found += 1
            check = [sys.executable, "-m", "lbsvc.ctl.main", "check", str(file)]
            self.assertEqual(run(check).returncode, 78)
            (target, variable) = re.findall(r"(?m)^# .*\bmake -C etc (\S+) (CERTS=\S+)", text)[0]
            done = run(["make", "-C", str(tree / "etc"), target, variable])
            self.assertEqual(done.returncode, 0, done.stderr)
            done = run(check)
            self.assertEqual((done.returncode, done.stderr), (0, b""), done.stderr)
            made = variable.removeprefix("CERTS=")
            self.assertTrue((tree / made / "site.key").is_file())
            self.assertIn(f"{made}/\n", (tree / ".gitignore").read_text())
            shutil.rmtree(tree / made)
        self.assertEqual(found, 2)


class ScriptsTests(ProcessTestCase):
    def test_scripts(self) -> None:
        """Each script is one that can be started, that a shell can read, and that says how it is called (OPS-6)."""
        scripts = sorted((ROOT / "etc" / "scripts").iterdir())
        self.assertGreater(len(scripts), 3)
        for script in scripts:
            self.assertTrue(os.access(script, os.X_OK), script)
            self.assertEqual(run(["sh", "-n", str(script)]).returncode, 0, script)
            said = re.findall(rf"(?m)^#   ({re.escape(script.name)} .*)", script.read_text())
            for asked in ("--help", "-h"):
                done = run([str(script), asked], env={"TMPDIR": str(self.scratch())})
                self.assertEqual((done.returncode, done.stderr), (0, b""), script)
                self.assertIn(f"\n\n  {said[0]}\n\n", done.stdout.decode())
                self.assertNotIn(b"#", done.stdout.replace(b"$#", b""))
        done = run([str(ROOT / "etc/scripts/generate-certs.sh"), "--hepl"])
        self.assertEqual((done.returncode, done.stderr.split()[0]), (64, b"generate-certs.sh"))
