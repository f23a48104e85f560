"""Whatever is read, there is a configuration or a list of mistakes: never another exception, never a leak."""

from __future__ import annotations

import tempfile
from urllib.parse import urlsplit

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config import document
from lbsvc.config.loader import Loaded, from_options, load_file, load_text
from lbsvc.config.scalars import resolve
from lbsvc.config.schema import RouteSettings
from lbsvc.config.values import parse_duration, parse_share, parse_size
from lbsvc.core.affinity import CookieTable
from lbsvc.core.networks import Networks
from lbsvc.core.paths import normal_path
from lbsvc.core.pickers import PICKERS
from lbsvc.core.ratelimit import RateLimiter
from lbsvc.errors import ConfigErrors, ProtocolViolation
from lbsvc.http.cookies import StickyCookie
from lbsvc.http.edits import Edits
from lbsvc.http.limiting import RequestLimit
from lbsvc.http.messages import RequestHead, Section
from lbsvc.http.placing import key_of
from lbsvc.http.responses import redirect
from lbsvc.routing import pools_of

RIGHT = """\
listeners:
  web:
    bind: [":8080", "[::1]:443"]
    connections_per_client: 100
    trusted_proxies: [10.0.0.0/8, "::1", unix]
    forwarded: both
    rate_limit: {rate: 100/s, burst: 200, key: "header:X-Api-Key"}
    timeouts: &t {idle: 10m, write: 5}
    limits: {header_size: 32KiB, body_size: null}
    routes:
      - match: {host: "*.example.com", path: /v1/*, methods: [GET], headers: {X-Canary: "1"}, client: 10.0.0.0/8}
        pool: web
        strip_prefix: /v1
        rewrite: {path: ["^/u/([0-9]+)$", "/users/\\\\1"]}
        request_headers: {set: {X-From: lb, Host: a.b}, add: {X-A: b}, remove: [X-Debug]}
        response_headers: {set: {Strict-Transport-Security: max-age=1}, remove: Server}
        timeout: 30s
        body_size: 1MiB
        fault: {delay: 200ms, abort: 503, percent: 5%}
      - {match: {path: /internal/*}, deny: 403, rate_limit: {rate: 6/m, key: listener}}
      - {split: {web: 95}, mirror: {pool: web, percent: 10%}}
      - respond: {status: 200, body: "pong\\n", headers: {Content-Type: text/plain}}
      - redirect: {to: "https://{host}/*", status: 308}
    pool: ${POOL:-web}
  db: {bind: 127.0.0.1:5432, protocol: tcp, timeouts: {<<: *t}, rate_limit: 100/s, pool: db}
pools:
  web:
    algorithm: lc
    backends:
      - {address: 10.0.0.1:8001, name: a, weight: "${W}", backup: false}
      - http://10.0.0.2:8002
    health_check: {path: /health, expect_status: [200-299, 304], interval: 5s}
    retry: {attempts: 2, when: [reset, 5xx], per_try_timeout: 1s, backoff: {initial: 0s, max: 1s}, budget: 20%}
    hash_key: header:X-User
    sticky: {type: cookie, cookie: __Host-s, key: "${TOKEN:-}", ttl: 1h, secure: auto, same_site: None}
    passive_health: {failures: 5, window: 10s, eject: 30s, max_ejected: 50%}
    circuit_breaker: {failure_threshold: 5, reset_timeout: 30s, half_open_requests: 3}
    queue: {size: 10, timeout: 5s}
    flapping: {changes: 5, window: 60s, hold: 60s}
    slow_start: 30s
    panic_threshold: 10%
    connections: {keep_alive: 8}
  db:
    backends: [{address: "10.0.0.3:5432", max_connections: 100}]
    sticky: ip
admin: {bind: 127.0.0.1:9901, token: "${TOKEN:-}"}
access_log: {path: "-", sample: 100%}
shutdown: {delay: 0s}
workers: 1
"""
ENV = {"W": "3", "TOKEN": "hunter2", "POOL": ""}

#: Pieces that mean something to YAML, to us, or to neither.
PIECES = st.sampled_from(
    [
        *"{}[]:,&*!|>'\"%@`#-?<~\n\t\r\\ \0",
        *("- ", ": ", "${", "${W}", "$${", "<<: *t", "&t ", "*t", "!!int ", "!!x ", "---\n", "...\n", "%YAML 1.1\n"),
        *(
            "null",
            "true",
            ".inf",
            ".nan",
            "1e400",
            "9" * 5000,
            "-1",
            "010",
            "off",
            "[" * 60,
            "\ufeff",
            "\u2028",
            "\ud800",
        ),
        *('"\\uD800"', "x-", "tcp", "listeners:", "pools:", "\x85", "é", "unix:", "[::1]", "%2f", "/*"),
        *("header:", "cookie:", "0/s", "100/m", "1.5/h", "__Host-", "None", "cookie", "ip", "0%"),
        *("{host}", "{", "\\\\1", "(", "[[", "/8", "*", "$1", "\\\\g<"),
    ]
)
KEYS = [
    "bind", "pool", "protocol", "routes", "match", "host", "path", "methods", "headers", "respond", "redirect",
    "to", "status", "body", "timeouts", "idle", "limits", "backends", "address", "name", "weight", "backup",
    "algorithm", "health_check", "type", "expect_status", "retry", "when", "backoff", "initial", "queue", "size",
    "connections", "keep_alive", "token", "dashboard", "x-note", "tls", "sticky", "listeners", "pools", "admin",
    "client", "trusted_proxies", "strip_prefix", "rewrite", "request_headers", "response_headers", "set", "add", "remove",
    "rate_limit", "rate", "burst", "key", "passive_health", "failures", "max_ejected", "circuit_breaker", "reset_timeout",
    "cookie", "ttl", "secure", "same_site", "flapping", "changes", "hold", "slow_start", "panic_threshold", "hash_key",
    "timeout", "fault", "delay", "abort", "percent", "deny", "split", "mirror", "per_try_timeout", "connections_per_client",
]  # fmt: skip
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["h:1", "web", "off"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
)
QUICK = settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def text_of(alphabet: str, length: int) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet, max_size=length)


#: Paths as a request line can carry them.
PATHS = text_of("/ab.1%2fF;\\\\@", 12).map(lambda text: "/" + text)
#: Names of headers of which some are the balancer's.
NAMES = ["Host", "host", "Connection", "Content-Length", "transfer-encoding", "X-Request-Id", "Date", "TE", "a", "X_A"]
LINES = text_of("a b:\t\r\n\0é.", 6)
TARGET_PARTS = [
    *(
        "https://",
        "http:",
        "{scheme}://",
        "//",
        "/",
        "\\\\",
        "good.example",
        "{host}",
        "{path}",
        "{uri}",
        "{query}",
        "*",
        "?",
    ),
    *("#", ":80", "@", "x"),
]


def outcome(text: str | bytes, env: dict[str, str] | None) -> Loaded | ConfigErrors:
    """What comes of a text; every mistake is one printable line that tells no secret."""
    try:
        loaded = load_text(text, "f", env)
        for listener in loaded.settings.listeners.values():
            Networks(listener.trusted_proxies)
            for limit in [listener.rate_limit, *(route.rate_limit for route in listener.routes)]:
                if limit is not None:
                    RequestLimit(limit)
                    RateLimiter(limit)
            for name in [listener.pool, *(name for route in listener.routes for name in pools_of(route))]:
                assert name is None or loaded.settings.pools[name].backends
            for route in listener.routes:
                actions = (route.pool, route.respond, route.redirect, route.deny, route.split or None)
                assert sum(action is not None for action in actions) == 1
                Edits(route)
                Networks(route.match.client)
        for pool in loaded.settings.pools.values():
            assert pool.algorithm in PICKERS
            key_of(pool.hash_key)
            if pool.sticky is not None:
                CookieTable(pool.sticky, pool.name)
                StickyCookie(pool.sticky).line(b"", False, 0)
        return loaded
    except ConfigErrors as error:
        assert error.mistakes
        for mistake in error.mistakes:
            line = str(mistake)
            assert "\n" not in line and "\r" not in line, line
            line.encode("utf-8")
            assert mistake.line > 0 and mistake.column > 0, line
            assert mistake.message
        return error


class AnythingTests(SynchronousTestCase):
    def test_what_is_mutated_is_right(self) -> None:
        """The configuration that the others change is one."""
        found = outcome(RIGHT, ENV)
        assert isinstance(found, Loaded), found
        self.assertEqual(found.settings.pools["web"].backends[0].weight, 3)

    @QUICK
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text gives a configuration or mistakes."""
        outcome(text, {})

    @QUICK
    @given(st.lists(PIECES, max_size=30).map("".join))
    def test_pieces_of_yaml(self, text: str) -> None:
        """So does text made of what YAML and we know, by both parsers."""
        with_libyaml = outcome(text, ENV)
        usual, document.PARSER = document.PARSER, yaml.SafeLoader
        try:
            pure = outcome(text, ENV)
        finally:
            document.PARSER = usual
        self.assertEqual(type(with_libyaml), type(pure))

    @QUICK
    @given(st.data())
    def test_mutated_configurations(self, draw: st.DataObject) -> None:
        """So does a right configuration in which something was replaced, inserted or left out."""
        text = RIGHT
        for _ in range(draw.draw(st.integers(1, 4))):
            start = draw.draw(st.integers(0, len(text)))
            end = min(len(text), start + draw.draw(st.integers(0, 8)))
            text = text[:start] + draw.draw(st.one_of(PIECES, st.text(max_size=3))) + text[end:]
        found = outcome(text, ENV)
        if isinstance(found, ConfigErrors):
            self.assertNotIn("hunter2", str(found))

    @QUICK
    @given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, source: bytes, inside: bool) -> None:
        """So do any bytes, alone or in the middle of a configuration."""
        whole = RIGHT.encode()
        outcome(whole[:300] + source + whole[300:] if inside else source, ENV)

    @QUICK
    @given(st.text(max_size=40), st.text(max_size=20))
    def test_any_variables(self, held: str, port: str) -> None:
        """So does whatever a variable holds, and no message shows it."""
        secret = f"hunter2{held}"
        text = (
            RIGHT.replace("10.0.0.1:8001", '"${A}"')
            .replace("lc", "${A}")
            .replace(":8080", "${P}")
            .replace("/health", "${A}")
        )
        found = outcome(text, ENV | {"A": secret, "P": port})
        assert isinstance(found, ConfigErrors)
        self.assertNotIn("hunter2", str(found))

    @QUICK
    @given(st.text(max_size=40), st.text(max_size=40), st.none() | st.text(max_size=20))
    def test_any_options(self, listen: str, backends: str, algorithm: str | None) -> None:
        """Any options give a configuration or mistakes that name them."""
        try:
            from_options(listen, backends, algorithm, {})
        except ConfigErrors as error:
            self.assertLessEqual({m.file for m in error.mistakes}, {"--listen", "--backends", "--algorithm"})

    @QUICK
    @given(TREES)
    def test_any_structure(self, tree: object) -> None:
        """Any well-formed YAML gives a configuration or mistakes, also where keys stand in odd places."""
        outcome(yaml.safe_dump({"listeners": {"web": tree}, "pools": {"web": tree}, "admin": tree}), {})
        outcome(yaml.safe_dump(tree), {})

    @QUICK
    @given(st.text(alphabet="/.ab\0 é", max_size=20))
    def test_any_file_name(self, name: str) -> None:
        """Any name of a file that is not there is one mistake."""
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(ConfigErrors) as caught:
            load_file(f"{folder}/none/{name}", {})
        self.assertEqual(len(caught.exception.mistakes), 1)


class RouteTests(SynchronousTestCase):
    """What the configuration takes, the road can do: nothing of a route fails, or does harm, once requests come."""

    def route(self, **keys: object) -> RouteSettings | None:
        """The route with these keys, or None where it is refused."""
        tree = {"listeners": {"web": {"bind": 80, "routes": [keys]}}, "pools": {"p": {"backends": ["h:1"]}}}
        found = outcome(yaml.safe_dump(tree), None)
        return found.settings.listeners["web"].routes[0] if isinstance(found, Loaded) else None

    @QUICK
    @given(text_of("()[]{}?*+|^$.,:<>=!-/\\\\aPgn01 é", 12), text_of("/\\\\g<>an0129%?#$.é\n", 10), PATHS)
    @example("(a)?", "/\\1", "/b")
    @example("^/(.*)$", "\\1", "/%2F/evil")
    def test_rewrites(self, pattern: str, replacement: str, path: str) -> None:
        """A rewrite that is taken makes a path out of any path, and keeps the query."""
        route = self.route(pool="p", rewrite={"path": [pattern, replacement]})
        target = path.encode("ascii") + b"?a/b?"
        try:
            normal_path(path.encode("ascii"))
        except ProtocolViolation:
            return  # such a request has been refused before it is routed
        if route is not None:
            made = Edits(route).target(target)
            self.assertRegex(made, rb"\A/[\x21-\x7e]*\?a/b\?\Z")
            self.assertTrue(made == target or not made.startswith((b"//", b"/\\")), made)
            self.assertNotIn(b"#", made)

    @QUICK
    @given(text_of("/ab.%2f1\\\\;", 10), text_of("/ab.%2f1*", 10), PATHS)
    @example("/a", "/a/*", "/%61/b")
    def test_prefixes(self, prefix: str, pattern: str, path: str) -> None:
        """A prefix that is taken can be stripped, from some path at least that the match lets through."""
        route = self.route(pool="p", strip_prefix=prefix, match={"path": pattern})
        if route is not None:
            assert route.match.path is not None and route.strip_prefix is not None
            stem = route.match.path.removesuffix("*").rstrip("/")
            deepest = max(stem, route.strip_prefix, key=len).encode()
            self.assertNotEqual(Edits(route).target(deepest), deepest)
            try:
                self.assertTrue(normal_path(Edits(route).target(path.encode("ascii"))))
            except ProtocolViolation:
                self.assertRaises(ProtocolViolation, normal_path, path.encode("ascii"))

    @QUICK
    @given(
        st.sampled_from(["request_headers", "response_headers"]),
        st.dictionaries(st.text(alphabet="aB-_: é\r\n*", max_size=6) | st.sampled_from(NAMES), LINES, max_size=3),
        st.dictionaries(st.text(alphabet="aB-_", max_size=6) | st.sampled_from(NAMES), LINES, max_size=3),
        st.lists(st.text(alphabet="aB-_: é", max_size=6) | st.sampled_from(NAMES), max_size=3),
    )
    def test_headers(self, key: str, put: dict[str, str], add: dict[str, str], remove: list[str]) -> None:
        """Edits that are taken leave lines that are lines, and one Host, and let no framing through."""
        route = self.route(pool="p", **{key: {"set": put, "add": add, "remove": remove}})
        if route is None:
            return
        edits = Edits(route)
        editor = edits.request if key == "request_headers" else edits.response
        if editor is not None:
            block = b"Host: h\r\nContent-Length: 5\r\nX-Request-Id: i\r\na: b\r\n"
            made = editor.apply(block)
            self.assertRegex(made, rb"\A(?:[^\r\n:\x00]+:[^\r\n\x00]*\r\n)*\Z")
            names = [line.partition(b":")[0].lower() for line in made.split(b"\r\n")]
            kept = [name for name in names if name in (b"content-length", b"transfer-encoding", b"connection")]
            self.assertEqual((kept, names.count(b"x-request-id")), ([b"content-length"], 1))
            if key == "request_headers":
                self.assertEqual(names.count(b"host"), 1)

    @QUICK
    @given(
        st.lists(st.sampled_from([*TARGET_PARTS]), max_size=6).map("".join) | text_of("/{}hx:?#*\\\\", 8),
        PATHS,
        text_of("/\\\\@.?&ab", 10),
    )
    @example("https://h{path}", "//evil", "")
    @example("/{query}", "/", "/evil")
    def test_redirects(self, to: str, path: str, query: str) -> None:
        """A target that is taken sends nobody to a host that stands in the path or the query."""
        route = self.route(redirect=to)
        if route is None or route.redirect is None:
            return
        section = Section()
        targets = (b"/", f"{path}?{query}".encode("ascii"))
        plain, hostile = (
            redirect(route.redirect, "/", RequestHead(b"GET", target, 1, b"good.example", section), b"http")[0]
            for target in targets
        )
        one, other = (urlsplit(head.section.fields[0][1].decode("ascii")) for head in (plain, hostile))
        self.assertEqual(one[:2], other[:2], (to, path, query))


class ValueTests(SynchronousTestCase):
    @QUICK
    @given(st.text())
    def test_scalars_never_fail(self, text: str) -> None:
        """Any text means something by the core rules, and is no duration, size or share, or a finite one."""
        self.assertIsInstance(resolve(text), (str, int, float, bool, type(None)))
        for parse in (parse_duration, parse_size, parse_share):
            found = parse(text)
            self.assertTrue(found is None or 0 <= found < 1e60)

    @QUICK
    @given(st.integers())
    def test_integers_are_read_back(self, number: int) -> None:
        """A decimal integer is itself."""
        self.assertEqual(resolve(str(number)), number)

    @QUICK
    @given(st.integers(0, 50), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
    def test_durations_add_up(self, hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
        """A duration is the sum of its parts."""
        found = parse_duration(f"{hours}h{minutes}m{seconds}s{milliseconds}ms")
        assert found is not None
        self.assertAlmostEqual(found, hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)
