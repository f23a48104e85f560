"""Whether a backend that is added at run time can be in its pool, and whether TLS is spoken to it there.

Promises: the same rules as for the backends of a file (securing.py, which knows where they stand): who joins a pool whose
connections are secured is secured too, or does not join. Called by overlay.py, changing.py and piece.py.
"""

from __future__ import annotations

from dataclasses import replace

from lbsvc.config.overrides import Wrong
from lbsvc.config.roads import roads_of
from lbsvc.config.schema import BackendSettings, PoolSettings, Settings


def joined(settings: Settings, pool: PoolSettings, entry: BackendSettings) -> BackendSettings:
    """The entry as it is meant in this pool; raises Wrong."""
    address = entry.address.lower()
    is_secure = address.startswith("https://")
    if pool.tls is not None:
        protocols = roads_of(settings)[pool.name]
        is_plain = address.startswith(("http://", "h2c://"))
        is_path = entry.host.startswith("/")
        if protocols == {"tcp"}:
            if is_plain:
                scheme = address.partition(":")[0]
                why = "where the pool has tls and only tcp listeners use it: TLS is spoken to all"
                raise Wrong(f"address: cannot be {scheme}:// {why}")
            if is_path and pool.tls.verify and pool.tls.server_name is None:
                raise Wrong("address: cannot be unix: where the pool's tls has no server_name to verify it by")
            is_secure = True
        elif "tcp" in protocols:
            if is_path:
                raise Wrong("address: cannot be unix: in a pool that has tls where http and tcp listeners use it")
            if not is_secure and not is_plain:
                why = "http and tcp listeners use the pool"
                raise Wrong(f"address: needs https:// before it, or http:// for no TLS: {why}")
    return entry if entry.is_secure == is_secure else replace(entry, is_secure=is_secure)
