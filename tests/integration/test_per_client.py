"""connections_per_client with the real process: 429 where the client speaks HTTP, a closed connection where it does not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from unittest.mock import patch

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import RawClient, get, until
from tests.kit.upstreams import echo_backend, named_backend


class PerClientTests(ProcessTestCase):
    """Clients are addresses of loopback."""

    def come(self, port: int, host: str = "127.0.0.1") -> RawClient:
        """A client whose address is `host`."""
        with patch.object(socket.socket, "connect", _from(host)):
            client = RawClient(port)
        self.addCleanup(client.sock.close)
        return client

    def test_http(self) -> None:
        """The connection that is too many is told 429 and ends; others of that client, and other clients, go on."""
        backend = self.backend(named_backend("there"))
        limit = {"connections_per_client": 2}
        balancer, port = self.serve(backend.address, listener=limit)
        first, second = self.come(port), self.come(port)
        self.assertEqual([client.get("/").status for client in (first, second)], [200, 200])
        third = self.come(port)
        answer = third.get("/")
        self.assertEqual((answer.status, answer.body.split()[1]), (429, b"rate_limited"))
        self.assertEqual((answer.header("connection"), answer.header("retry-after")), ("close", "1"))
        self.assertEqual(third.rest(), b"")
        silent = self.come(port)
        self.assertEqual(silent.response().status, 429)
        self.assertEqual(self.come(port, "127.0.0.2").get("/").status, 200)
        self.assertEqual([client.get("/").status for client in (first, second)], [200, 200])
        # The third is still open at its own end, and does not have a place.
        open_now = balancer.metric("lbsvc_listener_connections")
        first.sock.close()
        until(lambda: balancer.metric("lbsvc_listener_connections") < open_now, "gone")
        self.assertEqual(self.come(port).get("/").status, 200)
        self.assertGreaterEqual(balancer.metric("lbsvc_listener_rejected_total", reason="connections"), 2)
        self.assertGreaterEqual(balancer.metric("lbsvc_http_requests_total", code="429"), 2)
        refused = until(lambda: [line for line in balancer.access_lines() if line["status"] == 429], "logged")
        self.assertEqual({line["reason"] for line in refused}, {"rate_limited"})

    def test_many(self) -> None:
        """Far past the limit connections are closed at once; when all are gone the client is as welcome as ever."""
        backend = self.backend(named_backend("there"))
        balancer, port = self.serve(backend.address, listener={"connections_per_client": 10})
        clients = [self.come(port) for _ in range(60)]
        until(lambda: balancer.metric("lbsvc_listener_rejected_total", reason="connections") == 50, "50 rejected")
        self.assertLessEqual(balancer.metric("lbsvc_listener_connections"), 26)
        self.assertEqual(sum(client.get("/").status == 200 for client in clients[:10]), 10)
        for client in clients:
            client.sock.close()
        until(lambda: balancer.metric("lbsvc_listener_connections") == 0, "nobody left")
        self.assertEqual(get(port).body, b"there")

    def test_tcp(self) -> None:
        """On a tcp listener it is closed at once, and no backend hears of it."""
        backend = self.backend(echo_backend())
        balancer, port = self.serve(backend.address, protocol="tcp", listener={"connections_per_client": 1})
        first = self.come(port)
        first.send(b"hello")
        self.assertEqual(first.exactly(5), b"hello")
        for _ in range(3):
            self.assertEqual(self.come(port).rest(), b"")
        other = self.come(port, "127.0.0.2")
        other.send(b"other")
        self.assertEqual(other.exactly(5), b"other")
        self.assertEqual(len(backend.conversations), 2)
        self.assertEqual(balancer.metric("lbsvc_listener_rejected_total", reason="connections"), 3)
        self.assertEqual(balancer.metric("lbsvc_listener_connections"), 2)


def _from(host: str) -> Callable[[socket.socket, tuple[str, int]], None]:
    """A connect of sockets that have `host` as their own address."""
    connect = socket.socket.connect

    def bound(sock: socket.socket, address: tuple[str, int]) -> None:
        sock.bind((host, 0))
        connect(sock, address)

    return bound
