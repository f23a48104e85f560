"""What a new user does first: the file that ships, `--check`, and the command without a file."""

from __future__ import annotations

import re
import shutil
from collections import Counter

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import ROOT, TWIST, Child, answers, free_ports, get, run, scratch_folder, until
from tests.kit.upstreams import named_backend


class ShippedFileTests(ProcessTestCase):
    def test_answers_by_weight(self) -> None:
        """etc/lb.yaml balances over its three built-in backends, 1:1:2, with nothing else running (FIELD-1, CLI-5)."""
        text = (ROOT / "etc/lb.yaml").read_text()
        written = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text)))
        self.assertEqual(written, ["8001", "8002", "8003", "8080", "9901"])
        ports = dict(zip(written, free_ports(len(written)), strict=True))
        moved = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[found[1]]}", text)
        self.start(moved).ready()
        seen = Counter(get(ports["8080"]).body for _ in range(40))
        expected = {b"hello from small-%d\n" % n: 20 if n == 3 else 10 for n in (1, 2, 3)}
        self.assertEqual(dict(seen), expected)

    def test_check(self) -> None:
        """`--check` says that the file is ok, by the name it was given, opens no socket and exits 0."""
        folder = self.scratch()
        shutil.copytree(ROOT / "etc", folder / "etc")
        checked = run([*TWIST, "loadbalancer", "--config", "etc/lb.yaml", "--check"], folder=folder)
        self.assertEqual((checked.returncode, checked.stdout), (0, b"etc/lb.yaml: ok\n"), checked.stderr)
        self.assertEqual(checked.stderr, b"")

    def test_check_while_it_runs(self) -> None:
        """`--check` of a configuration whose ports are in use is no mistake."""
        balancer, _ = self.serve("127.0.0.1:1")
        checked = run([*TWIST, "loadbalancer", "--config", str(balancer.file), "--check"])
        self.assertEqual(checked.returncode, 0, checked.stderr)


class CommandLineTests(ProcessTestCase):
    def test_without_a_file(self) -> None:
        """`--listen` and `--backends` are enough; the admin listener, with the metrics, is on a port of its own on
        loopback (FIELD-3, FIELD-13, CLI-5)."""
        first, second = self.backend(named_backend("first")), self.backend(named_backend("second"))
        (port,) = free_ports(1)
        until(lambda: not answers(9901), "port 9901 free, which the defaults need")
        folder = scratch_folder()
        self.addCleanup(shutil.rmtree, folder)
        backends = f"http://{first.address},http://{second.address}"
        options = ["--listen", f"127.0.0.1:{port}", "--backends", backends, "--algorithm", "lc"]
        child = Child([*TWIST, "loadbalancer", *options], folder=folder)
        self.addCleanup(child.stop)
        until(
            lambda: child.process.poll() is not None or (answers(9901) and get(9901, "/readyz").status == 200), "ready"
        )
        self.assertIsNone(child.process.poll(), child.report())
        self.assertEqual({get(port).body for _ in range(10)}, {b"first", b"second"})
        self.assertIn(b"lbsvc_build_info", get(9901, "/metrics").body)
