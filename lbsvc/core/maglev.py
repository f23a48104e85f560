"""A table from keys to backends that changes little when they change: Maglev hashing.

Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each
member has a permutation of all places of the table, made of its name alone: offset, offset + step, offset + 2 step, …
modulo a prime. They take turns, and in its turn each takes the first place of its permutation that is still free, until
none is. When one leaves, its places go to the others, and only few others change hands: about 3 in 1000 where ten
backends become nine (tests/properties/test_hash_properties.py holds it to 2 in 100).

Weights: a member of weight w has its k-th turn at time k / w, so the places lie by weight, each backend's within one or
so of its share, and each has one at least. Members of one weight take their turns together, in the order given. Callers
sort the members by name, so that the table does not depend on the order of a configuration.

Costs (Python 3.11): 20 to 25 ms from 10 to 1000 members, 40 by the plain way. Most of the work are the last places, for
each of which thousands of taken ones are looked at; the end is therefore searched in C, by strides over a map of bytes.
Called by core/hashed.py. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from lbsvc.core.hashing import numbers

#: Places of a table. A prime, so that every step walks through all of them.
SIZE: Final = 65537

#: So many last places are searched by strides, in a map that is laid out so many times one after the other.
LAST: Final = 4096
COPIES: Final = 16
#: Places that one stride looks at, at most.
STRIDE: Final = 64


class Permutation(NamedTuple):
    """The order in which a member wants the places."""

    offset: int
    step: int


def permutation(identity: bytes) -> Permutation:
    """The order of the member with this name."""
    first, second = numbers(b"maglev\0" + identity, 2)
    return Permutation(first % SIZE, second % (SIZE - 1) + 1)


def turns(weights: Sequence[int]) -> list[int]:
    """Whose turn it is, for each place of a table: indexes of `weights`, which are above 0."""
    classes: dict[int, list[int]] = {}
    for index, weight in enumerate(weights):
        classes.setdefault(weight, []).append(index)
    if len(classes) == 1:
        everybody = range(len(weights))
        return (list(everybody) * (SIZE // len(everybody) + 1))[:SIZE]
    total = sum(weights)
    times: list[float] = []
    owners: list[list[int]] = []
    for weight, members in sorted(classes.items(), reverse=True):
        # In the time SIZE / total every class has had its share of turns; the first turn is at 0, hence one more, and
        # another for what rounding may take.
        count = SIZE * weight // total + 2
        times += [turn / weight for turn in range(count)]
        owners += [members] * count
    found: list[int] = []
    for place in sorted(range(len(times)), key=times.__getitem__):
        found += owners[place]
        if len(found) >= SIZE:
            break
    return found[:SIZE]


def fill(permutations: Sequence[Permutation], turns: Sequence[int]) -> list[int]:
    """The table: for each place the index of the member that holds it. `turns` has SIZE entries."""
    places = [each.offset for each in permutations]
    steps = [each.step for each in permutations]
    table = [-1] * SIZE
    for index in turns[: SIZE - LAST]:
        place = places[index]
        while table[place] >= 0:
            place = (place + steps[index]) % SIZE
        table[place] = index
        places[index] = place
    taken = bytearray(index >= 0 for index in table) * COPIES
    mark = bytes([1]) * COPIES
    for index in turns[SIZE - LAST :]:
        place = _next_free(taken, places[index], steps[index])
        taken[place::SIZE] = mark
        table[place] = index
        places[index] = place
    return table


def _next_free(taken: bytearray, place: int, step: int) -> int:
    """The first free place of a walk. `taken` is the map of the table, laid out COPIES times."""
    while True:
        seen = taken[place : place + STRIDE * step : step]
        found = seen.find(0)
        if found >= 0:
            return (place + found * step) % SIZE
        place = (place + len(seen) * step) % SIZE
