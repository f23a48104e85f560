"""Whether a backend goes up and down too often to be used: it is held down for a while, and shown as `flapping`.

Law (lb-reference.yaml: pools.flapping; features.md CB-5). A change that is at least the `changes`-th within `window`
seconds, itself and the ends included, holds the backend down until `hold` seconds after it. Changes go on being counted
while it is held, so one that keeps flapping is not let in between, and comes back `hold` seconds after it has become
quieter than that. Nothing is forgotten when a hold ends: where `hold` is shorter than `window`, one more change may well
be one too many. It is route flap damping (RFC 2439) with a count in the place of a decaying penalty.

A change is a flip of what checks found, up to down or down to up, whether or not the backend is held at the time; the
first verdict is none, for there was nothing to change. What its checks find while it is held counts when the hold is over.
Told by whoever takes note of verdicts, for each backend; times are seconds of a clock that does not step back. Remembered
are at most `changes` times. Pure.
"""

from __future__ import annotations

import math
from collections import deque

from lbsvc.core.policies import FlappingPolicy


class Flapping:
    """The changes of one backend. `policy` may be set to another one: it decides from the next change on."""

    __slots__ = ("_changes", "held_until", "policy")

    def __init__(self, policy: FlappingPolicy) -> None:
        self.policy = policy
        #: it is held down before this moment; each change may move it on
        self.held_until = -math.inf
        self._changes: deque[float] = deque()

    def changed(self, now: float) -> bool:
        """It has gone up or down: is it held down from now on? (It may have been already.)"""
        policy = self.policy
        changes = self._changes
        changes.append(now)
        while len(changes) > policy.changes:
            changes.popleft()
        if len(changes) == policy.changes and now - changes[0] <= policy.window:
            self.held_until = max(self.held_until, now + policy.hold)
        return self.is_held(now)

    def is_held(self, now: float) -> bool:
        """Is it held down? No longer at `held_until` itself, so that a timer for that moment finds it free."""
        return now < self.held_until

    def forget(self) -> None:
        """Begin anew, free: people have taken the backend out and put it back."""
        self._changes.clear()
        self.held_until = -math.inf

    def __repr__(self) -> str:
        held = f", held until {self.held_until:g}" if self.held_until > -math.inf else ""
        return f"<Flapping {len(self._changes)} changes{held}>"
