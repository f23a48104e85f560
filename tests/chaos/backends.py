"""The backends of an arena as the test sees them: started, killed, stopped, told their mood; one of them behind a wire.

Promises: whatever was done to one, `mend` makes it serve again; `stop` ends the process whatever state it is in.
`Namespace` is a network of its own on a veth pair, which ends with its holder; where the machine allows none, and for
everybody else, `Swallower` stands in for a backend behind a cut wire: its SYNs are dropped. Used by arena.py.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.kit.processes import DEADLINE, clean_environment, run, until


class Namespace:
    """Another network, `host` in it reached by a veth pair whose far end can be taken down."""

    def __init__(self) -> None:
        mark = random.SystemRandom().randrange(1 << 14)  # of the networks for tests of devices, 198.18.0.0/15
        network = f"198.{18 + mark % 2}.{mark // 2 % 256}."
        self.near, self.host = (f"{network}{mark // 512 * 8 + each}" for each in (1, 2))
        self._near_link, self._far_link = f"ch{mark:x}n", f"ch{mark:x}f"
        self._holder = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
        )

    @classmethod
    def make(cls) -> Self | None:
        """One that works, or None where the machine does not allow it."""
        if shutil.which("ip", path="/sbin:/usr/sbin:/bin:/usr/bin") is None or shutil.which("nsenter") is None:
            return None
        made = cls()
        if made._is_held() and made._wire_up():
            return made
        made.stop()
        return None

    def _is_held(self) -> bool:
        assert self._holder.stdout is not None
        return self._holder.stdout.readline() == b"here\n"

    def _wire_up(self) -> bool:
        near, far = self._near_link, self._far_link
        outside = [
            ["link", "add", near, "type", "veth", "peer", "name", far, "netns", str(self._holder.pid)],
            ["addr", "add", f"{self.near}/30", "dev", near],
            ["link", "set", near, "up"],
        ]
        inside = [
            ["addr", "add", f"{self.host}/30", "dev", far],
            ["link", "set", "lo", "up"],
            ["link", "set", far, "up"],
        ]
        return all(self._ip(*each) for each in outside) and all(self._ip(*each, inside=True) for each in inside)

    def _ip(self, *words: str, inside: bool = False) -> bool:
        prefix = self.prefix if inside else []
        return run([*prefix, "ip", *words], env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}).returncode == 0

    @property
    def prefix(self) -> list[str]:
        """Before a command that shall run in it; it becomes the command."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told so."""
        assert self._ip("link", "set", self._far_link, "down", inside=True)

    def join(self) -> None:
        """The wire is whole again."""
        assert self._ip("link", "set", self._far_link, "up", inside=True)

    def stop(self) -> None:
        """End it, and its wire with it."""
        self._holder.kill()
        self._holder.wait(DEADLINE)
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream is not None:
                stream.close()


class Swallower:
    """Listens where a backend was, accepts nobody, and has no room: what is sent to it is dropped."""

    def __init__(self, port: int) -> None:
        self._sockets = [socket.socket()]
        self._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sockets[0].bind(("127.0.0.1", port))
        self._sockets[0].listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            self._sockets.append(filler)

    def stop(self) -> None:
        """Let the port go."""
        for each in self._sockets:
            each.close()


class Backend:
    """One of them: `fault` is what is wrong with it now, an empty string for nothing."""

    def __init__(self, name: str, port: int, folder: Path, seed: int, namespace: Namespace | None = None) -> None:
        self.name = name
        self.namespace = namespace
        self.host = namespace.host if namespace is not None else "127.0.0.1"
        self.port = port
        self.address = f"{self.host}:{self.port}"
        self.book = folder / f"{name}.book"
        self.book.touch()
        self.fault = ""
        self._chance = random.Random(f"{seed} {name}")
        self._swallower: Swallower | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start its process, not waited for."""
        command = [sys.executable, "-m", "tests.chaos.backend", self.name, self.host, str(self.port), str(self.book)]
        prefix = self.namespace.prefix if self.namespace is not None else []
        self._process = subprocess.Popen(
            [*prefix, *command, str(self._chance.randrange(1 << 30))],
            stdin=subprocess.PIPE,
            env=clean_environment(),
            cwd=self.book.parent,
        )

    def await_port(self) -> None:
        """Until it accepts connections."""

        def accepts() -> bool:
            try:
                socket.create_connection((self.host, self.port), 1).close()
            except OSError:
                return False
            return True

        until(accepts, f"{self.name} on {self.address}")

    def _say(self, command: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and its port is free."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def harm(self, fault: str) -> None:
        """Do something to it: `killed`, `stopped`, `parted`, `ill`, or a mood."""
        assert not self.fault
        self.fault = fault
        if fault == "killed":
            self.kill()
        elif fault == "stopped":
            self.signal(signal.SIGSTOP)
        elif fault == "parted" and self.namespace is not None:
            self.namespace.cut()
        elif fault == "parted":
            self.kill()
            self._swallower = Swallower(self.port)
        elif fault == "ill":
            self._say("well 0")
        else:
            self._say(f"mood {fault}")

    def mend(self) -> None:
        """It serves as it should again, or is about to."""
        fault, self.fault = self.fault, ""
        if fault == "killed":
            self.start()
        elif fault == "stopped":
            self.signal(signal.SIGCONT)
        elif fault == "parted" and self.namespace is not None:
            self.namespace.join()
        elif fault == "parted":
            assert self._swallower is not None
            self._swallower.stop()
            self._swallower = None
            self.start()
        elif fault == "ill":
            self._say("well 1")
        elif fault:
            self._say("mood ok")

    def take_book(self) -> list[tuple[str, str, str, str]]:
        """What it has written down since the last time: road, token, method, word. Nothing may be under way."""
        found = [line.split(" ") for line in self.book.read_text().splitlines()]
        self.book.write_text("")
        return [(road, token, method, word) for road, token, method, word in found]

    def stop(self) -> None:
        """End it, whatever it is doing."""
        if self._swallower is not None:
            self._swallower.stop()
        self.kill()
