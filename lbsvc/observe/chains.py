"""Which of our listeners are backends of our own pools, so that what they get is not counted as if others had asked.

Promises: a listener is behind a pool where a backend has its address: the same host and port or the same path; any loopback
address for a listener on every address of the machine; "localhost" is a loopback address. A backend that is written as an
address of the machine's network is not recognised behind such a listener, nor one behind sockets that systemd has passed.
Pure; called by observe/history.py once a second, so a thousand backends cost a fraction of a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from lbsvc.core.pool import Pool
from lbsvc.observe.snapshot import Door

_EVERYWHERE: Final = ("", "0.0.0.0", "::")
_LOCALHOST: Final = "localhost"

Place = tuple[str, int]  # host and port; or the path of a unix socket, and 0


def behind(doors: Iterable[Door], pools: Iterable[Pool]) -> frozenset[str]:
    """The names of those listeners."""
    reached = {(backend.host, backend.port) for pool in pools for backend in pool.everyone}
    near = {port for host, port in reached if _is_loopback(host)}
    return frozenset(
        door.books.name
        for door in doors
        if any(place in reached or _is_near(place, reached, near) for place in _places(door.bind))
    )


def _is_near(place: Place, reached: set[Place], near: set[int]) -> bool:
    host, port = place
    if host in _EVERYWHERE:
        return port in near
    return _is_loopback(host) and (_LOCALHOST, port) in reached


@lru_cache(1000)
def _places(bind: str) -> tuple[Place, ...]:
    """What a door's `bind` says."""
    return tuple(_place(each) for each in bind.split(", "))


def _place(text: str) -> Place:
    if text.startswith("unix:"):
        return text[5:], 0
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port) if port.isdigit() else 0


@lru_cache(10_000)
def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == _LOCALHOST
