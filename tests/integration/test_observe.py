"""Metrics, probes and logs of the real process, read as their readers read them."""

from __future__ import annotations

import json
import re

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import RawClient, get, run, until
from tests.kit.upstreams import named_backend

PAGE = {"routes": [{"match": {"path": "/*"}, "respond": {"status": 200, "body": "ok\n"}}]}

#: contract.md's, as far as the first slice feeds them.
METRICS = [
    "lbsvc_build_info",
    "lbsvc_listener_connections",
    "lbsvc_listener_connections_total",
    "lbsvc_listener_rejected_total",
    "lbsvc_http_requests_total",
    "lbsvc_http_request_duration_seconds",
    "lbsvc_http_requests_in_flight",
    "lbsvc_bytes_total",
    "lbsvc_backend_requests_total",
    "lbsvc_backend_request_duration_seconds",
    "lbsvc_backend_active",
    "lbsvc_backend_connections",
    "lbsvc_backend_weight",
    "lbsvc_backend_failures_total",
    "lbsvc_backend_state",
    "lbsvc_health_checks_total",
    "lbsvc_health_check_duration_seconds",
    "lbsvc_retries_total",
    "lbsvc_retry_budget_exhausted_total",
    "lbsvc_log_dropped_total",
    "lbsvc_terminations_total",
]

ACCESS_KEYS = {
    "log",
    "ts",
    "id",
    "listener",
    "protocol",
    "tls",
    "client",
    "peer",
    "method",
    "host",
    "path",
    "status",
    "bytes_in",
    "bytes_out",
    "route",
    "pool",
    "backend",
    "attempts",
    "reason",
    "t",
    "user_agent",
    "referer",
    "grpc_status",
}


class MetricsTests(ProcessTestCase):
    def test_promtool(self) -> None:
        """Prometheus' own linter finds nothing to say, before traffic and after it; every promised name is there."""
        backend = self.backend(named_backend("one"))
        check = {"type": "http", "path": "/health"}
        balancer, port = self.serve({"address": backend.address, "name": "one"}, pool={"health_check": check})
        for requests in (0, 5):
            for _ in range(requests):
                get(port)
            status, text = balancer.admin("/metrics")
            self.assertEqual(status, 200)
            linted = run(["promtool", "check", "metrics"], stdin=text)
            self.assertEqual((linted.returncode, linted.stdout, linted.stderr), (0, b"", b""))
        families = set(re.findall(r"(?m)^# TYPE (\S+) ", text.decode()))
        self.assertEqual(set(METRICS) - families, set())
        self.assertEqual(balancer.metric("lbsvc_backend_requests_total", backend="one", code="2xx"), 5)
        self.assertEqual(balancer.metric("lbsvc_http_requests_total", listener="main", code="200"), 5)
        self.assertEqual(balancer.metric("lbsvc_backend_state", backend="one", state="up"), 1)

    def test_probes(self) -> None:
        """/livez and /readyz answer 200 while it runs; what is not there is 404."""
        balancer, _ = self.serve("127.0.0.1:1")
        self.assertEqual([balancer.admin(path)[0] for path in ("/livez", "/readyz", "/no")], [200, 200, 404])


class LogTests(ProcessTestCase):
    def test_events(self) -> None:
        """Every line of standard output is one JSON object; start-up has its names, with time, level and message."""
        balancer, _ = self.serve("127.0.0.1:1")
        until(lambda: any(line["event"] == "service.ready" for line in balancer.events()), "logged as ready")
        for line in balancer.text.splitlines():
            told = json.loads(line)
            self.assertRegex(told["ts"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
            self.assertTrue(told["level"] and told["message"], line)
        self.assertIn("listener.bound", [line["event"] for line in balancer.events()])

    def test_level_from_the_environment(self) -> None:
        """LOG_LEVEL overrides the file: at error nothing is said of a start that went well."""
        balancer, port = self.serve(
            listener={**PAGE, "access_log": False}, process={"env": {"LOG_LEVEL": "error"}}, log={"level": "debug"}
        )
        get(port)
        balancer.signal(15)
        balancer.wait()
        self.assertEqual(balancer.text, "")

    def test_access_lines(self) -> None:
        """One line a request with the contract's names, secrets of the query masked."""
        backend = self.backend(named_backend("one"))
        balancer, port = self.serve({"address": backend.address, "name": "one"})
        answer = get(port, "/a?b=c&token=SECRET", "User-Agent: test/1", "Referer: http://r.example/?key=SECRET")
        until(balancer.access_lines, "an access line")
        (line,) = balancer.access_lines()
        self.assertTrue(any(text.startswith('{"log": "access"') for text in balancer.text.splitlines()))
        self.assertEqual(set(line) - ACCESS_KEYS, set())
        expected = {
            "id": answer.header("x-request-id"),
            "listener": "main",
            "protocol": "HTTP/1.1",
            "client": "127.0.0.1",
            "peer": "127.0.0.1",
            "method": "GET",
            "host": "test.example",
            "status": 200,
            "route": "default",
            "pool": "web",
            "backend": "one",
            "attempts": 1,
            "reason": "ok",
            "user_agent": "test/1",
            "bytes_out": len(answer.raw),
        }
        self.assertEqual({key: line.get(key) for key in expected}, expected)
        self.assertTrue(str(line["path"]).startswith("/a?b=c&token="), line)
        self.assertNotIn("SECRET", balancer.text)
        times = line["t"]
        assert isinstance(times, dict)
        self.assertLessEqual({"total"}, set(times))
        self.assertLessEqual(set(times), {"handshake", "queue", "connect", "first_byte", "total"})

    def test_combined(self) -> None:
        """The combined format is the one that every log reader knows."""
        balancer, port = self.serve(listener=PAGE, access_log={"format": "combined"})
        get(port, "/x", "User-Agent: test/1")
        shape = (
            r'^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /x HTTP/1\.1" 200 \d+ "-" "test/1"'
        )
        until(lambda: re.search(shape, balancer.text, re.M), f"a combined line in {balancer.text!r}")

    def test_stalled_reader_of_our_output(self) -> None:
        """Nobody reads our standard output: every request is answered; lines are dropped and counted."""
        balancer, port = self.serve(listener=PAGE, process={"reading": False})
        request = f"GET / HTTP/1.1\r\nHost: a\r\nReferer: {'r' * 8000}\r\nUser-Agent: {'u' * 8000}\r\n\r\n".encode()
        with RawClient(port) as client:

            def dropped() -> float:
                client.send(request * 20)
                self.assertEqual({client.response().status for _ in range(20)}, {200})
                return balancer.metric("lbsvc_log_dropped_total")

            until(dropped, "dropped", 60)
            self.assertEqual(client.get("/").status, 200)
        balancer.start_reading()
        balancer.signal(15)
        self.assertEqual(balancer.wait(), -15)
