"""Every key of the reference: each acts, or is refused as "not supported yet"; none is unknown, none is ignored."""

from __future__ import annotations

import re

from tests.config.reading import CertificateCase

#: Key -> a value that asks for something, and whether that acts. "N" stands for a name that people choose, [] for
#: an item of a list; CERT, KEY, CA and BOTH for files. It is the structure of lb-reference.yaml, written down a second
#: time on purpose.
ACTS = True
LATER = False
KEYS: dict[str, tuple[str, bool]] = {
    "listeners.N.bind": ("0.0.0.0:8443", ACTS),
    "listeners.N.protocol": ("http", ACTS),
    "listeners.N.backlog": ("4095", ACTS),
    "listeners.N.max_connections": ("9999", ACTS),
    "listeners.N.connections_per_client": ("5", ACTS),
    "listeners.N.trusted_proxies": ("[10.0.0.0/8]", ACTS),
    "listeners.N.forwarded": ("both", ACTS),
    "listeners.N.tls.certificates": ("[{cert: CERT, key: KEY}]", ACTS),
    "listeners.N.timeouts.handshake": ("5s", ACTS),
    "listeners.N.timeouts.request_header": ("5s", ACTS),
    "listeners.N.timeouts.request_body": ("5s", ACTS),
    "listeners.N.timeouts.keep_alive": ("5s", ACTS),
    "listeners.N.timeouts.write": ("5s", ACTS),
    "listeners.N.timeouts.idle": ("5m", ACTS),
    "listeners.N.timeouts.half_close": ("5s", ACTS),
    "listeners.N.limits.header_size": ("16KiB", ACTS),
    "listeners.N.limits.header_count": ("50", ACTS),
    "listeners.N.limits.body_size": ("1MiB", ACTS),
    "listeners.N.limits.underscore_headers": ("keep", ACTS),
    "listeners.N.rate_limit.rate": ("100/s", ACTS),
    "listeners.N.access_log": ("false", ACTS),
    "listeners.N.expose_backend": ("true", ACTS),
    "listeners.N.pool": ("p", ACTS),
    "listeners.N.routes.[].match.host": ("'*.example.com'", ACTS),
    "listeners.N.routes.[].match.path": ("/v1/*", ACTS),
    "listeners.N.routes.[].match.methods": ("[GET]", ACTS),
    "listeners.N.routes.[].match.headers": ("{X-Canary: '1'}", ACTS),
    "listeners.N.routes.[].match.client": ("[10.0.0.0/8]", ACTS),
    "listeners.N.routes.[].name": ("api", ACTS),
    "listeners.N.routes.[].pool": ("p", ACTS),
    "listeners.N.routes.[].strip_prefix": ("/v1", ACTS),
    "listeners.N.routes.[].rewrite.path": ("[a, /b]", ACTS),
    "listeners.N.routes.[].request_headers.set": ("{A: b}", ACTS),
    "listeners.N.routes.[].request_headers.add": ("{A: b}", ACTS),
    "listeners.N.routes.[].request_headers.remove": ("[A]", ACTS),
    "listeners.N.routes.[].response_headers.set": ("{A: b}", ACTS),
    "listeners.N.routes.[].response_headers.add": ("{A: b}", ACTS),
    "listeners.N.routes.[].response_headers.remove": ("[A]", ACTS),
    "listeners.N.routes.[].timeout": ("30s", ACTS),
    "listeners.N.routes.[].body_size": ("1MiB", ACTS),
    "listeners.N.routes.[].rate_limit.rate": ("10/s", ACTS),
    "listeners.N.routes.[].fault.delay": ("200ms", ACTS),
    "listeners.N.routes.[].fault.abort": ("503", ACTS),
    "listeners.N.routes.[].redirect.to": ("/new", ACTS),
    "listeners.N.routes.[].respond.status": ("201", ACTS),
    "listeners.N.routes.[].respond.body": ("pong", ACTS),
    "listeners.N.routes.[].respond.headers": ("{A: b}", ACTS),
    "listeners.N.routes.[].deny": ("403", ACTS),
    "listeners.N.routes.[].split": ("{p: 95}", ACTS),
    "listeners.N.routes.[].mirror.pool": ("p", ACTS),
    "pools.N.algorithm": ("least_connections", ACTS),
    "pools.N.hash_key": ("path", ACTS),
    "pools.N.backends.[].address": ("h:1", ACTS),
    "pools.N.backends.[].name": ("a", ACTS),
    "pools.N.backends.[].weight": ("2", ACTS),
    "pools.N.backends.[].backup": ("true", ACTS),
    "pools.N.backends.[].max_connections": ("5", ACTS),
    "pools.N.health_check.type": ("http", ACTS),
    "pools.N.health_check.path": ("/health", ACTS),
    "pools.N.health_check.port": ("81", ACTS),
    "pools.N.health_check.interval": ("1s", ACTS),
    "pools.N.health_check.timeout": ("1s", ACTS),
    "pools.N.health_check.rise": ("1", ACTS),
    "pools.N.health_check.fall": ("1", ACTS),
    "pools.N.passive_health.failures": ("5", ACTS),
    "pools.N.passive_health.window": ("10s", ACTS),
    "pools.N.passive_health.eject": ("30s", ACTS),
    "pools.N.passive_health.max_ejected": ("50%", ACTS),
    "pools.N.circuit_breaker.failure_threshold": ("5", ACTS),
    "pools.N.circuit_breaker.reset_timeout": ("30s", ACTS),
    "pools.N.circuit_breaker.half_open_requests": ("3", ACTS),
    "pools.N.retry.attempts": ("3", ACTS),
    "pools.N.retry.when": ("[reset, timeout, 502, 5xx]", ACTS),
    "pools.N.retry.methods": ("[GET]", ACTS),
    "pools.N.retry.backoff.initial": ("1ms", ACTS),
    "pools.N.retry.backoff.max": ("2s", ACTS),
    "pools.N.retry.budget": ("10%", ACTS),
    "pools.N.retry.per_try_timeout": ("1s", ACTS),
    "pools.N.retry.buffer": ("1KiB", ACTS),
    "pools.N.sticky.type": ("cookie", ACTS),
    "pools.N.sticky.cookie": ("lbsvc", ACTS),
    "pools.N.sticky.key": ("x", ACTS),
    "pools.N.sticky.ttl": ("1h", ACTS),
    "pools.N.sticky.secure": ("true", ACTS),
    "pools.N.sticky.same_site": ("Strict", ACTS),
    "pools.N.timeouts.connect": ("1s", ACTS),
    "pools.N.timeouts.response": ("1s", ACTS),
    "pools.N.timeouts.idle": ("1s", ACTS),
    "pools.N.resolve": ("1s", ACTS),
    "pools.N.connections.keep_alive": ("1", ACTS),
    "pools.N.connections.idle_timeout": ("1s", ACTS),
    "pools.N.connections.max_requests": ("1", ACTS),
    "pools.N.connections.max_lifetime": ("1s", ACTS),
    "pools.N.queue.size": ("1000", ACTS),
    "pools.N.queue.timeout": ("5s", ACTS),
    "pools.N.flapping.changes": ("5", ACTS),
    "pools.N.flapping.window": ("60s", ACTS),
    "pools.N.flapping.hold": ("60s", ACTS),
    "pools.N.slow_start": ("30s", ACTS),
    "pools.N.protocol": ("h2", ACTS),
    "pools.N.panic_threshold": ("5%", ACTS),
    "pools.N.proxy_protocol": ("v2", ACTS),
    "pools.N.tls.verify": ("false", ACTS),
    "pools.N.tls.ca": ("CA", ACTS),
    "pools.N.tls.server_name": ("a", ACTS),
    "pools.N.tls.cert": ("BOTH", ACTS),
    "admin.bind": ("127.0.0.1:9902", ACTS),
    "admin.hosts": ("[a]", ACTS),
    "admin.token": ("x", ACTS),
    "admin.read_only": ("true", ACTS),
    "admin.dashboard": ("false", ACTS),
    "access_log.path": ("a.log", ACTS),
    "access_log.format": ("combined", ACTS),
    "access_log.sample": ("50%", ACTS),
    "log.path": ("a.log", ACTS),
    "log.level": ("warn", ACTS),
    "log.format": ("text", ACTS),
    "shutdown.delay": ("1s", ACTS),
    "shutdown.drain_timeout": ("1s", ACTS),
    "shutdown.removed": ("1s", ACTS),
    "overload.lag": ("2s", ACTS),  # ours: the reference does not have it
    "watch": ("true", ACTS),
    "state_file": ("a", ACTS),
    "workers": ("2", ACTS),
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

    def test_every_key_acts_or_is_refused(self) -> None:
        """What acts is taken; what does not is refused at itself, or at the section that does not act."""
        for path, (written, acts) in KEYS.items():
            found = self.wrong(whole(path, written))
            if acts:
                self.assertEqual(found, [], path)
            else:
                self.assertEqual(len(found), 1, (path, found))
                self.assertTrue(found[0].endswith("is not supported yet"), (path, found))

    def test_keys_that_speak_beside_others(self) -> None:
        """The same for keys that make no sense alone."""
        for key, (written, section) in BESIDE.items():
            text = whole(section + ".MARK", "1").replace("MARK: 1", written)
            if section.endswith("[]"):
                text = text.replace(", pool: p}]", "}]")
            self.assertEqual(self.wrong(text), [], key)

    def test_a_key_beside_each_is_unknown(self) -> None:
        """A key that the reference does not have is unknown in every section that acts."""
        sections = {path.rpartition(".")[0] for path, (_, acts) in KEYS.items() if acts and "." in path}
        for section in sections - {"listeners.N.routes.[].redirect"}:
            found = self.wrong(whole(f"{section}.kein", "1"))
            self.assertTrue(any("kein: unknown key" in mistake for mistake in found), (section, found))
