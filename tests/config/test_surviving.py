"""Pools in trouble: passive health, breakers, queues, flapping, slow start, panic, limits of backends."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, FlappingPolicy, QueuePolicy
from tests.config.reading import LISTENER, POOL, load, mistakes, pool, pool_mistakes, settings


class SectionTests(TestCase):
    def assert_wrong(self, written: str, *messages: str) -> None:
        self.assertEqual([m.replace("pools.p.", "") for m in pool_mistakes(written)], list(messages), written)

    def test_defaults(self) -> None:
        """Left out, or null: queue and flapping are as the reference says, and the rest is off."""
        for lines in ("", "passive_health:\ncircuit_breaker:\nqueue:\nflapping:\nslow_start:\npanic_threshold:\n"):
            found = pool(lines)
            self.assertEqual((found.passive_health, found.circuit_breaker, found.slow_start), (None, None, None))
            self.assertEqual((found.queue, found.flapping), (QueuePolicy(1000, 5), FlappingPolicy(5, 60, 60)))
            self.assertEqual(found.panic_threshold, 0)

    def test_off(self) -> None:
        """All of them can be off, or false."""
        for off in ("off", "false"):
            found = pool(
                f"passive_health: {off}\ncircuit_breaker: {off}\nqueue: {off}\nflapping: {off}\n"
                f"slow_start: {off}\npanic_threshold: {off}\n"
            )
            self.assertEqual((found.passive_health, found.circuit_breaker, found.flapping), (None, None, None))
            self.assertEqual((found.queue.size, found.slow_start, found.panic_threshold), (0, None, 0))

    def test_on(self) -> None:
        """An empty section is one at its defaults (FIELD-10, V16)."""
        found = pool("passive_health: {}\ncircuit_breaker: {}\nqueue: {}\nflapping: {}\n")
        self.assertEqual(found.passive_health, EjectionPolicy(5, 10, 30, 0.5))
        self.assertEqual(found.circuit_breaker, BreakerPolicy(5, 30, 3))
        self.assertEqual((found.queue, found.flapping), (QueuePolicy(), FlappingPolicy()))

    def test_every_key(self) -> None:
        """Each key at another value."""
        found = pool(
            "passive_health: {failures: 1, window: 2s, eject: 3s, max_ejected: 100%}\n"
            "circuit_breaker: {failure_threshold: 4, reset_timeout: 500ms, half_open_requests: 1}\n"
            "queue: {size: 0, timeout: 6s}\nflapping: {changes: 7, window: 8s, hold: 9s}\n"
            "slow_start: 30s\npanic_threshold: 50%\n"
        )
        self.assertEqual(found.passive_health, EjectionPolicy(1, 2, 3, 1))
        self.assertEqual(found.circuit_breaker, BreakerPolicy(4, 0.5, 1))
        self.assertEqual((found.queue, found.flapping), (QueuePolicy(0, 6), FlappingPolicy(7, 8, 9)))
        self.assertEqual((found.slow_start, found.panic_threshold), (30, 0.5))
        for none in ("0", "0s"):
            self.assertIsNone(pool(f"slow_start: {none}").slow_start)

    def test_mistakes(self) -> None:
        """What would never act, or without end, is refused at its key; all of it at once."""
        self.assert_wrong(
            "passive_health: {failures: 0, window: 0s, eject: soon, max_ejected: 0.5, ejct: 1s}",
            "8:22: passive_health.failures: must be 1 or more (got 0)",
            '8:35: passive_health.window: must be 1ms or more (got "0s")',
            '8:47: passive_health.eject: must be a duration such as 250ms, 5s, 1m30s or 1h (got "soon")',
            "8:60: passive_health.max_ejected: must be a share from 0% to 100%, with the % sign (got 0.5)",
            "8:78: passive_health.ejct: unknown key (did you mean eject?)",
        )
        self.assert_wrong(
            "passive_health: {failures: 1001}", "8:22: passive_health.failures: must be 1000 or less (got 1001)"
        )
        self.assert_wrong(
            "circuit_breaker: {failure_threshold: 0, reset_timeout: 0, half_open_requests: 1.5}",
            "8:23: circuit_breaker.failure_threshold: must be 1 or more (got 0)",
            "8:45: circuit_breaker.reset_timeout: must be 1ms or more (got 0)",
            "8:63: circuit_breaker.half_open_requests: must be a whole number (got 1.5)",
        )
        self.assert_wrong(
            "queue: {size: -1, timeout: 0}",
            "8:13: queue.size: must be 0 or more (got -1)",
            "8:23: queue.timeout: must be 1ms or more (got 0)",
        )
        self.assert_wrong("queue: {size: 1000001}", "8:13: queue.size: must be 1000000 or less (got 1000001)")
        self.assert_wrong(
            "flapping: {changes: 0, window: 0, hold: 0}",
            "8:16: flapping.changes: must be 1 or more (got 0)",
            "8:28: flapping.window: must be 1ms or more (got 0)",
            "8:39: flapping.hold: must be 1ms or more (got 0)",
        )
        self.assert_wrong(
            "slow_start: -1s\npanic_threshold: 101%",
            '8:5: slow_start: must be 0s or more (got "-1s")',
            '9:5: panic_threshold: must be a share from 0% to 100%, with the % sign (got "101%")',
        )
        self.assert_wrong(
            "slow_start: true", "8:5: slow_start: must be a duration such as 250ms, 5s, 1m30s or 1h (got true)"
        )

    def test_sections_that_are_none(self) -> None:
        """True says nothing of how, and a number not of what."""
        for key in ("passive_health", "circuit_breaker", "queue", "flapping"):
            for written, got in {"true": "true", "5": "5", "[]": "a list", "on": '"on"'}.items():
                self.assert_wrong(f"{key}: {written}", f"8:5: {key}: must be a mapping, or off (got {got})")

    def test_flapping_without_checks(self) -> None:
        """Nothing goes up and down that is not checked: said where flapping is asked for, not where it is a default."""
        note = "etc/lb.yaml: pools.p.flapping: does nothing where health_check is off"
        text = LISTENER + POOL + "    health_check: off\n"
        self.assertIn(note, load(text + "    flapping: {}\n").notes)
        self.assertNotIn(note, load(text).notes)
        self.assertNotIn(note, load(text + "    flapping: off\n").notes)
        self.assertNotIn(note, load(LISTENER + POOL + "    flapping: {}\n").notes)


class LimitTests(TestCase):
    def test_of_backends(self) -> None:
        """A whole number from 1, or none; each backend has its own."""
        text = (
            LISTENER
            + "pools: {p: {backends: [{address: h:1, max_connections: 5}, {address: h:2, max_connections: %s}, h:3]}}"
        )
        for none in ("null", "off", "false"):
            backends = settings(text % none).pools["p"].backends
            self.assertEqual([each.max_connections for each in backends], [5, None, None])
        for wrong, rule in {"0": "must be 1 or more (got 0)", "true": "must be a whole number (got true)"}.items():
            self.assertEqual(mistakes(text % wrong), [f"5:75: pools.p.backends[1].max_connections: {rule}"])

    def test_connections_dialled_ahead(self) -> None:
        """L4-2: `connections.keep_alive` is for tcp only where it is written; left out nothing is dialled ahead there."""
        for lines, kept, ahead in (
            ("", 64, 0),
            ("connections: {max_requests: 5}", 64, 0),
            ("connections: {keep_alive: 0}", 0, 0),
            ("connections: {keep_alive: 5}", 5, 5),
            ("connections: {keep_alive: 64}", 64, 64),
        ):
            found = pool(lines)
            self.assertEqual((found.connections.keep_alive, found.ahead), (kept, ahead), lines)
        text = "listeners:\n  a: {bind: 80, protocol: tcp, pool: p}\n" + POOL + "    connections: {keep_alive: 5}\n"
        loaded = load(text)
        self.assertEqual(loaded.settings.pools["p"].ahead, 5)
        self.assertNotIn("keep_alive", "".join(loaded.notes))
