"""Backends that have left their pool and still have work: they finish what they have, for as long as they may.

Promises: whoever leaves takes nothing new, but is listed (metrics, status) until its last lease is back, or its time is
over: then `on_cut` is told, once, to end what is left. `on_gone` is told exactly once for each that was waited for, when its
last lease is back; one without leases is gone at once, and one that comes back is the same live object: of neither is told.
invariant: all of `backends` have leases, and are `is_leaving`.

Costs nothing while nobody leaves: the pool has its leases tell of their release (`released`) only where there is somebody to
be waited for. Owned by core/pool.py, called by whoever knows the members (membership.py). No clock: timers are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, cast

from lbsvc.core.backend import Backend


class _Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> object: ...


class Departures:
    """Those of one pool who are leaving. `changed` is called whenever there are others."""

    def __init__(
        self, later: Callable[[float, Callable[[], object]], object] | None, changed: Callable[[], object]
    ) -> None:
        self._later = later
        self._changed = changed
        #: who is leaving, in the order in which they left
        self.backends: list[Backend] = []
        #: told of each that was waited for, when it is gone for good
        self.on_gone: Callable[[Backend], object] | None = None
        #: told of each whose time is over, with leases left; shall end them
        self.on_cut: Callable[[Backend], object] | None = None
        self._timers: Final[dict[Backend, _Timer]] = {}

    def begin(self, backend: Backend, seconds: float | None = None) -> None:
        """It is no member any more. `seconds`: how long what it has may go on; None: as long as that takes."""
        backend.is_leaving = True
        backend.state = "drain"
        if not backend.active:
            return
        self.backends.append(backend)
        self.hurry(backend, seconds)
        self._changed()

    def hurry(self, backend: Backend, seconds: float | None) -> None:
        """One that is leaving may take so long from now on."""
        timer = self._timers.pop(backend, None)
        if timer is not None:
            timer.cancel()
        if seconds is not None and self._later is not None:
            self._timers[backend] = cast(_Timer, self._later(max(seconds, 0.0), lambda: self._cut(backend)))

    def released(self, backend: Backend) -> None:
        """A lease of this pool is back, whoever's."""
        if backend.is_leaving and not backend.active and backend in self.backends:
            self._remove(backend)
            if self.on_gone is not None:
                self.on_gone(backend)

    def find(self, name: str, address: str, host: str) -> Backend | None:
        """Whoever leaves under this name, with the same address."""
        for backend in self.backends:
            if (backend.name, backend.address, backend.host) == (name, address, host):
                return backend
        return None

    def take_back(self, backend: Backend) -> None:
        """It is to be a member again."""
        self._remove(backend)
        backend.is_leaving = False

    def close(self) -> None:
        """No timer from here on."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _remove(self, backend: Backend) -> None:
        self.backends.remove(backend)
        timer = self._timers.pop(backend, None)
        if timer is not None:
            timer.cancel()
        self._changed()

    def _cut(self, backend: Backend) -> None:
        """Its time is over. It stands in the list until its leases are back all the same: they are what counts."""
        del self._timers[backend]
        if self.on_cut is not None:
            self.on_cut(backend)

    def __repr__(self) -> str:
        return f"<Departures {', '.join(backend.name for backend in self.backends) or 'nobody'}>"
