"""What the C library does with memory that is given back: large blocks stay for the next read, and are not unmapped.

Promises: asked once, by net/transports.py, before the first connection; True where reads may be large. Nothing else of the
process changes but that up to KEPT bytes stay with it that nobody uses.

Decision: 2026-11-22. glibc unmaps a block of 128 KiB or more when it is freed, and gives the end of its heap back to the
kernel as soon as 128 KiB of it are free; what comes next has every page of it faulted in again. Measured, recv of 60,000
bytes on loopback, Python 3.11: recv(65536) 2.6 us; recv(131008) 8.1; recv(262144) 26; with these two options 2.8 each. And
a message of 100 bytes: 1.2 us, recv(262144) 9.5, with them 1.2. recv_into one shared buffer costs as much, 2.8, and the copy
that a protocol needs 1.4 more.
"""

from __future__ import annotations

import ctypes
from typing import Final

#: mallopt(3)
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
#: Blocks below this come from the heap.
LARGE: Final = 1024 * 1024
#: So much at the heap's end is kept.
KEPT: Final = 4 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Set both; False where the C library knows no such thing (musl), or not by that name."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE) and mallopt(M_TRIM_THRESHOLD, KEPT))
