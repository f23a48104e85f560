"""Old configurations for tests, and what comes of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.loader import load_text
from lbsvc.config.schema import Settings
from lbsvc.ctl.convert import convert_text, written
from lbsvc.errors import ConfigErrors

AKASH = {
    "host": "0.0.0.0",
    "listen": "1902",
    "algorithm": "w_round_robin",
    "max_connections": 500,
    "timeout_seconds": 4,
    "health_check_freq": 9,
    "Backends": [{"address": "127.0.0.1:8081", "weight": 1}, {"address": "127.0.0.1:8082", "weight": 2}],
}
VIETDDUDE = """\
listen:
  port: 8085
algorithm: "least-connections"
backends:
  - {id: one, url: "http://localhost:8081", weight: 1}
  - {id: two, url: "http://localhost:8082", weight: 2}
health_check: {interval: "20s", timeout: "4s", path: "/ok", failure_threshold: 4}
circuit_breaker: {failure_threshold: 6, reset_timeout: "31s", half_open_limit: 2}
sticky_session: {enabled: true, type: "cookie", cookie_name: "session_id", timeout: "1h"}
retry: {max_retries: 3, initial_interval: "100ms", max_interval: "1s", multiplier: 2, randomization: 0.1}
metrics: {prometheus: {enabled: true, path: "/metrics"}}
"""
ADAPTIVE = """\
server: {port: 8080, admin_port: 8081}
strategy: round-robin
backends:
  - {url: "http://one:80", weight: 3}
  - {url: "http://two:80"}
"""
L4LB = """\
loadbalancer: {listen_address: ":8080", algorithm: "least_connections"}
backends:
  - {address: localhost, port: 8081}
  - {address: "::1", port: 8082}
healthcheck: {interval: 20s, timeout: 4s}
"""


def converted(text: str, kind: str | None = None) -> tuple[Settings, list[str]]:
    """The settings that come of it, as the service would load them, and what was said."""
    kind, new, lines = convert_text(text, "old", kind)
    return load_text(written(kind, new, "old"), "new.yaml", {}).settings, lines


def refused(case: SynchronousTestCase, text: str, kind: str | None = None) -> list[str]:
    error = case.assertRaises(ConfigErrors, convert_text, text, "old", kind)
    return [str(mistake) for mistake in error.mistakes]
