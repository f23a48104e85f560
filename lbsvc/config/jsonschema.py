"""The configuration as JSON Schema (2020-12): for editors, and for whoever writes configurations by program.

Promises: it is made from the very readers that read the file (shapes.py), with the defaults that the settings have and the
descriptions of descriptions.py, so that no key, word or bound is written down a second time. What it refuses the loader
refuses; what it lets through may still be wrong in ways that no schema can say (pools that do not exist, say). Called by
`lbctl schema`; etc/lb.schema.json is what it has made, which editors find by the first line of a configuration.
"""

from __future__ import annotations

import json
from typing import Any

from lbsvc.config.descriptions import DESCRIPTIONS
from lbsvc.config.dump import dump
from lbsvc.config.schema import (
    BackendSettings,
    Bind,
    CertificateFiles,
    Fault,
    ListenerSettings,
    ListenerTls,
    Mirror,
    PoolSettings,
    PoolTls,
    Redirect,
    Respond,
    RouteSettings,
    Settings,
)
from lbsvc.config.service import TOP
from lbsvc.config.shapes import DEFINITIONS, NULL, OFF, VARIABLE, either, shape_of
from lbsvc.config.walk import Section
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, HealthCheckPolicy, RatePolicy, StickyPolicy

#: Keys that have to be given where their section is, or whose default is made from other keys: nothing is said of it.
_NO_DEFAULT = frozenset(
    {
        *("listeners.N.bind", "listeners.N.tls.certificates", "listeners.N.routes", "listeners.N.pool"),
        *("listeners.N.rate_limit.rate", "listeners.N.rate_limit.burst", "listeners.N.routes.[].name"),
        *("listeners.N.routes.[].rate_limit.rate", "listeners.N.routes.[].rate_limit.burst"),
        *("listeners.N.routes.[].pool", "listeners.N.routes.[].redirect.to", "listeners.N.routes.[].deny"),
        *("listeners.N.routes.[].mirror.pool", "pools.N.backends", "pools.N.backends.[].address"),
        *("pools.N.backends.[].name", "pools.N.health_check.type", "admin.token"),
        *("listeners.N.tls.certificates.[].cert", "listeners.N.tls.certificates.[].key"),
        *("listeners.N.routes.[].fault.delay", "pools.N.connections.x-keep_alive"),
    }
)


def schema() -> dict[str, Any]:
    """The whole schema, as what JSON holds."""
    drawing = _Drawing()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lbsvc",
        "description": "The configuration of the load balancer lbsvc",
        **drawing.of(TOP, ""),
        "$defs": dict(DEFINITIONS),
    }


def printed() -> str:
    """The schema as the file that ships."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def paths() -> list[str]:
    """Every key, from the root: N for a name that people choose, [] for an item of a list."""
    drawing = _Drawing()
    drawing.of(TOP, "")
    return sorted(drawing.seen)


class _Drawing:
    """One schema in the making."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._defaults = _defaults()

    def of(self, reader: Any, path: str) -> dict[str, Any]:
        """The shape of a reader that stands at a path."""
        if isinstance(reader, Section):
            return self._section(reader, path)
        shape = shape_of(reader)
        if shape is None:
            raise TypeError(f"{path}: nothing is said of what {reader} takes")
        if callable(shape):
            shape = shape(lambda other, step="": self.of(other, _below(path, step)))
        return dict(shape)

    def _section(self, section: Section[Any], path: str) -> dict[str, Any]:
        rules = shape_of(section.make)
        assert not callable(rules)
        mapping = {
            "type": "object",
            "properties": {key: self._key(reader, _below(path, key)) for key, reader in section.keys.items()},
            "patternProperties": {"^x-": True},
            "additionalProperties": False,
            **({"required": list(section.required)} if section.required else {}),
            **(rules or {}),
        }
        others: list[Any] = []
        if section.short is not None:
            others.append(self.of(section.short, path))
        if section.off is not None:
            others += [OFF, VARIABLE]
        if not section.required:
            others.append(NULL)
        return either(mapping, *others)

    def _key(self, reader: Any, path: str) -> dict[str, Any]:
        self.seen.add(path)
        said: dict[str, Any] = {}
        if path in DESCRIPTIONS:
            said["description"] = DESCRIPTIONS[path]
        if path in self._defaults:
            said["default"] = self._defaults[path]
        return said | self.of(reader, path)


def _below(path: str, step: str) -> str:
    return f"{path}.{step}" if path and step else path or step


def _defaults() -> dict[str, Any]:
    """The default of each key, by its path, as it would be written."""
    found: dict[str, Any] = {}
    for tree in (*map(dump, _furnished()), dump(_bare())):  # of a section that is off, off is the default
        _gather(tree, "", found)
    return {path: value for path, value in found.items() if path not in _NO_DEFAULT}


def _gather(value: Any, path: str, found: dict[str, Any]) -> None:
    names = path in ("listeners", "pools")
    if isinstance(value, dict) and (value or not path.endswith((".set", ".add", ".headers"))):
        found.pop(path, None)
        for key, each in value.items():
            _gather(each, _below(path, "N" if names else key), found)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for each in value:
            _gather(each, _below(path, "[]"), found)
    else:
        found[path] = value


def _bare() -> Settings:
    """What is given where nothing is but what must be."""
    listener = ListenerSettings("N", (Bind("", 0),), routes=(RouteSettings("*", pool="N"),))
    pool = PoolSettings("N", (_BACKEND,), health_check=HealthCheckPolicy())
    return Settings({"N": listener}, {"N": pool})


_BACKEND = BackendSettings("", "", 0, "")


def _furnished() -> list[Settings]:
    """All sections that are off by default, each as it is where it is on and nothing in it is given."""
    rates = RatePolicy(1, 1)
    routes = (
        RouteSettings("*", pool="N", mirror=Mirror("N"), fault=Fault(), rate_limit=rates),
        RouteSettings("*", redirect=Redirect("")),
        RouteSettings("*", respond=Respond()),
    )
    tls = ListenerTls((CertificateFiles("", ""),))
    http = ListenerSettings("N", (Bind("", 0),), routes=routes, tls=tls, rate_limit=rates)
    # By the configuration all of a tcp listener's defaults are those of http; its routes alone have another key.
    found = []
    for kind in ("grpc", "http"):
        pool = PoolSettings(
            "N",
            (_BACKEND,),
            health_check=HealthCheckPolicy(type=kind),
            passive_health=EjectionPolicy(),
            circuit_breaker=BreakerPolicy(),
            sticky=StickyPolicy(),
            tls=PoolTls(),
            ahead=1,
        )
        found.append(Settings({"N": http}, {"N": pool}))
    return found
