"""The service as something else starts it: with sockets that were passed, as a container's first process, behind a program.

Promises: what is started is the same command as `Balancer`'s, stopped likewise, with what the prefix has started itself;
`prefix` stands before the command. `listeners` does what systemd does with socket units: it opens sockets, moves them to
descriptor 3 and up, names them, and becomes the command, or (`again`) keeps them and starts it whenever it has ended.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.kit.processes import TWIST, Balancer, Child, run, scratch_folder, until

#: Arguments: NAME=HOST:PORT or NAME=/PATH ..., "--" or "again", and the command. A name may be there several times.
LISTENERS = """
import os, socket, sys
end = next(number for number, each in enumerate(sys.argv) if each in ("--", "again"))
made = []
for each in sys.argv[1:end]:
    name, _, where = each.partition("=")
    if where.startswith("/"):
        one = socket.socket(socket.AF_UNIX)
        one.bind(where)
    else:
        host, _, port = where.rpartition(":")
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, int(port)))
    one.listen(100)
    made.append((name, os.dup2(one.fileno(), 100 + len(made))))
    one.close()
def become():
    for number, (name, each) in enumerate(made, 3):
        os.dup2(each, number, inheritable=True)
    os.closerange(100, 100 + len(made))
    os.environ.update(
        LISTEN_FDS=str(len(made)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(name for name, _ in made)
    )
    os.execvp(sys.argv[end + 1], sys.argv[end + 1:])
while sys.argv[end] == "again":
    child = os.fork()
    if child == 0:
        break
    os.waitpid(child, 0)
become()
"""

#: Becomes the command, as one that orphans are given to (PR_SET_CHILD_SUBREAPER).
ADOPTER = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


def listeners(*sockets: str, again: bool = False) -> list[str]:
    """The prefix that passes these sockets, to one process, or (`again`) to one after the other."""
    return [sys.executable, "-c", LISTENERS, *sockets, "again" if again else "--"]


def first_process() -> tuple[list[str], bool]:
    """The prefix that makes a command PID 1 of a container's kind, as root or as anybody; and whether it does.

    Where the system allows neither (a container inside a container, mostly), the command becomes one that orphans are
    given to, which is half of what PID 1 is.
    """
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
    for prefix in (namespace, [*namespace, "--user", "--map-root-user"]):
        if run([*prefix, "true"]).returncode == 0:
            return prefix, True
    return [sys.executable, "-c", ADOPTER], False


class Launched(Balancer):
    """Our service behind a prefix."""

    def __init__(self, config: str, prefix: list[str], *, env: Mapping[str, str] | None = None) -> None:
        self.folder = scratch_folder()
        self.file = self.folder / "lb.yaml"
        self.file.write_text(config)
        found = re.search(r"(?m)^admin:\s*\n\s+bind: 127\.0\.0\.1:(\d+)", config)
        self.admin_port = int(found[1]) if found else 0
        command = [*prefix, *TWIST, "loadbalancer", "--config", str(self.file)]
        Child.__init__(self, command, folder=self.folder, env=env)

    def child(self) -> int:
        """The pid of the process that the prefix has started (and not become)."""
        return int(until(lambda: children(self.pid), "a child")[0])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGSTOP)  # so that it starts nothing more
            for child in children(self.pid):  # those would be left behind when it is killed
                try:
                    os.kill(int(child), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        super().stop()


def children(pid: int) -> list[str]:
    """The pids of a process's children, those included that have ended and that nobody has reaped."""
    found: list[str] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += (thread / "children").read_text().split()
    return found
