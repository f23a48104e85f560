"""Thousands of connections and requests at one time: none fails, limits hold, and then nothing is left of them."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections import Counter
from unittest.mock import patch

from lbsvc.net.listener import raise_descriptor_limit
from tests.integration.cases import ProcessTestCase, config
from tests.kit import processes
from tests.kit.gates import GatedBackends
from tests.kit.moods import LocalClient
from tests.kit.processes import Balancer, RawClient, free_ports, until

IDLE, REQUESTS, TUNNELS = 1200, 1200, 600
NAMES = ("a", "b", "c")
#: Checks that find out soon.
QUICK = {"type": "tcp", "interval": "100ms", "timeout": "10s", "rise": 1, "fall": 1}


def descriptors(balancer: Balancer) -> int:
    """How many the process has."""
    return len(os.listdir(f"/proc/{balancer.pid}/fd"))


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: stress.example", *headers, "", ""]).encode()


class StressCase(ProcessTestCase):
    """Many clients, and what must be true when they have gone."""

    def setUp(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        self.assertGreater(raise_descriptor_limit(), 2 * (IDLE + REQUESTS + TUNNELS) + 500)
        self.clients: list[RawClient] = []
        self.addCleanup(self.leave)

    def gated(self, *names: str, port: int = 0) -> GatedBackends:
        backends = GatedBackends(*names, port=port)
        self.addCleanup(backends.stop)
        return backends

    def connect(self, port: int, count: int, host: str = "127.0.0.1") -> list[RawClient]:
        """So many connections of one client."""
        made: list[RawClient] = [LocalClient(port, host) for _ in range(count)]
        self.clients += made
        return made

    def ask(self, port: int, count: int, word: str, *headers: str) -> dict[str, RawClient]:
        """So many requests, each on a connection of its own, by their paths; nobody waits for the answers."""
        clients = {f"/{word}/{number}": client for number, client in enumerate(self.connect(port, count))}
        for path, client in clients.items():
            client.send(request(path, *headers))
        return clients

    def answers(self, clients: dict[str, RawClient]) -> Counter[str]:
        """Each gets the answer to its own request; who has answered."""
        found = Counter[str]()
        for path, client in clients.items():
            answer = client.response()
            self.assertEqual(answer.status, 200, answer.raw)
            name, _, asked = answer.body.decode().partition(" ")
            self.assertEqual(asked, path)
            found[name] += 1
        return found

    def leave(self) -> None:
        """Everybody goes."""
        for client in self.clients:
            client.sock.close()
        self.clients.clear()

    def assert_nothing_left(self, balancer: Balancer, before: int) -> None:
        """No connection, no request, nobody in a queue; of descriptors those of connections that wait for more requests."""
        self.leave()
        for gauge in ("lbsvc_listener_connections", "lbsvc_http_requests_in_flight", "lbsvc_backend_active"):
            until(lambda gauge=gauge: balancer.metric(gauge) == 0, f"{gauge} 0: {balancer.metric(gauge)}")
        self.assertEqual(balancer.metric("lbsvc_queue_length"), 0)

        def is_as_before() -> bool:
            return descriptors(balancer) - int(balancer.metric("lbsvc_backend_connections")) <= before

        until(is_as_before, f"as many descriptors as the {before} before: {descriptors(balancer)}")
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        self.assertNotIn("Unhandled", balancer.text + balancer.errors)


class ThousandsTests(StressCase):
    def test_at_once(self) -> None:
        """Three thousand connections at one time on both roads, 1800 of them with a request at a backend, beside idle
        ones: each gets its own answer and none fails, evenly from all backends; nothing is left (TST-7, L18)."""
        backends = self.gated(*NAMES)
        web, raw, admin = free_ports(3)
        members = [{"name": name, "address": address} for name, address in backends.addresses.items()]
        pools = {name: {"backends": members, "health_check": "off"} for name in ("web", "raw")}
        listeners = {
            "main": {"bind": f"127.0.0.1:{web}", "pool": "web"},
            "raw": {"bind": f"127.0.0.1:{raw}", "protocol": "tcp", "pool": "raw"},
        }
        balancer = self.start(config(listeners, pools, admin=admin, access_log="off")).ready()
        before = descriptors(balancer)
        backends.open()
        idle = self.ask(web, IDLE, "idle")
        self.assertEqual(sum(self.answers(idle).values()), IDLE)

        backends.shut()
        asked = backends.asked.copy()
        busy, tunnels = self.ask(web, REQUESTS, "busy"), self.ask(raw, TUNNELS, "tunnel")
        everyone = REQUESTS + TUNNELS
        until(lambda: backends.held.total() == everyone, f"{everyone} at once: {backends.held}")
        for name in NAMES:
            self.assertAlmostEqual(backends.held[name] / everyone, 1 / len(NAMES), delta=0.1 / len(NAMES))
        self.assertEqual(balancer.metric("lbsvc_listener_connections", listener="main"), IDLE + REQUESTS)
        self.assertEqual(balancer.metric("lbsvc_listener_connections", listener="raw"), TUNNELS)
        self.assertEqual(balancer.metric("lbsvc_http_requests_in_flight"), REQUESTS)
        self.assertEqual(balancer.metric("lbsvc_backend_active"), everyone)
        backends.open()
        found = self.answers(busy) + self.answers(tunnels)
        self.assertEqual(found, backends.asked - asked)
        for path, client in idle.items():
            client.send(request(path))
        self.assertEqual(sum(self.answers(idle).values()), IDLE)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)
        self.assertEqual(balancer.metric("lbsvc_http_requests_total", code="200"), 2 * IDLE + REQUESTS)
        self.assertEqual(balancer.metric("lbsvc_http_requests_total"), 2 * IDLE + REQUESTS)
        self.assert_nothing_left(balancer, before)

    def test_failover(self) -> None:
        """Of a thousand requests at one time half are at a backend that dies: each is answered by another. It returns, and
        takes its share again (TST-7)."""
        stays, dies = self.gated("a"), self.gated("b")
        members = [{"name": name, "address": each.addresses[name]} for each, name in ((stays, "a"), (dies, "b"))]
        retry = {"attempts": 3, "budget": "100%", "backoff": {"initial": "0s", "max": "0s"}}
        balancer, port = self.serve(*members, pool={"health_check": QUICK, "retry": retry}, access_log="off")
        before = descriptors(balancer)
        clients = self.ask(port, 1000, "failover")
        until(lambda: stays.held.total() == dies.held.total() == 500, "500 at each")
        dies.stop()
        until(lambda: stays.held.total() == 1000, "all at the one that stays")
        stays.open()
        self.assertEqual(self.answers(clients), {"a": 1000})
        self.assertEqual(balancer.metric("lbsvc_retries_total"), 500)
        until(lambda: balancer.metric("lbsvc_backend_state", backend="b", state="down") == 1, "b is down")
        self.leave()
        again = self.gated("b", port=int(members[1]["address"].rpartition(":")[2]))
        again.open()
        until(lambda: balancer.metric("lbsvc_backend_state", backend="b", state="up") == 1, "b is up")
        self.assertEqual(self.answers(self.ask(port, 200, "again")), {"a": 100, "b": 100})
        self.assert_nothing_left(balancer, before)


class LimitTests(StressCase):
    def test_admission(self) -> None:
        """Limits hold for hundreds at once: of a listener (the others wait), of a client (429, nobody else is hurt), of a
        backend (a queue, and 503 past it); all that was admitted is answered, and nothing is left."""
        backends = self.gated("a")
        ports = free_ports(4)
        own = [{"match": {"path": "/*"}, "respond": {"status": 200, "body": "a /own"}}]
        places = {"web": {"max_connections": 100}, "client": {"connections_per_client": 50}, "queue": {}}
        listeners = {
            name: {"bind": f"127.0.0.1:{port}", **more, **({"pool": "web"} if name == "queue" else {"routes": own})}
            for (name, more), port in zip(places.items(), ports, strict=False)
        }
        member = {"name": "a", "address": backends.addresses["a"], "max_connections": 50}
        pools = {"web": {"backends": [member], "health_check": "off", "queue": {"size": 200, "timeout": "60s"}}}
        text = config(listeners, pools, admin=ports[3], access_log="off")
        balancer = self.start(text).ready()
        before = descriptors(balancer)

        # a listener's: whoever comes behind 100 idle ones waits until those go, and then is served
        first = self.connect(ports[0], 100)
        for client in first:
            client.send(request("/own"))
        self.assertEqual([client.response().status for client in first], [200] * 100)
        late = self.connect(ports[0], 500)
        for client in late:
            client.send(request("/own", "Connection: close"))
        self.assertEqual([client.get("/own").status for client in first], [200] * 100)
        self.assertEqual(balancer.metric("lbsvc_listener_connections", listener="web"), 100)
        self.assertEqual(balancer.metric("lbsvc_listener_connections_total", listener="web"), 100)
        for client in first:
            client.sock.close()
        self.assertEqual([client.response().status for client in late], [200] * 500)

        # a client's
        kept = self.connect(ports[1], 50)
        self.assertEqual([client.get("/own").status for client in kept], [200] * 50)
        others = self.connect(ports[1], 50, "127.0.0.2")
        surplus = self.connect(ports[1], 50)
        self.assertEqual([client.get("/own").status for client in surplus], [429] * 50)
        self.assertEqual([client.get("/own").status for client in others + kept], [200] * 100)
        self.assertEqual(balancer.metric("lbsvc_listener_rejected_total", listener="client", reason="connections"), 50)

        # a backend's
        waiting = self.ask(ports[2], 250, "queue")
        until(lambda: balancer.metric("lbsvc_queue_length") == 200, "200 in the queue")
        self.assertEqual(backends.held.total(), 50)
        refused = self.ask(ports[2], 150, "refused")
        for client in refused.values():
            answer = client.response()
            self.assertEqual((answer.status, answer.body.split()[1]), (503, b"queue_full"))
        backends.open()
        self.assertEqual(self.answers(waiting), {"a": 250})
        self.assert_nothing_left(balancer, before)


class DescriptorTests(StressCase):
    def test_idle_connections_take_them(self) -> None:
        """Idle connections that use up the descriptors make new ones wait; those that are there, the admin interface and a
        reload go on. Once there is room whoever waited is served, and nothing is left."""
        backends = self.gated("a")
        backends.open()
        few = ["sh", "-c", 'ulimit -n 400; exec "$@"', "sh", *processes.TWIST]
        own = {"routes": [{"match": {"path": "/own/*"}, "respond": {"status": 200, "body": "own"}}]}
        with patch.object(processes, "TWIST", few):
            balancer, port = self.serve(backends.addresses["a"], listener=own)
        before = descriptors(balancer)
        clients = list(self.ask(port, 250, "own").values())
        late = list(self.ask(port, 150, "own", "Connection: close").values())
        until(lambda: "listener.paused" in [line["event"] for line in balancer.events()], "accepting pauses")
        poll = select.poll()
        for client in clients + late:
            poll.register(client.sock, select.POLLIN)
        until(lambda: balancer.metric("lbsvc_listener_connections") == len(poll.poll(0)), "who is accepted is served")
        there = {number for number, _ in poll.poll(0)}
        served = [client for client in clients if client.sock.fileno() in there]
        self.assertIn(len(served), range(100, 250))
        self.assertEqual({client.response().body for client in served}, {b"own"})

        for client in served[:50]:
            self.assertEqual(client.get("/x").body, b"a /x")
        balancer.file.write_text(balancer.file.read_text().replace("body: own", "body: new"))
        balancer.signal(signal.SIGHUP)
        until(lambda: "config.reloaded" in [line["event"] for line in balancer.events()], "reloaded")
        self.assertEqual({client.get("/own/x").body for client in served}, {b"new"})
        waiting = [client for client in clients if client not in served] + late
        for client in served:
            client.sock.close()
        self.assertEqual({client.response().body for client in waiting}, {b"new"})
        self.assertEqual(balancer.metric("lbsvc_terminations_total", reason="overload"), 0)
        self.assert_nothing_left(balancer, before)
