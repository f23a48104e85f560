"""`state_file` with the real process: what people change outlives it, however it ends."""

from __future__ import annotations

import signal
import threading
from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.operating import Operator
from tests.kit.processes import Balancer, free_ports, get, until
from tests.kit.upstreams import named_backend


class StateTests(ProcessTestCase):
    """`state_file` over ends of every kind."""

    def setUp(self) -> None:
        self.backends = [self.backend(named_backend(name)) for name in ("one", "two", "three")]
        self.port, self.admin = free_ports(2)
        self.folder = self.scratch()
        self.file = self.folder / "state.json"

    def run_it(self, **pool: Any) -> tuple[Balancer, Operator]:
        one, two, _ = self.backends
        backends = [{"address": one.address, "name": "one"}, {"address": two.address, "name": "two"}]
        text = config(
            {"main": {"bind": f"127.0.0.1:{self.port}", "pool": "web"}},
            {"web": {"backends": backends, "health_check": {"type": "tcp"}, **pool}},
            admin=self.admin,
            state_file=str(self.file),
        )
        balancer = self.start(text).ready()
        return balancer, Operator(balancer)

    def change(self, operator: Operator) -> None:
        """One of everything that people can change."""
        body = {"address": self.backends[2].address, "name": "three", "weight": 7}
        self.assertEqual(operator.api("POST", "/pools/web/backends", body).status, 201)
        operator.set("web", "one", weight=4, state="drain")
        self.assertEqual(operator.api("DELETE", "/pools/web/backends/two").status, 202)
        answer = operator.api("PATCH", "/pools/web/health_check", {"interval": "1s"})
        self.assertEqual(answer.status, 200, answer.body)

    def assert_changed(self, operator: Operator) -> None:
        shown = operator.api("GET", "/pools/web").value["backends"]
        self.assertEqual(
            [(each["name"], each["weight"], each["state"], each["source"]) for each in shown],
            [("one", 4, "drain", "runtime"), ("three", 7, "ready", "runtime")],
        )
        pool = operator.api("GET", "/config").value["pools"]["web"]
        self.assertEqual(pool["health_check"]["interval"], "1s")
        self.assertEqual({get(self.port).body for _ in range(5)}, {b"three"})

    def test_stopped(self) -> None:
        """SIGTERM, and a new start: everything is as people left it."""
        balancer, operator = self.run_it()
        self.change(operator)
        self.assert_changed(operator)
        balancer.signal(signal.SIGTERM)
        balancer.wait()
        self.assert_changed(self.run_it()[1])

    def test_killed(self) -> None:
        """kill -9 right after the last answer: what was answered is kept."""
        balancer, operator = self.run_it()
        self.change(operator)
        balancer.process.kill()
        balancer.wait()
        self.assert_changed(self.run_it()[1])

    def test_killed_while_changing(self) -> None:
        """kill -9 in the middle of changes: the file is whole, and holds the last one answered, or one after it."""
        balancer, operator = self.run_it()
        done = 0
        ended = threading.Event()

        def change(_: int) -> None:
            nonlocal done
            try:
                for weight in range(2, 10_000):
                    operator.set("web", "one", weight=weight)
                    done = weight
            except OSError:
                ended.set()

        def kill(_: int) -> None:
            until(lambda: done > 50, "changing")
            balancer.process.kill()
            balancer.wait()

        self.at_once(2, lambda number: kill(number) if number else change(number))
        self.assertTrue(ended.is_set())
        balancer, operator = self.run_it()
        shown = operator.backend("web", "one")
        assert shown is not None
        self.assertIn(shown["weight"], (done, done + 1))
        self.assertNotIn("state.damaged", balancer.text)
        self.assertEqual([each.name for each in self.folder.iterdir() if "damaged" in each.name], [])

    def test_damaged(self) -> None:
        """A damaged file is set aside with a warning; the start goes on by the configuration, and changes are kept anew."""
        self.file.write_text('{"version": 1, "pools": {"web": {"weights"')
        balancer, operator = self.run_it()
        self.assertEqual((self.folder / "state.json.damaged").read_text()[:12], '{"version": ')
        (event,) = [event for event in balancer.events() if event["event"] == "state.damaged"]
        self.assertEqual(event["level"], "warn")
        self.assertEqual({get(self.port).body for _ in range(4)}, {b"one", b"two"})
        self.change(operator)
        balancer.process.kill()
        balancer.wait()
        self.assert_changed(self.run_it()[1])

    def test_file_wins(self) -> None:
        """Where the file changes the same thing while the service is down or up, the file wins; the rest is kept."""
        balancer, operator = self.run_it()
        self.change(operator)
        operator.tree["pools"]["web"]["backends"][0]["weight"] = 9
        operator.apply()
        shown = operator.backend("web", "one")
        assert shown is not None
        self.assertEqual((shown["weight"], shown["state"]), (9, "drain"))
        self.assertIsNone(operator.backend("web", "two"))
        balancer.signal(signal.SIGTERM)
        balancer.wait()
        _, operator = self.run_it()  # the file says 1 again: it has changed since
        shown = operator.backend("web", "one")
        assert shown is not None
        self.assertEqual((shown["weight"], shown["state"]), (1, "drain"))

    def test_cannot_be_written(self) -> None:
        """A state file that cannot be written: 500, nothing has changed, and the log says why."""
        balancer, operator = self.run_it()
        self.file.mkdir()
        (self.file / "x").mkdir()
        answer = operator.api("PATCH", "/pools/web/backends/one", {"weight": 3})
        self.assertEqual(answer.status, 500, answer.body)
        self.assertIn("state_file: cannot be written", answer.value["detail"])
        told = until(lambda: [each for each in balancer.events() if each["event"] == "state.refused"], "told of")
        self.assertEqual([each["level"] for each in told], ["error"])
        shown = operator.backend("web", "one")
        assert shown is not None
        self.assertEqual((shown["weight"], shown["source"]), (1, "config"))

    def test_folder(self) -> None:
        """A folder that is missing is made at the start; where it cannot be, the start is refused with the key's place."""
        self.file = self.folder / "run" / "state.json"
        balancer, operator = self.run_it()
        self.change(operator)
        balancer.signal(signal.SIGTERM)
        balancer.wait()
        self.assert_changed(self.run_it()[1])
        text = (
            f"listeners: {{a: {{bind: '127.0.0.1:{self.port}', pool: a}}}}\npools: {{a: {{backends: '127.0.0.1:1'}}}}\n"
        )
        refused = self.start(f"{text}state_file: no/such/state.json\n")
        self.assertEqual(refused.wait(), 71)
        missing = f"there is no folder {refused.folder}/no"
        self.assertEqual(refused.errors, f"{refused.file}:3:1: state_file: cannot be written: {missing}\n")
