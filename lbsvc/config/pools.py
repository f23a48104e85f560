"""How `pools` is read: every key of it in lb-reference.yaml, with its bounds.

Promises: each key acts; a pool that comes out has backends, no two of them alike. Called by
loader.py through service.py. Defaults are those of core/policies.py and schema.py, written nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from lbsvc.config.addresses import address
from lbsvc.config.document import spell
from lbsvc.config.extensions import ExtensionFault, algorithm_names, known_algorithm
from lbsvc.config.protocols import check_type, pool_protocol
from lbsvc.config.request_keys import request_key
from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.config.shapes import SOME_TEXT, either, fitting, like, list_of, one_of, or_none, shaped
from lbsvc.config.sticky import STICKY
from lbsvc.config.surviving import CIRCUIT_BREAKER, FLAPPING, PASSIVE_HEALTH, QUEUE, panic_threshold, slow_start
from lbsvc.config.tls import POOL_TLS
from lbsvc.config.values import (
    duration,
    known_method,
    label,
    matching,
    method,
    nullable,
    nullable_text,
    number,
    share,
    size,
    target,
    text,
    visible,
    word,
    words,
    yes_no,
)
from lbsvc.config.walk import ReadPool, Refused, RequestKey, Section, Spot, listing, plain
from lbsvc.core.algorithms import ALGORITHMS, canonical_algorithm
from lbsvc.core.grpc_codes import GRPC_CODES
from lbsvc.core.policies import Backoff, HealthCheckPolicy, KeptConnections, RetryPolicy, UpstreamTimeouts

_CAUSES: Final = ("connect_failure", "reset", "timeout", "502", "503", "504", "5xx")
#: gRPC's, which are written with _ or -, small or in capitals.
_GRPC_CAUSES: Final = tuple(name for name in GRPC_CODES if name != "ok")
_GRPC_SPELLING: Final = r"[A-Za-z]+(?:[_-][A-Za-z]+)*"
_RANGE: Final = re.compile(r" *[1-5][0-9]{2} *(?:- *[1-5][0-9]{2} *)?")
#: What a check cannot ask where it speaks another protocol.
UNASKED: Final = {
    "tcp": ("path", "method", "host", "expect_status", "expect_body", "service"),
    "http": ("service",),
    "grpc": ("path", "method", "expect_status", "expect_body"),
}


@shaped({"anyOf": [{"enum": list(ALGORITHMS)}, SOME_TEXT]})
def _algorithm(spot: Spot) -> str:
    found = text(spot)
    try:
        name = canonical_algorithm(found) or known_algorithm(found)
    except ExtensionFault as fault:
        spot.refuse(f"{fault}{spot.got()}")
    if name is None:
        names = algorithm_names()
        spot.refuse(f"must be {words(names)}{spot.got(names)}")
    return name


_any_key = request_key("client_ip", "header:NAME", "cookie:NAME", "path", "host")


@shaped(like(_any_key))
def _hash_key(spot: Spot) -> str:
    found = _any_key(spot)
    if found != "client_ip":
        spot.walk.request_keys.append(RequestKey(spot, spot.walk.pool_names[-1]))
    return found


def _backend(spot: Spot, found: dict[str, Any]) -> BackendSettings:
    backend: BackendSettings = found.pop("address")
    return replace(backend, **found)


BACKEND: Final = Section(
    {
        "address": address,
        "name": label,
        "weight": number(0, 65535),
        "backup": yes_no,
        "max_connections": nullable(number(1, 10_000_000)),
    },
    _backend,
    required=("address",),
    short=address,
)


@shaped(list_of(BACKEND, single=True))
def _backends(spot: Spot) -> tuple[BackendSettings, ...]:
    if spot.is_null or spot.is_hollow:
        spot.refuse("needs at least one backend")
    found: list[BackendSettings] = []
    places: dict[object, int] = {}  # by name, and by host and port: the first item that has it
    for i, (entry, path) in enumerate(spot.items(single=True)):
        try:
            child = spot.below(entry, path)
            backend = BACKEND(child)
        except Refused:
            continue
        found.append(backend)
        spot.walk.places.append(child)
        at = places.setdefault((backend.host, backend.port), i)
        if at != i:
            child.wrong(f"is the same address as backends[{at}]")
            continue
        at = places.setdefault(backend.name, i)
        if at != i:
            child.wrong(f"has the same name as backends[{at}]")
    return tuple(found)


@shaped(either({"type": "integer", "minimum": 100, "maximum": 599}, fitting(_RANGE)))
def _status_range(spot: Spot) -> tuple[int, int]:
    value = spot.value
    low, dash, high = (str(value) if isinstance(value, int) else spot.text() or "").partition("-")
    low, high = low.strip(), high.strip() if dash else low.strip()
    if not all(len(part) == 3 and part.isascii() and part.isdigit() for part in (low, high)):
        spot.expect("a status such as 200, or a range such as 200-399")
    if not 100 <= int(low) <= int(high) <= 599:
        spot.expect("within 100-599, the lower end first")
    return int(low), int(high)


@shaped(list_of(_status_range, single=True))
def _statuses(spot: Spot) -> tuple[tuple[int, int], ...]:
    found = listing(_status_range, single=True)(spot)
    if spot.is_hollow:
        spot.refuse("needs at least one status")
    return found


@shaped(SOME_TEXT)
def _some_text(spot: Spot) -> str:
    found = text(spot)
    if not found:
        spot.refuse("must not be empty; null for none")
    return found


def check_asked(spot: Spot, found: dict[str, Any], kind: str | None) -> None:
    """Refuse what a check of this kind cannot ask; None: which one it is, is not known."""
    for key in UNASKED[kind] if kind is not None else ():
        if found.get(key) is not None:
            more = "" if "type" in spot.entries() else f": add type: {'grpc' if key == 'service' else 'http'}"
            spot.at(key).wrong(f"means nothing for {'an' if kind == 'http' else 'a'} {kind} check{more}")


#: As protobuf names services; a name goes into a request's body, so that anything else would only be a slip.
_service = matching(re.compile(r"[A-Za-z0-9_.:/-]*"), "the name of a gRPC service, such as shop.v1.Orders", 255)


def _health_check(spot: Spot, found: dict[str, Any]) -> HealthCheckPolicy:
    entries = spot.entries()
    kind = found.get("type")
    if kind is None and "type" not in entries:
        kind = "http" if found.get("path") is not None else "tcp"
    check_asked(spot, found, kind)
    if found.get("method") == "HEAD" and found.get("expect_body") is not None:
        spot.at("expect_body").wrong("cannot be found: the answer to HEAD has no body")
    found = {key: value for key, value in found.items() if value is not None or key in ("host", "port", "expect_body")}
    return HealthCheckPolicy(**found | {"type": kind or "tcp"})


HEALTH_CHECK: Final[Section[HealthCheckPolicy | None]] = Section(
    {
        "type": check_type,
        "service": nullable_text(_service),
        "path": nullable_text(target),
        "method": method,
        "host": nullable_text(visible),
        "port": nullable(number(1, 65535)),
        "expect_status": _statuses,
        "expect_body": nullable_text(_some_text),
        "interval": duration(low=0.01),
        "timeout": duration(),
        "rise": number(1, 1000),
        "fall": number(1, 1000),
    },
    _health_check,
    off=(None,),
    short=shaped(like(check_type))(lambda spot: HealthCheckPolicy(type=check_type(spot))),
)


@shaped(either(one_of(*_CAUSES, 502, 503, 504, *_GRPC_CAUSES), fitting(re.compile(_GRPC_SPELLING))))
def _cause(spot: Spot) -> str:
    value = spot.value
    found = str(value) if isinstance(value, int) and not isinstance(value, bool) else spot.text()
    if found in _CAUSES:
        return found
    code = (found or "").lower().replace("-", "_")
    if code not in _GRPC_CAUSES:
        known = (*_CAUSES, "a gRPC code such as unavailable")
        spot.refuse(f"must be {words(known)}{spot.got(_CAUSES + _GRPC_CAUSES)}")
    return code


def _backoff(spot: Spot, found: dict[str, Any]) -> Backoff:
    backoff = Backoff(**found)
    if backoff.initial > backoff.max:
        spot.wrong("initial must not be more than max")
    return backoff


def _set_of(reader: Callable[[Spot], Any]) -> Callable[[Spot], frozenset[Any]]:
    """Several of what a reader takes; one alone needs no list."""
    found: Callable[[Spot], frozenset[Any]] = lambda spot: frozenset(listing(reader, single=True)(spot))  # noqa: E731
    return shaped(list_of(reader, single=True))(found)


_RETRY: Final = Section(
    {
        "attempts": number(1, 100),
        "when": _set_of(_cause),
        "methods": _set_of(shaped(like(known_method))(lambda spot: known_method(spot).encode("ascii"))),
        "backoff": Section({"initial": duration(low=0), "max": duration(low=0)}, _backoff),
        "budget": share,
        "per_try_timeout": nullable(duration()),
        "buffer": size(0, 1 << 30),
    },
    plain(RetryPolicy),
    off=(RetryPolicy(attempts=1),),
)


_CONNECTIONS: Final = Section(
    {
        "keep_alive": number(0, 100_000),
        "idle_timeout": duration(),
        "max_requests": nullable(number(1, 1 << 53)),
        "max_lifetime": nullable(duration()),
    },
    plain(KeptConnections),
)


def _are_sockets(spot: Spot, backends: tuple[BackendSettings, ...]) -> bool:
    """Whether all backends have been read and are unix sockets."""
    whole = len(backends) == len(list(spot.items(single=True)))
    return whole and all(backend.host.startswith("/") for backend in backends)


_version = word("off", "v1", "v2")


@shaped(or_none(_version))
def _proxy_protocol(spot: Spot) -> str | None:
    found = "off" if spot.is_null else _version(spot)
    return None if found == "off" else found


def _pool(spot: Spot, found: dict[str, Any]) -> PoolSettings:
    entries = spot.entries()
    if "connections" in found and "keep_alive" in spot.at("connections").entries():
        # Where it is left out, tcp dials nothing ahead; nor where a connection begins with its client's address.
        found["ahead"] = 0 if found.get("proxy_protocol") else found["connections"].keep_alive
    if found.get("hash_key", "client_ip") != "client_ip" and ("algorithm" in found or "algorithm" not in entries):
        algorithm = found.get("algorithm", PoolSettings.algorithm)
        if algorithm in ALGORITHMS and algorithm != "consistent_hash":  # what others look at is theirs to know
            spot.walk.note(spell(spot.path, "hash_key"), "does nothing: only consistent_hash looks at it")
    if "health_check" in found and found["health_check"] is None and found.get("flapping") is not None:
        spot.walk.note(spell(spot.path, "flapping"), "does nothing where health_check is off")
    backends: tuple[BackendSettings, ...] = found.pop("backends")
    check: HealthCheckPolicy | None = found.get("health_check")
    if check is not None and check.port is not None and _are_sockets(spot.at("backends"), backends):
        spot.at("health_check").at("port").wrong("means nothing where all backends are unix sockets")
    return PoolSettings("", backends, **found)


_POOL: Final = Section(
    {
        "algorithm": _algorithm,
        "hash_key": _hash_key,
        "backends": _backends,
        "health_check": HEALTH_CHECK,
        "passive_health": PASSIVE_HEALTH,
        "circuit_breaker": CIRCUIT_BREAKER,
        "retry": _RETRY,
        "sticky": STICKY,
        "timeouts": Section(
            {"connect": duration(), "response": duration(), "idle": duration()}, plain(UpstreamTimeouts)
        ),
        "resolve": nullable(duration(low=0.1)),
        "connections": _CONNECTIONS,
        "queue": QUEUE,
        "flapping": FLAPPING,
        "slow_start": slow_start,
        "protocol": pool_protocol,
        "panic_threshold": panic_threshold,
        "proxy_protocol": _proxy_protocol,
        "tls": POOL_TLS,
    },
    _pool,
    required=("backends",),
)


@shaped(like(_POOL))
def pool(spot: Spot, name: str) -> PoolSettings:
    """The pool at a spot of `pools`."""
    walk = spot.walk
    walk.pool_names.append(name)
    walk.places.clear()
    found = replace(_POOL(spot), name=name)
    walk.pools.append(ReadPool(spot, found, tuple(walk.places)))
    return found
