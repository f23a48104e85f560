"""Calm weather: nothing fails, and each backend gets of the traffic what its weight says, by every algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolSettings
from lbsvc.core.algorithms import ALGORITHMS
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, HealthCheckPolicy, QueuePolicy
from tests.simulation.machines import Machine
from tests.simulation.tables import remember
from tests.simulation.world import World, entry

CHECKS = HealthCheckPolicy(interval=30.0)
WEIGHTS = (5, 3, 1, 1)
LOAD = 6.0


def calm(
    algorithm: str, weights: Sequence[int] = WEIGHTS, load: float = LOAD, most: int | None = None, minutes: float = 10.0
) -> tuple[World, list[float]]:
    """Some minutes of it, and the share that each has had."""
    entries = tuple(entry(number, weight=weight, max_connections=most) for number, weight in enumerate(weights))
    settings = PoolSettings(
        "calm",
        entries,
        algorithm,
        health_check=CHECKS,
        circuit_breaker=BreakerPolicy(),
        passive_health=EjectionPolicy(),
        queue=QueuePolicy(1000, 60.0),
    )
    world = World(7, settings, [Machine(0.5, 0.3) for _ in weights], clients=2000, load=load)
    world.tunnels = world.impatient = 0.0
    world.play([], minutes * 60.0)
    world.end()
    counts = [backend.requests[2] for backend in world.pool.backends]
    return world, [count / sum(counts) for count in counts]


class ShareTests(TestCase):
    def setUp(self) -> None:
        remember(self)

    def assert_shares(self, algorithm: str, found: Sequence[float], of: int, slack: float = 0.0) -> None:
        """Within four standard deviations of independent draws, and `slack` of the share itself."""
        for share, weight in zip(found, WEIGHTS, strict=True):
            fair = weight / sum(WEIGHTS)
            allowed = 4.0 * sqrt(fair * (1.0 - fair) / of) + slack * fair
            self.assertLess(abs(share - fair), allowed, (algorithm, found))

    def test_by_weight(self) -> None:
        """Each algorithm that goes by weight alone does; nobody fails, waits, or is sent away."""
        for algorithm in ("round_robin", "random", "ip_hash", "consistent_hash", "adaptive"):
            world, shares = calm(algorithm)
            self.assertEqual(set(world.ends) - {"ok"}, set())
            self.assertEqual(sum(backend.requests[5] for backend in world.pool.backends), 0)
            # A hash deals out 2000 clients, some of whom come more often than others; of a table of them all come by bounds.
            slack = {"ip_hash": 0.3, "consistent_hash": 0.3, "adaptive": 0.15}.get(algorithm, 0.0)
            self.assert_shares(algorithm, shares, world.arrived, slack)

    def test_round_robin_is_exact(self) -> None:
        """Whole cycles give each exactly its weight: after thousands of visits nobody is off by more than a cycle."""
        world, shares = calm("round_robin")
        taken = world.referee.taken
        for share, weight in zip(shares, WEIGHTS, strict=True):
            self.assertLess(abs(share - weight / sum(WEIGHTS)) * taken, sum(WEIGHTS))

    def test_by_load(self) -> None:
        """Where work is as much as can be done, going by load is going by weight, since those of more weight do more."""
        for algorithm in ("least_connections", "two_choices"):
            world, shares = calm(algorithm, load=40.0)
            self.assertEqual(set(world.ends) - {"ok"}, set())
            self.assert_shares(algorithm, shares, world.arrived, 0.15)

    def test_everybody_in_turn(self) -> None:
        """A pool at its limit makes those who come wait, serves all of them, and has nobody do more than its limit."""
        for algorithm in ALGORITHMS:
            # Four backends with three places of half a second do 24 a second at most.
            world, _ = calm(algorithm, (1, 1, 1, 1), load=21.0, most=3, minutes=3.0)
            self.assertEqual(set(world.ends) - {"ok"}, set(), algorithm)
            self.assertGreater(world.pool.queue.served, 100, algorithm)
