"""Backends that die and come back, seen by clients."""

from __future__ import annotations

import threading
from collections import Counter

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import Nginx, RawClient, free_ports, get, until
from tests.kit.upstreams import Answer, Forever, RecordingBackend, Send, response

QUICK = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}


class KilledBackendTests(ProcessTestCase):
    def start_nginx(self, port: int) -> Nginx:
        return self.nginx(f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{port}"; }} }}', port)

    def test_no_errors_for_get(self) -> None:
        """One of three backends is killed under load: every GET is answered 200, and the rest take its share."""
        ports = free_ports(3)
        servers = [self.start_nginx(port) for port in ports]
        balancer, port = self.serve(*[f"127.0.0.1:{each}" for each in ports], pool={"health_check": QUICK})
        finished = threading.Event()
        served = Counter[bytes]()

        def load(_: int) -> Counter[tuple[int, bytes]]:
            seen = Counter[tuple[int, bytes]]()
            with RawClient(port) as client:
                while not finished.is_set():
                    answer = client.get("/")
                    seen[answer.status, b"" if answer.status == 200 else answer.body.split()[1]] += 1
                    served[answer.body] += 1
            return seen

        def murder(_: int) -> Counter[tuple[int, bytes]]:
            try:
                until(lambda: sum(served.values()) > 200, "under load")
                servers[0].process.kill()
                until(
                    lambda: balancer.metric("lbsvc_backend_state", backend=f"127.0.0.1:{ports[0]}", state="down"),
                    "down",
                )
                before = sum(served.values())
                until(lambda: sum(served.values()) > before + 200, "served by the others")
            finally:
                finished.set()
            return Counter()

        seen = sum(self.at_once(5, lambda n: load(n) if n else murder(n)), Counter())
        self.assertEqual(set(seen), {(200, b"")}, seen)
        self.assertEqual(set(served), {b"%d" % each for each in ports})
        self.assertEqual(
            [line["backend"] for line in balancer.events() if line["event"] == "backend.down"],
            [f"127.0.0.1:{ports[0]}"],
        )

    def test_all_down_and_back(self) -> None:
        """With every backend down: 503 with its reason and one log line; service goes on with the first that returns."""
        ports = free_ports(2)
        servers = [self.start_nginx(port) for port in ports]
        balancer, port = self.serve(*[f"127.0.0.1:{each}" for each in ports], pool={"health_check": QUICK})
        for server in servers:
            server.process.kill()
        until(lambda: get(port).status == 503, "503")
        answer = get(port)
        self.assertTrue(answer.body.startswith(b"503 no_backend "), answer.body)
        until(lambda: any(line["event"] == "pool.empty" for line in balancer.events()), "logged as empty")
        (empty,) = [line for line in balancer.events() if line["event"] == "pool.empty"]
        for each in ports:
            self.assertIn(f"127.0.0.1:{each}", str(empty))
        self.start_nginx(ports[1])
        until(lambda: get(port).status == 200, "back in service")
        self.assertEqual(get(port).body, b"%d" % ports[1])


class DialTests(ProcessTestCase):
    def test_tcp_connections_go_elsewhere(self) -> None:
        """A tcp connection whose first backend refuses is served by another, each time."""
        (closed,) = free_ports(1)
        backend = self.backend(RecordingBackend([Send(b"served")]))
        _, port = self.serve(f"127.0.0.1:{closed}", backend.address, protocol="tcp")
        for _ in range(10):
            with RawClient(port) as client:
                self.assertEqual(client.exactly(6), b"served")

    def test_tcp_without_backends_closes(self) -> None:
        """With no backend to be had a tcp connection is closed, at once."""
        _, port = self.serve(f"127.0.0.1:{free_ports(1)[0]}", protocol="tcp")
        with RawClient(port) as client:
            self.assertEqual(client.rest(), b"")

    def test_refused_post_is_sent_elsewhere(self) -> None:
        """A POST of which nothing was sent goes to another backend, whole; it is not one the rules forbid."""
        (closed,) = free_ports(1)
        backend = self.backend(RecordingBackend([Forever(Answer(lambda head, body: response(body)))]))
        _, port = self.serve(f"127.0.0.1:{closed}", backend.address)
        for _ in range(4):
            with RawClient(port) as client:
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
                self.assertEqual(client.response().body, b"body")
