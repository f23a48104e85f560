"""Who is in a pool: literals, names with several addresses, names that change or never resolve, and who is told of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import BackendSettings
from lbsvc.core.backend import UNLIMITED, Backend, Outcome
from lbsvc.core.policies import FlappingPolicy, HealthCheckPolicy
from lbsvc.core.pool import Pool
from lbsvc.membership import Membership, is_literal
from lbsvc.net.prober import HealthChecker
from tests.kit.builders import backend, pool
from tests.net.wired import BLACK_HOLE, Net

CHECKS = HealthCheckPolicy()


class Naming:
    """A pool whose names resolve as `names` says: addresses, an exception, or None for not yet."""

    def __init__(self, *backends: Any, health_check: HealthCheckPolicy | None = CHECKS, **keys: Any) -> None:
        self.names: dict[str, Any] = {}
        self.asked: list[str] = []
        self.waiting: dict[str, Deferred[list[str]]] = {}
        self.events: list[tuple[str, str, dict[str, str]]] = []
        self.flips: list[tuple[str, str]] = []
        self.net = Net()
        self.clock: Clock = self.net.clock
        self.checker = HealthChecker(self.clock, random.Random(1), self.flipped, self.net.dial, lambda: 0.0)
        self.pool = Pool("web", "round_robin", random.Random(1))
        self.membership = Membership(
            pool(*backends, health_check=health_check, **keys),
            self.pool,
            self.clock,
            self.checker,
            self.look_up,
            self.emit,
        )

    def look_up(self, host: str) -> Deferred[list[str]]:
        self.asked.append(host)
        answer = self.names[host]
        if answer is None:
            self.waiting[host] = Deferred()
            return self.waiting[host]
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def emit(self, level: str, event: str, message: str, **fields: str) -> None:
        assert level == "info"
        self.events.append((event, message, fields))

    def flipped(self, member: Backend, detail: str) -> None:
        self.flips.append((member.name, member.health))

    def start(self) -> list[bool]:
        """Start; whether each name's answer has come is kept up to date in the list that is returned."""
        answers = self.membership.start()
        came = [False] * len(answers)
        for place, answer in enumerate(answers):
            answer.addCallback(lambda _, place=place: came.__setitem__(place, True))
        self.checker.startService()
        self.net.settle()
        return came

    @property
    def members(self) -> list[tuple[str, str, str]]:
        return [(each.name, each.host, each.health) for each in self.pool.backends]

    def named(self, name: str) -> Backend:
        (found,) = [each for each in self.pool.backends if each.name == name]
        return found


class PutBackTests(TestCase):
    """`ready` after drain and after maint: what was found before is believed no more."""

    def naming(self, **keys: Any) -> Naming:
        naming = Naming("10.0.0.1:80", "10.0.0.2:80", **keys)
        naming.start()
        return naming

    def put(self, naming: Naming, state: str) -> str:
        """The first gets this state; the health that it has then."""
        settings = naming.membership.settings
        first, *others = settings.backends
        backends = (replace(first, state=state), *others)
        naming.membership.apply(replace(settings, backends=backends), None, lambda name: None)
        return naming.pool.backends[0].health

    def test_after_drain(self) -> None:
        """It is unknown, and takes nothing while another is available; a check that begins at once decides."""
        naming = self.naming()
        self.assertEqual(self.put(naming, "drain"), "up")
        count = len(naming.net.dials)
        self.assertEqual(self.put(naming, "ready"), "unknown")
        for _ in range(4):
            lease = naming.pool.pick()
            assert lease is not None
            self.assertEqual(lease.backend.host, "10.0.0.2")
        naming.net.advance(0.2)
        self.assertEqual((naming.pool.backends[0].health, len(naming.net.dials)), ("up", count + 1))

    def test_never_empty(self) -> None:
        """A pool of which all were drained for a moment serves at once."""
        naming = Naming("10.0.0.1:80")
        naming.start()
        self.put(naming, "drain")
        self.assertIsNone(naming.pool.pick())
        self.assertEqual(self.put(naming, "ready"), "unknown")
        self.assertIsNotNone(naming.pool.pick())

    def test_after_maint(self) -> None:
        """The same after maint, in which nothing is checked."""
        naming = self.naming()
        self.assertEqual(self.put(naming, "maint"), "unknown")
        naming.net.answers[80] = BLACK_HOLE
        self.assertEqual(self.put(naming, "ready"), "unknown")
        naming.net.advance(3.0)
        self.assertEqual(naming.pool.backends[0].health, "down")

    def test_ready_again(self) -> None:
        """Who was ready is not doubted for being set so again."""
        self.assertEqual(self.put(self.naming(), "ready"), "up")

    def test_not_checked(self) -> None:
        """Where checks are off it is up at once."""
        naming = self.naming(health_check=None)
        for state in ("drain", "ready", "maint", "ready"):
            health = self.put(naming, state)
        self.assertEqual(health, "up")


class LiteralTests(TestCase):
    def test_literals(self) -> None:
        """Addresses are members as they are written, looked up by nobody, and checked from the start."""
        naming = Naming(backend("127.0.0.1:8001", weight=3), backend("[::1]:8002", backup=True, name="six"))
        self.assertEqual(naming.start(), [])
        self.assertEqual(naming.members, [("127.0.0.1:8001", "127.0.0.1", "up"), ("six", "::1", "up")])
        first, second = naming.pool.backends
        self.assertEqual((first.weight, first.port, second.backup, second.address), (3, 8001, True, "[::1]:8002"))
        self.assertEqual((naming.asked, naming.events), ([], []))

    def test_paths(self) -> None:
        """Unix sockets are members as they are, looked up by nobody."""
        entry = BackendSettings("unix:run/a.sock", "/srv/run/a.sock", 0, "unix:run/a.sock")
        naming = Naming(entry)
        self.assertEqual(naming.start(), [])
        self.assertEqual(naming.members, [("unix:run/a.sock", "/srv/run/a.sock", "up")])
        self.assertEqual((naming.net.dials[0].host, naming.asked), ("/srv/run/a.sock", []))

    def test_answered_at_once(self) -> None:
        """A check that is over as it begins finds the members in the pool: nobody is told that this is empty."""
        naming = Naming("127.0.0.1:8001")
        empty: list[Pool] = []
        naming.pool.on_empty = empty.append

        def ask(pool: Pool, member: Backend, *_: object) -> None:
            member.health = "up"
            pool.refresh()

        naming.checker.add = ask  # type: ignore[method-assign]
        naming.membership.start()
        self.assertEqual((empty, naming.members), ([], [("127.0.0.1:8001", "127.0.0.1", "up")]))

    def test_without_checks(self) -> None:
        """With `health_check: off` they are up from the start."""
        naming = Naming("127.0.0.1:8001", health_check=None)
        naming.start()
        self.assertEqual(naming.members, [("127.0.0.1:8001", "127.0.0.1", "up")])
        self.assertEqual(naming.net.dials, [])

    def test_flapping(self) -> None:
        """CB-5: the pool's own law of flapping is that of each member's checks."""
        for policy in (FlappingPolicy(changes=3), None):
            naming = Naming("127.0.0.1:8001", flapping=policy)
            naming.start()
            (prober,) = naming.checker._probers.values()
            self.assertEqual(prober.flapping and prober.flapping.policy, policy)

    def test_limits(self) -> None:
        """RL-3: each member may have as many requests at one time as its entry says, or any number."""
        naming = Naming(backend("127.0.0.1:8001", max_connections=7), "127.0.0.1:8002")
        naming.start()
        self.assertEqual([each.limit for each in naming.pool.backends], [7, UNLIMITED])

    def test_is_literal(self) -> None:
        """What is an address: of both families, with a scope; nothing else."""
        for host in ("127.0.0.1", "::1", "fe80::1%eth0"):
            self.assertTrue(is_literal(host), host)
        for host in ("localhost", "1.2.3", "db.example", "", "%eth0"):
            self.assertFalse(is_literal(host), host)


class NameTests(TestCase):
    def test_a_member_for_each_address(self) -> None:
        """Each address of a name is a member of its own, with the entry's weight, checked, and told in the event log."""
        naming = Naming("127.0.0.1:1", backend("app.example:80", weight=2, name="app"))
        naming.names = {"app.example": ["10.0.0.1", "10.0.0.2"]}
        self.assertEqual(naming.start(), [True])
        self.assertEqual(
            naming.members,
            [
                ("127.0.0.1:1", "127.0.0.1", "up"),
                ("app@10.0.0.1", "10.0.0.1", "up"),
                ("app@10.0.0.2", "10.0.0.2", "up"),
            ],
        )
        self.assertEqual(
            [(each.weight, each.address) for each in naming.pool.backends[1:]], [(2, "app.example:80")] * 2
        )
        self.assertEqual(
            naming.events,
            [
                ("backend.added", f"web/app@{it}: app.example is {it}", {"pool": "web", "backend": f"app@{it}"})
                for it in ("10.0.0.1", "10.0.0.2")
            ],
        )
        self.assertEqual({dial.host for dial in naming.net.dials}, {"127.0.0.1", "10.0.0.1", "10.0.0.2"})

    def test_changes(self) -> None:
        """Who stays is the same live object, leases and all; who has come is checked; who has gone is not, and takes
        nothing new, but finishes what it has."""
        naming = Naming(backend("app.example:80", name="app"), resolve=10.0)
        naming.names = {"app.example": ["10.0.0.1", "10.0.0.2"]}
        naming.start()
        goes, stays = naming.pool.backends
        leases = [lease for _ in range(2) if (lease := naming.pool.pick()) is not None]
        naming.names = {"app.example": ["10.0.0.3", "10.0.0.2"]}
        del naming.events[:]
        naming.net.advance(10.5)
        self.assertEqual([each.host for each in naming.pool.backends], ["10.0.0.2", "10.0.0.3"])
        self.assertIs(naming.pool.backends[0], stays)
        self.assertEqual(naming.named("app@10.0.0.3").health, "up")
        self.assertEqual(
            naming.events,
            [
                (
                    "backend.removed",
                    "web/app@10.0.0.1: app.example is no longer 10.0.0.1",
                    {"pool": "web", "backend": "app@10.0.0.1"},
                ),
                (
                    "backend.added",
                    "web/app@10.0.0.3: app.example is 10.0.0.3",
                    {"pool": "web", "backend": "app@10.0.0.3"},
                ),
            ],
        )
        self.assertEqual((goes.active, stays.active), (1, 1))
        picked = [lease.backend for _ in range(10) if (lease := naming.pool.pick()) is not None]
        self.assertEqual((len(picked), goes in picked), (10, False))
        for lease in leases:
            lease.release(Outcome.OK)
        self.assertEqual((goes.active, goes.tcp_ok), (0, 1))
        before = goes.checks["success"]
        naming.net.advance(20)
        self.assertEqual(goes.checks["success"], before)
        self.assertGreater(stays.checks["success"], 2)

    def test_last_good_answer(self) -> None:
        """While a name does not resolve any more its members stay."""
        naming = Naming(backend("app.example:80", name="app"), resolve=10.0)
        naming.names = {"app.example": ["10.0.0.1"]}
        naming.start()
        before = naming.pool.backends
        naming.names = {"app.example": OSError("no answer")}
        naming.net.advance(35)
        self.assertEqual(naming.pool.backends, before)
        self.assertEqual((len(naming.asked), len(naming.events)), (4, 1))

    def test_never_resolved(self) -> None:
        """A name that does not resolve stands as one member that is down and takes nothing, until it resolves."""
        naming = Naming(backend("app.example:80", name="app"), resolve=10.0)
        naming.names = {"app.example": OSError("unknown")}
        self.assertEqual(naming.start(), [True])
        self.assertEqual(naming.members, [("app", "", "down")])
        (placeholder,) = naming.pool.backends
        self.assertIsNone(naming.pool.pick())
        self.assertEqual((placeholder.last_check or (None, 0, ""))[2], "name not resolved")
        naming.names = {"app.example": ["10.0.0.1"]}
        naming.net.advance(10.5)
        self.assertEqual(naming.members, [("app@10.0.0.1", "10.0.0.1", "up")])
        self.assertEqual([event for event, _, _ in naming.events], ["backend.added"])
        before = dict(placeholder.checks)
        naming.net.advance(20)
        self.assertEqual(placeholder.checks, before)

    def test_never_resolved_without_checks(self) -> None:
        """The same with `health_check: off`: down until there is somebody to ask."""
        naming = Naming(backend("app.example:80", name="app"), health_check=None, resolve=10.0)
        naming.names = {"app.example": OSError("unknown")}
        naming.start()
        self.assertEqual(naming.members, [("app", "", "down")])
        naming.names = {"app.example": ["10.0.0.1"]}
        naming.net.advance(10.5)
        self.assertEqual(naming.members, [("app@10.0.0.1", "10.0.0.1", "up")])

    def test_order(self) -> None:
        """Members stand in the order of the configuration, whoever is resolved first."""
        naming = Naming(backend("b.example:80", name="b"), "127.0.0.1:1", backend("a.example:80", name="a"))
        naming.names = {"a.example": ["10.0.0.1"], "b.example": None}
        naming.start()
        naming.waiting["b.example"].callback(["10.0.0.2"])
        self.assertEqual([each.name for each in naming.pool.backends], ["b@10.0.0.2", "127.0.0.1:1", "a@10.0.0.1"])

    def test_once(self) -> None:
        """With `resolve: off` a name is looked up once."""
        naming = Naming(backend("app.example:80", name="app"), resolve=None)
        naming.names = {"app.example": ["10.0.0.1"]}
        naming.start()
        naming.net.advance(100, step=1)
        self.assertEqual(naming.asked, ["app.example"])


class StartTests(TestCase):
    def test_who_is_awaited(self) -> None:
        """Each name is awaited until it has an answer; whoever it stands for is awaited by the checker then."""
        naming = Naming(backend("app.example:80", name="app"), backend("db.example:80", name="db"))
        naming.names = {"app.example": None, "db.example": ["10.0.0.9"]}
        naming.net.answers[80] = "black hole"
        came = naming.start()
        self.assertEqual(came, [False, True])
        naming.waiting["app.example"].callback(["10.0.0.1"])
        self.assertEqual(came, [True, True])
        asked: list[None] = []
        naming.checker.everyone_asked().addCallback(asked.append)
        naming.net.advance(1.5)
        self.assertEqual(asked, [])
        naming.net.advance(1)
        self.assertEqual(asked, [None])

    def test_patience(self) -> None:
        """A name that has no answer in the time of a check is not waited for any longer, and is a member when it has."""
        for check, patience in ((HealthCheckPolicy(timeout=4.0), 4.0), (None, 2.0)):
            naming = Naming(backend("app.example:80", name="app"), health_check=check)
            naming.names = {"app.example": None}
            came = naming.start()
            naming.net.advance(patience - 0.2)
            self.assertEqual(came, [False])
            naming.net.advance(0.4)
            self.assertEqual(came, [True])
            naming.waiting["app.example"].callback(["10.0.0.1"])
            naming.net.settle()
            self.assertEqual(naming.members, [("app@10.0.0.1", "10.0.0.1", "up")])

    def test_stop(self) -> None:
        """After a stop nothing changes any more, nothing is looked up, and no timer is left."""
        naming = Naming(backend("app.example:80", name="app"), backend("db.example:80", name="db"), health_check=None)
        naming.names = {"app.example": None, "db.example": ["10.0.0.9"]}
        naming.start()
        before = naming.members
        naming.membership.stop()
        naming.waiting["app.example"].callback(["10.0.0.1"])
        naming.names["db.example"] = ["10.0.0.8"]
        naming.net.advance(30)
        self.assertEqual((naming.members, len(naming.asked)), (before, 2))
        self.assertEqual(naming.clock.getDelayedCalls(), [])
