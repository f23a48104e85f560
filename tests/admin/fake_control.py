"""A service for the tests of the admin interface: the configuration's own rules, and pools without traffic."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from lbsvc.admin.control import Checked, Event, Look, Order, Underway, anyhow
from lbsvc.config import overlay, piece
from lbsvc.config.loader import load_text
from lbsvc.config.overlay import Overrides
from lbsvc.config.schema import BackendSettings, Settings
from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.errors import ConfigErrors, SystemRefusal
from lbsvc.observe.history import History
from lbsvc.observe.snapshot import Door, status

FILE = """
listeners:
  front: {bind: "127.0.0.1:8080", pool: web}
pools:
  web:
    health_check: {type: http}
    backends:
      - {address: "10.0.0.1:8001", name: a}
      - "http://10.0.0.2:8001"
"""

TWO_POOLS = (
    FILE
    + """
  "odd name/1":
    algorithm: least_connections
    backends: [{address: "app.example:80", name: app}]
"""
)


#: What comes of traffic.
SENT: dict[str, Any] = {
    "sent": 100,
    "statuses": {"200": 99, "503": 1},
    "reasons": {"ok": 99, "no_backend": 1},
    "errors": {},
    "backends": [{"pool": "web", "name": "a", "requests": 99}, {"pool": "web", "name": None, "requests": 1}],
    "latency_ms": {"p50": 1.25, "p95": 2.5, "p99": 3.0, "max": 3.5},
    "elapsed": 0.25,
}


#: Two workers, one of which has just died and is started again.
WORKERS: list[dict[str, Any]] = [
    {
        "worker": number,
        "pid": 4710 + number,
        "state": state,
        "uptime": uptime,
        "restarts": number - 1,
        "connections": 3,
        "requests": 1234 * number,
        "cpu_seconds": 1.5,
        "resident_bytes": 12345678,
    }
    for number, state, uptime in ((1, "serving", 12.3), (2, "starting", 0.1))
]


@dataclass(frozen=True)
class Applied:
    """What was applied."""

    generation: int
    changes: tuple[str, ...]


class FakeControl:
    """admin.control.Control; what is asked of it is kept in `asked`."""

    def __init__(self, file: str = FILE, admin: str = "") -> None:
        self.file = file + admin
        self.generation = 1
        self.overrides = Overrides()
        self.effective, self.overrides = overlay.apply(self._load(), self.overrides)
        self.revisions = dict.fromkeys(self.effective.pools, 1)
        self.asked: list[tuple[Any, ...]] = []
        self.listeners: list[Callable[[Event], None]] = []
        self.refusal: SystemRefusal | None = None
        self.pending: Deferred[Any] | None = None
        self.uptime = 12.5
        self.books = ListenerBooks("front", "http")
        self.live: dict[tuple[str, str], Backend] = {}
        self.history = History()
        #: traffic that is being sent, once `is_slow` has it go on
        self.sending: Deferred[dict[str, Any]] | None = None
        self.is_slow = False
        self.protocol, self.state = "http", "listening"
        #: changes that wait for their turn, once `is_late` has them wait
        self.late: list[Callable[[], object]] = []
        self.is_late = False
        #: what comes between a change and its answer
        self.behind: Callable[[], None] = lambda: None
        #: those who wait for fresh numbers, once `is_stale` has them wait
        self.stale: list[Deferred[None]] = []
        self.is_stale = False
        #: what is asked of the processes fails with this
        self.trouble: Exception | None = None
        self.asked_fresh = 0

    def _load(self) -> Settings:
        return load_text(self.file, "lb.yaml", None).settings

    # -- what the snapshot reads

    @property
    def doors(self) -> list[Door]:
        self.books.protocol = self.protocol
        return [Door(self.books, "127.0.0.1:8080", self.state)]

    @property
    def pools(self) -> list[Pool]:
        found = []
        for settings in self.effective.pools.values():
            pool = Pool(settings.name, settings.algorithm, random.Random(1))
            pool.set_members([self.backend(settings.name, entry) for entry in settings.backends])
            found.append(pool)
        return found

    def backend(self, pool: str, entry: BackendSettings) -> Backend:
        """The live one of an entry."""
        made = Backend(pool, entry.name, entry.address, entry.host, entry.port)
        backend = self.live.setdefault((pool, entry.name), made)
        backend.weight, backend.state, backend.source = entry.weight, entry.state, entry.source
        return backend

    def ready(self) -> str | None:
        return None

    # -- Control

    def sample(self) -> None:
        self.history.sample(self)

    def fresh(self) -> Deferred[None]:
        self.asked_fresh += 1
        if not self.is_stale:
            return succeed(None)
        self.stale.append(Deferred())
        return self.stale[-1]

    def workers(self) -> list[dict[str, Any]]:
        return [dict(each) for each in WORKERS]

    def restart_workers(self, who: str) -> Deferred[dict[str, Any]]:
        self.asked.append(("restart_workers", who))
        return self._done({"restarted": 2})

    def upgrade(self, who: str) -> Deferred[dict[str, Any]]:
        self.asked.append(("upgrade", who))
        return self._done({"pid": 4720})

    def _done(self, found: dict[str, Any]) -> Deferred[dict[str, Any]]:
        if self.pending is not None:
            return self.pending
        return succeed(found) if self.trouble is None else fail(self.trouble)

    def status(self) -> dict[str, Any]:
        return status(self)

    def settings(self) -> Settings:
        return self.effective

    def revision(self, pool: str) -> int:
        return self.revisions[pool]

    def reload(self, who: str) -> Deferred[Any]:
        self.asked.append(("reload", who))
        if self.pending is not None:
            return self.pending
        try:
            loaded = self._load()
        except ConfigErrors as errors:
            return fail(errors)
        if self.refusal is not None:
            return fail(self.refusal)
        self.effective, self.overrides = overlay.apply(loaded, self.overrides)
        self.generation += 1
        return succeed(Applied(self.generation, ("pools.web: changed",)))

    def check(self, text: bytes) -> Deferred[Checked]:
        try:
            return succeed(([], load_text(text, "-", None).notes))
        except ConfigErrors as errors:
            return succeed(([str(mistake) for mistake in errors.mistakes], []))

    def send(self, order: Order) -> Deferred[dict[str, Any]]:
        self.asked.append(("send", order))
        if self.sending is not None:
            raise Underway("traffic is being sent already: one run at a time")
        if self.is_slow:
            self.sending = Deferred(lambda deferred: deferred.callback({**SENT, "sent": 3}))
            return self.sending
        return succeed(dict(SENT))

    def _apply(self, pool: str, look: Look, change: Callable[[], Overrides], words: str) -> Deferred[Applied]:
        def apply() -> Applied:
            look()
            changes = change()
            if self.refusal is not None:
                raise self.refusal
            file = load_text(self.file, "lb.yaml", None).settings
            self.effective, self.overrides = overlay.apply(file, changes)
            self.revisions[pool] += 1
            self.behind()
            return Applied(self.generation, (words,))

        if not self.is_late:
            return maybeDeferred(apply)
        applied: Deferred[Applied] = Deferred()
        self.late.append(lambda: maybeDeferred(apply).chainDeferred(applied))
        return applied

    def add(self, who: str, pool: str, entry: BackendSettings, look: Look = anyhow) -> Deferred[Applied]:
        self.asked.append(("add", who, pool, entry.name))
        words = f"{entry.name}: added"
        return self._apply(pool, look, lambda: overlay.add(self.effective, self.overrides, pool, entry), words)

    def remove(self, who: str, pool: str, name: str, drain: float | None, look: Look = anyhow) -> Deferred[Applied]:
        self.asked.append(("remove", who, pool, name, drain))
        words = f"{name}: removed"
        return self._apply(pool, look, lambda: overlay.remove(self.effective, self.overrides, pool, name), words)

    def change(
        self, who: str, pool: str, name: str, weight: int | None, state: str | None, look: Look = anyhow
    ) -> Deferred[Applied]:
        self.asked.append(("change", who, pool, name, weight, state))

        def both() -> Overrides:
            changes = self.overrides
            if weight is not None:
                changes = overlay.set_weight(self.effective, changes, pool, name, weight)
            if state is not None:
                changes = overlay.set_state(self.effective, changes, pool, name, state)
            return changes

        return self._apply(pool, look, both, f"{name}: changed")

    def change_health(self, who: str, pool: str, fields: Mapping[str, Any], look: Look = anyhow) -> Deferred[Applied]:
        self.asked.append(("change_health", who, pool, dict(fields)))
        return self._apply(
            pool, look, lambda: overlay.set_health(self.effective, self.overrides, pool, fields), "health_check"
        )

    def parse_backend(self, pool: str, fields: Mapping[str, Any]) -> BackendSettings:
        return piece.backend_from(fields, self.effective, pool)

    def parse_health(self, pool: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return piece.health_from(fields, self.effective, pool)

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)
