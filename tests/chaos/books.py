"""What the clients of a storm write down: each request and connection of theirs, and how it went.

Promises: one `Asked` for each request (of a tcp listener: connection), under a token of its own, which is its id in the
access log, and what bodies about it consist of. `wrong` says what must never be, whatever was broken: bytes of somebody
else, an answer that is none. Filled by asking*.py in threads of their own, judged by judging.py.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.moods import EVIL, unit


@dataclass
class Asked:
    """One request, or one connection of plain bytes."""

    token: str
    listener: str
    road: str  # h1 | h2 | tcp
    route: str = "-"
    method: str = "-"
    count: int = 0  # units in its answer
    address: str = ""  # tcp: where it comes from, which nobody else does
    is_sent: bool = False  # all of it was handed to the kernel
    left: str = ""  # the client went on purpose, at which point
    is_behind: bool = False  # its connection ended before its turn
    was_kept: bool = False  # it is not the first on its connection
    status: int = 0
    served_by: str = ""
    is_loose: bool = False  # its answer ends with the backend's connection: nobody can tell whether it is whole
    is_whole: bool = False  # the answer has come to its end
    reason: str = ""  # that an answer of the balancer's own gives
    body: bytearray = field(default_factory=bytearray)
    wire: int = 0  # bytes of the answer as it came, heads included; 0: not counted
    ended: str = ""  # how the connection went meanwhile: eof, reset, hung, goaway, stream
    wrong: str = ""

    def blame(self, text: str) -> None:
        """Something that must never be."""
        self.wrong = self.wrong or text

    def check_body(self) -> None:
        """Whether what has come is an answer to this request, or the beginning of one."""
        body = bytes(self.body)
        if EVIL[:5] in body:
            self.blame(f"bytes that nobody asked for: {body[:60]!r}")
        elif self.served_by:
            whole = b"" if self.method == "HEAD" else unit(self.token) * self.count
            is_exact = self.is_whole and not self.is_loose and self.status in (200, 500)
            right = body == whole if is_exact else whole.startswith(body)
            if not right:
                self.blame(f"{len(body)} bytes of {len(whole)}, {body[:60]!r}...{body[-60:]!r}")
        elif self.is_whole and self.status != 101 and self.method not in ("HEAD", "-"):
            words = body.decode("latin-1").split()
            if len(words) < 3 or words[0] != str(self.status) or words[2] != self.token:
                self.blame(f"an error that names another request: {body[:100]!r}")
            else:
                self.reason = words[1]
        self.body.clear()

    def __str__(self) -> str:
        what = f"{self.listener} {self.road} {self.method} /{self.route} {self.token}"
        how = f"left {self.left}" if self.left else "sent" if self.is_sent else "not all sent"
        got = f"{self.status}{' whole' if self.is_whole else ''} by {self.served_by or '-'} {self.reason} {self.ended}"
        return f"{what}: {how}, {'kept, ' if self.was_kept else ''}{got}{' WRONG: ' + self.wrong if self.wrong else ''}"


class Books:
    """All that the clients of one arena have asked; safe to be written by many threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._marked = 0
        self.connects = Counter[str]()  # by listener
        self.done = 0  # requests that are over, one way or another
        self.answered = 0  # those with a whole answer of a backend
        self.nonsense = 0  # requests that are none, answered 400
        self.troubles: list[str] = []
        self.is_ending = False  # the service has been told to end

    def new(self, listener: str, road: str, route: str = "-", method: str = "-", count: int = 0) -> Asked:
        """A request with a token of its own."""
        asked = Asked(f"{self._name}-{next(self._numbers)}", listener, road, route, method, count)
        with self._lock:
            self._asked.append(asked)
        return asked

    def connected(self, listener: str) -> None:
        """One more connection to it has come about."""
        with self._lock:
            self.connects[listener] += 1

    def over(self, asked: Asked) -> None:
        """Nothing more comes of it."""
        asked.check_body()
        with self._lock:
            self.done += 1
            self.answered += bool(asked.is_whole and asked.served_by and asked.status == 200)

    def no_connection(self, text: str) -> None:
        """There was none to be had, which is right once the service has been told to end."""
        if not self.is_ending:
            self.trouble(text)

    no_handshake = no_connection

    def answered_nonsense(self) -> None:
        with self._lock:
            self.nonsense += 1

    def trouble(self, text: str) -> None:
        """Something is wrong with a client itself."""
        with self._lock:
            self.troubles.append(text)

    def mark(self) -> None:
        """What is asked from now on must be answered."""
        with self._lock:
            self._marked = len(self._asked)

    def calm(self) -> list[Asked]:
        """What was asked since the mark."""
        return self._asked[self._marked :]

    def take(self) -> tuple[list[Asked], Counter[str], int]:
        """What was asked, connected, and answered as nonsense since the last time. No client may be at it."""
        with self._lock:
            taken = self._asked, self.connects, self.nonsense
            self._asked, self.connects, self.nonsense = [], Counter(), 0
        return taken


def some_count(chance: random.Random) -> int:
    """How long an answer is, in units: mostly short, at times beyond every buffer."""
    return chance.choice([0, 1, 1, 1, 3, 30, 300, 300, 5000] + [40000] * (chance.random() < 0.3))
