"""HTTP/2 under load while something goes: a backend that is killed, a drain; with h2load, and with grpcio."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # our processes are started beside its threads

import grpc

from tests.integration.cases import ProcessTestCase
from tests.kit.h2_wire import ACK, GOAWAY, OPENING, PING, H2Wire, ask, frame
from tests.kit.processes import Balancer, Child, Nginx, RawClient, answers, free_port, until

#: Streams that h2load keeps under way, on so many connections.
CONNECTIONS, STREAMS = 8, 10
DEADLINE = 20.0


class H2Load(Child):
    """A load of GETs; ended by its count, or by `signal`."""

    def __init__(self, port: int, folder: Path, count: int) -> None:
        size = ["-n", str(count), "-c", str(CONNECTIONS), "-m", str(STREAMS)]
        super().__init__(["h2load", *size, f"http://127.0.0.1:{port}/"], folder=folder)

    def result(self) -> dict[str, int]:
        """What it counted: total, started, done, succeeded, failed, errored, timeout, 2xx, 5xx and so on."""
        self.wait(120)
        found = {}
        for line in re.findall(r"(?m)^(?:requests|status codes): (.*)$", self.text):
            for count, word in re.findall(r"(\d+) (\w+)", line):
                found[word] = int(count)
        assert found, self.report()
        return found


class KilledTests(ProcessTestCase):
    def backends(self, count: int) -> list[tuple[str, Nginx]]:
        """Servers of HTTP/2 without TLS, each one process."""
        made = []
        for _ in range(count):
            port = free_port()
            listen = f"listen 127.0.0.1:{port} http2; keepalive_requests 10000000;"
            servers = f'server {{ {listen} location / {{ return 200 "hello"; }} }}'
            made.append((f"h2c://127.0.0.1:{port}", self.nginx(servers, port)))
        return made

    def under_load(self, count: int, **pool: object) -> tuple[Balancer, dict[str, int]]:
        """One of two backends is killed when a part of the load is over."""
        (first, _), (second, victim) = self.backends(2)
        balancer, port = self.serve(first, second, pool={"algorithm": "rr", "passive_health": "off", **pool})
        load = H2Load(port, self.scratch(), count)
        self.addCleanup(load.stop)
        until(lambda: balancer.metric("lbsvc_http_requests_total") > count // 10, "under load")
        victim.signal(signal.SIGKILL)
        found = load.result()
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        self.assertEqual(balancer.metric("lbsvc_http_requests_in_flight"), 0)
        self.assertEqual(balancer.metric("lbsvc_backend_active"), 0)
        return balancer, found

    def test_with_retries(self) -> None:
        """GETs that were on the backend that is killed are tried elsewhere: none fails."""
        balancer, found = self.under_load(20_000, retry={"attempts": 3, "when": ["connect_failure", "reset"]})
        self.assertEqual((found["succeeded"], found["2xx"]), (20_000, 20_000), found)
        self.assertGreater(balancer.metric("lbsvc_retries_total"), 0)

    def test_without_retries(self) -> None:
        """What was under way on it fails, and is all that does until checks or an ejection send nothing there any more."""
        ejecting = {"failures": 1, "window": "10s", "eject": "60s", "max_ejected": "50%"}
        balancer, found = self.under_load(20_000, retry="off", passive_health=ejecting)
        self.assertEqual((found["done"], found["errored"], found["timeout"]), (20_000, 0, 0), found)
        self.assertGreater(found["5xx"], 0)
        self.assertLessEqual(found["5xx"], CONNECTIONS * STREAMS)
        self.assertEqual(found["2xx"] + found["5xx"], 20_000)
        reasons = Counter(line["reason"] for line in balancer.access_lines() if line["status"] != 200)
        self.assertLessEqual(set(reasons), {"upstream_reset", "connect_failed"})

    def test_cut_answer(self) -> None:
        """An answer that is under way from the backend that is killed is not taken for a whole one."""
        for version, code in (("--http2-prior-knowledge", 92), ("--http1.1", 18)):
            port, folder = free_port(), self.scratch()
            (folder / "large").write_bytes(bytes(8 * 1024 * 1024))
            slowly = f"alias {folder}/; limit_rate 200k; gzip off;"
            victim = self.nginx(f"server {{ listen 127.0.0.1:{port} http2; location / {{ {slowly} }} }}", port)
            balancer, front = self.serve(f"h2c://127.0.0.1:{port}")
            got = folder / "got"
            client = Child(
                ["curl", "-q", "-sS", version, "-N", "-o", str(got), f"http://127.0.0.1:{front}/large"], folder=folder
            )
            self.addCleanup(client.stop)
            until(lambda got=got: got.exists() and got.stat().st_size > 100_000, "a part has come")  # type: ignore[misc]
            victim.signal(signal.SIGKILL)
            self.assertEqual(client.wait(), code, client.errors)
            until(lambda balancer=balancer: balancer.access_lines(), "logged")  # type: ignore[misc]
            (line,) = balancer.access_lines()
            self.assertEqual((line["status"], line["reason"]), (200, "upstream_reset"))
            balancer.stop()


class DrainTests(ProcessTestCase):
    def test_under_load(self) -> None:
        """TERM under load: GOAWAY is said twice, every request that was begun is answered, exit by the signal."""
        port = free_port()
        self.nginx(f'server {{ listen 127.0.0.1:{port} http2; location / {{ return 200 "hello"; }} }}', port)
        balancer, front = self.serve(f"h2c://127.0.0.1:{port}")
        load = H2Load(front, self.scratch(), 10_000_000)
        self.addCleanup(load.stop)
        with RawClient(front) as client:
            wire = H2Wire(client)
            client.send(OPENING)
            wire.settle()
            until(lambda: balancer.metric("lbsvc_http_requests_total") > 2000, "under load")
            balancer.signal(signal.SIGTERM)
            said = []
            for each in wire.frames():
                if each.kind == GOAWAY:
                    said.append((int.from_bytes(each.payload[:4], "big"), each.code))
                if each.kind == PING and not each.flags & ACK:
                    wire.send(frame(PING, ACK, 0, each.payload))
            self.assertEqual(said, [(0x7FFFFFFF, 0), (0, 0)])
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        found = load.result()
        lines = balancer.access_lines()
        self.assertEqual({(line["status"], line["reason"]) for line in lines}, {(200, "ok")})
        self.assertEqual(found["2xx"], len(lines))
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_begun_late(self) -> None:
        """Between the two GOAWAYs a request is still answered: its client cannot know."""
        port = free_port()
        self.nginx(f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}', port)
        balancer, front = self.serve(f"127.0.0.1:{port}")
        with RawClient(front) as client:
            wire = H2Wire(client)
            client.send(OPENING)
            wire.settle()
            balancer.signal(signal.SIGTERM)
            first = wire.until(GOAWAY)[-1]
            self.assertEqual(first.payload[:4], b"\x7f\xff\xff\xff")
            wire.send(ask(1))
            self.assertEqual(wire.answer(1), (200, b"hello"))
        self.assertEqual(balancer.wait(), -signal.SIGTERM)


class GrpcTests(ProcessTestCase):
    def server(self) -> tuple[int, Child]:
        """A server of grpcio in a process of its own."""
        port = free_port()
        child = Child([sys.executable, "-m", "tests.kit.grpc_server", str(port)], folder=self.scratch())
        self.addCleanup(child.stop)
        until(lambda: answers(port), "the server listens")
        return port, child

    def killed(self, **pool: object) -> tuple[Counter[str], Balancer]:
        """One of two servers is killed under the load of eight callers; how the calls ended, by code."""
        (first, _), (second, victim) = self.server(), self.server()
        balancer, port = self.serve(
            f"h2c://127.0.0.1:{first}", f"h2c://127.0.0.1:{second}", pool={"algorithm": "rr", **pool}
        )
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])
        self.addCleanup(channel.close)
        echo = channel.unary_unary("/t.T/Echo")
        done = threading.Event()

        def calls(job: int) -> Counter[str]:
            if job == 8:
                until(lambda: balancer.metric("lbsvc_grpc_requests_total") > 400, "under load")
                victim.signal(signal.SIGKILL)
                before = balancer.metric("lbsvc_grpc_requests_total")
                until(lambda: balancer.metric("lbsvc_grpc_requests_total") > before + 400, "under load again")
                done.set()
                return Counter()
            ended: Counter[str] = Counter()
            while not done.is_set():
                try:
                    assert echo(b"x", timeout=DEADLINE) == b"x"
                    ended["OK"] += 1
                except grpc.RpcError as error:
                    ended[error.code().name] += 1
            return ended

        return sum(self.at_once(9, calls), Counter()), balancer

    def test_with_retries(self) -> None:
        """`retry.when: [unavailable, reset]` hides a server that is killed from callers whose methods may be repeated."""
        when = {"attempts": 3, "when": ["connect_failure", "reset", "unavailable"], "methods": ["GET", "POST"]}
        ended, balancer = self.killed(retry=when)
        self.assertEqual(set(ended), {"OK"}, ended)
        self.assertGreater(balancer.metric("lbsvc_retries_total"), 0)

    def test_without_retries(self) -> None:
        """Without retries what fails is UNAVAILABLE, in the callers' eyes as in the metric, and nothing else."""
        ejecting = {"failures": 1, "window": "10s", "eject": "60s", "max_ejected": "50%"}
        ended, balancer = self.killed(retry="off", passive_health=ejecting)
        self.assertLessEqual(set(ended), {"OK", "UNAVAILABLE"}, ended)
        self.assertLessEqual(ended["UNAVAILABLE"], 8)
        self.assertEqual(balancer.metric("lbsvc_grpc_requests_total", grpc_status="14"), ended["UNAVAILABLE"])
