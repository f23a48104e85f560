"""The service as the admin interface sees it: what can be asked of it, and nothing else.

Promises: whatever an admin page shows is a plain value that was asked for through `Control`; no page holds a live object.
Every change is made as a whole or not at all, by all workers or by none, says who asked, and is refused in words: raised,
or as the failure of its Deferred, which mean the same. It goes on to its end whether or not anybody waits. Implemented by
the app (and by tests/admin/fake_control.py); used by every other module of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred

from lbsvc.config.schema import BackendSettings, Settings
from lbsvc.observe.history import History

#: What is wrong with a configuration, and what is to be said of one that is right.
Checked: TypeAlias = tuple[list[str], list[str]]

#: An event of the log, as its JSON line has it.
Event: TypeAlias = dict[str, Any]


class Applied(Protocol):
    """A change that is in force."""

    @property
    def generation(self) -> int: ...

    @property
    def changes(self) -> Sequence[str]:
        """What has changed, in words."""


@dataclass(frozen=True)
class Order:
    """Traffic that is asked for, through one of our own http listeners."""

    listener: str
    requests: int = 100
    clients: int = 4  # at one time
    path: str = "/"
    host: str | None = None  # None: the address that is dialled
    method: str = "GET"


class Underway(Exception):
    """One of these is made at a time, and one is."""


class Impossible(Exception):
    """This service, as it was started, cannot do that; what it can do, in words."""


class Failed(Exception):
    """It was tried and has not come about; nothing is lost. Why, in words."""


#: Called when a change is about to be worked out from what is in force then; what it raises refuses the change.
Look: TypeAlias = Callable[[], None]


def anyhow() -> None:
    """A change does not depend on what is in force."""


class Control(Protocol):
    """The running service. Called in the reactor's thread only.

    What changes raise, or fail with: overlay.Unknown (no such pool or backend), overlay.Exists, overlay.Wrong (a value that
    cannot be), ConfigErrors (the same, found by the configuration's own rules), SystemRefusal (nothing has changed). They
    may take a while (a reload is under way, workers must prepare), and other changes may come before them: what a change
    depends on is asked by its `look`.
    """

    history: History

    def sample(self) -> None:
        """Have this second noted in `history`."""

    def fresh(self) -> Deferred[None]:
        """Fires when the numbers are those of now: at once in one process; with workers when each has told its own, or has
        not in time. Never fails; each caller has a Deferred to itself, and may cancel it."""

    def status(self) -> dict[str, Any]:
        """The status object of contract.md: plain values of this moment (observe/snapshot.py); where there are workers,
        with `workers`."""

    def workers(self) -> list[dict[str, Any]]:
        """Who carries the traffic, as plain values (`Worker` in schemas.py): each worker, or this process by itself."""

    def restart_workers(self, who: str) -> Deferred[dict[str, Any]]:
        """Replace the workers one by one, each when its successor serves; fires with {"restarted": n} when all are. Raises,
        or fails with, Impossible (there are none), Underway, Failed, Stopping."""

    def upgrade(self, who: str) -> Deferred[dict[str, Any]]:
        """Start the program anew beside this one, with our sockets; fires with {"pid": n} when it is ready, and this one
        begins to drain in a later turn of the reactor. Raises, or fails with, Impossible, Underway, Failed, Stopping."""

    def settings(self) -> Settings:
        """The configuration in force, run-time changes included."""

    def revision(self, pool: str) -> int:
        """Grows with each change of a pool that is in `settings()`."""

    def reload(self, who: str) -> Deferred[Any]:
        """Read the configuration file anew and apply it: fires with Applied; fails with ConfigErrors or SystemRefusal."""

    def check(self, text: bytes) -> Deferred[Checked]:
        """Read a configuration that came in a request; nothing is expanded and nothing applied."""

    def send(self, order: Order) -> Deferred[dict[str, Any]]:
        """Ask one of our listeners, and fire with what came of it (`Traffic` in schemas.py); cancelled, with what came of it
        until then. Raises Underway, overlay.Unknown (no such http listener), Stopping."""

    def add(self, who: str, pool: str, entry: BackendSettings, look: Look = anyhow) -> Deferred[Any]:
        """A backend comes: fires with Applied, as the next three do."""

    def remove(self, who: str, pool: str, name: str, drain: float | None, look: Look = anyhow) -> Deferred[Any]:
        """`drain`: seconds until what is left is cut; None: no limit."""

    def change(
        self, who: str, pool: str, name: str, weight: int | None, state: str | None, look: Look = anyhow
    ) -> Deferred[Any]:
        """None: as it is."""

    def change_health(self, who: str, pool: str, fields: Mapping[str, Any], look: Look = anyhow) -> Deferred[Any]:
        """`fields` as `parse_health` gave them."""

    def parse_backend(self, pool: str, fields: Mapping[str, Any]) -> BackendSettings:
        """A backend from JSON values; raises ConfigErrors."""

    def parse_health(self, pool: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keys of a health check from JSON values; raises ConfigErrors."""

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Have events that are changes told from the next turn of the reactor on, in its thread; gives what ends it."""
