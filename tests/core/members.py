"""Live backends and pools for tests, in one short call."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool


def member(name: str = "a", weight: int = 1, *, health: str = "up", **keys: Any) -> Backend:
    """A backend that is up, unless told otherwise."""
    host = keys.pop("host", "10.0.0.1")
    backend = Backend(keys.pop("pool", "web"), name, f"{name}.example:80", host, 80, weight, **keys)
    backend.health = health
    return backend


def members(weights: Sequence[int] | str, **keys: Any) -> list[Backend]:
    """`members([5, 1, 1])` are a, b, c with these weights; `members("abc")` all weigh 1."""
    if isinstance(weights, str):
        return [member(name, **keys) for name in weights]
    return [member(chr(97 + n) if n < 26 else f"n{n}", weight, **keys) for n, weight in enumerate(weights)]


def pool_of(backends: Sequence[Backend], algorithm: str = "round_robin", **keys: Any) -> Pool:
    pool = Pool("web", algorithm, random.Random(1), **keys)
    pool.set_members(backends)
    return pool
