"""How backends are, where another process checks them: net/prober.py's Checker for a worker.

Promises: what the parent has told of a backend holds from the moment it is told, also of one that is made later; a backend
of which nothing was told is `unknown`. Nobody is asked here. Names are looked up likewise: `lookup` answers with what was
told, at once or when it is. Called by workers/worker.py and the pools.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from twisted.internet.defer import Deferred, succeed

from lbsvc.core.backend import Backend
from lbsvc.core.policies import FlappingPolicy, HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.workers.messages import Verdict

_Key: TypeAlias = tuple[str, str, str]


class Unresolved(Exception):
    """The parent could not look a name up."""


class Hearsay:
    """What was told about every backend, whether it is here yet or not."""

    def __init__(self) -> None:
        self._told: dict[_Key, Verdict] = {}
        self._there: dict[_Key, tuple[Pool, Backend]] = {}

    def hear(self, verdicts: Iterable[Verdict]) -> None:
        """The parent has found this."""
        changed: dict[Pool, None] = {}
        for verdict in verdicts:
            key = verdict.pool, verdict.backend, verdict.address
            self._told[key] = verdict
            if key in self._there:
                pool, backend = self._there[key]
                _believe(backend, verdict)
                changed[pool] = None
        for pool in changed:
            pool.refresh()

    # -- as pools see it

    def add(
        self, pool: Pool, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None
    ) -> None:
        """What was told holds for it; the caller refreshes the pool."""
        key = _key_of(backend)
        self._there[key] = pool, backend
        if key in self._told:
            _believe(backend, self._told[key])

    def revise(self, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None) -> bool:
        """Whether it is here; by what it is checked is the parent's."""
        return _key_of(backend) in self._there

    def recheck(self, backend: Backend) -> None:
        """The parent does, and tells."""

    def remove(self, backend: Backend) -> None:
        """It is not checked any more: what was told is not true for ever."""
        key = _key_of(backend)
        if self._there.get(key, (None, None))[1] is backend:
            del self._there[key]
            self._told.pop(key, None)

    def everyone_asked(self) -> Deferred[None]:
        """Not our question."""
        return succeed(None)


class Names:
    """What the parent has told of host names."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._awaited: dict[str, list[Deferred[list[str]]]] = {}

    def hear(self, host: str, addresses: list[str]) -> None:
        """It stands for these now; none: it could not be looked up so far."""
        if addresses:
            self._known[host] = addresses
        for asked in self._awaited.pop(host, []):
            if asked.called:
                continue
            if addresses:
                asked.callback(list(addresses))
            else:
                asked.errback(Unresolved(f"{host} could not be looked up"))

    def lookup(self, host: str) -> Deferred[list[str]]:
        """The addresses of a host, when they are told."""
        if host in self._known:
            return succeed(list(self._known[host]))
        asked: Deferred[list[str]] = Deferred(lambda asked: self._awaited.get(host, [asked]).remove(asked))
        self._awaited.setdefault(host, []).append(asked)
        return asked


def _believe(backend: Backend, verdict: Verdict) -> None:
    if backend.state != "maint":
        if verdict.health == "up" != backend.health:
            backend.is_suspect = False
        backend.health, backend.last_check = verdict.health, verdict.last_check


def _key_of(backend: Backend) -> _Key:
    return backend.pool, backend.name, backend.address
