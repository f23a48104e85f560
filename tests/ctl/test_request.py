"""`lbctl request` as a process: against the real balancer, TLS, unix sockets, and nobody."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.authority import Authority
from tests.kit.processes import Balancer, Child, clean_environment, free_port, free_ports, until

COMMAND = [sys.executable, "-m", "lbsvc.ctl.main", "request"]


class RequestTestCase(ProcessTestCase):
    def ask(self, *options: str) -> Child:
        child = Child([*COMMAND, *options], folder=self.scratch())
        self.addCleanup(child.stop)
        return child

    def found(self, *options: str, exit: int = 0) -> dict[str, Any]:
        """The report as JSON."""
        child = self.ask(*options, "--json")
        self.assertEqual(child.wait(), exit, child.report())
        found: dict[str, Any] = json.loads(child.text)
        return found

    def three(self, **listener: Any) -> tuple[Balancer, int]:
        """The balancer before three backends that are listeners of its own."""
        ports = free_ports(5)
        listeners: dict[str, Any] = {
            "main": {"bind": f"127.0.0.1:{ports[3]}", "pool": "web", "expose_backend": True, **listener}
        }
        for name, port in zip("abc", ports, strict=False):
            answer = {"respond": {"status": 200, "body": f"{name}\n"}}
            listeners[name] = {"bind": f"127.0.0.1:{port}", "routes": [{"match": {"path": "/*"}, **answer}]}
        backends = [{"address": f"127.0.0.1:{port}", "name": name} for name, port in zip("abc", ports, strict=False)]
        pools = {"web": {"backends": backends, "health_check": "off"}}
        return self.start(config(listeners, pools, admin=ports[4], access_log="off")).ready(), ports[3]


class BalancerTests(RequestTestCase):
    def test_shares(self) -> None:
        """Through the balancer every request is answered, and the share of each backend is told (CLI-2, CLI-7)."""
        _, port = self.three()
        found = self.found(f"http://localhost:{port}/", "-n", "300", "-c", "10")
        self.assertEqual((found["requests"], found["failed"], found["status"]), (300, 0, {"200": 300}))
        self.assertEqual(found["backends"], {"a": 100, "b": 100, "c": 100})
        self.assertEqual((found["connections"], found["interrupted"]), (10, False))
        self.assertGreater(found["latency"]["p99"], 0)

    def test_text(self) -> None:
        """Without --json there is a table; off a terminal neither colour nor a progress bar (CLI-2, CLI-7)."""
        _, port = self.three()
        child = self.ask(f"127.0.0.1:{port}", "-n", "30", "-c", "3")
        self.assertEqual(child.wait(), 0, child.report())
        self.assertIn("30 requests to http://127.0.0.1", child.text)
        self.assertIn("backend   a ", child.text)
        self.assertEqual(child.errors, "")
        self.assertNotIn("\x1b", child.text)

    def test_request(self) -> None:
        """Method, headers and body are what was asked for."""
        port = free_port()
        routes = [
            {"match": {"path": "/x", "methods": ["PUT"], "headers": {"X-One": "1"}}, "respond": {"status": 201}},
            {"match": {"path": "/*"}, "deny": 403},
        ]
        listeners = {"main": {"bind": f"127.0.0.1:{port}", "routes": routes, "limits": {"body_size": 5}}}
        self.start(config(listeners, admin=free_port())).ready()
        file = self.scratch() / "body"
        file.write_bytes(b"hello")
        url = f"http://127.0.0.1:{port}/x"
        options = ("-m", "PUT", "-H", "X-One: 1", "-n", "5", "-c", "1")
        self.assertEqual(self.found(url, *options, "--data", f"@{file}")["status"], {"201": 5})
        self.assertEqual(self.found(url, "-n", "2", "--data", "x", exit=1)["status"], {"403": 2})

    def test_tls(self) -> None:
        """https verifies by the CA that is given, and says who is not believed; --insecure believes everybody."""
        folder = self.scratch()
        authority = Authority()
        ca = authority.write(str(folder))
        cert, key = authority.issue("127.0.0.1").write(str(folder))
        _, port = self.three(tls={"certificates": [{"cert": cert, "key": key}]})
        url = f"https://127.0.0.1:{port}/"
        self.assertEqual(self.found(url, "--cacert", ca, "-n", "20", "-c", "2")["status"], {"200": 20})
        self.assertEqual(self.found(url, "--insecure", "-n", "20", "-c", "2")["status"], {"200": 20})
        refused = self.found(url, "-n", "2", "-c", "1", exit=1)
        self.assertEqual((refused["answered"], refused["failed"]), (0, 2))
        self.assertTrue(all(kind.startswith("tls_verify: ") for kind in refused["errors"]), refused)

    def test_unix(self) -> None:
        """A unix socket is asked by --unix-socket, or by its address as configurations have it."""
        path = Path(self.scratch()) / "lb.sock"
        self.three(bind=f"unix:{path}")
        self.assertEqual(self.found(f"unix:{path}", "-n", "6", "-c", "2")["status"], {"200": 6})
        self.assertEqual(self.found("http://shop/", "--unix-socket", str(path), "-n", "6")["status"], {"200": 6})

    def test_rate(self) -> None:
        """With a rate and a duration there are as many requests as these make."""
        _, port = self.three()
        found = self.found(f"http://127.0.0.1:{port}/", "-d", "500ms", "--rate", "100", "-c", "5")
        self.assertEqual((found["requests"], found["failed"]), (50, 0))

    def test_interrupted(self) -> None:
        """Ctrl-C prints what there is, and exits with 130."""
        balancer, port = self.three()
        child = self.ask(f"http://127.0.0.1:{port}/", "-d", "1h", "-c", "2", "--json")
        until(lambda: balancer.metric("lbsvc_http_requests_total", listener="main") > 100, "asked")
        child.signal(signal.SIGINT)
        self.assertEqual(child.wait(), 130, child.report())
        found = json.loads(child.text)
        self.assertTrue(found["interrupted"])
        self.assertGreater(found["answered"], 100)
        self.assertEqual(found["failed"], 0)

    def test_progress(self) -> None:
        """On a terminal there is a progress bar on standard error; the report is on standard output alone."""
        _, port = self.three()
        ours, theirs = pty.openpty()
        command = [*COMMAND, f"http://127.0.0.1:{port}/", "-d", "500ms", "-c", "2", "--json"]
        env = clean_environment({"TERM": "xterm", "COLUMNS": "100"})
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # EIO: nobody has the other side any more
            pass
        finally:
            os.close(ours)
        out, _ = process.communicate()
        self.assertEqual(process.returncode, 0, shown)
        self.assertIn(b"requests,", shown)
        self.assertEqual(json.loads(out)["failed"], 0)


class NobodyTests(RequestTestCase):
    def test_refused(self) -> None:
        """Where nobody listens every request has failed, by its kind; the exit status is 1 (CLI-2, L14)."""
        found = self.found(f"http://127.0.0.1:{free_port()}/", "-n", "5", "-c", "2", exit=1)
        self.assertEqual(found["errors"], {"connect_failed: connection refused": 5})
        self.assertEqual(found["connections"], 0)

    def test_no_such_name(self) -> None:
        """A name without an address cannot be reached: exit 69, one line."""
        child = self.ask("http://nosuch.invalid/")
        self.assertEqual(child.wait(), 69)
        self.assertTrue(child.errors.startswith("cannot reach nosuch.invalid: "), child.errors)
        self.assertEqual((child.text, child.errors.count("\n")), ("", 1))

    def test_wrong_usage(self) -> None:
        """What makes no request is wrong usage: exit 64, with what would."""
        for options, words in (
            (("ftp://a",), "must be http://"),
            (("http://a", "-n", "0"), "0 is not in the range"),
            (("http://a", "-d", "soon"), "a duration such as"),
            (("http://a", "-H", "x"), "Name: value"),
            (("http://a", "--insecure"), "mean nothing without https"),
            (("http://a", "--data", "@nosuch"), "No such file"),
        ):
            child = self.ask(*options)
            self.assertEqual(child.wait(), 64, child.report())
            self.assertIn(words, child.errors)
