"""The workers of a service, as the parent leads them: how many, what they are told, who is replaced and when.

Promises
- Each place of `workers` has a worker that serves, or one on its way: whoever ends is replaced (vacancies.py); whoever has
  not answered ANSWERS questions, one each second, is killed, and replaced. The parent's own pauses are not counted against
  anybody.
- Whoever is ready is told to accept at once, and nobody else has ever accepted: one that is killed as it begins has nobody's
  request. In another process's place all of them wait until that has left it to us (`accept`).
- Whoever begins while a change of the settings is under way (following.py) begins by what comes of it.
- What workers have counted is in the parent's own books (ledger.py), up to date when `fresh` fires; what one that died had
  counted stays, but for what it had not told yet (a second's worth).
- Events of workers are the service's events, with `worker`; those that the parent tells itself are told once.

Called by app.py and by whoever operates the service. Seconds of a monotonic clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from lbsvc.config.schema import Settings
from lbsvc.core.backend import Backend
from lbsvc.net import scales
from lbsvc.traffic import Traffic
from lbsvc.workers import messages
from lbsvc.workers.ledger import Ledger
from lbsvc.workers.member import LEAVING, SERVING, STARTING, Member
from lbsvc.workers.retelling import retell
from lbsvc.workers.rounds import Rounds
from lbsvc.workers.vacancies import Vacancies

#: How often workers are asked, in seconds.
BEAT: Final = 1.0
#: So many questions in a row may go without an answer; of one that has not served yet, so many.
ANSWERS: Final = 10
STARTING_ANSWERS: Final = 60
#: How long we wait for numbers.
FRESHNESS: Final = 1.0
#: How much longer than it was given one that leaves may take, before it is killed.
GRACE: Final = 5.0


class Crew:
    """All of them."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        traffic: Traffic,
        ledger: Ledger,
        emit: Callable[..., None],
        env: Mapping[str, str],
        verdicts: Callable[[], list[messages.Verdict]],
        names: Callable[[], dict[str, list[str]]],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._traffic = traffic
        self._ledger = ledger
        self._emit = emit
        self._env = env
        self._verdicts = verdicts
        self._names = names
        self._last_number = 0
        self.members: dict[int, Member] = {}
        #: how many connections each has, for the workers themselves
        self._scales = scales.memory()
        self._vacancies = Vacancies(reactor, self._put)
        #: place -> how often it was filled anew
        self.restarts = self._vacancies.restarts
        #: who was lost last, and how, in words
        self.last_loss = ""
        self._may_accept = True
        self._is_stopping = False
        #: who begins when the change that is under way is over; None: there is none
        self._held_back: list[Member] | None = None
        self.rounds = Rounds(reactor)
        self._witness: tuple[str, bytes, Callable[[tuple[Any, ...]], None]] | None = None
        self._beats = LoopingCall(self._beat)
        self._beats.clock = reactor
        #: those that leave -> when they are killed
        self._leaving: dict[int, Any] = {}
        #: told once what becomes of one that was started: None, it serves; else why it does not
        self.awaiting: dict[int, Callable[[str | None], None]] = {}
        #: told when any of them begins to serve, or is gone
        self.on_change: Callable[[], None] = lambda: None
        #: told of one that somebody has sent TERM
        self.on_resign: Callable[[Member], None] = lambda member: None
        self._heard: dict[type, Callable[[Member, Any], None]] = {
            messages.Ready: self._ready,
            messages.Resigned: lambda member, told: self.on_resign(member),
            messages.Refused: self._refused,
            messages.Prepared: lambda member, told: self.rounds.answer(
                told.number, member.number, messages.unpack_mistakes(told.mistakes)
            ),
            messages.Committed: lambda member, told: self.rounds.answer(told.number, member.number),
            messages.Reported: self._reported,
            messages.Happened: lambda member, told: retell(told.line, member.place, emit),
            messages.Witnessed: self._witnessed,
            messages.Found: lambda member, told: self._tell_others(member, told),
            messages.Tallied: lambda member, told: self._tell_others(
                member, messages.Tallied(member.number, told.values)
            ),
        }

    # -- who there is

    @property
    def count(self) -> int:
        """How many there are to be."""
        return self._settings.workers

    @property
    def left(self) -> int:
        """How many processes there are."""
        return len(self.members)

    @property
    def is_complete(self) -> bool:
        """Does a worker serve at every place?"""
        serving = {member.place for member in self.those(SERVING)}
        return serving.issuperset(range(1, self.count + 1))

    @property
    def is_well(self) -> bool:
        """Has everybody answered of late?"""
        return all(member.unanswered < ANSWERS for member in self.those(SERVING, LEAVING))

    def those(self, *states: str) -> list[Member]:
        """Those in one of these states."""
        return [member for member in self.members.values() if member.state in states]

    def start(self, may_accept: bool = True) -> None:
        """Start all of them; where they may not accept yet, `accept` says when."""
        self._may_accept = may_accept
        for place in range(1, self.count + 1):
            self._put(place)
        self._beats.start(BEAT, now=False)

    def accept(self) -> None:
        """Whoever is ready serves, and whoever comes to be from now on at once."""
        self._may_accept = True
        for member in self.those(SERVING):
            member.say(messages.Accept())

    def spawn(self, place: int) -> Member:
        """Somebody new at a place. Raises OSError where no process can be started."""
        self._vacancies.close(place)
        self._last_number += 1
        member = Member(self._reactor, self._last_number, place, self._hear, self._gone, self._env)
        self.members[member.number] = member
        if self._held_back is None:
            self._begin(member)
        else:
            self._held_back.append(member)
        return member

    def _put(self, place: int) -> None:
        """The same, when it can be."""
        try:
            self.spawn(place)
        except OSError as error:
            words = f"worker {place} cannot be started: {error.strerror or error}"
            self._emit("error", "worker.refused", words, worker=place)
            self._vacancies.fill(place)

    def _begin(self, member: Member) -> None:
        """Tell it all that it needs."""
        listeners = self._traffic.listening.listeners
        member.give(
            (str(bound.bind), [port.socket for port in bound.ports])
            for listener in listeners
            for bound in listener.bound
        )
        settings = messages.pack_settings(self._settings)
        verdicts, names = self._verdicts(), self._names()
        member.say(messages.Begin(member.place, self.count, settings, verdicts, names), [self._scales])

    def _ready(self, member: Member, told: messages.Ready) -> None:
        if member.state != STARTING or self._is_stopping:
            return  # it has been told to leave meanwhile, or killed
        member.state, member.served_since, member.unanswered = SERVING, self._reactor.seconds(), 0
        if self._may_accept:
            member.say(messages.Accept())
        words = f"worker {member.place} {'serves' if self._may_accept else 'is ready'} (process {member.pid})"
        self._emit("info", "worker.started", words, worker=member.place, pid=member.pid)
        self._tell_others(member, messages.Joined())
        if self._witness is not None:
            member.say(messages.Watch(self._witness[0], self._witness[1]))
        self._tell_awaiting(member, None)
        self.on_change()

    def _refused(self, member: Member, told: messages.Refused) -> None:
        words = "; ".join(f"{key}: {why}" if key else why for key, why in told.mistakes)
        self._emit("error", "worker.refused", f"worker {member.place} could not begin: {words}", worker=member.place)
        self._tell_awaiting(member, words)

    def _gone(self, member: Member, how: str) -> None:
        """It has ended."""
        del self.members[member.number]
        self._ledger.forget(member.number)
        self._tell_others(member, messages.Forget(member.number))
        # Not while the service stops: the memory may be closed, and its number another file's.
        if not self._is_stopping and not any(other.place == member.place for other in self.those(SERVING)):
            scales.vacate(self._scales, member.place - 1)
        self.rounds.leave(member.number)
        late = self._leaving.pop(member.number, None)
        if late is not None and late.active():
            late.cancel()
        if self._held_back is not None and member in self._held_back:
            self._held_back.remove(member)
        self._tell_awaiting(member, how)
        if member.state == LEAVING or self._is_stopping:
            self._emit(
                "info", "worker.left", f"worker {member.place}: {how} (process {member.pid})", worker=member.place
            )
        else:
            words = self.last_loss = f"worker {member.place}: {how} (process {member.pid})"
            self._emit("error", "worker.gone", words, worker=member.place, pid=member.pid, how=how)
            self._fill(member)
        self.on_change()

    def _fill(self, former: Member) -> None:
        """Somebody else in its place, soon."""
        place = former.place
        if place <= self.count and place not in self._places():
            self._vacancies.replace(place, former.served_since)

    def _places(self) -> set[int]:
        """Where somebody is, or is due."""
        return {member.place for member in self.those(STARTING, SERVING)} | self._vacancies.places

    # -- what is heard

    def _hear(self, member: Member, answer: messages.Answer) -> None:
        self._heard[type(answer)](member, answer)

    def _reported(self, member: Member, told: messages.Reported) -> None:
        member.unanswered = 0
        self._ledger.take(member.number, told.report)
        self.rounds.answer(told.number, member.number)

    def _tell_awaiting(self, member: Member, why_not: str | None) -> None:
        told = self.awaiting.pop(member.number, None)
        if told is not None:
            told(why_not)

    def _tell_others(self, member: Member, message: messages.Message) -> None:
        for other in self.those(SERVING, LEAVING):
            if other is not member:
                other.say(message)

    def _tell(self, message: messages.Message, *states: str) -> None:
        for member in self.those(*states):
            if self._held_back is None or member not in self._held_back:
                member.say(message)

    # -- how they are

    def _beat(self) -> None:
        for member in list(self.members.values()):
            member.unanswered += 1
            most = STARTING_ANSWERS if member.state == STARTING else ANSWERS
            if member.unanswered == most:
                words = f"worker {member.place} has not answered for {most} s (process {member.pid}): it is killed"
                self._emit("error", "worker.hung", words, worker=member.place, pid=member.pid)
            if member.unanswered >= most:
                member.kill()
        self._ask()

    def _ask(self, over: Callable[[], None] = lambda: None) -> None:
        asked = self.those(SERVING, LEAVING)
        answering = [member.number for member in asked if member.unanswered <= 1]
        number = self.rounds.begin(answering, FRESHNESS, lambda mistakes, missing: over())
        for member in asked:
            member.say(messages.Ask(number))

    def fresh(self) -> Deferred[None]:
        """Fires when the books are up to date, as far as anybody answers."""
        fresh: Deferred[None] = Deferred()
        self._ask(lambda: fresh.callback(None))
        return fresh

    def tell_health(self, backend: Backend) -> None:
        """Checks have found something."""
        verdict = messages.Verdict(backend.pool, backend.name, backend.address, backend.health, backend.last_check)
        self._tell(messages.Checked([verdict]), STARTING, SERVING, LEAVING)

    def tell_name(self, host: str, addresses: list[str]) -> None:
        """A name was looked up."""
        self._tell(messages.Named(host, addresses), STARTING, SERVING, LEAVING)

    def hurry(self, pool: str, backend: str, seconds: float | None) -> None:
        """Those that leave may take so long from now on."""
        self._tell(messages.Hurry(pool, backend, seconds), SERVING, LEAVING)

    def reopen_logs(self) -> None:
        """Log files may have been renamed."""
        self._tell(messages.Reopen(), STARTING, SERVING, LEAVING)

    def watch(self, listener: str, agent: bytes, witness: Callable[[tuple[Any, ...]], None] | None) -> None:
        """Have the access records of one client's requests shown to `witness`; None: no longer."""
        self._witness = (listener, agent, witness) if witness is not None else None
        self._tell(messages.Watch(listener, agent if witness is not None else b""), SERVING, LEAVING)

    def _witnessed(self, member: Member, told: messages.Witnessed) -> None:
        if self._witness is not None:
            self._witness[2](tuple(told.record))

    # -- other settings

    def hold_back(self) -> list[Member]:
        """Those who are there follow a change; whoever comes from now on begins when it is over (`go_on`)."""
        self._held_back = []
        return self.those(STARTING, SERVING)

    def go_on(self, settings: Settings | None) -> None:
        """The change is over; None: it did not come."""
        waiting, self._held_back = self._held_back or [], None
        if settings is not None:
            self._settings = settings
        for member in waiting:
            self._begin(member)
        if settings is not None:
            self._ledger.renew()
            self._resize()

    def _resize(self) -> None:
        """As many as there are to be now."""
        places = self._places()
        for place in range(1, self.count + 1):
            if place not in places:
                self._put(place)
        for member in self.those(STARTING, SERVING):
            if member.place > self.count:
                self.see_off(member)
        self._vacancies.close(*(place for place in self._vacancies.places if place > self.count))

    # -- the end

    def see_off(self, member: Member) -> None:
        """Others serve on: it finishes what it has, within `shutdown.removed`."""
        if member.state == LEAVING:
            return
        # As after a reload that removes a listener; not as at the end of the service, which somebody waits for.
        limit = self._settings.shutdown.removed
        member.state = LEAVING
        member.say(messages.Leave(inf if limit is None else limit, True))
        if limit is not None:
            self._leaving[member.number] = self._reactor.callLater(limit + GRACE, member.kill)

    def leave(self, timeout: float, is_gentle: bool) -> None:
        """The service stops: nobody is replaced any more."""
        were_told, self._is_stopping = self._is_stopping, True
        self._vacancies.close(*self._vacancies.places)
        for member in list(self.members.values()):
            if member.state == STARTING:
                member.kill()
            elif not (were_told and member.state == LEAVING):  # who was leaving already has less time now, perhaps
                member.state = LEAVING
                member.say(messages.Leave(timeout, is_gentle))

    def end(self) -> None:
        """No more waiting: at once, or a moment later the hard way."""
        for member in list(self.members.values()):
            if member.state == LEAVING:
                member.say(messages.End())
            else:
                member.kill()

    def kill(self) -> None:
        """Nothing else has helped."""
        for member in list(self.members.values()):
            member.kill()

    def stop(self) -> None:
        """No timer is left."""
        os.close(self._scales)
        self.rounds.stop()
        for late in self._leaving.values():
            if late.active():
                late.cancel()
        if self._beats.running:
            self._beats.stop()
