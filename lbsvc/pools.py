"""All pools of a configuration, alive: how they start, change while the service runs, leave and stop, and what is told.

Promises: other settings come by difference (`prepare`, then `commit` or `abandon`): pools live on by name, backends by pool,
name and address, and `upstreams[name]` is the same object for as long as the pool is there, so that who holds it need not
look again. What is removed finishes what it has: a removed pool works on for who has chosen it (retiring.py), and is among
`everyone` until its last backend has left. Clocks, timers and randomness are given; `emit` is the event log. Called by the
app; one pool is livepool.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from lbsvc.config.roads import roads_of
from lbsvc.config.schema import PoolSettings, Settings
from lbsvc.core.backend import Backend
from lbsvc.core.pool import Pool
from lbsvc.core.retry import FLOOR
from lbsvc.core.shares import ALONE, Seat
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.http.pooling import Upstreams
from lbsvc.livepool import LivePool, Prepared, Surroundings
from lbsvc.net.ahead import Ahead
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.prober import Checker
from lbsvc.net.resolver import Lookup, system_lookup
from lbsvc.repooling import differences
from lbsvc.retiring import Retiring

#: Events of the guard that are bad news, and what they are called among processes.
_BAD: Final = {"circuit.open": "circuit", "backend.ejected": "ejected"}


class Pools:
    """All pools of the service."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        checker: Checker,
        rng: random.Random,
        wall: Callable[[], float],
        emit: Callable[..., None],
        is_starting: Callable[[], bool],
        http: Container[str] = (),
        lookup: Lookup | None = None,
    ) -> None:
        self._http = http  # the pools whose users speak HTTP, all of them, at the start
        self._emit = emit
        self._is_starting = is_starting
        self._live: dict[str, LivePool] = {}
        #: those that were added, while not all of their members have been asked once
        self._unasked: set[Pool] = set()
        #: whether anybody who has chosen this pool may still come to it (listening.py)
        self.is_used: Callable[[Pool], bool] = lambda pool: False
        #: those that were removed
        self._retiring = Retiring(reactor, lambda pool: self.is_used(pool), self._tell_drained)
        self._checker = checker
        self.upstreams: dict[str, Upstreams] = {}
        #: (pool, backend) -> how long what it has may go on, for removals of the next commit; None: no limit
        self.drains: Mapping[tuple[str, str], float | None] = {}
        #: told of a backend whose time for leaving is over: shall end what is under way there (cutting.py)
        self.on_cut: Callable[[Backend], object] = lambda backend: None
        #: told where those that leave are given another time: (pool, name, seconds)
        self.on_hurry: Callable[[str, str, float | None], object] = lambda pool, name, seconds: None
        #: others carry the traffic, find out backends, cut what is left and tell of it; here it is shown
        self.is_leading = False
        #: told of what this process has found out by itself: a backend, and `circuit` (it has opened) or `ejected`
        self.on_found_out: Callable[[Backend, str], object] = lambda backend, what: None
        self._seat = ALONE
        self._around = Surroundings(
            reactor,
            deadlines,
            checker,
            rng,
            wall,
            lookup or system_lookup(reactor),
            emit,
            self.tell_empty,
            self._tell_available,
            self._tell_guard,
            self._gone,
            self._cut,
            lambda: self._seat,
        )

    @property
    def pools(self) -> list[Pool]:
        """Those of the settings in force."""
        return [live.pool for live in self._live.values()]

    @property
    def everyone(self) -> list[Pool]:
        """These, and those that were removed while anybody is leaving them."""
        return [live.pool for live in (*self._live.values(), *self._retiring.everyone)]

    @property
    def retired_roads(self) -> Mapping[str, frozenset[str]]:
        """The protocols that led to those that were removed."""
        return self._retiring.roads

    # -- one of several processes

    def sit(self, seat: Seat) -> None:
        """Which of how many processes this is: before the first `make`; later only how many they are may be different."""
        self._seat = seat
        for pool in self.everyone:
            pool.budget.floor = seat.share(FLOOR)

    def trip(self, pool: str, name: str, address: str, what: str) -> None:
        """Another process has found out this backend (`on_found_out`): it is avoided here, too."""
        for each in self.everyone:
            for backend in each.backends if each.name == pool and each.guard is not None else ():
                if (backend.name, backend.address) == (name, address) and each.guard is not None:
                    (each.guard.trip if what == "circuit" else each.guard.eject)(backend)

    # -- start and stop

    def make(self, settings: PoolSettings) -> None:
        """Make one pool, and all that belongs to it; raises SystemRefusal."""
        self._take_in(LivePool(settings, settings.name in self._http, self._around))

    def _take_in(self, live: LivePool) -> None:
        self._live[live.settings.name] = live
        self.upstreams[live.settings.name] = live.upstreams

    def ahead(self, name: str) -> Ahead | None:
        """The connections that are dialled ahead for the tcp listeners of a pool; None where none are asked for."""
        return self._live[name].ahead()

    def start(self) -> list[Deferred[None]]:
        """Fill the pools; gives what fires when each name that is looked up has its first answer, or has had its time."""
        return [answer for live in self._live.values() for answer in live.start()]

    def stop(self) -> None:
        """No lookup, no timer and no kept connection from here on."""
        self._retiring.stop()
        for live in self._live.values():
            live.stop()

    # -- other settings

    def prepare(self, old: Settings | None, new: Settings) -> PoolsPlan:
        """Make everything that can be refused; raises SystemRefusal with all of it. Nothing changes before `commit`."""
        roads = roads_of(new)
        changes: list[Change] = []
        mistakes: list[Mistake] = []
        for name, settings in new.pools.items():
            is_http = roads[name] == {"http"}
            live = self._live.get(name) or self._retiring.find(name)
            try:
                if live is None:
                    changes.append(Change(LivePool(settings, is_http, self._around)))
                else:
                    prepared = live.prepare(settings, is_http)
                    if prepared is not None or name not in self._live:
                        changes.append(Change(live, prepared))
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        if mistakes:
            raise SystemRefusal(mistakes)
        return PoolsPlan(self, roads_of(old) if old is not None else {}, new, changes)

    def commit(self, plan: PoolsPlan) -> list[str]:
        """Bring the pools to where the plan leads; what has changed, in words."""
        drains, self.drains = self.drains, {}
        removed = plan.new.shutdown.removed
        words: list[str] = []

        def patience_of(pool: str) -> Callable[[str], float | None]:
            return lambda name: drains.get((pool, name), removed)

        for name in [name for name in self._live if name not in plan.new.pools]:
            live = self._live.pop(name)
            del self.upstreams[name]
            self._retiring.begin(live, plan.former_roads.get(name, frozenset(("http", "tcp"))), removed)
            words.append(f"pools.{name}: removed")
        for change in plan.changes:
            live = change.live
            name = live.pool.name
            is_back, is_there = self._retiring.find(name) is live, name in self._live
            if is_there and change.prepared is not None:
                words += differences(live.settings, change.prepared.settings)
            else:
                words.append(f"pools.{name}: added")
                self._take_in(live)
            if is_back:
                self._retiring.take_back(name)
                live.revive(change.prepared, patience_of(name))
            elif change.prepared is not None:
                live.apply(change.prepared, patience_of(name))
            else:
                self._begin(live)
        order = [name for name in plan.new.pools if name in self._live]
        self._live = {name: self._live[name] for name in order}
        return words

    def _begin(self, live: LivePool) -> None:
        """One that was added: nobody says that it is empty before its members have been looked up, and asked."""
        pool = live.pool
        self._unasked.add(pool)
        named = DeferredList(live.start())
        named.addCallback(lambda _: self._checker.everyone_asked()).addCallback(lambda _: self._was_asked(pool))

    def _was_asked(self, pool: Pool) -> None:
        """An added pool's first round is over: what is still so is said now."""
        self._unasked.discard(pool)
        if not pool.is_available:
            self.tell_empty(pool)

    def take_drains(self, drains: Mapping[tuple[str, str], float | None]) -> None:
        """How long what is removed by the next commit may go on."""
        self.drains = drains

    def hear(self, host: str, addresses: list[str]) -> None:
        """Somebody else has looked a name up."""
        for live in self._live.values():
            live.membership.hear(host, addresses)

    def hurry(self, pool: str, name: str, seconds: float | None) -> list[str]:
        """Those that are leaving a pool under the name of an entry may take so long from now on; who, in words."""
        words = []
        for each in self.everyone:
            for backend in list(each.leaving) if each.name == pool else ():
                if backend.name == name or backend.name.startswith(f"{name}@"):
                    each.departures.hurry(backend, seconds)
                    limit = "without limit" if seconds is None else f"{seconds:g}s"
                    words.append(f"pools.{pool}.backends.{backend.name}: leaving, {limit}")
        if words:
            self.on_hurry(pool, name, seconds)
        return words

    def _cut(self, backend: Backend) -> None:
        """It has left, and its time is over."""
        if self.is_leading:
            return
        self._tell("warn", "backend.cut", backend, f"its time is over, {backend.active} in flight are cut")
        self.on_cut(backend)

    def _gone(self, backend: Backend) -> None:
        """It had left, and has finished."""
        self._tell_drained(backend)
        self._retiring.left(backend.pool)

    def _tell_drained(self, backend: Backend) -> None:
        self._tell("info", "backend.drained", backend, "nothing is in flight any more")

    # -- what is told

    def tell_flip(self, backend: Backend, detail: str) -> None:
        """A backend's health has changed."""
        level, word = ("info", "up") if backend.health == "up" else ("warn", "down")
        self._tell(level, f"backend.{word}", backend, f"{backend.health} ({detail})", detail=detail)

    def _tell_guard(self, event: str, backend: Backend, fields: dict[str, Any]) -> None:
        if self.is_leading:
            return
        words = event.replace("circuit.", "circuit ").replace("backend.", "").replace("_", " ")
        self._tell("warn" if event in _BAD else "info", event, backend, words, **fields)
        if event in _BAD and "by" not in fields:
            self.on_found_out(backend, _BAD[event])

    def _tell(self, level: str, event: str, backend: Backend, words: str, **fields: Any) -> None:
        message = f"{backend.pool}/{backend.name}: {words}"
        self._emit(level, event, message, pool=backend.pool, backend=backend.name, **fields)

    def tell_empty(self, pool: Pool) -> None:
        """Nobody is left, and why."""
        if not self._is_news(pool):
            return  # nobody has been looked up or asked yet; what is still so after the first round is said then
        why = "; ".join(f"{b.name}: {why_not(b)}" for b in pool.backends)
        self._emit("error", "pool.empty", f"{pool.name}: no backend is available ({why})", pool=pool.name)

    def _is_news(self, pool: Pool) -> bool:
        """Whether people want to know how it is: it is in the settings, and its members have been asked."""
        return not self._is_starting() and pool.name in self._live and pool not in self._unasked

    def _tell_available(self, pool: Pool) -> None:
        if not self._is_news(pool):
            return  # nothing was said of its being empty
        self._emit("info", "pool.available", f"{pool.name}: a backend is available again", pool=pool.name)


@dataclass(frozen=True)
class Change:
    """What becomes of one pool: a new one (nothing is `prepared`), one that changes, or one that comes back."""

    live: LivePool
    prepared: Prepared | None = None


class PoolsPlan:
    """A change of the pools that can be made."""

    def __init__(
        self, pools: Pools, former_roads: Mapping[str, frozenset[str]], new: Settings, changes: list[Change]
    ) -> None:
        self._pools = pools
        self.former_roads = former_roads
        self.new = new
        self.changes = changes

    def commit(self) -> list[str]:
        """Make it, and say in words what it was. Does not fail."""
        return self._pools.commit(self)

    def abandon(self) -> None:
        """Leave everything as it was: nothing that was made has a timer or a socket."""
        self._pools.drains = {}


def why_not(backend: Backend) -> str:
    """Why a backend gets no traffic: what people have set, or what its last check said."""
    if backend.state != "ready":
        return backend.state
    return backend.last_check[2] if backend.last_check else backend.health
