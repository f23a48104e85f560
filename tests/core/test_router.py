"""Routes: the first that fits, found by host and path."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import TestCase

from lbsvc.core.router import Pattern, Route, RoutingTable, normal_host, normal_path


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
) -> str | None:
    found = routes.match(host, normal_path(path), method, (headers or {}).get)
    return None if found is None else found.name


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
        """All given headers must be there, with exactly these values."""
        routes = table(Pattern(headers=((b"x-canary", b"1"), (b"x-y", b"z"))))
        self.assertEqual(name_of(routes, headers={b"x-canary": b"1", b"x-y": b"z", b"other": b""}), "0")
        for headers in ({}, {b"x-canary": b"1"}, {b"x-canary": b"2", b"x-y": b"z"}, {b"x-canary": b"1", b"x-y": b"Z"}):
            self.assertEqual(name_of(routes, headers=headers), "default")

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


class Cost(TestCase):
    def test_a_thousand_routes(self) -> None:
        """With a thousand routes a request looks at a handful of them."""
        patterns = [Pattern(host=f"h{n % 50}.example", path=b"/p%d/*" % n) for n in range(500)]
        patterns += [Pattern(host=f"*.d{n}.example", path=b"/p%d" % n) for n in range(500)]
        routes = table(*patterns)
        self.assertEqual(name_of(routes, "h7.example", b"/p457/x"), "457")
        self.assertEqual(name_of(routes, "x.d123.example", b"/p123"), "623")
        for host in ("h7.example", "x.d123.example", "nowhere"):
            found = routes._candidates(host, b"/p457/x/y/z")
            self.assertLessEqual(sum(len(entries) for entries in found), 1)
