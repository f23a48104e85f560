"""The configurations that ship: each loads without a mistake, and etc/lb.yaml is what its comments say."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

import lbsvc
from lbsvc.config.loader import load_file
from lbsvc.config.schema import Settings

ETC = Path(lbsvc.__file__).resolve().parent.parent / "etc"


def load(file: Path) -> Settings:
    return load_file(str(file), {}).settings


class ExampleTests(TestCase):
    def test_each_loads(self) -> None:
        """Every YAML file under etc/ is a right configuration."""
        files = sorted(ETC.rglob("*.yaml"))
        self.assertGreater(len(files), 4)
        for file in files:
            self.assertTrue(load(file).listeners, file)

    def test_every_pool_is_used_and_loopback_is_not_left(self) -> None:
        """etc/lb.yaml needs nothing else: each backend is a listener of the same file, and all is on loopback."""
        settings = load(ETC / "lb.yaml")
        binds = {str(bind) for listener in settings.listeners.values() for bind in listener.binds}
        backends = [each for pool in settings.pools.values() for each in pool.backends]
        self.assertLess({f"{each.host}:{each.port}" for each in backends}, binds)
        self.assertEqual({bind.rpartition(":")[0] for bind in binds}, {"127.0.0.1"})
        self.assertIn("127.0.0.1:8080", binds)
        self.assertEqual([each.weight for each in backends], [1, 1, 2])

    def test_checks_reach_the_built_in_backends(self) -> None:
        """The health checks of etc/lb.yaml ask for a path that each built-in backend answers by name."""
        settings = load(ETC / "lb.yaml")
        check = settings.pools["web"].health_check
        self.assertEqual((check.type, check.path) if check else None, ("http", "/health"))
        for name, listener in settings.listeners.items():
            if name != "web":
                bodies = {route.match.path: route.respond.body for route in listener.routes if route.respond}
                self.assertEqual(bodies, {"/health": "ok\n", "/*": f"hello from {name}\n"})

    def test_examples_act(self) -> None:
        """The examples show what they are named for."""
        examples = {file.stem: load(file) for file in (ETC / "examples").glob("*.yaml")}
        self.assertEqual(examples["tcp"].listeners["database"].protocol, "tcp")
        self.assertEqual([each.backup for each in examples["tcp"].pools["database"].backends], [False, False, True])
        self.assertEqual(examples["least-connections"].pools["reports"].algorithm, "least_connections")
        routes = examples["routes"].listeners["web"].routes
        self.assertEqual([bool(r.pool) + bool(r.respond) + bool(r.redirect) for r in routes], [1, 1, 1, 1])
        self.assertEqual(len(examples["minimal"].pools), 1)
