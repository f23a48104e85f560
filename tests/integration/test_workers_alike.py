"""Several workers are one service to whoever uses, watches and operates it: what would show that they are several."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.integration.cases import config
from tests.integration.test_workers import WorkersTestCase, is_there
from tests.kit.operating import Operator, fresh_requests
from tests.kit.processes import ROOT, Balancer, RawClient, answers, free_port, get, until
from tests.kit.upstreams import Hang, RecordingBackend, Request

PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer

from lbsvc.plugin import IAlgorithm


@implementer(IPlugin, IAlgorithm)
class Last:
    name = "lbsvc_test_last"
    picker = "lbsvc_test_last.LastPicker"


last = Last()
"""

PICKER = """
from lbsvc.plugin import Picker


class LastPicker(Picker):
    def update(self, backends):
        self.backends = backends

    def pick(self, exclude):
        return next((each for each in reversed(self.backends) if each not in exclude), None)
"""


def addresses(balancer: Balancer) -> dict[str, list[int]]:
    """The ports on which each listener was said to listen."""
    found: dict[str, list[int]] = {}
    for event in balancer.events():
        if event["event"] == "listener.bound":
            found.setdefault(str(event["listener"]), []).append(int(str(event["bind"]).rpartition(":")[2]))
    return found


class SocketTests(WorkersTestCase):
    def test_ports_that_the_system_chooses(self) -> None:
        """Binds that are written alike are each their listener's, in each worker, at the start and after a reload; more of
        them than go in one message."""
        listeners: dict[str, Any] = {
            name: {
                "bind": ["127.0.0.1:0"] * count,
                "routes": [{"name": "own", "match": {}, "respond": {"status": 200, "body": name}}],
            }
            for name, count in (("one", 210), ("two", 1))
        }
        balancer = self.start(config(listeners, admin=free_port(), workers=2)).ready()
        operator = Operator(balancer)
        for names in (("one", "two"), ("one", "three", "two")):
            for name in names:
                ports = addresses(balancer)[name]
                for port in (ports[0], ports[-1]):
                    self.assertEqual({get(port).body for _ in range(6)}, {name.encode()})
            operator.tree["listeners"]["three"] = {
                "bind": ["127.0.0.1:0", "127.0.0.1:0"],
                "routes": [{"name": "own", "match": {}, "respond": {"status": 200, "body": "three"}}],
            }
            operator.apply()
        self.assertEqual(len(addresses(balancer)["one"]), 210)
        os.kill(self.pids(balancer)[0], signal.SIGKILL)
        until(lambda: len(self.pids(balancer)) == 2, "replaced")
        for name, ports in addresses(balancer).items():
            self.assertEqual({get(ports[-1]).body for _ in range(6)}, {name.encode()})

    def test_removed_listener(self) -> None:
        """A listener that is removed is shown, and counted, until its last connection is gone; it ends as it would alone."""
        hanging = self.backend(RecordingBackend([Request(), Hang()]))
        balancer, _ = self.several(self.backends[0])
        operator, port = Operator(balancer), free_port()
        operator.tree["listeners"]["more"] = {"bind": f"127.0.0.1:{port}", "pool": "slow"}
        operator.tree["pools"]["slow"] = {"backends": [f"127.0.0.1:{hanging.port}"], "health_check": "off"}
        operator.tree["shutdown"] = {"removed": "2s"}
        operator.apply()
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            hanging.wait_for(1)
            del operator.tree["listeners"]["more"], operator.tree["pools"]["slow"]
            operator.apply()
            self.assertRaises(ConnectionRefusedError, RawClient, port)
            self.assertEqual(balancer.metric("lbsvc_listener_connections", listener="more"), 1)
            self.assertEqual(balancer.metric("lbsvc_backend_active", pool="slow"), 1)
            with contextlib.suppress(ConnectionResetError):
                client.rest()  # cut, when its time is over
        until(lambda: 'listener="more"' not in balancer.admin("/metrics")[1].decode(), "gone")
        cut = [event for event in balancer.events() if event["event"] in ("listener.cut", "backend.cut")]
        self.assertLessEqual(len(cut), 2)
        self.assertTrue(all("worker" in event for event in cut), cut)
        (drained,) = [event for event in balancer.events() if event["event"] == "backend.drained"]
        self.assertNotIn("worker", drained)


class TermTests(WorkersTestCase):
    def test_one_worker(self) -> None:
        """A worker that is sent TERM is replaced, without a failed request, and without being missed meanwhile."""
        balancer, port = self.several(*self.backends)
        first, second = self.pids(balancer)
        requests = fresh_requests(port)
        self.addCleanup(requests.stop)
        os.kill(first, signal.SIGTERM)
        until(lambda: not is_there(first), "gone")
        self.assertEqual(requests.end(), {})
        after = self.pids(balancer)
        self.assertEqual((len(after), after[1], first in after), (2, second, False))
        names = [event["event"] for event in balancer.events()]
        self.assertEqual((names.count("worker.left"), names.count("worker.gone")), (1, 0))

    def test_everybody(self) -> None:
        """TERM for all processes, as a service manager sends it, is a stop like any: what is under way is answered, nobody
        is replaced, and nothing was lost that had been accepted before the delay was over."""
        balancer, port = self.several(*self.backends, shutdown={"delay": "1s"})
        pids = self.pids(balancer)
        with RawClient(port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab")
            until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 1, "under way")
            for pid in (*pids, balancer.pid):
                os.kill(pid, signal.SIGTERM)
            until(lambda: "not ready; accepting" in balancer.text, "told to stop")
            self.assertEqual({get(port).status for _ in range(4)}, {200})
            until(lambda: "1 connections to finish" in balancer.text, "the delay is over")
            client.send(b"cd")
            self.assertEqual(client.response().status, 200)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertEqual([event for event in balancer.events() if event["event"] == "worker.gone"], [])
        self.assertEqual(sum(event["event"] == "worker.started" for event in balancer.events()), 2)


class OperatingTests(WorkersTestCase):
    def test_traffic_on_purpose(self) -> None:
        """Who answered is known of all requests of a run, whichever worker had them."""
        balancer, _ = self.several(*self.backends)
        for clients in (1, 8):
            answer = Operator(balancer).api(
                "POST", "/traffic", {"listener": "main", "requests": 200, "clients": clients}
            )
            self.assertEqual(sum(each["requests"] for each in answer.value["backends"] if each["name"]), 200)
            self.assertEqual((answer.value["statuses"], answer.value["reasons"]), ({"200": 200}, {"ok": 200}))

    def test_restart_that_cannot_be(self) -> None:
        """A worker whose successor cannot begin stays, and why is told; everything is served as before."""
        folder = self.scratch() / "logs"
        folder.mkdir()
        balancer, port = self.several(*self.backends, access_log={"path": f"{folder}/access.log"})
        before = self.pids(balancer)
        shutil.rmtree(folder)
        answer = Operator(balancer).api("POST", "/workers/restart")
        self.assertEqual(answer.status, 500)
        self.assertIn("worker 1 stays, 0 were replaced: access_log.path: cannot be opened", answer.value["detail"])
        self.assertEqual({get(port).status for _ in range(6)}, {200})
        until(lambda: len(self.rows(balancer)) == 2, "the one that could not begin is gone")
        self.assertEqual(self.pids(balancer), before)

    def test_killed_amid_a_reload(self) -> None:
        """A worker that dies before it has agreed to a change holds nobody up, and its successor lives by the change."""
        balancer, port = self.several(*self.backends)
        first, second = self.pids(balancer)
        other = free_port()
        operator = Operator(balancer)
        operator.tree["pools"]["web"]["backends"] = [f"127.0.0.1:{self.backends[1].port}"]
        operator.tree["listeners"]["more"] = {"bind": f"127.0.0.1:{other}", "pool": "web"}
        os.kill(first, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(operator.reload)
            until(lambda: answers(other), "its socket is there")
            os.kill(first, signal.SIGKILL)
            self.assertEqual(answer.result(30).status, 200)
        until(lambda: len(set(self.pids(balancer)) - {first}) == 2, "replaced")
        self.assertEqual({get(each).body for each in (port, other) * 6}, {b"b"})
        self.assertIn(second, self.pids(balancer))

    def test_circuits(self) -> None:
        """A circuit that has opened is shown open, and told by the workers alone, also when a reload closes it."""
        dead = free_port()
        breaker = {"failure_threshold": 1, "reset_timeout": "1h"}
        balancer, port = self.serve(
            f"127.0.0.1:{dead}", pool={"circuit_breaker": breaker, "passive_health": {"failures": 1}}, workers=2
        )
        get(port)
        until(lambda: balancer.metric("lbsvc_circuit_state", state="open") == 1, "open")
        operator = Operator(balancer)
        operator.tree["pools"]["web"] |= {"circuit_breaker": breaker | {"reset_timeout": "2h"}, "passive_health": "off"}
        operator.apply()
        until(lambda: balancer.metric("lbsvc_circuit_state", state="closed") == 1, "closed")
        told = [each for each in balancer.events() if str(each["event"]).startswith(("circuit.", "backend.ret"))]
        self.assertGreaterEqual(len(told), 2)
        self.assertTrue(all("worker" in each for each in told), told)
        self.assertNotIn("Traceback", balancer.text)

    def test_other_peoples_algorithms(self) -> None:
        """An algorithm that a plugin adds is every worker's, at the start and when a reload names it."""
        folder = self.scratch()
        plugins = Path(folder, "twisted", "plugins")
        plugins.mkdir(parents=True)
        (plugins / "lbsvc_test_last_plugin.py").write_text(PLUGIN)
        (folder / "lbsvc_test_last.py").write_text(PICKER)
        env = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
        balancer, port = self.several(*self.backends, process={"env": env})
        operator = Operator(balancer)
        operator.tree["pools"]["web"]["algorithm"] = "lbsvc_test_last"
        operator.apply()
        self.assertEqual({get(port).body for _ in range(8)}, {b"b"})
        os.kill(self.pids(balancer)[0], signal.SIGKILL)
        until(lambda: len(self.pids(balancer)) == 2, "replaced")
        self.assertEqual({get(port).body for _ in range(8)}, {b"b"})
