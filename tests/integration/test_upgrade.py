"""The real process upgrades itself: under load, with a program that fails, with changes, sockets and a service manager."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
import threading
from contextlib import ExitStack
from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.authority import Authority
from tests.kit.launching import Launched, listeners
from tests.kit.notifying import NotifySocket
from tests.kit.operating import Operator, Repeated, fresh_requests
from tests.kit.processes import DEADLINE, ROOT, Balancer, RawClient, free_ports, get, until
from tests.kit.programs import Wrk
from tests.kit.secure_wire import save
from tests.kit.upgrading import Succession, is_there, wait_until_gone
from tests.kit.upstreams import RecordingBackend, Request, Send, WaitFor, named_backend, response


class Renewed(Succession, Balancer):
    """Our service."""


class RenewedLaunched(Succession, Launched):
    """Our service behind a prefix."""


#: Python runs this first: it holds up the second worker of a service, while there is a file that says so.
HELD = """
import os, sys, time
if sys.orig_argv[-3:-1] == ["lbsvc.workers", "2"]:
    while os.path.exists({file!r}):
        time.sleep(0.02)
"""


def respond(bind: Any, body: str = "ok") -> dict[str, Any]:
    return {"bind": bind, "routes": [{"match": {"path": "/*"}, "respond": {"status": 200, "body": body}}]}


class UnixConnection(http.client.HTTPConnection):
    """To a unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self.host)


def unix_requests(path: str) -> Repeated:
    """Requests on connections of their own to a unix socket."""

    def job() -> str | None:
        connection = UnixConnection(path)
        try:
            connection.request("GET", "/", headers={"Host": "a"})
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        return None if answer.status == 200 else str(answer.status)

    return Repeated(job)


class UpgradeCase(ProcessTestCase):
    def renewed(self, text: str, **keys: Any) -> Renewed:
        balancer = Renewed(text, **keys)
        self.addCleanup(balancer.stop)
        balancer.ready()
        return balancer

    def serving(self, balancer: Balancer) -> int:
        """The process that the admin interface is of."""
        found: int = Operator(balancer).api("GET", "/workers").value["pid"]
        return found

    def manager(self) -> NotifySocket:
        made = NotifySocket(self.scratch())
        self.addCleanup(made.close)
        return made


class LoadTests(UpgradeCase):
    def test_twice_under_load(self) -> None:
        """Clients that keep connections and clients that do not, of http, https, tcp and a unix socket: nobody is refused,
        and nothing fails; each time another process answers, and the one before it ends with 0."""
        self.upgrade_twice(workers=1)

    def test_with_workers(self) -> None:
        """The same where each of the processes has two workers."""
        self.upgrade_twice(workers=2)

    def upgrade_twice(self, **keys: Any) -> None:
        backends = free_ports(2)
        block = 'server {{ listen 127.0.0.1:{0}; keepalive_requests 10000000; location / {{ return 200 "{0}"; }} }}'
        self.nginx("".join(block.format(port) for port in backends), backends[0])
        plain, secure, raw, admin = free_ports(4)
        folder = self.scratch()
        path = f"{folder}/lb.sock"
        certificate = save(Authority().issue("site.example"), str(folder), "site")
        fronts = {
            "plain": {"bind": [f"127.0.0.1:{plain}", f"unix:{path}"], "pool": "web"},
            "secure": {"bind": f"127.0.0.1:{secure}", "pool": "web", "tls": {"certificates": [certificate]}},
            "raw": {"bind": f"127.0.0.1:{raw}", "protocol": "tcp", "pool": "raw"},
        }
        addresses = [f"127.0.0.1:{port}" for port in backends]
        pools = {
            "web": {"backends": addresses, "health_check": {"type": "http", "path": "/"}},
            "raw": {"backends": addresses, "health_check": "off"},
        }
        balancer = self.renewed(config(fronts, pools, admin=admin, access_log="off", **keys))
        first = balancer.pid
        inode = os.stat(path).st_ino
        urls = {"http": f"http://127.0.0.1:{plain}/", "https": f"https://127.0.0.1:{secure}/"}
        wrks = {name: Wrk(url, folder=folder, connections=8) for name, url in urls.items()}
        fresh = {"http": fresh_requests(plain), "tcp": fresh_requests(raw), "unix": unix_requests(path)}
        for load in (*wrks.values(), *fresh.values()):
            self.addCleanup(load.stop)
        seen = [first]
        for _ in range(2):
            for load in fresh.values():
                load.wait(20)
            former = balancer.upgrade()
            seen.append(balancer.pid)
            self.assertEqual(self.serving(balancer), balancer.pid)
            for load in fresh.values():
                load.wait(20)
            wait_until_gone(former)
        self.assertEqual(len(set(seen)), 3)
        self.assertEqual(balancer.process.wait(DEADLINE), 0)
        self.assertEqual({name: load.end() for name, load in fresh.items()}, {name: {} for name in fresh})
        for name, wrk in wrks.items():
            report = wrk.end()
            self.assertEqual(report.errors, {}, name)
            self.assertGreater(report.requests, 100, name)
        self.assertEqual(os.stat(path).st_ino, inode)
        balancer.signal(signal.SIGTERM)
        wait_until_gone(balancer.pid)
        self.assertFalse(os.path.exists(path))
        errors = [event["message"] for event in balancer.events() if event["level"] == "error"]
        self.assertEqual(errors, [])
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_connections_that_last(self) -> None:
        """A tcp connection goes on through the process that accepted it, which ends with it; a request that is under way is
        answered, as the last of its connection."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        slow = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"late"))]))
        quick = self.backend(named_backend("well"))
        web, raw, admin = free_ports(3)
        fronts = {
            "web": {"bind": f"127.0.0.1:{web}", "pool": "slow"},
            "raw": {"bind": f"127.0.0.1:{raw}", "protocol": "tcp", "pool": "quick"},
        }
        pools = {
            "slow": {"backends": [slow.address], "health_check": "off"},
            "quick": {"backends": [quick.address], "health_check": "off"},
        }
        balancer = self.renewed(config(fronts, pools, admin=admin, shutdown={"drain_timeout": "10m"}))
        with RawClient(raw) as lasting, RawClient(web) as busy:
            self.assertEqual(lasting.get().body, b"well")
            busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            slow.wait_for(1)
            former = balancer.upgrade()
            self.assertEqual(get(raw).body, b"well")
            gate.set()
            answer = busy.response()
            self.assertEqual((answer.body, answer.header("connection")), (b"late", "close"))
            self.assertEqual(lasting.get().body, b"well")
            self.assertTrue(is_there(former))
        wait_until_gone(former)

    def test_idle_connection(self) -> None:
        """A connection that is kept, and idle, is answered once more, as its last."""
        port, admin = free_ports(2)
        balancer = self.renewed(config({"main": respond(f"127.0.0.1:{port}")}, admin=admin))
        for _ in range(4):  # it has a second; whoever runs this may be busy just then
            with RawClient(port) as idle:
                self.assertEqual(idle.get().header("connection"), "")
                balancer.upgrade()
                try:
                    answer = idle.get()
                except (EOFError, OSError):
                    continue
            self.assertEqual((answer.body, answer.header("connection")), (b"ok", "close"))
            return
        self.fail("it was closed each time")


class FailingTests(UpgradeCase):
    def test_changes_nothing(self) -> None:
        """A wrong configuration (78), a port that is taken (71), a crash: we go on as we were, say why, and can be changed;
        a right one serves what is new, and closes what is not there any more."""
        port, gone, fresh, admin = free_ports(4)
        path = f"{self.scratch()}/lb.sock"
        text = config(
            {"main": respond([f"127.0.0.1:{port}", f"unix:{path}"]), "gone": respond(f"127.0.0.1:{gone}")}, admin=admin
        )
        balancer = self.renewed(text)
        first, operator = balancer.pid, Operator(balancer)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            wrong = taken.getsockname()[1]
            for content, code, words in (
                (text.replace("listeners:", "listners:"), 78, "listners"),
                (text.replace(f"127.0.0.1:{gone}", f"127.0.0.1:{wrong}"), 71, "Address already in use"),
            ):
                balancer.file.write_text(content)
                balancer.signal(signal.SIGUSR2)
                event = balancer.outcome()
                self.assertEqual((event["level"], event["exit"]), ("error", code), event)
                self.assertIn(words, str(event["message"]))
                self.assertIn(words, balancer.errors)
                self.assertEqual(self.serving(balancer), first)
                self.assertEqual((get(port).body, get(gone).body), (b"ok", b"ok"))
                self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        balancer.file.write_text(text)
        self.assertEqual(operator.api("POST", "/reload").status, 200)
        balancer.file.write_text(text.replace(f"127.0.0.1:{gone}", f"127.0.0.1:{fresh}"))
        wait_until_gone(balancer.upgrade())
        self.assertEqual((get(port).body, get(fresh).body, self.serving(balancer)), (b"ok", b"ok", balancer.pid))
        self.assertRaises(ConnectionRefusedError, get, gone)
        self.assertTrue(os.path.exists(path))

    def test_not_ready_yet(self) -> None:
        """Until its first checks are over the old one serves, changes nothing and starts no other; told to stop, it takes
        the new one along."""
        gate = threading.Event()
        gate.set()
        self.addCleanup(gate.set)
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"well"))]))
        port, admin = free_ports(2)
        check = {"type": "http", "path": "/", "timeout": "60s", "interval": "60s"}
        fronts = {"main": respond(f"127.0.0.1:{port}"), "other": {"bind": "127.0.0.1:0", "pool": "web"}}
        pools = {"web": {"backends": [backend.address], "health_check": check}}
        balancer = self.renewed(config(fronts, pools, admin=admin))
        operator = Operator(balancer)
        seen = len(backend.conversations)
        gate.clear()
        balancer.signal(signal.SIGUSR2)
        until(lambda: len(backend.conversations) > seen, "the new process checks")
        (begun,) = balancer.told()
        self.assertEqual((get(port).body, self.serving(balancer)), (b"ok", balancer.pid))
        self.assertEqual(operator.api("POST", "/reload").status, 503)
        self.assertEqual(operator.api("POST", "/upgrade").status, 409)
        self.assertIn("an upgrade is under way", str(balancer.outcome()["message"]))
        self.assertTrue(is_there(begun["pid"]))
        balancer.signal(signal.SIGTERM)
        wait_until_gone(begun["pid"])
        self.assertEqual(balancer.wait(), -signal.SIGTERM)


class WorkersTests(UpgradeCase):
    def test_none_accepts_before(self) -> None:
        """While a worker of the new process has not begun, those that have accept nobody: when the old process is told to
        stop meanwhile it takes the new one along, and every request that has come is answered."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        slow = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"late"))]))
        folder = self.scratch()
        hold = folder / "hold"
        (folder / "sitecustomize.py").write_text(HELD.format(file=str(hold)))
        port, admin = free_ports(2)
        fronts = {"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}
        pools = {"web": {"backends": [slow.address], "health_check": "off"}}
        balancer = self.renewed(
            config(fronts, pools, admin=admin, workers=2), env={"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
        )

        self.addCleanup(hold.unlink, missing_ok=True)

        def words_of_workers() -> list[str]:
            return [str(event["message"]) for event in balancer.events() if event["event"] == "worker.started"]

        hold.touch()
        known = len(words_of_workers())
        balancer.signal(signal.SIGUSR2)
        until(lambda: len(words_of_workers()) > known, "one of the new workers has begun")
        self.assertIn("worker 1 is ready", words_of_workers()[-1])
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(port)) for _ in range(12)]
            for client in clients:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            slow.wait_for(len(clients))
            self.assertEqual(balancer.metric("lbsvc_http_requests_in_flight"), len(clients))  # of the old one's workers
            balancer.signal(signal.SIGTERM)
            event = balancer.outcome()
            words = f"the service is stopping: process {event['pid']}, which had not taken over, was killed"
            self.assertIn(words, str(event["message"]))
            wait_until_gone(int(str(event["pid"])))
            hold.unlink()
            gate.set()
            self.assertEqual([client.response().body for client in clients], [b"late"] * len(clients))
        self.assertEqual(balancer.wait(), -signal.SIGTERM)


class HandingOverTests(UpgradeCase):
    def test_changes_and_the_manager(self) -> None:
        """By the admin interface: what people changed is in force in the new process, without a state file; the service
        manager is told which process it is, then hears from that one alone."""
        manager = self.manager()
        port, admin = free_ports(2)
        pools = {"web": {"backends": [{"address": "127.0.0.1:1", "name": "one"}], "health_check": "off"}}
        text = config({"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}, pools, admin=admin)
        balancer = self.renewed(text, env={**manager.env, "WATCHDOG_USEC": "400000"})
        operator = Operator(balancer)
        operator.set("web", "one", weight=7)
        guest = {"address": "127.0.0.1:2", "name": "guest"}
        self.assertEqual(operator.api("POST", "/pools/web/backends", guest).status, 201)
        former = balancer.pid
        answer = operator.api("POST", "/upgrade")
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(balancer.outcome()["pid"], answer.value["pid"])
        balancer._pid = answer.value["pid"]
        manager.wait("READY=1", 2)
        wait_until_gone(former)
        one, added = operator.backend("web", "one"), operator.backend("web", "guest")
        assert one is not None and added is not None
        self.assertEqual((one["weight"], one["source"], added["source"]), (7, "runtime", "runtime"))
        beats = sum(message == ["WATCHDOG=1"] for message in manager.read())
        manager.wait("WATCHDOG=1", beats + 2)
        operator.set("web", "guest", state="drain")
        balancer.signal(signal.SIGTERM)
        wait_until_gone(balancer.pid)
        self.assertEqual(manager.states(), ["READY=1", f"MAINPID={answer.value['pid']}", "READY=1", "STOPPING=1"])

    def test_passed_sockets(self) -> None:
        """Sockets that systemd has passed go over by their names, twice, and their files stay systemd's."""
        web, admin = free_ports(2)
        path = self.scratch() / "api"
        fronts = {"web": respond("systemd:web", "web"), "api": respond("systemd:api", "api")}
        balancer = RenewedLaunched(config(fronts, admin=admin), listeners(f"web=127.0.0.1:{web}", f"api={path}"))
        self.addCleanup(balancer.stop)
        balancer.ready()
        for _ in range(2):
            wait_until_gone(balancer.upgrade())
            self.assertEqual(get(web).body, b"web")
            connection = UnixConnection(str(path))
            self.addCleanup(connection.close)
            connection.request("GET", "/", headers={"Host": "a"})
            self.assertEqual(connection.getresponse().read(), b"api")
        balancer.signal(signal.SIGTERM)
        wait_until_gone(balancer.pid)
        self.assertTrue(path.exists())
