"""Who looks at every decision of the simulation, and stops it where one is against the rules.

Promises: knows the rules from contract.md and from the docstrings of core/, and works them out anew (laws.py), slowly and
plainly, from what is written on the backends; `Broken` says what was wrong, at what time, with what seed, and what had
happened before. Told by the world and by visits: each lease (`took`, `gives_back`), each refusal, each place in the queue,
each retry, what the guard says. Looks after each event (`look`), audits all books each simulated minute (`audit`), and at
the end (`final`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lbsvc.core.affinity import MOST_CLIENTS
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.ejection import most_ejected
from lbsvc.core.policies import RatePolicy
from tests.simulation.laws import LAST, broken_by_picker, is_home, prospects, rank, sizes

if TYPE_CHECKING:
    from tests.simulation.visits import Client, Visit
    from tests.simulation.world import World

#: What times may differ by, in seconds, since sums of them are rounded.
CLOSE: Final = 1e-6
#: Legal changes of a circuit.
_LEGAL: Final = {
    ("closed", "open"),
    ("open", "half_open"),
    ("half_open", "open"),
    ("half_open", "closed"),
}


class Broken(AssertionError):
    """A rule was broken."""


class Referee:
    """The books of one world, kept a second time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open: Counter[Backend] = Counter()  # leases
        self.taken = 0
        self.ended = 0
        self.counts: Counter[str] = Counter()  # by a backend's name, what its own counters say
        self.longest_queue = 0
        self.circuits: dict[Backend, str] = {}
        self.opened: dict[Backend, tuple[float, float]] = {}  # when, and for how long
        self.ejected: dict[Backend, tuple[float, float]] = {}
        self.failed: dict[Backend, float] = {}  # when last
        self._requests: Counter[int] = Counter()  # by second
        self._retries: Counter[int] = Counter()
        self._was_emptied = False
        self._rows: dict[tuple[object, ...], dict[int, str]] = {}  # of keys, by who the members are

    def demand(self, is_so: bool, words: str) -> None:
        """Raise Broken unless it is so. Dear words are for callers that have found something."""
        if not is_so:
            raise self.world.broken(words)

    # -- leases

    def took(self, visit: Visit, lease: Any) -> None:
        """This backend was given to this visit, which has just waited if it has a ticket."""
        world, backend = self.world, lease.backend
        pool = world.pool
        self.taken += 1
        self.open[backend] += 1
        if backend.active != self.open[backend]:
            raise world.broken(f"{backend!r} counts {backend.active} leases of {self.open[backend]}")
        if backend.active > backend.limit or backend.active > backend.most:
            raise world.broken(f"{backend!r} has more leases than its limit {backend.limit} of {backend.most}")
        if backend.is_leaving or backend.circuit == "open" or not backend.host or backend.state == "maint":
            raise world.broken(f"{backend!r} was picked: {backend.circuit}, leaving {backend.is_leaving}")
        sticks = backend is visit.preferred and is_home(backend, pool) and backend not in visit.tried
        if not sticks:
            self._check_rank(visit, backend)
            if len(pool.backends) > 1:
                words = broken_by_picker(pool, visit, backend, self._rows)
                if words:
                    raise world.broken(f"{backend!r} for {visit!r}: {words}")
        if len(pool.queue) or world.waiting:
            self._check_turn(visit, backend, sticks)
        home = visit.preferred
        if home is not None and home is not backend and not visit.keeps_home and home not in visit.tried:
            free = home.active < home.limit
            if is_home(home, pool) and (free or home.circuit == "closed"):
                raise world.broken(f"{visit!r} belongs to {home!r}, and was given {backend!r}")

    def _check_rank(self, visit: Visit, backend: Backend) -> None:
        """Nobody serves while somebody better could."""
        world = self.world
        pool = world.pool
        mine = rank(backend, pool)
        if mine is None or backend not in pool.backends:
            raise world.broken(f"{backend!r} was picked: {backend.health}, weight {backend.weight}")
        if mine == 0:
            return
        ranks = {each: found for each in pool.backends if (found := rank(each, pool)) is not None}
        best = min(ranks.values())
        for each, found in ranks.items():
            if found < LAST <= mine:
                raise world.broken(f"{backend!r} is of the last resort, and {each!r} is there")
            if found >= mine or each in visit.tried:
                continue
            is_full = each.active >= each.limit
            # A primary that is only busy is waited for; one that is on trial is not to be had.
            if not is_full or (found == best and each.circuit == "closed"):
                raise world.broken(f"{backend!r} of rank {mine} was picked before {each!r} of rank {found}")

    def _check_turn(self, visit: Visit, backend: Backend, sticks: bool) -> None:
        """First come, first served: only who cannot use a place is passed over."""
        if visit.tried or sticks or visit.keeps_home:
            return
        for other in self.world.waiting.values():
            if other is visit:
                return
            if not self._waits_for_home(other):
                raise self.world.broken(f"{visit!r} got {backend!r} before {other!r}, who waits for longer")

    def _waits_for_home(self, visit: Visit) -> bool:
        home = visit.preferred
        return (
            home is not None
            and home not in visit.tried
            and is_home(home, self.world.pool)
            and home.circuit == "closed"
            and home.active >= home.limit
        )

    def gives_back(self, backend: Backend, outcome: Outcome, code: int) -> None:
        """Its lease is about to be released."""
        self.ended += 1
        self.open[backend] -= 1
        if not self.open[backend]:
            del self.open[backend]
        if outcome is Outcome.OK or outcome <= Outcome.PROTOCOL:
            self.counts[backend.name] += 1
        if outcome <= Outcome.PROTOCOL and (outcome is not Outcome.OK or code >= 500):
            self.failed[backend] = self.world.now
        self.world.stamp(f"{backend.name} {outcome.reason} {code}")

    # -- refusals, queue

    def refused(self, visit: Visit) -> None:
        """It is told that there is nobody."""
        free, awaited = prospects(self.world.pool)
        if free or (awaited and self.world.upstreams.placement is not None) or self._waits_for_home(visit):
            raise self.world.broken(f"{visit!r} was refused, and there is {free}, worth waiting for: {awaited}")

    def entered(self, visit: Visit) -> None:
        """It waits."""
        pool = self.world.pool
        self.longest_queue = max(self.longest_queue, len(pool.queue))
        if len(pool.queue) > pool.queue.size:
            raise self.world.broken(f"{pool.queue!r} is too long")
        if visit.tried and not self._waits_for_home(visit):
            free, _ = prospects(pool, visit.tried)
            if free:
                raise self.world.broken(f"{visit!r} waits, and {free[0]!r} has room, which it has not tried")

    def queue_full(self) -> None:
        """It may not even wait."""
        queue = self.world.pool.queue
        if len(queue) < queue.size:
            raise self.world.broken(f"{queue!r} has refused somebody")

    def look(self) -> None:
        """After each event: whoever waits does so for a reason."""
        world = self.world
        if not world.waiting:
            return
        pool = world.pool
        free, awaited = prospects(pool)
        if pool.has_room != bool(free) or pool.is_busy != awaited:
            raise world.broken(f"{free} have room, busy {awaited}: the pool says {pool.has_room}, {pool.is_busy}")
        for visit in world.waiting.values():
            if not self._waits_for_home(visit):
                if free:
                    raise world.broken(f"{visit!r} waits, and {free[0]!r} has room")
                if not awaited:
                    raise world.broken(f"{visit!r} waits for nobody")
            if world.now - visit.waits_since > visit.patience + CLOSE:
                raise world.broken(f"{visit!r} waits since {visit.waits_since}")

    # -- limits, retries

    def limited(self, client: Client, policy: RatePolicy, wait: float, now: float) -> None:
        """A client was let in (0) or has to wait so long: a plain bucket says the same."""
        tokens, since = client.tokens or (float(policy.burst), now)
        tokens = min(float(policy.burst), tokens + (now - since) * policy.rate)
        if abs(tokens - 1.0) > CLOSE and (tokens >= 1.0) != (wait == 0.0):
            raise self.world.broken(f"{client.address} has {tokens} tokens of {policy}, and was told {wait}")
        if wait and abs(wait - (1.0 - tokens) / policy.rate) > CLOSE:
            raise self.world.broken(f"{client.address} has {tokens} tokens of {policy}, and was told {wait}")
        client.tokens = (tokens if wait else tokens - 1.0), now

    def counted(self, now: float) -> None:
        """A request has come in."""
        self._requests[int(now)] += 1

    def asked_again(self, allowed: bool, now: float) -> None:
        """A retry was asked of the budget, which is of this second and the nine before."""
        second = int(now)
        for counts in (self._requests, self._retries):
            for old in [each for each in counts if each <= second - 10]:
                del counts[old]
        retries, requests = sum(self._retries.values()) + 1, sum(self._requests.values())
        share = self.world.settings.retry.budget
        if allowed != (retries <= max(10, share * requests)):
            raise self.world.broken(f"retry {retries} of {requests} requests: {allowed}")
        if allowed:
            self._retries[second] += 1

    # -- the guard, the members

    def guard_said(self, event: str, backend: Backend, fields: dict[str, Any]) -> None:
        """A circuit or an ejection has changed."""
        world, now = self.world, self.world.now
        kind, _, state = event.partition(".")
        if kind == "circuit":
            before = self.circuits.get(backend, "closed")
            is_reload = fields.get("reason") == "settings"
            if (before, state) not in _LEGAL and not (is_reload and before != "closed"):
                raise world.broken(f"{backend!r}: circuit {before} -> {state}")
            self.circuits[backend] = state
            if state == "open":
                self.opened[backend] = now, fields["seconds"]
            elif state == "half_open":
                since, seconds = self.opened.pop(backend)
                if now < max(since, self.failed.get(backend, since)) + seconds - CLOSE:
                    raise world.broken(f"{backend!r} is tried too soon, it was opened at {since}")
            else:
                self.opened.pop(backend, None)
            return
        if state == "ejected":
            policy = world.settings.passive_health
            self.ejected[backend] = now, fields["seconds"]
            if policy is None or len(self.ejected) > most_ejected(policy.max_ejected, len(world.pool.backends)):
                raise world.broken(f"{len(self.ejected)} are ejected")
            if not policy.eject - CLOSE <= fields["seconds"] <= 10 * policy.eject + CLOSE:
                raise world.broken(f"{backend!r} is ejected for {fields['seconds']} s")
            return
        since, seconds = self.ejected.pop(backend)
        if fields["reason"] == "time" and abs(now - since - seconds) > CLOSE:
            raise world.broken(f"{backend!r} was ejected at {since} for {seconds} s, and returns")

    def emptied(self, is_empty: bool) -> None:
        """The pool says that it has nobody, or somebody again."""
        self.world.note("empty" if is_empty else "available")
        self.demand(is_empty != self._was_emptied, f"it is told twice that the pool is empty: {is_empty}")
        self._was_emptied = is_empty

    def members_changed(self) -> None:
        """Other settings are in force: what was known of those that are gone is forgotten, as the guard does."""
        pool = self.world.pool
        members, everyone = set(pool.backends), set(pool.everyone)
        for known in (self.circuits, self.opened, self.ejected):
            for backend in [each for each in known if each not in members]:
                del known[backend]
        for backend in [each for each in self.failed if each not in everyone]:
            del self.failed[backend]
        names = {each.name for each in everyone}
        for name in [name for name in self.counts if name not in names]:
            del self.counts[name]
        if self.world.settings.circuit_breaker is None:
            self.circuits.clear()

    # -- audits

    def audit(self) -> None:
        """All books, once a simulated minute."""
        world, pool = self.world, self.world.pool
        everyone = pool.everyone
        active = {each: each.active for each in everyone if each.active}
        self.demand(active == dict(self.open), f"in use are {active}, and leases say {dict(self.open)}")
        full = {each for each in pool.backends if each.active >= each.limit}
        self.demand(pool.full == full, f"at their limit are {full}, and the pool says {pool.full}")
        free, awaited = prospects(pool)
        self.demand(pool.has_room == bool(free), f"{free} have room, and the pool says {pool.has_room}")
        self.demand(pool.is_busy == awaited, f"worth waiting for: {awaited}, and the pool says {pool.is_busy}")
        self.demand(not set(pool.leaving) & set(pool.backends), "a member is leaving")
        self.demand(all(each.is_leaving and each.active for each in pool.leaving), f"{pool.leaving} leave")
        queue = pool.queue
        self.demand(len(queue) == len(world.waiting), f"{queue!r}, and {len(world.waiting)} visits wait")
        self.demand(queue.entered == queue.served + queue.left + len(queue), repr(queue))
        self.demand(world.arrived == world.ends.total() + len(world.visits), "a visit is lost")
        self.demand(self.taken == self.ended + sum(self.open.values()), "a lease is lost")
        available = any(rank(each, pool) is not None for each in pool.backends)
        self.demand(available == pool.is_available == (not self._was_emptied), f"available: {available}")
        self._audit_states()
        self._audit_counts()
        for what, (size, most) in sizes(world, MOST_CLIENTS).items():
            self.demand(size <= most, f"{what}: {size} are remembered, {most} may be")

    def _audit_states(self) -> None:
        """Nobody stays in a state that should be over."""
        world, pool, now = self.world, self.world.pool, self.world.now
        for each in pool.backends:
            self.demand(each.circuit == self.circuits.get(each, "closed"), f"{each!r}: {each.circuit}")
            self.demand(each.is_ejected == (each in self.ejected), f"{each!r}: ejected {each.is_ejected}")
            if each.circuit == "open":
                since, seconds = self.opened[each]
                last = max(since, self.failed.get(each, since))
                self.demand(now <= last + seconds + CLOSE, f"{each!r} is open since {since}")
            if each.is_ejected:
                since, seconds = self.ejected[each]
                self.demand(now <= since + seconds + CLOSE, f"{each!r} is ejected since {since}")
            if each.ramped_from is not None:
                ramp = pool.ramp
                is_slow = ramp is not None and now <= each.ramped_from + ramp.duration + ramp.interval + CLOSE
                self.demand(is_slow, f"{each!r} starts slowly since {each.ramped_from}")
            prober = world.checker._probers.get(each)
            if prober is not None and each.health != "unknown":
                held = prober.flapping is not None and prober.flapping.is_held(now)
                found = prober.verdict.state
                # Who was down and is asked anew from the beginning stays down until there is an answer.
                expected = "flapping" if held else "down" if found == "unknown" else found
                self.demand(each.health == expected, f"{each!r} is {each.health}, its checks say {expected}")

    def _audit_counts(self) -> None:
        """What a backend has counted is what was given back."""
        found: Counter[str] = Counter()
        for each in self.world.pool.everyone:
            found[each.name] += sum(each.requests) + sum(each.failures.values())
        expected = {name: count for name, count in self.counts.items() if count}
        self.demand(
            {name: count for name, count in found.items() if count} == expected,
            f"counted were {dict(found)}, and it were {expected}",
        )

    def final(self) -> None:
        """Everybody has finished."""
        world, pool = self.world, self.world.pool
        self.audit()
        self.demand(
            not self.open and not pool.leaving and not len(pool.queue), f"left over: {self.open} {pool.leaving}"
        )
        self.demand(not len(world.counts), f"{len(world.counts)} clients have connections")
        self.demand(not world.waiting and not pool.full, "somebody waits")
