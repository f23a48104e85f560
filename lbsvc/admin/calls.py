"""What each call of the API does: from a request that has been read to an answer of plain values.

Promises: a view asks `Control`, changes by it, and gives an `Answer`; what stands against it is raised (`Refused`, or what
control.py and bodies.py say), and answered by api.py. A change is in force when it is answered, in every worker. The views
of the smaller balancers' calls are in aliases.py; which view belongs to which path stands in operations.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred

from lbsvc.admin.bodies import Malformed, Unfit, read_object, shown
from lbsvc.admin.channel import CLOSE, AdminRequest
from lbsvc.admin.checking import Checks
from lbsvc.admin.control import Applied, Checked, Control, Look
from lbsvc.admin.streams import CONTENT_TYPE, KINDS, EventStreams
from lbsvc.config.dump import dump
from lbsvc.config.piece import change_from
from lbsvc.config.schema import PoolSettings
from lbsvc.config.values import LONGEST, parse_duration

JSON: Final = b"application/json"

#: A file can have as many mistakes as it has keys; nobody reads more than this.
MOST_ERRORS: Final = 200


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


@dataclass(frozen=True)
class Call:
    """One request, read."""

    control: Control
    streams: EventStreams
    checks: Checks
    request: AdminRequest
    who: str  # peer, and whether it has shown the token
    names: Mapping[str, str]  # from the path
    query: Mapping[str, str]
    body: bytes
    look: Look  # for changes: holds what is in force then against what the request says of it
    revisions: list[int]  # of the pool, at each of those looks

    def pool(self) -> PoolSettings:
        """The pool that the path names, as it is configured; Refused where there is none."""
        return pool_named(self.control, self.names["pool"])


@dataclass(frozen=True)
class Told:
    """A change, for the log: what, and to what."""

    words: str
    pool: str | None = None
    backend: str | None = None
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    body: Any = None  # a JSON value, or bytes where `content_type` is another
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    content_type: bytes = JSON
    pool: str | None = None  # whose revision is the entity tag
    told: Told | None = None


def pool_named(control: Control, name: str) -> PoolSettings:
    """A pool as it is configured."""
    found = control.settings().pools.get(name)
    if found is None:
        raise Refused(404, f"there is no pool {shown(name)}")
    return found


# -- what is there


def show_status(call: Call) -> Answer:
    return Answer(call.control.status())


def show_health(call: Call) -> Answer:
    """Of a host name with several members, one that is up is enough."""
    found: dict[str, dict[str, bool]] = {}
    for pool in call.control.status()["pools"]:
        addresses = found[pool["name"]] = {}
        for backend in pool["backends"]:
            addresses[backend["address"]] = addresses.get(backend["address"], False) or backend["health"] == "up"
    return Answer(found)


def show_pools(call: Call) -> Answer:
    return Answer(call.control.status()["pools"])


def show_pool(call: Call) -> Answer:
    return _of_pool(call, live_pool(call))


def show_backends(call: Call) -> Answer:
    return _of_pool(call, live_pool(call)["backends"])


def show_backend(call: Call) -> Answer:
    """Of a host name's entry: its members are backends of their own, the entry's first one stands for it."""
    name = call.names["name"]
    backends = live_pool(call)["backends"]
    for backend in backends:
        if backend["name"] == name:
            return _of_pool(call, backend)
    for backend in backends:
        if backend["name"].rpartition("@")[0] == name:
            return _of_pool(call, backend)
    raise Refused(404, f"there is no backend {shown(name)} in the pool {shown(call.names['pool'])}")


def live_pool(call: Call) -> dict[str, Any]:
    """The pool that the path names, as it is now; one that is only leaving is there too."""
    for pool in call.control.status()["pools"]:
        if pool["name"] == call.names["pool"]:
            found: dict[str, Any] = pool
            return found
    raise Refused(404, f"there is no pool {shown(call.names['pool'])}")


def _of_pool(call: Call, body: Any) -> Answer:
    name = call.names["pool"]
    return Answer(body, pool=name if name in call.control.settings().pools else None)


def show_config(call: Call) -> Answer:
    return Answer(dump(call.control.settings()))


def show_health_check(call: Call) -> Answer:
    pool = call.pool().name
    return Answer(dump(call.control.settings())["pools"][pool]["health_check"], pool=pool)


# -- what changes


def add_backend(call: Call) -> Deferred[Answer]:
    pool = call.pool().name
    entry = call.control.parse_backend(pool, read_object(call.body))
    place = f"/api/v1/pools/{quote(pool, safe='')}/backends/{quote(entry.name, safe='')}"
    adding = call.control.add(call.who, pool, entry, call.look)
    return adding.addCallback(changed, pool, entry.name, "added", 201, ((b"Location", place.encode()),))


def change_backend(call: Call) -> Deferred[Answer]:
    pool, name = call.pool().name, call.names["name"]
    weight, state = change_from(read_object(call.body))
    words = [f"weight {weight}"] if weight is not None else []
    words += [f"state {state}"] if state is not None else []
    changing = call.control.change(call.who, pool, name, weight, state, call.look)
    return changing.addCallback(changed, pool, name, ", ".join(words))


def remove_backend(call: Call) -> Deferred[Answer]:
    pool, name = call.pool().name, call.names["name"]
    drain = None
    if "drain" in call.query:
        drain = parse_duration(call.query["drain"])
        if drain is None or drain > LONGEST:
            raise Unfit("drain: must be a duration such as 250ms, 30s or 1m30s, of ten years at most")
    removing = call.control.remove(call.who, pool, name, drain, call.look)
    return removing.addCallback(changed, pool, name, "removed", 202)


def change_health_check(call: Call) -> Deferred[Answer]:
    pool = call.pool().name
    given = read_object(call.body)
    if not given:
        raise Unfit("the object is empty: at least one key of a health check is needed")
    fields = call.control.parse_health(pool, given)

    def tell(applied: Applied) -> Answer:
        body = {"generation": applied.generation, "changes": list(applied.changes)}
        return Answer(body, pool=pool, told=Told(f"{pool}: health check changed", pool, None, applied.changes))

    return call.control.change_health(call.who, pool, fields, call.look).addCallback(tell)


def changed(
    applied: Applied,
    pool: str,
    name: str,
    words: str,
    status: int = 200,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    """The answer to a change of one backend."""
    body = {"name": name, "generation": applied.generation, "changes": list(applied.changes)}
    return Answer(body, status, headers, pool=pool, told=Told(f"{pool}/{name}: {words}", pool, name, applied.changes))


def check_config(call: Call) -> Deferred[Answer]:
    def tell(checked: Checked) -> Answer:
        errors, notes = checked
        return Answer({"ok": not errors, "errors": first(errors), "notes": first(notes)})

    return call.checks.ask(call.body).addCallback(tell)


def first(errors: Sequence[str]) -> list[str]:
    """As many as anybody reads, and how many more there are."""
    more = len(errors) - MOST_ERRORS
    return [*errors[:MOST_ERRORS], f"and {more} more"] if more > 0 else list(errors)


def reload(call: Call) -> Deferred[Answer]:
    def tell(applied: Applied) -> Answer:
        body = {"generation": applied.generation, "changes": list(applied.changes)}
        return Answer(body, told=Told("the configuration: reloaded", None, None, applied.changes))

    return call.control.reload(call.who).addCallback(tell)


# -- the processes


def show_workers(call: Call) -> Answer:
    """`pid` is of the process that answers: of the workers' parent, where there are any."""
    return Answer({"pid": os.getpid(), "workers": call.control.workers()})


def restart_workers(call: Call) -> Deferred[Answer]:
    def tell(done: dict[str, Any]) -> Answer:
        return Answer(done, told=Told(f"the workers: {done['restarted']} restarted"))

    return call.control.restart_workers(call.who).addCallback(tell)


def upgrade(call: Call) -> Deferred[Answer]:
    def tell(done: dict[str, Any]) -> Answer:
        return Answer(done, told=Told(f"the program: upgraded, process {done['pid']} serves now"))

    return call.control.upgrade(call.who).addCallback(tell)


# -- what goes on


def watch_events(call: Call) -> Answer | None:
    """None: the answer goes on until somebody has had enough."""
    wanted = call.query.get("only")
    if wanted is not None and wanted not in KINDS:
        raise Malformed(f"only: must be {' or '.join(KINDS)}")
    if call.request.method == b"HEAD":
        return Answer(b"", content_type=CONTENT_TYPE)
    if not call.streams.is_open:
        raise Refused(503, "the service stops: there is nothing more to watch", ((b"Retry-After", b"5"), CLOSE))
    call.streams.watch(call.request, frozenset((wanted,) if wanted is not None else KINDS))
    return None
