"""Faults of the smaller balancers that show without a process (features.md, the list at its end): regression checks."""

from __future__ import annotations

from collections import Counter

from prometheus_client import generate_latest
from twisted.trial.unittest import TestCase

from lbsvc.config.loader import load_text
from lbsvc.core.backend import Outcome
from lbsvc.core.books import Histogram
from lbsvc.core.pickers import PICKERS
from lbsvc.errors import ConfigErrors
from lbsvc.observe.metrics import LbsvcCollector
from tests.core.members import members, pool_of
from tests.observe.sample_view import realistic

#: Where a counter of 32 bits ends, and one of 64.
ENDS = (2**31 - 1, 2**32 - 1, 2**63 - 1)


LB = "listeners: {web: {bind: ':80', pool: a}}\npools: {a: {backends: [b:1], health_check: %s}}\n"


class SettingsTests(TestCase):
    def test_pauses(self) -> None:
        """A check whose interval is left out has a pause all the same, and no pause at all cannot be asked for (A11)."""
        check = load_text(LB % "{type: tcp}", "lb.yaml", {}).settings.pools["a"].health_check
        assert check is not None
        self.assertEqual((check.interval, check.timeout), (5.0, 2.0))
        for interval in ("0", "0s", "-1s", "null"):
            self.assertRaises(ConfigErrors, load_text, LB % f"{{interval: {interval}}}", "lb.yaml", {})

    def test_where_it_is_administered(self) -> None:
        """Without a word about it the admin listener, metrics included, is on loopback; its port can be chosen (A15)."""
        for text, bind in (("", "127.0.0.1:9901"), ("admin: {bind: 127.0.0.1:1234}\n", "127.0.0.1:1234")):
            admin = load_text(LB % "off" + text, "lb.yaml", {}).settings.admin
            assert admin is not None
            self.assertEqual(str(admin.bind), bind)


class CountersTests(TestCase):
    def test_without_end(self) -> None:
        """Counters go past the end of 32 and 64 bits, each backend's own, and requests are balanced as before (A14)."""
        for name in PICKERS:
            for end in ENDS:
                backends = members("abc")
                pool = pool_of(backends, name)
                for backend in backends:
                    backend.requests[2] = end
                seen = Counter[str]()
                for number in range(300):
                    key = number * 0x9E3779B97F4A7C15 % 2**64 if pool.wants_key else None
                    lease = pool.pick(key=key)
                    assert lease is not None
                    seen[lease.backend.name] += 1
                    lease.backend.requests[2] += 1
                    lease.release(Outcome.OK)
                self.assertEqual({each.name: each.requests[2] - end for each in backends}, dict(seen), name)
                self.assertGreater(min(seen.values()), 50, name)

    def test_shown(self) -> None:
        """What is past 32 bits is shown so (A14)."""
        view = realistic()
        backend = view.pools[0].backends[0]
        backend.requests[2] = 2**31
        page = generate_latest(LbsvcCollector(view, Histogram())).decode()
        (line,) = (each for each in page.splitlines() if f'backend="{backend.name}",code="2xx"' in each)
        self.assertEqual(float(line.rpartition(" ")[2]), 2**31)

    def test_given_back(self) -> None:
        """After thirty thousand requests, one at a time, least_connections refuses nobody, and all are equal (L5)."""
        backends = members("abc")
        pool = pool_of(backends, "least_connections")
        seen = Counter[str]()
        for _ in range(30_000):
            lease = pool.pick()
            assert lease is not None
            seen[lease.backend.name] += 1
            lease.release(Outcome.OK)
        self.assertEqual(seen, {"a": 10_000, "b": 10_000, "c": 10_000})
        self.assertEqual([each.active for each in backends], [0, 0, 0])
