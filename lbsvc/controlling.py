"""What the admin interface can ask of the service (admin/control.py says what each call promises).

Promises: every change goes the one road of reloading.py, all or nothing, in every worker; what is shown are plain values of
one moment. Workers are restarted, or the program upgraded, one at a time. Made by app.py, called by admin's pages, in the
reactor's thread. Configurations that come in a request are read in a thread, without the environment and without any file:
whoever may ask shall not learn what other files hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from lbsvc.admin.control import Impossible, Look, Order, Underway, anyhow
from lbsvc.config import overlay
from lbsvc.config.loader import check_text
from lbsvc.config.piece import backend_from, health_from
from lbsvc.config.schema import BackendSettings, Settings
from lbsvc.errors import ConfigErrors
from lbsvc.net.aside import run_aside
from lbsvc.observe.events import Events
from lbsvc.observe.history import History
from lbsvc.observe.snapshot import StatusView, status
from lbsvc.observe.usage import usage
from lbsvc.pools import Pools
from lbsvc.reloading import Applied, Change, Drains, Reloading
from lbsvc.sending import Sending

_ALONE: Final = "workers: 1: there is nobody to take over; use upgrade"
_NO_PROGRAM: Final = "the program cannot be started anew from here: stop the service, and start it again"


class Crew(Protocol):
    """The workers, seen from outside (workers/crew.py)."""

    def fresh(self) -> Deferred[None]:
        """Fires when each has told its numbers, or has not in time."""

    def rows(self) -> list[dict[str, Any]]:
        """Each worker (`Worker` in admin/schemas.py), by its place."""

    def restart(self) -> Deferred[int]:
        """Replace all of them one by one; fires with how many. Fails with admin.control.Failed."""


class Upgrading(Protocol):
    """The next program (upgrading.py)."""

    def start(self) -> Deferred[int]:
        """Start it; fires with its process id when it is ready. Fails with admin.control.Impossible, Underway, Failed."""


class Controlling:
    """The service as whoever operates it sees it."""

    def __init__(
        self,
        reactor: Any,
        view: StatusView,
        reloading: Reloading,
        events: Events,
        source: str,
        pools: Pools,
        sending: Sending,
        crew: Crew | None = None,
        upgrading: Upgrading | None = None,
    ) -> None:
        self._reactor = reactor
        self._view = view
        self._reloading = reloading
        self._events = events
        self._source = source
        self._pools = pools
        self._sending = sending
        self._crew = crew
        self._upgrading = upgrading
        #: what the processes are at, in words; None: nothing
        self._underway: str | None = None
        self.history = History()

    def sample(self) -> None:
        """Have this second noted in the history."""
        self.history.sample(self._view)

    def fresh(self) -> Deferred[None]:
        """Wait for the workers' numbers, whatever becomes of that."""
        if self._crew is None:
            return succeed(None)
        fresh: Deferred[None] = Deferred()  # one for each, since it may be cancelled
        self._crew.fresh().addBoth(lambda _: fresh.callback(None))
        return fresh

    def status(self) -> dict[str, Any]:
        """The status object of contract.md, and the workers where there are any."""
        found = status(self._view)
        return found if self._crew is None else {**found, "workers": self._crew.rows()}

    def workers(self) -> list[dict[str, Any]]:
        """Each worker, or this process."""
        return [usage(self._view)] if self._crew is None else self._crew.rows()

    def restart_workers(self, who: str) -> Deferred[dict[str, Any]]:
        """Replace them one by one."""
        if self._crew is None:
            raise Impossible(_ALONE)
        self._look_whether_free()
        self._reloading.look_whether_open()
        restarting = self._begin("the workers are being restarted", self._crew.restart)
        return restarting.addCallback(lambda count: {"restarted": count})

    def upgrade(self, who: str) -> Deferred[dict[str, Any]]:
        """Have the next program take over."""
        if self._upgrading is None:
            raise Impossible(_NO_PROGRAM)
        self._look_whether_free()
        return self._begin("an upgrade is under way", self._upgrading.start).addCallback(lambda pid: {"pid": pid})

    def _look_whether_free(self) -> None:
        if self._underway is not None:
            raise Underway(f"{self._underway}: one at a time")

    def _begin(self, words: str, start: Callable[[], Deferred[int]]) -> Deferred[int]:
        self._underway = words

        def end(result: int | Failure) -> int | Failure:
            self._underway = None
            return result

        return maybeDeferred(start).addBoth(end)

    def settings(self) -> Settings:
        """The configuration in force."""
        return self._reloading.settings

    def revision(self, pool: str) -> int:
        """Grows with each change of a pool."""
        return self._reloading.revisions.get(pool, 0)

    def reload(self, who: str) -> Deferred[Applied]:
        """Read the file again, and have it come into force."""
        return self._reloading.reload(who)

    def check(self, text: bytes) -> Deferred[tuple[list[str], list[str]]]:
        """What is wrong with a configuration, and what is to be said of one that is right."""
        return run_aside(self._reactor, lambda: self._check(text))

    def _check(self, text: bytes) -> tuple[list[str], list[str]]:
        try:
            return [], check_text(text, self._source)
        except ConfigErrors as errors:
            return [str(mistake) for mistake in errors.mistakes], []

    def send(self, order: Order) -> Deferred[dict[str, Any]]:
        """Have one of our listeners asked."""
        self._reloading.look_whether_open()
        return self._sending.send(order)

    def add(self, who: str, pool: str, entry: BackendSettings, look: Look = anyhow) -> Deferred[Applied]:
        """A backend comes."""
        return self._change(look, lambda settings, changes: overlay.add(settings, changes, pool, entry))

    def remove(self, who: str, pool: str, name: str, drain: float | None, look: Look = anyhow) -> Deferred[Applied]:
        """A backend goes; what it has under way is cut after `drain` seconds, if that is not None. Asked again, it may be
        that it takes another time."""

        def hurry(failure: Failure) -> Applied:
            failure.trap(overlay.Unknown)
            hurried = self._pools.hurry(pool, name, drain)
            if not hurried:
                failure.raiseException()
            return Applied(self._reloading.generation, tuple(hurried))

        removing = self._change(
            look, lambda settings, changes: overlay.remove(settings, changes, pool, name), {(pool, name): drain}
        )
        return removing.addErrback(hurry)

    def change(
        self, who: str, pool: str, name: str, weight: int | None, state: str | None, look: Look = anyhow
    ) -> Deferred[Applied]:
        """Another weight, another state; both at once, or neither."""

        def both(settings: Settings, changes: overlay.Overrides) -> overlay.Overrides:
            if weight is not None:
                changes = overlay.set_weight(settings, changes, pool, name, weight)
            if state is not None:
                changes = overlay.set_state(settings, changes, pool, name, state)
            return changes

        return self._change(look, both)

    def change_health(self, who: str, pool: str, fields: Mapping[str, Any], look: Look = anyhow) -> Deferred[Applied]:
        """Other keys of a pool's health check."""
        return self._change(look, lambda settings, changes: overlay.set_health(settings, changes, pool, fields))

    def _change(self, look: Look, change: Change, drains: Drains | None = None) -> Deferred[Applied]:
        def looked(settings: Settings, changes: overlay.Overrides) -> overlay.Overrides:
            look()
            return change(settings, changes)

        return self._reloading.change(looked, drains or {})

    def parse_backend(self, pool: str, fields: Mapping[str, Any]) -> BackendSettings:
        """A backend from JSON values."""
        return backend_from(fields, self._reloading.settings, pool, os.path.dirname(self._source))

    def parse_health(self, pool: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keys of a health check from JSON values."""
        return health_from(fields, self._reloading.settings, pool)

    def subscribe(self, listener: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Have events that are changes told, in the reactor's thread, from its next turn on."""
        return self._events.subscribe(lambda event: self._reactor.callFromThread(listener, event))
