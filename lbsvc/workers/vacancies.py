"""Places of a crew where nobody serves any more: when somebody else is put there, and how often that was done.

Promises: where somebody had served for STEADY seconds it is done at once, else after a pause that doubles up to
LONGEST_PAUSE, for each place by itself, and for ever. Called by workers/crew.py, which asks for nobody where somebody is due
(`places`). Seconds of the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

#: A worker that has served so long is replaced at once.
STEADY: Final = 10.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0


class Vacancies:
    """All of them; `put` somebody at a place, when it is time."""

    def __init__(self, clock: Any, put: Callable[[int], None]) -> None:
        self._clock = clock
        self._put = put
        #: place -> how often it was filled anew
        self.restarts: dict[int, int] = {}
        #: place -> the pause before that is done again
        self._pauses: dict[int, float] = {}
        self._due: dict[int, Any] = {}

    @property
    def places(self) -> set[int]:
        """Where somebody is due."""
        return set(self._due)

    def replace(self, place: int, served_since: float | None) -> None:
        """Whoever was there has ended, who had served since then; None: it had not come to that."""
        if served_since is not None and self._clock.seconds() - served_since >= STEADY:
            self._pauses.pop(place, None)
        self.restarts[place] = self.restarts.get(place, 0) + 1
        self.fill(place)

    def fill(self, place: int) -> None:
        """Somebody is to come, soon."""
        pause = self._pauses.get(place, 0.0)
        self._pauses[place] = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._due[place] = self._clock.callLater(pause, self._put, place)

    def close(self, *places: int) -> None:
        """Nobody is due any more at these places: somebody is there, or they are no more."""
        for place in places:
            due = self._due.pop(place, None)
            if due is not None and due.active():
                due.cancel()
