"""What a process chooses, in one line: `python -m tests.core.agreed ORDER` prints it for the members in that order.

Run by test_agreeing.py in several processes, each with a hash seed of its own; it knows nothing but its argument.
"""

from __future__ import annotations

import random
import sys

from lbsvc.core.affinity import CookieTable
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.hashing import key_hash
from lbsvc.core.policies import StickyPolicy
from lbsvc.core.pool import Pool
from lbsvc.core.ratelimit import client_key
from tests.core.members import member

WEIGHTS = {"a": 1, "b": 3, "c": 1, "d": 2, "e": 1, "f": 1, "g": 5}
CLIENTS = [f"192.0.{number >> 8}.{number & 255}" for number in range(400)]


def pool_of(algorithm: str, backends: list[Backend], dice: random.Random) -> Pool:
    """Its members come one after the other, and some leave and come back meanwhile, with requests in between."""
    pool = Pool("web", algorithm, dice)
    for number in range(1, len(backends) + 1):
        pool.set_members(backends[:number])
        for _ in range(dice.randrange(4)):
            lease = pool.pick((), key_hash(b"%d" % dice.randrange(1000)) if pool.wants_key else None)
            if lease is not None:
                lease.release(Outcome.OK, 200)
        if dice.random() < 0.5:
            pool.set_members(backends[: number - 1])
            pool.set_members(backends[:number])
    pool.set_members(backends)
    return pool


def choices(order: str) -> str:
    """Everything that has to be alike."""
    dice = random.Random()  # as different as processes are
    words = []
    for algorithm in ("ip_hash", "consistent_hash"):
        backends = [member(name, WEIGHTS[name]) for name in order]
        pool = pool_of(algorithm, backends, dice)
        down = next(backend for backend in backends if backend.name == "d")
        for health in ("up", "down", "up"):
            down.health = health
            pool.refresh()
            found = [pool.picker.pick_by(key_hash(client_key(client).encode()), ()) for client in CLIENTS]
            words.append("".join(backend.name for backend in found if backend is not None))
            others = [backend for backend in backends if backend.name in "bg"]
            found = [pool.picker.pick_by(key_hash(client.encode()), others) for client in CLIENTS]
            words.append("".join(backend.name for backend in found if backend is not None))
    backends = [member(name, WEIGHTS[name]) for name in order]
    pool = pool_of("least_connections", backends, dice)
    pool.settle_by_hash(True)
    assert pool.homes is not None
    homes = [pool.homes.find(client, ()) for client in CLIENTS]
    words.append("".join(backend.name for backend in homes if backend is not None))
    for policy in (StickyPolicy(), StickyPolicy(key="secret")):
        cookies = CookieTable(policy, "web")
        cookies.members(backends)
        words += sorted(cookies.value_of(backend, 1_800_000_000.0).decode() for backend in backends)
    return " ".join(words)


if __name__ == "__main__":
    print(choices(sys.argv[1]))
