"""Short calls for settings and live objects, so that a test names only what it is about.

Everything has the default of lb-reference.yaml unless it is given. Used by tests of every floor.
"""

from __future__ import annotations

from typing import Any

from lbsvc.config.schema import (
    AdminSettings,
    BackendSettings,
    Bind,
    ListenerSettings,
    Match,
    PoolSettings,
    Redirect,
    Respond,
    RouteSettings,
    Settings,
)


def bind(text: str = "127.0.0.1:0") -> Bind:
    """`bind("127.0.0.1:8080")`, `bind(":8080")`."""
    host, _, port = text.rpartition(":")
    return Bind(host.strip("[]"), int(port))


def backend(address: str = "127.0.0.1:8001", **keys: Any) -> BackendSettings:
    """`backend("127.0.0.1:8001", weight=2)`; named by its address unless told otherwise."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    return BackendSettings(address, host.strip("[]"), int(port), keys.pop("name", address), **keys)


def pool(*addresses: str | BackendSettings, name: str = "web", **keys: Any) -> PoolSettings:
    """`pool("127.0.0.1:8001", "127.0.0.1:8002", algorithm="random")`."""
    members = tuple(backend(each) if isinstance(each, str) else each for each in addresses)
    return PoolSettings(name, members, **keys)


def listener(address: str = "127.0.0.1:0", *, name: str = "main", **keys: Any) -> ListenerSettings:
    """`listener(protocol="tcp", pool="web")`; port 0 by default."""
    return ListenerSettings(name, (bind(address),), **keys)


def route(
    name: str = "route",
    *,
    host: str | None = None,
    path: str | None = None,
    methods: tuple[str, ...] = (),
    headers: tuple[tuple[str, str], ...] = (),
    **action: Any,
) -> RouteSettings:
    """`route(path="/ping", respond=Respond(body="pong"))`, `route(host="a.example", pool="web")`."""
    return RouteSettings(name, Match(host, path, frozenset(methods), headers), **action)


def respond(body: str = "ok\n", status: int = 200) -> Respond:
    return Respond(status, body, (("Content-Type", "text/plain"),))


def redirect(to: str, status: int = 308) -> Redirect:
    return Redirect(to, status)


def settings(*parts: ListenerSettings | PoolSettings, **keys: Any) -> Settings:
    """`settings(listener(pool="web"), pool("127.0.0.1:8001"))`: by their names, admin on port 0."""
    keys.setdefault("admin", AdminSettings(bind("127.0.0.1:0")))
    return Settings(
        {part.name: part for part in parts if isinstance(part, ListenerSettings)},
        {part.name: part for part in parts if isinstance(part, PoolSettings)},
        **keys,
    )
