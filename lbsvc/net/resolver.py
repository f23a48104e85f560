"""Which addresses a host name has, asked again and again; never on the hot path.

Promises: the first lookup begins at once, the others an interval apart, never two at a time; `on_addresses` is told only
of answers that differ from the last good one, so that while resolving fails everybody goes on with what they have. A
failure and the first success after it are logged once each. After `stop` nothing is called. An answer without addresses
is a failure. Addresses are IP literals, IPv4 first, each once, in an order that does not change from answer to answer.

Called by the app, one watch for each name among the backends' hosts; what becomes of the addresses is its business.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

#: Asks for a name's addresses.
Lookup = Callable[[str], Deferred[list[str]]]


def system_lookup(reactor: Any) -> Lookup:
    """A lookup by the system's resolver (/etc/hosts, nsswitch, DNS), in the reactor's thread pool."""

    def lookup(host: str) -> Deferred[list[str]]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), addresses_of, host)

    return lookup


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

    def _ask(self) -> Deferred[None]:
        """One lookup; LoopingCall waits for its end."""
        try:
            asked = self._lookup(self.host)
        except Exception:
            asked = Deferred()
            asked.errback(Failure())
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
        # A Failure here comes from on_addresses: it must not end the watch.
        if isinstance(result, Failure):
            self.log.failure("new addresses of {host} were not taken", failure=result, host=self.host)
        if self._is_first and self._running:
            self._is_first = False
            self.first_answer.callback(None)

    def __repr__(self) -> str:
        trouble = f", {self.failure}" if self.failure else ""
        return f"<NameWatch {self.host} {' '.join(self.addresses) or 'unresolved'}{trouble}>"
