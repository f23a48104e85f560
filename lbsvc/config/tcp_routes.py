"""How `routes` of a tcp listener are read: by which names and clients connections are told apart, and where they go.

Promises: a route that comes out leads to a pool, or to several by weight, and asks only for what a connection can have;
keys that speak of requests are refused where they ask for something. Called by listeners.py; routes.py reads those of http.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final

from lbsvc.config.addresses import parse_host
from lbsvc.config.networks import networks
from lbsvc.config.rates import RATE_LIMIT
from lbsvc.config.routes import ACTIONS, MATCH, NOTHING, ROUTE, asks_nothing, pool_name, route_name, split_weights
from lbsvc.config.schema import Match, RouteSettings
from lbsvc.config.shapes import NULL, OFF, SOME_TEXT, VARIABLE, either, list_of, shaped
from lbsvc.config.values import label, nullable_text, text
from lbsvc.config.walk import Section, Spot, listing
from lbsvc.core.policies import RatePolicy

_WAYS: Final = ("pool", "split")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@shaped(SOME_TEXT)
def _name_pattern(spot: Spot) -> str:
    """A name that clients can ask for, or *.example.com."""
    found = text(spot).lower()
    name = found.removeprefix("*.")
    if _is_address(name.removeprefix("[").removesuffix("]")):
        spot.refuse(f"must be a host name: nobody asks for an address by SNI{spot.got()}")
    try:
        return found[: len(found) - len(name)] + parse_host(name).removesuffix(".")
    except ValueError:
        spot.expect("a host name without a port, or *.example.com")


@shaped(lambda of: either(list_of(_name_pattern, single=True)(of), NULL, OFF))
def name_patterns(spot: Spot) -> tuple[str, ...]:
    """`match.sni`: a list of names, each once; one alone needs no list, null is none."""
    return () if spot.is_null or spot.is_off else tuple(dict.fromkeys(listing(_name_pattern, single=True)(spot)))


#: A mapping may hold nothing but such.
_HOLLOW: Final = either(*NOTHING["anyOf"], {"type": "object"})


def _meaningless(why: str, *, hollow: bool = True) -> Callable[[Spot], None]:
    """A reader of what only requests could have: it may be off; with `hollow` an empty section is off, too."""

    @shaped(_HOLLOW if hollow else either(NULL, OFF, VARIABLE))
    def read(spot: Spot) -> None:
        if not (spot.is_null or spot.is_off or (hollow and spot.is_hollow)):
            spot.refuse(f"means nothing where protocol is tcp: {why}")

    return read


_MATCHES: Final = _meaningless("connections are matched by sni and client")
_DOES: Final = _meaningless("there are no requests; a route leads to a pool, or splits")
_ANSWERS: Final = _meaningless("there are no requests to answer; a route leads to a pool, or splits", hollow=False)


def _match(spot: Spot, found: dict[str, Any]) -> Match:
    return Match(client=found.get("client", ()), sni=found.get("sni", ()))


TCP_MATCH: Final = Section(
    {**dict.fromkeys(MATCH.keys, _MATCHES), "client": networks, "sni": name_patterns},
    _match,
)


@shaped({"anyOf": [{"required": [way]} for way in _WAYS]})
def _route(spot: Spot, found: dict[str, Any]) -> RouteSettings:
    entries = spot.entries()
    asked = [key for key in entries if key in _WAYS and not asks_nothing(spot.at(key))]
    if not asked and not any(key in ACTIONS and key not in found for key in entries):
        spot.missing("", "needs pool or split")
    if len(asked) > 1 and asked[1] in found:
        spot.at(asked[1]).wrong(f"cannot stand beside {asked[0]}: a route does one thing")
    rates: RatePolicy | None = found.get("rate_limit")
    check_rate_key(spot, rates)
    match: Match = found.get("match", Match())
    return RouteSettings(
        found.get("name") or route_name(match),
        match,
        found.get("pool"),
        split=found.get("split", ()),
        rate_limit=rates,
    )


def check_rate_key(spot: Spot, rates: RatePolicy | None) -> None:
    """The `rate_limit` of a listener or a route: what it goes by must be there on a connection."""
    if rates is not None and rates.key.startswith("header:"):
        spot.at("rate_limit").at("key").wrong("cannot be a header where protocol is tcp: there are no requests")


_ROUTE: Final = Section(
    {
        **dict.fromkeys(ROUTE.keys, _DOES),
        **dict.fromkeys(("respond", "redirect", "deny"), _ANSWERS),
        "match": TCP_MATCH,
        "name": label,
        "pool": nullable_text(pool_name),
        "split": split_weights,
        "rate_limit": RATE_LIMIT,
    },
    _route,
)


@shaped(lambda of: either(list_of(_ROUTE)(of), NULL))
def tcp_routes(spot: Spot) -> tuple[RouteSettings, ...]:
    """The routes of a tcp listener; null is none."""
    return () if spot.is_null else listing(_ROUTE)(spot)
