"""Whatever clients and backends do on the layer 7 road, in whatever order, its promises hold."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from tests.http.chaos import Chaos

STEPS = st.lists(st.tuples(st.integers(0, 14), st.integers(1, 5000)), max_size=120)
CALM = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


class ExchangeProperties(TestCase):
    @CALM
    @given(st.integers(0, 2**32), STEPS)
    def test_whatever_happens(self, seed: int, steps: list[tuple[int, int]]) -> None:
        """Each request is answered once at most, in order, with its own bytes; nothing hangs; everything is counted."""
        chaos = Chaos(seed)
        for kind, size in steps:
            chaos.step(kind, size)
        chaos.check()

    @CALM
    @given(st.integers(0, 2**32), STEPS)
    def test_whatever_has_happened(self, seed: int, steps: list[tuple[int, int]]) -> None:
        """The same where everybody behaves in the end: what can still be answered then is, and all is over."""
        chaos = Chaos(seed)
        for kind, size in steps:
            chaos.step(kind, size)
        chaos.heal()
        chaos.check()
