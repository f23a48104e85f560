"""The configurations that ship: each loads without a mistake, and etc/lb.yaml is what its comments say."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

import lbsvc
from lbsvc.config.loader import load_file
from lbsvc.config.schema import Settings
from tests.kit.authority import Authority

ETC = Path(lbsvc.__file__).resolve().parent.parent / "etc"


def load(file: Path) -> Settings:
    return load_file(str(file), {}).settings


def furnish(file: Path) -> None:
    """Make the certificates that this configuration names, as tls/NAME.pem with tls/NAME.key, or alone if it is a CA's."""
    authority = Authority()
    named = set(re.findall(r"\btls/([a-z-]+)\.(pem|key)\b", file.read_text()))
    folder = file.parent / "tls"
    folder.mkdir(exist_ok=True)
    for name in sorted(name for name, kind in named if kind == "pem"):
        if (name, "key") not in named:
            authority.write(str(folder), name)
            continue
        kind = "rsa" if name.endswith("-rsa") else "ecdsa"
        _, key = authority.issue(f"{name.removesuffix('-rsa')}.example.com", kind=kind).write(str(folder), name)
        Path(key).chmod(0o600)


class ExampleTests(TestCase):
    def furnished(self) -> Path:
        """A copy of etc/, with certificates where they are asked for: none are in the repository."""
        # Not `mktemp`, whose paths may be longer than those of unix sockets can be.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        copy = Path(shutil.copytree(ETC, Path(folder.name) / "etc"))
        for file in copy.rglob("*.yaml"):
            furnish(file)
        return copy

    def test_each_loads(self) -> None:
        """Every YAML file under etc/ is a right configuration."""
        files = sorted(self.furnished().rglob("*.yaml"))
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
        examples = {file.stem: load(file) for file in (self.furnished() / "examples").glob("*.yaml")}
        self.assertEqual(examples["tcp"].listeners["database"].protocol, "tcp")
        self.assertEqual([each.backup for each in examples["tcp"].pools["database"].backends], [False, False, True])
        self.assertEqual(examples["least-connections"].pools["reports"].algorithm, "least_connections")
        routes = examples["routes"].listeners["web"].routes
        self.assertEqual([bool(r.pool) + bool(r.respond) + bool(r.redirect) for r in routes], [1, 1, 1, 1])
        self.assertEqual(len(examples["minimal"].pools), 1)

    def test_examples_of_tls(self) -> None:
        """TLS is ended, made again and passed through; there are no notes."""
        folder = self.furnished() / "examples"
        loaded = load_file(str(folder / "tls.yaml"), {})
        self.assertEqual(list(loaded.notes), [])
        settings = loaded.settings
        redirect = settings.listeners["plain"].routes[-1].redirect
        self.assertEqual((redirect.to, redirect.status) if redirect else None, ("https://{host}{uri}", 308))
        ends = {name: listener.tls for name, listener in settings.listeners.items()}
        self.assertEqual([name for name, tls in ends.items() if tls is not None], ["web", "partners", "mail"])
        self.assertEqual([name for name, tls in ends.items() if tls is not None and tls.client_ca], ["partners"])
        self.assertEqual([each.is_secure for each in settings.pools["web"].backends], [True, True])
        front = load(folder / "passthrough.yaml").listeners["front"]
        self.assertEqual((front.protocol, front.tls, front.proxy_protocol), ("tcp", None, True))
        self.assertEqual(front.routes[1].match.sni, ("*.shop.example.com",))

    def test_example_of_operating(self) -> None:
        """What can be changed while it runs, and what is kept of that."""
        folder = self.furnished() / "examples"
        settings = load(folder / "operating.yaml")
        self.assertEqual((settings.watch, settings.shutdown.removed), (True, 600.0))
        self.assertEqual(settings.state_file, "/var/lib/lbsvc/state.json")
        self.assertEqual([bind.passed_as for bind in settings.listeners["web"].binds], ["web"])

    def test_example_of_grpc(self) -> None:
        """Calls go by HTTP/2 and are checked by it; nothing in the file does nothing."""
        loaded = load_file(str(self.furnished() / "examples" / "grpc.yaml"), {})
        self.assertEqual(list(loaded.notes), [])
        pools = loaded.settings.pools
        self.assertEqual([each.is_h2c for each in pools["orders"].backends], [True, True])
        check = pools["orders"].health_check
        self.assertEqual((check.type, check.service) if check else None, ("grpc", "shop.v1.Orders"))
        self.assertEqual((pools["site"].protocol, pools["site"].backends[0].is_secure), ("auto", True))
