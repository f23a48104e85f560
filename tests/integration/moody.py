"""What tests of choosing, surviving, limits and affinity share: backends with moods, before the real process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.integration.cases import ProcessTestCase
from tests.kit.moods import MoodyBackend, served
from tests.kit.processes import Balancer, RawClient, until

#: Checks that find out soon. The timeout is long: a machine that is busy is no backend that is down.
QUICK = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "10s", "rise": 1, "fall": 1}


class MoodyTestCase(ProcessTestCase):
    """Backends by name; metrics and events of one balancer."""

    def moody(self, names: Iterable[str] = "ab") -> list[MoodyBackend]:
        backends = [MoodyBackend(name) for name in names]
        for backend in backends:
            self.backend(backend)
        return backends

    def again(self, backend: MoodyBackend) -> MoodyBackend:
        """One that was stopped, back on its port."""
        revived = MoodyBackend(backend.name, port=backend.port)
        self.backend(revived)
        return revived

    def before(
        self,
        backends: Iterable[MoodyBackend],
        each: Mapping[str, Mapping[str, Any]] | None = None,
        listener: Mapping[str, Any] | None = None,
        **pool: Any,
    ) -> tuple[Balancer, int]:
        """A balancer before these, and its port; `each` has further keys by the backend's name."""
        members = [{"address": it.address, "name": it.name, **(each or {}).get(it.name, {})} for it in backends]
        return self.serve(*members, listener=listener, pool=pool)

    def client(self, port: int) -> RawClient:
        """A connection that is closed when the test ends."""
        client = RawClient(port)
        self.addCleanup(client.sock.close)
        return client

    def ask(self, port: int, path: str = "/", *headers: str, method: str = "GET", body: str = "") -> RawClient:
        """A client that has sent a request and waits for its answer."""
        client = self.client(port)
        lines = [f"{method} {path} HTTP/1.1", "Host: test.example", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        client.send("\r\n".join([*lines, "", body]).encode())
        return client

    def hold(self, port: int, backends: Iterable[MoodyBackend], count: int) -> list[RawClient]:
        """So many requests, sent one after the other, each at its backend before the next is sent."""
        backends = list(backends)
        clients = []
        for _ in range(count):
            before = sum(each.held for each in backends)
            clients.append(self.ask(port, "/hold"))
            self.await_held(backends, before + 1)
        return clients

    def await_held(self, backends: Iterable[MoodyBackend], count: int) -> None:
        until(lambda: sum(each.held for each in backends) == count, f"{count} held")

    def await_asked(self, backend: MoodyBackend, count: int) -> None:
        until(lambda: len(backend.asked) == count, f"{backend.name} asked {count} times")

    def count(self, port: int, requests: int, path: str = "/") -> dict[str, int]:
        """Who has answered so many GETs of one client."""
        with RawClient(port) as client:
            return dict(served(client, requests, path))

    def is_in(self, balancer: Balancer, backend: str, state: str) -> bool:
        return balancer.metric("lbsvc_backend_state", backend=backend, state=state) == 1

    def await_state(self, balancer: Balancer, backend: str, state: str) -> None:
        until(lambda: self.is_in(balancer, backend, state), f"{backend} {state}")

    def circuit(self, balancer: Balancer, backend: str) -> str:
        """closed, open or half_open."""
        states = ("closed", "open", "half_open")
        (found,) = [it for it in states if balancer.metric("lbsvc_circuit_state", backend=backend, state=it)]
        return found

    def await_event(self, balancer: Balancer, event: str, count: int = 1, **fields: Any) -> dict[str, object]:
        """The `count`th event of this name with these fields."""

        def found() -> list[dict[str, object]]:
            events = [line for line in balancer.events() if line["event"] == event]
            return [line for line in events if all(line.get(key) == value for key, value in fields.items())]

        until(lambda: len(found()) >= count, f"{event} {fields} for the {count}th time")
        return found()[count - 1]

    def await_idle(self, balancer: Balancer) -> None:
        """Nothing is counted as active, or as waiting, any more."""
        until(lambda: balancer.metric("lbsvc_backend_active") == 0, "idle")
        self.assertEqual(balancer.metric("lbsvc_queue_length"), 0)
        until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 0, "settled")
