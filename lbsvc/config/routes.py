"""How `routes` of an http listener are read: what a request must have, what is done with it and changed on the way.

Promises: a route that comes out does exactly one thing, to pools that are left with the walk for checks.py; what its
action gives no meaning to is refused, and nothing in it can fail once requests come. Called by listeners.py, and by
tcp_routes.py for what the two kinds of routes have in common.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from lbsvc.config.addresses import parse_host
from lbsvc.config.edits import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    REWRITE,
    is_ever_there,
    path_in_normal_form,
    strip_prefix,
)
from lbsvc.config.networks import networks
from lbsvc.config.rates import RATE_LIMIT
from lbsvc.config.redirects import REDIRECT
from lbsvc.config.schema import Fault, HeaderEdits, Match, Mirror, Redirect, Respond, RouteSettings
from lbsvc.config.shapes import NULL, OFF, SOME_TEXT, TEXT, VARIABLE, either, like, list_of, shaped, whole
from lbsvc.config.values import (
    duration,
    headers,
    known_method,
    label,
    nullable,
    nullable_text,
    number,
    share,
    size,
    target,
    text,
)
from lbsvc.config.walk import PoolUse, Refused, Section, Spot, listing, named, plain

#: Response headers that the balancer sets itself, because they frame or route the message.
_OURS: Final = dict.fromkeys(
    ("connection", "content-length", "date", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
    "is set by the balancer itself",
)
_BODILESS: Final = frozenset({204, 205, 304})
ACTIONS: Final = ("pool", "respond", "redirect", "deny", "split")
#: Actions that ask no backend, and what therefore means nothing beside them.
_OWN_ANSWERS: Final = ("respond", "redirect", "deny")
_FOR_BACKENDS: Final = ("strip_prefix", "rewrite", "request_headers", "timeout", "mirror")


#: What means nothing where it stands: it may be off.
NOTHING: Final = either(NULL, OFF, {"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0}, VARIABLE)

# match


@shaped(SOME_TEXT)
def _host_pattern(spot: Spot) -> str:
    found = text(spot).lower()
    try:
        if ":" in found:
            return f"[{ipaddress.IPv6Address(found.removeprefix('[').removesuffix(']'))}]"
        name = found.removeprefix("*.")
        return found[: len(found) - len(name)] + parse_host(name).removesuffix(".")
    except ValueError:
        spot.expect("a host without a port, or *.example.com")


@shaped(like(target))
def _path_pattern(spot: Spot) -> str:
    """The pattern in normal form, in which paths are matched."""
    found = target(spot)
    stem, star = (found[:-1], "*") if found.endswith("/*") else (found, "")
    if "*" in stem:
        spot.expect("an exact path, or a prefix that ends in /*")
    if "?" in stem:
        spot.expect("a path without a query")
    return path_in_normal_form(spot, stem) + star


@shaped(lambda of: either(list_of(known_method, single=True)(of), NULL))
def _methods(spot: Spot) -> frozenset[str]:
    return frozenset() if spot.is_null else frozenset(listing(known_method, single=True)(spot))


@shaped(NOTHING)
def _no_sni(spot: Spot) -> tuple[str, ...]:
    """What a client asks for by TLS may be another host than its requests name; these are what http routes go by."""
    if not (spot.is_null or spot.is_off or spot.is_hollow):
        spot.refuse("means nothing where protocol is http: use host")
    return ()


MATCH: Final = Section(
    {
        "host": nullable_text(_host_pattern),
        "path": nullable_text(_path_pattern),
        "methods": _methods,
        "headers": headers(lower=True),
        "client": networks,
        "sni": _no_sni,
    },
    plain(Match),
)


def route_name(match: Match) -> str:
    """What a route is called that has no name: from its match."""
    parts = [",".join(sorted(match.methods))] if match.methods else []
    if match.sni:
        parts.append(",".join(match.sni))
    if match.host or match.path:
        parts.append((match.host or "") + (match.path or ""))
    parts += [f"{name}={value}" for name, value in match.headers]
    if match.client:
        parts.append("client=" + ",".join(match.client))
    return " ".join(parts)[:128] or "*"


# actions


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


@shaped(TEXT)
def pool_name(spot: Spot, *, is_copy: bool = False) -> str:
    """The name of a pool; that there is one is for checks.py to see."""
    found = text(spot)
    spot.walk.pool_uses.append(PoolUse(spot, found, is_copy=is_copy))
    return found


@shaped(either(whole(400, 599), NULL, OFF))
def _deny(spot: Spot) -> int | None:
    if spot.is_null or spot.is_off:
        return None
    if spot.value is True:
        spot.expect("the status that is answered, such as 403")
    return number(400, 599)(spot)


@shaped(whole(0, 65535))
def _weight(spot: Spot, pool: str) -> int:
    spot.walk.pool_uses.append(PoolUse(spot, pool, is_key=True))
    return number(0, 65535)(spot)


@shaped(lambda of: either(of(named(_weight, checked=False)), OFF, VARIABLE))
def split_weights(spot: Spot) -> tuple[tuple[str, int], ...]:
    """Pools and their weights."""
    if spot.is_off:
        return ()
    found = named(_weight, checked=False)(spot)
    if found and not any(found.values()) and len(found) == len(spot.entries()):
        spot.refuse("needs a weight above 0")
    return tuple(found.items())


@shaped(TEXT)
def _copy_pool(spot: Spot) -> str:
    return pool_name(spot, is_copy=True)


def _mirror(spot: Spot, found: dict[str, Any]) -> Mirror | None:
    if spot.is_hollow:
        return None
    if found.get("pool") is None:
        if "pool" not in spot.entries() or "pool" in found:
            spot.missing("pool")
        raise Refused
    return Mirror(found["pool"], found.get("percent", 1.0))


MIRROR: Final[Section[Mirror | None]] = Section(
    {"pool": nullable_text(_copy_pool), "percent": share},
    _mirror,
    off=(None,),
    short=shaped(TEXT)(lambda spot: Mirror(_copy_pool(spot))),
)


def _fault(spot: Spot, found: dict[str, Any]) -> Fault | None:
    if spot.is_hollow:
        return None
    delay, abort = found.get("delay"), found.get("abort")
    if delay is None and abort is None:
        entries = spot.entries()
        if not any(key in entries and key not in found for key in ("delay", "abort")):
            spot.missing("", "needs delay or abort")
        raise Refused
    return Fault(delay or 0.0, abort, found.get("percent", 1.0))


FAULT: Final[Section[Fault | None]] = Section(
    {"delay": nullable(duration(low=0)), "abort": nullable(number(400, 599)), "percent": share},
    _fault,
    off=(None,),
)


# the route


@shaped({"anyOf": [{"required": [action]} for action in ACTIONS]})
def _route(spot: Spot, found: dict[str, Any]) -> RouteSettings:
    asked = [key for key in spot.entries() if key in ACTIONS and not asks_nothing(spot.at(key))]
    if not asked:
        spot.missing("", "needs pool, respond, redirect, deny or split")
    for key in asked[1:]:
        if key in found:
            spot.at(key).wrong(f"cannot stand beside {asked[0]}: a route does one thing")
    if len(asked) == 1 and asked[0] in _OWN_ANSWERS:
        for key in _FOR_BACKENDS:
            if found.get(key) not in (None, HeaderEdits()):
                spot.at(key).wrong(f"means nothing beside {asked[0]}: no backend is asked")
    match: Match = found.pop("match", Match())
    if match.path is not None:
        _check_path(spot, match.path, found)
    name = found.pop("name", None) or route_name(match)
    return RouteSettings(name, match, **found)


def asks_nothing(spot: Spot) -> bool:
    """Whether an action stands here at a value that leaves it off."""
    if spot.path.endswith(".split"):
        return spot.is_off or spot.is_hollow
    return spot.is_null or (spot.path.endswith(".deny") and spot.is_off)


def _check_path(spot: Spot, pattern: str, found: dict[str, Any]) -> None:
    """What is taken from the path must be there to be taken."""
    redirect: Redirect | None = found.get("redirect")
    if redirect is not None and redirect.to.endswith("*") and not pattern.endswith("*"):
        spot.at("redirect").wrong("has a target that ends in *, but match.path does not: nothing is left to carry over")
    prefix: str | None = found.get("strip_prefix")
    if prefix is not None and not is_ever_there(prefix, pattern):
        place = spot.at("strip_prefix")
        place.wrong(f"does not fit match.path: it is never there to be stripped{place.got()}")


ROUTE: Final = Section(
    {
        "match": MATCH,
        "name": label,
        "pool": nullable_text(pool_name),
        "respond": nullable_text(RESPOND),
        "redirect": nullable_text(REDIRECT),
        "strip_prefix": nullable(strip_prefix),
        "rewrite": REWRITE,
        "request_headers": REQUEST_HEADERS,
        "response_headers": RESPONSE_HEADERS,
        "timeout": nullable(duration()),
        "body_size": nullable(size()),
        "rate_limit": RATE_LIMIT,
        "fault": FAULT,
        "deny": _deny,
        "split": split_weights,
        "mirror": MIRROR,
    },
    _route,
)
