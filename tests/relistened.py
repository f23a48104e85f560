"""Listeners on our reactor, turned by hand, whose settings change: clients are plain sockets, routes answer themselves."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
import time
from typing import Any

from lbsvc.config.schema import Bind, ListenerSettings, PoolSettings, Settings
from lbsvc.errors import SystemRefusal
from lbsvc.http.h2_checks import check_for
from lbsvc.http.site import RequestIds
from lbsvc.listening import Listeners
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.listener import Descriptors
from lbsvc.net.prober import HealthChecker
from lbsvc.net.systemd import Passed
from lbsvc.pools import Pools
from tests.kit import builders
from tests.kit.processes import free_ports
from tests.net.reactors import PATIENCE, ReactorCase

CLOSED = b"closed"
RESET = b"reset"


def answering(name: str, *binds: str | Bind, text: str = "", **keys: Any) -> ListenerSettings:
    """An http listener that answers everything with its name, or with `text`."""
    routes = (builders.route("own", respond=builders.respond(text or name)),)
    made = tuple(each if isinstance(each, Bind) else builders.bind(each) for each in binds)
    return ListenerSettings(name, made, **{"routes": routes, **keys})


class ListenersCase(ReactorCase):
    """A service of listeners and pools."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[tuple[str, str]] = []
        self.records: list[tuple[Any, ...]] = []
        self.deadlines = Deadlines(self.reactor)
        self.deadlines.start()
        self.addCleanup(self.deadlines.stop)

    def start(self, *parts: ListenerSettings | PoolSettings, passed: Passed | None = None, **keys: Any) -> Listeners:
        """Serve; what changes is said by `change`."""
        rng = random.Random(7)
        checker = HealthChecker(self.reactor, rng, lambda *_: None, dial, time.time, check_for)
        self.settings = builders.settings(*parts, **keys)
        self.pools = Pools(self.reactor, self.deadlines, checker, rng, time.time, self.emit, lambda: False)
        self.listeners = Listeners(
            self.reactor,
            self.deadlines,
            Descriptors(1 << 20),
            self.pools,
            rng,
            RequestIds(rng),
            time.time,
            self.emit,
            passed or {},
        )
        self.listeners.log = self.records.append
        for pool in self.settings.pools.values():
            self.pools.make(pool)
        for each in self.settings.listeners.values():
            self.listeners.make(each)
        self.addCleanup(self.end)
        for listener in self.listeners.listeners:
            listener.bind()
        self.pools.start()
        self.listeners.start()
        for listener in self.listeners.listeners:
            listener.accept()
        return self.listeners

    def end(self) -> None:
        """Nothing is left that would keep a port or a timer."""
        for listener in self.listeners.listeners:
            listener.close()
        for site in self.listeners.sites:
            site.abort()
        self.turn()
        self.listeners.stop()
        self.pools.stop()

    def emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((event, message))

    def prepare(self, *parts: ListenerSettings | PoolSettings, **keys: Any) -> tuple[Settings, Any, Any]:
        new = builders.settings(*parts, **keys)
        pools = self.pools.prepare(self.settings, new)
        return new, pools, self.listeners.prepare(self.settings, new)

    def change(self, *parts: ListenerSettings | PoolSettings, **keys: Any) -> list[str]:
        """Other settings; what has changed about the listeners."""
        new, pools, plan = self.prepare(*parts, **keys)
        pools.commit()
        changes: list[str] = plan.commit()
        self.settings = new
        return changes

    def refused(self, *parts: ListenerSettings | PoolSettings, **keys: Any) -> list[str]:
        """Other settings that cannot be had; why."""
        with self.assertRaises(SystemRefusal) as raised:
            self.prepare(*parts, **keys)
        return [f"{mistake.key}: {mistake.message}" for mistake in raised.exception.mistakes]

    # -- clients

    def free(self, count: int = 1) -> list[int]:
        """Ports that nobody has."""
        return list(free_ports(count))

    def path(self) -> str:
        """Of a unix socket that is not there yet."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "s")

    def client(self, at: int | str, host: str = "127.0.0.1") -> socket.socket:
        """Connected as far as the kernel is concerned: nobody has turned the reactor."""
        if isinstance(at, str):
            far = socket.socket(socket.AF_UNIX)
            far.connect(at)
        else:
            far = socket.create_connection((host, at), PATIENCE)
        self.ends.append(far)
        return far

    def ask(self, far: socket.socket, *fields: str, path: str = "/", host: str = "x") -> bytes:
        """The body of the answer to a request on this connection, or CLOSED, or RESET."""
        lines = "".join(f"{each}\r\n" for each in fields)
        far.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())
        return self.read_answer(far).partition(b"\r\n\r\n")[2]

    def read_answer(self, far: socket.socket) -> bytes:
        """A whole answer with a Content-Length; CLOSED or RESET behind an empty head where there is none."""
        far.setblocking(False)
        found = bytearray()
        ends: list[bytes] = []

        def is_whole() -> bool:
            try:
                piece = far.recv(65536)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                ends.append(RESET)
                return True
            if not piece:
                ends.append(CLOSED)
                return True
            found.extend(piece)
            head, mark, body = bytes(found).partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            return bool(mark) and len(body) >= int(length or b"0")

        self.spin(is_whole)
        return bytes(found) if not ends else b"\r\n\r\n" + ends[0]

    def is_closed(self, far: socket.socket) -> bool:
        """Whether we have closed it, or reset it."""
        far.setblocking(False)
        try:
            return far.recv(65536) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def fresh(self, at: int | str, host: str = "127.0.0.1", path: str = "/") -> bytes:
        """What a new client is answered."""
        far = self.client(at, host)
        body = self.ask(far, path=path)
        far.close()
        return body

    def assert_refused(self, at: int | str, host: str = "127.0.0.1") -> None:
        self.assertRaises((ConnectionRefusedError, FileNotFoundError), self.client, at, host)
