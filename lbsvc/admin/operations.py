"""Every call there is, in one table: the site answers by it, and the OpenAPI file is made of it.

Promises: what is not in here is 404; a path that is, with another method, 405. `find` gives the operations of a path by
method, and the names that are in it. Statuses that follow from what an operation is (a body, a name in the path, a change)
are worked out in openapi.py. Used by api.py and openapi.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred

from lbsvc.admin import aliases, calls, histories, schemas, traffic
from lbsvc.admin.calls import Answer, Call
from lbsvc.admin.streams import KINDS

View: TypeAlias = Callable[[Call], "Answer | Deferred[Answer] | None"]

_TEXT: Final = "text/plain"


@dataclass(frozen=True)
class Operation:
    """One call."""

    method: str
    path: str  # with {names}
    name: str  # operationId
    summary: str
    view: View
    answer: Mapping[str, Any] = field(default_factory=dict)  # the schema of a success's body
    status: int = 200
    query: tuple[tuple[str, Mapping[str, Any], bool], ...] = ()  # name, schema, whether it must be there
    body: Mapping[str, Any] | None = None  # the schema of the request's body
    body_type: str = "application/json"
    answer_type: str = "application/json"
    is_change: bool = False
    is_left_alone: bool = True  # a change that is made even when whoever asked for it has gone
    is_fresh: bool = False  # it shows numbers: those of now are waited for
    refused: int = 500  # the status where the system refuses
    problems: Mapping[int, str] = field(default_factory=dict)  # of its own

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path[1:].split("/"))

    @property
    def names(self) -> tuple[str, ...]:
        """The names in its path."""
        return tuple(segment[1:-1] for segment in self.segments if segment.startswith("{"))

    @property
    def is_tagged(self) -> bool:
        """Does it obey If-Match?"""
        return self.is_change and "pool" in self.names


_API: Final = "/api/v1"
_POOL: Final = f"{_API}/pools/{{pool}}"
_BACKEND: Final = f"{_POOL}/backends/{{name}}"
_EXISTS: Final = {409: "Another backend has this address or this name."}
_UNSAVED: Final = {500: "The system refused it (the state file could not be written, say); nothing has changed."}
_FAILED: Final = {500: "It has not come about, and nothing is lost.", 503: "The service stops."}
_POOL_QUERY: Final = ("pool", {"type": "string"}, False)

#: The whole interface, but for /livez, /readyz and /metrics.
OPERATIONS: Final = (
    Operation("GET", f"{_API}/status", "showStatus", "What is going on at this moment.", calls.show_status,
              schemas.ref("Status"), is_fresh=True),
    Operation("GET", f"{_API}/health", "showHealth",
              "By pool and address: whether a backend may get traffic by its checks.", calls.show_health,
              schemas.mapping(schemas.mapping({"type": "boolean"})), is_fresh=True),
    Operation("GET", f"{_API}/pools", "showPools", "The pools, with their backends.", calls.show_pools,
              schemas.listing(schemas.ref("Pool")), is_fresh=True),
    Operation("GET", _POOL, "showPool", "One pool.", calls.show_pool, schemas.ref("Pool"), is_fresh=True),
    Operation("GET", f"{_POOL}/backends", "showBackends", "A pool's backends.", calls.show_backends,
              schemas.listing(schemas.ref("Backend")), is_fresh=True),
    Operation("POST", f"{_POOL}/backends", "addBackend", "Add a backend.", calls.add_backend,
              schemas.ref("BackendChange"), 201, body=schemas.ref("NewBackend"), is_change=True,
              problems={**_EXISTS, **_UNSAVED}),
    Operation("GET", _BACKEND, "showBackend", "One backend.", calls.show_backend, schemas.ref("Backend"),
              is_fresh=True),
    Operation("PATCH", _BACKEND, "changeBackend", "Set a backend's weight or state.", calls.change_backend,
              schemas.ref("BackendChange"), body=schemas.ref("BackendEdit"), is_change=True, problems=_UNSAVED),
    Operation("DELETE", _BACKEND, "removeBackend",
              "Remove a backend: it takes nothing new, and is gone when its last request is.", calls.remove_backend,
              schemas.ref("BackendChange"), 202, query=(("drain", schemas.DRAIN, False),), is_change=True,
              problems={**_UNSAVED, 422: "A duration that is none, or a member of a host name."}),
    Operation("GET", f"{_POOL}/health_check", "showHealthCheck", "How a pool's backends are checked.",
              calls.show_health_check, {}),
    Operation("PATCH", f"{_POOL}/health_check", "changeHealthCheck",
              "Set keys of a pool's health check; they act with the next check.", calls.change_health_check,
              schemas.ref("Change"), body=schemas.ref("HealthCheckEdit"), is_change=True, problems=_UNSAVED),
    Operation("GET", f"{_API}/config", "showConfiguration", "The configuration in force, secrets masked.",
              calls.show_config, {"type": "object"}),
    Operation("POST", f"{_API}/config/check", "checkConfiguration",
              "Read a configuration without applying it; nothing in it is expanded.", calls.check_config,
              schemas.ref("Checked"), body={}, body_type="application/yaml"),
    Operation("POST", f"{_API}/reload", "reload", "Read the configuration file anew, and apply it.", calls.reload,
              schemas.ref("Change"), is_change=True, refused=422,
              problems={422: "It is wrong, or the system refuses what it asks for; nothing has changed."}),
    Operation("GET", f"{_API}/workers", "showWorkers",
              "Who carries the traffic: each worker process, or the service's only process.", calls.show_workers,
              schemas.ref("Workers"), is_fresh=True),
    Operation("POST", f"{_API}/workers/restart", "restartWorkers",
              "Replace the workers one by one, each when its successor serves; answered when all are.",
              calls.restart_workers, schemas.ref("Restarted"), is_change=True,
              problems={409: "There are no workers, or a restart or an upgrade is under way.", **_FAILED}),
    Operation("POST", f"{_API}/upgrade", "upgrade",
              "Start the program anew, with the listening sockets; answered when it is ready, and this one drains.",
              calls.upgrade, schemas.ref("Upgraded"), is_change=True,
              problems={409: "It cannot be done here, or a restart or an upgrade is under way.", **_FAILED}),
    Operation("POST", f"{_API}/traffic", "sendTraffic",
              "Send requests through one of our http listeners, ten seconds long at most, and say who answered them.",
              traffic.send_traffic, schemas.ref("Traffic"), body=schemas.ref("TrafficOrder"), is_change=True,
              is_left_alone=False,
              problems={400: "The request cannot be read, or the listener speaks no HTTP.",
                        404: "There is no such listener.", 409: "A run is under way.", 503: "It stops, or leaves."}),
    Operation("GET", f"{_API}/events", "watchEvents",
              "Server-sent events: `status` each second, `change` whenever something changes.", calls.watch_events,
              {"type": "string"}, query=(("only", {"enum": list(KINDS)}, False),), answer_type="text/event-stream",
              problems={503: "The service stops."}),
    Operation("GET", f"{_API}/history", "showHistory",
              "The last hour, step by step: `seconds` of it, or what has come `after` a tick; whole numbers, -1: not known.",
              histories.show_history, schemas.ref("History"),
              query=(("seconds", {"type": "integer", "minimum": 1, "maximum": 3600}, False),
                     ("after", {"type": "integer", "minimum": 0, "maximum": 10**12}, False),
                     ("of", {"enum": ["all", "pools"]}, False)),
              problems={422: "A number that is none, or out of its range."}),
    Operation("GET", "/api/health", "showHealthByUrl", "By URL: whether a backend may get traffic by its checks.",
              aliases.show_health, schemas.mapping({"type": "boolean"}), query=(_POOL_QUERY,), is_fresh=True),
    Operation("GET", "/api/info", "showAlgorithm", "The algorithm of the only pool, or of the one that is named.",
              aliases.show_algorithm, schemas.ref("Algorithm"), query=(_POOL_QUERY,)),
    Operation("POST", "/api/add", "addByQuery", "Add a backend to the only pool, or to the one that is named.",
              aliases.add_by_query, {"type": "string"}, query=(("url", {"type": "string"}, True), _POOL_QUERY),
              answer_type=_TEXT, is_change=True, problems={**_EXISTS, **_UNSAVED}),
    Operation("POST", "/admin/add", "addByUrl", "Add a backend, or set the weight of one that is there.", aliases.add,
              schemas.ref("ByUrl"), query=(_POOL_QUERY,), body=schemas.ref("EditByUrl"), is_change=True,
              problems={**_EXISTS, **_UNSAVED}),
    Operation("POST", "/admin/remove", "removeByUrl", "Remove a backend: it takes nothing new.", aliases.remove,
              schemas.ref("ByUrl"), query=(_POOL_QUERY,), body=schemas.ref("EditByUrl"), is_change=True,
              problems={404: "There is no such backend or pool.", **_UNSAVED}),
)  # fmt: skip


class Table:
    """Operations by path."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._paths: dict[int, dict[tuple[str, ...], dict[str, Operation]]] = {}
        for operation in operations:
            of_length = self._paths.setdefault(len(operation.segments), {})
            of_length.setdefault(operation.segments, {})[operation.method] = operation

    def find(self, segments: tuple[str, ...]) -> tuple[Mapping[str, Operation], Mapping[str, str]]:
        """The operations of a path by method, empty where there is nothing, and the names in it."""
        for template, operations in self._paths.get(len(segments), {}).items():
            names = {}
            for wanted, found in zip(template, segments, strict=True):
                if wanted.startswith("{"):
                    names[wanted[1:-1]] = found
                elif wanted != found:
                    break
            else:
                return operations, names
        return {}, {}
