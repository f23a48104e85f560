"""Other settings for all workers or for none, whatever each of them does, and in whatever order."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any, cast

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.python.monkey import MonkeyPatcher
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.schema import Settings
from lbsvc.errors import SystemRefusal
from lbsvc.relistening import ListenersPlan
from lbsvc.workers import messages
from lbsvc.workers.following import PATIENCE, Following
from lbsvc.workers.member import LEAVING, SERVING, STARTING
from lbsvc.workers.messages import unpack_settings
from tests.workers.acting import Actor, Play, settings_of

FATES = ("prepares", "refuses", "dies", "is silent")


class Change:
    """One, as reloading.py makes it: it commits if all have prepared, and else abandons."""

    def __init__(self, play: Play, following: Following, settings: Settings) -> None:
        self.following = following
        self.settings = settings
        self.words: list[str] | None = None  # why not
        self.is_prepared = False
        self.is_over = False
        following.prepare(settings, []).addCallbacks(self._prepared, self._refused)

    def _prepared(self, _: object) -> None:
        self.is_prepared = True

    def _refused(self, failure: Any) -> None:
        failure.trap(SystemRefusal)
        self.words = [each.message for each in failure.value.mistakes]

    def end(self) -> None:
        """Commit, or abandon."""
        if self.is_prepared:
            self.following.commit(self.settings, {("web", "a"): 2.0}).addCallback(self._committed)
        else:
            self.following.abandon()
            self.is_over = True

    def _committed(self, _: object) -> None:
        self.is_over = True


class FollowingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin(3)

    def begin(self, workers: int) -> None:
        self.play = Play(self, workers)
        self.crew = self.play.crew
        self.actors = self.play.begin()
        self.following = Following(self.crew)

    def change(self, workers: int = 3, **keys: Any) -> Change:
        return Change(self.play, self.following, settings_of(workers, watch=True, **keys))

    def in_force(self, actor: Actor) -> Settings:
        """What one that has begun lives by."""
        return unpack_settings(actor.last(messages.Begin).settings)


class StepsTests(FollowingCase):
    def test_every_order(self) -> None:
        """Whoever of three prepares, refuses, dies or is silent, and in which order: it comes for all that live, or none."""
        for fates in product(FATES, repeat=3):
            for order in permutations(range(3)):
                with self.subTest(fates=fates, order=order):
                    self.begin(3)
                    self.meet(fates, order)

    def meet(self, fates: tuple[str, ...], order: tuple[int, ...]) -> None:
        change = self.change()
        for place in order:
            actor, fate = self.actors[place], fates[place]
            if fate == "prepares":
                actor.prepared()
            elif fate == "refuses":
                actor.prepared(f"no, says {place}")
            elif fate == "dies":
                actor.die()
        self.play.clock.advance(PATIENCE)
        is_to_be = not {"refuses", "is silent"} & set(fates)
        self.assertEqual((change.is_prepared, change.words is None), (is_to_be, is_to_be))
        for place, fate in enumerate(fates):
            said = any(
                words in " ".join(change.words or ()) for words in (f"says {place}", f"worker {place + 1} has not")
            )
            self.assertEqual(said, fate in ("refuses", "is silent"))
        change.end()
        living = [actor for actor, fate in zip(self.actors, fates, strict=True) if fate != "dies"]
        for actor in living:
            counts = len(actor.all(messages.Commit)), len(actor.all(messages.Abandon))
            self.assertEqual(counts, (1, 0) if is_to_be else (0, 1))
            if is_to_be:
                actor.committed()
        self.assertTrue(change.is_over)
        self.play.clock.advance(1.0)
        for actor in self.play.there:
            if actor not in living:  # in place of one that has died
                self.assertEqual(self.in_force(actor).watch, is_to_be)
        self.assertEqual(len(self.play.there), 3)

    def test_what_is_asked(self) -> None:
        """The question has the settings and the sockets that are new; the answer to it what is to be cut, and when."""
        self.patch(ListenersPlan, "opened", [("127.0.0.1:0", ["a socket"])])
        new = settings_of(3, watch=True)
        prepared: Deferred[None] = self.following.prepare(
            new, [cast(Any, object()), ListenersPlan.__new__(ListenersPlan)]
        )
        for actor in self.actors:
            self.assertEqual(actor.given, [("127.0.0.1:0", ["a socket"])])
            self.assertEqual(unpack_settings(actor.last(messages.Prepare).settings), new)
            actor.prepared()
        self.successResultOf(prepared)
        committed = self.following.commit(new, {("web", "a"): None})
        self.assertEqual(self.actors[0].last(messages.Commit).drains, [("web", "a", None)])
        for actor in self.actors:
            self.assertNoResult(committed)
            actor.committed()
        self.successResultOf(committed)

    def test_who_does_not_commit(self) -> None:
        """One that has prepared and does not commit is killed; one that dies then is not waited for. It is in force."""
        change = self.change()
        for actor in self.actors:
            actor.prepared()
        change.end()
        one, two, three = self.actors
        one.committed()
        two.die()
        self.assertFalse(change.is_over)
        self.play.clock.advance(PATIENCE)
        self.assertEqual((change.is_over, three.is_killed, one.is_killed), (True, True, False))
        (new,) = [actor for actor in self.play.there if actor not in self.actors]
        self.assertTrue(self.in_force(new).watch)

    def test_nobody_there(self) -> None:
        """With nobody to ask the change is made, and whoever comes next lives by it."""
        for actor in self.actors:
            actor.die()
        change = self.change()
        self.assertTrue(change.is_prepared)
        change.end()
        self.assertTrue(change.is_over)
        self.play.clock.advance(1.0)
        self.assertTrue(all(self.in_force(actor).watch for actor in self.play.there))

    def test_who_comes_meanwhile(self) -> None:
        """One that is started during a change begins when it is over, by what has come of it; if it dies before, nothing."""
        change = self.change()
        new, other = self.crew.spawn(1), self.crew.spawn(2)
        fresh = [cast(Actor, each) for each in (new, other)]
        self.assertEqual([each.told for each in fresh], [[], []])
        fresh[1].die()
        for actor in self.actors:
            actor.prepared()
        change.end()
        self.assertTrue(self.in_force(fresh[0]).watch)
        self.assertEqual(fresh[1].told, [])

    def test_one_that_begins(self) -> None:
        """One that has been told to begin follows the change like those that serve."""
        new = cast(Actor, self.crew.spawn(1))
        self.change()
        self.assertEqual([type(each) for each in new.told], [messages.Begin, messages.Prepare])

    def test_another_number(self) -> None:
        """There are as many as the settings say when they are in force: fewer of those that are too many, or more."""
        for workers, there in ((5, 5), (2, 2)):
            change = self.change(workers)
            for actor in self.play.there:
                if actor.state != LEAVING:
                    actor.prepared()
            change.end()
            for actor in self.play.there:
                if actor.state == STARTING:
                    actor.serve()
            stay = sorted(actor.place for actor in self.play.there if actor.state == SERVING)
            self.assertEqual(stay, list(range(1, there + 1)))
            self.assertTrue(self.crew.is_complete)
            for actor in self.play.there:
                if actor.state == LEAVING:
                    actor.die("it has ended")


class Life(RuleBasedStateMachine):
    """Anything in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = MonkeyPatcher()
        self.play = Play(self, 2)
        self.following = Following(self.play.crew)
        self.change: Change | None = None
        self.play.begin()
        self.in_force = self.play.settings
        self.generation = 0

    def patch(self, *what: Any) -> None:
        self.patches.addPatch(*what)
        self.patches.patch()

    def teardown(self) -> None:
        self.patches.restore()

    def pick(self, number: int) -> Actor | None:
        there = self.play.there
        return there[number % len(there)] if there else None

    @precondition(lambda self: self.change is None)
    @rule(workers=st.integers(2, 4))
    def ask(self, workers: int) -> None:
        self.generation += 1
        self.change = Change(self.play, self.following, settings_of(workers, state_file=f"/run/{self.generation}"))

    @precondition(lambda self: self.change is not None)
    @rule()
    def end(self) -> None:
        change = self.change
        assert change is not None
        if not change.is_prepared and change.words is None:
            self.play.clock.advance(PATIENCE)
        assert change.is_prepared or change.words
        if change.is_prepared:
            self.in_force = change.settings
        change.end()
        self.change = None

    @rule(number=st.integers(0, 9))
    def die(self, number: int) -> None:
        if actor := self.pick(number):
            actor.die()

    @rule(number=st.integers(0, 9))
    def serve(self, number: int) -> None:
        actor = self.pick(number)
        if actor and actor.state == STARTING and actor.all(messages.Begin):
            actor.serve()

    @rule(number=st.integers(0, 9), is_well=st.booleans())
    def prepare(self, number: int, is_well: bool) -> None:
        actor = self.pick(number)
        if actor and actor.all(messages.Prepare):
            actor.prepared(*([] if is_well else ["no"]))

    @rule(number=st.integers(0, 9))
    def commit(self, number: int) -> None:
        actor = self.pick(number)
        if actor and actor.all(messages.Commit):
            actor.committed()

    @rule(number=st.integers(0, 9))
    def see_off(self, number: int) -> None:
        actor = self.pick(number)
        if actor and actor.state == SERVING:
            self.play.crew.spawn(actor.place)
            self.play.crew.see_off(cast(Any, actor))

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.play.clock.advance(seconds)

    @invariant()
    def everybody_lives_by_what_is_in_force(self) -> None:
        """Who serves, and is not under way to other settings, was last told those that are in force."""
        if self.change is not None:
            return
        for actor in self.play.there:
            if actor.state == LEAVING:
                continue
            lives_by: list[bytes] = []
            prepared: dict[int, bytes] = {}
            for message in actor.told:
                if isinstance(message, messages.Begin):
                    lives_by.append(message.settings)
                elif isinstance(message, messages.Prepare):
                    prepared[message.number] = message.settings
                elif isinstance(message, messages.Commit):
                    lives_by.append(prepared[message.number])
            assert unpack_settings(lives_by[-1]) == self.in_force

    @invariant()
    def nothing_is_changed_before_they_accept(self) -> None:
        """Whoever serves was told to accept, once, and before any change came to be in force."""
        for actor in self.play.there:
            told = [type(each) for each in actor.told]
            if actor.state == SERVING:
                assert told.count(messages.Accept) == 1
            assert messages.Commit not in told or messages.Accept in told[: told.index(messages.Commit)]

    @invariant()
    def there_is_somebody_at_each_place(self) -> None:
        """Or somebody is on the way."""
        crew = self.play.crew
        if self.change is None:
            there = {each.place for each in crew.those(STARTING, SERVING)} | crew._vacancies.places
            assert there >= set(range(1, crew.count + 1)), (there, crew.count)


class LifeTests(SynchronousTestCase):
    def test_anything_in_any_order(self) -> None:
        """Whatever happens in whatever order, everybody who stays lives by the settings in force, no place is given up."""
        run_state_machine_as_test(
            Life, settings=hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
        )
