"""What no key can know alone: pools that are named but do not exist, ports that clash, what fits only one protocol.

Promises: looks at everything that was read, also where other things were wrong, and reports each mistake at the key
that makes it. Called by loader.py after the walk.
"""

from __future__ import annotations

from lbsvc.config.addresses import overlap
from lbsvc.config.document import spell
from lbsvc.config.schema import AdminSettings, Bind, Settings
from lbsvc.config.walk import NOT_YET, PoolUse, Spot, Walk, meant


def check(walk: Walk, settings: Settings | None) -> None:
    """Compare what was read; `settings` is None where there is no listener at all."""
    _check_pools(walk)
    _check_ports(walk, settings)


def _check_pools(walk: Walk) -> None:
    noted: set[str] = set()
    for use in walk.pool_uses:
        if use.pool not in walk.pool_names:
            use.spot.wrong(f"there is no pool of this name{_named(use, walk.pool_names)}")
            continue
        path = spell("pools", use.pool)
        if use.protocol != "tcp" or path in noted:
            continue
        noted.add(path)
        where = "where a tcp listener uses the pool"
        # Left out it is off there, now and later (features.md, L4-2): nothing to note.
        if path in walk.keep_alive and walk.keep_alive[path][1] > 0:
            walk.keep_alive[path][0].wrong(f"{NOT_YET} {where}: 0, or leave it out")


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
