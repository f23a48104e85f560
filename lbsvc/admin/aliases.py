"""Calls for scripts that were written for the smaller balancers (features.md 3.6), on the paths that they know.

Promises: they do what the calls of /api/v1 do, under the same rules, to the only pool, or to the one that ?pool= names;
a backend is meant by its URL, however it is written in the configuration. Adding by GET is 405, as it should always have
been. Called by api.py by the table of operations.py; `metrics_array` by site.py.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from lbsvc.admin.bodies import Malformed, only, read_object, shown, written
from lbsvc.admin.calls import Answer, Call, Refused, Told, pool_named
from lbsvc.admin.control import Applied
from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.errors import ConfigErrors

_TEXT = b"text/plain; charset=utf-8"


def url_of(address: str) -> str:
    """An address of the configuration as a URL; what is one already, or is a socket's path, stays."""
    return address if "://" in address or address.startswith("unix:") else f"http://{address}"


def metrics_array(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON form of /metrics: latencies are whole nanoseconds, 0 where there is none yet."""
    return [
        {
            "url": url_of(backend["address"]),
            "alive": backend["health"] == "up",
            "active_conns": backend["active"],
            "latency": round((backend["latency"] or 0.0) * 1e9),
            "fails": backend["failures"],
        }
        for pool in status["pools"]
        for backend in pool["backends"]
    ]


def show_health(call: Call) -> Answer:
    """Every pool's backends, or those of the one that is named."""
    wanted = _pool(call).name if "pool" in call.query else None
    found: dict[str, bool] = {}
    for pool in call.control.status()["pools"]:
        if wanted in (None, pool["name"]):
            for backend in pool["backends"]:
                url = url_of(backend["address"])
                found[url] = found.get(url, False) or backend["health"] == "up"
    return Answer(found)


def show_algorithm(call: Call) -> Answer:
    return Answer({"algorithm": _pool(call).algorithm})


def add_by_query(call: Call) -> Deferred[Answer]:
    url = call.query.get("url", "")
    if not url:
        raise Malformed("Missing url parameter")
    pool = _pool(call)
    try:
        entry = _parsed(call, pool, url)
    except ConfigErrors as errors:
        raise Malformed("; ".join(f"url: {mistake.message}" for mistake in errors.mistakes)) from None
    if _known(pool, entry) is not None:
        raise Refused(409, f"{shown(url)} is in the pool already")

    def tell(applied: Applied) -> Answer:
        told = Told(f"{pool.name}/{entry.name}: added", pool.name, entry.name, applied.changes)
        return Answer(f"Added {url} to the pool\n".encode(), content_type=_TEXT, told=told)

    return call.control.add(call.who, pool.name, entry).addCallback(tell)


def add(call: Call) -> Answer | Deferred[Answer]:
    """One that is there already is all right; its weight is changed where another is given."""
    fields = read_object(call.body)
    only(fields, "url", "weight")
    url = written(fields, "url")
    pool = _pool(call)
    given = {key: value for key, value in fields.items() if key != "url"}
    entry = _parsed(call, pool, url, **given)
    known = _known(pool, entry)
    weight = known.weight if known is not None and not given else entry.weight
    body = {"url": url, "weight": weight, "pool": pool.name}

    def tell(applied: Applied, name: str, words: str) -> Answer:
        return Answer(body, told=Told(f"{pool.name}/{name}: {words}", pool.name, name, applied.changes))

    if known is None:
        return call.control.add(call.who, pool.name, entry).addCallback(tell, entry.name, "added")
    if given and known.weight != entry.weight:
        changing = call.control.change(call.who, pool.name, known.name, entry.weight, None)
        return changing.addCallback(tell, known.name, f"weight {entry.weight}")
    return Answer(body)


def remove(call: Call) -> Deferred[Answer]:
    """It takes nothing new from now on, and is gone when its last request is; a weight beside it says nothing."""
    fields = read_object(call.body)
    only(fields, "url", "weight")
    url = written(fields, "url")
    pool = _pool(call)
    known = _known(pool, _parsed(call, pool, url, **{key: value for key, value in fields.items() if key != "url"}))
    if known is None:
        raise Refused(404, f"there is no backend {shown(url)} in the pool {shown(pool.name)}")
    name = known.name

    def tell(applied: Applied) -> Answer:
        told = Told(f"{pool.name}/{name}: removed", pool.name, name, applied.changes)
        return Answer({"url": url, "pool": pool.name}, told=told)

    return call.control.remove(call.who, pool.name, name, None).addCallback(tell)


def _pool(call: Call) -> PoolSettings:
    """The pool that is named, or the only one."""
    if "pool" in call.query:
        return pool_named(call.control, call.query["pool"])
    pools = call.control.settings().pools
    if len(pools) != 1:
        raise Malformed(f"there are {len(pools)} pools: ?pool= must say which")
    return next(iter(pools.values()))


def _parsed(call: Call, pool: PoolSettings, url: str, **fields: Any) -> BackendSettings:
    address = url[:-1] if "://" in url and url.endswith("/") else url
    return call.control.parse_backend(pool.name, {"address": address, **fields})


def _known(pool: PoolSettings, entry: BackendSettings) -> BackendSettings | None:
    place = entry.host, entry.port
    return next((known for known in pool.backends if (known.host, known.port) == place), None)
