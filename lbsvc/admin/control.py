"""The service as the admin interface sees it: what can be asked of it, and nothing else.

Promises: whatever an admin page shows is a plain value that was asked for through `Control`; no page holds a live object.
Every change is made at once or not at all, says who asked, and raises in words what stands against it. Implemented by the
app (and by tests/admin/fake_control.py); used by every other module of this package.
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


class Control(Protocol):
    """The running service. Called in the reactor's thread only.

    What changes raise: overlay.Unknown (no such pool or backend), overlay.Exists, overlay.Wrong (a value that cannot be),
    ConfigErrors (the same, found by the configuration's own rules), SystemRefusal (nothing has changed).
    """

    history: History

    def sample(self) -> None:
        """Have this second noted in `history`."""

    def status(self) -> dict[str, Any]:
        """The status object of contract.md: plain values of this moment (observe/snapshot.py)."""

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

    def add(self, who: str, pool: str, entry: BackendSettings) -> Applied: ...

    def remove(self, who: str, pool: str, name: str, drain: float | None) -> Applied:
        """`drain`: seconds until what is left is cut; None: no limit."""

    def change(self, who: str, pool: str, name: str, weight: int | None, state: str | None) -> Applied:
        """None: as it is."""

    def change_health(self, who: str, pool: str, fields: Mapping[str, Any]) -> Applied:
        """`fields` as `parse_health` gave them."""

    def parse_backend(self, pool: str, fields: Mapping[str, Any]) -> BackendSettings:
        """A backend from JSON values; raises ConfigErrors."""

    def parse_health(self, pool: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keys of a health check from JSON values; raises ConfigErrors."""

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Have events that are changes told from the next turn of the reactor on, in its thread; gives what ends it."""
