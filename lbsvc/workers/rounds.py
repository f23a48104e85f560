"""Questions to several workers at a time: each until all have answered, are gone, or had their time.

Promises: `over` is called once for each round, with every mistake that was answered and the numbers of those who have not
answered; who is gone is not waited for. Called by workers/crew.py and following.py. Seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from lbsvc.errors import Mistake

#: Told of the mistakes, and of who is missing.
Over: TypeAlias = Callable[[list[Mistake], set[int]], None]


class _Round:
    def __init__(self, missing: set[int], over: Over) -> None:
        self.missing = missing
        self.over = over
        self.mistakes: list[Mistake] = []
        self.timer: Any = None


class Rounds:
    """All that are under way."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._last = 0
        self._rounds: dict[int, _Round] = {}

    def begin(self, members: Iterable[int], seconds: float, over: Over) -> int:
        """A new one, to these; its number. It may be over at once, where there is nobody."""
        self._last += 1
        return self.begin_again(self._last, members, seconds, over)

    def begin_again(self, number: int, members: Iterable[int], seconds: float, over: Over) -> int:
        """The next question of the same number."""
        made = self._rounds[number] = _Round(set(members), over)
        made.timer = self._reactor.callLater(seconds, self._late, number)
        self._look(number)
        return number

    def answer(self, number: int, member: int, mistakes: Sequence[Mistake] = ()) -> None:
        """One has answered; what nobody has asked for any more is not heard."""
        found = self._rounds.get(number)
        if found is not None and member in found.missing:
            found.mistakes += mistakes
            found.missing.discard(member)
            self._look(number)

    def leave(self, member: int) -> None:
        """One is gone."""
        for number, found in list(self._rounds.items()):
            found.missing.discard(member)
            self._look(number)

    def _look(self, number: int) -> None:
        found = self._rounds[number]
        if not found.missing:
            found.timer.cancel()
            self._end(number)

    def _late(self, number: int) -> None:
        self._end(number)

    def _end(self, number: int) -> None:
        found = self._rounds.pop(number)
        found.over(found.mistakes, found.missing)

    def stop(self) -> None:
        """No timer is left, and nobody is told anything."""
        rounds, self._rounds = self._rounds, {}
        for each in rounds.values():
            each.timer.cancel()
