"""What does not start: each with its exit status, one line for each mistake, and no traceback."""

from __future__ import annotations

import socket
import subprocess

from tests.integration.cases import ProcessTestCase, config
from tests.kit.operating import Operator
from tests.kit.processes import TWIST, free_ports, run

WRONG = """\
listeners:
  web:
    bind: 127.0.0.1:99999
    protokol: http
    pool: wbe
pools:
  web:
    backends:
      - {address: 127.0.0.1:8001, weight: -3}
"""

KINDS = """\
listeners:
  web: {bind: ':80', pool: web, port: 80}
  far: {bind: ':65536', pool: web}
  odd: {bind: ':81', pool: web, max_connections: many}
  tls: {bind: ':82', pool: web, tls: {certificates: [{cert: no/such.pem, key: no/such.key}]}}
pools:
  web:
    backends:
    - notaurl
    - ftp://a:1
    - http://a:99999
    - {address: 'a:1', name: a}
    - {address: 'b:1', name: a}
"""

ROUTES = [{"match": {"path": "/*"}, "respond": {"status": 204}}]


class RefusalTests(ProcessTestCase):
    def launch(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        return run([*TWIST, "loadbalancer", *options], folder=self.folder)

    def setUp(self) -> None:
        self.folder = self.scratch()

    def lines(self, result: subprocess.CompletedProcess[bytes]) -> list[str]:
        """Standard error, which is all that was said."""
        text = result.stderr.decode()
        self.assertNotIn("Traceback", text)
        self.assertNotIn("Usage", text)
        self.assertEqual(result.stdout, b"")
        return text.splitlines()

    def test_every_mistake_at_once(self) -> None:
        """78, and every mistake with its place, key and what is wrong, the unknown key with what was meant."""
        (self.folder / "lb.yaml").write_text(WRONG)
        for options in ((), ("--check",)):
            result = self.launch("--config", "lb.yaml", *options)
            lines = self.lines(result)
            self.assertEqual(result.returncode, 78, lines)
            self.assertEqual(len(lines), 4, lines)
            places = [line.split(": ")[:2] for line in lines]
            self.assertEqual(
                places,
                [
                    ["lb.yaml:3:5", "listeners.web.bind"],
                    ["lb.yaml:4:5", "listeners.web.protokol"],
                    ["lb.yaml:5:5", "listeners.web.pool"],
                    ["lb.yaml:9:35", "pools.web.backends[0].weight"],
                ],
            )
            self.assertIn("protocol", lines[1])
            self.assertIn("(got -3)", lines[3])

    def test_kinds_of_mistakes(self) -> None:
        """Unknown keys, wrong types, what is no URL, one name twice, ports out of range, certificates that are not there:
        each is refused with file, key and reason (CFG-1)."""
        (self.folder / "lb.yaml").write_text(KINDS)
        result = self.launch("--config", "lb.yaml")
        told = [line.split(": ", 2) for line in self.lines(result)]
        self.assertEqual(result.returncode, 78, told)
        expected = {
            "lb.yaml:2:33 listeners.web.port": "unknown key",
            "lb.yaml:3:9 listeners.far.bind": "needs a port from 0 to 65535",
            "lb.yaml:4:33 listeners.odd.max_connections": "must be a whole number",
            "lb.yaml:5:55 listeners.tls.tls.certificates[0].cert": "no such file",
            "lb.yaml:9:7 pools.web.backends[0]": "needs a port",
            "lb.yaml:10:7 pools.web.backends[1]": "must be host:port, http://host:port",
            "lb.yaml:11:7 pools.web.backends[2]": "needs a port from 1 to 65535",
            "lb.yaml:13:7 pools.web.backends[4]": "has the same name as backends[3]",
        }
        self.assertEqual([f"{place} {key}" for place, key, _ in told], list(expected))
        for (*_, reason), words in zip(told, expected.values(), strict=True):
            self.assertIn(words, reason)

    def test_at_run_time(self) -> None:
        """A backend that makes no sense, or is there already, is refused while the service runs too (CFG-1)."""
        balancer, _ = self.serve("127.0.0.1:1")
        operator = Operator(balancer)
        for address, status in (("notaurl", 422), ("ftp://a:1", 422), ("a:99999", 422), ("http://127.0.0.1:1", 409)):
            answer = operator.api("POST", "/pools/web/backends", {"address": address})
            self.assertEqual((address, answer.status), (address, status), answer.body)
        self.assertEqual(len(operator.api("GET", "/pools/web").value["backends"]), 1)

    def test_missing_file(self) -> None:
        """A file that is not there: 78, named as it was given."""
        result = self.launch("--config", "no/such.yaml")
        (line,) = self.lines(result)
        self.assertEqual(result.returncode, 78)
        self.assertTrue(line.startswith("no/such.yaml: "), line)

    def test_taken_port(self) -> None:
        """A port that is taken: 71 and one line that names it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            listeners = {"web": {"bind": f"127.0.0.1:{port}", "routes": ROUTES}}
            (self.folder / "lb.yaml").write_text(config(listeners, admin=free_ports(1)[0]))
            result = self.launch("--config", "lb.yaml")
        lines = self.lines(result)
        self.assertEqual((result.returncode, len(lines)), (71, 1), lines)
        self.assertIn(str(port), lines[0])
        self.assertTrue(lines[0].startswith("lb.yaml:"), lines)

    def test_wrong_usage(self) -> None:
        """64 for an unknown option, for --config beside --listen, and for neither (FIELD-6)."""
        cases = (
            ("--confg", "lb.yaml"),
            ("--config", "lb.yaml", "--listen", ":8080", "--backends", "127.0.0.1:1"),
            (),
            ("--listen", ":8080"),
        )
        for options in cases:
            result = self.launch(*options)
            self.assertEqual(result.returncode, 64, (options, result.stderr))
            self.assertNotIn(b"Traceback", result.stderr + result.stdout)

    def test_wrong_values_on_the_command_line(self) -> None:
        """78 for a value that is wrong, as in a file."""
        result = self.launch("--listen", ":8080", "--backends", "127.0.0.1:99999", "--algorithm", "fastest")
        self.assertEqual((result.returncode, len(self.lines(result))), (78, 2), result.stderr)
