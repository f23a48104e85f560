"""Checks of what no key knows alone, for files with very many of everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config import addresses, checks
from lbsvc.config.addresses import overlap
from lbsvc.config.checks import Taken
from lbsvc.config.schema import Bind
from tests.config.reading import POOL, mistakes

HOSTS = (
    "",
    "0.0.0.0",
    "::",
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "::2",
    "localhost",
    "lb.example",
    "/a",
    "/b",
    "systemd:a",
)
binds = st.lists(st.builds(Bind, st.sampled_from(HOSTS), st.sampled_from((0, 80, 81))), max_size=12)


class TakenTests(TestCase):
    @given(binds)
    def test_as_overlap_says(self, found: list[Bind]) -> None:
        """The first bind that each one overlaps is the one that comparing it with all before it gives."""
        taken = Taken()
        for i, bind in enumerate(found):
            wanted = next((j for j, other in enumerate(found[:i]) if overlap(bind, other)), i)
            self.assertEqual(taken.take(bind), wanted)


class ManyTests(TestCase):
    def test_binds(self) -> None:
        """Binds are not compared each with each."""
        compared: list[Bind] = []
        true = addresses.overlap

        def counted(one: Bind, other: Bind) -> bool:
            compared.append(one)
            return true(one, other)

        self.patch(checks, "overlap", counted)
        text = "listeners:\n" + "".join(f"  a{i}: {{bind: '10.0.{i}.1:80', pool: p}}\n" for i in range(200)) + POOL
        self.assertEqual(mistakes(text), [])
        self.assertLessEqual(len(compared), 200)

    def test_hints(self) -> None:
        """After many mistakes none says what was meant, for it costs more than all the rest; each is still said."""
        text = "".join(f"listenerz{i}: 1\n" for i in range(1000))
        found = mistakes(text)
        self.assertEqual(len(found), 1001)
        self.assertIn("did you mean listeners?", found[2])
        self.assertNotIn("did you mean", found[-1])

    def test_unknown_pools(self) -> None:
        """A pool that is not there is said among very many pools, too, without what was meant."""
        pools = "".join(f"  p{i}: {{backends: ['10.0.0.1:1']}}\n" for i in range(400))
        text = "listeners:\n  a: {bind: 80, pool: q1}\n  b: {bind: 81, routes: [{split: {q2: 1}}]}\npools:\n" + pools
        self.assertEqual(
            mistakes(text),
            [
                '2:17: listeners.a.pool: there is no pool of this name (got "q1")',
                "3:35: listeners.b.routes[0].split.q2: there is no pool of this name",
            ],
        )
