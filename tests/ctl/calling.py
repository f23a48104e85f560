"""lbctl as people start it: a process of its own, away from the checkout; and a balancer for it to ask."""

from __future__ import annotations

import json
import sys
from subprocess import CompletedProcess
from typing import Any

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import Balancer, run
from tests.kit.upstreams import named_backend

LBCTL = [sys.executable, "-m", "lbsvc.ctl.main"]


def lbctl(*arguments: str, admin: str = "", **env: str) -> CompletedProcess[bytes]:
    """One run of it."""
    return run([*LBCTL, *arguments], env={"LBCTL_ADMIN": admin, **env} if admin else env)


class LbctlTestCase(ProcessTestCase):
    """A balancer with one pool, `web`, of two backends, a and b."""

    def serve_two(self, **rest: Any) -> tuple[Balancer, int]:
        self.backends = [self.backend(named_backend(name)) for name in "ab"]
        entries = [
            {"address": f"127.0.0.1:{backend.port}", "name": name}
            for name, backend in zip("ab", self.backends, strict=True)
        ]
        balancer, port = self.serve(*entries, **rest)
        self.admin = f"http://127.0.0.1:{balancer.admin_port}"
        return balancer, port

    def call(self, *arguments: str, code: int = 0, **env: str) -> str:
        """Standard output of a run that ends with `code`."""
        self.called = lbctl(*arguments, admin=self.admin, **env)
        self.assertEqual(self.called.returncode, code, (arguments, self.called.stdout, self.called.stderr))
        return self.called.stdout.decode()

    @property
    def said(self) -> str:
        """Standard error of the last run."""
        return self.called.stderr.decode()

    def read(self, *arguments: str, code: int = 0, **env: str) -> Any:
        """What a run with --json gives."""
        return json.loads(self.call(*arguments, "--json", code=code, **env))

    def states(self) -> dict[str, str]:
        """State by backend."""
        found = self.read("status")
        return {backend["name"]: backend["state"] for backend in found["pools"][0]["backends"]}
