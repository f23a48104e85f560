"""What no key can know alone: pools that are named but do not exist, ports that clash, what fits only one protocol.

Promises: looks at everything that was read, also where other things were wrong, and reports each mistake at the key
that makes it; what it costs grows with what was read, not with its square. Called by loader.py after the walk.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from lbsvc.config.addresses import hosts_of, overlap
from lbsvc.config.document import spell
from lbsvc.config.hints import meant
from lbsvc.config.schema import Bind, Settings
from lbsvc.config.values import words
from lbsvc.config.walk import PoolUse, Walk

#: Among more pools than these nobody is told which one was meant.
_COMPARED: Final = 300


def check(walk: Walk, settings: Settings | None) -> None:
    """Compare what was read; `settings` is None where there is no listener at all."""
    _check_pools(walk)
    _check_request_keys(walk)
    _check_cookies(walk)
    _check_ahead(walk)
    _check_ports(walk, settings)


def _check_pools(walk: Walk) -> None:
    names = dict.fromkeys(walk.pool_names)
    for use in walk.pool_uses:
        if use.pool not in names:
            use.spot.wrong(f"there is no pool of this name{_named(use, names if len(names) <= _COMPARED else ())}")


def _check_request_keys(walk: Walk) -> None:
    """What a pool wants to know of requests, where those who use it see none."""
    users = walk.users()
    for key in walk.request_keys:
        protocols = users.get(key.pool, set())
        if "tcp" not in protocols:
            continue
        if key.cookie is None:
            key.spot.wrong("must be client_ip where a tcp listener uses the pool: it sees no requests")
        elif "http" not in protocols:
            key.spot.wrong(
                "cannot be by cookie where only tcp listeners use the pool: they see no requests; ip would do"
            )
        else:
            walk.note(key.spot.path, "does nothing for the tcp listeners that use the pool: they see no requests")


def _check_cookies(walk: Walk) -> None:
    """A browser keeps one cookie of a name: of two pools that set it each would undo what the other has said."""
    cookies = {key.pool: key.cookie for key in walk.request_keys if key.cookie is not None}
    setters: dict[tuple[str, str], dict[str, None]] = {}
    for use in walk.pool_uses:
        if use.pool in cookies and use.protocol == "http" and not use.is_copy:
            setters.setdefault((use.listener, cookies[use.pool]), {})[use.pool] = None
    for (listener, _), pools in setters.items():
        if len(pools) > 1:
            names = words(tuple(pools), "and")
            walk.note(
                spell("listeners", listener),
                f"the pools {names} set cookies of one name: clients of one lose their backend in another",
            )


def _check_ahead(walk: Walk) -> None:
    """What a tcp connection says of its client at its beginning, it cannot say before there is one."""
    users = walk.users()
    for read in walk.pools:
        pool = read.settings
        protocols = users.get(pool.name, set())
        if pool.proxy_protocol is None or pool.connections.keep_alive == 0 or "tcp" not in protocols:
            continue
        path = spell(read.spot.path, "connections")
        if "connections" in read.spot.entries() and "keep_alive" in read.spot.at("connections").entries():
            why = "each connection begins with its client's address (proxy_protocol)"
            walk.note(spell(path, "keep_alive"), f"does nothing for tcp listeners: {why}")


def _named(use: PoolUse, names: Collection[str]) -> str:
    """What stands there in place of a pool's name; a key is in the message's path already."""
    if not use.is_key:
        return use.spot.got(names)
    hint = meant(use.pool, names) if use.spot.walk.has_hints else ""
    return f" ({hint})" if hint else ""


def _check_ports(walk: Walk, settings: Settings | None) -> None:
    binds = sorted(walk.binds, key=lambda pair: (pair[0].line, pair[0].column))
    taken = Taken()
    admin = settings.admin if settings is not None else None
    is_default = admin is not None and all(spot.path != "admin.bind" for spot, _ in binds)
    for i, (spot, bind) in enumerate(binds):
        first = taken.take(bind)
        if first < i:
            other = binds[first][0]
            line = f" in line {other.line}" if other.line else ""
            spot.wrong(f"clashes with {other.path}{line}{spot.got()}")
        elif is_default and admin is not None and overlap(bind, admin.bind):
            spot.wrong(f"clashes with admin.bind, which is {admin.bind} where it is not given{spot.got()}")


class Taken:
    """Binds, by what they take: addresses.py's `overlap` without comparing each with each."""

    def __init__(self) -> None:
        self._binds = 0
        self._first: dict[object, int] = {}  # by what is taken: the first bind that takes it

    def take(self, bind: Bind) -> int:
        """Which bind is the first that this one overlaps, in the order in which they came; it is itself where none is."""
        number = self._binds
        self._binds += 1
        if bind.host.startswith("/") or bind.passed_as is not None:
            return self._first.setdefault(bind.host, number)
        if bind.port == 0:
            return number
        found, port = [number], bind.port
        hosts = hosts_of(bind.host)
        for host in hosts:
            found += [self._first.get((port, sought), number) for sought in _against(host)]
        for host in hosts:
            for place in (host, *_inside(host)):
                self._first.setdefault((port, place), number)
        return min(found)


#: What is inside a wildcard: any address or name that it covers.
_FOUR, _SIX = "of 0.0.0.0", "of ::"


def _inside(host: str) -> list[str]:
    """The wildcards around a host, itself included; a name may be of either family."""
    return [*([_FOUR] if ":" not in host else []), *([_SIX] if ":" in host or not host[:1].isdigit() else [])]


def _against(host: str) -> list[str]:
    """What a host cannot be beside: itself, the wildcards around it, and, if it is one, what is inside."""
    around = {_FOUR: "0.0.0.0", _SIX: "::"}
    inside = {"0.0.0.0": [_FOUR], "::": [_SIX]}.get(host, [])
    return [host, *(around[each] for each in _inside(host)), *inside]
