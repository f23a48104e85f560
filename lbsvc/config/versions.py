"""Which version of HTTP backends are spoken to in: what a pool says of it that comes to nothing, or to something else.

Promises: nothing is refused, for it all can be served; whoever asked for HTTP/2 and does not get it, or for something
beside it, reads so in a note at the key that asks. Called by loader.py after the walk, beside checks.py.
"""

from __future__ import annotations

from lbsvc.config.document import spell
from lbsvc.config.schema import BackendSettings, PoolSettings
from lbsvc.config.values import words
from lbsvc.config.walk import ReadPool, Walk
from lbsvc.core.grpc_codes import GRPC_CODES


def check_versions(walk: Walk) -> None:
    """Note what each pool says in vain."""
    used = walk.users()
    for read in walk.pools:
        users = used.get(read.settings.name, set())
        if "protocol" in read.spot.entries():
            why = _why_not(read, users)
            if why:
                walk.note(spell(read.spot.path, "protocol"), why)
        if "tcp" in users:
            _note_bytes(walk, read)
        if "http" in users:
            _note_check(walk, read)
        _note_codes(walk, read, users)


def _why_not(read: ReadPool, users: set[str]) -> str:
    """What is wrong with a `protocol` that is written, or ""."""
    pool = read.settings
    secure = [backend for backend in pool.backends if backend.is_secure]
    if users == {"tcp"}:
        why = "does nothing where only tcp listeners use the pool: they carry bytes"
        return "" if pool.protocol == "http/1.1" else why
    if all(backend.is_h2c for backend in pool.backends):
        # Where there is a `tls` beside it, what is said of that tells all.
        return "" if pool.tls is not None else "does nothing: h2c:// is HTTP/2 in any case"
    if pool.protocol == "http/1.1" or (pool.tls is not None and not secure):
        return ""
    if not secure:
        return "does nothing: no backend is https://; by HTTP/2 without TLS go h2c:// addresses"
    plain = tuple(
        f"backends[{i}]" for i, backend in enumerate(pool.backends) if not backend.is_secure and not backend.is_h2c
    )
    if pool.protocol == "h2" and plain:
        some = words(plain[:3], "and") if len(plain) <= 3 else f"{plain[0]} and {len(plain) - 1} more"
        verb = "is" if len(plain) == 1 else "are"
        return (
            f"is about https:// alone: {some} {verb} spoken to by HTTP/1.1; by HTTP/2 without TLS go h2c:// addresses"
        )
    return ""


def _note_bytes(walk: Walk, read: ReadPool) -> None:
    """Nothing makes HTTP/2 of what a tcp listener's clients say."""
    for place, backend in zip(read.places, read.settings.backends, strict=True):
        if backend.is_h2c:
            why = "h2c:// makes no HTTP/2 of what clients of tcp listeners say: they have to speak it themselves"
            walk.note(place.path, why)
            return


def _may_get_h2(pool: PoolSettings, backend: BackendSettings) -> bool:
    """Whether requests may go to it by HTTP/2."""
    return backend.is_h2c or (backend.is_secure and pool.protocol != "http/1.1")


def _note_codes(walk: Walk, read: ReadPool, users: set[str]) -> None:
    """Calls of gRPC are made again by their codes: where none are seen, or none can be answered, codes say nothing."""
    pool = read.settings
    listed = tuple(code for code in GRPC_CODES if code in pool.retry.when)
    if not listed:
        return
    codes = words(listed, "and")
    path = spell(spell(read.spot.path, "retry"), "when")
    if users == {"tcp"}:
        walk.note(path, f"{codes}: nothing to do where only tcp listeners use the pool: they see no calls of gRPC")
    elif "http" in users and not any(_may_get_h2(pool, each) for each in pool.backends):
        why = "is about gRPC, which is HTTP/2, but requests go as HTTP/1.1: write h2c://, or https:// and protocol: h2"
        walk.note(path, f"{codes}: {why}")


def _note_check(walk: Walk, read: ReadPool) -> None:
    """A check that speaks another version than the requests finds a backend well that can answer none of them."""
    pool = read.settings
    if pool.health_check is None or pool.health_check.type != "grpc":
        return
    if any(not _may_get_h2(pool, each) for each in pool.backends):
        walk.note(
            spell(read.spot.path, "health_check"),
            "asks by HTTP/2, but requests go as HTTP/1.1: write h2c://, or https:// and protocol: h2",
        )
