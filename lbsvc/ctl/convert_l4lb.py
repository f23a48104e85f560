"""The layer 4 balancer's YAML: `loadbalancer.listen_address`, `backends` of `address` and `port`, `healthcheck`.

Promises: as convert.py says; what is not there has the default that its own code has, the two backends of its example
included. Called by convert.py.
"""

from __future__ import annotations

from typing import Any, Final

from lbsvc.ctl.convert_new import New, OldBackend, algorithm, backends, bind, mapping_of, plain_backend, scalar_of
from lbsvc.ctl.convert_old import Old
from lbsvc.ctl.convert_sections import health_check

_WORDS: Final = {"roundrobin": "round_robin", "leastconnections": "least_connections"}
_EXAMPLES: Final = ("localhost:8081", "localhost:8082")


def convert(old: Old) -> New:
    """The same in our words."""
    new = New()
    section = old.within("loadbalancer")
    new.listener = {"bind": bind(section, "listen_address", "", ":8080"), "protocol": "tcp"}
    _, found = algorithm(section, "algorithm", _WORDS, "round_robin")
    place = section if section.has("backends") else old
    read = _backends(place)
    if not place.has("backends"):
        place.lose("backends", f"is missing: these are the ones that it had then, {' and '.join(_EXAMPLES)}")
        read = [OldBackend(address) for address in _EXAMPLES]
    check = section if section.has("healthcheck") else old
    checked: Any = health_check(check.within("healthcheck"), type="tcp", interval="30s", timeout="5s")
    if isinstance(checked, dict) and "path" in checked:
        checked["type"] = "http"
    new.pools["main"] = {
        "algorithm": found,
        "backends": backends(place, "backends", read, weights=True),
        "health_check": checked,
    }
    new.listener["pool"] = "main"
    section.close()
    old.close()
    return new


def _backends(old: Old) -> list[OldBackend]:
    found: list[OldBackend] = []
    for entry, path in old.entries("backends"):
        place = (entry.line, entry.column)
        written = scalar_of(entry)
        weight: int | None = None
        if written is None:
            item = mapping_of(old.report, entry, path)
            if item is None:
                continue
            host, port = item.text("address") or item.text("host") or "", item.whole("port", 1, 65535)
            weight = item.whole("weight", 0, 65535)
            item.close()
            shown = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
            written = shown if port is None else f"{shown}:{port}"
        address = plain_backend(old.report, written, place, path)
        if address is not None:
            found.append(OldBackend(address, None, weight))
    return found
