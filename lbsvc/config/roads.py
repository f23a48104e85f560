"""Which roads lead to which pool: what is sent to it, and so what it speaks and how it is counted.

Promises: every pool of the settings is in the answer, one that nothing is sent to with none. Mirrors and splits count. Asked
by pools.py and the app.
"""

from __future__ import annotations

from collections.abc import Iterator

from lbsvc.config.schema import ListenerSettings, Settings


def roads_of(settings: Settings) -> dict[str, frozenset[str]]:
    """Pool name -> protocols ("http", "tcp") of the listeners that send to it."""
    roads: dict[str, set[str]] = {name: set() for name in settings.pools}
    for listener in settings.listeners.values():
        for pool in _pools_of(listener):
            roads.setdefault(pool, set()).add(listener.protocol)
    return {name: frozenset(protocols) for name, protocols in roads.items()}


def _pools_of(listener: ListenerSettings) -> Iterator[str]:
    if listener.pool is not None:
        yield listener.pool
    for route in listener.routes:
        if route.pool is not None:
            yield route.pool
        for pool, _ in route.split:
            yield pool
        if route.mirror is not None:
            yield route.mirror.pool
