"""Backends that go up and down: when they are held, for how long, and what lets them go."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.flapping import Flapping
from lbsvc.core.policies import FlappingPolicy

POLICY = FlappingPolicy(changes=5, window=60.0, hold=60.0)


def told(flapping: Flapping, *times: float) -> list[bool]:
    return [flapping.changed(now) for now in times]


class FlappingTests(TestCase):
    def test_cb_5_the_fifth(self) -> None:
        """Four changes in 60 s are nothing, the fifth holds the backend down for 60 s from then (CB-5)."""
        flapping = Flapping(POLICY)
        self.assertEqual(told(flapping, 100, 110, 120, 130), [False] * 4)
        self.assertFalse(flapping.is_held(130))
        self.assertEqual(told(flapping, 140), [True])
        self.assertEqual(flapping.held_until, 200)
        self.assertTrue(flapping.is_held(199.999))

    def test_cb_5_the_end(self) -> None:
        """CB-5: at the very moment at which the hold ends the backend is free, and calm ones stay so."""
        flapping = Flapping(POLICY)
        told(flapping, 0, 1, 2, 3, 4)
        self.assertFalse(flapping.is_held(64))
        self.assertEqual(told(flapping, 64, 100, 130, 160, 190, 220), [False] * 6)

    def test_cb_5_slow_changes(self) -> None:
        """CB-5: changes of which never five are within 60 s go on for ever without a hold."""
        self.assertEqual(told(Flapping(POLICY), *(n * 15.001 for n in range(200))), [False] * 200)

    def test_window_ends_count(self) -> None:
        """Five changes of which the last is 60 s after the first are within 60 s."""
        self.assertEqual(told(Flapping(POLICY), *(n * 15.0 for n in range(5))), [False] * 4 + [True])

    def test_goes_on_flapping(self) -> None:
        """A backend that keeps flapping is held all the while, and until it has been quieter for `hold` seconds."""
        flapping = Flapping(POLICY)
        answers = told(flapping, *(n * 5.0 for n in range(100)))
        self.assertEqual(answers, [False] * 4 + [True] * 96)
        self.assertEqual(flapping.held_until, 99 * 5.0 + 60)
        for second in range(20, 555):
            self.assertTrue(flapping.is_held(second), second)
        self.assertFalse(flapping.is_held(555))

    def test_a_few_changes_while_held(self) -> None:
        """Changes while it is held that are fewer than five in 60 s do not make it any longer."""
        flapping = Flapping(POLICY)
        told(flapping, 0, 1, 2, 3, 4)
        self.assertEqual(told(flapping, 63), [True])  # the first of the last five is 62 s ago
        self.assertEqual(flapping.held_until, 64)
        self.assertEqual(told(flapping, 65), [False])

    def test_short_hold(self) -> None:
        """Where the hold is shorter than the window, the next change within the window may hold it again."""
        flapping = Flapping(FlappingPolicy(changes=3, window=60.0, hold=5.0))
        self.assertEqual(told(flapping, 0, 1, 2), [False, False, True])
        self.assertFalse(flapping.is_held(7))
        self.assertEqual(told(flapping, 10), [True])
        self.assertEqual(flapping.held_until, 15)
        self.assertEqual(told(flapping, 90), [False])

    def test_one_is_enough(self) -> None:
        """With `changes: 1` each change holds."""
        flapping = Flapping(FlappingPolicy(changes=1, window=1.0, hold=3.0))
        self.assertEqual(told(flapping, 10, 20), [True, True])
        self.assertEqual(flapping.held_until, 23)

    def test_another_policy(self) -> None:
        """A policy that is set decides from the next change on; a hold that has begun is not cut short."""
        flapping = Flapping(POLICY)
        told(flapping, 0, 1, 2, 3, 4)
        flapping.policy = FlappingPolicy(changes=2, window=10.0, hold=1.0)
        self.assertEqual(told(flapping, 5), [True])
        self.assertEqual(flapping.held_until, 64)
        self.assertEqual(told(flapping, 70, 79), [False, True])
        self.assertEqual(flapping.held_until, 80)

    def test_forget(self) -> None:
        """What has been forgotten counts no more."""
        flapping = Flapping(POLICY)
        told(flapping, 0, 1, 2, 3, 4)
        flapping.forget()
        self.assertFalse(flapping.is_held(5))
        self.assertEqual(told(flapping, 6, 7, 8, 9, 10), [False] * 4 + [True])

    def test_memory(self) -> None:
        """However often it changes, only so many times are remembered as decide anything."""
        flapping = Flapping(POLICY)
        told(flapping, *map(float, range(10_000)))
        self.assertEqual(len(flapping._changes), 5)

    def test_shown(self) -> None:
        """It shows what it has seen."""
        flapping = Flapping(POLICY)
        told(flapping, 0, 1)
        self.assertEqual(repr(flapping), "<Flapping 2 changes>")
        told(flapping, 2, 3, 4)
        self.assertEqual(repr(flapping), "<Flapping 5 changes, held until 64>")
