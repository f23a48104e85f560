"""Health checks of who is put back to work: nothing that was found before is believed, and a check begins at once."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.policies import FlappingPolicy
from tests.net.test_prober import Probing
from tests.net.wired import BLACK_HOLE, OPEN, REFUSED


class RecheckTests(TestCase):
    def recheck(self, probing: Probing) -> None:
        probing.told.clear()
        probing.checker.recheck(probing.only)
        probing.pool.refresh()

    def test_at_once(self) -> None:
        """Who was up is unknown, is asked at once and not when its turn comes, and is up with one success."""
        probing = Probing(interval=60.0).start()
        self.recheck(probing)
        self.assertEqual((probing.only.health, probing.told), ("unknown", []))
        self.assertIsNotNone(probing.pool.pick())  # there is nobody else
        probing.net.advance(0.2)
        self.assertEqual((probing.only.health, len(probing.times)), ("up", 2))
        self.assertEqual(probing.told, ["a up: connected"])
        probing.net.advance(50.0)
        self.assertEqual(len(probing.times), 2)
        probing.net.advance(20.0)
        self.assertEqual(len(probing.times), 3)

    def test_others_first(self) -> None:
        """Until then it takes nothing where another is available; one failure is enough to find it down."""
        probing = Probing(count=2, interval=60.0).start()
        probing.net.answers[8001] = REFUSED
        self.recheck(probing)
        for _ in range(5):
            lease = probing.pool.pick()
            assert lease is not None
            self.assertEqual(lease.backend.name, "b")
        probing.net.advance(0.2)
        self.assertEqual(probing.told, ["a down: connection refused"])

    def test_under_way(self) -> None:
        """A check that had begun before does not count: it is given up, and another one begins."""
        probing = Probing(interval=5.0, timeout=2.0).start()
        probing.net.answers[8001] = BLACK_HOLE
        probing.net.advance(6.0)
        probing.net.answers[8001] = OPEN
        count = len(probing.times)
        self.recheck(probing)
        self.assertEqual((probing.only.health, probing.net.dials[-1].cancelled), ("unknown", True))
        probing.net.advance(0.2)
        self.assertEqual((probing.only.health, len(probing.times)), ("up", count + 1))

    def test_down(self) -> None:
        """Who was down stays so, and one success is enough."""
        probing = Probing(interval=60.0)
        probing.net.answers[8001] = REFUSED
        probing.start()
        probing.net.answers[8001] = OPEN
        self.recheck(probing)
        self.assertEqual(probing.only.health, "down")
        self.assertIsNone(probing.pool.pick())
        probing.net.advance(0.2)
        self.assertEqual((probing.only.health, probing.told), ("up", ["a up: connected", "available"]))

    def test_from_within(self) -> None:
        """Asked for by somebody who is just told of a flip, it comes right after that check."""
        probing = Probing(interval=60.0)
        flipped = probing.flipped

        def again(backend: Backend, detail: str) -> None:
            flipped(backend, detail)
            if len(probing.told) == 1:
                probing.checker.recheck(backend)

        probing.prober._on_flip = again
        probing.start()
        probing.net.advance(0.3)
        self.assertEqual((len(probing.times), probing.only.health), (2, "up"))

    def test_flapping(self) -> None:
        """Who is held down stays held: what is found meanwhile holds when that is over."""
        probing = Probing(interval=5.0, rise=1, fall=1).start()
        probing.checker.revise(probing.only, probing.policy, FlappingPolicy(changes=2, window=60.0, hold=60.0))
        for answer in (REFUSED, OPEN):
            probing.net.answers[8001] = answer
            probing.net.advance(6.0)
        self.assertEqual(probing.only.health, "flapping")
        self.recheck(probing)
        probing.net.advance(1.0)
        self.assertEqual(probing.only.health, "flapping")
        probing.net.advance(61.0)
        self.assertEqual((probing.only.health, probing.told), ("up", ["a up: no longer held down; connected"]))

    def test_not_checked(self) -> None:
        """Those that are not checked are left in peace, and one of a service that has stopped is not asked."""
        probing = Probing().start()
        probing.checker.remove(probing.only)
        self.recheck(probing)
        self.assertEqual((probing.only.health, len(probing.times)), ("up", 1))
