"""`watch: true`: a changed file comes into force by itself, with the real process."""

from __future__ import annotations

from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.operating import Operator
from tests.kit.processes import Balancer, free_ports, get, until


class WatchingTests(ProcessTestCase):
    def text(self, body: str, **rest: Any) -> str:
        routes = [{"match": {"path": "/*"}, "respond": {"status": 200, "body": body}}]
        return config({"main": {"bind": f"127.0.0.1:{self.port}", "routes": routes}}, admin=self.admin, **rest)

    def setUp(self) -> None:
        self.port, self.admin = free_ports(2)

    def serve_watched(self) -> Balancer:
        return self.start(self.text("one", watch=True)).ready()

    def names(self, balancer: Balancer) -> list[object]:
        return [event["event"] for event in balancer.events() if str(event["event"]).startswith("config.re")]

    def test_written(self) -> None:
        """A file that is written comes into force once; a wrong one is refused in the log, and the old one stays."""
        balancer = self.serve_watched()
        balancer.file.write_text(self.text("two", watch=True))
        until(lambda: get(self.port).body == b"two", "the second file in force")
        balancer.file.write_text("listeners: 5")
        until(lambda: "config.refused" in self.names(balancer), "refused")
        self.assertEqual(get(self.port).body, b"two")
        balancer.file.write_text(self.text("three", watch=True))
        until(lambda: get(self.port).body == b"three", "the third file in force")
        self.assertEqual(self.names(balancer), ["config.reloaded", "config.refused", "config.reloaded"])

    def test_switched_on_by_a_call(self) -> None:
        """A file that asks to be watched is, also where it was an admin call that had it read."""
        balancer = self.start(self.text("one")).ready()
        balancer.file.write_text(self.text("two", watch=True))
        self.assertEqual(Operator(balancer).api("POST", "/reload").status, 200)
        balancer.file.write_text(self.text("three", watch=True))
        until(lambda: get(self.port).body == b"three", "the third file in force, by itself")

    def test_link_swapped(self) -> None:
        """A symlink above the file that is swapped is a change, as Kubernetes makes it."""
        folder = self.scratch()
        for name, body in (("v1", "one"), ("v2", "two")):
            (folder / name).mkdir()
            (folder / name / "lb.yaml").write_text(self.text(body, watch=True))
        balancer = self.serve_watched()
        for name in ("v1", "v2"):
            (folder / "new").symlink_to(name)
            (folder / "new").rename(folder / "data")
            if name == "v1":
                balancer.file.with_name("link").symlink_to(folder / "data/lb.yaml")
                balancer.file.with_name("link").rename(balancer.file)
        until(lambda: get(self.port).body == b"two", "the second file in force")
