"""Real processes for tests: `twist loadbalancer`, nginx, and a raw client; each wait has a deadline.

Promises: a process is started away from the checkout, with its output read by threads (so that a full pipe
never blocks it, unless a test asks for that), and is stopped by its pid when the test ends, however it
ends. Nothing sleeps for a guessed time: `until` polls a condition and fails with a sentence when its
deadline passes.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import lbsvc

DEADLINE = 30.0
ROOT = Path(lbsvc.__file__).resolve().parent.parent

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """Poll until `condition()` is true and return its value; `what` says what did not happen."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"within {deadline:.0f} s: not {what}")
        time.sleep(0.02)
    return value


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different, below those that outgoing connections are given."""
    ports: set[int] = set()
    chance = random.SystemRandom()
    while len(ports) < count:
        try:
            socket.create_server(("127.0.0.1", port := chance.randint(20_000, 32_000))).close()
        except OSError:
            continue
        ports.add(port)
    return list(ports)


def free_port() -> int:
    return free_ports(1)[0]


def answers(port: int) -> bool:
    """Does something accept connections there?"""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def scratch_folder() -> Path:
    """A new folder that every user may enter (nginx's workers are another user)."""
    folder = Path(tempfile.mkdtemp(prefix="lbsvc-test-"))
    folder.chmod(0o755)
    return folder


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what would change a balancer, the package importable from anywhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LBSVC_", "LBCTL_")) and k != "LOG_LEVEL"}
    return {**kept, "PYTHONPATH": str(ROOT), **(extra or {})}


class Child:
    """A subprocess whose output is collected; `reading=False` leaves its standard output unread."""

    def __init__(
        self, command: list[str], *, folder: Path, env: Mapping[str, str] | None = None, reading: bool = True
    ) -> None:
        self.command = command
        self.out = bytearray()
        self.err = bytearray()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.threads = [threading.Thread(target=self._read, args=("stderr", self.err), daemon=True)]
        if reading:
            self.threads.append(threading.Thread(target=self._read, args=("stdout", self.out), daemon=True))
        for thread in self.threads:
            thread.start()

    def _read(self, name: str, into: bytearray) -> None:
        stream = getattr(self.process, name)
        while piece := os.read(stream.fileno(), 65536):
            into += piece

    @property
    def pid(self) -> int:
        return self.process.pid

    def start_reading(self) -> None:
        """Read standard output after all."""
        thread = threading.Thread(target=self._read, args=("stdout", self.out), daemon=True)
        self.threads.append(thread)
        thread.start()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """The exit status (negative: the signal that ended it), with all of its output read."""
        try:
            status = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command[:4]} still runs after {deadline} s\n{self.report()}") from None
        for thread in self.threads:
            thread.join(DEADLINE)
        return status

    def stop(self) -> None:
        """End it whatever it takes, and wait for it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        for thread in self.threads:
            thread.join(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def report(self) -> str:
        return f"stdout: {self.text[-3000:]}\nstderr: {self.errors[-3000:]}"

    @property
    def text(self) -> str:
        return bytes(self.out).decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        return bytes(self.err).decode("utf-8", "replace")

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


TWIST = [sys.executable, "-m", "twisted"]


class Balancer(Child):
    """Our service as users start it, with a configuration written to a folder of its own."""

    def __init__(
        self,
        config: str,
        *,
        env: Mapping[str, str] | None = None,
        reading: bool = True,
        options: tuple[str, ...] = (),
        name: str = "lb.yaml",
    ) -> None:
        self.folder = scratch_folder()
        self.file = self.folder / name
        workers = os.environ.get("LBSVC_TEST_WORKERS")
        if workers and "\nworkers:" not in config:
            config = f"{config.rstrip()}\nworkers: {workers}\n"  # every test that starts the service, with several
        self.file.write_text(config)
        found = re.search(r"(?m)^admin:\s*(?:\{\s*|\n\s+)bind:\s*[\"']?127\.0\.0\.1:(\d+)", config)
        self.admin_port = int(found[1]) if found else 0
        super().__init__(
            [*TWIST, "loadbalancer", "--config", str(self.file), *options],
            folder=self.folder,
            env=env,
            reading=reading,
        )

    def ready(self) -> Balancer:
        """Wait for /readyz to say 200 (or fail with what the process said)."""

        def is_ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}\n{self.report()}")
            try:
                return self.admin("/readyz")[0] == 200
            except OSError:
                return False

        try:
            until(is_ready, "ready")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.report()}") from None
        return self

    def admin(self, path: str, accept: str = "*/*") -> tuple[int, bytes]:
        """Status and body of a GET of the admin listener."""
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        with RawClient(self.admin_port) as client:
            client.send(request.encode())
            answer = client.response()
        return answer.status, answer.body

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.admin("/metrics")[1].decode().splitlines():
            found = re.match(rf"{name}(?:{{(.*)}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def events(self) -> list[dict[str, object]]:
        """The JSON lines of standard output that are events."""
        return [line for line in self.lines() if "event" in line]

    def access_lines(self) -> list[dict[str, object]]:
        return [line for line in self.lines() if line.get("log") == "access"]

    def lines(self) -> list[dict[str, object]]:
        whole = self.text[: self.text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Nginx(Child):
    """nginx as a backend: `servers` is what stands inside its http block."""

    def __init__(self, servers: str, folder: Path, port: int) -> None:
        conf = folder / "nginx.conf"
        conf.write_text(
            f"worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; client_max_body_size 0; default_type text/plain;\n{servers}\n}}\n"
        )
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        assert program is not None, "nginx is not installed (.ci/run installs it)"
        super().__init__(
            [program, "-p", str(folder), "-c", str(conf), "-g", "daemon off; master_process off;"],
            folder=folder,
        )
        until(lambda: answers(port), f"nginx on {port}: {self.errors}")


class Response:
    """One HTTP/1 response as it came; `headers` by lower-case name, a list of values each."""

    def __init__(self, head: bytes, body: bytes, raw: bytes) -> None:
        self.head = head
        self.body = body
        self.raw = raw
        first, *rest = head.decode("latin-1").split("\r\n")
        self.version, status, *_ = first.split(" ", 2)
        self.status = int(status)
        self.headers: dict[str, list[str]] = {}
        for line in filter(None, rest):
            name, _, value = line.partition(":")
            self.headers.setdefault(name.lower(), []).append(value.strip())

    def header(self, name: str) -> str:
        """The first value, or an empty string."""
        return self.headers.get(name, [""])[0]


class RawClient:
    """A socket with deadlines that sends what it is told and reads one response at a time."""

    def __init__(self, port: int, *, deadline: float = DEADLINE, receive_buffer: int = 0) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(deadline)
        try:
            self.sock.connect(("127.0.0.1", port))
        except BaseException:
            self.sock.close()
            raise
        self.buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def finish(self) -> None:
        """Shut down writing; go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def more(self) -> bool:
        piece = self.sock.recv(65536)
        self.buffer += piece
        return bool(piece)

    def until(self, marker: bytes) -> bytes:
        """Everything up to and including `marker`."""
        while (at := self.buffer.find(marker)) < 0:
            if not self.more():
                raise EOFError(f"closed before {marker!r}: {self.buffer!r}")
        return self._cut(at + len(marker))

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self.more():
                raise EOFError(f"closed after {len(self.buffer)} of {count} bytes")
        return self._cut(count)

    def rest(self) -> bytes:
        """Everything until the other side closes (a reset raises ConnectionResetError)."""
        while self.more():
            pass
        return self._cut(len(self.buffer))

    def _cut(self, count: int) -> bytes:
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        return piece

    def response(self, method: str = "GET") -> Response:
        """One response by its framing; an interim one (1xx) is returned as such."""
        raw = self.until(b"\r\n\r\n")
        head = raw[:-4]
        lower = head.lower()
        status = int(head.split(b" ", 2)[1])
        if method == "HEAD" or status < 200 or status in (204, 304):
            return Response(head, b"", raw)
        if sized := re.search(rb"\r\ncontent-length:\s*(\d+)", lower):
            body = self.exactly(int(sized[1]))
            return Response(head, body, raw + body)
        if not re.search(rb"\r\ntransfer-encoding:\s*chunked", lower):
            body = self.rest()
            return Response(head, body, raw + body)
        body = b""
        while True:
            line = self.until(b"\r\n")
            raw += line
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            piece = self.exactly(size)
            body += piece
            raw += piece + self.until(b"\r\n")
        while (line := self.until(b"\r\n")) != b"\r\n":
            raw += line
        return Response(head, body, raw + line)

    def get(self, path: str = "/", *headers: str) -> Response:
        """GET on this connection, kept alive."""
        lines = [f"GET {path} HTTP/1.1", "Host: test.example", *headers, "", ""]
        self.send("\r\n".join(lines).encode())
        return self.response()


def get(port: int, path: str = "/", *headers: str) -> Response:
    """One GET on a connection of its own."""
    with RawClient(port) as client:
        return client.get(path, "Connection: close", *headers)


def run(
    command: list[str],
    *,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    deadline: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end with a deadline, output captured."""
    return subprocess.run(
        command,
        cwd=folder or "/",
        env=clean_environment(env),
        input=stdin,
        capture_output=True,
        timeout=deadline,
        check=False,
    )
