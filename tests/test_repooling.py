"""What a change of pools is called: one line for each difference, in the words of the configuration."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import TestCase

from lbsvc.config.roads import roads_of
from lbsvc.config.schema import MemberSettings, Mirror
from lbsvc.core.policies import HealthCheckPolicy, KeptConnections, RetryPolicy, StickyPolicy
from lbsvc.repooling import differences
from tests.kit.builders import backend, listener, pool, route, settings

A, B, C = backend("10.0.0.1:80", name="a"), backend("10.0.0.2:80", name="b"), backend("10.0.0.3:80", name="c")


class WordsTests(TestCase):
    def test_backends(self) -> None:
        """Who comes, goes, or is another; addresses are compared as they are written."""
        self.assertEqual(
            differences(pool(A, B), pool(replace(B, weight=3, state="drain"), C)),
            [
                "pools.web.backends.a: removed",
                "pools.web.backends.b.weight: 1 -> 3",
                "pools.web.backends.b.state: ready -> drain",
                "pools.web.backends.c: added",
            ],
        )
        moved = replace(A, address="10.0.0.9:80", host="10.0.0.9")
        self.assertEqual(
            differences(pool(A), pool(moved)), ["pools.web.backends.a.address: 10.0.0.1:80 -> 10.0.0.9:80"]
        )
        self.assertEqual(differences(pool(A, B), pool(B, A)), ["pools.web.backends: in another order"])

    def test_members(self) -> None:
        """What is set for one address of a name is told by that member's name, against what the entry says."""
        named = backend("app.example:80", name="app", weight=2)
        own = replace(named, members=(MemberSettings("app@10.0.0.1", weight=5, state="maint"),))
        self.assertEqual(
            differences(pool(named), pool(own)),
            ["pools.web.backends.app@10.0.0.1.weight: 2 -> 5", "pools.web.backends.app@10.0.0.1.state: ready -> maint"],
        )

    def test_values(self) -> None:
        """Keys of sections by their path, off for what is not there, seconds as numbers."""
        self.assertEqual(
            differences(
                pool(A, health_check=HealthCheckPolicy(), queue=pool().queue),
                pool(
                    A,
                    health_check=HealthCheckPolicy(interval=0.5),
                    algorithm="least_connections",
                    slow_start=30.0,
                    retry=RetryPolicy(methods=frozenset({b"GET"})),
                    ahead=4,
                    connections=KeptConnections(keep_alive=4),
                ),
            ),
            [
                "pools.web.algorithm: round_robin -> least_connections",
                "pools.web.health_check.interval: 5 -> 0.5",
                "pools.web.retry.methods: [DELETE, GET, HEAD, OPTIONS, PUT, TRACE] -> [GET]",
                "pools.web.connections.keep_alive: 64 -> 4",
                "pools.web.connections.keep_alive: written",
                "pools.web.slow_start: off -> 30",
            ],
        )
        self.assertEqual(differences(pool(A), pool(A, health_check=None)), ["pools.web.health_check: on -> off"])

    def test_secrets(self) -> None:
        """That a secret has changed is said, not what it is."""
        found = differences(pool(A, sticky=StickyPolicy(key="old")), pool(A, sticky=StickyPolicy(key="new")))
        self.assertEqual(found, ["pools.web.sticky.key: changed"])

    def test_nothing(self) -> None:
        """Equal settings have no differences."""
        self.assertEqual(differences(pool(A, B), pool(A, B)), [])


class RoadsTests(TestCase):
    def test_roads(self) -> None:
        """Routes, splits, mirrors and the fall-through lead to pools; a pool that nothing leads to has none."""
        found = roads_of(
            settings(
                listener(
                    name="web",
                    pool="a",
                    routes=(
                        route("r", pool="b"),
                        route("s", split=(("c", 1), ("d", 2)), mirror=Mirror("e")),
                    ),
                ),
                listener(name="db", protocol="tcp", pool="a"),
                *(pool(A, name=name) for name in "abcdef"),
            )
        )
        http = frozenset({"http"})
        self.assertEqual(
            found,
            {"a": frozenset({"http", "tcp"}), "b": http, "c": http, "d": http, "e": http, "f": frozenset()},
        )
