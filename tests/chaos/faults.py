"""Who does what when in a storm: its kinds, and a script for each, made from a seed alone.

A script is a list of `Act`s in their order. An act waits for so many more requests to be over, or so many seconds, whichever
is first: so what happens between two acts is work done, not time spent, except where nobody can work. Used by storm.py.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from tests.chaos.moods import MOODS

#: Kind of storm -> what may happen to a backend.
FAULTS: Final = {
    "killed": ["killed"],
    "stopped": ["stopped", "mute", "late"],
    "broken": ["reset", "half", "garbage", "wrong", "surplus", "early", "hasty", "refuse", "wild", "sick", "interim"],
    "slow": ["slow", "drip", "late", "mute"],
    "flapping": ["ill", "ill", "ill", "sick", "killed"],
    "parted": ["parted"],
    "rude": ["slow", "drip", "half", "surplus", "parted", "parted", "mute"],
    "operated": ["killed", "slow"],
    "paused": ["slow", "wild"],
    "mixed": ["killed", "stopped", "parted", "ill", "wild", "wild", *[mood for mood in MOODS if mood != "ok"]],
}
KINDS: Final = tuple(FAULTS)

#: What people do, and what becomes of the service's own process.
OPERATIONS: Final = [
    "drain",
    "maint",
    "weigh",
    "guest",
    "reload",
    "hangup",
    "wrong_reload",
    "check",
    "look",
    "watch",
    "release",
]


@dataclass(frozen=True)
class Act:
    """One thing that happens: `harm` or `mend` of a backend, an operation, or `pause` of the service for `seconds`."""

    requests: int
    patience: float
    what: str
    target: int = 0  # the number of a backend
    word: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} {self.word} {f'b{self.target}' if self.what in ('harm', 'mend') else ''}".strip()


def script(kind: str, seed: str, length: int, members: int = 5) -> list[Act]:
    """So many acts; at its end everybody still may be broken."""
    chance = random.Random(seed)
    broken: set[int] = set()
    acts = []
    for _ in range(length):
        gap = chance.choice([0, 20, 80, 250]), chance.uniform(0.05, 0.7)
        roll = chance.random()
        if kind in ("operated", "mixed") and roll < (0.7 if kind == "operated" else 0.25):
            acts.append(Act(*gap, "operate", chance.randrange(members), chance.choice(OPERATIONS)))
        elif kind in ("paused", "mixed") and roll < (0.6 if kind == "paused" else 0.3):
            acts.append(Act(*gap, "pause", seconds=chance.choice([0.05, 0.05, 0.3, 0.3, 1.2, 2.5])))
        elif broken and (len(broken) == members or chance.random() < 0.2 * len(broken)):
            target = chance.choice(sorted(broken))
            broken.discard(target)
            acts.append(Act(*gap, "mend", target))
        else:
            # what is behind the wire is cut off by it
            target = (
                4
                if kind == "parted" and 4 not in broken
                else chance.choice([n for n in range(members) if n not in broken])
            )
            broken.add(target)
            acts.append(Act(*gap, "harm", target, chance.choice(FAULTS[kind])))
    return acts
