"""What people do to a service in a storm, by its admin interface, its file and its signals; and how all of it is undone.

Promises: each call is one that must succeed, and says so otherwise; `settle` leaves file, states, weights and members as
they were at the start. A backend that is watched while it drains must get nothing new. Used by storm.py.
"""

from __future__ import annotations

import copy
import random
import signal
from typing import Any, Final

from tests.chaos.arena import POOLS, Arena
from tests.kit.operating import Answer
from tests.kit.processes import until

ALGORITHMS: Final = ("round_robin", "least_connections", "adaptive", "consistent_hash", "ip_hash", "two_choices")


class Operations:
    """Somebody with access to an arena's service; `problems` is what did not go as it must."""

    def __init__(self, arena: Arena, seed: str) -> None:
        self.arena = arena
        self.chance = random.Random(seed)
        self.problems: list[str] = []
        self._operator = arena.operator
        self._tree = arena.tree_at_start

    def do(self, word: str, target: int) -> None:
        """One operation, on the pool that chance chooses."""
        getattr(self, f"_{word}")(self.chance.choice(POOLS), f"b{target}")

    def _call(self, expected: tuple[int, ...], method: str, path: str, value: object = None) -> Answer | None:
        try:
            answer = self._operator.api(method, path, value)
        except OSError as error:
            self.problems.append(f"{method} {path}: {error!r}")
            return None
        if answer.status not in expected:
            self.problems.append(f"{method} {path} {value}: {answer.status} {answer.body!r}")
        return answer

    def _set(self, pool: str, name: str, **value: object) -> None:
        self._call((200,), "PATCH", f"/pools/{pool}/backends/{name}", value)

    def _drain(self, pool: str, name: str) -> None:
        self._set(pool, name, state="drain")

    def _maint(self, pool: str, name: str) -> None:
        self._set(pool, name, state="maint")

    def _weigh(self, pool: str, name: str) -> None:
        self._set(pool, name, weight=self.chance.choice([0, 1, 3, 50]))

    def _release(self, pool: str, name: str) -> None:
        for each in self.arena.members:
            self._set(pool, each.name, state="ready", weight=1)

    def _guest(self, pool: str, name: str) -> None:
        """Who is not there comes, and who is there goes."""
        guest = self.arena.guest
        path = f"/pools/{pool}/backends"
        if self._operator.backend(pool, guest.name) is None:
            address = f"h2c://{guest.address}" if pool == "calls" else guest.address
            self._call((201,), "POST", path, {"address": address, "name": guest.name, "weight": 2})
        else:
            self._call((202,), "DELETE", f"{path}/{guest.name}?drain={self.chance.choice(['0s', '1s', '5s'])}")

    def _reload(self, pool: str, name: str) -> None:
        """Another file: weights, an algorithm, a route, patience."""
        tree = self._operator.tree = copy.deepcopy(self._tree)
        settings = tree["pools"][pool]
        for each in settings["backends"]:
            each["weight"] = self.chance.choice([1, 1, 2, 5])
        settings["algorithm"] = self.chance.choice(ALGORITHMS)
        settings["queue"] = {"size": self.chance.choice([0, 10, 50]), "timeout": "1s"}
        settings["connections"]["max_requests"] = self.chance.choice([None, 1, 20])
        route = {"match": {"path": "/never/*"}, "name": "never", "pool": pool if pool != "raw" else "web"}
        if self.chance.random() < 0.5:
            tree["listeners"]["web"]["routes"].insert(0, route)
        self._apply()

    def _hangup(self, pool: str, name: str) -> None:
        self._operator.tree["listeners"]["web"]["limits"] = {"header_count": self.chance.choice([100, 101])}
        self._operator.write()
        self.arena.service.signal(signal.SIGHUP)

    def _wrong_reload(self, pool: str, name: str) -> None:
        tree = self._operator.tree
        self._operator.tree = copy.deepcopy(tree)
        self._operator.tree["pools"][pool]["backends"][0]["weight"] = -3
        answer = self._operator.reload()
        if answer.status != 422:
            self.problems.append(f"a wrong file: {answer.status} {answer.body!r}")
        self._operator.tree = tree
        self._operator.write()

    def _apply(self) -> None:
        answer = self._operator.reload()
        if answer.status != 200:
            self.problems.append(f"reload: {answer.status} {answer.body!r}")

    def _check(self, pool: str, name: str) -> None:
        interval = self.chance.choice(["100ms", "250ms", "500ms"])
        self._call((200,), "PATCH", f"/pools/{pool}/health_check", {"interval": interval})

    def _look(self, pool: str, name: str) -> None:
        """What is read only."""
        for path in ("/status", "/health", f"/pools/{pool}", "/config"):
            self._call((200,), "GET", path)
        self.arena.metrics()

    def _watch(self, pool: str, name: str) -> None:
        """A backend that drains gets nothing new once its last request is over."""
        (backend,) = [each for each in self.arena.members if each.name == name]
        self._drain("calls", name)

        def is_empty() -> bool:
            found = self._operator.backend("calls", name)
            return found is None or found["active"] == 0

        def seen() -> int:
            return backend.book.read_bytes().count(b"h2 ")

        until(is_empty, f"{name} is empty after it was drained")
        before = seen()
        done = self.arena.books.done
        for _ in range(30):
            self.arena.chance_to_work.wait(0.02)
            if self.arena.books.done > done + 30:
                break
        if seen() != before:
            self.problems.append(f"{name} was drained, was empty, and got {seen() - before} more")
        self._set("calls", name, state="ready")

    # -- the end

    def settle(self) -> None:
        """Everything as it was at the start."""
        for pool in POOLS:
            self._release(pool, "")
            self._call((200,), "PATCH", f"/pools/{pool}/health_check", {"interval": "250ms"})
            if self._operator.backend(pool, self.arena.guest.name) is not None:
                self._call((202,), "DELETE", f"/pools/{pool}/backends/{self.arena.guest.name}?drain=1s")
        self._operator.tree = copy.deepcopy(self._tree)
        self._apply()

    def is_settled(self) -> bool:
        """Every member is up, ready and tried in each pool, and nobody else is there.

        How soon a circuit that is half open closes is a matter of whom its pool's algorithm picks.
        """
        pools: list[dict[str, Any]] = self._operator.api("GET", "/status").value["pools"]
        for pool in pools:
            if pool["name"] in POOLS:
                names = [each["name"] for each in pool["backends"]]
                states = {(each["state"], each["health"], each["circuit"] == "open") for each in pool["backends"]}
                if names != [each.name for each in self.arena.members] or states != {("ready", "up", False)}:
                    return False
        return True
