"""Pieces of a configuration that come as JSON while we run: the file's own rules, and mistakes without places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.config.overlay import Overrides, apply, set_health
from lbsvc.config.piece import MOST_MISTAKES, backend_from, change_from, health_from
from lbsvc.config.schema import BackendSettings
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.errors import ConfigErrors
from tests.config.reading import LISTENER, POOL, settings

TCP = LISTENER.replace("    pool", "    protocol: tcp\n    pool")


class PieceCase(TestCase):
    def assert_wrong(self, read: Callable[[], Any], *messages: str) -> None:
        with self.assertRaises(ConfigErrors) as caught:
            read()
        self.assertEqual([str(mistake) for mistake in caught.exception.mistakes], list(messages))


class BackendTests(PieceCase):
    def setUp(self) -> None:
        self.settings = settings(LISTENER + POOL)

    def wrong(self, given: dict[str, Any], *messages: str) -> None:
        self.assert_wrong(lambda: backend_from(given, self.settings, "p"), *messages)

    def test_what_comes_out(self) -> None:
        """The settings that the file would give, marked as made at run time."""
        given = {"address": "10.0.0.3:8001", "weight": 3, "name": "c", "backup": True, "max_connections": None}
        expected = BackendSettings("10.0.0.3:8001", "10.0.0.3", 8001, "c", 3, True, source="runtime")
        self.assertEqual(backend_from(given, self.settings, "p"), expected)
        found = backend_from({"address": "h2c://h"}, self.settings, "p")
        self.assertEqual((found.name, found.port, found.is_h2c, found.weight), ("h2c://h", 80, True, 1))

    def test_sockets(self) -> None:
        """A relative path is relative to the folder of the configuration."""
        self.assertEqual(backend_from({"address": "unix:a"}, self.settings, "p", "/etc/lb").host, "/etc/lb/a")

    def test_mistakes(self) -> None:
        """All at once, each with its key, with what was probably meant."""
        self.wrong(
            {"addres": "h:1", "weight": -3, "backup": "yes"},
            "addres: unknown key (did you mean address?)",
            "weight: must be 0 or more (got -3)",
            'backup: must be true or false (got "yes")',
            "address: is required",
        )
        self.wrong({}, "address: is required")
        many = [f"x{number}: unknown key" for number in range(MOST_MISTAKES)]
        self.wrong({"address": "h:1", **{f"x{n}": n for n in range(MOST_MISTAKES + 7)}}, *many, "and 7 more")
        for weight, got in {"3": '"3"', 3.0: "3.0", True: "true", None: "null"}.items():
            self.wrong({"address": "h:1", "weight": weight}, f"weight: must be a whole number (got {got})")
        self.wrong({"address": "h:1", "weight": [[[[[[]]]]]]}, "weight: must be a whole number (got a list)")
        self.wrong({"address": "http://u:secret@h"}, "address: cannot have a user name or password")

    def test_nothing_is_expanded(self) -> None:
        """Who may add a backend may not read the environment by it."""
        self.wrong(
            {"address": "${HOME}:1"},
            'address: has a host that is neither an IP address nor a host name (got "${HOME}:1"; '
            "variables are not expanded here)",
        )

    def test_half_characters(self) -> None:
        """JSON can say what no log could hold."""
        message = "holds half of a character (U+D800 to U+DFFF)"
        self.wrong({"address": "h:1", "name": "\ud800", "x": {"a": ["\udfff"]}}, f"name: {message}", f"x: {message}")

    def test_tls_of_the_pool(self) -> None:
        """A tcp pool with tls speaks it to whoever is added, and to nobody who could not be verified."""
        self.settings = settings(TCP + POOL + "    tls: {}\n")
        self.assertTrue(backend_from({"address": "h:1"}, self.settings, "p").is_secure)
        why = "where the pool has tls and only tcp listeners use it: TLS is spoken to all"
        self.wrong({"address": "http://h:1"}, f"address: cannot be http:// {why}")
        self.wrong(
            {"address": "unix:a"},
            "address: cannot be unix: where the pool's tls has no server_name to verify it by",
        )
        self.settings = settings(TCP + POOL + "    tls: {server_name: a}\n")
        self.assertTrue(backend_from({"address": "unix:a"}, self.settings, "p").is_secure)
        self.settings = settings(LISTENER + POOL + "    tls: {}\n")
        self.assertFalse(backend_from({"address": "h:1"}, self.settings, "p").is_secure)
        self.assertTrue(backend_from({"address": "https://h:1"}, self.settings, "p").is_secure)


class HealthTests(PieceCase):
    def setUp(self) -> None:
        self.settings = settings(LISTENER + POOL)

    def wrong(self, given: dict[str, Any], *messages: str) -> None:
        self.assert_wrong(lambda: health_from(given, self.settings, "p"), *messages)

    def test_what_is_given(self) -> None:
        """Only what is given changes; null is the default."""
        self.assertEqual(health_from({"interval": "1s", "rise": 1}, self.settings, "p"), {"interval": 1.0, "rise": 1})
        self.assertEqual(health_from({}, self.settings, "p"), {})
        nothing = dict.fromkeys(HealthCheckPolicy.__dataclass_fields__)
        self.assertEqual(health_from(nothing, self.settings, "p"), vars(HealthCheckPolicy()))
        found = health_from({"type": "http", "path": None, "expect_status": [200, "300-302"]}, self.settings, "p")
        self.assertEqual(found, {"type": "http", "path": "/health", "expect_status": ((200, 200), (300, 302))})

    def test_mistakes(self) -> None:
        """What the check that there will be cannot ask is refused, as in the file."""
        self.wrong({"path": "/x"}, "path: means nothing for a tcp check: add type: http")
        self.wrong({"type": None, "path": "/x"}, "path: means nothing for a tcp check")
        self.wrong({"type": "grpc", "path": "/x"}, "path: means nothing for a grpc check")
        self.wrong(
            {"interval": 0, "fal": 1}, "interval: must be 10ms or more (got 0)", "fal: unknown key (did you mean fall?)"
        )
        self.settings = settings(LISTENER + POOL + "    health_check: {path: /, method: HEAD}\n")
        self.wrong({"expect_body": "x"}, "expect_body cannot be found where method is HEAD: the answer has no body")
        self.assertEqual(health_from({"path": "/x"}, self.settings, "p"), {"path": "/x"})
        self.settings = settings(LISTENER + "pools: {p: {backends: unix:a}}")
        self.wrong({"port": 80}, "port: means nothing where all backends are unix sockets")

    def test_off(self) -> None:
        """Where checks are off a type turns them on, and nothing else does."""
        self.settings = settings(LISTENER + POOL + "    health_check: off\n")
        why = 'is off in this pool: a type turns it on, as in {"type": "http"}'
        for given in ({"interval": "1s"}, {"path": "/health"}, {"type": None}, {}):
            self.wrong(given, why)
        given = {"type": "http", "path": "/health"}
        found = health_from(given, self.settings, "p")
        self.assertEqual(found, given)
        effective, _ = apply(self.settings, set_health(self.settings, Overrides(), "p", found))
        self.assertEqual(effective.pools["p"].health_check, HealthCheckPolicy(type="http", path="/health"))
        self.assertEqual(health_from({"off": True}, self.settings, "p"), {"off": True})
        self.wrong({"off": "yes"}, 'off: must be true or false (got "yes")', why)
        self.wrong({"type": "tcp", "path": "/x"}, "path: means nothing for a tcp check")
        self.wrong({"type": "htp"}, 'type: must be http, tcp or grpc (got "htp"; did you mean http?)')


class ChangeTests(PieceCase):
    def test_weight_and_state(self) -> None:
        """Either, or both, and nothing else."""
        self.assertEqual(change_from({"weight": 0}), (0, None))
        self.assertEqual(change_from({"state": "drain"}), (None, "drain"))
        self.assertEqual(change_from({"weight": 2, "state": "ready"}), (2, "ready"))
        self.assert_wrong(lambda: change_from({}), "needs weight or state")
        self.assert_wrong(lambda: change_from({"state": "down"}), 'state: must be ready, drain or maint (got "down")')
        self.assert_wrong(lambda: change_from({"name": "x"}), "name: unknown key")
        self.assert_wrong(lambda: change_from({"weight": 70000}), "weight: must be 65535 or less (got 70000)")
