"""What the tests of the real process share: a configuration from Python values, and things that end with the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import yaml
from twisted.trial.unittest import TestCase

from tests.kit.processes import Balancer, Nginx, free_ports, scratch_folder
from tests.kit.upstreams import RecordingBackend

T = TypeVar("T")


def config(listeners: Mapping[str, Any], pools: Mapping[str, Any] | None = None, *, admin: int, **rest: Any) -> str:
    """A configuration file; `admin` is its port on loopback."""
    tree = {"listeners": listeners, "pools": pools or {}, "admin": {"bind": f"127.0.0.1:{admin}"}, **rest}
    if (workers := os.environ.get("LBSVC_TEST_WORKERS")) and "workers" not in tree:
        tree["workers"] = int(workers)  # see tests/kit/processes.py
    return yaml.safe_dump(tree, sort_keys=False)


class ProcessTestCase(TestCase):
    """Everything started through these methods is stopped when the test ends."""

    def scratch(self) -> Path:
        folder = scratch_folder()
        self.addCleanup(shutil.rmtree, folder, True)
        return folder

    def start(self, text: str, **keys: Any) -> Balancer:
        """Our service with this configuration, not waited for."""
        balancer = Balancer(text, **keys)
        self.addCleanup(balancer.stop)
        return balancer

    def serve(
        self,
        *backends: str | Mapping[str, Any],
        protocol: str = "http",
        listener: Mapping[str, Any] | None = None,
        pool: Mapping[str, Any] | None = None,
        process: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> tuple[Balancer, int]:
        """One listener before one pool, ready, and its port. Checks are off unless `pool` says otherwise."""
        port, admin = free_ports(2)
        front: dict[str, Any] = {"bind": f"127.0.0.1:{port}", "protocol": protocol, **(listener or {})}
        pools = {}
        if backends:
            front["pool"] = "web"
            pools["web"] = {"backends": list(backends), "health_check": "off", **(pool or {})}
        text = config({"main": front}, pools, admin=admin, **rest)
        return self.start(text, **(process or {})).ready(), port

    def backend(self, backend: RecordingBackend) -> RecordingBackend:
        self.addCleanup(backend.stop)
        return backend

    def nginx(self, servers: str, port: int) -> Nginx:
        """nginx with these server blocks; @FOLDER@ in them is its folder."""
        folder = self.scratch()
        server = Nginx(servers.replace("@FOLDER@", str(folder)), folder, port)
        self.addCleanup(server.stop)
        return server

    def at_once(self, count: int, job: Callable[[int], T]) -> list[T]:
        """The results of `job(0)` to `job(count - 1)`, all run at the same time."""
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(job, range(count)))
