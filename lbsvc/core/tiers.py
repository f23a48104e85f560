"""Who of a pool's members serves before whom: its tiers, each with a picker that keeps its turn over changes.

Promises: only backends that people left `ready`, with weight > 0, a known address and a circuit that is not open, take
part. The first of these tiers with somebody in it serves: up, up backups, not yet checked, not yet checked backups, and last
those that are ejected, or down (or held down) but have passed their last check, so that a pool that was empty comes back
with the first check that passes and not with the `rise`th. Others that are down never serve, but in a panic: then health
says nothing. Asked by core/pool.py alone.

A member that could not be reached a moment ago counts as not yet checked until it is trusted again. Else each of its turns
would cost a retry until its checks have failed `fall` times, and the budget of retries, which knows no reasons, would soon
be spent (features.md, FO-1).
"""

from __future__ import annotations

from collections.abc import Sequence

from lbsvc.core.backend import Backend
from lbsvc.core.pickers import Picker

TIERS = 6
#: Tiers from this one on serve only where there is nobody else at all.
LAST_RESORT = 4


def tier_of(backend: Backend, panics: bool = False) -> int | None:
    """Which tier a backend serves in, 0 first; None: in none. In a panic its health does not count."""
    if not backend.is_eligible or backend.circuit == "open":
        return None
    if panics:
        return int(backend.backup)
    if backend.health in ("down", "flapping"):
        passed = backend.last_check is not None and backend.last_check[0]
        return LAST_RESORT + backend.backup if passed else None
    if backend.is_ejected:
        return LAST_RESORT + backend.backup
    return (0 if backend.health == "up" and not backend.is_suspect else 2) + backend.backup


def panics(backends: Sequence[Backend], threshold: float) -> bool:
    """Whether so few of those that people left in are healthy that health is better ignored: strictly below the share."""
    if threshold <= 0:
        return False
    asked = [backend for backend in backends if backend.is_eligible]
    healthy = sum(backend.health in ("up", "unknown") and not backend.is_ejected for backend in asked)
    return bool(asked) and healthy < threshold * len(asked)


class Tier:
    """The members of one tier as its picker last heard of them."""

    __slots__ = ("has_members", "known", "picker")

    def __init__(self, picker: Picker) -> None:
        self.picker = picker
        self.known: list[tuple[Backend, int]] = []
        #: whether it has some now; while not, its picker hears of no lease
        self.has_members = False

    def update(self, members: list[tuple[Backend, int]]) -> None:
        """Tell the picker, if anything has changed for it. A picker of an empty tier keeps its turn for later."""
        for backend, weight in members:
            backend.effective = weight
        has_missed = not self.has_members and (self.picker.wants_hooks or self.picker.wants_results)
        self.has_members = bool(members)
        if members and (has_missed or members != self.known):
            self.picker.update([backend for backend, _ in members])
            self.known = members

    def forget(self, gone: set[Backend]) -> None:
        """Members that have left the pool for good are held by nobody here."""
        if any(backend in gone for backend, _ in self.known):
            self.known = [entry for entry in self.known if entry[0] not in gone]
            self.picker.update([backend for backend, _ in self.known if backend.weight > 0])
