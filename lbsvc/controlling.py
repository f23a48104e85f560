"""What the admin interface can ask of the service (admin/control.py says what each call promises).

Promises: every change goes the one road of reloading.py, all or nothing; what is shown are plain values of one moment. Made
by app.py, called by admin's pages, in the reactor's thread. Configurations that come in a request are read in a thread,
without the environment and without any file: whoever may ask shall not learn what other files hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from lbsvc.admin.control import Order
from lbsvc.config import overlay
from lbsvc.config.loader import check_text
from lbsvc.config.piece import backend_from, health_from
from lbsvc.config.schema import BackendSettings, Settings
from lbsvc.errors import ConfigErrors
from lbsvc.net.aside import run_aside
from lbsvc.observe.events import Events
from lbsvc.observe.history import History
from lbsvc.observe.snapshot import StatusView, status
from lbsvc.pools import Pools
from lbsvc.reloading import Applied, Reloading
from lbsvc.sending import Sending


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
    ) -> None:
        self._reactor = reactor
        self._view = view
        self._reloading = reloading
        self._events = events
        self._source = source
        self._pools = pools
        self._sending = sending
        self.history = History()

    def sample(self) -> None:
        """Have this second noted in the history."""
        self.history.sample(self._view)

    def status(self) -> dict[str, Any]:
        """The status object of contract.md."""
        return status(self._view)

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

    def add(self, who: str, pool: str, entry: BackendSettings) -> Applied:
        """A backend comes."""
        return self._reloading.change(lambda settings, changes: overlay.add(settings, changes, pool, entry))

    def remove(self, who: str, pool: str, name: str, drain: float | None) -> Applied:
        """A backend goes; what it has under way is cut after `drain` seconds, if that is not None. Asked again, it may be
        that it takes another time."""
        self._pools.drains = {(pool, name): drain}
        try:
            return self._reloading.change(lambda settings, changes: overlay.remove(settings, changes, pool, name))
        except overlay.Unknown:
            hurried = self._pools.hurry(pool, name, drain)
            if not hurried:
                raise
            return Applied(self._reloading.generation, tuple(hurried))
        finally:
            self._pools.drains = {}

    def change(self, who: str, pool: str, name: str, weight: int | None, state: str | None) -> Applied:
        """Another weight, another state; both at once, or neither."""

        def both(settings: Settings, changes: overlay.Overrides) -> overlay.Overrides:
            if weight is not None:
                changes = overlay.set_weight(settings, changes, pool, name, weight)
            if state is not None:
                changes = overlay.set_state(settings, changes, pool, name, state)
            return changes

        return self._reloading.change(both)

    def change_health(self, who: str, pool: str, fields: Mapping[str, Any]) -> Applied:
        """Other keys of a pool's health check."""
        return self._reloading.change(lambda settings, changes: overlay.set_health(settings, changes, pool, fields))

    def parse_backend(self, pool: str, fields: Mapping[str, Any]) -> BackendSettings:
        """A backend from JSON values."""
        return backend_from(fields, self._reloading.settings, pool, os.path.dirname(self._source))

    def parse_health(self, pool: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keys of a health check from JSON values."""
        return health_from(fields, self._reloading.settings, pool)

    def subscribe(self, listener: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Have events that are changes told, in the reactor's thread, from its next turn on."""
        return self._events.subscribe(lambda event: self._reactor.callFromThread(listener, event))
