"""The admin listener, where it listens and to whom it answers, also when a reload changes that.

Promises: it listens before anything is served, and closes last; a bind that does not change keeps its socket and its
connections; another one is bound before the old one closes (an overlapping one after it, with a way back), whoever waits in
the old one's queue is accepted, and requests that are under way are answered. Another process may take its sockets over
(net/inheriting.py): whoever waits there is that one's. Called by app.py and upgrading.py; a part of what a reload changes.
The site is made by admin/site.py.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.protocol import connectionDone

from lbsvc.admin.site import GuardedSite
from lbsvc.config.schema import AdminSettings, Bind, Settings
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.net.binding import SocketFile, adopt, open_sockets
from lbsvc.net.inheriting import Given
from lbsvc.net.sockets import Opener

BACKLOG: Final = 128


class AdminListener:
    """The sockets that the admin site is served on."""

    def __init__(
        self, reactor: Any, make_site: Callable[[AdminSettings], GuardedSite], open_bind: Opener = open_sockets
    ) -> None:
        self._reactor = reactor
        self._make_site = make_site
        self._open_bind = open_bind
        self._ports: list[Any] = []
        #: of the socket that listens now, if it is a unix socket
        self._file: SocketFile | None = None
        self._waiting: list[socket.socket] = []
        self.site: GuardedSite | None = None

    def bind(self, settings: AdminSettings | None) -> None:
        """At the start: listen, but answer nobody yet. Raises SystemRefusal."""
        self._waiting = open_or_refuse(settings.bind, self._open_bind) if settings is not None else []

    def unbind(self) -> None:
        """The start is refused by somebody else."""
        for made in self._waiting:
            made.close()
        self._waiting = []

    def serve(self, settings: AdminSettings | None) -> None:
        """Answer from now on."""
        if settings is not None:
            self.site = self._make_site(settings)
            self.adopt(self._waiting)
            self._waiting = []

    def adopt(self, sockets: list[socket.socket]) -> None:
        """Serve on these too."""
        for made in sockets:
            self._file = getattr(made, "file", None)
            self._ports.append(adopt(self._reactor, made, self.site))

    def close(self) -> None:
        """Accept no more, from this moment: its address is free when this returns. Connections go on."""
        self._close(_accept_rest)

    def _close(self, accept_rest: Callable[[Any], None]) -> None:
        ports, self._ports = self._ports, []
        for port in ports:
            accept_rest(port)
            port.stopReading()
            port.connectionLost(connectionDone)

    def given(self, settings: AdminSettings | None) -> Given | None:
        """What listens, as another process may have it; `settings` are those in force."""
        if settings is None or not self._ports:
            return None
        numbers = tuple(port.fileno() for port in self._ports)
        return Given(str(settings.bind), numbers, self._file.identity if self._file is not None else None)

    def hand_over(self) -> None:
        """Another process listens there from now on; who watches events here is let go. Requests are answered."""
        if self._file is not None:
            self._file.forget()
        self._close(lambda port: None)

    @property
    def is_open(self) -> bool:
        """Is it listening?"""
        return bool(self._ports)

    def prepare(self, old: Settings, new: Settings) -> AdminPlan:
        """Raises SystemRefusal."""
        before, after = (each.admin.bind if each.admin is not None else None for each in (old, new))
        if before == after:
            return AdminPlan(self, old.admin, new.admin)
        if after is None:
            return AdminPlan(self, old.admin, None)
        try:
            return AdminPlan(self, old.admin, new.admin, open_or_refuse(after))
        except SystemRefusal:
            if before is None or before.port != after.port or before.port == 0:
                raise
            # Its own socket may be what is in the way: it goes first, and comes back if that was not it.
            self.close()
            try:
                return AdminPlan(self, old.admin, new.admin, open_or_refuse(after))
            except SystemRefusal:
                self.adopt(open_or_refuse(before))
                raise

    def change(
        self,
        former: AdminSettings | None,
        settings: AdminSettings | None,
        opened: list[socket.socket] | None,
    ) -> list[str]:
        """Go over to other settings."""
        changes = []
        is_moved = former is not None and (settings is None or former.bind != settings.bind)
        if is_moved:
            self.close()
        if settings is None:
            self.site = None
        elif self.site is None:
            self.site = self._make_site(settings)
        else:
            if not self.site.obeys(settings):
                self.site.obey(settings)
            if replace(settings, bind=former.bind if former is not None else settings.bind) != former:
                changes.append("admin: changed")
        if opened:
            self.adopt(opened)
        if is_moved or opened:
            changes.append(f"admin.bind: {settings.bind}" if settings is not None else "admin: off")
        return changes


class AdminPlan:
    """Sockets that are open, and answer nobody yet."""

    def __init__(
        self,
        listener: AdminListener,
        former: AdminSettings | None,
        settings: AdminSettings | None,
        opened: list[socket.socket] | None = None,
    ) -> None:
        self._listener = listener
        self._settings = settings
        self._opened = opened
        self._former = former

    def commit(self) -> list[str]:
        """Answer there."""
        return self._listener.change(self._former, self._settings, self._opened)

    def abandon(self) -> None:
        """Go back to where it was."""
        for made in self._opened or ():
            made.close()
        if self._former is not None and not self._listener.is_open:
            self._listener.adopt(open_or_refuse(self._former.bind))


def _accept_rest(port: Any) -> None:
    """Accept until the queue is empty, but not in many more turns than it holds connections: others go on coming."""
    queue = select.poll()
    queue.register(port.fileno(), select.POLLIN)
    for _ in range(BACKLOG + 1):
        if not queue.poll(0):
            break
        port.doRead()


def open_or_refuse(bind: Bind, open_bind: Opener = open_sockets) -> list[socket.socket]:
    """Listening sockets; raises SystemRefusal."""
    try:
        return open_bind(bind, BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SystemRefusal([Mistake("", 0, 0, "admin.bind", f"cannot listen on {bind}: {reason}")]) from None
