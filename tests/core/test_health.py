"""Verdicts: how many results in a row turn them."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.health import Verdict
from lbsvc.core.policies import HealthCheckPolicy


def flips(results: str, rise: int = 2, fall: int = 3) -> list[str | None]:
    """What each result does: `flips("+---")`."""
    verdict = Verdict(HealthCheckPolicy(rise=rise, fall=fall))
    return [verdict.observe(result == "+") for result in results]


class VerdictTests(TestCase):
    def test_the_first_result_decides(self) -> None:
        """HC-10: unknown until the first result; one success is up, one failure is down."""
        self.assertEqual(Verdict(HealthCheckPolicy()).state, "unknown")
        self.assertEqual(flips("+"), ["up"])
        self.assertEqual(flips("-"), ["down"])

    def test_fall(self) -> None:
        """HC-5: three failures in a row turn it down, two do not, and a success between begins anew."""
        self.assertEqual(flips("+--"), ["up", None, None])
        self.assertEqual(flips("+---"), ["up", None, None, "down"])
        self.assertEqual(flips("+--+--"), ["up", None, None, None, None, None])

    def test_rise(self) -> None:
        """HC-5: two successes in a row bring it back, and a failure between begins anew."""
        self.assertEqual(flips("-+-+"), ["down", None, None, None])
        self.assertEqual(flips("-++"), ["down", None, "up"])

    def test_each_flip_once(self) -> None:
        """HC-6: a state that stays is reported once."""
        self.assertEqual(
            flips("+++---++++", rise=1, fall=1), ["up", None, None, "down", None, None, "up", None, None, None]
        )

    def test_repr(self) -> None:
        """The verdict in a few words."""
        verdict = Verdict(HealthCheckPolicy())
        verdict.observe(True)
        verdict.observe(False)
        self.assertEqual(repr(verdict), "<Verdict up, 1 against it>")
