"""The guard on a clock, its backends as it sees them, and leases as a pool keeps them."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Outcome
from lbsvc.core.guarding import Guard
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy

BAD = (Outcome.RESET, -1)
GOOD = (Outcome.OK, 200)
ERROR = (Outcome.OK, 500)
GONE = (Outcome.CLIENT_GONE, -1)


class Guarded:
    """A backend as the guard sees it."""

    def __init__(self, name: str, most: int = 1000) -> None:
        self.name = name
        self.active = 0
        self.most = self.limit = most
        self.circuit = "closed"
        self.is_ejected = False
        self.epoch = 0

    @property
    def has_room(self) -> bool:
        """Whether a pool would give it work."""
        return self.circuit != "open" and not self.is_ejected and self.active < self.limit

    def __repr__(self) -> str:
        return self.name


class Use:
    """A lease as the pool keeps it."""

    def __init__(self, guard: Guard[Guarded], backend: Guarded) -> None:
        self.guard = guard
        self.backend = backend
        self.epoch = backend.epoch
        backend.active += 1

    def end(self, outcome: Outcome, code: int) -> None:
        self.backend.active -= 1
        self.guard.observe(self.backend, outcome, code, self.epoch)

    def answered(self) -> None:
        self.epoch = self.guard.answered(self.backend, self.epoch)


class GuardCase(TestCase):
    """A guard of three backends on a clock, and everything that it says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, str]] = []
        self.fields: list[dict[str, Any]] = []
        self.changes: list[Guarded] = []
        self.a, self.b, self.c = self.backends = [Guarded(name) for name in "abc"]

    def make(self, breaker: BreakerPolicy | None = None, ejection: EjectionPolicy | None = None) -> Guard[Guarded]:
        clock = self.clock
        self.guard: Guard[Guarded] = Guard(breaker, ejection, clock.seconds, clock.callLater, self.changed, self.tell)
        self.guard.members(self.backends)
        return self.guard

    def changed(self, backend: Guarded) -> None:
        """The pool sorts its members anew."""
        self.changes.append(backend)

    def tell(self, event: str, backend: Guarded, fields: dict[str, Any]) -> None:
        self.told.append((event, backend.name))
        self.fields.append(fields)

    def use(self, backend: Guarded, *results: tuple[Outcome, int]) -> None:
        """One request after another."""
        for outcome, code in results:
            Use(self.guard, backend).end(outcome, code)

    def states(self) -> list[str]:
        return [backend.circuit for backend in self.backends]

    def ejected(self) -> list[Guarded]:
        return [backend for backend in self.backends if backend.is_ejected]
