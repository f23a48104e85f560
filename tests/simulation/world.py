"""The simulated service: one live pool with all that belongs to it, machines behind it, visits on their way through it.

Promises: everything that happens, happens in the order of its time, and by the seed alone: the same seed and the same steps
give the same `digest`, whatever the machine, the process and its hashes. Pool, members, checks, guard, slow start and
departures are the product's own (livepool.py, on twisted's Clock); the world owns the many short events of visits, which a
Clock would be slow with. After each event the referee has a look. Seconds from 0.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from heapq import heappop, heappush
from math import inf
from typing import Any, Final

from twisted.internet.task import Clock

from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.core.backend import Backend
from lbsvc.core.clients import ClientCounts
from lbsvc.core.policies import HealthCheckPolicy, RatePolicy
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Ticket
from lbsvc.core.ratelimit import RateLimiter, limiter_for
from lbsvc.livepool import LivePool, Surroundings
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.prober import HealthChecker
from tests.kit.builders import backend as entry_for
from tests.simulation.machines import Look, Machine
from tests.simulation.referee import Broken, Referee
from tests.simulation.visits import IMPATIENT, TUNNELS, Client, Visit

#: What happened last, for whoever reads of a failure.
REMEMBERED: Final = 60
#: Wall clock at the beginning.
EPOCH: Final = 1.7e9
METHODS: Final = (b"GET", b"GET", b"GET", b"POST")


@dataclass(frozen=True)
class Step:
    """Something that is done to the world at a time: see `World.perform`."""

    at: float
    do: str  # trouble | backend | remove | add | settings | load | rate
    who: int = 0  # the number of a machine
    what: Any = None
    lasts: float = 0.0  # of troubles and removals

    def __str__(self) -> str:
        return f"{self.at:.1f} {self.do} {self.who} {self.what} {self.lasts:g}"


def entry(number: int, **keys: Any) -> BackendSettings:
    """The backend of the machine with this number."""
    return entry_for(f"10.9.0.{number + 1}:80", name=f"b{number}", **keys)


class World:
    """One pool and its days. `machines` are behind the backends `entry(0)`, `entry(1)`, ..."""

    def __init__(
        self, seed: int, settings: PoolSettings, machines: list[Machine], clients: int = 200, load: float = 1.0
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.clock.replace = None  # type: ignore[attr-defined]  # as our own reactor, which alone speaks TLS
        self.now = 0.0
        self.machines = machines
        self.settings = settings
        self.load: Callable[[float], float] = lambda now: load  # visits a second
        self.clients = [Client(number) for number in range(clients)]
        self.counts = ClientCounts(50, 2)
        self.limiter: RateLimiter | None = None
        self.impatient = IMPATIENT
        self.tunnels = TUNNELS
        self.visits: set[Visit] = set()  # never walked through: its order is not of the seed
        self.waiting: dict[Ticket, Visit] = {}
        self.ends: Counter[str] = Counter()
        self.told: Counter[str] = Counter()  # how often, by its first word; of health also what it is
        self.arrived = 0
        self._removals: deque[float] = deque()
        self._events: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._count = 0
        self._digest = blake2b(digest_size=16)
        self.last: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)
        self._is_open = False
        wiring = random.Random(seed + 1)
        self.checker = HealthChecker(self.clock, wiring, self._flipped, _no_dial, self.wall, self._look)  # type: ignore[arg-type]
        around = Surroundings(
            self.clock,
            Deadlines(self.clock),
            self.checker,
            wiring,
            self.wall,
            _no_dial,
            lambda level, event, message, **fields: self.note(f"{event} {message}"),
            lambda pool: self.referee.emptied(True),
            lambda pool: self.referee.emptied(False),
            self._guard_says,
            self._gone_for_good,
            self._cut,
        )
        self.live = LivePool(settings, True, around)
        self.referee = Referee(self)
        self.live.start()
        self.checker.startService()
        self._open()

    @property
    def pool(self) -> Pool:
        return self.live.pool

    @property
    def gone(self) -> int:
        """How many backends have been removed in the last ten minutes: for a while they may be remembered."""
        while self._removals and self._removals[0] < self.now - 600.0:
            self._removals.popleft()
        return len(self._removals)

    @property
    def upstreams(self) -> Any:
        return self.live.upstreams

    def wall(self) -> float:
        """The wall clock, which steps nowhere here."""
        return EPOCH + self.clock.rightNow

    def machine(self, backend: Backend) -> Machine:
        """What is behind it."""
        return self.machines[int(backend.name[1:])]

    # -- what is told

    def note(self, words: str, details: object = "") -> None:
        """It happened now: for the digest, and with details for whoever reads of a failure."""
        self.last.append((self.now, f"{words} {details}"))
        self.told[words.split(" ", 1)[0]] += 1
        self.stamp(words)

    def stamp(self, words: str) -> None:
        """It belongs to the digest: it happened now."""
        self._digest.update(f"{self.now!r} {words}\n".encode())

    @property
    def digest(self) -> str:
        """All that has happened."""
        return self._digest.copy().hexdigest()

    def broken(self, words: str) -> Broken:
        """An invariant does not hold: what to raise."""
        story = "\n".join(f"{when:12.3f} {what}" for when, what in self.last)
        return Broken(f"seed {self.seed}, {self.now:.3f} s: {words}\n{self.pool!r} {self.pool.algorithm}\n{story}")

    def _flipped(self, backend: Backend, detail: str) -> None:
        self.told[backend.health] += 1
        self.note(f"health {backend.name} {backend.health}")

    def _guard_says(self, event: str, backend: Backend, fields: dict[str, Any]) -> None:
        self.note(f"{event} {backend.name} {fields}")
        self.referee.guard_said(event, backend, fields)

    def _look(self, reactor: Clock, policy: HealthCheckPolicy, backend: Backend, ended: Any) -> Look:
        return Look(self.machine(backend), reactor, policy, backend, ended)

    def _gone_for_good(self, backend: Backend) -> None:
        self.note(f"drained {backend.name}")
        self.referee.members_changed()

    def _cut(self, backend: Backend) -> None:
        self.note(f"cut {backend.name}")
        for visit in sorted((each for each in self.visits if _is_on(each, backend)), key=lambda each: each.number):
            visit.cut()
        if backend.active:
            raise self.broken(f"{backend!r} was cut, and is in use")

    # -- time

    def later(self, delay: float, call: Callable[[Any], object], argument: Any) -> None:
        """Call it with the argument after so many seconds."""
        self._count += 1
        heappush(self._events, (self.now + delay, self._count, call, argument))

    def run(self, until: float) -> None:
        """Let time go on up to there."""
        clock, events, referee = self.clock, self._events, self.referee
        while True:
            due = clock.calls[0].getTime() if clock.calls else inf
            when = events[0][0] if events else inf
            if min(due, when) > until:
                break
            if due <= when:
                self.now = clock.rightNow = max(due, self.now)
                clock.advance(0)
            else:
                self.now = clock.rightNow = when
                _, _, call, argument = heappop(events)
                call(argument)
            referee.look()
        self.now = clock.rightNow = until

    def play(self, steps: list[Step], until: float) -> None:
        """Do all of these at their times, and let time go on up to there; the referee audits each minute."""
        for step in sorted(steps, key=lambda step: step.at):
            self._run_audited(min(step.at, until))
            self.perform(step)
        self._run_audited(until)

    def _run_audited(self, until: float) -> None:
        while self.now < until:
            self.run(min(until, (self.now // 60 + 1) * 60))
            self.referee.audit()

    def end(self) -> None:
        """Nobody comes any more, whoever is here finishes: then nothing may be left."""
        self.load = lambda now: 0.0
        self.run_out()
        self.referee.final()
        self.checker.stopService()
        self.live.stop()
        # A slow start, and a suspicion, end by themselves.
        self.run(self.now + 5.0 + 1.1 * (self.settings.slow_start or 0.0))
        if self.clock.getDelayedCalls():
            raise self.broken(f"timers are left: {self.clock.getDelayedCalls()}")

    def run_out(self) -> None:
        """Until the last visit is over."""
        patience = self.now + 7200.0
        while self.visits:
            self._run_audited(self.now + 60.0)
            if self.now > patience:
                raise self.broken(f"{len(self.visits)} visits do not end, {len(self.waiting)} of them wait")

    # -- visits

    def _open(self) -> None:
        """Visits come, if any are to come, and do not come already."""
        if not self._is_open:
            self._is_open = True
            self._next_visit()

    def _next_visit(self) -> None:
        rate = self.load(self.now)
        if rate > 0:
            self.later(self.rng.expovariate(rate), self._arrive, None)
        else:
            self._is_open = False

    def _arrive(self, _: None) -> None:
        rng = self.rng
        if self.load(self.now) > 0:
            # Some come often, and most seldom.
            client = self.clients[int(len(self.clients) * rng.random() ** 2)]
            self.arrived += 1
            visit = Visit(self, client, METHODS[int(rng.random() * len(METHODS))], self.arrived)
            self.visits.add(visit)
            visit.arrive()
        self._next_visit()

    def finished(self, visit: Visit, reason: str) -> None:
        """One is over."""
        if visit not in self.visits:
            raise self.broken(f"{visit!r} is over twice")
        self.visits.discard(visit)
        self.ends[reason] += 1
        self.stamp(f"{visit.number} {reason}")

    # -- what people and machines do

    def perform(self, step: Step) -> None:
        """Do it now."""
        self.note(f"{step.do} {step.who}", step)  # what is in it may be shown in another order by another process
        if step.do == "trouble":
            machine = self.machines[step.who]
            machine.troubles.append(step.what)
            self.later(step.lasts, self._mend, (machine, step.what))
        elif step.do == "load":
            self.load = step.what if callable(step.what) else lambda now: float(step.what)
            self._open()
        elif step.do == "rate":
            policy: RatePolicy | None = step.what
            former, self.limiter = self.limiter, limiter_for(policy, self.limiter)
            if self.limiter is not former:
                for client in self.clients:
                    client.tokens = None
        else:
            self._apply(self._changed(step), step.lasts if step.do == "remove" and step.lasts else None)
        self.referee.look()

    def _changed(self, step: Step) -> PoolSettings:
        """The settings, with this."""
        settings, name = self.settings, f"b{step.who}"
        if step.do == "settings":
            return replace(settings, **step.what)
        if step.do == "remove":
            return replace(settings, backends=tuple(each for each in settings.backends if each.name != name))
        if step.do == "add":
            if any(each.name == name for each in settings.backends):
                return settings
            return replace(settings, backends=(*settings.backends, entry(step.who, **step.what)))
        return replace(
            settings,
            backends=tuple(replace(each, **step.what) if each.name == name else each for each in settings.backends),
        )

    def _apply(self, settings: PoolSettings, patience: float | None) -> None:
        prepared = self.live.prepare(settings, True)
        names = {each.name for each in settings.backends}
        self._removals.extend(self.now for each in self.settings.backends if each.name not in names)
        self.settings = settings
        if prepared is not None:
            self.live.apply(prepared, lambda name: patience)
        self.referee.members_changed()

    def _mend(self, trouble: tuple[Machine, str]) -> None:
        machine, kind = trouble
        machine.troubles.remove(kind)


def _is_on(visit: Visit, backend: Backend) -> bool:
    return visit.lease is not None and visit.lease.backend is backend


def _no_dial(*_: object) -> Any:
    raise AssertionError("nothing is dialled here")
