"""What the binds of listeners have come to: sockets, then ports; and which of them stay when the binds are others.

Promises
- A bind that stays keeps its sockets, its ports and its file, also under another listener's name: whoever waits in the
  accept queue is accepted by whoever has the bind then.
- `SocketsPlan.prepare` opens what is new, and closes nothing: but where a new bind overlaps with one that goes (":80" and
  "127.0.0.1:80") that one is closed first, its queue having been emptied. What fails leaves everything as it was: closed
  ones are opened again; should even that fail it is told, and every later plan tries again.
- Everything that takes descriptors is done by `prepare`; nothing new is accepted before the plan is carried out.
- Held sockets (`HeldSocket`) are for others to accept on (the processes of `workers`, who get copies): here they are opened,
  kept and closed by the same rules, and nobody is ever accepted.
- A process that takes another one's place has the sockets of equal binds from it (net/inheriting.py); one that hands its own
  over forgets their files, and closes them without emptying their queues: whoever waits there is the other's.
- Sockets that systemd has passed ("systemd:NAME") are ours to share, not to end: we serve copies, which are closed, never
  shut down, and keep theirs, so that the bind may go and come back.

Called by relistening.py; Bound by net/listener.py. A port is net/ports.py's, or Twisted's (net/ordinary.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EADDRINUSE
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.config.schema import Bind, ListenerSettings
from lbsvc.errors import Mistake
from lbsvc.net.binding import SocketFile, UnixSocket, adopt, open_sockets
from lbsvc.net.inheriting import Given, Inherited
from lbsvc.net.ordinary import OrdinaryPort
from lbsvc.net.sharing import Lead
from lbsvc.net.systemd import Passed, address_of, open_passed

if TYPE_CHECKING:
    from lbsvc.net.listener import Listener

#: Opens the sockets of a bind, with a backlog; raises OSError.
Opener: TypeAlias = Callable[[Bind, int], list[socket.socket]]


def opener(passed: Passed, inherited: Inherited | None = None) -> Opener:
    """Opens binds; for "systemd:NAME" it gives copies of what was passed under that name, and what can be inherited is."""

    def open_bind(bind: Bind, backlog: int) -> list[socket.socket]:
        name = bind.passed_as
        if inherited is not None and (found := inherited.open(bind, backlog)) is not None:
            return found
        return open_sockets(bind, backlog) if name is None else open_passed(passed, name, backlog)

    return open_bind


class SharedSocket(socket.socket):
    """A listening socket that other processes accept on, too: a copy of one that is held somewhere."""

    #: whether this process has more connections than the others
    lead: Lead | None = None


class HeldSocket(UnixSocket):
    """A listening socket, of whatever family, that is not accepted on in this process."""


def holder(open_bind: Opener) -> Opener:
    """Opens the same binds, for others to accept on."""

    def open_held(bind: Bind, backlog: int) -> list[socket.socket]:
        return [_held(made) for made in open_bind(bind, backlog)]

    return open_held


def _held(made: socket.socket) -> HeldSocket:
    file = getattr(made, "file", None)
    held = HeldSocket(fileno=made.detach())
    held.file = file
    return held


class HeldPort:
    """What stands for a port where others accept: a socket that is open."""

    def __init__(self, made: HeldSocket) -> None:
        self.socket = made

    def fileno(self) -> int:
        """The socket's."""
        return self.socket.fileno()

    def serve(self, factory: Any) -> None:
        """Whoever it is: not here."""

    pauseAccepting = resumeAccepting = stopReading = lambda self: None  # noqa: N815 - as net/ports.py

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The end."""
        self.socket.close()


class Nobody(Factory):
    """The factory of ports that accept nothing yet."""

    noisy = False
    openLean = None  # noqa: N815 - as net/listener.py

    def buildLean(self, peer: tuple[Any, ...]) -> Protocol | None:  # noqa: N802 - as net/listener.py
        """There is no protocol for anybody."""
        return None

    @override
    def buildProtocol(self, addr: object) -> Protocol | None:
        return None

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the log: what it is going to be."""
        return "Listener"


NOBODY: Final = Nobody()


class Bound:
    """One bind: its sockets until they are served, its ports from then on."""

    def __init__(self, bind: Bind, sockets: list[socket.socket], backlog: int) -> None:
        self.bind = bind
        self.sockets = sockets
        self.ports: list[Any] = []
        self._backlog = backlog
        #: as many as its queue may have been allowed to hold at any time
        self.holds = backlog
        self._files: list[SocketFile] = []
        #: as they are told: "127.0.0.1:80", "[::1]:80", "unix:/run/lb.sock"
        self.addresses: list[str] = []
        #: what no other socket may have as well, at least at some addresses: port numbers, or a path; nothing of passed ones
        self.claims: set[int | str] = set()
        for made in sockets:
            self._describe(made)

    def _describe(self, made: socket.socket) -> None:
        self.addresses.append(address_of(made))
        file = getattr(made, "file", None)
        if file is not None:
            self._files.append(file)
            self.claims.add(os.path.realpath(file.path))
        elif self.bind.passed_as is None and made.family != socket.AF_UNIX:
            self.claims.add(made.getsockname()[1])

    def adopt(self, reactor: Any, factory: Any = NOBODY) -> None:
        """Ports in place of the sockets; Nobody's accept nothing yet. Raises OSError, and then has neither."""
        try:
            while self.sockets:
                made = self.sockets.pop(0)
                if isinstance(made, HeldSocket):
                    self.ports.append(HeldPort(made))
                    continue
                is_shared = isinstance(made, SharedSocket)
                lead = getattr(made, "lead", None)
                try:
                    # adopted ports do not shut the socket down when they close
                    port = adopt(reactor, made, factory)
                except OSError:
                    made.close()
                    raise
                self.ports.append(port if hasattr(port, "pauseAccepting") else OrdinaryPort(port))
                if is_shared:
                    self.ports[-1].share(lead)
                if factory is NOBODY:
                    self.ports[-1].pauseAccepting()
        except OSError:
            self.close()
            raise

    def serve(self, factory: Any, is_paused: bool, backlog: int) -> None:
        """Connections are `factory`'s from now on."""
        self.allow(backlog)
        for port in self.ports:
            port.serve(factory)
            if is_paused:
                port.pauseAccepting()
            else:
                port.resumeAccepting()

    def allow(self, backlog: int) -> None:
        """So many may wait from now on."""
        if backlog == self._backlog:
            return
        self._backlog = backlog
        self.holds = max(backlog, self.holds)
        for port in self.ports:
            with suppress(OSError):
                port.socket.listen(backlog)

    def close(self, accept_rest: Callable[[Any, int], None] = lambda port, holds: None) -> None:
        """No file, no queue, no socket from here on; `accept_rest` accepts what waits in a port's queue."""
        files, self._files = self._files, []
        for file in files:
            file.remove()  # before the queue is emptied: nobody can come after that
        ports, self.ports = self.ports, []
        for port in ports:
            if not isinstance(port, HeldPort):
                accept_rest(port, self.holds)
            # At once, and not by stopListening, which closes a turn later: what came until then would be reset.
            port.stopReading()
            port.connectionLost(Failure(CONNECTION_DONE))
        sockets, self.sockets = self.sockets, []
        for made in sockets:
            made.close()

    @property
    def is_held(self) -> bool:
        """Whether others accept."""
        return any(isinstance(port, HeldPort) for port in self.ports)

    @property
    def given(self) -> Given:
        """As another process may have it."""
        numbers = [each.fileno() for each in (*self.sockets, *self.ports)]
        return Given(str(self.bind), tuple(numbers), self._files[0].identity if self._files else None)

    def hand_over(self) -> None:
        """Another process has it from now on: whoever waits in the queue is its own, and so is the file."""
        for file in self._files:
            file.forget()
        self.close()

    def __repr__(self) -> str:
        return f"<bound {', '.join(self.addresses)}>"


class SocketsPlan:
    """From the binds that listeners have to those that they are to have."""

    def __init__(
        self,
        reactor: Any,
        open_bind: Opener,
        tell: Callable[..., None],
        held: Mapping[str, Listener],
        wanted: Mapping[str, ListenerSettings],
    ) -> None:
        self._reactor = reactor
        self._open_bind = open_bind
        self._tell = tell
        self._wanted = wanted
        #: what each listener is to have, in the order of its binds; empty until it is known
        self._plan: dict[str, list[Bound | None]] = {}
        self._fresh: list[Bound] = []
        #: those that were closed for others: whose they were, at which place, and who is there now
        self._displaced: list[tuple[Listener, int, Bind]] = []
        self._in_place: list[Bound] = []
        left = [(name, listener, bound) for name, listener in held.items() for bound in listener.bound]
        for own in (True, False):  # what a listener has itself first: equal binds may be several (port 0)
            for name, settings in wanted.items():
                plan = self._plan.setdefault(name, [None] * len(settings.binds))
                for place, bind in enumerate(settings.binds):
                    if plan[place] is not None:
                        continue
                    for each in left:
                        if each[2].bind == bind and (not own or each[0] == name):
                            plan[place] = each[2]
                            left.remove(each)
                            break
        self._going = [(listener, bound) for _, listener, bound in left]

    def prepare(self, is_sound: bool = True) -> list[Mistake]:
        """Open what is new; with a mistake nothing of it is left, nor where the rest of the change is not sound.

        What is in the way of others is closed only where there is no mistake but those that come of it.
        """
        mistakes: list[Mistake] = []
        try:
            self._open_all(mistakes, is_sound)
        except BaseException:
            self.abandon()
            raise
        if mistakes or not is_sound:
            self.abandon(mistakes)
        return mistakes

    def _open_all(self, mistakes: list[Mistake], is_sound: bool) -> None:
        overlapping: list[tuple[str, int]] = []
        for name, settings in self._wanted.items():
            for place, bind in enumerate(settings.binds):
                if self._plan[name][place] is None and not self._open(name, place, mistakes, bool(self._rivals(bind))):
                    overlapping.append((name, place))
        for name, place in overlapping if is_sound else ():
            bind = self._wanted[name].binds[place]
            if any(bound.is_held for _, bound in self._rivals(bind)):
                mistakes.append(_in_two_steps(name, bind))
        for name, place in overlapping if is_sound and not mistakes else ():
            self._displace(self._rivals(self._wanted[name].binds[place]))
            self._open(name, place, mistakes, False)
            bound = self._plan[name][place]
            if bound is not None:
                self._in_place.append(bound)

    def _rivals(self, bind: Bind) -> list[tuple[Listener, Bound]]:
        """Those that go, and may be in the way."""
        claim = os.path.realpath(bind.host) if bind.host.startswith("/") else bind.port
        return [each for each in self._going if claim in each[1].claims and bind.passed_as is None]

    def _open(self, name: str, place: int, mistakes: list[Mistake], has_rivals: bool) -> bool:
        """Open one; False: there are rivals in the way."""
        settings = self._wanted[name]
        bind = settings.binds[place]
        try:
            bound = Bound(bind, self._open_bind(bind, settings.backlog), settings.backlog)
            bound.adopt(self._reactor)
        except OSError as error:
            if error.errno == EADDRINUSE and has_rivals:
                return False
            mistakes.append(refused(name, bind, error))
            return True
        self._plan[name][place] = bound
        self._fresh.append(bound)
        return True

    def _displace(self, rivals: list[tuple[Listener, Bound]]) -> None:
        for rival in rivals:
            listener, bound = rival
            self._going.remove(rival)
            self._displaced.append((listener, listener.bound.index(bound), bound.bind))
            listener.drop(bound)

    def abandon(self, mistakes: list[Mistake] | None = None) -> None:
        """Everything as it was."""
        displaced, self._displaced = self._displaced, []
        for bound in self._fresh:
            if bound in self._in_place and displaced:
                displaced[0][0].adopt_rest(bound)  # who has come meanwhile has asked for the one that was there
            bound.close()
        self._fresh.clear()
        for listener, place, bind in reversed(displaced):
            try:
                bound = Bound(bind, self._open_bind(bind, listener.settings.backlog), listener.settings.backlog)
                bound.adopt(self._reactor)
            except OSError as error:
                mistake = refused(listener.name, bind, error, "any more, until it can be had again")
                if mistakes is not None:
                    mistakes.append(mistake)
                self._tell("error", "listener.lost", f"{listener.name}: {mistake.message}", listener=listener.name)
            else:
                listener.take([*listener.bound[:place], bound, *listener.bound[place:]])

    @property
    def opened(self) -> list[tuple[str, list[socket.socket]]]:
        """What is new: each bind with its sockets, in the order in which they were opened."""
        return [(str(bound.bind), [port.socket for port in bound.ports]) for bound in self._fresh]

    def close_going(self) -> None:
        """Commit: what goes is closed, its queue having been emptied by whoever listened so far."""
        for listener, bound in self._going:
            listener.drop(bound)

    def bound_for(self, name: str) -> list[Bound]:
        """Commit: what a listener has from now on."""
        return [bound for bound in self._plan[name] if bound is not None]


def _in_two_steps(name: str, bind: Bind) -> Mistake:
    """One that overlaps with a bind which other processes have copies of: it cannot be had before they have closed them."""
    words = f"overlaps with one that goes ({bind}): with several workers that takes two reloads, to close and to open"
    return Mistake("", 0, 0, f"listeners.{name}.bind", words)


def refused(name: str, bind: Bind, error: OSError, more: str = "") -> Mistake:
    """A bind that the system refuses, in words."""
    reason = error.strerror or str(error)
    words = f"cannot listen on {bind}{' ' if more else ''}{more}: {reason}"
    return Mistake("", 0, 0, f"listeners.{name}.bind", words)
