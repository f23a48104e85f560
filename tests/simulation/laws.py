"""The rules of who may serve, worked out from what is written on the backends: plain, slow, and without the pool's books.

Promises: nothing here asks tiers, pickers' books or `Pool.full`; each answer is worked out anew. Asked by the referee.
Sources: contract.md ("Behaviour that is promised", "Settled details") and the docstrings of core/tiers.py and the pickers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from lbsvc.core.backend import Backend
from lbsvc.core.hashed import ROWS, ConsistentHash, IpHash
from lbsvc.core.loads import LeastConnections, Levels
from lbsvc.core.pool import Pool

if TYPE_CHECKING:
    from tests.simulation.visits import Visit
    from tests.simulation.world import World

#: Who is of this rank or above serves only where there is nobody else.
LAST: Final = 4
#: Sets of members of which the rows of ip_hash are remembered.
_MEMBERS: Final = 4


def is_panic(pool: Pool) -> bool:
    """Are there so few healthy ones that health is ignored? Strictly below the share, and never over what people set."""
    if not pool.panic:
        return False
    asked = [each for each in pool.backends if each.state == "ready" and each.weight and each.host]
    healthy = [each for each in asked if each.health in ("up", "unknown") and not each.is_ejected]
    return len(healthy) < pool.panic * len(asked)


def rank(backend: Backend, pool: Pool) -> int | None:
    """Who serves before whom: up, backups, not known to be up, their backups, last resort, its backups; None: nobody's."""
    if backend.state != "ready" or not backend.weight or not backend.host or backend.circuit == "open":
        return None
    later = 1 if backend.backup else 0
    if pool.panic and is_panic(pool):
        return later
    if backend.health in ("down", "flapping"):
        has_passed = backend.last_check is not None and backend.last_check[0]
        return LAST + later if has_passed else None
    if backend.is_ejected:
        return LAST + later
    return later if backend.health == "up" and not backend.is_suspect else 2 + later


def is_home(backend: Backend, pool: Pool) -> bool:
    """May a client that was there before come back? Drain and a weight of nothing are for others."""
    if backend.state == "maint" or backend.is_leaving or not backend.host or backend.circuit == "open":
        return False
    if backend.health in ("down", "flapping") or backend.is_ejected or backend.is_suspect:
        return False
    if backend.health == "up" or backend.state == "drain":
        return True
    # Not known to be up: not where others are.
    ranks = [found for each in pool.backends if (found := rank(each, pool)) is not None]
    return not ranks or rank(backend, pool) == min(ranks)


def prospects(pool: Pool, tried: Collection[Backend] = ()) -> tuple[list[Backend], bool]:
    """Who would take one more that has tried these and belongs nowhere; and whether it is worth waiting for somebody.

    The best serve; below them only where none of the best is merely busy, and the last resort only where there is nobody
    else. Who is on trial (half-open) and full is not waited for.
    """
    ranks: dict[int, list[Backend]] = {}
    for each in pool.backends:
        found = rank(each, pool)
        if found is not None and each not in tried:
            ranks.setdefault(found, []).append(each)
    if not ranks:
        return [], False
    best = min(ranks)
    first = ranks.pop(best)
    below = [each for found, members in ranks.items() if found < LAST or best >= LAST for each in members]
    free = [each for each in first if each.active < each.limit]
    if not any(each.active >= each.limit and each.circuit == "closed" for each in first):
        free = free or [each for each in below if each.active < each.limit]
    awaited = any(each.active >= each.limit and each.circuit == "closed" for each in (*first, *below))
    return free, awaited


def broken_by_picker(pool: Pool, visit: Visit, backend: Backend, rows: dict[tuple[object, ...], dict[int, str]]) -> str:
    """What the algorithm's own law has against this choice; "" for nothing. The lease counts in `active` already."""
    algorithm = pool.algorithm
    if algorithm in ("round_robin", "random", "adaptive") or visit.attempts:
        return ""
    mine = rank(backend, pool)
    tier = [each for each in pool.backends if rank(each, pool) == mine]
    # Who was at its limit before this lease.
    free = [each for each in tier if each.active - (each is backend) < each.limit]
    load = {each: (each.active - (each is backend)) / each.effective for each in free}
    if algorithm == "least_connections":
        least = min(load.values())
        return f"{load[backend]} a weight, and the least is {least}" if load[backend] > least else ""
    if algorithm == "two_choices":
        most = max(load.values())
        others = [each for each in free if each is not backend]
        is_fullest = load[backend] == most and all(load[each] < most for each in others)
        return "it is the fullest" if others and is_fullest else ""
    if algorithm == "ip_hash" and len(free) == len(tier):
        members = tuple((each.name, each.effective) for each in tier)
        if members not in rows and len(rows) >= _MEMBERS:
            del rows[next(iter(rows))]
        known = rows.setdefault(members, {}).setdefault(visit.client.key % ROWS, backend.name)
        return f"the same key went to {known}" if known != backend.name else ""
    picker = pool.picker
    if isinstance(picker, ConsistentHash) and len(free) == len(tier) and not picker._is_stale:
        everything = sum(each.active for each in tier) - 1
        weights = sum(each.effective for each in tier)
        bound = 5 * (everything + 1) * backend.effective
        is_above = (backend.active - 1) * 4 * weights >= bound
        return f"above its bound, {backend.active - 1} of {everything}" if is_above else ""
    return ""


def sizes(world: World, most_clients: int) -> dict[str, tuple[int, int]]:
    """Whatever is remembered: how much it is, and how much it may be."""
    pool = world.pool
    members = len(pool.backends)
    here = members + len(pool.leaving)
    found = {
        "timers": (len(world.clock.calls), 8 * here + 20),
        "suspicions and steps": (len(pool.on_members), 2),
        "probers": (len(world.checker._probers), members),
    }
    if pool.guard is not None:
        found["watches"] = len(pool.guard._watched), members
        found["ejected"] = len(pool.guard._ejected), members
    placement = world.upstreams.placement
    if placement is not None and placement.addresses is not None:
        found["addresses"] = len(placement.addresses), min(most_clients, len(world.clients))
    if placement is not None and placement.cookies is not None:
        found["cookies"] = len(placement.cookies._ids), members
    if world.limiter is not None:
        found["buckets"] = len(world.limiter), len(world.clients)
    for tier in pool._tiers:
        picker = tier.picker
        if isinstance(picker, LeastConnections):
            books = picker._books
            if isinstance(books, Levels):
                found["levels"] = len(books._levels), 2 * len(books._level) + 70
            else:
                found["loads"] = len(books._heap), 4 * len(books._latest) + 70
        elif isinstance(picker, ConsistentHash):
            found["hashed"] = len(picker._members), here + world.gone
        elif isinstance(picker, IpHash):
            found["circles"] = len(picker._members), here + world.gone
        elif hasattr(picker, "_known"):
            found["paces"] = len(picker._known), here + world.gone
    return found
