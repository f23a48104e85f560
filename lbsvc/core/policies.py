"""The settings of every decision in `core`, as frozen values: defaults, units, and what each knob means.

Promises: two policies are equal exactly when they would decide alike, so that a reload can tell what changed. Durations
are seconds, sizes bytes, shares 0 to 1. Built by config (which knows YAML and positions), obeyed by the modules named
in each docstring; the names are those of lb-reference.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HealthCheckPolicy:
    """How a backend is asked whether it lives (core/health.py counts, net/prober.py asks)."""

    type: str = "tcp"  # tcp | http | grpc
    path: str = "/health"
    method: str = "GET"
    host: str | None = None  # Host header; None: the backend's address
    port: int | None = None  # None: the backend's own
    expect_status: tuple[tuple[int, int], ...] = ((200, 399),)  # inclusive ranges
    expect_body: str | None = None  # a substring
    interval: float = 5.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    service: str = ""  # grpc: whose health is asked for; "" for the server's as a whole


@dataclass(frozen=True)
class Backoff:
    """Pause before another try: `initial`, doubled each time up to `max`, with jitter (core/retry.py)."""

    initial: float = 0.0
    max: float = 1.0


@dataclass(frozen=True)
class RetryPolicy:
    """When a request that failed is tried again (core/retry.py)."""

    attempts: int = 2  # tries in all
    when: frozenset[str] = frozenset({"connect_failure", "reset"})  # also timeout, 502, 503, 504, 5xx, gRPC codes
    methods: frozenset[bytes] = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
    backoff: Backoff = Backoff()
    budget: float = 0.2  # share of requests that may be retries
    per_try_timeout: float | None = None  # from a try's start to the head of its answer
    buffer: int = 64 * 1024  # a request body up to this size is kept to be sent again


@dataclass(frozen=True)
class UpstreamTimeouts:
    """Patience with backends: connect (dial), response (last request byte to head), idle (silence in a body)."""

    connect: float = 3.0
    response: float = 60.0
    idle: float = 60.0


@dataclass(frozen=True)
class KeptConnections:
    """Kept-alive connections to each backend (http/pooling.py)."""

    keep_alive: int = 64  # idle ones kept
    idle_timeout: float = 60.0
    max_requests: int | None = None
    max_lifetime: float | None = None


@dataclass(frozen=True)
class BreakerPolicy:
    """When a backend that fails in a row is left alone, and how it comes back (core/breaker.py)."""

    failure_threshold: int = 5  # failures in a row
    reset_timeout: float = 30.0  # from the last failure until it is tried again
    half_open_requests: int = 3  # successes until closed; at most so many at one time meanwhile


@dataclass(frozen=True)
class EjectionPolicy:
    """Passive health: real traffic's failures eject a backend, longer each time (core/ejection.py)."""

    failures: int = 5
    window: float = 10.0  # in which they are counted
    eject: float = 30.0  # the first time; n times as long the n-th time, at most ten times
    max_ejected: float = 0.5  # share of a pool's backends


@dataclass(frozen=True)
class FlappingPolicy:
    """A backend that goes up and down is held down for a while (core/flapping.py)."""

    changes: int = 5
    window: float = 60.0
    hold: float = 60.0


@dataclass(frozen=True)
class RatePolicy:
    """A token bucket for each key (core/ratelimit.py)."""

    rate: float  # tokens a second
    burst: int  # tokens that a full bucket holds, at least 1
    key: str = "client_ip"  # client_ip | listener | header:name (lower-case)


@dataclass(frozen=True)
class QueuePolicy:
    """Requests that wait while every backend is at its limit (core/queueing.py)."""

    size: int = 1000  # 0: nobody waits
    timeout: float = 5.0


@dataclass(frozen=True)
class StickyPolicy:
    """Clients that come back to the backend that they had (core/affinity.py)."""

    type: str = "cookie"  # cookie | ip
    cookie: str = "lbsvc"
    key: str = field(default="", repr=False)  # a secret; without it cookies are opaque, not secret
    ttl: float = 3600.0
    secure: str = "auto"  # auto (on TLS listeners) | true | false
    same_site: str = "Lax"  # Lax | Strict | None
