"""`twist --reactor NAME loadbalancer`: on Twisted's own reactors everything works too, only slower."""

from __future__ import annotations

import os
import signal
from unittest.mock import patch

from tests.integration.cases import ProcessTestCase
from tests.kit import processes
from tests.kit.processes import RawClient, answers, get, until
from tests.kit.upstreams import echo_backend, named_backend

QUESTION = os.urandom(2 << 20)


class SelectTests(ProcessTestCase):
    reactor = "select"

    def setUp(self) -> None:
        patched = patch.object(processes, "TWIST", [*processes.TWIST, "--reactor", self.reactor])
        patched.start()
        self.addCleanup(patched.stop)

    def test_tcp(self) -> None:
        """A tcp listener: intact bytes, half-close, the limit of connections, and a drain that ends."""
        backend = self.backend(echo_backend())
        balancer, port = self.serve(backend.address, protocol="tcp", listener={"max_connections": 3})
        clients = [RawClient(port) for _ in range(5)]
        for client in clients:
            self.addCleanup(client.sock.close)
        for client in clients[:3]:
            client.send(b"hello")
            self.assertEqual(client.exactly(5), b"hello")
        self.assertEqual(balancer.metric("lbsvc_listener_connections_total", listener="main"), 3)
        for client in clients:
            self.at_once(2, lambda n, client=client: self.talk(client) if n else self.listen(client))
            client.sock.close()
        self.assertEqual(balancer.metric("lbsvc_listener_connections_total", listener="main"), 5)
        until(lambda: balancer.metric("lbsvc_terminations_total", reason="ok") == 5, "all five ok")
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def talk(self, client: RawClient) -> None:
        client.send(QUESTION)
        client.finish()

    def listen(self, client: RawClient) -> None:
        self.assertEqual(client.rest(), QUESTION)

    def test_http(self) -> None:
        """An http listener: kept connections to clients and backends, and a drain that ends."""
        backend = self.backend(named_backend("there"))
        balancer, port = self.serve(backend.address)
        with RawClient(port) as client:
            for _ in range(5):
                self.assertEqual(client.get("/").body, b"there")
        self.assertEqual(get(port).body, b"there")
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertFalse(answers(port))
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


class AsyncioTests(SelectTests):
    reactor = "asyncio"


class PollTests(SelectTests):
    reactor = "poll"
