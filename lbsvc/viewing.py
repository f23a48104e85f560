"""The service as metrics, the status page and the service manager see it: plain questions, answered afresh each time.

Promises: the answers are what is so at this moment, also before the start is over and while the service stops; asking
changes nothing but books that are brought up to date. Made by app.py; `View`, `StatusView` and supervising's `View` are what
it answers for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from lbsvc.config.roads import roads_of
from lbsvc.config.schema import Settings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.listening import Listeners
from lbsvc.logs import Logs
from lbsvc.observe.snapshot import Door
from lbsvc.pools import Pools
from lbsvc.reloading import Reloading
from lbsvc.workers.leading import Leading


class Service(Protocol):
    """The part of app.py's Balancer that is looked at."""

    logs: Logs
    reloading: Reloading
    #: why it is not ready; None: it is
    unready: str | None

    @property
    def settings(self) -> Settings: ...

    @property
    def pools(self) -> Pools | None: ...

    @property
    def listening(self) -> Listeners | None: ...

    @property
    def leading(self) -> Leading | None: ...


class Viewing:
    """What there is to see of a service."""

    def __init__(self, service: Service, seconds: Callable[[], float]) -> None:
        self._service = service
        self._seconds = seconds
        self._began = seconds()

    @property
    def listeners(self) -> list[ListenerBooks]:
        """The listeners' books, those that drain included, brought up to date."""
        listening = self._service.listening
        return listening.books if listening is not None else []

    @property
    def doors(self) -> list[Door]:
        """The same, with where they listen and how they are."""
        listening = self._service.listening
        if listening is None:
            return []
        found: dict[str, Door] = {}
        books = {each.name: each for each in listening.books}
        is_stopping = self._service.unready == "draining"
        for served in listening.everyone:
            is_leaving = listening.served.get(served.name) is not served
            bind = ", ".join(map(str, served.settings.binds))
            state = "draining" if is_leaving or is_stopping else "listening"
            found.setdefault(served.name, Door(books.get(served.name, served.books), bind, state))
        return list(found.values())

    @property
    def pools(self) -> list[Pool]:
        """Every pool, those that are being left included; none before the start."""
        pools = self._service.pools
        return pools.everyone if pools is not None else []

    @property
    def roads(self) -> Mapping[str, frozenset[str]]:
        """Which protocols use which pool."""
        pools = self._service.pools
        retired = pools.retired_roads if pools is not None else {}
        return {**retired, **roads_of(self._service.settings)}

    @property
    def log_dropped(self) -> Mapping[str, int]:
        """Lines that the logs have lost, by log."""
        own, leading = self._service.logs.dropped, self._service.leading
        if leading is None:
            return own
        theirs = leading.ledger.dropped
        return {log: own.get(log, 0) + theirs.get(log, 0) for log in {**own, **theirs}}

    @property
    def reloads(self) -> Mapping[str, int]:
        """How reloads ended."""
        return self._service.reloading.results

    @property
    def last_reload_ok(self) -> bool:
        """Whether the last one ended well."""
        return self._service.reloading.last_ok

    @property
    def generation(self) -> int:
        """How many files have been applied."""
        return self._service.reloading.generation

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return self._seconds() - self._began

    def ready(self) -> str | None:
        """None, or why not."""
        return self._service.unready
