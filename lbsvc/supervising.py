"""What the service manager is told of us, when, and how often (systemd's Type=notify, sd_notify(3)).

Promises
- READY=1 once, when every listener is bound and the first round of checks is over; until then, and while we drain,
  EXTEND_TIMEOUT_USEC with each BEAT, so that TimeoutStartSec= and TimeoutStopSec= cut no long start or drain, but one that
  hangs.
- RELOADING=1 with MONOTONIC_USEC, in one message, before a reload, and READY=1 after it, whatever came of it. A reload
  before we are ready, or while we stop, is not told: READY=1 would say what is not true.
- STOPPING=1 once; nothing but STATUS, EXTEND_TIMEOUT_USEC and WATCHDOG follows it.
- MAINPID where another process takes our place, and nothing at all after it: the rest is that one's to tell, and it begins
  when this has been sent. With NotifyAccess=main nobody would hear it before, nor us afterwards.
- STATUS with live counts each BEAT; WATCHDOG=1 in half the time that the watchdog allows, from the reactor, so that one
  that hangs is noticed; none while a worker hangs that cannot be replaced (`is_well`).
- What the manager has no room for is sent later, in order; statuses are the exception, for the next one says more.

Where no NOTIFY_SOCKET is set no timer runs. Called by app.py (start, ready, stopping, stop), reloading.py (`tell`) and
upgrading.py (`succeeded_by`).
Seconds of the injected clock; `monotonic` is CLOCK_MONOTONIC, in seconds, for messages only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python import log

from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.net.notify import Notifier

#: How often STATUS is told, in seconds.
BEAT: Final = 5.0
#: How much longer we may take from each BEAT on, while we start or drain, in seconds.
EXTENSION: Final = 30.0
#: How long we wait before we try again what the manager had no room for, in seconds.
RETRY: Final = 0.5
#: More messages than this do not wait: the manager is away, and the oldest are stale.
MOST_OWED: Final = 32
#: So many pools without anybody are told by name.
MOST_NAMED: Final = 5


class View(Protocol):
    """What the status says, read afresh each time."""

    @property
    def listeners(self) -> Iterable[ListenerBooks]: ...

    @property
    def pools(self) -> Iterable[Pool]: ...

    @property
    def generation(self) -> int: ...

    @property
    def last_reload_ok(self) -> bool: ...

    def ready(self) -> str | None:
        """None, or why not."""


class Supervision:
    """Tells the service manager how we are."""

    def __init__(
        self, clock: IReactorTime, notifier: Notifier, view: View, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._notifier = notifier
        self._view = view
        self.is_well: Callable[[], bool] = lambda: True
        self._monotonic = monotonic
        self._is_ready = False
        self._is_stopping = False
        self._then: Callable[[], None] | None = None  # when the last message has been sent
        self._owed: deque[tuple[str, ...]] = deque(maxlen=MOST_OWED)
        self._retry: IDelayedCall | None = None
        self._counted: tuple[float, int] | None = None  # when requests were counted last, and how many there were
        self._beats = LoopingCall(self._beat)
        self._pings = LoopingCall(self._ping)
        self._beats.clock = self._pings.clock = clock

    # -- what happens

    def start(self) -> None:
        """We have begun to start."""
        if not self._notifier.is_wanted:
            return
        self._beats.start(BEAT)
        if self._notifier.interval is not None:
            self._pings.start(self._notifier.interval)

    def ready(self) -> None:
        """Every listener is bound and the first round of checks is over."""
        if not self._is_ready and not self._is_stopping:
            self._is_ready = True
            self._tell("READY=1", self._status())

    def tell(self, state: str) -> None:
        """ "reloading" before a reload, "ready" after it (reloading.py)."""
        if not self._is_ready or self._is_stopping:
            return
        if state == "reloading":
            self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1_000_000)}", "STATUS=reloading")
        else:
            self._tell("READY=1", self._status())

    def stopping(self) -> None:
        """We have begun to drain."""
        if not self._is_stopping:
            self._is_stopping = True
            self._tell("STOPPING=1", self._status(), _EXTEND)

    def succeeded_by(self, pid: int, then: Callable[[], None]) -> None:
        """The service is another process from now on; `then` is called when that has been told, and stops us."""
        self._then = then
        self._tell(f"MAINPID={pid}")
        self._look_whether_told()

    def _look_whether_told(self) -> None:
        if self._then is not None and not self._owed:
            then, self._then = self._then, None
            then()

    def stop(self) -> None:
        """All is over: no timer is left."""
        for loop in (self._beats, self._pings):
            if loop.running:
                loop.stop()
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        self._owed.clear()
        self._notifier.close()

    # -- what is told

    def _beat(self) -> None:
        lines = [self._status()]
        if not self._is_ready or self._is_stopping:
            lines.append(_EXTEND)
        if not self._owed:  # what waits is more important, and a status is stale soon
            self._notifier.send(*lines)

    def _ping(self) -> None:
        if self.is_well():
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        """What must arrive, and in order."""
        if not self._notifier.is_wanted:
            return
        if lines not in self._owed or len(lines) > 1:  # one ping that waits is as good as two
            self._owed.append(lines)
        self._send_owed()

    def _send_owed(self) -> None:
        while self._owed:
            if not self._notifier.send(*self._owed[0]):
                if self._retry is None:
                    self._retry = self._clock.callLater(RETRY, self._try_again)
                return
            self._owed.popleft()

    def _try_again(self) -> None:
        self._retry = None
        self._send_owed()
        self._look_whether_told()

    def _status(self) -> str:
        try:
            return f"STATUS={self._counts()}"
        except Exception:  # a wrong word about us shall not cost a ping, let alone a start
            log.err(None, "the status could not be put together")
            return "STATUS=unknown"

    def _counts(self) -> str:
        """`ready, generation 3: 12 connections, 40.2 requests/s, 5 of 6 backends up; nobody serves in api`."""
        view = self._view
        books, pools = list(view.listeners), list(view.pools)
        opened = sum(each.open for each in books)
        backends = [backend for pool in pools for backend in pool.backends]
        up = sum(backend.health == "up" and not backend.is_ejected for backend in backends)
        text = (
            f"{view.ready() or 'ready'}, generation {view.generation}: {opened} connections, "
            f"{self._rate(books):.1f} requests/s, {up} of {len(backends)} backends up"
        )
        empty = [pool.name for pool in pools if not pool.is_available] if self._is_ready else []
        if empty:
            more = f" and {len(empty) - MOST_NAMED} more" if len(empty) > MOST_NAMED else ""
            text += f"; nobody serves in {', '.join(empty[:MOST_NAMED])}{more}"
        return text if view.last_reload_ok else f"{text}; the last reload was refused"

    def _rate(self, books: list[ListenerBooks]) -> float:
        """Requests (tcp: connections) per second since this was asked last; listeners that have gone take theirs along."""
        count = sum(
            each.accepted
            if each.protocol == "tcp"
            else sum(sum(route.requests.values()) for route in each.routes.values())
            for each in books
        )
        now = self._clock.seconds()
        then, before = self._counted or (now, count)
        if now - then >= BEAT / 2 or self._counted is None:
            self._counted = now, count
        return max(count - before, 0) / (now - then) if now > then else 0.0


_EXTEND: Final = f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1_000_000)}"
