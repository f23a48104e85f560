"""Several workers, the real processes: killed, stopped, replaced, reloaded and drained under load."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.operating import Operator, fresh_requests
from tests.kit.processes import Balancer, RawClient, free_port, free_ports, get, until
from tests.kit.programs import Wrk
from tests.kit.upstreams import RecordingBackend, named_backend


class WorkersTestCase(ProcessTestCase):
    """Two workers before two backends."""

    workers = 2

    def several(self, *backends: RecordingBackend, **keys: Any) -> tuple[Balancer, int]:
        """Our service with these backends, and its port."""
        return self.serve(*(f"127.0.0.1:{each.port}" for each in backends), workers=self.workers, **keys)

    def rows(self, balancer: Balancer) -> list[dict[str, Any]]:
        """The workers as the admin interface shows them."""
        found: list[dict[str, Any]] = Operator(balancer).api("GET", "/workers").value["workers"]
        return found

    def pids(self, balancer: Balancer) -> list[int]:
        """Those that serve, by their places."""
        return [row["pid"] for row in self.rows(balancer) if row["state"] == "serving"]

    def setUp(self) -> None:
        self.backends = [self.backend(named_backend(name)) for name in ("a", "b")]


class LifeTests(WorkersTestCase):
    def test_start_and_stop(self) -> None:
        """Two processes carry the traffic, in the parent's one book; TERM ends all of them cleanly."""
        balancer, port = self.several(*self.backends)
        pids = self.pids(balancer)
        self.assertEqual((len(set(pids)), balancer.pid in pids), (2, False))
        for _ in range(20):
            self.assertEqual(get(port).status, 200)
        self.assertEqual(balancer.metric("lbsvc_http_requests_total", listener="main"), 20)
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        for pid in pids:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        self.assertEqual([event for event in balancer.events() if event["level"] == "error"], [])

    def test_killed(self) -> None:
        """A worker that is killed is replaced; whoever comes anew is served all the while, and counters never fall."""
        balancer, port = self.several(*self.backends)
        first, second = self.pids(balancer)
        requests = fresh_requests(port)
        self.addCleanup(requests.stop)
        requests.wait(20)
        counted = balancer.metric("lbsvc_http_requests_total")
        os.kill(first, signal.SIGKILL)
        until(lambda: len(set(self.pids(balancer)) - {first}) == 2, "replaced")
        requests.wait(40)
        self.assertGreaterEqual(balancer.metric("lbsvc_http_requests_total"), counted)
        # What was with the one that was killed is lost; nobody else.
        self.assertLessEqual(sum(requests.end().values()), 1)
        self.assertEqual([row["restarts"] for row in self.rows(balancer)], [1, 0])
        self.assertIn(second, self.pids(balancer))
        (gone,) = [event for event in balancer.events() if event["event"] == "worker.gone"]
        self.assertEqual((gone["pid"], gone["worker"]), (first, 1))

    def test_stopped(self) -> None:
        """While a worker is stopped nobody who comes anew waits for it; it is killed and replaced in the end."""
        balancer, port = self.several(*self.backends)
        first, _ = self.pids(balancer)
        os.kill(first, signal.SIGSTOP)
        for _ in range(50):
            with RawClient(port, deadline=5.0) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                self.assertEqual(client.response().status, 200)
        until(lambda: len(set(self.pids(balancer)) - {first}) == 2, "replaced")
        self.assertEqual([event["worker"] for event in balancer.events() if event["event"] == "worker.hung"], [1])

    def test_parent_killed(self) -> None:
        """Without their parent workers end, one that is stopped too: the service can be started anew."""
        balancer, _ = self.several(*self.backends)
        pids = self.pids(balancer)
        os.kill(pids[0], signal.SIGSTOP)  # one that hangs would keep the port
        os.kill(balancer.pid, signal.SIGKILL)
        until(lambda: not any(is_there(pid) for pid in pids), "ended")

    def test_restarted(self) -> None:
        """All workers are replaced one by one under load without a failed request."""
        balancer, port = self.several(*self.backends)
        before = self.pids(balancer)
        load = Wrk(f"http://127.0.0.1:{port}/", folder=self.scratch(), connections=8)
        self.addCleanup(load.stop)
        until(lambda: balancer.metric("lbsvc_http_requests_total") > 100, "under load")
        answer = Operator(balancer).api("POST", "/workers/restart")
        self.assertEqual((answer.status, answer.value), (200, {"restarted": 2}))
        self.assertEqual(set(self.pids(balancer)) & set(before), set())
        until(lambda: not any(is_there(pid) for pid in before), "the former ones are gone")
        self.assertEqual(load.end().errors, {})

    def test_drained(self) -> None:
        """A stop waits for what a worker has under way."""
        balancer, port = self.several(*self.backends)
        with RawClient(port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab")
            until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 1, "under way")
            balancer.signal(signal.SIGTERM)
            until(lambda: "service.draining" in balancer.text, "draining")
            client.send(b"cd")
            self.assertEqual(client.response().status, 200)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)


class ReloadTests(WorkersTestCase):
    def test_reload(self) -> None:
        """Another listener, another backend, another number of workers: all of them obey, and none fails."""
        balancer, port = self.several(self.backends[0])
        operator, other = Operator(balancer), free_port()
        requests = fresh_requests(port)
        self.addCleanup(requests.stop)
        operator.tree["listeners"]["more"] = {"bind": f"127.0.0.1:{other}", "pool": "web"}
        operator.tree["pools"]["web"]["backends"] = [f"127.0.0.1:{each.port}" for each in self.backends]
        operator.apply()
        self.assertEqual(get(other).status, 200)
        until(lambda: get(other).body == b"b", "the added backend serves")  # the other requests take turns with these
        operator.tree["workers"] = 3
        self.assertIn("workers: 2 -> 3", operator.apply())
        until(lambda: len(self.pids(balancer)) == 3, "three workers")
        operator.tree["workers"] = 2
        del operator.tree["listeners"]["more"]
        operator.apply()
        until(lambda: len(self.rows(balancer)) == 2, "two workers")
        self.assertEqual(requests.end(), {})
        self.assertRaises(ConnectionRefusedError, RawClient, other)

    def test_refused(self) -> None:
        """What cannot be had is refused for all; one process more than one, or back, takes a restart."""
        balancer, port = self.several(*self.backends)
        operator = Operator(balancer)
        operator.tree["workers"] = 1
        operator.write()
        answer = operator.api("POST", "/reload")
        self.assertEqual(answer.status, 422)
        self.assertIn("workers: from 2 to 1 takes a restart, or an upgrade", answer.value["errors"][0])
        operator.tree["workers"] = 2
        operator.tree["listeners"]["more"] = {"bind": f"127.0.0.1:{self.backends[0].port}", "pool": "web"}
        operator.write()
        answer = operator.api("POST", "/reload")
        self.assertIn("cannot listen on", answer.value["errors"][0])
        self.assertEqual(get(port).status, 200)

    def test_changed(self) -> None:
        """A run-time change holds in every worker when it is answered."""
        balancer, port = self.several(*self.backends)
        operator = Operator(balancer)
        name = f"127.0.0.1:{self.backends[0].port}"
        operator.set("web", name, state="drain")
        self.assertEqual({get(port).body for _ in range(20)}, {b"b"})
        operator.set("web", name, state="ready")
        until(lambda: {get(port).body for _ in range(8)} == {b"a", b"b"}, "back")


class HealthTests(WorkersTestCase):
    def test_own_listeners(self) -> None:
        """Backends that are listeners of the same service are asked when somebody accepts there: ready, they are up."""
        port, own = free_ports(2)
        answer = {"name": "own", "match": {}, "respond": {"status": 200, "body": "own"}}
        listeners = {
            "main": {"bind": f"127.0.0.1:{port}", "pool": "web"},
            "own": {"bind": f"127.0.0.1:{own}", "routes": [answer]},
        }
        check = {"type": "http", "path": "/", "timeout": "300ms", "interval": "1h"}
        pools = {"web": {"backends": [f"127.0.0.1:{own}"], "health_check": check}}
        balancer = self.start(config(listeners, pools, admin=free_port(), workers=self.workers)).ready()
        self.assertEqual({get(port).body for _ in range(8)}, {b"own"})
        self.assertNotIn("backend.down", [event["event"] for event in balancer.events()])

    def test_checked_once(self) -> None:
        """The parent checks, once for all, and every worker knows."""
        balancer, port = self.several(
            *self.backends,
            pool={"health_check": {"type": "http", "path": "/", "interval": "100ms", "fall": 1, "rise": 1}},
        )
        until(lambda: {get(port).body for _ in range(8)} == {b"a", b"b"}, "both are up")
        self.backends[0].stop()
        until(lambda: balancer.metric("lbsvc_backend_state", state="down") == 1, "down")
        self.assertEqual({get(port).body for _ in range(20)}, {b"b"})


def is_there(pid: int) -> bool:
    """Is there a process of this number that lives?"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
