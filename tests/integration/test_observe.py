"""Metrics, probes and logs of the real process, read as their readers read them."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import RawClient, free_port, free_ports, get, run, until
from tests.kit.upstreams import Hang, RecordingBackend, Request, named_backend

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
    "tries",
    "t",
    "user_agent",
    "referer",
    "grpc_status",
}


class MetricsTests(ProcessTestCase):
    def test_promtool(self) -> None:
        """Prometheus' own linter finds nothing to say, before traffic and after it; every promised name is there
        (API-4)."""
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
        """Every line of standard output is one JSON object; start-up has its names, with time, level and message
        (LOG-2)."""
        balancer, _ = self.serve("127.0.0.1:1")
        until(lambda: any(line["event"] == "service.ready" for line in balancer.events()), "logged as ready")
        for line in balancer.text.splitlines():
            told = json.loads(line)
            self.assertRegex(told["ts"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
            self.assertTrue(told["level"] and told["message"], line)
        self.assertIn("listener.bound", [line["event"] for line in balancer.events()])

    def test_level_from_the_environment(self) -> None:
        """LOG_LEVEL overrides the file: at error nothing is said of a start that went well (LOG-2)."""
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

    def test_tries(self) -> None:
        """A request that was tried twice says where and why; its times are in order, and one that was not says nothing
        (LOG-2)."""
        backend = self.backend(named_backend("alive"))
        dead = {"address": f"127.0.0.1:{free_port()}", "name": "dead"}
        balancer, port = self.serve(dead, {"address": backend.address, "name": "alive"})
        for _ in range(2):
            self.assertEqual(get(port).body, b"alive")
        until(lambda: len(balancer.access_lines()) == 2, "two access lines")
        lines = sorted(balancer.access_lines(), key=lambda line: int(str(line["attempts"])))
        self.assertEqual([line["attempts"] for line in lines], [1, 2])
        self.assertEqual([line["backend"] for line in lines], ["alive", "alive"])
        self.assertNotIn("tries", lines[0])
        self.assertEqual(
            lines[1]["tries"],
            [{"backend": "dead", "reason": "connect_failed"}, {"backend": "alive", "reason": "ok"}],
        )
        times = lines[1]["t"]
        assert isinstance(times, dict)
        self.assertEqual(set(times), {"connect", "first_byte", "total"})
        self.assertTrue(0 <= times["connect"] <= times["first_byte"] <= times["total"], times)

    def test_endings(self) -> None:
        """What was no request, what has no route, and a client that leaves: each has its line, with what is known of it."""
        backend = self.backend(RecordingBackend([Request(), Hang()]))
        route = {"name": "api", "match": {"path": "/api/*"}, "pool": "web"}
        pools = {"web": {"backends": [{"address": backend.address, "name": "mute"}], "health_check": "off"}}
        port, admin = free_ports(2)
        listeners = {"main": {"bind": f"127.0.0.1:{port}", "routes": [route]}}
        balancer = self.start(config(listeners, pools, admin=admin)).ready()
        with RawClient(port) as client:
            client.send(b"no request\r\n\r\n")
            self.assertEqual(client.response().status, 400)
        self.assertEqual(get(port, "/other?api_key=SECRET").status, 404)
        with RawClient(port) as client:
            client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
            until(lambda: backend.received and b"/api/x" in backend.received[0], "asked")
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
        until(lambda: len(balancer.access_lines()) == 3, "three access lines")
        lines = {line["status"]: line for line in balancer.access_lines()}
        self.assertEqual(set(lines), {400, 404, 499})
        self.assertEqual(
            [lines[code]["reason"] for code in (400, 404, 499)], ["bad_request", "no_route", "client_closed"]
        )
        self.assertEqual([lines[code]["route"] for code in (400, 404, 499)], ["none", "none", "api"])
        self.assertEqual([lines[code]["attempts"] for code in (400, 404, 499)], [0, 0, 1])
        self.assertTrue({"method", "host", "path", "pool", "backend"}.isdisjoint(lines[400]), lines[400])
        self.assertEqual((lines[404]["path"], lines[404]["method"]), ("/other?api_key=***", "GET"))
        self.assertEqual((lines[499]["backend"], lines[499]["bytes_out"]), ("mute", 0))
        for code, parts in ((400, {"total"}), (404, {"total"}), (499, {"connect", "total"})):
            self.assertEqual(set(lines[code]["t"]), parts)  # type: ignore[call-overload]

    def test_rewritten(self) -> None:
        """A target that a route rewrites is logged as the client sent it, without its secrets."""
        backend = self.backend(named_backend("one"))
        route = {"match": {"path": "/v1/*"}, "strip_prefix": "/v1", "rewrite": {"path": ["^/a", "/b"]}, "pool": "web"}
        balancer, port = self.serve(backend.address, listener={"routes": [route]})
        get(port, "/v1/a?x=1&password=SECRET")
        until(balancer.access_lines, "an access line")
        self.assertEqual(balancer.access_lines()[0]["path"], "/v1/a?x=1&password=***")
        self.assertTrue(backend.received[0].startswith(b"GET /b?x=1&password=SECRET HTTP/1.1\r\n"), backend.received)

    def test_combined(self) -> None:
        """The combined format is the one that every log reader knows."""
        balancer, port = self.serve(listener=PAGE, access_log={"format": "combined"})
        answer = get(port, "/x?token=SECRET", "User-Agent: test/1", 'Referer: http://r.example/"?key=SECRET')
        shape = (
            r'^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /x\?token=\*\*\* HTTP/1\.1" 200 (\d+) '
            r'"http://r\.example/\\"\?key=\*\*\*" "test/1"$'
        )
        until(lambda: re.search(shape, balancer.text, re.M), f"a combined line in {balancer.text!r}")
        found = re.search(shape, balancer.text, re.M)
        assert found is not None
        self.assertEqual(int(found[1]), len(answer.raw))

    def test_sample(self) -> None:
        """A share of the requests is logged; a listener can have its own no; both answer all of theirs."""
        balancer, port = self.serve(listener=PAGE, access_log={"sample": "20%"})
        with RawClient(port) as client:
            self.assertEqual({client.get().status for _ in range(1000)}, {200})
        balancer.signal(signal.SIGTERM)
        balancer.wait()
        self.assertTrue(100 < len(balancer.access_lines()) < 300, len(balancer.access_lines()))
        balancer, port = self.serve(listener={**PAGE, "access_log": False})
        self.assertEqual(get(port).status, 200)
        balancer.signal(signal.SIGTERM)
        balancer.wait()
        self.assertEqual(balancer.access_lines(), [])

    def test_reopen(self) -> None:
        """After a rename and SIGUSR1 lines go to a new file; no line is lost, doubled or torn while requests go on."""
        balancer, port = self.serve(listener=PAGE, access_log={"path": "access.log"})
        file = balancer.folder / "access.log"
        sent = 0

        def written() -> list[str]:
            """The paths in all files, in order of their names."""
            files = sorted(balancer.folder.glob("access.log*"), reverse=True)  # .2, .1, and the one that is written to
            return [json.loads(line)["path"] for each in files for line in each.read_text().splitlines(keepends=True)]

        with RawClient(port) as client:
            for rotation in (2, 1, 0):
                for _ in range(700):  # more than a batch
                    self.assertEqual(client.get(f"/{sent}").status, 200)
                    sent += 1
                if rotation:
                    file.rename(file.with_name(f"access.log.{rotation}"))
                    balancer.signal(signal.SIGUSR1)
                    until(file.exists, "a new file")
        balancer.signal(signal.SIGTERM)
        balancer.wait()
        self.assertEqual(written(), [f"/{number}" for number in range(sent)])
        sizes = [len(file.with_name(name).read_text().splitlines()) for name in ("access.log.2", "access.log")]
        self.assertTrue(all(sizes), sizes)
        self.assertEqual(oct(file.stat().st_mode & 0o777), oct(0o640))
        self.assertNotIn("log.reopen", [line["event"] for line in balancer.events()])

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
