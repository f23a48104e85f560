"""The JSON Schemas of what the API takes and gives, as the OpenAPI file has them.

Promises: plain values; what is required is what is always there. A test (tests/admin/test_openapi.py) holds what is
answered against them. Used by operations.py and openapi.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lbsvc.observe.crew import WORKER_STATES

Schema = Mapping[str, Any]


def ref(name: str) -> Schema:
    """A schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def listing(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _whole(**fields: Any) -> Schema:
    """An object that has all these keys."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def _and(schema: Schema, **fields: Any) -> Schema:
    """The same object, that may have these keys too."""
    return {**schema, "properties": {**schema["properties"], **fields}}


def _some(*required: str, at_least: int = 0, **fields: Any) -> Schema:
    """An object that has these keys and no other."""
    found: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
    if required:
        found["required"] = list(required)
    if at_least:
        found["minProperties"] = at_least
    return found


def _or_null(schema: Schema) -> Schema:
    """null stands for the default."""
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: Final = {"type": "string"}
_TRUTH: Final = {"type": "boolean"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXTS: Final = listing(_TEXT)
_NUMBERS: Final = listing({"type": "integer", "minimum": -1})
_WEIGHT: Final = {"type": "integer", "minimum": 0, "maximum": 65535}
_STATE: Final = {"enum": ["ready", "drain", "maint"]}
_ADDRESS: Final = {"type": "string", "examples": ["10.0.0.3:8001"]}
_URL: Final = {"type": "string", "examples": ["http://10.0.0.3:8001"]}
_DURATION_PATTERN: Final = r"^([0-9]{1,6}(\.[0-9]{1,3})?|[0-9]{1,6}(ms|s|m|h))$"
_DURATION: Final = {"type": ["string", "number"], "description": "250ms, 5s, 1m30s, 1h, or seconds"}

DRAIN: Final[Schema] = {
    "type": "string",
    "pattern": _DURATION_PATTERN,
    "description": "When this is over, what is left is cut; without it there is no limit.",
    "examples": ["30s"],
}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Status": _and(
        _whole(
            version=_TEXT,
            generation=_COUNT,
            uptime={"type": "number", "description": "seconds"},
            ready=_TRUTH,
            listeners=listing(ref("Listener")),
            pools=listing(ref("Pool")),
        ),
        workers={**listing(ref("Worker")), "description": "where there are any"},
    ),
    "Worker": _whole(
        worker={"type": "integer", "minimum": 1, "description": "its place, which its successor takes"},
        pid=_COUNT,
        state={"enum": list(WORKER_STATES)},
        uptime={"type": "number", "description": "seconds"},
        restarts={**_COUNT, "description": "how often one in its place died or hung, and was replaced"},
        connections={**_COUNT, "description": "of clients, now"},
        requests={**_COUNT, "description": "that have ended; of tcp listeners, connections"},
        cpu_seconds={"type": "number"},
        resident_bytes=_COUNT,
    ),
    "Workers": _whole(
        pid={**_COUNT, "description": "of the process that answers, which is the parent of the workers"},
        workers=listing(ref("Worker")),
    ),
    "Restarted": _whole(restarted={**_COUNT, "description": "how many"}),
    "Upgraded": _whole(pid={**_COUNT, "description": "of the new process"}),
    "Listener": _whole(
        name=_TEXT,
        bind=_TEXT,
        protocol={"enum": ["http", "tcp"]},
        state={"enum": ["listening", "draining", "closed"]},
        connections=_COUNT,
    ),
    "Pool": _whole(name=_TEXT, algorithm=_TEXT, queued=_COUNT, backends=listing(ref("Backend"))),
    "Backend": _whole(
        name=_TEXT,
        address=_TEXT,
        weight=_COUNT,
        backup=_TRUTH,
        state={"description": "what people set", **_STATE},
        health={"description": "what was found", "enum": ["up", "down", "ejected", "unknown", "flapping"]},
        circuit={"enum": ["closed", "open", "half_open"]},
        active=_COUNT,
        requests=_COUNT,
        failures=_COUNT,
        latency={"type": ["number", "null"], "description": "a moving average, in seconds"},
        last_check={
            "anyOf": [{"type": "null"}, _whole(ok=_TRUTH, at={"type": "string", "format": "date-time"}, detail=_TEXT)]
        },
        source={"enum": ["config", "runtime"]},
    ),
    "History": {
        "type": "object",
        "properties": {
            "tick": {"type": "integer", "description": "the last second, counted from the start; -1: none yet"},
            "begin": {"type": "integer", "description": "the second after which the series begin"},
            "least_us": {"type": "integer", "description": "no shorter latency is told from others: less than this"},
            "total": {**ref("Series"), "description": "without listeners that are backends here"},
            "listeners": listing(ref("Series")),
            "pools": listing(ref("Series")),
            "backends": listing(ref("Series")),
            "left_out": {"type": "integer", "minimum": 0, "description": "series that have no room"},
            "events": listing({"type": "object"}),
            "reload": {"type": ["object", "null"], "description": "the event of the last reload"},
        },
        "required": ["tick", "begin", "least_us", "total", "listeners", "pools", "backends", "left_out"],
    },
    "Series": {
        "type": "object",
        "description": "Columns of whole numbers, oldest first, for each `step` seconds; -1: not known.",
        "properties": {
            "step": {"type": "integer"},
            "name": _TEXT,
            "requests": _NUMBERS,
            "errors": _NUMBERS,
            "p95_us": _NUMBERS,
            "lately": {"type": "object", "description": "p50_us, p95_us, p99_us of the last 10 to 20 seconds"},
        },
    },
    "NewBackend": _some(
        "address",
        address=_ADDRESS,
        name=_TEXT,
        weight=_WEIGHT,
        backup=_TRUTH,
        max_connections={"type": ["integer", "null"], "minimum": 1},
    ),
    "BackendEdit": _some(at_least=1, weight=_WEIGHT, state=_STATE),
    "HealthCheckEdit": _some(
        at_least=1,
        type={"enum": ["tcp", "http", "grpc", None]},
        path=_or_null(_TEXT),
        method=_or_null(_TEXT),
        host={"type": ["string", "null"]},
        port={"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
        expect_status={"type": ["string", "integer", "array", "null"]},
        expect_body={"type": ["string", "null"]},
        interval=_or_null(_DURATION),
        timeout=_or_null(_DURATION),
        rise={"type": ["integer", "null"], "minimum": 1},
        fall={"type": ["integer", "null"], "minimum": 1},
        service=_or_null(_TEXT),
    ),
    "TrafficOrder": _some(
        "listener",
        listener=_TEXT,
        requests={"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        clients={"type": "integer", "minimum": 1, "maximum": 20, "default": 4, "description": "at one time"},
        path={"type": "string", "pattern": "^/", "maxLength": 2048, "default": "/"},
        host={"type": ["string", "null"], "pattern": r"^[A-Za-z0-9._:\[\]-]+$", "maxLength": 261},
        method={"enum": ["GET", "HEAD"], "default": "GET"},
    ),
    "Traffic": _whole(
        sent={**_COUNT, "description": "requests that were begun"},
        statuses={"description": "how many answers had which status", **mapping(_COUNT)},
        reasons={"description": "why they ended, by the words of the access log", **mapping(_COUNT)},
        errors={"description": "requests without a whole answer, in words", **mapping(_COUNT)},
        backends=listing(
            _whole(
                pool={"type": ["string", "null"]},
                name={"type": ["string", "null"], "description": "null: no backend had it"},
                requests=_COUNT,
            )
        ),
        latency_ms=_whole(**{word: {"type": ["number", "null"]} for word in ("p50", "p95", "p99", "max")}),
        elapsed={"type": "number", "description": "seconds"},
    ),
    "Change": _whole(generation=_COUNT, changes=_TEXTS),
    "BackendChange": _whole(name=_TEXT, generation=_COUNT, changes=_TEXTS),
    "Checked": _whole(ok=_TRUTH, errors=_TEXTS, notes=_TEXTS),
    "Algorithm": _whole(algorithm=_TEXT),
    "EditByUrl": _some("url", url=_URL, weight=_WEIGHT),
    "ByUrl": {
        "type": "object",
        "properties": {"url": _TEXT, "pool": _TEXT, "weight": _COUNT},
        "required": ["url", "pool"],
    },
    "Problem": {
        "type": "object",
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "errors": _TEXTS,
        },
        "required": ["type", "title", "status", "detail"],
    },
}
