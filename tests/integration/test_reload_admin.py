"""Changes of the admin interface itself, races of those who change, and who watches, with the real process."""

from __future__ import annotations

import json
import signal

from tests.integration.cases import ProcessTestCase
from tests.kit.operating import Operator, ask
from tests.kit.processes import RawClient, answers, free_port, until
from tests.kit.upstreams import RecordingBackend, named_backend

RESPOND = [{"match": {"path": "/*"}, "respond": {"status": 200, "body": "ok"}}]


class AdminTests(ProcessTestCase):
    def setUp(self) -> None:
        backend = self.backend(named_backend("one"))
        self.balancer, _ = self.serve({"address": backend.address, "name": "one"})
        self.operator = Operator(self.balancer)

    def test_read_only(self) -> None:
        """`read_only` takes effect at once; SIGHUP is the way back."""
        self.operator.tree["admin"]["read_only"] = True
        self.operator.apply()
        path = "/pools/web/backends/one"
        self.assertEqual(self.operator.api("PATCH", path, {"weight": 2}).status, 403)
        self.assertEqual(self.operator.api("POST", "/reload").status, 403)
        self.assertEqual(self.operator.api("GET", "/status").status, 200)
        self.operator.tree["admin"]["read_only"] = False
        self.operator.write()
        self.balancer.signal(signal.SIGHUP)
        until(lambda: self.operator.api("PATCH", path, {"weight": 2}).status == 200, "changes are taken again")

    def test_token(self) -> None:
        """A token that comes, or changes, is asked for from then on, and an event stream that began without it ends."""
        with RawClient(self.operator.port) as stream:
            stream.send(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            stream.until(b"event: status")
            self.operator.tree["admin"]["token"] = "sesame"
            self.operator.apply()
            self.assertEqual(self.operator.api("GET", "/status").status, 401)
            self.assertEqual(self.operator.api("GET", "/status", Authorization="Bearer sesame").status, 200)
            self.operator.tree["admin"]["token"] = "another"
            self.operator.write()
            self.assertEqual(self.operator.api("POST", "/reload", Authorization="Bearer sesame").status, 200)
            self.assertEqual(self.operator.api("GET", "/status", Authorization="Bearer sesame").status, 401)
            self.assertNotIn(b"another", self.to_last_chunk(stream))
        self.assertNotIn("sesame", self.balancer.text + self.balancer.errors)

    def to_last_chunk(self, stream: RawClient) -> bytes:
        """What an event stream still says before it ends."""
        return stream.until(b"\r\n0\r\n\r\n")

    def test_refused_move(self) -> None:
        """A wider bind that is refused for another port's sake leaves the admin interface where it was."""
        other = self.backend(RecordingBackend())
        tree = self.operator.tree
        tree["admin"] = {"bind": f"0.0.0.0:{self.operator.port}", "token": "sesame"}
        tree["listeners"]["second"] = {"bind": other.address, "routes": RESPOND}
        (error,) = self.operator.reload().value["errors"]
        self.assertIn("listeners.second.bind: ", error)
        self.assertEqual(self.operator.api("GET", "/status").status, 200)
        tree["admin"] = {"bind": f"127.0.0.1:{self.operator.port}", "token": "sesame"}
        del tree["listeners"]["second"]
        self.operator.apply()

    def test_bind_and_hosts(self) -> None:
        """The admin interface moves, and knows other names; the answer to who asked for that is still sent."""
        former, port = self.operator.port, free_port()
        self.operator.tree["admin"] = {"bind": f"127.0.0.1:{port}", "hosts": ["lb.example"]}
        self.assertIn(f"admin.bind: 127.0.0.1:{port}", self.operator.apply())
        until(lambda: not answers(former), "closed where it was")
        self.assertEqual(ask(port, "GET", "/api/v1/status", Host="lb.example").status, 200)
        self.assertEqual(ask(port, "GET", "/api/v1/status", Host="evil.example").status, 421)
        self.operator.port = port
        self.operator.tree["admin"]["bind"] = f"0.0.0.0:{port}"
        self.assertEqual(self.operator.reload().status, 422)  # without a token
        self.operator.tree["admin"]["token"] = "sesame"
        self.operator.apply()
        answer = ask(port, "GET", "/api/v1/status", Authorization="Bearer sesame", Host="lb.example")
        self.assertEqual(answer.status, 200)

    def test_queue_of_a_bind_that_goes(self) -> None:
        """Everybody who waits in the queue of the former bind is answered."""
        clients = []
        self.balancer.signal(signal.SIGSTOP)
        for _ in range(120):
            client = RawClient(self.operator.port)
            self.addCleanup(client.sock.close)
            client.send(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            clients.append(client)
        self.operator.tree["admin"]["bind"] = f"127.0.0.1:{free_port()}"
        self.operator.write()
        self.balancer.signal(signal.SIGHUP)
        self.balancer.signal(signal.SIGCONT)
        self.assertEqual({client.response().status for client in clients}, {200})

    def test_race(self) -> None:
        """Of several who change what they have read, with If-Match, one is first; the others read again."""
        for _ in range(5):
            tag = self.operator.api("GET", "/pools/web").etag
            path = "/pools/web/backends/one"
            first = int(self.operator.api("GET", path).value["weight"])

            def change(number: int, tag: str = tag, path: str = path, first: int = first) -> int:
                return self.operator.api("PATCH", path, {"weight": first + 1 + number}, If_Match=tag).status

            self.assertEqual(sorted(self.at_once(8, change)), [200] + [412] * 7)

    def test_stream(self) -> None:
        """The event stream tells of changes and reloads, and does not hold up a stop."""
        with RawClient(self.operator.port) as stream:
            stream.send(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            stream.until(b"event: status\n")
            self.operator.set("web", "one", weight=5)
            self.operator.tree["pools"]["web"]["algorithm"] = "random"
            self.operator.apply()
            seen = b""
            while b"config.reloaded" not in seen:
                stream.until(b"event: change\ndata: ")
                seen += (line := stream.until(b"\n"))
                json.loads(line)
            self.assertIn(b'"event":"admin.change"', seen)
            self.assertIn(b"pools.web.algorithm: round_robin -> random", seen)
            self.balancer.signal(signal.SIGTERM)
            stream.rest()
            self.assertEqual(self.balancer.wait(10), -signal.SIGTERM)
