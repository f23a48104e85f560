"""The queue for places: whose turn it is, who is let in, and what happens while somebody is being served."""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.trial.unittest import TestCase

from lbsvc.core.queueing import Queue, Ticket


class Guests:
    """Waiters by name, and in `seated` those who took a place, in order."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.seated: list[str] = []
        self.asked: list[str] = []

    def come(self, name: str, wants: Callable[[], bool] = lambda: True) -> Ticket:
        """Somebody enters, and will take what is offered if `wants` says so then."""

        def take() -> bool:
            self.asked.append(name)
            wanted = wants()
            if wanted:
                self.seated.append(name)
            return wanted

        ticket = self.queue.enter(take)
        if ticket is None:
            raise AssertionError(f"no room for {name}")
        return ticket


class TurnTests(TestCase):
    def setUp(self) -> None:
        self.queue = Queue(10)
        self.guests = Guests(self.queue)

    def test_first_come_first_served(self) -> None:
        """Places go to those who wait in the order in which they came."""
        for name in "abcde":
            self.guests.come(name)
        self.assertEqual([self.queue.next() for _ in range(6)], [True] * 5 + [False])
        self.assertEqual(self.guests.seated, list("abcde"))

    def test_nobody(self) -> None:
        """A place that nobody waits for is taken by nobody, and is not kept for those who come later."""
        self.assertFalse(self.queue.next())
        self.guests.come("a")
        self.assertEqual(self.guests.asked, [])

    def test_leaving(self) -> None:
        """Clients that leave give up their place, wherever they stood; those behind move up."""
        tickets = {name: self.guests.come(name) for name in "abcde"}
        self.assertEqual([self.queue.leave(tickets[name]) for name in "ace"], [True] * 3)
        self.assertEqual(len(self.queue), 2)
        self.guests.come("f")
        while self.queue.next():
            pass
        self.assertEqual(self.guests.asked, list("bdf"))

    def test_leaving_twice(self) -> None:
        """Who has left or has been served has nothing to give up, and leaving again changes nothing."""
        a, b = self.guests.come("a"), self.guests.come("b")
        self.queue.leave(a)
        self.queue.next()
        self.assertEqual([self.queue.leave(a), self.queue.leave(b)], [False, False])
        self.assertEqual((self.queue.entered, self.queue.served, self.queue.left, len(self.queue)), (2, 1, 1, 0))

    def test_of_another_queue(self) -> None:
        """A ticket is worth nothing elsewhere."""
        ticket = self.guests.come("a")
        with self.assertRaises(ValueError):
            Queue(10).leave(ticket)
        self.assertTrue(ticket.is_waiting)

    def test_full(self) -> None:
        """Past `size` nobody enters; a place in the queue that is given up can be had again."""
        tickets = [self.guests.come(str(n)) for n in range(10)]
        self.assertIsNone(self.queue.enter(lambda: True))
        self.assertEqual(self.queue.refused, 1)
        self.queue.leave(tickets[3])
        self.guests.come("again")
        self.assertIsNone(self.queue.enter(lambda: True))

    def test_size_0(self) -> None:
        """With size 0 nobody waits."""
        queue = Queue(0)
        self.assertIsNone(queue.enter(lambda: True))
        self.assertEqual((queue.refused, len(queue)), (1, 0))

    def test_smaller(self) -> None:
        """A queue that is made smaller puts nobody out; it takes others once it is short enough."""
        for name in "abc":
            self.guests.come(name)
        self.queue.size = 1
        self.assertIsNone(self.queue.enter(lambda: True))
        while self.queue.next():
            pass
        self.assertEqual(self.guests.seated, list("abc"))
        self.guests.come("d")

    def test_waiting(self) -> None:
        """All who wait can be seen in order, and be sent away while one looks at them."""
        tickets = [self.guests.come(name) for name in "abc"]
        self.assertEqual(self.queue.waiting(), tickets)
        for ticket in self.queue.waiting():
            self.queue.leave(ticket)
        self.assertEqual((self.queue.waiting(), len(self.queue), self.queue.left), ([], 0, 3))

    def test_shown(self) -> None:
        """Queue and ticket show how it stands."""
        ticket = self.guests.come("a")
        self.assertEqual(repr(self.queue), "<Queue 1 of 10 wait, 0 served, 0 left, 0 refused>")
        self.queue.leave(ticket)
        self.assertTrue(repr(ticket).endswith(", over>"))


class DecliningTests(TestCase):
    def setUp(self) -> None:
        self.queue = Queue(2000)
        self.guests = Guests(self.queue)

    def test_the_next_one_gets_it(self) -> None:
        """A place that the first cannot use goes to the next one; the first stays first."""
        choosy = [False]
        self.guests.come("a", lambda: choosy[0])
        self.guests.come("b")
        self.guests.come("c")
        self.assertTrue(self.queue.next())
        choosy[0] = True
        self.assertTrue(self.queue.next())
        self.assertEqual(self.guests.seated, ["b", "a"])
        self.assertEqual(self.guests.asked, ["a", "b", "a"])

    def test_all_decline(self) -> None:
        """If nobody can use the place nobody loses anything, and each was asked once."""
        for name in "abc":
            self.guests.come(name, lambda: False)
        self.assertFalse(self.queue.next())
        self.assertEqual(self.guests.asked, list("abc"))
        self.assertEqual((len(self.queue), self.queue.left, self.queue.served), (3, 0, 0))

    def test_leaves_when_asked(self) -> None:
        """Who leaves while it is asked has left; the place goes to the next one."""
        tickets: list[Ticket] = []
        still: list[Ticket] = []

        def leave() -> bool:
            self.queue.leave(tickets[0])
            still.extend(self.queue.waiting())
            return False

        tickets.append(self.guests.come("a", leave))
        other = self.guests.come("b")
        self.assertTrue(self.queue.next())
        self.assertEqual(self.guests.seated, ["b"])
        self.assertEqual(still, [other])
        self.assertEqual((self.queue.left, self.queue.served, len(self.queue)), (1, 1, 0))

    def test_others_leave_meanwhile(self) -> None:
        """Whoever leaves while another is asked is not asked any more; who enters then is, last."""
        tickets: dict[str, Ticket] = {}

        def confuse() -> bool:
            for name in "acd":
                self.queue.leave(tickets[name])
            self.guests.come("f")
            return False

        for name in "acd":
            tickets[name] = self.guests.come(name, lambda: False)
        tickets["b"] = self.guests.come("b", confuse)
        tickets["e"] = self.guests.come("e", lambda: False)
        self.assertTrue(self.queue.next())
        self.assertEqual(self.guests.asked, list("acdbef"))
        self.assertEqual(self.queue.waiting(), [tickets["b"], tickets["e"]])

    def test_place_free_meanwhile(self) -> None:
        """A place that becomes free while somebody is served goes to whoever is first then, once that one is done."""
        answers: list[bool] = []

        def fail() -> bool:
            answers.append(self.queue.next())  # its backend failed at once
            answers.append(self.queue.leave(self.guests.come("late")))
            return True

        self.guests.come("a", fail)
        self.guests.come("b")
        self.guests.come("c")
        self.assertTrue(self.queue.next())
        self.assertEqual(answers, [False, True])
        self.assertEqual(self.guests.seated, ["a", "b"])

    def test_declined_then_free(self) -> None:
        """Who declined one place is asked for the one that became free meanwhile, before those who came later."""
        suits = iter([False, True])
        self.guests.come("a", lambda: next(suits))
        self.guests.come("b", lambda: self.queue.next() or True)
        self.guests.come("c")
        self.assertTrue(self.queue.next())
        self.assertEqual(self.guests.seated, ["b", "a"])

    def test_a_thousand_fail_at_once(self) -> None:
        """Waiters that each give their place back at once are served in a loop, however many: no recursion."""
        depths: list[int] = []

        def fail() -> bool:
            depth, frame = 0, sys._getframe()
            while frame.f_back is not None:
                depth, frame = depth + 1, frame.f_back
            depths.append(depth)
            self.queue.next()
            return True

        for n in range(2000):
            self.guests.come(str(n), fail)
        self.assertTrue(self.queue.next())
        self.assertEqual(self.guests.seated, [str(n) for n in range(2000)])
        self.assertEqual(len(set(depths)), 1)

    def test_one_that_raises(self) -> None:
        """A waiter that raises is out; the place that it was offered is not lost, and the queue goes on."""
        self.guests.come("a", lambda: 1 // 0 == 0)
        for name in "bcd":
            self.guests.come(name)
        with self.assertRaises(ZeroDivisionError):
            self.queue.next()
        self.assertEqual((self.guests.seated, self.queue.left, len(self.queue)), ([], 1, 3))
        self.assertTrue(self.queue.next())  # one more, and the one that is left over
        self.assertEqual(self.guests.seated, ["b", "c"])
