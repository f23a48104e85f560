"""What no key can know alone: pools that are named but do not exist, ports that clash, what fits only one protocol.

Promises: looks at everything that was read, also where other things were wrong, and reports each mistake at the key
that makes it. Called by loader.py after the walk.
"""

from __future__ import annotations

from lbsvc.config.addresses import overlap
from lbsvc.config.document import spell
from lbsvc.config.hints import meant
from lbsvc.config.schema import AdminSettings, Bind, Settings
from lbsvc.config.values import words
from lbsvc.config.walk import PoolUse, Spot, Walk


def check(walk: Walk, settings: Settings | None) -> None:
    """Compare what was read; `settings` is None where there is no listener at all."""
    _check_pools(walk)
    _check_request_keys(walk)
    _check_cookies(walk)
    _check_ahead(walk)
    _check_ports(walk, settings)


def _check_pools(walk: Walk) -> None:
    for use in walk.pool_uses:
        if use.pool not in walk.pool_names:
            use.spot.wrong(f"there is no pool of this name{_named(use, walk.pool_names)}")


def _check_request_keys(walk: Walk) -> None:
    """What a pool wants to know of requests, where those who use it see none."""
    for key in walk.request_keys:
        protocols = {use.protocol for use in walk.pool_uses if use.pool == key.pool}
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
    for read in walk.pools:
        pool = read.settings
        protocols = {use.protocol for use in walk.pool_uses if use.pool == pool.name}
        if pool.proxy_protocol is None or pool.connections.keep_alive == 0 or "tcp" not in protocols:
            continue
        path = spell(read.spot.path, "connections")
        if "connections" in read.spot.entries() and "keep_alive" in read.spot.at("connections").entries():
            why = "each connection begins with its client's address (proxy_protocol)"
            walk.note(spell(path, "keep_alive"), f"does nothing for tcp listeners: {why}")


def _named(use: PoolUse, names: list[str]) -> str:
    """What stands there in place of a pool's name; a key is in the message's path already."""
    if not use.is_key:
        return use.spot.got(names)
    hint = meant(use.pool, names)
    return f" ({hint})" if hint else ""


def _check_ports(walk: Walk, settings: Settings | None) -> None:
    binds = sorted(walk.binds, key=lambda pair: (pair[0].line, pair[0].column))
    for i, (spot, bind) in enumerate(binds):
        for other, taken in binds[:i]:
            if overlap(bind, taken):
                line = f" in line {other.line}" if other.line else ""
                spot.wrong(f"clashes with {other.path}{line}{spot.got()}")
                break
        else:
            if settings is not None and settings.admin is not None:
                _check_default_admin(spot, bind, settings.admin, [place for place, _ in binds])


def _check_default_admin(spot: Spot, bind: Bind, admin: AdminSettings, places: list[Spot]) -> None:
    if not any(place.path == "admin.bind" for place in places) and overlap(bind, admin.bind):
        spot.wrong(f"clashes with admin.bind, which is {admin.bind} where it is not given{spot.got()}")
