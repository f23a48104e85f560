"""Reloads one by one, with the real process: what is refused changes nothing, what is applied acts, what goes may finish."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

from lbsvc.config.statefile import StateFile
from tests.config.test_statefile import CHANGES
from tests.integration.cases import ProcessTestCase, config
from tests.integration.secured import NAME, SecureCase
from tests.kit.operating import Operator
from tests.kit.processes import Balancer, RawClient, answers, free_ports, get, until
from tests.kit.programs import Wrk
from tests.kit.upstreams import (
    Conversation,
    Forever,
    RecordingBackend,
    Request,
    Send,
    Step,
    WaitFor,
    echo_backend,
    named_backend,
)

RESPOND = [{"match": {"path": "/*"}, "respond": {"status": 200, "body": "ok"}}]


class Endless(Step):
    """An answer that goes on for as long as anybody reads it."""

    def run(self, talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while not talk.backend.stopping.wait(0.02):
            talk.send(b"x" * 100)


class RefusalTests(ProcessTestCase):
    def setUp(self) -> None:
        self.balancer, self.listener = self.serve(listener={"routes": RESPOND})
        self.operator = Operator(self.balancer)

    def assert_refused(self, *words: str) -> None:
        """The file as it is now is refused by each way to ask, in these words; nothing has changed."""
        before = self.operator.api("GET", "/config").value
        answer = self.operator.api("POST", "/reload")
        self.assertEqual(answer.status, 422, answer.body)
        errors = answer.value["errors"]
        self.assertEqual(len(errors), len(words), errors)
        for error, text in zip(errors, words, strict=True):
            self.assertIn(text, error)
            self.assertTrue(error.startswith(f"{self.balancer.file}:"), error)
        seen = len(self.refusals())
        self.balancer.signal(signal.SIGHUP)
        until(lambda: len(self.refusals()) > seen, "refused by SIGHUP")
        self.assertEqual(self.refusals()[-1]["errors"], errors)
        self.assertEqual(self.refusals()[-1]["generation"], 1)
        self.assertEqual(self.balancer.metric("lbsvc_config_last_reload_successful"), 0)
        self.assertEqual(self.balancer.metric("lbsvc_config_info", generation="1"), 1)
        self.assertEqual(self.operator.api("GET", "/config").value, before)
        self.assertEqual(get(self.listener).body, b"ok")

    def refusals(self) -> list[dict[str, object]]:
        return [event for event in self.balancer.events() if event["event"] == "config.refused"]

    def test_wrong(self) -> None:
        """Every mistake of a file at once; the next right one is applied, and success is what the metrics say
        (RT-1)."""
        self.operator.tree["listeners"]["main"]["protocol"] = "smtp"
        self.operator.tree["watched"] = True
        self.operator.write()
        self.assert_refused("listeners.main.protocol: ", "watched: ")
        del self.operator.tree["watched"]
        self.operator.tree["listeners"]["main"]["protocol"] = "http"
        self.operator.apply()
        self.assertEqual(self.balancer.metric("lbsvc_config_last_reload_successful"), 1)
        self.assertEqual(self.balancer.metric("lbsvc_config_reloads_total", result="failure"), 2)
        self.assertEqual(self.balancer.metric("lbsvc_config_reloads_total", result="success"), 1)

    def test_no_yaml(self) -> None:
        """What is no YAML, and no text at all."""
        self.balancer.file.write_text("listeners: [\n")
        self.assert_refused(":2:1: a value is missing here")
        self.balancer.file.write_bytes(b"\xff\xfe\x00")
        self.assert_refused(":1:1: this is not UTF-8 text")

    def test_no_file(self) -> None:
        """A file that is gone, and a folder in its place."""
        self.balancer.file.unlink()
        self.assert_refused("cannot be read: No such file or directory")
        self.balancer.file.mkdir()
        self.assert_refused("cannot be read: Is a directory")

    def test_pipe(self) -> None:
        """A pipe in its place, into which nobody writes, is refused as well, and the next right file is applied."""
        self.balancer.file.unlink()
        os.mkfifo(self.balancer.file)
        self.assert_refused("cannot be read: it is no regular file")
        self.operator.tree["watch"] = True
        self.assertEqual(self.operator.apply(), ["watch: changed"])

    def test_log_paths(self) -> None:
        """Logs that cannot be opened, both told at once."""
        self.operator.tree["access_log"] = {"path": "missing/access.log"}
        self.operator.tree["log"] = {"path": str(self.balancer.folder)}
        self.operator.write()
        self.assert_refused(
            "log.path: cannot be opened: Is a directory",
            "access_log.path: cannot be opened: No such file or directory",
        )

    def test_state_file(self) -> None:
        """A state file that cannot be written, and one that holds changes of its own."""
        folder = self.balancer.folder
        self.operator.tree["state_file"] = "missing/too/state.json"
        self.operator.write()
        self.assert_refused(f"state_file: cannot be written: there is no folder {folder}/missing")
        other = folder / "other.json"
        StateFile(str(other)).save(CHANGES)
        before = other.read_bytes()
        self.operator.tree["state_file"] = "other.json"
        self.operator.write()
        self.assert_refused("state_file: holds other run-time changes than those in force: move it away")
        self.assertEqual(other.read_bytes(), before)

    def test_ports(self) -> None:
        """Ports that others have, of listeners and of the admin interface, told at once."""
        other = self.backend(RecordingBackend())
        self.operator.tree["listeners"]["second"] = {"bind": other.address, "routes": RESPOND}
        self.operator.tree["admin"]["bind"] = self.backend(RecordingBackend()).address
        self.operator.write()
        self.assert_refused("admin.bind: cannot listen on ", f"listeners.second.bind: cannot listen on {other.address}")

    def test_certificate(self) -> None:
        """A certificate that is not there, and one that is none."""
        (self.balancer.folder / "junk.pem").write_text("junk")
        self.operator.tree["listeners"]["main"]["tls"] = {
            "certificates": [{"cert": "junk.pem", "key": "junk.pem"}, {"cert": "missing.pem", "key": "junk.pem"}]
        }
        self.operator.write()
        self.assert_refused("tls.certificates[0].cert: ", "tls.certificates[1].cert: cannot be read: no such file")


class RemovedTests(ProcessTestCase):
    """What is under way on what goes."""

    def setUp(self) -> None:
        slow = self.backend(RecordingBackend([Forever(Request(), Endless())]))
        quick = self.backend(named_backend("quick"))
        echo = self.backend(echo_backend())
        self.port, self.tcp_port, admin = free_ports(3)
        fronts = {
            "main": {"bind": f"127.0.0.1:{self.port}", "pool": "web"},
            "raw": {"bind": f"127.0.0.1:{self.tcp_port}", "protocol": "tcp", "pool": "raw"},
        }
        backends = [{"address": slow.address, "name": "slow"}, {"address": quick.address, "name": "quick"}]
        pools = {
            "web": {"backends": backends, "health_check": "off"},
            "raw": {"backends": [{"address": echo.address, "name": "echo"}], "health_check": "off"},
        }
        self.balancer = self.start(config(fronts, pools, admin=admin)).ready()
        self.operator = Operator(self.balancer)

    def download(self) -> RawClient:
        """A client to whom an endless answer is being sent."""
        for _ in range(2):
            client = RawClient(self.port)
            self.addCleanup(client.sock.close)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            if b"1000000000" in client.until(b"\r\n\r\n"):
                client.exactly(100)
                return client
        raise AssertionError("the slow backend was not asked")

    def assert_cut(self, client: RawClient) -> None:
        """It ends before its end; the log says by whom."""
        with self.assertRaises((EOFError, ConnectionResetError)):
            client.exactly(1_000_000_000)
        until(lambda: any(line["reason"] == "killed" for line in self.balancer.access_lines()), "logged as killed")

    def assert_goes_on(self, client: RawClient) -> None:
        """Nothing has happened to a download, and nobody else is sent there."""
        for _ in range(4):
            self.assertEqual(get(self.port).body, b"quick")
            client.exactly(200)
        shown = self.operator.backend("web", "slow")
        assert shown is not None
        self.assertEqual((shown["state"], shown["active"]), ("drain", 1))

    def test_backend_by_reload(self) -> None:
        """A backend that a reload removes finishes what it has; then it is gone, its series too."""
        client = self.download()
        del self.operator.tree["pools"]["web"]["backends"][0]
        self.assertEqual(self.operator.apply(), ["pools.web.backends.slow: removed"])
        self.assert_goes_on(client)
        self.assertEqual(self.balancer.metric("lbsvc_backend_state", backend="slow", state="drain"), 1)
        client.sock.close()
        self.operator.wait_until_gone("web", "slow")
        self.assertNotIn(b'backend="slow"', self.balancer.admin("/metrics")[1])

    def test_backend_by_admin(self) -> None:
        """A backend that is deleted finishes what it has; where it is added again it is the same one."""
        client = self.download()
        self.assertEqual(self.operator.api("DELETE", "/pools/web/backends/slow").status, 202)
        self.assert_goes_on(client)
        address = self.operator.tree["pools"]["web"]["backends"][0]["address"]
        body = {"address": address, "name": "slow"}
        self.assertEqual(self.operator.api("POST", "/pools/web/backends", body).status, 201)
        shown = self.operator.backend("web", "slow")
        assert shown is not None
        self.assertEqual((shown["state"], shown["active"], shown["source"]), ("ready", 1, "config"))
        client.exactly(200)

    def test_backend_with_a_limit(self) -> None:
        """With `?drain=` what is left at its end is cut."""
        client = self.download()
        self.assertEqual(self.operator.api("DELETE", "/pools/web/backends/slow?drain=500ms").status, 202)
        self.assert_goes_on(client)
        self.assert_cut(client)
        self.operator.wait_until_gone("web", "slow")

    def test_limit_of_reloads(self) -> None:
        """`shutdown.removed` cuts what a backend, and what a listener, has left."""
        client = self.download()
        held = RawClient(self.tcp_port)
        self.addCleanup(held.sock.close)
        held.send(b"hello")
        held.exactly(5)
        self.operator.tree["shutdown"] = {"removed": "500ms"}
        del self.operator.tree["pools"]["web"]["backends"][0]
        del self.operator.tree["listeners"]["raw"]
        del self.operator.tree["pools"]["raw"]
        self.operator.apply()
        until(lambda: not answers(self.tcp_port), "closed")
        self.assert_cut(client)
        with self.assertRaises((EOFError, ConnectionResetError)):
            held.exactly(1)
        until(lambda: len(self.operator.api("GET", "/status").value["listeners"]) == 1, "the listener is gone")
        until(lambda: len(self.operator.api("GET", "/pools").value) == 1, "the pool is gone")

    def test_listener(self) -> None:
        """Connections of a removed tcp listener go on; a stop of the service waits for them."""
        with RawClient(self.tcp_port) as held:
            held.send(b"hello")
            held.exactly(5)
            del self.operator.tree["listeners"]["raw"]
            self.operator.apply()
            until(lambda: not answers(self.tcp_port), "closed")
            held.send(b"again")
            self.assertEqual(held.exactly(5), b"again")
            self.balancer.signal(signal.SIGTERM)
            until(lambda: any(e["event"] == "service.draining" for e in self.balancer.events()), "draining")
            held.send(b"still")
            self.assertEqual(held.exactly(5), b"still")
        self.assertEqual(self.balancer.wait(), -signal.SIGTERM)

    def test_stopping(self) -> None:
        """While the service stops nothing is changed any more: whoever asks is told so."""
        self.download()
        self.balancer.signal(signal.SIGTERM)
        until(lambda: self.balancer.admin("/readyz")[0] == 503, "draining")
        for method, path, body in (
            ("POST", "/reload", None),
            ("PATCH", "/pools/web/backends/quick", {"weight": 3}),
            ("DELETE", "/pools/web/backends/quick", None),
        ):
            answer = self.operator.api(method, path, body)
            self.assertEqual((answer.status, answer.value["status"]), (503, 503), answer.body)


class LogTests(ProcessTestCase):
    def has_served(self, balancer: Balancer, count: float) -> bool:
        return balancer.metric("lbsvc_http_requests_total") > count

    def test_no_line_lost(self) -> None:
        """The access log's path and format change under load: each request has its line, in one file or another."""
        balancer, port = self.serve(listener={"routes": RESPOND}, access_log={"path": "access-0.log"})
        operator = Operator(balancer)
        load = Wrk(f"http://127.0.0.1:{port}/", folder=self.scratch(), connections=8)
        self.addCleanup(load.stop)
        for number in range(1, 11):
            aim = balancer.metric("lbsvc_http_requests_total") + 100
            until(partial(self.has_served, balancer, aim), "under load")
            style = "combined" if number % 3 == 1 else "json"
            operator.tree["access_log"] = {"path": f"access-{number // 2}.log", "format": style}
            operator.apply()
        self.assertEqual(load.end().errors, {})
        until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 0, "all settled")
        total = balancer.metric("lbsvc_http_requests_total")

        def lines() -> list[bytes]:
            return [line for file in balancer.folder.glob("access-*.log") for line in file.read_bytes().splitlines()]

        until(lambda: len(lines()) >= total, "all written")
        self.assertEqual(len(lines()), total)
        self.assertEqual(balancer.metric("lbsvc_log_dropped_total"), 0)
        for line in lines():
            self.assertTrue(line.startswith((b'{"log": "access"', b"127.0.0.1 - - [")), line)

    def test_events(self) -> None:
        """The event log's path, level and format change: each event is in one of them, by the level of its moment."""
        balancer, _ = self.serve(listener={"routes": RESPOND})
        operator = Operator(balancer)
        operator.tree["log"] = {"path": "events.log", "format": "json"}
        operator.apply()
        file = balancer.folder / "events.log"
        until(lambda: file.exists() and b"config.reloaded" in file.read_bytes(), "in the new file")
        operator.tree["log"] = {"path": "events.log", "format": "text", "level": "error"}
        operator.apply()
        operator.tree["log"] = {"path": "-", "format": "json", "level": "info"}
        operator.apply()
        until(lambda: any(event.get("generation") == 4 for event in balancer.events()), "back on standard output")
        self.assertEqual(file.read_bytes().count(b"config.reloaded"), 1)


class TlsTests(SecureCase):
    def test_certificate(self) -> None:
        """Another certificate for new connections; those that are there go on (RT-1, TLS-3)."""
        balancer, port = self.secure(self.one())
        operator = Operator(balancer)
        former = self.client(port)
        self.assertEqual(former.get("/").body, b"one")
        operator.tree["listeners"]["main"]["tls"]["certificates"] = [self.site("other.example")]
        operator.apply()
        self.assertEqual(self.client(port, "other.example").get("/").body, b"one")
        self.assertEqual(former.get("/").body, b"one")

    def test_alpn_and_plain(self) -> None:
        """HTTP/2 is offered no more, then TLS is no more; connections that are there go on by what was."""
        balancer, port = self.secure(self.one())
        operator = Operator(balancer)
        former = self.client(port)
        former.get("/")
        operator.tree["listeners"]["main"]["tls"]["alpn"] = ["http/1.1"]
        operator.apply()
        self.assertEqual(self.client(port).get("/").body, b"one")
        tls = operator.tree["listeners"]["main"].pop("tls")
        operator.apply()
        self.assertEqual(get(port).body, b"one")
        self.assertEqual(former.get("/").body, b"one")
        operator.tree["listeners"]["main"]["tls"] = tls
        operator.apply()
        self.assertEqual(self.client(port, NAME).get("/").body, b"one")


class GateTests(ProcessTestCase):
    def test_in_flight(self) -> None:
        """A request that waits for its answer gets it, though its route, its listener and its pool change."""
        gate = threading.Event()
        answer = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        backend = self.backend(RecordingBackend([Forever(Request(), WaitFor(gate), answer)]))
        balancer, port = self.serve(
            backend.address, listener={"routes": [{"match": {"path": "/a/*"}, "name": "a", "pool": "web"}]}
        )
        operator = Operator(balancer)
        with RawClient(port) as client:
            client.send(b"GET /a/x HTTP/1.1\r\nHost: a\r\n\r\n")
            backend.wait_for(1)
            operator.tree["listeners"]["main"] = {
                "bind": f"127.0.0.1:{port}",
                "routes": [{"match": {"path": "/a/*"}, "deny": 403}],
                "limits": {"header_size": "1KiB"},
                "timeouts": {"request_header": "1s"},
            }
            operator.tree["pools"]["web"] |= {"algorithm": "lc", "retry": {"attempts": 1}, "queue": {"size": 1}}
            operator.apply()
            gate.set()
            self.assertEqual(client.response().body, b"late")
            self.assertEqual(client.get("/a/x").status, 403)
