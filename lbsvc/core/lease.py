"""A lease: the right to use one backend once, and the one place where the result of that use is written down.

Promises: while it is open it counts one in `backend.active`; it is released exactly once, with an outcome, and a second
release raises (a road that settles twice has lost track). Made by `Pool.pick`, released by the roads.

Laws. Latency is an EWMA with alpha 0.1 for each answered request (the last ten weigh about two thirds), in seconds.
Only `OK` touches requests, latency and durations. The five failures count by their reason word, and with code 0 (no HTTP
status: tcp) as `tcp_error` too. `CLIENT_GONE` and `ABANDONED` change nothing but `active`: a client that goes away is
never counted against a backend, and says nothing about its speed.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.books import BUCKETS

if TYPE_CHECKING:
    from lbsvc.core.pool import Pool

#: How much one request moves the latency.
ALPHA: Final = 0.1

_OK: Final = Outcome.OK
_LAST_FAILURE: Final = Outcome.PROTOCOL
_LAST_UNREACHED: Final = Outcome.TLS_VERIFY  # and those before it: no connection came about


class Lease:
    """Use of `backend`, until `release`."""

    __slots__ = ("_pool", "backend", "epoch")

    def __init__(self, backend: Backend, pool: Pool) -> None:
        self.backend = backend
        self._pool: Pool | None = pool  # None: released
        self.epoch = backend.epoch  # of the circuit, when this began

    def release(self, outcome: Outcome, code: int = 0, seconds: float = 0.0, first: float = -1.0) -> None:
        """Give the backend back; `code` is the HTTP status (0 for tcp), `seconds` how long it took.

        `first` is how long its first byte took, which is what its latency is: a long download says nothing about it.

        An http failure before any status passes a code that is not 0 (-1, say): failures look no further.

        Hot path, paid for by tests/bench/pick_cost.py: everything is inlined.
        """
        pool = self._pool
        if pool is None:
            raise RuntimeError(f"released twice: {self!r}")
        self._pool = None
        backend = self.backend
        backend.active -= 1
        if outcome is _OK:
            if code:
                backend.requests[code // 100] += 1
                if first < 0.0:
                    first = seconds
                latency = backend.latency
                backend.latency = first if latency is None else latency + ALPHA * (first - latency)
                histogram = backend.duration
                histogram.counts[bisect_left(BUCKETS, seconds)] += 1
                histogram.total += seconds
            else:
                backend.tcp_ok += 1
        elif outcome <= _LAST_FAILURE:
            backend.failures[outcome.reason] += 1
            if not code:
                backend.tcp_error += 1
        if pool.on_released:
            for tell in pool.on_released:
                tell(backend)
        if pool.guard is not None:
            # It may change the limit, and have the members sorted anew: behind the hooks, before anybody gets the place.
            pool.guard.observe(backend, outcome, code, self.epoch)
        if pool.on_finished and outcome <= _LAST_FAILURE:
            failed = outcome is not _OK or code >= 500
            now = pool.seconds()
            for learn in pool.on_finished:
                learn(backend, first if first >= 0.0 else seconds, failed, now)
        if pool.full:
            pool.made_room(backend)
        if _OK < outcome <= _LAST_UNREACHED:
            pool.suspect(backend)  # last: it sorts the members anew

    @property
    def is_open(self) -> bool:
        return self._pool is not None

    def __repr__(self) -> str:
        return f"<Lease of {self.backend!r}{', released' if self._pool is None else ''}>"
