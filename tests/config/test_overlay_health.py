"""Run-time changes of health checks and of pools with TLS, and how changes are written down."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from lbsvc.config import overlay
from lbsvc.config.health_changes import read_field
from lbsvc.config.overlay import Overrides, PoolOverrides, Wrong
from lbsvc.core.policies import HealthCheckPolicy
from tests.config.test_overlay import NEW, A, B, Case, Service, load
from tests.kit.builders import backend

HTTP = ", health_check: {path: /health, interval: 5s, rise: 2}"
OFF = ", health_check: off"


class HealthTests(Case):
    def test_keys(self) -> None:
        """A key outlives a reload that changes others, and goes when the file changes it."""
        service = Service(load(more=HTTP)).call("set_health", {"interval": 1, "rise": 5, "path": "/x"})
        service.reload(load(more=HTTP.replace("2", "3")))
        self.assertEqual(service.check, HealthCheckPolicy("http", "/x", interval=1.0, rise=3))
        service.call("set_health", {"interval": 5, "path": "/health"})
        self.assertEqual(service.overrides, Overrides())
        self.assertIs(service.effective, service.file)

    def test_off_in_the_file(self) -> None:
        """Checks that the file has off are turned on by what names their type, and off again by off."""
        service = Service(load(more=OFF))
        self.assertIn("type: is required", self.refused(Wrong, service, "set_health", {"interval": 1}))
        service.call("set_health", {"type": "http", "path": "/x"}).call("set_health", {"interval": 1})
        service.reload(load(f"'{A}'", OFF))
        self.assertEqual(service.check, HealthCheckPolicy("http", "/x", interval=1.0))
        self.assertIs(service.call("set_health", {"off": True}).effective, service.file)
        self.assertIsNone(service.call("set_health", {"off": True}).check)

    def test_turned_by_the_file(self) -> None:
        """Once the file turns checks on or off, nothing of what was set before holds."""
        service = Service(load(more=OFF)).call("set_health", {"type": "http", "interval": 1}).reload(load(more=HTTP))
        self.assertIs(service.effective, service.file)
        service.call("set_health", {"interval": 1}).reload(load(more=OFF))
        self.assertEqual((service.check, service.overrides), (None, Overrides()))

    def test_off_at_run_time(self) -> None:
        """What the file has on is not turned off at run time."""
        service = Service(load(more=HTTP))
        self.assertIn("state maint", self.refused(Wrong, service, "set_health", {"off": True}))
        self.assertIn("beside", self.refused(Wrong, service, "set_health", {"off": True, "rise": 1}))
        self.refused(Wrong, service, "set_health", {"off": "yes"})
        self.assertIs(service.call("set_health", {"off": False}).effective, service.file)

    def test_wrong(self) -> None:
        """Each value has the bounds that it has in the file."""
        service = Service(load(more=HTTP))
        wrong: dict[str, tuple[Any, ...]] = {
            "type": ("udp", None),
            "path": ("x", "/a b", "/#", "/" * 4097),
            "method": ("get", "G T", "", 1, "G" * 65),
            "host": ("a b", ""),
            "port": (0, 65536, True, "1"),
            "expect_status": ((), "200", ((200,),), ((300, 200),), ((99, 200),), ((200, 600),), ((200.0, 300),)),
            "expect_body": ("", 1),
            "interval": (0, -1, float("nan"), float("inf"), 10**400, True, "1s", None),
            "timeout": (0,),
            "rise": (0, 1001, 1.5, None),
            "fall": (0,),
            "service": ("a b", None),
            "unknown": (1,),
        }
        for key, values in wrong.items():
            for value in values:
                self.assertTrue(self.refused(Wrong, service, "set_health", {key: value}).startswith(f"{key}: "))

    def test_every_field(self) -> None:
        """Each field of the policy can be set to what it is by default."""
        policy = HealthCheckPolicy()
        for key, value in vars(policy).items():
            self.assertEqual(read_field(key, value), value)

    def test_vain(self) -> None:
        """A body is not looked for in the answer to HEAD: neither by what is set, nor by what the file adds to it."""
        service = Service(load(more=HTTP)).call("set_health", {"method": "HEAD", "rise": 9})
        self.refused(Wrong, service, "set_health", {"expect_body": "ok"})
        service.reload(load(more=HTTP.replace("}", ", expect_body: ok}")))
        self.assertEqual(service.check, HealthCheckPolicy("http", rise=9, expect_body="ok"))


TLS = ", tls: {server_name: x.example}"


class SecuredTests(Case):
    def test_https(self) -> None:
        """TLS is spoken to who is added as https://."""
        entry = replace(backend(NEW), address="https://10.0.0.9:80")
        self.assertTrue(Service().call("add", entry).backend(NEW).is_secure)

    def test_tcp(self) -> None:
        """Who joins a tcp pool with TLS is spoken to by TLS, also who was there before the file has said so."""
        secured = load(more=TLS, protocol="tcp")
        self.assertTrue(Service(secured).call("add", backend(NEW)).backend(NEW).is_secure)
        service = Service(load(protocol="tcp")).call("add", backend(NEW))
        self.assertFalse(service.backend(NEW).is_secure)
        self.assertTrue(service.reload(secured).backend(NEW).is_secure)
        self.assertFalse(service.reload(load(protocol="tcp")).backend(NEW).is_secure)

    def test_cannot_be_secured(self) -> None:
        """Who says no TLS is spoken, or has no name to be verified by, does not join; and goes once the file asks it."""
        for entry, tls in (
            (replace(backend(NEW), address=f"http://{NEW}"), TLS),
            (replace(backend(NEW), address="unix:x", host="/x", port=0), ", tls: {}"),
        ):
            secured = load(more=tls, protocol="tcp")
            self.assertIn("address: ", self.refused(Wrong, Service(secured), "add", entry))
            service = Service(load(protocol="tcp")).call("add", entry).reload(secured)
            self.assertEqual((service.names, service.overrides), ([A, B], Overrides()))


class JsonTests(Case):
    def everything(self) -> Service:
        file = load(f"{{name: app, address: 'app.example:80'}}, '{A}', '{B}'")
        service = Service(file).call("add", backend(NEW, max_connections=3, backup=True, state="drain"))
        service.call("add", replace(backend("10.0.0.8:443", name="s"), address="https://10.0.0.8"))
        service.call("add", replace(backend("10.0.0.7:80", name="u"), address="unix:u", host="/run/u", port=0))
        service.call("remove", A).call("set_weight", B, 0).call("set_weight", "app@::1", 7)
        return service.call("set_health", {"expect_status": [[200, 204]], "interval": 0.1, "host": "x"})

    def test_round_trip(self) -> None:
        """Every kind of change survives JSON, and is in force as it was."""
        service = self.everything()
        again = overlay.from_json(json.loads(json.dumps(overlay.to_json(service.overrides), allow_nan=False)))
        self.assertEqual(again, service.overrides)
        self.assertEqual(overlay.apply(service.file, again), (service.effective, service.overrides))
        self.assertEqual(overlay.from_json({"pools": {}}), Overrides())

    def test_round_trip_of_checks(self) -> None:
        """So do checks that were turned on."""
        service = Service(load(more=OFF)).call("set_health", {"type": "grpc", "service": "s"})
        self.assertEqual(overlay.from_json(overlay.to_json(service.overrides)), service.overrides)

    def test_any_order(self) -> None:
        """The same changes in another order are equal."""
        one = Service().call("set_weight", A, 3).call("set_weight", B, 4).call("set_state", B, "maint")
        other = Service().call("set_state", B, "maint").call("set_weight", B, 4).call("set_weight", A, 3)
        self.assertEqual(one.overrides, other.overrides)

    def test_strict(self) -> None:
        """What we could not have written is refused, and the message says where."""
        entry = overlay.to_json(Overrides((("p", PoolOverrides(added=(backend(NEW, source="runtime"),))),)))
        good = entry["pools"]["p"]["added"][0]
        weight = {"name": "a", "file": 1, "weight": 2}
        change = {"key": "rise", "file": 2, "value": 3}
        for found, where in (
            ([], "object"),
            ({"pools": {}, "x": 1}, "unknown key"),
            ({"pools": {"": {}}}, "pools: "),
            ({"pools": {"p": {"x": []}}}, "pools.p: "),
            ({"pools": {"p": {"added": {}}}}, "pools.p.added: must be a list"),
            *(
                ({"pools": {"p": {"added": [good | wrong]}}}, "pools.p.added[0]")
                for wrong in (
                    *({"address": wrong} for wrong in (None, "", "10.0.0.1", "10.0.0.1:0", "u@10.0.0.1:80", "unix:x")),
                    *({"weight": wrong} for wrong in (-1, 65536, True, "1", 1.0, None)),
                    *({"max_connections": wrong} for wrong in (0, "x", 10**8)),
                    *(
                        {"address": "unix:x", "socket": wrong}
                        for wrong in (None, "x", "/a/../b", "/a\0", "/" + "a" * 107)
                    ),
                    {"name": " "},
                    {"name": "x" * 129},
                    {"backup": 1},
                    {"secure": None},
                    {"address": "https://10.0.0.1"},
                    {"address": "h2c://10.0.0.1", "secure": True},
                    {"socket": "/x"},
                    {"x": 1},
                )
            ),
            ({"pools": {"p": {"added": [good, good]}}}, "pools.p.added: has a name twice"),
            ({"pools": {"p": {"weights": [weight, weight]}}}, "pools.p.weights: has a name twice"),
            ({"pools": {"p": {"weights": [weight | {"weight": None}]}}}, "pools.p.weights[0].weight"),
            ({"pools": {"p": {"weights": [weight | {"file": -1}]}}}, "pools.p.weights[0].file"),
            ({"pools": {"p": {"states": [{"name": "a", "state": "up"}]}}}, "pools.p.states[0].state"),
            ({"pools": {"p": {"states": [{"name": "a", "state": []}]}}}, "pools.p.states[0].state"),
            ({"pools": {"p": {"health": [change, change]}}}, "rise is there twice"),
            ({"pools": {"p": {"health": [change | {"value": 0}]}}}, "pools.p.health: "),
            ({"pools": {"p": {"health": [change | {"file": None}]}}}, "pools.p.health: "),
            ({"pools": {"p": {"health": [{"key": "off", "file": False, "value": True}]}}}, "pools.p.health: off"),
            ({"pools": {"p": {"health": [{"key": "off", "file": True, "value": False}, change]}}}, "pools.p.health: "),
            ({"pools": {"p": {"health": [{"key": [], "file": 1, "value": 1}]}}}, "pools.p.health: "),
        ):
            with self.assertRaises(ValueError) as refused:
                overlay.from_json(found)
            self.assertIn(where, str(refused.exception), found)

    def test_long_names(self) -> None:
        """A backend is named by its address, however long that is."""
        long = ".".join(["a" * 60] * 4) + ":80"
        changes = Overrides((("p", PoolOverrides(added=(backend(long, source="runtime"),))),))
        self.assertEqual(overlay.from_json(overlay.to_json(changes)), changes)
