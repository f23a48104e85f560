"""The guard of a pool: hears how every lease ended, and keeps work from backends whose real requests fail.

Promises: for each member it runs a breaker (core/breaker.py) and an ejection (core/ejection.py), either of which may be off,
and writes what they find to the backend: `circuit`, `is_ejected`, `limit`, `epoch`. Whatever changes is written first, then
told as an event, then `changed` is called once so that the pool sorts its members anew: the request that fails next already
goes to somebody else. Calls from within `changed` are safe. It holds one timer at most for each of the two and backend.

Laws. Failures for the breaker: connect, timeout, reset, nonsense, and answers of 500 and above; for ejection the same
without the latter (contract.md). CLIENT_GONE and ABANDONED say nothing about a backend, and only give their place back.

Epochs. A lease notes `backend.epoch` when it is taken and gives it back here. The epoch rises when a circuit half-opens and
when an ejected backend returns; what began earlier is old, and counts neither for the trial nor against the new start. At
half-opening old leases may still be open (a download, a tunnel): they take no trial's place, so that `limit`, the most
leases at one time, is `half_open_requests` more than there are old ones, and sinks as those end. Never above `most`, the
limit that people set. Invariant while half-open: leases of the trial = `active` - old ones <= `half_open_requests`.

A trial that goes on for hours after it has shown that the backend serves (a tcp connection, a tunnel) must not hold the
circuit half-open so long: `answered` counts it as a success early, once.

Several processes that use the same backends tell each other whom they have found out: `trip` and `eject` do what enough
failures of our own would have done, where that is not done already; the events of it say `by`. So who is told of events
knows by that which are our own findings. Times, trials and returns are each process's own: a circuit that closes again is
not told, since the others try for themselves.

Called by core/lease.py (`observe`, after `active` was counted down), by the roads (`answered`), by the pool (`members`,
before it sorts), at reload (`revise`, `take_over`) and by pools.py (`trip`, `eject`). Floors: no clock, no reactor; both
are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from lbsvc.core.backend import Outcome
from lbsvc.core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from lbsvc.core.ejection import Ejection, most_ejected
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy

#: The epoch of a lease that has been counted already (`answered`): older than every other.
PAST: Final = -1

#: What events of `trip` and `eject` say beside what they always say.
BY_ANOTHER: Final = {"by": "another worker"}

#: Answers from this status on are failures for the breaker.
_ERROR: Final = 500

_OK: Final = Outcome.OK
_LAST_FAILURE: Final = Outcome.PROTOCOL


class Guarded(Protocol):
    """What the guard reads and writes of a backend."""

    active: int  # leases now; read
    most: int  # most leases at one time, as people set it; read
    limit: int  # the same, as it is now; written
    circuit: str  # closed | open | half_open; written
    is_ejected: bool  # written
    epoch: int  # written; leases note it


class Cancellable(Protocol):
    """A call that is to come."""

    def cancel(self) -> object:
        """Let it not come."""


G = TypeVar("G", bound=Guarded)


class _Watch:
    """What is known of one member."""

    __slots__ = ("breaker", "ejection", "half_opens", "old", "returned", "returns", "tried")

    def __init__(self, breaker: BreakerPolicy | None, ejection: EjectionPolicy | None) -> None:
        self.breaker = Breaker(breaker) if breaker is not None else None
        self.ejection = Ejection(ejection) if ejection is not None else None
        self.tried = 0  # the epoch since which results count for the breaker
        self.returned = 0  # the same for the ejection
        self.old = 0  # while half-open: open leases that are no trials
        self.half_opens: Cancellable | None = None
        self.returns: Cancellable | None = None

    def cancel(self) -> None:
        for timer in (self.half_opens, self.returns):
            if timer is not None:
                timer.cancel()
        self.half_opens = self.returns = None


class Guard(Generic[G]):
    """The breakers and ejections of one pool's members."""

    def __init__(
        self,
        breaker: BreakerPolicy | None,
        ejection: EjectionPolicy | None,
        seconds: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        changed: Callable[[G], None],
        tell: Callable[[str, G, dict[str, Any]], None],
    ) -> None:
        self.breaker = breaker
        self.ejection = ejection
        self._seconds = seconds
        self._call_later = call_later
        self._changed = changed
        self._tell = tell
        self._watched: dict[G, _Watch] = {}
        self._ejected: dict[G, _Watch] = {}

    # -- who is watched

    def members(self, backends: Iterable[G]) -> None:
        """These are the pool's members now. Whoever stays goes on as it was; whoever left is left as if never guarded.

        With fewer members fewer may be ejected: those who would return first do so now.
        """
        present = dict.fromkeys(backends)
        for gone in [backend for backend in self._watched if backend not in present]:
            self._watched.pop(gone).cancel()
            self._ejected.pop(gone, None)
            _clear(gone)
        for backend in present:
            self.take_over(backend)
        self._return_excess()

    def take_over(self, backend: G) -> None:
        """Watch it from here on, from the beginning whatever another guard may have found; one that is watched goes on, with
        the limit that people set now."""
        watch = self._watched.get(backend)
        if watch is None:
            watch = self._watched[backend] = _Watch(self.breaker, self.ejection)
            watch.tried = watch.returned = backend.epoch  # results of what it does already are as good as any
            _clear(backend)
        else:
            self._limit(backend, watch)

    def set_most(self, backend: G) -> None:
        """People have set another limit (`most`), for a member or for one that is to be."""
        watch = self._watched.get(backend)
        if watch is None:
            backend.limit = backend.most
        else:
            self._limit(backend, watch)

    def revise(self, breaker: BreakerPolicy | None, ejection: EjectionPolicy | None) -> None:
        """A reload: what has got other settings begins anew, what has not lives on."""
        other_breaker, self.breaker = breaker != self.breaker, breaker
        other_ejection, self.ejection = ejection != self.ejection, ejection
        for backend, watch in list(self._watched.items()):
            fresh = _Watch(breaker, ejection)
            events: list[tuple[str, dict[str, Any]]] = []
            if other_breaker:
                if watch.half_opens is not None:
                    watch.half_opens.cancel()
                    watch.half_opens = None
                watch.breaker = fresh.breaker
                if backend.circuit != CLOSED:
                    backend.circuit = CLOSED
                    events.append(("circuit.closed", {"reason": "settings"}))
                self._limit(backend, watch)
            if other_ejection:
                if backend.is_ejected:
                    events.append(self._restore(backend, watch, "settings"))
                watch.ejection = fresh.ejection
            self._report(backend, events)

    def close(self) -> None:
        """No timer comes from here on, and nobody is watched."""
        for watch in self._watched.values():
            watch.cancel()
        self._watched.clear()
        self._ejected.clear()

    # -- what leases say

    def observe(self, backend: G, outcome: Outcome, code: int, epoch: int) -> None:
        """A lease that was taken at `epoch` has ended; `code` is the HTTP status, or 0 or less where there was none.

        Hot path: a lookup and three comparisons for a success of a backend that has not failed.
        """
        watch = self._watched.get(backend)
        if watch is None:
            return
        breaker = watch.breaker
        is_ok = outcome is _OK and code < _ERROR
        if is_ok and (breaker is None or not breaker.failures):
            return
        is_old = epoch < watch.tried
        if is_old and backend.circuit == HALF_OPEN:
            watch.old -= 1
            self._limit(backend, watch)
        if outcome > _LAST_FAILURE:
            return
        now = self._seconds()
        events = []
        if breaker is not None:
            change = breaker.observe(is_ok, now, is_old)
            if change is not None:
                events.append(self._switch(backend, watch, breaker, change, now))
        ejection = watch.ejection
        if (
            ejection is not None
            and outcome is not _OK
            and epoch >= watch.returned
            and ejection.observe(now)
            and len(self._ejected) < most_ejected(ejection.policy.max_ejected, len(self._watched))
        ):
            events.append(self._eject(backend, watch, ejection, now))
        self._report(backend, events)

    def answered(self, backend: G, epoch: int) -> int:
        """A lease taken at `epoch` has shown that its backend serves, and may go on for long: the epoch that it has now.

        Only a trial of a half-open circuit is counted, as a success, and its place is free for another; its end will say
        nothing more. To be called once for each tcp connection when it is there, and for each tunnel when it is granted.
        """
        watch = self._watched.get(backend)
        if watch is None or watch.breaker is None or backend.circuit != HALF_OPEN or epoch < watch.tried:
            return epoch
        now = self._seconds()
        change = watch.breaker.observe(True, now)
        if change is not None:
            self._report(backend, [self._switch(backend, watch, watch.breaker, change, now)])
        else:
            watch.old += 1
            self._limit(backend, watch)
            self._changed(backend)
        return PAST

    # -- what others have found

    def trip(self, backend: G) -> None:
        """Another process has opened its circuit of this one: open ours, if there is one and it is not open."""
        watch = self._watched.get(backend)
        if watch is not None and watch.breaker is not None:
            now = self._seconds()
            if watch.breaker.trip(now):
                event, fields = self._switch(backend, watch, watch.breaker, OPEN, now)
                self._report(backend, [(event, fields | BY_ANOTHER)])

    def eject(self, backend: G) -> None:
        """Another process has ejected this one: so do we, if we eject at all, it is in, and one more may be out."""
        watch = self._watched.get(backend)
        ejection = watch.ejection if watch is not None else None
        if watch is None or ejection is None or ejection.is_ejected:
            return
        if len(self._ejected) < most_ejected(ejection.policy.max_ejected, len(self._watched)):
            event, fields = self._eject(backend, watch, ejection, self._seconds())
            self._report(backend, [(event, fields | BY_ANOTHER)])

    # -- the circuit

    def _switch(
        self, backend: G, watch: _Watch, breaker: Breaker, state: str, now: float
    ) -> tuple[str, dict[str, Any]]:
        """Its circuit is open, or closed."""
        backend.circuit = state
        self._limit(backend, watch)
        if state == OPEN:
            self._await_reset(backend, watch, breaker, now)
            return "circuit.open", {"failures": breaker.failures, "seconds": breaker.policy.reset_timeout}
        return "circuit.closed", {"successes": breaker.policy.half_open_requests}

    def _await_reset(self, backend: G, watch: _Watch, breaker: Breaker, now: float) -> None:
        watch.half_opens = self._call_later(breaker.until - now, lambda: self._reset(backend, watch, breaker))

    def _reset(self, backend: G, watch: _Watch, breaker: Breaker) -> None:
        """The time is over, unless there were more failures meanwhile: then it is longer."""
        watch.half_opens = None
        now = self._seconds()
        if not breaker.half_open(now):
            self._await_reset(backend, watch, breaker, now)
            return
        backend.circuit = HALF_OPEN
        backend.epoch += 1
        watch.tried = backend.epoch
        watch.old = backend.active
        self._limit(backend, watch)
        self._report(backend, [("circuit.half_open", {"requests": breaker.policy.half_open_requests})])

    def _limit(self, backend: G, watch: _Watch) -> None:
        """Write down how many leases it may have at one time."""
        if watch.breaker is not None and backend.circuit == HALF_OPEN:
            backend.limit = min(backend.most, watch.old + watch.breaker.policy.half_open_requests)
        else:
            backend.limit = backend.most

    # -- ejection

    def _eject(self, backend: G, watch: _Watch, ejection: Ejection, now: float) -> tuple[str, dict[str, Any]]:
        failures = ejection.failures
        seconds = ejection.eject(now)
        backend.is_ejected = True
        self._ejected[backend] = watch
        watch.returns = self._call_later(seconds, lambda: self._return(backend, watch, ejection))
        return "backend.ejected", {"failures": failures, "seconds": seconds, "times": ejection.times}

    def _return(self, backend: G, watch: _Watch, ejection: Ejection) -> None:
        """Its time is over."""
        watch.returns = None
        self._report(backend, [self._restore(backend, watch, "time")])

    def _restore(self, backend: G, watch: _Watch, reason: str) -> tuple[str, dict[str, Any]]:
        timer, watch.returns = watch.returns, None
        if timer is not None:
            timer.cancel()
        if watch.ejection is not None:
            watch.ejection.restore(self._seconds())
        backend.is_ejected = False
        backend.epoch += 1
        watch.returned = backend.epoch
        self._ejected.pop(backend, None)  # another process may have written it
        return "backend.returned", {"reason": reason}

    def _return_excess(self) -> None:
        """Fewer members may be too few for all who are ejected."""
        if self.ejection is None:
            return
        excess = len(self._ejected) - most_ejected(self.ejection.max_ejected, len(self._watched))
        if excess > 0:
            soonest = sorted(
                self._ejected.items(), key=lambda item: item[1].ejection.until if item[1].ejection else 0.0
            )
            for backend, watch in soonest[:excess]:
                if backend in self._ejected:  # `changed` may have led back here
                    self._report(backend, [self._restore(backend, watch, "members")])

    def _report(self, backend: G, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Events first: what comes of the change is told after it."""
        for event, fields in events:
            self._tell(event, backend, fields)
        if events:
            self._changed(backend)

    def __repr__(self) -> str:
        broken = sum(backend.circuit != CLOSED for backend in self._watched)
        return f"<Guard of {len(self._watched)}: {len(self._ejected)} ejected, {broken} circuits not closed>"


def _clear(backend: Guarded) -> None:
    """Write down that nobody guards it."""
    backend.circuit = CLOSED
    backend.is_ejected = False
    backend.limit = backend.most
