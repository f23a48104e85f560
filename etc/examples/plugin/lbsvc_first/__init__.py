"""`first`: always the first backend, in the order of the configuration, until it is full, down or has failed this request.

For backends that cost money while they run: with `max_connections` the load is packed onto as few of them as can carry it,
and the others may be switched off. HAProxy knows it as `balance first`. Weights do not count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lbsvc.plugin import Backend, Picker


class First(Picker):
    """The first one that may be picked."""

    members: Sequence[Backend] = ()

    def update(self, backends: Sequence[Backend]) -> None:
        self.members = backends

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        return next((backend for backend in self.members if backend not in exclude), None)
