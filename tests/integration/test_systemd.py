"""systemd reads our units as we mean them, is told how we are, and its sockets are served."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from lbsvc.config.loader import load_file
from tests.integration.cases import ProcessTestCase, config
from tests.kit.launching import Launched, listeners
from tests.kit.notifying import NotifySocket
from tests.kit.operating import fresh_requests
from tests.kit.processes import ROOT, RawClient, answers, free_ports, get, run, until
from tests.kit.upstreams import RecordingBackend, Request, Send, WaitFor, named_backend, response

SERVICE = ROOT / "systemd/lbsvc.service"
SOCKET = ROOT / "systemd/lbsvc.socket"

#: What the project asks of its unit (systemd-analyze security), in tenths.
EXPOSURE = 25


def unit(path: Path) -> configparser.RawConfigParser:
    """A unit, the last value of each key."""
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(path.read_text())
    return found


class UnitTests(ProcessTestCase):
    def verify(self, service: str, socket: str) -> bytes:
        """What systemd-analyze says; it returns 0 for keys that it ignores, so what it prints is what counts."""
        folder = self.scratch()
        # The program need not be installed where the tests run; that it exists is all that is checked of it.
        (folder / SERVICE.name).write_text(service.replace("/opt/lbsvc/bin/twist", "/bin/true"))
        (folder / SOCKET.name).write_text(socket)
        names = [str(folder / SERVICE.name), str(folder / SOCKET.name)]
        result = run(["systemd-analyze", "verify", "--man=no", *names])
        return bytes(result.stdout + result.stderr) + (b"" if result.returncode == 0 else b"failed")

    def test_nothing_to_say(self) -> None:
        """systemd-analyze verify knows every key and value of both units."""
        self.assertEqual(self.verify(SERVICE.read_text(), SOCKET.read_text()), b"")

    def test_it_would_be_said(self) -> None:
        """A misspelt key is told, so silence means something."""
        service, socket = SERVICE.read_text(), SOCKET.read_text()
        self.assertIn(b"KilMode", self.verify(service.replace("KillMode=", "KilMode="), socket))
        self.assertIn(b"FileDescriptor", self.verify(service, socket.replace("DescriptorName=", "DescriptorNam=")))

    def test_service(self) -> None:
        """It is told when we are ready, waits longer than the default drain takes, and knows our exit statuses."""
        service = unit(SERVICE)["Service"]
        shutdown = load_file(str(ROOT / "etc/examples/minimal.yaml"), {}).settings.shutdown
        self.assertGreater(int(service["TimeoutStopSec"]), shutdown.delay + shutdown.drain_timeout)
        self.assertEqual((service["SuccessExitStatus"], service["RestartPreventExitStatus"]), ("143", "78"))
        self.assertEqual((service["Type"], service["NotifyAccess"]), ("notify", "main"))
        self.assertGreater(int(service["WatchdogSec"]), 0)
        self.assertIsNone(re.search(r"(?m)^MemoryDenyWriteExecute=", SERVICE.read_text()))

    def commands(self, key: str) -> list[str]:
        return re.findall(rf"(?m)^{key}=(.*)$", SERVICE.read_text())

    def test_reload(self) -> None:
        """A reload is asked for whatever the file says; then it is checked, so that systemctl fails for a wrong one."""
        (start,) = self.commands("ExecStart")
        self.assertEqual(self.commands("ExecReload"), ["/bin/kill -HUP $MAINPID", f"{start} --check"])

    def test_wrong_configuration(self) -> None:
        """Nothing runs before the main process: only its own exit status 78 keeps systemd from starting it again."""
        self.assertEqual(self.commands("ExecStartPre") + self.commands("ExecCondition"), [])

    def stopping(self, pid: int | None) -> subprocess.Popen[bytes]:
        """ExecStop=, as systemd runs it."""
        (line,) = self.commands("ExecStop")
        env = {"PATH": os.environ["PATH"]} if pid is None else {"PATH": os.environ["PATH"], "MAINPID": str(pid)}
        # A pipe, whose end comes when whatever the line has started is over.
        stop = subprocess.Popen(shlex.split(line.replace("$$", "$")), env=env, stdout=-1, stderr=subprocess.STDOUT)
        self.addCleanup(stop.__exit__, None, None, None)  # closes, and waits
        self.addCleanup(stop.kill)
        return stop

    def test_stop_waits(self) -> None:
        """ExecStop= asks the main process to end, and is over when that has ended, not before."""
        read, write = os.pipe()
        told = f"import os, signal; signal.signal(15, lambda *_: os.write({write}, b'T')); os.write({write}, b'S')"
        main = subprocess.Popen([sys.executable, "-c", f"{told}; input()"], stdin=-1, pass_fds=(write,))
        self.addCleanup(main.__exit__, None, None, None)
        self.addCleanup(main.kill)
        self.addCleanup(os.close, read)
        os.close(write)
        self.assertEqual(os.read(read, 1), b"S")
        stop = self.stopping(main.pid)
        self.assertEqual(os.read(read, 1), b"T")
        until(lambda: Path(f"/proc/{stop.pid}/comm").read_text() == "tail\n", "it waits")
        self.assertIsNone(stop.poll())
        main.communicate(b"\n")
        self.assertEqual((stop.communicate()[0], stop.returncode), (b"", 0))

    def test_stop_without_a_process(self) -> None:
        """ExecStop= has nothing to do, nor to complain of, where the main process has ended by itself."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        for pid in (None, gone.pid):
            stop = self.stopping(pid)
            self.assertEqual((stop.communicate()[0], stop.returncode), (b"", 0))

    def test_socket(self) -> None:
        """One unit is one listener: it has the name that the bind asks for, and accepts nothing itself."""
        socket = unit(SOCKET)["Socket"]
        self.assertEqual((socket["Service"], socket["Accept"]), (SERVICE.name, "no"))
        self.assertIn(f"bind: systemd:{socket['FileDescriptorName']}\n", SOCKET.read_text())

    def security(self, *options: str) -> Any:
        folder = self.scratch()
        (folder / SERVICE.name).write_text(SERVICE.read_text())
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", *options, str(folder / SERVICE.name)]
        return run(command)

    def test_exposure(self) -> None:
        """systemd-analyze security counts no more than we have promised."""
        self.assertEqual(self.security(f"--threshold={EXPOSURE}").returncode, 0)
        self.assertNotEqual(self.security("--threshold=1").returncode, 0)  # it would be said

    def test_each_point_is_explained(self) -> None:
        """For each point that it still counts the unit says why it remains, and explains no other."""
        result = self.security("--json=short")
        counted = {each["name"] for each in json.loads(result.stdout) if each["exposure"]}
        explained = re.findall(r"(?m)^# - (\S+?=\S*): ", SERVICE.read_text())
        self.assertEqual(sorted(counted), sorted(explained), result.stderr)


class NotifyTests(ProcessTestCase):
    def manager(self, *, is_abstract: bool = False) -> NotifySocket:
        made = NotifySocket(None if is_abstract else self.scratch())
        self.addCleanup(made.close)
        return made

    def test_ready_after_the_first_checks(self) -> None:
        """READY comes when each backend has a verdict, and not before; meanwhile more time is asked for."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"well"))]))
        manager = self.manager()
        port, admin = free_ports(2)
        check = {"type": "http", "path": "/", "timeout": "60s", "interval": "60s"}
        pools = {"web": {"backends": [backend.address], "health_check": check}}
        front = {"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}
        balancer = self.start(config(front, pools, admin=admin), env=manager.env)
        backend.wait_for(1)
        until(lambda: manager.find(lambda text: text.startswith("starting")), "told that it starts")
        self.assertTrue(any(line.startswith("EXTEND_TIMEOUT_USEC=") for each in manager.messages for line in each))
        self.assertEqual((manager.states(), balancer.admin("/readyz")[0]), ([], 503))
        gate.set()
        manager.wait("READY=1")
        self.assertEqual(balancer.admin("/readyz")[0], 200)
        self.assertIn("1 of 1 backends up", manager.statuses()[-1])

    def test_reload_and_stop(self) -> None:
        """HUP: RELOADING with its time, then READY, for a file that is wrong too. TERM: STOPPING, then the end."""
        manager = self.manager(is_abstract=True)
        backend = self.backend(named_backend("a"))
        balancer, _ = self.serve(backend.address, process={"env": manager.env})
        manager.wait("READY=1")
        good = balancer.file.read_text()
        for times, text in ((2, good), (3, "listeners: 5"), (4, good)):
            balancer.file.write_text(text)
            balancer.signal(signal.SIGHUP)
            manager.wait("READY=1", times)
            refused = "the last reload was refused" in manager.statuses()[-1]
            self.assertEqual(refused, text != good, manager.statuses()[-1])
        for message in manager.read():
            if message[0] == "RELOADING=1":
                self.assertRegex(message[1], r"^MONOTONIC_USEC=[0-9]+$")
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertEqual(manager.states(), ["READY=1", *["RELOADING=1", "READY=1"] * 3, "STOPPING=1"], manager.messages)

    def test_long_drain(self) -> None:
        """While it drains more time is asked for, so that TimeoutStopSec= does not cut what drain_timeout allows."""
        manager = self.manager()
        gate = threading.Event()
        self.addCleanup(gate.set)
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"done"))]))
        balancer, port = self.serve(backend.address, process={"env": manager.env}, shutdown={"drain_timeout": "10m"})
        manager.wait("READY=1")
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            backend.wait_for(1)
            balancer.signal(signal.SIGTERM)
            manager.wait("STOPPING=1")
            until(lambda: sum(message[0].startswith("STATUS=draining") for message in manager.read()), "a beat")
            beat = next(message for message in manager.messages if message[0].startswith("STATUS=draining"))
            self.assertEqual(beat[1], "EXTEND_TIMEOUT_USEC=30000000")
            gate.set()
            self.assertEqual(client.response().body, b"done")
        self.assertEqual(balancer.wait(), -signal.SIGTERM)

    def test_watchdog(self) -> None:
        """The watchdog hears of us for as long as we live, while we drain too."""
        manager = self.manager()
        balancer, _ = self.serve(
            "127.0.0.1:1",
            process={"env": {**manager.env, "WATCHDOG_USEC": "200000"}},
            shutdown={"delay": "1s"},
        )
        manager.wait("WATCHDOG=1", 5)
        balancer.signal(signal.SIGTERM)
        manager.wait("STOPPING=1")
        heard = sum(message == ["WATCHDOG=1"] for message in manager.read())
        manager.wait("WATCHDOG=1", heard + 3)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)

    def test_journal(self) -> None:
        """Where events go to the journal each begins with its level, after a reload too; elsewhere it does not."""
        folder = self.scratch()
        journal, other = folder / "journal", folder / "other"
        journal.touch()
        found = journal.stat()
        env = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        balancer, _ = self.serve("127.0.0.1:1", process={"env": env}, log={"path": str(journal)})
        text = balancer.file.read_text()
        for words, path in (("listeners: 5", journal), (text.replace(str(journal), str(other)), other), ("5", other)):
            before = len(path.read_bytes()) if path.exists() else 0
            balancer.file.write_text(words)
            balancer.signal(signal.SIGHUP)
            until(lambda: path.exists() and b"config.re" in path.read_bytes()[before:], "a word")  # noqa: B023
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        for line in journal.read_text().splitlines():
            level = {"<6>": "info", "<4>": "warn", "<3>": "error"}[line[:3]]
            self.assertEqual(json.loads(line[3:])["level"], level)
        self.assertEqual([line[:3] for line in journal.read_text().splitlines() if "refused" in line], ["<3>"])
        self.assertIn("config.refused", [json.loads(line)["event"] for line in other.read_text().splitlines()])


#: Arguments: python -m twisted ...: becomes that, with what Twisted imports where no dropin.cache can be written.
TWISTED_FIRST = """
import runpy, sys
import twisted.internet.endpoints
sys.argv = sys.argv[3:]
runpy.run_module("twisted", run_name="__main__", alter_sys=True)
"""


class ActivationTests(ProcessTestCase):
    def respond(self, body: str) -> dict[str, Any]:
        return {"routes": [{"match": {"path": "/*"}, "respond": {"status": 200, "body": body}}]}

    def launch(self, text: str, prefix: list[str]) -> Launched:
        balancer = Launched(text, prefix)
        self.addCleanup(balancer.stop)
        return balancer

    def test_by_name(self) -> None:
        """Each listener gets the sockets of its name, several of one name too, beside those that we bind ourselves."""
        web, more, api, own, admin = free_ports(5)
        text = config(
            {
                "web": {"bind": "systemd:web", **self.respond("web")},
                "api": {"bind": ["systemd:api", f"127.0.0.1:{own}"], **self.respond("api")},
            },
            admin=admin,
        )
        passed = listeners(f"web=127.0.0.1:{web}", f"api=127.0.0.1:{api}", f"web=127.0.0.1:{more}")
        balancer = self.launch(text, passed).ready()
        self.assertEqual([get(port).body for port in (web, more, api, own)], [b"web", b"web", b"api", b"api"])
        bound = {str(event["bind"]) for event in balancer.events() if event["event"] == "listener.bound"}
        self.assertEqual(bound, {f"127.0.0.1:{port}" for port in (web, more, api, own)})
        self.assertEqual(Path(f"/proc/{balancer.pid}/environ").read_text().count("LISTEN_PID"), 1)
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_twisted_looks_first(self) -> None:
        """Sockets are served that Twisted has taken out of the environment before we could look."""
        web, more, admin = free_ports(3)
        text = config({"web": {"bind": "systemd:web", **self.respond("here")}}, admin=admin)
        passed = listeners(f"web=127.0.0.1:{web}", f"web=127.0.0.1:{more}")
        self.launch(text, [*passed, sys.executable, "-c", TWISTED_FIRST]).ready()
        self.assertEqual([get(port).body for port in (web, more)], [b"here", b"here"])

    def test_unix(self) -> None:
        """A unix socket is served, and its file is left to systemd when we stop."""
        (admin,) = free_ports(1)
        path = self.scratch() / "web"
        text = config({"web": {"bind": "systemd:web", **self.respond("here")}}, admin=admin)
        balancer = self.launch(text, listeners(f"web={path}")).ready()
        result = run(["curl", "-sS", "--unix-socket", str(path), "http://a/"])
        self.assertEqual((result.stdout, result.stderr), (b"here", b""))
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertTrue(path.exists())

    def test_wrong_name(self) -> None:
        """A name that was not passed: 71, one line with its place and the names that were; without systemd likewise."""
        port, admin = free_ports(2)
        text = config({"web": {"bind": "systemd:wbe", **self.respond("web")}}, admin=admin)
        for prefix, there in ((listeners(f"web=127.0.0.1:{port}"), "web"), ([], "none at all")):
            balancer = self.launch(text, prefix)
            self.assertEqual(balancer.wait(), 71, balancer.report())
            (line,) = balancer.errors.splitlines()
            self.assertRegex(
                line,
                r"lb\.yaml:[0-9]+:[0-9]+: listeners\.web\.bind: cannot listen on systemd:wbe: systemd has passed no "
                rf"socket of this name \(it has passed {there}\)$",
            )

    def test_restart_refuses_nobody(self) -> None:
        """While the service restarts connections wait in systemd's sockets, and the next process answers them all."""
        port, admin = free_ports(2)
        text = config({"web": {"bind": "systemd:web", **self.respond("here")}}, admin=admin)
        balancer = self.launch(text, listeners(f"web=127.0.0.1:{port}", again=True)).ready()
        first = balancer.child()
        clients = []
        os.kill(first, signal.SIGTERM)
        while balancer.child() == first or len(clients) < 10:
            client = RawClient(port)
            self.addCleanup(client.sock.close)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            clients.append(client)
            if len(clients) >= 50:
                until(lambda: balancer.child() != first, "another process")
        self.assertEqual({client.response().body for client in clients}, {b"here"})

    def test_restart_under_load(self) -> None:
        """Two restarts while clients connect anew for each request: none is refused, and each is answered."""
        port, admin = free_ports(2)
        text = config({"web": {"bind": "systemd:web", **self.respond("here")}}, admin=admin)
        balancer = self.launch(text, listeners(f"web=127.0.0.1:{port}", again=True)).ready()
        loads = [fresh_requests(port) for _ in range(4)]
        for load in loads:
            self.addCleanup(load.stop)
        for _ in range(2):
            former = balancer.child()
            loads[0].wait(10)
            os.kill(former, signal.SIGTERM)
            until(lambda former=former: balancer.child() != former, "another process")  # type: ignore[misc]
            for load in loads:
                load.wait(10)
        self.assertEqual([load.end() for load in loads], [{}] * 4)

    def test_first_connection(self) -> None:
        """systemd's own launcher starts us when the first connection comes, and that one is answered."""
        port, admin = free_ports(2)
        text = config({"web": {"bind": "systemd:web", **self.respond("here")}}, admin=admin)
        balancer = self.launch(
            text, ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=web", "-E", f"PYTHONPATH={ROOT}"]
        )
        until(lambda: "Listening on" in balancer.errors, "it listens")
        self.assertFalse(answers(admin))
        self.assertEqual(get(port).body, b"here")
        balancer.ready()
