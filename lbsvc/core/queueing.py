"""Who waits for a place while every backend is at its limit, and whose turn it is: first come, first served.

Promises: a place that is offered (`next`) goes to whoever has waited longest of those that can use it; who cannot use this
one (it has tried that backend already) keeps its own turn. At most `size` wait, which bounds memory; the next one is told
so at once. Who leaves (client gone, timeout) gives up its place in the queue at once, wherever it stood. `enter` and
`leave` are O(1); `next` too, but for those that decline. invariant: entered == served + left + len(queue).

A waiter is called when its turn comes: it takes the place and says True, or does nothing and says False. While it is called
anything may happen: others enter and leave, places become free. A `next` from within a waiter is taken up by the one that
called it, so that a thousand waiters that fail at once are a loop and no recursion.

What callers owe it: nobody overtakes, that is, whoever comes while somebody waits (`len(queue)`) enters, unless there is
a place that all who wait have declined; `next` is called once for each place that becomes free, and its answer says whether
to look for more. Timers are the callers' (queue.timeout: 503 `queue_timeout`; full: 503 `queue_full`). Used by pools, for
roads. No clock. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Takes the place that is free, and says whether it did.
Waiter = Callable[[], bool]


class Ticket:
    """A place in a queue, from `enter` until it is served or left."""

    __slots__ = ("_after", "_before", "_queue", "is_waiting", "waiter")

    def __init__(self, queue: Queue, waiter: Waiter) -> None:
        self.waiter = waiter
        self.is_waiting = True
        self._queue = queue
        self._before = self._after = self

    def __repr__(self) -> str:
        return f"<Ticket of {self.waiter!r}{'' if self.is_waiting else ', over'}>"


class Queue:
    """Those who wait, in the order in which they came. `size` may change at any time: nobody is put out for it."""

    __slots__ = (
        "_asked",
        "_is_offering",
        "_length",
        "_places",
        "_ring",
        "entered",
        "left",
        "refused",
        "served",
        "size",
    )

    def __init__(self, size: int) -> None:
        self.size = size
        self.entered = 0
        self.served = 0
        self.left = 0
        self.refused = 0  # came while it was full
        self._length = 0
        # A ring of tickets that begins and ends with this one, which never waits: _after it is who came first.
        self._ring: Final = Ticket(self, _nobody)
        self._ring.is_waiting = False
        self._asked: Ticket | None = None  # stays linked until its waiter has answered
        self._is_offering = False
        self._places = 0  # still to be offered

    def enter(self, waiter: Waiter) -> Ticket | None:
        """Wait behind all others; None: it is full."""
        if self._length >= self.size:
            self.refused += 1
            return None
        self.entered += 1
        self._length += 1
        ticket = Ticket(self, waiter)
        last = self._ring._before
        ticket._before, ticket._after = last, self._ring
        last._after = self._ring._before = ticket
        return ticket

    def leave(self, ticket: Ticket) -> bool:
        """Give up waiting: was it? Somebody who has been served, or has left, has nothing to give up."""
        if ticket._queue is not self:
            raise ValueError(f"{ticket!r} is of another queue")
        if not ticket.is_waiting:
            return False
        self.left += 1
        self._end(ticket)
        return True

    def next(self) -> bool:
        """A place is free: offer it, longest wait first. Was one taken?

        From within a waiter the answer is False: the place is offered when the waiter is done, by whoever called it.
        A waiter that raises is out of the queue, and what it raised goes up; its place is offered with the next one.
        """
        self._places += 1
        if self._is_offering:
            return False
        self._is_offering = True
        was_taken = False
        try:
            while self._places:
                if self._offer():
                    was_taken = True
                self._places -= 1
        finally:
            self._is_offering = False
        return was_taken

    def waiting(self) -> list[Ticket]:
        """All who wait now, the first to come first."""
        found = []
        ticket = self._ring._after
        while ticket is not self._ring:
            if ticket.is_waiting:
                found.append(ticket)
            ticket = ticket._after
        return found

    def _offer(self) -> bool:
        """Ask one after the other, until one takes it."""
        ticket = self._ring._after
        while ticket is not self._ring:
            self._asked = ticket
            has_answered = took = False
            try:
                took = ticket.waiter()
                has_answered = True
            finally:
                # It stayed linked meanwhile, so that what comes after it is right whoever entered or left.
                self._asked = None
                following = ticket._after
                if not ticket.is_waiting:
                    _unlink(ticket)
                elif took or not has_answered:
                    self.served += took
                    self.left += not took
                    self._end(ticket)
            if took:
                return True
            ticket = following
        return False

    def _end(self, ticket: Ticket) -> None:
        ticket.is_waiting = False
        self._length -= 1
        if ticket is not self._asked:
            _unlink(ticket)

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    def __repr__(self) -> str:
        return f"<Queue {self._length} of {self.size} wait, {self.served} served, {self.left} left, {self.refused} refused>"


def _unlink(ticket: Ticket) -> None:
    ticket._before._after = ticket._after
    ticket._after._before = ticket._before
    ticket._before = ticket._after = ticket  # it holds no neighbours alive
    ticket.waiter = _nobody


def _nobody() -> bool:
    """The waiter of the ticket that closes the ring."""
    return False
