"""The status codes of gRPC: their numbers and names, and which of them say that a backend has failed.

Promises: the names are those of gRPC's "Status codes and their use in gRPC", in small letters with underscores, in the
order of their numbers, so that `GRPC_CODES[number]` is the name. Read by config (`retry.when`), by http/grpc.py, and by
observe; imports nothing.
"""

from __future__ import annotations

from typing import Final

#: By number.
GRPC_CODES: Final = (
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
)
