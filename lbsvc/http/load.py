"""Load on purpose: a number of clients that ask for the same thing, over kept connections, and what came of it.

Promises
- Each request that was begun is counted once: with its answer's status, or as an error with its kind. Answers are read by
  the codec that backends' answers are read by, and as strictly. Memory is bounded by the clients, not by the requests.
- Without a rate a client asks again as soon as it was answered. With one, requests are due at equal distances from the
  start, and each latency counts from when its request was due: a server that stalls for a second shows that second in all
  requests of it, not in one for each client (what is known as coordinated omission).
- A failed request is not tried again. The one exception: where the server has closed a kept connection before a byte of the
  answer came, and the method allows it (RFC 9110, 9.2.2), it is sent once more on a new connection, as any client would,
  and counted as `resent`.
- At the end of `duration` nothing new is begun, and what is under way is waited for, `timeout` at most. `stop` cuts that
  short: what is under way then is not counted.

Called by ctl/request.py and by sending.py. The reactor's clock and `dial` are given; times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from lbsvc.core.backend import Outcome
from lbsvc.core.latencies import Latencies
from lbsvc.http.asking import Asking

#: Connects a protocol: dial(protocol, timeout, failed) calls makeConnection or failed(outcome, detail), perhaps at once.
Dial = Callable[[Protocol, float, Callable[[Outcome, str], None]], Any]

#: How long a client waits after a failure, so that a server that is gone is not asked as fast as the machine can.
PAUSE: Final = 0.01
#: How often deadlines are looked at.
SWEEP: Final = 0.1
#: Different kinds of errors, or names of backends, that are told apart; the rest is `OTHERS`.
MOST_NAMES: Final = 1000
OTHERS: Final = "(others)"
#: What a server may see twice.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


@dataclass(frozen=True)
class Plan:
    """How much is asked."""

    requests: int | None = 1000  # None: as many as `duration` holds
    clients: int = 50
    duration: float | None = None
    rate: float | None = None  # requests a second, all clients together; None: as fast as they are answered
    timeout: float = 30.0  # of a request, its connection included
    is_kept: bool = True  # connections are used again


@dataclass
class Tally:
    """What came of it so far."""

    begun: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    backends: Counter[str | None] = field(default_factory=Counter)  # by X-Backend; None: answers without one
    latencies: Latencies = field(default_factory=Latencies)  # of whole answers
    received: int = 0  # bytes of bodies
    connections: int = 0  # that were made; one that was only tried is an error
    resent: int = 0
    elapsed: float = 0.0

    @property
    def answered(self) -> int:
        """Requests that got a whole answer, whatever its status."""
        return self.latencies.count

    @property
    def done(self) -> int:
        return self.answered + self.errors.total()

    @property
    def failed(self) -> int:
        """Requests without a whole answer, or with one of status 400 or more."""
        return self.errors.total() + sum(count for status, count in self.statuses.items() if status >= 400)


class Load:
    """One run: `start`, and its Deferred fires when all is over, or `stop` was called."""

    def __init__(self, clock: Any, dial: Dial, request: bytes, method: bytes, plan: Plan) -> None:
        self.clock = clock
        self.dial = dial
        self.request = request
        self.method = method
        self.plan = plan
        self.tally = Tally()
        self.is_over = False
        self._began = self._end = 0.0
        self._clients: list[Client] = []
        self._asking = 0
        self._sweep: Any = None
        self._finished: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        plan = self.plan
        self._began = self.clock.seconds()
        self._end = inf if plan.duration is None else self._began + plan.duration
        count = plan.clients if plan.requests is None else min(plan.clients, plan.requests)
        self._clients = [Client(self) for _ in range(count)]
        self._asking = count
        self._sweep = self.clock.callLater(SWEEP, self._look)
        for client in self._clients:
            client.go_on()
        return self._finished

    def stop(self) -> None:
        """Now; what is under way is forgotten. Harmless when it is over."""
        if not self.is_over:
            self._finish()

    @property
    def elapsed(self) -> float:
        return self.tally.elapsed if self.is_over else self.clock.seconds() - self._began

    def ticket(self) -> float | None:
        """When the next request is due; None: there is none left."""
        plan, begun = self.plan, self.tally.begun
        if self.is_over or (plan.requests is not None and begun >= plan.requests):
            return None
        due: float = self.clock.seconds() if plan.rate is None else self._began + begun / plan.rate
        if due >= self._end or self.clock.seconds() >= self._end:
            return None
        self.tally.begun += 1
        return due

    def give_back(self) -> None:
        """A ticket was taken for nothing: the end came before it was due."""
        self.tally.begun -= 1

    def has_ended(self) -> bool:
        """No request may be begun any more."""
        return bool(self.clock.seconds() >= self._end)

    def count_answer(self, status: int, backend: str | None, latency: float) -> None:
        tally = self.tally
        tally.statuses[status] += 1
        tally.backends[_known(backend, tally.backends)] += 1
        tally.latencies.record(latency)

    def count_error(self, kind: str) -> None:
        self.tally.errors[_known(kind, self.tally.errors) or OTHERS] += 1

    def retire(self) -> None:
        """A client has found nothing more to do."""
        self._asking -= 1
        if not self._asking and not self.is_over:
            self._finish()

    def _look(self) -> None:
        self._sweep = self.clock.callLater(SWEEP, self._look)
        now = self.clock.seconds()
        for client in self._clients:
            client.expire(now)

    def _finish(self) -> None:
        self.tally.elapsed = self.elapsed
        self.is_over = True
        if self._sweep is not None:
            self._sweep.cancel()
        for client in self._clients:
            client.leave()
        self._finished.callback(None)


def _known(name: str | None, seen: Counter[Any]) -> str | None:
    return name if name in seen or len(seen) < MOST_NAMES else OTHERS


class Client:
    """One of those that ask at the same time: a request, its answer or its end, the next request."""

    __slots__ = ("_deadline", "_dialling", "_due", "_has_resent", "_load", "_timer", "_wire")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._wire: Asking | None = None
        self._dialling: Any = None
        self._timer: Any = None
        self._due = 0.0
        self._deadline = inf  # of the request that is under way
        self._has_resent = False

    def go_on(self) -> None:
        """The next request, when it is due."""
        load = self._load
        self._timer = None
        due = load.ticket()
        if due is None:
            self._drop()
            load.retire()
            return
        self._due = due
        wait = due - load.clock.seconds()
        if wait > 0:
            self._timer = load.clock.callLater(wait, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        load = self._load
        if self._timer is not None:
            self._timer = None
            if load.has_ended():
                load.give_back()
                self._drop()
                load.retire()
                return
        self._deadline = load.clock.seconds() + load.plan.timeout
        self._has_resent = False
        self._ask()

    def _ask(self) -> None:
        wire = self._wire
        if wire is not None:
            wire.ask()
            return
        load = self._load
        self._wire = wire = Asking(self, load.request, load.method)
        # Either end may come before `dial` returns: then what it returns is over.
        self._dialling = load.dial(wire, load.plan.timeout, self._not_connected)

    def _not_connected(self, outcome: Outcome, detail: str) -> None:
        if outcome is Outcome.CONNECT_TIMEOUT:
            self.fail("timeout: no connection")
        else:
            self.fail(f"{outcome.reason}: {detail}")

    def connected(self) -> None:
        """There is a connection."""
        self._load.tally.connections += 1

    def answered(self, status: int, backend: str | None, is_reusable: bool) -> None:
        """The answer is whole."""
        load = self._load
        self._deadline = inf
        load.count_answer(status, backend, load.clock.seconds() - self._due)
        if not (is_reusable and load.plan.is_kept):
            self._drop()
        self.go_on()

    def receive(self, count: int) -> None:
        self._load.tally.received += count

    def fail(self, kind: str) -> None:
        """The request that is under way has failed; the next one is on a new connection, a moment later."""
        load = self._load
        self._deadline = inf
        self._drop()
        load.count_error(kind)
        self._timer = load.clock.callLater(PAUSE, self.go_on)

    def lost(self, *, is_stale: bool) -> None:
        """The connection has ended before its request was answered; stale: a kept one, without a byte of the answer."""
        load = self._load
        if is_stale and not self._has_resent and load.method in _IDEMPOTENT:
            self._has_resent = True
            load.tally.resent += 1
            self._wire = None
            self._ask()
        else:
            self.fail("upstream_reset: the connection ended before the answer did")

    def lost_idle(self) -> None:
        """The kept connection is gone; nothing was asked on it."""
        self._wire = None

    def expire(self, now: float) -> None:
        """Look at the deadline."""
        if now >= self._deadline:
            self.fail("timeout: no whole answer")

    def leave(self) -> None:
        """It is all over: nothing is done any more."""
        self._deadline = inf
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._drop()

    def _drop(self) -> None:
        dialling, self._dialling = self._dialling, None
        wire, self._wire = self._wire, None
        if dialling is not None:
            dialling.cancel()
        if wire is not None:
            wire.part()
