"""Connections to the backends of a tcp pool that are made before anybody needs them (lb-reference.yaml: `connections`).

Promises: a client gets one at once instead of a dial; each is handed out once, to one client, unread and unwritten, never
given back, never shared: a layer 4 connection belongs to one conversation. Each backend that is up, ready, not ejected, with
its circuit closed, has `keep_alive` of them, dialled one at a time, with pauses that double while dials fail. None waits
longer than `idle_timeout` (nor `max_lifetime`): it is replaced, a little earlier or later than its neighbours. None is
handed out that its backend has closed, that leads to another address than the backend has now, or to a backend that may not
have new work. With what is in use they are never more than the backend's `max_connections`.

What waits is not read: a server that greets (SMTP, MySQL) has its greeting wait in the kernel, whose buffer bounds it, and
the client that gets the connection gets the greeting, in its turn. A server that waits for a greeting to be answered has
less patience than usual, and `idle_timeout` must be less than that. Nor does the reactor watch what waits: it would find the
greeting again in every turn. Hang-ups alone are asked for, by poll(2), which finds them behind a greeting too: of all that
wait every LOOK seconds, and of each as it is handed out. What ends just after that cannot be told from a backend that has
done its work, and is not dialled anew.

A failed dial here counts against nobody: whether a backend is well is for its checks and its clients to find out. One that
closes what waits is left alone for a while as well: it may do so with all of them. The ready ones count in
`backend.connections`. Those handed out first are the newest: least likely to be near the end of somebody's patience. Made
for each pool by the app; called by its relays (`take`); whatever changes about its members is noticed within LOOK seconds.
Law of closing: after `close` there is nothing left, and `take` gives None.

What it is worth: a client's first byte reaches its backend one round trip earlier. It costs CPU, a sixth to a third more for
each connection (tests/bench, `l4close`, lbsvc+ahead), so it is off unless it is asked for.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.config.schema import PoolSettings
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.pool import Pool
from lbsvc.net.connector import Dialling, dial
from lbsvc.net.deadlines import NEVER, Deadlines

if TYPE_CHECKING:
    from random import Random

#: How often the members are looked at: some may be up or down since, or be others. In seconds.
LOOK: Final = 1.0
#: Dials of one backend that succeed in one turn of the reactor; then others have theirs.
BATCH: Final = 32
#: Pauses after a failed dial, or an end, in seconds: the first, doubled up to the last unless something has lived longer
#: than the pause before; each made longer or shorter by up to a half.
FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0
#: Each connection's patience is this share of what it may be, or more: neighbours of one age do not all go at once.
EARLIEST: Final = 0.75
#: Steps between the patience of one and that of the next, as a part of the whole: any few in a row lie well apart.
_GOLDEN: Final = 0.6180339887
_HANG_UP: Final = select.POLLRDHUP  # with POLLHUP and POLLERR, which come unasked


class Ready(Protocol):
    """A connection that waits for a client. Nothing is read from it, nothing written."""

    #: as net/deadlines.py wants it
    deadline = NEVER
    slot = NEVER

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.host = shelf.backend.host
        self.port = shelf.backend.port
        self.since = 0.0

    @override
    def connectionMade(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.shelf.arrived(self)

    def expired(self, now: float) -> None:
        """It has waited as long as it may."""
        self.shelf.drop(self)
        self.shelf.fill_soon()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.shelf.drop(self)


def hung_up(waiting: Sequence[Ready]) -> list[Ready]:
    """Those that their backend has ended, in order or by a reset, whatever it has said before. One system call."""
    poll = select.poll()
    known = {}
    for ready in waiting:
        number = ready.transport.getHandle().fileno()  # type: ignore[union-attr]
        known[number] = ready
        poll.register(number, _HANG_UP)
    return [known[number] for number, _ in poll.poll(0)] if known else []


class Shelf:
    """One backend's ready connections, and how they come about."""

    def __init__(self, ahead: Ahead, backend: Backend) -> None:
        self.ahead = ahead
        self.backend = backend
        #: the newest last
        self.ready: list[Ready] = []
        self._dialling: Dialling | None = None
        self._is_dialling = False
        self._has_arrived = False  # the last dial, and nothing went wrong with it here
        self._pause = FIRST_PAUSE  # the next one
        self._resting: Any = None  # the timer of a pause
        self._spread = 0.0
        self._is_closed = False

    def take(self) -> Ready | None:
        """The newest that leads where the backend is now, and has not ended."""
        while self.ready:
            ready = self.ready[-1]
            if self.ahead.hung_up([ready]):
                self._ended(ready)
                continue
            self.ready.pop()
            if (ready.host, ready.port) == (self.backend.host, self.backend.port):
                self._forget(ready)
                return ready
            self._close(ready)
        return None

    def drop(self, ready: Ready) -> None:
        """It has ended, or shall."""
        if ready in self.ready:
            self.ready.remove(ready)
            self._close(ready)

    def look(self) -> None:
        """What is of no use goes; what is missing comes."""
        where = self.backend.host, self.backend.port
        for ready in self.ahead.hung_up(self.ready):
            self._ended(ready)
        for ready in [each for each in self.ready if (each.host, each.port) != where]:
            self.drop(ready)
        while len(self.ready) > self._wanted():
            self.drop(self.ready[0])
        self.fill()

    def fill_soon(self) -> None:
        """Fill it in the next turn: whoever calls has something better to do first."""
        self.ahead.fill_soon(self)

    def fill(self) -> None:
        """Dial what is missing, one at a time."""
        for _ in range(BATCH):
            if self._is_dialling or self._resting is not None or len(self.ready) >= self._wanted():
                return
            ahead, backend = self.ahead, self.backend
            self._is_dialling = True
            self._has_arrived = False
            timeout = ahead.settings.timeouts.connect
            dialling = dial(ahead.reactor, backend.host, backend.port, Ready(self), timeout, self._failed, backend.tls)
            if self._is_dialling:
                self._dialling = dialling
                return
            if not self._has_arrived:
                return
        self.fill_soon()

    def close(self) -> None:
        """Nothing is ready, nothing comes."""
        self._is_closed = True
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.cancel()
        while self.ready:
            self._close(self.ready.pop())

    def _wanted(self) -> int:
        """How many there should be now."""
        backend = self.backend
        if self._is_closed or not self.ahead.is_served(backend):
            return 0
        return max(0, min(self.ahead.settings.ahead, backend.limit - backend.active))

    def arrived(self, ready: Ready) -> None:
        """A dial has come through."""
        was_awaited, self._dialling = self._dialling is not None, None
        self._is_dialling = False
        ahead = self.ahead
        ready.since = ahead.reactor.seconds()
        self.backend.connections += 1
        self.ready.append(ready)
        self._has_arrived = True
        self._spread = spread = (self._spread + _GOLDEN) % 1.0
        ahead.deadlines.watch(ready, ahead.patience * (1.0 - spread * (1.0 - EARLIEST)))
        if was_awaited:
            if len(self.ready) > self._wanted():
                self.drop(ready)  # it has become superfluous meanwhile
            else:
                self.fill_soon()

    def _ended(self, ready: Ready) -> None:
        """Its backend has closed one that waited: another, but not at once."""
        self.drop(ready)
        if self._resting is None:
            self._rest(self.ahead.reactor.seconds() - ready.since)

    def _failed(self, outcome: Outcome, detail: str) -> None:
        """A dial has not."""
        self._dialling = None
        self._is_dialling = False
        oldest = self.ahead.reactor.seconds() - self.ready[0].since if self.ready else 0.0
        self._rest(oldest)

    def _rest(self, lived: float) -> None:
        """No dial for a while; `lived` is how long one of these was well, in seconds."""
        pause = FIRST_PAUSE if lived > self._pause else self._pause
        self._pause = min(2 * pause, LAST_PAUSE)
        self._resting = self.ahead.reactor.callLater(pause * self.ahead.rng.uniform(0.5, 1.5), self._rested)

    def _rested(self) -> None:
        self._resting = None
        self.fill()

    def _forget(self, ready: Ready) -> None:
        """It is no longer one of ours, whatever becomes of it."""
        self.backend.connections -= 1
        self.ahead.deadlines.forget(ready)

    def _close(self, ready: Ready) -> None:
        self._forget(ready)
        transport: Any = ready.transport
        if transport is not None:
            transport.loseConnection()

    def __repr__(self) -> str:
        return f"<Shelf of {self.backend!r}: {len(self.ready)} ready>"


class Ahead:
    """The ready connections of one pool."""

    def __init__(
        self,
        settings: PoolSettings,
        pool: Pool,
        reactor: Any,
        deadlines: Deadlines,
        rng: Random,
        hung_up: Callable[[Sequence[Ready]], list[Ready]] = hung_up,
    ) -> None:
        self.pool = pool
        self.reactor = reactor
        self.deadlines = deadlines
        self.rng = rng
        self._obey(settings)
        self.hung_up = hung_up
        self._shelves: dict[Backend, Shelf] = {}
        self._hungry: list[Shelf] = []
        self._soon: Any = None
        self._look: Any = None
        self.is_closed = False

    def _obey(self, settings: PoolSettings) -> None:
        kept = settings.connections
        self.settings = settings
        #: seconds that a connection may wait
        self.patience = min(kept.idle_timeout, kept.max_lifetime or kept.idle_timeout)

    def apply(self, settings: PoolSettings, is_spoken_anew: bool) -> None:
        """A reload: so many from now on, with so much patience; what is ready goes where backends are spoken to anew."""
        before = self.patience
        self._obey(settings)
        if is_spoken_anew or self.patience < before:
            for shelf in self._shelves.values():
                shelf.close()
            self._shelves.clear()
            self._hungry = []
        if not self.is_closed:
            self.look()

    def start(self) -> None:
        """Begin, with the members that there are."""
        if not self.is_closed:
            self._look = self.reactor.callLater(LOOK, self.start)
            self.look()

    def look(self) -> None:
        """The members, their health or their addresses may have changed."""
        members = self.pool.backends
        for gone in [backend for backend in self._shelves if backend not in members]:
            self._shelves.pop(gone).close()
        for backend in members:
            shelf = self._shelves.get(backend)
            if shelf is None:
                shelf = self._shelves[backend] = Shelf(self, backend)
            shelf.look()

    def take(self, backend: Backend) -> Any:
        """The transport of a connection to this backend, to be read from now on; None: there is none, dial."""
        shelf = self._shelves.get(backend)
        if shelf is None or not shelf.ready or not self.is_served(backend):
            return None
        ready = shelf.take()
        shelf.fill_soon()
        return ready.transport if ready is not None else None

    def is_served(self, backend: Backend) -> bool:
        """Whether connections to this backend are worth having."""
        return (
            not self.is_closed
            and backend.is_eligible
            and backend.health == "up"
            and backend.circuit == "closed"
            and not backend.is_ejected
        )

    @property
    def ready(self) -> int:
        """How many wait."""
        return sum(len(shelf.ready) for shelf in self._shelves.values())

    def fill_soon(self, shelf: Shelf) -> None:
        """Fill this one in the next turn of the reactor."""
        if shelf not in self._hungry and not self.is_closed:
            self._hungry.append(shelf)
            if self._soon is None:
                self._soon = self.reactor.callLater(0, self._fill)

    def _fill(self) -> None:
        self._soon = None
        hungry, self._hungry = self._hungry, []
        for shelf in hungry:
            shelf.fill()

    def close(self) -> None:
        """Close what is ready; nothing is made ready any more."""
        self.is_closed = True
        for timer in (self._look, self._soon):
            if timer is not None and timer.active():
                timer.cancel()
        self._look = self._soon = None
        self._hungry = []
        for shelf in self._shelves.values():
            shelf.close()
        self._shelves.clear()

    def __repr__(self) -> str:
        return f"<Ahead of {self.pool.name}: {self.ready} ready>"
