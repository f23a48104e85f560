"""How `listeners` is read: every key of it in lb-reference.yaml, with its bounds. Its routes: routes.py, tcp_routes.py.

Promises: each key acts; a listener that comes out has a bind and somewhere to send requests.
What binds and pools it names is left with the walk, for checks.py. Called by loader.py through service.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from lbsvc.config.addresses import bind
from lbsvc.config.document import spell
from lbsvc.config.networks import networks
from lbsvc.config.protocols import listener_protocol
from lbsvc.config.rates import RATE_LIMIT
from lbsvc.config.routes import ROUTE, pool_name
from lbsvc.config.schema import Bind, Limits, ListenerSettings, ListenerTimeouts, RouteSettings
from lbsvc.config.shapes import NULL, OFF, Of, either, like, list_of, shaped
from lbsvc.config.tcp_routes import check_rate_key, tcp_routes
from lbsvc.config.tls import LISTENER_TLS, check_alpn
from lbsvc.config.values import duration, nullable, nullable_text, number, size, word, yes_no
from lbsvc.config.walk import Refused, Section, Spot, listing, plain

#: What only speaks about requests; on a tcp listener it changes nothing.
_HTTP_ONLY: Final = ("trusted_proxies", "forwarded", "limits")
_HTTP_TIMEOUTS: Final = ("request_header", "request_body", "keep_alive")


@shaped(like(bind))
def _bind(spot: Spot) -> Bind:
    found = bind(spot)
    spot.walk.binds.append((spot, found))
    return found


@shaped(list_of(_bind, single=True))
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


@shaped({"anyOf": [{"required": ["pool"]}, {"required": ["routes"]}]})
def _listener(spot: Spot, found: dict[str, Any]) -> ListenerSettings:
    entries = spot.entries()
    _check_beginnings(spot, found)
    if any(network.endswith("/0") for network in found.get("trusted_proxies", ())):
        spot.walk.note(spell(spot.path, "trusted_proxies"), "everybody is believed, whoever they say that they are")
    if found.get("protocol") == "tcp":
        _check_tcp(spot, found)
    if not any(key in entries and (key not in found or not spot.at(key).is_hollow) for key in ("pool", "routes")):
        spot.missing("", "needs a pool or routes")
    return ListenerSettings("", found.pop("bind"), **found)


def _names_nobody(spot: Spot) -> bool:
    return spot.is_null or spot.is_off or spot.is_hollow


def _check_beginnings(spot: Spot, found: dict[str, Any]) -> None:
    """How connections begin: with a PROXY header, a TLS handshake, both, or a ClientHello that is only looked at."""
    entries = spot.entries()
    has_header = found.get("proxy_protocol", False)
    if has_header and ("trusted_proxies" not in entries or _names_nobody(spot.at("trusted_proxies"))):
        spot.at("proxy_protocol").wrong(
            "means nothing without trusted_proxies: only their connections begin with a header"
        )
    has_names = any(route.match.sni for route in found.get("routes", ()))
    begins_plainly = not has_header and found.get("tls") is None and not has_names
    if begins_plainly and "timeouts" in found and "handshake" in spot.at("timeouts").entries():
        ways = "tls, proxy_protocol and match.sni" if found.get("protocol") == "tcp" else "tls and proxy_protocol"
        spot.walk.note(f"{spot.path}.timeouts.handshake", f"does nothing without {ways}")
    speaks_http = found.get("protocol", "http" if "protocol" not in entries else None) == "http"
    if found.get("tls") is None:
        return
    check_alpn(spot.at("tls"), found["tls"], speaks_http)
    if not speaks_http and "alpn" not in spot.at("tls").entries():
        # What is spoken behind TLS only the backend knows: to agree on HTTP/2 for it would be a guess.
        found["tls"] = replace(found["tls"], alpn=())


def _check_tcp(spot: Spot, found: dict[str, Any]) -> None:
    """A tcp listener sees no requests: what only speaks about these is refused, or noted where it does no harm."""
    if found.get("expose_backend"):
        spot.at("expose_backend").wrong("means nothing where protocol is tcp")
    check_rate_key(spot, found.get("rate_limit"))
    for key in _HTTP_ONLY:
        if key == "trusted_proxies" and found.get("proxy_protocol"):
            continue  # they say by PROXY headers who is there
        if key in found and found[key] not in ("off", ()):
            spot.walk.note(spell(spot.path, key), "does nothing where protocol is tcp")
    timeouts = spot.at("timeouts").entries() if "timeouts" in found else {}
    for key in _HTTP_TIMEOUTS:
        if key in timeouts:
            spot.walk.note(f"{spot.path}.timeouts.{key}", "does nothing where protocol is tcp")


@shaped(lambda of: either(of(networks), OFF))
def _trusted(spot: Spot) -> tuple[str, ...]:
    return () if spot.is_off else networks(spot)


@shaped(lambda of: either(list_of(ROUTE)(of), NULL))
def _routes(spot: Spot) -> tuple[RouteSettings, ...]:
    return () if spot.is_null else listing(ROUTE)(spot)


_LISTENER: Final = Section(
    {
        "bind": _binds,
        "protocol": listener_protocol,
        "backlog": number(1, 65535),
        "max_connections": number(1, 10_000_000),
        "connections_per_client": nullable(number(1, 10_000_000)),
        "trusted_proxies": _trusted,
        "proxy_protocol": yes_no,
        "forwarded": word("x-forwarded", "rfc7239", "both", "off"),
        "tls": LISTENER_TLS,
        "timeouts": TIMEOUTS,
        "limits": LIMITS,
        "rate_limit": RATE_LIMIT,
        "access_log": yes_no,
        "expose_backend": yes_no,
        "routes": _routes,
        "pool": nullable_text(pool_name),
    },
    _listener,
    required=("bind",),
)


_TCP_LISTENER: Final = replace(_LISTENER, keys={**_LISTENER.keys, "routes": tcp_routes})


def _is_tcp(spot: Spot) -> bool:
    """How the other keys are to be read; what is wrong with this one is said when it is read itself."""
    try:
        return "protocol" in spot.entries() and spot.at("protocol").text() == "tcp"
    except Refused:
        return False


def _shape(of: Of) -> dict[str, Any]:
    """One mapping, in which routes are what the protocol makes of them."""
    http, tcp = of(_LISTENER), of(_TCP_LISTENER)
    routes = http["properties"]["routes"]
    said = {key: value for key, value in routes.items() if key != "anyOf"}
    by_protocol = [
        {
            "if": {"properties": {"protocol": {"const": "tcp"}}, "required": ["protocol"]},
            "then": {"properties": {"routes": tcp["properties"]["routes"]}},
        },
        {
            "if": {"properties": {"protocol": {"const": "http"}}},
            "then": {"properties": {"routes": routes}},
        },
    ]
    return http | {
        "properties": http["properties"] | {"routes": said | {"type": ["array", "null"]}},
        "allOf": by_protocol,
    }


@shaped(_shape)
def listener(spot: Spot, name: str) -> ListenerSettings:
    """The listener at a spot of `listeners`."""
    before = len(spot.walk.pool_uses)
    section = _TCP_LISTENER if _is_tcp(spot) else _LISTENER
    found = replace(section(spot), name=name)
    uses = spot.walk.pool_uses
    uses[before:] = [replace(use, protocol=found.protocol, listener=name) for use in uses[before:]]
    return found
