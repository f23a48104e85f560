"""The listening sockets that a worker has been given by its parent, until the binds that they are of are opened.

Promises: a bind is opened by taking what has come for it, in the order in which the parent has opened those that are written
alike (port 0), and by nothing else; what nobody has taken is closed by `drop`. Sockets are copies: the parent and the other
workers have the same ones. Called by workers/worker.py; `open` by net/listener.py, as its opener of binds.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from lbsvc.config.schema import Bind
from lbsvc.net.sharing import Lead
from lbsvc.net.sockets import SharedSocket


class Given:
    """Listening sockets that the parent has given, until somebody opens their binds."""

    def __init__(self) -> None:
        #: what the ports of these sockets ask whether we are ahead of others
        self.lead: Lead | None = None
        #: bind -> which of those that are written alike -> its sockets
        self._sockets: dict[str, dict[int, list[socket.socket]]] = {}

    def take_in(self, binds: Sequence[tuple[str, int]], descriptors: Sequence[int]) -> None:
        """One for each of these binds."""
        for (bind, which), number in zip(binds, descriptors, strict=True):
            made = SharedSocket(fileno=number)
            made.setblocking(False)
            self._sockets.setdefault(bind, {}).setdefault(which, []).append(made)

    def open(self, bind: Bind, backlog: int) -> list[socket.socket]:
        """The sockets of a bind, as net/sockets.py opens them; of several that are written alike, those of the next one."""
        found = self._sockets.get(str(bind))
        if not found:
            raise OSError(0, "the parent has passed no socket for it")
        sockets = found.pop(min(found))
        for made in sockets:
            assert isinstance(made, SharedSocket)
            made.lead = self.lead
        return sockets

    def drop(self) -> None:
        """What nobody has opened."""
        left, self._sockets = self._sockets, {}
        for made in [made for alike in left.values() for sockets in alike.values() for made in sockets]:
            made.close()
