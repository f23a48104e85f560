"""One request on its way through the simulation: the milestones of both roads, over the same calls to core/.

What http/trying.py, http/placing.py and net/relay.py do with a pool a visit does too, and nothing else: limits, budget,
affinity, choice, the queue and its end, tries, retries, a client that goes, a tunnel that is open for long. Promises:
`finish` is called exactly once. The referee is told of each step. Seconds of the world's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import find_lease, must_wait, reason_for_nobody
from lbsvc.core.clients import Surplus
from lbsvc.core.hashing import key_hash
from lbsvc.core.lease import Lease
from lbsvc.core.queueing import Ticket
from lbsvc.core.ratelimit import client_key
from lbsvc.core.retry import backoff_delay, may_repeat

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How a try may have ended -> the word of `retry.when`.
_CAUSES: Final = {
    Outcome.CONNECT_FAILED: "connect_failure",
    Outcome.CONNECT_TIMEOUT: "connect_failure",
    Outcome.RESET: "reset",
    Outcome.TIMEOUT: "timeout",
}
#: A share of visits is by clients that go before the end, and another opens a tunnel.
IMPATIENT: Final = 0.02
TUNNELS: Final = 0.004


class Client:
    """Somebody who comes again: an address, and the cookie that it was given."""

    __slots__ = ("address", "cookie", "key", "tokens")

    def __init__(self, number: int) -> None:
        self.address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self.key = key_hash(client_key(self.address).encode())
        self.cookie: bytes | None = None
        self.tokens: tuple[float, float] | None = None  # the referee's bucket: how many there were, and when


class Visit:
    """One request."""

    __slots__ = (
        "attempts",
        "began",
        "client",
        "counted",
        "keeps_home",
        "lease",
        "method",
        "number",
        "patience",
        "preferred",
        "ticket",
        "tried",
        "turn",
        "waits_since",
        "world",
    )

    def __init__(self, world: World, client: Client, method: bytes, number: int) -> None:
        self.world = world
        self.number = number
        self.client = client
        self.method = method
        self.lease: Lease | None = None
        self.ticket: Ticket | None = None
        self.preferred: Backend | None = None
        self.tried: tuple[Backend, ...] = ()
        self.attempts = 0
        self.turn = 0  # what was set going in a former one does not come
        self.began = self.waits_since = self.patience = 0.0
        self.keeps_home = False
        self.counted: str | None = None

    # -- match, admit

    def arrive(self) -> None:
        """It is there."""
        world, client = self.world, self.client
        now = world.now
        self.counted = world.counts.enter(client.address)
        if self.counted is None or isinstance(self.counted, Surplus):
            self.finish("connections")
            return
        if world.limiter is not None:
            wait = world.limiter.take(client.address, now)
            world.referee.limited(client, world.limiter.policy, wait, now)
            if wait:
                self.finish("rate_limited")
                return
        world.pool.budget.request(now)
        world.referee.counted(now)
        if world.rng.random() < world.impatient:
            world.later(world.rng.expovariate(0.5), self.leave, -1)
        self.choose(0)

    # -- choose

    def choose(self, turn: int) -> None:
        """A backend, a place in the queue, or nobody."""
        if turn != self.turn:
            return
        pool, placement = self.world.pool, self.world.upstreams.placement
        if placement is not None:
            lease = self._find(False)
        else:
            self.preferred = None
            lease = pool.pick(self.tried) or (pool.pick() if self.tried else None)
        if lease is not None:
            self._begin(lease)
        elif placement is not None and must_wait(pool, self.preferred, self.tried):
            self._enter_queue()
        else:
            self.world.referee.refused(self)
            self.finish(reason_for_nobody(pool))

    def _find(self, is_next: bool) -> Lease | None:
        world, client = self.world, self.client
        placement = world.upstreams.placement
        assert placement is not None
        self.preferred = None
        if placement.cookies is not None:
            if client.cookie is not None:
                self.preferred, _ = placement.cookies.find(client.cookie, world.wall())
        elif placement.addresses is not None:
            self.preferred = placement.addresses.find(client.address, world.now)
        key = client.key if world.pool.wants_key else None
        return find_lease(world.pool, self.tried, key, self.preferred, is_next, waits_for_home=True)

    def _enter_queue(self) -> None:
        world = self.world
        self.ticket = world.pool.queue.enter(self._take_turn)
        if self.ticket is None:
            world.referee.queue_full()
            if not self._goes_elsewhere():
                self.finish("queue_full")
            return
        self.waits_since = world.now
        self.patience = world.settings.queue.timeout
        world.waiting[self.ticket] = self
        world.referee.entered(self)
        world.later(self.patience, self._wait_is_over, self.turn)

    def _take_turn(self) -> bool:
        lease = self._find(True)
        if lease is None:
            if must_wait(self.world.pool, self.preferred, self.tried):
                return False
            self._is_out()
            self.world.referee.refused(self)
            self.finish(reason_for_nobody(self.world.pool))
            return True
        self._begin(lease)
        return True

    def _wait_is_over(self, turn: int) -> None:
        if turn == self.turn and self.ticket is not None and not self._goes_elsewhere():
            self.finish("queue_timeout")

    def _goes_elsewhere(self) -> bool:
        """A client whose own backend has no room is served by another, this once."""
        if self.preferred is None or self.world.upstreams.placement is None:
            return False
        lease = self.world.pool.pick(self.tried, self.client.key if self.world.pool.wants_key else None)
        if lease is None:
            return False
        self.keeps_home = True
        if self.ticket is not None:
            self.world.pool.queue.leave(self.ticket)
            self._is_out()
        self._begin(lease)
        return True

    def _is_out(self) -> None:
        """It waits no more."""
        if self.ticket is not None:
            del self.world.waiting[self.ticket]
            self.ticket = None
            self.turn += 1

    # -- open, carry

    def _begin(self, lease: Lease) -> None:
        world = self.world
        world.referee.took(self, lease)
        self._is_out()
        self.turn += 1
        self.lease = lease
        self.attempts += 1
        self.began = world.now
        seconds, outcome, code = world.machine(lease.backend).answer(world.rng, world.now)
        if code == 200 and world.rng.random() < world.tunnels:
            world.later(seconds, self._upgraded, self.turn)
        else:
            world.later(seconds, self._over, (self.turn, outcome, code))

    def _upgraded(self, turn: int) -> None:
        """The backend has answered, and the client talks with it for a while: how long says nothing about it."""
        world, lease = self.world, self.lease
        if turn != self.turn or lease is None:
            return
        if world.pool.guard is not None:
            lease.epoch = world.pool.guard.answered(lease.backend, lease.epoch)
        world.later(world.rng.uniform(10.0, 600.0), self._over, (self.turn, Outcome.OK, 101))

    def _over(self, end: tuple[int, Outcome, int]) -> None:
        """A try has ended."""
        turn, outcome, code = end
        if turn != self.turn or self.lease is None:
            return
        world = self.world
        backend = self._release(outcome, code)
        retry = world.settings.retry
        if outcome is not Outcome.OK:
            again = may_repeat(retry, self.method, True, True, _CAUSES[outcome])
        else:
            again = str(code) in retry.when and self.method in retry.methods
        if again and self.attempts < retry.attempts:
            allowed = world.pool.budget.may_retry(world.now)
            world.referee.asked_again(allowed, world.now)
            if allowed:
                world.pool.retries += 1
                self.tried = (*self.tried, backend)
                delay = backoff_delay(retry, self.attempts, world.rng)
                if delay:
                    world.later(delay, self.choose, self.turn)
                else:
                    self.choose(self.turn)
                return
            world.pool.budget_exhausted += 1
            if outcome is not Outcome.OK:
                self.finish("retry_budget")
                return
        if outcome is Outcome.OK:
            self._settle_in(backend)
        self.finish(outcome.reason)

    def _release(self, outcome: Outcome, code: int) -> Backend:
        world, lease = self.world, self.lease
        assert lease is not None
        self.lease = None
        self.turn += 1
        world.referee.gives_back(lease.backend, outcome, code)
        lease.release(outcome, code, world.now - self.began)
        return lease.backend

    def _settle_in(self, backend: Backend) -> None:
        """Whose client this is now."""
        placement = self.world.upstreams.placement
        if placement is None or self.keeps_home:
            return
        if placement.addresses is not None and backend is not self.preferred:
            placement.addresses.put(self.client.address, backend, self.world.now)
        elif placement.cookies is not None:
            self.client.cookie = placement.cookies.value_of(backend, self.world.wall())

    # -- settle

    def leave(self, turn: int) -> None:
        """The client goes, wherever it has come to."""
        if self in self.world.visits:
            self._let_go(Outcome.CLIENT_GONE)
            self.finish("client_closed")

    def cut(self) -> None:
        """We end it."""
        self._let_go(Outcome.ABANDONED)
        self.finish("killed")

    def _let_go(self, outcome: Outcome) -> None:
        if self.ticket is not None:
            self.world.pool.queue.leave(self.ticket)
            self._is_out()
        if self.lease is not None:
            self._release(outcome, -1)

    def finish(self, reason: str) -> None:
        """It is over, for this reason."""
        self._is_out_of_queue(reason)
        self.turn += 1
        if self.counted is not None:
            self.world.counts.leave(self.counted)
        self.world.finished(self, reason)

    def _is_out_of_queue(self, reason: str) -> None:
        if self.ticket is not None:
            if self.ticket.is_waiting:
                self.world.pool.queue.leave(self.ticket)
            self._is_out()

    def __repr__(self) -> str:
        where = f"on {self.lease.backend.name}" if self.lease else "waiting" if self.ticket else "between"
        return f"<Visit {self.number} of {self.client.address}, {where}, try {self.attempts}>"
