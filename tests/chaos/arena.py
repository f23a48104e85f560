"""One real service, six backends and their clients: what every storm happens in.

Promises: the configuration has breaker, retries, ejection, health checks, queue and flapping on, impatient enough for a
test, and algorithms that the seed chooses; `stop` ends every process, thread and namespace. The sixth backend, `guest`, is
in no file: operators add and remove it. Pool `load` is wrk's and that of copies, so that what the others count is what our
clients know. Used by storm.py. Seconds, bytes.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import socket
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml

from tests.chaos.backends import Backend, Namespace
from tests.chaos.books import Books
from tests.chaos.traffic import Traffic
from tests.kit.authority import Authority
from tests.kit.operating import Operator
from tests.kit.processes import ROOT, Balancer, free_ports, scratch_folder, until

#: Listeners whose requests our clients write down, and what else listens.
ASKED: Final = ("web", "secure", "raw")
LISTENERS: Final = (*ASKED, "wrk")
POOLS: Final = ("web", "calls", "raw")

ALGORITHMS: Final = [
    "round_robin",
    "least_connections",
    "random",
    "two_choices",
    "ip_hash",
    "consistent_hash",
    "adaptive",
]

#: A request has so long in all.
TIMEOUT: Final = 6

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]

_PLUGIN: Final = """from lbsvc.plugin import Algorithm
probe = Algorithm("chaosprobe", "tests.chaos.probe.Probe")
"""


class Arena:
    """Everything that a storm needs, ready."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(f"arena {seed}")
        self.chance_to_work = threading.Event()  # never set: what is waited for is time for others
        self.folder = scratch_folder()
        self.namespace = Namespace.make()
        self.backends: list[Backend] = []
        self.balancer: Balancer | None = None
        try:
            names = ("b0", "b1", "b2", "b3", "b4", "guest", *LISTENERS, "admin")
            self.ports = dict(zip(names, free_ports(len(names)), strict=True))
            for name in names[:6]:
                namespace = self.namespace if name == "b4" else None
                self.backends.append(Backend(name, self.ports[name], self.folder, seed, namespace))
            *self.members, self.guest = self.backends
            self.books = Books(f"c{seed}")
            self.traffic = self._traffic()
            self.tree_at_start = self._tree()
            for backend in self.backends:
                backend.await_port()
            self.service = self._start()
        except BaseException:
            self.stop()
            raise

    def _traffic(self) -> Traffic:
        authority = Authority()
        authority.issue("site.example").write(str(self.folder), "site")
        contexts = []
        for protocol in ("http/1.1", "h2"):
            context = ssl.create_default_context(cadata=authority.pem.decode())
            context.set_alpn_protocols([protocol])
            contexts.append(context)
        return Traffic(self.books, self.ports, *contexts)

    def _start(self) -> Balancer:
        plugins = self.folder / "site" / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "chaos_probe_plugin.py").write_text(_PLUGIN)
        env = {"PYTHONPATH": f"{ROOT}:{self.folder / 'site'}", "CHAOS_PROBE": str(self.folder / "probe")}
        self.balancer = Balancer(yaml.safe_dump(self.tree_at_start, sort_keys=False), env=env)
        self.balancer.ready()
        self.operator = Operator(self.balancer)
        ahead = len(self.members) * self.tree_at_start["pools"]["raw"]["connections"]["keep_alive"]
        until(lambda: self.balancer.metric("lbsvc_backend_connections", pool="raw") == ahead, "connected ahead")
        return self.balancer

    # -- the configuration

    def _tree(self) -> dict[str, Any]:
        """The file as it is at the start."""
        certificate = {"cert": str(self.folder / "site.pem"), "key": str(self.folder / "site.key")}
        routes = [
            {"match": {"path": "/calls/*"}, "name": "calls", "pool": "calls", "timeout": TIMEOUT},
            {
                "match": {"path": "/copied/*"},
                "name": "copied",
                "pool": "web",
                "timeout": TIMEOUT,
                "mirror": {"pool": "load", "percent": "30%"},
            },
            {"match": {"path": "/*"}, "name": "all", "pool": "web", "timeout": TIMEOUT},
        ]
        front = {
            "trusted_proxies": ["127.0.0.0/8"],
            "timeouts": {
                "handshake": 5,
                "request_header": 5,
                "request_body": 5,
                "write": 5,
                "idle": 5,
                "half_close": 3,
            },
            "routes": routes,
        }
        listeners: dict[str, Any] = {
            "web": {**front},
            "secure": {**front, "tls": {"certificates": [certificate]}},
            "raw": {"protocol": "tcp", "pool": "raw", "timeouts": {"idle": 5, "half_close": 3}},
            "wrk": {"pool": "load", "access_log": False},
        }
        for name, listener in listeners.items():
            listener["bind"] = f"127.0.0.1:{self.ports[name]}"
        return {
            "listeners": listeners,
            "pools": {
                "web": self._pool("http", ""),
                "calls": self._pool("http", "h2c://"),
                "raw": self._pool("tcp", ""),
                "load": self._pool("http", ""),
                "probe": {"algorithm": "chaosprobe", "backends": ["127.0.0.1:9"], "health_check": "off"},
            },
            "admin": {"bind": f"127.0.0.1:{self.ports['admin']}"},
            "access_log": {"path": str(self.folder / "access.log")},
        }

    def _pool(self, check: str, scheme: str) -> dict[str, Any]:
        chance = self.chance
        how = {"type": "http", "path": "/health"} if check == "http" else {"type": "tcp"}
        return {
            "algorithm": chance.choice(ALGORITHMS),
            "backends": [
                {"address": f"{scheme}{each.address}", "name": each.name, "max_connections": 12}
                for each in self.members
            ],
            "health_check": {**how, "interval": "250ms", "timeout": "1s", "rise": 1, "fall": 2},
            "passive_health": {"failures": 5, "window": "5s", "eject": "500ms", "max_ejected": "50%"},
            "circuit_breaker": {"failure_threshold": 5, "reset_timeout": "500ms", "half_open_requests": 2},
            "retry": {
                "attempts": 3,
                "when": ["connect_failure", "reset", "timeout", "503"]
                if chance.random() < 0.5
                else ["connect_failure", "reset"],
                "backoff": {"initial": "10ms", "max": "100ms"},
                "per_try_timeout": "2s" if check == "http" and chance.random() < 0.5 else None,
            },
            "timeouts": {"connect": "500ms", "response": "1500ms", "idle": "1500ms"},
            "queue": {"size": 50, "timeout": "1s"},
            "flapping": {"changes": 6, "window": "4s", "hold": "1s"},
            "slow_start": "1s" if chance.random() < 0.5 else None,
            "connections": {"keep_alive": 16 if check == "http" else chance.choice([0, 2]), "idle_timeout": "1s"},
        }

    # -- what can be seen of the service

    def metrics(self) -> Metrics:
        """Every sample, by its name and labels."""
        found: Metrics = {}
        status, page = self.service.admin("/metrics")
        assert status == 200
        for line in page.decode().splitlines():
            if not line.startswith("#"):
                name, _, rest = line.partition("{") if "{" in line else (*line.partition(" ")[:2], line)
                labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest.rpartition("}")[0]) if "{" in line else []
                found[name.split(" ")[0], frozenset(labels)] = float(line.rpartition(" ")[2])
        return found

    def look_inside(self) -> dict[str, dict[str, int]]:
        """Timers and objects of the process (probe.py)."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.folder / "probe"))
            text = b""
            while piece := sock.recv(65536):
                text += piece
        found: dict[str, dict[str, int]] = json.loads(text)
        return found

    def descriptors(self) -> Counter[str]:
        """What is open, by kind; sockets are not told apart."""
        found = Counter[str]()
        for link in Path(f"/proc/{self.service.pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue  # the listing's own, or one that was closed meanwhile
            found[target.split(":")[0]] += 1
        return found

    def take_lines(self) -> list[dict[str, Any]]:
        """The access log since the last time; its file is moved away as logrotate does it. Nothing may be under way."""
        log = self.folder / "access.log"
        old = self.folder / "access.log.1"
        log.rename(old)
        self.service.signal(signal.SIGUSR1)
        until(log.exists, "the access log opened anew")
        lines = [json.loads(line) for line in old.read_text().splitlines()]
        old.unlink()
        return lines

    def count_lines(self) -> int:
        """How many there are in its file now."""
        log = self.folder / "access.log"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def complaints(self) -> list[str]:
        """What the service has said that it never should."""
        # a pool may well become empty
        marks = ("Traceback", "Unhandled", "Error", "exception", "never retrieved", "released twice")
        lines = [*self.service.text.splitlines(), *self.service.errors.splitlines()]
        return [
            line
            for line in lines
            if any(mark in line for mark in marks)
            or ('"level": "error"' in line and "pool.empty" not in line and "config.refused" not in line)
        ]

    def stop(self) -> None:
        """End all of it."""
        if hasattr(self, "traffic"):
            self.traffic.stop()
        if self.balancer is not None:
            self.balancer.stop()
        for backend in self.backends:
            backend.stop()
        if self.namespace is not None:
            self.namespace.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
