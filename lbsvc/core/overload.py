"""Is there more to do than the process can do? Then what is new is refused at once, so that what is under way gets done.

Promises: pure; told how late the reactor was (`sample`, twice a second, by observe/lag.py through shedding.py) it decides
`is_on`, which both roads look at for each new request and connection. One pause, however long, is no overload (a debugger,
SIGSTOP, a collection of garbage, a laptop that slept): it begins when every sample of a stretch was above `limit`, and is
over when every sample of another was below half of it. A stretch is SAMPLES samples at least, and STRETCH seconds from the
first to the last. Seconds throughout; no limit: it never begins.

One for the process, held by every site of a listener, also of those that a reload makes: a reactor is late for all of them.
"""

from __future__ import annotations

from typing import Final

SAMPLES: Final = 3
STRETCH: Final = 1.5
#: It is over below this share of the limit: at one and the same load it shall not begin again at once.
RELIEF: Final = 0.5
#: When a client that was refused may come again, in seconds: no sooner can it be over.
RETRY_AFTER: Final = 2


class Overload:
    """Whether there is one now."""

    __slots__ = ("_count", "_since", "is_on", "limit")

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.is_on = False
        self._count = 0  # samples of the stretch that may end in a change
        self._since = 0.0  # when its first one came

    def sample(self, late: float, now: float) -> bool:
        """The reactor was so late, at the moment `now`. True: `is_on` has changed."""
        limit = self.limit
        if limit is None:
            return False
        if not (late < limit * RELIEF if self.is_on else late > limit):
            self._count = 0
            return False
        if not self._count:
            self._since = now
        self._count += 1
        if self._count < SAMPLES or now - self._since < STRETCH:
            return False
        self._count = 0
        self.is_on = not self.is_on
        return True

    def apply(self, limit: float | None) -> bool:
        """Another limit, from the next sample on; none ends what there is. True: `is_on` has changed."""
        self.limit = limit
        self._count = 0
        was_on, self.is_on = self.is_on, self.is_on and limit is not None
        return was_on is not self.is_on

    def __repr__(self) -> str:
        return f"<overload {'on' if self.is_on else 'off'}, limit {self.limit}>"
