"""Routes: the first that fits, found by host and path."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import TestCase

from lbsvc.core.indexing import FEW
from lbsvc.core.networks import Networks
from lbsvc.core.router import LONGEST, MEMORY, Pattern, Route, RoutingTable, normal_host, normal_path


def table(*patterns: Pattern, default: bool = True) -> RoutingTable:
    """Routes named 0, 1, 2...; their actions are their names."""
    routes = [Route(str(n), pattern, str(n)) for n, pattern in enumerate(patterns)]
    return RoutingTable(routes, Route("default", Pattern(), "default") if default else None)


def name_of(
    routes: RoutingTable,
    host: str = "a.example",
    path: bytes = b"/",
    method: bytes = b"GET",
    headers: Mapping[bytes, bytes] | None = None,
    client: str = "192.0.2.1",
) -> str | None:
    path = path if path == b"*" else normal_path(path)
    found = routes.match(host, path, method, (headers or {}).get, client)
    return None if found is None else found.name


def many_by_header() -> list[Pattern]:
    """More than are looked at one by one, the first of which is the one."""
    return [Pattern(headers=((b"r", value),)) for value in (b"admin", *(b"r%d" % n for n in range(3 * FEW)))]


class Paths(TestCase):
    def test_exact(self) -> None:
        """An exact path fits itself alone, in every spelling of it."""
        routes = table(Pattern(path=b"/ping"))
        for path in (b"/ping", b"/%70ing", b"//ping", b"/x/../ping"):
            self.assertEqual(name_of(routes, path=path), "0")
        for path in (b"/ping/", b"/pin", b"/pingx", b"/PING", b"/"):
            self.assertEqual(name_of(routes, path=path), "default")

    def test_prefix(self) -> None:
        """ALG-7: /v1/* fits /v1 and /v1/x on segment borders, and not /v1x."""
        for pattern in (b"/v1/*", b"/v1*", b"//v1/*", b"/%761/*"):
            routes = table(Pattern(path=pattern))
            for path in (b"/v1", b"/v1/", b"/v1/x", b"/v1/x/y", b"/v1/%2e%2e/v1"):
                self.assertEqual(name_of(routes, path=path), "0", path)
            for path in (b"/v1x", b"/v", b"/", b"/x/v1", b"/v1/../admin"):
                self.assertEqual(name_of(routes, path=path), "default", path)

    def test_prefixes_of_every_depth(self) -> None:
        """A deep prefix is found whatever stands before and after it; the first in order wins."""
        routes = table(Pattern(path=b"/a/b/c/*"), Pattern(path=b"/a/*"), Pattern(path=b"/a/b/*"))
        for path, name in ((b"/a/b/c/d", "0"), (b"/a/b/c", "0"), (b"/a/b/x", "1"), (b"/a", "1"), (b"/b", "default")):
            self.assertEqual(name_of(routes, path=path), name)

    def test_prefixes_in_other_spellings(self) -> None:
        """A prefix is normal in the pattern too, with as many slashes and dots as it may have."""
        for pattern in (b"/a/./*", b"/a//*", b"/x/../a/*", b"/%61/*", b"/a/.*"):
            routes = table(Pattern(path=pattern))
            for path, name in ((b"/a", "0"), (b"/a/", "0"), (b"/a/b", "0"), (b"/ab", "default"), (b"/", "default")):
                self.assertEqual(name_of(routes, path=path), name, pattern)
        self.assertEqual(name_of(table(Pattern(path=b"/./*")), path=b"/z"), "0")

    def test_exact_beside_prefix(self) -> None:
        """One path, exact and as a prefix and with a slash behind it: each keeps its place in the order."""
        exact, prefix, below = Pattern(path=b"/a"), Pattern(path=b"/a/*"), Pattern(path=b"/a/")
        asked = (b"/a", b"/a/", b"/a/b")
        self.assertEqual([name_of(table(exact, prefix, below), path=path) for path in asked], ["0", "1", "1"])
        self.assertEqual([name_of(table(below, exact, prefix), path=path) for path in asked], ["1", "0", "2"])
        self.assertEqual([name_of(table(prefix, exact, below), path=path) for path in asked], ["0", "0", "0"])

    def test_asterisk(self) -> None:
        """The target * of OPTIONS is no path: it fits routes that ask for none, not those on the root."""
        routes = table(Pattern(path=b"/"), Pattern(path=b"//*/x"), Pattern(path=b"/**"), Pattern(path=b"/*"))
        self.assertEqual(name_of(routes, path=b"*", method=b"OPTIONS"), "3")
        self.assertEqual(name_of(table(Pattern(path=b"/")), path=b"*", method=b"OPTIONS"), "default")
        self.assertEqual(name_of(table(Pattern()), path=b"*", method=b"OPTIONS"), "0")

    def test_very_deep(self) -> None:
        """A path of very many segments, in a pattern and in a request, is compared as any other."""
        deep = b"/a" * 5000
        routes = table(Pattern(path=deep + b"/*"), Pattern(path=b"/a/*"))
        for path, name in ((deep, "0"), (deep + b"/b", "0"), (deep[:-2], "1"), (b"/b" + deep, "default")):
            self.assertEqual(name_of(routes, path=path), name)

    def test_everything(self) -> None:
        """/* and * fit every path, as no path does."""
        for pattern in (b"/*", b"*", None):
            routes = table(Pattern(path=pattern))
            for path in (b"/", b"/a", b"/a/b/"):
                self.assertEqual(name_of(routes, path=path), "0")


class Hosts(TestCase):
    def test_what_does_not_count(self) -> None:
        """Port, case and a trailing dot of the request's Host do not count, nor those of the pattern."""
        for pattern in ("api.example.com", "API.example.com."):
            routes = table(Pattern(host=pattern))
            for host in ("api.example.com", "API.Example.COM:8443", "api.example.com.", "api.example.com.:80"):
                self.assertEqual(name_of(routes, host), "0")
            for host in ("", "example.com", "x.api.example.com", "api.example.com.evil.test"):
                self.assertEqual(name_of(routes, host), "default")

    def test_wildcard(self) -> None:
        """*.example.com fits any depth below it, not the bare name, and no name that only ends alike."""
        routes = table(Pattern(host="*.example.com"))
        for host in ("a.example.com", "a.b.c.example.com", "A.EXAMPLE.com.:1"):
            self.assertEqual(name_of(routes, host), "0")
        for host in ("example.com", "aexample.com", ".example.com", "a.example.com.au", ""):
            self.assertEqual(name_of(routes, host), "default")

    def test_literals(self) -> None:
        """IP literals are hosts; IPv6 ones with or without brackets in the pattern."""
        for pattern in ("[::1]", "::1", "[::1]:80"):
            self.assertEqual(name_of(table(Pattern(host=pattern)), "[::1]:8080"), "0")
        self.assertEqual(name_of(table(Pattern(host="127.0.0.1")), "127.0.0.1:8080"), "0")

    def test_normal_host(self) -> None:
        """One dot at the end goes, not two; an empty Host stays empty."""
        self.assertEqual([normal_host(text) for text in ("A.b.", "a.b..", "", ":80")], ["a.b", "a.b.", "", ""])

    def test_no_host(self) -> None:
        """A request without a Host fits patterns without one."""
        routes = table(Pattern(host="a.example"), Pattern(host="*.example"), Pattern(path=b"/x"))
        self.assertEqual(name_of(routes, "", b"/x"), "2")

    def test_a_thousand_labels(self) -> None:
        """A Host of very many labels still finds its suffix, and only looks as deep as patterns go."""
        routes = table(Pattern(host="*.example.com"))
        self.assertEqual(name_of(routes, "x." * 1000 + "example.com"), "0")
        self.assertEqual(name_of(routes, "x." * 1000 + "example.org"), "default")


class Order(TestCase):
    def test_first_wins(self) -> None:
        """Of all that fit the first in written order is taken, however it is found."""
        routes = table(
            Pattern(path=b"/a/*", methods=frozenset({b"POST"})),
            Pattern(host="*.example"),
            Pattern(path=b"/a/b"),
            Pattern(host="a.example", path=b"/a/*"),
        )
        self.assertEqual(name_of(routes, path=b"/a/b", method=b"POST"), "0")
        self.assertEqual(name_of(routes, path=b"/a/b"), "1")
        self.assertEqual(name_of(routes, "other", b"/a/b"), "2")
        self.assertEqual(name_of(routes, "other", b"/a/c"), "default")

    def test_methods(self) -> None:
        """Methods are compared exactly."""
        routes = table(Pattern(methods=frozenset({b"GET", b"POST"})))
        self.assertEqual(
            [name_of(routes, method=m) for m in (b"GET", b"POST", b"get", b"PUT")], ["0", "0", *["default"] * 2]
        )

    def test_headers(self) -> None:
        """All given headers must be there, with exactly these values; a member of a list is a value."""
        routes = table(Pattern(headers=((b"x-canary", b"1"), (b"x-y", b"z"))))
        self.assertEqual(name_of(routes, headers={b"x-canary": b"1", b"x-y": b"z", b"other": b""}), "0")
        for headers in ({}, {b"x-canary": b"1"}, {b"x-canary": b"2", b"x-y": b"z"}, {b"x-canary": b"1", b"x-y": b"Z"}):
            self.assertEqual(name_of(routes, headers=headers), "default")

    def test_header_lists(self) -> None:
        """A value is found in a list wherever it stands, as a whole and with nothing in it; not as a part of a member."""
        for routes in (table(Pattern(headers=((b"r", b"admin"),))), table(*many_by_header(), default=False)):
            fitting = (b"admin", b"user, admin", b"admin,user", b"user,\tadmin , x", b",admin", b'"a, admin, b"')
            other = (b"", b"Admin", b"administrator", b"user admin", b"x-admin", b"admin;q=1", b'"admin"', b"ad, min")
            for value in fitting:
                self.assertEqual(name_of(routes, headers={b"r": value}), "0", value)
            for value in other:
                self.assertIn(name_of(routes, headers={b"r": value}), ("default", None), value)
        routes = table(Pattern(headers=((b"r", b"a, b"),)), Pattern(headers=((b"r", b""),)))
        asked = (b"a, b", b"a,b", b"a, b, c", b"", b"c,")
        found = [name_of(routes, headers={b"r": each}) for each in asked]
        self.assertEqual(found, ["0", "default", "default", "1", "1"])

    def test_client(self) -> None:
        """A client must be in one of a route's networks; who has no address is in none but `unix`."""
        routes = table(
            Pattern(networks=Networks(["10.0.0.0/8", "2001:db8::/32"])), Pattern(networks=Networks(["unix"]))
        )
        asked = ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "unix", "192.0.2.1", "unknown", "")
        self.assertEqual([name_of(routes, client=each) for each in asked], [*["0"] * 3, "1", *["default"] * 3])
        self.assertEqual(name_of(table(Pattern(networks=Networks([])))), "default")

    def test_all_of_a_pattern(self) -> None:
        """Whatever a pattern asks for, one part that does not fit is enough to pass the route over."""
        pattern = Pattern("a", b"/x", frozenset({b"GET"}), ((b"h", b"1"),), Networks(["192.0.2.0/24"]))
        fitting = {"host": "a", "path": b"/x", "method": b"GET", "headers": {b"h": b"1"}, "client": "192.0.2.1"}
        routes = table(pattern)
        self.assertEqual(name_of(routes, **fitting), "0")
        others = {"host": "b", "path": b"/y", "method": b"PUT", "headers": {b"h": b"2"}, "client": "192.0.3.1"}
        for part, other in others.items():
            self.assertEqual(name_of(routes, **{**fitting, part: other}), "default", part)

    def test_only_what_is_asked_for(self) -> None:
        """Headers and the client are looked at only by routes that fit by host, path and method."""
        asked: list[bytes] = []
        networks = Networks(["10.0.0.0/8"])
        headers = ((b"h", b"1"),)
        routes = RoutingTable(
            [
                Route("0", Pattern("b.example", headers=headers), None),
                Route("1", Pattern(path=b"/b", headers=headers), None),
                Route("2", Pattern(methods=frozenset({b"PUT"}), headers=headers), None),
                Route("3", Pattern(networks=networks, headers=headers), None),
                Route("4", Pattern(), None),
                Route("5", Pattern(headers=headers), None),
            ]
        )
        found = routes.match("a.example", b"/a", b"GET", asked.append, "192.0.2.1")
        self.assertEqual((getattr(found, "name", None), asked), ("4", []))

    def test_no_default(self) -> None:
        """Without a default nothing is found where nothing fits."""
        self.assertIsNone(name_of(table(Pattern(path=b"/x"), default=False)))
        self.assertIsNone(name_of(table(default=False)))

    def test_trivial(self) -> None:
        """A table of the default alone says so, and gives it for anything."""
        self.assertTrue(table().is_trivial)
        self.assertEqual(name_of(table()), "default")
        self.assertFalse(table(Pattern(path=b"/x")).is_trivial)
        self.assertEqual(repr(table(Pattern())), "<RoutingTable 1 routes, default default>")


class Looked(frozenset[bytes]):
    """Methods that count how often a route was looked at."""

    times = 0

    def __contains__(self, method: object) -> bool:
        Looked.times += 1
        return super().__contains__(method)


class Cost(TestCase):
    def test_a_thousand_routes(self) -> None:
        """With a thousand routes a request looks at a handful of them."""
        methods = Looked({b"GET"})
        patterns = [Pattern(f"h{n % 50}.example", b"/p%d/*" % n, methods) for n in range(500)]
        patterns += [Pattern(f"*.d{n}.example", b"/p%d" % n, methods) for n in range(500)]
        routes = table(*patterns)
        for host, path, name, looked in (
            ("h7.example", b"/p457/x", "457", 1),
            ("x.d123.example", b"/p123", "623", 1),
            ("x.d123.example", b"/p124", "default", 0),
            ("nowhere", b"/p457/x/y/z", "default", 0),
        ):
            Looked.times = 0
            self.assertEqual((name_of(routes, host, path), Looked.times), (name, looked))

    def test_a_thousand_alike(self) -> None:
        """With a thousand routes on one host and path a request looks at those that may fit; the first in order wins."""
        methods = Looked({b"GET"})
        patterns = [
            Pattern("a.example", b"/p/*", methods, ((b"x", b"%d" % (n // 2)),), Networks([f"10.{n % 2}.0.0/16"]))
            for n in range(1000)
        ]
        routes = table(*patterns, Pattern("a.example", b"/p/*"), Pattern(methods=methods))
        for path, headers, name, looked in (
            (b"/p/q", {b"x": b"300"}, "601", 2),
            (b"/p", {b"x": b"300, 7"}, "15", 4),
            (b"/p", {b"x": b"x"}, "1000", 0),
            (b"/q", {b"x": b"300"}, "1001", 1),
        ):
            Looked.times = 0
            self.assertEqual(name_of(routes, path=path, headers=headers, client="10.1.2.3"), name)
            self.assertLessEqual(Looked.times, looked)

    def test_memory_of_hosts(self) -> None:
        """However many hosts are asked for, and however long, a bounded number is remembered; the answers are the same."""
        routes = table(Pattern("*.example", b"/x"))
        for n in range(3 * MEMORY // 2):
            self.assertEqual(name_of(routes, f"h{n}.example", b"/x"), "0")
            self.assertEqual(name_of(routes, f"h{n}.test", b"/x"), "default")
            self.assertLessEqual(len(routes._memory), MEMORY)
        long = "x" * LONGEST + ".example"
        self.assertEqual([name_of(routes, long, b"/x") for _ in range(2)], ["0", "0"])
        self.assertNotIn(long, routes._memory)
        self.assertEqual(name_of(routes, "h0.example", b"/x"), "0")
