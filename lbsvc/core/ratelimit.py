"""How often each client may: a token bucket for each key of a `rate_limit` (lb-reference.yaml), exact and bounded.

Law. A bucket holds up to `burst` tokens and gains `rate` a second; who is let in takes one. So a key is let in at most
rate x t + burst times in any t seconds (while there is room, see below), and never refused while a whole token is there.
It is reckoned as GCRA (ITU-T I.371, annex A), which keeps one number for each bucket: when it is full again. Who is refused
takes nothing, so hammering neither helps nor harms. Numbers are whole and in units of which both a nanosecond and a token
have a whole number (a rate of 10 a minute is 1/6, not 0.1666…7): nothing is rounded but `now`, to its nanosecond, and
nothing drifts.

Memory. A bucket that is full again says nothing, and is forgotten: each `take` forgets up to two. At `most_keys` a new key
puts out one of those nearest to full, to within 1/64 of a bucket (the longest there of these): full ones first, whoever is
at its limit last. A key that is long is remembered by its digest. `take` costs the same whatever is remembered (3.11, two
shared cores: 1 µs for a known key, half of it to refuse, 2 µs for a new one, for the first as for the millionth), but for
the few ms in which Python rebuilds a large dict, after some ten thousand new keys. 65536 keys take 13 MiB.

What an attacker gains who has more than `most_keys` keys, all of which owe something: those that owe least count as full
again, so with some of them he is let in as often as he likes. Without the bound he would be let in most_keys x rate times a
second, which for the rates of lb-reference.yaml is more than a balancer can carry anyway; at slow rates (a few an hour) who
can have 65536 keys is not stopped. Nobody is ever refused for it, and clients at their limit stay there, unless all are.

Several processes that keep one limit together tell each other what they have let in, every T seconds (workers/tallies.py):
`taken` is what was let in here since it was asked for last, `charge` takes what was let in elsewhere, and may leave a bucket
in debt. Law for k of them, each of which knows all that was let in more than T ago: a key is let in at most
rate x t + k x burst + k x rate x T times in any t seconds, all of them together. In the long run that is the rate: who had
too much is refused until his debt is paid. Who stays with one process has all of it there; and since a charge counts from
the earliest moment that it may have been, what refilled meanwhile is not lost to who does not. A debt is at most `most`
tokens: by the law it is never above (k - 1) x burst + (k + 1) x rate x T; more could only come of news that come too late.

Keys: `client_key` makes them (str) from addresses; values of headers are bytes, so that no header names a client's bucket.
Called by the roads for listeners and routes: one limiter for each. `now` is in seconds of a clock that does not step back
(if it does, nobody gains). Pure.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Final

from lbsvc.core.clients import client_of
from lbsvc.core.networks import UNIX
from lbsvc.core.policies import RatePolicy

__all__ = ["RateLimiter", "client_key", "limiter_for"]

#: Keys that are remembered, unless told otherwise.
MOST_KEYS: Final = 65536
#: A key that is longer than this is remembered by its digest: strangers choose what stands in headers.
LONGEST_KEY: Final = 64
#: Buckets are sorted by when they are full again, into slots of this share of the time that a whole bucket takes to fill.
SLOTS: Final = 64
#: Buckets that a `take` may forget because they are full: one more than it may add, so that this keeps up.
SWEEP: Final = 2
#: Rates that come from a division are taken for the fraction that was meant, if it has a denominator up to this.
_SIMPLE: Final = 10**6
_SECOND: Final = 10**9  # in nanoseconds


@lru_cache(maxsize=4096)
def client_key(address: str) -> str:
    """The key of the one at `address`: IPv6 by its /64, IPv4-mapped as IPv4.

    All clients of unix sockets, which have no address, share the key "unix".
    """
    return client_of(address) or UNIX


def limiter_for(policy: RatePolicy | None, former: RateLimiter | None) -> RateLimiter | None:
    """What keeps `policy`: `former`, with its buckets, where that does already."""
    if policy is None or (former is not None and former.policy == policy):
        return None if policy is None else former
    return RateLimiter(policy)


class RateLimiter:
    """The buckets of one `rate_limit`. Raises ValueError for a policy by which nobody is ever let in."""

    __slots__ = (
        "_capacity",
        "_full_at",
        "_nanosecond",
        "_order",
        "_slots",
        "_token",
        "_width",
        "forgotten_early",
        "most_keys",
        "policy",
        "rate",
        "taken",
    )

    def __init__(self, policy: RatePolicy, most_keys: int = MOST_KEYS) -> None:
        if not 0 < policy.rate < math.inf or policy.burst < 1 or most_keys < 1:
            raise ValueError(f"{policy} with {most_keys} keys lets nobody in")
        self.policy = policy
        self.most_keys = most_keys
        #: tokens a second, as they are reckoned
        self.rate = _fraction_of(policy.rate)
        #: buckets that were forgotten before they were full, for want of room
        self.forgotten_early = 0
        #: what was taken of each key since somebody asked last, of `most_keys` keys at most; None: nobody asks
        self.taken: dict[str | bytes, int] | None = None
        # All times below are in the unit of which a nanosecond has `_nanosecond` and a token's time has `_token`.
        self._nanosecond = self.rate.numerator
        self._token = _SECOND * self.rate.denominator
        self._capacity = policy.burst * self._token
        self._width = max(1, self._capacity // SLOTS)
        self._full_at: dict[str | bytes, int] = {}
        #: number of a slot -> the keys whose `_full_at` lies in it (_full_at // _width), as they came
        self._slots: dict[int, OrderedDict[str | bytes, None]] = {}
        self._order: list[int] = []  # a heap of the keys of `_slots`

    def take(self, key: str | bytes, now: float) -> float:
        """Take a token of `key`: 0.0 if there was one, else the seconds until there is (callers round up)."""
        if len(key) > LONGEST_KEY:
            key = _digest(key)
        present = round(now * 1e9) * self._nanosecond
        order = self._order
        if order and present >= (order[0] + 1) * self._width:
            self._sweep(present)
        known = self._full_at.get(key)
        begin = present if known is None or known < present else known
        full_at = begin + self._token
        missing = full_at - present - self._capacity
        if missing > 0:
            return -(-missing // self._nanosecond) / _SECOND
        self._remember(key, known, full_at, present)
        taken = self.taken
        if taken is not None and (key in taken or len(taken) < self.most_keys):
            taken[key] = taken.get(key, 0) + 1
        return 0.0

    def charge(self, key: str | bytes, tokens: int, since: float, now: float, most: int) -> None:
        """So many were let in elsewhere, not before `since`, under `key` (of `taken`); it owes `most` tokens at most."""
        present = round(now * 1e9) * self._nanosecond
        if self._order and present >= (self._order[0] + 1) * self._width:
            self._sweep(present)
        known = self._full_at.get(key)
        begin = round(since * 1e9) * self._nanosecond
        if known is not None and known > begin:
            begin = known
        full_at = max(begin, min(begin + tokens * self._token, present + self._capacity + most * self._token))
        if full_at > present:
            self._remember(key, known, full_at, present)

    def _remember(self, key: str | bytes, known: int | None, full_at: int, present: int) -> None:
        slot = full_at // self._width
        if known is None:
            if len(self._full_at) >= self.most_keys:
                self._make_room(present)
        elif known // self._width == slot:
            self._full_at[key] = full_at
            return
        else:
            del self._slots[known // self._width][key]  # an empty slot stays until its turn
        self._full_at[key] = full_at
        keys = self._slots.get(slot)
        if keys is None:
            keys = self._slots[slot] = OrderedDict()
            heappush(self._order, slot)
        keys[key] = None

    def _sweep(self, present: int) -> None:
        """Forget some of those in slots that are wholly past."""
        for _ in range(SWEEP):
            if not self._order or present < (self._order[0] + 1) * self._width:
                return
            keys = self._slots[self._order[0]]
            if keys:
                del self._full_at[keys.popitem(last=False)[0]]
            if not keys:
                del self._slots[heappop(self._order)]

    def _make_room(self, present: int) -> None:
        """Forget one of those nearest to full. Somebody is remembered."""
        while not (keys := self._slots[self._order[0]]):
            del self._slots[heappop(self._order)]
        key, _ = keys.popitem(last=False)
        self.forgotten_early += self._full_at.pop(key) > present

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def __repr__(self) -> str:
        return f"<RateLimiter {self.policy.rate:g}/s, burst {self.policy.burst}, {len(self)} keys>"


def _fraction_of(rate: float) -> Fraction:
    """The simple fraction that this float is nearest to (1/6 where 10/60 was reckoned), else the float itself."""
    exact = Fraction(rate)
    simple = exact.limit_denominator(_SIMPLE)
    return simple if simple > 0 and float(simple) == rate else exact


def _digest(key: str | bytes) -> str | bytes:
    """A short key in the place of a long one, of its kind; no two of those that anybody will find have the same."""
    if isinstance(key, bytes):
        return blake2b(key, digest_size=32, person=b"lbsvc rate").digest()
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32, person=b"lbsvc rate").hexdigest()
