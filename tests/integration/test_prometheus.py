"""Debian's Prometheus beside a running balancer under load: what the boards and rules in etc/ ask for has answers.

The balancer is its own backends: listeners that answer 200 and 503. One pool is well, one fails, one is down, one has
nobody at its addresses. UI-6, UI-7, OPS-4.
"""

from __future__ import annotations

import http.client
import json
import math
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.integration.cases import ProcessTestCase, config
from tests.kit.authority import Authority
from tests.kit.docker import services
from tests.kit.monitoring import ETC, Expression, chosen, ruled, rules, shown
from tests.kit.processes import Balancer, Child, RawClient, free_ports, get, run, until

#: What nothing of this scene can be seen in: it is one process, and speaks no gRPC.
EMPTY = {
    *("panel gRPC calls by status, A", "panel Workers, A", "panel Workers, B"),
    *("panel CPU by worker, A", "panel Memory by worker, A", "alert LbsvcWorkerRestarts"),
}

#: What is wrong in the scene, in the words of the rules.
FIRING = {
    *("LbsvcBackendDown", "LbsvcPoolWithoutBackends", "LbsvcCircuitOpen", "LbsvcErrorShareHigh"),
    *("LbsvcErrorBudgetBurns", "LbsvcRetryBudgetExhausted", "LbsvcReloadFailed", "LbsvcCertificateExpires"),
}

#: What depends on how much else this machine has to do.
UNDECIDED = {"LbsvcLatencyHigh", "LbsvcReactorLag"}


class Prometheus(Child):
    """Debian's, with the rules and the configuration of etc/, a second in place of every interval."""

    def __init__(self, folder: Path, target: int) -> None:
        (self.port,) = free_ports(1)
        written = (ETC / "prometheus/prometheus.yml").read_text()
        for interval in ("scrape_interval: 5s", "evaluation_interval: 15s"):
            assert interval in written
            written = written.replace(interval, f"{interval.split()[0]} 1s")
        (folder / "prometheus.yml").write_text(written)
        (folder / "rules").symlink_to(ETC / "prometheus/rules")
        (folder / "targets").mkdir()
        shipped = (ETC / "prometheus/targets/lbsvc.yml").read_text()
        (folder / "targets/lbsvc.yml").write_text(shipped.replace("127.0.0.1:9901", f"127.0.0.1:{target}"))
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=stored", "--log.level=warn"]
        super().__init__(["prometheus", *options, f"--web.listen-address=127.0.0.1:{self.port}"], folder=folder)

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers; ConnectionError where it does not yet, or does not want to."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            link.request("GET", f"/api/v1/{path}?{urlencode(query)}")
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        if answer.status != 200:
            raise ConnectionError(f"{answer.status} for {path} {query}: {text.decode()}")
        return json.loads(text)["data"]

    def is_scraping(self) -> bool:
        """Is every target up?"""
        assert self.process.poll() is None, self.report()
        try:
            targets = self.ask("targets")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def values(self, expression: Expression) -> list[float]:
        """What an expression is now, without what is not a number."""
        found = self.ask("query", query=expression.evaluable)
        samples = [found["result"]] if found["resultType"] == "scalar" else [each["value"] for each in found["result"]]
        return [number for _, text in samples if not math.isnan(number := float(text))]


class PrometheusTests(ProcessTestCase):
    def setUp(self) -> None:
        folder = self.scratch()
        cert, key = Authority().issue("soon.example", days=10).write(str(folder), "soon")
        ports = free_ports(10)
        self.main, self.db, self.secure, one, two, ill, self.gone, also_gone, down, admin = ports

        def answering(port: int, status: int) -> dict[str, Any]:
            route = {"match": {"path": "/*"}, "respond": {"status": status, "body": "so\n"}}
            return {"bind": f"127.0.0.1:{port}", "access_log": False, "routes": [route]}

        def pool(*ports: int, **keys: Any) -> dict[str, Any]:
            return {"backends": [f"127.0.0.1:{port}" for port in ports], "health_check": "off", **keys}

        paths = {"ill": "ill", "gone": "gone", "down": "down"}
        routes: list[dict[str, Any]] = [
            {"match": {"path": f"/{path}"}, "name": path, "pool": name} for path, name in paths.items()
        ]
        certificates = [{"cert": cert, "key": key}]
        listeners = {
            "main": {"bind": f"127.0.0.1:{self.main}", "pool": "web", "routes": routes},
            "db": {"bind": f"127.0.0.1:{self.db}", "protocol": "tcp", "pool": "db"},
            "secure": {"bind": f"127.0.0.1:{self.secure}", "pool": "web", "tls": {"certificates": certificates}},
            "one": answering(one, 200),
            "two": answering(two, 200),
            "ill": answering(ill, 503),
        }
        pools = {
            "web": pool(one, two, health_check={"path": "/", "interval": "1s"}),
            "db": pool(one),
            "ill": pool(ill, circuit_breaker={"failure_threshold": 3, "reset_timeout": "10m"}),
            "gone": pool(self.gone, also_gone),
            "down": pool(down, health_check={"type": "tcp", "interval": "1s"}),
        }
        self.balancer: Balancer = self.start(config(listeners, pools, admin=admin)).ready()
        self.prometheus = Prometheus(self.scratch(), admin)
        self.addCleanup(self.prometheus.stop)
        until(self.prometheus.is_scraping, "scraped")

    def load(self) -> None:
        """Some requests of every kind."""
        with RawClient(self.main) as client:
            for path in ("/", "/", "/ill", "/down", *["/gone"] * 30):
                client.get(path)
        get(self.db)

    def answered(self, pending: dict[str, Expression]) -> bool:
        """Make some load, and take those from `pending` that have an answer; are none left?"""
        self.load()
        for where, expression in list(pending.items()):
            if self.prometheus.values(expression):
                del pending[where]
        return not pending

    def test_everything_has_an_answer(self) -> None:
        """Each query of each panel and variable and each rule gives numbers; what is wrong here fires, and only that
        (UI-6, UI-7)."""
        watched = [expression.watched for expression in ruled("alert")]
        asked = {each.where: each for each in (*shown(), *chosen(), *ruled("record"), *watched)}
        self.assertGreater(len(asked), 80)
        pending = {where: each for where, each in asked.items() if where not in EMPTY}
        self.load()
        until(lambda: self.answered(pending) or len(pending) < 5, f"answered: {pending}", 60)
        # A reload that is good, between two scrapes, and one that is not.
        text = self.balancer.file.read_text()
        self.balancer.file.write_text(text + "shutdown: {drain_timeout: 7s}\n")
        self.balancer.signal(signal.SIGHUP)
        try:
            until(lambda: self.answered(pending), "answered", 60)
        finally:
            self.assertEqual(pending, {})
        self.balancer.file.write_text(text + "sutdown: {}\n")
        self.balancer.signal(signal.SIGHUP)
        self.fire()
        broken = [
            (rule["name"], rule.get("lastError"))
            for group in self.prometheus.ask("rules")["groups"]
            for rule in group["rules"]
            if rule["health"] != "ok"
        ]
        self.assertEqual(broken, [])
        self.assertEqual([where for where in EMPTY if self.prometheus.values(asked[where])], [])

    def fire(self) -> None:
        """Wait for the alerts of the scene, and see that there are no others."""
        alerts = {rule["alert"]: Expression(rule["alert"], rule["expr"]) for rule in rules("alert")}
        self.assertEqual(FIRING - set(alerts), set())

        def firing() -> set[str]:
            self.load()
            return {name for name, expression in alerts.items() if self.prometheus.values(expression)} - UNDECIDED

        until(lambda: firing() >= FIRING, "all alerts of the scene", 60)
        self.assertEqual(firing(), FIRING)

    def test_compose_knows_whether_it_is_well(self) -> None:
        """What the compose file checks Prometheus with succeeds while it runs, and fails when it does not."""
        word, *command = services()["prometheus"]["healthcheck"]["test"]
        self.assertEqual(word, "CMD")
        command = [each.replace("9090", str(self.prometheus.port)) for each in command]
        self.assertEqual(run(command).returncode, 0)
        self.prometheus.stop()
        self.assertNotEqual(run(command).returncode, 0)
