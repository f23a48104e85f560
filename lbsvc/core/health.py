"""A verdict about one backend, from the results of its checks: how many in a row turn it.

Promises: the first result decides at once (one success is enough for the first `up` after a start, one failure for
`down`); after that `rise` successes in a row turn it up and `fall` failures in a row turn it down; a result of the other
kind starts the row anew. After another question has been asked (`reopen`) the next result decides. `observe` says whether it
flipped, so that every change is reported exactly once.
Asked by net/prober.py, which writes the answer to `Backend.health` and refreshes the pool. No clock: results have no age.
"""

from __future__ import annotations

from lbsvc.core.policies import HealthCheckPolicy


class Verdict:
    """`state` is unknown, up or down; `streak` counts the results in a row that speak against it."""

    __slots__ = ("is_reopened", "policy", "state", "streak")

    def __init__(self, policy: HealthCheckPolicy) -> None:
        self.policy = policy
        self.state = "unknown"
        self.streak = 0
        self.is_reopened = False

    def revise(self, policy: HealthCheckPolicy) -> None:
        """A reload: state and counts stay, unless it is the counting that has changed."""
        if (policy.rise, policy.fall) != (self.policy.rise, self.policy.fall):
            self.streak = 0
        self.policy = policy

    def reopen(self) -> None:
        """Another question is asked from now on: the next result decides, as the first one did."""
        self.is_reopened = True
        self.streak = 0

    def observe(self, ok: bool) -> str | None:
        """Take one result; the new state if it flipped, else None."""
        found = "up" if ok else "down"
        was_reopened, self.is_reopened = self.is_reopened, False
        if found == self.state:
            self.streak = 0
            return None
        self.streak += 1
        needed = 1 if self.state == "unknown" or was_reopened else self.policy.rise if ok else self.policy.fall
        if self.streak < needed:
            return None
        self.state = found
        self.streak = 0
        return found

    def __repr__(self) -> str:
        against = f", {self.streak} against it" if self.streak else ""
        return f"<Verdict {self.state}{against}>"
