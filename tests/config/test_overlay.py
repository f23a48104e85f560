"""Run-time changes over a file: each kind of change, what takes it back, what is refused, and how it is written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.config import changing, overlay
from lbsvc.config.overlay import Exists, Overrides, Unknown, Wrong
from lbsvc.config.schema import BackendSettings, MemberSettings, PoolSettings, Settings
from lbsvc.core.policies import HealthCheckPolicy
from tests.config import reading
from tests.kit.builders import backend

A, B, NEW = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"
NAMED = "{name: app, address: 'app.example:80'}"


def load(backends: str = f"'{A}', '{B}'", more: str = "", protocol: str = "http") -> Settings:
    return reading.settings(
        f"listeners: {{main: {{bind: ':8080', protocol: {protocol}, pool: web}}}}\n"
        f"pools: {{web: {{backends: [{backends}]{more}}}, other: {{backends: ['10.1.0.1:80']}}}}\n"
    )


class Service:
    """A configuration in force, and the calls that change it."""

    def __init__(self, file: Settings | None = None) -> None:
        self.file = self.effective = file or load()
        self.overrides = Overrides()

    def call(self, what: str, *given: Any) -> Service:
        """`call("set_weight", "a", 3)`: on the pool web."""
        wanted = getattr(overlay, what)(self.effective, self.overrides, "web", *given)
        self.effective, self.overrides = overlay.apply(self.file, wanted)
        return self

    def reload(self, file: Settings) -> Service:
        self.file = file
        self.effective, self.overrides = overlay.apply(file, self.overrides)
        return self

    @property
    def pool(self) -> PoolSettings:
        return self.effective.pools["web"]

    @property
    def check(self) -> HealthCheckPolicy | None:
        return self.pool.health_check

    def backend(self, name: str) -> BackendSettings:
        return {entry.name: entry for entry in self.pool.backends}[name]

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.pool.backends]


class Case(TestCase):
    def refused(self, kind: type[Exception], service: Service, what: str, *given: Any) -> str:
        before = service.overrides
        with self.assertRaises(kind) as refused:
            service.call(what, *given)
        self.assertIs(service.overrides, before)
        return str(refused.exception)


class BackendTests(Case):
    def test_nothing(self) -> None:
        """Without changes the file's settings are what is in force: the same object."""
        file = load()
        self.assertIs(overlay.apply(file, Overrides())[0], file)
        service = Service(file).call("set_weight", A, 3).call("set_weight", A, 1)
        self.assertIs(service.effective, file)
        self.assertTrue(service.overrides.is_empty)

    def test_others_are_untouched(self) -> None:
        """What has no change on it is the file's own object."""
        service = Service().call("set_weight", A, 3)
        self.assertIs(service.effective.pools["other"], service.file.pools["other"])
        self.assertIs(service.pool.backends[1], service.file.pools["web"].backends[1])
        self.assertIs(service.effective.listeners, service.file.listeners)

    def test_weight(self) -> None:
        """A weight outlives another file, marked as run-time, until the file has another for this backend."""
        service = Service().call("set_weight", A, 3).reload(load(f"'{A}', '10.0.0.3:80'"))
        self.assertEqual((service.backend(A).weight, service.backend(A).source), (3, "runtime"))
        service.reload(load(f"{{address: '{A}', weight: 2}}"))
        self.assertEqual((service.backend(A).weight, service.backend(A).source), (2, "config"))
        self.assertTrue(service.overrides.is_empty)

    def test_state(self) -> None:
        """A state outlives what the file changes about the backend, and goes with it."""
        service = Service().call("set_state", A, "drain").reload(load(f"{{address: '{A}', weight: 2}}"))
        self.assertEqual((service.backend(A).state, service.backend(A).weight), ("drain", 2))
        service.reload(load(f"'{B}'")).reload(load())
        self.assertEqual((service.backend(A).state, service.overrides), ("ready", Overrides()))

    def test_add(self) -> None:
        """An added backend stands last, outlives a reload, and is the file's once that has it, but for its state."""
        service = Service().call("add", backend(NEW, weight=5)).call("set_state", NEW, "maint")
        self.assertEqual(service.names, [A, B, NEW])
        self.assertEqual(service.backend(NEW), backend(NEW, weight=5, source="runtime", state="maint"))
        service.reload(load(f"'{NEW}', '{A}'"))
        self.assertEqual(service.pool.backends[0], backend(NEW, source="runtime", state="maint"))
        self.assertEqual(service.call("set_state", NEW, "ready").overrides, Overrides())

    def test_add_in_a_state(self) -> None:
        """A backend can come drained."""
        service = Service().call("add", backend(NEW, state="drain"))
        self.assertEqual(service.backend(NEW).state, "drain")
        self.refused(Wrong, service, "add", backend("10.0.0.8:80", state="up"))

    def test_file_takes_the_address(self) -> None:
        """An added backend goes when the file has its address under another name."""
        service = Service().call("add", backend(NEW, name="new")).reload(load(f"{{name: n, address: '{NEW}'}}"))
        self.assertEqual((service.names, service.overrides), (["n"], Overrides()))

    def test_exists(self) -> None:
        """Neither a name nor an address can be had twice, nor a name that a member might have."""
        service = Service(load(f"'{A}', {NAMED}, {{name: 'two@10.0.0.7', address: '10.0.0.7:80'}}"))
        for entry, what in (
            (backend(A, name="x"), f"the address {A}"),
            (backend(NEW, name=A), f"the name {A}"),
            (backend(NEW, name="app@10.0.0.3"), "the name app@10.0.0.3"),
            (replace(backend(NEW, name="two"), host="two.example"), "the name two@10.0.0.7, which a member of two"),
        ):
            self.assertIn(f"pool web has {what}", self.refused(Exists, service, "add", entry))
        self.refused(Exists, service.call("add", backend(NEW)), "add", backend(NEW))

    def test_remove(self) -> None:
        """A removal outlives reloads, with what was set before it forgotten, until the file no longer has the entry."""
        service = Service().call("set_weight", A, 3).call("set_state", A, "drain").call("remove", A)
        self.assertEqual(service.names, [B])
        service.reload(load(f"{{address: '{A}', weight: 7}}, '{B}'"))
        self.assertEqual(service.names, [B])
        service.reload(load(f"'{B}'")).reload(load())
        self.assertEqual((service.effective, service.overrides), (service.file, Overrides()))

    def test_remove_an_added_one(self) -> None:
        """To remove what was added takes the addition back."""
        service = Service().call("add", backend(NEW)).call("set_weight", NEW, 3).call("remove", NEW)
        self.assertEqual(service.overrides, Overrides())

    def test_last_one(self) -> None:
        """The last backend of a pool can be removed: the pool has none then."""
        self.assertEqual(Service().call("remove", A).call("remove", B).pool.backends, ())

    def test_add_again(self) -> None:
        """A removed backend that is added as the file has it is the file's again, in its place, weight and all."""
        service = Service().call("set_weight", A, 3).call("remove", A)
        wanted = overlay.add(service.effective, service.overrides, "web", backend(A))
        self.assertEqual(wanted, Overrides())
        self.assertIs(service.call("add", backend(A)).effective, service.file)

    def test_add_another_in_its_place(self) -> None:
        """What was added under a removed one's name takes over what the file changes about that one, and nothing else."""
        service = Service().call("remove", A).call("add", backend(A, weight=5, backup=True))
        self.assertEqual(service.names, [B, A])
        service.reload(load(f"{{address: '{A}', weight: 2}}, '{B}'"))
        self.assertEqual(service.backend(A), backend(A, weight=2, backup=True, source="runtime"))
        service.reload(load(f"{{address: '{A}', weight: 2, backup: true}}, '{B}'"))
        self.assertEqual((service.names, service.overrides), ([A, B], Overrides()))

    def test_moved_by_the_file(self) -> None:
        """Under the same name at another address: its weight and state stay, its removal does not."""
        service = Service(load(f"{{name: a, address: '{A}'}}, {{name: b, address: '{B}'}}"))
        service.call("set_weight", "a", 3).call("remove", "b")
        service.reload(load(f"{{name: a, address: '{NEW}'}}, {{name: b, address: '10.0.0.8:80'}}"))
        self.assertEqual(service.names, ["a", "b"])
        self.assertEqual((service.backend("a").address, service.backend("a").weight), (NEW, 3))

    def test_pool_goes(self) -> None:
        """The changes of a pool go with it."""
        service = Service().call("set_weight", A, 3).call("add", backend(NEW)).call("set_health", {"rise": 9})
        service.reload(reading.settings("listeners: {main: {bind: ':8080', routes: [{deny: 403}]}}"))
        self.assertEqual(service.overrides, Overrides())
        self.assertIs(service.effective, service.file)

    def test_unknown(self) -> None:
        """What is not there cannot be changed."""
        service = Service(load(f"'{A}', {NAMED}"))
        for name in ("x", "x@10.0.0.1", f"{A}@10.0.0.1", "app@", "app@x", "app@10.0.0.01", "@", ""):
            for what, given in (("set_weight", (1,)), ("set_state", ("maint",)), ("remove", ())):
                self.assertEqual(self.refused(Unknown, service, what, name, *given), f"pool web has no backend {name}")
        with self.assertRaisesRegex(Unknown, "there is no pool x"):
            overlay.add(service.effective, service.overrides, "x", backend(NEW))

    def test_wrong(self) -> None:
        """Weights and states have their bounds."""
        service = Service()
        for weight in (-1, 65536, True, 1.0, "1", None):
            self.refused(Wrong, service, "set_weight", A, weight)
        self.assertEqual(self.refused(Wrong, service, "set_state", A, "down"), "state: must be ready, drain or maint")

    def test_few_steps(self) -> None:
        """Ten changes over a thousand backends copy what they are about, and nothing else."""
        service = Service(load(", ".join(f"'10.2.{n // 250}.{n % 250}:80'" for n in range(1000))))
        for n in range(5):
            service.call("set_weight", f"10.2.1.{n}:80", 3).call("add", backend(f"10.3.0.{n}:80"))
        copied: list[str] = []

        def counted(thing: Any, **changes: Any) -> Any:
            copied.append(type(thing).__name__)
            return replace(thing, **changes)

        self.patch(overlay, "replace", counted)
        overlay.apply(service.file, service.overrides)
        self.assertEqual(sorted(copied), [*["BackendSettings"] * 5, "PoolSettings", "Settings"])


class MemberTests(Case):
    def setUp(self) -> None:
        self.service = Service(load(f"{NAMED}, '{A}'"))

    def test_members(self) -> None:
        """One address of a host name has a weight and a state of its own, by its canonical name."""
        self.service.call("set_state", "app@::1", "maint").call("set_weight", "app@10.0.0.1", 3)
        entry = self.service.call("set_weight", "app@::1", 0).backend("app")
        members = (MemberSettings("app@10.0.0.1", 3), MemberSettings("app@::1", 0, "maint"))
        self.assertEqual((entry.members, entry.weight, entry.source), (members, 1, "runtime"))

    def test_the_last_word(self) -> None:
        """What is set for the entry is set for its members; what says the same as the entry is not kept."""
        self.service.call("set_weight", "app@10.0.0.1", 3).call("set_state", "app@10.0.0.1", "maint")
        self.service.call("set_weight", "app", 5).call("set_state", "app", "drain")
        self.assertEqual(self.service.backend("app").members, ())
        self.service.call("set_weight", "app@10.0.0.1", 5).call("set_state", "app@10.0.0.2", "ready")
        self.assertEqual(self.service.backend("app").members, (MemberSettings("app@10.0.0.2", None, "ready"),))

    def test_file_wins(self) -> None:
        """Another weight of the entry in the file is that of its members; their states stay."""
        self.service.call("set_weight", "app@10.0.0.1", 3).call("set_state", "app@10.0.0.1", "maint")
        self.service.reload(load("{name: app, address: 'app.example:80', weight: 2}"))
        self.assertEqual(self.service.backend("app").members, (MemberSettings("app@10.0.0.1", None, "maint"),))

    def test_file_takes_over(self) -> None:
        """What was set for members of one that was added goes when the file takes it over, but for states."""
        two = replace(backend("two.example:80"), name="app", host="two.example")
        self.service.call("remove", "app").call("add", two).call("set_weight", "app@10.0.0.1", 3)
        self.service.call("set_state", "app@10.0.0.1", "maint").reload(load(f"{NAMED}, '{A}', '{B}'"))
        self.assertEqual(self.service.backend("app").members, (MemberSettings("app@10.0.0.1", 3, "maint"),))
        self.service.reload(load("{name: app, address: 'three.example:80'}"))
        self.assertEqual(self.service.backend("app").members, (MemberSettings("app@10.0.0.1", None, "maint"),))

    def test_remove(self) -> None:
        """A member cannot be removed, for its name would bring it again; with its entry what was set for it goes."""
        message = self.refused(Wrong, self.service, "remove", "app@10.0.0.1")
        self.assertEqual(
            message, "app@10.0.0.1 is an address of app, and comes again: remove app, or set app@10.0.0.1 to maint"
        )
        self.service.call("set_state", "app@10.0.0.1", "maint").call("remove", "app")
        self.assertEqual(self.service.overrides.of("web").states, ())

    def test_bounded(self) -> None:
        """So many addresses that come and go cannot fill the memory; the entry itself can still be set."""
        self.patch(changing, "MOST_MEMBERS", 2)
        for n in (1, 2):
            self.service.call("set_state", f"app@10.0.0.{n}", "maint")
        self.service.call("set_weight", "app@10.0.0.2", 3)
        self.assertIn("set app", self.refused(Wrong, self.service, "set_state", "app@10.0.0.3", "maint"))
        self.service.call("set_state", "app", "maint").call("set_weight", "app@10.0.0.2", 4)
