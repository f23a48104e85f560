"""An HTTP backend whose mood a test changes while it serves, and clients with addresses of their own.

Promises: a `MoodyBackend` answers with its name; what it was asked is kept, checks apart. A mood is the backend's (`mood`),
or the first word of a request's path where the backend's is `ok`:

    ok      200 with its name
    error   500
    sick    500 every second time, else 200
    reset   the connection is reset once the request is there, before a byte of an answer
    half    200 that breaks off in its body
    hold    200 once the test lets one more go (`let_go`)
    slow    200 after `delay` seconds

/health is answered 200 while `is_well` is true, else 503, in no mood. Used by the tests of the real process.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter

from tests.kit.processes import RawClient
from tests.kit.upstreams import (
    DEADLINE,
    Conversation,
    Ended,
    Forever,
    RecordingBackend,
    Reset,
    Step,
    read_request,
    response,
)

MOODS = ("ok", "error", "sick", "reset", "half", "hold", "slow")


class MoodyBackend(RecordingBackend):
    """A backend that answers with its name, if it feels like it."""

    def __init__(self, name: str, *, port: int = 0, mood: str = "ok", delay: float = 0.2) -> None:
        self.name = name
        self.mood = mood
        self.delay = delay
        self.is_well = True
        self.asked: list[bytes] = []  # heads of requests in the order in which they came, without checks
        self.held = 0  # requests that wait for `let_go`
        self._lock = threading.Lock()
        self._places = threading.Semaphore(0)
        super().__init__([Forever(_Mood(self))], port=port)

    @property
    def paths(self) -> list[str]:
        """The targets of the requests, in the order in which they came."""
        return [head.split(b" ", 2)[1].decode() for head in list(self.asked)]

    def let_go(self, count: int = 1) -> None:
        """So many of those that are held, or will be, get their answer."""
        self._places.release(count)

    def note(self, head: bytes) -> int:
        """Keep a request: its number, from 0."""
        with self._lock:
            self.asked.append(head)
            return len(self.asked) - 1

    def hold(self) -> None:
        """Wait to be let go."""
        with self._lock:
            self.held += 1
        try:
            deadline = time.monotonic() + DEADLINE
            while not self._places.acquire(timeout=0.02):
                if self.stopping.is_set() or time.monotonic() > deadline:
                    raise Ended("nobody let it go")
        finally:
            with self._lock:
                self.held -= 1


class _Mood(Step):
    """One request, and what the mood makes of it."""

    def __init__(self, backend: MoodyBackend) -> None:
        self.backend = backend

    def run(self, talk: Conversation) -> None:
        backend = self.backend
        head, _ = read_request(talk)
        path = head.split(b" ", 2)[1].decode("latin-1")
        name = backend.name.encode()
        if path == "/health":
            talk.send(response(b"", "200 OK" if backend.is_well else "503 Unwell"))
            return
        number = backend.note(head)
        asked = path.split("?")[0].strip("/").split("/")[0]
        mood = asked if backend.mood == "ok" and asked in MOODS else backend.mood
        if mood == "reset":
            Reset().run(talk)
        elif mood == "half":
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + name)
            Reset().run(talk)
        elif mood == "hold":
            backend.hold()
        elif mood == "slow" and backend.stopping.wait(backend.delay):
            raise Ended("stopped")
        fails = mood == "error" or (mood == "sick" and number % 2 == 0)
        talk.send(response(name, "500 Moody" if fails else "200 OK", "Content-Type: text/plain"))


class LocalClient(RawClient):
    """A client whose own address is `host`, one of 127.0.0.0/8."""

    def __init__(self, port: int, host: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE, source_address=(host, 0))
        self.buffer = b""


def leave(client: RawClient) -> None:
    """Go away for good, by a reset: whoever only finishes sending may still wait for an answer (RFC 9112, 9.6)."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


def served(client: RawClient, count: int, path: str = "/") -> Counter[str]:
    """Who has answered so many GETs on this connection, one after the other; answers other than 200 as their status."""
    found = Counter[str]()
    for _ in range(count):
        answer = client.get(path)
        found[answer.body.decode() if answer.status == 200 else str(answer.status)] += 1
    return found


def order(client: RawClient, count: int, path: str = "/") -> str:
    """The names of those who answered, in their order."""
    return "".join(client.get(path).body.decode() for _ in range(count))
