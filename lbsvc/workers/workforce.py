"""How many workers there are, as a part of what a reload changes (reloading.py).

Promises: there may be more or fewer of several by a reload (workers/crew.py obeys); from one process to several, or back, is
refused: who accepts on the sockets is decided at the start. Called by app.py.
"""

from __future__ import annotations

from typing import Final

from lbsvc.config.schema import Settings
from lbsvc.errors import Mistake, SystemRefusal


class Workforce:
    """The part."""

    def prepare(self, old: Settings, new: Settings) -> Numbers:
        """Raises SystemRefusal."""
        if old.workers != new.workers and 1 in (old.workers, new.workers):
            words = f"from {old.workers} to {new.workers} takes a restart, or an upgrade: the start decides who accepts"
            raise SystemRefusal([Mistake("", 0, 0, "workers", words)])
        return Numbers(old.workers, new.workers)


class Numbers:
    """As many as there were, and are to be."""

    def __init__(self, before: int, after: int) -> None:
        self._before = before
        self._after = after

    def commit(self) -> list[str]:
        """In words."""
        return [f"workers: {self._before} -> {self._after}"] if self._before != self._after else []

    def abandon(self) -> None:
        """Nothing is to be undone."""


WORKFORCE: Final = Workforce()
