"""What features.md promises of choosing, where no other test shows the whole of it, seen by clients of the real process."""

from __future__ import annotations

import json
import sys
from collections import Counter

from tests.integration.moody import MoodyTestCase
from tests.kit.moods import LocalClient, order
from tests.kit.operating import Operator
from tests.kit.processes import RawClient, free_ports, run, until

HOSTS = tuple(f"127.0.2.{number}" for number in range(1, 31))


class ChangedTests(MoodyTestCase):
    """Members that change while requests come."""

    def test_weights(self) -> None:
        """A changed weight, an added backend and one that is taken down to 0 count from the very next request (ALG-2)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends[:2])
        operator = Operator(balancer)
        self.assertEqual(self.count(port, 20), {"a": 10, "b": 10})
        operator.set("web", "a", weight=3)
        self.assertEqual(self.count(port, 40), {"a": 30, "b": 10})
        added = {"address": backends[2].address, "name": "c", "weight": 4}
        self.assertEqual(operator.api("POST", "/pools/web/backends", added).status, 201)
        self.assertEqual(self.count(port, 80), {"a": 30, "b": 10, "c": 40})
        operator.set("web", "c", weight=0)
        self.assertEqual(self.count(port, 40), {"a": 30, "b": 10})

    def test_address(self) -> None:
        """A thousand requests of one address, over a kept connection, over new ones and over a hundred at once, come to
        one backend; one of four is removed, and nobody's home changes but its own clients' (ALG-4)."""
        backends = self.moody("abcd")
        balancer, port = self.before(backends, algorithm="ip_hash")

        def home(host: str, count: int = 1) -> str:
            with LocalClient(port, host) as client:
                return order(client, count)

        seen = Counter(home(HOSTS[0], 500))
        for _ in range(400):
            seen.update(home(HOSTS[0]))
        for name in self.at_once(100, lambda _: home(HOSTS[0])):
            seen.update(name)
        self.assertEqual(list(seen.values()), [1000])
        before = {host: home(host) for host in HOSTS}
        self.assertEqual(set(before.values()), set("abcd"))
        self.assertEqual(Operator(balancer).api("DELETE", "/pools/web/backends/b").status, 202)
        after = {host: home(host) for host in HOSTS}
        for host, name in before.items():
            (self.assertIn if name == "b" else self.assertEqual)(after[host], "acd" if name == "b" else name)


class LoadTests(MoodyTestCase):
    def test_six_at_once(self) -> None:
        """Six requests that come at the same time are two for each of three backends (ALG-3)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, algorithm="leastconnection")
        clients = self.at_once(6, lambda _: self.ask(port, "/hold"))
        self.await_held(backends, 6)
        self.assertEqual([each.held for each in backends], [2, 2, 2])
        for each in backends:
            each.let_go(2)
        self.assertEqual({client.response().status for client in clients}, {200})
        self.await_idle(balancer)

    def test_shown(self) -> None:
        """What is active is shown by the metrics, by the status that the dashboard is drawn from, and by the array that
        scripts know: what is held now, and nothing when it is over (CT-1)."""
        (backend,) = self.moody("a")
        balancer, port = self.before([backend])
        operator = Operator(balancer)

        def shown() -> list[float]:
            status = operator.api("GET", "/status").value["pools"][0]["backends"][0]
            (entry,) = json.loads(balancer.admin("/metrics", "application/json")[1])
            with RawClient(balancer.admin_port) as client:
                client.send(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                client.until(b"event: status\ndata: ")
                streamed = json.loads(client.until(b"\n"))["pools"][0]["backends"][0]
            active = [status["active"], streamed["active"], entry["active_conns"]]
            return [balancer.metric("lbsvc_backend_active", backend="a"), *active]

        self.assertEqual(shown(), [0] * 4)
        clients = self.hold(port, [backend], 3)
        self.assertEqual(shown(), [3] * 4)
        backend.let_go(3)
        self.assertEqual({client.response().status for client in clients}, {200})
        self.await_idle(balancer)
        self.assertEqual(shown(), [0] * 4)


class PathTests(MoodyTestCase):
    def test_paths_of_backends(self) -> None:
        """Backends with `paths`, in the file that Akash's users have: each prefix goes to its own, in turn where they are
        several, the longest first and on segment borders, all else to those without; with none left it is 503 (ALG-7)."""
        backends = self.moody("abcdef")
        paths = {"a": ["/api"], "b": ["/api/"], "c": ["/api/v2"], "d": ["/static"]}
        port, admin = free_ports(2)
        old = {
            "host": "127.0.0.1",
            "listen": str(port),
            "algorithm": "round_robin",
            "health_check_freq": 10,
            "timeout_seconds": 5,
            "Backends": [{"address": it.address, "weight": 1, "paths": paths.get(it.name, [])} for it in backends],
        }
        file = self.scratch() / "config.json"
        file.write_text(json.dumps(old))
        converted = run([sys.executable, "-m", "lbsvc.ctl.main", "convert", str(file)])
        self.assertEqual(converted.returncode, 0, converted.stderr)
        balancer = self.start(f"{converted.stdout.decode()}\nadmin: {{bind: 127.0.0.1:{admin}}}\n").ready()
        for path, shares in (
            ("/api/x", {"a": 4, "b": 4}),
            ("/api", {"a": 4, "b": 4}),
            ("/apix", {"e": 4, "f": 4}),
            ("/api/v2/x?y=1", {"c": 8}),
            ("/api/v20", {"a": 4, "b": 4}),
            ("/static/logo.png", {"d": 8}),
            ("/", {"e": 4, "f": 4}),
        ):
            self.assertEqual(self.count(port, 8, path), shares, path)
        backends[2].stop()
        quick = {"interval": "100ms", "fall": 1}
        self.assertEqual(Operator(balancer).api("PATCH", "/pools/api-v2/health_check", quick).status, 200)
        until(lambda: balancer.metric("lbsvc_backend_state", pool="api-v2", state="down") == 1, "down")
        self.assertEqual(self.count(port, 3, "/api/v2/x"), {"503": 3})
        self.assertEqual(self.count(port, 8, "/api/x"), {"a": 4, "b": 4})
