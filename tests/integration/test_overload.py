"""The real process whose reactor lags: it sheds load, says so, goes on with what it has, and recovers.

What holds the reactor up is a plugin: a picker that begins to block it, again and again, for as long as a file is there.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.cases import config
from tests.integration.moody import MoodyTestCase
from tests.kit.processes import ROOT, RawClient, Response, free_ports, get, until
from tests.kit.upstreams import echo_backend

#: So long is each block; the reactor's own timer of half a second is then late by the rest, which is more than LIMIT.
BLOCK = 0.75
LIMIT = "200ms"

PLUGIN = """
from lbsvc.plugin import Algorithm

blocking = Algorithm("blocking", "lbsvc_blocking.Blocking")
"""
PICKER = f"""
import os, time

from lbsvc.plugin import Picker


class Blocking(Picker):
    backends = ()
    has_begun = False  # once for the process, however many pickers there are

    def update(self, backends):
        self.backends = backends
        if not Blocking.has_begun:
            Blocking.has_begun = True
            self.block()

    def pick(self, exclude):
        return next((each for each in self.backends if each not in exclude), None)

    def block(self):
        from twisted.internet import reactor

        if os.path.exists(os.environ["BLOCKING"]):
            time.sleep({BLOCK})
        reactor.callLater(0.01, self.block)
"""


class OverloadTests(MoodyTestCase):
    def setUp(self) -> None:
        self.folder = self.scratch()
        plugins = self.folder / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "lbsvc_blocking_plugin.py").write_text(PLUGIN)
        (self.folder / "lbsvc_blocking.py").write_text(PICKER)
        self.flag = Path(self.folder, "blocked")

    def test_shed_and_recovered(self) -> None:
        """While the reactor lags new requests are 503 with Retry-After and their connections end, new tcp connections are
        closed; what is under way is answered, and so is /readyz. Then all is as before; both are told once."""
        (backend,) = self.moody("a")
        echo = self.backend(echo_backend())
        web, raw, admin = free_ports(3)
        listeners = {
            "main": {"bind": f"127.0.0.1:{web}", "pool": "web"},
            "raw": {"bind": f"127.0.0.1:{raw}", "protocol": "tcp", "pool": "raw"},
        }
        pools = {
            "web": {"backends": [backend.address], "algorithm": "blocking", "health_check": "off"},
            "raw": {"backends": [echo.address], "health_check": "off"},
        }
        text = config(listeners, pools, admin=admin, overload={"lag": LIMIT})
        env = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(self.folder))), "BLOCKING": str(self.flag)}
        balancer = self.start(text, env=env).ready()
        kept, tunnel = self.client(web), self.client(raw)
        self.assertEqual(kept.get().status, 200)
        tunnel.send(b"1")
        self.assertEqual(tunnel.exactly(1), b"1")
        (held,) = self.hold(web, [backend], 1)

        self.flag.touch()
        begun = self.await_event(balancer, "overload.begun")
        self.assertEqual((begun["level"], begun["limit"]), ("warn", 0.2))
        self.assertGreater(float(str(begun["lag"])), 0.2)

        def refused() -> tuple[Response, bool]:
            answer = kept.get()
            return answer, kept.rest() == b""

        def closed() -> bytes:
            with RawClient(raw) as client:
                return client.rest()

        def goes_on() -> tuple[bytes, Response]:
            tunnel.send(b"2")
            backend.let_go()
            return tunnel.exactly(1), held.response()

        jobs = (refused, lambda: get(web), closed, goes_on, lambda: balancer.admin("/readyz")[0])
        (answer, is_ended), fresh, ended, (byte, late), ready = self.at_once(len(jobs), lambda number: jobs[number]())
        for each in (answer, fresh):
            self.assertEqual((each.status, each.body.split()[1]), (503, b"overload"))
            self.assertEqual((each.header("retry-after"), each.header("connection")), ("2", "close"))
        self.assertTrue(is_ended)
        self.assertEqual((ended, byte), (b"", b"2"))
        self.assertEqual((late.status, late.body, ready), (200, b"a", 200))

        self.flag.unlink()
        self.await_event(balancer, "overload.over")
        self.assertEqual(get(web).status, 200)
        with RawClient(raw) as client:
            client.send(b"3")
            self.assertEqual(client.exactly(1), b"3")
        names = [str(line["event"]) for line in balancer.events()]
        self.assertEqual([name for name in names if name.startswith("overload.")], ["overload.begun", "overload.over"])
        self.assertEqual(balancer.metric("lbsvc_overloaded"), 0)
        for listener, count in (("main", 2), ("raw", 1)):
            for metric in ("lbsvc_listener_rejected_total", "lbsvc_terminations_total"):
                self.assertEqual(balancer.metric(metric, listener=listener, reason="overload"), count)
        until(lambda: len([x for x in balancer.access_lines() if x["reason"] == "overload"]) == 3, "logged")
        self.assertEqual(len(backend.asked), 3)  # nothing of what was refused
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
