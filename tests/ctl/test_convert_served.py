"""CFG-2: the configuration of each of the five, converted by the command, starts and serves."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.ctl.converting import ADAPTIVE, AKASH, L4LB, VIETDDUDE
from tests.integration.cases import ProcessTestCase
from tests.kit.authority import Authority
from tests.kit.processes import Child, RawClient, answers, free_ports, until


class ServedTests(ProcessTestCase):
    def setUp(self) -> None:
        self.port, self.admin, *self.ports = free_ports(4)
        for name, port in zip("ab", self.ports, strict=True):
            command = ["demo-backend", "--port", str(port), "--name", name]
            child = Child([sys.executable, "-m", "lbsvc.ctl.main", *command], folder=self.scratch())
            self.addCleanup(child.stop)
        for port in self.ports:
            until(lambda port=port: answers(port), "a backend")

    def convert(self, text: str, *options: str) -> str:
        """What the command writes for a file of this text; each file has ports of this test."""
        file = self.scratch() / "old"
        file.write_text(text)
        return self.run_convert(str(file), *options)

    def run_convert(self, *options: str) -> str:
        child = Child([sys.executable, "-m", "lbsvc.ctl.main", "convert", *options], folder=self.scratch())
        self.addCleanup(child.stop)
        self.assertEqual(child.wait(), 0, child.report())
        self.said = child.errors
        return child.text

    def answered(self, text: str, count: int = 4) -> list[str]:
        """The backends that answer, one request after the other, once what was converted serves."""
        if "\nadmin:" not in text:
            text += f"\nadmin: {{bind: 127.0.0.1:{self.admin}}}\n"
        balancer = self.start(text).ready()
        found: list[str] = []
        for _ in range(count):
            with RawClient(self.port) as client:
                client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
                found.append(client.response().body.decode().strip())
        balancer.stop()
        return found

    def test_akash(self) -> None:
        """Akash's JSON, with weights, at layer 4 (CFG-2)."""
        a, b = self.ports
        listed = [{"address": f"127.0.0.1:{a}", "weight": 1}, {"address": f"127.0.0.1:{b}", "weight": 3}]
        old = {**AKASH, "host": "127.0.0.1", "listen": str(self.port), "Backends": listed}
        self.assertEqual(sorted(self.answered(self.convert(json.dumps(old)))), ["a", "b", "b", "b"])

    def test_akash_paths(self) -> None:
        """Akash's paths, which it promised (CFG-2)."""
        a, b = self.ports
        listed = [{"address": f"127.0.0.1:{a}", "paths": ["/static"]}, {"address": f"127.0.0.1:{b}", "paths": ["/api"]}]
        old: dict[str, Any] = {**AKASH, "host": "127.0.0.1", "listen": str(self.port), "Backends": listed}
        self.assertEqual(self.answered(self.convert(json.dumps(old)), 2), ["b", "b"])

    def test_loadex(self) -> None:
        """Loadex's flags, given as an option (CFG-2)."""
        a, b = self.ports
        flags = f"./lb -port {self.port} -backends http://127.0.0.1:{a},http://127.0.0.1:{b} -algo rr"
        self.assertEqual(sorted(self.answered(self.run_convert("--flags", flags))), ["a", "a", "b", "b"])

    def test_adaptive(self) -> None:
        """The adaptive balancer's YAML, with its admin port (CFG-2)."""
        a, b = self.ports
        old = ADAPTIVE.replace("admin_port: 8081", f"admin_port: {self.admin}").replace("8080", str(self.port))
        old = old.replace("one:80", f"127.0.0.1:{a}").replace("two:80", f"127.0.0.1:{b}")
        text = self.convert(old)
        self.assertIn(f"bind: 127.0.0.1:{self.admin}", text)
        self.assertEqual(sorted(self.answered(text)), ["a", "a", "a", "b"])

    def test_vietddude(self) -> None:
        """vietddude's YAML, every section of it; and its TLS is taken, for files beside the new one (CFG-2, V1)."""
        a, b = self.ports
        old = VIETDDUDE.replace("8085", str(self.port)).replace("localhost:8081", f"127.0.0.1:{a}")
        old = old.replace("localhost:8082", f"127.0.0.1:{b}").replace("/ok", "/health")
        self.assertEqual(set(self.answered(self.convert(old))), {"a", "b"})
        folder = str(self.scratch())
        cert, key = Authority().issue("a.example").write(folder)
        secure = f"listen:\n  tls: {{enabled: true, cert_file: {json.dumps(cert)}, key_file: {json.dumps(key)}}}"
        self.assertIn(json.dumps(cert).strip('"'), self.convert(old.replace("listen:", secure)))

    def test_l4lb(self) -> None:
        """The layer 4 balancer's YAML (CFG-2)."""
        a, b = self.ports
        old = L4LB.replace(":8080", f"127.0.0.1:{self.port}").replace("localhost, port: 8081", f"127.0.0.1, port: {a}")
        old = old.replace('"::1", port: 8082', f"127.0.0.1, port: {b}").replace("least_connections", "round_robin")
        self.assertEqual(sorted(self.answered(self.convert(old))), ["a", "a", "b", "b"])
        self.assertEqual(self.said, "")

    def test_not_understood(self) -> None:
        """What cannot be understood: exit 78, nothing on standard output; as JSON the same errors."""
        file = self.scratch() / "old"
        file.write_text("strategy: zz\n")
        for options in ((), ("--json",)):
            child = Child(
                [sys.executable, "-m", "lbsvc.ctl.main", "convert", str(file), *options], folder=self.scratch()
            )
            self.addCleanup(child.stop)
            self.assertEqual(child.wait(), 78, child.report())
            self.assertEqual([line.split(": ")[1] for line in child.errors.splitlines()], ["strategy", "backends"])
            if options:
                self.assertEqual(json.loads(child.text)["errors"], child.errors.splitlines())
            else:
                self.assertEqual(child.text, "")
