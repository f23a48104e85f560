"""Other settings for all workers, or for none: reloading.py's Followers.

Promises: all that serve, or begin, prepare before anything is in force anywhere; what one of them refuses, or has not done
in PATIENCE, is refused for all. Then they are told to do so, after the parent has; whoever does not is killed, and its
successor begins by what is in force. New listening sockets are passed with the question. Called by reloading.py. Seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred

from lbsvc.config.schema import Settings
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.relistening import ListenersPlan
from lbsvc.reloading import Drains, Plan
from lbsvc.workers import messages
from lbsvc.workers.crew import Crew
from lbsvc.workers.member import Member

PATIENCE: Final = 10.0


class Following:
    """One change at a time."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._members: list[Member] = []
        self._number = 0

    def prepare(self, settings: Settings, plans: Sequence[Plan]) -> Deferred[None]:
        """Have all prepare; fails with SystemRefusal."""
        crew = self._crew
        self._members = members = crew.hold_back()
        opened = [each for plan in plans if isinstance(plan, ListenersPlan) for each in plan.opened]
        prepared: Deferred[None] = Deferred()

        def over(mistakes: list[Mistake], missing: set[int]) -> None:
            for member in members:
                if member.number in missing:
                    words = f"worker {member.place} has not prepared the change in {PATIENCE:g} s"
                    mistakes.append(Mistake("", 0, 0, "workers", words))
            if mistakes:
                prepared.errback(SystemRefusal(list(dict.fromkeys(mistakes))))
            else:
                prepared.callback(None)

        packed = messages.pack_settings(settings)
        self._number = crew.rounds.begin([member.number for member in members], PATIENCE, over)
        for member in members:
            member.give(opened)
            member.say(messages.Prepare(self._number, settings.workers, packed))
        return prepared

    def commit(self, settings: Settings, drains: Drains) -> Deferred[None]:
        """We have: so do they."""
        crew = self._crew
        members = self._there()
        listed = [(pool, backend, seconds) for (pool, backend), seconds in drains.items()]
        committed: Deferred[None] = Deferred()

        def over(mistakes: list[Mistake], missing: set[int]) -> None:
            for member in members:
                if member.number in missing:
                    member.kill()
            committed.callback(None)

        for member in members:
            member.say(messages.Commit(self._number, listed))
        crew.go_on(settings)
        crew.rounds.begin_again(self._number, [member.number for member in members], PATIENCE, over)
        return committed

    def abandon(self) -> None:
        """It is not going to be."""
        for member in self._there():
            member.say(messages.Abandon(self._number))
        self._crew.go_on(None)

    def _there(self) -> list[Member]:
        """Those who were asked, and live."""
        members, self._members = self._members, []
        return [member for member in members if member.number in self._crew.members]
