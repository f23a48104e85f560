"""What a worker knows of backends and names is what it was told, and from when on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.core.backend import Backend
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.workers.hearsay import Hearsay, Names, Unresolved
from lbsvc.workers.messages import Verdict

POLICY = HealthCheckPolicy()


class Sorted:
    """A pool, as far as it is sorted anew."""

    def __init__(self) -> None:
        self.times = 0

    def refresh(self) -> None:
        self.times += 1


def verdict(name: str, health: str, address: str = "10.0.0.1:80") -> Verdict:
    return Verdict("web", name, address, health, (health == "up", 1.5, "words"))


class HearsayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hearsay = Hearsay()
        self.pool: Any = Sorted()

    def make(self, name: str, address: str = "10.0.0.1:80") -> Backend:
        backend = Backend("web", name, address, *address.split(":")[:1], 80)
        self.hearsay.add(self.pool, backend, POLICY)
        return backend

    def test_before_it_is_there(self) -> None:
        """What was told of a backend holds for it when it is made; of another address nothing was told."""
        self.hearsay.hear([verdict("a", "down")])
        one, other = self.make("a"), self.make("a", "10.0.0.2:80")
        self.assertEqual((one.health, one.last_check), ("down", (False, 1.5, "words")))
        self.assertEqual((other.health, other.last_check), ("unknown", None))
        self.assertEqual(self.pool.times, 0)

    def test_while_it_is_there(self) -> None:
        """It holds at once, and its pool is sorted anew, once for all that was told together."""
        one, two = self.make("a"), self.make("b")
        self.hearsay.hear([verdict("a", "up"), verdict("b", "down"), verdict("c", "up")])
        self.assertEqual((one.health, two.health, self.pool.times), ("up", "down", 1))
        self.assertTrue(self.hearsay.revise(one, POLICY))
        self.hearsay.recheck(one)
        self.assertEqual(one.health, "up")

    def test_trusted_again(self) -> None:
        """Who is told to be back is no longer suspected of being out of reach; who is told to be up still is."""
        one = self.make("a")
        for was, is_suspect in (("down", False), ("up", True)):
            one.health, one.is_suspect = was, True
            self.hearsay.hear([verdict("a", "up")])
            self.assertIs(one.is_suspect, is_suspect)

    def test_maint(self) -> None:
        """Of one that people have taken out nothing is known."""
        one = self.make("a")
        one.state = "maint"
        self.hearsay.hear([verdict("a", "up")])
        self.assertEqual(one.health, "unknown")

    def test_removed(self) -> None:
        """One that is checked no more is told of no more; when it comes back it is unknown, until it is told anew."""
        one = self.make("a")
        self.hearsay.hear([verdict("a", "up")])
        self.hearsay.remove(one)
        self.hearsay.hear([verdict("b", "down")])
        self.assertFalse(self.hearsay.revise(one, POLICY))
        again = self.make("a")
        self.assertEqual(again.health, "unknown")
        self.hearsay.remove(one)  # the former object: nobody's any more
        self.hearsay.hear([verdict("a", "down")])
        self.assertEqual((again.health, one.health), ("down", "up"))

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["add", "remove", "up", "down"])), max_size=20))
    def test_last_word(self, steps: list[tuple[str, str]]) -> None:
        """Whoever is there is as it was told last since somebody of that name was removed."""
        hearsay, there, told = Hearsay(), dict[str, Backend](), dict[str, str]()
        for name, step in steps:
            if step == "add" and name not in there:
                there[name] = Backend("web", name, "10.0.0.1:80", "10.0.0.1", 80)
                hearsay.add(self.pool, there[name], POLICY)
            elif step == "remove" and name in there:
                hearsay.remove(there.pop(name))
                told.pop(name, None)
            elif step in ("up", "down"):
                told[name] = step
                hearsay.hear([verdict(name, step)])
            for each, backend in there.items():
                self.assertEqual(backend.health, told.get(each, "unknown"))


class NamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.names = Names()

    def test_known(self) -> None:
        """A name that was told of is answered at once, with what was told last, and nobody can change that."""
        self.names.hear("a.example", ["10.0.0.1"])
        self.names.hear("a.example", ["10.0.0.2"])
        self.successResultOf(self.names.lookup("a.example")).append("10.0.0.9")
        self.assertEqual(self.successResultOf(self.names.lookup("a.example")), ["10.0.0.2"])

    def test_awaited(self) -> None:
        """Others are answered when they are told of, all who have asked; one who has gone is not missed."""
        asked = [self.names.lookup("a.example") for _ in range(3)]
        self.assertNoResult(asked[0])
        asked[1].cancel()
        self.failureResultOf(asked[1])
        self.names.hear("b.example", ["10.0.0.2"])
        self.names.hear("a.example", ["10.0.0.1"])
        self.assertEqual([self.successResultOf(each) for each in (asked[0], asked[2])], [["10.0.0.1"]] * 2)

    def test_not_to_be_had(self) -> None:
        """A name that could not be looked up fails for those who wait; what was known before stays known."""
        asked = self.names.lookup("a.example")
        self.names.hear("a.example", [])
        self.failureResultOf(asked, Unresolved)
        self.names.hear("a.example", ["10.0.0.1"])
        self.names.hear("a.example", [])
        self.assertEqual(self.successResultOf(self.names.lookup("a.example")), ["10.0.0.1"])
