"""What the tests of TLS on the real process share: a CA, certificates in a folder, and the ways to ask a listener."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.authority import Authority, Leaf
from tests.kit.processes import Balancer, free_ports, until
from tests.kit.programs import curl
from tests.kit.secure_wire import SecureBackend, SecureClient, client_side, save
from tests.kit.upstreams import Answer, Forever, RecordingBackend, Step, named_backend, response

NAME = "site.example"


def echo_head(head: bytes, body: bytes) -> bytes:
    """An answer whose body is the request's head, and its body after that."""
    return response(head + body, "200 OK", "Content-Type: text/plain")


class SecureCase(ProcessTestCase):
    """Each test has a CA, a folder, and a port of its own."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = self.scratch()
        self.ca = self.authority.write(str(self.folder))

    def files(self, leaf: Leaf, name: str) -> dict[str, str]:
        """The files of a certificate as a listener wants them."""
        return save(leaf, str(self.folder), name)

    def site(self, *names: str, **keys: Any) -> dict[str, str]:
        """A new certificate for these names, in files that are called after the first."""
        names = names or (NAME,)
        return self.files(self.authority.issue(*names, **keys), f"{names[0].replace('*', 'any')}-{len(self.listed())}")

    def listed(self) -> list[Path]:
        return sorted(self.folder.glob("*.pem"))

    def secure(
        self,
        *backends: Any,
        tls: dict[str, Any] | None = None,
        listener: dict[str, Any] | None = None,
        **keys: Any,
    ) -> tuple[Balancer, int]:
        """One listener with TLS before one pool, ready, and its port; one certificate for NAME unless `tls` has others."""
        tls = dict(tls or {})
        tls.setdefault("certificates", [self.site()])
        return self.serve(*backends, listener={"tls": tls, **(listener or {})}, **keys)

    def secure_all(
        self, listeners: dict[str, Any], pools: dict[str, Any], **rest: Any
    ) -> tuple[Balancer, dict[str, int]]:
        """Several listeners; their ports by name."""
        admin, *ports = free_ports(1 + len(listeners))
        placed = dict(zip(listeners, ports, strict=True))
        fronts = {name: {"bind": f"127.0.0.1:{placed[name]}", **front} for name, front in listeners.items()}
        for pool in pools.values():
            pool.setdefault("health_check", "off")
        return self.start(config(fronts, pools, admin=admin, **rest)).ready(), placed

    def client(self, port: int, name: str | None = NAME, version: str | None = None, **keys: Any) -> SecureClient:
        """A client that verifies us, closed when the test ends."""
        shown = keys.pop("shown", None)
        client = SecureClient(port, name, client_side(self.authority, version, shown), **keys)
        self.addCleanup(client.sock.close)
        return client

    def echoing(self) -> RecordingBackend:
        """A plain backend that answers with what it was asked."""
        return self.backend(RecordingBackend([Forever(Answer(echo_head))]))

    def one(self) -> str:
        """The address of a plain backend that answers "one"."""
        return self.backend(named_backend("one")).address

    def secure_backend(self, leaf: Leaf, script: Sequence[Step] | None = None, **keys: Any) -> SecureBackend:
        """One that speaks TLS, and answers with what it was asked unless it has a script."""
        made = SecureBackend(leaf, script or [Forever(Answer(echo_head))], folder=str(self.folder), **keys)
        self.addCleanup(made.stop)
        return made

    def curl(
        self, port: int, *options: str, name: str = NAME, path: str = "/", status: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """curl asks for https://NAME/ at our port, and verifies us; `status` is the exit status that it must have."""
        place = ["--cacert", self.ca, "--connect-to", f"::127.0.0.1:{port}", f"https://{name}{path}"]
        return curl(*options, *place, folder=self.folder, exit_status=status)

    def handshakes(self, balancer: Balancer, result: str, version: str | None = None) -> float:
        """How many there have been."""
        labels = {"result": result} if version is None else {"result": result, "version": version}
        return balancer.metric("lbsvc_tls_handshakes_total", **labels)

    def settle(self, balancer: Balancer, lines: int) -> list[dict[str, object]]:
        """The access log once it has so many lines and no connection is left; nothing has gone wrong inside."""
        until(lambda: balancer.metric("lbsvc_listener_connections") == 0, "no connection left")
        until(lambda: len(balancer.access_lines()) >= lines, f"{lines} lines in {balancer.report()}")
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        return balancer.access_lines()
