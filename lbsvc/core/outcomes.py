"""How the use of a backend may end.

Promises: only the six failures count against a backend. A client that went away never does, and neither does a lease that
we gave up ourselves. Everybody has it from core/backend.py; it stands alone since an enum that makes its members itself
cannot be compiled (etc/compiled/hook.py).
"""

from __future__ import annotations

import enum
from typing import Final


class Outcome(enum.IntEnum):
    """How the use of a backend ended; `reason` is the word of errors.REASONS for it."""

    reason: str

    def __new__(cls, value: int, reason: str) -> Outcome:
        member = int.__new__(cls, value)
        member._value_ = value
        member.reason = reason
        return member

    OK = 0, "ok"
    CONNECT_FAILED = 1, "connect_failed"
    CONNECT_TIMEOUT = 2, "connect_timeout"
    TLS_VERIFY = 3, "tls_verify"
    RESET = 4, "upstream_reset"
    TIMEOUT = 5, "upstream_timeout"
    PROTOCOL = 6, "upstream_protocol"
    CLIENT_GONE = 7, "client_closed"
    ABANDONED = 8, "killed"


#: The outcomes that count against a backend: all up to PROTOCOL, but for OK.
FAILURES: Final = (
    Outcome.CONNECT_FAILED,
    Outcome.CONNECT_TIMEOUT,
    Outcome.TLS_VERIFY,
    Outcome.RESET,
    Outcome.TIMEOUT,
    Outcome.PROTOCOL,
)
