"""Akash's JSON: `host`, `listen`, `algorithm`, `Backends` of `address`, `weight` and `paths`, health checks, TLS.

Promises: as convert.py says. Akash is layer 4, and so is what comes out, but where a backend has `paths`: these it has
promised and never looked at, and only HTTP has any. Called by convert.py.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from lbsvc.config.document import Mapping
from lbsvc.ctl.convert_new import (
    ADMIN,
    New,
    OldBackend,
    algorithm,
    backends,
    bind,
    mapping_of,
    plain_backend,
    scalar_of,
)
from lbsvc.ctl.convert_old import Old
from lbsvc.ctl.convert_sections import say_where, tls

_WORDS: Final = {
    "roundrobin": "round_robin",
    "leastconn": "least_connections",
    "iphash": "ip_hash",
    "wroundrobin": "round_robin",
}


def convert(old: Old) -> New:
    """The same in our words."""
    new = New()
    report = old.report
    new.listener["bind"] = bind(old, "listen", old.text("host") or "0.0.0.0", "1902")
    word, found = algorithm(old, "algorithm", _WORDS, "round_robin")
    most = old.whole("max_connections", 0, 1 << 31)
    if most:
        new.listener["max_connections"] = most
    elif most == 0:
        old.lose("max_connections", "is 0: the default holds, 10000")
    read = _backends(old)
    has_paths = any(each.paths for each in read)
    new.listener["protocol"] = "http" if has_paths else "tcp"
    nothing = Old(report, Mapping({}, old.node.line, old.node.column))
    secured = tls(nothing, old.text("tls_cert_file"), old.text("tls_key_file"))
    if secured is not None:
        new.listener["tls"] = secured
        say_where(old, secured)
    shared: dict[str, Any] = {"algorithm": found, "health_check": _check(old)}
    is_weighted = word in ("wroundrobin", "weightedroundrobin", "wrr")

    def pool(name: str, members: list[OldBackend]) -> None:
        listed = backends(old, "Backends", members, weights=is_weighted)
        new.pools[name] = {"algorithm": shared["algorithm"], "backends": listed, "health_check": shared["health_check"]}

    free = [each for each in read if not each.paths]
    if free or not has_paths:
        pool("main", free)
        new.listener["pool"] = "main"
    if has_paths:
        new.listener["routes"] = _routes(read, pool)
        what = "get 404" if not free else "go to the backends without paths"
        old.lose("Backends", f"paths act here: requests for others {what}. Akash never looked at them")
    report.lose(0, 0, "", f"metrics are at http://{ADMIN}/metrics, under other names; Akash had them at :9100")
    old.close()
    return new


def _backends(old: Old) -> list[OldBackend]:
    found: list[OldBackend] = []
    for entry, path in old.entries("Backends"):
        place = (entry.line, entry.column)
        alone = scalar_of(entry)  # as its first versions had them
        if alone is not None:
            address = plain_backend(old.report, alone, place, path)
            found += [OldBackend(address)] if address else []
            continue
        item = mapping_of(old.report, entry, path)
        if item is None:
            continue
        written, weight = item.text("address"), item.whole("weight", 0, 65535)
        paths = {_path(each) for each in item.texts("paths")}
        item.close()
        address = plain_backend(old.report, written or "", place, f"{path}.address")
        if address is not None:
            # "/" is everything, whatever else is there.
            found.append(OldBackend(address, None, weight, () if "/" in paths else tuple(sorted(paths))))
    return found


def _path(written: str) -> str:
    """A prefix without its end: /api of /api/ and /api/*."""
    return quote("/" + written.strip().removesuffix("*").strip("/"), safe="/:@!$&'()+,;=-._~%")


def _routes(read: list[OldBackend], pool: Any) -> list[dict[str, Any]]:
    """The longest prefix first, each with a pool of those that have it."""
    routes: list[dict[str, Any]] = []
    names: set[str] = {"main"}
    for path in sorted({path for each in read for path in each.paths}, key=lambda path: (-len(path), path)):
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.strip("/")).strip("-")[:60] or "path"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.add(name)
        pool(name, [OldBackend(each.address, None, each.weight) for each in read if path in each.paths])
        routes.append({"match": {"path": f"{path}/*"}, "pool": name})
    return routes


def _check(old: Old) -> dict[str, Any]:
    check: dict[str, Any] = {"type": "tcp"}
    interval, timeout = old.duration("health_check_freq"), old.duration("timeout_seconds")
    if interval is not None:
        check["interval"] = interval
    if timeout is not None:
        check["timeout"] = timeout
    for key, ours in (("health_check_path", "path"), ("health_check_port", "port")):
        if old.text(key) is not None:
            why = "Akash never asked it: it connects to each backend's own port, and so do the checks here"
            old.lose(key, f"{why}; health_check.{ours} would ask it")
    return check
