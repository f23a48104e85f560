"""What can go wrong, as one tree: each error knows the word and the HTTP status under which it is reported.

Promises: every reason word that appears in an access log, a metric label or an error body is listed in
`REASONS`, once. Called by every floor; imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Reason word -> HTTP status that the client sees when we answer ourselves (0: no answer is possible or meant).
REASONS: Final[dict[str, int]] = {
    "ok": 0,
    "idle_timeout": 0,
    "handshake_failed": 0,
    "tls_verify": 502,
    "bad_proxy_header": 0,
    "overload": 503,
    "no_route": 404,
    "no_backend": 503,
    "queue_timeout": 503,
    "queue_full": 503,
    "circuit_open": 503,
    "connect_failed": 502,
    "connect_timeout": 504,
    "upstream_reset": 502,
    "upstream_timeout": 504,
    "upstream_protocol": 502,
    "deadline": 504,
    "retry_budget": 502,
    "client_closed": 499,
    "client_timeout": 408,
    "bad_request": 400,
    "too_large": 413,
    "rate_limited": 429,
    "denied": 403,
    "fault": 503,
    "draining": 503,
    "killed": 0,
}


class LbsvcError(Exception):
    """The root of our errors."""


class ProtocolViolation(LbsvcError):
    """A peer sent what the protocol forbids; the connection it came on ends.

    `blame` is "downstream" or "upstream"; `status` is what the client is answered; `detail` is for the log and the
    error body and never repeats the peer's bytes.
    """

    def __init__(self, status: int, detail: str, *, reason: str = "bad_request", blame: str = "downstream") -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.blame = blame


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in a configuration: where (1-based; 0 where there is no place), which key, and what is wrong."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


class ConfigErrors(LbsvcError):
    """A configuration that cannot be used: every mistake in it, in order of place. Exit code 78."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class SystemRefusal(LbsvcError):
    """What the operating system refused (a port that is taken, say): the same mistakes, exit code 71."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class Stopping(SystemRefusal):
    """Nothing is changed any more: the service stops."""
