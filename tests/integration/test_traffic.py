"""Traffic that is sent on purpose through the real process: each way that a listener can be reached, and who answered."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from tests.integration.cases import config
from tests.integration.secured import NAME, SecureCase
from tests.kit.operating import Operator, Tree, fresh_requests
from tests.kit.processes import RawClient, free_ports, until
from tests.kit.upstreams import Hang, RecordingBackend, Request, named_backend

AGENT = b"(traffic "


def asked(backend: RecordingBackend) -> int:
    """How many requests of runs it has had."""
    return sum(each.count(AGENT) for each in backend.received)


class TrafficCase(SecureCase):
    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.backend(named_backend("one")), self.backend(named_backend("two"))

    def pair(self) -> list[dict[str, Any]]:
        return [{"address": self.one.address, "name": "one", "weight": 3}, {"address": self.two.address, "name": "two"}]

    def send(self, operator: Operator, listener: str = "main", **fields: Any) -> Tree:
        answer = operator.api("POST", "/traffic", {"listener": listener, **fields})
        self.assertEqual(answer.status, 200, answer.body)
        found: Tree = answer.value
        return found

    def shares(self, found: Tree) -> dict[str, int]:
        return {each["name"]: each["requests"] for each in found["backends"]}


class WaysTests(TrafficCase):
    def test_every_kind_of_listener(self) -> None:
        """One address, all addresses, a unix socket, TLS by a name, a PROXY header, our own answers: each is asked as it
        wants to be, and in the log; a listener of layer 4 is refused."""
        ports = free_ports(7)
        listeners: dict[str, Any] = {
            "plain": {"bind": f"127.0.0.1:{ports[0]}", "pool": "web"},
            "any": {"bind": f":{ports[1]}", "pool": "web"},
            "unix": {"bind": f"unix:{self.folder}/lb.sock", "pool": "web"},
            "tls": {"bind": f"127.0.0.1:{ports[2]}", "pool": "web", "tls": {"certificates": [self.site()]}},
            "proxied": {"bind": f"127.0.0.1:{ports[3]}", "pool": "web", "proxy_protocol": True,
                        "trusted_proxies": ["127.0.0.0/8"]},
            "both": {"bind": f"127.0.0.1:{ports[4]}", "pool": "web", "tls": {"certificates": [self.site()]},
                     "proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]},
            "own": {"bind": f"127.0.0.1:{ports[5]}", "routes": [{"name": "hello", "match": {"host": NAME},
                                                                 "respond": {"status": 202, "body": "hello"}}]},
            "layer4": {"bind": f"127.0.0.1:{ports[6]}", "protocol": "tcp", "pool": "flat"},
        }  # fmt: skip
        pools = {name: {"backends": self.pair(), "health_check": "off"} for name in ("web", "flat")}
        balancer = self.start(config(listeners, pools, admin=free_ports(1)[0])).ready()
        operator = Operator(balancer)
        for name in ("plain", "any", "unix", "tls", "proxied", "both"):
            sent = self.send(operator, name, requests=8, clients=2, host=NAME)
            self.assertEqual((name, sent["statuses"], sent["errors"]), (name, {"200": 8}, {}))
            self.assertEqual((name, self.shares(sent)), (name, {"one": 6, "two": 2}))
        self.assertEqual((asked(self.one), asked(self.two)), (36, 12))
        own = self.send(operator, "own", requests=3, host=NAME)
        self.assertEqual(own["statuses"], {"202": 3})
        self.assertEqual(own["backends"], [{"pool": None, "name": None, "requests": 3}])
        lost = self.send(operator, "own", requests=3)
        self.assertEqual((lost["statuses"], lost["reasons"]), ({"404": 3}, {"no_route": 3}))
        self.assertEqual(operator.api("POST", "/traffic", {"listener": "layer4"}).status, 400)
        until(lambda: len(balancer.access_lines()) == 54, "all are in the log")
        found = Counter((line["listener"], line.get("backend")) for line in balancer.access_lines())
        self.assertEqual((found["both", "one"], found["both", "two"], found["own", None]), (6, 2, 6))
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


class CountTests(TrafficCase):
    def test_among_others(self) -> None:
        """While others ask, a reload switches the access log on, and backends name nobody, each answer is counted for
        who gave it, and no answer of anybody else's; metrics and status have them as well."""
        balancer, port = self.serve(*self.pair(), listener={"access_log": False})
        operator = Operator(balancer)
        others = fresh_requests(port)
        self.addCleanup(others.stop)
        others.wait(5)
        found: list[Tree] = []
        run = threading.Thread(
            target=lambda: found.append(self.send(operator, requests=1000, clients=1)), daemon=True
        )  # fmt: skip
        run.start()
        until(lambda: asked(self.one) > 20, "the run has begun")
        operator.tree["listeners"]["main"]["access_log"] = True
        operator.apply()
        self.assertLess(asked(self.one) + asked(self.two), 1000)
        run.join(30)
        self.assertEqual(others.end(), {})
        (sent,) = found
        self.assertEqual((sent["sent"], sent["statuses"]), (1000, {"200": 1000}))
        self.assertEqual(self.shares(sent), {"one": asked(self.one), "two": asked(self.two)})
        self.assertEqual(sum(self.shares(sent).values()), 1000)
        self.assertGreaterEqual(balancer.metric("lbsvc_http_requests_total", listener="main"), 1000)

    def test_nobody_answers(self) -> None:
        """Where no backend is there each request is told why."""
        self.one.stop()
        balancer, _ = self.serve({"address": self.one.address, "name": "one"})
        sent = self.send(Operator(balancer), requests=5)
        self.assertEqual((sent["statuses"], sent["reasons"]), ({"502": 5}, {"connect_failed": 5}))


class EndTests(TrafficCase):
    def test_whoever_asked_goes_away(self) -> None:
        """A client that closes its connection as clients do (curl that is interrupted) ends its run: what it wanted is not
        sent to the end, what was sent is in the log, and there may be another one at once."""
        balancer, _ = self.serve(*self.pair())
        operator = Operator(balancer)
        body = b'{"listener": "main", "requests": 1000, "clients": 1}'
        head = b"POST /api/v1/traffic HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        with RawClient(balancer.admin_port) as client:
            client.send(head + body)
            until(lambda: asked(self.one) > 5, "the run has begun")
        (event,) = until(
            lambda: [each for each in balancer.events() if each["event"] == "admin.change"], "the run has ended"
        )
        self.assertLess(int(str(event["message"]).split(": ")[1].split()[0]), 1000)
        self.assertLess(asked(self.one) + asked(self.two), 1000)
        self.assertEqual(self.send(operator, requests=4)["statuses"], {"200": 4})

    def test_the_service_stops(self) -> None:
        """A run does not hold up a stop: it is answered with what there is, and nothing is sent from then on."""
        silent = self.backend(RecordingBackend([Request(), Hang()]))
        balancer, _ = self.serve(silent.address, shutdown={"drain_timeout": "1s"})
        operator = Operator(balancer)
        found: list[Tree] = []
        run = threading.Thread(target=lambda: found.append(self.send(operator, clients=2)), daemon=True)
        run.start()
        silent.wait_for(2)
        self.assertEqual(operator.api("POST", "/traffic", {"listener": "main"}).status, 409)
        balancer.signal(15)
        run.join(30)
        self.assertEqual([(each["sent"], sum(each["errors"].values())) for each in found], [(2, 2)])
        balancer.wait()
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
