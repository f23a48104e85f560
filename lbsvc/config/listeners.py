"""How `listeners` is read: every key of it in lb-reference.yaml, with its bounds.

Promises: each key either acts or is a `Later`; a listener that comes out has a bind and somewhere to send requests.
What binds and pools it names is left with the walk, for checks.py. Called by loader.py through service.py.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Any, Final

from lbsvc.config.addresses import bind, parse_host
from lbsvc.config.document import spell
from lbsvc.config.schema import (
    Bind,
    Limits,
    ListenerSettings,
    ListenerTimeouts,
    Match,
    Redirect,
    Respond,
    RouteSettings,
)
from lbsvc.config.values import (
    duration,
    headers,
    label,
    method,
    nullable,
    nullable_text,
    number,
    size,
    target,
    text,
    visible,
    word,
    yes_no,
)
from lbsvc.config.walk import NOT_YET, Later, Section, Spot, listing, plain
from lbsvc.core.router import normal_path
from lbsvc.errors import ProtocolViolation

#: Response headers that the balancer sets itself, because they frame or route the message.
_OURS: Final = frozenset(
    {"connection", "content-length", "date", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_BODILESS: Final = frozenset({204, 205, 304})
_ACTIONS: Final = ("pool", "respond", "redirect", "deny", "split")
_TARGET: Final = re.compile(r"(?:https?://[\x21-\x29\x2b-\x7e]+|/[\x21-\x29\x2b-\x7e]*)\*?")
#: What only speaks about requests; on a tcp listener it changes nothing.
_HTTP_ONLY: Final = ("forwarded", "limits")
_HTTP_TIMEOUTS: Final = ("request_header", "request_body", "keep_alive")


def _host_pattern(spot: Spot) -> str:
    found = text(spot).lower()
    try:
        if ":" in found:
            return f"[{ipaddress.IPv6Address(found.removeprefix('[').removesuffix(']'))}]"
        name = found.removeprefix("*.")
        return found[: len(found) - len(name)] + parse_host(name).removesuffix(".")
    except ValueError:
        spot.expect("a host without a port, or *.example.com")


def _path_pattern(spot: Spot) -> str:
    """The pattern in normal form, in which paths are matched."""
    found = target(spot)
    stem, star = (found[:-1], "*") if found.endswith("/*") else (found, "")
    if "*" in stem:
        spot.expect("an exact path, or a prefix that ends in /*")
    if "?" in stem:
        spot.expect("a path without a query")
    try:
        return normal_path(stem.encode("ascii")).decode("ascii") + star
    except ProtocolViolation as error:
        spot.refuse(f"can never match: {error.detail}{spot.got()}")


def _methods(spot: Spot) -> frozenset[str]:
    return frozenset(listing(method, single=True)(spot))


MATCH: Final = Section(
    {
        "host": nullable_text(_host_pattern),
        "path": nullable_text(_path_pattern),
        "methods": lambda spot: frozenset() if spot.is_null else _methods(spot),
        "headers": headers(lower=True),
        "client": Later(hollow=True),
        "sni": Later(hollow=True),
    },
    plain(Match),
)


def _respond(spot: Spot, found: dict[str, Any]) -> Respond:
    answer = Respond(**found)
    if answer.status in _BODILESS and answer.body:
        spot.wrong(f"a {answer.status} has no body")
    return answer


RESPOND: Final = Section(
    {
        "status": number(200, 599),
        "body": text,
        "headers": headers(refused=_OURS),
    },
    _respond,
)


def _redirect_target(spot: Spot) -> str:
    found = visible(spot)
    if not _TARGET.fullmatch(found):
        spot.expect("an http:// or https:// URL or a path, with * at its end only")
    return found


def _redirect_status(spot: Spot) -> int:
    found = number(300, 399)(spot)
    if found not in (301, 302, 303, 307, 308):
        spot.expect("301, 302, 303, 307 or 308")
    return found


REDIRECT: Final = Section(
    {"to": _redirect_target, "status": _redirect_status},
    plain(Redirect),
    required=("to",),
    short=lambda spot: Redirect(_redirect_target(spot)),
)


def _route_name(match: Match) -> str:
    """What a route is called that has no name: from its match."""
    parts = [",".join(sorted(match.methods))] if match.methods else []
    if match.host or match.path:
        parts.append((match.host or "") + (match.path or ""))
    parts += [f"{name}={value}" for name, value in match.headers]
    return " ".join(parts)[:128] or "*"


def _pool(spot: Spot) -> str:
    found = text(spot)
    spot.walk.pool_uses.append((spot, found, "http"))
    return found


def _route(spot: Spot, found: dict[str, Any]) -> RouteSettings:
    asked = [key for key in spot.entries() if key in _ACTIONS and not _asks_nothing(spot.at(key))]
    if not asked:
        spot.missing("", "needs pool, respond or redirect")
    for key in asked[1:]:
        if key in found:
            spot.at(key).wrong(f"cannot stand beside {asked[0]}: a route does one thing")
    match: Match = found.get("match", Match())
    redirect: Redirect | None = found.get("redirect")
    if redirect is not None and redirect.to.endswith("*") and match.path and not match.path.endswith("*"):
        spot.at("redirect").wrong("has a target that ends in *, but match.path does not: nothing is left to carry over")
    name = found.get("name") or _route_name(match)
    return RouteSettings(name, match, found.get("pool"), found.get("respond"), redirect)


def _asks_nothing(spot: Spot) -> bool:
    """Whether an action stands here at a value that leaves it off."""
    return spot.is_null or (spot.path.endswith(("deny", "split")) and (spot.is_off or spot.is_hollow))


ROUTE: Final = Section(
    {
        "match": MATCH,
        "name": label,
        "pool": nullable_text(_pool),
        "respond": nullable_text(RESPOND),
        "redirect": nullable_text(REDIRECT),
        "strip_prefix": Later(),
        "rewrite": Later(hollow=True),
        "request_headers": Later(hollow=True),
        "response_headers": Later(hollow=True),
        "timeout": Later(),
        "body_size": Later(),
        "rate_limit": Later(hollow=True),
        "fault": Later(hollow=True),
        "deny": Later(),
        "split": Later(hollow=True),
        "mirror": Later(hollow=True),
    },
    _route,
)


def _bind(spot: Spot) -> Bind:
    found = bind(spot)
    spot.walk.binds.append((spot, found))
    return found


def _binds(spot: Spot) -> tuple[Bind, ...]:
    found = listing(_bind, single=True)(spot)
    if spot.is_hollow:
        spot.refuse("needs at least one address")
    return found


TIMEOUTS: Final = Section(
    {
        "handshake": duration(),
        "request_header": duration(),
        "request_body": duration(),
        "keep_alive": duration(),
        "write": duration(),
        "idle": duration(),
        "half_close": duration(),
    },
    plain(ListenerTimeouts),
)

LIMITS: Final = Section(
    {
        "header_size": size(256, 16 << 20),
        "header_count": number(1, 100_000),
        "body_size": nullable(size()),
        "underscore_headers": word("drop", "keep", "reject"),
    },
    plain(Limits),
)


def _listener(spot: Spot, found: dict[str, Any]) -> ListenerSettings:
    entries = spot.entries()
    tcp = found.get("protocol") == "tcp"
    if "timeouts" in found and "handshake" in spot.at("timeouts").entries():
        # Accepted, for there is nothing yet that it could fail to limit; but said.
        spot.walk.note(f"{spot.path}.timeouts.handshake", "does nothing yet: TLS and PROXY headers are not supported")
    if tcp:
        _check_tcp(spot, found)
    unread = any(key in entries and key not in found for key in ("pool", "routes"))
    if not unread and not found.get("pool") and not found.get("routes"):
        spot.missing("", "needs a pool" if tcp else "needs a pool or routes")
    return ListenerSettings("", found.pop("bind"), **found)


def _check_tcp(spot: Spot, found: dict[str, Any]) -> None:
    """A tcp listener sees no requests: what only speaks about these is refused, or noted where it does no harm."""
    if found.get("routes"):
        spot.at("routes").wrong(f"{NOT_YET} where protocol is tcp")
    if found.get("expose_backend"):
        spot.at("expose_backend").wrong("means nothing where protocol is tcp")
    for key in _HTTP_ONLY:
        if key in found and found[key] != "off":
            spot.walk.note(spell(spot.path, key), "does nothing where protocol is tcp")
    timeouts = spot.at("timeouts").entries() if "timeouts" in found else {}
    for key in _HTTP_TIMEOUTS:
        if key in timeouts:
            spot.walk.note(f"{spot.path}.timeouts.{key}", "does nothing where protocol is tcp")


_LISTENER: Final = Section(
    {
        "bind": _binds,
        "protocol": word("http", "tcp"),
        "backlog": number(1, 65535),
        "max_connections": number(1, 10_000_000),
        "connections_per_client": Later(),
        "trusted_proxies": Later(hollow=True),
        "proxy_protocol": Later(yes_no=True),
        "forwarded": word("x-forwarded", "off", later=("rfc7239", "both")),
        "tls": Later(),
        "timeouts": TIMEOUTS,
        "limits": LIMITS,
        "rate_limit": Later(hollow=True),
        "access_log": yes_no,
        "expose_backend": yes_no,
        "routes": lambda spot: () if spot.is_null else listing(ROUTE)(spot),
        "pool": nullable_text(_pool),
    },
    _listener,
    required=("bind",),
)


def listener(spot: Spot, name: str) -> ListenerSettings:
    """The listener at a spot of `listeners`."""
    before = len(spot.walk.pool_uses)
    found = replace(_LISTENER(spot), name=name)
    uses = spot.walk.pool_uses
    uses[before:] = [(place, pool, found.protocol) for place, pool, _ in uses[before:]]
    return found
