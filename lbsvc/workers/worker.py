"""One worker: a process that carries traffic as its parent tells it to.

Promises: it lives by what the parent says (messages.py): settings in two steps, health, names, drains; what it has counted
it says when it is asked. It checks nobody, looks up no name, binds nothing, reads no configuration and has no admin
interface. When it has all that it needs it says so, and takes no connection before it is told to (`Accept`): until then it
may be killed, and nobody notices. It ends when it is told to, having finished what it has, or when the parent is gone. TERM
is told to the parent, which has somebody else serve in its place before it leaves; a second TERM has it leave at once. Its
events are told to the parent, its access lines it writes itself. Made by workers/__main__.py, with the clocks.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Mapping
from random import Random, SystemRandom
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.python.failure import Failure

from lbsvc.config.extensions import ExtensionFault, known_algorithm
from lbsvc.config.schema import Settings
from lbsvc.core.backend import Backend
from lbsvc.core.pickers import PICKERS
from lbsvc.core.record import Record
from lbsvc.core.shares import Seat
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.logs import Logs
from lbsvc.net.channel import Channel
from lbsvc.net.drain import Drain
from lbsvc.net.scales import Scales
from lbsvc.reloading import Plan, prepare
from lbsvc.traffic import GC_THRESHOLDS, Sources, Traffic
from lbsvc.workers import messages
from lbsvc.workers.given import Given
from lbsvc.workers.hearsay import Hearsay, Names
from lbsvc.workers.reports import Reporter
from lbsvc.workers.shares import dealt
from lbsvc.workers.tallies import EXCHANGE, Tallies

#: Where a worker's time to finish is not said: the parent is gone.
ORPHANED: Final = 30.0
#: How much longer it may take to end then.
GRACE: Final = 5.0
#: An access record's user agent.
_AGENT: Final = Record._fields.index("user_agent")


class Worker:
    """The process. `end` is called with its exit code when it is over."""

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        wall: Callable[[], float],
        env: Mapping[str, str],
        end: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._end = end
        self._rng = SystemRandom()
        self._dice = Random(self._rng.getrandbits(256))
        self._channel = Channel(reactor, skt, self._heard, self._orphaned)
        self._given = Given()
        self._hearsay = Hearsay()
        self._names = Names()
        self._wall = wall
        self.logs = Logs(reactor, wall, self._rng, env, self._tell_event)
        self._settings: Settings
        self._place = (1, 1)  # which of how many
        self._traffic: Traffic | None = None
        self._reporter: Reporter
        self._tallies: Tallies
        #: prepared, and neither committed nor abandoned: the settings, how many workers there are then, and the plans
        self._pending: tuple[int, Settings, int, list[Plan]] | None = None
        self._is_accepting = False
        self._drain: Drain | None = None
        self._is_over = False  # nobody listens to us any more
        self._has_resigned = False
        #: what we and the others have; None: nobody has given us any
        self._scales: Scales | None = None
        self._obey: dict[type, Callable[[Any], None]] = {
            messages.Begin: self._begin,
            messages.Accept: lambda order: self._accept(),
            messages.Prepare: self._prepare,
            messages.Commit: self._commit,
            messages.Abandon: lambda order: self._abandon(),
            messages.Checked: lambda order: self._hearsay.hear(order.verdicts),
            messages.Named: self._hear_name,
            messages.Ask: self._report,
            messages.Hurry: self._hurry,
            messages.Found: self._heed,
            messages.Tallied: lambda order: self._tallies.apply(order.worker, order.values, reactor.seconds()),
            messages.Forget: lambda order: self._tallies.forget(order.worker),
            messages.Joined: lambda order: self._tallies.retell(),
            messages.Watch: self._watch,
            messages.Reopen: lambda order: self.reopen_logs(),
            messages.Leave: lambda order: self.leave(order.timeout, order.is_gentle),
            messages.End: lambda order: self.stop_now(),
        }

    # -- the channel

    def _say(self, message: messages.Message) -> None:
        self._channel.send(messages.encode(message))

    def _heard(self, message: bytes, descriptors: list[int]) -> None:
        order = messages.read_order(message)
        if isinstance(order, messages.Begin) and descriptors:
            self._scales = self._given.lead = Scales(
                descriptors[0],
                order.worker - 1,
                order.workers,
                lambda: self._traffic.listening.open if self._traffic else 0,
            )
            os.close(descriptors[0])
        if isinstance(order, messages.Given):
            self._given.take_in(order.binds, descriptors)
            return
        self._obey[type(order)](order)

    def _orphaned(self, why: str) -> None:
        """The parent is gone, or takes nothing any more."""
        self._is_over = True
        if self._traffic is None:
            self._end(0)
            return
        timeout = min(self._settings.shutdown.drain_timeout, ORPHANED)
        self._reactor.callLater(timeout + GRACE, self._end, 1)  # nobody is left who would kill one that is stuck
        self.leave(timeout, False)

    def _tell_event(self, line: bytes) -> None:
        """From any thread."""
        self._reactor.callFromThread(self._say, messages.Happened(line))

    # -- the start

    def _begin(self, order: messages.Begin) -> None:
        self._place = order.worker, order.workers
        settings = self._settings = dealt(messages.unpack_settings(order.settings), order.worker - 1, order.workers)
        self._hearsay.hear(order.verdicts)
        for host, addresses in order.names.items():
            self._names.hear(host, addresses)
        sources = Sources(self._wall, self._dice, self._given.open, self._names.lookup)
        try:
            _learn_algorithms(settings)
            self.logs.open(settings)
            traffic = Traffic(self._reactor, settings, self.logs, self._hearsay, sources, lambda: True)
            traffic.pools.sit(Seat(order.worker - 1, order.workers))
            traffic.make(settings)
            mistakes = traffic.bind()
            if mistakes:
                traffic.unbind()
                raise SystemRefusal(mistakes)
        except Exception as error:
            mistakes = list(error.mistakes) if isinstance(error, SystemRefusal) else [_fault(error)]
            self._say(messages.Refused(messages.pack_mistakes(mistakes)))
            self._channel.close()
            self._end(1)
            return
        self._traffic = traffic
        self._given.drop()
        self._reporter = Reporter(
            lambda: traffic.listening.books,
            lambda: traffic.pools.everyone,
            traffic.shedding.lag.histogram,
            traffic.shedding.overload,
            lambda: self.logs.dropped,
        )
        self._tallies = Tallies(traffic.listening, traffic.pools, order.workers)
        self._tallies.enlist()
        traffic.pools.on_found_out = self._tell_found
        traffic.start()
        self._obey_signals()
        self._reactor.callLater(EXCHANGE, self._exchange)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._say(messages.Ready())

    def _accept(self) -> None:
        """Now whoever comes is ours, too."""
        if self._traffic is None or self._drain is not None or self._is_accepting:
            return
        self._is_accepting = True
        self._traffic.accept()
        for port in self._ports:
            port.resumeAccepting()  # of what a change has opened before

    @property
    def _ports(self) -> list[Any]:
        assert self._traffic is not None
        return [port for listener in self._traffic.listening.listeners for port in listener.ports]

    def _obey_signals(self) -> None:
        """The parent says when to stop: what a terminal tells all of its processes is for it alone. TERM is for us."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: self._reactor.callFromThread(self._told_to_leave))

    def _told_to_leave(self) -> None:
        if self._has_resigned or self._is_over:
            self.leave(self._settings.shutdown.drain_timeout, True)
        else:
            self._has_resigned = True
            self._say(messages.Resigned())

    # -- what the parent has found

    def _hear_name(self, order: messages.Named) -> None:
        self._names.hear(order.host, order.addresses)
        if self._traffic is not None and order.addresses:
            self._traffic.pools.hear(order.host, order.addresses)

    def _hurry(self, order: messages.Hurry) -> None:
        if self._traffic is not None:
            self._traffic.pools.hurry(order.pool, order.backend, order.seconds)

    def _tell_found(self, backend: Backend, what: str) -> None:
        self._say(messages.Found(backend.pool, backend.name, backend.address, what))

    def _heed(self, order: messages.Found) -> None:
        if self._traffic is not None:
            self._traffic.pools.trip(order.pool, order.backend, order.address, order.what)

    # -- what others do

    def _exchange(self) -> None:
        """Tell what was taken of the limits that are counted together."""
        if self._is_over:
            return
        self._reactor.callLater(EXCHANGE, self._exchange)  # first: whatever goes wrong now is not the last of it
        # Others stand back for whoever has less than they: not for one that does not accept.
        if self._scales is not None and self._is_accepting and self._drain is None:
            self._scales.weigh()
        values = self._tallies.collect(self._reactor.seconds())
        if values:
            self._say(messages.Tallied(0, values))

    def _report(self, order: messages.Ask) -> None:
        if self._traffic is not None:
            self._say(messages.Reported(order.number, self._reporter.report()))

    def _watch(self, order: messages.Watch) -> None:
        """Show the records of one client's requests, from now on or no longer."""
        if self._traffic is None or order.listener not in self._traffic.listening.served:
            return

        def witness(record: tuple[Any, ...]) -> None:
            if record[_AGENT] == order.agent:
                self._say(messages.Witnessed(list(record)))

        self._traffic.listening.served[order.listener].show(witness if order.agent else None)

    def reopen_logs(self) -> None:
        """Log files may have been renamed."""
        for complaint in self.logs.reopen():
            self.logs.emit("error", "log.reopen", complaint)

    # -- other settings

    def _prepare(self, order: messages.Prepare) -> None:
        self._forget_plans()
        assert self._traffic is not None
        # What is shown of those who leave by this change shall be what is so now.
        self._say(messages.Reported(0, self._reporter.report()))
        if self._drain is not None:  # what we have goes on by what it began with
            self._given.drop()
            self._say(messages.Prepared(order.number, []))
            return
        settings = dealt(messages.unpack_settings(order.settings), self._place[0] - 1, order.workers)
        parts = (*self._traffic.parts, self._traffic.listening)
        try:
            _learn_algorithms(settings)
            plans = prepare(parts, self._settings, settings)
        except Exception as error:
            mistakes = list(error.mistakes) if isinstance(error, SystemRefusal) else [_fault(error)]
            self._given.drop()
            self._say(messages.Prepared(order.number, messages.pack_mistakes(mistakes)))
            return
        self._pending = order.number, settings, order.workers, plans
        self._say(messages.Prepared(order.number, []))

    def _commit(self, order: messages.Commit) -> None:
        if self._drain is not None:
            self._say(messages.Committed(order.number))
            return
        assert self._traffic is not None and self._pending is not None
        (number, settings, workers, plans), self._pending = self._pending, None
        assert number == order.number
        self._traffic.pools.drains = {(pool, backend): seconds for pool, backend, seconds in order.drains}
        self._settings, self._place, self._tallies.workers = settings, (self._place[0], workers), workers
        self._traffic.pools.sit(Seat(self._place[0] - 1, workers))
        for plan in plans:
            plan.commit()
        if not self._is_accepting:  # ports that a change has opened begin by themselves
            for port in self._ports:
                port.pauseAccepting()
        self._tallies.enlist()
        if self._scales is not None:
            self._scales.places = workers
        self._given.drop()
        self._say(messages.Committed(order.number))

    def _abandon(self) -> None:
        self._forget_plans()
        self._given.drop()

    def _forget_plans(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            for plan in reversed(pending[3]):
                plan.abandon()

    # -- the end

    def leave(self, timeout: float, is_gentle: bool) -> None:
        """Accept no more, finish within so many seconds, and end. A second word can only make it sooner."""
        if self._traffic is None:
            self._end(0)
            return
        if self._drain is not None:
            self._drain.hurry(timeout)
            return
        self._abandon()
        if self._scales is not None and not self._has_resigned:
            self._scales.leave()
        self._drain = self._traffic.drain(0.0, timeout, self._tell_of_cut, self._traffic.stop_accepting, is_gentle)
        over: Deferred[Any] = self._drain.run()
        over.addBoth(self._drained).addErrback(self._stuck)

    def _tell_of_cut(self, words: str) -> None:
        """That it finishes is told by the parent; whom it does not let finish, only we know."""
        if words.startswith("cutting"):
            self.logs.emit("warn", "worker.cut", words)

    def stop_now(self) -> None:
        """No more waiting."""
        if self._traffic is None:
            self._end(0)
        elif self._drain is None:
            self.leave(0.0, False)
        else:
            self._drain.force()

    def _drained(self, result: object) -> None:
        assert self._traffic is not None
        self._traffic.stop()
        self._is_over = True
        # What was counted last is not lost: the parent reads until the end of the channel.
        self._say(messages.Reported(0, self._reporter.report()))
        self.logs.close(2.0)
        self._reactor.callLater(0, self._last_words)

    def _stuck(self, failure: Failure) -> None:
        log.err(failure, "a worker could not end as it should")
        self._end(1)

    def _last_words(self) -> None:
        self._channel.close()
        self._end(0)


def _learn_algorithms(settings: Settings) -> None:
    """Import those that plugins add, as the parent has when it read their names. Raises SystemRefusal."""
    mistakes = []
    for pool in settings.pools.values():
        try:
            if pool.algorithm not in PICKERS:
                known_algorithm(pool.algorithm)
        except ExtensionFault as fault:
            mistakes.append(Mistake("", 0, 0, f"pools.{pool.name}.algorithm", str(fault)))
    if mistakes:
        raise SystemRefusal(mistakes)


def _fault(error: Exception) -> Mistake:
    """What should not be, in words; more of it is in the log."""
    log.err(error, "a worker could not do as it was told")
    return Mistake("", 0, 0, "", f"{type(error).__name__}: {error}")
