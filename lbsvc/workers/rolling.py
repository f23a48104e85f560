"""All workers replaced, one by one, without anybody noticing (`lbctl workers restart`).

Promises: each successor serves before its predecessor leaves, which finishes what it has; one that cannot begin ends it, and
whom it was to replace stays. Two at a time (one of all, and one of somebody who was sent TERM) leave one at each place.
Called by leading.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from twisted.internet.defer import Deferred

from lbsvc.workers.crew import Crew
from lbsvc.workers.member import LEAVING, SERVING, Member


class NotReplaced(Exception):
    """A worker could not be replaced; it is there as before."""


class Rolling:
    """One time through all of them, or through these."""

    def __init__(self, crew: Crew, members: Iterable[Member] | None = None) -> None:
        self._crew = crew
        self._former = sorted(crew.those(SERVING) if members is None else members, key=lambda member: member.place)
        self._done = 0
        self.over: Deferred[int] = Deferred()

    def begin(self) -> Deferred[int]:
        """Fires with how many were replaced; fails with NotReplaced."""
        self._next()
        return self.over

    def _next(self) -> None:
        crew = self._crew
        while self._former:
            former = self._former.pop(0)
            if former.number in crew.members and former.state == SERVING:
                try:
                    successor = crew.spawn(former.place)
                except OSError as error:
                    self._fail(former, f"no process can be started: {error.strerror or error}")
                    return
                crew.awaiting[successor.number] = partial(self._heard, former, successor)
                return
        self.over.callback(self._done)

    def _fail(self, former: Member, why: str) -> None:
        self.over.errback(NotReplaced(f"worker {former.place} stays, {self._done} were replaced: {why}"))

    def _heard(self, former: Member, successor: Member, why_not: str | None) -> None:
        crew = self._crew
        if why_not is not None:
            self._fail(former, why_not)
            return
        others = [
            each for each in crew.those(SERVING) if each.place == former.place and each not in (former, successor)
        ]
        if others and former.state == LEAVING:
            crew.see_off(successor)  # somebody else has replaced it meanwhile
        elif former.number in crew.members:
            crew.see_off(former)
        self._done += 1
        self._next()
