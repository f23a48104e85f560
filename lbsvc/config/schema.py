"""What a configuration is once it has been read: a tree of frozen values, compared with `==`.

Promises: everything in here is checked; whoever holds a `Settings` needs to doubt nothing. Durations are seconds, sizes
bytes, shares 0 to 1; None means "off" or "no limit" as lb-reference.yaml says for the key. Built by config/loader.py,
read by app.py and the roads; imports core's policies only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lbsvc.core.policies import (
    BreakerPolicy,
    EjectionPolicy,
    FlappingPolicy,
    HealthCheckPolicy,
    KeptConnections,
    QueuePolicy,
    RatePolicy,
    RetryPolicy,
    StickyPolicy,
    UpstreamTimeouts,
)


@dataclass(frozen=True)
class Bind:
    """One address to listen on. host "" means both families on every address (":8080"); "/…" is a unix socket's path, and
    "systemd:NAME" (port 0) are the sockets that systemd has passed under a name."""

    host: str
    port: int

    @property
    def passed_as(self) -> str | None:
        """The name that systemd has passed sockets under; None for what we bind ourselves."""
        return self.host[8:] if self.host.startswith("systemd:") else None

    def __str__(self) -> str:
        if self.passed_as is not None:
            return self.host
        if self.host.startswith("/"):
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ListenerTimeouts:
    """Patience with clients, in seconds; see lb-reference.yaml for each."""

    handshake: float = 10.0
    request_header: float = 10.0
    request_body: float = 30.0
    keep_alive: float = 60.0
    write: float = 60.0
    idle: float = 600.0
    half_close: float = 30.0


@dataclass(frozen=True)
class Limits:
    """Sizes that a request may have."""

    header_size: int = 32 * 1024
    header_count: int = 100
    body_size: int | None = None
    underscore_headers: str = "drop"  # drop | keep | reject


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate with its chain, and its private key: absolute paths of PEM files, which may be the same."""

    cert: str
    key: str


@dataclass(frozen=True)
class ListenerTls:
    """TLS is terminated at a listener."""

    certificates: tuple[CertificateFiles, ...]  # one at least; the first is the default
    min_version: str = "1.2"  # 1.2 | 1.3
    ciphers: str | None = None  # an OpenSSL cipher string, for TLS 1.2; None: OpenSSL's default, less what is weak
    alpn: tuple[str, ...] = ("h2", "http/1.1")  # in order of preference; () for none
    client_ca: str | None = None  # an absolute path: clients are asked for a certificate of this CA
    client_auth: str = "required"  # required | optional
    reload_interval: float | None = 10.0  # None: what has been loaded stays


@dataclass(frozen=True)
class PoolTls:
    """How TLS is spoken to the backends of a pool that want it."""

    verify: bool = True
    ca: str | None = None  # an absolute path; None: the system's store
    server_name: str | None = None  # SNI and the name that is verified; None: the backend's host
    client: CertificateFiles | None = None  # `cert` and `key`: what we show


@dataclass(frozen=True)
class Match:
    """All that is given must match; empty: matches everything. Header names are lower-case."""

    host: str | None = None  # lower-case; exact or "*.example.com"
    path: str | None = None  # exact, or a prefix ending in "*"
    methods: frozenset[str] = frozenset()
    headers: tuple[tuple[str, str], ...] = ()
    client: tuple[str, ...] = ()  # networks in CIDR form; "unix" stands for clients of unix sockets
    sni: tuple[str, ...] = ()  # tcp: lower-case names, exact or "*.example.com"; any of them


@dataclass(frozen=True)
class Respond:
    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Redirect:
    to: str
    status: int = 308


@dataclass(frozen=True)
class HeaderEdits:
    """What a route changes in a header section: first `remove`, then `set` (in place of all of that name), then `add`."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()  # lower-case


@dataclass(frozen=True)
class Fault:
    """Chaos on purpose: `share` of the requests wait `delay` seconds, and then get `abort`, if there is one."""

    delay: float = 0.0
    abort: int | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Mirror:
    """Copies of `share` of the requests go to a pool too, and nobody waits for what it says."""

    pool: str
    share: float = 1.0


@dataclass(frozen=True)
class RouteSettings:
    """One route: exactly one of pool, respond, redirect, deny, split is set."""

    name: str
    match: Match = Match()
    pool: str | None = None
    respond: Respond | None = None
    redirect: Redirect | None = None
    deny: int | None = None  # the status that is answered
    split: tuple[tuple[str, int], ...] = ()  # pools and their weights, of which one is more than 0
    mirror: Mirror | None = None
    strip_prefix: str | None = None  # "/v1": taken off the path as it came, on a segment border
    rewrite: tuple[str, str] | None = None  # a regular expression and what takes its place in the path
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    timeout: float | None = None  # the whole exchange, all tries together
    body_size: int | None = None  # in place of the listener's limit
    rate_limit: RatePolicy | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class ListenerSettings:
    name: str
    binds: tuple[Bind, ...]
    protocol: str = "http"  # http | tcp
    backlog: int = 4096
    max_connections: int = 10_000
    connections_per_client: int | None = None
    trusted_proxies: tuple[str, ...] = ()  # networks in CIDR form; "unix" stands for clients of unix sockets
    forwarded: str = "x-forwarded"  # x-forwarded | rfc7239 | both | off
    timeouts: ListenerTimeouts = ListenerTimeouts()
    limits: Limits = Limits()
    rate_limit: RatePolicy | None = None
    access_log: bool = True
    expose_backend: bool = False
    routes: tuple[RouteSettings, ...] = ()
    pool: str | None = None
    tls: ListenerTls | None = None
    proxy_protocol: bool = False  # connections of trusted proxies begin with a PROXY header


@dataclass(frozen=True)
class MemberSettings:
    """What was set at run time for one address of a backend's host name: the member `name` ("app@10.0.0.1")."""

    name: str
    weight: int | None = None  # None: the entry's
    state: str | None = None


@dataclass(frozen=True)
class BackendSettings:
    """One backend as it is written: `address` verbatim, host and port parsed from it. What no file says (from `source` on)
    is set by config/overlay.py."""

    address: str  # as written in the configuration, e.g. "10.0.0.1:8001" or "http://10.0.0.1:8001"
    host: str  # IP literal (no brackets), host name, or "/…", the path of a unix socket (port 0)
    port: int
    name: str  # default: the address
    weight: int = 1
    backup: bool = False
    max_connections: int | None = None  # requests (http) or connections (tcp) at one time
    is_h2c: bool = False  # h2c://: HTTP/2 without TLS, by prior knowledge
    is_secure: bool = False  # TLS is spoken to it: https://, or one of a tcp pool that has a `tls` section
    source: str = "config"  # config | runtime: an admin call has added it
    state: str = "ready"  # what people set: ready | drain | maint
    members: tuple[MemberSettings, ...] = ()


@dataclass(frozen=True)
class PoolSettings:
    name: str
    backends: tuple[BackendSettings, ...]
    algorithm: str = "round_robin"  # a canonical name of core/algorithms.py, or a plugin's
    hash_key: str = "client_ip"  # client_ip | header:name (lower-case) | cookie:NAME | path | host
    health_check: HealthCheckPolicy | None = HealthCheckPolicy()  # None: off
    passive_health: EjectionPolicy | None = None
    circuit_breaker: BreakerPolicy | None = None
    retry: RetryPolicy = RetryPolicy()
    sticky: StickyPolicy | None = None
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    resolve: float | None = 10.0  # None: once
    connections: KeptConnections = KeptConnections()
    ahead: int = (
        0  # tcp: connections that are kept ready for each backend: `connections.keep_alive`, where it is written
    )
    queue: QueuePolicy = QueuePolicy()
    flapping: FlappingPolicy | None = FlappingPolicy()
    slow_start: float | None = None
    panic_threshold: float = 0.0  # share of healthy backends below which health is ignored
    protocol: str = "http/1.1"  # http/1.1 | auto | h2: towards backends that are spoken to over TLS
    tls: PoolTls | None = None  # None where there is no such section: the defaults, for backends that are `is_secure`
    proxy_protocol: str | None = None  # v1 | v2: the header that begins each connection to a backend


@dataclass(frozen=True)
class AdminSettings:
    bind: Bind = Bind("127.0.0.1", 9901)
    hosts: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    read_only: bool = False
    dashboard: bool = True


@dataclass(frozen=True)
class AccessLogSettings:
    path: str = "-"
    format: str = "json"  # json | combined
    sample: float = 1.0


@dataclass(frozen=True)
class LogSettings:
    path: str = "-"
    level: str = "info"  # debug | info | warn | error
    format: str = "auto"  # json | text | auto


@dataclass(frozen=True)
class ShutdownSettings:
    delay: float = 0.0
    drain_timeout: float = 30.0
    removed: float | None = None  # how long connections of what a reload has removed may go on; None: no limit


@dataclass(frozen=True)
class OverloadSettings:
    """When new requests and connections are refused so that those under way are served."""

    lag: float = 1.0  # seconds that the reactor is late, for a while


@dataclass(frozen=True)
class Settings:
    """The whole configuration."""

    listeners: Mapping[str, ListenerSettings]
    pools: Mapping[str, PoolSettings] = field(default_factory=lambda: MappingProxyType({}))
    admin: AdminSettings | None = AdminSettings()  # None: `admin: off`
    access_log: AccessLogSettings | None = AccessLogSettings()  # None: `access_log: off`
    log: LogSettings = LogSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    overload: OverloadSettings | None = OverloadSettings()  # None: `overload: off`
    watch: bool = False
    state_file: str | None = None  # the path of the file that keeps run-time changes
    workers: int = 1  # processes that carry the traffic; 1: the one that was started
