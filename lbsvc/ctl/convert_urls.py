"""The two whose backends are URLs: the adaptive API balancer's YAML (`server`, `strategy`), and vietddude's load-balancer's,
whose README has YAML (`listen`) and whose code reads JSON (`server`, earlier `port`).

Promises: as convert.py says. Where a key is not there, the default is the one that its own code has. Called by convert.py.
"""

from __future__ import annotations

from typing import Any, Final

from lbsvc.ctl.convert_new import ADMIN, New, OldBackend, algorithm, backends, bind, mapping_of, scalar_of, url_backend
from lbsvc.ctl.convert_old import Old
from lbsvc.ctl.convert_sections import circuit_breaker, health_check, retry, say_where, sticky, tls

_WORDS: Final = {
    "roundrobin": "round_robin",
    "leastconnections": "least_connections",
    "weightedroundrobin": "round_robin",
    "random": "random",
}


def convert_adaptive(old: Old) -> New:
    """`server.port`, `server.admin_port`, `strategy`, `backends` of `url` and `weight`."""
    new = New()
    server = old.within("server")
    new.listener = {"bind": bind(server, "port", server.text("host") or "", "8080"), "protocol": "http"}
    admin = bind(server, "admin_port", "127.0.0.1", "8081")
    _, found = algorithm(old, "strategy", {**_WORDS, "adaptive": "adaptive"}, "round-robin")
    _secure(old, server, new)
    server.close()
    pool: dict[str, Any] = {"algorithm": found}
    # Its round-robin goes by weight.
    pool["backends"] = backends(old, "backends", _backends(old), weights=True)
    if old.has("health_check"):
        pool["health_check"] = health_check(old.within("health_check"))
    _survive(old, pool)
    new.pools["main"] = pool
    new.listener["pool"] = "main"
    new.rest["admin"] = {"bind": admin}
    why = "was open to every network: here it is bound to this machine, and admin.bind elsewhere needs admin.token"
    server.lose("admin_port", why)
    old.close()
    return new


def convert_vietddude(old: Old) -> New:
    """`listen` or `server`, `algorithm`, `backends` of `id`, `url` and `weight`, and the sections of convert_sections.py."""
    new = New()
    server = old.within("listen" if old.has("listen") else "server")
    place = server if server.node.entries else old
    new.listener = {"bind": bind(place, "port", "", "8080"), "protocol": "http"}
    word, found = algorithm(old, "algorithm", _WORDS, "round-robin")
    _secure(old, server, new)
    server.close()
    pool: dict[str, Any] = {"algorithm": found}
    is_weighted = word in ("weightedroundrobin", "wrr")
    pool["backends"] = backends(old, "backends", _backends(old), weights=is_weighted)
    pool["health_check"] = health_check(old.within("health_check"), path="/health", interval="5s", timeout="2s")
    _survive(old, pool)
    new.pools["main"] = pool
    new.listener["pool"] = "main"
    _metrics(old)
    old.close()
    return new


def _survive(old: Old, pool: dict[str, Any]) -> None:
    for key, read in (("circuit_breaker", circuit_breaker), ("retry", retry), ("sticky_session", sticky)):
        found = read(old.within(key))
        if found is not None:
            pool["sticky" if key == "sticky_session" else key] = found


def _secure(old: Old, server: Old, new: New) -> None:
    """TLS stands in its own section, or (earlier) as two files beside the port."""
    cert = server.text("cert_file") or old.text("cert_file")
    key = server.text("key_file") or old.text("key_file")
    section = server.within("tls")
    found = tls(section, cert, key)
    if found is not None:
        new.listener["tls"] = found
        say_where(section if section.node.entries else old, found)


def _metrics(old: Old) -> None:
    metrics = old.within("metrics")
    prometheus = metrics.within("prometheus")
    enabled, path = prometheus.yes("enabled"), prometheus.text("path")
    where = f"metrics are at http://{ADMIN}/metrics, under other names"
    if enabled is False:
        prometheus.lose("enabled", f"is left out: {where}, always")
    elif path is not None:
        prometheus.lose("path", f"is left out: {where}")
    else:
        old.report.lose(0, 0, "", f"{where}; they were at /metrics of the same port")
    prometheus.close()
    metrics.close()


def _backends(old: Old) -> list[OldBackend]:
    found: list[OldBackend] = []
    for entry, path in old.entries("backends"):
        place = (entry.line, entry.column)
        alone = scalar_of(entry)
        if alone is not None:
            address = url_backend(old.report, alone, place, path)
            found += [OldBackend(address)] if address else []
            continue
        item = mapping_of(old.report, entry, path)
        if item is None:
            continue
        name, url = item.text("id") or item.text("name"), item.text("url")
        weight = item.whole("weight", 0, 65535)
        item.close()
        address = url_backend(old.report, url or "", place, f"{path}.url")
        if address is not None:
            found.append(OldBackend(address, name, weight))
    return found
