"""Routes: what a request must have, and what is done with it. (What is changed on the way: test_edits.py.)"""

from __future__ import annotations

from lbsvc.config.schema import Fault, Match, Mirror, Respond, RouteSettings
from tests.config.reading import RouteCase, listener, listener_mistakes, settings


class MatchTests(RouteCase):
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
            "{match: {methods: GTE}, pool: p}",
            '6:18: R.match.methods: is no method that is passed on (got "GTE"; did you mean GET?)',
        )
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
            "{match: {sni: a}, pool: p}", "6:18: R.match.sni: means nothing where protocol is http: use host"
        )

    def test_clients(self) -> None:
        """Networks of clients, in CIDR form, each once; one alone needs no list."""
        self.assertEqual(self.match("{client: [10.0.0.0/8, 10.0.0.0/8, unix]}").client, ("10.0.0.0/8", "unix"))
        self.assertEqual(self.match("{client: 10.0.0.1}").client, ("10.0.0.1/32",))
        for empty in ("null", "[]"):
            self.assertEqual(self.match(f"{{client: {empty}}}"), Match())
        self.assert_wrong(
            "{match: {client: [10.0.0.1/8]}, pool: p}",
            "6:27: R.match.client[0]: has bits set beyond its length "
            '(got "10.0.0.1/8"; did you mean 10.0.0.0/8 or 10.0.0.1?)',
        )
        self.assert_wrong("{match: {client: {}}, pool: p}", "6:18: R.match.client: must be a list (got a mapping)")

    def test_names(self) -> None:
        """A route without a name is called after its match."""
        for written, name in {
            "{}": "*", "{host: a.b, path: /v1/*}": "a.b/v1/*", "{methods: [POST, GET], path: /x}": "GET,POST /x",
            "{headers: {X-A: '1'}}": "x-a=1", "{host: a.b}": "a.b", "{client: [10.0.0.0/8, unix]}": "client=10.0.0.0/8,unix",
        }.items():  # fmt: skip
            self.assertEqual(listener(f"routes: [{{match: {written}, pool: p}}]").routes[0].name, name)
        self.assertEqual(listener("routes: [{name: api, pool: p}]").routes[0].name, "api")


class ActionTests(RouteCase):
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

    def test_deny(self) -> None:
        """A status of refusal; true is no status, and says which is usual."""
        self.assertEqual([self.route(f"{{deny: {status}}}").deny for status in (400, 403, 599)], [400, 403, 599])
        self.assert_wrong("{deny: true}", "6:10: R.deny: must be the status that is answered, such as 403 (got true)")
        self.assert_wrong("{deny: 399}", "6:10: R.deny: must be 400 or more (got 399)")
        self.assert_wrong("{deny: 600}", "6:10: R.deny: must be 599 or less (got 600)")
        self.assert_wrong('{deny: "403"}', '6:10: R.deny: must be a whole number (got "403")')
        self.assert_wrong("{deny: {}}", "6:10: R.deny: must be a whole number (got a mapping)")

    def test_split(self) -> None:
        """Weights by pool, of which one is above 0; every pool must be there."""
        self.assertEqual(self.route("{split: {p: 95}}").split, (("p", 95),))
        text = "listeners: {a: {bind: 80, routes: [{split: {q: 0, p: 65535}}]}}\npools:\n"
        text += "  p: {backends: ['h:1']}\n  q: {backends: ['h:2']}\n"
        self.assertEqual(settings(text).listeners["a"].routes[0].split, (("q", 0), ("p", 65535)))
        self.assert_wrong("{split: {p: 0}}", "6:10: R.split: needs a weight above 0")
        self.assert_wrong("{split: {p: 0, q: x}}",
                          '6:24: R.split.q: must be a whole number (got "x")',
                          "6:24: R.split.q: there is no pool of this name")  # fmt: skip
        self.assert_wrong(
            "{split: {p: 5%, pp: 95, zzz: -1}}",
            '6:18: R.split.p: must be a whole number (got "5%")',
            "6:25: R.split.pp: there is no pool of this name (did you mean p?)",
            "6:33: R.split.zzz: must be 0 or more (got -1)",
            "6:33: R.split.zzz: there is no pool of this name",
        )
        self.assert_wrong("{split: {p: 65536}}", "6:18: R.split.p: must be 65535 or less (got 65536)")
        self.assert_wrong("{split: [p]}", "6:10: R.split: must be a mapping (got a list)")
        self.assert_wrong("{split: p}", '6:10: R.split: must be a mapping (got "p")')

    def test_one_action(self) -> None:
        """A route does one thing; an action that is off is none."""
        needs = "6:9: R: needs pool, respond, redirect, deny or split"
        self.assert_wrong("{match: {}}", needs)
        self.assert_wrong("{pool: null, deny: off, split: {}, respond: null, redirect: null}", needs)
        self.assert_wrong("{deny: false, split: off}", needs)
        self.assert_wrong("{pool: p, deny: off, split: null}")
        self.assert_wrong("{pool: p, respond: {}}", "6:19: R.respond: cannot stand beside pool: a route does one thing")
        self.assert_wrong("{split: {p: 1}, pool: p}", "6:25: R.pool: cannot stand beside split: a route does one thing")
        self.assert_wrong(
            "{deny: 403, redirect: /x, split: {p: 1}}",
            "6:21: R.redirect: cannot stand beside deny: a route does one thing",
            "6:35: R.split: cannot stand beside deny: a route does one thing",
        )
        self.assert_wrong("{pool: 5}", "6:10: R.pool: must be text: quote it (got 5)")

    def test_what_only_backends_see(self) -> None:
        """Beside an answer of our own, what is changed, awaited or copied for backends is refused, and the rest is not."""
        keys = {
            "strip_prefix": "/v1",
            "rewrite": "{path: [a, /b]}",
            "request_headers": "{remove: A}",
            "timeout": "5s",
            "mirror": "p",
        }
        for action, written in {"respond": "{}", "redirect": "/x", "deny": "403"}.items():
            for key, value in keys.items():
                self.assert_wrong(
                    f"{{{key}: {value}, {action}: {written}}}",
                    f"6:10: R.{key}: means nothing beside {action}: no backend is asked",
                )
            off = ", ".join(f"{key}: {'off' if key in ('rewrite', 'mirror') else 'null'}" for key in keys)
            self.assert_wrong(f"{{{action}: {written}, {off}}}")
            self.assert_wrong(
                f"{{{action}: {written}, response_headers: {{set: {{A: b}}}}, body_size: 5, fault: {{delay: 1s}}}}"
            )


class BesideTests(RouteCase):
    def test_off_values(self) -> None:
        """What asks for nothing is as if it were not there."""
        plain = RouteSettings("*", pool="p")
        for off in (
            "{pool: p, strip_prefix: null, rewrite: {}, request_headers: {set: {}, add: null, remove: []}, "
            "response_headers: off, timeout: null, body_size: null, rate_limit: off, fault: {}, deny: null, split: null, "
            "mirror: false}",
            "{pool: p, strip_prefix: off, rewrite: {path: null}, request_headers: null, response_headers: {}, "
            "timeout: off, body_size: false, fault: off, deny: off, split: {}, mirror: {}}",
            "{pool: p, rewrite: off, request_headers: false, fault: {delay: null}, mirror: null}",
        ):
            self.assertEqual(self.route(off), plain)

    def test_every_key(self) -> None:
        """All that acts, together."""
        found = self.route(
            "{name: api, match: {path: /v1/*}, pool: p, strip_prefix: /v1, "
            "rewrite: {path: ['^/u/([0-9]+)$', '/users/\\1']}, "
            "request_headers: {set: {X-From: lb}, add: {}, remove: [X-Debug]}, response_headers: {remove: Server}, "
            "timeout: 30s, body_size: 1MiB, fault: {delay: 200ms, abort: 503, percent: 5%}, mirror: {pool: p, percent: 10%}}"
        )
        self.assertEqual((found.name, found.match, found.pool), ("api", Match(path="/v1/*"), "p"))
        self.assertEqual((found.strip_prefix, found.rewrite), ("/v1", ("^/u/([0-9]+)$", "/users/\\1")))
        self.assertEqual((found.request_headers.set, found.request_headers.add), ((("X-From", "lb"),), ()))
        self.assertEqual((found.request_headers.remove, found.response_headers.remove), (("x-debug",), ("server",)))
        self.assertEqual((found.timeout, found.body_size), (30, 1 << 20))
        self.assertEqual((found.fault, found.mirror), (Fault(0.2, 503, 0.05), Mirror("p", 0.1)))

    def test_timeout_and_body_size(self) -> None:
        """A duration that is none of nothing, and a size that may be."""
        self.assertEqual(self.route("{pool: p, body_size: 0}").body_size, 0)
        self.assert_wrong(
            "{pool: p, timeout: 0, body_size: 5K}",
            "6:19: R.timeout: must be 1ms or more (got 0)",
            '6:31: R.body_size: must be a size such as 512, 16KiB or 8MiB (got "5K")',
        )

    def test_mirror(self) -> None:
        """A pool, and a share of the requests; the pool alone is all of them."""
        self.assertEqual(self.route("{pool: p, mirror: p}").mirror, Mirror("p", 1))
        self.assertEqual(self.route("{split: {p: 1}, mirror: {pool: p, percent: 0%}}").mirror, Mirror("p", 0))
        self.assert_wrong("{pool: p, mirror: {percent: 5%}}", "6:27: R.mirror.pool: is required")
        self.assert_wrong("{pool: p, mirror: {pool: null, percent: 5%}}", "6:27: R.mirror.pool: is required")
        self.assert_wrong("{pool: p, mirror: {pool: 5}}", "6:28: R.mirror.pool: must be text: quote it (got 5)")
        self.assert_wrong(
            "{pool: p, mirror: {pool: z, percent: 5, to: p}}",
            '6:28: R.mirror.pool: there is no pool of this name (got "z")',
            "6:37: R.mirror.percent: must be a share from 0% to 100%, with the % sign (got 5)",
            "6:49: R.mirror.to: unknown key",
        )
        self.assert_wrong("{pool: p, mirror: zz}", '6:19: R.mirror: there is no pool of this name (got "zz")')
        self.assert_wrong("{pool: p, mirror: true}", "6:19: R.mirror: must be text: quote it (got true)")
        self.assert_wrong("{pool: p, mirror: [p]}", "6:19: R.mirror: must be a mapping, or off (got a list)")

    def test_fault(self) -> None:
        """A delay, an abort, or both, for a share of the requests or for all of them."""
        self.assertEqual(self.route("{pool: p, fault: {delay: 1s}}").fault, Fault(1, None, 1))
        self.assertEqual(self.route("{respond: {}, fault: {abort: 400, percent: 0%}}").fault, Fault(0, 400, 0))
        self.assertEqual(self.route("{pool: p, fault: {delay: 0s}}").fault, Fault())
        self.assert_wrong("{pool: p, fault: {percent: 5%}}", "6:26: R.fault: needs delay or abort")
        self.assert_wrong("{pool: p, fault: {abort: null, percent: 5%}}", "6:26: R.fault: needs delay or abort")
        self.assert_wrong("{pool: p, fault: {abort: 200}}", "6:27: R.fault.abort: must be 400 or more (got 200)")
        self.assert_wrong(
            "{pool: p, fault: {delay: -1s, abort: 600, percent: 5}}",
            '6:27: R.fault.delay: must be 0s or more (got "-1s")',
            "6:39: R.fault.abort: must be 599 or less (got 600)",
            "6:51: R.fault.percent: must be a share from 0% to 100%, with the % sign (got 5)",
        )
        self.assert_wrong("{pool: p, fault: 503}", "6:19: R.fault: must be a mapping, or off (got 503)")

    def test_a_route_that_is_none(self) -> None:
        """Routes are a list of mappings; each that is none is named."""
        self.assertEqual(listener_mistakes("routes: {}"), ["5:5: listeners.web.routes: must be a list (got a mapping)"])
        self.assert_wrong("[]", "6:9: R: must be a mapping (got a list)")

    def test_routes_alone(self) -> None:
        """A listener without a pool serves its routes."""
        self.assertIsNone(settings("listeners: {a: {bind: 80, routes: [{respond: {}}]}}").listeners["a"].pool)
