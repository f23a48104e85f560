"""Every key of the reference is taken; none is unknown."""

from __future__ import annotations

import re

from tests.config.reading import CertificateCase

#: Key -> a value that asks for something. "N" stands for a name that people choose, [] for
#: an item of a list; CERT, KEY, CA and BOTH for files. It is the structure of lb-reference.yaml, written down a second
#: time on purpose.
KEYS: dict[str, str] = {
    "listeners.N.bind": "0.0.0.0:8443",
    "listeners.N.protocol": "http",
    "listeners.N.backlog": "4095",
    "listeners.N.max_connections": "9999",
    "listeners.N.connections_per_client": "5",
    "listeners.N.trusted_proxies": "[10.0.0.0/8]",
    "listeners.N.forwarded": "both",
    "listeners.N.tls.certificates": "[{cert: CERT, key: KEY}]",
    "listeners.N.timeouts.handshake": "5s",
    "listeners.N.timeouts.request_header": "5s",
    "listeners.N.timeouts.request_body": "5s",
    "listeners.N.timeouts.keep_alive": "5s",
    "listeners.N.timeouts.write": "5s",
    "listeners.N.timeouts.idle": "5m",
    "listeners.N.timeouts.half_close": "5s",
    "listeners.N.limits.header_size": "16KiB",
    "listeners.N.limits.header_count": "50",
    "listeners.N.limits.body_size": "1MiB",
    "listeners.N.limits.underscore_headers": "keep",
    "listeners.N.rate_limit.rate": "100/s",
    "listeners.N.access_log": "false",
    "listeners.N.expose_backend": "true",
    "listeners.N.pool": "p",
    "listeners.N.routes.[].match.host": "'*.example.com'",
    "listeners.N.routes.[].match.path": "/v1/*",
    "listeners.N.routes.[].match.methods": "[GET]",
    "listeners.N.routes.[].match.headers": "{X-Canary: '1'}",
    "listeners.N.routes.[].match.client": "[10.0.0.0/8]",
    "listeners.N.routes.[].name": "api",
    "listeners.N.routes.[].pool": "p",
    "listeners.N.routes.[].strip_prefix": "/v1",
    "listeners.N.routes.[].rewrite.path": "[a, /b]",
    "listeners.N.routes.[].request_headers.set": "{A: b}",
    "listeners.N.routes.[].request_headers.add": "{A: b}",
    "listeners.N.routes.[].request_headers.remove": "[A]",
    "listeners.N.routes.[].response_headers.set": "{A: b}",
    "listeners.N.routes.[].response_headers.add": "{A: b}",
    "listeners.N.routes.[].response_headers.remove": "[A]",
    "listeners.N.routes.[].timeout": "30s",
    "listeners.N.routes.[].body_size": "1MiB",
    "listeners.N.routes.[].rate_limit.rate": "10/s",
    "listeners.N.routes.[].fault.delay": "200ms",
    "listeners.N.routes.[].fault.abort": "503",
    "listeners.N.routes.[].redirect.to": "/new",
    "listeners.N.routes.[].respond.status": "201",
    "listeners.N.routes.[].respond.body": "pong",
    "listeners.N.routes.[].respond.headers": "{A: b}",
    "listeners.N.routes.[].deny": "403",
    "listeners.N.routes.[].split": "{p: 95}",
    "listeners.N.routes.[].mirror.pool": "p",
    "pools.N.algorithm": "least_connections",
    "pools.N.hash_key": "path",
    "pools.N.backends.[].address": "h:1",
    "pools.N.backends.[].name": "a",
    "pools.N.backends.[].weight": "2",
    "pools.N.backends.[].backup": "true",
    "pools.N.backends.[].max_connections": "5",
    "pools.N.health_check.type": "http",
    "pools.N.health_check.path": "/health",
    "pools.N.health_check.port": "81",
    "pools.N.health_check.interval": "1s",
    "pools.N.health_check.timeout": "1s",
    "pools.N.health_check.rise": "1",
    "pools.N.health_check.fall": "1",
    "pools.N.passive_health.failures": "5",
    "pools.N.passive_health.window": "10s",
    "pools.N.passive_health.eject": "30s",
    "pools.N.passive_health.max_ejected": "50%",
    "pools.N.circuit_breaker.failure_threshold": "5",
    "pools.N.circuit_breaker.reset_timeout": "30s",
    "pools.N.circuit_breaker.half_open_requests": "3",
    "pools.N.retry.attempts": "3",
    "pools.N.retry.when": "[reset, timeout, 502, 5xx]",
    "pools.N.retry.methods": "[GET]",
    "pools.N.retry.backoff.initial": "1ms",
    "pools.N.retry.backoff.max": "2s",
    "pools.N.retry.budget": "10%",
    "pools.N.retry.per_try_timeout": "1s",
    "pools.N.retry.buffer": "1KiB",
    "pools.N.sticky.type": "cookie",
    "pools.N.sticky.cookie": "lbsvc",
    "pools.N.sticky.key": "x",
    "pools.N.sticky.ttl": "1h",
    "pools.N.sticky.secure": "true",
    "pools.N.sticky.same_site": "Strict",
    "pools.N.timeouts.connect": "1s",
    "pools.N.timeouts.response": "1s",
    "pools.N.timeouts.idle": "1s",
    "pools.N.resolve": "1s",
    "pools.N.connections.keep_alive": "1",
    "pools.N.connections.idle_timeout": "1s",
    "pools.N.connections.max_requests": "1",
    "pools.N.connections.max_lifetime": "1s",
    "pools.N.queue.size": "1000",
    "pools.N.queue.timeout": "5s",
    "pools.N.flapping.changes": "5",
    "pools.N.flapping.window": "60s",
    "pools.N.flapping.hold": "60s",
    "pools.N.slow_start": "30s",
    "pools.N.protocol": "h2",
    "pools.N.panic_threshold": "5%",
    "pools.N.proxy_protocol": "v2",
    "pools.N.tls.verify": "false",
    "pools.N.tls.ca": "CA",
    "pools.N.tls.server_name": "a",
    "pools.N.tls.cert": "BOTH",
    "admin.bind": "127.0.0.1:9902",
    "admin.hosts": "[a]",
    "admin.token": "x",
    "admin.read_only": "true",
    "admin.dashboard": "false",
    "access_log.path": "a.log",
    "access_log.format": "combined",
    "access_log.sample": "50%",
    "log.path": "a.log",
    "log.level": "warn",
    "log.format": "text",
    "shutdown.delay": "1s",
    "shutdown.drain_timeout": "1s",
    "shutdown.removed": "1s",
    "overload.lag": "2s",  # ours: the reference does not have it
    "watch": "true",
    "state_file": "a",
    "workers": "2",
}
_CERTIFICATES = "certificates: {cert: CERT, key: KEY}"
#: Keys that only speak beside another one.
BESIDE = {
    "listeners.N.routes.[].match.sni": ("protocol: tcp, routes: [{match: {sni: a.b}, pool: p}]", "listeners.N"),
    "listeners.N.proxy_protocol": ("proxy_protocol: true, trusted_proxies: 10.0.0.0/8", "listeners.N"),
    "listeners.N.tls.min_version": (f"{_CERTIFICATES}, min_version: '1.3'", "listeners.N.tls"),
    "listeners.N.tls.ciphers": (f"{_CERTIFICATES}, ciphers: ECDHE+AESGCM", "listeners.N.tls"),
    "listeners.N.tls.alpn": (f"{_CERTIFICATES}, alpn: [h2]", "listeners.N.tls"),
    "listeners.N.tls.client_ca": (f"{_CERTIFICATES}, client_ca: CA", "listeners.N.tls"),
    "listeners.N.tls.client_auth": (f"{_CERTIFICATES}, client_ca: CA, client_auth: optional", "listeners.N.tls"),
    "listeners.N.tls.reload_interval": (f"{_CERTIFICATES}, reload_interval: 5s", "listeners.N.tls"),
    "pools.N.tls.key": ("cert: CERT, key: KEY", "pools.N.tls"),
    "listeners.N.rate_limit.burst": ("rate: 100/s, burst: 200", "listeners.N.rate_limit"),
    "listeners.N.rate_limit.key": ("rate: 100/s, key: listener", "listeners.N.rate_limit"),
    "listeners.N.routes.[].rate_limit.key": ("rate: 10/s, key: 'header:A'", "listeners.N.routes.[].rate_limit"),
    "listeners.N.routes.[].redirect.status": ("redirect: {to: /x, status: 301}", "listeners.N.routes.[]"),
    "listeners.N.routes.[].fault.percent": ("delay: 1s, percent: 5%", "listeners.N.routes.[].fault"),
    "listeners.N.routes.[].mirror.percent": ("pool: p, percent: 10%", "listeners.N.routes.[].mirror"),
    "pools.N.health_check.method": ("type: http, method: HEAD", "pools.N.health_check"),
    "pools.N.health_check.host": ("type: http, host: a", "pools.N.health_check"),
    "pools.N.health_check.expect_status": ("type: http, expect_status: 200", "pools.N.health_check"),
    "pools.N.health_check.service": ("type: grpc, service: a", "pools.N.health_check"),
    "pools.N.health_check.expect_body": ("type: http, expect_body: a", "pools.N.health_check"),
}

Tree = dict[str, object]


def whole(path: str, written: str) -> str:
    """A configuration in flow style that is right but for what is `written` at a path."""
    tree: Tree = {
        "listeners": {"w": {"bind": "127.0.0.1:8443", "pool": "p"}},
        "pools": {"p": {"backends": [{"address": "h:80"}]}},
    }
    steps = path.replace("listeners.N", "listeners.w").replace("pools.N", "pools.p").split(".")
    node: object = tree
    for step in steps[:-1]:
        if step == "[]":
            assert isinstance(node, list)
            node = node[0]
        else:
            assert isinstance(node, dict)
            following = steps[steps.index(step) + 1]
            node = node.setdefault(step, [{}] if following == "[]" else {})
    assert isinstance(node, dict)
    node[steps[-1]] = written
    route = tree["listeners"]["w"].get("routes")  # type: ignore[index]
    if route and not {"pool", "respond", "redirect", "deny", "split"} & set(route[0]):
        route[0]["pool"] = "p"
    return flow(tree)


def flow(node: object) -> str:
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(flow, node)) + "]"
    return str(node)


class ReferenceTests(CertificateCase):
    def wrong(self, text: str) -> list[str]:
        """The mistakes, with files in the places of their words."""
        cert, key = self.issue("site", "a.example")
        with open(cert, "rb") as one, open(key, "rb") as other:
            both = self.write("both.pem", one.read() + other.read())
        for word, path in {"CERT": cert, "KEY": key, "CA": self.ca, "BOTH": both}.items():
            text = re.sub(rf"\b{word}\b", path, text)
        return self.mistakes(text)

    def test_every_key_acts(self) -> None:
        """Every key of the reference is taken with a value that asks for something."""
        for path, written in KEYS.items():
            self.assertEqual(self.wrong(whole(path, written)), [], path)

    def test_keys_that_speak_beside_others(self) -> None:
        """The same for keys that make no sense alone."""
        for key, (written, section) in BESIDE.items():
            text = whole(section + ".MARK", "1").replace("MARK: 1", written)
            if section.endswith("[]"):
                text = text.replace(", pool: p}]", "}]")
            self.assertEqual(self.wrong(text), [], key)

    def test_a_key_beside_each_is_unknown(self) -> None:
        """A key that the reference does not have is unknown in every section."""
        sections = {path.rpartition(".")[0] for path in KEYS if "." in path}
        for section in sections - {"listeners.N.routes.[].redirect"}:
            found = self.wrong(whole(f"{section}.kein", "1"))
            self.assertTrue(any("kein: unknown key" in mistake for mistake in found), (section, found))
