"""The calls of the smaller balancers, as their scripts make them."""

from __future__ import annotations

from typing import Any

from tests.admin.asking import AskingCase
from tests.admin.fake_control import TWO_POOLS

JSON = {"Accept": "application/json"}


class OnePoolTests(AskingCase):
    def names(self) -> list[str]:
        return [entry.name for entry in self.control.effective.pools["web"].backends]

    def test_health(self) -> None:
        """URLs, however the configuration writes them, and whether each is up."""
        self.control.pools  # noqa: B018 - makes the live ones
        self.control.live["web", "a"].health = "up"
        answer = self.ask("GET", "/api/health")
        self.assertEqual((answer.status, answer.json()),
                         (200, {"http://10.0.0.1:8001": True, "http://10.0.0.2:8001": False}))  # fmt: skip

    def test_algorithm(self) -> None:
        """The algorithm by the name that the configuration has for it."""
        self.assertEqual(self.ask("GET", "/api/info").json(), {"algorithm": "round_robin"})

    def test_add_by_query(self) -> None:
        """Added in words; what is missing or wrong is 400, what is there 409, and nothing is added by GET."""
        answer = self.ask("POST", "/api/add?url=http%3A%2F%2F10.0.0.3%3A8001")
        self.assertEqual((answer.status, answer.headers["content-type"], answer.body),
                         (200, "text/plain; charset=utf-8", b"Added http://10.0.0.3:8001 to the pool\n"))  # fmt: skip
        self.assertEqual(self.names()[-1], "http://10.0.0.3:8001")
        self.assertEqual(self.events[-1][3]["call"], "addByQuery")
        for target, status, words in (
            ("/api/add", 400, "Missing url parameter"), ("/api/add?url=", 400, "Missing url parameter"),
            ("/api/add?url=http://10.0.0.3:8001/", 409, "already"), ("/api/add?url=10.0.0.1:8001", 409, "already"),
            ("/api/add?url=ftp://x", 400, "url:"), ("/api/add?url=http://10.0.0.4:99999", 400, "url:"),
            ("/api/add?url=http://x:1&weight=2", 400, "weight"), ("/api/add?url=http://x:1&pool=no", 404, "no"),
        ):  # fmt: skip
            refused = self.ask("POST", target)
            self.assertEqual((target, refused.status), (target, status))
            self.assertIn(words, refused.detail)
        self.assertEqual(self.ask("GET", "/api/add?url=http://10.0.0.9:1").status, 405)
        self.assertEqual((len(self.names()), len(self.events)), (3, 1))

    def test_add(self) -> None:
        """Adding twice is as adding once; a weight is set, also of one that is there."""
        for body, weight in (({"url": "http://10.0.0.3:8001"}, 1), ({"url": "http://10.0.0.3:8001"}, 1),
                             ({"url": "http://10.0.0.3:8001", "weight": 5}, 5), ({"url": "10.0.0.3:8001"}, 5),
                             ({"url": "http://10.0.0.3:8001", "weight": 5}, 5)):  # fmt: skip
            answer = self.ask("POST", "/admin/add", body)
            self.assertEqual(
                (answer.status, answer.json()), (200, {"url": body["url"], "weight": weight, "pool": "web"})
            )
        self.assertEqual([fields["changes"] for _, _, _, fields in self.events],
                         [["http://10.0.0.3:8001: added"], ["http://10.0.0.3:8001: changed"]])  # fmt: skip
        wrong: Any
        for wrong in ({}, {"url": 3}, {"url": "http://x:1", "weight": "3"}, {"url": "http://x:1", "wait": 1}, []):
            self.assertEqual((wrong, self.ask("POST", "/admin/add", wrong).status), (wrong, 422))
        self.assertEqual(self.ask("POST", "/admin/add", b'{"url": "a:1", "url": "b:1"}').status, 400)

    def test_remove(self) -> None:
        """By URL, however it is written; one that is not there is 404; the last one may go too."""
        answer = self.ask("POST", "/admin/remove", {"url": "http://10.0.0.1:8001/"})
        self.assertEqual((answer.status, self.names()), (200, ["http://10.0.0.2:8001"]))
        self.assertEqual(self.control.asked[-1][2:], ("web", "a", None))
        self.assertEqual(self.ask("POST", "/admin/remove", {"url": "http://10.0.0.1:8001"}).status, 404)
        self.assertEqual(self.ask("POST", "/admin/remove", {"url": "10.0.0.2:8001"}).status, 200)
        self.assertEqual(self.names(), [])

    def test_metrics(self) -> None:
        """Who asks /metrics for JSON gets the array, in nanoseconds; everybody else the metrics."""
        self.control.pools  # noqa: B018 - makes the live ones
        a = self.control.live["web", "a"]
        a.health, a.active, a.latency, a.failures["upstream_reset"] = "up", 2, 0.015, 3
        answer = self.ask("GET", "/metrics", **JSON)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(
            answer.json(),
            [{"url": "http://10.0.0.1:8001", "alive": True, "active_conns": 2, "latency": 15_000_000, "fails": 3},
             {"url": "http://10.0.0.2:8001", "alive": False, "active_conns": 0, "latency": 0, "fails": 0}],
        )  # fmt: skip
        for accept, is_json in (("application/json, text/plain, */*", True), ("*/*", False), ("", False),
                                ("text/plain, application/json;q=0.5", False), ("application/json;q=0", False),
                                ("application/openmetrics-text;version=1.0.0,application/json", False),
                                ("APPLICATION/JSON; charset=utf-8", True)):  # fmt: skip
            wire = self.send("GET", "/metrics", Accept=accept)
            for _ in range(50):
                self.clock.advance(0)
            self.assertEqual((accept, b"Content-Type: application/json" in wire.value()), (accept, is_json))
            self.assertIn(b"\r\nVary: Accept\r\n", wire.value())


class TwoPoolsTests(AskingCase):
    file = TWO_POOLS

    def test_which_pool(self) -> None:
        """Where there are several, ?pool= says which; without it 400 says so, and health is of all."""
        self.assertEqual(len(self.ask("GET", "/api/health").json()), 3)
        self.assertEqual(self.ask("GET", "/api/health?pool=odd+name%2F1").json(), {"http://app.example:80": False})
        self.assertEqual(self.ask("GET", "/api/info?pool=odd%20name/1").json(), {"algorithm": "least_connections"})
        self.assertEqual(self.ask("GET", "/api/health?pool=nope").status, 404)
        for method, target, body in (("GET", "/api/info", b""), ("POST", "/api/add?url=http://x:1", b""),
                                     ("POST", "/admin/add", {"url": "http://x:1"}),
                                     ("POST", "/admin/remove", {"url": "10.0.0.1:8001"})):  # fmt: skip
            answer = self.ask(method, target, body)
            self.assertEqual((target, answer.status), (target, 400))
            self.assertIn("?pool=", answer.detail)
        self.assertEqual(self.ask("POST", "/admin/add?pool=web", {"url": "http://x.example:1"}).json()["pool"], "web")
