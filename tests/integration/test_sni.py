"""Connections told apart by the name in their ClientHello, end to end: TLS is the backends' own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

from tests.integration.cases import ProcessTestCase, config
from tests.kit.authority import Authority
from tests.kit.processes import DEADLINE, Balancer, RawClient, free_ports, until
from tests.kit.upstreams import HalfClose, RecordingBackend, Send


class SecureBackend:
    """A TLS server on a port of its own, which says its name to whoever comes, and ends."""

    def __init__(self, authority: Authority, name: str, folder: Path) -> None:
        self.name = name
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue(name).write(str(folder), name))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(DEADLINE)
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE)
            with contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as secured:
                secured.sendall(b"this is " + self.name.encode())
                secured.unwrap()

    def stop(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(DEADLINE)


class SniTests(ProcessTestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = self.scratch()
        self.port, self.admin = free_ports(2)

    def secure(self, name: str) -> SecureBackend:
        backend = SecureBackend(self.authority, name, self.folder)
        self.addCleanup(backend.stop)
        return backend

    def start_with(self, *backends: SecureBackend, rest: str | None = None, handshake: str = "30s") -> Balancer:
        """One listener with a route for each backend's name; what fits none goes to the address `rest`."""
        pools = {each.name: {"backends": [each.address], "health_check": "off"} for each in backends}
        routes = [{"match": {"sni": each.name}, "pool": each.name} for each in backends]
        front: dict[str, object] = {"bind": f"127.0.0.1:{self.port}", "protocol": "tcp", "routes": routes}
        front["timeouts"] = {"handshake": handshake}
        if rest is not None:
            front["pool"] = "rest"
            pools["rest"] = {"backends": [rest], "health_check": "off"}
        return self.start(config({"main": front}, pools, admin=self.admin)).ready()

    def ask(self, name: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
        """What a client gets that asks for this name, and verifies it."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.maximum_version = version
        connection = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        with connection as sock, context.wrap_socket(sock, server_hostname=name) as secured:
            got = b""
            while piece := secured.recv(1000):
                got += piece
            return got

    def test_by_name(self) -> None:
        """Each name reaches the server that has its certificate, in any version; what has no route is closed."""
        balancer = self.start_with(self.secure("a.example"), self.secure("b.example"))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.assertEqual(self.ask("a.example", version), b"this is a.example")
            self.assertEqual(self.ask("B.example", version), b"this is b.example")
        with self.assertRaises(OSError):
            self.ask("c.example")
        until(lambda: len(balancer.access_lines()) >= 5, "five records")
        self.assertEqual(
            sorted((str(line.get("route")), str(line.get("pool")), line["reason"]) for line in balancer.access_lines()),
            [("a.example", "a.example", "ok")] * 2
            + [("b.example", "b.example", "ok")] * 2
            + [("none", "None", "no_route")],
        )
        self.assertEqual(balancer.metric("lbsvc_terminations_total", listener="main", reason="no_route"), 1)

    def test_who_speaks_no_tls(self) -> None:
        """Plain bytes go to the default pool at once, and so does silence once it has lasted for `handshake`."""
        rest = self.backend(RecordingBackend([Send(b"220 hello\r\n"), HalfClose()]))
        self.start_with(self.secure("a.example"), rest=rest.address, handshake="1s")
        with RawClient(self.port) as client:
            client.send(b"SSH-2.0-x\r\n")
            self.assertEqual(client.exactly(11), b"220 hello\r\n")
        with RawClient(self.port) as client:
            self.assertEqual(client.exactly(11), b"220 hello\r\n")
        self.assertEqual(self.ask("a.example"), b"this is a.example")
