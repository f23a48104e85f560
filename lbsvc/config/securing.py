"""To which backends TLS is spoken: what a pool's `tls` says is known only together with who uses the pool.

Promises: a backend is `is_secure` where its address says https://, and all of a pool are that has a `tls` section and is
used by tcp listeners alone, whose addresses have no scheme; where both protocols use such a pool, each address has to say
what is meant. Whoever is verified has a name to be verified by. Called by loader.py after checks.py.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from lbsvc.config.document import spell
from lbsvc.config.schema import BackendSettings, PoolSettings, Settings
from lbsvc.config.walk import ReadPool, Walk


def secured(walk: Walk, settings: Settings | None) -> Settings | None:
    """The settings with each backend as it is meant; what is unclear is reported."""
    used = walk.users()
    found = {
        read.settings.name: _settled(walk, read, used.get(read.settings.name, set()))
        for read in walk.pools
        if read.settings.tls is not None
    }
    if settings is None or not found:
        return settings
    return replace(settings, pools=MappingProxyType({**settings.pools, **found}))


def _settled(walk: Walk, read: ReadPool, protocols: set[str]) -> PoolSettings:
    pool = read.settings
    if protocols == {"tcp"}:
        _check_plain(read)
        _check_names(read)
        return replace(pool, backends=tuple(replace(backend, is_secure=True) for backend in pool.backends))
    if "tcp" in protocols:
        _check_schemes(read)
    if "tcp" in protocols and not all(_says_plain(backend) for backend in pool.backends):
        return pool
    if not any(backend.is_secure for backend in pool.backends):
        _note_vain(walk, read)
    return pool


def _note_vain(walk: Walk, read: ReadPool) -> None:
    """A section that acts on no backend: the one thing to know of it, in the place of what its keys would do."""
    path = spell(read.spot.path, "tls")
    walk.notes[:] = [note for note in walk.notes if not note.startswith(f"{walk.filename}: {path}.")]
    pool = read.settings
    if all(backend.is_h2c for backend in pool.backends):
        why = "h2c:// is HTTP/2 without TLS; write https:// and protocol: h2 for HTTP/2 over TLS"
        walk.note(path, f"does nothing: {why}")
    else:
        both = ", nor does protocol" if pool.protocol != "http/1.1" else ""
        walk.note(path, f"does nothing{both}: no backend is https://")


def _says_plain(backend: BackendSettings) -> bool:
    return backend.address.lower().startswith(("http://", "h2c://"))


def _check_plain(read: ReadPool) -> None:
    for place, backend in zip(read.places, read.settings.backends, strict=True):
        if _says_plain(backend):
            scheme = backend.address.partition(":")[0].lower()
            why = "where the pool has tls and only tcp listeners use it: TLS is spoken to all"
            place.wrong(f"cannot be {scheme}:// {why}")


def _check_schemes(read: ReadPool) -> None:
    for place, backend in zip(read.places, read.settings.backends, strict=True):
        if backend.host.startswith("/"):
            place.wrong("cannot be in a pool that has tls where http and tcp listeners use it: is TLS meant, or not?")
        elif not backend.is_secure and not _says_plain(backend):
            place.wrong("needs https:// before it, or http:// for no TLS: http and tcp listeners use the pool")


def _check_names(read: ReadPool) -> None:
    """The socket of a path has no name that a certificate could be for."""
    tls = read.settings.tls
    if tls is None or not tls.verify or tls.server_name is not None:
        return
    section = read.spot.at("tls")
    is_written = "server_name" in section.entries()
    if any(backend.host.startswith("/") for backend in read.settings.backends):
        why = "is required, or verify: false, where a backend is a unix socket: it has no name to be verified by"
        if not is_written:
            section.missing("server_name", why)
        elif section.at("server_name").is_null:
            section.at("server_name").wrong(why)
