"""WebSockets over TLS on both sides, with `websockets` from PyPI as client and as backend."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.integration.secured import NAME, SecureCase
from tests.kit.processes import DEADLINE
from tests.kit.secure_wire import SSL_VERSIONS
from tests.kit.websocketing import echo, make_server

MIB = 1024 * 1024


class TunnelTests(SecureCase):
    def setUp(self) -> None:
        """A WebSocket backend that speaks TLS."""
        super().setUp()
        side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        side.load_cert_chain(*self.authority.issue("localhost").write(str(self.folder), "backend"))
        server = make_server(echo, ssl=side)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join, DEADLINE)
        self.addCleanup(server.shutdown)
        backend = f"https://localhost:{server.socket.getsockname()[1]}"
        self.balancer, self.port = self.secure(backend, pool={"tls": {"ca": self.ca}})

    def open(self, version: str) -> ClientConnection:
        side = ssl.create_default_context(cadata=self.authority.pem.decode())
        side.minimum_version = side.maximum_version = SSL_VERSIONS[version]
        sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        made = connect(
            f"wss://{NAME}/chat",
            sock=sock,
            ssl=side,
            proxy=None,
            max_size=None,
            ping_interval=None,
            close_timeout=DEADLINE,
        )
        return self.enterContext(made)

    def test_messages_and_ends(self) -> None:
        """Messages of every size come back as they were, and the close code of either side arrives, in both versions."""
        for version in ("1.2", "1.3"):
            client = self.open(version)
            for size in (0, 1, 125, 16383, 16384, 16385, MIB, 5 * MIB):
                message = (hashlib.sha512(b"%d" % size).digest() * (size // 64 + 1))[:size]
                client.send(message)
                self.assertEqual(client.recv(DEADLINE), message)
            for number in range(1000):
                client.send(str(number))
            self.assertEqual([client.recv(DEADLINE) for _ in range(1000)], [str(number) for number in range(1000)])
            client.send("close 4001 enough")
            with self.assertRaises(ConnectionClosed):
                client.recv(DEADLINE)
            self.assertEqual((client.close_code, client.close_reason), (4001, "enough"))
        lines = self.settle(self.balancer, 2)  # how they ended is not asked: the library says no close_notify
        self.assertEqual([(line["status"], line["tls"]) for line in lines], [(101, "TLSv1.2"), (101, "TLSv1.3")])
