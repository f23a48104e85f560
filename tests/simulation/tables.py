"""The tables of consistent_hash, remembered: making them anew would be most of a simulated day's work.

Promises: the same tables, since they follow from names and weights alone (core/maglev.py). For tests, which put it in the
place of the product's function by `patch`, so that nothing of it is left after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.core import hashed
from lbsvc.core.maglev import Permutation, fill, turns


@lru_cache(maxsize=64)
def _turns(weights: tuple[int, ...]) -> list[int]:
    return turns(weights)


@lru_cache(maxsize=64)
def _fill(permutations: tuple[Permutation, ...], order: tuple[int, ...]) -> list[int]:
    return fill(permutations, order)


def remember(case: SynchronousTestCase) -> None:
    """From here to the end of this test no table is made twice."""

    def remembered(permutations: Sequence[Permutation], order: Sequence[int]) -> list[int]:
        return _fill(tuple(permutations), tuple(order))

    _turns.cache_clear()
    _fill.cache_clear()
    case.addCleanup(_fill.cache_clear)
    case.addCleanup(_turns.cache_clear)
    case.patch(hashed, "turns", lambda weights: _turns(tuple(weights)))
    case.patch(hashed, "fill", remembered)
