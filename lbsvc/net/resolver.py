"""Which addresses a host name has, asked again and again; never on the hot path.

Promises: the first lookup begins at once, the others an interval apart, never two at a time; `on_addresses` is told only
of answers that differ from the last good one, so that while resolving fails everybody goes on with what they have. A
failure and the first success after it are logged once each. After `stop` nothing is called, and a lookup that has not begun
does not begin. An answer without addresses
is a failure. Addresses are IP literals, IPv4 first, each once, in an order that does not change from answer to answer.

A resolver that does not answer holds up nothing but other names: lookups run in threads of their own, MOST_AT_ONCE of them,
whom nobody waits for when the process ends, and not in the reactor's pool; what is more waits in turn, each name once.

Called by the app, one watch for each name among the backends' hosts; what becomes of the addresses is its business.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbsvc.net.aside import run_aside

#: So many lookups are under way at one time, whatever the names.
MOST_AT_ONCE: Final = 16
#: So many names wait for their turn; what is more fails at once, and is asked for again an interval later.
MOST_WAITING: Final = 4096

#: Asks for a name's addresses.
Lookup = Callable[[str], Deferred[list[str]]]


def system_lookup(reactor: Any) -> Lookup:
    """A lookup by the system's resolver (/etc/hosts, nsswitch, DNS), beside the reactor."""
    return Lookups(reactor, addresses_of).ask


class Lookups:
    """Lookups beside the reactor, bounded in number, one for each name at a time. `resolve` blocks."""

    def __init__(self, reactor: Any, resolve: Callable[[str], list[str]]) -> None:
        self._reactor = reactor
        self._resolve = resolve
        #: name -> who waits for its addresses, while it waits or is looked up
        self._asked: dict[str, list[Deferred[list[str]]]] = {}
        self._waiting: deque[str] = deque()
        self._under_way = 0

    def ask(self, host: str) -> Deferred[list[str]]:
        """The addresses of a name. Cancelled by everybody who has asked, it leaves the queue; one under way goes on."""
        others = self._asked.get(host)
        if others is None:
            if len(self._waiting) >= MOST_WAITING:
                raise OverflowError("too many names wait to be looked up")
            others = self._asked[host] = []
            self._waiting.append(host)
        asked: Deferred[list[str]] = Deferred(partial(self._forget, host))
        others.append(asked)
        self._begin()
        return asked

    def _forget(self, host: str, asked: Deferred[list[str]]) -> None:
        others = self._asked.get(host, [])
        if asked in others:
            others.remove(asked)
        if not others and host in self._waiting:
            self._waiting.remove(host)
            del self._asked[host]

    def _begin(self) -> None:
        while self._waiting and self._under_way < MOST_AT_ONCE:
            host = self._waiting.popleft()
            try:
                answer = run_aside(self._reactor, partial(self._resolve, host))
            except Exception:  # there are no more threads to be had
                self._tell(host, Failure())
                continue
            self._under_way += 1
            answer.addBoth(self._ended, host)

    def _ended(self, result: list[str] | Failure, host: str) -> None:
        self._under_way -= 1
        self._tell(host, result)
        self._begin()

    def _tell(self, host: str, result: list[str] | Failure) -> None:
        for asked in self._asked.pop(host):
            if asked.called:  # cancelled by what one of the others did
                continue
            if isinstance(result, Failure):
                asked.errback(result)
            else:
                asked.callback(list(result))


def addresses_of(host: str) -> list[str]:
    """What the system says, sorted. Blocks, so only in a thread."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return in_order(
        [str(address[0]) for family, _, _, _, address in found if family in (socket.AF_INET, socket.AF_INET6)]
    )


def in_order(addresses: list[str]) -> list[str]:
    """Each address once, IPv4 before IPv6: resolvers rotate their answers, and a rotation is no change."""
    return sorted(set(addresses), key=lambda address: (":" in address, address))


class NameWatch:
    """One name, watched. interval None: it is looked up once."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        host: str,
        interval: float | None,
        lookup: Lookup,
        on_addresses: Callable[[list[str]], object],
    ) -> None:
        self.host = host
        self.addresses: list[str] = []  # the last good answer
        self.failure: str | None = None  # why the last lookup failed; None where it did not
        #: Fires once, with None, when the first lookup is over, whatever came of it.
        self.first_answer: Deferred[None] = Deferred()
        self._interval = interval
        self._lookup = lookup
        self._on_addresses = on_addresses
        self._is_first = True
        self._running = False
        self._loop = LoopingCall(self._ask)
        self._loop.clock = reactor
        self._asked: Deferred[list[str]] | None = None  # under way

    def start(self) -> None:
        """Look it up now, and again."""
        self._running = True
        if self._interval is None:
            self._ask()
        else:
            self._loop.start(self._interval)

    def stop(self) -> None:
        """No lookup and no call from here on; the answer of one under way is dropped."""
        self._running = False
        if self._loop.running:
            self._loop.stop()
        if self._asked is not None:
            self._asked.cancel()

    def hear(self, addresses: list[str]) -> None:
        """Somebody else has looked it up."""
        self._answered(addresses)

    def _ask(self) -> Deferred[None]:
        """One lookup; LoopingCall waits for its end."""
        try:
            asked = self._lookup(self.host)
        except Exception:
            asked = Deferred()
            asked.errback(Failure())
        self._asked = asked
        return asked.addCallbacks(self._answered, self._failed).addBoth(self._over)

    def _answered(self, addresses: list[str]) -> None:
        if not self._running:
            return
        found = in_order(addresses)
        if not found:
            self._note("no addresses")
            return
        if self.failure is not None:
            self.failure = None
            self.log.info("{host} resolves again", host=self.host)
        if found != self.addresses:
            before, self.addresses = self.addresses, found
            try:
                self._on_addresses(list(found))
            except BaseException:
                self.addresses = before  # not taken: the next answer is offered again
                raise

    def _failed(self, reason: Failure) -> None:
        if self._running:
            self._note(reason.getErrorMessage())

    def _note(self, why: str) -> None:
        if self.failure is None:
            self.log.warn("{host} does not resolve: {why}", host=self.host, why=why)
        self.failure = why

    def _over(self, result: Failure | None) -> None:
        self._asked = None
        # A Failure here comes from on_addresses: it must not end the watch.
        if isinstance(result, Failure):
            self.log.failure("new addresses of {host} were not taken", failure=result, host=self.host)
        if self._is_first and self._running:
            self._is_first = False
            self.first_answer.callback(None)

    def __repr__(self) -> str:
        trouble = f", {self.failure}" if self.failure else ""
        return f"<NameWatch {self.host} {' '.join(self.addresses) or 'unresolved'}{trouble}>"
