"""A listening port whose socket other processes accept from as well: whose turn it is, and that nobody is left waiting.

Promises
- One connection in each turn of the reactor, then the next process is first in the kernel's queue of waiters: the port
  waits with EPOLLEXCLUSIVE, so that a connection wakes one process and not all, and after each accept it registers anew, at
  the end of that queue. Processes that have time share alike; one that is busy, hung or stopped is passed over, since
  it does not wait.
- Whoever is ahead of the others by its number of connections (net/scales.py) stands back after an accept, and does not
  wait in the kernel's queue until they have caught up. It looks at the queue all the same, each STEP seconds at first: what
  nobody has taken by then it takes itself, and is content with twice the lead from then on, so that others who hang cost
  those who come anew a few hundredths of a second, at first, and nothing later.
- Whoever dies or is stopped between being woken and accepting strands nobody: every LOOK seconds each process that
  accepts looks at the queue without being woken. Paused or closed, a port has neither a registration nor a timer.
- epoll allows no change of such a registration: it is only ever made and taken away. A port has no writer, so none is due.

Decision: 2026-11-22, one socket with EPOLLEXCLUSIVE and registering anew, as nginx does every 16 connections, rather than
SO_REUSEPORT. Measured with two processes on two cores (tests/bench/accept_spread.py, Linux 6.18; the part of the one that
got less, CPU for each connection of which 100 us are work, and what was left unanswered when one process was stopped):

| way | burst of 64 | one each ms | one by one | eight at once | stopped: of 128 |
|---|---|---|---|---|---|
| one socket, everybody is woken | 28 | 24 % 207 us | 38 % 165 us | 44 % 137 us | 0 to 1 |
| EPOLLEXCLUSIVE, as many as there are | 28 | **0 %** 175 us | 39 % 177 us | 48 % 132 us | 0 to 1 |
| EPOLLEXCLUSIVE, one in a turn | 28 | **0 %** 160 us | 40 % 155 us | 34 % 135 us | 0 |
| the same, anew after each 16 | 29 | 50 % 175 us | 50 % 180 us | 43 % 138 us | 0 |
| the same, anew after each: this | 30 | 50 % 175 us | 50 % 148 us | 50 % 132 us | 0 |
| SO_REUSEPORT | 30 | 50 % 220 us | 49 % 172 us | 50 % 148 us | **58** |

Without registering anew an idle pair gives everything to the first that waits. SO_REUSEPORT spreads as well, but a stopped
process keeps what hashes to it, for ever; unix sockets and those that systemd passes do not have it. A stopped process
costs the others nothing here: the longest that anybody waited was 17 ms. (0 to 1: had been accepted when it was stopped.)

Called by net/ports.py. Seconds and timers are the reactor's.
"""

from __future__ import annotations

import select
from typing import Any, Final, Protocol

#: How often a shared queue is looked at without being woken, in seconds.
LOOK: Final = 0.5

#: Connections that are taken in one turn of the reactor.
SHARED_ACCEPTS: Final = 1

#: How long who is ahead leaves the queue to others, in seconds: at first, and at most.
STEP: Final = 0.005
LONGEST_STEP: Final = 0.04
#: So many connections ahead are nothing.
SLACK: Final = 2


class Lead(Protocol):
    """Who is ahead (net/scales.py)."""

    def is_ahead(self, slack: int) -> bool: ...


class Turns:
    """The turns of one port among those who share its socket. `lead`: whether we are ahead; None: nobody knows."""

    __slots__ = ("_back", "_lead", "_look", "_port", "_queue", "_reactor", "_slack", "_step")

    def __init__(self, port: Any, reactor: Any, lead: Lead | None = None) -> None:
        self._port = port
        self._reactor = reactor
        self._lead = lead
        self._queue = select.poll()
        self._queue.register(port.fileno(), select.POLLIN)
        self._look: Any = None
        self._back: Any = None  # while we stand back
        self._step = STEP
        self._slack = SLACK

    def begin(self) -> None:
        """Wait for connections."""
        if self._back is None:
            self._reactor.share_reader(self._port)
        if self._look is None:
            self._look = self._reactor.callLater(LOOK, self._look_now)

    def end(self) -> None:
        """Wait no longer: the timers go. (The port has been taken from the readers.)"""
        look, self._look = self._look, None
        back, self._back = self._back, None
        for timer in (look, back):
            if timer is not None:
                timer.cancel()

    def pass_on(self) -> None:
        """The port has accepted: the next process is first."""
        reactor, port, lead = self._reactor, self._port, self._lead
        reactor.removeReader(port)
        if lead is None or not lead.is_ahead(SLACK):
            self._slack = SLACK
            reactor.share_reader(port)
        elif not lead.is_ahead(self._slack):
            reactor.share_reader(port)
        else:
            self._step = STEP
            self._back = reactor.callLater(self._step, self._come_back)

    def _come_back(self) -> None:
        """Have others come?"""
        self._back = None
        assert self._lead is not None
        if self._queue.poll(0):
            self._slack *= 2
            self._reactor.share_reader(self._port)
        elif self._lead.is_ahead(self._slack):
            self._step = min(self._step * 2, LONGEST_STEP)
            self._back = self._reactor.callLater(self._step, self._come_back)
        else:
            self._slack = SLACK
            self._reactor.share_reader(self._port)

    def _look_now(self) -> None:
        self._look = self._reactor.callLater(LOOK, self._look_now)
        if self._back is None and self._queue.poll(0):
            self._port.doRead()
