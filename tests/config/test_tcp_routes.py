"""Routes of tcp listeners: names, clients, pools, and what is refused because connections are no requests."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Match, RouteSettings
from lbsvc.core.policies import RatePolicy
from tests.config.reading import POOL, load, mistakes, settings


def around(written: str) -> str:
    """A tcp listener with a route, which begins at 6:9."""
    return f"listeners:\n  web:\n    bind: 80\n    protocol: tcp\n    routes:\n      - {written}\n{POOL}"


class TcpRouteCase(TestCase):
    def route(self, written: str, env: Mapping[str, str] | None = None) -> RouteSettings:
        return settings(around(written), env).listeners["web"].routes[0]

    def assert_wrong(self, written: str, *messages: str, env: Mapping[str, str] | None = None) -> None:
        """These are its mistakes, in which it is called R; it is right where there are none."""
        found = [m.replace("listeners.web.routes[0]", "R") for m in mistakes(around(written), env)]
        self.assertEqual(found, list(messages))


class MatchTests(TcpRouteCase):
    def names(self, written: str) -> tuple[str, ...]:
        return self.route(f"{{match: {{sni: {written}}}, pool: p}}").match.sni

    def test_names(self) -> None:
        """Exact names and *.name, one or a list, in lower case, without a trailing dot, each once."""
        self.assertEqual(self.names("A.Example.com."), ("a.example.com",))
        self.assertEqual(self.names("'*.Example.COM'"), ("*.example.com",))
        self.assertEqual(self.names("[a.b, '*.a.b', A.b., _x.b, localhost]"), ("a.b", "*.a.b", "_x.b", "localhost"))
        for empty in ("null", "[]", "off"):
            self.assertEqual(self.names(empty), ())
        self.assertEqual(self.route("{match: {sni: '${N}'}, pool: p}", {"N": "a.b"}).match.sni, ("a.b",))

    def test_clients(self) -> None:
        """Networks of clients, alone or beside names."""
        found = self.route("{match: {client: [10.0.0.0/8, unix], sni: a.b}, pool: p}").match
        self.assertEqual(found, Match(client=("10.0.0.0/8", "unix"), sni=("a.b",)))

    def test_wrong_names(self) -> None:
        """What no client can ask for by SNI is refused: ports, addresses, other wildcards."""
        rule = "must be a host name without a port, or *.example.com"
        for written in ("'a.b:443'", "'*'", "'a.*.b'", "'*a.b'", "'*.*.b'", "'a b'", "''", "ä.b", "'-a.b'"):
            got = written.strip("'")
            self.assert_wrong(f"{{match: {{sni: {written}}}, pool: p}}", f'6:18: R.match.sni: {rule} (got "{got}")')
        rule = "must be a host name: nobody asks for an address by SNI"
        for written in ("10.0.0.1", "'::1'", "'[::1]'", "'*.10.0.0.1'"):
            got = written.strip("'")
            self.assert_wrong(f"{{match: {{sni: {written}}}, pool: p}}", f'6:18: R.match.sni: {rule} (got "{got}")')
        self.assert_wrong(
            "{match: {sni: [a.b, 5, {}]}, pool: p}",
            "6:29: R.match.sni[1]: must be text: quote it (got 5)",
            "6:32: R.match.sni[2]: must be text (got a mapping)",
        )
        self.assert_wrong("{match: {sni: {}}, pool: p}", "6:18: R.match.sni: must be a list (got a mapping)")

    def test_what_only_requests_have(self) -> None:
        """Hosts, paths, methods and headers are refused; where they are empty they do no harm."""
        why = "means nothing where protocol is tcp: connections are matched by sni and client"
        self.assert_wrong(
            "{match: {host: a.b, path: /x, methods: GET, headers: {A: b}}, pool: p}",
            f"6:18: R.match.host: {why}",
            f"6:29: R.match.path: {why}",
            f"6:39: R.match.methods: {why}",
            f"6:53: R.match.headers: {why}",
        )
        off = "{match: {host: null, path: null, methods: [], headers: {}, sni: null, client: null}, pool: p}"
        self.assertEqual(self.route(off), RouteSettings("*", pool="p"))
        self.assert_wrong("{match: {snl: a}, pool: p}", "6:18: R.match.snl: unknown key (did you mean sni?)")

    def test_names_of_routes(self) -> None:
        """A route without a name is called after its match."""
        for written, name in {
            "{}": "*", "{sni: a.b}": "a.b", "{sni: [a.b, '*.c']}": "a.b,*.c", "{client: unix}": "client=unix",
            "{client: 10.0.0.0/8, sni: a.b}": "a.b client=10.0.0.0/8",
        }.items():  # fmt: skip
            self.assertEqual(self.route(f"{{match: {written}, pool: p}}").name, name)
        self.assertEqual(self.route("{name: api, match: {sni: a.b}, pool: p}").name, "api")


class ActionTests(TcpRouteCase):
    def test_pool_and_split(self) -> None:
        """A route leads to a pool, or splits by weight; one of the two."""
        self.assertEqual(self.route("{pool: p, split: {}}"), RouteSettings("*", pool="p"))
        self.assertEqual(self.route("{split: {p: 5}, pool: null}"), RouteSettings("*", split=(("p", 5),)))
        self.assert_wrong("{pool: p, split: {p: 1}}", "6:19: R.split: cannot stand beside pool: a route does one thing")
        self.assert_wrong("{split: {p: 1}, pool: p}", "6:25: R.pool: cannot stand beside split: a route does one thing")
        needs = "6:9: R: needs pool or split"
        self.assert_wrong("{match: {sni: a.b}}", needs)
        self.assert_wrong("{pool: null, split: off, respond: null, redirect: null, deny: off}", needs)
        self.assert_wrong("{pool: x}", '6:10: R.pool: there is no pool of this name (got "x")')
        self.assert_wrong("{split: {p: 0}}", "6:10: R.split: needs a weight above 0")
        self.assert_wrong("{split: {x: 1}}", "6:18: R.split.x: there is no pool of this name")
        self.assert_wrong("{pool: 5}", "6:10: R.pool: must be text: quote it (got 5)")

    def test_rate_limit(self) -> None:
        """By client or for the whole route; a header is none of a connection."""
        self.assertEqual(self.route("{pool: p, rate_limit: 5/s}").rate_limit, RatePolicy(5.0, 5))
        found = self.route("{pool: p, rate_limit: {rate: 1/s, burst: 9, key: listener}}").rate_limit
        self.assertEqual(found, RatePolicy(1.0, 9, "listener"))
        self.assert_wrong(
            "{pool: p, rate_limit: {rate: 1/s, key: 'header:A'}}",
            "6:43: R.rate_limit.key: cannot be a header where protocol is tcp: there are no requests",
        )

    def test_what_needs_requests(self) -> None:
        """Answers of our own, edits, copies and faults are refused, each once and at its key."""
        why = "means nothing where protocol is tcp: there are no requests to answer; a route leads to a pool, or splits"
        for key, written in {"respond": "{}", "redirect": "/x", "deny": "403"}.items():
            self.assert_wrong(f"{{{key}: {written}}}", f"6:10: R.{key}: {why}")
            self.assert_wrong(f"{{{key}: {written}, pool: p}}", f"6:10: R.{key}: {why}")
        why = "means nothing where protocol is tcp: there are no requests; a route leads to a pool, or splits"
        for key, written in {
            "strip_prefix": "/v1", "rewrite": "{path: [a, /b]}", "request_headers": "{remove: A}",
            "response_headers": "{remove: A}", "timeout": "5s", "body_size": "5", "fault": "{abort: 503}", "mirror": "p",
        }.items():  # fmt: skip
            self.assert_wrong(f"{{{key}: {written}, pool: p}}", f"6:10: R.{key}: {why}")

    def test_off_values(self) -> None:
        """What asks for nothing is as if it were not there."""
        off = (
            "{pool: p, strip_prefix: off, rewrite: {}, request_headers: {set: {}}, response_headers: null, timeout: off, "
            "body_size: null, rate_limit: off, fault: {}, deny: off, split: null, mirror: false, respond: null}"
        )
        self.assertEqual(self.route(off), RouteSettings("*", pool="p"))

    def test_unknown_keys(self) -> None:
        """An unknown key says what was probably meant."""
        self.assert_wrong("{pol: p}", "6:9: R: needs pool or split", "6:10: R.pol: unknown key (did you mean pool?)")

    def test_a_route_that_is_none(self) -> None:
        """Routes are a list of mappings."""
        self.assert_wrong("[]", "6:9: R: must be a mapping (got a list)")
        self.assertEqual(
            mistakes("listeners: {a: {bind: 80, protocol: tcp, routes: {}, pool: p}}\n" + POOL),
            ["1:42: listeners.a.routes: must be a list (got a mapping)"],
        )


class ProtocolTests(TcpRouteCase):
    def test_routes_are_enough(self) -> None:
        """A tcp listener needs a pool, routes, or both; null and an empty list are no routes."""
        found = settings(around("{match: {sni: a.b}, pool: p}")).listeners["web"]
        self.assertEqual((found.pool, len(found.routes)), (None, 1))
        for none in ("null", "[]"):
            text = f"listeners: {{a: {{bind: 80, protocol: tcp, routes: {none}}}}}\n"
            self.assertEqual(mistakes(text), ["1:16: listeners.a: needs a pool or routes"])

    def test_wherever_the_protocol_stands(self) -> None:
        """The protocol may stand behind the routes, and come from a variable."""
        for protocol in ("tcp", "'tcp'", "'${P}'", "'${Q:-tcp}'"):
            text = f"listeners: {{a: {{bind: 80, routes: [{{match: {{sni: a.b}}, pool: p}}], protocol: {protocol}}}}}\n"
            self.assertEqual(mistakes(text + POOL, {"P": "tcp"}), [])

    def test_a_protocol_that_cannot_be_read(self) -> None:
        """What is wrong with the protocol is said once."""
        text = "listeners: {a: {bind: 80, protocol: '${P}', routes: [{pool: p}]}}\n" + POOL
        self.assertEqual(mistakes(text), ["1:27: listeners.a.protocol: ${P} is not set and has no default"])
        self.assertEqual(mistakes("listeners: {a: 5}\n"), ["1:13: listeners.a: must be a mapping (got 5)"])

    def test_pools_are_used_by_tcp(self) -> None:
        """A pool of such a route is one that a tcp listener uses: it cannot be hashed by what requests have."""
        text = around("{split: {p: 1}}") + "    hash_key: path\n    algorithm: consistent_hash\n"
        self.assertEqual(
            mistakes(text),
            ["10:5: pools.p.hash_key: must be client_ip where a tcp listener uses the pool: it sees no requests"],
        )

    def test_handshake(self) -> None:
        """`timeouts.handshake` acts where names are looked for, and is noted where it does not."""
        for route, is_noted in {
            "{match: {sni: a.b}, pool: p}": False,
            "{match: {client: unix}, pool: p}": True,
        }.items():
            text = around(route).replace("    routes:", "    timeouts: {handshake: 1s}\n    routes:")
            notes = [note for note in load(text).notes if "timeouts.handshake" in note]
            self.assertEqual(bool(notes), is_noted)
