"""What is counted, logged and changed while it runs, by the real process: features.md 3.7 and 3.11."""

from __future__ import annotations

import json
import re
import signal
from functools import partial
from typing import Any

from tests.integration.cases import config
from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import MoodyBackend, leave
from tests.kit.operating import Operator, fresh_requests
from tests.kit.processes import Balancer, RawClient, free_ports, get, until

#: What only grows, by the names that Prometheus has for it.
GROWING = re.compile(r"(?m)^(\w+(?:_total|_count|_sum|_bucket)(?:\{.*\})?) (\S+)$")
OPEN = {"failure_threshold": 5, "reset_timeout": "10m"}


def growing(balancer: Balancer) -> dict[str, float]:
    """Each counter's value, by its name and labels."""
    page = balancer.admin("/metrics")[1].decode()
    return {series: float(value) for series, value in GROWING.findall(page)}


def series(balancer: Balancer) -> set[str]:
    page = balancer.admin("/metrics")[1].decode()
    return {line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")}


class CountsTests(MoodyTestCase):
    """One listener before a pool that answers, one that nobody is behind, and one that is sick; others for tcp."""

    def setUp(self) -> None:
        self.well, self.sick = MoodyBackend("well"), MoodyBackend("sick", mood="error")
        for backend in (self.well, self.sick):
            self.backend(backend)
        self.sick.is_well = False
        self.port, self.raw, self.nobody, gone, admin = free_ports(5)
        pools: dict[str, Any] = {
            "web": {
                "backends": [{"address": self.well.address, "name": "well"}],
                "health_check": "off",
                "retry": "off",
            },
            "gone": {"backends": [{"address": f"127.0.0.1:{gone}", "name": "gone"}], "health_check": "off"},
            "none": {
                "backends": [{"address": f"127.0.0.1:{gone}", "name": "none"}],
                "health_check": QUICK,
            },
            "sick": {
                "backends": [{"address": self.sick.address, "name": "sick"}],
                "health_check": QUICK,
                "circuit_breaker": OPEN,
                "panic_threshold": "100%",  # asked all the same, so that its circuit has something to count
            },
        }
        routes = [{"match": {"path": f"/{name}/*"}, "name": name, "pool": name} for name in ("gone", "sick")]
        listeners = {
            "main": {"bind": f"127.0.0.1:{self.port}", "routes": routes, "pool": "web"},
            "raw": {"bind": f"127.0.0.1:{self.raw}", "protocol": "tcp", "pool": "gone"},
            "nobody": {"bind": f"127.0.0.1:{self.nobody}", "protocol": "tcp", "pool": "none"},
        }
        self.balancer = self.start(config(listeners, pools, admin=admin)).ready()

    def total(self, name: str, **labels: str) -> float:
        return self.balancer.metric(name, **labels)

    def is_left(self, listener: str) -> bool:
        return self.total("lbsvc_listener_connections", listener=listener) == 0

    def status(self, path: str, method: str = "GET") -> int:
        client = self.ask(self.port, path, "Connection: close", method=method)
        return client.response().status

    def test_requests(self) -> None:
        """A request counts once, with the status that its client saw, its tries apart, and a failure for the backend that
        failed; what is open is counted while it is, whatever the end; answers take their time in a histogram (METRIC-1,
        METRIC-2, METRIC-3, METRIC-4, METRIC-5, METRIC-6, METRIC-7, METRIC-8, METRIC-9, METRIC-10, V12, L4, A7, A16)."""
        seen = [self.status(path) for path in ("/", "/", "/", "/error", "/error", "/gone/x")]
        seen.append(self.status("/reset", method="POST"))
        self.assertEqual(seen, [200, 200, 200, 500, 500, 502, 502])
        client = self.ask(self.port, "/hold")
        self.await_held([self.well], 1)
        self.assertEqual(self.total("lbsvc_listener_connections", listener="main"), 1)
        self.assertEqual(self.total("lbsvc_http_requests_in_flight", listener="main"), 1)
        self.assertEqual(self.total("lbsvc_backend_active", backend="well"), 1)
        leave(client)
        self.await_idle(self.balancer)
        counted = {code: self.total("lbsvc_http_requests_total", code=code) for code in ("200", "500", "502", "499")}
        self.assertEqual(counted, {"200": 3, "500": 2, "502": 2, "499": 1})
        self.assertEqual(self.total("lbsvc_http_requests_total", listener="main"), 8)
        self.assertEqual(self.total("lbsvc_http_requests_total", route="gone", pool="gone", code="502"), 1)
        self.assertEqual(self.total("lbsvc_http_requests_total", method="POST", code="502"), 1)
        answered = {
            code: self.total("lbsvc_backend_requests_total", backend="well", code=code) for code in ("2xx", "5xx")
        }
        self.assertEqual(answered, {"2xx": 3, "5xx": 2})
        failed = "lbsvc_backend_failures_total"
        self.assertEqual(self.total(failed, backend="well", reason="upstream_reset"), 1)
        self.assertEqual(self.total(failed, backend="gone", reason="connect_failed"), 2)  # tried twice, counted apart:
        self.assertEqual(self.total("lbsvc_retries_total", pool="gone"), 1)
        self.assertEqual(self.total("lbsvc_retries_total"), 1)
        self.assertEqual(self.total(failed), 3)
        self.assertEqual(self.total("lbsvc_http_request_duration_seconds_count", listener="main"), 8)
        self.assertEqual(self.total("lbsvc_backend_request_duration_seconds_count", backend="well"), 5)
        self.assertGreater(self.total("lbsvc_backend_latency_ewma_seconds", backend="well"), 0)
        until(lambda: self.total("lbsvc_listener_connections", listener="main") == 0, "closed")
        self.assertEqual(self.total("lbsvc_listener_connections_total", listener="main"), 8)
        for listener, entrance, reason in (("raw", self.raw, "connect_failed"), ("nobody", self.nobody, "no_backend")):
            for _ in range(6):
                with RawClient(entrance) as other:
                    self.assertEqual(other.rest(), b"")
            until(partial(self.is_left, listener), "closed")
            self.assertEqual(self.total("lbsvc_listener_connections_total", listener=listener), 6)
            self.assertEqual(self.total("lbsvc_terminations_total", listener=listener, reason=reason), 6)
        self.assertEqual(self.total("lbsvc_backend_active"), 0)

    def test_health(self) -> None:
        """Failed checks, health and circuits are there to be read, each backend's own (METRIC-11, METRIC-12, V12)."""
        until(lambda: self.total("lbsvc_health_checks_total", backend="sick", result="failure") > 2, "checked")
        self.assertEqual(self.total("lbsvc_health_checks_total", backend="sick", result="success"), 0)
        self.assertGreater(self.total("lbsvc_health_check_duration_seconds_count", backend="sick"), 2)
        states = {name: self.total("lbsvc_backend_state", backend=name, state="up") for name in ("well", "sick")}
        self.assertEqual(states, {"well": 1, "sick": 0})
        self.assertEqual(self.total("lbsvc_circuit_state", backend="sick", state="closed"), 1)
        self.assertEqual([self.status("/sick/x") for _ in range(6)], [500] * 5 + [503])
        self.assertEqual(self.total("lbsvc_circuit_state", backend="sick", state="open"), 1)
        self.assertEqual(self.total("lbsvc_circuit_state", backend="sick"), 1)

    def test_labels(self) -> None:
        """No label comes from a client; scraping disturbs no request; counters never go down, over reloads neither, and the
        series of a removed backend go (MET-1)."""
        for path in ("/", "/gone/x", "/sick/x"):
            self.status(path)
        self.status("/", method="BREW")
        before = series(self.balancer)
        for number in range(40):
            with RawClient(self.port) as client:
                lines = f"METHOD{number} /{number}?{number} HTTP/1.1\r\nHost: h{number}\r\nUser-Agent: {number}\r\n\r\n"
                client.send(lines.encode())
                client.rest()
            get(self.port, f"/path-{number}", f"X-Forwarded-For: 10.0.0.{number}", f"User-Agent: agent-{number}")
        grown = series(self.balancer) - before
        self.assertEqual(grown, set())
        self.assertEqual(self.total("lbsvc_http_requests_total", method="other"), 41)
        operator = Operator(self.balancer)
        load = fresh_requests(self.port)
        self.addCleanup(load.stop)
        backends = operator.tree["pools"]["web"]["backends"]
        seen = growing(self.balancer)
        for number in range(10):
            if number % 2:
                operator.tree["pools"]["web"]["algorithm"] = ("round_robin", "least_connections")[number // 2 % 2]
                operator.tree["pools"]["gone"]["backends"][0]["weight"] = number
                operator.apply()
            load.wait(5)
            now = growing(self.balancer)
            self.assertEqual([each for each in seen if now.get(each, -1) < seen[each]], [])
            seen = now
        backends.append({"address": self.sick.address, "name": "guest", "weight": 0})
        operator.apply()
        self.assertIn('backend="guest"', "".join(series(self.balancer)))
        backends.pop()
        operator.apply()
        operator.wait_until_gone("web", "guest")
        self.assertNotIn('backend="guest"', "".join(series(self.balancer)))
        self.assertEqual(load.end(), {})
        self.assertGreater(self.total("lbsvc_backend_requests_total", backend="well"), 90)


class ChangesTests(MoodyTestCase):
    def test_hang_up(self) -> None:
        """SIGHUP brings another algorithm, weight, backend, check and limit into force at once; the connections, counters,
        health and circuit of those that stay are as they were (RT-1, A1, V13)."""
        backends = self.moody("abc")
        check = {**QUICK, "interval": "1h"}  # what is found at the start stands until the new check
        balancer, port = self.before(backends[:2], health_check=check, circuit_breaker=OPEN)
        operator = Operator(balancer)
        kept = self.client(port)
        self.assertEqual(kept.get().status, 200)
        backends[1].mood = "error"
        until(lambda: kept.get() and balancer.metric("lbsvc_circuit_state", backend="b", state="open") == 1, "open")
        held = self.hold(port, backends[:1], 1)[0]
        counted = {name: operator.backend("web", name) for name in "ab"}
        self.assertEqual(counted["a"]["active"], 1)  # type: ignore[index]
        pool = operator.tree["pools"]["web"]
        pool["algorithm"] = "least_connections"
        pool["backends"][0]["weight"] = 5
        pool["backends"].append({"address": backends[2].address, "name": "c"})
        pool["health_check"] = {**check, "path": "/", "interval": "50ms"}
        operator.tree["listeners"]["main"]["limits"] = {"body_size": 3}
        backends[0].is_well = False  # what the former check asks for: the new one asks for something else
        operator.write()
        balancer.signal(signal.SIGHUP)
        event = self.await_event(balancer, "config.reloaded", generation=2)
        self.assertEqual(balancer.pid, balancer.process.pid)
        self.assertIsNone(balancer.process.poll(), event)
        until(lambda: any(path == "/" for path in backends[2].paths), "checked by its new path")
        self.await_state(balancer, "c", "up")
        now = {name: operator.backend("web", name) or {} for name in "abc"}
        for name in "ab":
            for key in ("requests", "failures", "circuit", "active"):
                self.assertEqual(now[name][key], (counted[name] or {})[key], (name, key))
        self.assertEqual([now[name]["weight"] for name in "abc"], [5, 1, 1])
        self.assertEqual(operator.api("GET", "/pools/web").value["algorithm"], "least_connections")
        self.assertEqual(kept.get().status, 200)
        downs = [line["backend"] for line in balancer.events() if line["event"] == "backend.down"]
        self.assertNotIn("a", downs)
        large = self.ask(port, "/", method="POST", body="four").response()
        self.assertEqual(large.status, 413)
        backends[0].let_go()
        self.assertEqual(held.response().body, b"a")

    def test_weight(self) -> None:
        """A weight counts from the request behind the answer to its change, by the API as by a reload (RT-3)."""
        balancer, port = self.before(self.moody("ab"))
        operator = Operator(balancer)
        self.assertEqual(self.count(port, 40), {"a": 20, "b": 20})
        operator.set("web", "b", weight=3)
        self.assertEqual(self.count(port, 40), {"a": 10, "b": 30})
        operator.set("web", "a", weight=0)
        self.assertEqual(self.count(port, 40), {"b": 40})
        operator.tree["pools"]["web"]["backends"][0]["weight"] = 6
        operator.apply()
        self.assertEqual(self.count(port, 90), {"a": 60, "b": 30})

    def test_events(self) -> None:
        """Start, additions, and each turn of a backend's health are told once, by a level that people read; a request is
        no event, and no line at all where the access log is off (LOG-1)."""
        one, two = self.moody()
        balancer, port = self.before([one], listener={"access_log": False}, health_check=QUICK)
        operator = Operator(balancer)
        added = operator.api("POST", "/pools/web/backends", {"address": two.address, "name": "b"})
        self.assertEqual(added.status, 201)
        self.await_state(balancer, "b", "up")
        for turn in range(2):
            two.is_well = False
            self.await_state(balancer, "b", "down")
            self.await_event(balancer, "backend.down", turn + 1, backend="b")
            two.is_well = True
            self.await_state(balancer, "b", "up")
            self.await_event(balancer, "backend.up", turn + 2, backend="b")
        self.assertEqual(self.count(port, 200), {"a": 100, "b": 100})
        self.assertEqual([get(port, "/error").status for _ in range(20)], [500] * 20)
        operator.set("web", "b", weight=2)  # its event is behind everything that the requests could have said
        self.await_event(balancer, "admin.change", 2)
        told = balancer.lines()
        self.assertEqual([line for line in told if line.get("log") == "access"], [])
        names = [str(line["event"]) for line in told]
        for name, count in (("service.ready", 1), ("backend.added", 1), ("backend.down", 2), ("listener.bound", 1)):
            self.assertEqual(names.count(name), count, (name, names))
        self.assertLess(len(names), 20, names)
        self.assertEqual({line["level"] for line in told} - {"info", "warn"}, set(), json.dumps(told))
