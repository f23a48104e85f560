"""Backends that die and come back, seen by clients."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import Balancer, Nginx, RawClient, free_ports, get, until
from tests.kit.programs import Wrk
from tests.kit.upstreams import Answer, Conversation, Forever, Hang, RecordingBackend, Request, Send, Step, response

QUICK = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}


class KilledBackendTests(ProcessTestCase):
    def start_nginx(self, port: int) -> Nginx:
        return self.nginx(f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{port}"; }} }}', port)

    def test_no_errors_for_get(self) -> None:
        """One of three backends is killed under load: every GET is answered 200, and the rest take its share (FO-1)."""
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


class WrkTests(ProcessTestCase):
    """A load of GETs by wrk, which counts every error that a client can see."""

    def start_nginx(self, port: int) -> Nginx:
        location = f'location / {{ return 200 "{port}"; }}'
        return self.nginx(f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; {location} }}", port)

    def served(self, balancer: Balancer, port: int) -> float:
        return balancer.metric("lbsvc_backend_requests_total", backend=f"127.0.0.1:{port}", code="2xx")

    def kill_under_load(self, pool: Mapping[str, Any]) -> Balancer:
        """kill -9 of one of three under load; wrk must have seen nothing but 2xx, and the others go on."""
        ports = free_ports(3)
        servers = [self.start_nginx(port) for port in ports]
        balancer, port = self.serve(*[f"127.0.0.1:{each}" for each in ports], pool=pool, access_log="off")
        load = Wrk(f"http://127.0.0.1:{port}/", folder=self.scratch())
        self.addCleanup(load.stop)
        until(lambda: self.served(balancer, ports[0]) > 100, "under load")
        servers[0].process.kill()
        servers[0].process.wait()
        before = [self.served(balancer, each) for each in ports]
        until(lambda: self.served(balancer, ports[1]) > before[1] + 100, "served by the second")
        until(lambda: self.served(balancer, ports[2]) > before[2] + 100, "served by the third")
        report = load.end()
        self.assertEqual(report.errors, {})
        self.assertGreater(report.requests, 300)
        self.assertGreater(balancer.metric("lbsvc_retries_total"), 0)
        until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 0, "all settled")
        answered = balancer.metric("lbsvc_http_requests_total", code="200")
        unanswered = balancer.metric("lbsvc_http_requests_total", code="499")  # when wrk was ended
        self.assertGreaterEqual(answered, report.requests)
        self.assertEqual(balancer.metric("lbsvc_http_requests_total"), answered + unanswered)
        return balancer

    def test_killed_with_checks(self) -> None:
        """With checks ten times a second: no error, and the backend is down."""
        balancer = self.kill_under_load({"health_check": QUICK})
        until(lambda: balancer.metric("lbsvc_backend_state", state="down") == 1, "down")

    def test_killed_without_checks(self) -> None:
        """With nobody to say that it is dead but the failed requests themselves: no error either."""
        self.kill_under_load({"health_check": "off"})

    def test_killed_between_checks(self) -> None:
        """With the checks of the defaults, five seconds apart: no error in the gap."""
        self.kill_under_load({"health_check": {"type": "tcp"}})

    def test_restarted_again_and_again(self) -> None:
        """Backends that are killed and started in turn, as in a careless deployment: two of three are always there."""
        ports = free_ports(3)
        servers = {port: self.start_nginx(port) for port in ports}
        balancer, port = self.serve(
            *[f"127.0.0.1:{each}" for each in ports], pool={"health_check": QUICK}, access_log="off"
        )
        load = Wrk(f"http://127.0.0.1:{port}/", folder=self.scratch())
        self.addCleanup(load.stop)
        for each in ports:
            name = f"127.0.0.1:{each}"
            until(lambda each=each: self.served(balancer, each) > 100, f"{name} under load")
            servers[each].process.kill()
            servers[each].process.wait()
            until(lambda name=name: balancer.metric("lbsvc_backend_state", backend=name, state="down"), f"{name} down")
            self.start_nginx(each)
            until(lambda name=name: balancer.metric("lbsvc_backend_state", backend=name, state="up"), f"{name} up")
        self.assertEqual(load.end().errors, {})


class RecoveryTests(ProcessTestCase):
    def test_one_check_is_enough(self) -> None:
        """Every backend down: 503. The first check that passes brings service back: there never is a second one."""

        class FirstOnly(Step):
            def __init__(self) -> None:
                self.checks = 0

            def run(self, talk: Conversation) -> None:
                Request().run(talk)
                if b"GET /health " in talk.received:
                    self.checks += 1
                    if self.checks > 1:
                        Hang().run(talk)
                talk.send(response(b"back", "200 OK", "Connection: close"))

        ports = free_ports(2)
        check = {**QUICK, "interval": "500ms"}
        balancer, port = self.serve(*[f"127.0.0.1:{each}" for each in ports], pool={"health_check": check})
        until(lambda: balancer.metric("lbsvc_backend_state", state="down") == 2, "both down")
        answer = get(port)
        self.assertEqual((answer.status, answer.body.split()[1]), (503, b"no_backend"))
        once = FirstOnly()
        self.backend(RecordingBackend([once], port=ports[1]))
        until(lambda: get(port).body == b"back", "back in service")
        names = [line["event"] for line in balancer.events() if line.get("backend") == f"127.0.0.1:{ports[1]}"]
        self.assertEqual(names[-1], "backend.up")
        until(lambda: any(line["event"] == "pool.available" for line in balancer.events()), "said so")


class DialTests(ProcessTestCase):
    def test_tcp_connections_go_elsewhere(self) -> None:
        """A tcp connection whose first backend refuses is served by another, each time (FO-1, A8)."""
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
        """A POST of which nothing was sent goes to another backend, whole; it is not one the rules forbid (FO-3,
        L3)."""
        (closed,) = free_ports(1)
        backend = self.backend(RecordingBackend([Forever(Answer(lambda head, body: response(body)))]))
        _, port = self.serve(f"127.0.0.1:{closed}", backend.address)
        for _ in range(4):
            with RawClient(port) as client:
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
                self.assertEqual(client.response().body, b"body")
