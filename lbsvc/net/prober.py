"""Active health checks: each backend is asked again and again whether it lives, and believed after `rise` or `fall`.

Promises: the first check begins at once, the others an interval apart (start to start, jittered by 10 %, so that checks of
many backends do not march in step); checks of one backend never overlap, those of different ones never wait for each
other (features.md HC-9); nothing that a check, a backend or a listener to flips does stops the checking (HC-11). Results
go to `Backend.checks`, `check_duration` and `last_check`; when the verdict flips, `Backend.health` is set, the pool
refreshed, and `on_flip(backend, detail)` called, once for each flip, the first verdict included. After `stop` nothing is
called and no socket is left. Time is the reactor's (monotonic); only `last_check` carries the wall clock's, for people.

A check that could not be made for a reason of ours (no descriptors left) counts neither way.

A backend whose verdict flips too often (core/flapping.py says when) is held down: its health is `flapping`, whatever its
checks find meanwhile, and when the hold is over it is what they have found by then. `on_flip` is told of the beginning
and of the end, and of no flip in between. The first verdict is no flip that counts.

What is asked, how often and what follows from it may change at any time (`revise`): the next check goes by it, which comes
earlier where the interval has become shorter; of another question the first answer decides. Health stays what it was.

Who is put back to work may be another program by now: `recheck` forgets what was found, so that who was up is unknown, and
asks at once. What was asked before does not count any more, and the first answer decides.

Called by the app through `HealthChecker`, which knows when everybody has been asked once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.books import BUCKETS
from lbsvc.core.flapping import Flapping
from lbsvc.core.health import Verdict
from lbsvc.core.policies import FlappingPolicy, HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.net.checks import Check, Dial, MakeCheck, check_for

#: An interval differs from the policy's by up to this share.
JITTER: Final = 0.1

#: Told of each flip of a backend's health, with the last check's result in words.
OnFlip = Callable[[Backend, str], object]


class Prober:
    """The checks of one backend."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        policy: HealthCheckPolicy,
        backend: Backend,
        pool: Pool,
        rng: Random,
        on_flip: OnFlip,
        dial: Dial,
        wall: Callable[[], float],
        flapping: Flapping | None = None,
        make: MakeCheck = check_for,
    ) -> None:
        self._make = make
        #: told of the backend whenever something else is known of it
        self.on_learned: Callable[[Backend], object] = lambda backend: None
        self.policy = policy
        self.flapping = flapping
        self.backend = backend
        self.pool = pool
        self.verdict = Verdict(policy)
        #: Fires once, with None, when the first check is over.
        self.first_verdict: Deferred[None] = Deferred()
        self._reactor = reactor
        self._rng = rng
        self._on_flip = on_flip
        self._dial = dial
        self._wall = wall
        self._check: Check | None = None
        self._check_over: Deferred[None] | None = None
        self._began = 0.0
        self._is_first = True
        self._asks_anew = False  # from the next check on it is another question
        self._hold: IDelayedCall | None = None  # while it is held down
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor

    @property
    def was_asked(self) -> bool:
        """Is its first check over?"""
        return not self._is_first

    def start(self) -> None:
        """Check now, and from now on."""
        if self.backend.health == "flapping":
            self._wait_for_release()
        self._loop.start(self.policy.interval)

    def revise(self, policy: HealthCheckPolicy, flapping: FlappingPolicy | None) -> None:
        """Another policy, from the next check on; a check under way ends by the one that it has begun with."""
        before, self.policy = self.policy, policy
        self.verdict.revise(policy)
        if question(policy) != question(before):
            self._asks_anew = True
        if self.flapping is None:
            self.flapping = Flapping(flapping) if flapping is not None else None
        elif flapping is not None:
            self.flapping.policy = flapping
        else:
            self.flapping = None
            hold, self._hold = self._hold, None
            if hold is not None:
                hold.cancel()
                self._look_at_hold()
        call = self._loop.call
        if call is not None and policy.interval < before.interval:
            now = self._reactor.seconds()
            due = max(0.0, self._began + self._jittered() - now)
            if due < call.getTime() - now:
                call.reset(due)

    def recheck(self) -> None:
        """Believe nothing that was found before, and check at once. Who was up is unknown; the caller refreshes the pool."""
        self.verdict = Verdict(self.policy)
        if self.backend.health == "up":
            self.backend.health = "unknown"
            self.on_learned(self.backend)
        self._loop.interval = (
            0.0  # until the next tick, which so comes at once, also after a check that is being judged
        )
        check, self._check = self._check, None
        call = self._loop.call
        if check is not None:  # it has begun before, and may have met the former program
            check.cancel()
            self._tick_is_over()
        elif call is not None:
            call.reset(0.0)

    def stop(self) -> None:
        """No check, no result and no flip from here on; a check under way is given up."""
        if self._loop.running:
            self._loop.stop()
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.cancel()
        check, self._check = self._check, None
        if check is not None:
            check.cancel()
            self._tick_is_over()

    def _tick(self) -> Deferred[None]:
        """Begin one check; LoopingCall waits for its end, so that checks never overlap."""
        # The law of LoopingCall is: the next multiple of `interval` since `starttime`. Setting both anew with each
        # check makes the intervals a random walk; on a fixed grid all backends would keep step for ever.
        self._began = self._reactor.seconds()
        self._loop.starttime = self._began
        self._loop.interval = self._jittered()
        if self._asks_anew:
            self._asks_anew = False
            self.verdict.reopen()
        over: Deferred[None] = Deferred()
        self._check_over = over
        check = self._make(self._reactor, self.policy, self.backend, self._ended)
        self._check = check
        try:
            check.begin(self._dial)
        except Exception:
            self.log.failure("a health check of {backend} could not be made", backend=self.backend)
            if self._check is check:
                check.cancel()
                # Better seen to be down than unknown, and tried, for ever.
                self._ended(False, "the check could not be made")
        return over

    def _jittered(self) -> float:
        """Seconds to the next check."""
        return self.policy.interval * (1 - JITTER + 2 * JITTER * self._rng.random())

    def _ended(self, ok: bool | None, detail: str) -> None:
        self._check = None
        try:
            if ok is not None:
                self._learn(ok, detail)
        except Exception:
            self.log.failure("what follows from a health check of {backend} failed", backend=self.backend)
        self._tick_is_over()
        if self._is_first and self._loop.running:
            self._is_first = False
            self.first_verdict.callback(None)

    def _tick_is_over(self) -> None:
        over, self._check_over = self._check_over, None
        if over is not None:
            over.callback(None)

    def _learn(self, ok: bool, detail: str) -> None:
        """Write the result down, and act on it if it turns the verdict."""
        backend = self.backend
        seconds = self._reactor.seconds() - self._began
        backend.checks["success" if ok else "failure"] += 1
        backend.check_duration.counts[bisect_left(BUCKETS, seconds)] += 1
        backend.check_duration.total += seconds
        before = backend.last_check
        backend.last_check = (ok, self._wall(), detail)
        is_first_word = self.verdict.state == "unknown" or self.verdict.is_reopened
        flapping = self.flapping if not is_first_word else None
        flip = self.verdict.observe(ok)
        if before is None or before[0] != ok or self._is_first:
            self.on_learned(backend)
        is_held = self._hold is not None
        is_too_often = flip is not None and flapping is not None and flapping.changed(self._reactor.seconds())
        if is_too_often and not is_held:
            self._wait_for_release()
            self._set_health("flapping", f"up and down too often, held down for {self._held_for:.3g}s; {detail}")
            return
        if flip is not None and not is_held and flip != backend.health:
            self._set_health(flip, detail)
        elif backend.health in ("down", "flapping") and before is not None and before[0] != ok:
            self.pool.refresh()  # one that has passed its last check may serve where there is nobody else

    def _set_health(self, health: str, detail: str) -> None:
        """Tell everybody."""
        self.backend.health = health
        if health == "up":
            self.backend.is_suspect = False  # that it could not be reached a moment ago is over
        try:
            self.on_learned(self.backend)
            self._on_flip(self.backend, detail)
        finally:
            self.pool.refresh()  # last, so that "backend down" is told before "pool empty"

    @property
    def _held_for(self) -> float:
        """How many seconds the hold has still to go; 0 where there is none."""
        return 0.0 if self.flapping is None else max(0.0, self.flapping.held_until - self._reactor.seconds())

    def _wait_for_release(self) -> None:
        """Look when the hold is over; further flips may move that on."""
        self._hold = self._reactor.callLater(self._held_for, self._look_at_hold)

    def _look_at_hold(self) -> None:
        if self._held_for:
            self._wait_for_release()
            return
        self._hold = None
        last = self.backend.last_check
        try:
            self._set_health(self.verdict.state, f"no longer held down; {last[2] if last else 'not checked'}")
        except Exception:
            self.log.failure("what follows from the end of a hold of {backend} failed", backend=self.backend)

    def __repr__(self) -> str:
        return f"<Prober of {self.backend!r}, {self.verdict!r}>"


class Checker(Protocol):
    """Whoever knows how backends are: HealthChecker, or one that is told (workers/hearsay.py)."""

    def add(
        self, pool: Pool, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None
    ) -> None: ...

    def revise(self, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None) -> bool: ...

    def recheck(self, backend: Backend) -> None: ...

    def remove(self, backend: Backend) -> None: ...

    def everyone_asked(self) -> Deferred[None]: ...


class HealthChecker(Service):
    """All probers: one for each backend that is checked. They run while the service does."""

    name = "health checks"

    def __init__(
        self,
        reactor: IReactorTime,
        rng: Random,
        on_flip: OnFlip,
        dial: Dial,
        wall: Callable[[], float],
        make: MakeCheck = check_for,
    ) -> None:
        self._make = make
        #: Fires once: everybody who was there at the start has a verdict, or its first timeout is over.
        self.first_round: Deferred[None] = Deferred()
        self._reactor = reactor
        self._rng = rng
        self._on_flip = on_flip
        self._dial = dial
        self._wall = wall
        self._probers: dict[Backend, Prober] = {}
        #: Rounds that are not over: who is still awaited, and what fires then.
        self._rounds: list[tuple[set[Prober], Deferred[None]]] = []
        self._had_first_round = False
        #: told of each backend whenever something else is known of it
        self.on_learned: Callable[[Backend], object] = lambda backend: None

    def add(
        self, pool: Pool, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None
    ) -> None:
        """Check this backend from now on (or from the start of the service); by `flapping`, hold it down at times."""
        if backend in self._probers:
            raise ValueError(f"{backend!r} is checked already")
        prober = Prober(
            self._reactor,
            policy,
            backend,
            pool,
            self._rng,
            self._on_flip,
            self._dial,
            self._wall,
            Flapping(flapping) if flapping is not None else None,
            self._make,
        )
        prober.on_learned = lambda backend: self.on_learned(backend)
        prober.first_verdict.addCallback(self._heard, prober)
        self._probers[backend] = prober
        if self.running:
            prober.start()

    def revise(self, backend: Backend, policy: HealthCheckPolicy, flapping: FlappingPolicy | None = None) -> bool:
        """Check it by these from the next check on; False where it is not checked at all."""
        prober = self._probers.get(backend)
        if prober is None:
            return False
        prober.revise(policy, flapping)
        return True

    def recheck(self, backend: Backend) -> None:
        """Check it at once, and believe nothing that was found before. Those that are not checked are left in peace."""
        prober = self._probers.get(backend)
        if prober is not None:
            prober.recheck()

    def remove(self, backend: Backend) -> None:
        """Do not check it any more; nobody waits for it. Unknown ones are left in peace."""
        prober = self._probers.pop(backend, None)
        if prober is not None:
            prober.stop()
            self._heard(None, prober)

    def everyone_asked(self) -> Deferred[None]:
        """Fires when each backend that is checked now has a verdict, or its first timeout is over; at once if so."""
        over: Deferred[None] = Deferred()
        self._rounds.append(({prober for prober in self._probers.values() if not prober.was_asked}, over))
        self._look_round()
        return over

    @override
    def startService(self) -> None:
        super().startService()
        probers = list(self._probers.values())
        if not self._had_first_round:
            self._had_first_round = True
            self._rounds.append((set(probers), self.first_round))
        for prober in probers:
            prober.start()
        self._look_round()

    @override
    def stopService(self) -> None:
        super().stopService()
        self._rounds.clear()
        for prober in self._probers.values():
            prober.stop()

    def _heard(self, _: None, prober: Prober) -> None:
        for awaited, _over in self._rounds:
            awaited.discard(prober)
        self._look_round()

    def _look_round(self) -> None:
        over = [each for awaited, each in self._rounds if not awaited]
        self._rounds = [each for each in self._rounds if each[0]]
        for each in over:
            each.callback(None)

    def __repr__(self) -> str:
        return f"<HealthChecker of {len(self._probers)} backends>"


def question(policy: HealthCheckPolicy) -> HealthCheckPolicy:
    """What is asked, whatever how often it is, and how much patience and how many answers it takes."""
    return replace(policy, interval=0.0, timeout=0.0, rise=0, fall=0)
