"""The endpoints of the smaller balancers, by the real process, called as their scripts do: features.md 3.6, and L7-7."""

from __future__ import annotations

import http.client
import json
import socket
from collections import Counter

from tests.integration.cases import config
from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import LocalClient, MoodyBackend
from tests.kit.operating import Answer, Operator, ask
from tests.kit.processes import DEADLINE, Balancer, answers, free_ports, get, run, until

#: Every algorithm by a name that one of the smaller balancers has for it, where it has one, and by ours.
ALGORITHMS = {
    "roundrobin": "round_robin",
    "w_round_robin": "round_robin",
    "least-connections": "least_connections",
    "random": "random",
    "p2c": "two_choices",
    "iphash": "ip_hash",
    "maglev": "consistent_hash",
    "adaptive": "adaptive",
}


def text(answer: Answer) -> str:
    return answer.body.decode()


class ScriptsTests(MoodyTestCase):
    """One pool, as those balancers have it."""

    def url(self, backend: MoodyBackend) -> str:
        return f"http://{backend.address}"

    def test_health(self) -> None:
        """/api/health has each backend by its URL, and turns with the check that finds out, both ways (API-1, API-10)."""
        one, two = self.moody()
        balancer, _ = self.before([one, two], health_check=QUICK)

        def health() -> object:
            return ask(balancer.admin_port, "GET", "/api/health").value

        self.assertEqual(health(), {self.url(one): True, self.url(two): True})
        for is_well, event in ((False, "backend.down"), (True, "backend.up")):
            two.is_well = is_well
            before = len([line for line in balancer.events() if line["event"] == event])
            self.await_event(balancer, event, before + 1)
            self.assertEqual(health(), {self.url(one): True, self.url(two): is_well})

    def test_metrics(self) -> None:
        """/metrics is text of version 0.0.4 (API-4), and for who asks for JSON an array, as it is at that moment (API-5)."""
        one, two = self.moody()
        balancer, port = self.before([one, two], health_check=QUICK)
        self.assertEqual(Counter(get(port, "/error").status for _ in range(4)), {500: 4})
        (held,) = self.hold(port, [one, two], 1)
        found = json.loads(balancer.admin("/metrics", accept="application/json")[1])
        self.assertEqual([list(each) for each in found], [["url", "alive", "active_conns", "latency", "fails"]] * 2)
        self.assertEqual([each["url"] for each in found], [self.url(one), self.url(two)])
        self.assertEqual([each["alive"] for each in found], [True, True])
        self.assertEqual([each["active_conns"] for each in found], [one.held, two.held])
        for each in found:
            self.assertIsInstance(each["latency"], int)
            self.assertGreater(each["latency"], 10_000)  # nanoseconds
        for each in (one, two):
            each.let_go()
        self.assertEqual(held.response().status, 200)
        connection = http.client.HTTPConnection("127.0.0.1", balancer.admin_port, timeout=DEADLINE)
        self.addCleanup(connection.close)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read()
        self.assertRegex(answer.getheader("Content-Type", ""), r"^text/plain; version=0\.0\.4; charset=utf-8")
        linted = run(["promtool", "check", "metrics"], stdin=page)
        self.assertEqual((linted.returncode, linted.stdout, linted.stderr), (0, b"", b""))

    def test_remove(self) -> None:
        """A removed backend takes nothing from that moment, and answers what it has; an unknown one is 404; the last one
        may go, and then it is 503 (API-7, RT-2)."""
        one, two = self.moody()
        balancer, port = self.before([one, two])
        held = self.hold(port, [one, two], 1)[0]
        self.assertEqual(one.held, 1)

        def remove(url: str) -> int:
            return ask(balancer.admin_port, "POST", "/admin/remove", {"url": url}).status

        self.assertEqual(remove(self.url(one)), 200)
        self.assertEqual(self.count(port, 50), {two.name: 50})
        one.let_go()
        answer = held.response()
        self.assertEqual((answer.status, answer.body.decode()), (200, one.name))
        self.assertEqual(remove(f"http://127.0.0.1:{free_ports(1)[0]}"), 404)
        self.assertEqual(remove(self.url(two)), 200)
        answer = get(port)
        self.assertEqual((answer.status, b"no_backend" in answer.body), (503, True))
        self.assertEqual([len(one.asked), len(two.asked)], [1, 50])

    def test_paths(self) -> None:
        """What is ours on the admin port is the application's on its own (L7-7, L17), and a call that does not exist is
        404 on the admin port, and reaches no backend (API-9, L15)."""
        (one,) = self.moody("a")
        balancer, port = self.before([one])
        ours = [
            "/metrics",
            "/dashboard",
            "/dashboard/",
            "/livez",
            "/readyz",
            "/api/info",
            "/api/v1/status",
            "/api/kill",
        ]
        for path in ours:
            self.assertEqual(get(port, path).body, b"a", path)
        client = self.ask(port, "/api/add?url=http://127.0.0.1:1", method="POST")
        self.assertEqual(client.response().body, b"a")
        self.assertEqual(one.paths, [*ours, "/api/add?url=http://127.0.0.1:1"])
        answer = ask(balancer.admin_port, "POST", "/api/kill?url=http://127.0.0.1:1")
        self.assertEqual((answer.status, answer.value["status"]), (404, 404))
        self.assertEqual(len(one.asked), len(ours) + 1)
        self.assertEqual(len(Operator(balancer).api("GET", "/pools/web").value["backends"]), 1)

    def test_guarded(self) -> None:
        """The admin listener is a port of its own that wants its token, says nothing to other sites, by whatever road
        they come, and is not opened to a network without a token (API-11)."""
        (one,) = self.moody("a")
        port, admin = free_ports(2)
        tree = config(
            {"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}},
            {"web": {"backends": [one.address], "health_check": "off"}},
            admin=admin,
        )
        opened = tree.replace(f"bind: 127.0.0.1:{admin}", f"bind: 0.0.0.0:{admin}")
        refused = self.start(opened)
        self.assertEqual(refused.wait(), 78)
        self.assertIn("admin.token", refused.errors)
        balancer = self.start(tree.replace(f":{admin}", f":{admin}\n  token: s3cret")).ready()
        guarded = [
            *[
                ("GET", path)
                for path in ("/api/health", "/api/info", "/api/v1/status", "/api/v1/config", "/metrics.json")
            ],
            *[("POST", path) for path in ("/api/add?url=http://127.0.0.1:1", "/admin/add", "/admin/remove")],
        ]
        for method, path in guarded:
            self.assertEqual(ask(admin, method, path).status, 401, path)
            self.assertEqual(ask(admin, method, path, Authorization="Bearer wrong").status, 401, path)
        bearer = {"Authorization": "Bearer s3cret"}
        for origin in ("http://evil.example", f"http://127.0.0.1:{port}", "null"):
            said = ask(admin, "POST", "/api/add?url=http://127.0.0.1:1", Origin=origin, **bearer)
            self.assertEqual(said.status, 403, origin)
        self.assertEqual(ask(admin, "GET", "/api/info", Host="evil.example", **bearer).status, 421)
        for headers in (bearer, {**bearer, "Origin": "http://evil.example"}):
            for method in ("GET", "OPTIONS"):
                self.assertEqual(self.cross_origin(balancer, method, headers), [], (method, headers))
        self.assertEqual(ask(admin, "GET", "/api/health", **bearer).value, {f"http://{one.address}": True})

    def test_taken(self) -> None:
        """Where the admin port is taken nothing is served without it: the start is refused, in one line (A15)."""
        port, admin = free_ports(2)
        taken = socket.create_server(("127.0.0.1", admin))
        self.addCleanup(taken.close)
        refused = self.start(
            config({"main": {"bind": f"127.0.0.1:{port}", "pool": "a"}}, {"a": {"backends": ["b:1"]}}, admin=admin)
        )
        self.assertEqual(refused.wait(), 71)
        (line,) = [each for each in refused.errors.splitlines() if ": admin.bind: " in each]
        self.assertIn(str(admin), line)
        self.assertFalse(answers(port))

    def cross_origin(self, balancer: Balancer, method: str, headers: dict[str, str]) -> list[str]:
        """Headers of an answer by which a page of another site might read it."""
        connection = http.client.HTTPConnection("127.0.0.1", balancer.admin_port, timeout=DEADLINE)
        self.addCleanup(connection.close)
        connection.request(method, "/api/health", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]


class AddedTests(MoodyTestCase):
    """A pool for each algorithm, of one backend at first, before a listener that goes by the path."""

    def setUp(self) -> None:
        self.first, self.second = self.moody()
        self.port, self.admin = free_ports(2)
        routes = [{"match": {"path": f"/{name}/*"}, "pool": name} for name in ALGORITHMS]
        entry = {"address": self.first.address, "name": "a"}
        #: By path, where a pool wants a key of its own choice: one client is one key otherwise.
        pools = {
            name: {"algorithm": name, "backends": [entry], "health_check": QUICK}
            | ({"hash_key": "path"} if name == "maglev" else {})
            for name in ALGORITHMS
        }
        listeners = {"main": {"bind": f"127.0.0.1:{self.port}", "routes": routes}}
        self.balancer = self.start(config(listeners, pools, admin=self.admin, access_log="off")).ready()

    def call(self, method: str, path: str, value: object = None) -> Answer:
        return ask(self.admin, method, path, value)

    def seen(self, pool: str) -> Counter[str]:
        """Who answers 60 clients, each with an address and a path of its own."""
        found: Counter[str] = Counter()
        for number in range(60):
            with LocalClient(self.port, f"127.0.1.{number + 1}") as client:
                found[client.get(f"/{pool}/{number}").body.decode()] += 1
        return found

    def up(self, pool: str) -> None:
        wanted = {"pool": pool, "backend": f"http://{self.second.address}", "state": "up"}
        until(lambda: self.balancer.metric("lbsvc_backend_state", **wanted) == 1, f"up in {pool}")

    def test_added(self) -> None:
        """Added by /api/add or /admin/add a backend gets traffic under every algorithm, by the weight that was said
        (API-2, API-6, RT-2, L7); /api/info has the algorithm's name (API-3); added twice it is 409 by the one, and no
        change by the other (L11)."""
        url = f"http://{self.second.address}"
        for name, canonical in ALGORITHMS.items():
            self.assertEqual(self.call("GET", f"/api/info?pool={name}").value, {"algorithm": canonical})
            added = self.call("POST", f"/api/add?url={url}&pool={name}")
            self.assertEqual((added.status, text(added)), (200, f"Added {url} to the pool\n"))
            self.assertEqual(self.call("POST", f"/api/add?url={url}&pool={name}").status, 409)
        for name, canonical in ALGORITHMS.items():
            self.up(name)
            found = self.seen(name)
            self.assertEqual(sum(found.values()), 60)
            # Adaptive goes by what it has measured: on a busy machine one slow answer tells.
            least = 0 if canonical == "adaptive" else 12
            self.assertGreater(min(found["a"], found["b"]), least, (name, found))
        for weight in (3, 3):
            answer = self.call("POST", "/admin/add?pool=roundrobin", {"url": url, "weight": weight})
            self.assertEqual((answer.status, answer.value["weight"]), (200, weight))
        self.assertEqual(self.seen("roundrobin"), {"a": 15, "b": 45})
        self.assertEqual(self.call("POST", "/admin/add?pool=roundrobin", {"url": url}).status, 200)
        self.assertEqual(self.seen("roundrobin"), {"a": 15, "b": 45})

    def test_refused(self) -> None:
        """What is no backend is refused in words, and added nowhere, by whichever call (API-2, API-6, L10)."""
        pool = "pool=random"
        self.assertEqual(text(self.call("GET", f"/api/add?url=http://127.0.0.1:1&{pool}"))[:1], "{")
        self.assertEqual(self.call("GET", f"/api/add?url=http://127.0.0.1:1&{pool}").status, 405)
        missing = self.call("POST", f"/api/add?{pool}")
        self.assertEqual((missing.status, missing.value["detail"]), (400, "Missing url parameter"))
        for url in (
            "notaurl",
            "http://",
            "ftp://127.0.0.1:1",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:1/path",
            "%20",
        ):
            self.assertEqual(self.call("POST", f"/api/add?url={url}&{pool}").status, 400, url)
            self.assertIn(self.call("POST", f"/admin/add?{pool}", {"url": url}).status, (400, 422), url)
        for wrong in ({"url": "http://127.0.0.1:1", "weight": -1}, {"url": "http://127.0.0.1:1", "weight": "2"}, {}):
            self.assertIn(self.call("POST", f"/admin/add?{pool}", wrong).status, (400, 422), wrong)
        self.assertEqual(self.call("GET", f"/api/health?{pool}").value, {f"http://{self.first.address}": True})
        self.assertEqual(self.seen("random"), {"a": 60})
