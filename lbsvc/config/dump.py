"""Settings in the words of a configuration file: every key that acts, defaults filled in, secrets masked.

Promises: what comes out is JSON; written into a file that stands where the configuration stands, it loads, and but for
what is masked the settings are equal. So a key that would mean something else by being written (`connections.keep_alive`
where it is left out) or nothing at all (what a tcp check cannot ask) is not. Keys that begin with x- say what no file can:
that a backend was added at run time, and what people have set. Paths of files are absolute; a backend's address is as it
was written. Called for GET /config, and by jsonschema.py for the defaults of keys.

Masked are `admin.token`, `sticky.key`, and the values of headers that a route sets or answers whose names say that they
are secrets. Those of `match.headers` are not: they are in the name that such a route has by default, in logs and metrics.
"""

from __future__ import annotations

import os
from typing import Any, Final, TypeAlias

from lbsvc.config.pools import UNASKED
from lbsvc.config.routes import route_name
from lbsvc.config.schema import (
    AccessLogSettings,
    AdminSettings,
    BackendSettings,
    HeaderEdits,
    ListenerSettings,
    ListenerTls,
    LogSettings,
    Match,
    PoolSettings,
    PoolTls,
    RouteSettings,
    Settings,
)
from lbsvc.config.spelling import spell_duration, spell_rate, spell_share, spell_size
from lbsvc.config.walk import name_fault
from lbsvc.core.policies import HealthCheckPolicy, KeptConnections, RatePolicy, RetryPolicy, StickyPolicy

Words: TypeAlias = dict[str, Any]

OFF: Final = "off"
MASK: Final = "***"
#: A header whose name holds one of these carries a secret.
_SECRET: Final = ("token", "key", "passw", "secret", "auth", "signature", "cookie", "credential")


def dump(settings: Settings) -> Words:
    """The whole configuration."""
    found = {
        "listeners": {name: _listener(each) for name, each in settings.listeners.items()},
        "pools": {name: _pool(each) for name, each in settings.pools.items()},
        "admin": _admin(settings.admin) if settings.admin is not None else OFF,
        "access_log": _access_log(settings.access_log) if settings.access_log is not None else OFF,
        "log": _log(settings.log),
        "shutdown": {
            "delay": spell_duration(settings.shutdown.delay),
            "drain_timeout": spell_duration(settings.shutdown.drain_timeout),
            "removed": _perhaps(settings.shutdown.removed),
        },
        "overload": OFF if settings.overload is None else {"lag": spell_duration(settings.overload.lag)},
        "watch": settings.watch,
        "state_file": _absolute(settings.state_file) if settings.state_file is not None else None,
        "workers": settings.workers,
    }
    return {key: _escaped(value) for key, value in found.items()}


def _escaped(value: Any) -> Any:
    """Text as it must stand in a file, where `${` begins a variable. (Names cannot have it.)"""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value


def _perhaps(seconds: float | None) -> str | float | None:
    return None if seconds is None else spell_duration(seconds)


def _absolute(path: str) -> str:
    return path if path == "-" else os.path.join(os.getcwd(), path)


def _durations(values: object, *names: str) -> Words:
    return {name: spell_duration(getattr(values, name)) for name in names}


def _named(written: str, name: str, otherwise: str) -> Words:
    """The key `written` with a name; not where it is what the name is without it, and could not be written."""
    if name == otherwise and (name_fault(name) or not name.isascii()):
        return {}
    return {written: name}


# the top


def _admin(admin: AdminSettings) -> Words:
    return {
        "bind": str(admin.bind),
        "hosts": list(admin.hosts),
        "token": MASK if admin.token else "",
        "read_only": admin.read_only,
        "dashboard": admin.dashboard,
    }


def _access_log(log: AccessLogSettings) -> Words:
    return {"path": _absolute(log.path), "format": log.format, "sample": spell_share(log.sample)}


def _log(log: LogSettings) -> Words:
    return {"path": _absolute(log.path), "level": log.level, "format": log.format}


# listeners


def _listener(listener: ListenerSettings) -> Words:
    timeouts = ("handshake", "request_header", "request_body", "keep_alive", "write", "idle", "half_close")
    limits = listener.limits
    return {
        "bind": [str(bind) for bind in listener.binds],
        "protocol": listener.protocol,
        "backlog": listener.backlog,
        "max_connections": listener.max_connections,
        "connections_per_client": listener.connections_per_client,
        "trusted_proxies": list(listener.trusted_proxies),
        "proxy_protocol": listener.proxy_protocol,
        "forwarded": listener.forwarded,
        "tls": _listener_tls(listener.tls) if listener.tls is not None else OFF,
        "timeouts": _durations(listener.timeouts, *timeouts),
        "limits": {
            "header_size": spell_size(limits.header_size),
            "header_count": limits.header_count,
            "body_size": None if limits.body_size is None else spell_size(limits.body_size),
            "underscore_headers": limits.underscore_headers,
        },
        "rate_limit": _rate_limit(listener.rate_limit),
        "access_log": listener.access_log,
        "expose_backend": listener.expose_backend,
        "routes": [_route(route, listener.protocol) for route in listener.routes],
        "pool": listener.pool,
    }


def _listener_tls(tls: ListenerTls) -> Words:
    return {
        "certificates": [{"cert": each.cert, "key": each.key} for each in tls.certificates],
        "min_version": tls.min_version,
        "ciphers": tls.ciphers,
        "alpn": list(tls.alpn),
        "client_ca": tls.client_ca,
        "client_auth": tls.client_auth,
        "reload_interval": _perhaps(tls.reload_interval),
    }


def _rate_limit(rates: RatePolicy | None) -> Words | str:
    return OFF if rates is None else {"rate": spell_rate(rates.rate), "burst": rates.burst, "key": rates.key}


def _route(route: RouteSettings, protocol: str) -> Words:
    """What a route matches and the one thing that it does; on tcp it has few keys."""
    found: Words = {"match": _match(route.match, protocol)}
    found |= _named("name", route.name, route_name(route.match)) | _action(route)
    if protocol == "tcp":
        return found | {"rate_limit": _rate_limit(route.rate_limit)}
    if not (route.respond or route.redirect or route.deny):
        mirror = route.mirror
        found |= {
            "mirror": OFF if mirror is None else {"pool": mirror.pool, "percent": spell_share(mirror.share)},
            "strip_prefix": route.strip_prefix,
            "rewrite": OFF if route.rewrite is None else {"path": list(route.rewrite)},
            "request_headers": _edits(route.request_headers),
            "timeout": _perhaps(route.timeout),
        }
    fault = route.fault
    return found | {
        "response_headers": _edits(route.response_headers),
        "body_size": None if route.body_size is None else spell_size(route.body_size),
        "rate_limit": _rate_limit(route.rate_limit),
        "fault": OFF
        if fault is None
        else {"delay": spell_duration(fault.delay), "abort": fault.abort, "percent": spell_share(fault.share)},
    }


def _match(match: Match, protocol: str) -> Words:
    if protocol == "tcp":
        return {"sni": list(match.sni), "client": list(match.client)}
    return {
        "host": match.host,
        "path": match.path,
        "methods": sorted(match.methods),
        "headers": dict(match.headers),
        "client": list(match.client),
    }


def _action(route: RouteSettings) -> Words:
    if route.respond is not None:
        answer = route.respond
        return {"respond": {"status": answer.status, "body": answer.body, "headers": _masked(answer.headers)}}
    if route.redirect is not None:
        return {"redirect": {"to": route.redirect.to, "status": route.redirect.status}}
    if route.deny is not None:
        return {"deny": route.deny}
    return {"split": dict(route.split)} if route.split else {"pool": route.pool}


def _edits(edits: HeaderEdits) -> Words:
    return {"set": _masked(edits.set), "add": _masked(edits.add), "remove": list(edits.remove)}


def _masked(headers: tuple[tuple[str, str], ...]) -> Words:
    return {name: MASK if any(word in name.lower() for word in _SECRET) else value for name, value in headers}


# pools


def _pool(pool: PoolSettings) -> Words:
    passive, breaker, flapping = pool.passive_health, pool.circuit_breaker, pool.flapping
    return {
        "algorithm": pool.algorithm,
        "hash_key": pool.hash_key,
        "backends": [_backend(each) for each in pool.backends],
        "health_check": OFF if pool.health_check is None else _health_check(pool.health_check),
        "passive_health": OFF
        if passive is None
        else {
            "failures": passive.failures,
            **_durations(passive, "window", "eject"),
            "max_ejected": spell_share(passive.max_ejected),
        },
        "circuit_breaker": OFF
        if breaker is None
        else {
            "failure_threshold": breaker.failure_threshold,
            "reset_timeout": spell_duration(breaker.reset_timeout),
            "half_open_requests": breaker.half_open_requests,
        },
        "retry": _retry(pool.retry),
        "sticky": OFF if pool.sticky is None else _sticky(pool.sticky),
        "timeouts": _durations(pool.timeouts, "connect", "response", "idle"),
        "resolve": _perhaps(pool.resolve),
        "connections": _connections(pool, pool.connections),
        "queue": {"size": pool.queue.size, "timeout": spell_duration(pool.queue.timeout)},
        "flapping": OFF
        if flapping is None
        else {"changes": flapping.changes, **_durations(flapping, "window", "hold")},
        "slow_start": _perhaps(pool.slow_start),
        "protocol": pool.protocol,
        "panic_threshold": spell_share(pool.panic_threshold),
        "proxy_protocol": pool.proxy_protocol or OFF,
        "tls": OFF if pool.tls is None else _pool_tls(pool.tls),
    }


def _backend(backend: BackendSettings) -> Words:
    found: Words = {"address": backend.address, **_named("name", backend.name, backend.address)}
    found |= {"weight": backend.weight, "backup": backend.backup, "max_connections": backend.max_connections}
    if backend.source != "config":
        found["x-source"] = backend.source
    if backend.state != "ready":
        found["x-state"] = backend.state
    if backend.members:
        found["x-members"] = {each.name: {"weight": each.weight, "state": each.state} for each in backend.members}
    return found


def _health_check(check: HealthCheckPolicy) -> Words:
    found: Words = {
        "type": check.type,
        "service": check.service,
        "path": check.path,
        "method": check.method,
        "host": check.host,
        "port": check.port,
        "expect_status": [low if low == high else f"{low}-{high}" for low, high in check.expect_status],
        "expect_body": check.expect_body,
        **_durations(check, "interval", "timeout"),
        "rise": check.rise,
        "fall": check.fall,
    }
    return {key: value for key, value in found.items() if key not in UNASKED[check.type]}


def _retry(retry: RetryPolicy) -> Words:
    return {
        "attempts": retry.attempts,
        "when": sorted(retry.when),
        "methods": sorted(method.decode("ascii") for method in retry.methods),
        "backoff": _durations(retry.backoff, "initial", "max"),
        "budget": spell_share(retry.budget),
        "per_try_timeout": _perhaps(retry.per_try_timeout),
        "buffer": spell_size(retry.buffer),
    }


def _sticky(sticky: StickyPolicy) -> Words:
    found: Words = {"type": sticky.type, "ttl": spell_duration(sticky.ttl)}
    if sticky.type == "ip":
        return found
    return found | {
        "cookie": sticky.cookie,
        "key": MASK if sticky.key else None,
        "secure": {"true": True, "false": False}.get(sticky.secure, sticky.secure),
        "same_site": sticky.same_site,
    }


def _connections(pool: PoolSettings, kept: KeptConnections) -> Words:
    # Written, it asks that tcp dials ahead, too: where it was left out it is told as what no file reads.
    is_written = bool(pool.ahead or pool.proxy_protocol or kept.keep_alive == 0)
    return {
        "keep_alive" if is_written else "x-keep_alive": kept.keep_alive,
        "idle_timeout": spell_duration(kept.idle_timeout),
        "max_requests": kept.max_requests,
        "max_lifetime": _perhaps(kept.max_lifetime),
    }


def _pool_tls(tls: PoolTls) -> Words:
    return {
        "verify": tls.verify,
        "ca": tls.ca,
        "server_name": tls.server_name,
        "cert": None if tls.client is None else tls.client.cert,
        "key": None if tls.client is None else tls.client.key,
    }
