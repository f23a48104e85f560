"""The listeners brought from the settings in force to others, by difference.

Promises: a ListenersPlan that could be made has done all that can be refused (certificates, sockets), and changed nothing
that can be seen, but where a bind overlaps with one that goes (net/sockets.py); else SystemRefusal has every mistake, and
all is as it was. `commit` does not fail and says in words what it changed; `abandon` undoes: one of them, in the same turn.

A listener is known by its name and its protocol: with both the same it lives on, whatever else changes. Its sockets are
known by their binds, and live on under any name. Routes lead to pools as these are at `commit`. One that comes back while
connections of its predecessor are still there goes on in the same books. Called by listening.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from lbsvc.config.schema import ListenerSettings, RouteSettings, Settings
from lbsvc.core.books import ListenerBooks
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.leaving import Leaving
from lbsvc.net.ahead import Ahead
from lbsvc.net.relaysite import StreamSite
from lbsvc.net.sockets import SocketsPlan
from lbsvc.serving import Certificates, Served, Surroundings, prepare_entrance


class ListenersPlan:
    """One change of the listeners, which can be made. `served` are those in force, by name: they are changed in place."""

    def __init__(
        self, around: Surroundings, served: dict[str, Served], leaving: Leaving, old: Settings, new: Settings
    ) -> None:
        self._around = around
        self._served = served
        self._leaving = leaving
        self._old = old
        self._new = new
        self._certificates: dict[str, Certificates | None] = {}
        mistakes: list[Mistake] = []
        for name, settings in new.listeners.items():
            try:
                self._certificates[name] = prepare_entrance(around, settings, self._successor(settings))
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        held = {name: each.listener for name, each in served.items()}
        self._sockets = SocketsPlan(around.reactor, around.open_bind, around.emit, held, new.listeners)
        mistakes += self._sockets.prepare(not mistakes)
        if mistakes:
            raise SystemRefusal(mistakes)

    def _successor(self, settings: ListenerSettings) -> Served | None:
        """The one that lives on with these settings."""
        served = self._served.get(settings.name)
        return served if served is not None and served.settings.protocol == settings.protocol else None

    @property
    def opened(self) -> list[tuple[str, list[socket.socket]]]:
        """The binds that were opened for it, each with its sockets."""
        return self._sockets.opened

    def abandon(self) -> None:
        """Everything as it was."""
        self._sockets.abandon()

    def commit(self) -> list[str]:
        """Make the change; what it was, in words."""
        listeners = self._new.listeners
        before = {name: (each.settings, each.listener.addresses) for name, each in self._served.items()}
        routes = {each: each.routes for each in self._served.values()}
        aheads = self._aheads()
        self._sockets.close_going()
        after = {name: self._successor(settings) or self._make(settings) for name, settings in listeners.items()}
        gone = [each for name, each in self._served.items() if after.get(name) is not each]
        for each in gone:
            each.listener.bound = []  # what has not been closed has gone to others
        for name, each in after.items():
            each.apply(listeners[name], self._certificates[name], self._sticky_before, self._sticky_after)
            each.start()
            self._leaving.see_routes(
                each, routes.get(each, set()) - each.routes, each.routes, self._new.shutdown.removed
            )
            bounds = self._sockets.bound_for(name)
            if bounds != each.listener.bound or before.get(name, (None,))[0] != each.settings:
                each.listener.take(bounds)
        self._served.clear()
        self._served.update(after)
        for ahead in aheads - self._aheads():
            ahead.close()  # nobody is left that it could be for
        for each in gone:
            each.listener.close()
            self._leaving.see_off(each, self._new.shutdown.removed)
        known = {pool.name for pool in self._around.pools.everyone}
        for each in after.values():
            each.forget_routes(known)
        self._tell(before)
        return list(changes(self._old, self._new))

    def _make(self, settings: ListenerSettings) -> Served:
        """A new one, in the books of its predecessor, where connections of that are still there."""
        likes = [each.books for each in self._leaving.everyone if each.name == settings.name]
        books = next((each for each in likes if each.protocol == settings.protocol), None)
        if books is None:
            books = ListenerBooks(settings.name, settings.protocol)
        self._leaving.go_on(books)
        books.certificates = None
        return Served(self._around, settings, books, self._certificates[settings.name])

    def _aheads(self) -> set[Ahead]:
        """What keeps connections ready for any of them."""
        sites = [each.site for each in self._served.values()]
        routes = [route for site in sites if isinstance(site, StreamSite) for route in site.routes]
        return {route.ahead for route in routes if route.ahead is not None}

    def _sticky_before(self, pool: str) -> object:
        return self._old.pools[pool].sticky if pool in self._old.pools else None

    def _sticky_after(self, pool: str) -> object:
        return self._new.pools[pool].sticky if pool in self._new.pools else None

    def _tell(self, before: dict[str, tuple[ListenerSettings, list[str]]]) -> None:
        emit = self._around.emit
        for name, (_, addresses) in before.items():
            now = self._served[name].listener.addresses if name in self._served else []
            closed = [address for address in addresses if address not in now]
            if name not in self._served:
                emit("info", "listener.closed", f"{name} accepts no more", listener=name)
                continue
            for address in closed:
                words = f"{name} does not listen on {address} any more"
                emit("info", "listener.closed", words, listener=name, bind=address)
        for name, each in self._served.items():
            known = before[name][1] if name in before else []
            for address in each.listener.addresses:
                if address not in known:
                    words = f"{name} listens on {address}"
                    emit("info", "listener.bound", words, listener=name, bind=address)


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """What is different about the listeners, key by key: "listeners.web.backlog: 4096 -> 128"."""
    for name in old.listeners.keys() - new.listeners.keys():
        yield f"listeners.{name}: removed"
    for name, settings in new.listeners.items():
        before = old.listeners.get(name)
        if before is None:
            yield f"listeners.{name}: added"
        elif before != settings:
            yield from _differences(f"listeners.{name}", before, settings)


def _differences(key: str, before: Any, after: Any) -> Iterator[str]:
    for each in fields(before):
        old, new = getattr(before, each.name), getattr(after, each.name)
        if old == new:
            continue
        if each.name == "routes":
            yield from _routes(key, old, new)
        elif each.name == "binds":
            yield f"{key}.bind: {', '.join(map(str, old))} -> {', '.join(map(str, new))}"
        elif is_dataclass(old) and is_dataclass(new):
            yield from _differences(f"{key}.{each.name}", old, new)
        else:
            yield f"{key}.{each.name}: {_shown(old, new)}"


def _routes(key: str, old: tuple[RouteSettings, ...], new: tuple[RouteSettings, ...]) -> Iterator[str]:
    before, after = ({route.name: route for route in routes} for routes in (old, new))
    yield from (f"{key}.routes.{name}: removed" for name in before if name not in after)
    for name, route in after.items():
        if name not in before:
            yield f"{key}.routes.{name}: added"
        elif before[name] != route:
            yield f"{key}.routes.{name}: changed"
    if [name for name in before if name in after] != [name for name in after if name in before]:
        yield f"{key}.routes: in another order"


def _shown(old: object, new: object) -> str:
    """Two values, where they can be told in a word."""
    if all(each is None or isinstance(each, str | int | float) for each in (old, new)):
        return f"{_word(old)} -> {_word(new)}"
    return "removed" if old and not new else "added" if new and not old else "changed"


def _word(value: object) -> str:
    if value is None:
        return "off"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
