"""Questions to several: over when all have answered, are gone, or had their time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.errors import Mistake
from lbsvc.workers.rounds import Rounds


class RoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rounds = Rounds(self.clock)
        self.over: list[tuple[list[str], set[int]]] = []

    def heard(self, mistakes: list[Mistake], missing: set[int]) -> None:
        self.over.append(([each.message for each in mistakes], missing))

    def test_all_answer(self) -> None:
        """It is over with the last answer, and what all of them have said is told."""
        number = self.rounds.begin([1, 2], 5.0, self.heard)
        self.rounds.answer(number, 1, [Mistake("", 0, 0, "", "no")])
        self.rounds.answer(number, 1)
        self.assertEqual(self.over, [])
        self.rounds.answer(number, 2)
        self.assertEqual((self.over, self.clock.getDelayedCalls()), ([(["no"], set())], []))

    def test_late(self) -> None:
        """Who has not answered in time is named; what comes later is not heard, nor what nobody has asked for."""
        number = self.rounds.begin([1, 2, 3], 5.0, self.heard)
        self.rounds.answer(number, 2)
        self.clock.advance(5.0)
        self.assertEqual(self.over, [([], {1, 3})])
        self.rounds.answer(number, 1)
        self.rounds.answer(99, 1)
        self.rounds.answer(0, 1)
        self.assertEqual(len(self.over), 1)

    def test_gone(self) -> None:
        """Who is gone is not waited for, in any round that there is; with nobody to ask it is over at once."""
        self.rounds.begin([1, 2], 5.0, self.heard)
        second = self.rounds.begin([2], 5.0, self.heard)
        self.rounds.leave(2)
        self.assertEqual(len(self.over), 1)
        self.rounds.leave(1)
        self.rounds.begin([], 5.0, self.heard)
        self.rounds.begin_again(second, [], 5.0, self.heard)
        self.assertEqual((self.over, self.clock.getDelayedCalls()), ([([], set())] * 4, []))

    def test_stopped(self) -> None:
        """After a stop no timer is left and nobody is told anything."""
        number = self.rounds.begin([1], 5.0, self.heard)
        self.rounds.stop()
        self.rounds.answer(number, 1)
        self.clock.advance(9.0)
        self.assertEqual((self.over, self.clock.getDelayedCalls()), ([], []))

    @given(st.lists(st.tuples(st.sampled_from(["answer", "leave", "wait"]), st.integers(1, 4), st.integers(1, 3))))
    def test_once(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever comes in whatever order, each round is over once, and never before its last has answered or gone."""
        clock = Clock()
        rounds = Rounds(clock)
        counts = {1: 0, 2: 0, 3: 0}
        missing = {number: {1, 2, 3, 4} for number in counts}

        def over(number: int, left: set[int]) -> None:
            counts[number] += 1
            self.assertEqual(left, missing[number])

        for number in counts:
            rounds.begin([1, 2, 3, 4], 5.0, lambda _, left, number=number: over(number, left))  # type: ignore[misc]
        for step, member, number in steps:
            if step == "answer":
                missing[number].discard(member)
                rounds.answer(number, member)
            elif step == "leave":
                for each in missing.values():
                    each.discard(member)
                rounds.leave(member)
            else:
                clock.advance(1.0)
        clock.advance(5.0)
        self.assertEqual((list(counts.values()), clock.getDelayedCalls()), ([1, 1, 1], []))
