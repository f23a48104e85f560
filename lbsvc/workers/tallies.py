"""What workers tell each other of limits and clients that they count together, every EXCHANGE seconds.

Promises: `collect` is what this worker has let in since it was asked last; `apply` takes what another has collected. Values
are lists of lists, strings, bytes and numbers, as MessagePack has them, one for each limit or table that has any news:

    ["listener", LISTENER, "", [[KEY, TOKENS], …]]        tokens taken of the listener's rate_limit (core/ratelimit.py)
    ["route", LISTENER, ROUTE, [[KEY, TOKENS], …]]        the same of a route's
    ["clients", LISTENER, "", [[CLIENT, CONNECTIONS], …]]  connections_per_client: so many has it here now (core/clients.py)
    ["ended", LISTENER, "", []]                           nothing is counted for this listener any more
    ["sticky", POOL, "", [[CLIENT, BACKEND, SINCE], …]]    sticky: ip: whose client it is (core/affinity.py)

Each has at most MOST entries; what is more comes the next time. A value that names what is not here, because this worker has
not got the same settings yet, or any more, is passed over; counts of clients are kept for a listener that is to come.

Bounds, with k workers, if news are with the others T after what they tell of (EXCHANGE, and the way through the parent):
- rate_limit: a key is let in rate x t + k x burst + k x rate x T times in any t seconds, at most, all together; and one
  that stays with one worker has all of its rate. Debts: `most_debt`.
- connections_per_client: a client has up to its limit in all, and within 2 T up to k x its limit.
- sticky: ip: a client has one backend in all workers T after its first request, and before that as far as they see the same
  health. Of two choices the later one holds.

Invariants: what is remembered of a worker ends with `forget`; `elsewhere` of a listener's counts is the sum of what all
others have told. Called by workers/worker.py: `enlist` once at the start and after each reload, before anything can come,
so that nothing is let in that nobody hears of; `retell` when another worker has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from math import ceil
from typing import Any, Final, TypeAlias

from lbsvc.core.affinity import AddressTable
from lbsvc.core.clients import ClientCounts
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.listening import Listeners
from lbsvc.pools import Pools

#: How often workers tell each other, in seconds.
EXCHANGE: Final = 0.1
#: How late news may come, in multiples of EXCHANGE, while debts are what they should be.
LATE: Final = 2
#: Entries of one value.
MOST: Final = 4096

#: kind, listener or pool, route or "", entries
Value: TypeAlias = list[Any]


def most_debt(limiter: RateLimiter, workers: int) -> int:
    """The tokens that a key may owe, at most: what all workers can have let in before they knew of each other."""
    policy = limiter.policy
    return workers * (policy.burst + ceil(policy.rate * EXCHANGE * LATE))


class Tallies:
    """The news of one worker, and what it has heard. `workers` is how many there are."""

    def __init__(self, listening: Listeners, pools: Pools, workers: int) -> None:
        self.workers = workers
        self._listening = listening
        self._pools = pools
        #: listener -> worker -> client -> connections
        self._heard: dict[str, dict[int, dict[str, int]]] = {}
        # What is here, as `enlist` has found it.
        self._limiters: dict[tuple[str, str, str], RateLimiter] = {}
        self._counts: dict[str, ClientCounts] = {}
        self._tables: dict[str, AddressTable] = {}
        #: listeners whose clients have been told of, and are not counted any more, or anew
        self._ended: dict[str, None] = {}

    # -- what is here

    def enlist(self) -> None:
        """From here on everything that is new here is counted too."""
        self._limiters = {}
        for served in self._listening.everyone:  # of two of one name the one in force comes first
            for route, limiter in served.limiters:
                self._limiters.setdefault(("route" if route else "listener", served.name, route), limiter)
                if limiter.taken is None:
                    limiter.taken = {}
        counts = {name: served.listener.clients for name, served in self._listening.served.items()}
        before, self._counts = self._counts, {name: each for name, each in counts.items() if each is not None}
        self._ended |= dict.fromkeys(name for name, each in before.items() if self._counts.get(name) is not each)
        for name, each in self._counts.items():
            if before.get(name) is not each:
                each.elsewhere = _sums(self._heard.get(name, {}).values())
        placements = {name: upstreams.placement for name, upstreams in self._pools.upstreams.items()}
        tables = {name: each.addresses for name, each in placements.items() if each is not None}
        self._tables = {name: each for name, each in tables.items() if each is not None}

    # -- what others are to know

    def collect(self, now: float) -> list[Value]:
        """What is new since the last time. `now` is monotonic."""
        self.enlist()
        values: list[Value] = [["ended", name, "", []] for name in self._ended]
        self._ended.clear()
        for (kind, listener, route), limiter in self._limiters.items():
            if limiter.taken:
                values.append([kind, listener, route, _drawn(limiter.taken)])
        for name, counts in self._counts.items():
            if news := counts.news(MOST):
                values.append(["clients", name, "", [list(each) for each in news]])
        for name, table in self._tables.items():
            if given := table.news(MOST, now):
                values.append(["sticky", name, "", [list(each) for each in given]])
        return values

    def retell(self) -> None:
        """There is a worker that has heard nothing yet: the next news are of all clients that there are."""
        for counts in self._counts.values():
            counts.retell()
        for table in self._tables.values():
            table.retell()

    # -- what others have told

    def apply(self, worker: int, values: Iterable[Value], now: float) -> None:
        """What the worker of this number has collected. `now` is monotonic."""
        for kind, name, route, entries in values:
            if kind == "clients":
                self._hear(worker, name, entries)
            elif kind == "ended":
                told = self._heard.get(name, {}).get(worker, {})
                self._hear(worker, name, [(client, 0) for client in told])
            elif kind == "sticky":
                if name in self._tables:
                    table = self._tables[name]
                    for client, backend, since in entries:
                        table.hear(client, backend, since, now)
            elif (limiter := self._limiters.get((kind, name, route))) is not None:
                most = most_debt(limiter, self.workers)
                for key, tokens in entries:
                    limiter.charge(key, tokens, now - EXCHANGE, now, most)

    def _hear(self, worker: int, listener: str, entries: Iterable[tuple[str, int]]) -> None:
        workers = self._heard.setdefault(listener, {})
        told = workers.setdefault(worker, {})
        counts = self._counts.get(listener)
        for client, count in entries:
            before = told.pop(client, 0)
            if count:
                told[client] = count
            if counts is not None:
                sum_ = counts.elsewhere.pop(client, 0) + count - before
                if sum_:
                    counts.elsewhere[client] = sum_
        if not told:
            del workers[worker]
            if not workers:
                del self._heard[listener]

    def forget(self, worker: int) -> None:
        """It is gone, and its connections with it. What it has let in, and whom it has given backends, holds."""
        for listener in list(self._heard):
            told = self._heard[listener].get(worker, {})
            self._hear(worker, listener, [(client, 0) for client in told])

    def __repr__(self) -> str:
        heard = {worker for workers in self._heard.values() for worker in workers}
        return f"<Tallies: {len(self._counts)} listeners count clients, {len(heard)} workers have told>"


def _drawn(taken: dict[str | bytes, int]) -> list[list[Any]]:
    """Up to MOST entries, which are not there any more."""
    if len(taken) <= MOST:
        found = [[key, tokens] for key, tokens in taken.items()]
        taken.clear()
        return found
    return [[key, taken.pop(key)] for key in list(islice(taken, MOST))]


def _sums(told: Iterable[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in told:
        for client, count in each.items():
            found[client] = found.get(client, 0) + count
    return found
