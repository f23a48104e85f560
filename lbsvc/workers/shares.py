"""The settings as one worker of several lives by them: whatever is a number of places is dealt out.

Promises: `max_connections` of listeners and backends, `queue.size`, `connections.keep_alive` and what is dialled ahead are
divided as core/shares.py says; a size of 0 stays 0, no limit stays none, and everything else is equal. What needs no change
is the same object. Rates and `connections_per_client` are not divided, but told between workers (tallies.py), since one
client may have to do with one worker alone. Neither is `half_open_requests`: each worker tries by itself whether a backend
serves again, so that one on trial gets at most so many from each of them.

Called by the parent, or by workers for themselves; the whole settings are what a reload compares and the admin shows. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lbsvc.config.schema import BackendSettings, ListenerSettings, PoolSettings, Settings
from lbsvc.core.shares import Seat


def share_of(limit: int, worker: int, workers: int) -> int:
    """What the worker of this number, from 0, has of a limit: together they have all of it, each of them one or more."""
    return Seat(worker, workers).share(limit)


def dealt(settings: Settings, worker: int, workers: int) -> Settings:
    """The settings of the worker of this number, from 0."""
    seat = Seat(worker, workers)
    if seat.is_alone:
        return settings
    listeners = {name: _listener(each, seat) for name, each in settings.listeners.items()}
    pools = {name: _pool(each, seat) for name, each in settings.pools.items()}
    if _are(listeners, settings.listeners) and _are(pools, settings.pools):
        return settings
    return replace(settings, listeners=MappingProxyType(listeners), pools=MappingProxyType(pools))


def _are(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Are all of them the same objects?"""
    return all(each is other[name] for name, each in one.items())


def _listener(settings: ListenerSettings, seat: Seat) -> ListenerSettings:
    share = seat.share(settings.max_connections)
    return settings if share == settings.max_connections else replace(settings, max_connections=share)


def _pool(settings: PoolSettings, seat: Seat) -> PoolSettings:
    backends = tuple(_backend(each, seat) for each in settings.backends)
    if any(one is not other for one, other in zip(backends, settings.backends, strict=True)):
        settings = replace(settings, backends=backends)
    size, kept, ahead = settings.queue.size, settings.connections.keep_alive, settings.ahead
    if size and seat.share(size) != size:
        settings = replace(settings, queue=replace(settings.queue, size=seat.share(size)))
    if kept and seat.share(kept) != kept:
        settings = replace(settings, connections=replace(settings.connections, keep_alive=seat.share(kept)))
    if ahead and seat.share(ahead) != ahead:
        settings = replace(settings, ahead=seat.share(ahead))
    return settings


def _backend(settings: BackendSettings, seat: Seat) -> BackendSettings:
    most = settings.max_connections
    if most is None or seat.share(most) == most:
        return settings
    return replace(settings, max_connections=seat.share(most))
