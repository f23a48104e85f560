"""The service with few descriptors: accepting pauses before they run out, and nobody is reset."""

from __future__ import annotations

from unittest.mock import patch

from tests.integration.cases import ProcessTestCase
from tests.kit import processes
from tests.kit.processes import RawClient
from tests.kit.upstreams import echo_backend

LIMIT = 300
AT_ONCE, OPEN, ROUNDS = 8, 40, 6


class DescriptorTests(ProcessTestCase):
    def test_more_connections_than_descriptors(self) -> None:
        """Thousands of connections, more at a time than there are descriptors: all are served, and it is said once."""
        few = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *processes.TWIST]
        backend = self.backend(echo_backend())
        with patch.object(processes, "TWIST", few):
            balancer, port = self.serve(backend.address, protocol="tcp")

        def load(number: int) -> int:
            served = 0
            for _ in range(ROUNDS):
                clients = [RawClient(port) for _ in range(OPEN)]
                for client in clients:
                    client.send(b"%03d" % number)
                for client in clients:
                    with client:
                        served += client.exactly(3) == b"%03d" % number
            return served

        self.assertEqual(self.at_once(AT_ONCE, load), [ROUNDS * OPEN] * AT_ONCE)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)
        self.assertEqual(balancer.metric("lbsvc_terminations_total", reason="overload"), 0)
        paused = [line for line in balancer.events() if line["event"] == "listener.paused"]
        self.assertEqual([line["limit"] for line in paused], [LIMIT])
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
