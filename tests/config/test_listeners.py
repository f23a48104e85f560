"""Listeners and routes: what each key takes, and what is refused."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Limits, ListenerTimeouts, Match, Redirect, Respond
from tests.config.reading import LISTENER, POOL, listener, listener_mistakes, load, mistakes, settings


class ListenerTests(TestCase):
    def test_handshake_is_noted(self) -> None:
        """A handshake's deadline is accepted where there is no handshake to limit, but not silently."""
        text = "listeners:\n  a: {bind: 80, pool: p, timeouts: {handshake: 5s}}\n" + POOL
        note = "etc/lb.yaml: listeners.a.timeouts.handshake: does nothing yet: TLS and PROXY headers are not supported"
        self.assertIn(note, load(text).notes)
        self.assertNotIn(note, load(text.replace("handshake: 5s", "idle: 5s")).notes)

    def test_defaults(self) -> None:
        """A bind and a pool are enough; the rest is as the reference says."""
        found = listener("")
        self.assertEqual((found.protocol, found.backlog, found.max_connections), ("http", 4096, 10_000))
        self.assertEqual((found.forwarded, found.access_log, found.expose_backend), ("x-forwarded", True, False))
        self.assertEqual((found.timeouts, found.limits), (ListenerTimeouts(), Limits()))
        self.assertEqual((found.name, found.pool, found.routes), ("web", "p", ()))

    def test_every_key(self) -> None:
        """All that acts, at other values."""
        found = listener(
            "protocol: http\nbacklog: 1\nmax_connections: 2\nforwarded: off\naccess_log: false\nexpose_backend: true\n"
            "timeouts: {handshake: 1, request_header: 2, request_body: 3, keep_alive: 4, write: 5, idle: 6, half_close: 7}\n"
            "limits: {header_size: 1KiB, header_count: 9, body_size: 0, underscore_headers: reject}\n"
        )
        self.assertEqual((found.backlog, found.max_connections, found.forwarded), (1, 2, "off"))
        self.assertEqual((found.access_log, found.expose_backend), (False, True))
        self.assertEqual(found.timeouts, ListenerTimeouts(1, 2, 3, 4, 5, 6, 7))
        self.assertEqual(found.limits, Limits(1024, 9, 0, "reject"))

    def test_empty_sections_are_defaults(self) -> None:
        """A section with nothing in it is left out."""
        self.assertEqual(listener("timeouts:\nlimits: {}\nroutes:\n").timeouts, ListenerTimeouts())

    def test_required(self) -> None:
        """Without a bind, or without anything to do: the place is the mapping's, or the key's where there is none."""
        self.assertEqual(
            mistakes("listeners:\n  a:\n    backlog: 1\n  b: {}\n  c:\n"),
            [
                "3:5: listeners.a.bind: is required",
                "4:6: listeners.b.bind: is required",
                "5:3: listeners.c.bind: is required",
            ],
        )
        self.assertEqual(
            mistakes(
                "listeners:\n  a:\n    bind: 80\n  b: {bind: 81, pool: null, routes: []}\n  c: {bind: 82, protocol: tcp}\n"
            ),
            [
                "3:5: listeners.a: needs a pool or routes",
                "4:6: listeners.b: needs a pool or routes",
                "5:6: listeners.c: needs a pool",
            ],
        )

    def test_what_could_not_be_read_is_not_missing(self) -> None:
        """A wrong pool or bind is one mistake, not two."""
        self.assertEqual(
            mistakes("listeners:\n  a:\n    bind: x\n    pool: 5\n"),
            [
                '3:5: listeners.a.bind: needs a port, as in 127.0.0.1:8080 or :8080 (got "x")',
                "4:5: listeners.a.pool: must be text: quote it (got 5)",
            ],
        )

    def test_unknown_keys(self) -> None:
        """An unknown key says what was probably meant, and hides no other mistake; x- keys are ignored."""
        self.assertEqual(
            listener_mistakes("bakclog: 0\nx-note: [1]\ntimeouts:\n  idel: 5s\n  zzz: 1\n  idle: x\n  x-note: 1"),
            [
                "5:5: listeners.web.bakclog: unknown key (did you mean backlog?)",
                "8:7: listeners.web.timeouts.idel: unknown key (did you mean idle?)",
                "9:7: listeners.web.timeouts.zzz: unknown key",
                '10:7: listeners.web.timeouts.idle: must be a duration such as 250ms, 5s, 1m30s or 1h (got "x")',
            ],
        )

    def test_sections_that_are_none(self) -> None:
        """A section is a mapping."""
        for written, got in {"5": "5", "[]": "a list", "off": '"off"'}.items():
            self.assertEqual(
                listener_mistakes(f"timeouts: {written}"),
                [f"5:5: listeners.web.timeouts: must be a mapping (got {got})"],
            )

    def test_tcp(self) -> None:
        """On tcp, what only speaks about requests is refused, or noted where it does no harm."""
        lines = "    protocol: tcp\n    routes: [{pool: p}]\n    expose_backend: true\n"
        self.assertEqual(
            mistakes(LISTENER + lines + POOL),
            [
                "6:5: listeners.web.routes: is not supported yet where protocol is tcp",
                "7:5: listeners.web.expose_backend: means nothing where protocol is tcp",
            ],
        )
        lines = (
            "    protocol: tcp\n    limits: {header_count: 5}\n    forwarded: off\n"
            "    timeouts: {keep_alive: 5s, idle: 5s}\n"
        )
        notes = load(LISTENER + lines + POOL).notes
        self.assertIn("etc/lb.yaml: listeners.web.limits: does nothing where protocol is tcp", notes)
        self.assertIn("etc/lb.yaml: listeners.web.timeouts.keep_alive: does nothing where protocol is tcp", notes)
        self.assertEqual(len([note for note in notes if "does nothing" in note]), 2)


class RouteTests(TestCase):
    def assert_wrong(self, route: str, *messages: str) -> None:
        """The mistakes of one route, which begins at 6:9."""
        text = f"listeners:\n  web:\n    bind: 80\n    pool: p\n    routes:\n      - {route}\n{POOL}"
        self.assertEqual([m.replace("listeners.web.routes[0]", "R") for m in mistakes(text)], list(messages))

    def match(self, written: str) -> Match:
        return listener(f"routes: [{{match: {written}, pool: p}}]").routes[0].match

    def test_match(self) -> None:
        """Hosts and header names in lower case, paths in normal form, short forms for one method."""
        self.assertEqual(self.match("{}"), Match())
        self.assertEqual(self.match("null"), Match())
        self.assertEqual(
            self.match("{host: API.Example.com., path: /v1/*, methods: [GET, POST], headers: {X-Canary: '1'}}"),
            Match("api.example.com", "/v1/*", frozenset({"GET", "POST"}), (("x-canary", "1"),)),
        )
        self.assertEqual(
            self.match("{host: '*.Example.com', methods: M-SEARCH}"),
            Match("*.example.com", None, frozenset({"M-SEARCH"})),
        )
        self.assertEqual(self.match("{host: '[::0:1]', path: /*}"), Match("[::1]", "/*"))
        self.assertEqual(self.match("{host: 10.0.0.1, path: /%7eu/%2f/./x}"), Match("10.0.0.1", "/~u/%2F/x"))
        self.assertEqual(self.match("{host: null, path: null, methods: null, client: [], sni: null}"), Match())

    def test_wrong_matches(self) -> None:
        """Each part of a match that can never fit is refused."""
        rule = "must be a host without a port, or *.example.com"
        self.assert_wrong("{match: {host: 'a.b:80'}, pool: p}", f'6:18: R.match.host: {rule} (got "a.b:80")')
        self.assert_wrong("{match: {host: '*'}, pool: p}", f'6:18: R.match.host: {rule} (got "*")')
        self.assert_wrong("{match: {host: 'a.*.b'}, pool: p}", f'6:18: R.match.host: {rule} (got "a.*.b")')
        rule = "must be an exact path, or a prefix that ends in /*"
        self.assert_wrong("{match: {path: /v1*}, pool: p}", f'6:18: R.match.path: {rule} (got "/v1*")')
        self.assert_wrong("{match: {path: /*/x}, pool: p}", f'6:18: R.match.path: {rule} (got "/*/x")')
        self.assert_wrong(
            "{match: {path: v1}, pool: p}", '6:18: R.match.path: must be a path that begins with / (got "v1")'
        )
        self.assert_wrong(
            "{match: {path: /a?b}, pool: p}", '6:18: R.match.path: must be a path without a query (got "/a?b")'
        )
        self.assert_wrong("{match: {path: /a#b}, pool: p}", '6:18: R.match.path: must be a path without # (got "/a#b")')
        self.assert_wrong(
            "{match: {path: /é}, pool: p}", '6:18: R.match.path: must be visible ASCII text without spaces (got "/é")'
        )
        self.assert_wrong(
            "{match: {path: /a/%00}, pool: p}", '6:18: R.match.path: can never match: NUL in the path (got "/a/%00")'
        )
        rule = "must be a method such as GET, in capitals"
        self.assert_wrong(
            "{match: {methods: [get, 'A B']}, pool: p}",
            f'6:28: R.match.methods[0]: {rule} (got "get")',
            f'6:33: R.match.methods[1]: {rule} (got "A B")',
        )
        self.assert_wrong(
            "{match: {headers: {'a b': x, A: 1, B: x, b: x, C: \"x\\r\\n\"}}, pool: p}",
            '6:28: R.match.headers."a b": is no name of a header',
            "6:38: R.match.headers.A: must be text: quote it (got 1)",
            "6:50: R.match.headers.b: is here twice: case does not count in names of headers",
            '6:56: R.match.headers.C: must be visible ASCII text on one line (got "x\\r\\n")',
        )
        self.assert_wrong(
            "{match: {client: [10.0.0.0/8], sni: a}, pool: p}",
            "6:18: R.match.client: is not supported yet",
            "6:40: R.match.sni: is not supported yet",
        )

    def test_names(self) -> None:
        """A route without a name is called after its match."""
        for written, name in {
            "{}": "*", "{host: a.b, path: /v1/*}": "a.b/v1/*", "{methods: [POST, GET], path: /x}": "GET,POST /x",
            "{headers: {X-A: '1'}}": "x-a=1", "{host: a.b}": "a.b",
        }.items():  # fmt: skip
            self.assertEqual(listener(f"routes: [{{match: {written}, pool: p}}]").routes[0].name, name)
        self.assertEqual(listener("routes: [{name: api, pool: p}]").routes[0].name, "api")

    def test_respond(self) -> None:
        """Status, body and headers, all with defaults."""
        routes = listener(
            'routes: [{respond: {}}, {respond: {status: 404, body: "no\\n", headers: {Content-Type: text/plain}}}]'
        ).routes
        self.assertEqual(
            [r.respond for r in routes], [Respond(), Respond(404, "no\n", (("Content-Type", "text/plain"),))]
        )
        self.assert_wrong("{respond: {status: 100}}", "6:20: R.respond.status: must be 200 or more (got 100)")
        self.assert_wrong("{respond: {status: 204, body: x}}", "6:10: R.respond: a 204 has no body")
        self.assert_wrong(
            "{respond: {headers: {Content-Length: '5', x: \"a\\nb\"}}}",
            "6:30: R.respond.headers.Content-Length: is set by the balancer itself",
            '6:51: R.respond.headers.x: must be visible ASCII text on one line (got "a\\nb")',
        )

    def test_redirect(self) -> None:
        """A target, with the rest of the path where it ends in *, and a status."""
        routes = listener(
            "routes: [{match: {path: /a/*}, redirect: {to: 'https://x/*'}}, "
            "{redirect: {to: /y, status: 302}}, {redirect: /z/*}]"
        ).routes
        self.assertEqual(
            [r.redirect for r in routes], [Redirect("https://x/*", 308), Redirect("/y", 302), Redirect("/z/*")]
        )
        self.assert_wrong("{redirect: {status: 301}}", "6:20: R.redirect.to: is required")
        self.assert_wrong(
            "{redirect: {to: /, status: 304}}", "6:28: R.redirect.status: must be 301, 302, 303, 307 or 308 (got 304)"
        )
        rule = "must be an http:// or https:// URL or a path, with * at its end only"
        self.assert_wrong("{redirect: {to: 'ftp://x'}}", f'6:21: R.redirect.to: {rule} (got "ftp://x")')
        self.assert_wrong("{redirect: {to: '/*/x'}}", f'6:21: R.redirect.to: {rule} (got "/*/x")')
        self.assert_wrong(
            '{redirect: {to: "/x\\r\\n"}}',
            '6:21: R.redirect.to: must be visible ASCII text without spaces (got "/x\\r\\n")',
        )
        self.assert_wrong(
            "{match: {path: /a}, redirect: /b/*}",
            "6:29: R.redirect: has a target that ends in *, but match.path does not: nothing is left to carry over",
        )

    def test_one_action(self) -> None:
        """A route does one thing; what does not act yet counts only where it asks for something."""
        self.assert_wrong("{match: {}}", "6:9: R: needs pool, respond or redirect")
        self.assert_wrong("{pool: null, deny: off, split: {}}", "6:9: R: needs pool, respond or redirect")
        self.assert_wrong("{pool: p, respond: {}}", "6:19: R.respond: cannot stand beside pool: a route does one thing")
        self.assert_wrong("{deny: 403}", "6:10: R.deny: is not supported yet")
        self.assert_wrong(
            "{split: {a: 1}, pool: p}",
            "6:10: R.split: is not supported yet",
            "6:25: R.pool: cannot stand beside split: a route does one thing",
        )
        self.assert_wrong("{pool: 5}", "6:10: R.pool: must be text: quote it (got 5)")

    def test_off_values(self) -> None:
        """What does not act yet is taken where it asks for nothing."""
        off = (
            "{pool: p, strip_prefix: null, rewrite: {}, request_headers: {set: {}, add: null, remove: []}, "
            "response_headers: off, "
            "timeout: null, body_size: null, rate_limit: off, fault: {}, deny: null, split: null, mirror: false}"
        )
        self.assert_wrong(off)
        keys = (
            "strip_prefix: /x",
            "rewrite: {path: [a, b]}",
            "request_headers: {remove: [A]}",
            "response_headers: {set: {A: b}}",
            "timeout: 5s",
            "body_size: 1",
            "rate_limit: 5/s",
            "fault: {abort: 500}",
            "mirror: {pool: p}",
        )
        for key in keys:
            self.assert_wrong(f"{{pool: p, {key}}}", f"6:19: R.{key.partition(':')[0]}: is not supported yet")

    def test_a_route_that_is_none(self) -> None:
        """Routes are a list of mappings; each that is none is named."""
        self.assertEqual(listener_mistakes("routes: {}"), ["5:5: listeners.web.routes: must be a list (got a mapping)"])
        self.assert_wrong("[]", "6:9: R: must be a mapping (got a list)")

    def test_routes_alone(self) -> None:
        """A listener without a pool serves its routes."""
        self.assertIsNone(settings("listeners: {a: {bind: 80, routes: [{respond: {}}]}}").listeners["a"].pool)
