"""What has to be alike in every worker is: hashes, first choices and cookies, in processes that have nothing in common."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from lbsvc.core.pool import Pool
from tests.core.members import members

ROOT = Path(__file__).resolve().parent.parent.parent


class AgreeingTests(TestCase):
    def test_processes_agree(self) -> None:
        """ip_hash, consistent_hash, first choices of sticky clients, and cookies: the same in every process, whatever its
        hash seed, the order of its backends, and what came before."""
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.core.agreed", order],
                cwd=ROOT,
                env={**os.environ, "PYTHONHASHSEED": seed},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for seed, order in (("1", "abcdefg"), ("2", "gcabfed"))
        ]
        answers = [process.communicate() for process in processes]
        self.assertEqual([errors for _, errors in answers], [b"", b""])
        (one, _), (other, _) = answers
        self.assertEqual(len(one.split()), 12 + 1 + 14)
        self.assertEqual(one.split(), other.split())


class SpreadTests(TestCase):
    def test_round_robin(self) -> None:
        """Requests that come to any of k workers are spread exactly by each of them, so all together to within k."""
        dice = random.Random(1)
        for workers in (2, 4, 16):
            pools: list[Pool] = []
            for _ in range(workers):
                pool = Pool("web", "round_robin", dice)
                pool.set_members(members("abcde"))
                pools.append(pool)
            counts: Counter[str] = Counter(dict.fromkeys("abcde", 0))
            for _ in range(2000):
                lease = dice.choice(pools).pick()
                assert lease is not None
                counts[lease.backend.name] += 1
                self.assertLessEqual(max(counts.values()) - min(counts.values()), workers)

    def test_least_connections(self) -> None:
        """With k workers no backend has more than k leases more than another while none ends."""
        dice = random.Random(1)
        for workers in (2, 4, 16):
            pools: list[Pool] = []
            for _ in range(workers):
                pool = Pool("web", "least_connections", dice)
                pool.set_members(members("abcde"))
                pools.append(pool)
            leases = []
            for _ in range(500):
                pool = dice.choice(pools)
                leases.append(pool.pick())
                sums = [sum(each.backends[number].active for each in pools) for number in range(5)]
                self.assertLessEqual(max(sums) - min(sums), workers)
