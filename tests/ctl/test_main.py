"""lbctl against the real service: what each command does, shows, and exits with."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess

import lbsvc
from lbsvc.config.jsonschema import printed
from lbsvc.ctl.main import COMMANDS
from lbsvc.ctl.main import lbctl as group
from tests.ctl.calling import LBCTL, LbctlTestCase, lbctl
from tests.integration.cases import config
from tests.kit.processes import Child, RawClient, free_ports, run, until


class AskingTests(LbctlTestCase):
    def test_status(self) -> None:
        """The table has a line for each listener and backend; --json, before or after the command, is the API's object."""
        self.serve_two()
        lines = self.call("status").splitlines()
        self.assertRegex(lines[0], rf"^lbsvc {re.escape(lbsvc.__version__)}, generation 1, up \d+s, ready$")
        self.assertEqual([line.split()[:2] for line in lines if line.startswith("web ")], [["web", "a"], ["web", "b"]])
        self.assertEqual([line for line in lines if line != line.rstrip()], [])
        found = self.read("status")
        self.assertEqual([backend["name"] for backend in found["pools"][0]["backends"]], ["a", "b"])
        self.assertEqual(json.loads(self.call("--json", "status")).keys(), found.keys())

    def test_health(self) -> None:
        """--fail turns one backend that is not up into 1; without it the exit status is 0 all the same (CLI-1)."""
        self.serve_two()
        address = f"127.0.0.1:{self.backends[0].port}"
        self.assertIs(self.read("health", "--fail")["web"][address], True)
        self.assertRegex(self.call("health"), rf"(?m)^web +{address} +yes$")
        self.call("backend", "maint", "web", "a")
        self.assertIs(self.read("health")["web"][address], False)
        self.assertRegex(self.call("health", "--fail", code=1), rf"(?m)^web +{address} +no$")

    def test_change(self) -> None:
        """Backends come, get weights and states, and go; every change says what it has changed (CLI-3)."""
        self.serve_two()
        (port,) = free_ports(1)
        added = self.call("backend", "add", "web", f"127.0.0.1:{port}", "--name", "c", "--weight", "2", "--backup")
        self.assertIn("c: added", added)
        found = self.read("status")["pools"][0]["backends"][2]
        self.assertEqual([found[key] for key in ("name", "weight", "backup", "source")], ["c", 2, True, "runtime"])
        self.assertIn("weight: 2 -> 7", self.call("backend", "weight", "web", "c", "7"))
        drained = self.call("backend", "drain", "web", "a", "--wait", "--timeout", "30s")
        self.assertEqual(drained.splitlines()[-1], "web/a is empty")
        self.assertEqual(self.states(), {"a": "drain", "b": "ready", "c": "ready"})
        self.assertEqual(self.call("backend", "ready", "web", "a", "--wait").splitlines()[-1], "web/a is up")
        changed = self.read("backend", "maint", "web", "c")
        self.assertEqual((changed["name"], self.states()["c"]), ("c", "maint"))
        removed = self.call("backend", "remove", "web", "c", "--wait")
        self.assertIn("c: removed", removed)
        self.assertEqual(removed.splitlines()[-1], "web/c is gone")
        self.assertEqual(self.states(), {"a": "ready", "b": "ready"})

    def test_refused(self) -> None:
        """What the service refuses is 1, in its words, and under --json its problem on standard output (CLI-3, L14)."""
        self.serve_two()
        self.assertEqual(self.call("backend", "weight", "web", "x", "1", code=1), "")
        self.assertEqual(self.said, "lbctl: pool web has no backend x\n")
        self.assertEqual(self.read("backend", "ready", "nix", "a", code=1)["status"], 404)
        address = f"127.0.0.1:{self.backends[0].port}"
        self.assertEqual(self.read("backend", "add", "web", address, code=1)["status"], 409)
        self.call("backend", "add", "web", "127.0.0.1", code=1)
        self.assertRegex(self.said, "^address: ")

    def test_reload(self) -> None:
        """What has changed is listed; a wrong file is 1, each mistake on a line as the file has it, and changes nothing."""
        balancer, _ = self.serve_two()
        right = balancer.file.read_text()
        self.assertEqual(self.call("reload"), "generation 2\nnothing has changed\n")
        balancer.file.write_text(re.sub(r"( *)name: a\n", r"\1name: a\n\1weight: 5\n", right))
        self.assertEqual(self.call("reload"), "generation 3\npools.web.backends.a.weight: 1 -> 5\n")
        balancer.file.write_text(re.sub(r"( *)name: a\n", r"\1name: a\n\1weight: -5\n", right) + "nonsense: 1\n")
        found = self.read("reload", code=1)
        self.assertEqual([found["status"], len(found["errors"])], [422, 2])
        self.assertEqual(self.said.splitlines(), found["errors"])
        for line in found["errors"]:
            self.assertRegex(line, r"lb\.yaml:\d+:\d+: ")
        self.assertEqual(self.read("status")["generation"], 3)

    def test_events(self) -> None:
        """A change is a line while it is watched; --json gives the event log's object; -n ends it."""
        self.serve_two()
        text = self.flip_until(lambda: lbctl("events", "-n", "2", admin=self.admin))
        raw = self.flip_until(lambda: lbctl("events", "-n", "1", "--json", admin=self.admin))
        self.assertEqual(len(text.splitlines()), 2)
        self.assertRegex(text, r"(?m)^\d{4}-\d\d-\d\dT\S+Z info  (backend\.state|admin\.change): ")
        self.assertLessEqual({"ts", "level", "event", "message"}, json.loads(raw).keys())
        done = lbctl("events", "--status", "-n", "1", admin=self.admin)
        self.assertRegex(done.stdout.decode(), "^status: ready, generation 1, ")

    def flip_until(self, watch: Callable[[], CompletedProcess[bytes]]) -> str:
        """Change something again and again until `watch` has seen enough."""
        with ThreadPoolExecutor(1) as threads:
            watching = threads.submit(watch)

            def flipped() -> bool:
                for state in ("drain", "ready"):
                    self.call("backend", state, "web", "a")
                return watching.done()

            until(flipped, "seen")
            done = watching.result()
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()

    def test_stream_ends(self) -> None:
        """A service that stops ends `events` with 69, and a word of why."""
        balancer, _ = self.serve_two()
        watching = Child([*LBCTL, "events", "--status"], folder=balancer.folder, env={"LBCTL_ADMIN": self.admin})
        self.addCleanup(watching.stop)
        until(lambda: watching.text, "a line")
        balancer.signal(signal.SIGTERM)
        self.assertEqual(watching.wait(), 69)
        self.assertRegex(watching.errors, "^lbctl: (the service has ended the stream|cannot reach )")

    def test_token(self) -> None:
        """Without the token it is 1 and says how to give it; LBCTL_TOKEN and --token-file do; the file comes first."""
        port, admin = free_ports(2)
        text = config({"main": {"bind": f"127.0.0.1:{port}", "routes": [{"respond": {"status": 200}}]}}, admin=admin)
        self.start(text + "  token: open-sesame-0123456789-abcdef\n").ready()
        self.admin = f"127.0.0.1:{admin}"
        self.call("status", code=1)
        self.assertIn("LBCTL_TOKEN, or --token-file FILE", self.said)
        self.call("status", LBCTL_TOKEN="open-sesame-0123456789-abcdef")
        file = self.scratch() / "token"
        file.write_text("open-sesame-0123456789-abcdef\n")
        self.call("--token-file", str(file), "status", LBCTL_TOKEN="another")
        self.call("status", "--token-file", str(file))
        self.call("status", code=1, LBCTL_TOKEN="another")
        self.assertIn("the token was not taken", self.said)

    def test_unix(self) -> None:
        """--admin unix:PATH asks the socket."""
        (port,) = free_ports(1)
        folder = self.scratch()
        text = config({"main": {"bind": f"127.0.0.1:{port}", "routes": [{"respond": {"status": 200}}]}}, admin=1)
        self.start(text.replace("127.0.0.1:1\n", f"unix:{folder}/admin.sock\n"))
        until((folder / "admin.sock").exists, "bound")
        for written in (f"unix:{folder}/admin.sock", f"unix://{folder}/admin.sock"):
            done = lbctl("status", "--admin", written)
            self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_config(self) -> None:
        """The configuration in force is JSON."""
        self.serve_two()
        self.assertEqual(list(json.loads(self.call("config"))["pools"]), ["web"])


class DrainTests(LbctlTestCase):
    def test_wait(self) -> None:
        """--wait goes on while a connection does, ends with 1 at its --timeout, and with 0 when the connection ends."""
        _, port = self.serve_two(protocol="tcp")
        clients = [RawClient(port), RawClient(port)]
        for client in clients:
            self.addCleanup(client.sock.close)

        def active() -> list[int]:
            return [backend["active"] for backend in self.read("status")["pools"][0]["backends"]]

        until(lambda: active() == [1, 1], "both are used")
        self.call("backend", "drain", "web", "a", "--wait", "--timeout", "300ms", code=1)
        self.assertEqual(self.said, "lbctl: web/a: 1 still under way after 0.3 s; it goes on draining\n")
        self.call("backend", "remove", "web", "b", "--wait", "--timeout", "300ms", code=1)
        self.assertEqual(self.states(), {"a": "drain", "b": "drain"})
        with ThreadPoolExecutor(2) as threads:
            waiting = [
                threads.submit(lbctl, "backend", verb, "web", name, "--wait", admin=self.admin)
                for verb, name in (("drain", "a"), ("maint", "a"))
            ]
            for client in clients:
                client.finish()
                client.sock.close()
            codes = sorted(each.result().returncode for each in waiting)
        self.assertIn(codes, ([0, 0], [0, 1]))  # whoever asks last has its state; the other one may have seen it
        until(lambda: list(self.states()) == ["a"], "b is gone")

    def test_not_up(self) -> None:
        """`ready --wait` of one whose program does not run ends with 1 after --timeout, and says what its check found."""
        self.serve_two(pool={"health_check": {"type": "tcp", "interval": "100ms"}})
        self.call("backend", "drain", "web", "a", "--wait")
        self.backends[0].stop()
        self.call("backend", "ready", "web", "a", "--wait", "--timeout", "500ms", code=1)
        self.assertEqual(self.said, "lbctl: web/a: down (connection refused) after 0.5 s; it stays ready\n")

    def test_https(self) -> None:
        """Whoever asks by https is told that it is not spoken, and what is."""
        self.serve_two()
        self.admin = self.admin.replace("http://", "https://")
        self.call("status", code=69)
        self.assertIn("https is not spoken there: the admin interface of lbsvc speaks http", self.said)

    def test_cut(self) -> None:
        """remove --drain cuts what is left when its time is over, so that --wait ends."""
        _, port = self.serve_two(protocol="tcp")
        clients = [RawClient(port), RawClient(port)]
        for client in clients:
            self.addCleanup(client.sock.close)
        until(lambda: sum(b["active"] for b in self.read("status")["pools"][0]["backends"]) == 2, "both are used")
        self.call("backend", "remove", "web", "b", "--drain", "100ms", "--wait")
        self.assertEqual(self.states(), {"a": "ready"})

    def test_put_back(self) -> None:
        """Somebody who makes it ready again ends the waiting with 1."""
        _, port = self.serve_two(protocol="tcp")
        clients = [RawClient(port), RawClient(port)]
        for client in clients:
            self.addCleanup(client.sock.close)
        until(lambda: sum(b["active"] for b in self.read("status")["pools"][0]["backends"]) == 2, "both are used")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(lbctl, "backend", "drain", "web", "a", "--wait", admin=self.admin)
            until(lambda: self.states()["a"] == "drain", "drains")
            self.call("backend", "ready", "web", "a")
            done = waiting.result()
        self.assertEqual((done.returncode, done.stderr), (1, b"lbctl: web/a was set to ready meanwhile\n"))


class AloneTests(LbctlTestCase):
    def test_usage(self) -> None:
        """Wrong usage is 64, with a hint where a command or an option is nearly one."""
        for arguments, hint in (
            ((), "Usage: lbctl"),
            (("statsu",), "did you mean status?"),
            (("backend", "remov", "web", "a"), "did you mean remove?"),
            (("status", "--jsno"), "--json"),
            (("workers", "stop"), "'stop' is not 'restart'"),
            (("backend", "weight", "web", "a", "-1"), "weight: must be 0 or more (got -1)"),
            (("backend", "weight", "web", "a", "70000"), "70000 is not in the range"),
            (("backend", "weight", "web", "a", "--jsn"), "No such option"),
            (("backend", "ready", "web", "a", "--timeout", "1s"), "--timeout means nothing without --wait"),
            (("backend", "drain", "web", "a", "--timeout", "1s"), "--timeout means nothing without --wait"),
            (("backend", "drain", "web", "a", "--wait", "--timeout", "soon"), "duration"),
            (("--admin", "ftp://x", "status"), "--admin: must be http://HOST:PORT or unix:PATH"),
            (("--admin", "http://token@x:1", "status"), "must hold no token"),
            (("--token-file", "/nowhere/token", "status"), "cannot be read"),
        ):
            done = lbctl(*arguments)
            self.assertEqual((done.returncode, done.stdout), (64, b""), arguments)
            self.assertIn(hint, done.stderr.decode())
            self.assertNotIn("Traceback", done.stderr.decode())

    def test_unreachable(self) -> None:
        """Nobody there is 69, in two lines that say where and what to do; under --json an object too (CLI-1, L14)."""
        (port,) = free_ports(1)
        for where in (f"http://127.0.0.1:{port}", "unix:/nowhere/admin.sock"):
            for command in (("status",), ("reload",), ("events",), ("top",), ("backend", "ready", "web", "a"),
                            ("workers",), ("workers", "restart"), ("upgrade",)):  # fmt: skip
                done = lbctl(*command, admin=where)
                self.assertEqual((done.returncode, done.stdout), (69, b""), (where, command))
                self.assertTrue(done.stderr.decode().startswith(f"lbctl: cannot reach {where}: "))
        done = lbctl("health", "--json", admin=f"http://127.0.0.1:{port}")
        self.assertEqual(json.loads(done.stdout)["title"], "cannot reach the service")

    def test_check(self) -> None:
        """A right file is ok, with notes on standard error; a wrong one is 78, each mistake on a line."""
        file = self.scratch() / "lb.yaml"
        file.write_text(config({"main": {"bind": ":8080", "pool": "web"}}, {"web": {"backends": ["a:1"]}}, admin=9901))
        done = lbctl("check", str(file))
        self.assertEqual((done.returncode, done.stdout.decode()), (0, f"{file}: ok\n"), done.stderr)
        file.write_text("listeners: {main: {bind: ':1', pool: nix}}\nwatsh: true\n")
        done = lbctl("check", str(file))
        self.assertEqual((done.returncode, done.stdout), (78, b""))
        self.assertIn("did you mean watch?", done.stderr.decode())
        told = lbctl("check", "--json", str(file))
        found = json.loads(told.stdout)
        self.assertEqual((told.returncode, found["ok"]), (78, False))
        self.assertEqual(found["errors"], done.stderr.decode().splitlines())
        self.assertEqual(lbctl("check", "/nowhere/lb.yaml").returncode, 78)

    def test_schema(self) -> None:
        """The schema is printed to the byte, whatever the terminal's encoding."""
        for env in ({}, {"PYTHONIOENCODING": "ascii"}):
            self.assertEqual(lbctl("schema", **env).stdout, printed().encode())

    def test_version(self) -> None:
        """--version is a line."""
        self.assertEqual(lbctl("--version").stdout.decode(), f"lbctl {lbsvc.__version__}\n")

    def test_commands(self) -> None:
        """Every command is there, has a help text, and takes --json (a group: each of its commands) (CLI-4)."""
        with group.make_context("lbctl", ["status"], resilient_parsing=True) as ctx:
            for name in COMMANDS:
                command = group.get_command(ctx, name)
                assert command is not None
                self.assertTrue(command.help, name)
                for each in getattr(command, "commands", {name: command}).values():
                    options = {option for param in each.params for option in param.opts}
                    self.assertIn("--json", options, f"{name} {each.name}")

    def test_completion(self) -> None:
        """bash, zsh and fish get a script; bash takes it, and completes commands by it."""
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_LBCTL_COMPLETE", lbctl("completion", shell).stdout.decode())
        self.assertEqual(lbctl("completion", "csh").returncode, 64)
        done = lbctl(_LBCTL_COMPLETE="bash_complete", COMP_WORDS="lbctl sta", COMP_CWORD="1")
        self.assertEqual(done.stdout.decode(), "plain,status\n")
        done = lbctl(_LBCTL_COMPLETE="bash_complete", COMP_WORDS="lbctl workers r", COMP_CWORD="2")
        self.assertEqual(done.stdout.decode(), "plain,restart\n")
        script = lbctl("completion", "bash").stdout
        self.assertEqual(run(["bash", "-n"], stdin=script).returncode, 0)

    def test_completed_names(self) -> None:
        """Pools and backends are completed by what runs; nothing is said where nothing runs."""
        self.serve_two()
        words = {"_LBCTL_COMPLETE": "bash_complete", "COMP_CWORD": "3", "COMP_WORDS": "lbctl backend drain "}
        self.assertEqual(self.call(**words), "plain,web\n")
        words |= {"COMP_CWORD": "4", "COMP_WORDS": "lbctl backend drain web "}
        self.assertEqual(self.call(**words), "plain,a\nplain,b\n")
        (port,) = free_ports(1)
        done = lbctl(admin=f"127.0.0.1:{port}", **words)
        self.assertEqual((done.stdout.strip(), done.stderr), (b"", b""))

    def test_light(self) -> None:
        """A command that only asks imports neither Twisted, nor OpenSSL, nor what draws tables."""
        script = (
            "import sys; sys.argv = ['lbctl', '--version']\nfrom lbsvc.ctl import main, backends, commands, processes\n"
        )
        script += "print([m for m in ('twisted', 'OpenSSL', 'rich') if m in sys.modules])"
        done = run([sys.executable, "-c", script], env={"HOME": os.environ.get("HOME", "/")})
        self.assertEqual(done.stdout, b"[]\n", done.stderr)
