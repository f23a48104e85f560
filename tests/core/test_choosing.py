"""Who gets a place, who waits for one, and who is told that there is none, where backends have limits."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import find_lease, must_wait
from lbsvc.core.lease import Lease
from lbsvc.core.pool import Pool
from tests.core.members import member, pool_of


def full(pool: Pool, backend: Backend) -> Lease:
    """A backend with a single place, taken."""
    backend.most = backend.limit = 1
    pool.refresh()
    lease = pool.take(backend)
    assert lease is not None
    return lease


class Waiting:
    """One who waits in the queue, for anybody or for his own backend."""

    def __init__(self, pool: Pool, home: Backend | None = None) -> None:
        self.pool = pool
        self.home = home
        self.lease: Lease | None = None
        self.ticket = pool.queue.enter(self.take)

    def take(self) -> bool:
        self.lease = find_lease(self.pool, (), None, self.home, True, waits_for_home=True)
        return self.lease is not None


class ChoosingTests(TestCase):
    def setUp(self) -> None:
        self.a, self.b = member("a"), member("b")
        self.pool = pool_of([self.a, self.b])
        self.pool.queue.size = 10

    def on_trial(self, backend: Backend) -> None:
        """Its circuit is half open, and the trial is under way."""
        backend.circuit = "half_open"
        full(self.pool, backend)

    def test_nobody_waits_for_what_others_wait_for(self) -> None:
        """Who waits for his own backend holds up nobody who is served by another that has room."""
        full(self.pool, self.a)
        Waiting(self.pool, self.a)
        lease = find_lease(self.pool, (), None, None, False)
        assert lease is not None
        self.assertIs(lease.backend, self.b)

    def test_nobody_overtakes(self) -> None:
        """While somebody waits for anybody, who comes gets nothing before him."""
        lease = full(self.pool, self.a)
        full(self.pool, self.b)
        first = Waiting(self.pool)
        self.assertIsNone(find_lease(self.pool, (), None, None, False))
        self.assertTrue(must_wait(self.pool))
        lease.release(Outcome.OK, 200)
        assert first.lease is not None
        self.assertIs(first.lease.backend, self.a)

    def test_no_place_from_within_a_turn(self) -> None:
        """Who comes while those who wait are being asked does not take what the next of them may want."""
        lease = full(self.pool, self.a)
        full(self.pool, self.b)
        came: list[Lease | None] = []

        def come() -> bool:
            came.append(find_lease(self.pool, (), None, None, False))
            return False

        self.pool.queue.enter(come)
        second = Waiting(self.pool)
        lease.release(Outcome.OK, 200)
        self.assertEqual(came, [None])
        self.assertIsNotNone(second.lease)

    def test_backups_while_the_others_are_on_trial(self) -> None:
        """Requests beyond the trials of a half-open circuit go to the backups, as all did while it was open."""
        self.b.backup = True
        self.on_trial(self.a)
        lease = find_lease(self.pool, (), None, None, False)
        assert lease is not None
        self.assertIs(lease.backend, self.b)

    def test_backups_that_are_busy_while_the_others_are_on_trial(self) -> None:
        """Such a backup is waited for while it is at its limit, and a place of it that a change makes is given at once."""
        self.b.backup = True
        self.on_trial(self.a)
        full(self.pool, self.b)
        self.assertTrue(must_wait(self.pool))
        waiting = Waiting(self.pool)
        self.b.most = self.b.limit = 2
        self.pool.refresh()
        assert waiting.lease is not None
        self.assertIs(waiting.lease.backend, self.b)

    def test_one_of_two_backups_gets_a_place(self) -> None:
        """The same where another backup stays busy: whoever waits gets the place that a change makes."""
        c = member("c", backup=True)
        self.b.backup = True
        self.pool.set_members([self.a, self.b, c])
        self.on_trial(self.a)
        full(self.pool, self.b)
        full(self.pool, c)
        self.assertFalse(self.pool.has_room)
        waiting = [Waiting(self.pool) for _ in range(2)]
        c.most = c.limit = 3
        self.pool.refresh()
        self.assertEqual([each.lease and each.lease.backend for each in waiting], [c, c])

    def test_room_below_while_others_wait_for_their_own(self) -> None:
        """Beside one who waits for his own backend another is served by a backup at once, while the others are on trial."""
        home, backup = member("c"), member("d", backup=True)
        self.pool.set_members([self.a, home, backup])
        self.on_trial(self.a)
        full(self.pool, home)
        home.state = "drain"  # it serves its own clients alone
        self.pool.refresh()
        waiting = Waiting(self.pool, home)
        self.assertIsNone(waiting.lease)
        self.assertTrue(self.pool.has_room)
        lease = find_lease(self.pool, (), None, None, False)
        assert lease is not None
        self.assertIs(lease.backend, backup)

    def test_a_retry_does_not_stand_behind_the_queue(self) -> None:
        """Who has tried the backend that all others wait for goes to a backup at once: it is of no use to them."""
        self.b.backup = True
        full(self.pool, self.a)
        Waiting(self.pool)
        self.assertIsNone(find_lease(self.pool, (), None, None, False))
        lease = find_lease(self.pool, (self.a,), None, None, False)
        assert lease is not None
        self.assertIs(lease.backend, self.b)

    def test_all_on_trial(self) -> None:
        """Where nobody else is there, who is none of the trials is told at once."""
        self.on_trial(self.a)
        self.on_trial(self.b)
        self.assertIsNone(find_lease(self.pool, (), None, None, False))
        self.assertFalse(must_wait(self.pool))

    def test_backups_are_not_for_when_others_are_busy(self) -> None:
        """A backend at its limit is waited for, with an idle backup beside it."""
        self.b.backup = True
        full(self.pool, self.a)
        self.assertIsNone(find_lease(self.pool, (), None, None, False))
        self.assertTrue(must_wait(self.pool))

    def test_a_draining_one_is_not_waited_for(self) -> None:
        """One that serves its own clients alone, and is at its limit, is worth waiting for to them and to nobody else."""
        full(self.pool, self.a)
        self.a.state = "drain"
        self.b.health = "down"
        self.pool.refresh()
        self.assertIsNone(find_lease(self.pool, (), None, None, False))
        self.assertFalse(must_wait(self.pool))
        self.assertTrue(must_wait(self.pool, self.a))
        self.assertFalse(must_wait(self.pool, self.a, (self.a,)))

    def test_told_when_only_trials_are_left(self) -> None:
        """Who waits is told so at once when the one that he could have waited for is taken out, and trials alone go on."""
        self.on_trial(self.b)
        full(self.pool, self.a)
        told: list[bool] = []

        def take() -> bool:
            told.append(must_wait(self.pool))
            return not told[-1]

        self.pool.queue.enter(take)
        self.a.state, self.a.most, self.a.limit = "drain", 5, 5
        self.pool.refresh()
        self.assertEqual((told, len(self.pool.queue)), ([False], 0))

    def test_who_serves_for_want_of_others_is_waited_for(self) -> None:
        """A suspected backend that is at its limit serves all the same: who comes waits, and is not told that it is gone."""
        full(self.pool, self.a)
        self.a.is_suspect = True
        self.b.health = "down"
        self.pool.refresh()
        self.assertTrue(must_wait(self.pool))

    def test_waiting_in_a_panic(self) -> None:
        """In a panic health says nothing: who is down and at its limit is waited for."""
        self.pool.panic = 0.9
        for backend in (self.a, self.b):
            backend.health = "down"
        self.pool.refresh()
        for backend in (self.a, self.b):
            backend.most = backend.limit = 1
        self.pool.refresh()
        for _ in range(2):
            self.assertIsNotNone(find_lease(self.pool, (), None, None, False))
        self.assertTrue(must_wait(self.pool))
