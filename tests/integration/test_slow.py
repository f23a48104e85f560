"""slowhttptest against us: thousands of clients that take their time, while those that do not are served as ever."""

from __future__ import annotations

import resource
import select
import socket
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import Balancer, RawClient, free_ports, get, until
from tests.kit.programs import Memory, SlowHttpTest, curl
from tests.kit.upstreams import named_backend

KIB = 1024
MIB = 1024 * KIB

#: As many as there are descriptors for, here and in slowhttptest; a system without limits gets the number promised.
THOUSANDS = min(2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 100)
HUNDREDS = min(400, THOUSANDS)
#: What the good ones add: their connections, log lines on their way, what a first request loads.
GOOD = 8 * MIB


class SlowCase(ProcessTestCase):
    def setUp(self) -> None:
        self.folder = self.scratch()
        self.finished = threading.Event()
        self.addCleanup(self.finished.set)

    def good_clients(self, port: int, count: int = 4) -> Future[Counter[bytes]]:
        """Clients that ask in a loop until `finished`, each time on a new connection; what they got, counted."""

        def ask(_: int) -> Counter[bytes]:
            seen = Counter[bytes]()
            while not self.finished.is_set():
                answer = get(port, "/good")
                seen[answer.body if answer.status == 200 else b"%d" % answer.status] += 1
            return seen

        pool = ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return pool.submit(lambda: sum(self.at_once(count, ask), Counter()))

    def attack(self, mode: str, port: int, *options: str, connections: int, seconds: int) -> SlowHttpTest:
        url = f"http://127.0.0.1:{port}/slow"
        attack = SlowHttpTest(mode, url, *options, folder=self.folder, connections=connections, seconds=seconds)
        self.addCleanup(attack.stop)
        return attack

    def settled(self, balancer: Balancer) -> None:
        """All clients have gone, and what they held is free."""
        until(lambda: balancer.metric("lbsvc_listener_connections", listener="main") == 0, "all connections ended")
        until(lambda: balancer.metric("lbsvc_backend_active") == 0, "all seats free")
        ended = balancer.metric("lbsvc_terminations_total", listener="main")
        until(lambda: len(balancer.access_lines()) == ended, "all logged")
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


class HeaderTests(SlowCase):
    def test_slowloris(self) -> None:
        """Two thousand header sections that never end: each is cut by its deadline, however often bytes come (TST-3)."""
        backend = self.backend(named_backend("good"))
        balancer, port = self.serve(backend.address, listener={"timeouts": {"request_header": "3s"}})
        self.assertEqual(get(port).body, b"good")
        memory = Memory(balancer.pid)
        good = self.good_clients(port)
        report = self.attack("-H", port, "-i", "1", "-x", "24", connections=THOUSANDS, seconds=60).result()
        self.finished.set()
        self.assertEqual(set(good.result()), {b"good"})
        self.assertGreater(good.result()[b"good"], 20)
        self.assertEqual((report.ended, report.available), ("No open connections left", True))
        self.assertGreater(report.connected, HUNDREDS)
        self.assertLess(memory.growth, GOOD + THOUSANDS * 16 * KIB)
        self.settled(balancer)
        lines = balancer.access_lines()
        slow = [line for line in lines if line["reason"] != "ok"]
        self.assertEqual({(line["status"], line["reason"]) for line in slow}, {(408, "client_timeout")})
        self.assertEqual(len(slow), balancer.metric("lbsvc_terminations_total", reason="client_timeout"))
        asked = sum(received.count(b"\r\n\r\n") for received in backend.received)
        self.assertEqual(asked, len(lines) - len(slow))

    def test_limit_of_each_client(self) -> None:
        """With `connections_per_client` the slow ones of one address do not take the places of others."""
        backend = self.backend(named_backend("good"))
        limits = {"connections_per_client": 50, "max_connections": 200, "timeouts": {"request_header": "30s"}}
        balancer, port = self.serve(backend.address, listener=limits)
        attack = self.attack("-H", port, "-i", "1", connections=HUNDREDS, seconds=8)
        until(lambda: balancer.metric("lbsvc_listener_rejected_total", reason="connections") > 50, "surplus refused")
        for _ in range(20):
            answer = curl("--interface", "127.0.0.2", f"http://127.0.0.1:{port}/good", folder=self.folder)
            self.assertEqual(answer.stdout, b"good")
        self.assertIsNone(attack.process.poll())
        attack.result()
        self.settled(balancer)


class BodyTests(SlowCase):
    def test_slow_bodies(self) -> None:
        """Bodies that drip are allowed; those that fall silent are cut with 408, and no backend is blamed for them."""
        backend = self.backend(named_backend("good"))
        balancer, port = self.serve(backend.address, listener={"timeouts": {"request_body": "1s"}})
        self.assertEqual(get(port).body, b"good")
        memory = Memory(balancer.pid)
        good = self.good_clients(port)
        report = self.attack("-B", port, "-i", "3", "-s", "100000", connections=HUNDREDS, seconds=60).result()
        self.finished.set()
        self.assertEqual(set(good.result()), {b"good"})
        self.assertEqual((report.ended, report.available), ("No open connections left", True))
        self.assertLess(memory.growth, GOOD + HUNDREDS * 64 * KIB)
        self.settled(balancer)
        cut = Counter((line["status"], line["reason"]) for line in balancer.access_lines() if line["reason"] != "ok")
        self.assertEqual(set(cut), {(408, "client_timeout")})

    def test_a_body_that_drips(self) -> None:
        """One byte now and then is no silence: the request is served whole, though others are cut for it meanwhile."""
        backend = self.backend(named_backend("good"))
        balancer, port = self.serve(backend.address, listener={"timeouts": {"request_body": "1s"}})
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        with RawClient(port) as dripping:
            dripping.send(head)
            sent = 0
            for _ in range(3):  # three times as long as the deadline, by the deadline's own clock
                with RawClient(port) as silent:
                    silent.send(head)
                    silent.sock.settimeout(0.05)
                    while not self.has_ended(silent):
                        dripping.send(b"x")
                        sent += 1
                    self.assertIn(b"HTTP/1.1 408 ", silent.buffer)
            dripping.send(b"x" * (1_000_000 - sent))
            self.assertEqual(dripping.response().body, b"good")
        self.settled(balancer)

    def has_ended(self, client: RawClient) -> bool:
        try:
            return not client.more()
        except TimeoutError:
            return False


class ReadTests(SlowCase):
    def test_slow_reading(self) -> None:
        """Clients that read some bytes a second of large answers, several times over: we hold little for each."""
        (back,) = free_ports(1)
        server = self.nginx(
            f'server {{ listen 127.0.0.1:{back}; root @FOLDER@; location /good {{ return 200 "good"; }} }}', back
        )
        (Path(server.command[2]) / "slow").write_bytes(bytes(4 * MIB))
        balancer, port = self.serve(f"127.0.0.1:{back}", listener={"timeouts": {"write": "2s"}})
        self.assertEqual(get(port, "/good").body, b"good")
        memory = Memory(balancer.pid)
        good = self.good_clients(port)
        options = ["-k", "3", "-n", "1", "-z", "32", "-w", "512", "-y", "1024"]
        report = self.attack("-X", port, *options, connections=HUNDREDS, seconds=8).result()
        self.finished.set()
        self.assertEqual(set(good.result()), {b"good"})
        self.assertTrue(report.available)
        self.assertGreater(report.connected + report.closed, HUNDREDS // 2)
        self.assertLess(memory.growth, GOOD + HUNDREDS * 256 * KIB)
        self.settled(balancer)

    def test_a_reader_that_sips(self) -> None:
        """Who takes a little now and then is served whole, though others who take nothing are cut for it meanwhile."""
        size = 16 * MIB
        backend = self.backend(named_backend("x" * size))
        _, port = self.serve(backend.address, listener={"timeouts": {"write": "1s"}})
        with self.reader(port) as sipping:
            got = len(sipping.recv(4096))
            for _ in range(3):  # three times as long as the deadline, by the deadline's own clock
                with self.reader(port) as stalled:
                    poll = select.poll()
                    poll.register(stalled, select.POLLERR)
                    for _ in range(1200):
                        if poll.poll(50):
                            break
                        got += len(sipping.recv(4096))
                    else:
                        self.fail("a client that reads nothing was not cut")
            while got < size and (piece := sipping.recv(MIB)):
                got += len(piece)
        self.assertGreaterEqual(got, size)

    def reader(self, port: int) -> socket.socket:
        """A client that has asked, with a small window."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return sock
