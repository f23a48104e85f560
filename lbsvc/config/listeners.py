"""How `listeners` is read: every key of it in lb-reference.yaml, with its bounds; its routes are read by routes.py.

Promises: each key either acts or is a `Later`; a listener that comes out has a bind and somewhere to send requests.
What binds and pools it names is left with the walk, for checks.py. Called by loader.py through service.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from lbsvc.config.addresses import bind
from lbsvc.config.document import spell
from lbsvc.config.networks import networks
from lbsvc.config.rates import RATE_LIMIT
from lbsvc.config.routes import ROUTE, pool_name
from lbsvc.config.schema import Bind, Limits, ListenerSettings, ListenerTimeouts
from lbsvc.config.values import duration, nullable, nullable_text, number, size, word, yes_no
from lbsvc.config.walk import NOT_YET, Later, Section, Spot, listing, plain
from lbsvc.core.policies import RatePolicy

#: What only speaks about requests; on a tcp listener it changes nothing.
_HTTP_ONLY: Final = ("trusted_proxies", "forwarded", "limits")
_HTTP_TIMEOUTS: Final = ("request_header", "request_body", "keep_alive")


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
    if any(network.endswith("/0") for network in found.get("trusted_proxies", ())):
        spot.walk.note(spell(spot.path, "trusted_proxies"), "everybody is believed, whoever they say that they are")
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
    rates: RatePolicy | None = found.get("rate_limit")
    if rates is not None and rates.key.startswith("header:"):
        spot.at("rate_limit").at("key").wrong("cannot be a header where protocol is tcp: there are no requests")
    for key in _HTTP_ONLY:
        if key in found and found[key] not in ("off", ()):
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
        "connections_per_client": nullable(number(1, 10_000_000)),
        "trusted_proxies": lambda spot: () if spot.is_off else networks(spot),
        "proxy_protocol": Later(yes_no=True),
        "forwarded": word("x-forwarded", "rfc7239", "both", "off"),
        "tls": Later(),
        "timeouts": TIMEOUTS,
        "limits": LIMITS,
        "rate_limit": RATE_LIMIT,
        "access_log": yes_no,
        "expose_backend": yes_no,
        "routes": lambda spot: () if spot.is_null else listing(ROUTE)(spot),
        "pool": nullable_text(pool_name),
    },
    _listener,
    required=("bind",),
)


def listener(spot: Spot, name: str) -> ListenerSettings:
    """The listener at a spot of `listeners`."""
    before = len(spot.walk.pool_uses)
    found = replace(_LISTENER(spot), name=name)
    uses = spot.walk.pool_uses
    uses[before:] = [replace(use, protocol=found.protocol, listener=name) for use in uses[before:]]
    return found
