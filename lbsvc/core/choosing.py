"""Who gets this request, where there is more to it than whose turn it is: affinity, a key, room, a queue.

Promises: a client that sticks to a backend gets it while it may serve it, and a new one that will stick to one begins where
core/homes.py says, if the pool asks for that, as long as there is room; nobody takes what those who wait in the pool's
queue can use; a backend that has been tried comes only after the others. Called by both roads for pools that have any of
these; plain pools are asked directly. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from lbsvc.core.backend import Backend
from lbsvc.core.lease import Lease
from lbsvc.core.pool import Pool


def find_lease(
    pool: Pool,
    tried: Collection[Backend],
    key: int | None,
    preferred: Backend | None,
    is_next: bool,
    waits_for_home: bool = False,
    client: str | None = None,
) -> Lease | None:
    """A lease, or None: then `must_wait` tells whether there will be one. `is_next`: it is this one's turn in the queue.

    `waits_for_home`: where the backend that its client belongs to has no room just now, that is worth waiting for. `client`:
    as what a pool that sticks by address knows this one (core/clients.py).
    """
    if preferred is not None and preferred not in tried:
        lease = pool.take(preferred)
        if lease is not None:
            return lease
        if waits_for_home and preferred.circuit == "closed" and pool.can_serve(preferred):
            return None  # a half-open one has no room for other reasons: that is not worth waiting for
    if len(pool.queue) and not is_next and not tried and not pool.has_spare_room:
        return None  # others were here before
    if client is not None and key is None and pool.homes is not None:
        home = pool.homes.find(client, tried)
        lease = pool.take(home) if home is not None else None
        if lease is not None:
            return lease
    lease = pool.pick(tried, key)
    if lease is None and tried:
        lease = pool.pick((), key)
    return lease


def must_wait(pool: Pool, preferred: Backend | None = None, tried: Collection[Backend] = ()) -> bool:
    """After `find_lease` has found nothing: somebody serves, or would serve this client, but has no room just now.

    Not where all who could are being tried after a failure (half-open): whoever is not one of the trials is told at once.
    Nor for one who serves its own clients alone (drain, a weight of 0), unless this is one of them.
    """
    if pool.is_busy:
        return True
    return (
        preferred is not None
        and preferred in pool.full
        and preferred not in tried
        and preferred.circuit == "closed"
        and pool.can_serve(preferred)
    )


def reason_for_nobody(pool: Pool) -> str:
    """Why there is nobody at all, in the words of errors.REASONS."""
    is_circuit = any(backend.circuit != "closed" and backend.health != "down" for backend in pool.backends)
    return "circuit_open" if is_circuit else "no_backend"
