"""One real service that a replay asks and changes, and the backends behind it.

Promises: every call has a deadline; the two connections of the client (to the listener and to the admin interface) live as
long as the process does, so that a change that costs an established connection is a failure. Used by test_replay.py.
"""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from typing_extensions import override

from tests.integration.cases import ProcessTestCase
from tests.integration.promised import Entry, File, FilePool
from tests.kit.processes import DEADLINE, Balancer, free_ports

#: How many places there are for backends.
PLACES = 5
#: A path of health checks that every backend answers well, and one that every other one does not.
WELL, ODD = "/well", "/odd"


class _Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Backend

    def do_GET(self) -> None:
        is_ill = self.path == ODD and self.server.number % 2
        body = b"%d" % self.server.number
        self.wfile.write(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b"
            % (b"503 Ill" if is_ill else b"200 OK", len(body), body)
        )  # fmt: skip

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class _Backend(http.server.ThreadingHTTPServer):
    """Answers with its number."""

    daemon_threads = True

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        super().__init__(("127.0.0.1", port), _Answering)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A check that was given up, a process that was killed: the connection ends, and that is all."""


class Replayed:
    """The service, as whoever operates it has it before them."""

    def __init__(self, case: ProcessTestCase) -> None:
        self._case = case
        self._folder: Path = case.scratch()
        self.port, self.side, self.admin, *self.places = free_ports(3 + PLACES)
        for number, port in enumerate(self.places):
            backend = _Backend(number, port)
            case.addCleanup(backend.server_close)
            case.addCleanup(backend.shutdown)
        self.number = {port: number for number, port in enumerate(self.places)}
        self.restarts = 0
        self._balancer: Balancer | None = None
        self._web: http.client.HTTPConnection | None = None
        self._api: http.client.HTTPConnection | None = None

    # -- the process

    def start(self, text: str) -> None:
        self._balancer = self._case.start(text).ready()
        self._web = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        self._api = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=DEADLINE)
        # Whoever closes on us is found out: the library would connect anew without a word.
        for connection in (self._web, self._api):
            connection.connect()
            connection.auto_open = 0

    def restart(self, text: str, signal: int) -> int:
        """End it by a signal, and start it with another file; how the first one ended."""
        assert self._balancer is not None and self._web is not None and self._api is not None
        self._web.close()
        self._api.close()
        self._balancer.signal(signal)
        status = self._balancer.wait()
        self.start(text)
        self.restarts += 1
        return status

    def write(self, text: str) -> None:
        assert self._balancer is not None
        self._balancer.file.write_text(text)

    def report(self) -> str:
        assert self._balancer is not None
        return self._balancer.report()

    # -- what it is asked

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, str]:
        """Status, JSON value and entity tag of a call of the API."""
        assert self._api is not None
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._api.request(method, "/api/v1" + path, content, headers or {})
        with self._api.getresponse() as answer:
            return answer.status, json.loads(answer.read()), answer.getheader("ETag", "")

    def metric(self, name: str) -> float:
        """A metric that has no labels."""
        assert self._api is not None
        self._api.request("GET", "/metrics")
        with self._api.getresponse() as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.rpartition(" ")[2])
        raise AssertionError(f"there is no {name}")

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body of a request through the listener, on the one connection."""
        assert self._web is not None
        self._web.request("GET", path)
        with self._web.getresponse() as answer:
            return answer.status, answer.read().decode()

    # -- files

    def tree(self, file: File) -> dict[str, Any]:
        """A file as Python values."""
        routes: list[dict[str, Any]] = [{"match": {"path": "/word"}, "respond": {"status": 200, "body": file.word}}]
        routes += [{"match": {"path": f"/{name}/*"}, "pool": name} for name, _ in file.pools]
        listeners: dict[str, Any] = {"main": {"bind": f"127.0.0.1:{self.port}", "routes": routes}}
        if file.has_side:
            listeners["side"] = {"bind": f"127.0.0.1:{self.side}", "routes": routes[:1]}
        return {
            "listeners": listeners,
            "pools": {name: _pool(pool) for name, pool in file.pools},
            "admin": {"bind": f"127.0.0.1:{self.admin}"},
            "state_file": str(self._folder / "state.json"),
        }

    def text(self, file: File) -> str:
        return yaml.safe_dump(self.tree(file), sort_keys=False)


def _pool(pool: FilePool) -> dict[str, Any]:
    check = "off" if pool.check is None else {"type": "http", "timeout": "5s", **dict(pool.check)}
    return {
        "algorithm": pool.algorithm,
        "backends": [entry.keys for entry in pool.entries],
        "health_check": check,
        "flapping": None,
    }


def path_of(pool: str, name: str | None = None) -> str:
    """The path of a pool, or of a backend in it."""
    return f"/pools/{quote(pool, safe='')}" + ("" if name is None else f"/backends/{quote(name, safe='')}")


def entry_keys(entry: Entry) -> dict[str, Any]:
    """What is sent to add a backend."""
    return {key: value for key, value in entry.keys.items() if (key, value) not in (("weight", 1), ("backup", False))}


def counted(tag: str) -> int:
    """How often a pool has changed, by its tag."""
    return int(tag.strip('"').rpartition("-")[2])
