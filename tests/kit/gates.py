"""HTTP backends that hold every request until the test opens a gate: one thread serves thousands of connections.

Promises: while the gate is shut, requests are read and counted (`held`) and not answered, so that a test knows how many were
there at one and the same time; once it is open they are answered, and what comes then at once. An answer says who gives it
and to what (`a /path`). Requests have no bodies. The thread and every socket end with `stop`.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import Counter

from tests.kit.upstreams import response

#: So many connections may wait to be accepted.
BACKLOG = 8192


class _Talk:
    """One connection."""

    def __init__(self, name: str, skt: socket.socket) -> None:
        self.name = name
        self.skt = skt
        self.came = b""


class GatedBackends:
    """Some backends, by their names, behind one gate. `port` is for one that returns."""

    def __init__(self, *names: str, port: int = 0) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._waiting: list[tuple[_Talk, bytes]] = []
        self._is_open = False
        self._talks: set[_Talk] = set()
        self._doors: dict[str, socket.socket] = {}
        #: requests that each was asked, ever
        self.asked: Counter[str] = Counter()
        self.addresses: dict[str, str] = {}
        for name in names:
            door = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
            door.setblocking(False)
            self._doors[name] = door
            self.addresses[name] = f"127.0.0.1:{door.getsockname()[1]}"
            self._selector.register(door, selectors.EVENT_READ, name)
        self._near, self._far = socket.socketpair()
        self._selector.register(self._far, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def held(self) -> Counter[str]:
        """Requests that wait for the gate, by backend."""
        with self._lock:
            return Counter(talk.name for talk, _ in self._waiting)

    def open(self) -> None:
        """Answer all, from now on."""
        with self._lock:
            self._is_open = True
            waiting, self._waiting = self._waiting, []
            for talk, path in waiting:
                self._answer(talk, path)

    def shut(self) -> None:
        """Hold what comes from now on."""
        with self._lock:
            self._is_open = False

    def stop(self) -> None:
        """Everything ends, and whoever waits for an answer sees that."""
        self._near.close()
        self._thread.join(30)
        for skt in (self._far, *self._doors.values(), *(talk.skt for talk in self._talks)):
            skt.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._far:
                    return
                if isinstance(key.data, str):
                    self._accept(key.data)
                else:
                    self._read(key.data)

    def _accept(self, name: str) -> None:
        try:
            while True:
                skt, _ = self._doors[name].accept()
                skt.setblocking(False)
                talk = _Talk(name, skt)
                self._talks.add(talk)
                self._selector.register(skt, selectors.EVENT_READ, talk)
        except BlockingIOError:
            pass

    def _read(self, talk: _Talk) -> None:
        try:
            piece = talk.skt.recv(65536)
        except OSError:
            piece = b""
        if not piece:
            self._selector.unregister(talk.skt)
            self._talks.discard(talk)
            with self._lock:
                self._waiting = [each for each in self._waiting if each[0] is not talk]
                talk.skt.close()
            return
        talk.came += piece
        *heads, talk.came = talk.came.split(b"\r\n\r\n")
        with self._lock:
            for head in heads:
                path = head.split(b" ", 2)[1]
                self.asked[talk.name] += 1
                if self._is_open:
                    self._answer(talk, path)
                else:
                    self._waiting.append((talk, path))

    @staticmethod
    def _answer(talk: _Talk, path: bytes) -> None:
        try:
            talk.skt.send(response(talk.name.encode() + b" " + path))
        except OSError:
            pass  # it has gone
