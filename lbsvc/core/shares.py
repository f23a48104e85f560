"""What one process of several has of a limit that is meant for all of them.

Promises: the shares of all seats add up to the limit, and no two of them differ by more than one; but nobody's is 0, so that
a limit below the number of processes is one for each of them. Who is alone has all of it. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Seat(NamedTuple):
    """Which of how many processes this is that carry traffic together."""

    worker: int = 0  # from 0
    workers: int = 1

    @property
    def is_alone(self) -> bool:
        """Is there no other that it has to agree with?"""
        return self.workers == 1

    def share(self, limit: int) -> int:
        """Its part of a limit, which is above 0."""
        part, rest = divmod(limit, self.workers)
        return max(part + (self.worker < rest), 1)


#: One process, as it is with `workers: 1`.
ALONE: Final = Seat()
