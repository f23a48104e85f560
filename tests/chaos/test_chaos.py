"""Short storms of every kind against the real service, and half a minute of a soak: what judging.py and storm.py say holds.

The same for hours: soak.py. A failure names its seed, what happened in its order, and what does not hold; `python -m
tests.chaos.soak --seed N --kind KIND` repeats it, as far as chance goes.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.chaos.faults import KINDS
from tests.chaos.soak import Soak

SEED = 8
#: Acts of a short storm.
SHORT = 12


class SoakCase(TestCase):
    def soak(self, seed: int) -> Soak:
        """A soak that ends with the test."""
        soak = Soak(seed)
        self.addCleanup(soak.stop)
        return soak

    def storms(self, seed: int, *kinds: str) -> Soak:
        """One of each kind, in one arena."""
        self.assertLess(set(kinds), set(KINDS))
        soak = self.soak(seed)
        for kind in kinds:
            storm = soak.storm(kind, SHORT)
            self.assertGreater(storm.answered, 200, kind)
        return soak


class StormTests(SoakCase):
    def test_backends_go(self) -> None:
        """Backends are killed, stand still, are found ill and well in turn, vanish behind a cut wire: every request is
        answered, or cut for a reason that is logged; nothing is counted twice, forgotten or left behind (TST-3)."""
        self.storms(SEED, "killed", "stopped", "flapping", "parted")

    def test_backends_misbehave(self) -> None:
        """Backends reset, break off, talk nonsense or too much, close without a word, dawdle: the same holds, and nobody
        gets a byte of an answer to somebody else (TST-3)."""
        self.storms(SEED + 1, "broken", "slow")

    def test_people_interfere(self) -> None:
        """Clients leave at every point, dawdle and talk nonsense; backends are drained, weighed, added and removed, files
        reloaded, under faults; the service stands still for a while: the same holds, and what drains gets nothing new."""
        self.storms(SEED + 2, "rude", "operated", "paused")


class SoakTests(SoakCase):
    def test_half_a_minute(self) -> None:
        """Everything at once, with wrk beside our own clients, for half a minute: the same holds after each storm, memory is
        what it was, and a service that is told to end under load loses nothing (TST-5)."""
        soak = self.soak(SEED + 3)
        soak.storm("mixed", with_wrk=True)
        soak.run(16)
        self.assertGreater(soak.requests, 1000)
        self.assertGreater(soak.storms, 2)
        soak.end()
