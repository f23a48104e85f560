"""Which of several choices is next, each as often as its weight says: a route's `split`, a canary by weight.

Promises: any run of as many choices as the sum of the weights holds each choice exactly as often as its weight, as evenly
spaced as may be (95:5 is one in twenty, not five in a row); a weight of 0 is never chosen; the same order from each start.
Called by the road once for each request of such a route: O(number of choices), which are pools and few. Pure.

How: nginx's smooth counters (add each weight, take the greatest, subtract the sum from it). core/rotation.py says why
backends are not chosen this way: counters do not outlive changes of the weights well. A split's never change: one with other
weights is another, and one with the same may `go_on` where its predecessor was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Split(Generic[T]):
    """Choices by weight. At least one weight is above 0, and none below."""

    __slots__ = ("_choices", "_counters", "_total", "_weights")

    def __init__(self, choices: Sequence[tuple[T, int]]) -> None:
        if any(weight < 0 for _, weight in choices):
            raise ValueError("a weight below 0")
        taken = [(choice, weight) for choice, weight in choices if weight]
        if not taken:
            raise ValueError("no weight above 0")
        self._choices = [choice for choice, _ in taken]
        self._weights = [weight for _, weight in taken]
        self._counters = [0] * len(taken)
        self._total = sum(self._weights)

    def choose(self) -> T:
        """The next one."""
        counters = self._counters
        best = most = -1
        for place, weight in enumerate(self._weights):
            counters[place] = counter = counters[place] + weight
            # The greatest is never below 1: the counters add up to the sum of the weights here.
            if counter > most:
                best, most = place, counter
        counters[best] -= self._total
        return self._choices[best]

    @property
    def choices(self) -> list[T]:
        """All that may be chosen."""
        return list(self._choices)

    def go_on(self, former: Split[Any]) -> None:
        """Begin where `former`, which has the same weights, has come to."""
        if former._weights == self._weights:
            self._counters = list(former._counters)

    def __repr__(self) -> str:
        parts = ", ".join(f"{choice}: {weight}" for choice, weight in zip(self._choices, self._weights, strict=True))
        return f"<Split {parts}>"
