"""Ejection of one backend: what is counted, how long it lasts, when it is forgotten, and how many at one time."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.ejection import Ejection, most_ejected
from lbsvc.core.policies import EjectionPolicy


class CountingTests(TestCase):
    def test_hc_8_within_the_window(self) -> None:
        """HC-8: the fifth failure within ten seconds is one too many, four never are."""
        ejection = Ejection(EjectionPolicy())
        self.assertEqual([ejection.observe(now) for now in (0.0, 2.0, 4.0, 6.0, 9.9)], [False] * 4 + [True])

    def test_hc_8_outside_the_window(self) -> None:
        """HC-8: a failure that is ten seconds old does not count any more: one every 2.5 s goes on for ever."""
        ejection = Ejection(EjectionPolicy())
        self.assertFalse(any(ejection.observe(2.5 * n) for n in range(1000)))

    def test_hc_8_a_single_error(self) -> None:
        """HC-8: a single error ejects nobody, unless one is all that was asked for."""
        self.assertFalse(Ejection(EjectionPolicy()).observe(0.0))
        self.assertTrue(Ejection(EjectionPolicy(failures=1)).observe(0.0))

    def test_it_goes_on_asking(self) -> None:
        """A backend that could not be ejected asks again with each failure while there are enough in the window."""
        ejection = Ejection(EjectionPolicy(failures=3))
        self.assertEqual([ejection.observe(1.0 * n) for n in range(5)], [False, False, True, True, True])
        self.assertFalse(ejection.observe(13.5))

    def test_not_while_it_is_out(self) -> None:
        """Failures of an ejected backend do not count, neither then nor after its return."""
        ejection = Ejection(EjectionPolicy(failures=2, eject=1.0))
        ejection.observe(0.0)
        self.assertTrue(ejection.observe(0.0))
        ejection.eject(0.0)
        self.assertFalse(any(ejection.observe(0.5) for _ in range(10)))
        ejection.restore(1.0)
        self.assertEqual([ejection.observe(1.0), ejection.observe(1.0)], [False, True])


class LastingTests(TestCase):
    def eject(self, ejection: Ejection, now: float) -> float:
        """Eject it now, and let it come back when its time is over; how long that was."""
        seconds = ejection.eject(now)
        self.assertEqual(ejection.until, now + seconds)
        ejection.restore(now + seconds)
        return seconds

    def test_longer_each_time(self) -> None:
        """The n-th ejection lasts n times 30 s, and from the tenth on 300 s."""
        ejection = Ejection(EjectionPolicy())
        now, lasted = 0.0, []
        for _ in range(13):
            lasted.append(self.eject(ejection, now))
            now += lasted[-1] + 1.0
        self.assertEqual(lasted, [30.0 * n for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10)])

    def test_forgotten(self) -> None:
        """After a return it has to be good for as long as its last ejection lasted: then the next one is the first."""
        ejection = Ejection(EjectionPolicy())
        self.assertEqual(self.eject(ejection, 0.0), 30.0)  # back at 30
        self.assertEqual(self.eject(ejection, 59.9), 60.0)  # back at 119.9
        self.assertEqual(self.eject(ejection, 179.8), 90.0)  # back at 269.8
        self.assertEqual(self.eject(ejection, 360.0), 30.0)

    def test_an_early_return(self) -> None:
        """One that was let in again before its time has to be good from then on."""
        ejection = Ejection(EjectionPolicy())
        ejection.eject(0.0)
        ejection.restore(5.0)
        self.assertEqual(ejection.eject(34.0), 60.0)

    def test_exactly_as_long(self) -> None:
        """Exactly as long as the last ejection lasted is long enough to be forgotten."""
        ejection = Ejection(EjectionPolicy())
        self.eject(ejection, 0.0)
        self.assertEqual(self.eject(ejection, 60.0), 30.0)

    def test_repr(self) -> None:
        """The ejection in one line."""
        ejection = Ejection(EjectionPolicy())
        ejection.observe(0.0)
        self.assertEqual(repr(ejection), "<Ejection in, 1 failures, 0 times>")
        ejection.eject(0.0)
        self.assertEqual(repr(ejection), "<Ejection out, 0 failures, 1 times>")


class MostTests(TestCase):
    def test_a_share_rounded_down(self) -> None:
        """Half of five are two; exact products are not lost to binary fractions."""
        for share, members, most in ((0.5, 5, 2), (0.5, 4, 2), (0.29, 100, 29), (0.1, 30, 3), (1.0, 7, 7), (0.5, 3, 1)):
            self.assertEqual(most_ejected(share, members), most, (share, members))

    def test_at_least_one(self) -> None:
        """Where there is more than one member one may go, however small the share, but not at a share of nothing."""
        self.assertEqual([most_ejected(0.1, members) for members in (0, 1, 2, 9, 10)], [0, 0, 1, 1, 1])
        self.assertEqual([most_ejected(0.0, members) for members in (0, 1, 2, 100)], [0, 0, 0, 0])

    def test_hc_8_the_only_one(self) -> None:
        """HC-8: the only backend of a pool stays, unless all of them may be ejected."""
        self.assertEqual(most_ejected(0.5, 1), 0)
        self.assertEqual(most_ejected(0.99, 1), 0)
        self.assertEqual(most_ejected(1.0, 1), 1)
