"""The load of an arena: clients of every kind in threads, until they are told to end.

Promises: `start` and `stop` may alternate; when `stop` returns no client has a connection. `mood` says how they behave:
`calm` (few, well behaved), `busy` (many), `rude` (many, of whom a third leaves, dawdles and talks nonsense). What they ask
is in `books`. Chance comes from a seed, one stream for each client.
"""

from __future__ import annotations

import itertools
import random
import ssl
import threading
import traceback
from typing import Protocol

from tests.chaos.asking import PATIENCE, HttpClient
from tests.chaos.asking_bytes import BytesClient, TunnelClient
from tests.chaos.asking_h2 import H2Client
from tests.chaos.books import Books

#: How long a calm client waits between two connections, in seconds.
CALM = 0.05


class Client(Protocol):
    """Somebody who asks."""

    def converse(self, is_rude: bool) -> None: ...


class Traffic:
    """Clients of the listeners `ports`: web (plain), secure (TLS) and raw (bytes)."""

    def __init__(self, books: Books, ports: dict[str, int], trust: ssl.SSLContext, h2_trust: ssl.SSLContext) -> None:
        self.books = books
        self.ports = ports
        self.mood = "calm"
        self._trust, self._h2_trust = trust, h2_trust
        self._sources = itertools.count(random.SystemRandom().randrange(1 << 22))
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def _address(self) -> str:
        """One of 127.0.0.0/8 that no other connection of this arena comes from."""
        number = next(self._sources) % (1 << 23) + (1 << 16)
        return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def _clients(self, chance: random.Random) -> list[Client]:
        def seeded() -> random.Random:
            return random.Random(chance.random())

        books, ports = self.books, self.ports
        return [
            *[HttpClient(books, "web", ports["web"], seeded()) for _ in range(4)],
            *[H2Client(books, "web", ports["web"], seeded()) for _ in range(2)],
            HttpClient(books, "secure", ports["secure"], seeded(), self._trust),
            H2Client(books, "secure", ports["secure"], seeded(), self._h2_trust),
            TunnelClient(books, "web", ports["web"], seeded()),
            TunnelClient(books, "secure", ports["secure"], seeded(), self._trust),
            *[BytesClient(books, "raw", ports["raw"], seeded(), self._address) for _ in range(3)],
        ]

    def start(self, seed: str) -> None:
        """All of them begin."""
        chance = random.Random(seed)
        self._ending.clear()
        for client in self._clients(chance):
            thread = threading.Thread(target=self._run, args=(client, random.Random(chance.random())), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, client: Client, chance: random.Random) -> None:
        while not self._ending.is_set():
            try:
                client.converse(self.mood == "rude" and chance.random() < 0.3)
            except Exception:
                self.books.trouble(traceback.format_exc())
                return
            if self.mood == "calm" or self.books.is_ending:
                self._ending.wait(CALM)

    def stop(self) -> None:
        """All of them end what they are at."""
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                self.books.trouble("a client does not end")
        self._threads = []
