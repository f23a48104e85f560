"""What happens to services in a week, with the real process and an error budget of zero: releases, growth, crashes."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.integration.cases import ProcessTestCase, config
from tests.kit.operating import Operator, Repeated, fresh_requests
from tests.kit.processes import ROOT, Child, Nginx, answers, free_ports, run, until
from tests.kit.programs import Wrk

QUICK = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}
SCRIPTS = ROOT / "etc" / "scripts"


class RolloutTests(ProcessTestCase):
    """Three backends, loops of requests on new connections as curl makes them, and wrk on kept ones."""

    def setUp(self) -> None:
        self.ports = free_ports(4)
        self.servers = {port: self.start_nginx(port, "v1") for port in self.ports[:3]}
        self.names = {port: f"127.0.0.1:{port}" for port in self.ports}
        self.port, admin = free_ports(2)
        pools = {"web": {"backends": [self.names[port] for port in self.ports[:3]], "health_check": QUICK}}
        front = {"main": {"bind": f"127.0.0.1:{self.port}", "pool": "web"}}
        self.balancer = self.start(config(front, pools, admin=admin, access_log="off")).ready()
        self.operator = Operator(self.balancer)
        self.loops: list[Repeated] = [fresh_requests(self.port) for _ in range(2)]
        for loop in self.loops:
            self.addCleanup(loop.stop)
        self.wrk = Wrk(f"http://127.0.0.1:{self.port}/", folder=self.scratch(), connections=16)
        self.addCleanup(self.wrk.stop)
        for port in self.ports[:3]:
            self.wait_served(port)

    def start_nginx(self, port: int, version: str) -> Nginx:
        location = f'location / {{ return 200 "{version}"; }}'
        return self.nginx(f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; {location} }}", port)

    def served(self, port: int) -> float:
        return self.balancer.metric("lbsvc_backend_requests_total", backend=self.names[port], code="2xx")

    def wait_served(self, port: int) -> None:
        """Until a backend has served fifty more."""
        aim = self.served(port) + 50
        until(lambda: self.served(port) > aim, f"{port} serves")

    def kill(self, port: int) -> None:
        """kill -9."""
        self.servers[port].process.kill()
        self.servers[port].process.wait()

    def wait_health(self, port: int, health: str) -> None:
        self.operator.wait_for("web", self.names[port], lambda each: each["health"] == health, health)

    def assert_no_errors(self) -> None:
        for loop in self.loops:
            loop.wait(5)
            self.assertEqual(loop.end(), {})
        self.assertEqual(self.wrk.end().errors, {})

    def script(self, name: str, *arguments: str) -> str:
        """A script of etc/scripts, to its end."""
        env = {"LBCTL_ADMIN": f"http://127.0.0.1:{self.operator.port}"}
        result = run([str(SCRIPTS / name), *arguments], env=env)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.decode()

    def test_release(self) -> None:
        """rolling-update.sh: each is drained, waited for, restarted and made ready."""
        folder = self.scratch()
        asked, done = folder / "asked", folder / "done"
        update = folder / "update.py"
        update.write_text(
            "import os, sys, time\n"
            f"open({str(asked)!r}, 'a').write(sys.argv[2] + '\\n')\n"
            "end = time.monotonic() + 30\n"
            f"while not os.path.exists({str(done)!r} + sys.argv[2]) and time.monotonic() < end: time.sleep(0.02)\n"
        )

        def release(_: int) -> str:
            return self.script("rolling-update.sh", "web", sys.executable, str(update))

        def restart(_: int) -> str:
            for number, port in enumerate(self.ports[:3]):
                until(partial(has_lines, asked, number + 1), "asked for the update")
                self.assertEqual(read_lines(asked)[-1], self.names[port])
                self.kill(port)
                self.servers[port] = self.start_nginx(port, "v2")
                Path(f"{done}{self.names[port]}").touch()
            return ""

        said = "".join(self.at_once(2, lambda number: restart(number) if number else release(number)))
        self.assertEqual(said.splitlines(), [f"{self.names[port]} is updated" for port in self.ports[:3]])
        for port in self.ports[:3]:
            self.wait_served(port)
        self.assert_no_errors()

    def test_replaced(self) -> None:
        """Each is removed, updated, and added again (RT-4, TST-8)."""
        for port in self.ports[:3]:
            name = self.names[port]
            self.assertEqual(self.operator.api("DELETE", f"/pools/web/backends/{name}").status, 202)
            self.operator.wait_until_gone("web", name)
            self.kill(port)
            self.start_nginx(port, "v2")
            self.assertEqual(self.operator.api("POST", "/pools/web/backends", {"address": name}).status, 201)
            self.wait_served(port)
        self.assert_no_errors()

    def test_growth(self) -> None:
        """What is added gets its share as soon as it is there (RT-5, TST-8)."""
        new = self.ports[3]
        self.start_nginx(new, "v1")
        self.assertEqual(self.script("scale-out.sh", "web", self.names[new], "3"), f"{self.names[new]} is up\n")
        self.wait_served(new)
        before = {port: self.served(port) for port in self.ports}
        until(lambda: self.served(new) > before[new] + 600, "serves")
        share = (self.served(new) - before[new]) / sum(self.served(port) - before[port] for port in self.ports)
        self.assertGreater(share, 0.4)
        self.assertLess(share, 0.6)
        self.assert_no_errors()

    def test_added_before_it_runs(self) -> None:
        """A backend that is added before its program runs gets nothing until it does."""
        new = self.ports[3]
        self.assertEqual(self.operator.api("POST", "/pools/web/backends", {"address": self.names[new]}).status, 201)
        self.wait_health(new, "down")
        self.wait_served(self.ports[0])
        self.start_nginx(new, "v1")
        self.wait_served(new)
        self.assert_no_errors()

    def test_crash(self) -> None:
        """A server that crashes under load, and is started again (TST-8)."""
        first = self.ports[0]
        self.kill(first)
        self.wait_health(first, "down")
        self.wait_served(self.ports[1])
        self.start_nginx(first, "v1")
        self.wait_served(first)
        self.assert_no_errors()

    def test_cascade(self) -> None:
        """One after the other crashes until a single one is left, which serves everything; then they come back
        (TST-8)."""
        first, second, third = self.ports[:3]
        for port in (first, second):
            self.kill(port)
            self.wait_health(port, "down")
            self.wait_served(third)
        for port in (first, second):
            self.start_nginx(port, "v1")
            self.wait_served(port)
        self.assert_no_errors()


class RecipeTests(ProcessTestCase):
    """The README's release, of a pool whose backends listen only a while after they were started."""

    def demo(self, port: int) -> Child:
        command = [sys.executable, "-m", "lbsvc.ctl.main", "demo-backend", "--port", str(port)]
        child = Child(command, folder=self.scratch())
        self.addCleanup(child.stop)
        return child

    def test_release(self) -> None:
        """drain --wait, restart, ready --wait, one after the other: no request fails, though the programs start slowly."""
        ports = dict(zip("ab", free_ports(2), strict=True))
        backends = {name: self.demo(port) for name, port in ports.items()}
        until(lambda: all(map(answers, ports.values())), "backends")
        entries = [{"address": f"127.0.0.1:{port}", "name": name} for name, port in ports.items()]
        check = {"type": "http", "path": "/health", "interval": "300ms"}
        balancer, port = self.serve(*entries, pool={"health_check": check})
        admin = {"LBCTL_ADMIN": f"http://127.0.0.1:{balancer.admin_port}"}
        lbctl = [sys.executable, "-m", "lbsvc.ctl.main"]
        load = Child(
            [*lbctl, "request", f"http://127.0.0.1:{port}/", "-d", "300s", "-c", "4", "--rate", "200", "--json"],
            folder=self.scratch(),
        )
        self.addCleanup(load.stop)
        operator = Operator(balancer)

        def served(name: str) -> int:
            return int(operator.backend("web", name)["requests"])

        for name in ports:
            drained = run([*lbctl, "backend", "drain", "web", name, "--wait", "--timeout", "30s"], env=admin)
            self.assertEqual((drained.returncode, drained.stderr), (0, b""))
            backends[name].stop()
            with ThreadPoolExecutor(1) as threads:
                ready = [*lbctl, "backend", "ready", "web", name, "--wait", "--timeout", "60s"]
                waiting = threads.submit(run, ready, env=admin)
                other = "b" if name == "a" else "a"
                aim = served(other) + 200  # a second's requests: so long it does not listen
                until(lambda other=other, aim=aim: served(other) > aim, "the other one serves")
                self.assertFalse(waiting.done(), "up before it listens")
                backends[name] = self.demo(ports[name])
                done = waiting.result()
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            aim = served(name) + 50
            until(lambda name=name, aim=aim: served(name) > aim, "serves again")
        load.signal(signal.SIGINT)
        load.wait()
        found = json.loads(load.text)
        self.assertGreater(found["requests"], 400)
        self.assertEqual(found["failed"], 0, found)


def read_lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def has_lines(file: Path, count: int) -> bool:
    return len(read_lines(file)) >= count
