"""Unix sockets with the real process: listeners, backends, the admin interface; what becomes of their files."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from errno import ECONNREFUSED, ENOENT
from pathlib import Path
from unittest.mock import patch

from tests.integration.cases import ProcessTestCase, config
from tests.kit import processes
from tests.kit.processes import DEADLINE, Balancer, RawClient, Response, free_ports, get, run, until
from tests.kit.upstreams import Answer, Forever, RecordingBackend, Script, echo_backend, response

MIB = 1024 * 1024


class UnixClient(RawClient):
    """A client of a unix socket; it waits while the queue is full, as it would before a port."""

    def __init__(self, path: str | Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.buffer = b""
        try:
            self.sock.connect(str(path))
        except BaseException:
            self.sock.close()
            raise


class UnixBackend(RecordingBackend):
    """A scripted backend on a unix socket."""

    def __init__(self, script: Script, path: Path) -> None:
        super().__init__(script)
        self.listener.close()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1024)
        self.listener.settimeout(0.1)
        self.address = f"unix:{path}"


def ask(path: str | Path, target: str = "/", *headers: str) -> Response:
    """One GET on a connection of its own."""
    with UnixClient(path) as client:
        return client.get(target, "Connection: close", *headers)


def is_ready(admin: Path) -> bool:
    """Whether the admin interface at this path says so."""
    try:
        return ask(admin, "/readyz").status == 200
    except OSError:
        return False


def say(client: RawClient, question: bytes) -> None:
    """All of it, and then our end."""
    client.send(question)
    client.finish()


def echo_of(head: bytes, body: bytes) -> bytes:
    """An answer that is the request's head and body."""
    return response(head + body)


class UnixCase(ProcessTestCase):
    """A folder whose path is short enough for sockets."""

    def setUp(self) -> None:
        self.folder = self.scratch()
        self.front = self.folder / "lb.sock"

    def unix_backend(self, script: Script, name: str = "backend.sock") -> RecordingBackend:
        backend = UnixBackend(script, self.folder / name)
        self.addCleanup(backend.stop)
        return backend


class HttpTests(UnixCase):
    def test_both_sides(self) -> None:
        """From a unix socket to a unix socket: what the backend gets, what curl gets, what the logs call it all."""
        backend = self.unix_backend([Forever(Answer(echo_of))])
        balancer, port = self.serve(backend.address, listener={"bind": [f"unix:{self.front}"]})
        del port
        answer = ask(self.front, "/a?b")
        self.assertIn(b"GET /a?b HTTP/1.1\r\nHost: test.example\r\n", answer.body)
        self.assertIn(b"\r\nX-Forwarded-For: unknown\r\n", answer.body)
        body = os.urandom(2 * MIB)
        (self.folder / "body").write_bytes(body)
        command = ["curl", "-q", "-sS", "--max-time", "60", "--unix-socket", str(self.front)]
        sent = run([*command, "--data-binary", "@body", "http://any.example/upload"], folder=self.folder)
        self.assertEqual(sent.returncode, 0, sent.stderr)
        self.assertTrue(sent.stdout.endswith(body))
        with UnixClient(self.front) as client:  # HTTP/1.0 without Host: the backend gets one all the same
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            self.assertIn(b"\r\nHost: localhost\r\n", client.response().body)
        until(lambda: len(balancer.access_lines()) == 3, "three lines of the access log")
        lines = balancer.access_lines()
        self.assertEqual({(line["client"], line["peer"]) for line in lines}, {("unix", "unix")})
        self.assertEqual({line["backend"] for line in lines}, {backend.address})
        (bound,) = [line for line in balancer.events() if line["event"] == "listener.bound"]
        self.assertEqual(bound["bind"], f"unix:{self.front}")
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertFalse(self.front.exists())
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_relative_paths(self) -> None:
        """Paths are relative to the folder of the configuration file; a listener may have ports beside them."""
        (port, admin) = free_ports(2)
        binds = ["unix:run/lb.sock", f"127.0.0.1:{port}"]
        routes = [{"match": {"path": "/*"}, "respond": {"body": "here"}}]
        back = {"bind": "unix:run/back.sock", "routes": routes}
        pools = {"web": {"backends": ["unix:./run/back.sock"], "health_check": {"type": "http", "path": "/"}}}
        text = config({"main": {"bind": binds, "pool": "web"}, "back": back}, pools, admin=admin)
        made: list[Path] = []
        folder = self.folder

        def scratch_folder() -> Path:
            made.append(folder / str(len(made)))
            (made[-1] / "run").mkdir(parents=True)
            return made[-1]

        with patch.object(processes, "scratch_folder", scratch_folder):
            balancer = self.start(text).ready()
        self.assertEqual(balancer.folder, made[0])
        self.assertEqual(ask(made[0] / "run" / "lb.sock").body, b"here")
        self.assertEqual(get(port).body, b"here")
        self.assertEqual(balancer.metric("lbsvc_backend_state", state="up"), 1)
        mode = stat.S_IMODE((made[0] / "run" / "lb.sock").stat().st_mode)
        umask = os.umask(0o022)
        os.umask(umask)
        self.assertEqual(mode, 0o777 & ~umask)

    def test_nginx(self) -> None:
        """nginx on a unix socket is a backend: checked over HTTP, and its files arrive, on kept connections."""
        (port,) = free_ports(1)
        path = self.folder / "nginx.sock"
        servers = f"server {{ listen 127.0.0.1:{port}; listen unix:{path}; server_name localhost; root @FOLDER@; }}"
        server = self.nginx(servers, port)
        content = os.urandom(8 * MIB)
        (Path(server.command[2]) / "large.bin").write_bytes(content)
        check = {"type": "http", "path": "/large.bin", "expect_status": 200}
        balancer, _ = self.serve(f"unix:{path}", listener={"bind": f"unix:{self.front}"}, pool={"health_check": check})
        with UnixClient(self.front) as client:
            for _ in range(3):
                self.assertEqual(client.get("/large.bin").body, content)
        self.assertEqual(balancer.metric("lbsvc_backend_connections"), 1)

    def test_failing_over(self) -> None:
        """A backend whose socket is not there, or that nobody serves, costs no request; without another it is a 502."""
        left = self.folder / "left.sock"
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(left))
        good = self.unix_backend([Forever(Answer(lambda head, body: response(b"good")))])
        missing = f"unix:{self.folder}/none.sock"
        bind = {"bind": f"unix:{self.front}"}
        balancer, _ = self.serve(missing, f"unix:{left}", good.address, listener=bind, pool={"retry": {"attempts": 3}})
        self.assertEqual([ask(self.front).body for _ in range(6)], [b"good"] * 6)
        self.assertGreater(balancer.metric("lbsvc_backend_failures_total", reason="connect_failed"), 0)
        self.front = self.folder / "second.sock"
        self.serve(missing, listener={"bind": f"unix:{self.front}"}, pool={"retry": {"attempts": 1}})
        answer = ask(self.front)
        self.assertEqual((answer.status, answer.body.split()[1]), (502, b"connect_failed"))

    def test_burst(self) -> None:
        """A burst that overflows the backend's queue waits for it; nobody gets an error."""
        gate = threading.Event()
        path = self.folder / "slow.sock"
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(str(path))
        server.listen(1)
        server.settimeout(DEADLINE)
        balancer, _ = self.serve(
            f"unix:{path}", listener={"bind": f"unix:{self.front}"}, pool={"timeouts": {"connect": "25s"}}
        )

        def serve() -> None:
            gate.wait(DEADLINE)
            for _ in range(12):
                talk, _ = server.accept()
                with talk:
                    talk.settimeout(DEADLINE)
                    heard = b""
                    while b"\r\n\r\n" not in heard:
                        heard += talk.recv(65536)
                    talk.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        clients = [UnixClient(self.front) for _ in range(12)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: balancer.metric("lbsvc_http_requests_in_flight") == 12, "twelve in flight")
        gate.set()
        self.assertEqual([client.response().status for client in clients], [200] * 12)
        thread.join(DEADLINE)


class TcpTests(UnixCase):
    def test_both_sides(self) -> None:
        """A tcp listener: intact bytes both ways, and half-close, from a unix socket to a unix socket."""
        template = echo_backend()
        self.addCleanup(template.stop)
        backend = self.unix_backend(template.script)
        self.serve(backend.address, protocol="tcp", listener={"bind": f"unix:{self.front}"})
        question = os.urandom(4 * MIB)
        with UnixClient(self.front) as client:
            sending = threading.Thread(target=say, args=(client, question), daemon=True)
            sending.start()
            self.assertEqual(client.rest(), question)
            sending.join(DEADLINE)

    def test_select(self) -> None:
        """The same on a reactor of Twisted's, from a port to a unix socket and back."""
        template = echo_backend()
        self.addCleanup(template.stop)
        backend = self.unix_backend(template.script)
        (port, admin) = free_ports(2)
        listeners = {
            "in": {"bind": f"127.0.0.1:{port}", "protocol": "tcp", "pool": "middle"},
            "middle": {"bind": f"unix:{self.front}", "protocol": "tcp", "pool": "end"},
        }
        pools = {
            "middle": {"backends": [f"unix:{self.front}"], "health_check": "off"},
            "end": {"backends": [backend.address], "health_check": {"type": "tcp"}},
        }
        with patch.object(processes, "TWIST", [*processes.TWIST, "--reactor", "select"]):
            balancer = self.start(config(listeners, pools, admin=admin)).ready()
        question = os.urandom(MIB)
        with RawClient(port) as client:
            sending = threading.Thread(target=say, args=(client, question), daemon=True)
            sending.start()
            self.assertEqual(client.rest(), question)
            sending.join(DEADLINE)
        balancer.signal(signal.SIGTERM)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertFalse(self.front.exists())
        self.assertNotIn("Traceback", balancer.text + balancer.errors)


class FileTests(UnixCase):
    def named(self, body: str) -> Balancer:
        """A balancer that answers with `body` on the socket; not waited for."""
        (admin,) = free_ports(1)
        routes = [{"match": {"path": "/*"}, "respond": {"body": body}}]
        return self.start(config({"main": {"bind": f"unix:{self.front}", "routes": routes}}, admin=admin))

    def test_after_a_crash(self) -> None:
        """A socket that a killed process left behind is replaced."""
        first = self.named("first").ready()
        first.signal(signal.SIGKILL)
        first.wait()
        self.assertTrue(self.front.exists())
        self.named("second").ready()
        self.assertEqual(ask(self.front).body, b"second")

    def test_in_use(self) -> None:
        """A second instance is refused with 71 and one line, and the first goes on serving, file and all."""
        first = self.named("first").ready()
        second = self.named("second")
        self.assertEqual(second.wait(), 71)
        (line,) = second.errors.splitlines()
        why = f"cannot listen on unix:{self.front}: Address already in use"
        self.assertEqual(line, f"{second.file}:3:5: listeners.main.bind: {why}")
        self.assertEqual(ask(self.front).body, b"first")
        first.signal(signal.SIGTERM)
        first.wait()
        self.assertFalse(self.front.exists())

    def test_no_socket(self) -> None:
        """A file that is no socket is refused with 71, and is not touched."""
        self.front.write_text("precious")
        balancer = self.named("none")
        self.assertEqual(balancer.wait(), 71)
        self.assertIn("there is a file of this name that is no socket", balancer.errors)
        self.assertEqual(self.front.read_text(), "precious")

    def test_path_too_long(self) -> None:
        """A path that no socket can have is refused with 78, before anything is opened."""
        self.front = self.folder / ("a" * 100)
        balancer = self.named("none")
        self.assertEqual(balancer.wait(), 78)
        self.assertIn("a unix socket's has 107 at most", balancer.errors)

    def test_nobody_is_reset(self) -> None:
        """While it stops, each of those that connect without a pause is answered, or finds nobody: none is reset."""
        balancer = self.named("here").ready()
        stopping = threading.Event()

        def knock(number: int) -> list[object]:
            results: list[object] = []
            while len(results) < 20_000:
                try:
                    results.append(ask(self.front).body)
                except OSError as error:
                    results.append(error.errno)
                    if error.errno in (ENOENT, ECONNREFUSED):
                        break
                except EOFError:
                    results.append("closed without an answer")
                    break
                if len(results) == 20:
                    stopping.set()
            return results

        def stop(number: int) -> list[object]:
            stopping.wait(DEADLINE)
            balancer.signal(signal.SIGTERM)
            return []

        jobs = [stop, *[knock] * 8]
        found = self.at_once(len(jobs), lambda number: jobs[number](number))
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        for results in found[1:]:
            self.assertEqual(set(results[:-1]) - {b"here"}, set())
            self.assertIn(results[-1], (ENOENT, ECONNREFUSED))


class AdminTests(UnixCase):
    def test_admin(self) -> None:
        """The admin interface on a unix socket: by no reactor opened to everybody, and gone when the service is."""
        admin = self.folder / "admin.sock"
        for reactor in ([], ["--reactor", "epoll"]):
            (port,) = free_ports(1)
            routes = [{"match": {"path": "/*"}, "respond": {"body": "here"}}]
            text = config({"main": {"bind": f"127.0.0.1:{port}", "routes": routes}}, admin=1)
            text = text.replace("127.0.0.1:1\n", f"unix:{admin}\n")
            umask = os.umask(0o077)
            try:
                with patch.object(processes, "TWIST", [*processes.TWIST, *reactor]):
                    balancer = self.start(text)
            finally:
                os.umask(umask)
            until(lambda: is_ready(admin), "ready")
            self.assertEqual(stat.S_IMODE(admin.stat().st_mode), 0o700)
            self.assertIn(b"lbsvc_build_info", ask(admin, "/metrics").body)
            for host, status in (("localhost", 404), ("127.0.0.1:9901", 404), ("evil.example", 421)):
                with UnixClient(admin) as client:
                    client.send(f"GET /api/v1/none HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                    self.assertEqual(client.response().status, status)
            balancer.signal(signal.SIGTERM)
            self.assertEqual(balancer.wait(), -signal.SIGTERM)
            self.assertFalse(admin.exists())
            self.assertNotIn("Traceback", balancer.text + balancer.errors)
