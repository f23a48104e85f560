"""Numbers out of bytes that are the same on every instance, today and after a restart.

Promises: nothing here depends on the process (Python's own `hash` does, on purpose), on the machine's byte order or on
the version of Python: two instances with the same backends send the same client to the same one. The numbers are as good
as random ones: BLAKE2b (RFC 7693) for single ones, SHAKE128 (FIPS 202) for rows of them. They are no secret: who may
choose their key may choose their backend, which is why consistent_hash has a bound.

Called by the roads (`key_hash`, for each request of a pool that hashes; 0.7 µs) and by the pickers that hash
(`identity`, `numbers`, at updates).
"""

from __future__ import annotations

from hashlib import blake2b, shake_128
from struct import unpack

from lbsvc.core.backend import Backend


def key_hash(raw: bytes) -> int:
    """A number of 64 bits for what a request is known by: an address, a cookie, a path."""
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def identity(backend: Backend) -> bytes:
    """What a backend is for hashing: its name, which is its own in the pool, and the address as written without one."""
    return backend.name.encode("utf-8", "surrogatepass")


def numbers(seed: bytes, count: int) -> tuple[int, ...]:
    """A row of numbers of 64 bits for a seed; a longer row begins like a shorter one."""
    return unpack(f"<{count}Q", shake_128(seed).digest(8 * count))
